"""The connections of a worker to Kafka: what must not wait for something else has one of its own.

A broker answers the requests of a connection in order. So a fetch that waits would hold up a commit, and an output the commit
of the next lane.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from pf_stream.core.plan import GroupPlan
from pf_stream.core.sink import SinkPlan
from pf_stream.kafka.link import ConnectionSettings, Link
from pf_stream.model.topology import Topology

__all__ = ["Connections"]


@dataclass(frozen=True, slots=True)
class Connections:
    """The connections of a worker, each to every broker."""

    control: Link
    """For leases, recovery, offsets and single records."""
    sources: Link
    """Fetches what the lanes handle."""
    changelogs: Link
    """Appends commits."""
    outputs: Link
    """Appends outputs."""
    standbys: Link | None
    """Fetches changelogs of lanes that others have, if this worker is to follow some."""
    sinks: Link | None
    """Fetches what goes to sinks, if there are some."""
    tables: Link | None
    """Fetches the rows of tables, if there are some."""

    @classmethod
    async def open(cls, settings: ConnectionSettings, topology: Topology) -> Self:
        """Those that the topology needs, or none: raises :class:`KafkaUnavailableError`."""
        async with AsyncExitStack() as opened:

            async def connect() -> Link:
                link = await Link.connect(settings)
                opened.push_async_callback(link.close)
                return link

            made = cls(
                control=await connect(),
                sources=await connect(),
                changelogs=await connect(),
                outputs=await connect(),
                standbys=await connect() if topology.standby else None,
                sinks=await connect() if topology.sinks else None,
                tables=await connect() if topology.tables else None,
            )
            opened.pop_all()
        return made

    async def watch(self, groups: Sequence[GroupPlan], sinks: Sequence[SinkPlan]) -> None:
        """Learn, and keep up with, the leaders of what each reads or writes; outputs have theirs when they are sent."""
        topology = groups[0].topology
        sources = [source.topic for group in groups for source in group.sources]
        changelogs = [group.changelog for group in groups]
        await self.control.watch([*sources, *changelogs])
        await self.sources.watch(sources)
        await self.changelogs.watch(changelogs)
        if self.standbys is not None:
            await self.standbys.watch(changelogs)
        if self.sinks is not None:
            await self.sinks.watch([sink.topic for sink in sinks])
        if self.tables is not None:
            tables = [topology.topic_name(table.topic) for table in topology.tables]
            await self.control.watch(tables)
            await self.tables.watch(tables)

    async def close(self) -> None:
        """Close them all."""
        always = self.control, self.sources, self.changelogs, self.outputs
        for link in (*always, self.standbys, self.sinks, self.tables):
            if link is not None:
                await link.close()
