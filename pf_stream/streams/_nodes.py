"""The stages of a pipeline as a graph: each knows those before it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, Union, get_args, get_type_hints

from pf_stream.model import GlobalTable, Intent
from pf_stream.streams._operator import Operator
from pf_stream.streams.transform import Transform

__all__ = [
    "Branch",
    "Enrich",
    "Filter",
    "FlatMap",
    "KeyBy",
    "Map",
    "Merge",
    "Node",
    "Operated",
    "Sink",
    "Source",
    "Through",
    "ancestors",
    "before",
    "item_of",
    "returned",
    "type_of",
]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Intents of one type, as they are admitted."""

    intent: type[Intent]
    """The type."""


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """One value of each."""

    before: "Node"
    """What it follows."""
    function: Callable[[Any], Any]
    """What makes it."""
    type: Any
    """Its type; ``None`` if it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """Those of which something holds."""

    before: "Node"
    """What it follows."""
    function: Callable[[Any], object]
    """Whether it holds."""


@dataclass(frozen=True, slots=True, eq=False)
class FlatMap:
    """Any number of values of each."""

    before: "Node"
    """What it follows."""
    function: Callable[[Any], Iterable[Any]]
    """What makes them."""
    type: Any
    """Type of one; ``None`` if it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Through:
    """What a transform makes of them."""

    before: "Node"
    """What it follows."""
    transform: Transform[Any, Any]
    """The transform."""
    type: Any
    """Type of what it makes; ``None`` if it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Those of which the condition of that number is the first that holds."""

    before: "Node"
    """What it follows."""
    conditions: tuple[Callable[[Any], object], ...]
    """All conditions."""
    number: int
    """Which one; behind the last is the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """The values of several."""

    befores: "tuple[Node, ...]"
    """What it follows."""


@dataclass(frozen=True, slots=True, eq=False)
class Enrich:
    """Each with a row of a table."""

    before: "Node"
    """What it follows."""
    table: GlobalTable[Any]
    """The table."""
    by: Callable[[Any], str]
    """The key of the row."""
    make: Callable[[Any, Any], Any]
    """What becomes of the two; ``None`` stands for a row that is missing."""
    alone: bool
    """Whether what finds no row comes out."""
    type: Any
    """Type of what comes out; ``None`` if it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyBy:
    """Values under a key, on their way to an operator."""

    before: "Node"
    """What it follows."""
    key: Callable[[Any], str] | None
    """``None``: the key of the record that they are made of, so that they stay where they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Operated:
    """What comes of an operator."""

    inputs: tuple[KeyBy, ...]
    """One for each of its ports."""
    operator: Operator
    """The operator."""
    name: str
    """Of the stage."""


@dataclass(frozen=True, slots=True, eq=False)
class Sink:
    """Each value becomes an intent."""

    before: "Node"
    """What it follows."""
    make: Callable[[Any], Intent] | None
    """What makes it; ``None`` if the values are intents."""
    intents: tuple[type[Intent], ...]
    """The types that they may have."""


Node: TypeAlias = Source | Map | Filter | FlatMap | Through | Branch | Merge | Enrich | KeyBy | Operated | Sink


def before(node: Node) -> tuple[Node, ...]:
    """The stages that a stage follows."""
    match node:
        case Source():
            return ()
        case Merge():
            return node.befores
        case Operated():
            return node.inputs
        case _:
            return (node.before,)


def ancestors(ends: Iterable[Node]) -> list[Node]:
    """All stages that lead to *ends*, each once and behind those that it follows."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            for one in before(node):
                visit(one)
            found[node] = None

    for end in ends:
        visit(end)
    return list(found)


def type_of(node: Node) -> Any:
    """Type of the values that come of a stage; ``None`` if it is not known."""
    match node:
        case Source():
            return node.intent
        case Map() | FlatMap() | Through() | Enrich():
            return node.type
        case Merge():
            types = [type_of(one) for one in node.befores]
            return None if None in types else Union[tuple(types)]  # noqa: UP007 - of as many as there are
        case Operated():
            return node.operator.result
        case _:
            return type_of(node.before)


_SAYS_NOTHING: Final = (None, type(None), Any)


def returned(function: Callable[..., Any]) -> Any:
    """The type that *function* says it returns: itself if it is a class; ``None`` if it does not say."""
    if isinstance(function, type):
        return function
    try:
        found = get_type_hints(function).get("return")
    except (NameError, TypeError):
        return None
    return None if found in _SAYS_NOTHING else found


def item_of(collection: Any) -> Any:
    """Of the type of a collection, that of what it holds; ``None`` if it does not say."""
    arguments: Sequence[Any] = get_args(collection)
    return arguments[0] if len(arguments) == 1 or tuple(arguments[1:]) == (...,) else None
