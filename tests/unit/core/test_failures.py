"""What goes wrong in a handler is the end of its intent, and of nothing else."""

import itertools
from dataclasses import field
from typing import Annotated

import pytest
from pydantic import Field, field_validator

from pf_stream import PUBLIC, Context, Effects, Intent, Key, Reactor, State, Topology, on
from pf_stream.core import CommitUnit, Limits, Rewind, changelog
from pf_stream.testing import Driver
from tests.unit.core.kit import TOKEN, Bench, Box, BoxCap, Boxes, Put, Room, Rooms, Watch, Watched, boxes, codes, record

SEEDS = range(6)
LATE_FAILURES = ["wrong type", "wrong item", "circle", "surrogate"]
FAILURES = {
    "raise": "handler_failed",
    "raise surrogate": "handler_failed",
    "raise unprintable": "handler_failed",
    "raise long": "handler_failed",
    "raise in the second": "handler_failed",
    "return nonsense": "bad_effect",
    "return nonsense among effects": "bad_effect",
    "emit stray": "bad_effect",
    "emit huge": "bad_effect",
    "reply object": "bad_effect",
    "reply huge": "bad_effect",
    "tally under a long name": "bad_effect",
    "tally less": "bad_effect",
    "tally a half": "bad_effect",
    **dict.fromkeys(LATE_FAILURES, "bad_state"),
}


def run(seed: int, *acts: str, limits: Limits | None = None) -> Driver:
    """Acts on one box, items ``0``, ``1``, ..., waiting together so that the seed decides what shares a unit."""
    driver = Driver(boxes, seed=seed, limits=limits)
    token = driver.context(BoxCap.put("/**"), subject="ann")
    with driver.paused():
        for number, act in enumerate(acts):
            driver.send(Put(box="b", item=str(number), act=act), token, reply_to="replies", correlation_id=str(number))
    return driver


def check(driver: Driver, *acts: str) -> None:
    """Only what was kept is in the states and the outputs, only what failed is a dead letter."""
    kept = [str(number) for number, act in enumerate(acts) if act == "keep"]
    failed = [(FAILURES[act], number) for number, act in enumerate(acts) if act != "keep"]
    assert driver.state(Boxes, "b") == (Box(items=kept, weight=len(kept)) if kept else None)
    assert driver.state(Watch, "b") == (Watched(items=kept, writers=["ann"] * len(kept)) if kept else None)
    assert driver.state(Rooms, "attic") == (Room(items=kept) if kept else None)
    assert [(letter.code, letter.offset) for letter in driver.dead_letters()] == failed
    assert [reply.json()["weight"] for reply in driver.replies() if not reply.header("pf-error-code")] == [
        *range(1, len(kept) + 1)
    ]
    assert driver.refused.total() == len(failed)


@pytest.mark.parametrize("act", FAILURES)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_of_the_intent_remains(act: str, seed: int) -> None:
    acts = ["keep", act, "keep"]
    driver = run(seed, *acts)
    check(driver, *acts)
    driver.crash()
    check(driver, *acts)


@pytest.mark.parametrize("act", FAILURES)
def test_a_key_whose_only_intent_failed_does_not_come_into_being(act: str) -> None:
    check(run(1, act), act)


@pytest.mark.parametrize("seed", SEEDS)
def test_several_failures_among_what_is_kept(seed: int) -> None:
    acts = [
        "raise",
        "keep",
        "raise",
        "raise in the second",
        "keep",
        "wrong type",
        "keep",
        "return nonsense",
        "keep",
        "raise",
    ]
    check(run(seed, *acts), *acts)


def test_every_order_within_one_unit() -> None:
    for acts in itertools.product(["keep", "raise", "raise in the second", "wrong type"], repeat=3):
        bench = Bench()
        units = bench.commit_all(*(record(at, Put(box="b", item=str(at), act=act)) for at, act in enumerate(acts)))
        kept = [str(at) for at, act in enumerate(acts) if act == "keep"]
        watched = Watched(items=kept, writers=["ann"] * len(kept)) if kept else None
        assert bench.state(Box, "boxes", "b") == (Box(items=kept, weight=len(kept)) if kept else None), acts
        assert bench.state(Watched, "watch", "b") == watched, acts
        assert codes(units) == [(FAILURES[act], at) for at, act in enumerate(acts) if act != "keep"], acts
        assert bench.lane.handled == len(kept), acts


def test_failures_are_undone_on_top_of_earlier_units() -> None:
    bench = Bench()
    bench.feed(record(0, Put(box="b", item="0")))
    bench.commit()
    bench.feed(record(1, Put(box="b", item="1", act="raise")))
    unit = bench.commit()
    assert bench.state(Box, "boxes", "b") == Box(items=["0"], weight=1)
    assert not [key for key, _ in unit.entries if key[1:2] == b"s"], "an undone state is not written again"
    bench.feed(record(2, Put(box="b", item="2")))
    bench.commit()
    assert bench.state(Box, "boxes", "b") == Box(items=["0", "2"], weight=2)


@pytest.mark.parametrize("held", [0, 1], ids=["kept", "logged"])
def test_a_stream_of_failures_on_one_key_does_not_run_its_past_again_each_time(held: int) -> None:
    runs = 0

    class Count(Intent, name="kit.count", requires=PUBLIC):
        key: Annotated[str, Key]
        fail: bool = False

    class Counted(State):
        count: int = 0

    class CountedAmongLists(State):
        count: int = 0
        lists: list[list[int]] = field(default_factory=list)

    kind = (Counted, CountedAmongLists)[held]

    class Counter(Reactor[kind], id="counter"):  # type: ignore[valid-type]
        @on
        def count(self, intent: Count, state: kind, ctx: Context) -> None:  # type: ignore[valid-type]
            nonlocal runs
            runs += 1
            state.count += 1  # type: ignore[attr-defined]
            if intent.fail:
                raise ValueError

    bench = Bench(Topology("kit", [Counter]))
    records = [record(at, Count(key="a", fail=at >= 50), None) for at in range(100)]
    bench.feed(*records, topic="kit.intents")
    bench.commit()
    assert bench.state(kind, "counter", "a") == kind(count=50)
    assert runs == 100 + 50 * held, "what is logged runs again once, what is kept does not"


def test_a_state_may_keep_a_list_of_its_intent() -> None:
    """Each reactor gets an intent of its own, and a rerun does too."""
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"), subject="ann")
    with driver.paused():
        driver.send(Put(box="b", item="x", items=["1"], act="adopt"), token)
        driver.send(Put(box="b", item="2"), token)
        driver.send(Put(box="b", item="3", act="raise"), token)
        driver.send(Put(box="b", item="4"), token)
    assert driver.state(Boxes, "b") == Box(items=["1", "2", "4"], weight=3)
    assert driver.state(Watch, "b") == Watched(items=["1", "x", "2", "4"], writers=["ann"] * 3)


class Take(Intent, name="stock.take", requires=PUBLIC):
    """Take some out of stock."""

    article: Annotated[str, Key]
    count: int


class Stock(State):
    """What is left; its type has a constraint, which pydantic checks only when it reads."""

    left: Annotated[int, Field(ge=0)] = 10


class Shelf(Reactor[Stock], id="shelf"):
    """Forgets to check."""

    @on
    def take(self, intent: Take, state: Stock, ctx: Context) -> Effects:
        state.left -= intent.count
        return None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_constraint_of_the_state_is_kept(seed: int) -> None:
    """Were it written, nobody could read it again."""
    driver = Driver(Topology("stock", [Shelf]), seed=seed)
    with driver.paused():
        for count in (3, 8, 7, 1):
            driver.send(Take(article="pen", count=count))
    driver.crash()
    assert driver.state(Shelf, "pen") == Stock(left=0)
    assert [(letter.code, letter.offset) for letter in driver.dead_letters()] == [("bad_state", 1), ("bad_state", 3)]


class Order(Intent, name="stock.order", requires=PUBLIC):
    """Has a validator that was not thought through."""

    article: Annotated[str, Key]
    price: str

    @field_validator("price")
    @classmethod
    def in_euros(cls, price: str) -> str:
        return {"cheap": "1", "dear": "100"}[price]


class Orders(Reactor[Stock], id="orders"):
    """Takes them all."""

    @on
    def order(self, intent: Order, state: Stock, ctx: Context) -> None:
        state.left -= 1


def test_a_validator_may_raise_anything() -> None:
    """pydantic hands on what is neither a ValueError nor an AssertionError, and it came from outside."""
    driver = Driver(Topology("stock", [Orders]))
    for price in ("cheap", "free"):
        driver.send(Order.model_construct(article="pen", price=price))
    driver.send(Order(article="pen", price="dear").model_copy(update={"price": "dear"}))
    assert [(letter.code, letter.message) for letter in driver.dead_letters()] == [
        ("malformed_payload", "its type cannot read it: KeyError")
    ]
    assert driver.state(Orders, "pen") == Stock(left=8)


class TestUnitTooLarge:
    LIMITS = Limits(unit_bytes=10_000, unit_bytes_hard=20_000)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_one_intent_that_is_too_large_alone(self, seed: int) -> None:
        acts = ["keep", "swell", "keep"]
        driver = run(seed, *acts, limits=self.LIMITS)
        assert driver.state(Boxes, "b") == Box(items=["0", "2"], weight=2)
        (letter,) = driver.dead_letters()
        assert (letter.code, letter.offset) == ("unit_too_large", 1)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_many_that_are_too_large_together_share_smaller_units(self, seed: int) -> None:
        driver = Driver(boxes, seed=seed, limits=self.LIMITS)
        token = driver.context(BoxCap.put("/**"))
        with driver.paused():
            for number in range(30):
                driver.send(Put(box=f"b{number}", room=f"r{number}", item="x" * 4_000), token)
        assert driver.dead_letters() == []
        assert all(driver.state(Boxes, f"b{number}") == Box(items=["x" * 4_000], weight=1) for number in range(30))

    def test_the_unit_grows_again_afterwards(self) -> None:
        bench = Bench()
        bench.commit_all(*(record(at, Put(box=str(at), act="wrong type" if at == 5 else "keep")) for at in range(10)))
        units = bench.commit_all(*(record(at, Put(box=str(at))) for at in range(200)))
        assert [unit.count for unit in units][:4] == sorted(unit.count for unit in units)[:4]
        assert len(units) < 10
        assert not bench.lane.sources["box.intents"].poisoned


class TestRewind:
    def test_it_says_from_where_to_feed_again(self) -> None:
        bench = Bench()
        bench.feed(record(0, Put(box="a")))
        bench.commit()
        bench.feed(record(1, Put(box="a")), record(2, Put(box="b", act="wrong type")), record(3, Put(box="c")))
        rewind = bench.lane.seal()
        assert rewind == Rewind({"box.intents": 1, "box.intents.rerouted": 0})
        assert bench.lane.positions == rewind.positions
        assert bench.state(Box, "boxes", "a") == Box(items=[""], weight=1)
        assert bench.state(Box, "boxes", "b") is None

    def test_what_is_taken_back_is_not_counted(self) -> None:
        bench = Bench()
        records = [
            record(0, Put(box="a")),
            record(1, Put(box="b"), None),
            record(2, Put(box="c", act="wrong type")),
            record(3, Put(box="d", act="raise")),
        ]
        bench.commit_all(*records)
        assert bench.lane.handled == 1
        assert bench.lane.refused == {"missing_context": 1, "bad_state": 1, "handler_failed": 1}

    def test_marks_of_upstream_lanes_are_taken_back_too(self) -> None:
        """Else the records would pass for repetitions when they are fed again."""
        bench = Bench()
        records = [
            record(0, Put(box="a"), TOKEN, ("pf-source", b"up:1:0")),
            record(1, Put(box="b", act="wrong type"), TOKEN, ("pf-source", b"up:1:1")),
            record(2, Put(box="c"), TOKEN, ("pf-source", b"up:2:0")),
            record(3, Put(box="c"), TOKEN, ("pf-source", b"up:1:1")),
            record(4, Put(box="c"), TOKEN, ("pf-source", b"other:1:0")),
        ]
        units = bench.commit_all(*records, topic="box.intents.rerouted")
        assert codes(units) == [("bad_state", 1)]
        assert bench.lane.handled == 3
        marks = [changelog.parse_name(key, 23)[0] for unit in units for key, _ in unit.entries if key[1:2] == b"d"]
        assert marks == ["up", "up", "up", "other"], "each in the unit that took its record"

    def test_a_unit_is_sealed_or_taken_back_never_both(self) -> None:
        bench = Bench()
        bench.feed(record(0, Put(box="b", act="wrong type")))
        assert isinstance(bench.lane.seal(), Rewind)
        empty = bench.lane.seal()
        assert isinstance(empty, CommitUnit)
        assert (empty.sequence, empty.count, empty.outputs) == (1, 0, [])
