"""One worker process: the Faust app of a topology with its lanes, from start to drain."""

import asyncio
import gc
import logging
import signal
from collections import Counter
from typing import Any

import structlog

from pf_stream.clock import WallClock
from pf_stream.core.lane import Limits
from pf_stream.core.plan import plan
from pf_stream.engine.app import build_app
from pf_stream.engine.lanes import Lanes
from pf_stream.engine.settings import WorkerSettings
from pf_stream.errors import PFError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.topics import check_topics
from pf_stream.model.topology import Topology

__all__ = ["Worker", "run_worker"]

log = structlog.get_logger(__name__)


class Worker:
    """A topology's share of work in this process, for those who bring their own event loop."""

    def __init__(self, topology: Topology, settings: WorkerSettings, limits: Limits, lanes: Lanes, app: Any) -> None:
        self.topology = topology
        self.settings = settings
        self.limits = limits
        self.lanes = lanes
        self._app = app

    @classmethod
    async def start(cls, topology: Topology, settings: WorkerSettings, limits: Limits | None = None) -> "Worker":
        """Check the topics, connect, and join the group; lanes open as the group assigns them.

        Raises :class:`KafkaUnavailableError`, :class:`TopicMissingError` and the errors of the topic checks.
        """
        admin = Admin(settings.connection)
        partitions = await asyncio.to_thread(check_topics, admin, topology)
        plans = plan(topology, partitions)
        sources = [source.topic for group in plans for source in group.sources]
        described = await asyncio.to_thread(admin.topics, sources)
        app: Any = build_app(topology, partitions, settings)
        lanes = await Lanes.start(
            plans,
            settings,
            limits or Limits(),
            WallClock(),
            {topic: info.id for topic, info in described.items()},
            rejoin=app.consumer.rejoin,
        )
        app.consumer.lanes = lanes
        app.in_worker = True
        try:
            await app.start()
        except BaseException:
            await lanes.stop(0)
            raise
        return cls(topology, settings, limits or Limits(), lanes, app)

    async def stop(self) -> None:
        """Finish what is under way, commit, and leave; the group keeps our partitions for us for a while (KIP-345)."""
        await self.lanes.revoke(self.settings.drain_s)
        await self._app.stop()
        await self.lanes.stop(0)

    @property
    def handled(self) -> int:
        """Intents handled by the lanes that are open."""
        return sum(runner.lane.handled for runner in self.lanes.runners)

    @property
    def refused(self) -> Counter[str]:
        """Records refused by the lanes that are open, by code."""
        return sum((runner.lane.refused for runner in self.lanes.runners), Counter())


def run_worker(topology: Topology, settings: WorkerSettings) -> int:
    """Run until SIGTERM or SIGINT, then drain. Returns the exit code: 0 after a drain, 1 if the worker could not go on."""
    _configure_logging()
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
    stop: asyncio.Future[Any] = asyncio.create_task(asked.wait())
    ready: asyncio.Future[Any] = asyncio.create_task(worker.lanes.ready.wait())
    crashed: asyncio.Future[Any] = worker.lanes.crashed
    await asyncio.wait({stop, ready, crashed}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        log.info("worker ready", lanes=len(worker.lanes.runners))
        # What exists now stays: no need to look at it in every collection. Lanes make few cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 50)
    await asyncio.wait({stop, crashed}, return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if crashed.done():
        log.error("worker cannot go on", reason=repr(crashed.exception()))
        code = 1
    else:
        log.info("draining")
    ready.cancel()
    stop.cancel()
    await worker.stop()
    log.info("worker stopped", handled=worker.handled)
    return code


def _configure_logging() -> None:
    """Our events as they are, libraries' only from WARNING on: faust sets the root logger to DEBUG otherwise."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=__import__("sys").stderr),
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s")
    for name in ("aiokafka", "faust", "mode", "kafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
