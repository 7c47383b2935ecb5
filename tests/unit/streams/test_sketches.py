"""Sketches against exact answers: how far off they may be, that merging is a union, that a second run makes equal bytes."""

import math
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pf_stream import DefinitionError
from pf_stream.streams import (
    Aggregate,
    Frequent,
    approximate_distinct,
    pipeline,
    quantiles,
    session,
    stream,
    top_k,
)
from tests.unit.streams.kit import Bench, Event, Point, Told, told

RANKS = (0, 0.1, 0.5, 0.9, 0.99, 1)

distinct: Aggregate[Any, int] = approximate_distinct(lambda value: value)
ranked: Aggregate[float, tuple[float, ...]] = quantiles(lambda value: value, *RANKS)
frequent: Aggregate[Any, list[Frequent]] = top_k(str, 2)
ALL: list[Aggregate[Any, Any]] = [distinct, ranked, frequent]

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9), max_size=60)
letters = st.lists(st.integers(0, 60).map(lambda n: n if n % 3 else 0), max_size=200)


def made(aggregate: Aggregate[Any, Any], values: Any) -> Any:
    a = aggregate.init()
    for value in values:
        a = aggregate.add(a, value)
    return a


def merged(aggregate: Aggregate[Any, Any], a: Any, b: Any) -> Any:
    assert aggregate.merge is not None
    return aggregate.merge(a, b)


@pytest.mark.parametrize("aggregate", ALL, ids=["distinct", "quantiles", "top_k"])
@given(st.data())
@settings(max_examples=30)
def test_a_second_run_makes_equal_bytes_wherever_the_state_was_stored_between(
    aggregate: Aggregate[Any, Any], data: st.DataObject
) -> None:
    stored = TypeAdapter(aggregate.stored)
    values = data.draw(st.lists(st.integers(-500, 500), max_size=200))
    again = aggregate.init()
    for value in values:
        again = aggregate.add(again, value)
        if value % 7 == 0:
            again = stored.validate_json(stored.dump_json(again))
    assert stored.dump_json(again) == stored.dump_json(made(aggregate, values))


@pytest.mark.parametrize("n", [0, 1, 100, 300, 5_000])
def test_distinct_is_within_four_standard_errors(n: int) -> None:
    values = range(n)
    whole = distinct.result(made(distinct, values))
    halves = merged(distinct, made(distinct, values[: 2 * n // 3]), made(distinct, values[n // 3 :]))
    for found in (whole, distinct.result(halves)):
        assert abs(found - n) <= (0.065 * n if n > 300 else 0)


@given(st.lists(st.booleans() | st.integers(0, 3) | st.sampled_from(["", "1", "True", 0.5, 1.0, -0.0]), max_size=30))
def test_distinct_takes_for_equal_what_python_does(values: list[Any]) -> None:
    assert distinct.result(made(distinct, values)) == len(set(values))


def test_distinct_of_many_times_the_same_stays_as_it_is() -> None:
    once = made(distinct, range(1_000))
    assert made(distinct, [*range(1_000), *range(1_000)]) == once
    assert len(once) < 3_000


def test_distinct_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketches", None)
    with pytest.raises(DefinitionError, match=r"pf-stream\[sketches\]"):
        approximate_distinct(str)


@given(numbers)
def test_quantiles_are_at_most_one_in_a_hundred_off(values: list[float]) -> None:
    found = ranked.result(made(ranked, values))
    in_order = sorted(values)
    for rank, value in zip(RANKS, found, strict=True):
        if not values:
            assert math.isnan(value)
            continue
        exact = in_order[math.floor(rank * (len(values) - 1))]
        # The least floats of all have too few digits for one in a hundred.
        assert math.isclose(value, exact, rel_tol=0.010_001, abs_tol=1e-320)
    if values:
        assert (found[0], found[-1]) == pytest.approx((in_order[0], in_order[-1]), rel=0.011)


@given(numbers, numbers)
def test_quantiles_that_are_merged_are_those_of_all(left: list[float], right: list[float]) -> None:
    assert merged(ranked, made(ranked, left), made(ranked, right)) == made(ranked, left + right)


@pytest.mark.parametrize("value", [sys.float_info.max, -sys.float_info.max, 5e-324, 0])
def test_quantiles_at_the_ends_of_what_there_is(value: float) -> None:
    assert ranked.result(made(ranked, [value])) == (value,) * len(RANKS)


def test_quantiles_of_what_is_no_number() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            made(ranked, [value])


def test_quantiles_of_many_have_few_buckets() -> None:
    above, below, *_ = made(ranked, [number / 1_000 for number in range(1, 1_000_000, 97)])
    assert len(above) <= 700
    assert below == {}


@pytest.mark.parametrize("ranks", [(), (1.1,), (-0.1,), (math.nan,)])
def test_quantiles_at_no_such_rank(ranks: tuple[float, ...]) -> None:
    with pytest.raises(DefinitionError, match="from 0 to 1"):
        quantiles(lambda value: value, *ranks)


def bounded(counted: Any, values: list[int]) -> None:
    """What is promised of two of twenty counters."""
    exact = Counter(map(str, values))
    most = len(values) / 20
    floor, counters = counted
    assert len(counters) <= 20
    assert floor <= most
    for item, (count, error) in counters.items():
        assert count - error <= exact[item] <= count
        assert error <= most
    assert all(item in counters for item, count in exact.items() if count > most)
    if len(exact) <= 20:
        assert [(one.item, one.count) for one in frequent.result(counted)] == sorted(
            exact.items(), key=lambda pair: (-pair[1], pair[0])
        )[:2]


@given(letters, letters, letters)
def test_top_k_counts_at_most_so_many_too_many(left: list[int], right: list[int], more: list[int]) -> None:
    bounded(made(frequent, left), left)
    both = merged(frequent, made(frequent, left), made(frequent, right))
    bounded(both, left + right)
    for value in more:
        both = frequent.add(both, value)
    bounded(both, left + right + more)


def test_top_k_of_less_than_one() -> None:
    with pytest.raises(DefinitionError, match="1 or more"):
        top_k(str, 0)


def summary(items: int, middle: tuple[float, ...], most: list[Any]) -> list[Any]:
    return [items, round(middle[0], 1), most[0].item, most[0].count]


def test_sketches_in_sessions_that_become_one_and_over_crashes() -> None:
    made_of = (
        stream(Point)
        .key_by(lambda point: point.key)
        .window(session("6s", bound="20s"))
        .aggregate(
            summary,
            items=approximate_distinct(lambda point: point.n),
            middle=quantiles(lambda point: point.n, 0.5),
            most=top_k(lambda point: str(point.n), 3),
        )
    )
    bench = Bench(pipeline("p", made_of.emit(told, Told)), 1, crashes=0.3)
    bench.send([Event("a", 0, 4), Event("a", 10, 4), Event("a", 5, 9), Event("a", 100, 1)])
    assert bench.told() == [("a", 0, 16, "final", [2, 4.0, "4", 2])]
    bench.check()
