"""Sinks in memory: their buffers fill by themselves, and their consumers are called when a test says so."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

from pf_stream.backpressure import Counts
from pf_stream.clock import Clock
from pf_stream.core.drain import Bury, Call, Drain, Pause, Step
from pf_stream.core.sink import SinkPlan, Taken
from pf_stream.model.sink import Delivered
from pf_stream.testing._topics import MemoryTopics

__all__ = ["Committed", "MemorySink", "sum_of"]

Committed = dict[tuple[str, int], tuple[int, str]]
"""Offset and marks, by topic and partition, as a consumer group keeps them."""

_MOST_TURNS: Final = 1_000
"""How often a queue is told how things are when the clock moves far: by then it has come to rest."""


class _Pile:
    """A disk in memory."""

    def __init__(self) -> None:
        self._records: deque[Taken] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._records)

    def append(self, record: Taken) -> int:
        self._records.append(record)
        self.size += record.size
        return record.size

    def popleft(self) -> Taken:
        record = self._records.popleft()
        self.size -= record.size
        return record


class MemorySink:
    """One partition of a sink. What it has committed outlives its memory."""

    def __init__(
        self, plan: SinkPlan, partition: int, topics: MemoryTopics, committed: Committed, counts: Counts, clock: Clock
    ) -> None:
        self.plan = plan
        self.partition = partition
        self.counts = counts
        self._topics = topics
        self._committed = committed
        self._clock = clock
        self._adjusted_ms = clock.now_ms()
        self._paused_ms: int | None = None
        self._recover()

    def _recover(self) -> None:
        self._before = self._at = self._committed.get((self.plan.topic, self.partition), (0, ""))
        disk = _Pile() if self.plan.sink.buffer.strategy == "buffer" else None
        self.drain = Drain(self.plan, self.partition, *self._at, self.counts, disk)

    def crash(self, dice: random.Random) -> None:
        """Lose everything but what was committed, which the last batch may have been or not."""
        if dice.random() < 0.5:
            self._committed[self.plan.topic, self.partition] = self._before
        self._recover()

    def _commit(self) -> None:
        self._before, self._at = self._at, self.drain.progress
        self._committed[self.plan.topic, self.partition] = self._at

    @property
    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000

    def fill(self) -> None:
        """Take in what there is, for as long as the buffer takes some; tell it each second how things are."""
        log = self._topics.log(self.plan.topic, self.partition)
        now_ms, drain = self._clock.now_ms(), self.drain
        turns = max(0, now_ms - self._adjusted_ms) // 1000
        self._adjusted_ms += turns * 1000
        for _ in range(min(turns, _MOST_TURNS)):
            drain.queue.adjust(len(log) - drain.progress[0], None)
        if self._paused_ms is not None:
            self.counts.paused_s += max(0, now_ms - self._paused_ms) / 1000
            self._paused_ms = None
        while drain.next < len(log):
            if not drain.queue.ready(self._now_s):
                self._paused_ms = now_ms
                return
            drain.take_in(log[drain.next], self._now_s)

    def wakes_ms(self, now_ms: int) -> int | None:
        """When its buffer takes more for no other reason than that time has passed; ``None`` if it does not."""
        waits_s = None if self._paused_ms is None else self.drain.queue.wait_s(self._now_s)
        return None if waits_s is None else now_ms + math.ceil(waits_s * 1000) + 1

    def hand_over(
        self, runner: asyncio.Runner, takes_s: float, wait: Callable[[float], None], wake: Callable[[], None]
    ) -> int | None:
        """Give the consumer a batch, for whose calls *wait* lets *takes_s* pass; returns how many of it that took.

        ``None`` if nothing may be handed over now. *wake* is called when something was taken out of the buffer.
        """
        began_s, before = self._now_s, self.counts.handed
        drain = self.drain
        batch = drain.take(began_s)
        if not batch:
            return None
        wake()
        steps = drain.hand_over(batch)
        answer: BaseException | None = None
        while drain is self.drain:  # else it crashed meanwhile
            try:
                step = steps.send(answer)
            except StopIteration:
                drain.done(batch, self._now_s - began_s)
                self._commit()
                break
            answer = self._do(step, runner, takes_s, wait)
        return self.counts.handed - before

    def _do(
        self, step: Step, runner: asyncio.Runner, takes_s: float, wait: Callable[[float], None]
    ) -> BaseException | None:
        match step:
            case Call(batch):
                wait(takes_s)
                return runner.run(self._attempt(batch))
            case Pause(seconds):
                wait(seconds)
            case Bury(taken):
                original = self._topics.log(self.plan.topic, self.partition)[taken.offset]
                letter = self.drain.letter(step, original)
                self._topics.write(self.plan.dead_letters, self.partition, *letter, self._clock.now_ms())
        return None

    async def _attempt(self, batch: Sequence[Delivered[Any]]) -> BaseException | None:
        try:
            await self.plan.sink.to(batch)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a consumer raises is dealt with as declared
            return error
        return None


def sum_of(counts: Iterable[Counts]) -> Counts:
    """All together."""
    total = Counts()
    for one in counts:
        for field in fields(Counts):
            setattr(total, field.name, getattr(total, field.name) + getattr(one, field.name))
    return total
