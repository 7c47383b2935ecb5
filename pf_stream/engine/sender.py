"""Sends what a lane has committed: in order for each target partition, and as often as it takes."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from pf_stream.core.outbox import OutboxEntry, PointerEntry
from pf_stream.core.records import Header
from pf_stream.engine.lease import Lease
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder, stamp
from pf_stream.kafka.errors import AppendError, NotAuthorisedError, TopicMissingError
from pf_stream.kafka.link import Link, Partition

__all__ = ["OutputSender"]

log = structlog.get_logger(__name__)

COPY_BYTES: Final = 5 << 20
"""Most bytes of a copied record: the ``max.message.bytes`` of the topics that copies go to."""


@dataclass(slots=True, eq=False)
class _Sending:
    sequence: int
    entries: Mapping[int, OutboxEntry]
    left: int
    """Entries that are not yet acknowledged."""


class OutputSender:
    """The outputs of one lane under one lease.

    *sent* is told of each unit whose outputs, and those of all units before it, are in Kafka. *failed* is told of an
    output that cannot be sent, which must stop the lane. Topics that are not *needed* were chosen by clients for their
    replies: what cannot be sent there is dropped, *dropped* is told, and no lane is held up.
    """

    def __init__(
        self,
        lease: Lease,
        link: Link,
        appender: Appender,
        needed: Collection[str],
        *,
        sent: Callable[[int, Collection[int]], None],
        dropped: Callable[[str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._lease = lease
        self._link = link
        self._appender = appender
        self._needed = needed
        self._tell_sent = sent
        self._tell_dropped = dropped
        self._tell_failed = failed
        self._queue: asyncio.Queue[_Sending] = asyncio.Queue()
        self._unsent: deque[_Sending] = deque()
        self._unnumbered: set[Partition] = set()
        """Partitions for replies whose broker has refused a batch under this lease."""
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def backlog(self) -> int:
        """Units whose outputs are on their way."""
        return len(self._unsent)

    async def wait_until_empty(self) -> None:
        """Wait until all that was given is in Kafka."""
        await self._empty.wait()

    def send(self, sequence: int, entries: Mapping[int, OutboxEntry]) -> None:
        """Queue the outputs of a unit."""
        sending = _Sending(sequence, entries, len(entries))
        self._unsent.append(sending)
        self._empty.clear()
        self._queue.put_nowait(sending)

    async def run(self) -> None:
        """Hand outputs on in the order of the units; what a later unit says must not overtake an earlier one."""
        while True:
            sending = await self._queue.get()
            for entry in sending.entries.values():
                batch = await self._copy(entry) if isinstance(entry, PointerEntry) else entry.batch
                self._submit(sending, (entry.topic, entry.partition), batch)

    def stop(self) -> None:
        """Send nothing more; what is in flight may still arrive, and is recognised by its ``pf-source``."""
        self._appender.drop(self)
        self._unsent.clear()
        self._empty.set()

    def _submit(self, sending: _Sending, target: Partition, batch: bytes) -> None:
        unnumbered = target in self._unnumbered
        stamped = stamp(batch, -1, -1, -1) if unnumbered else self._lease.stamp(target, batch)
        future = self._appender.submit(self, target, stamped)
        future.add_done_callback(partial(self._answered, sending, target, batch, unnumbered))

    async def _copy(self, entry: PointerEntry) -> bytes:
        """The record that an entry points at, with its new headers."""
        source = entry.source, entry.source_partition
        records = await self._link.read_range(source, entry.offset, entry.offset + 1)
        if not records:
            log.error("a record was deleted before it could be copied", source=source, offset=entry.offset)
            return _batch(entry.timestamp_ms, None, None, list(entry.headers))
        original = records[0]
        kept = [header for header in original.headers if header[0] not in entry.drop]
        batch = _batch(entry.timestamp_ms, original.key, original.value, [*kept, *entry.headers])
        if len(batch) > COPY_BYTES:
            # Its producer compressed it better than we do. It stays where it is, and its lane must go on.
            log.error(
                "a record is too large to be copied; what is added to it is sent alone",
                source=source,
                offset=entry.offset,
            )
            return _batch(entry.timestamp_ms, None, None, list(entry.headers))
        return batch

    def _answered(
        self, sending: _Sending, target: Partition, batch: bytes, unnumbered: bool, done: "asyncio.Future[int]"
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, AppendError | NotAuthorisedError | TopicMissingError) and target[0] not in self._needed:
            if isinstance(error, AppendError) and not unnumbered:
                # One refusal leaves a gap in a producer's numbering, for which the broker refuses all that follows.
                self._unnumbered.add(target)
                self._submit(sending, target, batch)
                return
            log.warning("replies dropped: their topic does not take them", topic=target[0], reason=str(error))
            self._tell_dropped(target[0])
        elif error is not None:
            self._tell_failed(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        sending.left -= 1
        while self._unsent and not self._unsent[0].left:
            first = self._unsent.popleft()
            self._tell_sent(first.sequence, first.entries)
        if not self._unsent:
            self._empty.set()


def _batch(timestamp_ms: int, key: bytes | None, value: bytes | None, headers: list[Header]) -> bytes:
    """A batch of one record, which always fits."""
    builder = BatchBuilder(COPY_BYTES, compress=True)
    builder.append(timestamp_ms, key, value, headers)
    return builder.build()
