"""Windows equal a computation that shares nothing with them: over disorder, repetitions, late values and crashes."""

from collections import defaultdict
from functools import cache
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pf_stream import Part, Topology
from pf_stream.core import plan
from pf_stream.streams import (
    Aggregate,
    aggregate,
    collect,
    count,
    hopping,
    pipeline,
    session,
    sliding,
    stream,
    tumbling,
)
from pf_stream.streams.windows import Emission, Window
from tests.unit.streams.kit import Bench, Event, Point, Told, clocked, events, told

values: Aggregate[Point, list[int]] = collect(lambda point: point.n, int)
seeds = st.integers(0, 1 << 16)
crash_rates = st.sampled_from([0.0, 0.0, 0.3])


@cache
def windows(window: Window, emit: Emission | None = None, *, hop: bool = True) -> Part:
    points = stream(Point)
    keyed = points.key_by(lambda point: point.key) if hop else points.by_key()
    cut = keyed.window(window, late="too-late")
    made = cut.aggregate(values) if emit is None else cut.aggregate(values, emit=emit)
    return pipeline("p", made.emit(told, Told))


def late(bench: Bench) -> list[tuple[str, int]]:
    records = {record.header("pf-source"): record for record in bench.driver.outputs("too-late")}
    return [(record.json()["key"], record.json()["value"]["n"]) for record in records.values()]


def starts(at: int, size: int, every: int, offset: int = 0) -> list[int]:
    return [start for start in range(-size + 1 + at, at + 1) if (start - offset) % every == 0]


def points(sent: list[Event]) -> list[Event]:
    return [event._replace(left=True) for event in sent]


SHAPES = [(10, 10, 0), (10, 10, 3), (20, 5, 0), (12, 5, 2)]


@given(
    events,
    st.sampled_from(SHAPES),
    st.sampled_from([0, 7]),
    st.sampled_from([0, 15]),
    seeds,
    crash_rates,
    st.booleans(),
)
@example([Event("a", 0, 1), Event("b", 10, 2), Event("a", 9, 3)], (10, 10, 0), 0, 0, 0, 0.0, True)
@example([Event("a", 0, 1), Event("b", 10, 2), Event("a", 9, 3), Event("b", 60, 3)], (10, 10, 0), 0, 15, 0, 0.0, True)
def test_hopping(
    sent: list[Event],
    shape: tuple[int, int, int],
    bound: int,
    grace: int,
    seed: int,
    crashes: float,
    hop: bool,
) -> None:
    size, every, offset = shape
    window = hopping(f"{size}s", every=f"{every}s", offset=f"{offset}s", bound=f"{bound}s", grace=f"{grace}s")
    bench = Bench(windows(window, hop=hop), seed, crashes=crashes)
    sent = points(sent)
    bench.send(sent)
    held: dict[tuple[str, int], list[int]] = defaultdict(list)
    expected: list[tuple[Any, ...]] = []
    said: dict[tuple[str, int], list[int]] = {}
    too_late = []
    clock = 0

    def close() -> None:
        for at, ns in held.items():
            if at not in said and at[1] + size + bound <= clock:
                said[at] = [*ns]
                expected.append((at[0], at[1], at[1] + size, "final", [*ns]))

    for event, clock in clocked(sent):
        close()
        taken = [start for start in starts(event.at, size, every, offset) if clock < start + size + bound + grace]
        for start in taken:
            at = event.key, start
            held[at].append(event.n)
            if at in said:
                expected.append((*at, start + size, "retraction", said[at]))
                said[at] = [*held[at]]
                expected.append((*at, start + size, "update", said[at]))
        close()
        if not taken:
            too_late.append((event.key, event.n))
    assert sorted(bench.told()) == sorted(expected)
    assert late(bench) == too_late
    still = {key for key, start in held if start + size + bound + grace > clock}
    assert (bench.states, bench.timers) == (len(still), len(still)), "what has ended is gone"
    bench.check()


@given(events, st.sampled_from([1, 6]), st.sampled_from([0, 7]), seeds, crash_rates, st.booleans())
@example([Event("a", 0, 1), Event("a", 10, 2), Event("a", 5, 3)], 6, 7, 0, 0.0, True)
def test_sessions(sent: list[Event], gap: int, bound: int, seed: int, crashes: float, hop: bool) -> None:
    bench = Bench(windows(session(f"{gap}s", bound=f"{bound}s"), hop=hop), seed, crashes=crashes)
    sent = points(sent)
    bench.send(sent)
    held: dict[str, list[Event]] = defaultdict(list)
    expected: list[tuple[Any, ...]] = []
    too_late = []

    def close(key: str, clock: int) -> None:
        """Take out what has ended, from all that is held, sorted and cut at the gaps."""
        for group in grouped(held[key], gap):
            if group[-1].at + gap + bound <= clock:
                held[key] = [event for event in held[key] if event not in group]
                expected.append((key, group[0].at, group[-1].at + gap, "final", sorted(one.n for one in group)))

    for event, clock in clocked(sent):
        for key in [*held]:
            close(key, clock)
        group = next(group for group in grouped([*held[event.key], event], gap) if event in group)
        if group[-1].at + gap + bound <= clock:
            too_late.append((event.key, event.n))
        else:
            held[event.key].append(event)
    found = [(*row[:4], sorted(row[4])) for row in bench.told()]
    assert sorted(found) == sorted(expected)
    assert late(bench) == too_late
    still = sum(map(bool, held.values()))
    assert (bench.states, bench.timers) == (still, still)
    bench.check()


def grouped(held: list[Event], gap: int) -> list[list[Event]]:
    groups: list[list[Event]] = []
    for event in sorted(held, key=lambda one: one.at):
        if groups and event.at < groups[-1][-1].at + gap:
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


@given(events, st.sampled_from([1, 8]), st.sampled_from([0, 7]), seeds, crash_rates)
def test_sliding(sent: list[Event], size: int, bound: int, seed: int, crashes: float) -> None:
    bench = Bench(windows(sliding(f"{size}s", bound=f"{bound}s")), seed, crashes=crashes)
    sent = points(sent)
    bench.send(sent)
    held: dict[str, list[Event]] = defaultdict(list)
    too_late = []
    clock = 0
    for event, clock in clocked(sent):
        if clock > event.at + bound:
            too_late.append((event.key, event.n))
        else:
            held[event.key].append(event)
    expected = [
        (key, at, sorted(one.n for one in all_ if at - size < one.at <= at))
        for key, all_ in held.items()
        for at in {one.at for one in all_}
        if at + bound < clock
    ]
    found = [(key, end - 1, sorted(ns)) for key, _, end, _, ns in bench.told()]
    assert sorted(found) == sorted(expected)
    assert late(bench) == too_late
    still = {key for key, all_ in held.items() for one in all_ if one.at + size + bound > clock}
    assert bench.states == bench.timers == len(still)
    bench.check()


def test_what_is_late_and_has_no_topic_is_counted() -> None:
    made = stream(Point).by_key().window(tumbling("10s")).aggregate(values)
    bench = Bench(pipeline("p", made.emit(told, Told)))
    bench.send(points([Event("a", 0, 1), Event("a", 30, 2), Event("a", 5, 3), Event("a", 9, 4)]))
    assert bench.driver.tallies["p-window", "late"] == 2
    assert [ns for *_, ns in bench.told()] == [[1]]
    bench.check()


def test_a_key_of_which_nothing_was_wanted_leaves_no_state() -> None:
    kept = stream(Point).filter(lambda point: point.n > 0).by_key()
    bench = Bench(pipeline("p", kept.window(tumbling("10s")).aggregate(values).emit(told, Told)))
    bench.send(points([Event("a", 0, 0), Event("b", 1, 1), Event("b", 2, 0)]))
    assert (bench.states, bench.timers) == (1, 1)
    bench.send(points([Event("a", 30, 0)]))
    assert [ns for *_, ns in bench.told()] == [[1]]
    assert (bench.states, bench.timers) == (0, 0)
    bench.check()


def in_place(made: list[int], point: Point) -> list[int]:
    made.append(point.n)
    if point.n < 0 and len(made) % 2:  # so if it were tried once more on what it has left, it might succeed
        raise ValueError("less than nothing")
    return made


def anew(made: tuple[int, ...], point: Point) -> tuple[int, ...]:
    if point.n < 0:
        raise ValueError("less than nothing")
    return *made, point.n


@given(
    events, seeds, st.sampled_from([in_place, anew]), st.sampled_from([tumbling("10s"), session("5s")]), st.booleans()
)
def test_nothing_remains_of_a_value_that_cannot_be_added(
    sent: list[Event], seed: int, add: Any, window: Window, hop: bool
) -> None:
    kinds: dict[Any, tuple[Any, Any]] = {in_place: (list, list[int]), anew: (tuple, tuple[int, ...])}
    init, stored = kinds[add]
    made: Aggregate[Point, list[int]] = aggregate(init, add, list, stored=stored, merge=lambda a, b: a + b)
    points_ = stream(Point)
    keyed = points_.key_by(lambda point: point.key) if hop else points_.by_key()
    part = pipeline("p", keyed.window(window).aggregate(made).emit(told, Told))
    together, alone = Bench(part, seed, crashes=1e-9), Bench(part, seed)
    together.send(points(sent))
    alone.send(points(sent))  # each in a unit of its own, before which there is nothing but what is stored
    assert together.told() == alone.told()
    assert add is in_place or all(number >= 0 for *_, numbers in together.told() for number in numbers)
    letters = together.driver.dead_letters()
    assert len(letters) == len(alone.driver.dead_letters())
    assert {letter.code for letter in letters} <= {"handler_failed"}


def test_a_lane_is_offered_a_quick_way_where_nothing_can_be_left_half_done() -> None:
    def offered(made: Aggregate[Point, Any]) -> bool:
        keyed = stream(Point).by_key().window(tumbling("10s"))
        part = pipeline("p", keyed.aggregate(made).emit(told, Told))
        (group,) = plan(Topology("points", [], parts=[part]), 1)
        routes = [route for source in group.sources for route in source.routes.values()]
        return any(binding.quick is not None for route in routes for binding in route.bindings)

    assert offered(count())
    assert not offered(values)
