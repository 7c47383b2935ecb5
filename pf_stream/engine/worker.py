"""A worker: the Faust app of a topology with its lanes, from start to drain."""

import asyncio
import gc
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError as AnyKafkaError

from pf_stream.clock import WallClock
from pf_stream.core.limits import Limits
from pf_stream.core.plan import plan
from pf_stream.engine.app import build_app
from pf_stream.engine.errors import GroupLostError, ServiceKeyError
from pf_stream.engine.lanes import Lanes
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.rocks import RocksDepot
from pf_stream.engine.settings import WorkerSettings
from pf_stream.errors import ConfigurationError, PFError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.errors import KafkaUnavailableError
from pf_stream.kafka.topics import check_topics
from pf_stream.model.topology import Topology

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["Worker"]

WATCH_S = 1.0
ABANDON_S = 5.0
"""How long what has begun of a worker may take to end, if the rest could not begin."""


def check_service_keys(topology: Topology, settings: WorkerSettings) -> None:
    """That what the topology's services emit can be signed here, and is believed here.

    Raises:
        ServiceKeyError: a key was not given, or is not among the trust roots.
    """
    public = {key.kid: key.public for key in settings.service_keys}
    for id_, service in topology.services.items():
        if service.key not in public:
            raise ServiceKeyError(id_, service.key, "this worker was not given it: name its file with --service-key")
        if settings.trust_roots.get(service.key) != public[service.key]:
            raise ServiceKeyError(id_, service.key, "it is not among the trust roots: add its .pub file with --trust")


def check_state_dir(topology: Topology, settings: WorkerSettings) -> None:
    """That the worker knows where to keep state, if the topology wants it on disk; raises :class:`ConfigurationError`."""
    if topology.store == "rocksdb" and settings.state_dir is None:
        raise ConfigurationError(
            f"topology {topology.name!r} keeps its state in RocksDB, and this worker was not told where: name a folder with "
            f"--state-dir"
        )


class Worker:
    """A topology's share of work in this process, for those who bring their own event loop."""

    def __init__(
        self, topology: Topology, settings: WorkerSettings, limits: Limits, metrics: Metrics, lanes: Lanes, app: Any
    ) -> None:
        self.topology = topology
        self.settings = settings
        self.limits = limits
        self.metrics = metrics
        self.lanes = lanes
        self._app = app
        self._watching = asyncio.create_task(self._watch(), name="watch")

    @classmethod
    async def start(
        cls,
        topology: Topology,
        settings: WorkerSettings,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        tracer: "Tracer | None" = None,
    ) -> "Worker":
        """Check the topics, connect, and join the group; lanes open as the group assigns them.

        What it counts and measures goes into *metrics*, which must be its own. With a *tracer* of OpenTelemetry it makes spans.

        Raises :class:`KafkaUnavailableError`, :class:`TopicMissingError`, the errors of the topic checks, and
        :class:`StoreError` if another process has the folder of the worker.
        """
        check_service_keys(topology, settings)
        check_state_dir(topology, settings)
        metrics = metrics or Metrics(topology)
        admin = Admin(settings.connection)
        partitions = await asyncio.to_thread(check_topics, admin, topology)
        plans = plan(topology, partitions)
        app: Any = build_app(topology, partitions, settings)
        depot = None
        if topology.store == "rocksdb" and settings.state_dir is not None:
            depot = RocksDepot.open(settings.state_dir, topology.app_id, settings.worker_id)
        try:
            lanes = await Lanes.start(
                plans,
                settings,
                limits or Limits(),
                WallClock(),
                rejoin=app.consumer.rejoin,
                commit=app.consumer.commit_progress,
                depot=depot,
                metrics=metrics,
                tracer=tracer,
            )
        except BaseException:
            app.consumer.abandon()
            if depot is not None:
                await depot.close()
            raise
        app.consumer.lanes = lanes
        app.in_worker = True
        try:
            await app.start()
        except BaseException as error:
            await lanes.stop(0)
            with suppress(Exception):  # what had begun ends as well as it can
                async with asyncio.timeout(ABANDON_S):
                    await app.stop()
            if isinstance(error, AnyKafkaError):
                raise KafkaUnavailableError(settings.connection.bootstrap_servers, error) from error
            raise
        return cls(topology, settings, limits or Limits(), metrics, lanes, app)

    async def ready(self) -> None:
        """Wait until every lane that the group gave us is open, or has stopped for good."""
        await self.lanes.ready.wait()
        # What exists now stays: no need to look at it in every collection. Lanes make few cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 50)

    @property
    def crashed(self) -> "asyncio.Future[None]":
        """Ends with an error when the worker cannot go on."""
        return self.lanes.crashed

    async def _watch(self) -> None:
        """Notice a crash within Faust: without the group, nobody would tell lanes to open or to close. And notice topics
        that have got more partitions."""
        error: PFError | None = None
        while error is None:
            await asyncio.sleep(WATCH_S)
            if self._app.crashed:
                error = GroupLostError(self._app.crash_reason)
            else:
                try:
                    self.lanes.check_partitions()
                except PFError as found:
                    error = found
        if not self.crashed.done():
            self.crashed.set_exception(error)

    async def stop(self) -> None:
        """Finish what is under way, commit, and leave; the group keeps our partitions for us for a while (KIP-345)."""
        self._watching.cancel()
        await self.lanes.revoke(self.settings.drain_s)
        await self._app.stop()
        await self.lanes.stop(0)

    @property
    def handled(self) -> int:
        """Intents handled since the start."""
        return self.lanes.totals()[0]

    @property
    def refused(self) -> Counter[str]:
        """Records refused since the start, by code."""
        return self.lanes.totals()[1]
