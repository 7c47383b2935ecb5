"""What lies between workers and brokers: the client below :class:`~pf_stream.kafka.link.Link`, and its bad connections.

Everything above the socket is the real code: the link gets its answers from :class:`Client`, which stands in for
aiokafka's, in the protocol's own request and response classes. On one connection a broker takes requests in order and a
fetch that waits holds up the next one; between connections nothing is in order. A connection may break before a request
arrives, after it was carried out, or while the request is on its way, which then arrives although its sender has given up,
or is dead.
"""

import asyncio
import random
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiokafka.errors as kafka_errors
from aiokafka import TopicPartition

from pf_stream.kafka.link import ConnectionSettings, Link
from tests.simulation.broker import Broker, Code
from tests.simulation.virtual import Process

__all__ = ["INIT_PRODUCER_ID", "METADATA", "OFFSETS", "PRODUCE", "Client", "Network", "Trouble"]

PRODUCE: Final = 0
FETCH: Final = 1
OFFSETS: Final = 2
METADATA: Final = 3
SETTINGS: Final = 32
INIT_PRODUCER_ID: Final = 22
VERSIONS: Final = {
    PRODUCE: (7, 7),
    FETCH: (4, 4),
    OFFSETS: (3, 3),
    METADATA: (11, 11),
    SETTINGS: (2, 2),
    INIT_PRODUCER_ID: (0, 0),
}
"""Versions that the model speaks, the plainest that have what the link needs."""

EARLIEST: Final = -2


@dataclass(slots=True)
class Trouble:
    """How likely things go wrong, for each request."""

    lost: float = 0.0
    """The connection breaks before the request arrives."""
    unanswered: float = 0.0
    """It is carried out, and the connection breaks before the answer arrives."""
    late: float = 0.0
    """The sender gives up, and it arrives seconds later."""
    slow: float = 0.0
    """It, or its answer, takes up to a second."""
    refused: float = 0.0
    """The coordinator is busy, which it says."""


class _Request(NamedTuple):
    body: Any
    answer: "asyncio.Future[Any]"
    breaks: bool
    delay: float
    """Of the answer."""


class _Connection:
    """One connection to one broker, as the broker sees it."""

    def __init__(self, network: "Network", node: int) -> None:
        self._network = network
        self._node = node
        self._arrived: deque[_Request] = deque()
        self._busy = False
        self.last_arrival = 0.0
        self.outstanding: dict[asyncio.Future[Any], None] = {}
        self.broken = False

    def arrive(self, request: _Request) -> None:
        self._arrived.append(request)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._arrived)
        if self._busy:
            request = self._arrived.popleft()
            self._network.carry_out(self._node, request.body, lambda response: self._done(request, response))

    def _done(self, request: _Request, response: Any) -> None:
        if request.breaks:
            self._network.at(request.delay, self.shut)
        else:
            self._network.at(request.delay, self._answer, request.answer, response)
        self._next()

    def _answer(self, future: "asyncio.Future[Any]", response: Any) -> None:
        self.outstanding.pop(future, None)
        if not future.done():
            future.set_result(response)

    def shut(self) -> None:
        """Break: whoever waits for an answer will not get one."""
        self.broken = True
        waiting, self.outstanding = self.outstanding, {}
        for future in waiting:
            if not future.done():
                future.set_exception(kafka_errors.KafkaConnectionError("the connection is lost"))


class Network:
    """The way of requests, for all workers. Runs in the world's context: what it carries outlives its sender."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, broker: Broker, dice: random.Random, now_ms: Callable[[], int]
    ) -> None:
        self.broker = broker
        self.trouble = Trouble()
        self._cut: set[Process | None] = set()
        self._connections: dict[Process | None, list[_Connection]] = {}
        self.sending: Callable[[Any], bool] = lambda request: False
        """Told of each request that a process is about to send; whether it must wait a turn."""
        self.carried: Callable[[Any], None] = lambda request: None
        """Told of each request that a broker carries out."""
        self._closed = False
        self._loop = loop
        self._dice = dice
        self._now_ms = now_ms
        self._context: Context = copy_context()
        self._waiting: dict[tuple[str, int], list[Callable[[], None]]] = {}
        broker.appended.append(lambda partition, _: self._appended(partition.topic.name, partition.number))

    def at(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call something later, whatever becomes of who asked for it."""
        return self._loop.call_later(delay, callback, *args, context=self._context)

    def close(self) -> None:
        """Carry nothing any more."""
        self._closed = True

    # -- from the client to the broker ---------------------------------------------------------------------------------

    def connection(self, node: int) -> _Connection:
        """A new connection of the process that asks for it."""
        connection = _Connection(self, node)
        self._connections.setdefault(Process.current(), []).append(connection)
        return connection

    def cut(self, process: Process) -> None:
        """Let a process reach no broker. What it has sent may arrive, but no answer."""
        self._cut.add(process)
        for connection in self._connections.pop(process, ()):
            connection.shut()

    def mend(self, process: Process) -> None:
        """Let it reach the brokers again."""
        self._cut.discard(process)

    async def send(self, connection: _Connection, body: Any) -> Any:
        """Send a request and wait for its answer; raises :class:`KafkaConnectionError`."""
        dice, trouble = self._dice, self.trouble
        if self.sending(body):
            await asyncio.sleep(0)
        if self._closed or Process.current() in self._cut:
            await asyncio.sleep(0.05)
            raise kafka_errors.KafkaConnectionError("cut off")
        answer: asyncio.Future[Any] = self._loop.create_future()
        connection.outstanding[answer] = None
        delay = dice.uniform(0.0002, 0.003)
        back = dice.uniform(0.0002, 0.003)
        chance = dice.random()
        breaks = False
        fate = ""
        for name in ("lost", "unanswered", "late", "slow"):
            limit = getattr(trouble, name)
            if 0 <= chance < limit:
                fate = name
            chance -= limit
        match fate:
            case "lost":
                self.at(delay, connection.shut)
                return await answer
            case "unanswered":
                breaks = True
            case "late":
                self.at(delay, connection.shut)
                delay = dice.choice([0.05, 0.5, 3.0, 12.0]) * dice.random()
            case "slow":
                delay += dice.random()
                back += dice.choice([0.0, 1.0]) * dice.random()
        now = self._loop.time()
        connection.last_arrival = max(connection.last_arrival, now + delay)
        self.at(connection.last_arrival - now, connection.arrive, _Request(body, answer, breaks, back))
        return await answer

    # -- at the broker -------------------------------------------------------------------------------------------------

    def carry_out(self, node: int, request: Any, done: Callable[[Any], None]) -> None:
        """Do what is asked for, and tell *done* of the answer."""
        self.carried(request)
        match request.API_KEY:
            case 0:
                done(self._produce(node, request))
            case 1:
                self._fetch(node, request, self._loop.time() + request.max_wait_time / 1000, done)
            case 2:
                done(self._offsets(node, request))
            case 3:
                done(self._metadata(request))
            case 22:
                done(self._init_producer_id(request))
            case 32:
                done(self._settings(request))
            case unknown:
                raise NotImplementedError(f"the model has no answer to api key {unknown}")

    def _produce(self, node: int, request: Any) -> Any:
        topics: list[Any] = []
        for topic, partitions in request.topics:
            rows: list[Any] = []
            for number, batch in partitions:
                code, offset = self.broker.append(topic, number, batch, self._now_ms(), node)
                rows.append((number, code, offset, -1, 0))
            topics.append((topic, rows))
        return request.RESPONSE_TYPE(topics, 0)

    def _fetch(self, node: int, request: Any, deadline: float, done: Callable[[Any], None]) -> None:
        size = 0
        failed = False
        topics: list[Any] = []
        for topic, partitions in request.topics:
            rows: list[Any] = []
            for number, offset, max_bytes in partitions:
                code, data, end = self._read(node, topic, number, offset, max_bytes)
                failed = failed or code != Code.none
                size += len(data)
                rows.append((number, code, end, end, [], data))
            topics.append((topic, rows))
        left = deadline - self._loop.time()
        if failed or size >= request.min_bytes or left <= 0:
            done(request.RESPONSE_TYPE(0, topics))
            return
        # The broker looks again as soon as something is appended, and answers at the end with whatever is there.
        again = _Once(lambda: self._fetch(node, request, deadline, done))
        self.at(left, again)
        for topic, partitions in request.topics:
            for number, *_ in partitions:
                self._waiting.setdefault((topic, number), []).append(again)

    def _appended(self, topic: str, number: int) -> None:
        for look_again in self._waiting.pop((topic, number), ()):
            self.at(0, look_again)

    def _read(self, node: int, topic: str, number: int, offset: int, max_bytes: int) -> tuple[int, bytes, int]:
        partition = self.broker.partition(topic, number)
        if partition is None:
            return Code.unknown_topic_or_partition, b"", -1
        if partition.leader != node:
            return Code.not_leader, b"", -1
        code, data = partition.read(offset, max_bytes)
        return code, data, partition.end if code == Code.none else -1

    def _offsets(self, node: int, request: Any) -> Any:
        topics: list[Any] = []
        for topic, partitions in request.topics:
            rows: list[Any] = []
            for number, when in partitions:
                partition = self.broker.partition(topic, number)
                if partition is None:
                    rows.append((number, Code.unknown_topic_or_partition, -1, -1))
                elif partition.leader != node:
                    rows.append((number, Code.not_leader, -1, -1))
                else:
                    rows.append((number, Code.none, -1, partition.begin if when == EARLIEST else partition.end))
            topics.append((topic, rows))
        return request.RESPONSE_TYPE(0, topics)

    def _metadata(self, request: Any) -> Any:
        topics: list[Any] = []
        for _, name, _ in request.topics:
            topic = self.broker.topics.get(name)
            if topic is None:
                topics.append((Code.unknown_topic_or_partition, name, bytes(16), False, [], 0, {}))
            else:
                rows: list[Any] = [
                    (Code.none, partition.number, partition.leader, 0, [], [], [], {}) for partition in topic.partitions
                ]
                topics.append((Code.none, name, topic.id, False, rows, 0, {}))
        return request.RESPONSE_TYPE(0, [], "model", 0, topics, {})

    def _settings(self, request: Any) -> Any:
        resources: list[Any] = []
        for kind, name, settings in request.resources:
            topic = self.broker.topics.get(name)
            found = {} if topic is None else {"delete.retention.ms": str(topic.delete_retention_ms)}
            code = Code.none if topic is not None else Code.unknown_topic_or_partition
            rows: list[Any] = [(one, found[one], False, 5, False, []) for one in settings if one in found]
            resources.append((code, "", kind, name, rows))
        return request.RESPONSE_TYPE(0, resources)

    def _init_producer_id(self, request: Any) -> Any:
        if self._dice.random() < self.trouble.refused:
            code = self._dice.choice(
                [14, 15, 16, 51]
            )  # loading, not available, not coordinator, concurrent transactions
            return request.RESPONSE_TYPE(0, code, -1, -1)
        return request.RESPONSE_TYPE(0, Code.none, *self.broker.init_producer_id(request.transactional_id))


class _Once:
    """A function that is called once, however often it is asked for."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()


class _Metadata:
    """What a client knows of the cluster, which may be out of date."""

    def __init__(self) -> None:
        self.leaders: dict[tuple[str, int], int] = {}
        self.partitions: dict[str, set[int]] = {}

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        return self.leaders.get((partition.topic, partition.partition))

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.partitions.get(topic)


class Client:
    """As much of ``AIOKafkaClient`` as a link uses."""

    def __init__(self, network: Network) -> None:
        self.cluster = _Metadata()
        self._network = network
        self._connections: dict[tuple[int, object], _Connection] = {}
        self._topics: dict[str, None] = {}

    def link(self) -> Link:
        """A link over this client."""
        return Link(ConnectionSettings("model"), self)

    async def close(self) -> None:
        for connection in self._connections.values():
            connection.shut()

    def get_random_node(self) -> int:
        return 0

    async def send(self, node: int, request: Any, *, group: object = None) -> Any:
        """Send a request and wait for its answer."""
        connection = self._connections.get((node, group))
        if connection is None or connection.broken:
            connection = self._connections[node, group] = self._network.connection(node)
        return await self._network.send(connection, request.prepare(VERSIONS))

    async def ready(self, node: int, *, group: object = None) -> bool:
        return True

    async def coordinator_lookup(self, kind: object, key: str) -> int:
        return zlib.crc32(key.encode()) % self._network.broker.nodes

    async def add_topic(self, topic: str) -> bool:
        self._topics[topic] = None
        return await self.force_metadata_update()

    async def force_metadata_update(self) -> bool:
        """Ask for leaders; aiokafka tells of a failure by its result alone."""
        try:
            response = await self.send(0, _Topics(self._topics))
        except kafka_errors.KafkaError:
            return False
        self.cluster.leaders.clear()
        self.cluster.partitions.clear()
        for code, name, _, _, partitions, *_ in response.topics:
            if code == Code.none:
                self.cluster.partitions[name] = {row[1] for row in partitions}
                self.cluster.leaders |= {(name, row[1]): row[2] for row in partitions}
        return True


def _Topics(names: Iterable[str]) -> Any:  # noqa: N802
    from pf_stream.kafka._metadata import TopicsRequest

    return TopicsRequest(list(names))
