"""One lane at work: recovery, the step over what is fetched, the commit of what it decides, the sending of outputs."""

import asyncio
import secrets
import traceback
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError as AnyKafkaError

from pf_stream.clock import Clock
from pf_stream.core.authorise import Authority
from pf_stream.core.lane import Lane
from pf_stream.core.limits import Limits
from pf_stream.core.outbox import OutboxEntry
from pf_stream.core.plan import GroupPlan
from pf_stream.core.store import StateUndecodableError
from pf_stream.core.unit import CommitUnit, Rewind
from pf_stream.engine.contexts import ContextMaker
from pf_stream.engine.encode import OutboxBuilder, encode_unit
from pf_stream.engine.errors import TopicReplacedError, WatermarkRangeError
from pf_stream.engine.lease import Lease, acquire
from pf_stream.engine.reader import Feed, Reader
from pf_stream.engine.sender import OutputSender
from pf_stream.errors import PFError
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import Chunk, record_count
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import Link, Partition

__all__ = ["LaneRunner", "Shared"]

log = structlog.get_logger(__name__)

SLICE: Final = 500
"""Records between two turns of the event loop: some 10 ms."""
CHUNKS: Final = 2
"""Fetched chunks that wait, for each source partition."""
UNSENT_UNITS: Final = 8
"""Units whose outputs may be on their way before the lane takes no more."""
MARK_S: Final = 0.1
"""How long an idle lane waits until it marks its outputs as sent."""
KEEP_ALIVE_S: Final = 3600.0
"""How often an idle lane appends something: the broker forgets a fence after a day of silence."""


@dataclass(slots=True)
class Shared:
    """What the lanes of a worker have in common."""

    worker_id: str
    """Name of the worker."""
    clock: Clock
    """Wall time."""
    authority: Authority
    """Who may do what."""
    limits: Limits
    """Bounds of units and records."""
    contexts: ContextMaker
    """Narrowed tokens."""
    control: Link
    """For leases, recovery, offsets and single records."""
    reader: Reader
    """Source records."""
    changelog: Appender
    """Commits."""
    outputs: Appender
    """Outputs; on a connection of its own, so that no commit waits for them."""
    committed: Callable[[Partition, int], None]
    """Told how far a source partition is durable."""


class LaneRunner:
    """One partition of one group, while it is assigned to this worker.

    :meth:`open` takes the lease and recovers, :meth:`close` stops; after a failure *failed* is called, once, and the lane's
    memory is void.
    """

    def __init__(
        self, plan: GroupPlan, partition: int, shared: Shared, failed: "Callable[[LaneRunner, Exception], None]"
    ) -> None:
        self.plan = plan
        self.partition = partition
        self._shared = shared
        self._partitions: dict[str, int] = {}
        self.lane = self._new_lane()
        self._failed = failed
        self._changelog: Partition = (plan.changelog, partition)
        self._last_offset = -2
        """Offset of the last record that this lane appended to its changelog."""
        self._feeds: list[Feed] = []
        self._inbox: deque[tuple[str, Chunk]] = deque()
        self._waiting: dict[str, int] = {}
        self._input = asyncio.Event()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sender: OutputSender | None = None
        self._committing = False
        self._needed = {topic for source in plan.sources for topic in (source.topic, source.dead_letters)}
        self._needed |= {emit.topic for emit in plan.emits.values()}
        self._tasks: list[asyncio.Task[None]] = []
        self.stopped = False
        self.open_time = 0.0
        self.recovered = 0
        """Changelog records read at the last recovery."""

    def __repr__(self) -> str:
        return f"<lane {self.plan.changelog}-{self.partition}>"

    def _new_lane(self) -> Lane[OutboxBuilder]:
        shared = self._shared
        return Lane(
            self.plan,
            self.partition,
            shared.authority,
            shared.limits,
            lambda incarnation, sequence: OutboxBuilder(incarnation, sequence, self._partitions, shared.contexts),
        )

    # -- opening -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the lease, recover what is not in memory, send what was left unsent, and start to read."""
        shared = self._shared
        started = asyncio.get_running_loop().time()
        known = self._last_offset
        self.stopped = False
        lease = await acquire(
            shared.control, shared.changelog, self, self._changelog, shared.worker_id, shared.clock.now_ms()
        )
        # Memory of an earlier assignment is good only if nobody has written since.
        if lease.fence != known + 1:
            self.lane = self._new_lane()
            await self._recover(lease.fence)
            positions = self.lane.begin(secrets.token_hex(4))
        else:
            positions = dict(self.lane.positions)
        self._last_offset = lease.fence
        await self._start_positions(positions)
        sender = self._sender = OutputSender(
            lease,
            shared.control,
            shared.outputs,
            self._needed,
            sent=self._sent,
            dropped=self._reply_topic_lost,
            failed=self._fail,
        )
        for sequence, entries in self.lane.unsent():
            sender.send(sequence, entries)
        # Not yet called: a task that is cancelled before its first turn would leave a coroutine behind that nobody awaits.
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "process": partial(self._process, sender),
            "commit": partial(self._commit, lease, sender),
            "send": sender.run,
        }
        self._tasks = [
            asyncio.create_task(self._guard(part), name=f"{self.plan.changelog}-{self.partition}-{name}")
            for name, part in work.items()
        ]
        for topic, source in self.lane.sources.items():
            self._feed(topic, source.next)
        self.open_time = asyncio.get_running_loop().time() - started

    async def _recover(self, fence: int) -> None:
        shared = self._shared
        position = (await shared.control.offsets([self._changelog], end=False))[self._changelog]
        while position < fence:
            result = await shared.control.fetch_one(self._changelog, position)
            if result.error is not None:
                raise result.error
            if result.chunk is None:
                continue
            # Everything before the fence, and nothing else: on a compacted topic only the whole is consistent.
            records = [record for record in result.chunk if position <= record.offset < fence]
            self.lane.restore((record.key or b"", record.value) for record in records)
            self.recovered += len(records)
            position = result.chunk.next_offset
            await asyncio.sleep(0)

    async def _start_positions(self, positions: Mapping[str, int | None]) -> None:
        shared = self._shared
        sources: list[Partition] = [(topic, self.partition) for topic in positions]
        begins = await shared.control.offsets(sources, end=False)
        ends = await shared.control.offsets(sources, end=True)
        described = await shared.control.describe(list(positions))
        missing = [topic for topic in positions if topic not in described]
        if missing:
            raise TopicMissingError(missing, "Create them with: pf topics create")
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

    def _feed(self, topic: str, offset: int) -> None:
        self._waiting[topic] = 0

        def deliver(chunk: Chunk) -> None:
            self._waiting[topic] += 1
            self._inbox.append((topic, chunk))
            self._idle.clear()
            self._input.set()

        feed = Feed(
            partition=(topic, self.partition),
            offset=offset,
            ready=lambda: self._waiting[topic] < CHUNKS,
            deliver=deliver,
            failed=self._fail,
            topic_id=self.lane.sources[topic].topic_id,
        )
        self._feeds.append(feed)
        self._shared.reader.add(feed)

    # -- at work -------------------------------------------------------------------------------------------------------

    async def _process(self, sender: OutputSender) -> None:
        """Step over what is fetched."""
        lane = self.lane
        clock = self._shared.clock
        while True:
            if not self._inbox:
                self._idle.set()
                self._input.clear()
                await self._input.wait()
                continue
            topic, chunk = self._inbox[0]
            if lane.is_full or sender.backlog >= UNSENT_UNITS:
                self._room.clear()
                await self._room.wait()
                continue
            if lane.step(topic, chunk, clock.now_ms(), SLICE):
                # A rewind may have emptied the inbox meanwhile, but only between two steps.
                self._inbox.popleft()
                self._waiting[topic] -= 1
                self._shared.reader.wake()
            if lane.count:
                self._work.set()
            await asyncio.sleep(0)

    async def _commit(self, lease: Lease, sender: OutputSender) -> None:
        """Group commit: while one unit is appended the next one is filled; then that one is sealed and appended."""
        shared = self._shared
        lane = self.lane
        quiet = asyncio.get_running_loop().time()
        while True:
            if not lane.count:
                try:
                    async with asyncio.timeout(MARK_S if lane.has_marks else KEEP_ALIVE_S):
                        await self._work.wait()
                except TimeoutError:
                    pass
                self._work.clear()
                marks_due = lane.has_marks and not sender.backlog
                silent_s = asyncio.get_running_loop().time() - quiet
                if not marks_due and silent_s < KEEP_ALIVE_S and lane.count == 0:
                    continue
            quiet = asyncio.get_running_loop().time()
            self._committing = True
            unit = lane.seal()
            if isinstance(unit, Rewind):
                self._committing = False
                self._rewind(unit)
                continue
            self._room.set()
            outbox = await self._outbox(unit)
            batch = encode_unit(unit, outbox, shared.clock.now_ms())
            offset = await shared.changelog.submit(self, self._changelog, lease.stamp(self._changelog, batch))
            lane.acknowledged()
            self._last_offset = offset + record_count(batch) - 1
            for topic, position in unit.positions.items():
                shared.committed((topic, self.partition), position)
            if outbox:
                sender.send(unit.sequence, outbox)
            self._committing = False

    async def _outbox(self, unit: CommitUnit[OutboxBuilder]) -> dict[int, OutboxEntry]:
        """The unit's outputs, once the partition counts of their targets are known.

        A reply to a topic that does not exist is left out: no client may hold up a lane by asking for one.
        """
        absent: set[str] = set()
        if unit.outputs.unknown:
            described = await self._shared.control.describe(sorted(unit.outputs.unknown))
            absent = unit.outputs.unknown - described.keys()
            self._partitions.update({topic: found.partitions for topic, found in described.items()})
        if absent:
            if absent & self._needed:
                raise TopicMissingError(sorted(absent & self._needed), "Create them with: pf topics create")
            log.warning("replies dropped: their topic does not exist", topics=sorted(absent))
        return unit.outputs.entries(without=absent)

    def _rewind(self, rewind: Rewind) -> None:
        """Read the records of a unit that could not be sealed once more."""
        self._stop_reading()
        for topic, position in rewind.positions.items():
            self._feed(topic, position)
        self._room.set()

    def _stop_reading(self) -> None:
        for feed in self._feeds:
            self._shared.reader.remove(feed)
        self._feeds.clear()
        self._inbox.clear()
        self._waiting.clear()

    def _sent(self, sequence: int, entries: Collection[int]) -> None:
        self.lane.sent(sequence, entries)
        self._room.set()
        self._work.set()

    def _reply_topic_lost(self, topic: str) -> None:
        self._partitions.pop(topic, None)  # it is asked for again when somebody names it again

    # -- the end -------------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> bool:
        """Finish what is fetched and decided; ``False`` if that took too long, and the lane's memory is void then."""
        sender = self._sender
        assert sender is not None
        for feed in self._feeds:
            self._shared.reader.remove(feed)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
                while not self.stopped and (
                    self._committing or self.lane.count or sender.backlog or self.lane.has_marks
                ):
                    self._work.set()
                    if sender.backlog:
                        await sender.wait_until_empty()
                    else:
                        await asyncio.sleep(0.005)
        except TimeoutError:
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

    async def _halt(self) -> None:
        await asyncio.gather(*self._abandon(), return_exceptions=True)

    def _abandon(self) -> list[asyncio.Task[None]]:
        """Read, decide, commit and send nothing more, from this moment on. Returns the tasks that end now."""
        self.stopped = True
        self._stop_reading()
        self._shared.changelog.drop(self)
        if self._sender is not None:
            self._sender.stop()
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
        self._abandon()
        self.void()
        self._failed(self, error)

    async def locate(self, error: StateUndecodableError) -> int | None:
        """Offset of the changelog record that holds a state that cannot be decoded."""
        from pf_stream.core import changelog

        prefix = next(store.reactor.prefix for store in self.lane.stores if store.reactor.spec.id == error.reactor)
        wanted = changelog.state_key(prefix, error.key)
        control = self._shared.control
        begin = (await control.offsets([self._changelog], end=False))[self._changelog]
        end = (await control.offsets([self._changelog], end=True))[self._changelog]
        found = None
        position = begin
        while position < end:
            result = await control.fetch_one(self._changelog, position)
            if result.chunk is None:
                break
            for record in result.chunk:
                if record.key == wanted:
                    found = record.offset
            position = result.chunk.next_offset
        return found
