"""How far each sink has come in its topic, and how to move it.

That is what the topology's consumer group has committed, with the marks of the upstream lanes beside it. Nothing else follows
from a sink, so its position may be moved alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pf_stream.components.changelogs import marks_below, require_no_workers
from pf_stream.components.positions import Target, bounds, partitions_meant, resolve
from pf_stream.core.sink import Marks, sink_plans
from pf_stream.errors import NotFoundError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.groups import GroupOffsets
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.kafka.offsets import Committed
from pf_stream.kafka.topics import check_topics
from pf_stream.model import Topology
from pf_stream.model._names import nearest

__all__ = ["SinkChange", "SinkPosition", "SinkReset", "sink_positions"]


@dataclass(frozen=True, slots=True)
class SinkPosition:
    """How far a sink has come in one partition of its topic."""

    sink: str
    """The sink's name."""
    topic: str
    """Its topic."""
    partition: int
    """The partition."""
    position: int | None
    """Offset from which on nothing was handed over; None if nothing was committed yet."""
    begin: int
    """Offset of the partition's first record."""
    end: int
    """Offset behind its last."""
    lag: int
    """Records that are still to be handed over, of those that exist."""
    state: Literal["ok", "new", "out of range"]
    """``new`` if it has not begun; ``out of range`` if the next record is gone: it goes on where the topic begins."""


def sink_positions(settings: ConnectionSettings, topology: Topology) -> list[SinkPosition]:
    """Where every sink stands, sorted by topic and partition.

    Raises:
        TopicMissingError: a topic of the topology does not exist.
        PartitionsDisagreeError: the topics do not belong together.
        KafkaError: the group's offsets cannot be read.
    """
    admin = Admin(settings)
    plans = sink_plans(topology, check_topics(admin, topology))
    names = {(plan.topic, number): plan.sink.name for plan in plans for number in range(plan.partitions)}
    known = _committed(settings, topology, list(names))
    begins, ends = bounds(admin, list(names))
    return [_position(names[at], at, known.get(at), begins[at], ends[at]) for at in sorted(names)]


def _position(sink: str, at: Partition, known: Committed | None, begin: int, end: int) -> SinkPosition:
    if known is None:
        return SinkPosition(sink, *at, None, begin, end, end - begin, "new")
    there = begin <= known.offset <= end
    start = known.offset if there else begin
    return SinkPosition(sink, *at, known.offset, begin, end, end - start, "ok" if there else "out of range")


def _committed(
    settings: ConnectionSettings, topology: Topology, partitions: Sequence[Partition]
) -> dict[Partition, Committed]:
    if not partitions:
        return {}
    group = GroupOffsets(settings, topology.app_id, partitions)
    try:
        return group.committed()
    finally:
        group.close()


@dataclass(frozen=True, slots=True)
class SinkChange:
    """A position of a sink that is moved."""

    sink: str
    """The sink's name."""
    topic: str
    """Its topic."""
    partition: int
    """The partition."""
    before: int | None
    """Offset from which on nothing was handed over, until now; None if nothing was committed yet."""
    after: int
    """The same from now on."""


class SinkReset:
    """Moves the positions of a *sink* to a target.

    Raises :class:`NotFoundError` for a sink or partition that the topology has not, :class:`OutOfRangeError`, and what
    :func:`sink_positions` raises.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        topology: Topology,
        target: Target,
        sink: str,
        *,
        partition: int | None = None,
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._admin = admin = Admin(settings)
        count = check_topics(admin, topology)
        plans = {plan.sink.name: plan for plan in sink_plans(topology, count)}
        if sink not in plans:
            raise NotFoundError(f"topology {topology.name!r} has no sink {sink!r}{nearest(sink, list(plans))}")
        self._sink = sink
        numbers = partitions_meant(topology, count, partition)
        self._targets = resolve(admin, [(plans[sink].topic, number) for number in numbers], target)

    def preview(self) -> list[SinkChange]:
        """What :meth:`execute` would change."""
        return self._changes(_committed(self._settings, self._topology, list(self._targets)))

    def execute(self) -> list[SinkChange]:
        """Move the positions; returns what was changed.

        Raises:
            WorkersRunningError: workers of the topology run; nothing is changed.
        """
        require_no_workers(self._admin, self._topology)
        group = GroupOffsets(self._settings, self._topology.app_id, self._targets)
        try:
            known = group.committed()
            group.commit(
                {
                    at: Committed(offset, self._marks(at, offset, known.get(at, Committed(0, "")).metadata))
                    for at, offset in self._targets.items()
                }
            )
        finally:
            group.close()
        return self._changes(known)

    def _changes(self, known: dict[Partition, Committed]) -> list[SinkChange]:
        return [
            SinkChange(self._sink, *at, known[at].offset if at in known else None, after)
            for at, after in sorted(self._targets.items())
        ]

    def _marks(self, at: Partition, offset: int, stored: str) -> str:
        """The marks of a sink that has read up to *offset*: later ones would hide what is to be handed over again.

        What left no record in the topic keeps its mark: it cannot come again.
        """
        below, above = marks_below(self._settings, at, offset)
        marks = Marks(" ".join(word for word in stored.split() if word.partition(":")[0] not in above))
        for incarnation, mark in below.items():
            marks.note(incarnation.encode(), mark)
        return str(marks)
