"""Joins: values of two streams, of a stream and a table, of two tables.

What waits for its partner lies in the state of its key, in maps by the time at which it happened: a value costs what it meets,
however many wait. The few that wait under most keys lie in a list, which costs less than an entry for each.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from operator import attrgetter, itemgetter
from types import GenericAlias
from typing import Any, Final, Literal, TypeAlias

from pf_stream.errors import DefinitionError
from pf_stream.model import Emit, MapState
from pf_stream.model.effect import Bell, Ring, Tally
from pf_stream.model.map_state import MapSpec, read_map
from pf_stream.model.state import Keeper, StateSpec
from pf_stream.streams._operator import Add, Built, Flow, Stage, event_times
from pf_stream.streams._timed import LATE

__all__ = ["UNMATCHED", "AsOfOperator", "How", "IntervalOperator", "LookupOperator", "TablesOperator"]

How: TypeAlias = Literal["inner", "left", "right", "outer"]
"""Which values without a partner come out: none, those of the left side, of the right side, of both."""
UNMATCHED = "unmatched"
"""What values are counted as that found no partner, and are not told."""

Waiting: TypeAlias = tuple[int, Any, bool]
"""A value that waits for partners, as it is stored: when it happened, the value, whether it has found one."""
_FEW: Final = 16
"""How many values of a side lie in a list; what is more lies in a map."""
_LONGER: Final = 3
"""How many times as long a key waits for its next look, where nothing hurries, if it was in use at the last one."""
_NUMBERS: Final = 32
"""Bits of the number of a value, behind its time, in the key of its entry: several may have happened at once."""
_MATCHED: Final = b"true]"
_UNMATCHED: Final = b"false]"
"""Ends of the JSON of a value that waits."""
_AT_ONCE: Final = 256
"""Most values of a key that go in one go; the next follow at once, in a unit of their own if they must."""


def _from(time_ms: int) -> int:
    """Where entries begin that happened then."""
    return time_ms << _NUMBERS


def _next_at(time_ms: int, state: Any) -> int:
    """Where the next entry lies that happened then."""
    state.number += 1
    number: int = state.number
    return _from(time_ms) + number


_Fresh: TypeAlias = tuple[Any, bool, bytes | None]
"""A value that waits, whether it has found a partner, and the JSON of it, if that is made already."""


@dataclass(slots=True)
class _Few:
    """The values of a side that wait in a list, by time.

    The list is written whenever one comes or goes, so the JSON of each is made once. From then on the value itself, which takes
    several times the memory, is only there again if it meets partners: made anew for the first, kept for more.
    """

    form: MapSpec = field(compare=False)
    """How they are stored."""
    times: "array[int]" = field(default_factory=lambda: array("q"))
    """When they happened, milliseconds since the epoch."""
    held: list[bytes | _Fresh] = field(default_factory=list)
    """What they are: JSON, or what could be changed in place, or is new, or has met many."""

    @classmethod
    def of(cls, form: MapSpec, waiting: list[Waiting]) -> "_Few":
        """Those that were stored."""
        rows = sorted(waiting, key=itemgetter(0))
        times = array("q", [time_ms for time_ms, _, _ in rows])
        return cls(form, times, [(value, matched, None) for _, value, matched in rows])

    def add(self, time_ms: int, value: Any, matched: bool) -> None:
        """Add one, behind those of the same time."""
        at = bisect_right(self.times, time_ms)
        self.times.insert(at, time_ms)
        self.held.insert(at, (value, matched, None))

    def value(self, at: int) -> Any:
        """One of the values."""
        one = self.held[at]
        return self.form.decode(one)[1] if isinstance(one, bytes) else one[0]

    def meet(self, at: int) -> Any:
        """One of the values, which has found a partner."""
        one = self.held[at]
        if not isinstance(one, bytes):
            value, matched, _ = one
            if not matched:
                self.held[at] = value, True, None
            return value
        value = self.form.decode(one)[1]
        self.held[at] = (value, True, one) if one.endswith(_MATCHED) else one[: -len(_UNMATCHED)] + _MATCHED
        return value

    def unmatched(self, count: int) -> list[int]:
        """Which of the first *count* have found no partner."""
        return [
            at
            for at, one in enumerate(self.held[:count])
            if not (one.endswith(_MATCHED) if isinstance(one, bytes) else one[1])
        ]

    def drop(self, count: int) -> None:
        """Let the first *count* go."""
        del self.times[:count], self.held[:count]

    def json(self) -> bytes:
        """What is between the brackets."""
        form, held = self.form, self.held
        made: list[Any] = held[:]
        for at, one in enumerate(held):
            if one.__class__ is tuple:  # most are JSON
                json = one[2]
                if json is None:
                    json = form.encode((self.times[at], one[0], one[1]))
                    if form.frozen:
                        held[at] = json
                made[at] = json
        return b",".join(made)


def _form(port: str, waiting: Any) -> MapSpec:
    """How values of the type *waiting* are stored."""
    faults: list[str] = []
    form = read_map(port, MapState[int, waiting], 1, faults)
    if form is None:
        raise DefinitionError("join", faults)
    return form


def _encode(state: Any) -> bytes:
    """The state of an interval join as it is stored: as if its lists were lists."""
    until, due = state.until, state.due
    return b'{"left":[%b],"right":[%b],"more":%d,"number":%d,"until":%b,"due":%b}' % (
        state.left.json(),
        state.right.json(),
        state.more,
        state.number,
        b"null" if until is None else b"%d" % until,
        b"null" if due is None else b"%d" % due,
    )


def _keep(state: Any) -> Sequence[Any] | None:
    """As of a :class:`Keeper`."""
    if state.more:
        return None
    left, right = state.left, state.right
    return left.times[:], left.held[:], right.times[:], right.held[:], state.number, state.until, state.due


def _restore(state: Any, kept: Sequence[Any]) -> None:
    left, right = state.left, state.right
    left.times, left.held, right.times, right.held, state.number, state.until, state.due = kept
    state.more = 0


class _Lates:
    """Where values go that come too late."""

    def __init__(self, stage: Stage, topic: str | None, ports: tuple[str, ...]) -> None:
        self._of: dict[str, type[Any]] = {}
        if topic is not None:
            for port in ports:
                fields: dict[str, Any] = {"value": stage.value_type(port), "time_ms": int, "watermark_ms": int}
                self._of[port] = stage.outlet(f"late_{port}", topic, **fields)

    @property
    def types(self) -> tuple[type[Any], ...]:
        """Types of the intents that they become."""
        return tuple(self._of.values())

    def tell(self, port: str, value: Any, times: tuple[int, int], flow: Flow) -> None:
        """Tell of one, or count it; *times* are its own and what the clock says."""
        kind = self._of.get(port)
        if kind is None:
            flow.effects.append(Tally(LATE))
            return
        time_ms, watermark_ms = times
        told = {"key": flow.key, "value": value, "time_ms": time_ms, "watermark_ms": watermark_ms}
        flow.effects.append(Emit(kind.model_validate(told)))


def _wait(due: Bell, due_ms: int, state: Any, flow: Flow) -> None:
    if state.due is None or due_ms < state.due:
        state.due = due_ms
        flow.effects.append(Ring(due, flow.key, due_ms))


@dataclass(frozen=True, slots=True)
class IntervalOperator:
    """Each pair of a left and a right value of which the right one happened within an interval about the left one."""

    before_ms: int
    """How much earlier the right one may be."""
    after_ms: int
    """How much later."""
    bound_ms: int
    """How far values may be out of order."""
    how: How
    """What comes out alone."""
    make: Callable[[Any, Any], Any]
    """What becomes of a pair; ``None`` stands for what is missing."""
    result: Any
    """Its type."""
    late: str | None = None
    """Topic for what comes too late; ``None``: it is counted."""

    kind = "join"
    ports = ("left", "right")
    many = True
    event_time = True

    @property
    def hold_ms(self) -> int:
        return self.bound_ms + max(self.before_ms, self.after_ms)

    def build(self, stage: Stage) -> Built:
        due = stage.bell("due", "event")
        lates = _Lates(stage, self.late, self.ports)
        bound_ms = self.bound_ms + stage.lag_ms
        # How long after it happened a value may still find a partner, by the event clock.
        reach = {"left": self.after_ms + bound_ms, "right": self.before_ms + bound_ms}
        alone = {"left": self.how in {"left", "outer"}, "right": self.how in {"right", "outer"}}

        def pair(port: str, value: Any, other: Any) -> Any:
            return self.make(value, other) if port == "left" else self.make(other, value)

        # Where nobody is told the end of a value, a key looks for what is over half as often as it might.
        slack_ms = 0 if True in alone.values() else max(reach.values())

        def let_few_go(port: str, few: _Few, clock_ms: int, flow: Flow) -> None:
            count = bisect_left(few.times, clock_ms - reach[port])
            if not count:
                return
            unmatched = few.unmatched(count)
            if alone[port]:
                for at in unmatched:
                    flow.send([pair(port, few.value(at), None)], few.times[at])
            elif unmatched:
                flow.effects.append(Tally(UNMATCHED, len(unmatched)))
            few.drop(count)

        def adder(port: str, other: str) -> Add:
            earliest, latest = (-self.before_ms, self.after_ms) if port == "left" else (-self.after_ms, self.before_ms)
            own_of, few_of, make, is_left = attrgetter(port), attrgetter(other), self.make, port == "left"
            reach_ms, is_told = reach[port], alone[port]

            def add(value: Any, state: Any, flow: Flow) -> None:
                time_ms, clock_ms = event_times(flow)
                if clock_ms > time_ms + bound_ms:
                    lates.tell(port, value, (time_ms, clock_ms), flow)
                    if state.due is None:
                        flow.forget()
                    return
                matched = False
                first_ms, last_ms = time_ms + earliest, time_ms + latest
                few = few_of(state)
                times = few.times
                for at in range(bisect_left(times, first_ms), bisect_right(times, last_ms)):
                    matched = True
                    partner = few.meet(at)
                    made = make(value, partner) if is_left else make(partner, value)
                    flow.send([made], max(times[at], time_ms))
                if state.more:
                    rest: MapState[int, Waiting] = getattr(state, f"{other}_more")
                    for at, (at_ms, partner, known) in rest.items(_from(first_ms), _from(last_ms + 1)):
                        matched = True
                        if not known:
                            rest[at] = at_ms, partner, True
                        flow.send([pair(port, value, partner)], max(time_ms, at_ms))
                own = own_of(state)
                # While somebody has not said what time it is, partners of any time may come from there.
                if own.times and own.times[0] < clock_ms - reach_ms and flow.context.watermark_ms is not None:
                    let_few_go(port, own, clock_ms, flow)
                if len(own.times) < _FEW:
                    own.add(time_ms, value, matched)
                else:
                    state.more += 1
                    getattr(state, f"{port}_more")[_next_at(time_ms, state)] = time_ms, value, matched
                end_ms = time_ms + reach_ms + 1
                # Of the other sides nobody is told the end, so they go with the last of them.
                if state.until is None or end_ms > state.until:
                    state.until = end_ms
                if is_told or state.due is None:
                    _wait(due, end_ms + slack_ms, state, flow)

            return add

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            clock_ms = flow.context.watermark_ms or 0
            state.due = None
            ends: list[int] = []
            for port in self.ports:
                few: _Few = getattr(state, port)
                let_few_go(port, few, clock_ms, flow)
                if alone[port] and few.times:
                    ends.append(few.times[0] + reach[port] + 1)
                if state.more:
                    rest: MapState[int, Waiting] = getattr(state, f"{port}_more")
                    gone = [*islice(rest.items(None, _from(clock_ms - reach[port])), _AT_ONCE)]
                    for at, _ in gone:
                        del rest[at]
                    state.more -= len(gone)
                    unmatched = [(time_ms, value) for _, (time_ms, value, matched) in gone if not matched]
                    if alone[port]:
                        for time_ms, value in unmatched:
                            flow.send([pair(port, value, None)], time_ms)
                    elif unmatched:
                        flow.effects.append(Tally(UNMATCHED, len(unmatched)))
                    first = rest.first() if alone[port] or len(gone) == _AT_ONCE else None
                    if first is not None:
                        ends.append(first[1][0] + reach[port] + 1)
            if state.until is not None and state.until > clock_ms:
                ends.append(state.until + _LONGER * slack_ms)
            if ends:
                _wait(due, min(ends), state, flow)
            else:
                flow.forget()

        fields: dict[str, tuple[Any, Callable[[], Any] | None]] = {}
        forms = {}
        for port in self.ports:
            waiting = GenericAlias(tuple, (int, stage.value_type(port), bool))
            form = forms[port] = _form(port, waiting)
            fields[port] = GenericAlias(list, (waiting,)), partial(_Few, form)
            fields[f"{port}_more"] = MapState[int, waiting], None  # type: ignore[valid-type]

        def storing(spec: StateSpec) -> StateSpec:
            def decode(raw: bytes) -> Any:
                state = spec.decode(raw)
                for port, form in forms.items():
                    setattr(state, port, _Few.of(form, getattr(state, port)))
                return state

            return replace(spec, encode=_encode, decode=decode, keeper=Keeper(_keep, _restore))

        return Built(
            fields
            | {
                "more": (int, int),
                "number": (int, int),
                "until": (int | None, lambda: None),
                "due": (int | None, lambda: None),
            },
            {"left": adder("left", "right"), "right": adder("right", "left")},
            {"due": fire},
            late=lates.types,
            storing=storing,
        )


@dataclass(frozen=True, slots=True)
class AsOfOperator:
    """Each left value with the latest right one that had happened by then."""

    tolerance_ms: int | None
    """How old the right one may be."""
    bound_ms: int
    """How far values may be out of order: a left value waits so long."""
    how: How
    """``inner`` or ``left``."""
    make: Callable[[Any, Any], Any]
    """What becomes of a pair; ``None`` stands for what is missing."""
    result: Any
    """Its type."""
    late: str | None = None
    """Topic for what comes too late; ``None``: it is counted."""

    kind = "as_of"
    ports = ("left", "right")
    many = True
    event_time = True

    @property
    def hold_ms(self) -> int:
        return self.bound_ms

    def build(self, stage: Stage) -> Built:
        due = stage.bell("due", "event")
        lates = _Lates(stage, self.late, self.ports)
        bound_ms = self.bound_ms + stage.lag_ms

        def is_late(port: str, value: Any, state: Any, flow: Flow) -> bool:
            time_ms, clock_ms = event_times(flow)
            if clock_ms <= time_ms + bound_ms:
                return False
            lates.tell(port, value, (time_ms, clock_ms), flow)
            if not state.left and not state.right:
                flow.forget()
            return True

        def add_left(value: Any, state: Any, flow: Flow) -> None:
            time_ms, _ = event_times(flow)
            if not is_late("left", value, state, flow):
                state.left[_next_at(time_ms, state)] = value
                _wait(due, time_ms + bound_ms + 1, state, flow)

        def add_right(value: Any, state: Any, flow: Flow) -> None:
            time_ms, _ = event_times(flow)
            if not is_late("right", value, state, flow):
                state.right[time_ms] = value  # of those of one time the last to arrive counts
                end_ms = time_ms + bound_ms + 1
                # Only what is behind it is needed no more, which has time.
                state.until = end_ms if state.until is None else max(end_ms, state.until)
                if state.due is None:
                    _wait(due, end_ms, state, flow)

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            clock_ms = flow.context.watermark_ms or 0
            reached = clock_ms - bound_ms
            state.due = None
            rights = state.right.items(None, reached)
            latest: tuple[int, Any] | None = None
            coming = next(rights, None)

            def go_to(time_ms: int) -> None:
                nonlocal latest, coming
                while coming is not None and coming[0] <= time_ms:
                    if latest is not None:
                        del state.right[latest[0]]  # what is to come asks for one that is later
                    latest, coming = coming, next(rights, None)

            for at, value in islice(state.left.items(None, _from(reached)), _AT_ONCE):
                time_ms = at >> _NUMBERS
                go_to(time_ms)
                del state.left[at]
                if latest is not None and not self._is_old(latest[0], time_ms):
                    flow.send([self.make(value, latest[1])], time_ms)
                elif self.how == "left":
                    flow.send([self.make(value, None)], time_ms)
                else:
                    flow.effects.append(Tally(UNMATCHED))
            ends: list[int] = []
            first = state.left.first()
            if first is not None:
                ends.append((first[0] >> _NUMBERS) + bound_ms + 1)
            if first is None or first[0] >= _from(reached):
                go_to(reached)
                if latest is not None and self._is_old(latest[0], reached):
                    del state.right[latest[0]]
                    latest = None
            if state.until is not None and state.until > clock_ms:
                ends.append(state.until)
            elif not ends and latest is not None and self.tolerance_ms is not None:
                ends.append(latest[0] + self.tolerance_ms + bound_ms + 1)
            if ends:
                _wait(due, min(ends), state, flow)
            elif latest is None:
                flow.forget()

        maps: Any = {port: MapState[int, stage.value_type(port)] for port in self.ports}  # type: ignore[misc]
        return Built(
            {
                "left": (maps["left"], None),
                "right": (maps["right"], None),
                "number": (int, int),
                "until": (int | None, lambda: None),
                "due": (int | None, lambda: None),
            },
            {"left": add_left, "right": add_right},
            {"due": fire},
            late=lates.types,
        )

    def _is_old(self, right_ms: int, time_ms: int) -> bool:
        """Whether a right value is too old for that time."""
        return self.tolerance_ms is not None and right_ms + self.tolerance_ms < time_ms


@dataclass(frozen=True, slots=True)
class LookupOperator:
    """Each value of a stream with what a table has under its key when it arrives."""

    remove: Callable[[Any], object] | None
    """Whether a value of the table's removes its row."""
    how: How
    """``inner`` or ``left``."""
    make: Callable[[Any, Any], Any]
    """What becomes of a pair; ``None`` stands for what is missing."""
    result: Any
    """Its type."""

    kind = "lookup"
    ports = ("left", "right")
    many = False
    event_time = False
    hold_ms = 0

    def build(self, stage: Stage) -> Built:
        def add(value: Any, state: Any, flow: Flow) -> None:
            if state.row:
                flow.send([self.make(value, state.row[0])])
                return
            flow.forget()
            if self.how == "left":
                flow.send([self.make(value, None)])
            else:
                flow.effects.append(Tally(UNMATCHED))

        def put(value: Any, state: Any, flow: Flow) -> None:
            if self.remove is not None and self.remove(value):
                flow.forget()
            else:
                state.row = [value]

        row = GenericAlias(list, (stage.value_type("right"),))
        return Built({"row": (row, list)}, {"left": add, "right": put})


@dataclass(frozen=True, slots=True)
class TablesOperator:
    """The rows of two tables, whenever one of them changes."""

    removes: tuple[Callable[[Any], object] | None, Callable[[Any], object] | None]
    """For each side, whether a value removes its row."""
    how: How
    """What comes out alone."""
    make: Callable[[Any, Any], Any]
    """What becomes of a pair; ``None`` stands for what is missing."""
    result: Any
    """Its type."""

    kind = "tables"
    ports = ("left", "right")
    many = False
    event_time = False
    hold_ms = 0

    def build(self, stage: Stage) -> Built:
        def adder(port: str, remove: Callable[[Any], object] | None) -> Add:
            def put(value: Any, state: Any, flow: Flow) -> None:
                setattr(state, port, [] if remove is not None and remove(value) else [value])
                if not state.left and not state.right:
                    flow.forget()
                flow.send(list(self._rows(state)))

            return put

        return Built(
            {port: (GenericAlias(list, (stage.value_type(port),)), list) for port in self.ports},
            {port: adder(port, remove) for port, remove in zip(self.ports, self.removes, strict=True)},
        )

    def _rows(self, state: Any) -> Iterator[Any]:
        left, right = state.left, state.right
        if left and right:
            yield self.make(left[0], right[0])
        elif left and self.how in {"left", "outer"}:
            yield self.make(left[0], None)
        elif right and self.how in {"right", "outer"}:
            yield self.make(None, right[0])
