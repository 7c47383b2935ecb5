"""What a sink takes in of a fetch, over the broker model."""

import asyncio
import random
from contextlib import suppress

from pf_stream.engine.intake import Intake
from pf_stream.engine.reader import Reader
from pf_stream.kafka.batch import BatchBuilder, Chunk
from tests.simulation.broker import Broker
from tests.simulation.network import Client, Network
from tests.simulation.virtual import VirtualLoop
from tests.unit.core.test_drain import drain_of, record


def test_of_a_batch_that_begins_before_the_offset_the_rest_is_taken() -> None:
    """A fetch brings whole batches: what was handed over in another life stands before what is asked for."""
    dice = random.Random(1)  # noqa: S311 - to be repeated
    loop = VirtualLoop(dice)
    broker = Broker()
    network = Network(loop, broker, dice, lambda: 0)
    topic = broker.create("drain.kept", 1)
    builder = BatchBuilder(1 << 20, compress=False)
    for offset in range(4):
        one = record(offset)
        builder.append(0, one.key, one.value, list(one.headers))
    batch = builder.build()
    drain = drain_of()
    drain.pass_to(2)

    async def take() -> None:
        link = Client(network).link()
        intake = Intake(drain, ("drain.kept", 0), topic.id, Reader(link, gather=False), link, asyncio.Event())
        intake._feed.deliver(Chunk(batch, (), "drain.kept-0"))
        running = asyncio.create_task(intake.run())
        await intake.filled.wait()
        intake.stop()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.set_event_loop(None)
    loop.run_until_complete(take())
    loop.close()
    assert [one.offset for one in drain.take(0.0)] == [2, 3]
    assert (drain.next, drain.counts.repeats) == (4, 0)
