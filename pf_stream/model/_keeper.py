"""What a state is before a handler may change it, so that a handler that fails leaves nothing behind."""

from collections.abc import Callable, Mapping, Sequence
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
    names = [field["name"] for field in fields]
    collections = [at for at, field in enumerate(fields) if not is_frozen(field["schema"])]
    if not names or not all(_is_collection(fields[at]["schema"]) for at in collections):
        return None
    get = attrgetter(*names)

    def keep_one(state: Any) -> Sequence[Any]:
        return (get(state),)

    def keep_copies(state: Any) -> Sequence[Any] | None:
        values: list[Any] = [get(state)] if len(names) == 1 else [*get(state)]
        for at in collections:
            value = values[at]
            if len(value) > _SMALL:
                return None
            values[at] = value.copy()
        return values

    def restore(state: Any, kept: Sequence[Any]) -> None:
        for name, value in zip(names, kept, strict=True):
            setattr(state, name, value)

    return Keeper(keep_copies if collections else get if len(names) > 1 else keep_one, restore)


def _is_collection(schema: Mapping[str, Any]) -> bool:
    """Whether values of this core schema are lists, sets or dictionaries of what cannot be changed in place."""
    kind = schema["type"]
    if kind == "default":
        return _is_collection(schema["schema"])
    if kind in {"list", "set"}:
        return is_frozen(schema["items_schema"])
    return kind == "dict" and is_frozen(schema["keys_schema"]) and is_frozen(schema["values_schema"])
