"""One partition of one sink, from its topic to its consumer, while it is assigned to this worker."""

import asyncio
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from aiokafka.errors import KafkaError as AnyKafkaError
from prometheus_client import Histogram
from structlog.contextvars import bind_contextvars

from pf_stream.backpressure import Counts
from pf_stream.clock import Clock
from pf_stream.core.drain import LONGEST_REASON, Bury, Call, Drain, Pause, Step, text_of
from pf_stream.core.sink import SinkPlan, Taken
from pf_stream.core.status import SinkState, SinkStatus
from pf_stream.engine.consumer import ClosingError, Consumer
from pf_stream.engine.encode import OUTPUT_BYTES
from pf_stream.engine.errors import code_of
from pf_stream.engine.intake import Intake
from pf_stream.engine.reader import Reader
from pf_stream.engine.spill import Spill
from pf_stream.engine.waiting import wait_within
from pf_stream.errors import PFError
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder, stamp
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import Link, Partition
from pf_stream.kafka.offsets import Committed, committed

__all__ = ["SinkRunner", "SinkShared"]

log = structlog.get_logger(__name__)

RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0


class SinkShared(NamedTuple):
    """What the sinks of a worker have in common."""

    control: Link
    """For questions."""
    reader: Reader
    """Reads their topics, and nothing else."""
    outputs: Appender
    """Writes dead letters."""
    clock: Clock
    """Stamps those."""
    folder: Path | None
    """For what waits on disk."""
    moved: asyncio.Event
    """Set when some sink has handed something over."""


class SinkRunner:
    """Reads, fills the buffer, hands over, and tries again whatever fails."""

    def __init__(self, plan: SinkPlan, partition: int, shared: SinkShared, counts: Counts, seconds: Histogram) -> None:
        """Begin at once; *counts* are those of the partition, whenever it comes back; *seconds* takes what calls take."""
        self.plan = plan
        self.partition: Partition = (plan.topic, partition)
        self._shared = shared
        self._counts = counts
        self._seconds = seconds
        self._consumer = Consumer(plan.sink.to, repr(self))
        self._spill = Spill(shared.folder) if plan.sink.buffer.strategy == "buffer" else None
        self._drain = self._begin(Committed(0, ""))
        self._intake: Intake | None = None
        """None until it is known where it goes on."""
        self.committed: Committed | None = None
        """What was last committed of its progress."""
        self._state = SinkState.opening
        self._error: BaseException | None = None
        self._task = asyncio.create_task(self._run(), name=repr(self))

    def __repr__(self) -> str:
        return f"<sink {self.plan.sink.name}-{self.partition[1]}>"

    def _begin(self, at: Committed) -> Drain:
        """Nothing in memory, and on from there."""
        if self._spill is not None:
            self._spill.close()
        return Drain(self.plan, self.partition[1], *at, self._counts, self._spill)

    # -- the course of it ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        bind_contextvars(sink=repr(self))
        pause, reached = RETRY_S, self.progress
        try:
            while True:
                try:
                    await self._work()
                except ClosingError:
                    return
                except (PFError, AnyKafkaError) as error:
                    self._fail(error)
                except Exception as error:  # noqa: BLE001 - whatever it is, only this sink waits
                    log.error("sink crashed", sink=repr(self), exception="".join(traceback.format_exception(error)))
                    self._fail(error)
                if self.progress != reached:
                    pause, reached = RETRY_S, self.progress
                await asyncio.sleep(pause)
                pause = min(MAX_RETRY_S, 2 * pause)
        finally:
            if self._spill is not None:
                self._spill.close()  # here, since whoever closes this may be cancelled

    def _fail(self, error: Exception) -> None:
        log.error(
            "sink stopped; it tries again, and all else goes on",
            sink=repr(self),
            code=code_of(error),
            reason=str(error),
        )
        self._state, self._error = SinkState.stopped, error

    async def _work(self) -> None:
        """Read and hand over; ends with an error only."""
        self._state = SinkState.opening
        intake = await self._open()
        self._state, self._error = SinkState.running, None
        parts: set[asyncio.Future[None]] = {
            intake.failed,
            asyncio.create_task(intake.run()),
            asyncio.create_task(intake.adjust()),
            asyncio.create_task(self._hand_over(intake)),
        }
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            intake.stop()
            self._shared.outputs.drop(self)
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await self._consumer.end()

    async def _open(self) -> Intake:
        """Find out where to go on, and begin to read."""
        at, link = self.partition, self._shared.control
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
        self._drain = drain = self._begin(start)
        shared = self._shared
        self._intake = Intake(drain, at, described.id, shared.reader, link, shared.moved)
        return self._intake

    async def close(self, seconds: float) -> None:
        """Let the consumer finish the batch that it has, for *seconds* at most, and give it no other.

        What is in the buffer is left to whoever has the partition next.
        """
        self._consumer.closing = True
        if self._intake is not None:
            self._intake.stop()
        if self._consumer.is_busy:
            await asyncio.wait({self._task}, timeout=seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # -- to the consumer ------------------------------------------------------------------------------------------------

    async def _hand_over(self, intake: Intake) -> None:
        time, drain = asyncio.get_running_loop().time, self._drain
        while True:
            intake.filled.clear()
            batch = drain.take(now_s := time())
            if not batch:
                await wait_within(drain.queue.wait_s(now_s), intake.filled)
                continue
            intake.room.set()
            await self._settle(batch)
            drain.done(batch, time() - now_s)
            self._shared.moved.set()

    async def _settle(self, batch: Sequence[Taken]) -> None:
        """Do for a batch what is to be done."""
        steps = self._drain.hand_over(batch)
        answer: BaseException | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = await self._do(step)
            if answer is None and not isinstance(step, Pause):
                self._state, self._error = SinkState.running, None
                self._shared.moved.set()

    async def _do(self, step: Step) -> BaseException | None:
        match step:
            case Call(batch):
                time = asyncio.get_running_loop().time
                began = time()
                error = await self._consumer.call(batch)
                self._seconds.observe(time() - began)
                return error
            case Bury():
                await self._bury(step)
            case Pause(seconds, why):
                if why is not None:
                    if self._state is not SinkState.retrying:
                        log.warning(
                            "a sink's consumer raised; it gets the batch again", sink=repr(self), reason=text_of(why)
                        )
                    self._state, self._error = SinkState.retrying, why
                await asyncio.sleep(seconds)
        return None

    async def _bury(self, bury: Bury) -> None:
        """Make a record a dead letter."""
        offset = bury.taken.offset
        found = await self._shared.control.read_range(self.partition, offset, offset + 1)
        letter = self._drain.letter(bury, found[0] if found else None)
        builder = BatchBuilder(OUTPUT_BYTES, compress=True)
        builder.append(self._shared.clock.now_ms(), *letter)
        batch = stamp(builder.build(), -1, -1, -1)
        await self._shared.outputs.submit(self, (self.plan.dead_letters, self.partition[1]), batch)

    # -- what others may read ------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Committed | None:
        """From where on records were not handed over, and the marks of those that were; None until that is known."""
        return None if self._intake is None else Committed(*self._drain.progress)

    @property
    def status(self) -> SinkStatus:
        """The sink as it is now."""
        state, error, intake, at = self._state, self._error, self._intake, self.progress
        queue, counts = self._drain.queue, self._counts
        if state is SinkState.running and intake is not None:
            state = SinkState.waiting if intake.is_doubtful else SinkState.full if intake.is_full else state
        return SinkStatus(
            sink=self.plan.sink.name,
            partition=self.partition[1],
            state=state,
            position=None if at is None else at.offset,
            lag=None if intake is None else intake.lag,
            code=None if error is None else code_of(error),
            reason=None if error is None else text_of(error)[:LONGEST_REASON],
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
            paused_s=round(counts.paused_s + (0.0 if intake is None else intake.paused_s), 3),
            written_bytes=counts.spilled,
            slowed=counts.slowed,
            halved=counts.halved,
        )
