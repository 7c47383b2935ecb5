"""Plain Kafka requests over aiokafka's connections: produce, fetch, offsets, and to coordinators.

aiokafka's producer and consumer hide what the lane must decide itself: which producer id a batch carries, in which order
batches leave, and from where a partition is read. Its client has what is left: connections, metadata, authentication.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import aiokafka.errors as kafka_errors
import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest

from pf_stream.kafka._metadata import TopicsRequest
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.errors import KafkaError, KafkaUnavailableError, NotAuthorisedError, TopicMissingError

__all__ = [
    "NOT_AUTHORISED",
    "ConnectionSettings",
    "Described",
    "FetchResult",
    "Link",
    "Partition",
    "Pause",
    "Produced",
    "error_of",
    "is_transient",
    "refusal",
]

log = structlog.get_logger(__name__)

Partition = tuple[str, int]
"""Topic and partition number."""

READ_COMMITTED: Final = 1
BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 1.0
TOPIC: Final = 2
"""A topic, among the things that have settings."""
EARLIEST: Final = -2
LATEST: Final = -1


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach a cluster."""

    bootstrap_servers: str
    """Host and port pairs, comma separated."""
    client_id: str = "pf_stream"
    """Shown in the broker's logs and quotas."""
    security_protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    sasl_mechanism: str = "PLAIN"
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    sasl_username: str | None = None
    """Name of the principal."""
    sasl_password: str | None = None
    """Its secret; never shown."""
    ca_file: str | None = None
    """PEM file of the authorities to trust; the system's if not set."""

    def __repr__(self) -> str:
        return f"ConnectionSettings({self.bootstrap_servers!r}, {self.security_protocol})"

    def for_aiokafka(self) -> dict[str, Any]:
        """Arguments of an aiokafka client, producer or consumer."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            arguments["ssl_context"] = ssl.create_default_context(cafile=self.ca_file)
        if self.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return arguments

    def for_librdkafka(self) -> dict[str, Any]:
        """Configuration of a confluent-kafka client."""
        configuration: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": self.client_id,
            "security.protocol": self.security_protocol,
        }
        if self.ca_file is not None:
            configuration["ssl.ca.location"] = self.ca_file
        if self.security_protocol.startswith("SASL"):
            configuration |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password,
            }
        return configuration


@dataclass(frozen=True, slots=True)
class Produced:
    """Answer to one batch of a produce request."""

    offset: int
    """Offset of the batch's first record, if *error* is not set."""
    error: kafka_errors.BrokerResponseError | None
    """Why the broker refused it."""


@dataclass(frozen=True, slots=True)
class FetchResult:
    """Answer to one partition of a fetch request."""

    chunk: Chunk | None
    """What was read; ``None`` if nothing was there or *error* is set."""
    high_watermark: int
    """Offset behind the partition's last record."""
    error: kafka_errors.BrokerResponseError | None
    """Why the broker refused to read it."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a topic is."""

    id: bytes
    """16 bytes that no other topic has, not even one of the same name that is made later (KIP-516)."""
    partitions: int
    """How many it has."""


class Link:
    """Connections to a cluster: one to each broker. A fetch that waits blocks what comes behind it on the same link."""

    def __init__(self, settings: ConnectionSettings, client: AIOKafkaClient) -> None:
        self.settings = settings
        self._client = client
        self._coordinators: dict[tuple[CoordinationType, str], int] = {}

    @classmethod
    async def connect(cls, settings: ConnectionSettings) -> Self:
        """Connect; raises :class:`KafkaUnavailableError`."""
        client = AIOKafkaClient(metadata_max_age_ms=60_000, **settings.for_aiokafka())
        try:
            await client.bootstrap()
        except kafka_errors.KafkaError as error:
            await client.close()
            raise KafkaUnavailableError(settings.bootstrap_servers, error) from error
        except BaseException:
            await client.close()
            raise
        return cls(settings, client)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    # -- metadata ------------------------------------------------------------------------------------------------------

    async def describe(self, topics: Sequence[str]) -> dict[str, Described]:
        """Those of *topics* that exist, as far as this principal may see them; waits until a broker answers."""
        return {
            name: Described(topic_id, len(partitions))
            for code, name, topic_id, _, partitions, *_ in await self._topics(topics)
            if code in {0, kafka_errors.LeaderNotAvailableError.errno}
        }

    async def why_absent(self, topic: str) -> KafkaError | None:
        """Why a topic is not among those that :meth:`describe` finds; None if it is there after all."""
        code = (await self._topics([topic]))[0][0]
        if code == kafka_errors.TopicAuthorizationFailedError.errno:
            return NotAuthorisedError(f"see {topic}", error_of(code, topic))
        if code in {0, kafka_errors.LeaderNotAvailableError.errno}:
            return None
        return TopicMissingError([topic], "Create it with: pf topics create")

    async def _topics(self, topics: Sequence[str]) -> Sequence[Any]:
        """What the brokers say of *topics*. Makes none, whatever their settings."""
        response = await self._to_anybody(TopicsRequest(topics))
        found: Sequence[Any] = response.topics
        return found

    async def topic_setting(self, topic: str, name: str) -> str | None:
        """A setting of a topic; None if it is not told to this principal. Raises aiokafka's ``KafkaError``."""
        response = await self._to_anybody(DescribeConfigsRequest([(TOPIC, topic, [name])]))
        ((code, _, _, _, entries),) = response.resources
        return next((value for found, value, *_ in entries if code == 0 and found == name), None)

    async def _to_anybody(self, request: Any) -> Any:
        """The answer of whichever broker gives one first; waits out what may pass."""
        pause = Pause(self)
        while True:
            node = self._client.get_random_node()
            if node is not None:
                try:
                    return await self._client.send(node, request)
                except kafka_errors.KafkaError as error:
                    if not is_transient(error):
                        raise
            await pause()

    def leader(self, partition: Partition) -> int | None:
        """Id of the broker that leads a partition, as far as is known."""
        node = self._client.cluster.leader_for_partition(TopicPartition(*partition))
        return None if node in (None, -1) else node

    def partitions(self, topic: str) -> int:
        """How many partitions a watched topic has, as of the last metadata; at most a minute old."""
        return len(self._client.cluster.partitions_for_topic(topic) or ())

    async def watch(self, topics: Sequence[str]) -> None:
        """Learn, and from now on keep up with, the leaders of *topics*."""
        cluster = self._client.cluster
        for topic in topics:
            # The client lets everybody share an update that is under way, which may have been asked for before the topic
            # was added; only the second one from here on surely knows it.
            for _ in range(2):
                if cluster.partitions_for_topic(topic) is None:
                    await self._client.add_topic(topic)
                    await self.refresh()

    async def refresh(self) -> None:
        """Ask for the metadata anew."""
        try:
            await self._client.force_metadata_update()
        except kafka_errors.KafkaError as error:
            log.debug("metadata update failed", error=str(error))

    # -- data ----------------------------------------------------------------------------------------------------------

    async def produce(
        self, node: int, batches: Sequence[tuple[Partition, bytes]], transactional_id: str | None = None
    ) -> dict[Partition, Produced]:
        """Append batches, at most one for each partition, all led by *node*, with ``acks=all``.

        *transactional_id* is that of the transaction which all of them belong to, if they do.

        Raises aiokafka's ``KafkaError`` if no answer came, in which case nobody knows whether they were appended.
        """
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for (topic, partition), batch in batches:
            topics.setdefault(topic, []).append((partition, batch))
        response = await self._client.send(
            node,
            ProduceRequest(transactional_id, required_acks=-1, timeout=30_000, topics=list(topics.items())),
        )
        return {
            (topic, row[0]): Produced(row[2], error_of(row[1], f"{topic}-{row[0]}"))
            for topic, rows in response.topics
            for row in rows
        }

    async def fetch(
        self,
        node: int,
        positions: Mapping[Partition, int],
        *,
        max_wait_ms: int,
        min_bytes: int,
        partition_bytes: int,
        max_bytes: int,
    ) -> dict[Partition, FetchResult]:
        """Read committed records from *positions* on, all led by *node*; aborted transactions are left out.

        Waits at the broker until *min_bytes* are there or *max_wait_ms* have passed. Raises aiokafka's ``KafkaError``.
        """
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for (topic, partition), offset in positions.items():
            topics.setdefault(topic, []).append((partition, offset, partition_bytes))
        response = await self._client.send(
            node, FetchRequest(max_wait_ms, min_bytes, max_bytes, READ_COMMITTED, list(topics.items()))
        )
        results = {}
        for topic, rows in response.topics:
            for row in rows:
                where = f"{topic}-{row[0]}"
                # Version 11 has the preferred replica between the aborted transactions and the records.
                aborted = row[-3] if response.API_VERSION >= 11 else row[-2]
                data = row[-1]
                chunk = Chunk(data, aborted or (), where) if data else None
                results[topic, row[0]] = FetchResult(
                    None if chunk is None or chunk.next_offset < 0 else chunk, row[2], error_of(row[1], where)
                )
        return results

    async def read_range(self, partition: Partition, start: int, end: int) -> Sequence[Any]:
        """Every committed record of ``[start, end)``, retried until it is read; for single records and tools."""
        records: list[Any] = []
        position = start
        while position < end:
            result = await self.fetch_one(partition, position)
            if result.error is not None:
                raise refusal(f"read {partition[0]}", result.error)
            if result.chunk is None:
                break
            records.extend(record for record in result.chunk if position <= record.offset < end)
            position = result.chunk.next_offset
        return records

    async def fetch_one(self, partition: Partition, position: int, partition_bytes: int = 8 << 20) -> FetchResult:
        """Read one partition from *position* on; waits out what may pass, for the rest see the result's *error*."""
        pause = Pause(self)
        while True:
            node = await self._leader(partition)
            try:
                results = await self.fetch(
                    node,
                    {partition: position},
                    max_wait_ms=100,
                    min_bytes=1,
                    partition_bytes=partition_bytes,
                    max_bytes=64 << 20,
                )
            except kafka_errors.KafkaError as error:
                if not is_transient(error):
                    raise
            else:
                result = results[partition]
                if result.error is None or not is_transient(result.error):
                    return result
            await pause()

    async def offsets(self, partitions: Sequence[Partition], *, end: bool) -> dict[Partition, int]:
        """First offset of each partition, or with *end* the offset behind its last record; waits out a lost leader."""
        found: dict[Partition, int] = {}
        when = LATEST if end else EARLIEST
        await self.watch(sorted({topic for topic, _ in partitions}))
        pause = Pause(self)
        while missing := [partition for partition in partitions if partition not in found]:
            by_node: dict[int, dict[str, list[tuple[int, int]]]] = {}
            for partition in missing:
                node = await self._leader(partition)
                by_node.setdefault(node, {}).setdefault(partition[0], []).append((partition[1], when))
            for node, topics in by_node.items():
                try:
                    # Isolation level 0: a transaction that is open keeps nobody from knowing where the log ends.
                    response = await self._client.send(node, OffsetRequest(-1, 0, list(topics.items())))
                except kafka_errors.KafkaError as error:
                    if not is_transient(error):
                        raise
                    continue
                for topic, rows in response.topics:
                    for row in rows:
                        error_ = error_of(row[1], f"{topic}-{row[0]}")
                        if error_ is None:
                            found[topic, row[0]] = row[3]
                        elif not is_transient(error_):
                            raise refusal(f"read {topic}", error_)
            if len(found) < len(partitions):
                await pause()
        return found

    # -- coordinators --------------------------------------------------------------------------------------------------

    async def to_coordinator(self, kind: CoordinationType, key: str, request: Any) -> Any:
        """The answer of the broker that keeps a group or a transactional id. Raises aiokafka's ``KafkaError``."""
        node = self._coordinators.get((kind, key))
        try:
            if node is None:
                node = await self._client.coordinator_lookup(kind, key)
                # Its address came with the answer or is in the metadata; a broker that has just come may be in neither.
                if not await self._client.ready(node, group=ConnectionGroup.COORDINATION):
                    raise kafka_errors.NodeNotReadyError
                self._coordinators[kind, key] = node
            return await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
        except kafka_errors.KafkaError:
            self.forget_coordinator(kind, key)
            raise

    def forget_coordinator(self, kind: CoordinationType, key: str) -> None:
        """Look it up again the next time: it has moved."""
        self._coordinators.pop((kind, key), None)

    async def _leader(self, partition: Partition) -> int:
        pause = Pause(self)
        while True:
            node = self.leader(partition)
            if node is not None:
                return node
            await self.watch([partition[0]])
            if self.leader(partition) is None and (why := await self.why_absent(partition[0])) is not None:
                raise why
            await pause()


class Pause:
    """What is waited between two tries, longer each time; leaders are asked for anew."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._seconds = BACKOFF_S

    async def __call__(self) -> None:
        await asyncio.sleep(self._seconds)
        self._seconds = min(MAX_BACKOFF_S, self._seconds * 1.5)
        await self._link.refresh()


_TRANSIENT = (
    kafka_errors.KafkaConnectionError,
    kafka_errors.NodeNotReadyError,
    kafka_errors.RequestTimedOutError,
    kafka_errors.NotLeaderForPartitionError,
    kafka_errors.LeaderNotAvailableError,
    kafka_errors.UnknownTopicOrPartitionError,
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.NotCoordinatorError,
    kafka_errors.CoordinatorLoadInProgressError,
    kafka_errors.ConcurrentTransactions,
    kafka_errors.StaleMetadata,
    kafka_errors.CorrelationIdError,
)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, _TRANSIENT) or bool(getattr(error, "retriable", False))


NOT_AUTHORISED: Final = (
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
)
"""A broker does not let this principal do it."""


def refusal(action: str, error: BaseException) -> KafkaError:
    """What it means that a broker has refused *action* for good."""
    if isinstance(error, NOT_AUTHORISED):
        return NotAuthorisedError(action, error)
    return KafkaError(f"cannot {action}: {error!r}")


PRODUCER_FENCED: Final = 90
"""Brokers of Kafka 2.8 and later say so in answers that aiokafka 0.14 does not know."""


def error_of(code: int, where: str) -> kafka_errors.BrokerResponseError | None:
    """What a code of an answer says about *where*; ``None`` if all is well."""
    if code == 0:
        return None
    if code == PRODUCER_FENCED:
        return kafka_errors.ProducerFenced(where)
    return kafka_errors.for_code(code)(f"{where} (code {code})")
