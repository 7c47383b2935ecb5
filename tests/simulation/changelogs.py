"""Changelogs, as they are written: what each says, whatever is compacted later."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from pf_stream.core import changelog
from pf_stream.core.timers import decode_timer
from pf_stream.kafka.batch import Chunk
from tests.simulation.broker import Partition
from tests.simulation.promise import broken

__all__ = ["Changelogs", "Log"]


@dataclass
class Log:
    """What a changelog partition says."""

    last: dict[bytes, bytes | None] = field(default_factory=dict)
    """The last value of each key."""
    states: dict[bytes, set[bytes]] = field(default_factory=dict)
    """Every value that a state, or an entry of one, had."""
    watermarks: dict[str, int] = field(default_factory=dict)
    """Up to where each topic is decided."""
    clock_ms: int | None = None
    """The event clock."""

    @property
    def sent_sequence(self) -> int:
        """The unit up to which outputs are marked as sent."""
        unit = self.last.get(changelog.UNIT)
        return -1 if unit is None else int(changelog.UNIT_VALUE.unpack(unit)[1])

    def due_ms(self, clock: int) -> int | None:
        """When the next timer of a clock is due; ``None`` if there is none."""
        timers = [value for key, value in self.last.items() if key[1:2] == b"t" and value is not None]
        return min((decode_timer(raw).due_ms for raw in timers if raw[1] == clock), default=None)

    @property
    def has_unsent(self) -> bool:
        """Whether an output is neither deleted nor marked as sent."""
        return any(
            key[1:2] == b"o" and value is not None and changelog.OUTBOX_KEY.unpack(key)[1] > self.sent_sequence
            for key, value in self.last.items()
        )


class Changelogs:
    """All of them."""

    def __init__(self) -> None:
        self._logs: dict[tuple[str, int], Log] = {}
        self.sequences: dict[bytes, int] = {}
        """By incarnation: the last unit that is there."""

    def log(self, name: str, number: int) -> Log:
        """That of a lane."""
        return self._logs.setdefault((name, number), Log())

    def watch(self, name: str, partition: Partition, records: Chunk) -> Iterator[str]:
        """Take what was appended to that of a group; tells the workers that took the lane by it."""
        log = self.log(name, partition.number)
        for record in records:
            key, value = record.key or b"", record.value
            log.last[key] = value
            if value is None:
                continue
            match key[1:2]:
                case b"s":
                    log.states.setdefault(key, set()).add(value)
                case b"w":
                    _, start = changelog.parse_name(key, 2)
                    topic, _ = changelog.parse_name(key, start)
                    log.watermarks[topic] = changelog.WATERMARK_VALUE.unpack(value)[0]
                case b"e":
                    self._watch_clock(log, partition, changelog.EVENT_CLOCK_VALUE.unpack(value)[0])
                case b"f":
                    yield orjson.loads(value)["worker"]
        header, unit = log.last.get(changelog.HEADER), log.last.get(changelog.UNIT)
        if header is not None and unit is not None:
            incarnation = orjson.loads(header)["incarnation"].encode()
            self.sequences[incarnation] = changelog.UNIT_VALUE.unpack(unit)[0]

    @staticmethod
    def _watch_clock(log: Log, partition: Partition, clock_ms: int) -> None:
        if log.clock_ms is not None and clock_ms <= log.clock_ms:
            broken("clock", f"the event clock of {partition} went from {log.clock_ms} to {clock_ms}")
        log.clock_ms = clock_ms
