"""What handlers count: by how many they say, once the unit is sealed, and nothing of an intent at which one raises."""

from typing import Annotated

import pytest

from pf_stream import PUBLIC, Context, Effects, Intent, Key, Reactor, State, Tally, Topology, on
from pf_stream.testing import Driver


class Batch(Intent, name="tallies.batch", requires=PUBLIC):
    """So many at once."""

    line: Annotated[str, Key]
    parts: int
    fails: bool = False


class Line(State):
    """Nothing is remembered."""

    batches: int = 0


class Lines(Reactor[Line], id="lines"):
    """Counts batches, and what is in them."""

    @on
    def made(self, intent: Batch, state: Line, ctx: Context) -> Effects:
        state.batches += 1
        return [Tally("batches"), Tally("parts", -1 if intent.fails else intent.parts)]


lines = Topology("tallies", [Lines])


def test_by_how_many() -> None:
    driver = Driver(lines)
    for parts in (3, 0, 4):
        driver.send(Batch(line="a", parts=parts))
    assert driver.tallies == {("lines", "batches"): 3, ("lines", "parts"): 7}


def test_of_what_is_refused_nothing_is_counted() -> None:
    driver = Driver(lines)
    driver.send(Batch(line="a", parts=3, fails=True))
    assert driver.tallies == {}
    (letter,) = driver.dead_letters()
    assert letter.code == "bad_effect"


@pytest.mark.parametrize("name", ["", "Late", "too late", "l" * 33, "späte"])
def test_a_name_is_short_and_plain(name: str) -> None:
    class Wrong(Reactor[Line], id="lines"):
        @on
        def made(self, intent: Batch, state: Line, ctx: Context) -> Effects:
            return Tally(name)

    driver = Driver(Topology("tallies", [Wrong]))
    driver.send(Batch(line="a", parts=1))
    assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"]
