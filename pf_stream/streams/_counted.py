"""Windows that time does not end: of so many values, or without an end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pf_stream.model.effect import Ring, Windows
from pf_stream.streams._operator import Built, Flow, Stage
from pf_stream.streams.aggregates import Aggregate
from pf_stream.streams.windows import CountWindow, Global, Kind, Windowed

__all__ = ["CountedOperator"]


@dataclass(frozen=True, slots=True)
class CountedOperator:
    """Such windows, and what they make of the values."""

    window: CountWindow | Global
    """How values are cut."""
    aggregate: Aggregate[Any, Any]
    """What becomes of those of a window."""
    result: Any = None
    """Type of what comes of it."""

    kind = "window"
    ports = ("values",)
    many = True
    event_time = False
    hold_ms = 0

    def build(self, stage: Stage) -> Built:
        aggregate = self.aggregate
        fields: dict[str, tuple[Any, Callable[[], Any]]] = {
            "made": (aggregate.stored, aggregate.init),
            "count": (int, int),
            "start": (int, int),
            "end": (int, int),
        }

        def take(value: Any, state: Any, flow: Flow) -> None:
            time_ms = min(flow.context.time_ms, flow.context.now_ms)
            if not state.count:
                state.start = state.end = time_ms
                flow.effects.append(Windows(1))
            state.start = min(state.start, time_ms)
            state.end = max(state.end, time_ms + 1)
            state.made = aggregate.add(state.made, value)
            state.count += 1

        def tell(state: Any, flow: Flow, kind: Kind) -> None:
            flow.send([Windowed(flow.key, state.start, state.end, aggregate.result(state.made), kind)])

        def close(flow: Flow) -> None:
            flow.effects.append(Windows(-1))
            flow.forget()

        window = self.window
        if isinstance(window, CountWindow):
            size = window.size

            def add(value: Any, state: Any, flow: Flow) -> None:
                take(value, state, flow)
                if state.count >= size:
                    tell(state, flow, "final")
                    close(flow)

            return Built(fields, {"values": add})

        fields |= {"untold": (int, int), "waits": (bool, bool)}
        soon = None if window.every_ms is None else stage.bell("early", "wall")

        def add_global(value: Any, state: Any, flow: Flow) -> None:
            take(value, state, flow)
            state.untold += 1
            if (window.records is not None and state.untold >= window.records) or (
                window.when is not None and window.when(value)
            ):
                said(state, flow)
            elif soon is not None and not state.waits:
                state.waits = True
                assert window.every_ms is not None
                flow.effects.append(Ring(soon, flow.key, flow.context.now_ms + window.every_ms))

        def said(state: Any, flow: Flow) -> None:
            tell(state, flow, "early")
            state.untold = 0
            if window.purge:
                close(flow)

        def fire(intent: Any, state: Any, flow: Flow) -> None:
            state.waits = False
            if state.untold:
                said(state, flow)
            elif not state.count:
                flow.forget()

        return Built(fields, {"values": add_global}, {} if soon is None else {"early": fire})
