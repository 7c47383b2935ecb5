"""A worker as a process: signals, logging, and its entry in the registry."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from pf_stream.clock import WallClock
from pf_stream.components.registry import HEARTBEAT_S, Registry
from pf_stream.engine import Worker, WorkerSettings
from pf_stream.errors import PFError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.sender import NewRecord, send
from pf_stream.model.topology import Topology
from pf_stream.topology._logging import configure_logging

__all__ = ["run_worker"]

log = structlog.get_logger(__name__)


def run_worker(topology: Topology, settings: WorkerSettings) -> int:
    """Run until SIGTERM or SIGINT, then drain. Returns the exit code: 0 after a drain, 1 if the worker could not go on."""
    configure_logging()
    return asyncio.run(_run(topology, settings))


async def _run(topology: Topology, settings: WorkerSettings) -> int:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, asked.set)
    try:
        worker = await Worker.start(topology, settings)
    except PFError as error:
        log.error("worker cannot start", code=error.code, reason=str(error))
        return 1
    log.info("worker started", topology=topology.name, namespace=topology.namespace, worker=settings.worker_id)
    registry = Registry(_Sender(settings.connection), topology, settings.worker_id, WallClock())
    stop: asyncio.Future[Any] = asyncio.create_task(asked.wait())
    side = asyncio.create_task(_accompany(worker, registry))
    await asyncio.wait({stop, worker.crashed}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if worker.crashed.done():
        log.error("worker cannot go on", reason=repr(worker.crashed.exception()))
        code = 1
    else:
        log.info("draining")
    for task in (stop, side):
        task.cancel()
    await asyncio.gather(stop, side, return_exceptions=True)
    await worker.stop()
    await _told(registry.withdraw)
    log.info("worker stopped", handled=worker.handled, refused=sum(worker.refused.values()))
    return code


async def _accompany(worker: Worker, registry: Registry) -> None:
    """Say when the worker is ready, and that it is still there."""
    await worker.ready()
    log.info("worker ready", lanes=len(worker.lanes.runners))
    await _told(registry.announce)
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await _told(registry.heartbeat)


async def _told(tell: Callable[[], Awaitable[None]]) -> None:
    """The registry is for people and consoles: a worker does its work without it."""
    try:
        await tell()
    except PFError as error:
        log.warning("registry not told", code=error.code, reason=str(error))


class _Sender:
    """Writes registry records; one every few seconds, so a connection need not be kept for it."""

    def __init__(self, connection: ConnectionSettings) -> None:
        self._connection = connection

    async def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        await asyncio.to_thread(send, self._connection, [NewRecord(topic, key, value)])
