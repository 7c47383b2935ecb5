"""``guarantee: effectively_once``: one record batch is the commit, and the outputs follow it."""

import asyncio
from typing import Final, Self

from pf_stream.core.unit import CommitUnit
from pf_stream.engine.commit import Committed, Events, Unsent
from pf_stream.engine.encode import OutboxBuilder, encode_unit, outbox_records
from pf_stream.engine.lease import Lease, acquire
from pf_stream.engine.sender import OutputSender
from pf_stream.engine.shared import Shared
from pf_stream.engine.targets import Targets
from pf_stream.kafka.batch import record_count
from pf_stream.kafka.link import Partition
from pf_stream.kafka.transaction import Transactions

__all__ = ["LeasedCommitter"]

RENEW_S: Final = 24 * 3600.0
"""How often the coordinator is reminded of the lane's transactional id. It forgets one that is not used for a week
(``transactional.id.expiration.ms``) and would give the next owner another producer id, which fences nobody."""
MARKER_S: Final = 0.005


class LeasedCommitter:
    """A unit is one batch of the changelog, its outputs included as the outbox.

    They are sent after its acknowledgement, and a later unit marks them as sent. A :class:`Committer`.
    """

    def __init__(self, lease: Lease, lane: Partition, shared: Shared, targets: Targets, events: Events) -> None:
        self._lease = lease
        self._lane = lane
        self._shared = shared
        self._targets = targets
        self._sender = OutputSender(lease, targets, shared.outputs, events)
        self._transactions = Transactions(shared.control, lane, lease.producer_id, lease.epoch)
        self._renewed = asyncio.get_running_loop().time()

    @classmethod
    async def acquire(cls, lane: Partition, shared: Shared, targets: Targets, events: Events) -> Self:
        """Take the lane; only when the group has assigned it."""
        lease = await acquire(shared.control, shared.changelog, lane, shared.worker_id, shared.clock.now_ms())
        return cls(lease, lane, shared, targets, events)

    @property
    def fence(self) -> int:
        return self._lease.fence

    @property
    def backlog(self) -> int:
        return self._sender.backlog

    def begin(self, unsent: Unsent) -> None:
        for sequence, entries in unsent:
            self._sender.send(sequence, entries)

    async def run(self) -> None:
        await self._sender.run()

    async def commit(self, unit: CommitUnit[OutboxBuilder]) -> Committed:
        shared = self._shared
        outbox = await self._targets.entries(unit)
        records = outbox_records(unit.sequence, outbox)
        batch = encode_unit(unit, records, shared.clock.now_ms())
        offset = await shared.changelog.submit(self, self._lane, self._lease.stamp(self._lane, batch))
        for topic, position in unit.positions.items():
            shared.committed((topic, self._lane[1]), position)
        if outbox:
            self._sender.send(unit.sequence, outbox)
        last = offset + record_count(batch) - 1
        now = asyncio.get_running_loop().time()
        if now - self._renewed >= RENEW_S:
            self._renewed = now
            await self._transactions.touch()
            last += 1  # the marker
            await self._wait_for(last)
        return Committed(last, len(batch), records)

    async def _wait_for(self, offset: int) -> None:
        """Wait until the changelog has a record at *offset*: a marker is written after its transaction is acknowledged."""
        while (await self._shared.control.offsets([self._lane], end=True))[self._lane] <= offset:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(MARKER_S)

    async def wait_until_sent(self) -> None:
        await self._sender.wait_until_empty()

    def stop(self) -> None:
        self._shared.changelog.drop(self)
        self._sender.stop()
