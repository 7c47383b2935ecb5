"""From what a unit decides to the bytes that Kafka takes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from pf_stream.core import changelog
from pf_stream.core.outbox import BatchEntry, OutboxEntry, PointerEntry, encode_entry
from pf_stream.core.partition import partition_of
from pf_stream.core.unit import CommitUnit, Copy, Narrowing, Output
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.link import Partition

__all__ = ["OutboxBuilder", "encode_unit", "outbox_records"]

OUTPUT_BYTES: Final = 900_000
"""Most bytes of an output batch before compression: below the ``max.message.bytes`` that Kafka has by default."""
UNIT_BYTES: Final = 8 << 20
"""Most bytes of a unit's batch, the ``max.message.bytes`` of a changelog."""


class OutboxBuilder:
    """Makes the outputs of one unit into outbox entries: a record batch for each target partition, more if it gets large.

    Outputs are encoded as they are decided, not when the unit is sealed: they are gone from memory, and from the
    processor's caches, before there are thousands of them.
    """

    __slots__ = ("_batches", "_deferred", "_entries", "_index", "_make_context", "_partitions", "_source", "unknown")

    def __init__(
        self,
        incarnation: str,
        sequence: int,
        partitions: Mapping[str, int],
        make_context: Callable[[Narrowing], bytes | None],
    ) -> None:
        """*partitions* are the partition counts of topics, as far as they are known."""
        self._source = f"{incarnation}:{sequence}:".encode()
        self._partitions = partitions
        self._make_context = make_context
        self._index = 0
        self._entries: list[OutboxEntry | None] = []
        self._batches: dict[Partition, tuple[int, BatchBuilder]] = {}
        self._deferred: list[tuple[int, Output | Copy]] = []
        self.unknown: set[str] = set()
        """Topics of outputs that wait until their partition count is known; what follows for them waits behind."""

    def extend(self, outputs: list[Output | Copy], /) -> None:
        """Take outputs."""
        index = self._index
        for output in outputs:
            if output.topic in self.unknown or output.topic not in self._partitions:
                self.unknown.add(output.topic)
                self._deferred.append((index, output))
            else:
                self._add(index, output)
            index += 1
        self._index = index

    def entries(self, without: Collection[str] = ()) -> dict[int, OutboxEntry]:
        """All of it by entry number, in an order that keeps that of the outputs for each target partition.

        *without* are topics that turned out not to exist; of the others the counts must be known by now.
        """
        deferred, self._deferred = self._deferred, []
        for index, output in deferred:
            if output.topic not in without:
                self._add(index, output)
        for target in list(self._batches):
            self._close(target)
        return {number: entry for number, entry in enumerate(self._entries) if entry is not None}

    def _add(self, index: int, output: Output | Copy) -> None:
        if isinstance(output, Copy):
            self._point(index, output)
            return
        topic, chosen, key, value, timestamp_ms, headers, narrowing = output
        count = self._partitions[topic]
        target = topic, partition_of(key or b"", count) if chosen is None else chosen % count
        if narrowing is not None:
            context = self._make_context(narrowing)
            if context is not None:
                headers.append(("pf-context", context))
        headers.append(("pf-source", b"%s%d" % (self._source, index)))
        batch = self._batches.get(target)
        if batch is not None:
            if batch[1].append(timestamp_ms, key, value, headers):
                return
            self._close(target)
        builder = BatchBuilder(OUTPUT_BYTES, compress=True)
        builder.append(timestamp_ms, key, value, headers)
        self._batches[target] = len(self._entries), builder
        self._entries.append(None)

    def _point(self, index: int, copy: Copy) -> None:
        count = self._partitions[copy.topic]
        chosen = copy.to_partition
        target = copy.topic, partition_of(copy.key or b"", count) if chosen is None else chosen % count
        if target in self._batches:
            self._close(target)
        origin = ("pf-source", b"%s%d" % (self._source, index))
        self._entries.append(
            PointerEntry(
                *target,
                copy.source,
                copy.partition,
                copy.offset,
                copy.timestamp_ms,
                (*copy.headers, origin),
                copy.drop,
            )
        )

    def _close(self, target: Partition) -> None:
        number, builder = self._batches.pop(target)
        self._entries[number] = BatchEntry(*target, builder.build())


def outbox_records(sequence: int, outbox: Mapping[int, OutboxEntry]) -> list[tuple[bytes, bytes | None]]:
    """Changelog records of the outputs of a unit."""
    return [(changelog.outbox_key(sequence, number), encode_entry(entry)) for number, entry in outbox.items()]


def encode_unit(unit: CommitUnit[OutboxBuilder], outbox: Sequence[tuple[bytes, bytes | None]], now_ms: int) -> bytes:
    """The record batch whose append is the commit."""
    builder = BatchBuilder(UNIT_BYTES, compress=False)
    for key, value in (*unit.entries, *outbox):
        if not builder.append(now_ms, key, value, []):
            # The lane's limits are there to make this impossible; half a unit would be lost records.
            raise OverflowError(f"a unit of {unit.count} records does not fit into {UNIT_BYTES} bytes")
    return builder.build()
