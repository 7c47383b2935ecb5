"""Whether a cluster is what exactness needs: each check looks at facts and gives findings.

A finding names the thing, what it costs, and what mends it. Checks are plain functions of what the cluster says of itself;
:func:`examine` asks the cluster and runs them all.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from pf_stream.clock import Clock
from pf_stream.engine.runner import KEEP_ALIVE_S
from pf_stream.engine.settings import SESSION_S
from pf_stream.kafka.admin import AclInfo, Admin, BrokerInfo, TopicInfo
from pf_stream.kafka.clocks import ClockReading, read_clocks
from pf_stream.kafka.errors import KafkaError, KafkaUnavailableError, NotAuthorisedError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reach import Obstacle, Obstruction, connects, obstruction
from pf_stream.kafka.topics import PartitionsDisagreeError, Purpose, TopicSpec, differences, required_topics
from pf_stream.model import Topology

__all__ = [
    "Finding",
    "Level",
    "access",
    "advertised",
    "brokers",
    "clocks",
    "examine",
    "reach",
    "replication",
    "topics",
]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
KEEP_ALIVE_MS: Final = int(KEEP_ALIVE_S * 1000)
SESSION_MS: Final = int(SESSION_S * 1000)
REQUEST_BYTES: Final = 64 << 20
"""What a broker should take in one request: it may carry the units of several lanes, 8 MiB each."""
SKEW_MS: Final = 1_000
FAR_SKEW_MS: Final = 60_000

OURS: Final = frozenset({Purpose.internal, Purpose.rerouted, Purpose.changelog, Purpose.registry})
"""Topics that nobody but workers may write."""
KEPT: Final = frozenset({Purpose.changelog, Purpose.source, Purpose.internal, Purpose.rerouted, Purpose.dead_letters})
"""Topics whose records must not be lost."""
KAFKAS: Final = ("__consumer_offsets", "__transaction_state")


class Level(enum.StrEnum):
    """How bad a finding is."""

    error = "error"
    """Something will not work, or what is promised does not hold."""
    warning = "warning"
    """Something may be lost when something else fails."""
    note = "note"
    """To be known; no fault."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a cluster should not have, or that should be known of it."""

    level: Level
    """How bad it is."""
    code: str
    """What it is, for machines."""
    subject: str
    """The thing: a broker, a topic, a server."""
    message: str
    """What is so, and what that costs."""
    fix: str
    """What to do about it, a command where there is one; empty for a note that needs nothing."""


def examine(settings: ConnectionSettings, topology: Topology | None, clock: Clock) -> list[Finding]:
    """All findings, the worst first. To compare clocks, a topic is made and deleted again.

    Raises what a broker says that answers, but not to these questions.
    """
    try:
        admin = Admin(settings)
        found = admin.describe_brokers()
    except (KafkaUnavailableError, NotAuthorisedError) as error:
        return list(reach(settings, error))
    findings = [*advertised(found), *brokers(found)]
    specs = required_topics(topology) if topology is not None else []
    there: dict[str, TopicInfo] = {}
    acls: list[AclInfo] = []
    with suppress(NotAuthorisedError):
        there = admin.topics(KAFKAS)
    with suppress(NotAuthorisedError):
        acls = admin.topic_acls()
    try:
        there |= admin.topics(spec.name for spec in specs)
    except NotAuthorisedError as error:
        findings.append(
            Finding(
                Level.error,
                "topics_unknown",
                "topics",
                f"This principal may not look at the topics: {error.reason}.",
                f"allow it DESCRIBE and DESCRIBE_CONFIGS on the topics: kafka-acls.sh --add --topic "
                f"'{specs[0].name}' --operation Describe --operation DescribeConfigs --allow-principal User:NAME",
            )
        )
    else:
        findings += topics(specs, there)
    findings += replication(specs, there, len(found))
    findings += access(specs, found, acls)
    try:
        findings += clocks(read_clocks(settings, [broker.id for broker in found], clock))
    except KafkaError as error:
        findings.append(
            Finding(
                Level.note,
                "clocks_unknown",
                "clocks",
                f"The brokers' clocks were not compared with this machine's, for which a topic __pf.clock-... is made: "
                f"{error}",
                "",
            )
        )
    order = list(Level)
    return sorted(findings, key=lambda finding: order.index(finding.level))


# -- whether it can be reached --------------------------------------------------------------------------------------------

_PROTOCOL = "set PF_SECURITY_PROTOCOL"
_REASONS: Final[Mapping[Obstruction, tuple[str, str]]] = {
    Obstruction.address: ("The address cannot be used: {}.", "give --bootstrap-servers HOST:PORT[,HOST:PORT]"),
    Obstruction.name: (
        "The host's name cannot be resolved: {}.",
        "give --bootstrap-servers a name that this machine knows",
    ),
    Obstruction.refused: (
        "The host is there and nothing listens on that port: {}.",
        "start the broker, or give --bootstrap-servers its port (for a development broker: pf dev up)",
    ),
    Obstruction.network: (
        "The network does not lead there: {}.",
        "ask for a route, or a hole in a firewall, from this machine to the broker",
    ),
    Obstruction.certificate: (
        "Its TLS certificate is not trusted: {}.",
        "set PF_CA_FILE to the PEM file of the authority that signed it, and use the host name that it is made for",
    ),
    Obstruction.no_tls: (
        "TLS is configured, and what listens there does not speak it: {}.",
        f"{_PROTOCOL} to PLAINTEXT or SASL_PLAINTEXT, or name the port of the TLS listener",
    ),
    Obstruction.tls: (
        "It speaks TLS, and none is configured: {}.",
        f"{_PROTOCOL} to SSL or SASL_SSL, and PF_CA_FILE if the authority is your own",
    ),
}


def reach(settings: ConnectionSettings, error: KafkaError) -> Iterator[Finding]:
    """Why no broker answers as it should, which *error* says of them all."""
    passable = []
    for server in settings.bootstrap_servers.split(","):
        found = obstruction(server, settings)
        if found is None:
            passable.append(server.strip())
        else:
            yield _obstacle(server.strip(), found)
    if not passable:
        return
    subject = ", ".join(passable)
    if not isinstance(error, NotAuthorisedError):
        yield Finding(
            Level.error,
            "silent",
            subject,
            f"Something listens there, and does not answer as a Kafka broker does to {settings.security_protocol}: "
            f"a listener with SASL, an overloaded broker, or no Kafka at all.",
            f"name a port of Kafka, and {_PROTOCOL} to what its listener speaks",
        )
    elif "mechanism" in error.reason:
        yield Finding(
            Level.error,
            "sasl_mechanism",
            subject,
            f"The listener does not take {settings.security_protocol} with {settings.sasl_mechanism}: {error.reason}.",
            f"set PF_SASL_MECHANISM to one that it supports, or {_PROTOCOL}, if it has no SASL",
        )
    elif "uthentication" in error.reason:
        yield Finding(
            Level.error,
            "authentication",
            subject,
            f"The network is well, and the broker does not believe that this is {settings.sasl_username!r}: {error.reason}.",
            "check PF_SASL_USERNAME and PF_SASL_PASSWORD",
        )
    else:
        yield Finding(
            Level.error,
            "not_authorised",
            subject,
            f"The broker knows this principal and does not answer it: {error.reason}.",
            "allow the principal DESCRIBE and DESCRIBE_CONFIGS on the cluster: kafka-acls.sh --add --cluster "
            "--operation DescribeConfigs --allow-principal User:NAME",
        )


def _obstacle(server: str, found: Obstacle) -> Finding:
    text, fix = _REASONS[found.what]
    return Finding(Level.error, found.what.value, server, text.format(found.detail), fix)


def advertised(found: Sequence[BrokerInfo]) -> Iterator[Finding]:
    """Brokers that tell their clients an address which does not work from here."""
    for broker in found:
        obstacle = connects(broker.address)
        if obstacle is not None:
            yield Finding(
                Level.error,
                "advertised",
                f"broker {broker.id}",
                f"It tells its clients to connect to {broker.address}, which does not work from this machine: "
                f"{obstacle.detail}. Whatever it leads cannot be read or written.",
                "set advertised.listeners of the broker to an address that its clients can reach",
            )


# -- brokers --------------------------------------------------------------------------------------------------------------


def brokers(found: Sequence[BrokerInfo]) -> Iterator[Finding]:
    """Settings of brokers that exactness, or the workers' membership in their group, needs."""
    for broker in found:
        config = _Numbers(broker)
        subject = f"broker {broker.id}"
        if not broker.config:
            yield Finding(
                Level.note,
                "settings_unknown",
                subject,
                "Its settings cannot be seen, so they were not checked.",
                "allow this principal DESCRIBE_CONFIGS on the cluster",
            )
            continue
        forgets = config["producer.id.expiration.ms"]
        if forgets is not None and forgets < 4 * KEEP_ALIVE_MS:
            yield Finding(
                Level.error if forgets < 2 * KEEP_ALIVE_MS else Level.warning,
                "fence_forgotten",
                subject,
                f"producer.id.expiration.ms is {forgets}. An idle lane appends once in {KEEP_ALIVE_MS} ms; if the broker "
                f"forgets its fence before, a worker that was paused can write over the state of its successor.",
                _alter("producer.id.expiration.ms", DAY_MS),
            )
        forgets = config["transactional.id.expiration.ms"]
        if forgets is not None and forgets < DAY_MS:
            yield Finding(
                Level.error,
                "lease_forgotten",
                subject,
                f"transactional.id.expiration.ms is {forgets}. A lane's next holder then gets another producer id, which "
                f"does not fence the one that has held the lane for longer than that.",
                _alter("transactional.id.expiration.ms", 7 * DAY_MS),
            )
        shortest, longest = config["group.min.session.timeout.ms"], config["group.max.session.timeout.ms"]
        if (shortest is not None and shortest > SESSION_MS) or (longest is not None and longest < SESSION_MS):
            yield Finding(
                Level.error,
                "session_timeout",
                subject,
                f"It allows sessions of {shortest} to {longest} ms, and workers ask for {SESSION_MS}: no worker can join "
                f"its group.",
                f"set group.min.session.timeout.ms to at most {SESSION_MS}, and group.max.session.timeout.ms to at least "
                f"that, in server.properties",
            )
        largest = config["socket.request.max.bytes"]
        if largest is not None and largest < REQUEST_BYTES:
            yield Finding(
                Level.warning,
                "request_size",
                subject,
                f"socket.request.max.bytes is {largest}. One request carries the units of several lanes, up to 8 MiB "
                f"each; the broker closes the connection on a larger one, and these lanes wait.",
                f"set socket.request.max.bytes to {100 << 20} in server.properties",
            )
        largest = config["message.max.bytes"]
        if largest is not None and largest < 1_000_000:
            yield Finding(
                Level.warning,
                "message_size",
                subject,
                f"message.max.bytes is {largest}, and a batch of replies may have 900,000 bytes: on topics for replies "
                f"that say nothing else, they are dropped.",
                _alter("message.max.bytes", 1_048_588),
            )
        kept = config["offsets.retention.minutes"]
        if kept is not None and kept < 24 * 60:
            yield Finding(
                Level.note,
                "offsets_retention",
                subject,
                f"offsets.retention.minutes is {kept}: a topology that is stopped for longer shows a wrong lag until it "
                f"runs again. Its positions are in its changelogs and are not lost.",
                "",
            )
        if broker.config.get("log.cleaner.enable") == "false":
            yield Finding(
                Level.warning,
                "no_compaction",
                subject,
                "log.cleaner.enable is false: changelogs are never compacted, grow without end, and so do recoveries.",
                "set log.cleaner.enable=true in server.properties",
            )


class _Numbers:
    def __init__(self, broker: BrokerInfo) -> None:
        self._config = broker.config

    def __getitem__(self, name: str) -> int | None:
        value = self._config.get(name, "")
        return int(value) if value.isdecimal() else None


def _alter(name: str, value: int) -> str:
    return f"kafka-configs.sh --alter --entity-type brokers --entity-default --add-config {name}={value}"


# -- topics ---------------------------------------------------------------------------------------------------------------

_TOPIC = "kafka-configs.sh --alter --entity-type topics --entity-name"
_COSTS: Final[Mapping[str, str]] = {
    "cleanup.policy": "state, or what is registered, is deleted when it gets old",
    "message.timestamp.type": "tokens are judged by the time of a record, which the wrong party sets here",
    "max.message.bytes": "a batch that does not fit stops its lane",
    "partitions": "a component's last record may be found behind an older one",
}


def topics(specs: Sequence[TopicSpec], there: Mapping[str, TopicInfo]) -> Iterator[Finding]:
    """Topics of the topology that are missing, or not as they must be."""
    counts = {spec.name: there[spec.name].partitions for spec in specs if spec.copartitioned and spec.name in there}
    if len(set(counts.values())) > 1:
        yield Finding(
            Level.error,
            PartitionsDisagreeError.code,
            "topics",
            str(PartitionsDisagreeError(counts, "No worker can start.")),
            "delete and create anew what holds nothing yet: pf topics create",
        )
    for spec in specs:
        found = there.get(spec.name)
        if found is None:
            yield Finding(
                Level.error,
                "topic_missing",
                spec.name,
                f"The topic, for {spec.purpose.value}, does not exist: no worker can start.",
                "pf topics create TOPOLOGY",
            )
            continue
        for name, text in differences(spec, found):
            if name in spec.config:
                fix = f"{_TOPIC} {spec.name} --add-config {name}={spec.config[name]}"
            else:
                fix = f"delete {spec.name}, which holds nothing that workers need, and: pf topics create TOPOLOGY"
            yield Finding(Level.error, "topic_differs", spec.name, f"{text}: {_COSTS[name]}.", fix)
        if found.config.get("unclean.leader.election.enable") == "true" and spec.purpose in KEPT:
            yield Finding(
                Level.error if spec.purpose is Purpose.changelog else Level.warning,
                "unclean_election",
                spec.name,
                "unclean.leader.election.enable is true: a broker that lags behind may become leader, and what was "
                "acknowledged is gone.",
                f"{_TOPIC} {spec.name} --add-config unclean.leader.election.enable=false",
            )


def replication(specs: Sequence[TopicSpec], there: Mapping[str, TopicInfo], alive: int) -> Iterator[Finding]:
    """Topics whose acknowledged records do not survive the loss of a broker, or that cannot be written without it."""
    kept = [spec.name for spec in specs if spec.purpose in KEPT and spec.name in there]
    kept += [name for name in KAFKAS if name in there]
    single = [name for name in kept if there[name].replication_factor == 1]
    if single and alive == 1:
        yield Finding(
            Level.note,
            "single_broker",
            "replication",
            "There is one broker, and so one copy of each topic: with its disk all state and records are lost.",
            "",
        )
        return
    for name in kept:
        replicas = there[name].replication_factor
        insync = there[name].config.get("min.insync.replicas", "1")
        if replicas == 1:
            yield Finding(
                Level.warning,
                "replication_factor",
                name,
                f"It has one copy, on one of {alive} brokers: while that is away nothing goes on, and what it loses is "
                f"lost.",
                f"kafka-reassign-partitions.sh with more replicas for {name}, or delete it while it is empty and: "
                f"pf topics create TOPOLOGY --replication-factor 3",
            )
        elif insync == "1":
            yield Finding(
                Level.warning,
                "min_insync_replicas",
                name,
                f"It has {replicas} copies and min.insync.replicas is 1: an append is acknowledged that only the leader "
                f"has, and is lost with it.",
                f"{_TOPIC} {name} --add-config min.insync.replicas=2",
            )
        elif insync.isdecimal() and int(insync) >= replicas:
            yield Finding(
                Level.warning,
                "min_insync_replicas",
                name,
                f"It has {replicas} copies and min.insync.replicas is {insync}: nothing can be appended while any of "
                f"these brokers is away.",
                f"{_TOPIC} {name} --add-config min.insync.replicas={replicas - 1}",
            )


# -- who may write --------------------------------------------------------------------------------------------------------


def access(specs: Sequence[TopicSpec], found: Sequence[BrokerInfo], acls: Sequence[AclInfo]) -> Iterator[Finding]:
    """Whether anybody can write what workers believe: internal topics and changelogs."""
    ours = [spec.name for spec in specs if spec.purpose in OURS]
    cost = "what workers believe (changelogs, internal topics, the registry) can be written by"
    known = [broker.config["authorizer.class.name"] for broker in found if "authorizer.class.name" in broker.config]
    if not known:
        yield Finding(
            Level.note,
            "authoriser_unknown",
            "access",
            "Whether the cluster has an authoriser cannot be seen, nor who may write internal topics.",
            "allow this principal DESCRIBE_CONFIGS on the cluster",
        )
        return
    if not all(known):
        alone = all(_is_loopback(broker.address) for broker in found)
        yield Finding(
            Level.note if alone else Level.warning,
            "no_authoriser",
            "access",
            f"The cluster has no authoriser: {cost} {'whoever is on this machine' if alone else 'whoever reaches it'}.",
            "" if alone else "set authorizer.class.name in server.properties, and ACLs for the workers' principal",
        )
        return
    denied = {topic for acl in acls if _is_open(acl) and not acl.allows for topic in ours if acl.matches(topic)}
    for topic in ours:
        if topic not in denied and any(acl.allows and _is_open(acl) and acl.matches(topic) for acl in acls):
            yield Finding(
                Level.error,
                "writable_by_all",
                topic,
                "An ACL allows everybody (User:*) to write it, and workers believe what it says.",
                f"kafka-acls.sh --remove --topic {topic} --operation Write --allow-principal 'User:*', or the rule with "
                f"a pattern that covers it",
            )
    unruled = [topic for topic in ours if not any(acl.matches(topic) for acl in acls)]
    if unruled:
        yield Finding(
            Level.note,
            "acls_unknown",
            "access",
            f"No ACL is seen for {', '.join(unruled)}: there is none, or this principal may not see it. If "
            f"allow.everyone.if.no.acl.found is set, which no broker tells, {cost} everybody.",
            f"kafka-acls.sh --list --topic {unruled[0]}",
        )


def _is_open(acl: AclInfo) -> bool:
    return acl.principal == "User:*" and acl.operation in {"WRITE", "ALL"}


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- clocks ---------------------------------------------------------------------------------------------------------------


def clocks(readings: Sequence[ClockReading]) -> Iterator[Finding]:
    """Brokers whose clocks are far from this machine's; what is within the error of the measurement does not count."""
    for reading in readings:
        surely_ms = abs(reading.ahead_ms) - reading.within_ms
        if surely_ms <= SKEW_MS:
            continue
        side = "ahead of" if reading.ahead_ms > 0 else "behind"
        yield Finding(
            Level.error if surely_ms > FAR_SKEW_MS else Level.warning,
            "clock_skew",
            f"broker {reading.broker}",
            f"Its clock is {abs(reading.ahead_ms) / 1000:.1f} s {side} this machine's (give or take "
            f"{reading.within_ms / 1000:.1f} s). It stamps records with its own, by which tokens are judged: those made "
            f"here are refused as expired or not yet valid.",
            "let the machines of brokers and issuers follow one time server (chronyc tracking)",
        )
