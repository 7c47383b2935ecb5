"""Sinks on a real Kafka: what the topology writes reaches its consumer, however slow that is, and all else goes on."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from pf_stream import Buffer, Delivered, RetryInPlace, Sink, Topology
from tests.kafka._support import (
    TOTAL,
    Client,
    Counts,
    Totalled,
    in_thread,
    make_topics,
    name_in,
    wait_until,
)


class Consumer:
    """Notes what it gets."""

    def __init__(self) -> None:
        self.batches: list[list[Delivered[Totalled]]] = []
        self.delay_s = 0.0

    async def __call__(self, batch: Sequence[Delivered[Totalled]]) -> None:
        await asyncio.sleep(self.delay_s)
        self.batches.append(list(batch))

    @property
    def got(self) -> list[Delivered[Totalled]]:
        return [one for batch in self.batches for one in batch]


def draining(namespace: str, to: Consumer, buffer: Buffer | None = None, batch: int = 500) -> Topology:
    """Counts, with a sink for what they emit."""
    return Topology(
        "draining",
        [Counts],
        namespace=namespace,
        internal=["totals"],
        emits=[Totalled],
        partitions=2,
        sinks=[
            Sink("drain", of=Totalled, to=to, buffer=buffer or Buffer(), batch=batch, on_error=RetryInPlace(2, 0.01))
        ],
    )


def test_what_a_topology_writes_is_handed_over(bootstrap_servers: str, unique: str) -> None:
    consumer = Consumer()
    topology = draining(unique, consumer)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    names = [name_in(number % 2, topology) for number in range(20)]
    with in_thread(bootstrap_servers, topology):
        for name in names:
            client.add(name)
        client.flush()
        wait_until(lambda: len(consumer.got) == 20)
    assert Counter(one.intent.name for one in consumer.got) == Counter(names)
    first = consumer.got[0]
    assert (first.key, first.position[0]) == (TOTAL.encode(), f"{unique}.totals")
    assert len({one.source for one in consumer.got}) == 20
    for name in names[:5]:
        client.add(name)
    client.flush()
    with in_thread(bootstrap_servers, topology):
        wait_until(lambda: len(consumer.got) >= 25)
    assert len(consumer.got) == 25, "it goes on where it was"
