"""Aggregates as a topology file writes them: ``count``, ``{mean: delay}``, ``{top_k: {of: origin, k: 10}}``, ``module:name``."""

from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, Final, NoReturn, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from pf_stream.model._names import nearest
from pf_stream.streams import aggregates, sketches
from pf_stream.streams._nodes import returned
from pf_stream.streams.aggregates import Aggregate
from pf_stream.streams.form import Place

__all__ = ["aggregate_of"]


class Way(Protocol):
    """What is known where an aggregate stands."""

    def named(self, place: Place, reference: str, base: Any) -> Any:
        """What *reference*, ``module:name``, is; ``None`` if that cannot be had, which is noted as a fault."""

    def of_value(self, place: Place, text: str, types: tuple[type[Any], ...] = ()) -> tuple[Any, Any]:
        """The function that *text* names, or that tells the field; and the type of what it returns, if it is known."""

    def stop(self, place: Place, text: str) -> NoReturn:
        """Note what is wrong, and that nothing can be said of what follows."""

    @property
    def is_broken(self) -> bool:
        """Whether something was wrong before, so that what is not known may be no fault of its own."""


def aggregate_of(way: Way, place: Place, text: JsonValue) -> tuple[Aggregate[Any, Any], Any]:
    """The aggregate that *text* is, and the type of its result, ``None`` if that is not known."""
    if isinstance(text, str) and ":" in text:
        return way.named(place, text, Aggregate) or aggregates.count(), None
    if text == "count":
        return aggregates.count(), int
    if not isinstance(text, dict) or len(text) != 1:
        near = nearest(text, _AGGREGATES) if isinstance(text, str) else ""
        way.stop(place, f"found {text!r}; allowed: count, one such as {{mean: delay}}, or module:name{near}")
    ((name, of),) = text.items()
    inner = (*place, name)
    if name in _NUMBERS:
        make, kind = _NUMBERS[name]
        return make(way.of_value(inner, _text(way, inner, of), (int, float, bool))[0]), kind
    if name in _STORED:
        get, stored = way.of_value(inner, _text(way, inner, of))
        stored = stored or returned(get)
        if stored is None and not way.is_broken:
            way.stop(inner, "the type of that is not known, so it cannot be stored: annotate what the function returns")
        return _STORED[name](get, stored), GenericAlias(list, (stored,)) if name == "collect" else stored
    if name in _SCALARS:
        return _SCALARS[name](way.of_value(inner, _text(way, inner, of), (str, int, float, bool))[0]), int
    if name not in _FORMS:
        way.stop(place, f"there is no aggregate {name!r}{nearest(name, _AGGREGATES)}")
    form, example = _FORMS[name]
    try:
        asked = form.model_validate(of)
    except ValidationError:
        way.stop(inner, f"found {of!r}; allowed: {example}")
    if isinstance(asked, _Quantiles):
        get, _ = way.of_value((*inner, "of"), asked.of, (int, float, bool))
        return sketches.quantiles(get, *asked.at), tuple[float, ...]
    get, _ = way.of_value((*inner, "of"), asked.of, (str,))
    return sketches.top_k(get, asked.k), list[sketches.Frequent]


def _text(way: Way, place: Place, of: JsonValue) -> str:
    if not isinstance(of, str):
        way.stop(place, f"found {of!r}; allowed: a field, or module:name of a function")
    return of


class _Quantiles(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    of: str
    at: list[float]


class _TopK(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    of: str
    k: int


_FORMS: Final[Mapping[str, tuple[type[_Quantiles] | type[_TopK], str]]] = {
    "quantiles": (_Quantiles, "{of: delay, at: [0.5, 0.99]}"),
    "top_k": (_TopK, "{of: origin, k: 10}"),
}
"""By name, what such an aggregate is given, and an example."""
_NUMBERS: Final[Mapping[str, tuple[Callable[[Any], Aggregate[Any, Any]], Any]]] = {
    "sum": (aggregates.total, int | float),
    "min": (aggregates.minimum, int | float | None),
    "max": (aggregates.maximum, int | float | None),
    "mean": (aggregates.mean, float),
    "variance": (aggregates.variance, aggregates.Spread),
}
"""By name, what makes an aggregate of numbers, and the type of its result."""
_SCALARS: Final[Mapping[str, Callable[[Any], Aggregate[Any, Any]]]] = {
    "distinct": aggregates.distinct,
    "approximate_distinct": sketches.approximate_distinct,
}
_STORED: Final[Mapping[str, Callable[[Any, Any], Aggregate[Any, Any]]]] = {
    "first": aggregates.first,
    "last": aggregates.last,
    "collect": aggregates.collect,
}
_AGGREGATES: Final = ("count", *_NUMBERS, *_SCALARS, *_STORED, *_FORMS)
