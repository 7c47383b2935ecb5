"""One partition of a sink: what waits for its consumer, what the consumer is given and how often, and how far that has come.

Pure: whoever runs it brings records and times, calls the consumer, and commits :attr:`Drain.progress`. A worker does so from
Kafka, the testing kit in memory.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from pf_stream.backpressure import Counts, Disk, make_queue
from pf_stream.core.admission import NewerVersionError
from pf_stream.core.outputs import DROPPED, why_dead
from pf_stream.core.records import Header, Record
from pf_stream.core.sink import Marks, SinkPlan, Taken
from pf_stream.core.source import parse_origin
from pf_stream.model.sink import Delivered
from pf_stream.security.refusal import Refusal

__all__ = ["Bury", "Call", "Drain", "Pause", "Step", "text_of"]

STRIDE: Final = 64
"""Records that are decoded at a time."""
LONGEST_REASON: Final = 1_000
"""In characters."""


@dataclass(frozen=True, slots=True)
class Call:
    """Call the consumer; the answer is what it raised, ``None`` if it took them."""

    batch: Sequence[Delivered[Any]]
    """What it is to get."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float
    """How long; 0: give others a turn."""
    error: BaseException | None = None
    """Why, if the consumer raised."""


@dataclass(frozen=True, slots=True)
class Bury:
    """Write a dead letter, and answer when it is durable."""

    taken: Taken
    """What nobody can read, or the consumer does not take."""
    why: Refusal
    """Why."""
    error: str
    """Name of the exception."""


Step: TypeAlias = Call | Pause | Bury
"""What is to be done next for a batch."""


class _Opened(NamedTuple):
    taken: Taken
    delivered: Delivered[Any]


class Drain:
    """Takes records in, hands them over, and knows which need not come again."""

    def __init__(
        self, plan: SinkPlan, partition: int, offset: int, marks: str, counts: Counts, disk: Disk[Taken] | None = None
    ) -> None:
        """Go on at *offset* with the *marks* that were committed with it; *disk* is for the strategy ``buffer``."""
        self.plan = plan
        self.partition = partition
        self.counts = counts
        self.queue = make_queue(plan.sink.buffer, plan.sink.batch, counts, disk)
        """What waits."""
        self.next = offset
        """Next offset to take in."""
        self._in_flight: int | None = None
        """The first offset of the batch that is being handed over."""
        self._marks = Marks(marks)
        """Of what was taken in."""
        self._done = self._marks.copy()
        """Of what was handed over: what goes with the offset must say nothing of records behind it."""

    @property
    def progress(self) -> tuple[int, str]:
        """From which offset on records were not handed over, and the marks of those that were."""
        offset = self._in_flight
        if offset is None:
            oldest = self.queue.oldest
            offset = self.next if oldest is None else oldest.offset
        return offset, str(self._done)

    def take_in(self, record: Record, now_s: float) -> None:
        """Take the next record, once the queue is ready for one."""
        taken = self.plan.take(record, self._marks)
        self.next = record.offset + 1
        if taken is True:
            self.counts.repeats += 1
        elif taken is not False:
            self.queue.put(taken, now_s)

    def pass_to(self, offset: int) -> None:
        """There are no records before *offset* that were not taken in."""
        self.next = max(self.next, offset)

    def take(self, now_s: float) -> list[Taken]:
        """The next batch, for :meth:`hand_over`; empty if nothing may be handed over now."""
        batch = self.queue.take(now_s)
        self._in_flight = batch[0].offset if batch else None
        return batch

    def done(self, batch: Sequence[Taken], seconds: float) -> None:
        """A batch was handed over, which took so long."""
        self._in_flight = None
        self.queue.handed(len(batch), seconds)

    # -- a batch -------------------------------------------------------------------------------------------------------

    def hand_over(self, batch: Sequence[Taken]) -> Generator[Step, BaseException | None, None]:
        """What to do for a batch, step by step, each with the answer to the one before; all stays in its order.

        What nobody can read is a dead letter. Raises :class:`NewerVersionError` when all before that record is done.
        """
        run: list[_Opened] = []
        for number, taken in enumerate(batch, 1):
            try:
                opened = self.plan.open(taken, self.partition)
            except NewerVersionError:
                yield from self._give(run)
                raise
            if isinstance(opened, Refusal):
                yield from self._give(run)
                run = []
                yield from self._bury(taken, opened, "pf_stream.Refused")
            else:
                run.append(_Opened(taken, opened))
            if number % STRIDE == 0:
                yield Pause(0)
        yield from self._give(run)

    def _give(self, run: Sequence[_Opened]) -> Generator[Step, BaseException | None, None]:
        """Give records to the consumer as often as it may have them, and then half of them; one alone is a dead letter."""
        if not run:
            return
        policy = self.plan.sink.on_error
        attempts = 1
        while (error := (yield from self._call(run))) is not None:
            if policy is None or attempts >= policy.attempts:
                if len(run) == 1:
                    reason = f"{self.plan.sink.name}: {text_of(error)}"[:LONGEST_REASON]
                    name = f"{type(error).__module__}.{type(error).__qualname__}"
                    yield from self._bury(run[0].taken, Refusal("sink_failed", reason), name)
                else:
                    yield from self._halve(run)
                return
            yield Pause(policy.delay_ms(attempts) / 1000, error)
            attempts += 1

    def _halve(self, run: Sequence[_Opened]) -> Generator[Step, BaseException | None, None]:
        """What was refused together may be taken apart."""
        middle = len(run) // 2
        for half in (run[:middle], run[middle:]):
            if len(half) == 1:
                # That others were refused with it says nothing of it: the consumer may be away just now.
                yield from self._give(half)
            elif (yield from self._call(half)) is not None:
                yield from self._halve(half)

    def _call(self, run: Sequence[_Opened]) -> Generator[Step, BaseException | None, BaseException | None]:
        error = yield Call([one.delivered for one in run])
        if error is None:
            self.counts.handed += len(run)
            for one in run:
                self._settled(one.taken)
        else:
            self.counts.failures += 1
        return error

    def _bury(self, taken: Taken, why: Refusal, error: str) -> Generator[Step, BaseException | None, None]:
        yield Bury(taken, why, error)
        self.counts.dead_letters += 1
        self._settled(taken)

    def _settled(self, taken: Taken) -> None:
        """Note that a record need not come again."""
        origin = parse_origin(taken.source)
        if origin is not None:
            self._done.note(*origin)
        self._in_flight = taken.offset + 1

    def letter(self, bury: Bury, original: Record | None) -> tuple[bytes | None, bytes | None, list[Header]]:
        """Key, value and headers of a dead letter: as the record came, if its *original* is still there."""
        taken = bury.taken
        key: bytes | None = taken.key
        value: bytes | None = taken.value
        headers: list[Header] = [("ce_type", taken.kind), ("pf-source", taken.source)]
        if original is not None:
            key, value = original.key, original.value
            headers = [header for header in original.headers if header[0].lower() not in DROPPED]
        return key, value, headers + why_dead(self.plan.topic, self.partition, taken.offset, bury.why, bury.error)


def text_of(error: BaseException) -> str:
    """What an exception says of itself, if it can."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - it is the consumer's own class, and may raise anything
        return f"{type(error).__name__}, which cannot be shown"
