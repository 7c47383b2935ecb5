"""``guarantee: transactional`` on a real Kafka: state, outputs and group offsets of a unit, together or not at all."""

from collections import Counter
from functools import partial

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from tests.kafka._support import (
    Client,
    ThreadWorker,
    durable,
    exact,
    headers_of,
    in_thread,
    make_topics,
    name_in,
    wait_until,
)


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = exact.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def same(found: object, wanted: object) -> None:
    assert found == wanted


def group_offsets(client: Client) -> dict[tuple[str, int], int]:
    """What the consumer group has committed."""
    kafka = AdminClient({"bootstrap.servers": client.bootstrap_servers, "log_level": 0})
    group = client.topology.app_id
    (answer,) = kafka.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    committed: list[TopicPartition] = answer.result(10).topic_partitions
    return {(at.topic, at.partition): at.offset for at in committed if at.offset >= 0}


def note(client: Client, name: str, times: int, reply_to: str) -> None:
    """Queue intents that count *name* and ask for a reply."""
    for _ in range(times):
        client.send(name, b'{"name": "%s"}' % name.encode(), client.headers(pf_reply_to=reply_to))


def test_state_outputs_and_offsets_are_committed(client: Client) -> None:
    """Counts over two lanes, through an internal topic, with replies; and a second worker goes on where it was."""
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    replies = f"{client.topology.namespace}.replies"

    def committed() -> dict[tuple[str, int], int]:
        return {at: offset for at, offset in group_offsets(client).items() if at[0] == client.topic}

    for done in (300, 600):
        with in_thread(client.bootstrap_servers, client.topology) as worker:
            for name in names:
                note(client, name, 300, replies)
            client.flush()
            wait_until(partial(total, worker, 2 * done))
        assert committed() == {(client.topic, 0): done, (client.topic, 1): done}
    left = durable(client.bootstrap_servers, client.topology)
    assert left.counted() == dict.fromkeys(names, 600)
    assert outbox_records(client) == 0
    sources = Counter(headers_of(reply)["pf-source"] for reply in client.read(replies))
    assert len(sources) == 1200
    assert set(sources.values()) == {1}


def total(worker: ThreadWorker, n: int) -> None:
    assert worker.total() == n


def outbox_records(client: Client) -> int:
    """How many outbox records the changelog of the intents ever held."""
    log = client.read(f"{client.topology.app_id}-intents-changelog")
    return sum((message.key() or b"")[1:2] == b"o" for message in log)


def test_replies_to_topics_that_do_not_take_them_hold_up_nobody(client: Client) -> None:
    """One that does not exist, one that refuses, one that is deleted while in use; each in the unit of a good one."""
    namespace = client.topology.namespace
    good, refusing, deleted = (f"answers.{namespace}{which}" for which in ("good", "refusing", "deleted"))
    kafka = AdminClient({"bootstrap.servers": client.bootstrap_servers, "log_level": 0})
    made = kafka.create_topics(
        [
            NewTopic(good, 1, 1),
            NewTopic(refusing, 1, 1, config={"max.message.bytes": "80"}),
            NewTopic(deleted, 1, 1),
        ]
    )
    for topic in (good, refusing, deleted):
        made[topic].result(10)
    name = name_in(0, client.topology)

    def ask() -> None:
        for target in (f"answers.{namespace}missing", refusing, good, deleted, refusing):
            note(client, name, 3, target)
        client.flush()

    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        ask()
        wait_until(partial(total, worker, 15))
        assert (len(client.read(good)), len(client.read(deleted))) == (3, 3)
        kafka.delete_topics([deleted])[deleted].result(10)
        ask()
        wait_until(partial(total, worker, 30))
        assert len(client.read(good)) == 6
        assert client.read(refusing) == []
        assert len(worker.lanes) == 4
        assert worker.count(name) == 30
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    assert {entry.get("topic") for entry in logs if entry["event"].startswith("replies dropped")} >= {refusing, deleted}


def test_a_dead_letter_topic_that_is_gone_stops_its_lanes(client: Client) -> None:
    """The topology needs it: nothing of the unit is committed, and nothing is passed over."""
    kafka = AdminClient({"bootstrap.servers": client.bootstrap_servers, "log_level": 0})
    topic = f"{client.topic}.dlq"
    name = name_in(0, client.topology)
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        client.send(name, b"no intent", partition=0)
        client.flush()
        wait_until(lambda: same(len(client.dead_letters()), 1))
        kafka.delete_topics([topic])[topic].result(10)
        client.send(name, b"no intent", partition=0)
        client.add(name)
        client.flush()
        lane = f"<lane {client.topology.app_id}-intents-changelog-0>"
        wait_until(
            lambda: same(
                [entry.get("code") for entry in logs if entry.get("lane") == lane and "code" in entry],
                ["topic_missing"],
            )
        )
        assert worker.count(name) == 0
    make_topics(client.bootstrap_servers, client.topology)
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        wait_until(lambda: same(worker.count(name), 1))
    assert len(client.dead_letters()) == 1
