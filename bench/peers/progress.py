"""What an engine had done when, and what that makes of it: rates, processor time, and their medians over rounds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Figure", "Sample", "Speed", "percentile", "speed", "steps"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of an engine at one moment."""

    at: float
    """Seconds; from when does not matter."""
    done: int
    """Records below the offsets that its consumer group has committed."""
    cpu_s: float
    """Processor time of its process so far, all threads, user and system."""
    broker_s: float
    """Processor time so far of those on the broker's core: Kafka, and the bench's own processes."""
    others_s: float
    """Processor time so far of all else that runs on this machine."""
    rss: int
    """Resident memory of its process, in bytes."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What the samples of one run say."""

    records_per_s: float
    """From the first commit to the last but one."""
    steady_records_per_s: float | None
    """The same for the second half of the records; None if there were too few commits to tell."""
    cpu_us_per_record: float
    """Processor time in microseconds, of the second half if that can be told."""
    broker_core_share: float
    """How much of a core Kafka and the bench took from the first commit to the last but one, of 1."""
    others_share: float
    """How much of a core all else took meanwhile, of 1."""
    rss_mb: float
    """Most resident memory at any sample, in megabytes."""


def steps(samples: Sequence[Sample]) -> list[Sample]:
    """The samples at which more had been committed than at the one before."""
    found: list[Sample] = []
    for sample in samples:
        if sample.done > (found[-1].done if found else 0):
            found.append(sample)
    return found


def speed(samples: Sequence[Sample], records: int) -> Speed | None:
    """Rates between commits; None if there were fewer than three.

    A commit says how much was done by then, so that two of them give an exact rate however far they are apart. The time
    before the first one is that of the start, and an engine that commits at intervals waits idly for its last one:
    neither counts.
    """
    commits = steps(samples)[:-1]
    if len(commits) < 2:
        return None
    first, last = commits[0], commits[-1]
    second_half = [sample for sample in commits if sample.done >= records / 2]
    half = second_half[0] if len(second_half) > 1 else None
    since = half or first
    seconds = last.at - first.at
    return Speed(
        records_per_s=_rate(first, last),
        steady_records_per_s=None if half is None else _rate(half, last),
        cpu_us_per_record=(last.cpu_s - since.cpu_s) / (last.done - since.done) * 1e6,
        broker_core_share=(last.broker_s - first.broker_s) / seconds,
        others_share=(last.others_s - first.others_s) / seconds,
        rss_mb=max(sample.rss for sample in samples) / 1e6,
    )


def _rate(first: Sample, last: Sample) -> float:
    return (last.done - first.done) / (last.at - first.at)


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


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values*, which must be sorted, that at least *share* (of 1) of them do not exceed."""
    return values[max(0, -int(-len(values) * share // 1) - 1)]
