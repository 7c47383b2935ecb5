"""The sinks of a worker: each reads the partitions that the group has assigned, and gives what is in them to its consumer.

They run beside the lanes and share nothing with them but the event loop: connections of their own, a buffer for each
partition. So a consumer that is slow, fails or hangs holds up its own partition and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pf_stream.backpressure import Counts
from pf_stream.clock import Clock
from pf_stream.core.sink import SinkPlan
from pf_stream.core.status import SinkStatus
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.reader import Reader
from pf_stream.engine.sink_runner import SinkRunner, SinkShared
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.link import Link, Partition
from pf_stream.kafka.offsets import Committed

__all__ = ["Progress", "Sinks"]

COMMIT_S: Final = 0.05
"""How long to wait between two commits: what was handed over meanwhile comes again after a crash."""
REVOKE_S: Final = 1.0
"""How long a rebalance waits for a consumer at work: all workers of the group stand still meanwhile."""

Progress = Mapping[Partition, Committed]
SinkKey = tuple[str, int]


class Sinks:
    """The sinks of a worker, and their commits."""

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
        """*commit* commits offsets to the group, and says whether it did; *folder* is for what waits on disk.

        Whoever makes this runs it, and its reader.
        """
        self._plans = plans
        self.reader = reader
        """Reads their topics."""
        self._metrics = metrics
        self._commit = commit
        self._moved = asyncio.Event()
        self._shared = SinkShared(control, reader, outputs, clock, folder, self._moved)
        self._runners: dict[SinkKey, SinkRunner] = {}
        self._counts: dict[SinkKey, Counts] = {}
        """Of every partition that was ever here."""

    def assign(self, partitions: Collection[Partition]) -> None:
        """Begin with the partitions of an assignment; those of the one before were closed."""
        for plan in self._plans:
            seconds = self._metrics.sink_seconds.labels(plan.topology.app_id, plan.sink.name)
            for number in range(plan.partitions):
                if (plan.topic, number) in partitions:
                    key = plan.sink.name, number
                    counts = self._counts.setdefault(key, Counts())
                    self._runners[key] = SinkRunner(plan, number, self._shared, counts, seconds)

    async def revoke(self, seconds: float | None = None) -> None:
        """Close all, and commit what was handed over; consumers at work have *seconds*, and in a rebalance little."""
        runners, self._runners = self._runners, {}
        await asyncio.gather(*(runner.close(REVOKE_S if seconds is None else seconds) for runner in runners.values()))
        await self._commit_of(runners.values())

    async def run(self) -> None:
        """Commit how far they are, until cancelled; raises what *commit* raises."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            if not await self._commit_of(self._runners.values()):
                self._moved.set()
            await asyncio.sleep(COMMIT_S)

    async def _commit_of(self, runners: Iterable[SinkRunner]) -> bool:
        moved = [(runner, at) for runner in runners if (at := runner.progress) not in {None, runner.committed}]
        progress = {runner.partition: at for runner, at in moved}
        if not progress:
            return True
        done = await self._commit(progress)
        if done:
            # Of the runner, not of the partition: an answer may come when another one has begun.
            for runner, at in moved:
                runner.committed = at
        return done

    @property
    def statuses(self) -> list[SinkStatus]:
        """Every sink and partition that the group has assigned, by sink and partition."""
        return [self._runners[key].status for key in sorted(self._runners)]
