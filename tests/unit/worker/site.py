"""A worker as far as its state can be asked for over HTTP: lanes that are real, a server that is, and nothing of Kafka."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlencode

from prometheus_client import CollectorRegistry

from pf_stream.clock import VirtualClock
from pf_stream.components.registry import Component, Peers
from pf_stream.core import Authority, partition_of
from pf_stream.core.status import LaneState, LaneStatus
from pf_stream.engine.lanes import Lanes
from pf_stream.model.capability import parse_grant
from pf_stream.security import SigningKey, TrustRoots, Verifier, mint
from pf_stream.worker.health import Health, HealthServer
from pf_stream.worker.state import StateRoutes
from tests.unit.core.kit import KEY, NOW_MS, Bench
from tests.unit.core.test_reading import ROOTS

HERE = socket.gethostname()


def token(*grants: str, key: SigningKey = KEY, **options: object) -> str:
    given: dict[str, object] = {"audience": "box", "now_ms": NOW_MS, **options}
    return mint(key, subject="ann", capabilities=list(map(parse_grant, grants)), **given)  # type: ignore[arg-type]


ALL = token("StateCap.read:/**")


def lane_status(number: int, state: LaneState = LaneState.running, **more: Any) -> LaneStatus:
    return LaneStatus("intents", "box-intents-changelog", number, state, **more)


def component(worker: str, port: int, /, *numbers: int, **more: Any) -> Component:
    """What the registry says of a worker that has these lanes."""
    lanes = tuple(map(lane_status, numbers))
    found = Component("worker", worker, "1", "box", "box", worker, (), (), NOW_MS, NOW_MS, lanes, HERE, port)
    return replace(found, **more)


class Told(NamedTuple):
    """An answer."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Site:
    """A worker of the boxes, as far as its state can be asked for."""

    def __init__(self, worker: str, *, partitions: int = 1, roots: TrustRoots = ROOTS) -> None:
        self.worker = worker
        self.clock = VirtualClock(NOW_MS)
        self.benches: dict[int, Bench] = {}
        self.partitions = partitions
        plans = Bench(partitions=partitions).plan, Bench(group="moves", partitions=partitions).plan
        shared: Any = SimpleNamespace(authority=Authority(Verifier(roots, "box")), control=None)
        self.loop = asyncio.new_event_loop()
        self._made = self.loop.run_until_complete(self._lanes(plans, shared))
        self.lanes: Lanes | None = self._made
        self.known: list[Component] | Exception = []
        self.port = 0

    async def _lanes(self, plans: Any, shared: Any) -> Lanes:
        connections: Any = None
        return Lanes(plans, shared, connections, {}, lambda: None, 5.0)

    def reset(self) -> None:
        """Have no lanes, and know of nobody."""
        self.lanes, self.known = self._made, []
        for lanes in (self._made._open, self._made._starting, self._made._stopped, self.benches):
            lanes.clear()
        self.clock.advance((NOW_MS - self.clock.now_ms()) / 1000)

    def open(self, number: int = 0, **more: Any) -> Bench:
        """Give it a lane."""
        bench = self.benches[number] = Bench(partition=number, partitions=self.partitions, **more)
        runner: Any = SimpleNamespace(lane=bench.lane, status=lane_status(number))
        self._made._open["intents", number] = runner
        return bench

    def close(self, number: int = 0) -> None:
        """Take it away."""
        del self._made._open["intents", number]

    def component(self, *numbers: int, **more: Any) -> Component:
        """What the registry says of it."""
        return component(self.worker, self.port, *numbers, **more)

    def _read(self) -> list[Component]:
        if isinstance(self.known, Exception):
            raise self.known
        return self.known

    @contextmanager
    def served(self) -> Iterator[None]:
        """Serve what there is, in a thread."""
        peers = Peers(self._read, "box", self.worker, self.clock)
        state = StateRoutes(self.worker, lambda: self.lanes, peers, self.clock)
        health = HealthServer(
            self.worker, lambda: Health(live=True, ready=True, lanes=()), CollectorRegistry(), state.routes
        )
        thread = threading.Thread(target=self.loop.run_forever)
        thread.start()
        try:
            self.port = asyncio.run_coroutine_threadsafe(health.start(0), self.loop).result(10)
            yield
        finally:
            asyncio.run_coroutine_threadsafe(health.stop(), self.loop).result(10)
            asyncio.run_coroutine_threadsafe(self.loop.shutdown_default_executor(), self.loop).result(10)
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join(10)
            self.loop.close()

    def ask(self, path: str, context: str | None = ALL, method: str = "GET", **more: str) -> Told:
        """Ask it; *path* is whole."""
        headers = {**({} if context is None else {"Authorization": f"Bearer {context}"}), **more}
        asking = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            asking.request(method, path, headers=headers)
            answer = asking.getresponse()
            body = answer.read()
            return Told(answer.status, read_body(body, answer.headers["content-type"]), dict(answer.headers))
        finally:
            asking.close()

    def get(self, key: str, context: str | None = ALL, reactor: str = "boxes", **params: str) -> Told:
        return self.ask(f"/state/box/{reactor}?{urlencode({'key': key, **params})}", context)

    def keys(self, context: str | None = ALL, reactor: str = "boxes", **params: object) -> Told:
        return self.ask(f"/state/box/{reactor}/keys?{urlencode(params)}".rstrip("?"), context)

    def export(self, partition: int = 0, context: str | None = ALL, reactor: str = "boxes", **params: str) -> Told:
        return self.ask(f"/state/box/{reactor}/export?{urlencode({'partition': partition, **params})}", context)


def read_body(body: bytes, kind: str | None) -> Any:
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in body.splitlines()]
    return json.loads(body) if kind == "application/json" else body.decode()


def name_in(partition: int, partitions: int, number: int = 0) -> str:
    """One of the names that live in a partition."""
    names = (name for name in (f"b{n}" for n in range(1000)) if partition_of(name.encode(), partitions) == partition)
    for _ in range(number):
        next(names)
    return next(names)
