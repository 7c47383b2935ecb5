"""``guarantee: effectively_once``: one record batch is the commit, and the outputs follow it."""

from typing import Self

from pf_stream.core.unit import CommitUnit
from pf_stream.engine.commit import Events, Unsent
from pf_stream.engine.encode import OutboxBuilder, encode_unit
from pf_stream.engine.lease import Lease, acquire
from pf_stream.engine.sender import OutputSender
from pf_stream.engine.shared import Shared
from pf_stream.engine.targets import Targets
from pf_stream.kafka.batch import record_count
from pf_stream.kafka.link import Partition

__all__ = ["LeasedCommitter"]


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

    async def commit(self, unit: CommitUnit[OutboxBuilder]) -> int:
        shared = self._shared
        outbox = await self._targets.entries(unit)
        batch = encode_unit(unit, outbox, shared.clock.now_ms())
        offset = await shared.changelog.submit(self, self._lane, self._lease.stamp(self._lane, batch))
        for topic, position in unit.positions.items():
            shared.committed((topic, self._lane[1]), position)
        if outbox:
            self._sender.send(unit.sequence, outbox)
        return offset + record_count(batch) - 1

    async def wait_until_sent(self) -> None:
        await self._sender.wait_until_empty()

    def stop(self) -> None:
        self._shared.changelog.drop(self)
        self._sender.stop()
