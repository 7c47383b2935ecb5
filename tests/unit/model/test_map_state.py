"""Maps as they are declared, and in memory."""

import dataclasses
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel

from pf_stream import DefinitionError, Entries, MapState, State
from pf_stream.model._codec import CONFIG, is_frozen


@dataclasses.dataclass
class Row:
    n: float = 0.0


@dataclasses.dataclass(frozen=True)
class Fixed:
    n: float | None
    names: tuple[str, int] = ("a", 1)


@dataclasses.dataclass(frozen=True)
class HalfFixed:
    notes: list[str]


class Pair(NamedTuple):
    left: list[int]


class Model(BaseModel):
    n: int


class FixedModel(BaseModel, frozen=True):
    n: int
    fixed: Fixed = Fixed(None)


class HalfFixedModel(BaseModel, frozen=True):
    notes: list[str]


class OpenModel(BaseModel, frozen=True, extra="allow"):
    n: int


class Window(State, version=3):
    rows: MapState[int, Row]
    names: "MapState[str, int]"
    total: int = 0
    old: Annotated[MapState[str, bytes], Entries(id="older", since=2)] = dataclasses.field(init=False)


class Wider(Window, version=3):
    more: MapState[int, int] = dataclasses.field(init=False)


def made(hints: dict[str, Any], *default: object) -> Any:
    """A state class with these fields; the default is that of the first."""
    metaclass: Any = type(State)
    return metaclass("Bad", (State,), {"__annotations__": hints, **dict(zip(hints, default, strict=False))})


class TestDeclared:
    def test_fields(self) -> None:
        maps = {one.name: (one.id, one.key_type, one.since, one.frozen) for one in Window.__state__.maps}
        assert maps == {
            "rows": ("rows", int, 3, False),
            "names": ("names", str, 3, True),
            "old": ("older", str, 2, True),
        }
        assert {one.name for one in Wider.__state__.maps} == {*maps, "more"}

    def test_they_start_empty_and_are_not_in_the_json(self) -> None:
        one, other = Window(), Window()  # type: ignore[call-arg]
        one.rows[1] = Row()
        assert (one.rows, other.rows) == (MapState({1: Row()}), MapState())
        assert Window.__state__.encode(one) == b'{"total":0}'
        assert Window.__state__.decode(b'{"total":4}') == Window(rows=MapState(), names=MapState(), total=4)

    def test_a_field_that_was_no_map_before_is_not_lost_without_a_word(self) -> None:
        with pytest.raises(ValueError, match="it is a MapState, whose entries are stored apart"):
            Window.__state__.decode(b'{"rows":{"1":{}}}')

    def test_values_are_stored_as_in_fields(self) -> None:
        spec = Window.__state__.maps[0]
        assert spec.encode(Row(float("inf"))) == b'{"n":"Infinity"}'
        assert spec.decode(b'{"n":"Infinity"}') == Row(float("inf"))
        assert Window.__state__.maps[2].encode(b"\xff") == b'"_w=="'

    @pytest.mark.parametrize(
        ("hint", "fault"),
        [
            (MapState, "keys of a MapState are int or str, written MapState[int, Row]"),
            (MapState[float, int], "keys of a MapState are int or str"),  # type: ignore[type-var]
            (MapState[bool, int], "keys of a MapState are int or str"),
            (MapState[int, object()], "its values cannot be stored: "),  # type: ignore[misc]
            (MapState[int, MapState[int, int]], "its values cannot be stored: "),
            (MapState[int, type("Handle", (), {})], "its values cannot be stored: "),  # type: ignore[misc]
            (Annotated[MapState[int, int], Entries(id="")], "the id of its entries must be 1 to 128 bytes"),
            (Annotated[MapState[int, int], Entries(id="x" * 129)], "the id of its entries must be 1 to 128 bytes"),
            (Annotated[MapState[int, int], Entries(since=2)], "since=2 must be 1 to 1, the version of the state"),
            (Annotated[MapState[int, int], Entries(since=0)], "since=0 must be 1 to 1"),
        ],
    )
    def test_faults(self, hint: Any, fault: str) -> None:
        with pytest.raises(DefinitionError) as caught:
            made({"a": hint})
        assert len(caught.value.faults) == 1
        assert f"field 'a': {fault}" in caught.value.faults[0]

    @pytest.mark.parametrize("default", [None, MapState(), dataclasses.field(default_factory=dict)])
    def test_a_default(self, default: Any) -> None:
        with pytest.raises(
            DefinitionError, match="field 'a' is a MapState, which starts empty: write it without a default"
        ):
            made({"a": MapState[int, int]}, default)

    def test_two_of_one_id(self) -> None:
        hints = {"a": MapState[int, int], "b": Annotated[MapState[int, int], Entries(id="a")]}
        with pytest.raises(DefinitionError, match="fields 'a' and 'b' store their entries under the same id"):
            made(hints)

    @pytest.mark.parametrize("hint", [list[MapState[int, int]], MapState[int, int] | None])
    def test_a_map_within_something(self, hint: Any) -> None:
        with pytest.raises(DefinitionError, match="a field's type cannot be stored"):
            made({"a": hint}, None)


@pytest.mark.parametrize(
    ("hint", "frozen"),
    [
        (int, True),
        (str | None, True),
        (tuple[int, ...], True),
        (tuple[list[int], int], False),
        (Fixed, True),
        (HalfFixed, False),
        (FixedModel, True),
        (tuple[int, FixedModel, bool], True),
        (Model, False),
        (HalfFixedModel, False),
        (OpenModel, False),
        (Row, False),
        (Pair, False),
        (list[int], False),
        (Any, False),
        (int | list[int], False),
    ],
)
def test_what_cannot_be_changed_in_place(hint: Any, frozen: bool) -> None:
    from pydantic import TypeAdapter
    from typing_extensions import TypeAliasType

    adapter: TypeAdapter[Any] = TypeAdapter(TypeAliasType("Value", hint), config=CONFIG)  # type: ignore[arg-type]
    assert is_frozen(adapter.core_schema) is frozen


def test_in_memory() -> None:
    some: MapState[int, str] = MapState({3: "c", 1: "a"})
    some[2] = "b"
    assert list(some.items()) == [(1, "a"), (2, "b"), (3, "c")]
    assert list(some.items(2)) == [(2, "b"), (3, "c")]
    assert list(some.items(1, 3)) == [(1, "a"), (2, "b")]
    assert (some.first(), list(some), bool(some), 2 in some, some.get(9), some.get(9, "-")) == (
        (1, "a"),
        [1, 2, 3],
        True,
        True,
        None,
        "-",
    )
    for key in some:
        del some[key]
    assert (some.first(), bool(some), repr(some)) == (None, False, "MapState({})")
    with pytest.raises(KeyError):
        del some[1]
    assert some != {}
