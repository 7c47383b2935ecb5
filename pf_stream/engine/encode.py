"""From a commit unit to the bytes that Kafka takes."""

from collections.abc import Callable, Mapping

from pf_stream.core import changelog
from pf_stream.core.outbox import BatchEntry, OutboxEntry, PointerEntry, encode_entry
from pf_stream.core.partition import partition_of
from pf_stream.core.records import Header
from pf_stream.core.unit import CommitUnit, Copy, Narrowing
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.link import Partition

__all__ = ["UNIT_BYTES", "encode_outputs", "encode_unit"]

OUTPUT_BYTES = 900_000
"""Most bytes of an output batch before compression: below the ``max.message.bytes`` that Kafka has by default."""
UNIT_BYTES = 8 << 20
"""Most bytes of a unit's batch, the ``max.message.bytes`` of a changelog."""


def encode_outputs(
    unit: CommitUnit, partitions: Mapping[str, int], make_context: Callable[[Narrowing], bytes | None]
) -> dict[int, OutboxEntry]:
    """The unit's outputs as outbox entries by index: one batch for each target partition, more only where it gets large.

    *partitions* are the partition counts of the target topics. Entries of one target are in the order of the outputs.
    """
    entries: list[OutboxEntry | None] = []
    open_batches: dict[Partition, tuple[int, BatchBuilder]] = {}
    source = f"{unit.incarnation}:{unit.sequence}:".encode()

    def close(target: Partition) -> None:
        at, builder = open_batches.pop(target)
        entries[at] = BatchEntry(*target, builder.build())

    for index, output in enumerate(unit.outputs):
        origin: Header = ("pf-source", b"%s%d" % (source, index))
        count = partitions[output.topic]
        if isinstance(output, Copy):
            target = output.topic, _partition(output.to_partition, output.key, count)
            if target in open_batches:
                close(target)
            entries.append(
                PointerEntry(
                    *target,
                    output.source,
                    output.partition,
                    output.offset,
                    output.timestamp_ms,
                    (*output.headers, origin),
                    output.drop,
                )
            )
            continue
        target = output.topic, _partition(output.partition, output.key, count)
        headers = output.headers
        if output.context is not None:
            context = make_context(output.context)
            if context is not None:
                headers.append(("pf-context", context))
        headers.append(origin)
        batch = open_batches.get(target)
        if batch is None or not batch[1].append(output.timestamp_ms, output.key, output.value, headers):
            if batch is not None:
                close(target)
            builder = BatchBuilder(OUTPUT_BYTES, compress=True)
            builder.append(output.timestamp_ms, output.key, output.value, headers)
            open_batches[target] = len(entries), builder
            entries.append(None)
    for target in list(open_batches):
        close(target)
    return {index: entry for index, entry in enumerate(entries) if entry is not None}


def encode_unit(unit: CommitUnit, outbox: Mapping[int, OutboxEntry], now_ms: int) -> bytes:
    """The record batch whose append is the commit."""
    builder = BatchBuilder(UNIT_BYTES, compress=False)
    for key, value in unit.entries:
        builder.append(now_ms, key, value, [])
    for index, entry in outbox.items():
        builder.append(now_ms, changelog.outbox_key(unit.sequence, index), encode_entry(entry), [])
    return builder.build()


def _partition(chosen: int | None, key: bytes | None, count: int) -> int:
    if chosen is not None:
        return chosen % count
    return partition_of(key or b"", count)
