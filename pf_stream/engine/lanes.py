"""All lanes of a worker: opened and closed as the group assigns and revokes partitions."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka.errors import KafkaError as AnyKafkaError
from structlog.contextvars import bind_contextvars

from pf_stream.clock import Clock
from pf_stream.core.authorise import Authority
from pf_stream.core.decoding import StateUndecodableError
from pf_stream.core.lane import Lane
from pf_stream.core.limits import Limits
from pf_stream.core.plan import GroupPlan
from pf_stream.core.sink import sink_plans
from pf_stream.core.status import LaneState, LaneStatus, SinkStatus, TableStatus
from pf_stream.engine.connections import Connections
from pf_stream.engine.contexts import ContextMaker
from pf_stream.engine.denials import Denials
from pf_stream.engine.depot import Depot
from pf_stream.engine.errors import TableGrownError, code_of
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.probe import leases_hold
from pf_stream.engine.reader import Reader
from pf_stream.engine.runner import LaneKey, LaneRunner
from pf_stream.engine.settings import WorkerSettings
from pf_stream.engine.shared import Shared
from pf_stream.engine.siblings import Siblings
from pf_stream.engine.sinks import Progress, Sinks
from pf_stream.engine.tables import Tables
from pf_stream.engine.watchdog import Whereabouts
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.errors import AppendError, FencedError, NotAuthorisedError, TransactionError
from pf_stream.kafka.link import Link, Partition, is_transient
from pf_stream.kafka.topics import PROBE, PartitionsDisagreeError
from pf_stream.model.topology import Guarantee, Topology
from pf_stream.security.narrowing import Narrower
from pf_stream.security.verify import Verifier

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from pf_stream.engine.tracing import LaneTracing

__all__ = ["Lanes"]

log = structlog.get_logger(__name__)

RETRY_S = 1.0
CALM_S = 300.0
LOOK_MS = 50
"""How long a partition of a sink that has room again may wait for a fetch in which it is not."""
MAX_REJOIN_S = 60.0


class _Losses:
    """How often a lane was lost of late. Each new assignment interrupts all lanes of all workers for a moment."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._last = -CALM_S

    def next_delay(self, now: float) -> float:
        """How long to wait before asking for the lane again; twice as long each time, until it was calm for a while."""
        self._delay = 0.0 if now - self._last > CALM_S else min(MAX_REJOIN_S, max(1.0, 2 * self._delay))
        self._last = now
        return self._delay


async def _guarantee(
    topology: Topology, settings: WorkerSettings, control: Link, changelog: Appender, clock: Clock
) -> Guarantee:
    """How the lanes of this worker commit: as the topology says, if the cluster is fit for it."""
    if topology.guarantee == "effectively_once":
        name = f"{topology.app_id}-{settings.worker_id}-probe"
        if not await leases_hold(control, changelog, (PROBE, 0), name, settings.worker_id, clock.now_ms()):
            log.error(
                "this cluster does not refuse an outdated producer, so leases would not keep state exact: all lanes of this "
                "worker use transactions, which are slower",
                topology=topology.name,
                guarantee="transactional",
            )
            return "transactional"
    return topology.guarantee


def _tracing(tracer: "Tracer") -> "Callable[[GroupPlan, int], LaneTracing]":
    from pf_stream.engine.tracing import LaneTracing  # who does not trace need not have OpenTelemetry

    return partial(LaneTracing, tracer)


class Lanes:
    """The lanes of a worker."""

    def __init__(
        self,
        plans: Sequence[GroupPlan],
        shared: Shared,
        connections: Connections,
        hints: dict[Partition, int],
        rejoin: Callable[[], None],
        revoke_s: float,
        sinks: Sinks | None = None,
        tables: Tables | None = None,
    ) -> None:
        self.sinks = sinks
        """Those of the topology, if it has some."""
        self._tables = tables
        """Likewise."""
        self._revoke_s = revoke_s
        self._plans = {plan.name: plan for plan in plans}
        self._shared = shared
        self._siblings = {plan.name: Siblings(plan, shared.control) for plan in plans}
        self._connections = connections
        self._rejoin = rejoin
        self._open: dict[LaneKey, LaneRunner] = {}
        self._parked: dict[LaneKey, LaneRunner] = {}
        self._opening: dict[LaneKey, asyncio.Task[None]] = {}
        self._starting: dict[LaneKey, LaneRunner] = {}
        self._standbys: dict[LaneKey, LaneRunner] = {}
        self._wanted: list[LaneKey] = []
        """Lanes of others that this worker is to follow, once its own are open."""
        self._stopped: dict[LaneKey, LaneStatus] = {}
        self._losses: dict[LaneKey, _Losses] = {}
        self._rejoins: list[asyncio.TimerHandle] = []
        self._denials = Denials(self._begin_to_open, rejoin, revoke_s)
        self._gone: tuple[int, Counter[str]] = (0, Counter())
        self._reading: list[asyncio.Task[None]] = []
        self.hints = hints
        """How far each source partition is durable, to be committed to the group."""
        self.ready = asyncio.Event()
        """Set while every assigned lane is open or has stopped for good."""
        self.crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with an error when the worker cannot go on."""

    @classmethod
    async def start(
        cls,
        plans: Sequence[GroupPlan],
        settings: WorkerSettings,
        limits: Limits,
        clock: Clock,
        rejoin: Callable[[], None],
        commit: Callable[[Progress], Awaitable[bool]],
        depot: Depot | None = None,
        metrics: Metrics | None = None,
        tracer: "Tracer | None" = None,
    ) -> "Lanes":
        """Connect; raises :class:`KafkaUnavailableError`. A *depot* is closed when the lanes are stopped.

        Sees first whether leases hold on this cluster; where they do not, lanes commit in transactions whatever the
        topology says. *commit* commits the offsets of sinks.
        """
        topology = plans[0].topology
        connections = await Connections.open(settings.connection, topology)
        control, changelog = connections.control, Appender(connections.changelogs)
        drains = sink_plans(topology, plans[0].partitions)
        try:
            guarantee = await _guarantee(topology, settings, control, changelog, clock)
            await connections.watch(plans, drains)
        except BaseException:
            await connections.close()
            raise
        tables = None
        if connections.tables is not None:
            tables = Tables(topology, control, Reader(connections.tables, gather=True, look_ms=LOOK_MS))
        hints: dict[Partition, int] = {}
        metrics = metrics or Metrics(topology)
        verifier = Verifier(settings.trust_roots, topology.namespace, calendars=topology.calendars)
        shared = Shared(
            worker_id=settings.worker_id,
            group=topology.app_id,
            guarantee=guarantee,
            clock=clock,
            authority=Authority(verifier),
            limits=limits,
            contexts=ContextMaker(
                Narrower(verifier, settings.trust_roots, {key.kid: key for key in settings.service_keys}), clock
            ),
            control=control,
            reader=Reader(connections.sources, gather=settings.latency == "balanced"),
            changelog=changelog,
            outputs=Appender(connections.outputs),
            trial=asyncio.Lock(),
            committed=hints.__setitem__,
            metrics=metrics,
            trace=None if tracer is None else _tracing(tracer),
            follower=None if connections.standbys is None else Reader(connections.standbys, gather=True),
            depot=depot,
            tables={} if tables is None else tables.rows,
        )
        sinks = None
        if connections.sinks is not None:
            sinks = Sinks(
                drains,
                control=control,
                reader=Reader(connections.sinks, gather=True, look_ms=LOOK_MS),
                outputs=shared.outputs,
                metrics=metrics,
                clock=clock,
                commit=commit,
                folder=settings.state_dir,
            )
        self = cls(plans, shared, connections, hints, rejoin, settings.revoke_s, sinks, tables)
        metrics.watch(settings.worker_id, guarantee, self, verifier)
        running: list[Reader | Sinks | Tables] = [shared.reader]
        if shared.follower is not None:
            running.append(shared.follower)
        if sinks is not None:
            running += [sinks.reader, sinks]
        if tables is not None:
            running += [tables.reader, tables]
        for one in running:
            task = asyncio.create_task(one.run(), name="reader")
            task.add_done_callback(self._reading_ended)
            self._reading.append(task)
        return self

    def _reading_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and not self.crashed.done():
            self.crashed.set_exception(task.exception() or RuntimeError("the fetch loop ended"))

    # -- the group's decisions -----------------------------------------------------------------------------------------

    def assign(self, partitions: Collection[Partition], standbys: Collection[Partition] = ()) -> None:
        """Open the lanes of an assignment; those that were open before it are opened anew, under a new lease.

        *standbys* are partitions of changelogs, of lanes that others have and this worker is to follow.
        """
        assigned = set(partitions)
        keys = [
            (plan.name, number)
            for plan in self._plans.values()
            for number in range(plan.partitions)
            if all((source.topic, number) in assigned for source in plan.sources)
        ]
        self._wanted = [
            (plan.name, number)
            for plan in self._plans.values()
            for number in range(plan.partitions)
            if (plan.changelog, number) in standbys and (plan.name, number) not in keys
        ]
        for key in [key for key in self._parked if key not in keys]:
            self._forget(self._parked.pop(key))
        for key in [key for key in self._standbys if key not in keys and key not in self._wanted]:
            self._standbys.pop(key).abandon()
        self.hints.clear()
        self.ready.clear()
        self._stopped.clear()
        self._denials.assigned(keys)
        if self.sinks is not None:
            self.sinks.assign(assigned)
        for key in keys:
            self._begin_to_open(key)
        if not keys:
            self._all_open()

    async def revoke(self, seconds: float | None = None) -> None:
        """Finish and park every lane, as a rebalance begins; waits *seconds* at most for what is under way."""
        patience_s = self._revoke_s if seconds is None else seconds
        self.ready.clear()
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self._opening.clear()
        self._denials.revoked()
        runners, self._open = self._open, {}
        closing = [runner.close(patience_s) for runner in runners.values()]
        if self.sinks is not None:
            closing.append(self.sinks.revoke(seconds))
        await asyncio.gather(*closing)
        self._parked.update(runners)

    def check_partitions(self) -> None:
        """Whether the topics still have the partitions that the lanes were made for; raises :class:`PartitionsDisagreeError`.

        Keys would be sent to partitions that nobody reads, and after the next start there would be a second state for each.
        """
        for plan in self._plans.values():
            topics = (*(source.topic for source in plan.sources), plan.changelog)
            counts = {topic: self._shared.control.partitions(topic) for topic in topics}
            if max(counts.values()) > plan.partitions:
                raise PartitionsDisagreeError({**counts, "(this worker)": plan.partitions})
        for topic, read in ({} if self._tables is None else self._tables.partitions).items():
            if self._shared.control.partitions(topic) > read:
                raise TableGrownError(topic, read)

    def _begin_to_open(self, key: LaneKey) -> None:
        self._opening[key] = asyncio.create_task(self._open_lane(key), name=f"open {key[0]}-{key[1]}")

    async def _open_lane(self, key: LaneKey) -> None:
        runner = self._parked.pop(key, None) or self._standbys.pop(key, None)
        if runner is not None:
            self._forget(runner)  # its lane may be made anew
        else:
            runner = self._new_runner(key)
        self._starting[key] = runner
        # Whatever is said from here on, by handlers and libraries too: the lane's tasks take over this one's context.
        bind_contextvars(lane=repr(runner))
        try:
            if self._tables is not None:
                await self._tables.ready.wait()
            while True:
                try:
                    await runner.open()
                    break
                except AnyKafkaError as error:
                    if not is_transient(error):
                        raise
                    log.warning("lane cannot be opened yet", lane=repr(runner), reason=repr(error))
                    await asyncio.sleep(RETRY_S)
        except asyncio.CancelledError:
            runner.void()
            raise
        except Exception as error:  # noqa: BLE001 - one lane that cannot start must not keep the others from starting
            self._lost(runner, error)
        else:
            self._open[key] = runner
            self._denials.opened(key)
            log.info(
                "lane open",
                lane=repr(runner),
                recovered=runner.recovered,
                since=runner.recovered_from,
                seconds=round(runner.open_time, 3),
                position=dict(runner.lane.positions),
            )
        finally:
            self._starting.pop(key, None)
        self._opening.pop(key, None)
        if not self._opening:
            self._all_open()

    def _new_runner(self, key: LaneKey) -> LaneRunner:
        return LaneRunner(self._plans[key[0]], key[1], self._shared, self._siblings[key[0]], self._lane_failed)

    def _all_open(self) -> None:
        self.ready.set()
        for key in self._wanted:
            if key not in self._standbys:
                self._standbys[key] = self._new_runner(key)
                self._standbys[key].follow()

    # -- failures ------------------------------------------------------------------------------------------------------

    def _lane_failed(self, runner: LaneRunner, error: Exception) -> None:
        key = runner.key
        if self._standbys.get(key) is runner:
            del self._standbys[key]
            log.warning(
                "this worker does not stand by for a lane any more",
                lane=repr(runner),
                code=code_of(error),
                reason=str(error),
            )
            return
        self._open.pop(key, None)
        self._lost(runner, error)

    def _lost(self, runner: LaneRunner, error: Exception) -> None:
        if isinstance(error, NotAuthorisedError):
            self._forget(runner)
            self._denials.add(runner.key, repr(runner), error)
            self._note_stopped(runner, error.code, str(error))
            return
        self._report(runner, error)
        self._forget(runner)
        if isinstance(error, FencedError | AppendError | TransactionError):
            # Acquiring again here could take the lane from its new owner: only the group may decide.
            delay = self._losses.setdefault(runner.key, _Losses()).next_delay(asyncio.get_running_loop().time())
            log.warning("rejoining the group, since a lane was lost", lane=repr(runner), in_s=delay)
            self._rejoins.append(asyncio.get_running_loop().call_later(delay, self._rejoin))

    def _report(self, runner: LaneRunner, error: Exception) -> None:
        code = code_of(error)
        log.error("lane stopped; the others go on", lane=repr(runner), code=code, reason=str(error))
        self._note_stopped(runner, code, str(error))
        if isinstance(error, StateUndecodableError):
            task = asyncio.create_task(self._report_location(runner, error))
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception())

    def _note_stopped(self, runner: LaneRunner, code: str, reason: str) -> None:
        self._stopped[runner.key] = dataclasses.replace(
            runner.status, state=LaneState.stopped, code=code, reason=reason
        )

    async def _report_location(self, runner: LaneRunner, error: StateUndecodableError) -> None:
        log.error(
            "this record of the changelog holds the state that cannot be decoded",
            lane=repr(runner),
            reactor=error.reactor,
            key=error.key.decode(errors="replace"),
            offset=await runner.locate(error),
        )

    # -- what others may read, and the end -----------------------------------------------------------------------------

    def totals(self) -> tuple[int, Counter[str]]:
        """Intents handled and records refused by code, since the start of the worker."""
        handled, refused = self._gone
        runners = [*self._open.values(), *self._parked.values()]
        return (
            handled + sum(runner.lane.handled for runner in runners),
            sum((runner.lane.refused for runner in runners), refused),
        )

    def _forget(self, runner: LaneRunner) -> None:
        """Keep what a lane has counted, as its memory goes."""
        handled, refused = self._gone
        self._gone = handled + runner.lane.handled, refused + runner.lane.refused
        runner.lane.handled = 0
        runner.lane.refused.clear()

    @property
    def statuses(self) -> list[LaneStatus]:
        """Every lane that the group has assigned, by group and partition; one that has stopped stays until it is anew."""
        runners = {**self._standbys, **self._starting, **self._open}
        found = {**self._stopped, **{key: runner.status for key, runner in runners.items()}}
        return [found[key] for key in sorted(found)]

    @property
    def sink_statuses(self) -> list[SinkStatus]:
        """Every sink and partition that the group has assigned, by sink and partition."""
        return [] if self.sinks is None else self.sinks.statuses

    @property
    def table_statuses(self) -> list[TableStatus]:
        """Every global table of the topology."""
        return [] if self._tables is None else self._tables.statuses

    @property
    def all_run(self) -> bool:
        """Whether the group has assigned what it has for this worker, and all of that is open and can be read."""
        well = {LaneState.running, LaneState.paused, LaneState.standby}
        return self.ready.is_set() and all(status.state in well for status in self.statuses)

    @property
    def plans(self) -> Sequence[GroupPlan]:
        """The groups of the topology."""
        return list(self._plans.values())

    @property
    def verifier(self) -> Verifier:
        """Whose tokens are believed."""
        return self._shared.authority.verifier

    def lane(self, group: str, partition: int) -> Lane[Any] | None:
        """A lane while it is open here: what it has acknowledged may be read."""
        runner = self._open.get((group, partition))
        return None if runner is None else runner.lane

    @property
    def whereabouts(self) -> Whereabouts:
        """The step that is being done."""
        return self._shared.whereabouts

    @property
    def runners(self) -> list[LaneRunner]:
        """Open lanes."""
        return list(self._open.values())

    async def stop(self, seconds: float) -> None:
        """Drain and close everything."""
        for handle in self._rejoins:
            handle.cancel()
        await self.revoke(seconds)
        following = [task for runner in self._standbys.values() for task in runner.abandon()]
        self._standbys.clear()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*following, *self._reading, return_exceptions=True)
        if self.sinks is not None:
            await self.sinks.revoke(0)
        await self._shared.changelog.close()
        await self._shared.outputs.close()
        await self._connections.close()
        if self._shared.depot is not None:
            await self._shared.depot.close()
