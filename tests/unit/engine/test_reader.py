"""What becomes of a partition that there was trouble with, over the broker model."""

import asyncio
import random
from typing import Any

import pytest

from pf_stream.engine.reader import Feed, Reader
from pf_stream.kafka.batch import BatchBuilder
from tests.simulation.broker import Broker
from tests.simulation.network import METADATA, OFFSETS, Client, Network
from tests.simulation.virtual import VirtualLoop


@pytest.mark.parametrize("cut", [False, True])
def test_a_partition_that_another_look_has_cleared_meanwhile_is_not_given_up(cut: bool) -> None:
    """Its leader moved, so two look at once: the second finds it whole, and it is read beyond the end that the first has
    heard of; or what the first wanted to read is deleted once it was read."""
    dice = random.Random(1)  # noqa: S311 - to be repeated
    loop = VirtualLoop(dice)
    broker = Broker()
    network = Network(loop, broker, dice, lambda: 0)
    topic = broker.create("t", 1)
    builder = BatchBuilder(1 << 20, compress=False)
    builder.append(0, b"k", b"v", [])
    batch = builder.build()
    broker.append("t", 0, batch, 0)
    failed: list[Exception] = []
    # it asks where the partition begins; or it has heard of the end, and asks for the topic's id
    moment = [OFFSETS] if cut else [OFFSETS, OFFSETS, METADATA]

    async def look() -> None:
        link = Client(network).link()
        await link.offsets([("t", 0)], end=True)
        reader = Reader(link, gather=False)
        feed = Feed(("t", 0), 1, lambda: False, lambda chunk: None, failed.append, topic.id, doubtful=True)
        asked: list[int] = []

        def read_on(request: Any) -> None:
            asked.append(request.API_KEY)
            if feed.offset == 1 and asked[-len(moment) :] == moment:
                broker.append("t", 0, batch, 0)
                feed.offset, feed.doubtful = 2, False
                if cut:
                    topic.partitions[0].begin = 2

        reader.add(feed)
        network.carried = read_on
        await reader._look_again("t", link.leader(("t", 0)))
        assert (feed.offset, feed.doubtful) == (2, False)

    asyncio.set_event_loop(None)
    loop.run_until_complete(look())
    loop.close()
    assert failed == []
