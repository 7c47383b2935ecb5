"""What lanes that begin together find out together, over the broker model."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from pf_stream.core import PartitionCountError, changelog, plan
from pf_stream.core.header import Header
from pf_stream.engine.siblings import Siblings
from pf_stream.kafka.batch import BatchBuilder
from tests.simulation.broker import Broker
from tests.simulation.network import Client, Network
from tests.simulation.virtual import VirtualLoop
from tests.unit.core.kit import NOW_MS, boxes

PARTITIONS = 20
(GROUP,) = (group for group in plan(boxes, PARTITIONS) if group.name == "intents")
(SMALLER,) = (group for group in plan(boxes, PARTITIONS // 2) if group.name == "intents")


class Counting(Client):
    """Counts what it sends."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.sent: list[str] = []

    async def send(self, node: int, request: Any, *, group: object = None) -> Any:
        self.sent.append(type(request).__name__)
        return await super().send(node, request, group=group)


class World:
    """Lanes that have a fence and nothing else, as new ones have."""

    def __init__(self) -> None:
        dice = random.Random(1)  # noqa: S311 - to be repeated
        self.loop = VirtualLoop(dice)
        self.broker = Broker()
        self.broker.create(GROUP.changelog, PARTITIONS, compact=True)
        self.source = GROUP.sources[0].topic
        self.broker.create(self.source, PARTITIONS)
        self.client = Counting(Network(self.loop, self.broker, dice, lambda: NOW_MS))
        for number in range(PARTITIONS):
            self.write(number, changelog.FENCE, b"{}")

    def write(self, number: int, key: bytes, value: bytes) -> None:
        builder = BatchBuilder(1 << 20, compress=False)
        builder.append(1, key, value, [])
        assert self.broker.append(GROUP.changelog, number, builder.build(), 0).code == 0

    def write_header(self, number: int, group: Any) -> None:
        self.write(number, changelog.HEADER, Header.of(group, "life", None).encode())

    def run(self, work: Callable[[Siblings], Coroutine[Any, Any, None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(1_000):
                await work(Siblings(GROUP, self.client.link()))

        self.loop.run_until_complete(bounded())

    @property
    def fetches(self) -> int:
        return sum("Fetch" in name for name in self.client.sent)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.loop.close()


async def a_moment() -> None:
    await asyncio.sleep(0.001)


def test_lanes_that_begin_together_share_their_looks(world: World) -> None:
    async def work(siblings: Siblings) -> None:
        await asyncio.gather(*(siblings.check() for _ in range(PARTITIONS)))

    world.run(work)
    assert world.fetches == 2 * PARTITIONS  # that of the first, and one that began after all the others had come


def test_a_lane_of_fewer_partitions_is_found(world: World) -> None:
    async def work(siblings: Siblings) -> None:
        await siblings.check()
        world.write_header(7, SMALLER)
        found = await asyncio.gather(*(siblings.check() for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in found] == [PartitionCountError] * 3

    world.run(work)


def test_one_header_tells_for_all(world: World) -> None:
    async def work(siblings: Siblings) -> None:
        world.write_header(0, GROUP)
        await siblings.check()

    world.run(work)
    assert world.fetches == 1


def test_a_look_that_began_before_does_not_count(world: World) -> None:
    async def work(siblings: Siblings) -> None:
        first = asyncio.create_task(siblings.check())
        while world.fetches < 3:
            await a_moment()
        world.write_header(0, SMALLER)  # where the look is past already
        with pytest.raises(PartitionCountError):
            await siblings.check()
        await first

    world.run(work)


def test_who_gives_up_takes_nobody_along(world: World) -> None:
    async def work(siblings: Siblings) -> None:
        first, second = (asyncio.create_task(siblings.check()) for _ in range(2))
        while world.fetches < 3:
            await a_moment()
        first.cancel()
        await second
        assert first.cancelled()

    world.run(work)
    assert world.fetches == 3 + PARTITIONS


def test_topics_are_asked_for_together_and_anew_by_who_comes_later(world: World) -> None:
    async def work(siblings: Siblings) -> None:
        found = await asyncio.gather(*(siblings.topics() for _ in range(PARTITIONS)))
        assert {one[world.source].id for one in found} == {world.broker.topics[world.source].id}
        assert len(world.client.sent) == 2
        world.broker.delete(world.source)
        world.broker.create(world.source, PARTITIONS)
        again = await siblings.topics()
        assert again[world.source].id == world.broker.topics[world.source].id != found[0][world.source].id

    world.run(work)
