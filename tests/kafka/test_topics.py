"""Making and checking the topics of a topology against a real broker."""

from pathlib import Path

import pytest

from pf_stream import Topology
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import (
    PartitionsDisagreeError,
    Purpose,
    Status,
    check_topics,
    create_topics,
    list_topics,
    missing_topics,
    required_topics,
)
from pf_stream.topology import read_topology_file

FLIGHTS = Path(__file__).parents[2] / "topologies/flights/topology.yaml"


@pytest.fixture
def admin(bootstrap_servers: str) -> Admin:
    return Admin(ConnectionSettings(bootstrap_servers))


@pytest.fixture
def topology(unique: str) -> Topology:
    return read_topology_file(FLIGHTS).within(unique)


def test_what_is_created_is_what_is_required(admin: Admin, topology: Topology) -> None:
    created = create_topics(admin, topology, partitions=2)
    own = [topic for topic in created if topic.spec.purpose not in {Purpose.registry, Purpose.probe}]
    assert {topic.status for topic in own} == {Status.created}
    found = admin.topics(topic.spec.name for topic in created)
    for topic in own:
        info = found[topic.spec.name]
        assert info.partitions == 2
        assert {name: info.config[name] for name in topic.spec.config} == topic.spec.config
    assert found["__pf.registry"].partitions == 1
    assert found["__pf.probe"].partitions == 1
    assert missing_topics(admin, topology) == []
    assert check_topics(admin, topology) == 2


def test_a_second_time_nothing_happens(admin: Admin, topology: Topology) -> None:
    first = create_topics(admin, topology, partitions=1)
    second = create_topics(admin, topology, partitions=1)
    assert {topic.status for topic in second} == {Status.exists}
    assert [topic.spec for topic in second] == [topic.spec for topic in first]


def test_the_missing_ones_are_given_the_count_of_the_others(admin: Admin, topology: Topology) -> None:
    admin.create([NewTopicSpec(f"{topology.namespace}.intents", 3, {"message.timestamp.type": "LogAppendTime"})], 1)
    create_topics(admin, topology)
    assert topology.partitions != 3
    assert check_topics(admin, topology) == 3


def test_another_count_than_the_existing_makes_nothing(admin: Admin, topology: Topology) -> None:
    admin.create([NewTopicSpec(f"{topology.namespace}.intents", 3, {})], 1)
    with pytest.raises(PartitionsDisagreeError, match=r"2: \(asked for\); 3: .*\.intents\. Leave --partitions out"):
        create_topics(admin, topology, partitions=2)
    left = {spec.name for spec in missing_topics(admin, topology)} - {"__pf.registry", "__pf.probe"}
    assert len(left) == len(required_topics(topology)) - 3


def test_counts_that_disagree_stop_the_worker_and_the_creation(admin: Admin, topology: Topology) -> None:
    create_topics(admin, topology, partitions=1)
    changelog = topology.changelog(topology.groups[0])
    admin.delete([changelog])
    admin.create([NewTopicSpec(changelog, 2, {})], 1)
    for attempt in (lambda: check_topics(admin, topology), lambda: create_topics(admin, topology)):
        with pytest.raises(PartitionsDisagreeError, match=f"2: {changelog}\\. ") as caught:
            attempt()
        assert caught.value.counts[changelog] == 2


def test_a_missing_topic_names_the_command(admin: Admin, topology: Topology) -> None:
    create_topics(admin, topology, partitions=1)
    admin.delete([f"{topology.namespace}.intents.dlq"])
    with pytest.raises(TopicMissingError, match=r"intents\.dlq\. Create them with: pf topics create") as caught:
        check_topics(admin, topology)
    assert caught.value.topics == (f"{topology.namespace}.intents.dlq",)


def test_an_existing_topic_that_differs_is_told_and_left(admin: Admin, topology: Topology) -> None:
    name = f"{topology.namespace}.intents"
    admin.create([NewTopicSpec(name, 4, {"max.message.bytes": str(16 << 20)})], 1)
    (topic,) = [topic for topic in create_topics(admin, topology) if topic.spec.name == name]
    # More room than needed is no difference.
    assert topic.differences == ("message.timestamp.type is CreateTime instead of LogAppendTime",)
    assert topic.status is Status.differs
    assert admin.topics([name])[name].config["message.timestamp.type"] == "CreateTime"


def test_listed_with_records_also_when_missing(admin: Admin, topology: Topology) -> None:
    create_topics(admin, topology, partitions=1)
    gone = f"{topology.namespace}.replies"
    admin.delete([gone])
    listed = {topic.name: topic for topic in list_topics(admin, topology)}
    assert (listed[gone].found, listed[gone].records, listed[gone].purpose) == (None, None, Purpose.replies)
    assert listed[f"{topology.namespace}.intents"].records == 0
    everything = {topic.name for topic in list_topics(admin)}
    assert {name for name in listed if name != gone} <= everything
    assert gone not in everything
    assert "__consumer_offsets" not in everything
