"""A workload: which topology the simulated workers run, what it is sent, and what must have become of that."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from pf_stream import Topology
from pf_stream.core import Limits, partition_of
from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import Record
from pf_stream.security import SigningKey, TrustRoots
from tests.simulation.changelogs import Log

__all__ = ["PARTITIONS", "ROOTS", "START_MS", "Batch", "Once", "States", "Stored", "Workload", "name_in"]

PARTITIONS: Final = 2
START_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z, when every simulation starts."""

KEY = SigningKey.generate(1)
SERVICE_KEY = SigningKey.generate(7)
ROOTS = TrustRoots.of(KEY, SERVICE_KEY)


class Batch(NamedTuple):
    """What is sent to one partition at once."""

    topic: str
    """Its full name."""
    partition: int
    """Number of the partition."""
    records: bytes
    """The record batch."""


class Stored(NamedTuple):
    """A state, as a lane has it."""

    state: Any
    """Its JSON, parsed."""
    entries: dict[tuple[str, int | str], Any]
    """Those of its maps, by field and key."""


States = Mapping[tuple[str, str], Stored]
"""All states of a topology, by reactor and key."""
Once = Callable[[str], list[Record]]
"""Takes the full name of a topic; what a reader of it has who drops what it has had before."""


class Workload(ABC):
    """What one run is about. It rolls the run's dice; what is expected is noted when the broker has what was sent."""

    topology: Topology
    """What the workers run."""
    limits: Limits
    """Of its lanes."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice

    @abstractmethod
    def batch(self, count: int, now_ms: int) -> Batch:
        """Some records, by a sender whose clock says *now_ms*; :meth:`appended` must follow."""

    @abstractmethod
    def appended(self, offset: int) -> None:
        """Note what the batch, now that it has its offset, must lead to."""

    def last(self, now_ms: int) -> Iterable[Batch]:
        """What is sent when all else was, and nothing bad happens any more."""
        return ()

    def left(self, group: GroupPlan, partition: int, log: Log) -> str:
        """What a lane has yet to do that has decided all its records and has no timers that are due."""
        return ""

    def farthest_ms(self, group: GroupPlan, partition: int) -> int | None:
        """How far the event clock of a lane may be at most by now; ``None`` if that is not looked at."""
        return None

    @abstractmethod
    def check_outputs(self, once: Once) -> None:
        """Every output is there, once; raises :class:`~tests.simulation.promise.BrokenError`."""

    @abstractmethod
    def check_states(self, states: States, when: str) -> None:
        """Every state is what it must be; raises :class:`~tests.simulation.promise.BrokenError`. *when* is for the message."""


_names: dict[tuple[int, str], str] = {}


def name_in(partition: int, prefix: str) -> str:
    """A key with this prefix that lives in *partition*."""
    known = _names.get((partition, prefix))
    if known is None:
        names = (f"{prefix}{number}" for number in range(1 << 20))
        known = next(name for name in names if partition_of(name.encode(), PARTITIONS) == partition)
        _names[partition, prefix] = known
    return known
