"""The Faust app of a topology.

Faust gives the app and its services, the consumer thread with the group membership, the copartitioning assignor, the table
of each group with its changelog topic, and the agents. Its data path is switched off here: the partitions are paused in
Faust's consumer as soon as they are assigned, and :class:`~pf_stream.engine.lanes.Lanes` reads, commits and recovers them.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import faust
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as AnyKafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.auth import SASLCredentials, SSLCredentials
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from pf_stream.core.plan import REROUTED
from pf_stream.engine.lanes import Lanes
from pf_stream.engine.settings import WorkerSettings
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.kafka.offsets import Committed
from pf_stream.model.topology import Topology

__all__ = ["LaneConsumer", "build_app"]

log = structlog.get_logger(__name__)

POLL_S = 1.0
"""How often the group is shown that the event loop still turns."""

METADATA_S: Final = 2.0
"""How often the group's leader looks which topics there are. A broker that has just started knows of some only after a
moment, and a leader that divides the lanes then gives none of those topics to anybody, until it looks again."""
HINT_S: Final = 2.0
"""How long the committing of offsets may take, which are a hint only."""


class ReactorAgent(faust.Agent):
    """A reactor as ``faust agents`` shows it. Its events are handled by lanes, so it starts no actor."""

    async def on_start(self) -> None:
        """No actors."""

    async def on_stop(self) -> None:
        """No actors."""

    async def on_partitions_assigned(self, assigned: set[TP]) -> None:
        """Lanes are told by the consumer."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Lanes are told by the consumer."""


class LaneRecovery(Recovery):
    """Ends a rebalance at once: lanes recover themselves, and each starts when it is ready."""

    @Service.task
    async def _restart_recovery(self) -> None:
        app: Any = self.app
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start.wait()):
                return
            self.signal_recovery_start.clear()
            await app.on_rebalance_complete.send()
            app.flow_control.resume()
            app.consumer.resume_flow()
            await app._fetcher.maybe_start()
            self.tables.on_actives_ready()
            self.tables.on_standbys_ready()
            self.completed.set()
            app.on_rebalance_end()

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Nothing arrives on Faust's changelog queue."""

    @Service.task
    async def _publish_stats(self) -> None:
        """Lanes report their own."""


class LaneTables(TableManager):
    """The tables, recovered by lanes."""

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = LaneRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class _PausingListener(driver.ConsumerRebalanceListener):
    """Keeps aiokafka's fetcher from reading what lanes read. Runs in the consumer's thread, where pausing is safe."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        partitions = list(assigned)
        self._thread._ensure_consumer().pause(*partitions)
        await super().on_partitions_assigned(partitions)


class _Thread(driver.AIOKafkaConsumerThread):
    """The thread in which the group membership lives."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit offsets if that is possible. Faust would crash the app on an error, and these are only a hint."""
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        ours = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
        try:
            # While the coordinator is away, aiokafka would try for ever, and a drain and a rebalance wait for this.
            async with asyncio.timeout(HINT_S):
                await consumer.commit({tp: offset for tp, offset in ours.items() if tp in assigned})
        except (AnyKafkaError, TimeoutError) as error:
            log.debug("offsets not committed", reason=repr(error))
            return False
        return True

    async def _commit_progress(self, progress: Mapping[Partition, Committed]) -> bool:
        """Commit how far sinks are, if that is possible."""
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        ours = {TopicPartition(*at): OffsetAndMetadata(*done) for at, done in progress.items()}
        try:
            async with asyncio.timeout(HINT_S):
                await consumer.commit({tp: done for tp, done in ours.items() if tp in assigned})
        except (AnyKafkaError, TimeoutError) as error:
            log.debug("offsets of sinks not committed", reason=repr(error))
            return False
        return True

    async def commit_progress(self, progress: Mapping[Partition, Committed]) -> bool:
        """Commit how far sinks are, with their marks; tells whether that was done."""
        done: bool = await self.call_thread(self._commit_progress, progress)
        return done


class LaneConsumer(driver.Consumer):
    """Faust's consumer as far as the group is concerned."""

    RebalanceListener = _PausingListener
    _thread: _Thread
    lanes: Lanes

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # Which lanes of others it is to follow the group's leader has said beside the assignment.
        app: Any = self.app
        standbys = [(tp.topic, tp.partition) for tp in app.assignor.assigned_standbys()]
        self.lanes.assign([(tp.topic, tp.partition) for tp in assigned], standbys)
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.lanes.revoke()
        await self.commit()
        await super().on_partitions_revoked(revoked)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Nothing to drain; but a worker whose event loop hangs must lose its partitions (``max.poll.interval.ms``)."""
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            consumer = self._thread._ensure_consumer()
            with consumer._fetcher._subscriptions.fetch_context():
                pass
            try:
                async with asyncio.timeout(POLL_S):
                    await fetcher._stopped.wait()
            except TimeoutError:
                continue
            except asyncio.CancelledError:
                return  # it is the fetcher's own stop, which during a rebalance Faust takes for a crash of the app

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """The group's offsets are a hint for tools that show lag; what counts is in the changelogs."""
        committed = self._committed_offset
        return {
            TP(*partition): offset
            for partition, offset in self.lanes.hints.items()
            if offset > (committed[TP(*partition)] or 0)
        }

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        before = {tp: self._committed_offset[tp] for tp in offsets}
        done: bool = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            # Faust takes them for committed all the same: a lane with nothing more to do would show lag for ever.
            self._committed_offset.update(before)
        return done

    async def perform_seek(self) -> None:
        """Lanes know their positions."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's livelock detector watches a path that no record takes."""

    async def commit_progress(self, progress: Mapping[Partition, Committed]) -> bool:
        """Commit how far sinks are, as a member of the group: who has lost a partition can say nothing of it any more."""
        return False if self._stopped.is_set() else await self._thread.commit_progress(progress)

    def abandon(self) -> None:
        """Give up what was never started: the event loop of its thread has files open by then."""
        self._thread.thread_loop.close()

    def rejoin(self) -> None:
        """Ask the group for a new assignment; may be called from any thread."""
        thread = self._thread
        if not self._stopped.is_set():
            coordinator = thread._ensure_consumer()._coordinator
            thread.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)


class _Transport(driver.Transport):
    Consumer = LaneConsumer


class LaneApp(faust.App):
    """The app, without a folder on disk: state is in the changelogs."""

    def _create_directories(self) -> None:
        """None are needed."""


def build_app(topology: Topology, partitions: int, settings: WorkerSettings) -> faust.App:
    """The app: an agent for each reactor, a table for each group. Lanes are attached by the worker."""
    connection = settings.connection
    credentials, context = _credentials(connection)
    app = LaneApp(
        topology.app_id,
        broker=";".join(f"kafka://{server.strip()}" for server in connection.bootstrap_servers.split(",")),
        broker_credentials=credentials,
        ssl_context=context,
        store="memory://",
        topic_partitions=partitions,
        topic_allow_declare=False,  # `pf topics create` makes them, with the settings that exactness needs
        topic_disable_leader=True,
        table_standby_replicas=topology.standby,
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
        consumer_group_instance_id=settings.worker_id,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=int(METADATA_S * 1000),
        broker_session_timeout=settings.session_s,
        broker_rebalance_timeout=settings.session_s,
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_commit_interval=1.0,
        broker_max_poll_interval=60.0,
        stream_wait_empty=False,
        Agent=ReactorAgent,
        TableManager=LaneTables,
    )
    app.finalize()
    app.transport = _Transport(app.conf.broker_consumer, app)
    for group in topology.groups:
        app.Table(group.name, partitions=partitions, key_type=bytes, value_type=bytes, help=f"State of {group.name}")
        topics = [*group.topics, *(topic + REROUTED for topic in group.topics if not topology.is_internal(topic))]
        for topic in topics:
            _subscribe(app, topic, partitions)
    for sink in topology.sinks:
        _subscribe(app, topology.topic_name(sink.of.__intent__.topic), partitions)
    for reactor in topology.reactors:
        spec = reactor.__reactor__
        sources = sorted({topology.topic_name(handler.intent.topic) for handler in spec.handlers})
        channel = app.topic(*sources, key_type=bytes, value_type=bytes, partitions=partitions)
        app.agent(channel, name=spec.id)(_actor(reactor.__doc__))
    return app


def _subscribe(app: Any, topic: str, partitions: int) -> None:
    channel = app.topic(topic, key_type=bytes, value_type=bytes, partitions=partitions)
    app.topics.add(channel.clone(is_iterator=True))


def _actor(doc: str | None) -> Callable[[Any], Any]:
    async def actor(stream: Any) -> None:
        """Not run: lanes call the reactor's handlers."""

    actor.__doc__ = doc
    return actor


def _credentials(connection: ConnectionSettings) -> tuple[Any, ssl.SSLContext | None]:
    arguments: Mapping[str, Any] = connection.for_aiokafka()
    context = arguments.get("ssl_context")
    if connection.security_protocol.startswith("SASL"):
        return (
            SASLCredentials(
                username=connection.sasl_username,
                password=connection.sasl_password,
                mechanism=connection.sasl_mechanism,
                ssl_context=context,
            ),
            context,
        )
    return (SSLCredentials(context) if context is not None else None), context
