"""The sinks of a worker: each reads the partitions that the group has assigned, and gives what is in them to its consumer.

They run beside the lanes and share nothing with them but the event loop: connections of their own, a buffer for each
partition. So a consumer that is slow, fails or hangs holds up its own partition and nothing else.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from aiokafka.errors import KafkaError as AnyKafkaError
from structlog.contextvars import bind_contextvars

from pf_stream.backpressure import Counts, make_queue
from pf_stream.clock import Clock
from pf_stream.core.admission import NewerVersionError
from pf_stream.core.outputs import DROPPED, why_dead
from pf_stream.core.records import Header
from pf_stream.core.sink import Marks, SinkPlan, Taken
from pf_stream.core.source import parse_origin
from pf_stream.core.status import SinkState, SinkStatus
from pf_stream.engine.encode import OUTPUT_BYTES
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.reader import Feed, Reader
from pf_stream.engine.spill import Spill
from pf_stream.errors import PFError
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder, Chunk, stamp
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import Link, Partition
from pf_stream.kafka.offsets import Committed, committed
from pf_stream.model.sink import Delivered
from pf_stream.security.refusal import Refusal

__all__ = ["SinkRunner", "Sinks"]

log = structlog.get_logger(__name__)

SLICE_S: Final = 0.005
"""How long records are taken into a buffer between two turns of the event loop."""
STRIDE: Final = 64
"""Records after which the clock is looked at."""
ADJUST_S: Final = 1.0
"""How often a queue is told how things are."""
COMMIT_S: Final = 0.05
"""How long to wait between two commits: what was handed over meanwhile comes again after a crash."""
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
REVOKE_S: Final = 1.0
"""How long a rebalance waits for a consumer at work: all workers of the group stand still meanwhile."""
LONGEST_REASON: Final = 1_000
"""In characters."""
CANCEL_S: Final = 1.0
"""How long a consumer that is cancelled may take to end."""

Progress = Mapping[Partition, Committed]
SinkKey = tuple[str, int]


def resident_bytes() -> int | None:
    """Memory of this process; None where nobody tells."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - each second, and a path would cost more than the reading
            return int(file.read().split()[1]) * 4096
    except OSError:
        return None


class SinkRunner:
    """One partition of one sink, while it is assigned to this worker."""

    def __init__(
        self,
        plan: SinkPlan,
        partition: int,
        sinks: "Sinks",
        counts: Counts,
    ) -> None:
        """Begin at once; *counts* are those of the partition, whenever it comes back."""
        self.plan = plan
        self.partition: Partition = (plan.topic, partition)
        self._sinks = sinks
        self._seconds = sinks.metrics.sink_seconds.labels(plan.topology.app_id, plan.sink.name)
        self._counts = counts
        self._spill = Spill(sinks.folder) if plan.sink.buffer.strategy == "buffer" else None
        self._begin(Committed(0, ""))
        self._feed: Feed | None = None
        self._opened = False
        """Whether it is known where it goes on."""
        self._state = SinkState.opening
        self._error: BaseException | None = None
        self._paused_since: float | None = None
        self._closing = False
        self._calling: asyncio.Task[BaseException | None] | None = None
        """The consumer at work."""
        self._task = asyncio.create_task(self._run(), name=repr(self))

    def __repr__(self) -> str:
        return f"<sink {self.plan.sink.name}-{self.partition[1]}>"

    def _begin(self, at: Committed) -> None:
        """Forget what is in memory, and go on there."""
        if self._spill is not None:
            self._spill.close()
        sink = self.plan.sink
        self._queue = make_queue(sink.buffer, sink.batch, self._counts, self._spill)
        self._next = at.offset
        """Next offset to take into the buffer."""
        self._in_flight: int | None = None
        """The first offset of the batch that the consumer has."""
        self._marks = Marks(at.metadata)
        """Of what was taken into the buffer."""
        self._done = self._marks.copy()
        """Of what was handed over: what goes with the offset must say nothing of records behind it."""
        self._chunk: Chunk | None = None
        self._arrived = asyncio.Event()
        """Set when something was read."""
        self._filled = asyncio.Event()
        """Set when the buffer has got something."""
        self._room = asyncio.Event()
        """Set when the buffer has given something."""

    # -- the course of it ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        bind_contextvars(sink=repr(self))
        pause = RETRY_S
        while True:
            try:
                await self._work()
            except _ClosingError:
                return
            except (PFError, AnyKafkaError) as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, only this sink waits
                log.error("sink crashed", sink=repr(self), exception="".join(traceback.format_exception(error)))
                self._fail(error)
            await asyncio.sleep(pause)
            pause = min(MAX_RETRY_S, 2 * pause)

    def _fail(self, error: Exception) -> None:
        code = error.code if isinstance(error, PFError) else type(error).__name__
        log.error("sink stopped; it tries again, and all else goes on", sink=repr(self), code=code, reason=str(error))
        self._state, self._error = SinkState.stopped, error

    async def _work(self) -> None:
        """Read and hand over; ends with an error only."""
        self._state = SinkState.opening
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._open(failed)
        self._state, self._error, self._opened = SinkState.running, None, True
        parts: set[asyncio.Future[None]] = {
            failed,
            asyncio.create_task(self._take_in()),
            asyncio.create_task(self._hand_over()),
            asyncio.create_task(self._adjust()),
        }
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            self._stop_reading()
            self._sinks.outputs.drop(self)
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await self._end_call()

    async def _open(self, failed: "asyncio.Future[None]") -> None:
        """Find out where to go on, and begin to read."""
        at, link = self.partition, self._sinks.control
        begin = (await link.offsets([at], end=False))[at]
        end = (await link.offsets([at], end=True))[at]
        described = (await link.describe([at[0]])).get(at[0])
        if described is None:
            raise await link.why_absent(at[0]) or TopicMissingError([at[0]], "It was away for a moment.")
        found = (await committed(link, self.plan.topology.app_id, [at])).get(at)
        start = Committed(begin, "") if found is None else found
        if not begin <= start.offset <= end:
            log.error(
                "sink goes on where its topic begins: what it was to read next is not there any more",
                sink=repr(self),
                committed=start.offset,
                begin=begin,
                end=end,
            )
            start = Committed(begin, "")
        self._begin(start)

        def deliver(chunk: Chunk) -> None:
            self._chunk = chunk
            self._arrived.set()

        def fail(error: Exception) -> None:
            if not failed.done():
                failed.set_exception(error)

        self._feed = Feed(
            partition=at,
            offset=start.offset,
            ready=lambda: self._chunk is None,
            deliver=deliver,
            failed=fail,
            topic_id=described.id,
        )
        self._sinks.reader.add(self._feed)

    def _stop_reading(self) -> None:
        if self._feed is not None:
            self._sinks.reader.remove(self._feed)
        self._pause(None)

    async def close(self, seconds: float) -> None:
        """Let the consumer finish the batch that it has, for *seconds* at most, and give it no other.

        What is in the buffer is left to whoever has the partition next.
        """
        self._closing = True
        self._stop_reading()
        if self._calling is not None:
            await asyncio.wait({self._task}, timeout=seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._spill is not None:
            self._spill.close()

    # -- into the buffer -----------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            chunk = self._chunk
            assert chunk is not None
            until = time() + SLICE_S
            for number, record in enumerate(chunk, 1):
                if record.offset < self._next:
                    continue
                while not self._queue.ready(now_s := time()):
                    await self._wait_for_room(now_s)
                    until = time() + SLICE_S
                taken = self.plan.take(record, self._marks)
                self._next = record.offset + 1
                if taken is True:
                    self._counts.repeats += 1
                elif taken is not False:
                    self._queue.put(taken, now_s)
                if number % STRIDE == 0 and time() > until:
                    self._filled.set()
                    await asyncio.sleep(0)
                    until = time() + SLICE_S
            self._next = max(self._next, chunk.next_offset)
            self._chunk = None
            self._filled.set()
            self._sinks.moved()  # what is left out is done
            self._sinks.reader.wake()

    async def _wait_for_room(self, now_s: float) -> None:
        """Read nothing more: the partition is paused until the consumer has taken something."""
        self._filled.set()
        self._room.clear()
        self._pause(now_s)
        try:
            async with asyncio.timeout(self._queue.wait_s(now_s)):
                await self._room.wait()
        except TimeoutError:
            pass
        self._pause(None)

    def _pause(self, now_s: float | None) -> None:
        """Note that nothing is read from now on, or that reading goes on."""
        if self._paused_since is not None:
            self._counts.paused_s += asyncio.get_running_loop().time() - self._paused_since
        self._paused_since = now_s

    async def _adjust(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(ADJUST_S)
            feed = self._feed
            if feed is not None and time() - feed.asked > ADJUST_S:
                # While it is paused nothing is fetched, and that is when it is of interest how far it is behind.
                ends = await self._sinks.control.offsets([self.partition], end=True)
                feed.high_watermark, feed.asked = ends[self.partition], time()
            self._queue.adjust(self._waiting, resident_bytes())
            self._room.set()

    # -- out of it -----------------------------------------------------------------------------------------------------

    async def _hand_over(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            self._filled.clear()
            batch = self._queue.take(now_s := time())
            if not batch:
                try:
                    async with asyncio.timeout(self._queue.wait_s(now_s)):
                        await self._filled.wait()
                except TimeoutError:
                    pass
                continue
            self._in_flight = batch[0].offset
            self._room.set()
            await self._settle(batch)
            self._in_flight = None
            self._queue.handed(len(batch), time() - now_s)
            self._sinks.moved()

    async def _settle(self, batch: Sequence[Taken]) -> None:
        """Give a batch to the consumer. What nobody can read is a dead letter, and all stays in its order."""
        run: list[_Opened] = []
        for number, taken in enumerate(batch, 1):
            try:
                opened = self.plan.open(taken, self.partition[1])
            except NewerVersionError:
                await self._give(run)
                raise
            if isinstance(opened, Refusal):
                await self._give(run)
                run = []
                await self._bury(taken, opened, "pf_stream.Refused")
            else:
                run.append((taken, opened))
            if number % STRIDE == 0:
                await asyncio.sleep(0)
        await self._give(run)

    async def _give(self, run: Sequence["_Opened"]) -> None:
        """Give records to the consumer as often as it may have them, and then half of them at a time."""
        if not run:
            return
        policy = self.plan.sink.on_error
        attempts = 1
        while (error := await self._call(run)) is not None:
            if policy is None or attempts >= policy.attempts:
                break
            if attempts == 1:
                log.warning("a sink's consumer raised; it gets the batch again", sink=repr(self), reason=_text(error))
            self._state, self._error = SinkState.retrying, error
            await asyncio.sleep(policy.delay_ms(attempts) / 1000)
            attempts += 1
        self._state, self._error = SinkState.running, None
        if error is not None:
            await self._halve(run, error)

    async def _halve(self, run: Sequence["_Opened"], error: BaseException) -> None:
        """What was refused together may be taken apart; what is refused alone is a dead letter."""
        if len(run) == 1:
            reason = f"{self.plan.sink.name}: {_text(error)}"[:LONGEST_REASON]
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            await self._bury(run[0][0], Refusal("sink_failed", reason), name)
            return
        middle = len(run) // 2
        for half in (run[:middle], run[middle:]):
            failure = await self._call(half)
            if failure is not None:
                await self._halve(half, failure)

    async def _call(self, run: Sequence["_Opened"]) -> BaseException | None:
        """Call the consumer once; returns why it did not take them."""
        if self._closing:
            raise _ClosingError
        time = asyncio.get_running_loop().time
        began = time()
        calling = self._calling = asyncio.create_task(_attempt(self.plan.sink.to, [one for _, one in run]))
        await asyncio.wait({calling})
        self._calling = None
        error = asyncio.InvalidStateError("it was cancelled") if calling.cancelled() else calling.result()
        self._seconds.observe(time() - began)
        if error is None:
            self._counts.handed += len(run)
            self._settled(run[-1][0], (taken for taken, _ in run))
        else:
            self._counts.failures += 1
        return error

    async def _end_call(self) -> None:
        calling, self._calling = self._calling, None
        if calling is None:
            return
        calling.cancel()
        if not (await asyncio.wait({calling}, timeout=CANCEL_S))[0]:
            log.warning("a sink's consumer does not end although it is cancelled", sink=repr(self))

    def _settled(self, last: Taken, records: Iterable[Taken]) -> None:
        """Note that records need not come again."""
        for taken in records:
            origin = parse_origin(taken.source)
            if origin is not None:
                self._done.note(*origin)
        self._in_flight = last.offset + 1
        self._sinks.moved()

    async def _bury(self, taken: Taken, why: Refusal, error: str) -> None:
        """Make a record a dead letter, as it came if it is still there."""
        topic, number = self.partition
        found = await self._sinks.control.read_range(self.partition, taken.offset, taken.offset + 1)
        key, value = taken.key, taken.value
        headers: list[Header] = [("ce_type", taken.kind), ("pf-source", taken.source)]
        if found:
            key, value = found[0].key, found[0].value
            headers = [header for header in found[0].headers if header[0].lower() not in DROPPED]
        headers += why_dead(topic, number, taken.offset, why, error)
        builder = BatchBuilder(OUTPUT_BYTES, compress=True)
        builder.append(self._sinks.clock.now_ms(), key, value, headers)
        batch = stamp(builder.build(), -1, -1, -1)
        await self._sinks.outputs.submit(self, (self.plan.dead_letters, number), batch)
        self._counts.dead_letters += 1
        self._settled(taken, [taken])

    # -- what others may read ------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Committed | None:
        """From where on records were not handed over, and the marks of those that were; None until that is known."""
        if not self._opened:
            return None
        oldest = self._queue.oldest
        offset = self._next if oldest is None else oldest.offset
        return Committed(offset if self._in_flight is None else self._in_flight, str(self._done))

    @property
    def _waiting(self) -> int | None:
        """Records of the partition that were not handed over, as of the last fetch."""
        feed, at = self._feed, self.progress
        if feed is None or at is None or feed.high_watermark < 0:
            return None
        return max(0, feed.high_watermark - at.offset)

    @property
    def status(self) -> SinkStatus:
        """The sink as it is now."""
        state, error, queue, counts, at = self._state, self._error, self._queue, self._counts, self.progress
        if state is SinkState.running and self._feed is not None and self._feed.doubtful:
            state = SinkState.waiting
        elif state is SinkState.running and self._paused_since is not None and queue.fill >= 1:
            state = SinkState.full
        paused_s = 0.0
        if self._paused_since is not None:
            paused_s = asyncio.get_running_loop().time() - self._paused_since
        return SinkStatus(
            sink=self.plan.sink.name,
            partition=self.partition[1],
            state=state,
            position=None if at is None else at.offset,
            lag=self._waiting,
            code=None if error is None else error.code if isinstance(error, PFError) else type(error).__name__,
            reason=None if error is None else _text(error)[:LONGEST_REASON],
            buffered=len(queue),
            buffered_bytes=queue.size,
            spilled_bytes=queue.spilled,
            rate=None if queue.rate is None else round(queue.rate, 1),
            batch=queue.batch,
            accepted=counts.accepted,
            handed=counts.handed,
            dropped=dict(counts.dropped) or None,
            repeats=counts.repeats,
            failures=counts.failures,
            dead_letters=counts.dead_letters,
            paused_s=round(counts.paused_s + paused_s, 3),
            written_bytes=counts.spilled,
            slowed=counts.slowed,
            halved=counts.halved,
        )


_Opened: TypeAlias = tuple[Taken, Delivered[Any]]


class _ClosingError(Exception):
    """Raised in place of another call of the consumer when the sink is being closed."""


async def _attempt(
    consumer: Callable[[Sequence[Delivered[Any]]], Awaitable[None]], batch: Sequence[Delivered[Any]]
) -> BaseException | None:
    try:
        await consumer(batch)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a consumer raises is dealt with as declared
        return error
    return None


def _text(error: BaseException) -> str:
    """What an exception says of itself, if it can."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - it is the consumer's own class, and may raise anything
        return f"{type(error).__name__}, which cannot be shown"


class Sinks:
    """The sinks of a worker."""

    def __init__(
        self,
        plans: Sequence[SinkPlan],
        *,
        control: Link,
        reader: Reader,
        outputs: Appender,
        metrics: Metrics,
        clock: Clock,
        commit: Callable[[Progress], Awaitable[bool]],
        folder: Path | None,
    ) -> None:
        """*commit* commits offsets to the group, and says whether it did; *folder* is for what waits on disk."""
        self._plans = plans
        self.control = control
        self.reader = reader
        self.outputs = outputs
        self.metrics = metrics
        self.clock = clock
        self.folder = folder
        self._commit = commit
        self._runners: dict[SinkKey, SinkRunner] = {}
        self._counts: dict[SinkKey, Counts] = {}
        """Of every partition that was ever here."""
        self._committed: dict[Partition, Committed] = {}
        self._moved = asyncio.Event()
        self._committing = asyncio.create_task(self._keep_committing(), name="commit of sinks")

    def assign(self, partitions: Collection[Partition]) -> None:
        """Begin with the partitions of an assignment; those of the one before were closed."""
        self._committed.clear()
        for plan in self._plans:
            for number in range(plan.partitions):
                if (plan.topic, number) in partitions:
                    key = plan.sink.name, number
                    counts = self._counts.setdefault(key, Counts())
                    self._runners[key] = SinkRunner(plan, number, self, counts)

    async def revoke(self, seconds: float | None = None) -> None:
        """Close all, and commit what was handed over; consumers at work have *seconds*, and in a rebalance little."""
        runners, self._runners = self._runners, {}
        await asyncio.gather(*(runner.close(REVOKE_S if seconds is None else seconds) for runner in runners.values()))
        await self._commit_of(runners.values())

    def moved(self) -> None:
        """Told that some sink has handed something over."""
        self._moved.set()

    async def _keep_committing(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            if not await self._commit_of(self._runners.values()):
                self._moved.set()
            await asyncio.sleep(COMMIT_S)

    async def _commit_of(self, runners: Iterable[SinkRunner]) -> bool:
        progress = {
            runner.partition: at
            for runner in runners
            if (at := runner.progress) is not None and self._committed.get(runner.partition) != at
        }
        if not progress:
            return True
        done = await self._commit(progress)
        if done:
            self._committed |= progress
        return done

    @property
    def statuses(self) -> list[SinkStatus]:
        """Every sink and partition that the group has assigned, by sink and partition."""
        return [self._runners[key].status for key in sorted(self._runners)]

    async def stop(self) -> None:
        """Close what is left."""
        await self.revoke(0)
        self._committing.cancel()
        await asyncio.gather(self._committing, return_exceptions=True)
