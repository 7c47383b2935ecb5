"""Administration of a cluster: topics, their settings and offsets."""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import KafkaError as Answer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, imported there without `as`
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from pf_stream.kafka._confluent import TIMEOUT_S, Session, answer_of
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import ConnectionSettings, Partition

__all__ = ["Admin", "NewTopicSpec", "TopicInfo"]

T = TypeVar("T")

_UUID = struct.Struct(">qq")
# A broker does not know the topic; the client found no leader for a partition of it.
_NOT_THERE = frozenset({Answer.UNKNOWN_TOPIC_OR_PART, Answer._NOENT, Answer._UNKNOWN_TOPIC, Answer._UNKNOWN_PARTITION})


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
class NewTopicSpec:
    """A topic to be made."""

    name: str
    """Its name."""
    partitions: int
    """How many."""
    config: Mapping[str, str]
    """Settings that differ from the cluster's defaults."""


class Admin:
    """Asks a cluster and tells it what to do. Every call waits for its answer, some seconds at most.

    Every method raises :class:`KafkaUnavailableError` if no broker answers, :class:`NotAuthorisedError` if it will not
    for this principal, and :class:`KafkaError` for whatever else it says.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._session = Session(settings)
        self._client = AdminClient(self._session.configuration())

    def brokers(self) -> int:
        """Number of brokers that are alive."""
        return len(self._metadata().brokers)

    def names(self) -> list[str]:
        """Names of all topics that this principal may see, sorted."""
        return sorted(self._metadata().topics)

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """Those of *names* that exist."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        # Descriptions come by a request that, unlike metadata, does not wait for a broker that is not there.
        self._metadata()
        descriptions = self._all(
            "describe topics", self._client.describe_topics(TopicCollection(wanted), request_timeout=TIMEOUT_S)
        )
        found = {name: answer for name, answer in descriptions.items() if answer is not None}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
        configs = (
            self._all("read topic settings", self._client.describe_configs(resources, request_timeout=TIMEOUT_S))
            if resources
            else {}
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
                config={key: entry.value for key, entry in (settings.get(name) or {}).items()},
            )
            for name, description in found.items()
        }

    def create(self, topics: Sequence[NewTopicSpec], replication_factor: int) -> list[str]:
        """Make topics; returns the names of those that were made, without those that existed."""
        if not topics:
            return []
        self._metadata()
        new = [
            NewTopic(topic.name, topic.partitions, replication_factor, config=dict(topic.config)) for topic in topics
        ]
        answers = self._all(
            "create topics",
            self._client.create_topics(new, request_timeout=TIMEOUT_S, operation_timeout=TIMEOUT_S),
            ignore=frozenset({Answer.TOPIC_ALREADY_EXISTS}),
            done=lambda _: True,
        )
        return [name for name, made in answers.items() if made]

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics with all their records; those that do not exist are none."""
        if names:
            self._metadata()
            self._all(
                "delete topics",
                self._client.delete_topics(list(names), request_timeout=TIMEOUT_S, operation_timeout=TIMEOUT_S),
            )

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
        wanted = {TopicPartition(*partition): spec for partition in partitions}
        if not wanted:
            return {}
        self._metadata()
        answers = self._all(
            "read offsets",
            self._client.list_offsets(
                wanted,
                isolation_level=IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED,
                request_timeout=TIMEOUT_S,
            ),
        )
        missing = sorted({partition.topic for partition, answer in answers.items() if answer is None})
        if missing:
            raise TopicMissingError(missing, "See what there is: pf topics list")
        found = {(partition.topic, partition.partition): answer.offset for partition, answer in answers.items()}
        after = [partition for partition, offset in found.items() if offset < 0]
        return found | (self.offsets(after, "end", committed=committed) if after else {})

    def _metadata(self) -> Any:
        with self._session.mapped("read the cluster's metadata"):
            try:
                return self._client.list_topics(timeout=TIMEOUT_S)
            finally:
                self._client.poll(0)  # the reason why there is no answer

    def _all(
        self,
        action: str,
        futures: Mapping[Any, "Future[T]"],
        *,
        ignore: frozenset[int] = _NOT_THERE,
        done: Callable[[T], Any] = lambda answer: answer,
    ) -> dict[Any, Any]:
        answers: dict[Any, Any] = {}
        for key, future in futures.items():
            try:
                answers[key] = done(future.result(2 * TIMEOUT_S))
            except KafkaException as error:
                if answer_of(error).code() not in ignore:
                    raise self._session.error(answer_of(error), f"{action} ({key})") from error
                answers[key] = None
        return answers
