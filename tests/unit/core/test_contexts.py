"""What an emitted intent may do: never more than its sender, and no more than it needs."""

from typing import Annotated

from pf_stream import Capability, Context, Effects, Emit, Intent, Key, Reactor, State, Topology, on, operation
from pf_stream.security import MAX_BLOCKS, attenuate, describe
from pf_stream.testing import Driver
from tests.unit.core.kit import Box, BoxCap, Boxes, Ping, Put, Room, Rooms, boxes


class ChainCap(Capability):
    """One operation for each link."""

    first = operation()
    second = operation()
    third = operation()


class First(Intent, name="chain.first", requires=ChainCap.first("/{key}")):
    """From outside."""

    key: Annotated[str, Key]


class Second(Intent, name="chain.second", topic="seconds", requires=ChainCap.second("/{key}")):
    """From the first one's handler."""

    key: Annotated[str, Key]


class Third(Intent, name="chain.third", topic="thirds", requires=ChainCap.third("/{key}")):
    """From the second one's handler."""

    key: Annotated[str, Key]


class Link(State):
    """How often, and for whom."""

    count: int = 0
    subject: str = ""
    tenant: str | None = None


class Ones(Reactor[Link], id="ones"):
    """The first link."""

    @on
    def first(self, intent: First, state: Link, ctx: Context) -> Effects:
        state.count += 1
        return Emit(Second(key=intent.key))


class Twos(Reactor[Link], id="twos"):
    """The second link."""

    @on
    def second(self, intent: Second, state: Link, ctx: Context) -> Effects:
        state.count += 1
        state.subject, state.tenant = ctx.subject, ctx.tenant
        return Emit(Third(key=intent.key))


class Threes(Reactor[Link], id="threes"):
    """The third link."""

    @on
    def third(self, intent: Third, state: Link, ctx: Context) -> None:
        state.count += 1


CHAIN = Topology("chain", [Ones, Twos, Threes], internal=["seconds", "thirds"])


def test_it_is_the_senders_narrowed_to_what_may_follow() -> None:
    driver = Driver(boxes)
    driver.send(Put(box="b"), driver.context(BoxCap.own("/**"), subject="ann", tenant="acme"))
    (moved,) = driver.outputs("moves")
    seen = describe(moved.header("pf-context") or b"")
    assert seen.blocks == 2
    assert (seen.subject, seen.tenant) == ("ann", "acme")
    assert seen.in_profile
    assert seen.intent_types == frozenset({"box.moved.v1", "box.pong.v1"}), "all that may follow on internal topics"
    assert seen.topics == frozenset({"box.moves"})
    assert [[str(grant) for grant in grants] for grants in seen.narrowed_to] == [["BoxCap.put:/*/*"]]


def test_it_cannot_be_used_elsewhere() -> None:
    """Whoever reads it on an internal topic cannot send with it what its owner could."""
    driver = Driver(boxes)
    driver.send(Put(box="b"), driver.context(BoxCap.own("/**")))
    (moved,) = driver.outputs("moves")
    driver.send(Put(box="b"), (moved.header("pf-context") or b"").decode())
    assert [letter.code for letter in driver.dead_letters()] == ["wrong_intent_type"]


def test_one_is_made_for_each_token() -> None:
    driver = Driver(boxes)
    ann, bob = (driver.context(BoxCap.put("/**"), subject=subject) for subject in ("ann", "bob"))
    for token in (ann, bob, ann, bob, ann):
        driver.send(Put(box="b"), token)
    assert len({moved.header("pf-context") for moved in driver.outputs("moves")}) == 2


def test_none_is_made_of_none() -> None:
    driver = Driver(boxes)
    driver.send(Ping(box="b", rounds=1))
    assert [moved.header("pf-context") for moved in driver.outputs("moves")] == [None, None]
    assert driver.state(Rooms, "b") == Room(pongs=2)


def test_what_the_sender_may_not_do_its_emitted_intents_may_not_either() -> None:
    driver = Driver(CHAIN)
    driver.send(First(key="k"), driver.context(ChainCap.first("/k")))
    assert driver.state(Ones, "k") == Link(count=1)
    assert driver.state(Twos, "k") is None
    assert [(letter.code, letter.topic) for letter in driver.dead_letters()] == [
        ("insufficient_capabilities", "chain.seconds")
    ]


def test_who_asked_is_known_behind_the_first_hop() -> None:
    driver = Driver(CHAIN)
    token = driver.context(ChainCap.first("/k"), ChainCap.second("/*"), subject="ann", tenant="acme")
    driver.send(First(key="k"), token)
    assert driver.state(Twos, "k") == Link(count=1, subject="ann", tenant="acme")


def test_a_chain_of_two_emitted_intents() -> None:
    driver = Driver(CHAIN)
    driver.send(First(key="k"), driver.context(ChainCap.first("/k"), ChainCap.second("/k"), ChainCap.third("/k")))
    assert driver.state(Threes, "k") == Link(count=1)


def test_a_token_that_cannot_be_narrowed_is_not_handed_on() -> None:
    """Any holder can narrow one until it has all the blocks that it may have. The emitted intent is refused where it arrives."""
    driver = Driver(boxes)
    good = driver.context(BoxCap.put("/**"))
    token = good
    for _ in range(MAX_BLOCKS - 1):
        token = attenuate(token, driver.roots, topics=["box.intents", "box.moves"])
    driver.send(Put(box="b", item="x"), token)
    assert driver.state(Boxes, "b") == Box(items=["x"], weight=1)
    assert [(letter.code, letter.topic) for letter in driver.dead_letters()] == [("missing_context", "box.moves")]
    driver.send(Put(box="b", item="y"), good)
    assert driver.state(Rooms, "attic") == Room(items=["y"]), "the lane goes on"
