"""One lane at work: recovery, the step over what is fetched, the commit of what it decides, the sending of outputs."""

import asyncio
import secrets
import traceback
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import structlog
from aiokafka.errors import KafkaError as AnyKafkaError
from structlog.contextvars import bind_contextvars, unbind_contextvars

from pf_stream.core import changelog
from pf_stream.core.decoding import StateUndecodableError
from pf_stream.core.lane import Lane
from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import Record
from pf_stream.core.shelf import Shelf
from pf_stream.core.status import LaneState, LaneStatus
from pf_stream.core.unit import CommitUnit, Rewind
from pf_stream.engine.commit import Committer, Events
from pf_stream.engine.depot import LastingShelf
from pf_stream.engine.encode import OutboxBuilder
from pf_stream.engine.errors import TopicReplacedError, WatermarkRangeError, code_of
from pf_stream.engine.inbox import Inbox
from pf_stream.engine.leased import LeasedCommitter
from pf_stream.engine.recovery import Progress, last_offset
from pf_stream.engine.replica import Replica
from pf_stream.engine.shared import Shared
from pf_stream.engine.siblings import Siblings
from pf_stream.engine.targets import Targets
from pf_stream.engine.transactional import TransactionalCommitter
from pf_stream.engine.waiting import wait_within
from pf_stream.errors import PFError
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import Partition
from pf_stream.model.topology import Guarantee

__all__ = ["LaneKey", "LaneRunner"]

log = structlog.get_logger(__name__)

LaneKey: TypeAlias = tuple[str, int]
"""Name of a group, and a partition of it."""

SLICE_S: Final = 0.01
"""How long a lane works between two turns of the event loop."""
STRIDE: Final = 16
"""Intents after which it looks at the clock: more would let slow handlers hold up everything for long."""
UNSENT_UNITS: Final = 8
"""Units whose outputs may be on their way before the lane takes no more."""
MARK_S: Final = 0.1
"""How long an idle lane waits until it marks its outputs as sent."""
KEEP_ALIVE_S: Final = 3600.0
"""How often an idle lane appends something: the broker forgets a fence after a day of silence."""
TELL_S: Final = 5.0
"""How often the log is told how far a recovery is; one that is quicker is told of at its end."""
SOON_MS: Final = 100
"""How often it asks whether all was read, while its event clock waits for that."""
LOOK_S: Final = 10.0
"""How often a lane that waits for a time looks at the clock, which may have been set."""


_ACQUIRE: "Final[Mapping[Guarantee, Callable[[Partition, Shared, Targets, Events], Awaitable[Committer]]]]" = {
    "effectively_once": LeasedCommitter.acquire,
    "transactional": TransactionalCommitter.acquire,
}


class LaneRunner:
    """One partition of one group, while it is assigned to this worker, or while this worker stands by for it.

    :meth:`follow` stands by. :meth:`open` takes the lease and recovers, :meth:`close` stops; after a failure *failed* is
    called, once, and the lane's memory is void.
    """

    def __init__(
        self,
        plan: GroupPlan,
        partition: int,
        shared: Shared,
        siblings: Siblings,
        failed: "Callable[[LaneRunner, Exception], None]",
    ) -> None:
        self.plan = plan
        self.partition = partition
        self._siblings = siblings
        self._shared = shared
        self._targets = Targets(plan, shared.control)
        self._shelf: LastingShelf | None = None
        """The lane's shelf, if it is on disk."""
        self.lane = self._new_lane(None)
        self._failed = failed
        self._changelog: Partition = (plan.changelog, partition)
        self._last_offset = -2
        """Offset of the last record that this lane appended to its changelog."""
        self._metrics = shared.metrics.lane(plan, partition)
        self._tracing = None if shared.trace is None else shared.trace(plan, partition)
        self._inbox = Inbox(shared.reader, partition, self._fail, self._received)
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._committer: Committer | None = None
        self._committing = False
        self._on_trial = False
        """Whether this lane is the one of its worker that may try an intent at which workers have ended."""
        self._tasks: list[asyncio.Task[None]] = []
        self.stopped = False
        self.open_time = 0.0
        self.recovered = 0
        """Changelog records read at the last recovery."""
        self.recovered_from = 0
        """Changelog offset at which it began; what lay before was on disk, or was followed."""
        self._replica: Replica | None = None
        """What was read while it stood by."""
        self._state = LaneState.opening
        self._progress: Progress | None = None
        self._told = 0.0
        """When the log was last told of it."""
        self._unit_opened = 0.0
        """When the open unit took its first record, on the event loop's clock."""

    def __repr__(self) -> str:
        return f"<lane {self.plan.changelog}-{self.partition}>"

    @property
    def key(self) -> LaneKey:
        """What it is known by in its worker."""
        return self.plan.name, self.partition

    def _new_lane(self, shelf: Shelf | None) -> Lane[OutboxBuilder]:
        shared = self._shared
        return Lane(
            self.plan,
            self.partition,
            shared.authority,
            shared.limits,
            lambda incarnation, sequence: OutboxBuilder(
                incarnation, sequence, self._targets.partitions, shared.contexts
            ),
            shelf,
            shared.tables,
        )

    # -- opening -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the lease, recover what is not in memory, send what was left unsent, and start to read."""
        shared = self._shared
        started = asyncio.get_running_loop().time()
        if self._state is LaneState.standby:
            await self._halt()
        known = self._last_offset
        self.stopped = False
        self._state = LaneState.opening
        events = Events(sent=self._sent, failed=self._fail, wrote=self._metrics.sent)
        before_ms = shared.clock.now_ms()
        committer = await _ACQUIRE[shared.guarantee](self._changelog, shared, self._targets, events)
        self._committer = committer
        # Memory of an earlier assignment is good only if nobody has written since.
        if committer.fence != known + 1:
            await self._recover(committer.fence, before_ms)
            if self.lane.is_new:
                await self._siblings.check()
            positions = self.lane.begin(secrets.token_hex(4))
        else:
            positions = dict(self.lane.positions)
            self.lane.reopened()
        self._last_offset = committer.fence
        await self._start_positions(positions)
        committer.begin(self.lane.unsent())
        # Not yet called: a task that is cancelled before its first turn would leave a coroutine behind that nobody awaits.
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "process": partial(self._process, committer),
            "commit": partial(self._commit, committer),
            "send": committer.run,
        }
        self._tasks = [
            asyncio.create_task(self._guard(part), name=f"{self.plan.changelog}-{self.partition}-{name}")
            for name, part in work.items()
        ]
        self._read_from(self.lane.positions)
        for topic, source in self.lane.sources.items():
            self._inbox.read(topic, source.next, source.topic_id)
        self._state = LaneState.running
        self.open_time = asyncio.get_running_loop().time() - started

    async def _recover(self, fence: int, before_ms: int) -> None:
        """Make the lane's memory of what is there and of its changelog; *before_ms* is a time before the *fence*."""
        replica, self._replica = self._replica, None
        if replica is None or replica.is_stale:
            replica = await Replica.open(self._new_lane, self._changelog, fence, self._shared)
        self.lane, self._shelf, self.recovered_from = replica.lane, replica.shelf, replica.position
        time = asyncio.get_running_loop().time
        async with self._shared.recoveries:
            self._state = LaneState.recovering
            self._told = began = time()
            try:
                self.recovered = await replica.catch_up(fence, before_ms, self._recovering)
            finally:
                self._state, self._progress = LaneState.opening, None
        self._metrics.recovered(self.recovered, time() - began)

    def _recovering(self, progress: Progress) -> None:
        self._progress = progress
        now = asyncio.get_running_loop().time()
        if now - self._told >= TELL_S:
            self._told = now
            log.info(
                "lane recovers",
                percent=round(100 * progress.part),
                records=progress.records,
                per_s=round(progress.rate),
                left_s=round(progress.left_s, 1),
            )

    def _read_from(self, positions: Mapping[str, int]) -> None:
        """What was noted of records from there on comes again."""
        self._metrics.arrivals.begin(positions)
        if self._tracing is not None:
            self._tracing.forget()

    def _received(self, topic: str, chunk: Chunk) -> Iterable[Record]:
        time = asyncio.get_running_loop().time
        now_s = time()
        self._metrics.arrivals.add(topic, chunk, now_s)
        return chunk if self._tracing is None else self._tracing.watch(topic, chunk, now_s, time)

    async def _start_positions(self, positions: Mapping[str, int | None]) -> None:
        shared = self._shared
        sources: list[Partition] = [(topic, self.partition) for topic in positions]
        begins = await shared.control.offsets(sources, end=False)
        ends = await shared.control.offsets(sources, end=True)
        described = await self._siblings.topics()
        missing = [topic for topic in positions if topic not in described]
        if missing:
            why = await shared.control.why_absent(missing[0])
            raise why or TopicMissingError(missing, "They were away for a moment.")
        for topic, position in positions.items():
            at = topic, self.partition
            source = self.lane.sources[topic]
            topic_id = described[topic].id
            if position is None:
                self.lane.start_at(topic, begins[at], topic_id)
                continue
            if source.topic_id not in (topic_id, bytes(16)):
                raise TopicReplacedError(topic)
            is_new_reactor = position == 0 and bool(source.ahead)  # it reads what there still is
            if not is_new_reactor and not begins[at] <= position <= ends[at]:
                raise WatermarkRangeError(topic, self.partition, position, begins[at], ends[at])
            self.lane.start_at(topic, max(position, begins[at]), topic_id)

    # -- standing by ---------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Read the changelog as it grows, while another worker has the lane: then :meth:`open` has little left to read."""
        self.stopped = False
        self._state = LaneState.standby
        self._tasks = [asyncio.create_task(self._guard(self._follow), name=f"{self.plan.changelog}-{self.partition}")]

    async def _follow(self) -> None:
        while True:
            end = (await self._shared.control.offsets([self._changelog], end=True))[self._changelog]
            self._replica = await Replica.open(self._new_lane, self._changelog, end, self._shared)
            await self._replica.follow(self._fail)
            log.warning("standby begins anew: for too long it has not heard of its changelog", lane=repr(self))
            await asyncio.sleep(LOOK_S)

    # -- at work -------------------------------------------------------------------------------------------------------

    async def _process(self, committer: Committer) -> None:
        """Step over what is due and what is fetched."""
        lane = self.lane
        clock = self._shared.clock
        inbox = self._inbox
        time = asyncio.get_running_loop().time
        until = 0.0
        while True:
            if time() >= until:
                until = time() + SLICE_S
            if lane.suspects.careful and not self._on_trial:
                self._idle.set()
                await self._shared.trial.acquire()
                self._on_trial = True
                self._idle.clear()
            now_ms = clock.now_ms()
            one_by_one = self._on_trial and (lane.has_work or self._committing)
            if lane.is_full or committer.backlog >= UNSENT_UNITS or one_by_one:
                self._room.clear()
                await self._room.wait()
                continue
            inbox.arrived.clear()
            if not lane.has_work:
                self._unit_opened = asyncio.get_running_loop().time()
            if lane.is_due(now_ms):
                with self._shared.whereabouts.at(self._at_timers):
                    self._slice(partial(lane.fire, now_ms, STRIDE), until)
            else:
                found = inbox.first(lane.paused_until_ms, now_ms)
                if found is None:
                    lane.rest(now_ms, self._read_ms(now_ms))
                    if lane.is_due(now_ms):
                        continue
                    if lane.has_work:
                        self._work.set()
                    await self._wait(now_ms)
                    continue
                topic, chunk = found
                bind_contextvars(topic=topic)
                with self._shared.whereabouts.at(partial(self._at_record, topic)):
                    exhausted = self._slice(partial(lane.step, topic, chunk, now_ms, STRIDE), until)
                if exhausted:
                    inbox.done(topic)  # a rewind may empty the inbox, but only between two steps
                unbind_contextvars("topic")
            if lane.has_work:
                self._work.set()
            # Not whenever a timer interrupts the records: units would be as small as what lies between two timers.
            if time() >= until:
                await asyncio.sleep(0)

    def _slice(self, stride: Callable[[], bool], until: float) -> bool:
        """Take strides until a time of the event loop; returns whether the last one has left nothing."""
        lane = self.lane
        time = asyncio.get_running_loop().time
        while True:
            before = lane.count
            if stride():
                return True
            if lane.count - before < STRIDE or time() > until:  # it cannot go on now, or the time is over
                return False

    async def _wait(self, now_ms: int) -> None:
        """Wait until something arrives, or the time has come for something that waits for it."""
        self._end_trial()
        lane = self.lane
        times = [lane.paused_until_ms(topic) for topic in self._inbox.waiting]
        due_ms = lane.next_due_ms
        if due_ms is not None:
            times.append(due_ms if due_ms > now_ms else now_ms + SOON_MS)
        self._idle.set()
        await wait_within(min(LOOK_S, (min(times) - now_ms) / 1000) if times else None, self._inbox.arrived)
        self._idle.clear()

    def _read_ms(self, now_ms: int) -> int | None:
        """A time at which everything was read that there was; ``None`` if there is more, or nobody can tell."""
        feeds = self._inbox.feeds
        if (
            not feeds
            or self._inbox.waiting
            or any(feed.offset < feed.high_watermark or feed.high_watermark < 0 for feed in feeds)
        ):
            return None
        age_s = asyncio.get_running_loop().time() - min(feed.asked for feed in feeds)
        return now_ms - round(1000 * age_s)

    def _end_trial(self) -> None:
        if self._on_trial:
            self._on_trial = False
            self._shared.trial.release()

    async def _commit(self, committer: Committer) -> None:
        """Group commit: while one unit is made durable the next one is filled; then it is that one's turn."""
        lane = self.lane
        quiet = asyncio.get_running_loop().time()
        while True:
            if not lane.has_work:
                await wait_within(MARK_S if lane.has_marks else KEEP_ALIVE_S, self._work)
                self._work.clear()
                marks_due = lane.has_marks and not committer.backlog
                silent_s = asyncio.get_running_loop().time() - quiet
                if not marks_due and silent_s < KEEP_ALIVE_S and not lane.has_work:
                    continue
            quiet = asyncio.get_running_loop().time()
            self._committing = True
            unit = lane.seal()
            if isinstance(unit, Rewind):
                self._committing = False
                self._rewind(unit)
                continue
            self._room.set()
            await self._append(committer, unit)
            self._committing = False
            if self._on_trial:
                if unit.count:
                    self._end_trial()
                self._room.set()

    async def _append(self, committer: Committer, unit: CommitUnit[OutboxBuilder]) -> None:
        """Make a unit durable that was sealed just now."""
        if self._shelf is not None:
            self._shelf.at_ms = self._shared.clock.now_ms()
        time = asyncio.get_running_loop().time
        opened, sealed = self._unit_opened, time()
        sampled = () if self._tracing is None else self._tracing.sealed(unit)
        committed = await committer.commit(unit)
        self._last_offset = committed.last_offset
        self.lane.acknowledged(committed.last_offset + 1, committed.outbox)
        ended, ended_ms = time(), self._shared.clock.now_ms()
        self._metrics.committed(unit, committed.size, sealed, ended, ended_ms)
        if self._tracing is not None and unit.count:
            self._tracing.committed(unit, sampled, committed.size, (opened, sealed, ended), ended_ms)

    def _rewind(self, rewind: Rewind) -> None:
        """Read the records of a unit that could not be sealed once more."""
        self._inbox.clear()
        self._read_from(rewind.positions)
        for topic, position in rewind.positions.items():
            self._inbox.read(topic, position, self.lane.sources[topic].topic_id)
        self._room.set()

    def _sent(self, sequence: int, entries: Collection[int]) -> None:
        self.lane.sent(sequence, entries)
        self._room.set()
        self._work.set()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> bool:
        """Finish what is fetched and decided; ``False`` if that failed or took too long: the lane's memory is void then."""
        committer = self._committer
        assert committer is not None
        self._inbox.read_no_more()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
                while not self.stopped and (
                    self._inbox.arrived.is_set()
                    or self._committing
                    or self.lane.has_work
                    or committer.backlog
                    or self.lane.has_marks
                ):
                    self._work.set()
                    if committer.backlog:
                        await committer.wait_until_sent()
                    else:
                        await asyncio.sleep(0.005)
                if not self.stopped and self._last_offset == committer.fence:
                    # Who opens it next shall not take us for one that ended at an intent.
                    unit = self.lane.seal()
                    assert not isinstance(unit, Rewind)
                    await self._append(committer, unit)
        except TimeoutError:
            return False
        except (PFError, AnyKafkaError) as error:
            # Often it is not ours any more, which is why it is taken from us; the other lanes must end in good order.
            log.warning("lane was lost before it had ended", lane=repr(self), code=code_of(error), reason=str(error))
            return False
        return not self.stopped

    async def close(self, seconds: float) -> None:
        """Drain, then stop. The memory is kept for the case that the same lane is assigned again."""
        clean = not self.stopped and bool(self._tasks) and await self.drain(seconds)
        await self._halt()
        if not clean:
            self.void()

    def void(self) -> None:
        """Forget what is in memory: the next :meth:`open` recovers."""
        self._last_offset = -2
        self._replica = None

    async def _halt(self) -> None:
        await asyncio.gather(*self.abandon(), return_exceptions=True)

    def abandon(self) -> list[asyncio.Task[None]]:
        """Read, decide, commit and send nothing more, from this moment on. Returns the tasks that end now."""
        self.stopped = True
        self._state = LaneState.stopped
        self._inbox.clear()
        self._end_trial()
        if self._committer is not None:
            self._committer.stop()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._committing = False
        self._idle.set()
        return tasks

    async def _guard(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except (PFError, AnyKafkaError) as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, only this lane stops
            # As text: a renderer that shows local variables would show tokens, and take minutes over a large payload.
            log.error("lane crashed", lane=repr(self), exception="".join(traceback.format_exception(error)))
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self.stopped:
            return
        # At once: the open unit may have taken half of what failed, and must not be sealed any more.
        self.abandon()
        self.void()
        self._failed(self, error)

    # -- what others may read ------------------------------------------------------------------------------------------

    @property
    def status(self) -> LaneStatus:
        """The lane as it is now."""
        state = self._state
        lane = self.lane
        feeds = self._inbox.feeds
        away = [f"{feed.partition[0]}-{feed.partition[1]}" for feed in feeds if feed.doubtful]
        until_ms = max(lane.paused_until_ms(topic) for topic in lane.sources)
        if state is LaneState.running and away:
            state = LaneState.waiting
        elif state is LaneState.running and until_ms > self._shared.clock.now_ms():
            state = LaneState.paused
        lags = {
            feed.partition[0]: max(0, feed.high_watermark - lane.sources[feed.partition[0]].next)
            for feed in feeds
            if feed.high_watermark >= 0
        }
        lag = (sum(lags.values()) if lags else None) if self._replica is None else self._replica.lag
        recent = self._metrics.recent(asyncio.get_running_loop().time())
        event_ms = lane.timers.event_ms
        return LaneStatus(
            group=self.plan.name,
            changelog=self.plan.changelog,
            partition=self.partition,
            state=state,
            progress=None if self._progress is None else round(self._progress.part, 4),
            recovery_rate=None if self._progress is None else round(self._progress.rate),
            left_s=None if self._progress is None else round(self._progress.left_s, 1),
            until_ms=until_ms if state is LaneState.paused else None,
            reason=f"nothing can be read from {', '.join(away)}" if state is LaneState.waiting else None,
            positions=dict(lane.positions) if state.is_open else None,
            lag=lag,
            handled=lane.handled,
            refused=sum(lane.refused.values()),
            lags=lags or None,
            timers=lane.timers.waiting,
            rate=round(recent.rate, 1),
            commit_p99_ms=None if recent.commit_s is None else round(recent.commit_s * 1000, 1),
            timer_late_ms=None if recent.timer_s is None else round(recent.timer_s * 1000, 1),
            error_rate=None if recent.error_rate is None else round(recent.error_rate, 4),
            watermark_delay_s=None if event_ms is None else (self._shared.clock.now_ms() - event_ms) / 1000,
            tallies=self._metrics.tallies or None,
            windows=+lane.windows or None,
        )

    def _at_record(self, topic: str) -> dict[str, object]:
        """The record that is being handled; called from the watchdog's thread."""
        offset = self.lane.sources[topic].next - 1
        return {"lane": repr(self), "topic": topic, "partition": self.partition, "offset": offset}

    def _at_timers(self) -> dict[str, object]:
        return {"lane": repr(self), "firing": "timers"}

    async def locate(self, error: StateUndecodableError) -> int | None:
        """Offset of the changelog record that holds a state that cannot be decoded."""
        prefix = next(store.reactor.prefix for store in self.lane.stores if store.reactor.spec.id == error.reactor)
        key = changelog.state_key(prefix, error.key) + error.subkey
        return await last_offset(self._shared.control, self._changelog, key)
