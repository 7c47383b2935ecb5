"""What is sent when a topology is measured, and how its latencies are told from the changelog."""

from typing import Annotated

import pytest

from pf_stream import PUBLIC, Context, Intent, Key, Reactor, State, Topology, on
from pf_stream.errors import ConfigurationError
from pf_stream.worker.bench import _Commits, made_up, read_intents


class Outer(Intent, name="benched.outer", requires=PUBLIC):
    name: Annotated[str, Key]


class Other(Intent, name="benched.other", topic="others", requires=PUBLIC):
    name: Annotated[str, Key]


class Inner(Intent, name="benched.inner", topic="inner", requires=PUBLIC):
    name: Annotated[str, Key]


class Told(Intent, name="benched.told", topic="told", requires=PUBLIC):
    name: Annotated[str, Key]


class Nothing(State):
    pass


class All(Reactor[Nothing], id="all"):
    @on
    def outer(self, intent: Outer, state: Nothing, ctx: Context) -> None: ...

    @on
    def other(self, intent: Other, state: Nothing, ctx: Context) -> None: ...

    @on
    def inner(self, intent: Inner, state: Nothing, ctx: Context) -> None: ...


class InnerOnly(Reactor[Nothing], id="inner-only"):
    @on
    def inner(self, intent: Inner, state: Nothing, ctx: Context) -> None: ...


benched = Topology("benched", [All], internal=["inner"], emits=[Told])


def test_every_type_that_comes_from_outside_is_made_up_in_turn() -> None:
    intent = made_up(benched, 2)
    assert [type(intent(number)) for number in range(4)] == [Other, Outer, Other, Outer]
    assert {benched.intents[0].key_of(intent(number)) for number in range(1, 41, 2)} == {b"name-0", b"name-1"}


def test_nothing_from_outside() -> None:
    with pytest.raises(ConfigurationError, match="handles no intent from outside"):
        made_up(Topology("closed", [InnerOnly], internal=["inner"]), 1)


def test_intents_of_a_file() -> None:
    lines = [
        b'{"type": "benched.outer", "data": {"name": "a"}}',
        b"",
        b'{"type": "benched.other.v1", "data": {"name": "b"}}',
    ]
    assert read_intents(benched, lines) == [Outer(name="a"), Other(name="b")]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "there are no intents"),
        ([b'{"type": "benched.outer", "data": {"name": "a"}}', b"{"], "line 2: the intent cannot be read"),
        ([b'{"type": "benched.outer", "data": {}}'], "line 1: .*name: Field required"),
        ([b'{"type": "benched.inner", "data": {"name": "a"}}'], "line 1: .*internal"),
    ],
)
def test_a_line_that_is_none_is_named(lines: list[bytes], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){said}"):
        read_intents(benched, lines)


def test_a_record_is_committed_by_the_first_unit_that_goes_beyond_it() -> None:
    commits = _Commits()
    commits.add(b"one", 10, 1000)
    commits.add(b"one", 15, 1008)
    assert [commits.after(offset) for offset in (0, 9, 10, 14)] == [1000, 1000, 1008, 1008]


def test_of_two_readers_the_later_counts() -> None:
    commits = _Commits()
    commits.add(b"one", 10, 1000)
    commits.add(b"two", 5, 900)
    commits.add(b"two", 10, 1500)
    assert [commits.after(offset) for offset in (4, 5)] == [1000, 1500]
