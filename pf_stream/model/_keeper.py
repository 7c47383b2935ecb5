"""What a state is before a handler may change it, so that a handler that fails leaves nothing behind."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final, NamedTuple

from pf_stream.model._codec import is_frozen

__all__ = ["Keeper", "keeper_of"]

_SMALL: Final = 8
"""How much a list, a set or a dictionary may hold that is copied for each intent."""


class Keeper(NamedTuple):
    """Keeps what states of one class hold, as long as that is quick."""

    keep: Callable[[Any], Sequence[Any] | None]
    """What a state holds, such that changing the state does not change it; ``None`` if that is too much to be copied."""
    restore: Callable[[Any, Sequence[Any]], None]
    """Gives a state back what was kept of it; once, since the state goes on with it."""


def keeper_of(schema: Mapping[str, Any]) -> Keeper | None:
    """That of states of a core schema, each field of which holds what cannot be changed in place, or a collection of such;
    ``None`` for others."""
    if schema["type"] != "dataclass":
        return None
    fields = schema["schema"]["fields"]
    collections = [field["name"] for field in fields if not is_frozen(field["schema"])]
    if not fields or not all(_is_collection(field["schema"]) for field in fields if field["name"] in collections):
        return None
    fixed = [field["name"] for field in fields if field["name"] not in collections]
    of_fixed = _taking(fixed)
    if not collections:
        return Keeper(of_fixed, partial(_give, fixed))
    of_first, of_all = attrgetter(collections[0]), _taking(collections)

    def keep_one(state: Any) -> Sequence[Any] | None:
        value = of_first(state)
        return None if len(value) > _SMALL else (of_fixed(state), value.copy())

    def keep_all(state: Any) -> Sequence[Any] | None:
        values = of_all(state)
        if max(map(len, values)) > _SMALL:
            return None
        return of_fixed(state), *[value.copy() for value in values]

    def restore(state: Any, kept: Sequence[Any]) -> None:
        _give(fixed, state, kept[0])
        _give(collections, state, kept[1:])

    return Keeper(keep_one if len(collections) == 1 else keep_all, restore)


def _taking(names: Sequence[str]) -> Callable[[Any], Sequence[Any]]:
    """What takes the values of so many fields."""
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda state: (get(state),)


def _give(names: Sequence[str], state: Any, values: Sequence[Any]) -> None:
    for name, value in zip(names, values, strict=True):
        setattr(state, name, value)


def _is_collection(schema: Mapping[str, Any]) -> bool:
    """Whether values of this core schema are lists, sets or dictionaries of what cannot be changed in place."""
    kind = schema["type"]
    if kind == "default":
        return _is_collection(schema["schema"])
    if kind in {"list", "set"}:
        return is_frozen(schema["items_schema"])
    return kind == "dict" and is_frozen(schema["keys_schema"]) and is_frozen(schema["values_schema"])
