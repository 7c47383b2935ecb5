"""Maps of a state: its entries are stored one by one, so that a large state is not written whole."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, overload

from pydantic import GetCoreSchemaHandler, PydanticUserError, TypeAdapter
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeAliasType

from pf_stream.model._codec import CONFIG, codec, is_frozen

__all__ = ["Entries", "MapSpec", "MapState", "StoredApart", "read_map"]

K = TypeVar("K", int, str)
V = TypeVar("V")
D = TypeVar("D")

_LONGEST_ID = 128


class MapState(Generic[K, V]):
    """A field of a :class:`~pf_stream.State` that may have very many entries, each of which is a record of its own::

        class Window(State):
            left: MapState[int, Row]
            total: int = 0

    It has no default, since it starts empty; ``dataclasses.field(init=False)`` lets it stand behind fields that have one.
    Keys are ``int`` or ``str`` and come in their order; values are whatever a state can have. Entries are read when they
    are used, and what is stored in a unit is those that have changed::

        row = state.left.get(intent.number) or Row()
        row.count += 1
        state.left[intent.number] = row

    Set an entry again when its value has changed. A value that was changed in place is stored too, as in a field; it is compared
    with what is stored for that, which a value that cannot be changed (a number, a text, a frozen dataclass or model of such)
    saves.

    A handler may change the map while it walks through it: it sees an entry that is set or deleted meanwhile as it is when it
    comes to it, if it was there when the walk began. A walk ends with its handler.

    Entries have the version of the state's class. An ``@upgrade`` sees the other fields, and entries of an older version are not
    read, unless :class:`Entries` says so. Made by hand, as for comparisons in tests, it is a map in memory.
    """

    __slots__ = ("_values",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, entries: Mapping[K, V] | None = None, /) -> None:
        self._values: dict[K, V] = dict(entries or {})

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: object = None, /) -> object:
        """The value of *key*, or *default* if there is none."""
        return self._values.get(key, default)

    def items(self, start: K | None = None, stop: K | None = None) -> Iterator[tuple[K, V]]:
        """Keys and values of ``start <= key < stop``, by key."""
        for key in sorted(self._values):
            if (start is None or key >= start) and (stop is None or key < stop) and key in self._values:
                yield key, self._values[key]

    def first(self) -> tuple[K, V] | None:
        """The entry of the least key; ``None`` if there is none."""
        return next(self.items(), None)

    def __getitem__(self, key: K, /) -> V:
        return self._values[key]

    def __setitem__(self, key: K, value: V, /) -> None:
        self._values[key] = value

    def __delitem__(self, key: K, /) -> None:
        del self._values[key]

    def __contains__(self, key: K, /) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self.items())

    def __bool__(self) -> bool:
        return self.first() is not None

    def __eq__(self, other: object) -> bool:
        return list(self.items()) == list(other.items()) if isinstance(other, MapState) else NotImplemented

    def __repr__(self) -> str:
        return f"MapState({dict(self.items())!r})"


@dataclass(frozen=True, slots=True)
class Entries:
    """How the entries of a field are stored::

    rows: Annotated[MapState[int, Row], Entries(id="left", since=2)]
    """

    id: str | None = None
    """Under which name; that of the field, if not given. Say the old one when a field is renamed, or it begins empty."""
    since: int | None = None
    """Entries that were written by this version of the state, or a later one, are still of the shape that they have now. If
    not given, those of the current version alone: what an older one has written stops the lane."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A field of a state that is a :class:`MapState`."""

    name: str
    """The field's."""
    id: str
    """Under which its entries are stored."""
    key_type: type[int] | type[str]
    """Type of its keys."""
    encode: Callable[[Any], bytes]
    """Value to JSON bytes; see :attr:`StateSpec.encode`."""
    decode: Callable[[bytes], Any]
    """JSON bytes to value; raises ``pydantic.ValidationError``."""
    frozen: bool
    """Whether its values cannot be changed in place."""
    since: int
    """The oldest version of the state whose entries can be read."""


class StoredApart:
    """Annotates a field that is no part of the JSON of its state."""

    def __init__(self, hint: object) -> None:
        self.hint = hint
        """The annotation in whose place it is."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            core_schema.is_instance_schema(MapState),
            "stored_apart",
            custom_error_message="it is a MapState, whose entries are stored apart",
        )


def read_map(name: str, hint: object, version: int, faults: list[str]) -> MapSpec | None:
    """What the annotation of a field says if it is a :class:`MapState`; what is wrong with it is added to *faults*."""
    said: list[Entries] = []
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            if isinstance(note, StoredApart):
                return read_map(name, note.hint, version, faults)
            if isinstance(note, Entries):
                said.append(note)
    if hint is not MapState and get_origin(hint) is not MapState:
        return None
    known = len(faults)
    key_type, value_type = get_args(hint) or (None, None)
    if key_type is not int and key_type is not str:
        faults.append(f"field {name!r}: keys of a MapState are int or str, written MapState[int, Row]")
    entries = said[0] if said else Entries()
    id_ = name if entries.id is None else entries.id
    if not 1 <= len(id_.encode(errors="replace")) <= _LONGEST_ID:
        faults.append(f"field {name!r}: the id of its entries must be 1 to {_LONGEST_ID} bytes")
    since = version if entries.since is None else entries.since
    if not 1 <= since <= version:
        faults.append(f"field {name!r}: since={since} must be 1 to {version}, the version of the state")
    if len(faults) > known or key_type is None:
        return None
    try:
        # A type that may have a configuration of its own takes no other, but for another name.
        adapter: TypeAdapter[Any] = TypeAdapter(TypeAliasType("Value", value_type), config=CONFIG)  # type: ignore[arg-type]
        made = codec(adapter)
    except PydanticUserError as error:
        faults.append(f"field {name!r}: its values cannot be stored: {error.message.splitlines()[0]}")
        return None
    return MapSpec(name, id_, key_type, made.encode, made.decode, is_frozen(adapter.core_schema), since)
