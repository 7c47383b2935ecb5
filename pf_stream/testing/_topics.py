"""Topics in memory."""

from collections.abc import Sequence

from pf_stream.clock import Clock
from pf_stream.core import SourceRecord, partition_of
from pf_stream.core.records import APPEND_TIME, CREATE_TIME, Header
from pf_stream.testing.records import OutputRecord, Position

__all__ = ["MemoryTopics"]


class MemoryTopics:
    """Every topic of a namespace; one comes into being when it is first written or read.

    The broker's clock stamps every record, except on the topics that only the engine writes: there a record keeps the
    time that its producer gave it (``message.timestamp.type`` is ``LogAppendTime`` and ``CreateTime``).
    """

    def __init__(self, partitions: int, clock: Clock) -> None:
        self.partitions = partitions
        self.keeps_time: frozenset[str] = frozenset()
        """Topics with ``CreateTime``."""
        self.written: dict[str, list[OutputRecord]] = {}
        """What the engine wrote, by topic, in the order of arrival."""
        self._clock = clock
        self._logs: dict[tuple[str, int], list[SourceRecord]] = {}

    def log(self, topic: str, partition: int) -> list[SourceRecord]:
        """The records of a partition; a record's offset is its index."""
        return self._logs.setdefault((topic, partition), [])

    def partition_of(self, key: bytes | None) -> int:
        """Where Kafka's default partitioner puts *key*; a record without one goes to partition 0."""
        return 0 if key is None else partition_of(key, self.partitions)

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        timestamp_ms: int,
    ) -> Position:
        """Append a record."""
        log = self.log(topic, partition)
        keeps = topic in self.keeps_time
        log.append(
            SourceRecord(
                offset=len(log),
                timestamp=timestamp_ms if keeps else self._clock.now_ms(),
                key=key,
                value=value,
                headers=tuple(headers),
                timestamp_type=CREATE_TIME if keeps else APPEND_TIME,
            )
        )
        return Position(topic, partition, len(log) - 1)

    def write(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        timestamp_ms: int,
    ) -> Position:
        """Append a record of the engine's."""
        at = self.append(topic, partition, key, value, headers, timestamp_ms)
        record = self.log(topic, partition)[at.offset]
        self.written.setdefault(topic, []).append(
            OutputRecord(topic, partition, key, value, tuple(headers), record.timestamp)
        )
        return at
