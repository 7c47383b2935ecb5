"""What the clock of the flights makes of them: delays by the hour, days of aircraft, and flights that do not leave.

All of it goes by event time. The airlines report a day's flights in the order in which they left, with the hour for which
they were scheduled, so a report may be a day out of order.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from flights import FlightCap, FlightDeparted
from pf_stream import PUBLIC, Cancel, Context, Effects, Forget, Intent, Key, Part, Reactor, Schedule, State, on
from pf_stream.streams import Windowed, count, pipeline, session, stream, total, tumbling

__all__ = ["days", "hourly", "watch"]


class HourlyDelay(Intent, name="flights.hourly_delay", version=1, topic="hourly", requires=PUBLIC):
    """What an hour was like at an airport; anybody may know."""

    origin: Annotated[str, Key]
    hour: datetime
    flights: int
    cancelled: int
    minutes_late: float


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of an airport."""

    flights: int
    cancelled: float
    late: float


def _hour(hour: Windowed[Hour]) -> HourlyDelay:
    return HourlyDelay(
        origin=hour.key,
        hour=hour.start,
        flights=hour.value.flights,
        cancelled=int(hour.value.cancelled),
        minutes_late=hour.value.late,
    )


def _late(flight: FlightDeparted) -> float:
    return flight.delay or 0.0


hourly = pipeline(
    "hourly",
    stream(FlightDeparted)
    .key_by(lambda flight: flight.origin)
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
    end: datetime
    legs: int
    miles: float


@dataclass(frozen=True, slots=True)
class Day:
    """A day of an aircraft."""

    legs: int
    miles: float


def _day(day: Windowed[Day]) -> AircraftDay:
    return AircraftDay(tailnum=day.key, start=day.start, end=day.end, legs=day.value.legs, miles=day.value.miles)


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
    """A flight is to leave, at the time of the event."""

    tailnum: Annotated[str, Key]
    carrier: str
    origin: str
    flight: int


class Overdue(Intent, name="flights.overdue", version=1, topic="overdue", requires=PUBLIC):
    """A flight should have left an hour ago."""

    tailnum: Annotated[str, Key]
    carrier: str
    origin: str
    flight: int


class Departures(State):
    """What is known of the flights of one aircraft."""

    awaited: dict[str, int] = field(default_factory=dict)
    """Flights that are to leave and have not, with the time for which that is, milliseconds since the epoch."""
    early: list[str] = field(default_factory=list)
    """Flights that left before they were to."""


_EARLY = 8
"""Flights of an aircraft that are remembered to have left early: nobody may ever say when they were to leave."""


_ANOTHER_MS = 12 * 3_600_000
"""Who leaves so much later than a flight was to leave is not that one, which was given up, but the next day's, before its time."""


class Watch(Reactor[Departures], id="watch"):
    """Says which flights have not left within an hour, as the reports themselves tell what time it is."""

    @on
    def scheduled(self, intent: FlightScheduled, state: Departures, ctx: Context) -> Effects:
        name = f"{intent.carrier}{intent.flight}"
        if name in state.early:
            state.early.remove(name)
            return None if state.early or state.awaited else Forget()
        state.awaited[name] = ctx.time_ms
        overdue = Overdue(tailnum=intent.tailnum, carrier=intent.carrier, origin=intent.origin, flight=intent.flight)
        return Schedule(overdue, after=timedelta(hours=1), clock="event", name=name)

    @on
    def departed(self, intent: FlightDeparted, state: Departures, ctx: Context) -> Effects:
        name = f"{intent.carrier}{intent.flight}"
        due_ms = state.awaited.pop(name, None)
        if due_ms is None or ctx.time_ms - due_ms > _ANOTHER_MS:
            state.early = [*state.early, name][-_EARLY:]
            return None
        left = Cancel(name)
        return left if state.early or state.awaited else [left, Forget()]


watch = Part("watch", (Watch,), emits=(Overdue,))
