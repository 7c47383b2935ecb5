"""What a lane is told whenever it begins, before anything else, and what becomes of that when a worker ends."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    DefinitionError,
    Effects,
    Emit,
    Intent,
    Key,
    Part,
    Reactor,
    RetryLater,
    Schedule,
    Service,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.testing import Driver
from pf_stream.testing.driver import Action


class ShopCap(Capability):
    """What may be done with shops: ``/{shop}``."""

    open = operation()
    tell = operation()


class Open(Intent, name="shop.open", topic="shops", requires=ShopCap.open("/{shop}")):
    """A shop is there."""

    shop: Annotated[str, Key]
    fails: int = 0


class Visit(Intent, name="shop.visit", topic="shops", requires=PUBLIC):
    """Somebody comes."""

    shop: Annotated[str, Key]


class Opened(Intent, name="shop.opened", topic="news", requires=ShopCap.tell("/{shop}")):
    """A shop says that it is there."""

    shop: Annotated[str, Key]


class Book(State):
    """What happened."""

    lines: list[str] = dataclasses.field(default_factory=list)


class Shops(Reactor[Book], id="shops", on_error=RetryLater(attempts=3)):
    """Opens once."""

    @on
    def open(self, intent: Open, state: Book, ctx: Context) -> Effects:
        if ctx.due_ms is not None and len([line for line in state.lines if line == "failed"]) < intent.fails:
            raise ValueError(intent.shop)
        state.lines.append(f"open {ctx.subject}")
        return Emit(Opened(shop=intent.shop), id=f"{intent.shop}:opened")

    @on
    def visit(self, intent: Visit, state: Book, ctx: Context) -> Effects:
        state.lines.append("visit")
        return None


SERVICE = Service(7, ["ShopCap.open:/**", "ShopCap.tell:/**"])
PART = Part("shops", (Shops,), emits=(Opened,), services={"shops": SERVICE}, starts=(Open(shop="a"), Open(shop="b")))
SHOPS = Topology("mall", [], parts=[PART])
OPEN = "open service:mall/shops"


def lines(driver: Driver, shop: str) -> list[str]:
    book = driver.state(Shops, shop)
    return [] if book is None else book.lines


def test_a_lane_is_told_before_it_reads() -> None:
    driver = Driver(SHOPS)
    driver.send(Visit(shop="a"))
    driver.advance(0)
    assert lines(driver, "a") == [OPEN, "visit"]
    assert lines(driver, "b") == [OPEN]
    assert driver.dead_letters() == []


def test_a_new_life_is_told_anew() -> None:
    driver = Driver(SHOPS)
    driver.advance(0)
    driver.crash()
    assert lines(driver, "a") == [OPEN, OPEN]


@pytest.mark.parametrize("seed", range(30))
def test_a_crash_between_any_two_actions_takes_nothing_away(seed: int) -> None:
    driver = Driver(SHOPS, seed=seed)
    left = [seed % 5]

    def crash(action: Action) -> None:
        if not left[0]:
            driver.crash()
        left[0] -= 1

    driver.after_action = crash
    driver.send(Visit(shop="a"))
    driver.advance(0)
    assert lines(driver, "a").count("visit") == 1
    assert OPEN in lines(driver, "a")
    assert {record.header("ce_id") for record in driver.outputs("news")} == {b"a:opened", b"b:opened"}


def test_who_may_not_is_refused() -> None:
    part = dataclasses.replace(PART, services={"shops": Service(7, ["ShopCap.tell:/**"])})
    driver = Driver(Topology("mall", [], parts=[part]))
    driver.advance(0)
    assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"] * 2
    assert lines(driver, "a") == []


def test_a_unit_that_is_taken_back_keeps_it() -> None:
    class Odd(State):
        """Cannot always be stored."""

        number: int = 0

    class Odds(Reactor[Odd], id="odds"):
        """Spoils its state at a visit."""

        @on
        def open(self, intent: Open, state: Odd, ctx: Context) -> Effects:
            state.number += 1
            return None

        @on
        def visit(self, intent: Visit, state: Odd, ctx: Context) -> Effects:
            state.number = "spoiled"  # type: ignore[assignment]
            return None

    service = {"odds": Service(7, ["ShopCap.open:/**"])}
    for seed in range(10):
        driver = Driver(Topology("mall", [Odds], starts=[Open(shop="a")], services=service), seed=seed)
        with driver.paused():
            driver.send(Visit(shop="a"))
        state = driver.state(Odds, "a")
        assert state is not None
        assert state.number == 1
        assert [letter.code for letter in driver.dead_letters()] == ["bad_state"]


def test_what_nobody_takes_or_may_send_is_a_fault() -> None:
    with pytest.raises(DefinitionError, match=r"starts with shop.opened.v1, which no reactor handles"):
        Topology("mall", [Shops], emits=[Opened], starts=[Opened(shop="a")])
    with pytest.raises(DefinitionError, match="none of shops is a service"):
        Topology("mall", [Shops], emits=[Opened], starts=[Open(shop="a")])


def test_it_stays_in_another_namespace() -> None:
    assert SHOPS.within("other").starts == SHOPS.starts == PART.starts


class Ask(Intent, name="id.ask", requires=PUBLIC):
    """Cause something with an id."""

    key: Annotated[str, Key]
    id: str
    later: bool = False


class Told(Intent, name="id.told", requires=PUBLIC):
    """What is caused."""

    key: Annotated[str, Key]


class Ids(State):
    """What was told."""

    ids: list[str] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)


class Namer(Reactor[Ids], id="namer"):
    """Gives ids."""

    @on
    def ask(self, intent: Ask, state: Ids, ctx: Context) -> Effects:
        state.requests.append(ctx.request_id)
        told = Told(key=intent.key)
        return Schedule(told, after=1, id=intent.id) if intent.later else Emit(told, id=intent.id)

    @on
    def told(self, intent: Told, state: Ids, ctx: Context) -> Effects:
        state.ids.append(ctx.intent_id)
        state.requests.append(ctx.request_id)
        return None


@pytest.mark.parametrize("later", [False, True])
def test_what_is_emitted_may_have_an_id_of_its_own(later: bool) -> None:
    driver = Driver(Topology("ids", [Namer]))
    for name in ("one", "two"):
        driver.send(Ask(key="k", id=name, later=later))
        driver.advance(2)
    state = driver.state(Namer, "k")
    assert state is not None
    assert state.ids == ["one", "two"]
    first, told, second, told_too = state.requests
    assert first == told
    assert second == told_too
    assert first != second


@pytest.mark.parametrize("given", ["", "x" * 1_001, "\ud800"])
@pytest.mark.parametrize("later", [False, True])
def test_an_id_that_is_none_is_a_bad_effect(given: str, later: bool) -> None:
    class Bad(Reactor[Ids], id="bad"):
        """Gives a bad id."""

        @on
        def told(self, intent: Told, state: Ids, ctx: Context) -> Effects:
            return Schedule(intent, after=1, id=given) if later else Emit(intent, id=given)

    driver = Driver(Topology("ids", [Bad]))
    driver.send(Told(key="k"))
    assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"]


@pytest.mark.parametrize("later", [False, True])
def test_what_is_emitted_may_have_a_time_of_its_own(later: bool) -> None:
    at = datetime(2020, 2, 29, 12, tzinfo=UTC)

    class Timed(State):
        """When it was."""

        times_ms: list[int] = dataclasses.field(default_factory=list)

    class Times(Reactor[Timed], id="times"):
        """Gives times."""

        @on
        def ask(self, intent: Ask, state: Timed, ctx: Context) -> Effects:
            given: dict[str, Any] = {
                "aware": at,
                "number": round(at.timestamp() * 1000) + 7,
                "naive": at.replace(tzinfo=None),
                "flag": True,
                "never": 1 << 60,
            }
            told, time = Told(key=intent.key), given[intent.id]
            return Schedule(told, after=1, time=time) if later else Emit(told, time=time)

        @on
        def told(self, intent: Told, state: Timed, ctx: Context) -> Effects:
            state.times_ms.append(ctx.time_ms)
            return None

    driver = Driver(Topology("times", [Times]))
    for id_ in ("aware", "number", "naive", "flag", "never"):
        driver.send(Ask(key="k", id=id_))
    driver.advance(2)
    at_ms = round(at.timestamp() * 1000)
    assert driver.state(Times, "k") == Timed([at_ms, at_ms + 7])
    assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"] * 3
