"""Timers as tools deal with them: listed, shown, cancelled, fired. They are read in the changelogs."""

import asyncio
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from pf_stream.clock import Clock
from pf_stream.components.changelogs import LaneLog, require_no_workers
from pf_stream.components.dead_letters import HIDDEN
from pf_stream.core.changelog import parse_state_key
from pf_stream.core.envelope import is_structured, open_structured
from pf_stream.core.header import Header
from pf_stream.core.outputs import SERVICE, read_identity
from pf_stream.core.plan import GroupPlan, plan
from pf_stream.core.timers import DEADLINE, EVENT, WALL, Timer, decode_timer, encode_timer
from pf_stream.engine.custody import Custody, Entry
from pf_stream.errors import NotFoundError, PFError, UnhealthyError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import read_topic
from pf_stream.kafka.topics import check_topics
from pf_stream.model import Topology
from pf_stream.model._names import nearest
from pf_stream.model.context import parse_time_ms
from pf_stream.security.token import TokenError, describe

__all__ = [
    "BadTimerError",
    "TimerDetail",
    "TimerEdit",
    "TimerNotFoundError",
    "TimerUndecodableError",
    "WaitingTimer",
    "find_timer",
    "list_timers",
]

NAMELESS = (b"\xfe", b"\xff")
"""How the names begin that nobody gave, beside those that are text."""


class BadTimerError(PFError):
    """Raised when a text does not say which timer is meant."""

    code = "bad_timer"

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is no timer; write it as pf timers list shows it: GROUP:PARTITION:OFFSET")


class TimerNotFoundError(NotFoundError):
    """Raised when no timer waits where one is looked for."""

    code = "no_timer"

    def __init__(self, timer: str) -> None:
        super().__init__(f"no timer waits at {timer}: it fired, was cancelled or set anew; see pf timers list")


class TimerUndecodableError(UnhealthyError):
    """Raised when what lies in a changelog as a timer cannot be read."""

    code = "timer_undecodable"

    def __init__(self, timer: str) -> None:
        super().__init__(f"the timer at {timer} cannot be read: another version of pf_stream, or no worker, wrote it")


@dataclass(frozen=True, slots=True)
class WaitingTimer:
    """A timer that waits, as it was last committed."""

    timer: str
    """Where it lies in the changelog, ``group:partition:offset``: that names it until it is set anew."""
    group: str
    """The group."""
    partition: int
    """The partition of its lane."""
    reactor: str | None
    """Id of the reactor that set it; None if it is a record that was put aside."""
    key: str | None
    """The key for which it was set, or that of the record."""
    name: str | None
    """The name that it was given, if any."""
    type: str | None
    """Type of the intent."""
    clock: Literal["wall", "event"]
    """By which clock it is due."""
    due_ms: int
    """When it is due, milliseconds since the epoch."""
    deadline_ms: int | None
    """Until when the intent is to be handled; likewise."""


@dataclass(frozen=True, slots=True)
class TimerDetail(WaitingTimer):
    """A timer with the intent that waits."""

    topic: str
    """Full name of the topic that the intent came by, or would go to."""
    offset: int
    """Offset of the record that was put aside, or that caused the timer."""
    subject: str | None
    """In whose name, as the token says, which is not verified here; None for nobody's."""
    judged_ms: int
    """When the context was judged, milliseconds since the epoch."""
    failed: int
    """Attempts at which its handler raised."""
    headers: tuple[tuple[str, str | None], ...]
    """Headers of the record as text, but for a token."""
    intent: Any
    """Its JSON; text where it is none."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A timer as it is stored."""

    group: GroupPlan
    partition: int
    offset: int
    key: bytes
    raw: bytes

    @property
    def at(self) -> str:
        return f"{self.group.name}:{self.partition}:{self.offset}"

    def decode(self) -> Timer:
        try:
            return decode_timer(self.raw)
        except (struct.error, ValueError, IndexError):
            raise TimerUndecodableError(self.at) from None


# -- looked at --------------------------------------------------------------------------------------------------------------


def list_timers(
    settings: ConnectionSettings,
    topology: Topology,
    *,
    reactor: str | None = None,
    key: str | None = None,
    before_ms: int | None = None,
) -> list[WaitingTimer]:
    """All timers that wait, or those of a *reactor*, of a *key*, that are due before a time; by the time at which they are due.

    Reads the changelogs from their beginning, and disturbs nobody.

    Raises:
        NotFoundError: the topology has no such reactor, and no timer is kept of it.
        TimerUndecodableError: one of them cannot be read.
        TopicMissingError: a topic of the topology does not exist.
    """
    known = {spec.id for spec in topology.specs}
    found: list[WaitingTimer] = []
    for group in _groups(settings, topology):
        for number in range(group.partitions):
            for stored in _read_lane(settings, group, number):
                one = _waiting(stored, stored.decode())
                if one.reactor is not None:
                    known.add(one.reactor)
                if reactor in {None, one.reactor} and key in {None, one.key}:
                    found.append(one)
    if reactor is not None and reactor not in known:
        raise NotFoundError(f"topology {topology.name!r} has no reactor {reactor!r}{nearest(reactor, known)}")
    due = (one for one in found if before_ms is None or one.due_ms < before_ms)
    return sorted(due, key=lambda one: one.due_ms)


def find_timer(settings: ConnectionSettings, topology: Topology, timer: str) -> TimerDetail:
    """The timer at ``group:partition:offset``, with its intent.

    Raises:
        BadTimerError: *timer* is written in another way.
        TimerNotFoundError: none waits there.
        TimerUndecodableError: it cannot be read.
        TopicMissingError: a topic of the topology does not exist.
    """
    return _detail(_find(settings, topology, timer))


def _groups(settings: ConnectionSettings, topology: Topology) -> tuple[GroupPlan, ...]:
    return plan(topology, check_topics(Admin(settings), topology))


def _read_lane(settings: ConnectionSettings, group: GroupPlan, number: int) -> Iterable[_Stored]:
    last: dict[bytes, _Stored] = {}
    for record in read_topic(settings, group.changelog, partitions=[number]):
        key = record.key or b""
        if key[1:2] != b"t":
            continue
        if record.value is None:
            last.pop(key, None)
        else:
            last[key] = _Stored(group, number, record.offset, key, record.value)
    return last.values()


def _find(settings: ConnectionSettings, topology: Topology, timer: str) -> _Stored:
    name, *numbers = timer.rsplit(":", 2)
    if len(numbers) != 2 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise BadTimerError(timer)
    partition, offset = int(numbers[0]), int(numbers[1])
    for group in _groups(settings, topology):
        if group.name == name and partition < group.partitions:
            for stored in _read_lane(settings, group, partition):
                if stored.offset == offset:
                    return stored
    raise TimerNotFoundError(timer)


def _waiting(stored: _Stored, timer: Timer) -> WaitingTimer:
    reactor, key, rest = parse_state_key(stored.key)  # with the timer's name, and its length, in place of a subkey
    name = rest[4:]
    said = dict(timer.record.headers)
    deadline = said.get(DEADLINE)
    whose = key if reactor else timer.record.key
    return WaitingTimer(
        timer=stored.at,
        group=stored.group.name,
        partition=stored.partition,
        reactor=reactor or None,
        key=None if whose is None else whose.decode(errors="replace"),
        name=None if not reactor or name.startswith(NAMELESS) else name.decode(errors="replace"),
        type=_type(timer),
        clock="event" if timer.clock == EVENT else "wall",
        due_ms=timer.due_ms,
        deadline_ms=None if deadline is None else parse_time_ms(deadline),
    )


def _type(timer: Timer) -> str | None:
    said = dict(timer.record.headers)
    if is_structured(said.get("content-type")):
        opened = open_structured(timer.record.value or b"", said)
        said = {} if isinstance(opened, str) else opened[0]
    type_ = said.get("ce_type")
    return None if type_ is None else type_.decode(errors="replace")


def _detail(stored: _Stored) -> TimerDetail:
    timer = stored.decode()
    waiting = _waiting(stored, timer)
    record = timer.record
    return TimerDetail(
        **{name: getattr(waiting, name) for name in WaitingTimer.__slots__},
        topic=timer.topic,
        offset=record.offset,
        subject=_subject(timer, stored.group),
        judged_ms=timer.judged_ms,
        failed=timer.failed,
        headers=tuple(
            (name, HIDDEN if name.lower() == "pf-context" else None if raw is None else raw.decode(errors="replace"))
            for name, raw in record.headers
        ),
        intent=_json(record.value or b""),
    )


def _subject(timer: Timer, group: GroupPlan) -> str | None:
    said = dict(timer.record.headers)
    if timer.scheduled and SERVICE in said:
        identity = read_identity(said[SERVICE], group)
        return None if identity is None else identity.subject
    token = said.get("pf-context")
    try:
        return None if token is None else describe(token).subject
    except TokenError:
        return None


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace")


# -- changed ----------------------------------------------------------------------------------------------------------------


class TimerEdit:
    """Cancels a timer, or sets it due now: it fires when a worker opens its lane.

    Raises what :func:`find_timer` does.
    """

    def __init__(
        self, settings: ConnectionSettings, topology: Topology, timer: str, what: Literal["cancel", "fire"]
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._what = what
        self._stored = _find(settings, topology, timer)
        self.timer = _detail(self._stored)
        """The timer, as it is until now."""

    def execute(self, clock: Clock) -> None:
        """Change it, in one batch.

        Raises:
            WorkersRunningError: workers of the topology run; nothing is changed.
            FencedError: one has been started meanwhile; nothing is changed.
            TimerNotFoundError: it fired, was cancelled or set anew meanwhile.
            PartitionCountError: the changelog was written for another number of partitions.
        """
        require_no_workers(Admin(self._settings), self._topology)
        asyncio.run(self._execute(clock))

    async def _execute(self, clock: Clock) -> None:
        stored, now_ms = self._stored, clock.now_ms()
        at = stored.group.changelog, stored.partition
        log = LaneLog()
        current: bytes | None = None

        def recovered(records: Iterable[Entry]) -> None:
            nonlocal current
            taken = list(records)
            log.take(taken)
            current = dict(taken).get(stored.key, current)

        custody = await Custody.connect(self._settings, f"pf timers {self._what}")
        try:
            lease = await custody.take(at, recovered, now_ms)
            if log.header is not None:
                Header.parse(stored.group.changelog, log.header).check_partitions(stored.group)
            gone = current != stored.raw
            changed = None if self._what == "cancel" else encode_timer(_due_now(stored.decode(), now_ms))
            edits: list[Entry] = [] if gone else [(stored.key, changed)]
            await custody.append(lease, at, [*edits, *log.closing()], now_ms)
        finally:
            await custody.close()
        if gone:
            raise TimerNotFoundError(stored.at)


def _due_now(timer: Timer, now_ms: int) -> Timer:
    """By the wall clock, whichever it waited for: the event clock need not move before anything else comes."""
    due_ms = now_ms if timer.clock == EVENT else min(timer.due_ms, now_ms)
    return timer._replace(clock=WALL, due_ms=due_ms)
