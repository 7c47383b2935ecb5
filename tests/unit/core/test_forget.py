"""A key that is forgotten is as one that never was, and its changelog record is a tombstone."""

import dataclasses
from datetime import timedelta
from itertools import product
from typing import Annotated, Literal

import pytest

from pf_stream import (
    PUBLIC,
    Context,
    Effects,
    Emit,
    Forget,
    Intent,
    Key,
    Reactor,
    RetryInPlace,
    Schedule,
    State,
    Topology,
    on,
)
from pf_stream.core import CommitUnit, Limits, Rewind, changelog
from pf_stream.core.records import SourceRecord
from pf_stream.core.shelf import Shelf
from pf_stream.testing import Driver
from tests.simulation.disk import ModelShelf
from tests.unit.core.kit import Bench, codes, record

Act = Literal["keep", "forget", "forget in a list", "raise", "nonsense", "wrong type", "raise in the second", "swell"]


class Visit(Intent, name="hotel.visit", requires=PUBLIC):
    """Somebody is in a room, and what that leads to."""

    room: Annotated[str, Key]
    guest: str = "-"
    act: Act = "keep"
    timer: bool = False


class Left(Intent, name="hotel.left", topic="lefts", requires=PUBLIC):
    """How many had been there when a room was forgotten."""

    room: Annotated[str, Key]
    guests: int


class Rung(Intent, name="hotel.rung", requires=PUBLIC):
    """A room's alarm."""

    room: Annotated[str, Key]


class Room(State):
    """Who was there since the room began."""

    guests: list[str] = dataclasses.field(default_factory=list)
    alarms: int = 0


class Rooms(Reactor[Room], id="rooms"):
    """Does as it is told, after it has written down the guest."""

    @on
    def visit(self, intent: Visit, state: Room, ctx: Context) -> Effects:
        state.guests.append(intent.guest)
        effects: list[Schedule] = [Schedule(Rung(room=intent.room), after=60)] if intent.timer else []
        match intent.act:
            case "raise":
                raise ValueError
            case "nonsense":
                return [Forget(), None]  # type: ignore[list-item]
            case "wrong type":
                state.alarms = "three"  # type: ignore[assignment]
            case "swell":
                state.guests.append("x" * 30_000)
            case "forget":
                return Forget()
            case "forget in a list":
                return [*effects, Forget(), Emit(Left(room=intent.room, guests=len(state.guests)))]
        return effects

    @on
    def rung(self, intent: Rung, state: Room, ctx: Context) -> None:
        state.alarms += 1


class Desk(State):
    """What the second reactor saw of a room."""

    visits: int = 0


class Desks(Reactor[Desk], id="desks"):
    """Handles the same type after the first, and forgets on its own account."""

    @on
    def visit(self, intent: Visit, state: Desk, ctx: Context) -> Effects:
        state.visits += 1
        if intent.act == "raise in the second":
            raise ValueError
        return Forget() if intent.guest == "last" else None


hotel = Topology("hotel", [Rooms, Desks], emits=[Left])
STATE = changelog.state_key(changelog.state_prefix("rooms"), b"7")
DESK = changelog.state_key(changelog.state_prefix("desks"), b"7")
TOPIC = "hotel.intents"


def acts(*these: Act, start: int = 0) -> list[SourceRecord]:
    """Visits of one room, the offset as the guest."""
    return [record(at, Visit(room="7", guest=str(at), act=act), None) for at, act in enumerate(these, start)]


def stored(unit: CommitUnit, key: bytes = STATE) -> list[bytes | None]:
    """What a unit says of a state."""
    return [value for name, value in unit.entries if name == key]


def guests(bench: Bench) -> list[str] | None:
    room = bench.state(Room, "rooms", "7")
    return None if room is None else room.guests


@pytest.fixture(params=["memory", "disk"])
def bench(request: pytest.FixtureRequest) -> Bench:
    bench = Bench(hotel)
    if request.param == "disk":
        put_on(bench, ModelShelf())
    return bench


def put_on(bench: Bench, shelf: Shelf) -> None:
    bench.lane.shelf = shelf
    for store in bench.lane.stores:
        store._shelf = shelf


def run(bench: Bench, *these: Act) -> list[CommitUnit]:
    return bench.commit_all(*acts(*these, start=bench.lane.positions[TOPIC]), topic=TOPIC)


class TestUnit:
    def test_a_tombstone(self, bench: Bench) -> None:
        run(bench, "keep")
        (unit,) = run(bench, "keep", "forget")
        assert stored(unit) == [None]
        assert bench.lane.raw("rooms", b"7") is bench.lane.stored("rooms", b"7") is None
        assert list(bench.lane.keys("rooms")) == []
        assert list(bench.lane.keys("desks")) == [b"7"], "another reactor's state is another matter"

    def test_what_was_begun_and_ended_in_one_unit_leaves_nothing(self, bench: Bench) -> None:
        (unit,) = run(bench, "keep", "forget", "forget")
        assert stored(unit) == []
        run(bench, "keep")
        run(bench, "forget")
        (unit,) = run(bench, "keep", "raise", "forget")
        assert stored(unit) == [], "nor does a second removal"
        run(bench, "raise", "keep")
        assert guests(bench) == ["9"], "what was undone before it stays undone"

    def test_what_follows_begins_anew(self, bench: Bench) -> None:
        run(bench, "keep", "forget", "keep", "keep")
        assert guests(bench) == ["2", "3"]
        run(bench, "forget", "keep")
        assert guests(bench) == ["5"]
        run(bench, "forget")
        run(bench, "keep")
        assert guests(bench) == ["7"]

    def test_sealed_and_not_yet_acknowledged(self, bench: Bench) -> None:
        run(bench, "keep")
        bench.feed(*acts("forget", start=1), topic=TOPIC)
        sealed = bench.lane.seal()
        assert isinstance(sealed, CommitUnit)
        bench.feed(*acts("raise", "keep", "raise", start=2), topic=TOPIC)
        assert guests(bench) == ["0"], "the shelf does not know yet"
        bench.lane.acknowledged()
        assert guests(bench) is None
        bench.commit()
        assert guests(bench) == ["3"]

    def test_sealed_and_then_only_failures(self, bench: Bench) -> None:
        run(bench, "keep")
        bench.feed(*acts("forget", start=1), topic=TOPIC)
        bench.lane.seal()
        bench.feed(*acts("raise", start=2), topic=TOPIC)
        bench.lane.acknowledged()
        assert stored(bench.commit()) == []
        bench.feed(*acts("keep", start=3), topic=TOPIC)
        bench.commit()
        assert guests(bench) == ["3"]

    def test_a_unit_that_is_taken_back(self, bench: Bench) -> None:
        run(bench, "keep")
        bench.feed(*acts("forget", "keep", "wrong type", start=1), topic=TOPIC)
        assert isinstance(bench.lane.seal(), Rewind)
        assert guests(bench) == ["0"]
        units = bench.commit_all(*acts("forget", "keep", "wrong type", start=1), topic=TOPIC)
        assert guests(bench) == ["2"]
        assert codes(units) == [("bad_state", 3)]

    def test_tombstones_have_a_size(self) -> None:
        limits = Limits(unit_bytes_hard=20_000)
        bench = Bench(hotel, limits=limits)
        names = [f"{at:0400}" for at in range(40)]
        bench.commit_all(*(record(at, Visit(room=name), None) for at, name in enumerate(names)), topic=TOPIC)
        again = Bench(hotel, limits=limits, changelog=bench.changelog)
        forgets = [record(40 + at, Visit(room=name, act="forget"), None) for at, name in enumerate(names)]
        assert len(again.commit_all(*forgets, topic=TOPIC)) > 1
        assert list(again.lane.keys("rooms")) == []

    def test_effects_beside_it_are_taken_and_timers_stay(self) -> None:
        driver = Driver(hotel)
        driver.send(Visit(room="7", timer=True))
        driver.send(Visit(room="7", act="forget in a list", timer=True))
        assert driver.state(Rooms, "7") is None
        assert [one.json() for one in driver.outputs("lefts")] == [{"room": "7", "guests": 2}]
        driver.advance(timedelta(minutes=2))
        assert driver.state(Rooms, "7") == Room(alarms=2)


class TestFailures:
    def test_nothing_is_forgotten_by_an_intent_that_fails(self, bench: Bench) -> None:
        run(bench, "keep")
        units = run(bench, "nonsense")
        assert codes(units) == [("bad_effect", 1)]
        assert guests(bench) == ["0"]

    @pytest.mark.slow
    def test_every_order_within_one_unit_and_over_several(self) -> None:
        acts: list[Act] = ["keep", "forget", "raise", "wrong type"]
        for order, cut in product(product(acts, repeat=4), range(4)):
            expected: list[str] | None = None
            for at, act in enumerate(order):
                if act == "keep":
                    expected = [*(expected or ()), str(at)]
                elif act == "forget":
                    expected = None
            bench = Bench(hotel)
            run(bench, *order[:cut])
            run(bench, *order[cut:])
            assert guests(bench) == expected, order
            again = Bench(hotel, changelog=bench.changelog)
            assert guests(again) == expected, order
            run(again, "keep")
            assert guests(again) == [*(expected or ()), "4"], order

    @pytest.mark.parametrize("before", ["keep", "forget"])
    def test_the_second_reactor_raises(self, bench: Bench, before: Act) -> None:
        run(bench, "keep")
        (unit,) = run(bench, before, "raise in the second", "keep")
        assert guests(bench) == (["0", "1", "3"] if before == "keep" else ["3"])
        assert bench.state(Desk, "desks", "7") == Desk(visits=3)
        assert codes([unit]) == [("handler_failed", 2)]

    def test_the_first_forgets_and_the_second_raises(self) -> None:
        class First(Reactor[Room], id="first"):
            @on
            def visit(self, intent: Visit, state: Room, ctx: Context) -> Effects:
                state.guests.append(intent.guest)
                return Forget() if intent.act != "keep" else None

        bench = Bench(Topology("hotel", [First, Desks]))
        run(bench, "keep")
        run(bench, "keep", "raise in the second", "keep")
        assert bench.state(Room, "first", "7") == Room(guests=["0", "1", "3"])
        run(bench, "forget", "raise in the second")
        assert bench.state(Room, "first", "7") is None

    def test_both_forget(self, bench: Bench) -> None:
        run(bench, "keep")
        (unit,) = bench.commit_all(record(1, Visit(room="7", guest="last", act="forget"), None), topic=TOPIC)
        assert (stored(unit), stored(unit, DESK)) == ([None], [None])

    def test_one_that_is_tried_again_in_place(self) -> None:
        tries = 0

        class Stubborn(Reactor[Room], id="rooms", on_error=RetryInPlace(attempts=3)):
            @on
            def visit(self, intent: Visit, state: Room, ctx: Context) -> Effects:
                nonlocal tries
                tries += 1
                state.guests.append(intent.guest)
                if tries == 3:
                    raise ValueError
                return Forget() if intent.act == "forget" else None

        driver = Driver(Topology("hotel", [Stubborn]))
        with driver.paused():
            driver.send(Visit(room="7", guest="0"))
            driver.send(Visit(room="7", act="forget"))
            driver.send(Visit(room="7", guest="2"))
        driver.advance(60)
        state = driver.state(Stubborn, "7")
        assert state is not None
        assert state.guests == ["2"]

    def test_a_stream_of_failures_after_it_does_not_run_the_past_again_each_time(self) -> None:
        bench = Bench(hotel)
        run(bench, "keep")
        bench.feed(*acts("forget", *["raise"] * 20, "keep", start=1), topic=TOPIC)  # type: ignore[arg-type]
        entry = bench.lane.stores[0].live[b"7"]
        assert entry.log == (), "nothing is to run again"
        bench.commit()
        assert guests(bench) == ["22"]


@pytest.mark.parametrize("seed", range(20))
def test_crashes_between_any_two_actions(seed: int) -> None:
    driver = Driver(hotel, seed=seed, limits=Limits(poison_attempts=1 << 30))
    crashes = 0

    def crash(action: object) -> None:
        nonlocal crashes
        crashes += 1
        if crashes % 3 == seed % 3 and crashes < 60:
            driver.crash()

    driver.after_action = crash
    with driver.paused():
        for at, act in enumerate(
            ["keep", "forget", "keep", "raise", "keep", "forget in a list", "raise", "keep", "wrong type"]
        ):
            driver.send(Visit(room="7", guest=str(at), act=act))  # type: ignore[arg-type]
    assert driver.state(Rooms, "7") == Room(guests=["7"])
    assert [one.json() for one in driver.outputs("lefts")][:1] == [{"room": "7", "guests": 3}]
