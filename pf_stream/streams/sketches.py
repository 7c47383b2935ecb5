"""Sketches: aggregates that answer nearly, of a state that stays small however many values there are.

None of them rolls dice. What one adds follows from the stored state and the value alone, so that a handler which runs again
after a crash makes the same bytes.
"""

import math
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from pf_stream.errors import DefinitionError
from pf_stream.streams.aggregates import Aggregate, Number, Scalar

__all__ = ["Frequent", "approximate_distinct", "quantiles", "top_k"]

V = TypeVar("V")

_LOG_REGISTERS: Final = 12
_RELATIVE: Final = 0.01
_GAMMA: Final = (1 + _RELATIVE) / (1 - _RELATIVE)
_LOG_GAMMA: Final = math.log(_GAMMA)
_COUNTERS: Final = 10
"""For each item that is asked for."""

_Buckets: TypeAlias = dict[int, int]
_Digest: TypeAlias = tuple[_Buckets, _Buckets, int, float | None, float | None]
"""Values above and below zero by bucket, zeros, the least and the greatest."""
_Counted: TypeAlias = tuple[int, dict[str, tuple[int, int]]]
"""How often an item may have been there that is not kept; count and error of those that are."""


def approximate_distinct(of: Callable[[V], Scalar]) -> Aggregate[V, int]:
    """About how many different ones there are, by HyperLogLog (Flajolet et al. 2007) with 4,096 registers.

    The standard error is 1.6 %; up to some 300 the answer is nearly always exact. The state has at most 3 kB. It is read
    and written anew at each value, some 20 us when it is full: a sketch that has been stored goes on in other bytes than one
    that has not.

    Raises :class:`DefinitionError` if datasketches is not installed.
    """
    try:
        from datasketches import HLL_4, hll_sketch, hll_union
    except ImportError:
        raise DefinitionError(
            "approximate_distinct", ["needs datasketches: pip install 'pf-stream[sketches]'"]
        ) from None

    def init() -> str:
        return write(hll_sketch(_LOG_REGISTERS, HLL_4))

    def read(a: str) -> Any:
        return hll_sketch.deserialize(b64decode(a))

    def write(sketch: Any) -> str:
        return b64encode(sketch.serialize_compact()).decode()

    def add(a: str, value: V) -> str:
        sketch = read(a)
        sketch.update(_named(of(value)))
        return write(sketch)

    def merge(a: str, b: str) -> str:
        union = hll_union(_LOG_REGISTERS)
        union.update(read(a))
        union.update(read(b))
        return write(union.get_result(HLL_4))

    return Aggregate(init, add, lambda a: round(read(a).get_estimate()), merge, str)


def _named(value: Scalar) -> str:
    """One text for all that are equal in Python: 1, 1.0 and True are."""
    if isinstance(value, str):
        return f"s{value}"
    return f"n{int(value)}" if isinstance(value, int) or value.is_integer() else f"n{value!r}"


def quantiles(of: Callable[[V], Number], *ranks: float) -> Aggregate[V, tuple[float, ...]]:
    """The values at *ranks* between 0 and 1, in that order, each at most 1 % off: 0.5 is the median, 0 the least.

    Of n values in order the one at rank q is number q * (n - 1), rounded down, from 0. Of none it is nan. By DDSketch (Masson,
    Rim and Lee 2019): the state counts the values in buckets that are 2 % wide, 1,040 of them for values from 0.001 to
    1,000,000. What is merged is exactly what all values together had made. A value that is not finite raises.

    Raises :class:`DefinitionError`.
    """
    if not ranks or not all(0 <= rank <= 1 for rank in ranks):
        raise DefinitionError("quantiles", [f"ranks {ranks} must be numbers from 0 to 1, at least one"])

    def init() -> _Digest:
        return {}, {}, 0, None, None

    def add(a: _Digest, value: V) -> _Digest:
        above, below, zeros, least, greatest = a
        number = float(of(value))
        if not math.isfinite(number):
            raise ValueError(f"quantiles are of finite numbers, and not of {number}")
        if number:
            buckets = above if number > 0 else below
            bucket = math.ceil(math.log(abs(number)) / _LOG_GAMMA)
            buckets[bucket] = buckets.get(bucket, 0) + 1
        else:
            zeros += 1
        return (
            above,
            below,
            zeros,
            number if least is None else min(least, number),
            number if greatest is None else max(greatest, number),
        )

    def merge(a: _Digest, b: _Digest) -> _Digest:
        for into, buckets in zip(a[:2], b[:2], strict=True):
            for bucket, count in buckets.items():
                into[bucket] = into.get(bucket, 0) + count
        least = [one for one in (a[3], b[3]) if one is not None]
        greatest = [one for one in (a[4], b[4]) if one is not None]
        return a[0], a[1], a[2] + b[2], min(least, default=None), max(greatest, default=None)

    def result(a: _Digest) -> tuple[float, ...]:
        above, below, zeros, least, greatest = a
        if least is None or greatest is None:
            return (math.nan,) * len(ranks)
        held = [(-_middle(bucket), below[bucket]) for bucket in sorted(below, reverse=True)]
        held.append((0.0, zeros))
        held += [(_middle(bucket), above[bucket]) for bucket in sorted(above)]
        last = sum(count for _, count in held) - 1
        return tuple(min(max(_at(held, math.floor(rank * last)), least), greatest) for rank in ranks)

    stored = tuple[dict[int, int], dict[int, int], int, float | None, float | None]
    return Aggregate(init, add, result, merge, stored)


def _middle(bucket: int) -> float:
    """What is as far from one end of a bucket as from the other, relative to them; infinite at most."""
    # The lower end times the rest, since the upper end of the last bucket is no float.
    return _GAMMA ** (bucket - 1) * (2 * _GAMMA / (_GAMMA + 1))


def _at(held: list[tuple[float, int]], number: int) -> float:
    """The value of that number, from 0."""
    for value, count in held:
        number -= count
        if number < 0:
            return value
    raise AssertionError("there are as many as were counted")


@dataclass(frozen=True, slots=True)
class Frequent:
    """One of the most frequent items."""

    item: str
    """The item."""
    count: int
    """How often it was there, at most."""
    error: int
    """By how much that may be too many."""


def top_k(of: Callable[[V], str], k: int) -> Aggregate[V, list[Frequent]]:
    """The *k* most frequent, the most frequent first, by Space-Saving (Metwally, Agrawal and El Abbadi 2005) with 10 * *k*
    counters.

    Exact while there are no more different ones than counters. Else, of n values, each count is at most n / (10 * *k*) too
    many, none too few, and who was there more often than that has a counter. Merged as by Agarwal et al. (2012), under the
    same bound.

    Raises :class:`DefinitionError`.
    """
    if k < 1:
        raise DefinitionError("top_k", [f"k={k} must be 1 or more"])
    most = _COUNTERS * k

    def init() -> _Counted:
        return 0, {}

    def add(a: _Counted, value: V) -> _Counted:
        floor, counters = a
        item = of(value)
        known = counters.get(item)
        if known is None:
            if len(counters) >= most:
                least = min(counters, key=lambda one: (counters[one][0], one))
                floor = counters.pop(least)[0]
            known = floor, floor
        counters[item] = known[0] + 1, known[1]
        return floor, counters

    def merge(a: _Counted, b: _Counted) -> _Counted:
        (floor_a, counters_a), (floor_b, counters_b) = a, b
        both = {}
        for item in counters_a | counters_b:
            one = counters_a.get(item, (floor_a, floor_a))
            other = counters_b.get(item, (floor_b, floor_b))
            both[item] = one[0] + other[0], one[1] + other[1]
        order = sorted(both, key=lambda item: (-both[item][0], item))
        floor = both[order[most]][0] if len(order) > most else floor_a + floor_b
        return floor, {item: both[item] for item in order[:most]}

    def result(a: _Counted) -> list[Frequent]:
        counters = a[1]
        order = sorted(counters, key=lambda item: (-counters[item][0], item))
        return [Frequent(item, *counters[item]) for item in order[:k]]

    return Aggregate(init, add, result, merge, tuple[int, dict[str, tuple[int, int]]])
