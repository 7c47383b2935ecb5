"""Aggregates: what a window makes of its values."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from operator import call
from types import GenericAlias
from typing import Any, Generic, TypeAlias, TypeVar

from pf_stream.errors import DefinitionError

__all__ = [
    "Aggregate",
    "Spread",
    "aggregate",
    "collect",
    "count",
    "distinct",
    "first",
    "last",
    "maximum",
    "mean",
    "minimum",
    "together",
    "total",
    "variance",
]

R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")
R = TypeVar("R")
A = TypeVar("A")

Number: TypeAlias = int | float
Scalar: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[V, R_co]):
    """How values become one; made by :func:`count` and its like, or of functions of your own by :func:`aggregate`."""

    init: Callable[[], Any]
    """Makes what nothing was added to yet."""
    add: Callable[[Any, Any], Any]
    """What there is, with one more value; it may be changed in place."""
    result: Callable[[Any], R_co]
    """What comes out; does not change what there is."""
    merge: Callable[[Any, Any], Any] | None
    """What two become that hold different values, the earlier one first; only that may be changed in place. ``None`` if it
    cannot be said."""
    stored: Any
    """Type of what there is, as pydantic stores it."""


def aggregate(
    init: Callable[[], A],
    add: Callable[[A, V], A],
    result: Callable[[A], R],
    *,
    stored: Any,
    merge: Callable[[A, A], A] | None = None,
) -> Aggregate[V, R]:
    """An aggregate of your own; *stored* is the type of what *init* makes, which the state keeps.

    Without *merge* it is not for windows that become one: sessions and sliding windows.
    """
    return Aggregate(init, add, result, merge, stored)


def count() -> Aggregate[Any, int]:
    """How many there are."""
    return Aggregate(int, lambda n, _: n + 1, lambda n: n, lambda a, b: a + b, int)


def total(of: Callable[[V], Number]) -> Aggregate[V, Number]:
    """The sum; of none it is 0."""
    return Aggregate(int, lambda n, value: n + of(value), lambda n: n, lambda a, b: a + b, int | float)


def minimum(of: Callable[[V], Number]) -> Aggregate[V, Number]:
    """The least."""
    return _extreme(of, min)


def maximum(of: Callable[[V], Number]) -> Aggregate[V, Number]:
    """The greatest."""
    return _extreme(of, max)


def _extreme(of: Callable[[V], Number], choose: Callable[[Any, Any], Any]) -> Aggregate[V, Number]:
    def merge(a: Any, b: Any) -> Any:
        return b if a is None else a if b is None else choose(a, b)

    return Aggregate(lambda: None, lambda a, value: merge(a, of(value)), lambda a: a, merge, int | float | None)


def mean(of: Callable[[V], Number]) -> Aggregate[V, float]:
    """The arithmetic mean."""
    return Aggregate(
        lambda: (0, 0),
        lambda a, value: (a[0] + 1, a[1] + of(value)),
        lambda a: a[1] / a[0] if a[0] else math.nan,
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        tuple[int, int | float],
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """How values lie about their mean."""

    count: int
    """How many there are."""
    mean: float
    """Their arithmetic mean."""
    variance: float
    """Variance of a sample, with n - 1; 0 of one value."""

    @property
    def deviation(self) -> float:
        """Standard deviation of a sample."""
        return math.sqrt(self.variance)


def variance(of: Callable[[V], Number]) -> Aggregate[V, Spread]:
    """Mean and variance, in one pass without cancellation (Welford 1962); merged as by Chan, Golub and LeVeque (1979)."""

    def add(a: tuple[int, float, float], value: V) -> tuple[int, float, float]:
        n, middle, squares = a
        number = of(value)
        delta = number - middle
        middle += delta / (n + 1)
        return n + 1, middle, squares + delta * (number - middle)

    def merge(a: tuple[int, float, float], b: tuple[int, float, float]) -> tuple[int, float, float]:
        n = a[0] + b[0]
        if not n:
            return a
        delta = b[1] - a[1]
        return n, a[1] + delta * b[0] / n, a[2] + b[2] + delta * delta * a[0] * b[0] / n

    def result(a: tuple[int, float, float]) -> Spread:
        return Spread(a[0], a[1], a[2] / (a[0] - 1) if a[0] > 1 else 0.0)

    return Aggregate(lambda: (0, 0.0, 0.0), add, result, merge, tuple[int, float, float])


def first(of: Callable[[V], R], stored: Any) -> Aggregate[V, R]:
    """What came first, in the order of arrival; *stored* is its type."""
    return Aggregate(list, lambda a, value: a or [of(value)], lambda a: a[0], lambda a, b: a or b, list[stored])


def last(of: Callable[[V], R], stored: Any) -> Aggregate[V, R]:
    """What came last, in the order of arrival; *stored* is its type."""
    return Aggregate(list, lambda _, value: [of(value)], lambda a: a[0], lambda a, b: b or a, list[stored])


def distinct(of: Callable[[V], Scalar]) -> Aggregate[V, int]:
    """How many different ones there are, exactly: all of them are kept. :func:`~pf_stream.streams.approximate_distinct`
    keeps a few kilobytes."""

    def add(a: set[Scalar], value: V) -> set[Scalar]:
        a.add(of(value))
        return a

    def merge(a: set[Scalar], b: set[Scalar]) -> set[Scalar]:
        a |= b
        return a

    return Aggregate(set, add, len, merge, set[str | int | float | bool])


def collect(of: Callable[[V], R], stored: Any) -> Aggregate[V, list[R]]:
    """All of them, in the order of arrival; *stored* is the type of one."""

    def add(a: list[R], value: V) -> list[R]:
        a.append(of(value))
        return a

    def merge(a: list[R], b: list[R]) -> list[R]:
        a += b
        return a

    return Aggregate(list, add, list, merge, list[stored])


def together(make: Callable[..., R], named: Mapping[str, Aggregate[V, Any]]) -> Aggregate[V, R]:
    """Several at once: *make* is called with their results by name.

    Raises :class:`DefinitionError` if there is none.
    """
    if not named:
        raise DefinitionError("aggregate", ["names no aggregate: aggregate(Summary, flights=count(), ...)"])
    parts = tuple(named.values())
    names = tuple(named)
    adds = tuple(part.add for part in parts)
    inits = tuple(part.init for part in parts)
    results = tuple(part.result for part in parts)
    merges = tuple(part.merge for part in parts if part.merge is not None)

    def result(a: tuple[Any, ...]) -> R:
        return make(**{name: one(old) for name, one, old in zip(names, results, a, strict=True)})

    def merge(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([one(x, y) for one, x, y in zip(merges, a, b, strict=True)])

    return Aggregate(
        lambda: tuple([init() for init in inits]),
        _adding(adds),
        result,
        merge if len(merges) == len(parts) else None,
        GenericAlias(tuple, tuple(part.stored for part in parts)),
    )


def _adding(adds: tuple[Callable[[Any, Any], Any], ...]) -> Callable[[tuple[Any, ...], Any], tuple[Any, ...]]:
    """What adds a value to each part."""
    match adds:
        case (one, other):  # as often, and each value would pay for the loop
            return lambda a, value: (one(a[0], value), other(a[1], value))
        case _:
            return lambda a, value: tuple(map(call, adds, a, repeat(value)))
