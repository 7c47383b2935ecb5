"""Sinks through the driver: what is handed over, what a strategy decides, and what comes again after a crash."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import pytest

from pf_stream import (
    PUBLIC,
    Buffer,
    Context,
    Delivered,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    RetryInPlace,
    Sink,
    State,
    Topology,
    on,
)
from pf_stream.errors import NotFoundError
from pf_stream.testing import Driver


class Came(Intent, name="came", requires=PUBLIC):
    """Something came."""

    number: int
    key: Annotated[str, Key] = "k"


class Kept(Intent, name="kept", topic="kept", requires=PUBLIC):
    """It goes to the sink."""

    number: int
    key: Annotated[str, Key]


class Nothing(State):
    """How often."""

    n: int = 0


class Pass(Reactor[Nothing], id="pass"):
    """Counts, and passes on."""

    @on
    def came(self, intent: Came, state: Nothing, ctx: Context) -> Effects:
        state.n += 1
        return Emit(Kept(number=intent.number, key=intent.key))


class Shop:
    """A consumer; raises at numbers that it does not like, and at the first calls if it is told so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.sources: list[str] = []
        self.bad: set[int] = set()
        self.fails = 0

    async def __call__(self, batch: Sequence[Delivered[Kept]]) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("away")
        if self.bad & {one.intent.number for one in batch}:
            raise ValueError("a bad one")
        self.batches.append([one.intent.number for one in batch])
        self.sources += [one.source for one in batch]

    @property
    def got(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


def shop(to: Shop, buffer: Buffer | None = None, batch: int = 500) -> Topology:
    sink = Sink("shop", of=Kept, to=to, buffer=buffer or Buffer(), batch=batch, on_error=RetryInPlace(3, 2.0))
    return Topology("shop", [Pass], internal=["kept"], emits=[Kept], sinks=[sink])


def sent(driver: Driver, count: int) -> None:
    for number in range(1, count + 1):
        driver.send(Came(number=number))


def test_nothing_is_handed_over_before_a_test_says_so() -> None:
    to = Shop()
    driver = Driver(shop(to, batch=2))
    sent(driver, 5)
    assert to.got == []
    assert driver.sink_counts("shop").accepted == 5
    assert driver.drain("shop") == 5
    assert to.batches == [[1, 2], [3, 4], [5]]
    assert driver.drain() == 0
    assert len(set(to.sources)) == 5


@pytest.mark.parametrize(
    ("buffer", "got", "dropped"),
    [
        (Buffer(records=3, strategy="drop_oldest"), [3, 4, 5], {"oldest": 2}),
        (Buffer(records=3, strategy="drop_newest"), [1, 2, 3], {"newest": 2}),
        (Buffer(records=3), [1, 2, 3, 4, 5], {}),
        (Buffer(records=3, strategy="buffer"), [1, 2, 3, 4, 5], {}),
        (Buffer(records=5, strategy="sample", mark=0.4, keep=2), [1, 2, 4], {"sampled": 2}),
    ],
    ids=lambda value: value.strategy if isinstance(value, Buffer) else "",
)
def test_s24_what_a_full_buffer_means(buffer: Buffer, got: list[int], dropped: dict[str, int]) -> None:
    """S24: five events into room for three."""
    to = Shop()
    driver = Driver(shop(to, buffer))
    sent(driver, 5)
    counts = driver.sink_counts("shop")
    assert counts.accepted == {"block": 3, "buffer": 5, "drop_oldest": 5}.get(buffer.strategy, 3)
    driver.advance(7)
    driver.drain("shop")
    counts = driver.sink_counts("shop")
    assert (to.got, counts.dropped) == (got, Counter(dropped))
    assert (counts.paused_s == 7) == (buffer.strategy == "block"), "it was full for so long"
    assert (counts.spilled > 0) == (buffer.strategy == "buffer")
    state = driver.state(Pass, "k")
    assert state is not None
    assert state.n == 5, "dropping never touches state"


def test_s24_a_throttled_one_gets_one_per_interval() -> None:
    """S24."""
    to = Shop()
    driver = Driver(shop(to, Buffer(strategy="throttle", rate=2)))
    sent(driver, 3)
    steps = []
    for _ in range(4):
        steps.append(driver.drain("shop"))
        driver.advance(0.25)
    assert steps == [1, 0, 1, 0]
    driver.advance(1)
    assert driver.drain() == 1


def test_s23_ten_into_five_is_backpressure() -> None:
    """S23: what does not fit waits in the topic, and the rate falls."""
    to = Shop()
    driver = Driver(shop(to, Buffer(records=5, strategy="adaptive", min_rate=100)))
    sent(driver, 10)
    driver.advance(1)
    assert driver.sink_counts("shop").slowed > 0
    assert driver.sink_counts("shop").accepted == 5
    assert driver.drain() == 10
    assert to.got == list(range(1, 11))


def test_s23_an_adaptive_one_follows_how_long_the_consumer_takes() -> None:
    """S23: nearly full, the rate falls each second; each batch that takes too long halves the next one."""
    to = Shop()
    driver = Driver(shop(to, Buffer(records=40, strategy="adaptive", rate=100, min_rate=10, slow_s=1), batch=40))
    sent(driver, 60)
    driver.advance(2)
    driver.advance(1)
    assert driver.sink_counts("shop").slowed >= 2, "it was nearly full for a second, and another one"
    driver.drain("shop", takes_s=3)
    assert [len(batch) for batch in to.batches[:2]] == [40, 20]
    assert driver.sink_counts("shop").halved >= 1
    assert to.got == list(range(1, 61))


def test_it_gets_a_batch_again_after_a_pause_and_then_half_of_it() -> None:
    to = Shop()
    driver = Driver(shop(to, batch=4))
    sent(driver, 4)
    to.fails, began = 2, driver.now
    driver.drain("shop")
    assert (driver.now - began).total_seconds() == 2 + 4
    assert to.batches == [[1, 2, 3, 4]]
    to.bad, began = {2}, driver.now
    sent(driver, 4)
    assert driver.drain("shop") == 3
    assert (driver.now - began).total_seconds() == 2 * (2 + 4)
    assert to.batches[1:] == [[1], [3, 4]]
    (letter,) = driver.dead_letters()
    assert (letter.code, letter.message) == ("sink_failed", "shop: ValueError: a bad one")
    assert driver.outputs("kept.dlq") == [letter.record]
    counts = driver.sink_counts("shop")
    assert (counts.handed, counts.dead_letters, counts.failures) == (7, 1, 2 + 3 + 1 + 3)


def test_a_consumer_that_is_away_for_a_moment_while_a_batch_is_halved_loses_nothing() -> None:
    to = Shop()
    driver = Driver(shop(to, batch=2))
    sent(driver, 2)
    to.fails = 4
    assert driver.drain("shop") == 2
    assert to.batches == [[1], [2]]
    assert driver.dead_letters() == []


@pytest.mark.parametrize("seed", range(20))
def test_after_crashes_nothing_is_missing_and_all_is_in_order(seed: int) -> None:
    to = Shop()
    driver = Driver(shop(to, Buffer(records=4), batch=3), seed=seed)
    driver.after_action = lambda action: driver.crash() if seed % 3 == 0 and action.kind == "commit" else None
    for number in range(1, 21):
        driver.send(Came(number=number))
        if number % 4 == 0:
            driver.drain("shop")
            driver.crash()
    driver.drain("shop")
    assert list(dict.fromkeys(to.got)) == list(range(1, 21))
    again = [source for source, count in Counter(to.sources).items() if count > 1]
    assert len(to.got) == 20 + sum(Counter(to.sources)[source] - 1 for source in again), "what comes again is known"


def test_some_seed_hands_a_batch_over_again() -> None:
    repeated = 0
    for seed in range(8):
        to = Shop()
        driver = Driver(shop(to), seed=seed)
        sent(driver, 3)
        driver.drain()
        driver.crash()
        driver.drain()
        assert to.got in ([1, 2, 3], [1, 2, 3, 1, 2, 3])
        repeated += len(to.got) == 6
    assert 0 < repeated < 8


def test_a_redeployed_sink_goes_on_where_it_was() -> None:
    first, second = Shop(), Shop()
    driver = Driver(shop(first))
    sent(driver, 2)
    driver.drain()
    driver.redeploy(shop(second))
    driver.send(Came(number=3))
    driver.drain()
    assert (first.got, second.got) == ([1, 2], [3])


def test_a_sink_that_there_is_not() -> None:
    driver = Driver(shop(Shop()))
    with pytest.raises(NotFoundError, match="topology 'shop' has no sink 'shpo'; did you mean 'shop'"):
        driver.drain("shpo")
