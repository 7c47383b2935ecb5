"""What a sink has done with the records of a partition, since its worker started."""

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Counts"]


@dataclass(slots=True)
class Counts:
    """Counters; they only grow."""

    accepted: int = 0
    """Records that were taken into the buffer."""
    handed: int = 0
    """Records that the consumer has taken."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Records that were dropped, by the reason: ``oldest``, ``newest``, ``sampled`` or ``memory``."""
    repeats: int = 0
    """Records left out because a lane had written them before."""
    failures: int = 0
    """Calls at which the consumer raised."""
    dead_letters: int = 0
    """Records that became dead letters."""
    paused_s: float = 0.0
    """Seconds during which nothing more was read, because the buffer was full."""
    spilled: int = 0
    """Bytes that were written to the file."""
    slowed: int = 0
    """How often the rate was lowered."""
    halved: int = 0
    """How often batches were made smaller."""
