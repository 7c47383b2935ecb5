"""Clients that know nothing of pf_stream: they produce intents and read replies with what docs/protocol.md says.

Not one line of pf_stream is in their code. What they are given is what an operator would give them: addresses, a topic
name and a token.
"""

import ast
import asyncio
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

import aiokafka
import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pf_stream import Capability, Context, Effects, Intent, Key, Reactor, Reply, State, Topology, on, operation
from pf_stream.core import CODES, changelog, outbox
from pf_stream.kafka.topics import required_topics
from pf_stream.security import profile
from tests.kafka._support import (
    ROOT,
    Client,
    Counts,
    ThreadWorker,
    Totals,
    durable,
    headers_of,
    in_thread,
    make_topics,
    name_in,
    token,
    wait_until,
)


@dataclass(frozen=True)
class Given:
    """What a foreign client has in hand."""

    servers: str
    intents: str
    replies: str
    token: str


# -- the foreign clients ----------------------------------------------------------------------------------------------------


def headers(given: Given, **more: str) -> Any:
    """Headers of an intent."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"counts.added.v1"),
        ("ce_source", b"/elsewhere"),
        ("ce_id", secrets.token_hex(8).encode()),
        ("content-type", b"application/json"),
        ("pf-context", given.token.encode()),
        *((name.replace("_", "-"), value.encode()) for name, value in more.items()),
    ]


def value(name: str) -> bytes:
    """Payload of an intent."""
    return json.dumps({"name": name, "by": 1}).encode()


def produce_with_confluent(given: Given, names: list[str], **more: str) -> None:
    """librdkafka and its default partitioner, which hashes keys with CRC32."""
    producer = confluent_kafka.Producer({"bootstrap.servers": given.servers})
    for name in names:
        producer.produce(given.intents, value(name), name, headers=headers(given, **more))
    assert producer.flush(30) == 0


async def produce_with_aiokafka(given: Given, names: list[str], **more: str) -> None:
    """aiokafka and its default partitioner, which hashes keys with murmur2, as Java does."""
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=given.servers) as producer:
        waiting = [
            await producer.send(given.intents, value(name), name.encode(), headers=headers(given, **more))
            for name in names
        ]
        await asyncio.gather(*waiting)


def replies_with_confluent(given: Given, wanted: set[str]) -> dict[str, Any]:
    """Read the replies topic until every correlation id of *wanted* has come."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": given.servers, "group.id": secrets.token_hex(4), "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([given.replies])
    found: dict[str, Any] = {}
    deadline = time.monotonic() + 20
    try:
        while wanted - found.keys():
            assert time.monotonic() < deadline, f"no replies to {wanted - found.keys()}"
            message = consumer.poll(0.2)
            if message is not None and not message.error():
                head: dict[str, Any] = dict(message.headers() or [])
                found[head["pf-correlation-id"].decode()] = (head, json.loads(message.value() or b"null"))
        return found
    finally:
        consumer.close()


async def reply_with_aiokafka(given: Given, correlation: str) -> Any:
    """Ask, and read the answer."""
    async with aiokafka.AIOKafkaConsumer(
        given.replies, bootstrap_servers=given.servers, auto_offset_reset="earliest"
    ) as consumer:
        await produce_with_aiokafka(given, ["asked"], pf_reply_to=given.replies, pf_correlation_id=correlation)
        async with asyncio.timeout(20):
            async for record in consumer:
                if dict(record.headers).get("pf-correlation-id") == correlation.encode():
                    return json.loads(record.value or b"null")
    raise AssertionError


# -- what becomes of it ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(bootstrap_servers: str) -> Client:
    """Reads what there is; five partitions, so that four keys of five are misplaced by the other hash."""
    topology = Topology(
        "counts",
        [Counts, Totals],
        namespace="t" + secrets.token_hex(5),
        internal=["totals"],
        replies=["replies", "answers.*"],
        partitions=5,
    )
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


@pytest.fixture(scope="module")
def worker(bootstrap_servers: str, client: Client) -> Iterator[ThreadWorker]:
    with in_thread(bootstrap_servers, client.topology) as worker:
        yield worker


@pytest.fixture
def given(client: Client) -> Given:
    return Given(client.bootstrap_servers, client.topic, f"{client.topology.namespace}.replies", token(client.topology))


def same(found: object, wanted: object) -> None:
    assert found == wanted


def test_one_key_has_one_state_whoever_produces_it(client: Client, worker: ThreadWorker, given: Given) -> None:
    """Both default partitioners, alternating; misplaced keys are sent on, once, and every intent counts once."""
    names = [f"shared{index}" for index in range(60)]
    before = worker.total()
    for _ in range(3):
        produce_with_confluent(given, names)
        asyncio.run(produce_with_aiokafka(given, names))
    # worker.count() fails if a name has a state in more than one lane.
    wait_until(lambda: same({name: worker.count(name) for name in names}, dict.fromkeys(names, 6)))
    wait_until(lambda: same(worker.total(), before + 6 * len(names)))

    placed: dict[str, set[int | None]] = {}
    for message in client.read(client.topic):
        placed.setdefault((message.key() or b"").decode(), set()).add(message.partition())
    misplaced = {name for name in names if len(placed[name]) > 1}
    assert len(misplaced) > len(names) / 2
    rerouted = Counter((message.key() or b"").decode() for message in client.read(f"{client.topic}.rerouted"))
    assert rerouted == dict.fromkeys(misplaced, 3)
    assert not client.dead_letters()


def test_replies_are_read_back(client: Client, worker: ThreadWorker, given: Given) -> None:
    """By both clients, also where the key was misplaced; each intent has one reply."""
    names = [f"replied{index}" for index in range(10)]
    for name in names:
        produce_with_confluent(given, [name], pf_reply_to=given.replies, pf_correlation_id=f"c-{name}")
    found = replies_with_confluent(given, {f"c-{name}" for name in names})
    for name in names:
        head, data = found[f"c-{name}"]
        assert data == {"name": name, "n": 1}
        assert head["ce_specversion"] == b"1.0"
        assert head["ce_type"] == b"counts.added.reply"
        assert head["content-type"] == b"application/json"
        assert "pf-context" not in head
        assert "pf-error-code" not in head
    assert asyncio.run(reply_with_aiokafka(given, "c-aiokafka")) == {"name": "asked", "n": 1}
    answered = Counter(headers_of(message)["pf-correlation-id"] for message in client.read(given.replies))
    assert answered == {**{f"c-{name}".encode(): 1 for name in names}, b"c-aiokafka": 1}


def test_a_refusal_is_replied_too(worker: ThreadWorker, given: Given) -> None:
    """To those who have proven who they are."""
    broken = [(name, raw if name != "ce_type" else b"counts.added.v9") for name, raw in headers(given)]
    producer = confluent_kafka.Producer({"bootstrap.servers": given.servers})
    for context, correlation in ((given.token, "c-known"), ("not a token", "c-unknown")):
        head: Any = [(name, raw) for name, raw in broken if name != "pf-context"]
        head += [("pf-context", context.encode())]
        head += [("pf-reply-to", given.replies.encode()), ("pf-correlation-id", correlation.encode())]
        producer.produce(given.intents, value("x"), "x", 0, headers=head)
    # Behind both, in the same partition: when its reply is there, theirs would be.
    again = headers(given, pf_reply_to=given.replies, pf_correlation_id="c-behind")
    producer.produce(given.intents, b"no JSON", "x", 0, headers=again)
    assert producer.flush(30) == 0
    found = replies_with_confluent(given, {"c-known", "c-behind"})
    head, data = found["c-known"]
    assert head["ce_type"] == b"pf.refused"
    assert head["pf-error-code"] == b"unsupported_version"
    assert data["error"] == "unsupported_version"
    assert found["c-behind"][0]["pf-error-code"] == b"malformed_payload"
    assert "c-unknown" not in found


def test_structured_mode(client: Client, worker: ThreadWorker, given: Given) -> None:
    """The whole event in the value, CloudEvents JSON format; headers that are no attributes stay headers."""
    name = "structured"
    event = {
        "specversion": "1.0",
        "type": "counts.added.v1",
        "source": "/elsewhere",
        "id": "1",
        "datacontenttype": "application/json",
        "data": {"name": name, "by": 3},
    }
    producer = confluent_kafka.Producer({"bootstrap.servers": given.servers, "partitioner": "murmur2_random"})
    for content_type in (b"application/cloudevents+json", b"application/cloudevents+json; charset=UTF-8"):
        head: Any = [
            ("content-type", content_type),
            ("pf-context", given.token.encode()),
            ("pf-reply-to", given.replies.encode()),
            ("pf-correlation-id", b"c-structured"),
        ]
        producer.produce(given.intents, json.dumps(event), name, headers=head)
    assert producer.flush(30) == 0
    wait_until(lambda: same(worker.count(name), 6))
    head, _ = replies_with_confluent(given, {"c-structured"})["c-structured"]
    assert head["ce_id"].startswith(b"re:1")


def test_a_reply_topic_that_does_not_exist_holds_nobody_up(worker: ThreadWorker, given: Given) -> None:
    names = ["patient", "patient", "patient"]
    produce_with_confluent(given, names, pf_reply_to=f"answers.{secrets.token_hex(4)}", pf_correlation_id="c-lost")
    wait_until(lambda: same(worker.count("patient"), 3))
    produce_with_confluent(given, ["patient"], pf_reply_to=given.replies, pf_correlation_id="c-found")
    assert replies_with_confluent(given, {"c-found"})["c-found"][1] == {"name": "patient", "n": 4}


def test_a_reply_topic_that_takes_no_reply_holds_nobody_up(client: Client, worker: ThreadWorker, given: Given) -> None:
    """One whose limit a reply exceeds, and one that is deleted after it was used."""
    small, gone = (f"answers.{secrets.token_hex(4)}" for _ in range(2))
    admin = AdminClient({"bootstrap.servers": given.servers})
    made = admin.create_topics([NewTopic(small, 1, config={"max.message.bytes": "700"}), NewTopic(gone, 1)])
    for future in made.values():
        future.result(10)
    wait_until(lambda: {small, gone} <= admin.list_topics(timeout=10).topics.keys())
    to_small, to_gone = (Given(given.servers, given.intents, topic, given.token) for topic in (small, gone))

    # Both keys live in one lane, so that what follows a refused reply was numbered after it.
    long, short = (name_in(3, client.topology, prefix) for prefix in (secrets.token_hex(1000), "short"))
    produce_with_confluent(given, [short], pf_reply_to=small, pf_correlation_id="c-short")
    assert replies_with_confluent(to_small, {"c-short"})
    produce_with_confluent(given, [long], pf_reply_to=small, pf_correlation_id="c-long")
    produce_with_confluent(given, [short], pf_reply_to=small, pf_correlation_id="c-again")
    assert set(replies_with_confluent(to_small, {"c-again"})) == {"c-short", "c-again"}

    produce_with_confluent(given, ["gone"], pf_reply_to=gone, pf_correlation_id="c-once")
    assert replies_with_confluent(to_gone, {"c-once"})
    admin.delete_topics([gone])[gone].result(10)
    produce_with_confluent(given, ["gone"], pf_reply_to=gone, pf_correlation_id="c-twice")

    names = [name_in(partition, client.topology) for partition in range(5)]
    for name in names:
        produce_with_confluent(given, [name] * 30, pf_reply_to=given.replies, pf_correlation_id=f"c-{name}")
    replies_with_confluent(given, {f"c-{name}" for name in names})
    wait_until(lambda: same([worker.count(name) for name in names], [30] * 5))
    assert len(worker.lanes) == 10
    wait_until(lambda: same(durable(given.servers, client.topology).outbox, []))


# -- the page itself: docs/protocol.md ------------------------------------------------------------------------------------


PAGE = (ROOT / "docs/protocol.md").read_text()


class CounterCap(Capability):
    """Of the page's examples."""

    add = operation()


class Add(Intent, name="counter.add", requires=CounterCap.add("/{counter}")):
    """Of the page's examples."""

    counter: Annotated[str, Key]
    amount: int = 1


class Sum(State):
    """Of the page's examples."""

    total: int = 0


class Sums(Reactor[Sum], id="counter"):
    """Of the page's examples."""

    @on
    def add(self, intent: Add, state: Sum, ctx: Context) -> Effects:
        state.total += intent.amount
        return Reply({"counter": intent.counter, "total": state.total})


@pytest.fixture(scope="module")
def example(bootstrap_servers: str) -> Iterator[tuple[Topology, dict[str, str]]]:
    """The page's topology at work under a namespace of its own, and the environment of its clients."""
    topology = Topology("counter", [Sums], namespace="t" + secrets.token_hex(5), replies=["replies"], partitions=2)
    make_topics(bootstrap_servers, topology)
    context = token(topology, CounterCap.add("/apples"))
    with in_thread(bootstrap_servers, topology):
        yield topology, {**os.environ, "TOKEN": context, "BOOTSTRAP_SERVERS": bootstrap_servers}


def fence(language: str, topology: Topology) -> str:
    """The page's program in a language, with the names of this test's topics."""
    programs = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return re.sub(r"\bcounter\.(intents|replies)", rf"{topology.namespace}.\1", programs[0])


def test_the_pages_python_client_reads_its_reply(example: tuple[Topology, dict[str, str]]) -> None:
    topology, environment = example
    command = [sys.executable, "-W", "error", "-c", fence("python", topology)]
    first, second = (subprocess.check_output(command, env=environment, text=True, timeout=30) for _ in range(2))
    assert ast.literal_eval(second)["total"] == ast.literal_eval(first)["total"] + 3


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_the_pages_kcat_client_reads_its_reply(example: tuple[Topology, dict[str, str]]) -> None:
    topology, environment = example
    command = ["bash", "-eu", "-c", fence("sh", topology)]
    reply = subprocess.check_output(command, env=environment, text=True, timeout=30)
    assert re.search(r'pf-correlation-id=.* {"counter":"apples","total":\d+}$', reply)


def test_the_page_has_the_codes() -> None:
    table = PAGE.partition("| code | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ", 1) for row in table.splitlines()]
    assert {code.strip("`"): meaning for code, meaning in rows} == CODES


def test_the_page_has_the_closed_profile_word_for_word() -> None:
    assert profile.__doc__ is not None
    text = profile.__doc__.partition("**Authority block: facts.**")[2].replace("``", "`").replace("::\n", ":\n")
    page = plain(PAGE.replace("```", ""))
    for paragraph in text.split("\n\n"):
        assert plain(paragraph) in page


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("module", [changelog, outbox])
def test_the_page_has_the_formats_of_the_changelog(module: ModuleType) -> None:
    assert module.__doc__ is not None
    for line in module.__doc__.splitlines():
        if line.startswith("    "):
            assert line in PAGE


def test_the_page_has_the_settings_of_topics() -> None:
    topology = Topology("counter", [Sums], replies=["replies"])
    rows = {row.split("|")[1].strip(): row for row in PAGE.splitlines() if row.startswith("| ")}
    for topic, row in (
        ("counter.intents", next(row for name, row in rows.items() if name.startswith("`{namespace}.intents`"))),
        ("counter.intents.rerouted", rows["`{topic}.rerouted`"]),
        ("counter.intents.dlq", rows["`{topic}.dlq`"]),
        ("counter-intents-changelog", rows["`{app}-{group}-changelog`"]),
        ("__pf.registry", rows["`__pf.registry`"]),
        ("__pf.probe", rows["`__pf.probe`"]),
    ):
        (spec,) = [spec for spec in required_topics(topology) if spec.name == topic]
        for name, setting in spec.config.items():
            if name != "max.message.bytes":
                assert setting in row
            elif "max.message.bytes" in row:
                assert f"{int(setting) >> 20} MiB" in row


def test_the_page_has_every_header_that_the_engine_reads_or_writes() -> None:
    """Names in the code that look like headers of the protocol are on the page."""
    sources = [
        path.read_text() for package in ("core", "engine") for path in (ROOT / "pf_stream" / package).glob("*.py")
    ]
    names = {name for source in sources for name in re.findall(r'"((?:pf-|ce_)[a-z-]+)"', source)} - {"pf-stream"}
    assert len(names) > 12
    assert not [name for name in names if f"`{name}`" not in PAGE and name not in PAGE]
