"""Pipelines: what they become, who acts, and how they may be declared wrong."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import pytest

from pf_stream import DefinitionError, RetryLater, Topology
from pf_stream.model import Stateless
from pf_stream.streams import End, Stream, Transform, Windowed, count, counted, hopping, pipeline, stream, tumbling
from pf_stream.testing import Driver
from tests.unit.streams.kit import BASE, SERVICE, Bench, Event, Point, PointCap, Secret, Told, told


def said(point: Point) -> Told:
    return Told(key=point.key, start=0, end=0, kind=point.place, value=point.n)


class Twice(Transform[Point, Point]):
    def one(self, value: Point) -> Iterable[Point]:
        return [value, value]


class Together(Transform[Point, str]):
    """Says how many came together."""

    def many(self, values: Sequence[Point]) -> Iterable[str]:
        return [f"{len(values)}"] * len(values)


def counts(points: Stream[Point]) -> Stream[Windowed[int]]:
    return points.key_by(lambda point: point.key).window(tumbling("10s")).aggregate(count())


class TestStages:
    def test_stages_without_state_are_one_handler_that_stores_nothing(self) -> None:
        ends = stream(Point).filter(lambda point: point.n > 0).map(said, Told).emit(Told)
        part = pipeline("p", ends)
        (reactor,) = part.reactors
        assert reactor.__reactor__.state_type is Stateless
        assert len(reactor.__reactor__.handlers) == 1
        assert not part.internal
        bench = Bench(part, partitions=3)
        bench.send(Event("a", at, n) for at, n in enumerate([1, -1, 2]))
        assert [value for *_, value in bench.told()] == [1, 2]
        assert bench.states == 0

    def test_each_value_takes_one_branch_and_merges_again(self) -> None:
        low, high, rest = stream(Point).branch(lambda point: point.n < 2, lambda point: point.n < 4)
        high = high.map(lambda point: point.model_copy(update={"place": "high"}), Point)
        bench = Bench(
            pipeline("p", low.merge(high).emit(said), rest.flat_map(lambda point: [said(point)] * 2).emit(Told))
        )
        bench.send(Event("a", n, n) for n in range(6))
        assert [(kind, n) for *_, kind, n in bench.told()] == [
            ("left", 0),
            ("left", 1),
            ("high", 2),
            ("high", 3),
            *[("left", 4)] * 2,
            *[("left", 5)] * 2,
        ]

    def test_a_transform_gets_together_what_comes_together(self) -> None:
        def text(n: str) -> Told:
            return Told(key="a", start=0, end=0, kind="", value=n)

        bench = Bench(pipeline("p", stream(Point).through(Twice(), Point).through(Together()).emit(text)))
        bench.send([Event("a", 0, 1)])
        assert [value for *_, value in bench.told()] == ["2", "2"]

    def test_two_ways_on_are_two_ways(self) -> None:
        points = stream(Point)
        part = pipeline("p", points.emit(said), counts(points).emit(told))
        bench = Bench(part)
        bench.send([Event("a", 0, 1), Event("a", 30, 2)])
        assert [kind for *_, kind, _ in bench.told()] == ["left", "left", "final"]

    def test_windows_of_windows_wait_for_those_before(self) -> None:
        first = counts(stream(Point)).map(lambda windowed: windowed.value, int)
        second = first.key_by(lambda n: "all").window(tumbling("20s"), name="second").aggregate(count())
        bench = Bench(pipeline("p", second.emit(told)))
        bench.send([Event("a", 0, 1), Event("b", 1, 1), Event("a", 15, 1), Event("a", 70, 1), Event("b", 95, 1)])
        bench.send([Event("a", 200, 1)])
        assert [(start, n) for _, start, _, _, n in bench.told()] == [(0, 3), (60, 1)]
        bench.check()

    def test_a_stage_that_raises_is_tried_again_as_declared(self) -> None:
        part = pipeline(
            "p",
            stream(Point).filter(lambda point: 1 // point.n).emit(said),
            on_error=RetryLater(attempts=2, backoff_s=5),
        )
        bench = Bench(part)
        bench.send([Event("a", 0, 0), Event("a", 0, 1)])
        assert bench.driver.dead_letters() == []
        bench.driver.advance(timedelta(seconds=5))
        (letter,) = bench.driver.dead_letters()
        assert letter.code == "handler_failed"
        assert "attempt 2 of 2" in letter.message
        assert len(bench.told()) == 1


class TestWhoActs:
    def test_what_one_caused_goes_under_their_context(self) -> None:
        driver = Driver(
            Topology(
                "points",
                [],
                parts=[
                    pipeline(
                        "p",
                        stream(Point)
                        .key_by(lambda point: point.place)
                        .dedupe(lambda point: str(point.n), within="10s")
                        .emit(lambda point: Secret(key=point.key), Secret),
                    )
                ],
            )
        )
        driver.send(Point(key="k"), driver.context(PointCap.report("/k"), subject="ann"))
        (record,) = driver.outputs("secrets")
        assert record.header("pf-context") is not None
        (inner,) = driver.outputs("p-dedupe")
        assert inner.header("pf-context") is not None
        assert inner.json()["stage_key"] == "a"

    def test_inner_intents_require_what_the_outer_did(self) -> None:
        part = pipeline("p", counts(stream(Point)).emit(told))
        (taken,) = (handler.intent for handler in part.reactors[1].__reactor__.handlers if "values" in handler.name)
        assert taken.requires == Point.__intent__.requires
        driver = Driver(Topology("points", [], parts=[part]))
        inner = taken.model(stage_key="a", stage_value=Point(key="k"), key="k")  # type: ignore[call-arg]
        headers = [("pf-source", b"0123456789abcdef:1:0"), ("pf-hops", b"1")]
        driver.send(inner, driver.context(PointCap.report("/other")), headers=headers)
        assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"]

    def test_what_many_caused_goes_under_the_service_on_nobodys_behalf(self) -> None:
        part = pipeline(
            "p", counts(stream(Point)).emit(lambda w: Secret(key=w.key, value=w.value), Secret), service=SERVICE
        )
        assert part.services == {"p-window": SERVICE}
        driver = Driver(Topology("points", [], parts=[part]), partitions=1, now=BASE + timedelta(hours=1))
        token = driver.context(PointCap.report("/**"), tenant="acme")
        for second in (0, 30):
            driver.send(Point(key="k"), token, time=BASE + timedelta(seconds=second))
        (record,) = driver.outputs("secrets")
        assert record.header("pf-context") not in {None, token.encode()}
        assert record.header("ce_time") == b"2026-01-01T00:00:09.999+00:00"
        assert driver.dead_letters() == []

    def test_without_a_service_it_goes_without_a_context(self) -> None:
        bench = Bench(pipeline("p", counts(stream(Point)).emit(told)))
        bench.send([Event("a", 0, 1), Event("a", 30, 1)])
        (record,) = bench.driver.outputs("told")
        assert record.header("pf-context") is None


def test_a_timer_may_set_the_next_one_for_ever() -> None:
    keyed = stream(Point).key_by(lambda point: point.key)
    window = keyed.window(hopping("1200s", every="10s", bound="1200s"))
    bench = Bench(pipeline("p", window.aggregate(count()).emit(told)))
    bench.send([Event("a", 1200, 1), *(Event("b", at, 1) for at in range(1210, 3700, 10))])
    assert sum(key == "a" for key, *_ in bench.told()) == 120
    assert max(len(record.header("ce_id") or b"") for record in bench.driver.outputs("told")) < 256
    bench.check()


@pytest.mark.parametrize(
    ("ends", "fault"),
    [
        ([], "leads nowhere"),
        ([counts(stream(Point)).emit(lambda w: Secret(key=w.key), Secret)], "service=Service"),
        ([counts(stream(Point)).emit(told), counts(stream(Point)).emit(told)], "two stages are called 'window'"),
        (
            [stream(Point).map(lambda point: point.n).key_by(str).window(counted(1)).aggregate(count()).emit(told)],
            "the type of what stage 'window' takes is not known",
        ),
        (
            [counts(stream(Point)).by_key().window(counted(1), name="w").aggregate(count()).emit(told)],
            "by_key() is for intents",
        ),
    ],
)
def test_faults(ends: list[End], fault: str) -> None:
    with pytest.raises(DefinitionError, match=None) as caught:
        pipeline("p", *ends)
    assert fault in str(caught.value)


@pytest.mark.parametrize("name", ["P", "a-b", "", "1", "x" * 32])
def test_names(name: str) -> None:
    with pytest.raises(DefinitionError, match="the name must be"):
        pipeline(name, stream(Point).emit(said))


def test_emit_must_know_its_types() -> None:
    with pytest.raises(DefinitionError, match="does not say which intents it makes"):
        stream(Point).emit(lambda point: point)
