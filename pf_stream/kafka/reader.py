"""Reading topics without a consumer group, for tools: nothing is joined, nothing is committed."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from operator import methodcaller

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Message, TopicPartition
from confluent_kafka import KafkaError as Answer

from pf_stream.core.records import APPEND_TIME, CREATE_TIME, Header
from pf_stream.errors import NotFoundError
from pf_stream.kafka._confluent import TIMEOUT_S, Session
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.errors import KafkaUnavailableError, TopicMissingError
from pf_stream.kafka.link import ConnectionSettings, Link, Partition

__all__ = ["TopicRecord", "follow", "read_topic"]

_TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """A record, and where it lies."""

    topic: str
    """Its topic."""
    partition: int
    """Its partition."""
    offset: int
    """Its offset there."""
    timestamp: int
    """Milliseconds since the epoch."""
    timestamp_type: int
    """Whose clock that was, see :mod:`pf_stream.core.records`."""
    key: bytes | None
    """Its key."""
    value: bytes | None
    """Its value; None is a deletion on a compacted topic."""
    headers: tuple[Header, ...]
    """In their order; a name may come twice."""
    exact: bool = True
    """Whether header names are as they were written: what is no UTF-8 in one is shown as ``\\xff``."""

    def header(self, name: str) -> str | None:
        """The last header of that name as text, None if there is none."""
        for found, raw in reversed(self.headers):
            if found == name:
                return None if raw is None else raw.decode(errors="replace")
        return None


def read_topic(
    settings: ConnectionSettings,
    topic: str,
    *,
    partitions: Iterable[int] | None = None,
    start: int | Mapping[int, int] | None = None,
    count: int | None = None,
    committed: bool = True,
) -> Iterator[TopicRecord]:
    """Every record of *topic* up to the ends that its partitions have now; in order within a partition.

    Parameters:
        partitions: only these.
        start: offset to begin at, of each partition if it is a mapping; a negative one counts back from the end. The
            beginning, if not given.
        count: read only offsets below *start* + *count*.
        committed: leave out what a transaction has not committed, or has aborted.

    Raises:
        NotFoundError: the topic or a partition does not exist.
        KafkaUnavailableError: no broker answers, or one stops to answer.
    """
    admin = Admin(settings)
    found = admin.topics([topic])
    if topic not in found:
        raise TopicMissingError([topic], "See what there is: pf topics list")
    there = range(found[topic].partitions)
    wanted = [(topic, number) for number in (there if partitions is None else partitions)]
    for _, number in wanted:
        if number not in there:
            raise NotFoundError(f"topic {topic} has no partition {number}; it has {len(there)}, from 0")
    first = admin.offsets(wanted, "start")
    ends = admin.offsets(wanted, "end", committed=committed)
    positions: dict[Partition, int] = {}
    for partition in wanted:
        begin = start.get(partition[1]) if isinstance(start, Mapping) else start
        if begin is not None:
            positions[partition] = max(first[partition], begin if begin >= 0 else ends[partition] + begin)
            if count is not None:
                ends[partition] = min(ends[partition], begin + count)
        else:
            positions[partition] = first[partition]
    left = {partition for partition in wanted if positions[partition] < ends[partition]}
    if not left:
        return
    heard = time.monotonic()
    with closing(_Reader(settings, {partition: positions[partition] for partition in left}, committed)) as reader:
        while left:
            message = reader.next()
            if message is None:
                if time.monotonic() - heard > 2 * TIMEOUT_S:
                    raise KafkaUnavailableError(settings.bootstrap_servers, f"nothing more comes from {topic}")
                continue
            heard = time.monotonic()
            record, partition, position = message
            if partition not in left:
                continue
            if record is not None and record.offset < ends[partition]:
                yield record
            # Compaction and the markers of transactions leave gaps, so the last record may be no record.
            if position >= ends[partition]:
                left.remove(partition)


def follow(settings: ConnectionSettings, positions: Mapping[Partition, int], timeout_s: float) -> Iterator[TopicRecord]:
    """Committed records from *positions* on as they come, for *timeout_s* seconds."""
    deadline = time.monotonic() + timeout_s
    with closing(_Reader(settings, positions, committed=True)) as reader:
        while time.monotonic() < deadline:
            message = reader.next()
            if message is not None and message[0] is not None:
                yield message[0]


class _Reader:
    """A consumer that was given its partitions."""

    def __init__(self, settings: ConnectionSettings, positions: Mapping[Partition, int], committed: bool) -> None:
        self._session = Session(settings)
        self._consumer = Consumer(
            self._session.configuration(
                group_id="pf-tools",  # demanded by librdkafka and told to nobody
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                enable_partition_eof=True,
                auto_offset_reset="earliest",
                isolation_level="read_committed" if committed else "read_uncommitted",
                fetch_wait_max_ms=int(_TICK_S * 1000),
            )
        )
        self._consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()])

    def next(self) -> tuple[TopicRecord | None, Partition, int] | None:
        """A record, or none where a partition ends for now; its partition, and the next offset of it."""
        message = self._consumer.poll(_TICK_S)
        if message is None:
            return None
        answer = message.error()
        if answer is None:
            record = _record(message, self._session.settings)
            return record, (record.topic, record.partition), record.offset + 1
        if answer.code() == Answer._PARTITION_EOF:
            topic, number, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert number is not None
            assert offset is not None
            return None, (topic, number), offset
        if answer.retriable():
            return None
        raise self._session.error(answer, f"read {message.topic()}")

    def close(self) -> None:
        self._consumer.close()


def _record(message: Message, settings: ConnectionSettings) -> TopicRecord:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    kind, timestamp = message.timestamp()
    exact = True
    try:
        headers = _headers_of(message) or []
    except SystemError:
        exact = False
        # confluent-kafka fails at a header name that is no UTF-8. It must not be asked again: it keeps a list with a
        # null pointer.
        headers = asyncio.run(_headers(settings, (topic, partition), offset))
    stamped_by = APPEND_TIME if kind == TIMESTAMP_LOG_APPEND_TIME else CREATE_TIME
    key, value = message.key(), message.value()
    return TopicRecord(topic, partition, offset, timestamp, stamped_by, key, value, tuple(headers), exact)


# Raw bytes, whatever confluent-kafka's annotations allow: no deserialiser is set. At a bad name it returns a result and
# leaves an exception set. A call in bytecode may miss that once it is specialised (CPython 3.11), and the exception turns
# up wherever the next C function ends; this way of calling always looks.
_headers_of: Callable[[Message], list[Header] | None] = methodcaller("headers")


async def _headers(settings: ConnectionSettings, partition: Partition, offset: int) -> list[Header]:
    """Headers of one record, for people: what is no UTF-8 in a name is shown as ``\\xff``."""
    link = await Link.connect(settings)
    try:
        (record,) = await link.read_range(partition, offset, offset + 1)
    finally:
        await link.close()
    shown = [name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name, _ in record.headers]
    return list(zip(shown, (raw for _, raw in record.headers), strict=True))
