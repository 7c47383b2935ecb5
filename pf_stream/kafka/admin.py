"""Administration of a cluster: topics, their settings and offsets."""

import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import KafkaError as Answer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, imported there without `as`
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

from pf_stream.kafka._confluent import TIMEOUT_S, Session, answer_of
from pf_stream.kafka.errors import KafkaError, NotAuthorisedError, TopicMissingError
from pf_stream.kafka.link import ConnectionSettings, Partition

__all__ = ["AclInfo", "Admin", "BrokerInfo", "NewTopicSpec", "TopicInfo"]

K = TypeVar("K")

_UUID = struct.Struct(">qq")
# A broker does not know the topic; the client found no leader for a partition of it.
_NOT_THERE: frozenset[int] = frozenset(
    {Answer.UNKNOWN_TOPIC_OR_PART, Answer._NOENT, Answer._UNKNOWN_TOPIC, Answer._UNKNOWN_PARTITION}
)

_MOVING: frozenset[int] = frozenset(
    {
        Answer.FENCED_LEADER_EPOCH,
        Answer.LEADER_NOT_AVAILABLE,
        Answer.NOT_LEADER_FOR_PARTITION,
        Answer.OFFSET_NOT_AVAILABLE,
        Answer.REPLICA_NOT_AVAILABLE,
        Answer.UNKNOWN_LEADER_EPOCH,
    }
)
_PAUSE_S = 0.02
_PARTITION_S = 0.02
"""How much longer a broker may take for each partition that it makes or deletes: it makes folders and files for it."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the cluster describes it."""

    name: str
    """Its name."""
    id: bytes
    """16 bytes that no other topic has, not even one of the same name that is made later."""
    partitions: int
    """How many it has."""
    replication_factor: int
    """Replicas of its first partition."""
    config: Mapping[str, str]
    """Every setting, also those that have their default."""


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """A broker as it describes itself."""

    id: int
    """Its node id."""
    address: str
    """Host and port that it tells its clients to connect to."""
    config: Mapping[str, str]
    """Every setting whose value it tells, also those that have their default; none if this principal may not see them."""


@dataclass(frozen=True, slots=True)
class AclInfo:
    """A rule that says who may do what with a topic."""

    topic: str
    """Name, first part of names, or ``*`` for all."""
    prefixed: bool
    """Whether it is the first part of names."""
    principal: str
    """Who, as ``User:alice``; ``User:*`` is everybody."""
    operation: str
    """What, as ``WRITE`` or ``ALL``."""
    allows: bool
    """Whether it allows or denies that."""

    def matches(self, topic: str) -> bool:
        """Whether the rule is about *topic*."""
        return topic.startswith(self.topic) if self.prefixed else self.topic in {"*", topic}


@dataclass(frozen=True, slots=True)
class NewTopicSpec:
    """A topic to be made."""

    name: str
    """Its name."""
    partitions: int
    """How many."""
    config: Mapping[str, str]
    """Settings that differ from the cluster's defaults."""
    leaders: Sequence[int] | None = None
    """Brokers that shall have one partition each, in this order and without replicas."""


class Admin:
    """Asks a cluster and tells it what to do. Every call waits for its answer, some seconds at most, longer for thousands of
    partitions.

    Every method raises :class:`KafkaUnavailableError` if no broker answers, :class:`NotAuthorisedError` if it will not
    for this principal, and :class:`KafkaError` for whatever else it says.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._session = Session(settings)
        self._client = AdminClient(self._session.configuration())

    def brokers(self) -> int:
        """Number of brokers that are alive."""
        return len(self._metadata().brokers)

    def describe_brokers(self) -> list[BrokerInfo]:
        """The brokers that are alive, with their settings as far as this principal may see them, by id."""
        found = sorted(self._metadata().brokers.values(), key=lambda broker: broker.id)
        resources = [ConfigResource(ResourceType.BROKER, str(broker.id)) for broker in found]
        answers: dict[ConfigResource, Any] = {}
        with suppress(NotAuthorisedError):
            answers = self._ask(
                "read broker settings",
                resources,
                lambda left: self._client.describe_configs(left, request_timeout=TIMEOUT_S),
            )
        configs = {int(resource.name): entries for resource, entries in answers.items()}
        return [
            BrokerInfo(
                id=broker.id,
                address=f"{broker.host}:{broker.port}",
                config={
                    key: entry.value for key, entry in configs.get(broker.id, {}).items() if entry.value is not None
                },
            )
            for broker in found
        ]

    def topic_acls(self) -> list[AclInfo]:
        """Rules about topics that this principal may see; none if there are none, if it may not, or without authoriser."""
        self._metadata()
        anything: Any = None  # which is allowed here, whatever the annotations say
        every = AclBindingFilter(
            ResourceType.TOPIC,
            anything,
            ResourcePatternType.ANY,
            anything,
            anything,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        with self._session.mapped("read ACLs"):
            found = self._client.describe_acls(every, request_timeout=TIMEOUT_S).result(2 * TIMEOUT_S)
        return [
            AclInfo(
                topic=acl.name,
                prefixed=acl.resource_pattern_type == ResourcePatternType.PREFIXED,
                principal=acl.principal,
                operation=acl.operation.name,
                allows=acl.permission_type == AclPermissionType.ALLOW,
            )
            for acl in found
        ]

    def names(self) -> list[str]:
        """Names of all topics that this principal may see, sorted."""
        return sorted(self._metadata().topics)

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Those of *names* that exist."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        # Metadata says at once if no broker is there; the requests below would wait.
        self._metadata()
        descriptions = self._ask(
            "describe topics",
            wanted,
            lambda left: self._client.describe_topics(TopicCollection(left), request_timeout=TIMEOUT_S),
        )
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in descriptions]
        configs = self._ask(
            "read topic settings",
            resources,
            lambda left: self._client.describe_configs(left, request_timeout=TIMEOUT_S),
        )
        settings = {resource.name: entries for resource, entries in configs.items()}
        return {
            name: TopicInfo(
                name=name,
                id=_UUID.pack(
                    description.topic_id.get_most_significant_bits(), description.topic_id.get_least_significant_bits()
                ),
                partitions=len(description.partitions),
                replication_factor=len(description.partitions[0].replicas),
                config={key: entry.value for key, entry in settings[name].items()},
            )
            for name, description in descriptions.items()
            if name in settings  # else it was deleted just now
        }

    def create(self, topics: Sequence[NewTopicSpec], replication_factor: int) -> list[str]:
        """Make topics; returns the names of those that were made, without those that existed.

        When it returns, the broker that is asked knows them.
        """
        if not topics:
            return []
        self._metadata()
        new = [
            NewTopic(topic.name, topic.partitions, replication_factor, config=dict(topic.config))
            if topic.leaders is None
            else NewTopic(
                topic.name,
                len(topic.leaders),
                replica_assignment=[[id_] for id_ in topic.leaders],
                config=dict(topic.config),
            )
            for topic in topics
        ]
        patience_s = TIMEOUT_S + _PARTITION_S * sum(topic.num_partitions for topic in new)
        futures = self._client.create_topics(new, request_timeout=patience_s, operation_timeout=patience_s)
        made = [
            name
            for name, future in futures.items()
            if self._done(f"create topic {name}", future, Answer.TOPIC_ALREADY_EXISTS, wait_s=patience_s)
        ]
        self._wait_until("create topics", lambda: set(made) <= set(self._metadata().topics), patience_s)
        return made

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics with all their records; those that do not exist are none. Returns as :meth:`create`."""
        if not names:
            return
        known = self._metadata().topics
        patience_s = TIMEOUT_S + _PARTITION_S * sum(len(known[name].partitions) for name in names if name in known)
        futures = self._client.delete_topics(list(names), request_timeout=patience_s, operation_timeout=patience_s)
        for name, future in futures.items():
            self._done(f"delete topic {name}", future, *_NOT_THERE, wait_s=patience_s)
        self._wait_until("delete topics", lambda: not set(names) & set(self._metadata().topics), patience_s)

    def offsets(
        self, partitions: Iterable[Partition], at: Literal["start", "end"] | int, *, committed: bool = False
    ) -> dict[Partition, int]:
        """An offset of each partition: of its first record, behind its last, or of the first at a time or later.

        *at* a time is in milliseconds since the epoch; where there is no such record, the end is meant. *committed*: the
        end is where the first open transaction begins.

        Raises:
            TopicMissingError: a partition does not exist.
        """
        spec: Any
        match at:
            case "start":
                spec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
            case "end":
                spec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            case _:
                spec = OffsetSpec.for_timestamp(at)
        wanted = [TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        self._metadata()
        answers = self._ask(
            "read offsets",
            wanted,
            lambda left: self._client.list_offsets(
                dict.fromkeys(left, spec),
                isolation_level=IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED,
                request_timeout=TIMEOUT_S,
            ),
        )
        missing = sorted({partition.topic for partition in wanted if partition not in answers})
        if missing:
            raise TopicMissingError(missing, "See what there is: pf topics list")
        found = {(partition.topic, partition.partition): answer.offset for partition, answer in answers.items()}
        after = [partition for partition, offset in found.items() if offset < 0]
        return found | (self.offsets(after, "end", committed=committed) if after else {})

    def members(self, group: str) -> list[str]:
        """Who is a member of a consumer group: static names (KIP-345) or member ids, with their hosts; sorted."""
        self._metadata()
        future = self._client.describe_consumer_groups([group], request_timeout=TIMEOUT_S)[group]
        with self._session.mapped(f"describe group {group}"):
            found = future.result(2 * TIMEOUT_S).members
        return sorted(
            f"{member.group_instance_id or member.member_id} at {member.host.lstrip('/')}" for member in found
        )

    def _metadata(self) -> Any:
        return self._session.metadata(self._client)

    def _ask(self, action: str, keys: Sequence[K], ask: Callable[[list[K]], Mapping[K, "Future[Any]"]]) -> dict[K, Any]:
        """The answer to each of *keys* that exists; asks again for those whose answer may change by itself.

        A broker that has just heard of a topic does not know yet who leads its partitions.
        """
        answers: dict[K, Any] = {}
        left = list(keys)
        deadline = time.monotonic() + TIMEOUT_S
        while left:
            again = []
            for key, future in ask(left).items():
                try:
                    answers[key] = future.result(2 * TIMEOUT_S)
                except KafkaException as error:
                    answer = answer_of(error)
                    if answer.code() in _NOT_THERE:
                        continue
                    if answer.code() not in _MOVING or time.monotonic() > deadline:
                        raise self._session.error(answer, action) from error
                    again.append(key)
            left = again
            if left:
                time.sleep(_PAUSE_S)
                self._metadata()  # else the client goes on asking under the leader's epoch that it knows
        return answers

    def _done(self, action: str, future: "Future[Any]", *ignored: int, wait_s: float) -> bool:
        try:
            future.result(wait_s + TIMEOUT_S)
        except KafkaException as error:
            if answer_of(error).code() in ignored:
                return False
            raise self._session.error(answer_of(error), action) from error
        return True

    def _wait_until(self, action: str, is_so: Callable[[], bool], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not is_so():
            if time.monotonic() > deadline:
                raise KafkaError(f"cannot {action}: the broker took the request, but does not show the outcome")
            time.sleep(_PAUSE_S)
