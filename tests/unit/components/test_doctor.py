"""Each check on facts that a cluster could tell."""

from collections.abc import Iterable, Sequence

import pytest

from pf_stream import Topology
from pf_stream.components.doctor import Finding, Level, access, brokers, clocks, replication, topics
from pf_stream.kafka.admin import AclInfo, BrokerInfo, TopicInfo
from pf_stream.kafka.clocks import ClockReading
from pf_stream.kafka.topics import Purpose, TopicSpec, required_topics

WELL = {
    "producer.id.expiration.ms": "86400000",
    "transactional.id.expiration.ms": "604800000",
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "socket.request.max.bytes": "104857600",
    "message.max.bytes": "1048588",
    "offsets.retention.minutes": "10080",
    "authorizer.class.name": "",
}


def broker(id_: int = 1, address: str = "10.0.0.1:9092", **config: str) -> BrokerInfo:
    return BrokerInfo(id_, address, {**WELL, **{name.replace("_", "."): value for name, value in config.items()}})


def topic(spec: TopicSpec, replicas: int = 3, partitions: int | None = None, **config: str) -> TopicInfo:
    settings = {"min.insync.replicas": "2", **spec.config}
    settings |= {name.replace("_", "."): value for name, value in config.items()}
    return TopicInfo(spec.name, bytes(16), partitions or spec.partitions, replicas, settings)


def codes(findings: Iterable[Finding]) -> list[tuple[Level, str]]:
    found = list(findings)
    assert all(finding.message and (finding.fix or finding.level is Level.note) for finding in found)
    return [(finding.level, finding.code) for finding in found]


# -- brokers --------------------------------------------------------------------------------------------------------------


def test_a_broker_with_the_defaults_of_kafka() -> None:
    assert codes(brokers([broker()])) == []


@pytest.mark.parametrize(
    ("name", "value", "level", "code"),
    [
        ("producer_id_expiration_ms", "3600000", Level.error, "fence_forgotten"),
        ("producer_id_expiration_ms", "7199999", Level.error, "fence_forgotten"),
        ("producer_id_expiration_ms", "7200000", Level.warning, "fence_forgotten"),
        ("transactional_id_expiration_ms", "3600000", Level.error, "lease_forgotten"),
        ("group_min_session_timeout_ms", "15000", Level.error, "session_timeout"),
        ("group_max_session_timeout_ms", "9000", Level.error, "session_timeout"),
        ("socket_request_max_bytes", "1048576", Level.warning, "request_size"),
        ("message_max_bytes", "100000", Level.warning, "message_size"),
        ("offsets_retention_minutes", "60", Level.note, "offsets_retention"),
        ("log_cleaner_enable", "false", Level.warning, "no_compaction"),
    ],
)
def test_a_setting_that_costs_something(name: str, value: str, level: Level, code: str) -> None:
    assert codes(brokers([broker(1), broker(2, **{name: value})])) == [(level, code)]


def test_a_broker_that_shows_no_settings() -> None:
    assert codes(brokers([BrokerInfo(1, "a:1", {})])) == [(Level.note, "settings_unknown")]


# -- topics ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def specs(flights: Topology) -> list[TopicSpec]:
    return required_topics(flights)


def made(specs: Sequence[TopicSpec], replicas: int = 3) -> dict[str, TopicInfo]:
    return {spec.name: topic(spec, replicas) for spec in specs}


def named(specs: Sequence[TopicSpec], purpose: Purpose) -> TopicSpec:
    return next(spec for spec in specs if spec.purpose is purpose)


def test_topics_as_they_are_made(specs: list[TopicSpec]) -> None:
    assert codes(topics(specs, made(specs))) == []
    assert codes(replication(specs, made(specs), 3)) == []


def test_a_topic_that_is_missing(specs: list[TopicSpec]) -> None:
    there = made(specs)
    del there[specs[0].name]
    (finding,) = topics(specs, there)
    assert (finding.code, finding.subject) == ("topic_missing", specs[0].name)


def test_partitions_that_disagree(specs: list[TopicSpec]) -> None:
    changelog = named(specs, Purpose.changelog)
    there = made(specs) | {changelog.name: topic(changelog, partitions=7)}
    assert codes(topics(specs, there)) == [(Level.error, "partitions_disagree")]


@pytest.mark.parametrize(
    ("purpose", "setting", "value", "code"),
    [
        (Purpose.changelog, "cleanup_policy", "compact,delete", "topic_differs"),
        (Purpose.source, "message_timestamp_type", "CreateTime", "topic_differs"),
        (Purpose.changelog, "max_message_bytes", "1048588", "topic_differs"),
        (Purpose.changelog, "unclean_leader_election_enable", "true", "unclean_election"),
    ],
)
def test_a_topic_that_differs(specs: list[TopicSpec], purpose: Purpose, setting: str, value: str, code: str) -> None:
    spec = named(specs, purpose)
    there = made(specs) | {spec.name: topic(spec, **{setting: value})}  # type: ignore[arg-type]  # no partitions there
    (finding,) = topics(specs, there)
    assert (finding.level, finding.code, finding.subject) == (Level.error, code, spec.name)
    assert setting.replace("_", ".") in finding.fix
    assert spec.name in finding.fix


def test_an_unclean_election_of_a_source_is_less_bad(specs: list[TopicSpec]) -> None:
    spec = named(specs, Purpose.source)
    there = made(specs) | {spec.name: topic(spec, unclean_leader_election_enable="true")}
    assert codes(topics(specs, there)) == [(Level.warning, "unclean_election")]


def test_one_copy_is_a_note_on_one_broker_and_a_warning_on_three(specs: list[TopicSpec]) -> None:
    assert codes(replication(specs, made(specs, replicas=1), 1)) == [(Level.note, "single_broker")]
    found = codes(replication(specs, made(specs, replicas=1), 3))
    assert set(found) == {(Level.warning, "replication_factor")}
    assert len(found) == sum(spec.purpose not in {Purpose.registry, Purpose.replies, Purpose.probe} for spec in specs)


@pytest.mark.parametrize("insync", ["1", "3"])
def test_too_few_or_too_many_replicas_must_be_in_sync(specs: list[TopicSpec], insync: str) -> None:
    spec = named(specs, Purpose.changelog)
    there = made(specs) | {spec.name: topic(spec, min_insync_replicas=insync)}
    (finding,) = replication(specs, there, 3)
    assert (finding.level, finding.code) == (Level.warning, "min_insync_replicas")
    assert finding.fix.endswith("min.insync.replicas=2")


def test_kafkas_own_topics_count_too() -> None:
    offsets = TopicInfo("__consumer_offsets", bytes(16), 50, 1, {})
    (finding,) = replication([], {"__consumer_offsets": offsets}, 3)
    assert (finding.code, finding.subject) == ("replication_factor", "__consumer_offsets")


# -- who may write --------------------------------------------------------------------------------------------------------

STANDARD = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"


def test_no_authoriser_is_a_note_only_if_nobody_else_reaches_it(specs: list[TopicSpec]) -> None:
    assert codes(access(specs, [broker()], [])) == [(Level.warning, "no_authoriser")]
    assert codes(access(specs, [broker(address="127.0.0.1:9092")], [])) == [(Level.note, "no_authoriser")]
    assert codes(access(specs, [broker(address="localhost:9092")], [])) == [(Level.note, "no_authoriser")]
    mixed = [broker(address="127.0.0.1:9092"), broker(2)]
    assert codes(access(specs, mixed, [])) == [(Level.warning, "no_authoriser")]


def test_whether_there_is_an_authoriser_may_be_hidden(specs: list[TopicSpec]) -> None:
    assert codes(access(specs, [BrokerInfo(1, "a:1", {})], [])) == [(Level.note, "authoriser_unknown")]


def rule(
    topic: str, principal: str = "User:*", operation: str = "WRITE", *, prefixed: bool = False, allows: bool = True
) -> AclInfo:
    return AclInfo(topic, prefixed, principal, operation, allows)


@pytest.mark.parametrize(
    ("rules", "open_"),
    [
        ([rule("*", "User:worker")], False),
        ([rule("*", operation="READ")], False),
        ([rule("*")], True),
        ([rule("*", operation="ALL")], True),
        ([rule("", prefixed=True)], True),
        ([rule("*"), rule("*", allows=False)], False),
    ],
)
def test_a_topic_of_ours_that_everybody_may_write(specs: list[TopicSpec], rules: list[AclInfo], open_: bool) -> None:
    ours = [
        spec.name
        for spec in specs
        if spec.purpose in {Purpose.changelog, Purpose.registry, Purpose.rerouted, Purpose.internal}
    ]
    found = list(access(specs, [broker(authorizer_class_name=STANDARD)], rules))
    assert [finding.subject for finding in found] == (ours if open_ else [])
    assert {finding.code for finding in found} <= {"writable_by_all"}


def test_a_public_topic_may_be_written_by_everybody(specs: list[TopicSpec]) -> None:
    public = named(specs, Purpose.source).name
    found = list(access(specs, [broker(authorizer_class_name=STANDARD)], [rule(public), rule("*", "User:worker")]))
    assert found == []


def test_topics_without_a_rule_are_a_note(specs: list[TopicSpec]) -> None:
    assert codes(access(specs, [broker(authorizer_class_name=STANDARD)], [])) == [(Level.note, "acls_unknown")]


# -- clocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead_ms", "within_ms", "level"),
    [
        (0, 3, None),
        (1_000, 3, None),
        (1_004, 3, Level.warning),
        (-1_004, 3, Level.warning),
        (9_000, 8_500, None),
        (61_000, 3, Level.error),
    ],
)
def test_a_clock_counts_as_wrong_only_if_it_surely_is(ahead_ms: int, within_ms: int, level: Level | None) -> None:
    found = codes(clocks([ClockReading(1, ahead_ms, within_ms)]))
    assert found == ([] if level is None else [(level, "clock_skew")])
