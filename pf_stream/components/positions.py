"""Positions: how far each reactor has come in its source topics, and how to move it.

They are the watermarks in the changelogs. The offsets of the consumer group are a hint for other tools and decide nothing.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pf_stream.clock import Clock
from pf_stream.components.changelogs import LaneLog, require_no_workers
from pf_stream.components.stored import find_reactor
from pf_stream.core import changelog
from pf_stream.core.header import Header
from pf_stream.core.plan import GroupPlan, SourcePlan, plan
from pf_stream.engine.custody import Custody, Entry
from pf_stream.errors import NotFoundError, PFError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.kafka.reader import read_topic
from pf_stream.kafka.topics import check_topics
from pf_stream.model import Topology
from pf_stream.model._names import nearest
from pf_stream.model._periods import duration_ms
from pf_stream.model.context import parse_time_ms

__all__ = [
    "BadTargetError",
    "Change",
    "OutOfRangeError",
    "Position",
    "Reset",
    "StaleReaderError",
    "Target",
    "bounds",
    "parse_target",
    "partitions_meant",
    "positions",
    "resolve",
]

Standing = Literal["ok", "new", "replaced", "out of range"]


class BadTargetError(PFError):
    """Raised when a text does not say where a position is to be moved to."""

    code = "bad_target"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} is no position; write start, end, +N (behind the start), -N (before the end), N (an offset), or "
            f"@TIME: @2026-01-31T12:00:00Z, @2026-01-31, @1769860800 or @1769860800000, or @-2h"
        )


class OutOfRangeError(PFError):
    """Raised when a partition does not hold the offset that a position is to be moved to."""

    code = "out_of_range"

    def __init__(self, partition: Partition, offset: int, begin: int, end: int) -> None:
        super().__init__(
            f"{partition[0]}-{partition[1]} holds [{begin}, {end}), so nothing can go on at {offset}; name the partition that "
            f"is meant with --partition"
        )


class StaleReaderError(PFError):
    """Raised when only some readers of a topic that was made anew would be moved: the others' offsets mean nothing in it."""

    code = "stale_reader"

    def __init__(self, topic: str, reactor: str) -> None:
        super().__init__(
            f"{topic} was deleted and made anew since reactor {reactor!r} read it, so all its readers have to be moved: "
            f"leave --reactor out"
        )


@dataclass(frozen=True, slots=True)
class Target:
    """Where a position is to be moved to."""

    kind: Literal["start", "end", "offset", "time"]
    """From where *number* counts; ``time`` is the first record at that time or later."""
    number: int = 0
    """Records behind the start, or before the end if negative; an offset; milliseconds since the epoch."""


def parse_target(text: str, now_ms: int) -> Target:
    """The target that *text* names, in the notation of Redpanda's ``rpk``; raises :class:`BadTargetError`."""
    match text[:1], text[1:]:
        case _ if text in {"start", "end"}:
            return Target("start" if text == "start" else "end")
        case "+", digits if _is_number(digits):
            return Target("start", int(digits))
        case "-", digits if _is_number(digits):
            return Target("end", -int(digits))
        case "@", time:
            return Target("time", _time_ms(time, text, now_ms))
        case _ if _is_number(text):
            return Target("offset", int(text))
    raise BadTargetError(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _time_ms(time: str, text: str, now_ms: int) -> int:
    ago_ms = duration_ms(time[1:]) if time.startswith("-") else None
    if ago_ms is not None:
        return now_ms - ago_ms
    if _is_number(time) and len(time) in {10, 13}:
        return int(time) * (1000 if len(time) == 10 else 1)
    found = parse_time_ms((f"{time}T00:00:00Z" if _is_date(time) else time).encode())
    if found is None:
        raise BadTargetError(text)
    return found


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and bool(datetime.strptime(f"{text}Z", "%Y-%m-%d%z"))
    except ValueError:
        return False


# -- where everything stands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reactor has come in one partition of a source topic."""

    reactor: str
    """The reactor's id."""
    topic: str
    """The source topic."""
    partition: int
    """Its partition."""
    position: int | None
    """Next offset; None if the reactor has not read the topic yet."""
    begin: int
    """Offset of the partition's first record."""
    end: int
    """Offset behind its last."""
    lag: int
    """Records that are still to be read, of those that exist."""
    state: Standing
    """``new`` if it was never read; ``replaced`` if the topic was deleted and made anew since, ``out of range`` if the next
    record is gone: the lane does not start until the position is reset."""


def positions(settings: ConnectionSettings, topology: Topology) -> list[Position]:
    """Where every reactor stands, sorted by topic, partition and reactor. Reads the changelogs from their beginning.

    Raises:
        TopicMissingError: a topic of the topology does not exist.
        PartitionsDisagreeError: the topics do not belong together.
    """
    admin = Admin(settings)
    partitions = check_topics(admin, topology)
    found = []
    for group in plan(topology, partitions):
        logs = _read_logs(settings, group)
        topics = admin.topics([source.topic for source in group.sources])
        begins, ends = bounds(admin, [(source.topic, n) for source in group.sources for n in range(partitions)])
        for source in group.sources:
            for number, log in enumerate(logs):
                at = source.topic, number
                for reader in source.readers:
                    known = log.watermarks.get((reader.spec.id, source.topic))
                    found.append(_position(reader.spec.id, at, known, topics[at[0]].id, begins[at], ends[at]))
    return sorted(found, key=lambda one: (one.topic, one.partition, one.reactor))


def _position(
    reactor: str, at: Partition, known: tuple[int, bytes] | None, topic_id: bytes, begin: int, end: int
) -> Position:
    state: Standing = "ok"
    if known is None:
        state = "new"
    elif known[1] != topic_id:
        state = "replaced"
    elif not begin <= known[0] <= end:
        state = "out of range"
    start = known[0] if known is not None and state == "ok" else begin
    return Position(reactor, *at, None if known is None else known[0], begin, end, end - start, state)


def _read_logs(settings: ConnectionSettings, group: GroupPlan) -> list[LaneLog]:
    logs = [LaneLog() for _ in range(group.partitions)]
    for record in read_topic(settings, group.changelog):
        logs[record.partition].take([(record.key or b"", record.value)])
    return logs


def bounds(admin: Admin, partitions: list[Partition]) -> tuple[Mapping[Partition, int], Mapping[Partition, int]]:
    """Where partitions begin and end."""
    return admin.offsets(partitions, "start"), admin.offsets(partitions, "end")


# -- moving ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """A position that is moved."""

    reactor: str
    """The reactor's id."""
    topic: str
    """The source topic."""
    partition: int
    """Its partition."""
    before: int | None
    """Next offset until now; None if the reactor had not read the topic."""
    after: int
    """Next offset from now on."""


class Reset:
    """Moves positions to a target.

    Without a *topic*, those in the public source topics: what lies in internal ones follows from these, and would be counted
    twice if both were read again.

    Raises :class:`NotFoundError` for a reactor, topic or partition that the topology has not, :class:`OutOfRangeError`, and
    what :func:`positions` raises; its methods :class:`StaleReaderError`.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        topology: Topology,
        target: Target,
        *,
        reactor: str | None = None,
        topic: str | None = None,
        partition: int | None = None,
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._admin = admin = Admin(settings)
        count = check_topics(admin, topology)
        self._numbers = partitions_meant(topology, count, partition)
        self._reactor = reactor
        self._groups = plan(topology, count)
        if reactor is not None:
            find_reactor(topology, reactor)
        self._sources = self._select(topic)
        if not self._sources:
            raise NotFoundError(f"reactor {reactor!r} reads no public topic; name one with --topic")
        wanted = [(source.topic, number) for _, source in self._sources for number in self._numbers]
        self._targets = resolve(admin, wanted, target)
        self._ids = {name: found.id for name, found in admin.topics([topic for topic, _ in wanted]).items()}

    def _select(self, topic: str | None) -> list[tuple[GroupPlan, SourcePlan]]:
        name = None if topic is None else self._topology.topic_name(topic)
        every = [(group, source) for group in self._groups for source in group.sources]
        known = {source.topic for _, source in every}
        if name is not None and name not in known:
            raise NotFoundError(f"topology {self._topology.name!r} does not read {name}{nearest(name, known)}")
        return [
            (group, source)
            for group, source in every
            if (source.topic == name if name is not None else not source.internal) and self._readers(source)
        ]

    def _readers(self, source: SourcePlan) -> list[str]:
        return [reader.spec.id for reader in source.readers if self._reactor in {None, reader.spec.id}]

    @property
    def size(self) -> int:
        """How many lanes are changed."""
        return len(self._numbers) * len({group.name for group, _ in self._sources})

    def preview(self) -> list[Change]:
        """What :meth:`execute` would change. Nothing is written, and no worker disturbed."""
        return [
            change
            for group in self._groups
            if any(one is group for one, _ in self._sources)
            for number, log in enumerate(_read_logs(self._settings, group))
            if number in self._numbers
            for change in self._changes(group, number, log)
        ]

    def execute(self, clock: Clock) -> Iterator[list[Change]]:
        """Move the positions, lane by lane; gives the changes of each.

        Raises:
            WorkersRunningError: workers of the topology run; nothing is changed.
            FencedError: one has been started meanwhile; the lanes that were given are changed, no others.
            PartitionCountError: the changelog was written for another number of partitions.
        """
        require_no_workers(self._admin, self._topology)
        with asyncio.Runner() as runner:
            custody = runner.run(Custody.connect(self._settings, "pf offsets reset"))
            try:
                for group in self._groups:
                    if any(one is group for one, _ in self._sources):
                        for number in self._numbers:
                            yield runner.run(self._reset(custody, group, number, clock))
            finally:
                runner.run(custody.close())

    async def _reset(self, custody: Custody, group: GroupPlan, number: int, clock: Clock) -> list[Change]:
        at = group.changelog, number
        log = LaneLog()
        lease = await custody.take(at, log.take, clock.now_ms())
        if log.header is not None:
            Header.parse(group.changelog, log.header).check_partitions(group)
        changes = self._changes(group, number, log)
        entries: list[Entry] = []
        for change in changes:
            value = changelog.WATERMARK_VALUE.pack(change.after, self._ids[change.topic])
            entries.append((changelog.watermark_key(change.reactor, change.topic), value))
        for source in group.sources:
            moved = {change.reactor: change.after for change in changes if change.topic == source.topic}
            if source.internal and moved:
                entries += await asyncio.to_thread(self._move_marks, log, source, number, moved)
            if len(moved) == len(source.readers):
                entries += log.held_from(source.topic, max(moved.values()))
        if any(change.before is not None and change.after < change.before for change in changes):
            # Read again, all of it would be late by a clock that has seen it.
            entries += [(key, None) for key in sorted(log.clock)]
        await custody.append(lease, at, [*entries, *log.closing()], clock.now_ms())
        return changes

    def _move_marks(self, log: LaneLog, source: SourcePlan, number: int, moved: Mapping[str, int]) -> list[Entry]:
        """The marks are those of the reader that is furthest; the others pass over nothing by them."""
        stays = [
            offset
            for (reactor, topic), (offset, topic_id) in log.watermarks.items()
            if topic == source.topic and reactor not in moved and topic_id == self._ids[topic]
        ]
        furthest = max([*moved.values(), *stays])
        return log.move_marks(self._settings, (source.topic, number), furthest)

    def _changes(self, group: GroupPlan, number: int, log: LaneLog) -> list[Change]:
        changes = []
        for one, source in self._sources:
            if one is group:
                readers = self._readers(source)
                for reader in source.readers:
                    known = log.watermarks.get((reader.spec.id, source.topic))
                    if reader.spec.id not in readers and known is not None and known[1] != self._ids[source.topic]:
                        raise StaleReaderError(source.topic, reader.spec.id)
                for reactor in readers:
                    known = log.watermarks.get((reactor, source.topic))
                    after = self._targets[source.topic, number]
                    changes.append(Change(reactor, source.topic, number, None if known is None else known[0], after))
        return changes


def partitions_meant(topology: Topology, count: int, partition: int | None) -> Sequence[int]:
    """*partition*, or all of the *count* that there are; raises :class:`NotFoundError` if it is none of them."""
    if partition is not None and not 0 <= partition < count:
        raise NotFoundError(f"there is no partition {partition}; topology {topology.name!r} has {count}, from 0")
    return range(count) if partition is None else [partition]


def resolve(admin: Admin, partitions: list[Partition], target: Target) -> dict[Partition, int]:
    """The offsets that a target means; raises :class:`OutOfRangeError`."""
    begins, ends = bounds(admin, partitions)
    match target.kind:
        case "time":
            return admin.offsets(partitions, target.number)
        case "start":
            return {at: min(begins[at] + target.number, ends[at]) for at in partitions}
        case "end":
            return {at: max(ends[at] + target.number, begins[at]) for at in partitions}
        case "offset":
            for at in partitions:
                if not begins[at] <= target.number <= ends[at]:
                    raise OutOfRangeError(at, target.number, begins[at], ends[at])
            return dict.fromkeys(partitions, target.number)
