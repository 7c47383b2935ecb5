"""Fewer values: without repetitions, at a rate, when it has become quiet, one now and then."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pf_stream.model import Schedule
from pf_stream.model.effect import Ring, Tally
from pf_stream.streams._operator import Built, Flow, Stage, event_times, instant

__all__ = ["DedupeOperator", "HoldOperator", "ThrottleOperator"]


@dataclass(frozen=True, slots=True)
class DedupeOperator:
    """Values whose id has not been seen of late."""

    id: Callable[[Any], str]
    """What tells them apart."""
    within_ms: int
    """How long an id is remembered after its value happened, by the event clock."""
    result: Any
    """Type of the values."""

    kind = "dedupe"
    ports = ("values",)
    many = False
    event_time = True
    hold_ms = 0

    def build(self, stage: Stage) -> Built:
        due = stage.bell("due", "event")
        within_ms = self.within_ms + stage.lag_ms

        def add(value: Any, state: Any, flow: Flow) -> None:
            id_ = self.id(value)
            if id_ in state.seen:
                flow.effects.append(Tally("repeated"))
                return
            flow.send([value])
            time_ms, clock_ms = event_times(flow)
            if clock_ms < time_ms + within_ms:
                state.seen[id_] = time_ms
                wait(time_ms + within_ms, state, flow)
            elif not state.seen:
                flow.forget()

        def wait(due_ms: int, state: Any, flow: Flow) -> None:
            if state.due is None or due_ms < state.due:
                state.due = due_ms
                flow.effects.append(Ring(due, flow.key, due_ms))

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            reached = (flow.context.watermark_ms or 0) - within_ms
            state.seen = {id_: time_ms for id_, time_ms in state.seen.items() if time_ms > reached}
            state.due = None
            if state.seen:
                wait(min(state.seen.values()) + within_ms, state, flow)
            else:
                flow.forget()

        return Built(
            {"seen": (dict[str, int], dict), "due": (int | None, lambda: None)}, {"values": add}, {"due": fire}
        )


@dataclass(frozen=True, slots=True)
class ThrottleOperator:
    """So many values in a period that begins with the first of them."""

    most: int
    """How many."""
    per_ms: int
    """How long a period is, by the worker's clock."""
    result: Any
    """Type of the values."""

    kind = "throttle"
    ports = ("values",)
    many = False
    event_time = False
    hold_ms = 0

    def build(self, stage: Stage) -> Built:
        due = stage.bell("due", "wall")

        def add(value: Any, state: Any, flow: Flow) -> None:
            if not state.count:
                flow.effects.append(Ring(due, flow.key, flow.context.now_ms + self.per_ms))
            if state.count < self.most:
                state.count += 1
                flow.send([value])
            else:
                flow.effects.append(Tally("throttled"))

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            flow.forget()

        return Built({"count": (int, int)}, {"values": add}, {"due": fire})


@dataclass(frozen=True, slots=True)
class HoldOperator:
    """The last value of a period, when that ends: it waits in a timer, and each that follows takes its place."""

    kind: str
    """``debounce``: the period is a pause, that each value begins anew. ``sample``: periods follow each other."""
    period_ms: int
    """How long it is, by the worker's clock."""
    result: Any
    """Type of the values."""

    ports = ("values",)
    many = False
    event_time = False
    hold_ms = 0

    def build(self, stage: Stage) -> Built:
        held = stage.timer("held", value=stage.value_type("values"))
        period_ms = self.period_ms

        def add(value: Any, state: Any, flow: Flow) -> None:
            now_ms = flow.context.now_ms
            due_ms = now_ms + period_ms if self.kind == "debounce" else (now_ms // period_ms + 1) * period_ms
            flow.effects.append(Schedule(held(key=flow.key, value=value), at=instant(due_ms), name="held"))
            if state.waits:
                flow.effects.append(Tally("replaced"))
            state.waits = True

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            flow.send([intent.value])
            flow.forget()

        return Built({"waits": (bool, bool)}, {"values": add}, {"held": fire})
