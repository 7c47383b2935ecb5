"""Attempts to get past the capability check, by a plain client, a real broker and a worker; in memory they are in tests/unit.

All of them go into one topology, each between intents of the same keys that are right.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle

import cramjam
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata
from confluent_kafka import Message as LetterMessage

from pf_stream.core import partition_of
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.batch import BatchBuilder, stamp
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.link import Link
from pf_stream.model import Topology
from tests.hostile.attempts import attempts_by_theme
from tests.hostile.memory import Traces, alone
from tests.hostile.scene import ROOTS, Attempt, Message, Scene
from tests.hostile.target import LoanCap, hostile
from tests.kafka._support import (
    connection,
    durable,
    header_list,
    headers_of,
    in_thread,
    make_topics,
    now_ms,
    read_topic,
    wait_until,
)

Place = tuple[str, int, int]


@pytest.fixture
def servers() -> Iterator[str]:
    """A broker in which nobody else makes topics."""
    with DevBroker.temporary() as broker:
        yield broker.bootstrap_servers


def test_no_attempt_gets_past_and_no_right_intent_is_lost(servers: str, unique: str) -> None:
    topology = hostile.within(unique)
    scene = Scene(unique, now_ms())
    admin = Admin(connection(servers))
    producers_time = {"message.timestamp.type": "CreateTime", "max.message.bytes": "4194304"}
    admin.create([NewTopicSpec(scene.files, topology.partitions, producers_time)], 1)
    make_topics(servers, topology)
    topics = set(admin.names())
    attempts = [attempt for theme in attempts_by_theme(scene).values() for attempt in theme]
    assert len(attempts) >= 150

    with in_thread(servers, topology, roots=ROOTS) as worker:
        expected, right = asyncio.run(attack(servers, scene, attempts))
        wait_until(lambda: same(worker.refused.total(), len(attempts)), 100)
        wait_until(lambda: all_is_decided(servers, admin, topology), 100)
        assert worker.refused == Counter(attempt.code for attempt in attempts)

    letters = [
        message
        for topic in (scene.intents, scene.files, scene.totals)
        for message in read_topic(servers, f"{topic}.dlq")
    ]
    told: dict[Place, list[str]] = {}
    for letter in letters:
        place, code = origin_of(letter)
        told.setdefault(place, []).append(code)
        if place in expected:
            assert contents(letter) == contents_without_context(expected[place].message)
    found = {place: (expected[place].name if place in expected else "right", codes) for place, codes in told.items()}
    assert found == {place: (attempt.name, [attempt.code]) for place, attempt in expected.items()}

    written = Counter(
        (topic, message.key(), message.value())
        for topic in (scene.totals, f"{scene.intents}.rerouted", f"{scene.files}.rerouted", f"{unique}.replies")
        for message in read_topic(servers, topic)
        if (topic, message.partition(), message.offset()) not in expected
    )
    assert Traces(durable(servers, topology).states, written) == alone(scene, right)
    assert set(admin.names()) - topics <= {"__consumer_offsets", "__transaction_state"}


def test_large_headers_that_are_copied_hold_nobody_up(bootstrap_servers: str, unique: str) -> None:
    """Who may report for one carrier must not be able to stop the lane that another's gates are in.

    Batches that are small as their producer compressed them have many intents whose outputs would be large.
    """
    topology = hostile.within(unique)
    scene = Scene(unique, now_ms())
    make_topics(bootstrap_servers, topology)
    plain = scene.departed(scene.ua).plus(("pf-reply-to", f"{unique}.replies".encode()))
    partition = partition_of(plain.key or b"", hostile.partitions)
    gates = map(str, range(99))
    other = next(one for one in (scene.departed(scene.dl, "DL", gate) for gate in gates) if is_in(partition, one))
    batches = []
    for name in ("traceparent", "ce_time", "pf-correlation-id", "ce_id"):
        large = plain.having((name, secrets.token_bytes(1_000_000)))
        builder = BatchBuilder(64 << 20, compress=False)
        for _ in range(30):
            builder.append(0, large.key, large.value, list(large.headers))
        batches.append(compressed(builder.build()))

    with in_thread(bootstrap_servers, topology, roots=ROOTS) as worker:
        for batch in batches:
            assert worker.run(append(bootstrap_servers, (scene.intents, partition), batch)) == "NoError"
        asyncio.run(produce(bootstrap_servers, [other]))
        wait_until(lambda: same(worker.state("totals", "DL"), {"departed": 1, "delay": 1}), 100)
        wait_until(lambda: same(worker.state("totals", "UA"), {"departed": 120, "delay": 120}), 100)


def test_no_producer_says_that_the_broker_dated_a_record(bootstrap_servers: str, unique: str) -> None:
    """Whether a time is the broker's is a bit of the batch, by which a token is judged: it is the broker that sets it."""
    topology = hostile.within(unique)
    scene = Scene(unique, now_ms())
    admin = Admin(connection(bootstrap_servers))
    admin.create([NewTopicSpec(scene.files, topology.partitions, {"message.timestamp.type": "CreateTime"})], 1)
    make_topics(bootstrap_servers, topology)
    expired = scene.mint(LoanCap.write("/ann/**"), now_ms=scene.now_ms - 120_000, lifetime_s=60)
    stored = scene.stored(expired)
    builder = BatchBuilder(1 << 20, compress=False)
    builder.append(scene.now_ms - 90_000, stored.key, stored.value, list(stored.headers))
    plain = builder.build()
    with in_thread(bootstrap_servers, topology, roots=ROOTS) as worker:
        for batch in (bytearray(plain), bytearray(compressed(plain))):
            batch[22] |= 8
            worker.run(append(bootstrap_servers, (scene.files, 0), stamp(bytes(batch), -1, -1, -1)))
        wait_until(lambda: same(worker.refused, Counter(token_expired=2)), 60)
        assert worker.state("shelves", "ann") is None


def is_in(partition: int, message: Message) -> bool:
    """Whether a record's key lives in a partition."""
    return partition_of(message.key or b"", hostile.partitions) == partition


def compressed(plain: bytes) -> bytes:
    """A record batch as a producer may compress it that tries harder than we do."""
    body = bytes(cramjam.zstd.compress(plain[61:], level=9))
    head = bytearray(plain[:61])
    head[8:12] = (49 + len(body)).to_bytes(4, "big")
    head[21:23] = (4).to_bytes(2, "big")
    return stamp(bytes(head) + body, -1, -1, -1)


async def append(bootstrap_servers: str, where: tuple[str, int], batch: bytes) -> str:
    """Append a record batch as it is; the name of the broker's answer."""
    link = await Link.connect(connection(bootstrap_servers))
    try:
        await link.watch([where[0]])
        leader = link.leader(where)
        assert leader is not None
        error = (await link.produce(leader, [(where, batch)]))[where].error
        return "NoError" if error is None else type(error).__name__
    finally:
        await link.close()


async def produce(bootstrap_servers: str, messages: Sequence[Message]) -> None:
    """Append records, in order."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        for message in messages:
            partition = partition_of(message.key or b"", hostile.partitions)
            await producer.send(message.topic, message.value, message.key, partition, headers=list(message.headers))
        await producer.flush()


def origin_of(letter: LetterMessage) -> tuple[Place, str]:
    """Where a refused record lies, and the code."""
    headers = headers_of(letter)
    names = ("__streams.errors.topic", "__streams.errors.partition", "__streams.errors.offset", "pf-error-code")
    topic, partition, offset, code = ((headers[name] or b"").decode() for name in names)
    return (topic, int(partition), int(offset)), code


def contents(letter: LetterMessage) -> Message:
    """A dead letter as it was sent, without what was added; confluent-kafka cuts the names of headers at a NUL."""
    headers = header_list(letter)
    added = [name for name, _ in headers].index("__streams.errors.exception")
    return Message("", letter.key(), letter.value(), tuple(headers[:added]))


def contents_without_context(message: Message) -> Message:
    """What a dead letter keeps of a message."""
    kept = tuple(
        (name.partition("\0")[0], value)
        for name, value in message.headers
        if name.lower() not in {"pf-context", "pf-revocation-ids"}
    )
    return Message("", message.key, message.value, kept)


async def attack(
    bootstrap_servers: str, scene: Scene, attempts: Sequence[Attempt]
) -> tuple[dict[Place, Attempt], list[Message]]:
    """Send all attempts and what is right in between; returns where which attempt lies, and what was right."""
    right: list[Message] = []
    placed: dict[str, asyncio.Future[RecordMetadata]] = {}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, max_request_size=4 << 20)

    async def send(message: Message, partition: int | None = None) -> asyncio.Future[RecordMetadata]:
        chosen = message.partition if message.partition is not None else partition
        if chosen is None:
            chosen = partition_of(message.key or b"", hostile.partitions)
        sent: asyncio.Future[RecordMetadata] = await producer.send(
            message.topic,
            message.value,
            message.key,
            chosen,
            message.timestamp_ms,
            list(message.headers),
        )
        return sent

    async with producer:
        for attempt, other in zip(attempts, cycle(scene.right), strict=False):
            right.append(other)
            await send(other)
            first = attempt.first
            if first is not None:
                right.append(first)
                await send(first)
            # Behind what came first, in the same lane: a refused record is not sent on, wherever its key lives.
            near = None if first is None else partition_of(first.key or b"", hostile.partitions)
            placed[attempt.name] = await send(attempt.message, near)
        await producer.flush()
    places = {}
    for attempt in attempts:
        at = await placed[attempt.name]
        places[at.topic, at.partition, at.offset] = attempt
    return places, right


def all_is_decided(bootstrap_servers: str, admin: Admin, topology: Topology) -> None:
    """Fail unless every record of every source topic is decided, and all that follows from that is sent."""
    found = durable(bootstrap_servers, topology)
    assert found.outbox == []
    ends = admin.offsets({(topic, partition) for _, topic, partition in found.watermarks}, "end")
    assert {at: found.watermarks[at] for at in found.watermarks} == {at: ends[at[1:]] for at in found.watermarks}


def same(found: object, wanted: object) -> None:
    assert found == wanted
