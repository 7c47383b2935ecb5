"""How fast something goes, seen from outside: what had been committed when, and what processor time that had taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Pace", "Sample", "commits", "pace", "percentile"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of a process at one moment."""

    at: float
    """Seconds; from when does not matter."""
    done: int
    """Records below the offsets that its consumer group has committed."""
    cpu_s: float
    """Processor time of the process so far, all threads, user and system."""
    rss: int
    """Its resident memory, in bytes."""


S = TypeVar("S", bound=Sample)


@dataclass(frozen=True, slots=True)
class Pace:
    """What the samples of one run say."""

    records_per_s: float
    """From the first commit to the last but one."""
    steady_records_per_s: float | None
    """The same for the second half of the records; None if there were too few commits to tell."""
    cpu_us_per_record: float
    """Processor time in microseconds, of the second half if that can be told."""
    rss_mb: float
    """Most resident memory at any sample, in megabytes."""


def commits(samples: Sequence[S]) -> list[S]:
    """Of the samples at which more had been committed than before, all but the last.

    A commit says how much was done by then, so that two of them give an exact rate however far they are apart. The time
    before the first one is that of the start, and who commits at intervals waits idly for the last one: neither counts.
    """
    found: list[S] = []
    for sample in samples:
        if sample.done > (found[-1].done if found else 0):
            found.append(sample)
    return found[:-1]


def pace(samples: Sequence[Sample], records: int) -> Pace | None:
    """What *samples* say of a run of so many *records*; None if there were fewer than three commits."""
    counted = commits(samples)
    if len(counted) < 2:
        return None
    first, last = counted[0], counted[-1]
    second_half = [sample for sample in counted if sample.done >= records / 2]
    half = second_half[0] if len(second_half) > 1 else None
    since = half or first
    return Pace(
        records_per_s=_rate(first, last),
        steady_records_per_s=None if half is None else _rate(half, last),
        cpu_us_per_record=(last.cpu_s - since.cpu_s) / (last.done - since.done) * 1e6,
        rss_mb=max(sample.rss for sample in samples) / 1e6,
    )


def _rate(first: Sample, last: Sample) -> float:
    return (last.done - first.done) / (last.at - first.at)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values*, which are sorted, that at least *share* (of 1) of them do not exceed."""
    return values[max(0, -int(-len(values) * share // 1) - 1)]
