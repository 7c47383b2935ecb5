"""What a sink takes in of a fetch, over the broker model."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from pf_stream.core.drain import Drain
from pf_stream.core.records import SourceRecord
from pf_stream.engine.intake import Intake
from pf_stream.engine.reader import Reader
from pf_stream.kafka.batch import BatchBuilder, Chunk
from tests.simulation.broker import Broker
from tests.simulation.network import Client, Network
from tests.simulation.virtual import VirtualLoop
from tests.unit.core.test_drain import drain_of, record


def take_in(drain: Drain, broker: Broker) -> None:
    """What the first batch of the topic brings."""
    dice = random.Random(1)  # noqa: S311 - to be repeated
    loop = VirtualLoop(dice)
    network = Network(loop, broker, dice, lambda: 0)
    topic = broker.topics["drain.kept"]

    async def take() -> None:
        link = Client(network).link()
        intake = Intake(drain, ("drain.kept", 0), topic.id, Reader(link, gather=False), link, asyncio.Event())
        intake._feed.deliver(Chunk(topic.partitions[0].log[0], (), "drain.kept-0"))
        running = asyncio.create_task(intake.run())
        await intake.filled.wait()
        intake.stop()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.set_event_loop(None)
    loop.run_until_complete(take())
    loop.close()


def broker_with(*batches: Sequence[SourceRecord]) -> Broker:
    broker = Broker()
    broker.create("drain.kept", 1, compact=True)
    for batch in batches:
        builder = BatchBuilder(1 << 20, compress=False)
        for one in batch:
            builder.append(0, one.key, one.value, list(one.headers))
        broker.append("drain.kept", 0, builder.build(), 0)
    return broker


def test_of_a_batch_that_begins_before_the_offset_the_rest_is_taken() -> None:
    """A fetch brings whole batches: what was handed over in another life stands before what is asked for."""
    drain = drain_of()
    drain.pass_to(2)
    take_in(drain, broker_with([record(offset) for offset in range(4)]))
    assert [one.offset for one in drain.take(0.0)] == [2, 3]
    assert (drain.next, drain.counts.repeats) == (4, 0)


def test_what_a_batch_does_not_have_any_more_is_passed() -> None:
    """Else a sink would seem to lag for ever behind what was compacted away."""
    gone = SourceRecord(1, 0, b"gone", None, ())
    broker = broker_with([record(0), gone], [gone])
    (partition,) = broker.topics["drain.kept"].partitions
    partition.compact(tombstones=True)
    assert [one.offset for one in partition.records()] == [0, 2]
    drain = drain_of()
    take_in(drain, broker)
    assert (len(drain.queue), drain.next) == (1, 2)
