"""A field that an intent type declares as its event time: it counts instead of ``ce_time``, and may no more than that may."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
import pytest

from pf_stream import (
    PUBLIC,
    Context,
    DefinitionError,
    Effects,
    Emit,
    EventTime,
    Intent,
    Key,
    Reactor,
    Sink,
    State,
    Topology,
    on,
)
from pf_stream.core.sink import Marks, Taken, sink_plans
from pf_stream.model import Delivered
from pf_stream.streams import Windowed, count, pipeline, stream, tumbling
from pf_stream.testing import Driver
from pf_stream.topology.schemas import json_schemas

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Measured(Intent, name="declared.measured", requires=PUBLIC):
    key: Annotated[str, Key]
    at: Annotated[datetime | None, EventTime] = None


class Counted(Intent, name="declared.counted", requires=PUBLIC):
    key: Annotated[str, Key]
    ms: Annotated[int, EventTime]


class Plain(Intent, name="declared.plain", topic="plain", requires=PUBLIC):
    key: Annotated[str, Key]


class Timed(Intent, name="declared.timed", topic="timed", requires=PUBLIC):
    key: Annotated[str, Key]
    ms: Annotated[int | None, EventTime] = None


class Told(Intent, name="declared.told", topic="told", requires=PUBLIC):
    key: Annotated[str, Key]
    start: datetime
    n: int


class Times(State):
    times: tuple[int, ...] = ()


class Watcher(Reactor[Times], id="watcher", event_time=True, emits=[Plain, Timed]):
    @on
    def measured(self, intent: Measured, state: Times, ctx: Context) -> Effects:
        state.times = (*state.times, ctx.time_ms)
        return Emit(Plain(key=intent.key)), Emit(Timed(key=intent.key, ms=5)), Emit(Timed(key=intent.key))

    @on
    def counted(self, intent: Counted, state: Times, ctx: Context) -> Effects:
        state.times = (*state.times, ctx.time_ms)
        return Emit(Plain(key=intent.key))


class Reader(Reactor[Times], id="reader", event_time=True):
    @on
    def plain(self, intent: Plain, state: Times, ctx: Context) -> None:
        state.times = (*state.times, ctx.time_ms)

    @on
    def timed(self, intent: Timed, state: Times, ctx: Context) -> None:
        state.times = (*state.times, ctx.time_ms)


TOPOLOGY = Topology("declared", [Watcher, Reader], internal=["plain", "timed"])


def ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def times(driver: Driver, reactor: Any = Watcher) -> tuple[int, ...]:
    state = driver.state(reactor, "a")
    return () if state is None else state.times


def send_raw(driver: Driver, type_: str, fields: dict[str, object], ce_time: bytes | None) -> None:
    headers: list[tuple[str, bytes | None]] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", f"declared.{type_}.v1".encode()),
        ("ce_source", b"/tests"),
        ("ce_id", b"1"),
        ("content-type", b"application/json"),
    ]
    if ce_time is not None:
        headers.append(("ce_time", ce_time))
    driver.send_raw("intents", key=b"a", value=json.dumps({"key": "a", **fields}).encode(), headers=headers)


def clock(driver: Driver) -> int | None:
    return next(lane.lane.timers.event_ms for lane in driver._lanes if lane.plan.name == "intents")


EARLIEST_MS, LATEST_MS = -62_135_596_800_000, 253_402_300_799_000


@pytest.mark.parametrize(
    ("type_", "value", "expected_ms"),
    [
        ("measured", "2026-01-01T11:00:00Z", ms(NOON) - 3_600_000),
        ("measured", "2026-01-01T11:00:00.123+01:00", ms(NOON) - 7_200_000 + 123),
        ("measured", "1905-06-30T00:00:00Z", ms(datetime(1905, 6, 30, tzinfo=UTC))),
        ("measured", "9999-12-31T23:59:59-12:00", LATEST_MS),
        ("measured", "0001-01-01T00:00:00+12:00", EARLIEST_MS),
        ("counted", ms(NOON) - 1, ms(NOON) - 1),
        ("counted", -1, -1),
        ("counted", 10**30, LATEST_MS),
        ("counted", -(10**30), EARLIEST_MS),
        ("counted", ms(NOON) + 86_400_000, ms(NOON) + 86_400_000),
    ],
)
@pytest.mark.parametrize("ce_time", [None, b"yesterday", b"2025-01-01T00:00:00Z", b"9999-12-31T23:59:59Z"])
def test_the_field_counts(type_: str, value: object, expected_ms: int, ce_time: bytes | None) -> None:
    driver = Driver(TOPOLOGY, partitions=1, now=NOON)
    send_raw(driver, type_, {"at" if type_ == "measured" else "ms": value}, ce_time)
    assert driver.dead_letters() == []
    assert times(driver) == (expected_ms,)
    assert clock(driver) == min(expected_ms, ms(NOON)), "nobody is from the future"
    assert expected_ms in times(driver, Reader), "what follows from it happened then"


@pytest.mark.parametrize("fields", [{}, {"at": None}, {"at": "2026-01-01T11:00:00"}])
def test_a_field_that_says_nothing(fields: dict[str, object]) -> None:
    """It is none, or has no zone: as if there were no such field."""
    driver = Driver(TOPOLOGY, partitions=1, now=NOON)
    send_raw(driver, "measured", fields, b"2026-01-01T10:00:00Z")
    send_raw(driver, "measured", fields, None)
    assert times(driver) == (ms(NOON) - 7_200_000, ms(NOON))


def test_a_field_that_cannot_be_read_is_a_bad_payload() -> None:
    driver = Driver(TOPOLOGY, partitions=1, now=NOON)
    send_raw(driver, "measured", {"at": "yesterday"}, None)
    send_raw(driver, "counted", {"ms": "soon"}, None)
    assert [letter.code for letter in driver.dead_letters()] == ["malformed_payload"] * 2


def test_what_is_emitted_says_its_own() -> None:
    driver = Driver(TOPOLOGY, partitions=1, now=NOON)
    driver.send(Measured(key="a", at=NOON - timedelta(hours=1)), time=NOON - timedelta(hours=9))
    an_hour_ago = ms(NOON) - 3_600_000
    assert sorted(times(driver, Reader)) == [5, an_hour_ago, an_hour_ago]
    said = [record.header("ce_time") for record in driver.outputs("timed")]
    assert said == [b"1970-01-01T00:00:00.005+00:00", b"2026-01-01T11:00:00.000+00:00"]


def test_windows_go_by_it() -> None:
    def tell(window: Windowed[int]) -> Told:
        return Told(key=window.key, start=window.start, n=window.value)

    for keyed in (stream(Measured).by_key(), stream(Measured).key_by(lambda one: one.key)):
        part = pipeline("windows", keyed.window(tumbling("1m", bound="10s")).aggregate(count()).emit(tell))
        driver = Driver(Topology("declared", [], parts=[part]), partitions=1, now=NOON + timedelta(hours=1))
        for second in (5, 50, 65, 45, 75, 5):  # the last one is late
            driver.send(Measured(key="a", at=NOON + timedelta(seconds=second)))  # sent an hour later
        told = [record.json() for record in driver.outputs("told")]
        assert told == [{"key": "a", "start": "2026-01-01T12:00:00Z", "n": 3}]
        assert driver.tallies["windows-window", "late"] == 1


def test_a_sink_is_told_it() -> None:
    async def drain(batch: Sequence[Delivered[Timed]]) -> None:
        raise NotImplementedError

    topology = Topology(
        "declared", [Watcher], internal=["timed"], emits=[Timed], sinks=[Sink("drain", of=Timed, to=drain)]
    )
    driver = Driver(topology, partitions=1, now=NOON)
    driver.send(Measured(key="a", at=NOON))
    (sink,) = sink_plans(topology, 1)
    marks = Marks("")
    delivered = []
    for record in driver._topics.log("declared.timed", 0):
        taken = sink.take(record, marks)
        if isinstance(taken, Taken):
            opened = sink.open(taken, 0)
            assert isinstance(opened, Delivered)
            delivered.append(opened.time_ms)
    assert delivered == [5, ms(NOON)]


def test_it_is_declared_well() -> None:
    with pytest.raises(DefinitionError) as caught:

        class Wrong(Intent, name="declared.wrong", requires=PUBLIC):
            key: Annotated[str, Key]
            first: Annotated[str, EventTime]
            second: Annotated[datetime | None, EventTime]
            third: Annotated[float | int, EventTime]

    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "has several event times, first, second, third",
        "event time 'first' must be a datetime, or an int of milliseconds since the epoch, not str",
        "event time 'third' must be a datetime, or an int of milliseconds since the epoch, not float | int",
    ]
    assert Measured.__intent__.event_time == "at"
    schemas = json_schemas(TOPOLOGY)
    assert orjson.loads(schemas["declared.measured.v1.json"])["x-pf-event-time"] == "at"
    assert "x-pf-event-time" not in orjson.loads(schemas["declared.plain.v1.json"])
