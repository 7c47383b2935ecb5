"""A lane between topics and a changelog in memory: what the engine does, one action at a time."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final, Literal, TypeAlias

from pf_stream.core import Authority, GroupPlan, Lane, Limits, Narrowing, Rewind
from pf_stream.core.tables import TableRows
from pf_stream.testing._commit import MemoryChangelog, MemoryCommitter
from pf_stream.testing._topics import MemoryTopics
from pf_stream.testing.records import Position

__all__ = ["ActionKind", "MemoryLane"]

ActionKind: TypeAlias = Literal["step", "fire", "commit", "rewind", "output", "mark"]

_BATCH_SIZES: Final = (1, 1, 2, 3, 5, 8, 13, 100, 1000)


class MemoryLane:
    """One partition of one group. The changelog outlives the lane's memory; everything else is made from it again."""

    def __init__(
        self,
        plan: GroupPlan,
        partition: int,
        authority: Authority,
        limits: Limits,
        topics: MemoryTopics,
        narrow: Callable[[Narrowing], bytes | None],
        dice: random.Random,
        changelog: MemoryChangelog,
        tables: Mapping[str, TableRows],
    ) -> None:
        self.plan = plan
        self.partition = partition
        self.changelog = changelog
        self.past: Counter[str] = Counter()
        """Refusals that lives of this lane counted before they ended."""
        self._authority = authority
        self._limits = limits
        self._topics = topics
        self._narrow = narrow
        self._dice = dice
        self._tables = tables
        self.lane = self._recover()

    def _recover(self) -> Lane:
        lane = Lane(self.plan, self.partition, self._authority, self._limits, tables=self._tables)
        guarantee = self.plan.topology.guarantee
        self._committer = MemoryCommitter(self.changelog, self._topics, self._narrow, guarantee, lane.sent)
        lane.restore(self.changelog.records[: self._committer.fence])
        for topic, position in lane.begin(f"{self._dice.getrandbits(64):016x}").items():
            if position is None:
                # An id of sixteen bytes, as the broker gives one to each topic.
                lane.start_at(topic, 0, topic.encode()[-16:].rjust(16, b"\0"))
        self._committer.begin(lane.unsent())
        return lane

    def crash(self) -> None:
        """Lose everything but the changelog, which may have been compacted in the meantime."""
        self.past += self.lane.refused
        compaction = self._dice.choice(("none yet", "values", "values and tombstones"))
        if compaction != "none yet":
            records = self.changelog.records
            last = {key: at for at, (key, _) in enumerate(records)}
            records[:] = [
                (key, value)
                for at, (key, value) in enumerate(records)
                if last[key] == at and (value is not None or compaction == "values")
            ]
        self.lane = self._recover()

    # -- actions -------------------------------------------------------------------------------------------------------

    def ready(self, now_ms: int) -> list[ActionKind]:
        """What may be done next, in any order."""
        kinds: list[ActionKind] = []
        lane = self.lane
        # A lane that takes its intents one by one waits for each to be committed.
        waits = lane.is_full or (lane.suspects.careful and lane.has_work)
        due = not waits and lane.is_due(now_ms)
        readable = not waits and any(self._readable(now_ms))
        if not (waits or due or readable):
            self._rest(now_ms)
            due = lane.is_due(now_ms)
        if due:
            kinds.append("fire")
        elif readable:  # what is due comes first, as in the engine
            kinds.append("step")
        if lane.has_work:
            kinds.append("commit")
        elif lane.has_marks and not (due or readable or self._committer.backlog):
            kinds.append("mark")
        if self._committer.backlog:
            kinds.append("output")
        return kinds

    def do(self, kind: ActionKind, now_ms: int) -> tuple[ActionKind, list[Position]]:
        """Do it; returns what was done, which may differ, and where outputs went: the last of each batch."""
        match kind:
            case "step":
                self._step(now_ms)
            case "fire":
                self.lane.fire(now_ms, self._dice.choice(_BATCH_SIZES))
            case "output":
                return kind, [self._committer.send(self._dice)]
            case _:
                unit = self.lane.seal()
                if isinstance(unit, Rewind):
                    return "rewind", []
                sent = self._committer.commit(unit)
                self.lane.acknowledged()
                return kind, sent
        return kind, []

    def wakes_ms(self, now_ms: int) -> int | None:
        """When there is something to do that waits for the clock; ``None`` if there is nothing."""
        self._rest(now_ms)
        pauses = [self.lane.paused_until_ms(topic) for topic in self.lane.positions]
        times = [at_ms for at_ms in (self.lane.next_due_ms, *pauses) if at_ms is not None and at_ms > now_ms]
        return min(times, default=None)

    def _rest(self, now_ms: int) -> None:
        left = any(
            position < len(self._topics.log(topic, self.partition)) for topic, position in self.lane.positions.items()
        )
        self.lane.rest(now_ms, None if left else now_ms)

    def _readable(self, now_ms: int) -> Iterator[str]:
        for topic, position in self.lane.positions.items():
            if now_ms >= self.lane.paused_until_ms(topic) and position < len(self._topics.log(topic, self.partition)):
                yield topic

    def _step(self, now_ms: int) -> None:
        topic = self._dice.choice(list(self._readable(now_ms)))
        start = self.lane.positions[topic]
        size = self._dice.choice(_BATCH_SIZES)
        records = islice(self._topics.log(topic, self.partition), start, start + size)
        self.lane.step(topic, records, now_ms)
