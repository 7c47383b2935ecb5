"""Fewer values: dedupe, throttle, debounce, sample."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from pf_stream import Part
from pf_stream.streams import Stream, pipeline, stream
from tests.unit.streams.kit import Bench, Event, Point, Told, clocked, events


def ends(points: Stream[Point]) -> Part:
    return pipeline("p", points.emit(lambda point: Told(key=point.key, start=0, end=0, kind="", value=point.n), Told))


@cache
def deduped(within: int) -> Part:
    return ends(stream(Point).key_by(lambda point: point.key).dedupe(lambda point: str(point.n), within=f"{within}s"))


def values(bench: Bench) -> list[tuple[str, int]]:
    return [(key, value) for key, _, _, _, value in bench.told()]


@given(events, st.sampled_from([1, 12]), st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_dedupe(sent: list[Event], within: int, seed: int, crashes: float) -> None:
    bench = Bench(deduped(within), seed, crashes=crashes)
    bench.send(sent)
    seen: dict[tuple[str, int], int] = {}
    expected = []
    for event, clock in clocked(sent):
        seen = {id_: at for id_, at in seen.items() if at + within > clock}
        if (event.key, event.n) not in seen:
            expected.append((event.key, event.n))
            if event.at + within > clock:
                seen[event.key, event.n] = event.at
    assert values(bench) == expected
    assert bench.states == bench.timers == len({key for key, _ in seen})
    bench.check()


def test_throttle() -> None:
    bench = Bench(ends(stream(Point).key_by(lambda point: point.key).throttle(2, per="10s")))
    for n in range(12):
        bench.send([Event("a", 0, n)])
        bench.driver.advance(3)
    assert [n for _, n in values(bench)] == [0, 1, 4, 5, 8, 9]
    assert bench.driver.tallies["p-throttle", "throttled"] == 6
    bench.driver.advance(10)
    assert bench.states == bench.timers == 0


def test_debounce() -> None:
    bench = Bench(ends(stream(Point).key_by(lambda point: point.key).debounce("10s")))
    for n, pause in enumerate([3, 3, 11, 9, 10]):
        bench.send([Event("a", 0, n)])
        bench.driver.advance(pause)
    assert [n for _, n in values(bench)] == [2, 4]
    assert bench.driver.tallies["p-debounce", "replaced"] == 3
    assert bench.states == bench.timers == 0
    bench.check()


def test_sample() -> None:
    bench = Bench(ends(stream(Point).by_key().sample("10s")), partitions=3)
    for n, pause in enumerate([4, 4, 4, 30, 1]):  # at 0, 4, 8, 12 and 42
        bench.send([Event("a", 0, n)])
        bench.driver.advance(pause)
    bench.driver.advance(60)
    assert [n for _, n in values(bench)] == [2, 3, 4]
    assert bench.states == bench.timers == 0
    bench.check()
