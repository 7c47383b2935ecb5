"""Who may write a lane's changelog: a producer id that the broker fences.

``InitProducerId`` under the changelog partition's name gives a new epoch, and the first batch under it (the fence) makes
the partition's leader refuse every batch with an older one (KIP-98's fencing, used without a transaction). What a
predecessor managed to write lies before the fence, so recovering up to the fence misses nothing. A transaction that a
predecessor left open is aborted before the epoch is given, so nothing before the fence is undecided.
"""

from dataclasses import dataclass

import orjson

from pf_stream.core import changelog
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import SEQUENCE_MASK, BatchBuilder, record_count, stamp
from pf_stream.kafka.link import Link, Partition
from pf_stream.kafka.transaction import init_producer_id, transactional_id

__all__ = ["Lease", "acquire"]


@dataclass(slots=True, eq=False)
class Lease:
    """The right to append under one producer id and epoch."""

    producer_id: int
    """Given by the transaction coordinator; the same for every holder of the lane."""
    epoch: int
    """One more than the previous holder's."""
    fence: int
    """Offset of the fence record: everything before it is the past."""
    sequences: dict[Partition, int]
    """Next sequence number for each partition that this lease has written to."""

    def stamp(self, partition: Partition, batch: bytes, *, transactional: bool = False) -> bytes:
        """The batch as the next one of this lease in *partition*."""
        sequence = self.sequences.get(partition, 0)
        self.sequences[partition] = (sequence + record_count(batch)) & SEQUENCE_MASK
        return stamp(batch, self.producer_id, self.epoch, sequence, transactional=transactional)

    def take_back(self, partition: Partition, batch: bytes) -> None:
        """The broker has refused the last batch that was stamped for *partition*: its numbers are the next one's."""
        self.sequences[partition] = (self.sequences[partition] - record_count(batch)) & SEQUENCE_MASK


async def acquire(
    link: Link, appender: Appender, partition: Partition, worker_id: str, now_ms: int, name: str | None = None
) -> Lease:
    """Take the lease of a partition; whoever held it can no longer append.

    *name* is the transactional id; that of the lane with this changelog partition if not given.

    Only to be called when the group has assigned the lane to this worker: whoever acquires last wins.
    """
    producer_id, epoch = await init_producer_id(link, name or transactional_id(partition))
    lease = Lease(producer_id, epoch, -1, {})
    builder = BatchBuilder(4096, compress=False)
    note = orjson.dumps({"worker": worker_id, "producer_id": producer_id, "epoch": epoch})
    builder.append(now_ms, changelog.FENCE, note, [])
    try:
        lease.fence = await appender.submit(lease, partition, lease.stamp(partition, builder.build()))
    finally:
        appender.drop(lease)
    return lease
