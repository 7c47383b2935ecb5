"""What the lanes of a group find out together as they begin."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

from pf_stream.core.changelog import HEADER
from pf_stream.core.header import Header
from pf_stream.core.plan import GroupPlan
from pf_stream.kafka.link import Described, Link, Partition

__all__ = ["Look", "Siblings"]

T = TypeVar("T")


class Look(Generic[T]):
    """A question that several ask at once. What counts for each of them is an answer that was asked for after they came."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()
        self._asked = 0
        """How often it was asked."""
        self._answered = 0
        """The last time that there was an answer."""
        self._answer: T | None = None

    async def __call__(self) -> T:
        """The answer; raises what asking raises."""
        asked = self._asked
        async with self._turn:
            if self._answered <= asked:
                self._asked += 1
                self._answer = await self._ask()
                self._answered = self._asked
            return cast("T", self._answer)


class Siblings:
    """The lanes of one group that this worker has.

    What they must know before they begin grows with the number of partitions. If each of a thousand asked for itself, there
    would be a million answers to read.
    """

    def __init__(self, plan: GroupPlan, link: Link) -> None:
        self._plan = plan
        self._link = link
        self.topics: Look[dict[str, Described]] = Look(lambda: link.describe([source.topic for source in plan.sources]))
        """Asks for the source topics that there are, by name."""
        self.check: Look[None] = Look(self._check)
        """Raises :class:`PartitionCountError` if a lane of the group, of whatever worker, says that there were fewer partitions.

        A new lane has nothing of its own that could tell, and would give a second state to keys that moved here."""

    async def _check(self) -> None:
        plan, link = self._plan, self._link
        logs: list[Partition] = [(plan.changelog, number) for number in range(plan.partitions)]
        begins = await link.offsets(logs, end=False)
        ends = await link.offsets(logs, end=True)
        for log in logs:
            position = begins[log]
            while position < ends[log]:
                result = await link.fetch_one(log, position)
                if result.error is not None:
                    raise result.error
                if result.chunk is None:
                    continue
                for record in result.chunk:
                    if record.key == HEADER and record.value is not None:
                        Header.parse(plan.changelog, record.value).check_partitions(plan)
                        return  # they all say the same
                position = result.chunk.next_offset
