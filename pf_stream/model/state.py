"""State: what a reactor remembers for each key."""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, dataclass_transform, get_type_hints

from pydantic import PydanticUserError, TypeAdapter

from pf_stream.errors import DefinitionError
from pf_stream.model._codec import CONFIG, codec
from pf_stream.model._keeper import Keeper, keeper_of
from pf_stream.model.capability import Capability, operation
from pf_stream.model.map_state import MapSpec, MapState, StoredApart, read_map
from pf_stream.model.versions import Steps, read_steps

__all__ = ["Keeper", "State", "StateCap", "StateSpec", "Stateless", "strictly"]


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
    maps: tuple[MapSpec, ...] = ()
    """Its fields that are no part of the JSON, since their entries are stored one by one."""
    keeper: Keeper | None = None
    """Keeps what the state is before a handler may change it; ``None`` if there is no quick way."""


_NO_DEFAULT = dataclasses.MISSING, dataclasses.MISSING


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
        maps = _read_maps(cls, version, faults)
        try:
            made: Any = dataclass(slots=True)(cls)
        except (TypeError, ValueError) as error:  # a mutable default, or a field without one after one with
            raise DefinitionError(subject, [*faults, f"{error} (from dataclasses.field)"]) from error
        faults.extend(
            f"field {field.name!r} has no default: a new key starts from {name}()"
            for field in dataclasses.fields(made)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        made.__pydantic_config__ = CONFIG
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
            version,
            *codec(adapter),
            upgrades=upgrades,
            maps=maps,
            keeper=None if maps else keeper_of(adapter.core_schema),
        )
        return made

    def __init__(cls, *args: Any, **_: Any) -> None:
        super().__init__(*args)


def _read_maps(cls: type, version: int, faults: list[str]) -> tuple[MapSpec, ...]:
    """The fields of a class that is not a dataclass yet that are maps; they are made fields that the JSON leaves out."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (AttributeError, NameError, SyntaxError, TypeError):
        return ()  # pydantic finds it too, and says so
    own = inspect.get_annotations(cls)
    maps: list[MapSpec] = []
    for name, hint in hints.items():
        known = len(faults)
        found = read_map(name, hint, version, faults)
        if found is None and len(faults) == known:
            continue
        if found is not None:
            faults.extend(
                f"fields {other.name!r} and {name!r} store their entries under the same id: give one another"
                for other in maps
                if other.id == found.id
            )
            maps.append(found)
        if name in own:
            given = cls.__dict__.get(name, dataclasses.field())
            if not isinstance(given, dataclasses.Field) or (given.default, given.default_factory) != _NO_DEFAULT:
                faults.append(f"field {name!r} is a MapState, which starts empty: write it without a default")
                given = dataclasses.field()
            empty: Any = dataclasses.field(
                default_factory=MapState[Any, Any], init=given.init, metadata={"exclude": True}
            )
            setattr(cls, name, empty)
            cls.__annotations__[name] = Annotated[MapState, StoredApart(hint)]
    return tuple(maps)


class State(metaclass=_StateMeta):
    """Base of all state: one slotted dataclass per key, every field with a default::

        class Aircraft(State):
            legs: int = 0
            minutes_late: float = 0.0
            airports: list[str] = dataclasses.field(default_factory=list)

    Attribute writes cost nothing extra; types are checked when the value is written to the changelog and when it is
    read back. ``version`` is a class keyword (default 1): raise it when the shape changes, and say with
    :func:`~pf_stream.upgrade` how what is stored becomes the new shape.

    What may get large is a :class:`~pf_stream.MapState`, whose entries are stored one by one.

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
