"""Where the outputs of a lane go: how many partitions their topics have, and what is to be appended there."""

from collections.abc import Collection
from typing import Final

import structlog

from pf_stream.core.outbox import OutboxEntry, PointerEntry
from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import Header
from pf_stream.core.unit import CommitUnit
from pf_stream.engine.encode import OutboxBuilder
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.errors import AppendError, NotAuthorisedError, TopicMissingError
from pf_stream.kafka.link import Link

__all__ = ["NOT_TAKEN", "Targets"]

log = structlog.get_logger(__name__)

COPY_BYTES: Final = 5 << 20
"""Most bytes of a copied record: the ``max.message.bytes`` of the topics that copies go to."""

NOT_TAKEN: Final = (AppendError, NotAuthorisedError, TopicMissingError)
"""What it looks like when a topic does not take an output."""


class Targets:
    """The topics that a lane's outputs go to.

    Those that the topology does not need were chosen by clients for their replies. No client may hold up a lane by
    its choice, so what such a topic does not take is dropped.
    """

    def __init__(self, plan: GroupPlan, link: Link) -> None:
        self._link = link
        self._needed = {plan.changelog}
        self._needed |= {topic for source in plan.sources for topic in (source.topic, source.dead_letters)}
        self._needed |= {emit.topic for emit in plan.emits.values()}
        self.partitions: dict[str, int] = {}
        """Partition counts, as far as they are known."""

    def is_optional(self, topic: str) -> bool:
        """Whether a client chose it."""
        return topic not in self._needed

    def dropped(self, topic: str, reason: object) -> None:
        """Note that a topic does not take a reply; it is asked for again when somebody names it again."""
        log.warning("replies dropped: their topic does not take them", topic=topic, reason=str(reason))
        self.partitions.pop(topic, None)

    async def entries(self, unit: CommitUnit[OutboxBuilder]) -> dict[int, OutboxEntry]:
        """The unit's outputs, once the partition counts of their targets are known."""
        unknown: Collection[str] = unit.outputs.unknown
        absent: set[str] = set()
        if unknown:
            described = await self._link.describe(sorted(unknown))
            absent = set(unknown) - described.keys()
            self.partitions.update({topic: found.partitions for topic, found in described.items()})
        if absent:
            needed = sorted(topic for topic in absent if not self.is_optional(topic))
            if needed:
                raise await self._link.why_absent(needed[0]) or TopicMissingError(
                    needed, "They were away for a moment."
                )
            log.warning("replies dropped: their topic does not exist", topics=sorted(absent))
        return unit.outputs.entries(without=absent)

    async def batch(self, entry: OutboxEntry) -> bytes:
        """What is to be appended: for a pointer, the record that it points at, with its new headers."""
        if not isinstance(entry, PointerEntry):
            return entry.batch
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


def _batch(timestamp_ms: int, key: bytes | None, value: bytes | None, headers: list[Header]) -> bytes:
    """A batch of one record, which always fits."""
    builder = BatchBuilder(COPY_BYTES, compress=True)
    builder.append(timestamp_ms, key, value, headers)
    return builder.build()
