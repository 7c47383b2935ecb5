"""What a start reports while it works."""

import enum
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Stage", "Step"]


class Stage(enum.StrEnum):
    """What is going on."""

    waiting = "waiting"
    """Another process is downloading the jars, or works on the same data folder."""
    downloading = "downloading"
    """Jars are being fetched; ``done`` and ``total`` count bytes."""
    stale = "stale"
    """The broker that the data folder remembers has gone; a new one is started."""
    starting = "starting"
    """The broker process runs and is not ready yet."""
    running = "running"
    """A broker ran in the data folder already; it is the answer."""


@dataclass(frozen=True, slots=True)
class Step:
    """One report."""

    stage: Stage
    """What is going on."""
    done: int = 0
    """Bytes that have come, while downloading."""
    total: int = 0
    """Bytes to fetch in all, while downloading."""


Progress = Callable[[Step], None]
"""Called in the thread that called ``up``, about ten times a second while something moves."""
