"""A topology that lives by event time: what is seen is counted by hours in rooms, behind an internal topic."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pf_stream import PUBLIC, Context, Effects, Emit, Forget, Intent, Key, Reactor, Schedule, State, Topology, on

START = datetime(2013, 1, 1, tzinfo=UTC)
"""When everything happens, far from the time at which it is handled."""
HOUR_MS = 3_600_000


def at(minute: float) -> datetime:
    """A minute of that day."""
    return START + timedelta(minutes=minute)


def minute_of(time_ms: int | None) -> float | None:
    """The minute of that day."""
    return None if time_ms is None else (time_ms / 1000 - START.timestamp()) / 60


class Saw(Intent, name="hour.saw", requires=PUBLIC):
    """Somebody saw something in a room."""

    who: Annotated[str, Key]
    room: str
    number: int = 0
    stray: bool = False


class Heard(Intent, name="hour.heard", topic="noises", requires=PUBLIC):
    """Somebody heard something; on a second public topic."""

    who: Annotated[str, Key]
    room: str
    number: int = 0


class Seen(Intent, name="hour.seen", topic="seen", requires=PUBLIC):
    """The same, by room; on an internal topic."""

    room: Annotated[str, Key]
    number: int


class Close(Intent, name="hour.close", topic="seen", requires=PUBLIC):
    """An hour of a room is over; comes by a timer."""

    room: Annotated[str, Key]
    hour: int


class Hour(Intent, name="hour.hour", topic="hours", requires=PUBLIC):
    """What was seen in an hour of a room; on an internal topic."""

    room: Annotated[str, Key]
    hour: int
    numbers: list[int]


class End(Intent, name="hour.end", topic="hours", requires=PUBLIC):
    """Comes by a timer; an hour after the end of an hour."""

    room: Annotated[str, Key]
    hour: int


class Seer(State):
    """What somebody saw."""

    log: list[float | None] = dataclasses.field(default_factory=list)
    """The event clock at each of it, in minutes."""


class Seers(Reactor[Seer], id="seers", emits=[Seen]):
    """Says what it emits, and so keeps a clock for those that read it."""

    @on
    def saw(self, intent: Saw, state: Seer, ctx: Context) -> Effects:
        state.log.append(minute_of(ctx.watermark_ms))
        if intent.stray:
            return Emit(Hour(room=intent.room, hour=0, numbers=[]))
        return Emit(Seen(room=intent.room, number=intent.number))

    @on
    def heard(self, intent: Heard, state: Seer, ctx: Context) -> Effects:
        state.log.append(minute_of(ctx.watermark_ms))
        return Emit(Seen(room=intent.room, number=intent.number))


class Secretive(Reactor[Seer], id="seers"):
    """The same, and does not say what it emits."""

    @on
    def saw(self, intent: Saw, state: Seer, ctx: Context) -> Effects:
        state.log.append(minute_of(ctx.watermark_ms))
        return Emit(Seen(room=intent.room, number=intent.number))


class Eyes(Reactor[Seer], id="seers", emits=[Seen]):
    """Reads one public topic alone."""

    @on
    def saw(self, intent: Saw, state: Seer, ctx: Context) -> Effects:
        state.log.append(minute_of(ctx.watermark_ms))
        if intent.stray:
            return Emit(Hour(room=intent.room, hour=0, numbers=[]))
        return Emit(Seen(room=intent.room, number=intent.number))


class Room(State):
    """What was seen of late, by hour, and what is over."""

    open: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    closed: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    late: list[int] = dataclasses.field(default_factory=list)
    log: list[float | None] = dataclasses.field(default_factory=list)
    """The event clock at each of it, in minutes."""


class Rooms(Reactor[Room], id="rooms", event_time=True, emits=[Hour]):
    """Tumbling windows of an hour, by hand."""

    @on
    def seen(self, intent: Seen, state: Room, ctx: Context) -> Effects:
        state.log.append(minute_of(ctx.watermark_ms))
        hour = ctx.time_ms // HOUR_MS
        end_ms = (hour + 1) * HOUR_MS
        if ctx.watermark_ms is not None and ctx.watermark_ms >= end_ms:
            state.late.append(intent.number)
            return None
        state.open.setdefault(hour, []).append(intent.number)
        end = datetime.fromtimestamp(end_ms / 1000, UTC)
        return Schedule(Close(room=intent.room, hour=hour), at=end, name=str(hour), clock="event")

    @on
    def close(self, intent: Close, state: Room, ctx: Context) -> Effects:
        state.closed[intent.hour] = state.open.pop(intent.hour)
        return Emit(Hour(room=intent.room, hour=intent.hour, numbers=sorted(state.closed[intent.hour])))


class Total(State):
    """Hours as they came, each before it was over for this one too."""

    hours: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    late: list[int] = dataclasses.field(default_factory=list)


class Totals(Reactor[Total], id="totals", event_time=True, emits=[]):
    """A second stage."""

    @on
    def hour(self, intent: Hour, state: Total, ctx: Context) -> None:
        state.hours[intent.hour] = intent.numbers
        if ctx.watermark_ms is not None and ctx.watermark_ms >= (intent.hour + 1) * HOUR_MS:
            state.late.append(intent.hour)

    @on
    def end(self, intent: End, state: Total, ctx: Context) -> Effects:
        return Forget()


INTERNAL = ["seen", "hours"]
hours = Topology("hour", [Eyes, Rooms, Totals], internal=INTERNAL)
joined = Topology("hour", [Seers, Rooms, Totals], internal=INTERNAL)
secretive = Topology("hour", [Secretive, Rooms, Totals], internal=INTERNAL)
