"""Fields of values by their path, such as ``value.flights``, and the types that they have."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from pf_stream.model._names import nearest
from pf_stream.streams._nodes import returned

__all__ = ["NoFieldError", "is_of", "key_at", "said", "type_at"]


class NoFieldError(Exception):
    """Raised when values of a type have no such field; says which and what they have."""


def type_at(kind: Any, path: str) -> Any:
    """Type of what is at *path* of values of the type *kind*; ``None`` if it is not known.

    Raises :class:`NoFieldError`.
    """
    for name in path.split("."):
        if not name.isidentifier():
            raise NoFieldError(f"{path!r} is no field, nor module:name")
        kind = _attribute(kind, name)
    return kind


def key_at(path: str) -> Callable[[Any], str]:
    """What takes a key from *path*: text as it is, a whole number in digits."""
    get = attrgetter(path)

    def key(value: Any) -> str:
        found = get(value)
        if isinstance(found, str):
            return found
        if isinstance(found, int):
            return str(found)
        raise TypeError(f"{path} is {found!r}, and a key is text or a whole number")

    return key


def arms(kind: Any) -> tuple[Any, ...]:
    """The types of which a value may be."""
    return get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)


def said(kind: Any) -> str:
    """A type as people write it."""
    return " | ".join("None" if arm is NoneType else getattr(arm, "__name__", str(arm)) for arm in arms(kind))


def is_of(kind: Any, types: Iterable[type]) -> bool:
    """Whether every value of the type is of one of *types*; a type that is not known may be."""
    return all(arm is None or arm is Any or arm in types for arm in arms(kind))


def _attribute(kind: Any, name: str) -> Any:
    found = tuple(dict.fromkeys(_of_arm(arm, name) for arm in arms(kind)))
    return None if None in found else Union[found]  # noqa: UP007 - of as many as there are


def _of_arm(kind: Any, name: str) -> Any:
    if kind is None or kind is Any or isinstance(kind, TypeVar):
        return None
    of = get_origin(kind) or kind
    if issubclass(of, BaseModel):
        known = {field: info.annotation for field, info in of.model_fields.items()}
    else:
        try:
            known = {field: hint for field, hint in get_type_hints(of).items() if not field.startswith("_")}
        except (NameError, TypeError):
            return None
    if name in known:
        hint = known[name]
        given = dict(zip(getattr(of, "__parameters__", ()), get_args(kind), strict=False))
        return given.get(hint) if isinstance(hint, TypeVar) else hint
    inherited = getattr(of, name, None)
    if isinstance(inherited, property):
        assert inherited.fget is not None
        return returned(inherited.fget)
    if inherited is not None and not callable(inherited):
        return None
    raise NoFieldError(f"{said(kind)} has no field {name!r}{nearest(name, known)}")
