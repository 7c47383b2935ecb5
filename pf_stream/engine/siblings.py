"""The other lanes of a group, as a new one must see them before it begins."""

import asyncio

from pf_stream.core.changelog import HEADER
from pf_stream.core.header import Header
from pf_stream.core.plan import GroupPlan
from pf_stream.kafka.link import Link, Partition

__all__ = ["Siblings"]


class Siblings:
    """The changelogs of one group.

    A look reads something of each of them. Lanes that begin together share looks: with a thousand new lanes a look for each
    would be a million reads.
    """

    def __init__(self, plan: GroupPlan, link: Link) -> None:
        self._plan = plan
        self._link = link
        self._turn = asyncio.Lock()
        self._begun = 0
        """Number of the last look that began."""
        self._passed = 0
        """Number of the last one that found nothing wrong."""

    async def check(self) -> None:
        """Raise :class:`PartitionCountError` if a lane of the group says that there were fewer partitions.

        A new lane has nothing of its own that could tell, and would give a second state to keys that moved here. What
        counts for it is a look that began after this was called.
        """
        begun = self._begun
        async with self._turn:
            if self._passed <= begun:
                self._begun += 1
                await self._look()
                self._passed = self._begun

    async def _look(self) -> None:
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
