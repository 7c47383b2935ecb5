"""Intents that are made up."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from pf_stream import PUBLIC, Intent, Key
from pf_stream.components.specimens import NoSpecimenError, Specimens


class Colour(StrEnum):
    red = "red"
    blue = "blue"


class Place(BaseModel):
    city: str
    level: int = Field(ge=-3, lt=3)


class Everything(Intent, name="specimens.everything", requires=PUBLIC):
    name: Annotated[str, Key]
    part: Annotated[int, Key] = 0
    text: str
    short: str = Field(max_length=3)
    long: str = Field(min_length=30)
    given: str = Field(examples=["one", "two"])
    maybe_given: str | None = Field(default=None, examples=["three"])
    colour: Colour
    kind: Literal["a", "b"]
    fixed: Literal["only"]
    flag: bool
    amount: float = Field(gt=0.5, le=2)
    debt: int = Field(lt=0)
    some: list[int] = Field(min_length=2)
    place: Place
    other: Place | None
    left_out: str = "as it is"
    when: datetime
    day: date
    id: UUID


class Coded(Intent, name="specimens.coded", requires=PUBLIC):
    name: Annotated[str, Key]
    code: str = Field(pattern=r"^[A-Z]{3}$")


@pytest.mark.parametrize("number", [0, 1, 7, 999, 123_456])
def test_every_kind_of_field_is_made_up_within_its_bounds(number: int) -> None:
    made = Specimens(Everything.__intent__, 1000).make(number)
    assert isinstance(made, Everything)  # and so within its bounds
    assert made.given in {"one", "two"}
    assert made.maybe_given == "three"
    assert made.left_out == "as it is"
    assert made.other is not None


def test_keys_take_as_many_values_as_are_wanted_and_other_fields_take_ten() -> None:
    specimens = Specimens(Everything.__intent__, 250)
    made = [specimens.make(number) for number in range(1000)]
    assert len({Everything.__intent__.key_of(one) for one in made}) == 250
    assert len({one.text for one in made if isinstance(one, Everything)}) == 10


def test_the_same_number_gives_the_same_intent() -> None:
    assert Specimens(Everything.__intent__, 10).make(3) == Specimens(Everything.__intent__, 10).make(3)


def test_what_cannot_be_made_up_is_named() -> None:
    with pytest.raises(NoSpecimenError, match=r"no specimens\.coded\.v1 can be made up.*\n  code: .*pattern") as error:
        Specimens(Coded.__intent__, 10).make(0)
    assert "Field(examples=[...])" in str(error.value)
