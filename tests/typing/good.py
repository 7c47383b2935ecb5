"""What a type checker must understand of our declarations; run by none, read by mypy (strict) in ``test_typing.py``."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, assert_type

from flights import Aircraft, AirportBoard, Board, Fleet, FlightCap, FlightDeparted, flights
from pf_stream import (
    PUBLIC,
    Context,
    Effects,
    Emit,
    Entries,
    Intent,
    Key,
    MapState,
    Reply,
    State,
    Topology,
    upcast,
    upgrade,
)
from pf_stream.model import Grant, IntentSpec, Operation, StateSpec
from pf_stream.streams import Stream, Windowed, count, mean, stream, tumbling
from pf_stream.testing import DeadLetter, Driver, OutputRecord, Position

driver = Driver(flights, partitions=2, seed=3)

# The state's type follows from the reactor.
assert_type(driver.state(Fleet, "N123"), Aircraft | None)
assert_type(driver.state(AirportBoard, ("EWR", 4)), Board | None)

# An operation is one, and calling it is a grant.
assert_type(FlightCap.report, Operation)
assert_type(FlightCap.report("/UA/**"), Grant)
assert_type(driver.context(FlightCap.report("/UA/**"), FlightCap.admin("/AA")), str)

# An intent is constructed by its fields.
flight = FlightDeparted(tailnum="N123", carrier="UA", origin="EWR", flight=1, dest="LAX", delay=None)
assert_type(flight, FlightDeparted)
assert_type(flight.tailnum, str)
assert_type(flight.delay, float | None)
assert_type(FlightDeparted.__intent__, IntentSpec)

# So is a state.
assert_type(Aircraft(legs=1, minutes_late=2.5), Aircraft)
assert_type(Aircraft().legs, int)
assert_type(Aircraft.__state__, StateSpec)


# A step between two versions is a static method, and stays one.
class Counted(State, version=2):
    n: int = 0

    @upgrade(from_version=1)
    @staticmethod
    def _renamed(old: dict[str, Any]) -> dict[str, Any]:
        return {"n": old["count"]}


class Count(Intent, name="counts.count", version=2, requires=PUBLIC):
    name: Annotated[str, Key]

    @upcast(from_version=1)
    @staticmethod
    def _named(old: dict[str, Any]) -> dict[str, Any]:
        return {"name": old["key"]}


assert_type(Counted(n=1).n, int)
assert_type(Counted._renamed({"count": 1}), dict[str, Any])
assert_type(Count(name="a"), Count)
assert_type(Count.__intent__.older_types, dict[str, int])


# A map knows its keys and values; it needs no default, and behind fields that have one it says so.
class Mapped(State):
    rows: MapState[int, Aircraft]
    n: int = 0
    names: MapState[str, float] = dataclasses.field(init=False)
    old: Annotated[MapState[int, int], Entries(id="older", since=1)] = dataclasses.field(init=False)


mapped = Mapped(rows=MapState({1: Aircraft()}))
assert_type(mapped.rows[1], Aircraft)
assert_type(mapped.rows.get(1), Aircraft | None)
assert_type(mapped.names.get("a", 0.0), float)
assert_type(mapped.names.get("a", "none"), float | str)
assert_type(list(mapped.rows.items(1, 2)), list[tuple[int, Aircraft]])
assert_type(mapped.names.first(), tuple[str, float] | None)
assert_type(1 in mapped.rows, bool)

# A handler keeps its type.
handler: Callable[[FlightDeparted, Aircraft, Context], Effects] = Fleet().departed

assert_type(driver.send(flight, "token", reply_to="replies"), Position)
assert_type(driver.outputs("airports"), list[OutputRecord])
assert_type(driver.replies(), list[OutputRecord])
assert_type(driver.dead_letters(), list[DeadLetter])
assert_type(driver.refused, Counter[str])
assert_type(driver.now, datetime)


def effects(ctx: Context) -> Effects:
    """Everything that a handler may return."""
    assert_type(ctx.now, datetime)
    assert_type(ctx.tenant, str | None)
    match ctx.subject:
        case "":
            return None
        case "one":
            return Emit(flight)
        case "tuple":
            return Emit(flight), Reply({"n": 1})
        case _:
            return [Reply(flight), Emit(flight)]


assert_type(
    Topology("t", [Fleet, AirportBoard], internal={"airports"}, emits=[FlightDeparted], version=2, retired=["old"]),
    Topology,
)

# Along a pipeline the type of the values is known.
origins = stream(FlightDeparted).map(lambda flight: flight.origin, str)
assert_type(origins, Stream[str])
hours = stream(FlightDeparted).key_by(lambda flight: flight.origin).window(tumbling("1h"))
assert_type(hours.aggregate(count()), Stream[Windowed[int]])
assert_type(hours.aggregate(mean(lambda flight: flight.distance)), Stream[Windowed[float]])
assert_type(hours.aggregate(dict[str, float], n=count()), Stream[Windowed[dict[str, float]]])
