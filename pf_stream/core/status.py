"""What can be said of a lane from outside.

Plain data, beside the lane and not in the engine, so that tools read it without loading Faust.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LaneState", "LaneStatus", "SinkState", "SinkStatus", "TableState", "TableStatus"]


class LaneState(enum.StrEnum):
    """What a lane does."""

    opening = "opening"
    """It takes its lease, or asks where its topics begin and end."""
    recovering = "recovering"
    """It reads its changelog."""
    running = "running"
    """It is open."""
    waiting = "waiting"
    """It is open, and Kafka gives it nothing to read: a broker or a topic is away. It goes on by itself."""
    paused = "paused"
    """It is open, and a record waits for its next try; what lies behind it waits too."""
    standby = "standby"
    """It follows its changelog, in case that the worker which has it ends."""
    stopped = "stopped"
    """It has given up until the group assigns it anew."""

    @property
    def is_open(self) -> bool:
        """Whether the lane takes records, as far as there are any."""
        return self in {LaneState.running, LaneState.waiting, LaneState.paused}


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """A lane at one moment."""

    group: str
    """Name of its group of reactors."""
    changelog: str
    """Its changelog topic."""
    partition: int
    """Its partition, of the changelog as of its source topics."""
    state: LaneState
    """What it does."""
    progress: float | None = None
    """Share of the changelog that is read, 0 to 1, while it is recovering."""
    recovery_rate: float | None = None
    """Changelog records that it reads a second, while it is recovering."""
    left_s: float | None = None
    """Seconds until it has recovered, if it goes on like that."""
    until_ms: int | None = None
    """When it tries again, milliseconds since the epoch, while it is paused."""
    code: str | None = None
    """Why it stopped, for machines."""
    reason: str | None = None
    """Why it stopped, or what it waits for, for people."""
    positions: Mapping[str, int] | None = None
    """Next offset of each source topic; None until it is recovered."""
    lag: int | None = None
    """Records that wait in its source topics, as of the last fetch of each; of a standby, in its changelog. None if none has
    answered yet."""
    handled: int = 0
    """Intents handled since it was opened."""
    refused: int = 0
    """Records refused since it was opened."""
    lags: Mapping[str, int] | None = None
    """*lag* by source topic, as far as they have answered."""
    timers: int = 0
    """Timers that wait, and intents that wait for their time or for another try."""
    rate: float = 0.0
    """Intents handled per second, of late."""
    commit_p99_ms: float | None = None
    """How long commits took of late, milliseconds, all but the slowest hundredth; None if there were none."""
    timer_late_ms: float | None = None
    """How late the latest timer of late was, milliseconds from its due time to the commit; None if none fired."""
    error_rate: float | None = None
    """Which share of what was decided of late was refused, 0 to 1; None if nothing was."""
    watermark_delay_s: float | None = None
    """How far its event clock is behind this machine's, in seconds; None where no reactor asked for it."""
    tallies: Mapping[str, Mapping[str, int]] | None = None
    """What its reactors count, by reactor and name, since the start of the worker."""
    windows: Mapping[str, int] | None = None
    """Windows that are open, by reactor; None where none is."""

    @property
    def name(self) -> str:
        """Its group and partition, as ``intents-0``."""
        return f"{self.group}-{self.partition}"


class SinkState(enum.StrEnum):
    """What a sink does with a partition."""

    opening = "opening"
    """It asks where it goes on."""
    running = "running"
    """It hands over what comes."""
    full = "full"
    """So much waits for its consumer that nothing more is read."""
    retrying = "retrying"
    """Its consumer raised, and gets the batch again after a pause."""
    waiting = "waiting"
    """Kafka gives it nothing to read: a broker or a topic is away. It goes on by itself."""
    stopped = "stopped"
    """It cannot go on, and tries again from time to time."""


class TableState(enum.StrEnum):
    """What a worker does with a global table."""

    reading = "reading"
    """It has not been read to its end yet, and lanes wait for that."""
    running = "running"
    """It is read as it grows."""
    waiting = "waiting"
    """Kafka gives nothing to read of it: a broker or the topic is away. It goes on by itself, and lanes go on with what there is."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """A global table in a worker at one moment."""

    topic: str
    """Its topic, as the topology names it."""
    state: TableState
    """What the worker does with it."""
    rows: int = 0
    """How many there are."""
    bytes: int = 0
    """What they take in memory, by estimate."""
    lag: int | None = None
    """Records of the topic that were not read yet; None if Kafka has not answered yet."""
    bad: int = 0
    """Records that were no rows, since the start of the worker."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """A sink and a partition at one moment. Numbers that grow do so from the start of the worker."""

    sink: str
    """Its name."""
    partition: int
    """The partition of its topic."""
    state: SinkState
    """What it does."""
    position: int | None = None
    """Offset from which on nothing was handed over; None until that is known."""
    lag: int | None = None
    """Records that were not handed over, those that wait here included; None if Kafka has not answered yet."""
    code: str | None = None
    """Why it does not get on, for machines."""
    reason: str | None = None
    """Why it does not get on, for people."""
    buffered: int = 0
    """Records that wait here."""
    buffered_bytes: int = 0
    """Bytes of them in memory."""
    spilled_bytes: int = 0
    """Bytes of them on disk."""
    rate: float | None = None
    """Records a second that it lets through, if its strategy limits that."""
    batch: int = 0
    """Most records that its consumer gets at once, now."""
    accepted: int = 0
    """Records that were taken into the buffer."""
    handed: int = 0
    """Records that the consumer has taken."""
    dropped: Mapping[str, int] | None = None
    """Records that were dropped, by the reason."""
    repeats: int = 0
    """Records left out because a lane had written them before."""
    failures: int = 0
    """Calls at which the consumer raised."""
    dead_letters: int = 0
    """Records that became dead letters."""
    paused_s: float = 0.0
    """Seconds during which nothing more was read, because the buffer was full."""
    written_bytes: int = 0
    """Bytes that were written to disk."""
    slowed: int = 0
    """How often the rate was lowered."""
    halved: int = 0
    """How often batches were made smaller."""

    @property
    def name(self) -> str:
        """The sink and its partition, as ``warehouse-0``."""
        return f"{self.sink}-{self.partition}"
