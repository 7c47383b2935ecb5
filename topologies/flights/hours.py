"""What the clock of the flights makes of them: delays by the hour, days of aircraft, and flights that do not leave.

All of it goes by event time: when a flight left, was to leave if it was cancelled, or was announced.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from flights import FlightCap, FlightDeparted, OriginDelay
from pf_stream import PUBLIC, Cancel, Context, Effects, Intent, Key, Part, Reactor, Schedule, on
from pf_stream.model import Stateless
from pf_stream.streams import Windowed, count, pipeline, session, stream, total, tumbling

__all__ = ["days", "hourly", "watch"]


class HourlyDelay(Intent, name="flights.hourly_delay", version=1, topic="hourly", requires=PUBLIC):
    """What an hour was like at an airport; anybody may know."""

    origin: Annotated[str, Key]
    hour: datetime
    flights: int
    cancelled: int
    delay: float | None
    """Minutes, the mean of those that left; none if none did."""


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of an airport."""

    flights: int
    cancelled: float
    late: float


def _late(flight: OriginDelay) -> float:
    return flight.delay or 0.0


def _hour(hour: Windowed[Hour]) -> HourlyDelay:
    flights, cancelled = hour.value.flights, int(hour.value.cancelled)
    return HourlyDelay(
        origin=hour.key,
        hour=hour.start,
        flights=flights,
        cancelled=cancelled,
        delay=hour.value.late / (flights - cancelled) if flights > cancelled else None,
    )


hourly = pipeline(
    "hourly",
    stream(OriginDelay)
    .by_key()  # each departure is told to its airport as it is
    .window(tumbling("1h", bound="1d"))
    .aggregate(
        Hour,
        flights=count(),
        cancelled=total(lambda flight: flight.delay is None),
        late=total(_late),
    )
    .emit(_hour),
)


class AircraftDay(Intent, name="flights.aircraft_day", version=1, topic="days", requires=PUBLIC):
    """What an aircraft did between two long rests; anybody may know."""

    tailnum: Annotated[str, Key]
    start: datetime
    """When it first left."""
    end: datetime
    """When it last left."""
    legs: int
    miles: float


@dataclass(frozen=True, slots=True)
class Day:
    """A day of an aircraft."""

    legs: int
    miles: float


REST = timedelta(hours=6)


def _day(day: Windowed[Day]) -> AircraftDay:
    last = day.end - REST
    return AircraftDay(tailnum=day.key, start=day.start, end=last, legs=day.value.legs, miles=day.value.miles)


days = pipeline(
    "days",
    stream(FlightDeparted)
    .filter(lambda flight: flight.delay is not None)
    .by_key()
    .window(session("6h", bound="1d"))
    .aggregate(Day, legs=count(), miles=total(lambda flight: flight.distance))
    .emit(_day),
)


class FlightScheduled(Intent, name="flights.scheduled", version=1, requires=FlightCap.report("/{carrier}/{origin}")):
    """A flight is announced."""

    tailnum: Annotated[str, Key]
    carrier: str
    origin: str
    flight: int
    leaves: datetime
    """When it is to leave."""


class Overdue(Intent, name="flights.overdue", version=1, topic="overdue", requires=PUBLIC):
    """A flight should have left an hour ago; anybody may know."""

    tailnum: Annotated[str, Key]
    carrier: str
    origin: str
    flight: int
    due: datetime
    """When it was to leave."""


PATIENCE = timedelta(hours=1)


class Watch(Reactor[Stateless], id="watch"):
    """Says which flights have not left within an hour, as the reports themselves tell what time it is.

    It remembers nothing: what waits is a timer, under a name that the announcement and the report have in common.
    """

    @on
    def scheduled(self, intent: FlightScheduled, state: Stateless, ctx: Context) -> Effects:
        overdue = Overdue(
            tailnum=intent.tailnum,
            carrier=intent.carrier,
            origin=intent.origin,
            flight=intent.flight,
            due=intent.leaves,
        )
        name = _name(intent, round(intent.leaves.timestamp() * 1000))
        return Schedule(overdue, at=intent.leaves + PATIENCE, clock="event", name=name)

    @on
    def departed(self, intent: FlightDeparted, state: Stateless, ctx: Context) -> Effects:
        return Cancel(_name(intent, ctx.time_ms - round((intent.delay or 0) * 60_000)))


def _name(flight: FlightScheduled | FlightDeparted, due_ms: int) -> str:
    return f"{flight.carrier}{flight.flight}@{due_ms}"


watch = Part("watch", (Watch,), emits=(Overdue,))
