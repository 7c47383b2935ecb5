"""A worker as a process: signals, logging, watchdog, health checks, and its entry in the registry."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, Final

import structlog
from prometheus_client import ProcessCollector, disable_created_metrics

from pf_stream.clock import WallClock
from pf_stream.components.registry import HEARTBEAT_S, Peers, Registry, components
from pf_stream.engine import Metrics, Worker, WorkerSettings
from pf_stream.engine.lanes import Lanes
from pf_stream.engine.watchdog import HANG_AFTER_S, Watchdog
from pf_stream.errors import PFError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.sender import NewRecord, send
from pf_stream.model.topology import Topology
from pf_stream.worker.health import Health, HealthServer
from pf_stream.worker.memory import keep_freed_memory
from pf_stream.worker.state import StateRoutes
from pf_stream.worker.supervisor import ENDING, SAME_SIGNAL_S, Parent
from pf_stream.worker.tracing import Tracing

__all__ = ["run_worker"]

log = structlog.get_logger(__name__)

LEAVE_S: Final = 5.0
"""How long a drained worker tries to leave the group and the registry, which a broker that is away may prevent."""
LOOK_S: Final = 1.0
"""How often it is looked whether the state of a lane has changed, so as to tell the registry."""


def run_worker(
    topology: Topology,
    settings: WorkerSettings,
    *,
    hang_after_s: float = HANG_AFTER_S,
    health_port: int | None = None,
    trace: float | None = None,
) -> int:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

    Returns the exit code: 0 after a drain, 1 if the worker could not go on. One that hangs for *hang_after_s* seconds is
    ended with :data:`~pf_stream.engine.watchdog.EXIT_HUNG`. Health checks and metrics are served only if a port is given.
    With *trace*, spans are sent, of that share of the units and of intents that their senders sample.

    Raises :class:`~pf_stream.worker.tracing.TracingMissingError`.
    """
    keep_freed_memory()
    disable_created_metrics()  # type: ignore[no-untyped-call] # a series beside each counter, that no query asks for
    tracing = None if trace is None else Tracing.start(trace, topology.app_id, settings.worker_id)
    try:
        return asyncio.run(_Process(topology, settings, hang_after_s, tracing).run(health_port))
    finally:
        if tracing is not None:
            tracing.close()


class _Process:
    def __init__(
        self, topology: Topology, settings: WorkerSettings, hang_after_s: float, tracing: Tracing | None
    ) -> None:
        self._topology = topology
        self._settings = settings
        self._hang_after_s = hang_after_s
        self._asked = asyncio.Event()
        self._worker: Worker | None = None
        self._tracer = None if tracing is None else tracing.tracer
        self._metrics = Metrics(topology)
        ProcessCollector(registry=self._metrics.registry)

    async def run(self, health_port: int | None) -> int:
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, self._end)
        parent = await Parent.connect(self._orphaned)
        connection = self._settings.connection
        peers = Peers(lambda: components(connection), self._topology.app_id, self._settings.worker_id, WallClock())
        state = StateRoutes(self._settings.worker_id, self._lanes, peers, WallClock())
        health = HealthServer(self._settings.worker_id, self._health, self._metrics.registry, state.routes)
        port: int | None = None
        try:
            if health_port is not None:
                port = await health.start(health_port)
                at = f"http://127.0.0.1:{port}"
                log.info("health checks", live=f"{at}/live", ready=f"{at}/ready", metrics=f"{at}/metrics")
            self._worker = worker = await Worker.start(
                self._topology, self._settings, metrics=self._metrics, tracer=self._tracer
            )
        except PFError as error:
            log.error("worker cannot start", code=error.code, reason=str(error))
            if parent is not None:
                parent.tell(failed=str(error), retryable=error.retryable)
            code = 1
        else:
            code = await self._work(worker, parent, port)
        await health.stop()
        if parent is not None:
            await parent.close()
        return code

    async def _work(self, worker: Worker, parent: Parent | None, port: int | None) -> int:
        topology, settings = self._topology, self._settings
        log.info("worker started", topology=topology.name, namespace=topology.namespace, worker=settings.worker_id)
        watchdog = Watchdog(self._hang_after_s, worker.lanes.whereabouts)
        watchdog.start()
        registry = _Reporter(Registry(_Sender(settings.connection), topology, settings.worker_id, WallClock(), port))
        stop: asyncio.Future[Any] = asyncio.create_task(self._asked.wait())
        side = [asyncio.create_task(self._say_ready(worker, parent)), asyncio.create_task(registry.run(worker))]
        await asyncio.wait([stop, worker.crashed], return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if worker.crashed.done():
            log.error("worker cannot go on", reason=repr(worker.crashed.exception()))
            code = 1
        else:
            log.info("draining")
        for task in (stop, *side):
            task.cancel()
        await asyncio.gather(stop, *side, return_exceptions=True)
        leaving = asyncio.create_task(self._leave(worker, registry))
        if not (await asyncio.wait([leaving], timeout=settings.drain_s + LEAVE_S))[0]:
            # Who takes the lanes next goes on where their changelogs end; threads that wait for a broker would keep us here.
            log.warning("not everything could be ended in good order; nothing is lost by that")
            os._exit(code)
        leaving.result()
        watchdog.stop()
        log.info("worker stopped", handled=worker.handled, refused=sum(worker.refused.values()))
        return code

    async def _leave(self, worker: Worker, registry: "_Reporter") -> None:
        await worker.stop()
        await registry.withdraw()

    def _end(self) -> None:
        if not self._asked.is_set():
            self._asked.set()
            asyncio.get_running_loop().call_later(SAME_SIGNAL_S, self._hurry)

    def _hurry(self) -> None:
        """From now on a signal ends the process at once."""
        for number in ENDING:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    def _orphaned(self) -> None:
        log.warning("the supervisor of this worker is gone")
        self._asked.set()

    def _lanes(self) -> Lanes | None:
        return None if self._worker is None else self._worker.lanes

    def _health(self) -> Health:
        worker = self._worker
        if worker is None:
            return Health(live=True, ready=False, lanes=())
        live = not worker.crashed.done()
        return Health(live, live and worker.lanes.all_run and not self._asked.is_set(), worker.lanes.statuses)

    async def _say_ready(self, worker: Worker, parent: Parent | None) -> None:
        await worker.ready()
        log.info("worker ready", lanes=len(worker.lanes.runners))
        if parent is not None:
            parent.tell(ready=True)


class _Reporter:
    """Keeps the registry up to date; it is for people and consoles, and a worker does its work without it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._telling: asyncio.Task[None] | None = None
        self._failing = False

    async def run(self, worker: Worker) -> None:
        """Report every few seconds, and soon after the state of a lane has changed; less soon if it changes all the time."""
        loop = asyncio.get_running_loop()
        reported: object = None
        at, gap = -HEARTBEAT_S, LOOK_S
        while True:
            lanes, sinks, tables = worker.lanes.statuses, worker.lanes.sink_statuses, worker.lanes.table_statuses
            states = [(lane.name, lane.state, lane.until_ms, lane.code) for lane in lanes]
            since = loop.time() - at
            if since >= HEARTBEAT_S or (states != reported and since >= gap):
                gap = LOOK_S if since >= HEARTBEAT_S else min(HEARTBEAT_S, 2 * gap)
                await self._tell(self._registry.report(lanes, sinks, tables))
                reported, at = states, loop.time()
            await asyncio.sleep(LOOK_S)

    async def withdraw(self) -> None:
        """Say that the worker has stopped."""
        if self._telling is not None:
            # Its thread goes on although run() was cancelled, and must not have the last word.
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._tell(self._registry.withdraw())

    async def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        self._telling = asyncio.create_task(telling)
        try:
            await asyncio.shield(self._telling)
        except PFError as error:
            if not self._failing:
                log.warning("registry not told; trying again", code=error.code, reason=str(error))
            self._failing = True
        else:
            if self._failing:
                log.info("registry told again")
            self._failing = False


class _Sender:
    """Writes registry records; one every few seconds, so a connection need not be kept for it."""

    def __init__(self, connection: ConnectionSettings) -> None:
        self._connection = connection

    async def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        await asyncio.to_thread(send, self._connection, [NewRecord(topic, key, value)])
