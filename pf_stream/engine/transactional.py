"""``guarantee: transactional``: state, outputs and group offsets of a unit in one Kafka transaction."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Self

from aiokafka.errors import KafkaError as AnyKafkaError

from pf_stream.core.outbox import OutboxEntry
from pf_stream.core.unit import CommitUnit
from pf_stream.engine.commit import Committed, Events, Unsent
from pf_stream.engine.encode import OutboxBuilder, encode_unit
from pf_stream.engine.lease import Lease, acquire
from pf_stream.engine.shared import Shared
from pf_stream.engine.targets import NOT_TAKEN, Targets
from pf_stream.kafka.batch import record_count, split
from pf_stream.kafka.errors import AppendError, KafkaError
from pf_stream.kafka.link import Partition
from pf_stream.kafka.transaction import Transactions

__all__ = ["TransactionalCommitter"]

ABORT_S: Final = 2.0
"""How long a failed commit tries to abort. If it cannot, the next owner does, or the coordinator after a minute."""


class TransactionalCommitter:
    """A unit is one transaction under the lane's transactional id. A :class:`Committer`.

    Readers with ``read_committed`` see state, outputs and offsets of a unit together or not at all, so there is no
    outbox and nothing is sent twice. The fence is the same as in the other mode: an ordinary batch under the new epoch,
    which refuses a predecessor of either mode.
    """

    def __init__(self, lease: Lease, lane: Partition, shared: Shared, targets: Targets, events: Events) -> None:
        self._lease = lease
        self._lane = lane
        self._shared = shared
        self._targets = targets
        self._events = events
        self._transactions = Transactions(shared.control, lane, lease.producer_id, lease.epoch)
        self._left: list[OutboxEntry] = []
        """Outputs that lives under the other guarantee left unsent: part of the next transaction, as are their marks."""
        self._written: Counter[str] = Counter()
        """Output records of the open transaction, by topic."""

    @classmethod
    async def acquire(cls, lane: Partition, shared: Shared, targets: Targets, events: Events) -> Self:
        """Take the lane, and abort what a predecessor left open; only when the group has assigned it."""
        lease = await acquire(shared.control, shared.changelog, lane, shared.worker_id, shared.clock.now_ms())
        return cls(lease, lane, shared, targets, events)

    @property
    def fence(self) -> int:
        return self._lease.fence

    @property
    def backlog(self) -> int:
        return 0

    def begin(self, unsent: Unsent) -> None:
        for sequence, entries in unsent:
            self._left += entries.values()
            self._events.sent(sequence, entries)

    async def run(self) -> None:
        """Outputs are part of the commit."""

    async def commit(self, unit: CommitUnit[OutboxBuilder]) -> Committed:
        outputs: dict[Partition, list[bytes]] = {}
        for entry in (*self._left, *(await self._targets.entries(unit)).values()):
            outputs.setdefault((entry.topic, entry.partition), []).append(await self._targets.batch(entry))
        batch = encode_unit(unit, (), self._shared.clock.now_ms())
        transactions = self._transactions
        try:
            writable = await transactions.add({self._lane, *outputs}, self._targets.is_optional)
            for topic in {target[0] for target in outputs.keys() - writable}:
                self._targets.dropped(topic, "it does not exist, or this principal may not write it")
            if unit.count:
                offsets = {(topic, self._lane[1]): position for topic, position in unit.positions.items()}
                await transactions.commit_offsets(self._shared.group, offsets)
            offset = await self._write(batch, {at: batches for at, batches in outputs.items() if at in writable})
            await transactions.end(commit=True)
        except BaseException:
            await self._abort()
            raise
        self._left.clear()
        for topic, records in self._written.items():
            self._events.wrote(topic, records)
        self._written.clear()
        # Behind the batch comes the marker of the transaction.
        return Committed(offset + record_count(batch), len(batch))

    async def _write(self, batch: bytes, outputs: Mapping[Partition, Sequence[bytes]]) -> int:
        """Append the changelog's batch and all outputs; returns the offset of the former."""
        try:
            async with asyncio.TaskGroup() as group:
                for target, batches in outputs.items():
                    group.create_task(self._send(target, batches))
                appended = group.create_task(self._append(self._lane, batch))
            return appended.result()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _append(self, partition: Partition, batch: bytes) -> int:
        stamped = self._lease.stamp(partition, batch, transactional=True)
        # All through one appender: it sends the batches of a transaction to a broker in one request.
        return await self._shared.changelog.submit(self, partition, stamped, self._transactions.id)

    async def _send(self, target: Partition, batches: Sequence[bytes]) -> None:
        """Outputs of one partition, one after another: a refused one must leave no gap in the numbering."""
        for batch in batches:
            try:
                await self._append(target, batch)
                self._written[target[0]] += record_count(batch)
            except NOT_TAKEN as error:
                if not self._targets.is_optional(target[0]):
                    raise
                self._lease.take_back(target, batch)
                if isinstance(error, AppendError) and record_count(batch) > 1:
                    await self._send(target, split(batch))  # one client's must not keep another's back
                else:
                    self._targets.dropped(target[0], error)

    async def _abort(self) -> None:
        """Let readers pass what nobody will commit; whether it works or not, this lease has come to its end."""
        self.stop()
        with suppress(KafkaError, AnyKafkaError, TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await self._transactions.end(commit=False)

    async def wait_until_sent(self) -> None:
        """Nothing is on its way."""

    def stop(self) -> None:
        self._shared.changelog.drop(self)
