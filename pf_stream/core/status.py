"""What can be said of a lane from outside.

Plain data, beside the lane and not in the engine, so that tools read it without loading Faust.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LaneState", "LaneStatus"]


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

    @property
    def name(self) -> str:
        """Its group and partition, as ``intents-0``."""
        return f"{self.group}-{self.partition}"
