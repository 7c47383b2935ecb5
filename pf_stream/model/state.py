"""State: what a reactor remembers for each key."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self, dataclass_transform

from pydantic import ConfigDict, PydanticUserError, TypeAdapter

from pf_stream.errors import DefinitionError
from pf_stream.model.capability import Capability, operation
from pf_stream.model.versions import Steps, read_steps

__all__ = ["State", "StateCap", "StateSpec", "Stateless", "strictly"]

# One configuration for both directions, so that what is written can be read: infinity, NaN and bytes have no JSON form
# of their own.
_CONFIG = ConfigDict(ser_json_inf_nan="strings", ser_json_bytes="base64", val_json_bytes="base64")


@contextmanager
def strictly() -> Iterator[None]:
    """Within this, encoding a state whose field holds a wrong type raises ``UserWarning``.

    pydantic could be told so at each call, which costs three times the encoding itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@dataclass(frozen=True, slots=True)
class StateSpec:
    """What is known of a state class once it is made."""

    version: int
    """Version of the stored shape, 1 to 65535; stored with each value."""
    encode: Callable[[Any], bytes]
    """State to JSON bytes; warns (``UserWarning``) if a field holds a wrong type, which :func:`strictly` makes an error,
    and raises ``ValueError`` if a field breaks a constraint of its type, such as ``Field(ge=0)``."""
    decode: Callable[[bytes], Any]
    """JSON bytes to state; raises ``pydantic.ValidationError``."""
    upgrades: Steps
    """The way from older versions to this one."""


_CONSTRAINTS = frozenset(
    {"ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern", "max_digits", "decimal_places"}
)


def _refuses_more(schema: object) -> bool:
    """Whether reading may refuse a value of the right type: pydantic checks constraints there, not when it writes."""
    if isinstance(schema, dict):
        if _CONSTRAINTS & schema.keys() or str(schema.get("type")).startswith("function"):
            return True
        return any(_refuses_more(part) for name, part in schema.items() if name not in {"default", "metadata"})
    return isinstance(schema, list | tuple) and any(map(_refuses_more, schema))


def _reading_back(adapter: TypeAdapter[Any]) -> Callable[[Any], bytes]:
    """An encoder that never writes what could not be read again, which would stop the lane for good."""

    def encode(state: Any) -> bytes:
        raw = adapter.serializer.to_json(state)
        adapter.validator.validate_json(raw)
        return raw

    return encode


@dataclass_transform(field_specifiers=(dataclasses.field,))
class _StateMeta(type):
    """Makes each subclass a slotted dataclass; a decorator could not, since slots need a new class."""

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        version: int = 1,
        **unknown: Any,
    ) -> Any:
        cls = super().__new__(mcs, name, bases, namespace)
        if not bases or "__dataclass_fields__" in namespace:  # State itself, and the second pass: dataclass(slots=True)
            return cls
        subject = f"state {cls.__module__}.{cls.__qualname__}"
        faults = [f"unknown class keyword {keyword!r}; known: version" for keyword in unknown]
        if not 1 <= version <= 65535:
            faults.append(f"version {version} must be 1 to 65535")
        upgrades = read_steps("upgrade", name, version, namespace, faults)
        try:
            made: Any = dataclass(slots=True)(cls)
        except (TypeError, ValueError) as error:  # a mutable default, or a field without one after one with
            raise DefinitionError(subject, [*faults, f"{error} (from dataclasses.field)"]) from error
        faults.extend(
            f"field {field.name!r} has no default: a new key starts from {name}()"
            for field in dataclasses.fields(made)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        made.__pydantic_config__ = _CONFIG
        adapter: TypeAdapter[Any] | None = None
        if not faults:
            try:
                adapter = TypeAdapter(made)
                if not adapter.pydantic_complete:
                    faults.append(
                        "a field's type is not known where the class is made: import it at run time, or define it before"
                    )
            except PydanticUserError as error:
                faults.append(f"a field's type cannot be stored: {error.message.splitlines()[0]}")
        if faults or adapter is None:
            raise DefinitionError(subject, faults)
        made.__state__ = StateSpec(
            version=version,
            encode=_reading_back(adapter) if _refuses_more(adapter.core_schema) else adapter.serializer.to_json,
            decode=adapter.validator.validate_json,
            upgrades=upgrades,
        )
        return made

    def __init__(cls, *args: Any, **_: Any) -> None:
        super().__init__(*args)


class State(metaclass=_StateMeta):
    """Base of all state: one slotted dataclass per key, every field with a default::

        class Aircraft(State):
            legs: int = 0
            minutes_late: float = 0.0
            airports: list[str] = dataclasses.field(default_factory=list)

    Attribute writes cost nothing extra; types are checked when the value is written to the changelog and when it is
    read back. ``version`` is a class keyword (default 1): raise it when the shape changes, and say with
    :func:`~pf_stream.upgrade` how what is stored becomes the new shape.

    Raises :class:`DefinitionError` at the class statement.
    """

    __slots__ = ()
    __state__: ClassVar[StateSpec]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        if cls is State:
            raise DefinitionError("state", ["State is a base: declare a subclass with fields"])
        return super().__new__(cls)


class Stateless(State):
    """The state of a reactor that remembers nothing: none is stored, and its handlers all get the same."""


class StateCap(Capability):
    """Who may read state from outside: ``/{reactor}/{key}``, or ``/{reactor}/**`` for whatever a reactor keeps."""

    read = operation()
