"""What a handler that fails has done to a state is undone, whether that was kept before it or is made again from the log."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pf_stream import PUBLIC, Context, Effects, Forget, Intent, Key, MapState, Reactor, State, Topology, on
from pf_stream.model._keeper import _SMALL
from pf_stream.testing import Driver

Act = Literal["add", "drop", "forget", "spoil", "mend", "void"]


class Change(Intent, name="keeping.change", requires=PUBLIC):
    """What is to be done to the states of a key."""

    key: Annotated[str, Key]
    act: Act
    n: int
    fail: Literal["", "first", "second"] = ""


class Numbers(State):
    """Copied while it is small."""

    n: int = 0
    numbers: list[int] = field(default_factory=list)


class Nested(State):
    """Never copied."""

    lists: list[list[int]] = field(default_factory=list)


def change(numbers: list[int], intent: Change) -> Effects:
    match intent.act:
        case "add":
            numbers.append(intent.n)
        case "drop":
            del numbers[: intent.n]
        case "spoil":
            numbers.append("no number")  # type: ignore[arg-type]
        case "mend":
            numbers.pop()
        case "forget":
            return Forget()
    return None


class First(Reactor[Numbers], id="first"):
    """Fails after it has changed its state."""

    @on
    def on_change(self, intent: Change, state: Numbers, ctx: Context) -> Effects:
        state.n += 1
        effects = change(state.numbers, intent)
        if intent.act == "void":
            state.numbers = None  # type: ignore[assignment]
        if intent.fail == "first":
            raise ValueError
        return effects


class Second(Reactor[Nested], id="second"):
    """Fails after it, and the one before it, have changed their states."""

    @on
    def on_change(self, intent: Change, state: Nested, ctx: Context) -> Effects:
        if not state.lists:
            state.lists.append([])
        effects = change(state.lists[0], intent)
        if intent.fail == "second":
            raise ValueError
        return effects


topology = Topology("keeping", [First, Second])
changes = st.lists(
    st.builds(
        Change,
        key=st.just("a"),
        act=st.sampled_from(["add", "add", "add", "add", "drop", "forget"]),
        n=st.integers(0, 5),
        fail=st.sampled_from(["", "", "first", "second"]),
    ),
    max_size=40,
)


def adds(count: int, fail: Literal["", "first", "second"] = "") -> list[Change]:
    return [Change(key="a", act="add", n=n, fail=fail) for n in range(count)]


@given(changes, st.integers(0, 1 << 16))
@example([*adds(_SMALL + 1), *adds(3, "first"), *adds(1), *adds(2, "second")], 0)
@example([*adds(_SMALL), Change(key="a", act="spoil", n=0), *adds(3), *adds(1, "first")], 0)
def test_nothing_of_what_fails_remains(sent: list[Change], seed: int) -> None:
    driver = Driver(topology, seed=seed)
    with driver.paused():
        for intent in sent:
            driver.send(intent)
    good = [intent for intent in sent if not intent.fail and intent.act != "spoil"]
    first, second = Numbers(), Nested()
    for intent in good:
        if intent.act == "forget":
            first, second = Numbers(), Nested()
            continue
        first.n += 1
        change(first.numbers, intent)
        second.lists = second.lists or [[]]
        change(second.lists[0], intent)
    known = bool(good) and good[-1].act != "forget"
    assert driver.state(First, "a") == (first if known else None)
    assert driver.state(Second, "a") == (second if known else None)
    failed = ["handler_failed" if intent.fail else "bad_state" for intent in sent if intent not in good]
    assert [letter.code for letter in driver.dead_letters()] == failed
    driver.crash()
    assert driver.state(First, "a") == (first if known else None)


def test_what_cannot_be_stored_is_found_before_it_is_mended() -> None:
    """There is nothing to which a state could be undone that cannot be stored."""
    driver = Driver(topology)
    sent = [*adds(_SMALL), Change(key="a", act="spoil", n=0), Change(key="a", act="mend", n=0)]
    with driver.paused():
        for intent in sent:
            driver.send(intent)
    assert [letter.code for letter in driver.dead_letters()] == ["bad_state"]
    state = driver.state(First, "a")
    assert state is not None
    assert state.numbers == [*range(_SMALL - 1)]


def test_what_cannot_be_copied_is_the_fault_of_who_left_it() -> None:
    driver = Driver(topology)
    with driver.paused():
        for intent in [*adds(3), Change(key="a", act="void", n=0), *adds(2)]:
            driver.send(intent)
    assert [(letter.code, letter.offset) for letter in driver.dead_letters()] == [("bad_state", 3)]
    state = driver.state(First, "a")
    assert state is not None
    assert state.numbers == [0, 1, 2, 0, 1]


@dataclass(frozen=True)
class Fixed:
    """Cannot be changed in place."""

    n: int


@dataclass
class Loose:
    """Can."""

    n: int


class TestKeeper:
    """Which states are kept, and that what is kept does not change with them."""

    def test_numbers_and_text(self) -> None:
        class One(State):
            n: int = 0

        class Two(State):
            n: int | None = None
            told: tuple[str, Fixed] = ("", Fixed(0))

        for made, other in ((One(1), One(2)), (Two(1, ("a", Fixed(1))), Two())):
            keeper = made.__state__.keeper
            assert keeper is not None
            kept = keeper.keep(made)
            assert kept is not None
            keeper.restore(other, kept)
            assert other == made

    def test_collections(self) -> None:
        class Many(State):
            ones: list[int] = field(default_factory=list)
            some: set[str] = field(default_factory=set)
            rows: dict[str, Fixed] = field(default_factory=dict)

        state = Many([1], {"a"}, {"a": Fixed(1)})
        keeper = state.__state__.keeper
        assert keeper is not None
        kept = keeper.keep(state)
        assert kept is not None
        state.ones.append(2)
        state.some.add("b")
        state.rows["b"] = Fixed(2)
        keeper.restore(state, kept)
        assert state == Many([1], {"a"}, {"a": Fixed(1)})
        for large in (Many([0] * (_SMALL + 1)), Many(some={*map(str, range(_SMALL + 1))})):
            assert keeper.keep(large) is None

    @pytest.mark.parametrize("kind", [list[list[int]], dict[str, list[int]], list[Loose], Loose | None])
    def test_what_lies_deeper_is_not_kept(self, kind: type) -> None:
        class Deep(State):
            n: int = 0
            deep: kind = field(default_factory=list)  # type: ignore[valid-type]

        assert Deep.__state__.keeper is None

    def test_nor_are_maps(self) -> None:
        class Mapped(State):
            rows: MapState[str, int]
            n: int = 0

        assert Mapped.__state__.keeper is None
