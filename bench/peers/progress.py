"""Samples that also say who else was at work, and figures over rounds."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pf_stream.components.pace import Sample, commits, pace

__all__ = ["BusySample", "Figure", "Outcome", "Shares", "measured", "shares"]


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
class Outcome:
    """What one round of a cell gave."""

    records: int
    """That were sent."""
    load_before: float
    """Load average over a minute."""
    wrong: str | None = None
    """How the result is not what it must be; then there are no figures."""
    records_per_s: float | None = None
    """See :class:`Pace`; of a latency run, the rate."""
    steady_records_per_s: float | None = None
    """See :class:`Pace`."""
    cpu_us_per_record: float | None = None
    """See :class:`Pace`; of a latency run, over the measurement."""
    rss_mb: float | None = None
    """Most resident memory."""
    broker_core_share: float | None = None
    """See :class:`Shares`."""
    others_share: float | None = None
    """See :class:`Shares`."""
    p50_ms: float | None = None
    """Latency that half of the records do not exceed."""
    p99_ms: float | None = None
    """Latency that 99 of 100 do not exceed."""
    late_ms: float | None = None
    """How late the generator was at most; latencies count from when records were due, so that is in them."""
    failed: str | None = None
    """Why what was asked cannot be told, though nothing is wrong with the result."""


def measured(samples: Sequence[BusySample], records: int, load_before: float, wrong: str | None) -> Outcome:
    """What the samples of a run of so many records say."""
    outcome = Outcome(records, load_before, wrong)
    found = pace(samples, records)
    if wrong is not None:
        return outcome
    if found is None:
        return replace(outcome, failed=f"too few commits to tell a rate: {len(commits(samples))}")
    return replace(outcome, **asdict(found), **asdict(shares(commits(samples))))


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
