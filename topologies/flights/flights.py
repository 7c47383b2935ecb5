"""Flights: what the aircraft of a year did, and what that meant for airports and carriers.

``Fleet`` keeps one state per aircraft. Each departure it accepts becomes two inner intents, one for the board of the origin
airport and one for the table of the carrier, which live under other keys and therefore in other partitions.
"""

from typing import Annotated

from pf_stream import (
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    State,
    Topology,
    on,
    operation,
)


class FlightCap(Capability):
    """What an airline may do with flights: ``/{carrier}/{origin}``."""

    report = operation()
    admin = operation(implies=report)


class FlightDeparted(Intent, name="flights.departed", version=1, requires=FlightCap.report("/{carrier}/{origin}")):
    """A flight left, or was cancelled: then it has no delay."""

    tailnum: Annotated[str, Key]
    """Tail number of the aircraft; the carrier's code where none is known."""
    carrier: str
    origin: str
    flight: int
    dest: str
    delay: float | None = None
    """Minutes after (or, negative, before) schedule; none if it was cancelled."""
    distance: float = 0.0
    """Miles."""


class OriginDelay(
    Intent,
    name="flights.origin_delay",
    version=1,
    topic="airports",
    requires=FlightCap.report("/{carrier}/{origin}"),
):
    """What a departure means for its airport."""

    origin: Annotated[str, Key]
    carrier: str
    delay: float | None


class CarrierDelay(
    Intent,
    name="flights.carrier_delay",
    version=1,
    topic="carriers",
    requires=FlightCap.report("/{carrier}/{origin}"),
):
    """What a departure means for its carrier."""

    carrier: Annotated[str, Key]
    origin: str
    delay: float | None
    distance: float


class Aircraft(State):
    """One aircraft."""

    legs: int = 0
    cancelled: int = 0
    minutes_late: float = 0.0
    miles: float = 0.0


class Fleet(Reactor[Aircraft], id="fleet", emits=[OriginDelay, CarrierDelay]):
    """Counts the legs of each aircraft."""

    @on
    def departed(self, intent: FlightDeparted, state: Aircraft, ctx: Context) -> Effects:
        if intent.delay is None:
            state.cancelled += 1
        else:
            state.legs += 1
            state.minutes_late += intent.delay
            state.miles += intent.distance
        return [
            Emit(OriginDelay(origin=intent.origin, carrier=intent.carrier, delay=intent.delay)),
            Emit(
                CarrierDelay(carrier=intent.carrier, origin=intent.origin, delay=intent.delay, distance=intent.distance)
            ),
            Reply({"legs": state.legs, "cancelled": state.cancelled}),
        ]


class Board(State):
    """One airport."""

    flights: int = 0
    cancelled: int = 0
    minutes_late: float = 0.0
    worst: float | None = None


class AirportBoard(Reactor[Board], id="board"):
    """Departures, delays and cancellations of each origin airport."""

    @on
    def delayed(self, intent: OriginDelay, state: Board, ctx: Context) -> None:
        state.flights += 1
        if intent.delay is None:
            state.cancelled += 1
        else:
            state.minutes_late += intent.delay
            state.worst = intent.delay if state.worst is None else max(state.worst, intent.delay)


class Carrier(State):
    """One carrier."""

    flights: int = 0
    cancelled: int = 0
    minutes_late: float = 0.0
    miles: float = 0.0


class CarrierTable(Reactor[Carrier], id="carriers"):
    """Flights, delays and miles of each carrier."""

    @on
    def delayed(self, intent: CarrierDelay, state: Carrier, ctx: Context) -> None:
        state.flights += 1
        if intent.delay is None:
            state.cancelled += 1
        else:
            state.minutes_late += intent.delay
            state.miles += intent.distance


flights = Topology(
    "flights",
    reactors=[Fleet, AirportBoard, CarrierTable],
    internal=["airports", "carriers"],
    replies=["replies"],
)
"""The reactors alone; the file topology.yaml has what is in hours.py too."""
