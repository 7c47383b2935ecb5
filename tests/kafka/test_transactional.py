"""``guarantee: transactional`` on a real Kafka: state, outputs and group offsets of a unit, together or not at all."""

from collections import Counter

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.kafka._support import (
    Client,
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


def test_state_outputs_and_offsets_are_committed(client: Client) -> None:
    """Counts over two lanes, through an internal topic, with replies; and a second worker goes on where it was."""
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    for start in (0, 300):
        with in_thread(client.bootstrap_servers, client.topology) as worker:
            for name in names:
                for _ in range(300):
                    value = b'{"name": "%s"}' % name.encode()
                    client.send(name, value, client.headers(pf_reply_to=f"{client.topology.namespace}.replies"))
            places = client.flush()
            wait_until(lambda at=start: same(worker.total(), 2 * at + 600))
            wait_until(
                lambda: same(
                    {at: offset for at, offset in group_offsets(client).items() if at[0] == client.topic},
                    {
                        (client.topic, p): 1 + max(place.offset for place in places.values() if place.partition == p)
                        for p in (0, 1)
                    },
                )
            )
    left = durable(client.bootstrap_servers, client.topology)
    assert left.counted() == dict.fromkeys(names, 600)
    assert left.outbox == []
    replies = Counter(headers_of(reply)["pf-source"] for reply in client.read(f"{client.topology.namespace}.replies"))
    assert len(replies) == 1200
    assert set(replies.values()) == {1}
