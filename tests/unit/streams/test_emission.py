"""When windows tell: at each value, on the way, by the worker's clock; and windows that time does not end."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.core.partition import partition_of
from pf_stream.streams import (
    Aggregate,
    collect,
    counted,
    early,
    global_window,
    on_update,
    pipeline,
    session,
    stream,
    tumbling,
)
from pf_stream.streams.windows import Emission, Window
from tests.unit.streams.kit import Bench, Event, Point, Told, clocked, events, told

values: Aggregate[Point, list[int]] = collect(lambda point: point.n, int)
seeds = st.integers(0, 1 << 16)
crash_rates = st.sampled_from([0.0, 0.3])


def bench(window: Window, emit: Emission | None = None, seed: int = 0, crashes: float = 0.0) -> Bench:
    cut = stream(Point).by_key().window(window)
    made = cut.aggregate(values) if emit is None else cut.aggregate(values, emit=emit)
    return Bench(pipeline("p", made.emit(told, Told)), seed, crashes=crashes)


@given(events, st.sampled_from([0, 15]), seeds, crash_rates)
@settings(max_examples=50)
def test_on_update_each_result_takes_the_one_before_back(
    sent: list[Event], grace: int, seed: int, crashes: float
) -> None:
    world = bench(tumbling("10s", grace=f"{grace}s"), on_update(), seed, crashes)
    world.send(sent)
    held: dict[tuple[str, int], list[int]] = {}
    expected: list[tuple[Any, ...]] = []
    for event, clock in clocked(sent):
        start = event.at - event.at % 10
        if clock >= start + 10 + grace:
            continue
        before = held.get((event.key, start))
        if before is not None:
            expected.append((event.key, start, start + 10, "retraction", before))
        held[event.key, start] = [*(before or []), event.n]
        expected.append((event.key, start, start + 10, "update", held[event.key, start]))
    assert world.told() == expected
    world.check()


@given(events, st.integers(1, 4), seeds, crash_rates)
@settings(max_examples=50)
def test_early_after_so_many_records(sent: list[Event], records: int, seed: int, crashes: float) -> None:
    world = bench(tumbling("10s"), early(records=records), seed, crashes)
    world.send(sent)
    held: dict[str, dict[int, list[int]]] = defaultdict(dict)
    untold: dict[str, list[int]] = defaultdict(list)
    expected: list[tuple[Any, ...]] = []
    for event, clock in clocked(sent):
        for key, windows in held.items():
            ended = [start for start in windows if start + 10 <= clock]
            expected += [(key, start, start + 10, "final", windows.pop(start)) for start in ended]
            if not windows:
                untold[key].clear()
        start = event.at - event.at % 10
        if start + 10 <= clock:
            continue
        held[event.key].setdefault(start, []).append(event.n)
        untold[event.key].append(start)
        if len(untold[event.key]) >= records:
            told_of = {*untold.pop(event.key)} & {*held[event.key]}
            expected += [(event.key, one, one + 10, "early", [*held[event.key][one]]) for one in told_of]
    assert sorted(world.told()) == sorted(expected)
    world.check()


def test_early_every_so_often_if_there_is_something_new() -> None:
    world = bench(tumbling("1m"), early(every="5s"))
    world.send([Event("a", 1, 1), Event("a", 2, 2)])
    world.driver.advance(4)
    assert world.told() == []
    world.driver.advance(1)
    assert world.told() == [("a", 0, 60, "early", [1, 2])]
    world.driver.advance(5)
    assert len(world.told()) == 1, "nothing is new"
    world.send([Event("a", 3, 3)])
    world.driver.advance(5)
    assert world.told()[1:] == [("a", 0, 60, "early", [1, 2, 3])]
    world.send([Event("a", 61, 4)])
    assert world.told()[2:] == [("a", 0, 60, "final", [1, 2, 3])]
    world.check()


steps = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(0, 60)), max_size=15)
"""Key, seconds that the worker waits before, event time."""


@given(steps, seeds)
@settings(max_examples=40)
def test_processing_time_cuts_by_when_a_value_is_handled(sent: list[tuple[str, int, int]], seed: int) -> None:
    for window, gap in ((tumbling("10s", clock="processing"), None), (session("5s", clock="processing"), 5)):
        world = bench(window, seed=seed)
        now = 3600
        expected: list[list[Any]] = []
        latest: dict[str, list[Any]] = {}
        for number, (key, pause, at) in enumerate(sent):
            world.driver.advance(pause)
            now += pause
            world.send([Event(key, at, number)])
            if key not in latest or latest[key][2] <= now:
                start = now if gap else now - now % 10
                latest[key] = [key, start, start + 10, "final", []]
                expected.append(latest[key])
            if gap:
                latest[key][2] = now + gap
            latest[key][4].append(number)
        world.driver.advance(20)
        assert sorted(world.told()) == sorted(map(tuple, expected))
        assert (world.states, world.timers) == (0, 0)
        world.check()


@given(events, st.integers(1, 5), seeds, crash_rates)
@settings(max_examples=40)
def test_counted(sent: list[Event], size: int, seed: int, crashes: float) -> None:
    world = bench(counted(size), seed=seed, crashes=crashes)
    world.send(sent)
    held: dict[str, list[Event]] = defaultdict(list)
    expected = []
    for event in sent:
        held[event.key].append(event)
        if len(held[event.key]) == size:
            expected.append(whole("final", held.pop(event.key)))
    assert world.told() == expected
    assert world.states == len(held)
    world.check()


@given(events, st.none() | st.integers(1, 5), st.booleans(), st.booleans(), seeds, crash_rates)
@settings(max_examples=50)
def test_global_windows(
    sent: list[Event], records: int | None, by_value: bool, purge: bool, seed: int, crashes: float
) -> None:
    if records is None:
        by_value = True
    when = (lambda point: point.n > 3) if by_value else None
    world = bench(global_window(records=records, when=when, purge=purge), seed=seed, crashes=crashes)
    world.send(sent)
    held: dict[str, list[Event]] = defaultdict(list)
    untold: dict[str, int] = defaultdict(int)
    expected = []
    for event in sent:
        held[event.key].append(event)
        untold[event.key] += 1
        if untold[event.key] == records or (by_value and event.n > 3):
            expected.append(whole("early", held[event.key]))
            untold[event.key] = 0
            if purge:
                del held[event.key]
    assert world.told() == expected
    assert world.states == len(held)
    world.check()


def whole(kind: str, held: list[Event]) -> tuple[Any, ...]:
    times = [event.at for event in held]
    return held[0].key, min(times), max(times) + 1, kind, [event.n for event in held]


@pytest.mark.parametrize("purge", [True, False])
def test_a_global_window_tells_so_long_after_what_is_new(purge: bool) -> None:
    world = bench(global_window(every="5s", purge=purge))
    for number in (1, 2):
        world.send([Event("a", number, number)])
        world.driver.advance(4)
        assert len(world.told()) == number - 1
        world.driver.advance(1)
        assert world.told()[-1][3:] == ("early", [number] if purge or number == 1 else [1, 2])
        world.driver.advance(10)
    assert len(world.told()) == 2
    assert world.states == (0 if purge else 1)
    world.check()


many = st.lists(st.builds(Event, st.sampled_from("abcdefgh"), st.integers(0, 60), st.integers(-9, 9)), max_size=40)


@pytest.mark.slow
@given(many, seeds, crash_rates)
@settings(max_examples=20, deadline=None)
def test_several_partitions_that_are_uneven_make_nothing_late(sent: list[Event], seed: int, crashes: float) -> None:
    """Each partition is in order; what comes by them together is not."""
    cut = stream(Point).key_by(lambda point: str(point.n % 3)).window(tumbling("10s"))
    made = pipeline("p", cut.aggregate(values).emit(told, Told))
    world = Bench(made, seed, partitions=4, crashes=crashes)
    lanes: dict[int, list[Event]] = defaultdict(list)
    for event in sent:
        lanes[partition_of(event.key.encode(), 4)].append(event)
    ordered = {lane: iter(sorted(all_, key=lambda event: event.at)) for lane, all_ in lanes.items()}
    with world.driver.paused():
        world.send(next(ordered[partition_of(event.key.encode(), 4)]) for event in sent)
    world.send([Event("a", 500, 1)])
    world.driver.advance(70)
    expected: dict[tuple[str, int], list[int]] = defaultdict(list)
    for event in sent:
        expected[str(event.n % 3), event.at - event.at % 10].append(event.n)
    found = [(key, start, end, kind, sorted(ns)) for key, start, end, kind, ns in world.told()]
    assert sorted(found) == sorted(
        (key, start, start + 10, "final", sorted(ns)) for (key, start), ns in expected.items()
    )
    world.check()
