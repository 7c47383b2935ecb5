"""Sends what a lane has committed: in order for each target partition, and as often as it takes."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pf_stream.core.outbox import OutboxEntry
from pf_stream.engine.commit import Events
from pf_stream.engine.lease import Lease
from pf_stream.engine.targets import NOT_TAKEN, Targets
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import record_count, split, stamp
from pf_stream.kafka.errors import AppendError
from pf_stream.kafka.link import Partition

__all__ = ["OutputSender"]


@dataclass(slots=True, eq=False)
class _Sending:
    sequence: int
    entries: Mapping[int, OutboxEntry]
    left: int
    """Entries that are not yet acknowledged."""


class OutputSender:
    """The outputs of one lane under one lease.

    *events* is told of each unit whose outputs are in Kafka, and of an output that cannot be sent, which must stop the
    lane; but what a topic of a client's choice does not take is dropped.
    """

    def __init__(self, lease: Lease, targets: Targets, appender: Appender, events: Events) -> None:
        self._lease = lease
        self._targets = targets
        self._appender = appender
        self._events = events
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
                self._submit(sending, (entry.topic, entry.partition), await self._targets.batch(entry))

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

    def _answered(
        self, sending: _Sending, target: Partition, batch: bytes, unnumbered: bool, done: "asyncio.Future[int]"
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, NOT_TAKEN) and self._targets.is_optional(target[0]):
            if isinstance(error, AppendError) and not (unnumbered and record_count(batch) == 1):
                # One refusal leaves a gap in a producer's numbering, for which the broker refuses all that follows. And what
                # it refuses of one client must not keep another's reply back.
                self._unnumbered.add(target)
                singles = split(batch)
                sending.left += len(singles) - 1
                for single in singles:
                    self._submit(sending, target, single)
                return
            self._targets.dropped(target[0], error)
        elif error is not None:
            self._events.failed(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        else:
            self._events.wrote(target[0], record_count(batch))
        sending.left -= 1
        while self._unsent and not self._unsent[0].left:
            first = self._unsent.popleft()
            self._events.sent(first.sequence, first.entries)
        if not self._unsent:
            self._empty.set()
