"""Each aggregate against plain Python, whole and merged of two halves."""

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pf_stream import DefinitionError
from pf_stream.streams import (
    Aggregate,
    Spread,
    aggregate,
    collect,
    count,
    distinct,
    first,
    last,
    maximum,
    mean,
    minimum,
    total,
    variance,
)
from pf_stream.streams.aggregates import together


def itself(value: int) -> int:
    return value


def spread(values: list[int]) -> Spread:
    return Spread(
        len(values),
        statistics.fmean(values) if values else 0.0,
        statistics.variance(values) if len(values) > 1 else 0.0,
    )


SAME: list[tuple[Aggregate[int, Any], Callable[[list[int]], Any]]] = [
    (count(), len),
    (total(itself), sum),
    (minimum(itself), lambda values: min(values, default=None)),
    (maximum(itself), lambda values: max(values, default=None)),
    (mean(itself), lambda values: sum(values) / len(values) if values else math.nan),
    (variance(itself), spread),
    (distinct(itself), lambda values: len(set(values))),
    (collect(itself, int), list),
    (together(lambda **named: named, {"n": count(), "all": collect(itself, int)}), lambda v: {"n": len(v), "all": v}),
]
ENDS: list[tuple[Aggregate[int, Any], int]] = [(first(itself, int), 0), (last(itself, int), -1)]


def made(one: Aggregate[int, Any], values: list[int]) -> Any:
    """What is stored on the way is read as it was."""
    stored = TypeAdapter(one.stored)
    a = one.init()
    for value in values:
        a = one.add(stored.validate_json(stored.dump_json(a)), value)
    return a


def near(found: Any, exact: Any) -> bool:
    if isinstance(exact, Spread):
        pairs = zip((found.mean, found.variance), (exact.mean, exact.variance), strict=True)
        return found.count == exact.count and all(math.isclose(*pair, rel_tol=1e-9, abs_tol=1e-6) for pair in pairs)
    if isinstance(exact, float):
        return math.isclose(found, exact) or (math.isnan(found) and math.isnan(exact))
    return bool(found == exact)


numbers = st.lists(st.integers(-1_000, 1_000), max_size=20)


@pytest.mark.parametrize(("one", "plain"), SAME)
@given(left=numbers, right=numbers)
@settings(max_examples=40)
def test_as_plain_python(
    one: Aggregate[int, Any], plain: Callable[[list[int]], Any], left: list[int], right: list[int]
) -> None:
    assert near(one.result(made(one, left)), plain(left))
    assert one.merge is not None
    assert near(one.result(one.merge(made(one, left), made(one, right))), plain(left + right))


@pytest.mark.parametrize(("one", "at"), ENDS)
@given(left=numbers, right=numbers, value=st.integers())
@settings(max_examples=40)
def test_ends(one: Aggregate[int, Any], at: int, left: list[int], right: list[int], value: int) -> None:
    assert one.merge is not None
    left = [*left, value]
    assert one.result(made(one, left)) == left[at]
    assert one.result(one.merge(made(one, left), made(one, right))) == [*left, *right][at]
    assert one.result(one.merge(made(one, right), made(one, left))) == [*right, *left][at]


def test_variance_does_not_cancel() -> None:
    values = [1_000_000_000 + n for n in (4, 7, 13, 16)]
    assert variance(itself).result(made(variance(itself), values)) == Spread(4, 1_000_000_010.0, 30.0)


def test_several_of_which_one_cannot_be_merged() -> None:
    alone: Aggregate[int, int] = aggregate(int, lambda a, value: a + value, itself, stored=int)
    assert together(lambda **named: named, {"n": count(), "alone": alone}).merge is None
    with pytest.raises(DefinitionError, match="names no aggregate"):
        together(lambda **named: named, {})
