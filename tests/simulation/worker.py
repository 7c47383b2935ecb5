"""A worker process: the engine's lanes, as they run in a real one, with a clock of their own."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from pf_stream.core.plan import GroupPlan
from pf_stream.engine.lanes import Lanes
from pf_stream.engine.settings import WorkerSettings
from pf_stream.engine.sinks import Progress
from pf_stream.kafka.link import ConnectionSettings
from tests.simulation.disk import Disk
from tests.simulation.virtual import Process, VirtualLoop
from tests.simulation.workload import ROOTS, SERVICE_KEY, START_MS

if TYPE_CHECKING:
    from tests.simulation.world import Simulation

__all__ = ["LaneKey", "Worker"]

LaneKey: TypeAlias = tuple[str, int]
"""Name of a group, and number of the partition."""


class _Clock:
    """A worker's wall clock, which may be wrong and may step."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.skew_ms = 0

    def now_ms(self) -> int:
        return START_MS + round(self._loop.time() * 1000) + self.skew_ms


class Worker:
    """A worker process."""

    def __init__(self, name: str, loop: VirtualLoop, disk: Disk | None) -> None:
        self.name = name
        self.disk = disk
        """Of its machine, if it keeps state there."""
        self.process: Process = loop.process(name)
        self.clock = _Clock(loop)
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the process is dead."""
        self.member = False
        """Whether the group counts it in."""
        self.expelled = False
        """Whether the group did so, and gave it up."""
        self.silent = 0
        """For how many reasons the group does not hear of it."""
        self.assigned: frozenset[LaneKey] = frozenset()
        self.assignments: Counter[LaneKey] = Counter()
        """How often it was given a lane."""
        self.fences: Counter[LaneKey] = Counter()
        """How often it took a lane's lease."""
        self._lanes: Lanes | None = None

    @property
    def lanes(self) -> Lanes:
        """Its lanes, once it has started."""
        assert self._lanes is not None
        return self._lanes

    @property
    def is_ready(self) -> bool:
        """Whether no lane of it is being opened."""
        return self._lanes is not None and self._lanes.ready.is_set()

    async def start(self, plans: list[GroupPlan], simulation: "Simulation") -> None:
        """Connect; runs in the worker."""
        settings = WorkerSettings(
            ConnectionSettings("model"),
            ROOTS,
            self.name,
            service_keys=(SERVICE_KEY,),
            latency=simulation.dice.choice(["low", "balanced"]),
        )
        self._lanes = await Lanes.start(
            plans,
            settings,
            simulation.workload.limits,
            self.clock,
            rejoin=simulation.group.ask,
            commit=_no_sinks,
            depot=self.disk,
        )


async def _no_sinks(progress: Progress) -> bool:
    raise AssertionError(progress)
