"""The simulation's model of the broker answers as a real one does: the same scripts on both, through the same link."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiokafka.errors as kafka_errors
import pytest

from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.batch import BatchBuilder, stamp
from pf_stream.kafka.link import ConnectionSettings, Link, Partition
from pf_stream.kafka.transaction import init_producer_id
from tests.simulation.broker import Broker
from tests.simulation.network import Client, Network
from tests.simulation.virtual import VirtualLoop

NOW_MS: Final = 1_767_225_600_000
TOPICS: Final[dict[str, dict[str, str]]] = {
    "plain": {},
    "compacted": {"cleanup.policy": "compact"},
    "small": {"max.message.bytes": "1000"},
    "stamped": {"message.timestamp.type": "LogAppendTime"},
}


class Script:
    """What a script does, and what it is answered."""

    def __init__(self, link: Link, unique: str) -> None:
        self.answers: list[object] = []
        self._link = link
        self._unique = unique

    def at(self, topic: str) -> Partition:
        return f"{self._unique}-{topic}", 0

    async def ready(self) -> None:
        """Wait until the topics have leaders."""
        await self._link.offsets([self.at(topic) for topic in TOPICS], end=True)

    async def producer(self, name: str = "t") -> tuple[int, int]:
        """A producer id with its epoch; only how they differ from the first is the same everywhere."""
        return await init_producer_id(self._link, f"{self._unique}-{name}")

    async def append(self, topic: str, producer: tuple[int, int], sequence: int, count: int = 1, **how: Any) -> None:
        await self.append_batch(topic, stamp(batch(count, **how), *producer, sequence))

    async def append_batch(self, topic: str, raw: bytes) -> None:
        at = self.at(topic)
        known = at if topic in TOPICS else self.at("plain")  # whoever is asked about a topic that is not there
        node = self._link.leader(known)
        assert node is not None
        answer = (await self._link.produce(node, [(at, raw)]))[at]
        self.answers.append(answer.offset if answer.error is None else type(answer.error).__name__)

    async def read(self, topic: str, offset: int) -> None:
        """What a fetch gives: offsets, timestamp types, keys, and where the next one goes on."""
        result = await self._link.fetch_one(self.at(topic), offset)
        if result.chunk is None:
            self.answers.append((None if result.error is None else type(result.error).__name__, result.high_watermark))
        else:
            rows = [(record.offset, record.timestamp_type, record.key) for record in result.chunk]
            self.answers.append((rows, result.chunk.next_offset, result.high_watermark))


def batch(count: int = 1, *, key: bytes | None = b"k", size: int = 0) -> bytes:
    builder = BatchBuilder(1 << 20, compress=False)
    for _ in range(count):
        builder.append(NOW_MS, key, b"x" * size, [])
    return builder.build()


async def in_order(script: Script) -> None:
    producer = await script.producer()
    await script.append("plain", producer, 0, 2)
    await script.append("plain", producer, 2, 3)
    await script.append("plain", producer, 5)
    await script.read("plain", 3)  # in the middle of a batch


async def repeats(script: Script) -> None:
    producer = await script.producer()
    for sequence in range(7):
        await script.append("plain", producer, sequence)
    await script.append("plain", producer, 6)
    await script.append("plain", producer, 2)  # the fifth last is still known
    await script.append("plain", producer, 1)  # the sixth last is not
    await script.append("plain", producer, 5, 2)  # two that were one each
    await script.append("plain", producer, 7)


async def gaps(script: Script) -> None:
    producer = await script.producer()
    await script.append("plain", producer, 0)
    await script.append("plain", producer, 2)
    await script.append("plain", producer, 1)


async def an_unknown_producer_begins_anywhere(script: Script) -> None:
    producer = await script.producer()
    await script.append("plain", producer, 7)
    await script.append("plain", producer, 8)
    await script.append("plain", producer, 0)


async def sequences_wrap(script: Script) -> None:
    producer = await script.producer()
    await script.append("plain", producer, 2**31 - 2, 3)
    await script.append("plain", producer, 1)
    await script.append("plain", producer, 2**31 - 2, 3)


async def leases(script: Script) -> None:
    """A new epoch fences nobody until the partition's leader has seen it; then it does so for good."""
    first = await script.producer()
    await script.append("compacted", first, 0)
    second = await script.producer()
    script.answers.append((second[0] == first[0], second[1] - first[1]))
    await script.append("compacted", first, 1)
    await script.append("compacted", second, 0)
    await script.append("compacted", first, 2)
    await script.append("compacted", first, 1)  # a repeat from before the fence is refused too
    await script.append("compacted", second, 1)
    await script.append("plain", first, 0)  # each partition for itself
    await script.append("plain", second, 0)


async def a_new_epoch_begins_at_0(script: Script) -> None:
    first = await script.producer()
    await script.append("plain", first, 0)
    second = await script.producer()
    await script.append("plain", second, 1)
    await script.append("plain", first, 1)
    await script.append("plain", second, 0)


async def ids_are_apart(script: Script) -> None:
    one, other = await script.producer("one"), await script.producer("other")
    script.answers.append(one[0] == other[0])
    await script.append("plain", one, 0)
    await script.append("plain", other, 0)


async def without_numbers(script: Script) -> None:
    raw = batch(2)
    await script.append_batch("plain", raw)
    await script.append_batch("plain", raw)


async def refused_batches(script: Script) -> None:
    """A refused batch leaves no trace, not even in the numbering."""
    producer = await script.producer()
    await script.append("compacted", producer, 0, key=None)
    await script.append("small", producer, 0, size=2000)
    await script.append("small", producer, 0)
    torn = bytearray(batch(1, size=10))
    torn[-1] ^= 1
    await script.append_batch("plain", bytes(torn))
    await script.append("nowhere", producer, 0)
    await script.append("compacted", producer, 0)


async def reading(script: Script) -> None:
    await script.append_batch("plain", batch(3))
    await script.append_batch("stamped", batch(2))
    for offset in (0, 2, 3, 4):
        await script.read("plain", offset)
    await script.read("stamped", 0)


SCRIPTS: Final[list[Callable[[Script], Awaitable[None]]]] = [
    in_order,
    repeats,
    gaps,
    an_unknown_producer_begins_anywhere,
    sequences_wrap,
    leases,
    a_new_epoch_begins_at_0,
    ids_are_apart,
    without_numbers,
    refused_batches,
    reading,
]


async def play(script: Callable[[Script], Awaitable[None]], link: Link, unique: str) -> list[object]:
    played = Script(link, unique)
    try:
        await played.ready()
        await script(played)
    finally:
        await link.close()
    return played.answers


async def on_the_broker(script: Callable[[Script], Awaitable[None]], servers: str, unique: str) -> list[object]:
    return await play(script, await Link.connect(ConnectionSettings(servers)), unique)


def on_the_model(script: Callable[[Script], Awaitable[None]], unique: str) -> list[object]:
    loop = VirtualLoop(random.Random(0))  # noqa: S311
    broker = Broker()
    for topic, config in TOPICS.items():
        broker.create(
            f"{unique}-{topic}",
            1,
            compact="cleanup.policy" in config,
            append_time="message.timestamp.type" in config,
            max_bytes=int(config.get("max.message.bytes", 1_048_588)),
        )
    network = Network(loop, broker, random.Random(0), lambda: NOW_MS)  # noqa: S311
    try:
        return loop.run_until_complete(play(script, Client(network).link(), unique))
    finally:
        loop.close()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.replace("_", "-"))
def test_model_and_broker_agree(
    script: Callable[[Script], Awaitable[None]], bootstrap_servers: str, unique: str
) -> None:
    admin = Admin(ConnectionSettings(bootstrap_servers))
    admin.create([NewTopicSpec(f"{unique}-{topic}", 1, config) for topic, config in TOPICS.items()], 1)
    real = asyncio.run(on_the_broker(script, bootstrap_servers, unique))
    assert on_the_model(script, unique) == real
    assert real, "the script asks for something"


def test_the_scripts_see_refusals(unique: str) -> None:
    """Agreement about nothing but successes would say little."""
    seen = {answer for script in SCRIPTS for answer in on_the_model(script, unique) if isinstance(answer, str)}
    assert seen >= {
        kafka_errors.OutOfOrderSequenceNumber.__name__,
        kafka_errors.InvalidProducerEpoch.__name__,
        kafka_errors.MessageSizeTooLargeError.__name__,
        kafka_errors.UnknownTopicOrPartitionError.__name__,
    }
