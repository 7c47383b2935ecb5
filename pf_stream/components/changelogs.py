"""What tools read in changelogs beside states, and who has to be gone before they write there."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pf_stream.core import changelog
from pf_stream.core.source import Mark, parse_origin
from pf_stream.core.timers import held_key
from pf_stream.engine.custody import Entry
from pf_stream.errors import PFError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.kafka.reader import read_topic
from pf_stream.model import Topology

__all__ = ["LaneLog", "WorkersRunningError", "marks_below", "require_no_workers"]

K = TypeVar("K")


class WorkersRunningError(PFError):
    """Raised when a changelog is to be changed while workers of its topology are members of the group."""

    code = "workers_running"
    retryable = True

    def __init__(self, topology: str, members: Sequence[str]) -> None:
        self.members = tuple(members)
        super().__init__(
            f"topology {topology!r} has running workers, which would take their lanes back: {', '.join(members)}. "
            f"Stop them first; the group counts a worker for up to 10 seconds after its end"
        )


def require_no_workers(admin: Admin, topology: Topology) -> None:
    """Raises :class:`WorkersRunningError` if the topology's group has members."""
    members = admin.members(topology.app_id)
    if members:
        raise WorkersRunningError(topology.name, members)


class LaneLog:
    """The records of one changelog partition, as far as tools change them."""

    def __init__(self, states_of: str | None = None) -> None:
        """*states_of* is a reactor whose states and timers are collected."""
        self.header: bytes | None = None
        """Value of the header record, if the lane ever lived."""
        self.reactors: set[str] = set()
        """Every reactor of which there is or was something."""
        self.watermarks: dict[tuple[str, str], tuple[int, bytes]] = {}
        """By reactor and topic: next offset, and id of the topic that it belongs to."""
        self.marks: dict[str, dict[str, Mark]] = {}
        """By topic and upstream lane: the last record taken."""
        self.states: set[bytes] = set()
        """Keys of the states that were asked for, and of their entries, as they are in the changelog."""
        self.timers: set[bytes] = set()
        """Keys of its timers, likewise."""
        self.windows: set[bytes] = set()
        """The key under which it is told how many of its windows are open, if any is."""
        self.clock: set[bytes] = set()
        """Keys of its event clock and of how far its upstreams were."""
        self.unit = changelog.UNIT_VALUE.pack(0, 0)
        """Value of the record that numbers units."""
        self.suspected = False
        """Whether it is written down which intent was tried when a worker ended."""
        self._held: dict[str, set[int]] = {}
        self._states_of = states_of
        self._prefix = None if states_of is None else changelog.state_prefix(states_of)

    def take(self, records: Iterable[Entry]) -> None:
        """Take records in the order of the log."""
        for key, value in records:
            match key[1:2]:
                case b"w":
                    reactor, at = changelog.parse_name(key, 2)
                    topic, _ = changelog.parse_name(key, at)
                    self.reactors.add(reactor)
                    if value is None:
                        self.watermarks.pop((reactor, topic), None)
                    else:
                        self.watermarks[reactor, topic] = changelog.WATERMARK_VALUE.unpack(value)
                case b"d":
                    topic, at = changelog.parse_name(key, 2)
                    incarnation, _ = changelog.parse_name(key, at)
                    if value is None:
                        self.marks.get(topic, {}).pop(incarnation, None)
                    else:
                        self.marks.setdefault(topic, {})[incarnation] = changelog.MARK_VALUE.unpack(value)
                case b"h" if value is not None:
                    self.header = value
                case b"s":
                    if self._prefix is not None and key.startswith(self._prefix):
                        _keep(self.states, key, value)
                case b"t":
                    self._take_timer(key, value)
                case b"u" if value is not None:
                    self.unit = value
                case b"n" if changelog.parse_name(key, 2)[0] == self._states_of:
                    _keep(self.windows, key, value)
                case b"e" | b"c":
                    _keep(self.clock, key, value)
                case b"p":
                    self.suspected = value is not None
                case _:
                    pass

    def _take_timer(self, key: bytes, value: bytes | None) -> None:
        reactor, name, rest = changelog.parse_state_key(
            key
        )  # with the timer's name, and its length, in place of a subkey
        if reactor and reactor == self._states_of:
            _keep(self.timers, key, value)
        elif not reactor:
            _keep(self._held.setdefault(name.decode(), set()), int(rest[4:]), value)

    def held_from(self, topic: str, offset: int) -> list[Entry]:
        """What forgets the records of a topic that were put aside, from *offset* on: they are read again."""
        return [(held_key(topic, at), None) for at in sorted(self._held.get(topic, ())) if at >= offset]

    def closing(self) -> list[Entry]:
        """What ends an edit. The fence that began it is no worker that ended: it must not make the lane suspect its intents,
        nor be held against one that has another offset now."""
        unit: Entry = (changelog.UNIT, self.unit)
        return [unit, (changelog.SUSPECT, None)] if self.suspected else [unit]

    def move_marks(self, settings: ConnectionSettings, partition: Partition, offset: int | None) -> list[Entry]:
        """What makes the marks of an internal topic those of a lane that has read it up to *offset*, or not at all.

        A record whose mark is not above that of its upstream lane counts as a repeat, so after a step back the marks of later
        records would hide what is to be read again. What left no record in the topic keeps its mark: it cannot come again.
        """
        topic = partition[0]
        stored = self.marks.get(topic, {})
        if offset is None:
            return [(changelog.mark_key(topic, incarnation), None) for incarnation in stored]
        below, above = marks_below(settings, partition, offset)
        entries: list[Entry] = [
            (changelog.mark_key(topic, incarnation), changelog.MARK_VALUE.pack(*mark))
            for incarnation, mark in below.items()
            if stored.get(incarnation) != mark
        ]
        entries += [
            (changelog.mark_key(topic, incarnation), None)
            for incarnation in stored
            if incarnation in above and incarnation not in below
        ]
        return entries


def marks_below(settings: ConnectionSettings, partition: Partition, offset: int) -> tuple[dict[str, Mark], set[str]]:
    """The highest mark of each upstream lane below *offset* of an internal topic, and the lanes that wrote at or above it."""
    below: dict[str, Mark] = {}
    above: set[str] = set()
    for record in read_topic(settings, partition[0], partitions=[partition[1]]):
        origin = parse_origin((record.header("pf-source") or "").encode())
        if origin is None:
            continue
        incarnation = origin[0].decode()
        if record.offset < offset:
            below[incarnation] = max(origin[1], below.get(incarnation, origin[1]))
        else:
            above.add(incarnation)
    return below, above


def _keep(kept: set[K], key: K, value: bytes | None) -> None:
    if value is None:
        kept.discard(key)
    else:
        kept.add(key)
