"""Values with rows of a global table, which the driver is fed by hand."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest

from pf_stream import (
    PUBLIC,
    Context,
    DefinitionError,
    Effects,
    Emit,
    GlobalTable,
    Intent,
    Key,
    Reactor,
    State,
    Topology,
    on,
)
from pf_stream.core.tables import TableFullError
from pf_stream.errors import NotFoundError
from pf_stream.streams import count, counted, pipeline, stream
from pf_stream.testing import Driver
from tests.unit.streams.kit import Bench, Event, Point, Told, told


@dataclass
class Place:
    name: str
    size: int = 0


PLACES = GlobalTable("reference.places", Place)


def named(point: Point, place: Place) -> Told:
    return Told(key=point.key, start=0, end=0, kind="row", value=place.name)


def named_or_not(point: Point, place: Place | None) -> Told:
    return Told(key=point.key, start=0, end=0, kind="row", value=None if place is None else place.name)


def _place(point: Point) -> str:
    return point.place


def values(bench: Bench) -> list[object]:
    return [row[4] for row in bench.told()]


class TestEnrich:
    def test_rows_come_change_and_go(self) -> None:
        bench = Bench(pipeline("rows", stream(Point).enrich(PLACES, named_or_not, by=_place, how="left").emit(Told)))
        bench.send([Event("a", 1, 0)])
        bench.driver.table(PLACES, {"left": Place("Links"), "right": Place("Rechts")})
        bench.send([Event("a", 2, 0), Event("b", 3, 0, left=False)])
        bench.driver.table(PLACES, {"left": Place("Gauche"), "right": None})
        bench.send([Event("a", 4, 0), Event("b", 5, 0, left=False)])
        assert values(bench) == [None, "Links", "Rechts", "Gauche", None]
        bench.check()

    def test_what_finds_no_row_is_counted(self) -> None:
        bench = Bench(pipeline("rows", stream(Point).enrich(PLACES, named, by=_place).emit(Told)))
        bench.driver.table(PLACES, {"left": Place("Links")})
        bench.send([Event("a", 1, 0), Event("a", 2, 0, left=False), Event("a", 3, 0, left=False)])
        assert values(bench) == ["Links"]
        assert bench.driver.tallies["rows-points_point", "unmatched"] == 2

    def test_on_the_way_to_a_window_and_behind_it(self) -> None:
        part = pipeline(
            "rows",
            stream(Point)
            .enrich(PLACES, lambda point, place: point, by=_place, returns=Point)
            .by_key()
            .window(counted(2))
            .aggregate(count())
            .map(told, Told)
            .enrich(PLACES, lambda told, place: told.model_copy(update={"kind": place.name}), by=lambda told: told.key)
            .emit(Told),
        )
        bench = Bench(part)
        bench.driver.table(PLACES, {"left": Place("Links"), "a": Place("A")})
        bench.send(
            [Event("a", 1, 0), Event("a", 2, 0, left=False), Event("a", 3, 0), Event("b", 4, 0), Event("b", 5, 0)]
        )
        assert [(row[0], row[3], row[4]) for row in bench.told()] == [("a", "A", 2)]
        assert bench.driver.tallies["rows-window", "unmatched"] == 2, "one on the way to it, one behind it"
        bench.check()

    def test_rows_outlive_a_crash_and_a_deployment(self) -> None:
        part = pipeline("rows", stream(Point).enrich(PLACES, named, by=_place).emit(Told))
        bench = Bench(part, seed=3, crashes=0.3)
        bench.driver.table(PLACES, {"left": Place("Links"), "right": Place("Rechts")})
        bench.send([Event("a", n, 0, left=bool(n % 2)) for n in range(40)])
        bench.driver.redeploy(Topology("points", [], parts=[part]))
        bench.send([Event("a", 41, 0)])
        assert values(bench) == ["Rechts", "Links"] * 20 + ["Links"]


class Said(Intent, name="said", requires=PUBLIC):
    key: Annotated[str, Key]
    fail: bool = False


class Seen(Intent, name="seen", topic="seen", requires=PUBLIC):
    key: Annotated[str, Key]
    names: list[str | None]


class Names(State):
    names: list[str | None] = field(default_factory=list)


class Watcher(Reactor[Names], id="watcher", emits=[Seen]):
    @on
    def said(self, intent: Said, state: Names, ctx: Context) -> Effects:
        row = ctx.row(PLACES, intent.key)
        state.names = [*state.names, None if row is None else row.name]
        if row is not None:
            row.name = "changed by a handler"
        if intent.fail:
            raise ValueError("as it was asked to")
        return Emit(Seen(key=intent.key, names=state.names))


class TestHandlers:
    def test_a_unit_sees_one_version_and_what_is_undone_in_it_too(self) -> None:
        """Of 20 seeds some put several intents into one unit; the table changes after each step."""
        several = 0
        for seed in range(20):
            driver = Driver(Topology("watch", [Watcher], tables=[PLACES]), seed=seed, partitions=1)
            versions = iter(range(1_000))
            driver.table(PLACES, {"a": Place("0")})
            in_unit: list[int] = []
            units: list[int] = []

            def after(action: object, driver: Driver = driver, units: list[int] = units, versions=versions) -> None:  # type: ignore[no-untyped-def]
                kind = action.kind  # type: ignore[attr-defined]
                if kind == "step":
                    driver.table(PLACES, {"a": Place(str(next(versions) + 1))})
                if kind == "commit":
                    units.append(len((driver.state(Watcher, "a") or Names([])).names))

            driver.after_action = after
            with driver.paused():
                for number in range(12):
                    driver.send(Said(key="a", fail=number % 4 == 3))
            state = driver.state(Watcher, "a")
            assert state is not None
            assert len(state.names) == 9
            assert len(driver.dead_letters()) == 3
            begin = 0
            for end in units:
                in_unit.append(end - begin)
                assert len(set(state.names[begin:end])) <= 1, "all of a unit see the same"
                begin = end
            assert state.names == driver.outputs("seen")[-1].json()["names"], "what was undone has seen it again"
            several += max(in_unit) > 1
        assert several > 3

    def test_who_has_no_such_table(self) -> None:
        driver = Driver(Topology("watch", [Watcher]))
        driver.send(Said(key="a"))
        (letter,) = driver.dead_letters()
        assert "no table of 'reference.places'" in letter.message
        with pytest.raises(NotFoundError, match=r"no such table of 'reference\.places'"):
            driver.table(PLACES, {})

    def test_the_limit(self) -> None:
        small = GlobalTable("reference.places", Place, most_bytes=1_000)
        driver = Driver(Topology("watch", [Watcher], tables=[small]))
        with pytest.raises(TableFullError):
            driver.table(small, {str(n): Place("x" * 100) for n in range(10)})

    def test_one_topic_has_one_declaration(self) -> None:
        other = GlobalTable("reference.places", Place, on_bad="stop")
        Topology("watch", [Watcher], tables=[PLACES, GlobalTable("reference.places", Place)])
        with pytest.raises(
            DefinitionError, match=r"two tables of the topic 'reference\.places' are declared differently"
        ):
            Topology("watch", [Watcher], tables=[PLACES, other])
