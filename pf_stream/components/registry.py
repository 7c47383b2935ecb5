"""The component registry: what runs where, told by the workers themselves on a compacted topic.

::

    key    worker:APP:WORKER, reactor:APP:REACTOR:WORKER
    value  JSON, see Component; deleted when the worker stops

For people and consoles: whoever may write to the topic can write anything there, so nothing is decided by it. Only the
worker's own record is refreshed while it runs; its reactors live as long as it does.
"""

import asyncio
import importlib.metadata
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, Protocol

import orjson
from pydantic import TypeAdapter, ValidationError

from pf_stream.clock import Clock
from pf_stream.core.status import LaneStatus, SinkStatus, TableStatus
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import read_topic
from pf_stream.kafka.topics import REGISTRY
from pf_stream.model import IntentSpec, Topology

__all__ = ["HEARTBEAT_S", "Component", "Peers", "Registry", "RegistrySender", "components", "records_for"]

HEARTBEAT_S: Final = 10.0
"""How often a worker is expected to call :meth:`Registry.report`; one that missed three is counted as lost."""
FRESH_S: Final = 1.0
"""How old may be what :class:`Peers` knows."""

Kind = Literal["worker", "reactor"]


@dataclass(frozen=True, slots=True)
class Component:
    """Something that runs, or ran until it stopped without saying so."""

    kind: Kind
    """What it is."""
    name: str
    """The reactor's id, or the worker's."""
    version: str
    """Of a reactor, the version of its state; of a worker, that of pf_stream."""
    app: str
    """Application: consumer group and prefix of changelogs."""
    namespace: str
    """First part of its topics."""
    worker: str
    """The worker it runs in."""
    intents: tuple[str, ...]
    """Intent types that it handles."""
    capabilities: tuple[str, ...]
    """What is required for these, as text."""
    started_ms: int
    """When it was announced, milliseconds since the epoch."""
    heartbeat_ms: int
    """When its worker was last heard of, likewise."""
    lanes: tuple[LaneStatus, ...] = ()
    """Of a worker, its lanes at that time."""
    host: str | None = None
    """Of a worker, the name of its machine."""
    port: int | None = None
    """Of a worker, the port of that machine's loopback interface at which it answers over HTTP; None if it does not."""
    sinks: tuple[SinkStatus, ...] = ()
    """Of a worker, its sinks when it was last heard of."""
    tables: tuple[TableStatus, ...] = ()
    """Of a worker, its global tables at that time."""

    def is_lost(self, now_ms: int) -> bool:
        """Whether its worker has not been heard of for too long."""
        return now_ms - self.heartbeat_ms > 3 * HEARTBEAT_S * 1000


class RegistrySender(Protocol):
    """Writes to Kafka."""

    async def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Append one record; None deletes the key."""
        ...


def records_for(topology: Topology, worker: str, now_ms: int) -> list[tuple[bytes, bytes]]:
    """Keys and values that announce a worker of *topology*: its own first, then one for each reactor."""
    found = [_worker(topology, worker, now_ms)]
    for spec in topology.specs:
        types = [handler.intent for handler in spec.handlers]
        found.append(
            replace(
                found[0],
                kind="reactor",
                name=spec.id,
                version=str(spec.state.version),
                intents=tuple(sorted(intent.type for intent in types)),
                capabilities=_required(topology, types),
            )
        )
    return [(_key(component), orjson.dumps(asdict(component))) for component in found]


class Registry:
    """Tells the registry of one worker."""

    def __init__(
        self, sender: RegistrySender, topology: Topology, worker: str, clock: Clock, port: int | None = None
    ) -> None:
        """*port* is where the worker answers over HTTP, if it does."""
        self._port = port
        self._sender = sender
        self._topology = topology
        self._worker = worker
        self._clock = clock
        self._started_ms: int | None = None

    async def report(
        self,
        lanes: Sequence[LaneStatus] = (),
        sinks: Sequence[SinkStatus] = (),
        tables: Sequence[TableStatus] = (),
    ) -> None:
        """Say that the worker runs and how its lanes, sinks and tables do; to be called every :data:`HEARTBEAT_S` seconds.

        The first time the reactors are announced with it.
        """
        now_ms = self._clock.now_ms()
        started_ms = now_ms if self._started_ms is None else self._started_ms
        if self._started_ms is None:
            for key, value in records_for(self._topology, self._worker, now_ms)[1:]:
                await self._sender.send(REGISTRY, key, value)
        own = replace(
            _worker(self._topology, self._worker, started_ms),
            heartbeat_ms=self._clock.now_ms(),
            lanes=tuple(lanes),
            sinks=tuple(sinks),
            tables=tuple(tables),
            host=socket.gethostname(),
            port=self._port,
        )
        await self._sender.send(REGISTRY, _key(own), orjson.dumps(asdict(own)))
        self._started_ms = started_ms

    async def withdraw(self) -> None:
        """Say that the worker has stopped."""
        for key, _ in records_for(self._topology, self._worker, 0):
            await self._sender.send(REGISTRY, key, None)


def components(settings: ConnectionSettings) -> list[Component]:
    """All components that are announced, sorted by application, kind and name; records of another form are left out.

    Raises:
        TopicMissingError: no topology of this cluster has had its topics made.
    """
    try:
        latest = {record.key: record.value for record in read_topic(settings, REGISTRY)}
    except TopicMissingError:
        raise TopicMissingError([REGISTRY], "It is made with the topics of a topology: pf topics create") from None
    return merge((key, value) for key, value in latest.items() if key is not None and value is not None)


def merge(records: Iterable[tuple[bytes, bytes]]) -> list[Component]:
    """The components that the last records of all keys announce, each with its worker's heartbeat."""
    found: list[Component] = []
    for key, value in records:
        try:
            component = _COMPONENT.validate_json(value)
        except ValidationError:
            continue  # of a later version, or not ours at all
        if key == _key(component):
            found.append(component)
    heartbeats = {(c.app, c.worker): c.heartbeat_ms for c in found if c.kind == "worker"}
    alive = (replace(c, heartbeat_ms=heartbeats.get((c.app, c.worker), c.heartbeat_ms)) for c in found)
    return sorted(alive, key=lambda c: (c.app, c.kind != "worker", c.name, c.worker))


class Peers:
    """What the other workers of an application tell the registry, as one of them asks for it."""

    def __init__(self, read: Callable[[], Iterable[Component]], app: str, worker: str, clock: Clock) -> None:
        """*read* reads the registry, and may take its time; *worker* is the one that asks."""
        self._read = read
        self._app = app
        self._worker = worker
        self._clock = clock
        self._reading = asyncio.Lock()
        self._known: Sequence[Component] = ()
        self._read_at: float | None = None

    async def with_lane(self, name: str) -> Component | None:
        """The worker that has the lane, as far as that is known: of several that say so, the one that was last heard of.

        Raises :class:`KafkaError` if the registry cannot be read.
        """
        time = asyncio.get_running_loop().time
        async with self._reading:
            if self._read_at is None or time() - self._read_at > FRESH_S:
                self._known = [one for one in await asyncio.to_thread(self._read) if self._is_peer(one)]
                self._read_at = time()
        now_ms = self._clock.now_ms()
        having = (
            one for one in self._known if not one.is_lost(now_ms) and any(lane.name == name for lane in one.lanes)
        )
        return max(having, key=lambda one: one.heartbeat_ms, default=None)

    def _is_peer(self, one: Component) -> bool:
        return one.kind == "worker" and one.app == self._app and one.worker != self._worker


_COMPONENT: TypeAdapter[Any] = TypeAdapter(Component)


def _worker(topology: Topology, worker: str, now_ms: int) -> Component:
    handled = [handler.intent for spec in topology.specs for handler in spec.handlers]
    return Component(
        kind="worker",
        name=worker,
        version=importlib.metadata.version("pf-stream"),
        app=topology.app_id,
        namespace=topology.namespace,
        worker=worker,
        intents=_unique(intent.type for intent in handled),
        capabilities=_required(topology, handled),
        started_ms=now_ms,
        heartbeat_ms=now_ms,
    )


def _key(component: Component) -> bytes:
    if component.kind == "worker":
        return f"worker:{component.app}:{component.worker}".encode()
    return f"reactor:{component.app}:{component.name}:{component.worker}".encode()


def _required(topology: Topology, types: Iterable[IntentSpec]) -> tuple[str, ...]:
    return _unique(str(requirement) for intent in types for requirement in topology.requirements(intent))


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))
