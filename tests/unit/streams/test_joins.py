"""Joins equal a computation over all pairs that shares nothing with them."""

from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pf_stream import Part
from pf_stream.streams import Keyed, _joins, pipeline, stream
from tests.unit.streams.kit import BASE_MS, Bench, Event, Point, Told, clocked, events

seeds = st.integers(0, 1 << 16)
crash_rates = st.sampled_from([0.0, 0.0, 0.3])
HOWS = ["inner", "left", "right", "outer"]


def sides() -> tuple[Keyed[Point], Keyed[Point]]:
    points = stream(Point)
    left, right = points.branch(lambda point: point.place == "left")
    return left.key_by(lambda point: point.key), right.key_by(lambda point: point.key)


def pair(left: Point | None, right: Point | None) -> Told:
    one = left or right
    assert one is not None
    value = [None if left is None else left.n, None if right is None else right.n]
    return Told(key=one.key, start=0, end=0, kind="pair", value=value)


@cache
def intervals(before: int, after: int, bound: int, how: Any) -> Part:
    left, right = sides()
    return pipeline(
        "p",
        left.join(right, pair, before=f"{before}s", after=f"{after}s", bound=f"{bound}s", how=how).emit(Told),
    )


@given(
    events,
    st.sampled_from([(0, 0), (5, 0), (3, 8)]),
    st.sampled_from([0, 7]),
    st.sampled_from(HOWS),
    seeds,
    crash_rates,
    st.sampled_from([0, 1, 16]),
)
@example([Event("a", 5, 1), Event("a", 10, 2, left=False), Event("a", 40, 3)], (0, 5), 0, "outer", 0, 0.0, 0)
@example([Event("a", 5, 1), Event("a", 5, 2, left=False), Event("a", 5, 3)], (0, 0), 0, "left", 0, 0.0, 0)
@example([Event("a", 5, 1), Event("a", 13, 2, left=False), Event("a", 18, 3)], (5, 8), 7, "inner", 0, 0.0, 0)
@example(  # what waits longest came before another
    [Event("a", 5, 1), Event("a", 10, 2), Event("a", 6, 3), Event("b", 29, 4), Event("a", 20, 5, left=False)],
    (0, 10),
    10,
    "inner",
    0,
    0.0,
    16,
)
def test_intervals(
    sent: list[Event], shape: tuple[int, int], bound: int, how: str, seed: int, crashes: float, few: int
) -> None:
    before, after = shape
    bench = Bench(intervals(before, after, bound, how), seed, crashes=crashes)
    with patch.object(_joins, "_FEW", few):
        bench.send(sent)
    taken = []
    clock = 0
    for event, clock in clocked(sent):
        if clock <= event.at + bound:
            taken.append(event)
    lefts = [one for one in taken if one.left]
    rights = [one for one in taken if not one.left]
    pairs = [(x, y) for x in lefts for y in rights if x.key == y.key and -before <= y.at - x.at <= after]
    expected: list[tuple[str, Any, Any]] = [(x.key, x.n, y.n) for x, y in pairs]
    if how in {"left", "outer"}:
        expected += [
            (x.key, x.n, None) for x in lefts if all(x is not one for one, _ in pairs) and x.at + after + bound < clock
        ]
    if how in {"right", "outer"}:
        expected += [
            (y.key, None, y.n)
            for y in rights
            if all(y is not one for _, one in pairs) and y.at + before + bound < clock
        ]
    assert sorted(map(str, found(bench))) == sorted(map(str, expected))
    # Where nobody is told the end of a value, a key is looked at seldom, and one that was in use then more so.
    slack = 3 * (max(before, after) + bound) if how == "inner" else 0

    def waiting(slack: int) -> int:
        ends = [(x.key, x.at + after) for x in lefts] + [(y.key, y.at + before) for y in rights]
        return len({key for key, end in ends if end + bound + slack >= clock})

    assert waiting(0) <= bench.states == bench.timers <= waiting(slack)
    if not crashes:
        assert bench.driver.tallies["p-join", "late"] == len(sent) - len(taken)
    bench.check()


def picky(left: Point | None, right: Point | None) -> Told:
    told = pair(left, right)
    if left is None or right is None or (left.n + right.n) % 5:
        return told
    return told.model_copy(update={"value": object()})  # which is found out when all is done that the handler does


@cache
def picky_intervals(how: Any) -> Part:
    left, right = sides()
    return pipeline("p", left.join(right, picky, before="3s", after="8s", bound="5s", how=how).emit(Told))


@given(events, seeds, st.sampled_from(["inner", "outer"]), st.sampled_from([0, 1, 16]))
@example(  # one that fails has met a partner before, and another one comes where it was
    [
        *(Event("a", 5, n) for n in (1, 2)),
        *(Event("a", 6, n, left=False) for n in (4, 1)),
        Event("a", 6, 7),
        Event("b", 59, 1),
    ],
    0,
    "outer",
    16,
)
@example([Event("a", 5, 2), Event("a", 5, 1), Event("a", 6, 4, left=False), Event("b", 59, 1)], 0, "outer", 16)
@example(  # it would have been the first in the map
    [
        Event("a", 5, 4, left=False),
        *(Event("a", 5, n) for n in (2, 1)),
        Event("a", 7, 3),
        Event("a", 8, 9, left=False),
    ],
    0,
    "inner",
    1,
)
def test_nothing_remains_of_a_value_that_cannot_be_paired(sent: list[Event], seed: int, how: str, few: int) -> None:
    bench = Bench(picky_intervals(how), seed, crashes=1e-9)  # none, but many in one unit
    with patch.object(_joins, "_FEW", few):
        bench.send(sent)
    taken: list[Event] = []
    found_: list[tuple[Event, Event]] = []
    failed = clock = 0
    for event, clock in clocked(sent):
        if clock > event.at + 5:
            continue
        others = [one for one in taken if one.key == event.key and one.left != event.left]
        pairs = [(one, event) if one.left else (event, one) for one in others]
        pairs = [(x, y) for x, y in pairs if -3 <= y.at - x.at <= 8]
        if any((x.n + y.n) % 5 == 0 for x, y in pairs):
            failed += 1
        else:
            taken.append(event)
            found_ += pairs
    expected: list[tuple[str, Any, Any]] = [(x.key, x.n, y.n) for x, y in found_]
    if how == "outer":
        alone = [one for one in taken if all(one is not x and one is not y for x, y in found_)]
        expected += [
            (one.key, one.n, None) if one.left else (one.key, None, one.n)
            for one in alone
            if one.at + (8 if one.left else 3) + 5 < clock
        ]
    assert sorted(map(str, found(bench))) == sorted(map(str, expected))
    assert len(bench.driver.dead_letters()) == failed


@pytest.mark.parametrize("seed", range(8))
def test_what_a_map_held_before_does_not_come_back_with_what_fails(seed: int) -> None:
    bench = Bench(picky_intervals("outer"), seed, crashes=1e-9)
    with patch.object(_joins, "_FEW", 1):
        bench.send([Event("a", 30, 3), Event("a", 26, 2)])
        fails = Event("a", 38, 2, left=False)  # it would have been the first in the other map
        bench.send([Event("b", 40, 1), Event("a", 36, 0, left=False), fails, Event("a", 38, 1, left=False)])
        bench.send([Event("b", 59, 2)])
    assert sorted(map(str, found(bench))) == sorted(
        map(str, [("a", 2, None), ("a", 3, 0), ("a", 3, 1), ("b", 1, None)])
    )
    assert len(bench.driver.dead_letters()) == 1


def test_a_key_that_is_used_once_goes_sooner_than_one_that_was_in_use() -> None:
    bench = Bench(intervals(0, 5, 0, "inner"))  # a left value waits for 5 s, and a look may be 5 s late
    bench.send([Event("a", 0, 1), Event("b", 11, 1)])
    assert bench.states == 1  # "a" went
    bench.send([Event("a", 20, 1), Event("a", 28, 1), Event("b", 31, 2)])  # at 31 it is looked at, and in use
    bench.send([Event("b", 48, 3)])
    assert bench.states == 2
    bench.send([Event("b", 49, 4), Event("b", 50, 4)])
    assert bench.states == 1


def test_many_that_wait_lie_apart_and_go() -> None:
    bench = Bench(intervals(0, 5, 0, "inner"))
    bench.send(Event("a", 0, n) for n in range(100))
    assert bench.entries == 100 - _joins._FEW
    bench.send([Event("a", 5, 7, left=False)])
    assert sorted(found(bench)) == [("a", n, 7) for n in range(100)]
    bench.send([Event("b", 20, 0)])
    assert bench.entries == 0
    assert bench.states == 1


def test_a_key_of_which_nothing_was_wanted_leaves_no_state() -> None:
    left, right = stream(Point).filter(lambda point: point.n > 0).branch(lambda point: point.n > 1)
    wanted = left.by_key().join(right.key_by(lambda point: point.key), pair, after="5s", bound="5s")
    bench = Bench(pipeline("p", wanted.emit(Told)))
    bench.send([Event("a", 0, 0), Event("b", 0, 1), Event("c", 0, 2)])
    assert bench.states == 2


def test_what_waits_is_plain_json_and_what_may_change_is_written_anew() -> None:
    def both(left: list[int], right: list[int]) -> Told:
        return Told(key="", start=0, end=0, kind="", value=left + right)

    points = stream(Point)
    sides = [one.map(lambda point: [point.n], returns=list[int]) for one in points.branch(lambda one: one.n > 0)]
    lists = pipeline("lists", sides[0].key_by(str).join(sides[1].key_by(str), both, after="5s", bound="5s").emit(Told))
    for part, value in ((intervals(0, 5, 0, "inner"), b'{"key":"a","n":1,"place":"left"}'), (lists, b"[1]")):
        (spec,) = (one.__reactor__.state for one in part.reactors if one.__reactor__.id.endswith("-join"))
        raw = b'{"left":[[5,%b,false],[6,%b,true]],"right":[],"more":0,"number":2,"until":11,"due":null}' % (
            value,
            value,
        )
        state = spec.decode(raw)
        assert spec.encode(state) == raw == spec.encode(state)
        if value == b"[1]":
            state.left.value(1).append(2)
            assert b"[6,[1,2],true]" in spec.encode(state)


@pytest.mark.parametrize("left", [True, False])
def test_nobody_goes_before_the_clock_does(left: bool) -> None:
    """Of two partitions one has not said what time it is: what comes from there may be of any time."""
    bench = Bench(intervals(5, 5, 0, "outer"), partitions=2)
    bench.send([Event("a", 0, 1, left=left), Event("a", 60, 2, left=left)])
    assert found(bench) == []
    bench.send([Event("a", 5, 3, left=not left)])
    assert found(bench) == [("a", 1, 3) if left else ("a", 3, 1)]
    bench.send([Event("d", 66, 4, left=left), Event("a", 66, 5, left=left)])  # "d" is in the other one
    bench.driver.advance(1)
    assert found(bench)[1:] == [("a", 2, None) if left else ("a", None, 2)]
    bench.check()


def found(bench: Bench) -> list[tuple[str, Any, Any]]:
    return [(key, *value) for key, _, _, _, value in bench.told()]


@cache
def as_ofs(tolerance: int | None, bound: int, how: Any) -> Part:
    left, right = sides()
    old = None if tolerance is None else f"{tolerance}s"
    return pipeline("p", left.as_of(right, pair, tolerance=old, bound=f"{bound}s", how=how).emit(Told))


@given(
    events,
    st.sampled_from([None, 1, 9]),
    st.sampled_from([0, 7]),
    st.sampled_from(["inner", "left"]),
    seeds,
    crash_rates,
)
@example([Event("a", 5, 2, left=False), Event("a", 9, 1), Event("b", 50, 1)], 9, 0, "left", 0, 0.0)
def test_as_of(sent: list[Event], tolerance: int | None, bound: int, how: str, seed: int, crashes: float) -> None:
    bench = Bench(as_ofs(tolerance, bound, how), seed, crashes=crashes)
    bench.send(sent)
    taken = []
    clock = 0
    for event, clock in clocked(sent):
        if clock <= event.at + bound:
            taken.append(event)
    expected: list[tuple[str, Any, Any]] = []
    for x in (one for one in taken if one.left and one.at + bound < clock):
        before = [y for y in taken if not y.left and y.key == x.key and y.at <= x.at]
        before = [y for y in before if tolerance is None or y.at + tolerance >= x.at]
        latest = max(enumerate(before), key=lambda one: (one[1].at, one[0]), default=None)
        if latest is not None:
            expected.append((x.key, x.n, latest[1].n))
        elif how == "left":
            expected.append((x.key, x.n, None))
    assert sorted(map(str, found(bench))) == sorted(map(str, expected))
    bench.check()
    if tolerance is not None and sent:
        late = max(clock, 0) + tolerance + bound + 1
        bench.send([Event("z", late, 0)])
        assert bench.states == bench.timers == 1, "what is too old is gone"


@pytest.mark.parametrize("how", ["inner", "left"])
def test_lookup(how: Any) -> None:
    left, right = sides()
    part = pipeline("p", left.lookup(right.table(remove=lambda point: point.n < 0), pair, how=how).emit(Told))
    bench = Bench(part)
    rows = [(1, True), (7, False), (2, True), (8, False), (3, True), (-1, False), (4, True)]
    bench.send(Event("a", at, n, left) for at, (n, left) in enumerate(rows))
    alone = [("a", 1, None)] if how == "left" else []
    last = [("a", 4, None)] if how == "left" else []
    assert found(bench) == [*alone, ("a", 2, 7), ("a", 3, 8), *last]
    assert bench.states == 0
    assert bench.driver.tallies["p-lookup", "unmatched"] == (0 if how == "left" else 2)
    bench.check()


@pytest.mark.parametrize("how", HOWS)
def test_tables(how: Any) -> None:
    left, right = sides()
    gone = {"remove": lambda point: point.n < 0}
    part = pipeline("p", left.table(**gone).join(right.table(**gone), pair, how=how).emit(Told))
    bench = Bench(part)
    rows = [(1, True), (7, False), (2, True), (-1, True), (8, False), (-1, False)]
    bench.send(Event("a", at, n, left) for at, (n, left) in enumerate(rows))
    expected: list[tuple[str, int | None, int | None]] = []
    if how in {"left", "outer"}:
        expected.append(("a", 1, None))
    expected += [("a", 1, 7), ("a", 2, 7)]
    if how in {"right", "outer"}:
        expected += [("a", None, 7), ("a", None, 8)]
    assert found(bench) == expected
    assert bench.states == 0
    bench.check()


@pytest.mark.parametrize("as_of", [False, True])
def test_what_is_late_goes_to_its_topic(as_of: bool) -> None:
    left, right = sides()
    joined = (
        left.as_of(right, pair, bound="5s", late="too_late", name="join")
        if as_of
        else left.join(right, pair, before="5s", bound="5s", late="too_late")
    )
    bench = Bench(pipeline("p", joined.emit(Told)))
    bench.send([Event("a", 50, 1), Event("a", 44, 2), Event("a", 44, 3, left=False), Event("b", 45, 4)])
    bench.check()
    told = [(record.header("ce_type"), record.json()) for record in bench.driver.outputs("too_late")]
    assert [(kind, one["key"], one["value"]["n"]) for kind, one in told] == [
        (b"p.join.late_left.v1", "a", 2),
        (b"p.join.late_right.v1", "a", 3),
    ]
    for _, one in told:
        assert (one["time_ms"], one["watermark_ms"]) == (BASE_MS + 44_000, BASE_MS + 50_000)
    assert bench.driver.tallies["p-join", "late"] == 0
    assert bench.states == 2, "those that came in time"
