"""Metrics of what is true at the moment of a scrape: states, lags, caches. Nothing is done for them until somebody asks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pf_stream.core.status import LaneStatus, SinkStatus, TableStatus
from pf_stream.security.verify import Verifier

__all__ = ["Moment", "Work"]


class Work(Protocol):
    """What a worker does now."""

    @property
    def statuses(self) -> Iterable[LaneStatus]:
        """Its lanes."""

    @property
    def sink_statuses(self) -> Iterable[SinkStatus]:
        """Its partitions of sinks."""

    @property
    def table_statuses(self) -> Iterable[TableStatus]:
        """The tables that it reads."""

    @property
    def all_run(self) -> bool:
        """Whether it is ready."""


class Moment(Collector):
    """What is true of a worker at a moment."""

    def __init__(self, app: str, work: Work, verifier: Verifier) -> None:
        self._app = app
        self._work = work
        self._verifier = verifier

    def describe(self) -> Iterable[Metric]:
        return [*self._families({}, []), *self._of_sinks([]), *self._of_tables([])]

    def collect(self) -> Iterable[Metric]:
        return [
            *self._families(self._verifier.cached, self._work.statuses),
            *self._of_sinks(self._work.sink_statuses),
            *self._of_tables(self._work.table_statuses),
        ]

    def _families(self, cached: Mapping[str, tuple[int, int]], lanes: Iterable[LaneStatus]) -> Iterable[Metric]:
        app, verifier = self._app, self._verifier
        ready = GaugeMetricFamily("pf_worker_ready", "Whether every lane is open and can be read.", labels=["topology"])
        ready.add_metric([app], self._work.all_run)
        lane = ["topology", "group", "partition"]
        state = GaugeMetricFamily("pf_lane_state", "What a lane does: 1 for its state.", labels=[*lane, "state"])
        progress = GaugeMetricFamily(
            "pf_recovery_ratio", "Share of its changelog that a lane has read; 1 once it is open.", labels=lane
        )
        lag = GaugeMetricFamily(
            "pf_lag_records", "Records of a source partition that are not decided.", labels=[*lane, "topic"]
        )
        delay = GaugeMetricFamily("pf_watermark_delay_seconds", "How far a lane's event clock is behind.", labels=lane)
        windows = GaugeMetricFamily("pf_windows_open", "Windows that are open.", labels=[*lane, "reactor"])
        timers = GaugeMetricFamily("pf_timers_waiting", "Timers, and intents that wait for a try.", labels=lane)
        for one in lanes:
            labels = [app, one.group, str(one.partition)]
            state.add_metric([*labels, one.state.value], 1)
            if one.progress is not None or one.state.is_open:
                progress.add_metric(labels, 1.0 if one.progress is None else one.progress)
            if one.state.is_open:
                timers.add_metric(labels, one.timers)
            if one.watermark_delay_s is not None:
                delay.add_metric(labels, one.watermark_delay_s)
            for reactor, count in (one.windows or {}).items():
                windows.add_metric([*labels, reactor], count)
            for topic, records in (one.lags or {}).items():
                lag.add_metric([*labels, topic], records)
        verified = CounterMetricFamily(
            "pf_tokens_verified_total", "Tokens whose signatures were checked.", labels=["topology", "outcome"]
        )
        verified.add_metric([app, "accepted"], verifier.accepted)
        verified.add_metric([app, "refused"], verifier.rejected)
        known = CounterMetricFamily(
            "pf_tokens_known_total", "Decisions made anew about a token that was known.", labels=["topology"]
        )
        known.add_metric([app], verifier.known)
        tokens = GaugeMetricFamily("pf_token_cache_tokens", "Tokens that are kept.", labels=["topology", "cache"])
        size = GaugeMetricFamily(
            "pf_token_cache_bytes", "What they and their decisions take.", labels=tokens._labelnames
        )
        for name, (count, taken) in cached.items():
            tokens.add_metric([app, name], count)
            size.add_metric([app, name], taken)
        return [ready, state, progress, lag, delay, windows, timers, verified, known, tokens, size]

    def _of_sinks(self, sinks: Iterable[SinkStatus]) -> Iterable[Metric]:
        labels = ["topology", "sink", "partition"]
        state = GaugeMetricFamily(
            "pf_sink_state", "What a sink does with a partition: 1 for its state.", labels=[*labels, "state"]
        )
        dropped = CounterMetricFamily(
            "pf_sink_dropped_total", "Records that a sink dropped, by the reason.", labels=[*labels, "reason"]
        )
        gauges = [GaugeMetricFamily(name, text, labels=labels) for name, (text, _) in _SINK_GAUGES.items()]
        counters = [CounterMetricFamily(name, text, labels=labels) for name, (text, _) in _SINK_COUNTERS.items()]
        for one in sinks:
            values = [self._app, one.sink, str(one.partition)]
            state.add_metric([*values, one.state.value], 1)
            for reason, count in (one.dropped or {}).items():
                dropped.add_metric([*values, reason], count)
            for gauge, (_, read) in zip(gauges, _SINK_GAUGES.values(), strict=True):
                number = read(one)
                if number is not None:
                    gauge.add_metric(values, number)
            for counter, (_, read) in zip(counters, _SINK_COUNTERS.values(), strict=True):
                counter.add_metric(values, read(one) or 0)
        return [state, dropped, *gauges, *counters]

    def _of_tables(self, tables: Iterable[TableStatus]) -> Iterable[Metric]:
        labels = ["topology", "table"]
        rows = GaugeMetricFamily("pf_table_rows", "Rows of a table.", labels=labels)
        size = GaugeMetricFamily("pf_table_bytes", "Bytes that they take in memory, by estimate.", labels=labels)
        lag = GaugeMetricFamily("pf_table_lag_records", "Records of a table that were not read yet.", labels=labels)
        bad = CounterMetricFamily("pf_table_bad_total", "Records of a table that were no rows.", labels=labels)
        for one in tables:
            values = [self._app, one.topic]
            rows.add_metric(values, one.rows)
            size.add_metric(values, one.bytes)
            bad.add_metric(values, one.bad)
            if one.lag is not None:
                lag.add_metric(values, one.lag)
        return [rows, size, lag, bad]


_SINK_GAUGES: Final[Mapping[str, tuple[str, Callable[[SinkStatus], float | None]]]] = {
    "pf_sink_lag_records": ("Records that a sink has not handed over.", lambda one: one.lag),
    "pf_sink_buffered_records": ("Records that wait for a sink's consumer.", lambda one: one.buffered),
    "pf_sink_buffered_bytes": ("Bytes of them in memory.", lambda one: one.buffered_bytes),
    "pf_sink_spilled_bytes": ("Bytes of them on disk.", lambda one: one.spilled_bytes),
    "pf_sink_rate": ("Records a second that a sink lets through, if it limits that.", lambda one: one.rate),
    "pf_sink_batch_records": ("Most records that the consumer gets at once, now.", lambda one: one.batch),
}
_SINK_COUNTERS: Final[Mapping[str, tuple[str, Callable[[SinkStatus], float | None]]]] = {
    "pf_sink_accepted_total": ("Records that were taken into the buffer.", lambda one: one.accepted),
    "pf_sink_handed_total": ("Records that the consumer has taken.", lambda one: one.handed),
    "pf_sink_repeats_total": ("Records left out because they are repeats.", lambda one: one.repeats),
    "pf_sink_failures_total": ("Calls at which the consumer raised.", lambda one: one.failures),
    "pf_sink_dead_letters_total": ("Records that became dead letters.", lambda one: one.dead_letters),
    "pf_sink_paused_seconds_total": ("Seconds during which the partition was paused.", lambda one: one.paused_s),
    "pf_sink_written_bytes_total": ("Bytes that were written to disk.", lambda one: one.written_bytes),
    "pf_sink_slowed_total": ("How often the rate was lowered.", lambda one: one.slowed),
    "pf_sink_halved_total": ("How often batches were made smaller.", lambda one: one.halved),
}
