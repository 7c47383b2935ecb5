"""State: what a class statement makes, and what can be written can be read."""

import dataclasses
import enum
import types
import warnings
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from pf_stream import DefinitionError, State
from pf_stream.model import StateSpec
from pf_stream.model._codec import codec
from pf_stream.model.state import strictly
from pf_stream.model.versions import Steps


class Colour(enum.Enum):
    """A colour."""

    RED = "red"


class Point(BaseModel):
    """A place."""

    x: int = 0


class Everything(State, version=2):
    """Most types that a state may hold."""

    count: int = 0
    ratio: float = 0.0
    name: str = ""
    flag: bool = False
    maybe: int | None = None
    raw: bytes = b""
    when: datetime | None = None
    price: Decimal = Decimal(0)
    colour: Colour = Colour.RED
    point: Point = dataclasses.field(default_factory=Point)
    items: list[str] = dataclasses.field(default_factory=list)
    table: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    tags: set[str] = dataclasses.field(default_factory=set)
    pair: tuple[int, str] = (0, "")


def test_a_class_is_a_slotted_dataclass() -> None:
    assert dataclasses.fields(Everything)[0].name == "count"
    assert Everything() == Everything(count=0)
    assert not hasattr(Everything(), "__dict__")
    with pytest.raises(AttributeError):
        Everything().cuont = 1  # type: ignore[attr-defined]


def test_what_a_class_statement_says_is_its_spec() -> None:
    spec = Everything.__state__
    assert spec == StateSpec(version=2, encode=spec.encode, decode=spec.decode, upgrades=Steps("upgrade", 2))


def test_each_new_state_has_its_own_lists() -> None:
    assert Everything().items is not Everything().items


def test_a_subclass_is_a_state_of_its_own() -> None:
    class More(Everything):
        more: int = 1

    assert More.__state__.version == 1
    assert More.__state__.decode(b'{"count":2,"more":3}') == More(count=2, more=3)


texts = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=50)
@given(
    st.builds(
        Everything,
        count=st.integers(),
        ratio=st.floats(allow_nan=False),
        name=texts,
        flag=st.booleans(),
        maybe=st.none() | st.integers(),
        raw=st.binary(),
        when=st.none() | st.datetimes(timezones=st.just(UTC)),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        point=st.builds(Point, x=st.integers()),
        items=st.lists(texts),
        table=st.dictionaries(st.integers(), st.lists(st.floats(allow_nan=False), max_size=2), max_size=2),
        tags=st.sets(texts, max_size=3),
        pair=st.tuples(st.integers(), texts),
    )
)
def test_what_is_written_can_be_read(state: Everything) -> None:
    with strictly():
        assert Everything.__state__.decode(Everything.__state__.encode(state)) == state


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_so_can_floats_that_json_lacks(value: float) -> None:
    read = Everything.__state__.decode(Everything.__state__.encode(Everything(ratio=value)))
    assert repr(read.ratio) == repr(value)


@pytest.mark.parametrize(
    "change",
    [
        {"count": "many"},
        {"name": 7},
        {"items": [1]},
        {"items": "text"},
        {"table": {"x": []}},
        {"colour": "green"},
        {"maybe": object()},
        {"name": "\ud800"},
        {"point": 3},
        # what pydantic writes without a word
        *({name: None} for name in ("count", "name", "flag", "colour", "point", "items", "tags", "pair")),
        {"items": [None]},
        {"table": {1: None}},
        {"table": {1: [None]}},
        {"tags": {None}},
        {"pair": (None, "")},
        {"point": Point.model_construct(x=None)},  # type: ignore[arg-type]
        {"maybe": 1, "when": None, "count": None},
    ],
)
def test_a_value_of_a_wrong_type_is_not_written(change: dict[str, Any]) -> None:
    state = Everything()
    for name, value in change.items():
        setattr(state, name, value)
    with strictly(), pytest.raises((UserWarning, PydanticSerializationError, ValueError)):
        Everything.__state__.encode(state)


def test_none_where_it_may_be() -> None:
    class Some(State):
        one: int | None = None
        deep: list[int | None] = dataclasses.field(default_factory=list)
        text: str = "null and null"

    class One(State):
        one: Point | None = None

    spec = Some.__state__
    for state in (Some(), Some(1), Some(None, [None, 1]), Some(deep=[None]), Some(text="")):
        assert spec.decode(spec.encode(state)) == state
    with pytest.raises(ValidationError):
        spec.encode(Some(text=None))  # type: ignore[arg-type]
    for point in (None, Point()):
        assert One.__state__.decode(One.__state__.encode(One(point))) == One(point)


def test_so_too_where_warnings_are_ignored() -> None:
    """As they are by default in a worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with strictly(), pytest.raises(UserWarning, match="Expected `int`"):
            Everything.__state__.encode(Everything(count="many"))  # type: ignore[arg-type]


def even(number: int) -> int:
    if number % 2:
        raise ValueError("odd")
    return number


class TestConstraints:
    """pydantic checks them when it reads; so they are checked when they are written too, or nobody could read again."""

    class Bounded(State):
        left: Annotated[int, Field(ge=0)] = 1
        codes: list[Annotated[str, Field(max_length=3)]] = dataclasses.field(default_factory=list)

    class Even(State):
        number: Annotated[int, AfterValidator(even)] = 0

    def test_kept(self) -> None:
        spec = self.Bounded.__state__
        assert spec.decode(spec.encode(self.Bounded(0, ["abc"]))) == self.Bounded(0, ["abc"])

    @pytest.mark.parametrize(("left", "codes"), [(-1, []), (1, ["abcd"])])
    def test_broken(self, left: int, codes: list[str]) -> None:
        with pytest.raises(ValidationError):
            self.Bounded.__state__.encode(self.Bounded(left, codes))

    def test_a_validator_is_one_too(self) -> None:
        assert self.Even.__state__.encode(self.Even(2)) == b'{"number":2}'
        with pytest.raises(ValidationError, match="odd"):
            self.Even.__state__.encode(self.Even(3))

    def test_they_cost_nothing_where_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def reads(kind: type[State]) -> int:
            times = 0
            adapter: TypeAdapter[Any] = TypeAdapter(kind)
            read = adapter.validator.validate_json

            class Counting:
                @staticmethod
                def validate_json(raw: bytes) -> Any:
                    nonlocal times
                    times += 1
                    return read(raw)

            monkeypatch.setattr(adapter, "validator", Counting)
            codec(adapter).encode(kind())
            return times

        assert (reads(Everything), reads(self.Even)) == (0, 1)


class TestFaults:
    def faults(self, body: dict[str, Any], **keywords: Any) -> list[str]:
        with pytest.raises(DefinitionError) as caught:
            types.new_class("Bad", (State,), keywords, lambda namespace: namespace.update(body, __module__=__name__))
        assert caught.value.subject == f"state {__name__}.Bad"
        return [*caught.value.faults]

    def test_fields_without_a_default(self) -> None:
        assert self.faults({"__annotations__": {"a": int, "b": int}}) == [
            "field 'a' has no default: a new key starts from Bad()",
            "field 'b' has no default: a new key starts from Bad()",
        ]

    def test_a_field_without_a_default_after_one_with(self) -> None:
        (fault,) = self.faults({"__annotations__": {"a": int, "b": int}, "a": 1})
        assert fault.startswith("non-default argument 'b' follows default argument")

    def test_a_mutable_default(self) -> None:
        assert self.faults({"__annotations__": {"a": list[int]}, "a": []}) == [
            "mutable default <class 'list'> for field a is not allowed: use default_factory (from dataclasses.field)"
        ]

    def test_a_type_that_cannot_be_stored(self) -> None:
        class Handle:
            pass

        (fault,) = self.faults({"__annotations__": {"a": Handle | None}, "a": None})
        assert fault.startswith("a field's type cannot be stored: Unable to generate pydantic-core schema for ")
        assert "\n" not in fault

    def test_a_type_that_is_not_known_yet(self) -> None:
        (fault,) = self.faults({"__annotations__": {"a": "Later"}, "a": None})
        assert fault.startswith("a field's type is not known where the class is made")

    @pytest.mark.parametrize("version", [0, 65_536, -1])
    def test_a_version_that_does_not_fit(self, version: int) -> None:
        assert self.faults({}, version=version) == [f"version {version} must be 1 to 65535"]

    def test_slots(self) -> None:
        (fault,) = self.faults({"__slots__": ("a",), "__annotations__": {"b": int}, "b": 1})
        assert "already specifies __slots__" in fault

    def test_all_of_them_in_one_error(self) -> None:
        assert self.faults({"__annotations__": {"a": int}}, version=0, color="red") == [
            "unknown class keyword 'color'; known: version",
            "version 0 must be 1 to 65535",
            "field 'a' has no default: a new key starts from Bad()",
        ]

    def test_the_base_itself_has_no_instances(self) -> None:
        with pytest.raises(DefinitionError, match="declare a subclass with fields"):
            State()
