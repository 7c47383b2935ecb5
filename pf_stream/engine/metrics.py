"""What a worker counts and measures, for Prometheus. docs/operations.md says what each metric is good for.

Counters and histograms are moved once for each unit, when it is acknowledged, by what the unit itself says: a record costs
nothing. What is true at a moment (:mod:`pf_stream.engine.moment`) is looked up when somebody asks.

Labels have values that the topology declares, and no others: what senders write never becomes one.
"""

import collections
import importlib.metadata
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from pf_stream.core.plan import GroupPlan
from pf_stream.core.unit import CommitUnit
from pf_stream.engine.arrivals import Arrivals
from pf_stream.engine.moment import Moment, Work
from pf_stream.model.topology import Guarantee, Topology
from pf_stream.security.verify import Verifier

__all__ = ["LaneMetrics", "Metrics"]

_LATENCY_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_COMMIT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RECOVERY_S: Final = (0.01, 0.05, 0.25, 1, 2.5, 5, 10, 30, 60, 300, 600)
_UNIT_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_UNIT_BYTES: Final = tuple(1 << shift for shift in range(10, 24, 2))

RECENT_S: Final = 10.0
"""How far back what is called recent reaches."""
_TALLIES: Final = 32
"""Names of a reactor that are counted each for itself; the others are counted together."""
_RECENT_UNITS: Final = 512
"""Most units that are remembered for it."""


class _Children(dict[str, Counter]):
    """Counters of a family by its last label, since to look one up there costs more than to count."""

    def __init__(self, family: Counter, *labels: str) -> None:
        super().__init__()
        self._family = family
        self._labels = labels

    def __missing__(self, last: str) -> Counter:
        child = self[last] = self._family.labels(*self._labels, last)
        return child


class _Distribution:
    """The observations of one time series of a :class:`_BulkHistogram`."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * len(bounds)
        self.total = 0.0

    def observe(self, value: float, times: int) -> None:
        """Note *value* as often as it was seen."""
        self.counts[bisect_left(self._bounds, value)] += times
        self.total += value * times


class _BulkHistogram(Collector):
    """A histogram that takes a value many times at the cost of once: all records of a batch have one age.

    That of prometheus-client takes one at a time.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = (*bounds, math.inf)
        self._children: dict[tuple[str, ...], _Distribution] = {}

    def labels(self, *values: str) -> _Distribution:
        """The time series of these values of the labels."""
        return self._children.setdefault(values, _Distribution(self._bounds))

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._children.items():
            buckets = zip(map(floatToGoString, self._bounds), accumulate(child.counts), strict=True)
            family.add_metric(values, list(buckets), child.total)
        return [family]


class Metrics:
    """The metrics of one worker, in a registry that has no others unless it is told so."""

    def __init__(self, topology: Topology, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = CollectorRegistry() if registry is None else registry
        """Of prometheus-client; a worker needs one to itself."""
        self._topology = topology
        self._lanes: dict[tuple[str, int], LaneMetrics] = {}
        group = ("topology", "group")
        self._worker = Info("pf_worker", "What the worker is.", ("topology",), registry=registry)
        self.handled = Counter(
            "pf_intents_handled_total",
            "Intents that were handled and committed.",
            (*group, "partition", "type"),
            registry=registry,
        )
        self.refused = Counter(
            "pf_records_refused_total",
            "Records that became dead letters.",
            (*group, "partition", "code"),
            registry=registry,
        )
        self.tally = Counter(
            "pf_tally_total", "What reactors count.", (*group, "partition", "reactor", "name"), registry=registry
        )
        self.repeats = Counter(
            "pf_repeats_dropped_total", "Records dropped because they are repeats.", group, registry=registry
        )
        self.sent = Counter(
            "pf_outputs_sent_total", "Records that lanes have written to topics.", (*group, "kind"), registry=registry
        )
        self.unit_records = Histogram(
            "pf_unit_records", "Records and timers of a unit.", group, registry=registry, buckets=_UNIT_RECORDS
        )
        self.unit_bytes = Histogram(
            "pf_unit_bytes", "What a unit appends to the changelog.", group, registry=registry, buckets=_UNIT_BYTES
        )
        self.commit = Histogram(
            "pf_commit_seconds",
            "From sealing a unit to the acknowledgement of its commit.",
            group,
            registry=registry,
            buckets=_COMMIT_S,
        )
        self.lateness = _BulkHistogram(
            "pf_timer_lateness_seconds",
            "From the time at which a timer was due to the acknowledged commit of the unit it fired in.",
            (*group, "reactor"),
            _LATENCY_S,
        )
        self.recovered = Counter(
            "pf_recovered_records_total", "Changelog records read in recoveries.", group, registry=registry
        )
        self.recovery = Histogram(
            "pf_recovery_seconds", "How long a lane read its changelog.", group, registry=registry, buckets=_RECOVERY_S
        )
        self.sink_seconds = Histogram(
            "pf_sink_seconds",
            "How long a sink's consumer took for a batch.",
            ("topology", "sink"),
            registry=registry,
            buckets=_LATENCY_S,
        )
        topic = ("topology", "topic", "partition")
        self.from_append = _BulkHistogram(
            "pf_latency_from_append_seconds",
            "From a record's timestamp to the acknowledged commit.",
            topic,
            _LATENCY_S,
        )
        self.from_fetch = _BulkHistogram(
            "pf_latency_from_fetch_seconds", "From the fetch of a record to the acknowledged commit.", topic, _LATENCY_S
        )
        registry.register(self.lateness)
        registry.register(self.from_append)
        registry.register(self.from_fetch)

    def lane(self, plan: GroupPlan, partition: int) -> "LaneMetrics":
        """Those of a lane: the same ones whenever it comes back to this worker."""
        key = plan.name, partition
        if key not in self._lanes:
            self._lanes[key] = LaneMetrics(self, plan, partition)
        return self._lanes[key]

    def watch(self, worker: str, guarantee: Guarantee, work: Work, verifier: Verifier) -> None:
        """Tell also of what is true at the moment of each scrape."""
        topology = self._topology
        self._worker.labels(topology.app_id).info(
            {"worker": worker, "guarantee": guarantee, "version": importlib.metadata.version("pf-stream")}
        )
        self.registry.register(Moment(topology.app_id, work, verifier))


class Recent(NamedTuple):
    """What a lane did in the last seconds."""

    rate: float
    """Intents handled per second."""
    error_rate: float | None
    """Share of what was decided that was refused; None if nothing was decided."""
    commit_s: float | None
    """The 99th percentile of how long commits took, in seconds; None if there were none."""
    timer_s: float | None
    """How late the latest timer was, in seconds; None if none fired."""


class LaneMetrics:
    """The metrics of one lane."""

    def __init__(self, metrics: Metrics, plan: GroupPlan, partition: int) -> None:
        app = plan.topology.app_id
        self.arrivals = Arrivals()
        """What the lane reads."""
        self._handled = _Children(metrics.handled, app, plan.name, str(partition))
        self._refused = _Children(metrics.refused, app, plan.name, str(partition))
        self._tally = metrics.tally
        self._labels = app, plan.name, str(partition)
        self.tallies: dict[str, dict[str, int]] = {}
        """What reactors count, by reactor and name."""
        self._repeats = metrics.repeats.labels(app, plan.name)
        self._sent = _Children(metrics.sent, app, plan.name)
        self._kinds = {source.dead_letters: "dead_letter" for source in plan.sources}
        self._kinds |= {emit.topic: "intent" for emit in plan.emits.values()}
        self._kinds |= {source.topic: "intent" for source in plan.sources}
        self._unit_records = metrics.unit_records.labels(app, plan.name)
        self._unit_bytes = metrics.unit_bytes.labels(app, plan.name)
        self._commit = metrics.commit.labels(app, plan.name)
        self._lateness = metrics.lateness
        self._recovered = metrics.recovered.labels(app, plan.name)
        self._recovery = metrics.recovery.labels(app, plan.name)
        self._from_append = {
            source.topic: metrics.from_append.labels(app, source.topic, str(partition)) for source in plan.sources
        }
        self._from_fetch = {
            source.topic: metrics.from_fetch.labels(app, source.topic, str(partition)) for source in plan.sources
        }
        self._recent: deque[tuple[float, int, int, float, float | None]] = deque(maxlen=_RECENT_UNITS)
        """When units were acknowledged, on the event loop's clock; intents handled; records refused; seconds that the commit
        took; how late the latest timer was."""

    def recovered(self, records: int, seconds: float) -> None:
        """The lane has read its changelog."""
        self._recovered.inc(records)
        self._recovery.observe(seconds)

    def sent(self, topic: str, records: int) -> None:
        """Outputs of the lane are in a topic; one that the topology does not name was chosen by a client, for a reply."""
        self._sent[self._kinds.get(topic, "reply")].inc(records)

    def committed(self, unit: CommitUnit[Any], size: int, began_s: float, ended_s: float, ended_ms: int) -> None:
        """A unit of *size* bytes is acknowledged.

        *began_s* and *ended_s* are by the event loop's clock, *ended_ms* is the latter by the wall clock.
        """
        handled = 0
        for kind, count in unit.handled.items():
            self._handled[kind].inc(count)
            handled += count
        for refused in unit.refused:
            self._refused[refused.code].inc()
        if unit.repeats:
            self._repeats.inc(unit.repeats)
        if unit.count:  # else it only marks outputs as sent
            self._unit_records.observe(unit.count)
        self._unit_bytes.observe(size)
        self._commit.observe(ended_s - began_s)
        latest_s: float | None = None
        for reactor, due in unit.due.items():
            lateness = self._lateness.labels(*self._labels[:2], reactor)
            for due_ms, timers in collections.Counter(due).items():
                late_s = max(0, ended_ms - due_ms) / 1000  # the clock may have been set back meanwhile
                lateness.observe(late_s, timers)
                latest_s = max(latest_s or 0.0, late_s)
        self._recent.append((ended_s, handled, len(unit.refused), ended_s - began_s, latest_s))
        for (reactor, name), by in unit.tallies.items():
            self._count(reactor, name, by)
        for topic, records, appended_ms, fetched_s in self.arrivals.take(unit.positions):
            # Two clocks: ours may be behind the broker's.
            self._from_append[topic].observe(max(0, ended_ms - appended_ms) / 1000, records)
            self._from_fetch[topic].observe(ended_s - fetched_s, records)

    def _count(self, reactor: str, name: str, by: int) -> None:
        named = self.tallies.setdefault(reactor, {})
        if name not in named and len(named) >= _TALLIES:
            name = "other"
        named[name] = named.get(name, 0) + by
        self._tally.labels(*self._labels, reactor, name).inc(by)

    def recent(self, now_s: float) -> Recent:
        """What the lane did of late."""
        recent = self._recent
        while recent and recent[0][0] < now_s - RECENT_S:
            recent.popleft()
        if not recent:
            return Recent(0.0, None, None, None)
        # If there were more units than are remembered, they are of less than that time.
        span = RECENT_S if len(recent) < _RECENT_UNITS else now_s - recent[0][0]
        seconds = sorted(row[3] for row in recent)
        handled, refused = sum(row[1] for row in recent), sum(row[2] for row in recent)
        decided = handled + refused
        return Recent(
            handled / span,
            refused / decided if decided else None,
            seconds[math.ceil(0.99 * len(seconds)) - 1],
            max((row[4] for row in recent if row[4] is not None), default=None),
        )
