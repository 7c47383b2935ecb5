"""What the lanes of a worker have in common."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pf_stream.clock import Clock
from pf_stream.core.authorise import Authority
from pf_stream.core.limits import Limits
from pf_stream.core.plan import GroupPlan
from pf_stream.core.tables import TableRows
from pf_stream.engine.contexts import ContextMaker
from pf_stream.engine.depot import Depot
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.reader import Reader
from pf_stream.engine.watchdog import Whereabouts
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.link import Link, Partition
from pf_stream.model.topology import Guarantee

if TYPE_CHECKING:
    from pf_stream.engine.tracing import LaneTracing

__all__ = ["Shared"]

RECOVERIES: Final = 4
"""Lanes that read their changelogs at once. While one works on what it got, the broker sends to another; more would take
memory and be no faster."""


@dataclass(slots=True)
class Shared:
    """What the lanes of a worker have in common."""

    worker_id: str
    """Name of the worker."""
    group: str
    """The consumer group."""
    guarantee: Guarantee
    """How lanes commit."""
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
    trial: asyncio.Lock
    """Held by the lane that tries an intent at which workers have ended: what it may do must not be laid to another's."""
    committed: Callable[[Partition, int], None]
    """Told how far a source partition is durable, if the commit itself does not tell the group."""
    metrics: Metrics
    """What is counted and measured."""
    trace: "Callable[[GroupPlan, int], LaneTracing] | None" = None
    """Makes what traces a lane, by its group and partition."""
    follower: Reader | None = None
    """Changelogs of lanes that others have, if this worker is to follow some."""
    depot: Depot | None = None
    """Shelves of the lanes on disk; without one they are in memory."""
    tables: Mapping[str, TableRows] = field(default_factory=dict)
    """Rows of the topology's tables, by topic."""
    recoveries: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(RECOVERIES))
    """Held by a lane while it recovers."""
    whereabouts: Whereabouts = field(default_factory=Whereabouts)
    """The step that is being done."""
