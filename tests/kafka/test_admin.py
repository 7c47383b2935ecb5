"""Admin, reader and sender against a real broker."""

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError as Answer
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from pf_stream.core.partition import partition_of
from pf_stream.core.records import APPEND_TIME, CREATE_TIME
from pf_stream.errors import NotFoundError
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.errors import KafkaError, KafkaUnavailableError, TopicMissingError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import follow, read_topic
from pf_stream.kafka.sender import NewRecord, send
from tests.kafka._support import wait_until


@pytest.fixture
def settings(bootstrap_servers: str) -> ConnectionSettings:
    return ConnectionSettings(bootstrap_servers)


@pytest.fixture
def admin(settings: ConnectionSettings) -> Admin:
    return Admin(settings)


@pytest.fixture
def topic(admin: Admin, unique: str) -> str:
    admin.create([NewTopicSpec(unique, 3, {"message.timestamp.type": "LogAppendTime"})], 1)
    return unique


@pytest.fixture(scope="module")
def nobody() -> Iterator[ConnectionSettings]:
    """A port at which nobody answers, and which nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield ConnectionSettings(f"127.0.0.1:{taken.getsockname()[1]}")


def records(topic: str, count: int) -> list[NewRecord]:
    return [NewRecord(topic, f"k{number}".encode(), b"%d" % number) for number in range(count)]


class TestTopics:
    def test_described_as_created(self, admin: Admin, topic: str) -> None:
        found = admin.topics([topic, topic + "-none"])
        assert list(found) == [topic]
        assert (found[topic].partitions, found[topic].replication_factor) == (3, 1)
        assert found[topic].config["message.timestamp.type"] == "LogAppendTime"
        assert found[topic].config["cleanup.policy"] == "delete"
        assert topic in admin.names()

    def test_created_once(self, admin: Admin, topic: str) -> None:
        assert admin.create([NewTopicSpec(topic, 3, {}), NewTopicSpec(topic + "-b", 1, {})], 1) == [topic + "-b"]

    def test_the_id_tells_a_topic_from_one_of_the_same_name(self, admin: Admin, topic: str) -> None:
        before = admin.topics([topic])[topic].id
        assert len(before) == 16
        admin.delete([topic])
        assert admin.topics([topic]) == {}
        admin.create([NewTopicSpec(topic, 3, {})], 1)
        assert admin.topics([topic])[topic].id != before

    def test_none_at_all(self, admin: Admin) -> None:
        assert admin.topics([]) == {}
        assert admin.create([], 1) == []
        assert admin.offsets([], "end") == {}

    @pytest.mark.parametrize(
        ("spec", "replicas", "said"),
        [
            (NewTopicSpec("a/b", 1, {}), 1, "INVALID_TOPIC|TOPIC_EXCEPTION"),
            (NewTopicSpec("t-config", 1, {"cleanup.policy": "burn"}), 1, "INVALID_CONFIG"),
            (NewTopicSpec("t-replicas", 1, {}), 9, "INVALID_REPLICATION_FACTOR"),
        ],
    )
    def test_what_the_broker_refuses_says_why(self, admin: Admin, spec: NewTopicSpec, replicas: int, said: str) -> None:
        with pytest.raises(KafkaError, match=rf"cannot create topic {spec.name}: .*({said})"):
            admin.create([spec], replicas)

    def test_brokers(self, admin: Admin) -> None:
        assert admin.brokers() >= 1


def outdated(admin: Admin) -> bool:
    """Whether the client asks under an epoch that is over; before that it has no connection."""
    (answer,) = admin._client.list_offsets({TopicPartition("t.epochs", 0): OffsetSpec.latest()}).values()  # type: ignore[no-untyped-call]
    try:
        answer.result(10)
    except KafkaException as error:
        return bool(error.args[0].code() == Answer.FENCED_LEADER_EPOCH)
    return False


class TestOffsets:
    def test_start_end_and_time(self, admin: Admin, settings: ConnectionSettings, topic: str) -> None:
        positions = send(settings, [NewRecord(topic, None, b"x", partition=1) for _ in range(5)])
        assert [offset for _, _, offset in positions] == [0, 1, 2, 3, 4]
        wanted = [(topic, 0), (topic, 1)]
        assert admin.offsets(wanted, "start") == {(topic, 0): 0, (topic, 1): 0}
        assert admin.offsets(wanted, "end") == {(topic, 0): 0, (topic, 1): 5}
        third = next(itertools.islice(read_topic(settings, topic), 2, None)).timestamp
        assert admin.offsets(wanted, third)[topic, 1] <= 2
        assert admin.offsets(wanted, third + 3_600_000) == {(topic, 0): 0, (topic, 1): 5}

    def test_a_leader_that_was_elected_anew_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The client knows the epoch of the one before, and is refused until it has asked who leads."""
        broker = DevBroker(tmp_path / "kafka")
        admin = Admin(ConnectionSettings(broker.up().bootstrap_servers))
        try:
            admin.create([NewTopicSpec("t.epochs", 1, {})], 1)
            known = admin._metadata
            restarted: list[bool] = []

            def known_and_then_outdated() -> Any:
                found = known()
                if not restarted:
                    broker.down()
                    broker.up()
                    wait_until(lambda: outdated(admin), within=30)
                    restarted.append(True)
                return found

            monkeypatch.setattr(admin, "_metadata", known_and_then_outdated)
            assert admin.offsets([("t.epochs", 0)], "end") == {("t.epochs", 0): 0}
        finally:
            broker.down()

    def test_a_partition_that_is_none(self, admin: Admin, topic: str) -> None:
        with pytest.raises(TopicMissingError, match=topic):
            admin.offsets([(topic, 0), (topic, 7)], "end")

    def test_a_topic_that_is_none(self, admin: Admin, unique: str) -> None:
        with pytest.raises(TopicMissingError, match=unique):
            admin.offsets([(unique, 0)], "end")


class TestSender:
    def test_keys_go_where_the_lanes_look_for_them(self, settings: ConnectionSettings, topic: str) -> None:
        sent = records(topic, 200)
        positions = send(settings, sent)
        assert len({partition for _, partition, _ in positions}) == 3
        for record, (where, partition, _) in zip(sent, positions, strict=True):
            assert record.key is not None
            assert (where, partition) == (topic, partition_of(record.key, 3))

    def test_everything_arrives_as_it_was(self, settings: ConnectionSettings, topic: str) -> None:
        headers = (("a", b"1"), ("a", None), ("b", b""), ("c", b"\xff"))
        send(
            settings,
            [NewRecord(topic, b"\x00\xff", b"", headers, 2), NewRecord(topic, b"", None, partition=2)],
        )
        first, second = read_topic(settings, topic)
        assert (first.key, first.value, first.headers) == (b"\x00\xff", b"", headers)
        assert (second.key, second.value, second.headers) == (b"", None, ())
        assert (first.header("a"), first.header("b"), first.header("z")) == (None, "", None)
        assert first.timestamp_type == APPEND_TIME

    def test_a_topic_that_is_none_is_not_made(self, settings: ConnectionSettings, admin: Admin, unique: str) -> None:
        with pytest.raises(TopicMissingError, match=unique):
            send(settings, records(unique, 1))
        assert admin.topics([unique]) == {}

    def test_a_record_that_is_too_large(self, settings: ConnectionSettings, topic: str) -> None:
        with pytest.raises(KafkaError, match=f"cannot send to {topic}.*MSG_SIZE_TOO_LARGE"):
            send(settings, [NewRecord(topic, b"k", bytes(2 << 20))])


class TestReader:
    def test_ranges(self, settings: ConnectionSettings, topic: str) -> None:
        send(settings, [NewRecord(topic, None, b"x", partition=1) for _ in range(10)])
        cases: list[tuple[int | None, int | None, range]] = [
            (None, None, range(10)),
            (7, None, range(7, 10)),
            (-3, None, range(7, 10)),
            (-99, None, range(10)),
            (4, 1, range(4, 5)),
            (4, 99, range(4, 10)),
            (10, None, range(0)),
            (99, 1, range(0)),
        ]
        for start, count, expected in cases:
            found = read_topic(settings, topic, partitions=[1], start=start, count=count)
            assert [record.offset for record in found] == list(expected), (start, count)

    def test_ends_where_the_topic_ended_when_it_began(self, settings: ConnectionSettings, topic: str) -> None:
        send(settings, records(topic, 50))
        seen = 0
        for _ in read_topic(settings, topic):
            if not seen:
                send(settings, records(topic, 50))
            seen += 1
        assert seen == 50

    def test_committed_leaves_out_what_was_aborted_or_is_open(
        self, settings: ConnectionSettings, admin: Admin, bootstrap_servers: str, topic: str
    ) -> None:
        def has(records: int) -> None:
            """The markers of a transaction are written after its end was acknowledged."""
            assert admin.offsets([(topic, 0)], "end") == {(topic, 0): records}

        def begin(name: str) -> Producer:
            producer = Producer(
                {"bootstrap.servers": bootstrap_servers, "transactional.id": f"{topic}-{name}", "log_level": 0}
            )
            producer.init_transactions(10)
            producer.begin_transaction()
            producer.produce(topic, name.encode(), partition=0)
            producer.flush(10)
            return producer

        begin("kept").commit_transaction(10)
        wait_until(lambda: has(2))
        begin("aborted").abort_transaction(10)
        # The last record of the partition is a marker, which no reader ever sees.
        assert [record.value for record in read_topic(settings, topic)] == [b"kept"]
        still_open = begin("open")
        assert [record.value for record in read_topic(settings, topic)] == [b"kept"]
        everything = [record.value for record in read_topic(settings, topic, committed=False)]
        assert everything == [b"kept", b"aborted", b"open"]
        still_open.abort_transaction(10)
        # Where a marker lies there is no record, and the next one is not meant.
        assert list(read_topic(settings, topic, partitions=[0], start=1, count=1, committed=False)) == []

    def test_a_topic_and_a_partition_that_are_none(self, settings: ConnectionSettings, topic: str) -> None:
        with pytest.raises(TopicMissingError, match=f"{topic}-none"):
            list(read_topic(settings, topic + "-none"))
        with pytest.raises(NotFoundError, match="has no partition 3; it has 3, from 0"):
            list(read_topic(settings, topic, partitions=[3]))

    def test_following_begins_where_it_is_told_and_ends_in_time(self, settings: ConnectionSettings, topic: str) -> None:
        send(settings, records(topic, 20))
        ends = Admin(settings).offsets([(topic, number) for number in range(3)], "end")
        ((_, partition, offset),) = send(settings, records(topic, 1))
        assert [(r.partition, r.offset) for r in follow(settings, ends, 0.5)] == [(partition, offset)]

    def test_create_time_is_told_from_append_time(
        self, settings: ConnectionSettings, admin: Admin, unique: str
    ) -> None:
        admin.create([NewTopicSpec(unique, 1, {})], 1)
        send(settings, records(unique, 1))
        (record,) = read_topic(settings, unique)
        assert record.timestamp_type == CREATE_TIME


class TestNobodyAnswers:
    def test_is_said_with_the_reason(self, nobody: ConnectionSettings) -> None:
        with pytest.raises(KafkaUnavailableError, match=r"no Kafka broker answers at 127.*Connection refused. Is it"):
            Admin(nobody).topics(["t"])
