"""A model of Kafka's brokers: what they append, refuse, answer and forget. No I/O, no clock.

It answers as Kafka 4.x does to what pf_stream asks; ``tests/kafka/test_broker_model.py`` asks both. Record batches are
the real bytes. All replicas are taken to be in sync, so a partition is one log that any node may lead.
"""

import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from pf_stream.core.records import Record
from pf_stream.kafka.batch import SEQUENCE_MASK, Chunk, crc32c

__all__ = ["Appended", "Broker", "Code", "Header", "Partition", "Topic"]

_HEADER = Struct(">qiibIhiqqqhii")
_U32 = Struct(">I")
_ATTRIBUTES_AT: Final = 21
_CRC_AT: Final = 17
_APPEND_TIME: Final = 0x08
_KEPT_BATCHES: Final = 5
"""How many batches of a producer a broker remembers to recognise a repeat (``ProducerStateEntry``)."""


class Code:
    """Error codes of the protocol."""

    none = 0
    offset_out_of_range = 1
    corrupt_message = 2
    unknown_topic_or_partition = 3
    not_leader = 6
    message_too_large = 10
    out_of_order_sequence = 45
    invalid_producer_epoch = 47
    invalid_record = 87


class Header(NamedTuple):
    """The header of a record batch, magic 2."""

    base: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    first_time: int
    max_time: int
    producer_id: int
    epoch: int
    sequence: int
    records: int

    @classmethod
    def of(cls, batch: bytes) -> "Header":
        return cls(*_HEADER.unpack_from(batch))

    def onto(self, batch: bytes) -> bytes:
        """*batch* under this header, with its checksum made anew."""
        raw = bytearray(batch)
        _HEADER.pack_into(raw, 0, *self)
        _U32.pack_into(raw, _CRC_AT, crc32c(bytes(raw[_ATTRIBUTES_AT:])))
        return bytes(raw)


class Appended(NamedTuple):
    """Answer to an append."""

    code: int
    offset: int = -1


class _Batch(NamedTuple):
    first: int
    last: int
    offset: int


@dataclass(slots=True)
class _Producer:
    """What a partition's leader knows of a producer id."""

    epoch: int
    last_ms: int
    """Of its last append."""
    batches: deque[_Batch] = field(default_factory=lambda: deque(maxlen=_KEPT_BATCHES))


class Partition:
    """A log."""

    def __init__(self, topic: "Topic", number: int, leader: int) -> None:
        self.topic = topic
        self.number = number
        self.leader = leader
        self.log: list[bytes] = []
        """Batches by offset."""
        self.begin = 0
        self.end = 0
        self.producers: dict[int, _Producer] = {}

    def records(self, start: int = 0, end: int = 1 << 62) -> Iterator[Record]:
        """The records of ``[start, end)``."""
        for batch in self.log:
            header = Header.of(batch)
            if header.base + header.last_delta >= start and header.base < end:
                yield from (record for record in Chunk(batch, (), str(self)) if start <= record.offset < end)

    def append(self, batch: bytes, now_ms: int) -> Appended:
        """Append one batch, or say why not."""
        topic = self.topic
        header = Header.of(batch)
        if len(batch) > topic.max_bytes:
            return Appended(Code.message_too_large)
        if crc32c(batch[_ATTRIBUTES_AT:]) != header.crc:
            return Appended(Code.corrupt_message)
        if topic.compact and any(record.key is None for record in Chunk(batch, (), str(self))):
            return Appended(Code.invalid_record)
        if header.producer_id >= 0:
            answer = self._check_producer(header, now_ms)
            if answer is not None:
                return answer
        stored = header._replace(base=self.end)
        if topic.append_time:
            stored = stored._replace(attributes=header.attributes | _APPEND_TIME, max_time=now_ms)
        self.log.append(stored.onto(batch))
        self.end += header.last_delta + 1
        return Appended(Code.none, stored.base)

    def _check_producer(self, header: Header, now_ms: int) -> Appended | None:
        known = self.producers.get(header.producer_id)
        last = (header.sequence + header.records - 1) & SEQUENCE_MASK
        if known is not None:
            # A repeat is recognised before its epoch is looked at, but only among the batches of the current epoch.
            for batch in known.batches:
                if known.epoch == header.epoch and (batch.first, batch.last) == (header.sequence, last):
                    return Appended(Code.none, batch.offset)
            if header.epoch < known.epoch:
                return Appended(Code.invalid_producer_epoch)
            if header.epoch > known.epoch:
                if header.sequence != 0:
                    return Appended(Code.out_of_order_sequence)
                known.batches.clear()
            elif header.sequence != (known.batches[-1].last + 1) & SEQUENCE_MASK:
                return Appended(Code.out_of_order_sequence)
        else:
            # Of a producer id that it does not know, or has forgotten, a leader takes any sequence.
            known = self.producers[header.producer_id] = _Producer(header.epoch, now_ms)
        known.epoch = header.epoch
        known.last_ms = now_ms
        known.batches.append(_Batch(header.sequence, last, self.end))
        return None

    def read(self, offset: int, max_bytes: int) -> tuple[int, bytes]:
        """Error code and whole batches, the first of which may begin before *offset*."""
        if not self.begin <= offset <= self.end:
            return Code.offset_out_of_range, b""
        found = bytearray()
        start = len(self.log)
        while start and self._end_of(self.log[start - 1]) > offset:
            start -= 1
        for batch in self.log[start:]:
            if found and len(found) + len(batch) > max_bytes:
                break  # the first one is sent whatever its size (KIP-74)
            found += batch
        return Code.none, bytes(found)

    @staticmethod
    def _end_of(batch: bytes) -> int:
        header = Header.of(batch)
        return header.base + header.last_delta + 1

    def compact(self, *, tombstones: bool) -> None:
        """Keep the last record of each key, and no tombstones either if *tombstones* says so.

        Offsets stay, and so do the headers of batches that lose records; of a producer's last batch the header stays even
        if no record is left, since it tells the epoch and the sequence. The active segment is not compacted: here the
        last batch.
        """
        last: dict[bytes | None, int] = {record.key: record.offset for record in self.records()}
        newest = {Header.of(batch).producer_id: Header.of(batch).base for batch in self.log}
        kept: list[bytes] = []
        for batch in self.log[:-1]:
            header = Header.of(batch)
            records = [
                record
                for record in Chunk(batch, (), str(self))
                if last[record.key] == record.offset and not (tombstones and record.value is None)
            ]
            if len(records) == header.records:
                kept.append(batch)
            elif records or newest[header.producer_id] == header.base:
                kept.append(_rebuilt(header, records))
        self.log[:-1] = kept

    def forget_producers(self, silent_since_ms: int) -> None:
        """Forget the epochs of producers that were silent (``producer.id.expiration.ms``)."""
        self.producers = {number: known for number, known in self.producers.items() if known.last_ms >= silent_since_ms}

    def __str__(self) -> str:
        return f"{self.topic.name}-{self.number}"


def _rebuilt(header: Header, records: list[Record]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for record in records:
        builder.append(record.offset - header.base, record.timestamp, record.key, record.value, list(record.headers))
    raw = bytes(builder.build())
    made = Header.of(raw)
    return header._replace(
        length=made.length, attributes=header.attributes & ~7, first_time=made.first_time, records=len(records)
    ).onto(raw)


class Topic:
    """A topic."""

    def __init__(
        self,
        name: str,
        topic_id: bytes,
        partitions: int,
        nodes: int,
        *,
        compact: bool = False,
        append_time: bool = False,
        max_bytes: int = 1_048_588,
    ) -> None:
        self.name = name
        self.id = topic_id
        self.compact = compact
        self.append_time = append_time
        self.max_bytes = max_bytes
        self.delete_retention_ms = 86_400_000
        first = zlib.crc32(name.encode())
        self.partitions = [Partition(self, number, (first + number) % nodes) for number in range(partitions)]


class Broker:
    """A cluster."""

    def __init__(self, nodes: int = 1) -> None:
        self.nodes = nodes
        self.topics: dict[str, Topic] = {}
        self.appended: list[Callable[[Partition, bytes], None]] = []
        """Told of each batch, as it was stored."""
        self.refused: Counter[int] = Counter()
        """Appends that were refused, by code."""
        self._made = 0
        self._producer_ids: dict[str, tuple[int, int]] = {}

    def create(
        self,
        name: str,
        partitions: int,
        *,
        compact: bool = False,
        append_time: bool = False,
        max_bytes: int = 1_048_588,
    ) -> Topic:
        """Make a topic; one that is made anew has another id."""
        self._made += 1
        topic = self.topics[name] = Topic(
            name,
            self._made.to_bytes(16, "big"),
            partitions,
            self.nodes,
            compact=compact,
            append_time=append_time,
            max_bytes=max_bytes,
        )
        return topic

    def delete(self, name: str) -> None:
        """Delete a topic with its records."""
        del self.topics[name]

    def partition(self, topic: str, number: int) -> Partition | None:
        """A partition, if there is one."""
        found = self.topics.get(topic)
        return None if found is None or number >= len(found.partitions) else found.partitions[number]

    def append(self, topic: str, number: int, batch: bytes, now_ms: int, node: int | None = None) -> Appended:
        """Append a batch, as the broker *node* would."""
        partition = self.partition(topic, number)
        if partition is None:
            return Appended(Code.unknown_topic_or_partition)
        if node not in {None, partition.leader}:
            return Appended(Code.not_leader)
        end = partition.end
        answer = partition.append(batch, now_ms)
        if answer.code != Code.none:
            self.refused[answer.code] += 1
        if partition.end > end:
            for told in self.appended:
                told(partition, partition.log[-1])
        return answer

    def init_producer_id(self, transactional_id: str) -> tuple[int, int]:
        """Producer id and epoch. The coordinator tells no partition's leader: who had the epoch before learns nothing."""
        new = 1000 + len(self._producer_ids), -1
        number, epoch = self._producer_ids.get(transactional_id, new)
        self._producer_ids[transactional_id] = number, epoch + 1
        return number, epoch + 1
