"""A replica over the broker model: it keeps up, goes on where it was, and knows when it may have missed deletions."""

import asyncio
import random
from collections.abc import Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pf_stream.core import Authority, Lane, Limits, changelog, plan
from pf_stream.core.shelf import Shelf
from pf_stream.engine.lease import acquire
from pf_stream.engine.reader import Reader
from pf_stream.engine.replica import Replica
from pf_stream.engine.shared import Shared
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.security import TrustRoots, Verifier
from tests.simulation.broker import Broker
from tests.simulation.disk import Disk
from tests.simulation.network import Client, Network, Trouble
from tests.simulation.virtual import VirtualLoop
from tests.unit.core.kit import KEY, NOW_MS, boxes

(GROUP,) = (group for group in plan(boxes, 1) if group.name == "intents")
LOG = GROUP.changelog, 0
KEPT_MS = 60_000
"""How long deletions are kept."""


class Clock:
    def __init__(self, loop: VirtualLoop) -> None:
        self.ahead_ms = 0
        self._loop = loop

    def now_ms(self) -> int:
        return NOW_MS + self.ahead_ms + round(self._loop.time() * 1000)


def state(box: str) -> bytes:
    return changelog.state_key(changelog.state_prefix("boxes"), box.encode())


class World:
    """A changelog that somebody writes, and a worker that reads it."""

    def __init__(self, *, lasting: bool) -> None:
        dice = random.Random(1)  # noqa: S311 - to be repeated
        self.loop = VirtualLoop(dice)
        self.broker = Broker()
        self.broker.create(GROUP.changelog, 1, compact=True)
        self.broker.topics[GROUP.changelog].delete_retention_ms = KEPT_MS
        self.partition = self.broker.topics[GROUP.changelog].partitions[0]
        self.clock = Clock(self.loop)
        self.disk = Disk(dice) if lasting else None
        self.network = Network(self.loop, self.broker, dice, self.clock.now_ms)
        self.sequence = 0
        self._reading: asyncio.Task[None] | None = None

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            try:
                async with asyncio.timeout(1_000_000):
                    await work
            finally:
                if self._reading is not None:
                    self._reading.cancel()
                    await asyncio.gather(self._reading, return_exceptions=True)

        self.loop.run_until_complete(bounded())

    async def start(self) -> None:
        control, following = Client(self.network).link(), Client(self.network).link()
        await following.watch([GROUP.changelog])
        reader = Reader(following, gather=True)
        self._reading = asyncio.create_task(reader.run())
        self.shared = cast(
            "Shared",
            SimpleNamespace(control=control, follower=reader, clock=self.clock, depot=self.disk),
        )

    async def replica(self) -> Replica:
        return await Replica.open(self.lane, LOG, self.partition.end, self.shared)

    def lane(self, shelf: Shelf | None) -> Any:
        authority = Authority(Verifier(TrustRoots.of(KEY), "box"))
        return Lane(GROUP, 0, authority, Limits(), shelf=shelf)

    def write(self, **boxes_: str | None) -> None:
        """A unit."""
        self.sequence += 1
        builder = BatchBuilder(1 << 20, compress=False)
        for box, value in boxes_.items():
            raw = None if value is None else changelog.pack_state(1, b'{"items":["%s"]}' % value.encode())
            builder.append(1, state(box), raw, [])
        builder.append(1, changelog.UNIT, changelog.UNIT_VALUE.pack(self.sequence, 0), [])
        assert self.broker.append(*LOG, builder.build(), 0).code == 0

    async def take(self) -> int:
        """A lease; its fence."""
        appender = Appender(self.shared.control)
        lease = await acquire(self.shared.control, appender, LOG, "w", self.clock.now_ms())
        await appender.close()
        return lease.fence


def is_stale(replica: Replica) -> bool:
    return replica.is_stale


def lag(replica: Replica) -> int | None:
    return replica.lag


def stored(replica: Replica, *names: str) -> list[bytes | None]:
    return [replica.lane.stored("boxes", name.encode()) for name in names]


def items(value: str) -> bytes:
    return b'{"items":["%s"]}' % value.encode()


@pytest.fixture(params=["memory", "disk"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(lasting=request.param == "disk")
    yield world
    world.loop.close()


async def follow(replica: Replica) -> "asyncio.Task[None]":
    """Let it follow until it has caught up."""

    def failed(error: Exception) -> None:
        raise error

    task = asyncio.create_task(replica.follow(failed))
    while lag(replica) != 0:
        await asyncio.sleep(0.01)
        assert not task.done()
    return task


async def end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_it_follows_and_then_reads_the_rest_alone(world: World) -> None:
    async def work() -> None:
        await world.start()
        world.write(a="1", b="2")
        replica = await world.replica()
        assert lag(replica) is None
        following = await follow(replica)
        world.write(a="3", c="4")
        await asyncio.sleep(1)
        assert (lag(replica), replica.position) == (0, world.partition.end)
        assert stored(replica, "a", "b", "c") == [items("3"), items("2"), items("4")]
        await end(following)
        world.write(b=None, d="5")
        before_ms = world.clock.now_ms()
        fence = await world.take()
        assert await replica.catch_up(fence, before_ms, lambda _: None) == 3, "one unit"
        assert stored(replica, "a", "b", "c", "d") == [items("3"), None, items("4"), items("5")]
        assert not is_stale(replica)
        if world.disk is not None:
            shelf = world.disk.shelves[LOG]
            assert (shelf.position, shelf.at_ms) == (fence, before_ms)

    world.run(work())


def test_what_it_followed_is_on_its_shelf() -> None:
    world = World(lasting=True)

    async def work() -> None:
        assert world.disk is not None
        await world.start()
        world.write(a="1")
        following = await follow(await world.replica())
        world.write(a="2")
        await asyncio.sleep(1)
        await end(following)
        await world.disk.close()
        world.disk.crash()
        replica = await world.replica()
        assert replica.position == world.partition.end
        assert stored(replica, "a") == [items("2")]

    world.run(work())
    world.loop.close()


def test_while_it_follows_it_does_not_get_stale(world: World) -> None:
    """Though nobody writes anything for long."""

    async def work() -> None:
        await world.start()
        world.write(a="1")
        replica = await world.replica()
        following = await follow(replica)
        await asyncio.sleep(3 * KEPT_MS / 1000)
        assert not following.done()
        assert not is_stale(replica)
        await end(following)

    world.run(work())


def test_one_that_was_frozen_for_as_long_as_deletions_are_kept_is_stale(world: World) -> None:
    """What was deleted meanwhile is gone without a trace, and it would still have it."""

    async def work() -> None:
        await world.start()
        world.write(a="1", b="1")
        replica = await world.replica()
        following = await follow(replica)
        await end(following)
        world.clock.ahead_ms += KEPT_MS - 1_000
        assert not is_stale(replica)
        world.write(a=None)
        world.write(b="2")
        world.write(b="3")
        world.partition.compact(tombstones=True)
        world.clock.ahead_ms += 1_000
        assert is_stale(replica)
        assert stored(replica, "a") == [items("1")]
        replica = await world.replica()
        fence = await world.take()
        await replica.catch_up(fence, world.clock.now_ms(), lambda _: None)
        assert stored(replica, "a", "b") == [None, items("3")]

    world.run(work())


def test_it_stops_following_when_the_clock_says_so(world: World) -> None:
    """As after a suspension of the machine, in which the loop's own clock may have stood still."""

    async def work() -> None:
        await world.start()
        world.write(a="1")
        replica = await world.replica()
        following = await follow(replica)
        world.clock.ahead_ms += KEPT_MS
        await asyncio.sleep(20)
        assert following.done()
        assert is_stale(replica)

    world.run(work())


def test_a_clock_that_was_set_back_is_not_believed(world: World) -> None:
    async def work() -> None:
        await world.start()
        world.write(a="1")
        replica = await world.replica()
        await end(await follow(replica))
        world.clock.ahead_ms -= 3_600_000
        assert is_stale(replica)

    world.run(work())


@pytest.mark.parametrize("partition_bytes", [1, 1 << 20])
def test_one_that_is_interrupted_goes_on_there_and_is_not_complete(
    partition_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two fetches, and within what one has brought."""
    monkeypatch.setattr("pf_stream.engine.reader.PARTITION_BYTES", partition_bytes)
    monkeypatch.setattr("pf_stream.kafka.batch._ENTRIES", 2)
    world = World(lasting=True)

    async def work() -> None:
        await world.start()
        for number in range(20):
            world.write(**{f"b{number}": "x"})
        replica = await world.replica()
        following = asyncio.create_task(replica.follow(lambda error: None))
        while replica.position < 10:  # noqa: ASYNC110 - the moment counts
            await asyncio.sleep(0)
        await end(following)
        assert 10 <= replica.position < 40
        assert world.disk is not None
        assert world.disk.shelves[LOG].position == 0, "there is more, and what it has may have been deleted"
        left = world.partition.end - replica.position
        assert await replica.catch_up(world.partition.end, world.clock.now_ms(), lambda _: None) == left
        assert world.disk.shelves[LOG].position == world.partition.end
        assert stored(replica, "b0", "b19") == [items("x"), items("x")]

    world.run(work())
    world.loop.close()


def test_one_that_cannot_read_gets_stale(world: World) -> None:
    async def work() -> None:
        await world.start()
        world.write(a="1")
        replica = await world.replica()
        following = await follow(replica)
        world.network.trouble = Trouble(lost=1.0)
        await asyncio.sleep(KEPT_MS / 1000 + 30)
        assert following.done()
        assert is_stale(replica)

    world.run(work())
