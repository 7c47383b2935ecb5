"""Samples that also say who else was at work, and figures over rounds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pf_stream.components.pace import Sample

__all__ = ["BusySample", "Figure", "Shares", "shares"]


@dataclass(frozen=True, slots=True)
class BusySample(Sample):
    """What was seen of an engine, and of the machine, at one moment."""

    broker_s: float
    """Processor time so far of those on the broker's core: Kafka, and the bench's own processes."""
    others_s: float
    """Processor time so far of all else that runs on this machine."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Who took how much of a core beside the engine, of 1."""

    broker_core_share: float
    """Kafka and the bench."""
    others_share: float
    """All else."""


def shares(samples: Sequence[BusySample]) -> Shares:
    """From the first to the last of *samples*."""
    first, last = samples[0], samples[-1]
    seconds = last.at - first.at
    return Shares((last.broker_s - first.broker_s) / seconds, (last.others_s - first.others_s) / seconds)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure over the rounds."""

    median: float
    """In the middle."""
    least: float
    """Of all rounds."""
    most: float
    """Of all rounds."""

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Figure | None":
        """Of those rounds that have it; None if none has."""
        known = [value for value in values if value is not None]
        return cls(statistics.median(known), min(known), max(known)) if known else None
