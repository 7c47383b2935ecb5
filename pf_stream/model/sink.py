"""Sinks: consumers outside of the topology, and what waits for one that is slower than its source."""

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, get_args

from typing_extensions import TypeVar

from pf_stream.errors import DefinitionError
from pf_stream.model.failure import RetryInPlace
from pf_stream.model.intent import Intent

__all__ = ["Buffer", "Delivered", "Sink", "Strategy"]

I = TypeVar("I", bound=Intent, default=Any)  # noqa: E741 - intent

NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")

Strategy: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "throttle", "buffer", "sample", "adaptive"]
"""What a full buffer means. ``block``: nothing more is read from the partition until there is room. ``drop_oldest`` and
``drop_newest``: what waits longest, or what comes, is dropped. ``throttle``: as block, and no more than *rate* records a second
are handed over. ``buffer``: what does not fit goes to a file, and only when that is full too, as block. ``sample``: above *mark*
one record in *keep* is kept; full, as block. ``adaptive``: as block, while the rate of reading and the size of batches follow
how full the buffer is and how long the consumer takes."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """What waits in a worker for a consumer, for each partition.

    Raises :class:`DefinitionError` with every fault found.
    """

    records: int = 10_000
    """Most records that wait in memory."""
    bytes: int = 16 << 20
    """Most bytes of them; a record that is larger waits alone."""
    strategy: Strategy = "block"
    """What is done when it is full."""
    rate: float | None = None
    """Records a second: with ``throttle``, most that are handed over; with ``adaptive``, most that are read, 10,000 if not given."""
    min_rate: float = 100.0
    """With ``adaptive``, records a second below which the rate does not fall."""
    disk: int = 1 << 30
    """With ``buffer``, most bytes of the file."""
    keep: int = 10
    """With ``sample``, one record in how many is kept above *mark*."""
    mark: float = 0.8
    """With ``sample`` and ``adaptive``, from which share of the buffer on it counts as nearly full."""
    slow_s: float = 1.0
    """With ``adaptive``, how many seconds a batch may take before batches are made smaller."""
    memory: int | None = None
    """With ``adaptive``, bytes of resident memory of the worker above which what waits longest is dropped."""

    def __post_init__(self) -> None:
        faults = []
        if self.strategy not in get_args(Strategy):
            faults.append(f"strategy must be {', '.join(get_args(Strategy)[:-1])} or adaptive, not {self.strategy!r}")
        if self.strategy == "throttle" and self.rate is None:
            faults.append("strategy 'throttle' needs a rate: records a second")
        faults += [
            f"{name} must be more than 0, not {value}"
            for name in ("records", "bytes", "rate", "min_rate", "disk", "keep", "slow_s", "memory")
            if (value := getattr(self, name)) is not None and value <= 0
        ]
        if not 0 < self.mark < 1:
            faults.append(f"mark must lie between 0 and 1, not {self.mark}")
        if faults:
            raise DefinitionError("Buffer", faults)


class Delivered(NamedTuple, Generic[I]):
    """An intent as a sink's consumer gets it."""

    intent: I
    """The intent, in the current version of its type."""
    key: bytes
    """Its key."""
    time_ms: int
    """Its event time, milliseconds since the epoch."""
    source: str
    """Its ``pf-source``: equal if the same record is handed over again, and no two records have the same."""
    position: tuple[str, int, int]
    """Topic, partition and offset."""


@dataclass(frozen=True, slots=True)
class Sink(Generic[I]):
    """Takes what the topology writes to an internal topic and gives it to a consumer, in batches, at least once::

        async def to_the_warehouse(batch: Sequence[Delivered[Delay]]) -> None:
            await warehouse.insert([(one.source, one.intent.minutes) for one in batch])

        Topology("flights", [Delays], internal=["delays"], emits=[Delay], sinks=[Sink("warehouse", of=Delay, to=to_the_warehouse)])

    The consumer runs in the worker's event loop: what would block it belongs into a thread. It is called for one batch of a
    partition at a time, and for several partitions at once. A batch is taken once it returns; if it raises, it gets the batch
    again, as *on_error* says. After that the batch is halved until what it does not take stands alone, which it gets as often
    again, and becomes a dead letter, ``sink_failed``.

    Raises :class:`DefinitionError` with every fault found.
    """

    name: str
    """What it is called in metrics and messages: lower case letters, digits, ``-`` and ``_``."""
    of: type[I]
    """The intent type that it takes. No reactor reads its topic, and no other sink."""
    to: Callable[[Sequence[Delivered[I]]], Awaitable[None]]
    """The consumer."""
    buffer: Buffer = field(default_factory=Buffer)
    """What waits for it."""
    batch: int = 500
    """Most records that it gets at once."""
    on_error: RetryInPlace | None = field(default_factory=RetryInPlace)
    """How often it gets a batch at which it raises, and one record of it alone, and after which pauses; ``None``: once."""

    def __post_init__(self) -> None:
        faults = []
        if not NAME.fullmatch(self.name):
            faults.append(f"name {self.name!r} must be lower case letters, digits, '-' and '_', starting with a letter")
        if not hasattr(self.of, "__intent__"):
            faults.append(f"takes {self.of!r}, which is no intent type")
        if not any(map(inspect.iscoroutinefunction, (self.to, type(self.to).__call__))):
            faults.append(f"gives to {self.to!r}, which is no async function")
        if self.batch < 1:
            faults.append(f"batch must be 1 or more, not {self.batch}")
        if faults:
            raise DefinitionError(f"sink {self.name!r}", faults)
