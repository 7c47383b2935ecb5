"""Windows that time ends: tumbling, hopping, sliding and session windows.

The state of a key holds its open windows by the time of their beginning. One timer waits for the earliest of their ends; it
is set anew when an earlier one comes, and looks again for the next when it fires. So a value costs no timer, and a key without
open windows has no state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, Final

from pf_stream.model import Context, Emit
from pf_stream.model.effect import Ring, Tally, Windows
from pf_stream.streams._operator import Built, Flow, Quick, Stage, event_times
from pf_stream.streams.aggregates import Aggregate
from pf_stream.streams.windows import Emission, Hopping, Kind, Session, Sliding, Windowed

__all__ = ["LATE", "TimedOperator"]

LATE: Final = "late"
"""What late values are counted as."""
_NEW: Final = object()
_AT_ONCE: Final = 256
"""Most windows of a key that close in one go; the next follow at once, in a unit of their own if they must."""


@dataclass(frozen=True, slots=True)
class TimedOperator:
    """Windows, and what they make of the values."""

    window: Hopping | Sliding | Session
    """How values are cut."""
    aggregate: Aggregate[Any, Any]
    """What becomes of those of a window."""
    emission: Emission
    """When it is told."""
    late: str | None
    """Topic for what comes too late; ``None``: it is counted."""
    result: Any = None
    """Type of what comes of it."""

    kind = "window"
    ports = ("values",)
    many = True

    @property
    def event_time(self) -> bool:
        return self.window.clock == "event"

    @property
    def hold_ms(self) -> int:
        return self.window.bound_ms + self.window.grace_ms

    def build(self, stage: Stage) -> Built:
        match self.window:
            case Hopping():
                windows: _Windows = _HoppingWindows(self, self.window, stage)
            case Session():
                windows = _Sessions(self, self.window, stage)
            case Sliding():
                windows = _SlidingWindows(self, self.window, stage)
        return windows.built()


class _Windows:
    """What the kinds have in common. Of an entry of ``state.open`` they tell its end and its result."""

    entry_type: Any
    """Type of an entry."""

    def __init__(self, operator: TimedOperator, stage: Stage) -> None:
        window = operator.window
        self.event = window.clock == "event"
        self.bound_ms = window.bound_ms + (stage.lag_ms if self.event else 0)
        self.keep_ms = window.grace_ms
        """For how long a window is kept when it has closed."""
        self.emission = operator.emission
        self.aggregate = operator.aggregate
        self.due = stage.bell("due", "event" if self.event else "wall")
        self.soon = stage.bell("early", "wall") if operator.emission.every_ms else None
        self.late: type[Any] | None = None
        if operator.late is not None:
            self.late = stage.outlet(
                "late", operator.late, value=stage.value_type("values"), time_ms=int, watermark_ms=int
            )

    def built(self) -> Built:
        fields: dict[str, tuple[Any, Callable[[], Any]]] = {
            "open": (GenericAlias(dict, (int, self.entry_type)), dict),
            "done": (int, int),
            "due": (int | None, lambda: None),
        }
        if self.emission.every_ms or self.emission.records:
            fields |= {"unsaid": (list[int], list), "told": (int, int), "soon": (bool, bool)}
        fire = {"due": self.close}
        if self.soon is not None:
            fire["early"] = self.tell_early
        quick = self.quick()
        return Built(
            fields,
            {"values": self.add_one},
            fire,
            {} if quick is None else {"values": quick},
            () if self.late is None else (self.late,),
        )

    def quick(self) -> Quick | None:
        """What takes a value that only changes one window; ``None`` if there is no such way."""
        return None

    def add_one(self, value: Any, state: Any, flow: Flow) -> None:
        raise NotImplementedError

    def end(self, start: int, entry: Any) -> int:
        raise NotImplementedError

    def windowed(self, key: str, start: int, state: Any, kind: Kind) -> Windowed[Any]:
        raise NotImplementedError

    def times(self, flow: Flow) -> tuple[int, int]:
        """When the value at hand happened, and what the clock says."""
        if self.event:
            return event_times(flow)
        now_ms = flow.context.now_ms
        return now_ms, now_ms

    def is_late(self, value: Any, time_ms: int, clock_ms: int, state: Any, flow: Flow) -> None:
        """Deal with a value that belongs to no window any more."""
        if self.late is None:
            flow.effects.append(Tally(LATE))
        else:
            told = {"key": flow.key, "value": value, "time_ms": time_ms, "watermark_ms": clock_ms}
            flow.effects.append(Emit(self.late.model_validate(told)))
        if not state.open:
            flow.forget()

    def wait(self, due_ms: int, state: Any, flow: Flow) -> None:
        """See that there is a timer for *due_ms* or before."""
        if state.due is None or due_ms < state.due:
            state.due = due_ms
            flow.effects.append(Ring(self.due, flow.key, due_ms))

    def close(self, intent: Any, state: Any, flow: Flow) -> None:
        """The timer: close what has ended, remove what is not needed any more, and wait for the next."""
        clock = flow.context.watermark_ms if self.event else flow.context.now_ms
        assert clock is not None  # a timer on the event clock makes the lane keep it
        key = flow.key
        opened = state.open
        state.due = None
        reached = clock - self.bound_ms
        closed = 0
        gone = []
        due_ms: int | None = None
        for start in sorted(opened):
            entry = opened[start]
            end = self.end(start, entry)
            if end > state.done and end <= reached and closed < _AT_ONCE:
                if self.emission.close:
                    flow.send([self.windowed(key, start, state, "final")], end - 1)
                closed += 1
                state.done = end
            if end <= state.done and end + self.keep_ms <= reached:
                gone.append(start)
            else:
                next_ms = end + self.bound_ms + (self.keep_ms if end <= state.done else 0)
                due_ms = next_ms if due_ms is None else min(due_ms, next_ms)
        # What closes later may be made of what is not needed otherwise.
        if closed < _AT_ONCE:
            for start in gone:
                del opened[start]
            if gone:
                flow.effects.append(Windows(-len(gone)))
        if due_ms is None:
            flow.forget()
        else:
            self.wait(due_ms, state, flow)

    def touched(self, start: int, state: Any, flow: Flow) -> None:
        """Note that a window has what no result has told of, and tell it if it is time."""
        emission = self.emission
        if start not in state.unsaid:
            state.unsaid.append(start)
        state.told += 1
        if emission.records is not None and state.told >= emission.records:
            self.tell(state, flow)
        elif self.soon is not None and not state.soon:
            state.soon = True
            assert emission.every_ms is not None
            flow.effects.append(Ring(self.soon, flow.key, flow.context.now_ms + emission.every_ms))

    def tell_early(self, intent: Any, state: Any, flow: Flow) -> None:
        """The timer of early results."""
        state.soon = False
        self.tell(state, flow)
        if not state.open:
            flow.forget()

    def tell(self, state: Any, flow: Flow) -> None:
        flow.send(
            [
                self.windowed(flow.key, start, state, "early")
                for start in sorted(state.unsaid)
                if start in state.open and self.end(start, state.open[start]) > state.done
            ]
        )
        state.unsaid.clear()
        state.told = 0


class _HoppingWindows(_Windows):
    """Tumbling windows too: those hop by their size."""

    def __init__(self, operator: TimedOperator, window: Hopping, stage: Stage) -> None:
        super().__init__(operator, stage)
        self.size_ms = window.size_ms
        self.every_ms = window.every_ms
        self.offset_ms = window.offset_ms
        self.entry_type = operator.aggregate.stored

    def end(self, start: int, entry: Any) -> int:
        return start + self.size_ms

    def windowed(self, key: str, start: int, state: Any, kind: Kind) -> Windowed[Any]:
        return Windowed(key, start, start + self.size_ms, self.aggregate.result(state.open[start]), kind)

    def quick(self) -> Quick | None:
        emission = self.emission
        hops = self.size_ms != self.every_ms or self.keep_ms
        if hops or not emission.close or emission.every_ms or emission.records:
            return None
        event, size_ms, offset_ms = self.event, self.size_ms, self.offset_ms
        add = self.aggregate.add

        def quick(value: Any, state: Any, context: Context) -> bool:
            time_ms = context.now_ms
            if event and (happened_ms := context.time_ms) < time_ms:
                time_ms = happened_ms
            start = time_ms - (time_ms - offset_ms) % size_ms
            opened = state.open
            entry = opened.get(start, _NEW)
            if entry is _NEW:
                return False
            # What is open and closes once is not late: its timer would have come first.
            opened[start] = add(entry, value)
            return True

        return quick

    def add_one(self, value: Any, state: Any, flow: Flow) -> None:
        time_ms, clock_ms = self.times(flow)
        opened, emission = state.open, self.emission
        told: list[Windowed[Any]] = []
        taken = False
        opening = 0
        due_ms: int | None = None
        newest = time_ms - (time_ms - self.offset_ms) % self.every_ms
        for start in range(newest, time_ms - self.size_ms, -self.every_ms):
            end = start + self.size_ms
            closes_ms = end + self.bound_ms
            if clock_ms >= closes_ms + self.keep_ms:
                break  # and so are those before it
            taken = True
            closed = clock_ms >= closes_ms
            entry = opened.get(start, _NEW)
            kind: Kind = "update"
            if entry is _NEW:
                entry = self.aggregate.init()
                opening += 1
                if closed:
                    kind = "final"
                    state.done = max(state.done, end)
                next_ms = closes_ms + (self.keep_ms if closed else 0)
                due_ms = next_ms if due_ms is None else min(due_ms, next_ms)
            elif emission.update or closed:
                told.append(self.windowed(flow.key, start, state, "retraction"))
            opened[start] = self.aggregate.add(entry, value)
            if emission.update or closed:
                told.append(self.windowed(flow.key, start, state, kind if emission.close else "update"))
            elif emission.every_ms or emission.records:
                self.touched(start, state, flow)
        if due_ms is not None:
            self.wait(due_ms, state, flow)
            flow.effects.append(Windows(opening))
        if not taken:
            self.is_late(value, time_ms, clock_ms, state, flow)
        elif told:
            flow.send(told)


class _Sessions(_Windows):
    """An entry is the time of the session's last value, and the aggregate."""

    def __init__(self, operator: TimedOperator, window: Session, stage: Stage) -> None:
        super().__init__(operator, stage)
        self.gap_ms = window.gap_ms
        self.entry_type = GenericAlias(tuple, (int, operator.aggregate.stored))
        merge = operator.aggregate.merge
        assert merge is not None  # looked at when the stage is declared
        self.merge = merge

    def end(self, start: int, entry: Any) -> int:
        last: int = entry[0]
        return last + self.gap_ms

    def windowed(self, key: str, start: int, state: Any, kind: Kind) -> Windowed[Any]:
        last, made = state.open[start]
        return Windowed(key, start, last + self.gap_ms, self.aggregate.result(made), kind)

    def add_one(self, value: Any, state: Any, flow: Flow) -> None:
        time_ms, clock_ms = self.times(flow)
        opened, gap_ms, emission = state.open, self.gap_ms, self.emission
        near = [start for start, (last, _) in opened.items() if start - gap_ms < time_ms < last + gap_ms]
        if not near and clock_ms >= time_ms + gap_ms + self.bound_ms:
            self.is_late(value, time_ms, clock_ms, state, flow)
            return
        told = [self.windowed(flow.key, start, state, "retraction") for start in near] if emission.update else []
        first, last, made = time_ms, time_ms, self.aggregate.init()
        if len(near) == 1:
            first, (last, made) = near[0], opened.pop(near[0])
        else:
            for start in sorted(near):
                until, other = opened.pop(start)
                first, last = min(first, start), max(last, until)
                made = self.merge(made, other)
        first, last = min(first, time_ms), max(last, time_ms)
        opened[first] = last, self.aggregate.add(made, value)
        self.wait(last + gap_ms + self.bound_ms, state, flow)
        if len(near) != 1:
            flow.effects.append(Windows(1 - len(near)))
        if emission.update:
            flow.send([*told, self.windowed(flow.key, first, state, "update")])
        elif emission.every_ms or emission.records:
            self.touched(first, state, flow)


class _SlidingWindows(_Windows):
    """An entry is the aggregate of the values of one time; the window is made of those of the size before it."""

    def __init__(self, operator: TimedOperator, window: Sliding, stage: Stage) -> None:
        super().__init__(operator, stage)
        self.size_ms = window.size_ms
        self.keep_ms = window.size_ms - 1
        self.entry_type = operator.aggregate.stored
        merge = operator.aggregate.merge
        assert merge is not None  # looked at when the stage is declared
        self.merge = merge

    def end(self, start: int, entry: Any) -> int:
        return start + 1

    def windowed(self, key: str, start: int, state: Any, kind: Kind) -> Windowed[Any]:
        first = start - self.size_ms + 1
        made = self.aggregate.init()
        for time_ms in sorted(state.open):
            if first <= time_ms <= start:
                made = self.merge(made, state.open[time_ms])
        return Windowed(key, first, start + 1, self.aggregate.result(made), kind)

    def add_one(self, value: Any, state: Any, flow: Flow) -> None:
        time_ms, clock_ms = self.times(flow)
        if clock_ms > time_ms + self.bound_ms:
            self.is_late(value, time_ms, clock_ms, state, flow)
            return
        entry = state.open.get(time_ms, _NEW)
        if entry is _NEW:
            entry = self.aggregate.init()
            flow.effects.append(Windows(1))
            self.wait(time_ms + 1 + self.bound_ms, state, flow)
        state.open[time_ms] = self.aggregate.add(entry, value)
