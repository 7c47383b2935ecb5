"""Joins: values of two streams, of a stream and a table, of two tables.

What waits for its partner lies in the state of its key: here as a list, in the order of arrival.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Literal, TypeAlias

from pf_stream.model import Emit, Schedule
from pf_stream.model.effect import Tally
from pf_stream.streams._operator import Add, Built, Flow, Stage, event_times, instant
from pf_stream.streams._timed import LATE

__all__ = ["UNMATCHED", "AsOfOperator", "How", "IntervalOperator", "LookupOperator", "TablesOperator"]

How: TypeAlias = Literal["inner", "left", "right", "outer"]
"""Which values without a partner come out: none, those of the left side, of the right side, of both."""
UNMATCHED = "unmatched"
"""What values are counted as that found no partner, and are not told."""

Waiting: TypeAlias = tuple[int, Any, bool]
"""A value that waits for partners: when it happened, the value, whether it has found one."""


def _waiting(value: Any) -> Any:
    return GenericAlias(list, (GenericAlias(tuple, (int, value, bool)),))


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

    def tell(self, port: str, key: str, value: Any, times: tuple[int, int], flow: Flow) -> None:
        """Tell of one, or count it; *times* are its own and what the clock says."""
        kind = self._of.get(port)
        if kind is None:
            flow.effects.append(Tally(LATE))
            return
        time_ms, watermark_ms = times
        flow.effects.append(
            Emit(kind.model_validate({"key": key, "value": value, "time_ms": time_ms, "watermark_ms": watermark_ms}))
        )


def _wait(due: type[Any], key: str, due_ms: int, state: Any, flow: Flow) -> None:
    if state.due is None or due_ms < state.due:
        state.due = due_ms
        flow.effects.append(Schedule(due(key=key), at=instant(due_ms), name="due", clock="event"))


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
        due = stage.timer("due")
        lates = _Lates(stage, self.late, self.ports)
        bound_ms = self.bound_ms + stage.lag_ms
        # How long after it happened a value may still find a partner, by the event clock.
        reach = {"left": self.after_ms + bound_ms, "right": self.before_ms + bound_ms}
        alone = {"left": self.how in {"left", "outer"}, "right": self.how in {"right", "outer"}}

        def pair(port: str, value: Any, other: Any) -> Any:
            return self.make(value, other) if port == "left" else self.make(other, value)

        def adder(port: str, other: str) -> Add:
            earliest, latest = (-self.before_ms, self.after_ms) if port == "left" else (-self.after_ms, self.before_ms)

            def add(key: str, value: Any, state: Any, flow: Flow) -> None:
                time_ms, clock_ms = event_times(flow)
                if clock_ms > time_ms + bound_ms:
                    lates.tell(port, key, value, (time_ms, clock_ms), flow)
                else:
                    partners: list[Waiting] = getattr(state, other)
                    matched = False
                    for number, (at_ms, partner, _) in enumerate(partners):
                        if earliest <= at_ms - time_ms <= latest:
                            matched = True
                            partners[number] = at_ms, partner, True
                            flow.send([pair(port, value, partner)], max(time_ms, at_ms))
                    getattr(state, port).append((time_ms, value, matched))
                    _wait(due, key, time_ms + reach[port] + 1, state, flow)
                if state.due is None:
                    flow.forget()

            return add

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            clock_ms = flow.context.watermark_ms or 0
            state.due = None
            left_over: list[int] = []
            for port in self.ports:
                waiting: list[Waiting] = getattr(state, port)
                gone = [one for one in waiting if clock_ms > one[0] + reach[port]]
                waiting[:] = [one for one in waiting if clock_ms <= one[0] + reach[port]]
                for time_ms, value, matched in gone:
                    if matched:
                        continue
                    if alone[port]:
                        flow.send([pair(port, value, None)], time_ms)
                    else:
                        flow.effects.append(Tally(UNMATCHED))
                left_over += [time_ms + reach[port] + 1 for time_ms, _, _ in waiting]
            if left_over:
                _wait(due, intent.key, min(left_over), state, flow)
            else:
                flow.forget()

        return Built(
            {
                "left": (_waiting(stage.value_type("left")), list),
                "right": (_waiting(stage.value_type("right")), list),
                "due": (int | None, lambda: None),
            },
            {"left": adder("left", "right"), "right": adder("right", "left")},
            {"due": fire},
            late=lates.types,
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
        due = stage.timer("due")
        lates = _Lates(stage, self.late, self.ports)
        bound_ms = self.bound_ms + stage.lag_ms

        def is_late(port: str, key: str, value: Any, state: Any, flow: Flow) -> bool:
            time_ms, clock_ms = event_times(flow)
            if clock_ms <= time_ms + bound_ms:
                return False
            lates.tell(port, key, value, (time_ms, clock_ms), flow)
            if not state.left and not state.right:
                flow.forget()
            return True

        def add_left(key: str, value: Any, state: Any, flow: Flow) -> None:
            time_ms, _ = event_times(flow)
            if not is_late("left", key, value, state, flow):
                state.left.append((time_ms, value))
                _wait(due, key, time_ms + bound_ms + 1, state, flow)

        def add_right(key: str, value: Any, state: Any, flow: Flow) -> None:
            time_ms, _ = event_times(flow)
            if not is_late("right", key, value, state, flow):
                # Of those of one time the last to arrive counts.
                state.right = [one for one in state.right if one[0] != time_ms]
                state.right.append((time_ms, value))
                _wait(due, key, time_ms + bound_ms + 1, state, flow)

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            reached = (flow.context.watermark_ms or 0) - bound_ms
            state.due = None
            for time_ms, value in sorted((one for one in state.left if one[0] < reached), key=lambda one: one[0]):
                partner = self._latest(state.right, time_ms)
                if partner is not None:
                    flow.send([self.make(value, partner[1])], time_ms)
                elif self.how == "left":
                    flow.send([self.make(value, None)], time_ms)
                else:
                    flow.effects.append(Tally(UNMATCHED))
            state.left = [one for one in state.left if one[0] >= reached]
            # What is to come may be as early as this, and asks for the latest before it.
            newest = self._latest(state.right, reached)
            state.right = [one for one in state.right if one[0] >= reached or one is newest]
            state.right.sort(key=lambda one: one[0])
            times = [one[0] + bound_ms + 1 for one in (*state.left, *state.right) if one[0] >= reached]
            if not times and newest is not None and self.tolerance_ms is not None:
                times = [newest[0] + self.tolerance_ms + bound_ms + 1]
            if times:
                _wait(due, intent.key, min(times), state, flow)
            elif not state.right:
                flow.forget()

        pairs = (GenericAlias(list, (GenericAlias(tuple, (int, stage.value_type(port))),)) for port in self.ports)
        left, right = pairs
        return Built(
            {"left": (left, list), "right": (right, list), "due": (int | None, lambda: None)},
            {"left": add_left, "right": add_right},
            {"due": fire},
            late=lates.types,
        )

    def _latest(self, rows: list[tuple[int, Any]], time_ms: int) -> tuple[int, Any] | None:
        """Of *rows* the latest at *time_ms* or before, if it is not too old then."""
        known = [
            row
            for row in rows
            if row[0] <= time_ms and (self.tolerance_ms is None or row[0] + self.tolerance_ms >= time_ms)
        ]
        return max(known, key=lambda row: row[0], default=None)


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
        def add(key: str, value: Any, state: Any, flow: Flow) -> None:
            if state.row:
                flow.send([self.make(value, state.row[0])])
                return
            flow.forget()
            if self.how == "left":
                flow.send([self.make(value, None)])
            else:
                flow.effects.append(Tally(UNMATCHED))

        def put(key: str, value: Any, state: Any, flow: Flow) -> None:
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
            def put(key: str, value: Any, state: Any, flow: Flow) -> None:
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
