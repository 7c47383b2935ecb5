"""State of reactors as tools deal with all of it: checked, dropped."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from pf_stream.clock import Clock
from pf_stream.components.changelogs import LaneLog, require_no_workers
from pf_stream.components.live import NoReactorError
from pf_stream.components.stored import States, Stored, find_reactor
from pf_stream.core.changelog import HEADER, parse_state_key, parse_subkey, state_key_end, watermark_key
from pf_stream.core.decoding import StateUndecodableError, current_json, decode_entry
from pf_stream.core.header import Header
from pf_stream.core.plan import GroupPlan, plan
from pf_stream.engine.custody import Custody, Entry
from pf_stream.errors import NotFoundError, PFError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import read_topic
from pf_stream.kafka.topics import check_topics
from pf_stream.model import ReactorSpec, Topology
from pf_stream.model._names import nearest

__all__ = [
    "Checked",
    "DeclaredReactorError",
    "Drop",
    "Dropped",
    "StateFault",
    "check_state",
    "check_states",
]

BATCH: Final = 20_000
"""Most states that are deleted by one batch: keys of 400 bytes fit. Also those after which progress is told."""


# -- checked ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StateFault:
    """A state that its reactor cannot read: the lane of its key stops when the key is used."""

    reactor: str
    """The reactor's id."""
    key: str
    """The key, as text."""
    topic: str
    """The changelog."""
    partition: int
    """The key's partition."""
    offset: int | None
    """Where the state lies there; None if a worker told it."""
    reason: str
    """Why it cannot be decoded."""


@dataclass(slots=True)
class Checked:
    """What was found, in one changelog partition or of one reactor."""

    keys: Counter[str] = field(default_factory=Counter)
    """States by reactor."""
    faults: list[StateFault] = field(default_factory=list)
    """Those that cannot be decoded, in the order of their offsets."""
    undeclared: Counter[str] = field(default_factory=Counter)
    """States by the id of reactors that the topology does not declare; they are kept, and nobody decodes them."""


def check_state(settings: ConnectionSettings, topology: Topology, reactor: str | None = None) -> Iterator[Checked]:
    """Decode every state of the topology, or of one reactor, as a lane would; gives each changelog partition's outcome.

    Keeps the last value of each key of one partition in memory, as a worker keeps those of all its lanes.

    Raises:
        NotFoundError: the topology has no such reactor.
        TopicMissingError: a topic of the topology does not exist.
    """
    if reactor is not None:
        find_reactor(topology, reactor)
    for group in plan(topology, check_topics(Admin(settings), topology)):
        if reactor is None or any(one.spec.id == reactor for one in group.reactors):
            for number in range(group.partitions):
                yield _check_lane(settings, group, number, reactor)


def _check_lane(settings: ConnectionSettings, group: GroupPlan, number: int, only: str | None) -> Checked:
    last: dict[bytes, tuple[int, bytes]] = {}
    for record in read_topic(settings, group.changelog, partitions=[number]):
        key = record.key or b""
        if key[1:2] == b"s":
            if record.value is None:
                last.pop(key, None)
            else:
                last[key] = record.offset, record.value
    specs = {one.spec.id: one.spec for one in group.reactors}
    checked = Checked()
    for key, (offset, value) in sorted(last.items(), key=lambda item: item[1][0]):
        reactor, name, subkey = parse_state_key(key)
        spec = specs.get(reactor)
        if spec is None:
            checked.undeclared[reactor] += not subkey
        elif only not in {None, reactor}:
            continue
        elif subkey:
            _check_entry(checked, spec, group.changelog, Stored(name, value, number, offset), subkey)
        else:
            _check(checked, spec, group.changelog, Stored(name, value, number, offset))
    return checked


def check_states(states: States) -> Iterator[Checked]:
    """Decode every state of one reactor as its workers tell them, without the entries of its maps; gives the outcome for some
    of them at a time.

    Workers that do not have the reactor yet have no state of it.
    """
    checked = Checked()
    with suppress(NoReactorError):
        for stored in states.all(""):
            _check(checked, states.spec, states.changelog, stored)
            if checked.keys.total() == BATCH:
                yield checked
                checked = Checked()
    yield checked


def _check(checked: Checked, spec: ReactorSpec, changelog: str, stored: Stored) -> None:
    checked.keys[spec.id] += 1
    try:
        spec.state.decode(current_json(spec, stored.key, stored.raw))
    except StateUndecodableError as error:
        _fault(checked, spec, changelog, stored, error.reason)
    except ValueError as error:  # pydantic's is one
        _fault(checked, spec, changelog, stored, str(error))


def _check_entry(checked: Checked, spec: ReactorSpec, changelog: str, stored: Stored, subkey: bytes) -> None:
    try:
        id_, entry = parse_subkey(subkey)
        for one in spec.state.maps:
            if one.id == id_:
                decode_entry(spec, one, stored.key, entry, stored.raw)
    except StateUndecodableError as error:
        _fault(checked, spec, changelog, stored, error.reason)
    except (ValueError, IndexError) as error:
        _fault(checked, spec, changelog, stored, f"an entry: {error}")


def _fault(checked: Checked, spec: ReactorSpec, changelog: str, stored: Stored, reason: str) -> None:
    shown = stored.key.decode(errors="replace")
    checked.faults.append(StateFault(spec.id, shown, changelog, stored.partition, stored.offset, reason))


# -- dropped ----------------------------------------------------------------------------------------------------------------


class DeclaredReactorError(PFError):
    """Raised when the state of a reactor is to be dropped that the topology declares."""

    code = "declared_reactor"

    def __init__(self, topology: str, reactor: str) -> None:
        super().__init__(
            f"topology {topology!r} declares the reactor {reactor!r}, which would begin anew, from the start of its topics; "
            f"say --force if that is meant"
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """What goes from one changelog partition."""

    topic: str
    """The changelog."""
    partition: int
    """Its partition."""
    states: int
    """How many states."""
    entries: int
    """How many entries of their maps."""
    timers: int
    """How many timers."""
    positions: int
    """How many positions: one for each source topic that the reactor read."""


class Drop:
    """Deletes everything that is kept of a reactor: its states, timers and positions, of a declared one all at once.

    Raises:
        DeclaredReactorError: the topology declares it, and it is not *forced*.
        TopicMissingError: a topic of the topology does not exist.
    """

    def __init__(self, settings: ConnectionSettings, topology: Topology, reactor: str, *, forced: bool) -> None:
        self._settings = settings
        self._topology = topology
        self._reactor = reactor
        self._declared = any(spec.id == reactor for spec in topology.specs)
        if self._declared and not forced:
            raise DeclaredReactorError(topology.name, reactor)
        self._admin = Admin(settings)
        self._groups = plan(topology, check_topics(self._admin, topology))

    @property
    def size(self) -> int:
        """How many changelog partitions are looked at."""
        return sum(group.partitions for group in self._groups)

    def preview(self) -> Iterator[Dropped]:
        """What :meth:`execute` would delete. Nothing is written, and no worker disturbed.

        Raises:
            NotFoundError: nothing is kept of such a reactor.
        """
        known: set[str] = set()
        for group in self._groups:
            for number in range(group.partitions):
                log = LaneLog(self._reactor)
                for record in read_topic(self._settings, group.changelog, partitions=[number]):
                    log.take([(record.key or b"", record.value)])
                known |= log.reactors
                yield self._dropped(group, number, log)
        self._require(known)

    def execute(self, clock: Clock) -> Iterator[Dropped]:
        """Delete, lane by lane.

        Raises:
            WorkersRunningError: workers of the topology run; nothing is changed.
            FencedError: one has been started meanwhile; what was given is deleted, and nothing else.
            EditTooLargeError: a declared reactor has too many states to be dropped at once: take it out of the topology first.
            NotFoundError: nothing is kept of such a reactor.
        """
        require_no_workers(self._admin, self._topology)
        known: set[str] = set()
        with asyncio.Runner() as runner:
            custody = runner.run(Custody.connect(self._settings, "pf state drop"))
            try:
                for group in self._groups:
                    for number in range(group.partitions):
                        log = LaneLog(self._reactor)
                        runner.run(self._drop(custody, group, number, log, clock))
                        known |= log.reactors
                        yield self._dropped(group, number, log)
            finally:
                runner.run(custody.close())
        self._require(known)

    def _require(self, known: set[str]) -> None:
        if self._reactor not in known:
            raise NotFoundError(f"nothing is kept of a reactor {self._reactor!r}{nearest(self._reactor, known)}")

    def _dropped(self, group: GroupPlan, number: int, log: LaneLog) -> Dropped:
        entries = sum(1 for key in log.states if len(key) > state_key_end(key))
        states = len(log.states) - entries
        return Dropped(group.changelog, number, states, entries, len(log.timers), len(self._topics(log)))

    def _topics(self, log: LaneLog) -> list[str]:
        return [topic for reactor, topic in log.watermarks if reactor == self._reactor]

    async def _drop(self, custody: Custody, group: GroupPlan, number: int, log: LaneLog, clock: Clock) -> None:
        at = group.changelog, number
        lease = await custody.take(at, log.take, clock.now_ms())
        entries: list[Entry] = [(watermark_key(self._reactor, topic), None) for topic in self._topics(log)]
        entries += await asyncio.to_thread(self._move_marks, group, number, log)
        if log.header is not None:
            known = Header.parse(group.changelog, log.header)
            rest = {name: version for name, version in known.reactors.items() if name != self._reactor}
            entries.append((HEADER, replace(known, reactors=rest).encode()))
        if {reactor for reactor, _ in log.watermarks} <= {self._reactor}:
            entries += [(key, None) for key in sorted(log.clock)]
        states: list[Entry] = [(key, None) for key in (*log.states, *log.timers, *log.windows)]
        if not self._declared:
            # Nobody reads these, so they may go one batch after the other; the rest tells that there was something, so it is last.
            while len(states) > BATCH:
                await custody.append(lease, at, states[:BATCH], clock.now_ms())
                del states[:BATCH]
        await custody.append(lease, at, [*states, *entries, *log.closing()], clock.now_ms())

    def _move_marks(self, group: GroupPlan, number: int, log: LaneLog) -> list[Entry]:
        """Without the reactor, the marks of an internal topic are those of the reader that is furthest of the others."""
        entries: list[Entry] = []
        for topic in self._topics(log):
            source = next((one for one in group.sources if one.topic == topic), None)
            if source is None or not source.internal:
                continue
            readers = {one.spec.id for one in source.readers} - {self._reactor}
            seen = [offset for (one, read), (offset, _) in log.watermarks.items() if read == topic and one in readers]
            entries += log.move_marks(self._settings, (topic, number), max(seen, default=None))
        return entries
