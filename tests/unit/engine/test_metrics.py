"""What the metrics say of units that a real lane has sealed."""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pf_stream.core import CommitUnit, Rewind
from pf_stream.core.status import LaneState, LaneStatus, SinkState, SinkStatus, TableState, TableStatus
from pf_stream.engine.metrics import LaneMetrics, Metrics, _BulkHistogram
from pf_stream.kafka.batch import Chunk
from pf_stream.security import TrustRoots, Verifier, mint
from tests.unit.core.kit import KEY, NOW_MS, TOKEN, Bench, Moved, Ping, Put, boxes, record
from tests.unit.core.reminders import NoteCap, Write, notes
from tests.unit.kafka.batches import APPEND_TIME, batch

Labels = frozenset[tuple[str, str]]


def scrape(metrics: Metrics, topology: str = "box") -> dict[tuple[str, Labels], float]:
    """Every sample by name and labels, without those of the topology itself."""
    text = generate_latest(metrics.registry).decode()
    found: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("topology") == topology
            assert labels.pop("group", "intents") == "intents"
            found[sample.name, frozenset(labels.items())] = sample.value
    return found


def at(name: str, /, **labels: str) -> tuple[str, Labels]:
    return name, frozenset(labels.items())


@dataclasses.dataclass(frozen=True)
class Now:
    """What a worker does at the moment."""

    statuses: Sequence[LaneStatus]
    sink_statuses: Sequence[SinkStatus] = ()
    table_statuses: Sequence[TableStatus] = ()
    all_run: bool = False


class Scene:
    """A lane and its metrics."""

    def __init__(self) -> None:
        self.metrics = Metrics(boxes)
        self.bench = Bench()
        self.lane: LaneMetrics = self.metrics.lane(self.bench.plan, 0)
        self.lane.arrivals.begin(self.bench.lane.positions)

    def fetched(self, *times_ms: int, now_s: float) -> None:
        start = self.bench.lane.positions["box.intents"]
        self.lane.arrivals.add("box.intents", Chunk(batch(start, times_ms, APPEND_TIME), (), "test"), now_s)

    def commit(self, began_s: float = 10.0, ended_s: float = 10.0, size: int = 100) -> CommitUnit[Any]:
        unit = self.bench.commit()
        self.lane.committed(unit, size, began_s, ended_s, NOW_MS)
        return unit

    @property
    def samples(self) -> dict[tuple[str, Labels], float]:
        return scrape(self.metrics)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_unit_is_counted_once_and_as_what_it_was(scene: Scene) -> None:
    scene.bench.feed(
        record(0, Put(box="a")),
        record(1, Put(box="a"), None),
        record(2, Ping(box="a")),
        record(3, Put(box="b")),
        record(4, Put(box="b", act="raise")),
    )
    assert at("pf_intents_handled_total", partition="0", type="box.put.v1") not in scene.samples, "not committed yet"
    scene.commit(size=2_000)
    for _ in range(2):
        samples = scene.samples
        assert samples[at("pf_intents_handled_total", partition="0", type="box.put.v1")] == 2
        assert samples[at("pf_intents_handled_total", partition="0", type="box.ping.v1")] == 1
        assert samples[at("pf_records_refused_total", partition="0", code="missing_context")] == 1
        assert samples[at("pf_records_refused_total", partition="0", code="handler_failed")] == 1
        assert samples[at("pf_unit_records_sum")] == 5
        assert samples[at("pf_unit_bytes_sum")] == 2_000
        assert samples[at("pf_commit_seconds_count")] == 1
    scene.bench.feed(record(5, Put(box="b")))
    scene.commit()
    assert scene.samples[at("pf_intents_handled_total", partition="0", type="box.put.v1")] == 3
    assert scene.samples[at("pf_unit_records_count")] == 2


def test_a_unit_that_only_marks_outputs_is_a_commit_of_no_records(scene: Scene) -> None:
    scene.commit()
    assert scene.samples[at("pf_unit_records_count")] == 0
    assert scene.samples[at("pf_commit_seconds_count")] == 1


def test_what_was_taken_back_is_counted_when_it_is_committed(scene: Scene) -> None:
    """A unit that cannot be sealed is decided again, in smaller ones."""
    records = [record(0, Put(box="a")), record(1, Put(box="b", act="wrong type")), record(2, Put(box="c"))]
    for unit in scene.bench.commit_all(*records):
        scene.lane.committed(unit, 100, 0.0, 0.0, NOW_MS)
    samples = scene.samples
    assert samples[at("pf_intents_handled_total", partition="0", type="box.put.v1")] == 2
    assert samples[at("pf_records_refused_total", partition="0", code="bad_state")] == 1
    assert samples[at("pf_unit_records_sum")] == 3


def test_repeats_on_an_internal_topic() -> None:
    bench = Bench(group="moves")
    metrics = Metrics(boxes)
    lane = metrics.lane(bench.plan, 0)
    lane.arrivals.begin(bench.lane.positions)
    for offset, source in enumerate((b"up:1:0", b"up:1:0", b"up:1:1")):
        moved = Moved(room="r", box="b", item="i")
        bench.feed(record(offset, moved, TOKEN, ("pf-source", source), ("pf-hops", b"1")), topic="box.moves")
    unit = bench.commit()
    assert (unit.repeats, unit.count, bench.lane.dropped) == (1, 3, 1)
    lane.committed(unit, 1, 0.0, 0.0, NOW_MS)
    assert 'pf_repeats_dropped_total{group="moves",topology="box"} 1.0' in generate_latest(metrics.registry).decode()


def test_latency_is_that_of_every_record(scene: Scene) -> None:
    scene.fetched(NOW_MS - 2_000, NOW_MS - 2_000, now_s=9.5)
    scene.bench.feed(record(0, Put(box="a")), record(1, Put(box="a"), None))
    scene.fetched(NOW_MS + 50, now_s=10.9)  # the broker's clock is ahead of ours
    scene.bench.feed(record(2, Put(box="a")))
    scene.commit(ended_s=11.0)
    samples = scene.samples
    append, fetch = "pf_latency_from_append_seconds", "pf_latency_from_fetch_seconds"
    for name in (append, fetch):
        assert samples[at(f"{name}_count", topic="box.intents", partition="0")] == 3
        assert samples[at(f"{name}_bucket", topic="box.intents", partition="0", le="+Inf")] == 3
    assert samples[at(f"{append}_bucket", topic="box.intents", partition="0", le="0.001")] == 1
    assert samples[at(f"{append}_bucket", topic="box.intents", partition="0", le="2.5")] == 3
    assert samples[at(f"{append}_bucket", topic="box.intents", partition="0", le="1.0")] == 1
    assert samples[at(f"{append}_sum", topic="box.intents", partition="0")] == 4
    assert samples[at(f"{fetch}_bucket", topic="box.intents", partition="0", le="0.1")] == 1
    assert samples[at(f"{fetch}_sum", topic="box.intents", partition="0")] == pytest.approx(3.1)


def test_a_bulk_histogram_says_what_one_of_the_library_says() -> None:
    bounds = (0.5, 1, 2.5)
    theirs = CollectorRegistry()
    histogram = Histogram("some_seconds", "Text.", ["a"], registry=theirs, buckets=bounds).labels("x")
    ours = CollectorRegistry()
    bulk = _BulkHistogram("some_seconds", "Text.", ["a"], bounds)
    ours.register(bulk)
    for value, times in ((0.1, 3), (0.5, 2), (1.0001, 1), (7, 4)):
        bulk.labels("x").observe(value, times)
        for _ in range(times):
            histogram.observe(value)

    def samples(text: bytes) -> dict[object, float]:
        return {
            (sample.name, *sample.labels.items()): round(sample.value, 6)
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    assert samples(generate_latest(ours)) == samples(generate_latest(theirs))


def test_outputs_are_told_by_what_they_are(scene: Scene) -> None:
    for topic, records in (
        ("box.moves", 3),
        ("box.intents.dlq", 1),
        ("box.replies.ann", 2),
        ("box.intents.rerouted", 1),
    ):
        scene.lane.sent(topic, records)
    kinds = {"intent": 4, "dead_letter": 1, "reply": 2}
    assert {kind: scene.samples[at("pf_outputs_sent_total", kind=kind)] for kind in kinds} == kinds


def test_a_lane_that_comes_back_goes_on_counting(scene: Scene) -> None:
    assert scene.metrics.lane(scene.bench.plan, 0) is scene.lane
    assert scene.metrics.lane(scene.bench.plan, 1) is not scene.lane


def test_a_recovery(scene: Scene) -> None:
    scene.lane.recovered(1_000, 0.2)
    scene.lane.recovered(500, 0.3)
    assert scene.samples[at("pf_recovered_records_total")] == 1_500
    assert scene.samples[at("pf_recovery_seconds_sum")] == 0.5


def test_the_moment_of_a_scrape() -> None:
    metrics = Metrics(boxes)
    verifier = Verifier(TrustRoots.of(KEY), "box")
    statuses = [
        LaneStatus("intents", "log", 0, LaneState.running, lags={"box.intents": 7, "box.moves": 0}, timers=3),
        LaneStatus("intents", "log", 1, LaneState.recovering, progress=0.25),
        LaneStatus("intents", "log", 2, LaneState.stopped, lags={"box.intents": 9}),
    ]
    metrics.watch("w0", "transactional", Now(statuses), verifier)
    for token in (TOKEN.encode(), TOKEN.encode(), b"nonsense"):
        verifier.verify(token)
    samples = scrape(metrics)
    assert samples[at("pf_lane_state", partition="0", state="running")] == 1
    assert samples[at("pf_lane_state", partition="2", state="stopped")] == 1
    assert sum(name == "pf_lane_state" for name, _ in samples) == 3
    assert samples[at("pf_lag_records", partition="0", topic="box.intents")] == 7
    assert samples[at("pf_timers_waiting", partition="0")] == 3
    assert samples[at("pf_recovery_ratio", partition="0")] == 1
    assert samples[at("pf_recovery_ratio", partition="1")] == 0.25
    assert at("pf_recovery_ratio", partition="2") not in samples
    assert samples[at("pf_worker_ready")] == 0
    assert samples[at("pf_tokens_verified_total", outcome="accepted")] == 1
    assert samples[at("pf_tokens_verified_total", outcome="refused")] == 1
    assert samples[at("pf_tokens_known_total")] == 1
    assert samples[at("pf_token_cache_tokens", cache="accepted")] == 1
    assert samples[at("pf_token_cache_bytes", cache="accepted")] > 500
    info = next(labels for name, labels in samples if name == "pf_worker_info")
    assert {("worker", "w0"), ("guarantee", "transactional")} <= info


def test_what_senders_write_is_in_no_label(scene: Scene) -> None:
    secret = "attic-4711"
    scene.bench.feed(
        record(0, Put(box=secret, room=secret)),
        record(1, Put(box=secret, act="raise", item=secret)),
        record(2, Put(box="a"), None, ("pf-reply-to", secret.encode()), ("traceparent", secret.encode())),
    )
    scene.commit()
    scene.lane.sent(f"box.replies.{secret}", 1)
    text = generate_latest(scene.metrics.registry).decode()
    assert secret not in text
    assert TOKEN[:20] not in text


def test_s28_rate_error_rate_and_latency(scene: Scene) -> None:
    """S28: 105 records in ten seconds, of which five are refused."""
    for number in range(105):
        scene.fetched(NOW_MS - 40, now_s=9.99)
        scene.bench.feed(record(number, Put(box="a"), None) if number % 21 == 0 else record(number, Put(box="a")))
        if number % 10 == 4:
            scene.commit(9.98, 10.0)
    recent = scene.lane.recent(10.0)
    assert recent.rate == 10.0
    assert recent.error_rate == pytest.approx(5 / 105)
    assert recent.commit_s == pytest.approx(0.02)
    samples = scene.samples
    assert samples[at("pf_records_refused_total", partition="0", code="missing_context")] == 5
    latency = {"topic": "box.intents", "partition": "0"}
    assert samples[at("pf_latency_from_append_seconds_count", **latency)] == 105
    assert samples[at("pf_latency_from_append_seconds_bucket", le="0.05", **latency)] == 105
    assert samples[at("pf_latency_from_append_seconds_bucket", le="0.025", **latency)] == 0


class TestTally:
    def test_it_is_told_once_the_unit_is_committed(self, scene: Scene) -> None:
        records = [
            record(0, Put(box="a", act="tally")),
            record(1, Put(box="b", act="wrong type")),
            record(2, Put(box="c", act="tally")),
        ]
        late = at("pf_tally_total", partition="0", reactor="boxes", name="late")
        assert late not in scene.samples
        for unit in scene.bench.commit_all(*records):
            scene.lane.committed(unit, 100, 0.0, 0.0, NOW_MS)
        assert scene.samples[late] == 6, "each once, though the unit was taken back"
        assert scene.lane.tallies == {"boxes": {"late": 6, "opened": 2}}

    def test_names_are_bounded(self, scene: Scene) -> None:
        counted = {("boxes", f"n{number}"): 2 for number in range(40)}
        for _ in range(2):
            unit = dataclasses.replace(scene.bench.commit(), tallies=counted)
            scene.lane.committed(unit, 100, 0.0, 0.0, NOW_MS)
        assert len(scene.lane.tallies["boxes"]) == 33
        assert scene.lane.tallies["boxes"]["other"] == 8 * 2 * 2
        assert sum(name == "pf_tally_total" for name, _ in scene.samples) == 33


SOON = ("pf-not-before", b"2026-01-01T00:01:00Z")
"""Header of what is to wait for a minute."""


class TestLateness:
    """From the time at which a timer was due to the acknowledgement of the unit it fired in."""

    def test_it_is_that_of_each_timer(self) -> None:
        bench = Bench(notes)
        metrics = Metrics(notes)
        lane = metrics.lane(bench.plan, 0)
        lane.arrivals.begin(bench.lane.positions)
        token = mint(KEY, subject="ann", audience="note", capabilities=[NoteCap.own("/**")], now_ms=NOW_MS)

        def commit(ended_ms: int) -> None:
            lane.committed(bench.commit(), 100, 10.0, 10.0, ended_ms)

        def count(le: str = "+Inf", reactor: str = "notes") -> float:
            name = at("pf_timer_lateness_seconds_bucket", reactor=reactor, le=le)
            return scrape(metrics, "note").get(name, 0)

        for offset, after in enumerate((60, 60, 60.02)):
            bench.feed(record(offset, Write(note="n", after=after), token), topic="note.intents")
        bench.feed(record(3, Write(note="m", after=60, clock="event"), token), topic="note.intents")
        bench.feed(record(4, Write(note="n"), token, SOON), topic="note.intents")
        commit(NOW_MS + 5)
        assert count() == 0
        assert lane.recent(10.0).timer_s is None
        bench.lane.fire(NOW_MS + 60_030)
        assert count() == 0, "not committed yet"
        commit(NOW_MS + 60_045)
        assert [count(le) for le in ("0.01", "0.025", "0.05", "+Inf")] == [0, 1, 3, 3]
        assert [count(le, "") for le in ("0.025", "0.05", "+Inf")] == [0, 1, 1], "the record that was put aside"
        assert scrape(metrics, "note")[at("pf_timer_lateness_seconds_sum", reactor="notes")] == pytest.approx(0.115)
        assert lane.recent(10.0).timer_s == pytest.approx(0.045)
        commit(NOW_MS + 70_000)
        assert count() == 3, "each once"
        assert lane.recent(30.0).timer_s is None

    def test_a_clock_that_is_set_back_before_the_commit(self, scene: Scene) -> None:
        scene.bench.feed(record(0, Put(box="a"), TOKEN, SOON))
        scene.bench.lane.fire(NOW_MS + 60_000)
        scene.commit()
        assert scene.samples[at("pf_timer_lateness_seconds_sum", reactor="")] == 0

    def test_what_was_taken_back_is_noted_when_it_is_committed(self, scene: Scene) -> None:
        waits = [record(0, Put(box="a"), TOKEN, SOON), record(1, Put(box="b", act="wrong type"), TOKEN, SOON)]
        scene.bench.feed(*waits)
        scene.commit()
        lane, units = scene.bench.lane, []
        while lane.timers.waiting:
            lane.fire(NOW_MS + 60_000)
            units.append(lane.seal())
            if isinstance(units[-1], CommitUnit):
                lane.acknowledged()
                scene.lane.committed(units[-1], 100, 10.0, 10.0, NOW_MS + 60_000)
        assert isinstance(units[0], Rewind)
        assert scene.samples[at("pf_timer_lateness_seconds_count", reactor="")] == 2


class TestRecent:
    def feed(self, scene: Scene, times_s: Iterable[float], seconds: float = 0.01) -> None:
        for ended_s in times_s:
            scene.bench.feed(record(scene.bench.lane.positions["box.intents"], Ping(box="a")))
            scene.commit(ended_s - seconds, ended_s)

    def test_nothing_yet(self, scene: Scene) -> None:
        assert scene.lane.recent(5.0) == (0.0, None, None, None)

    def test_ten_seconds_count(self, scene: Scene) -> None:
        self.feed(scene, [1.0])
        self.feed(scene, [6.0 + number / 10 for number in range(50)])
        rate, errors, seconds, late_s = scene.lane.recent(11.5)
        assert late_s is None
        assert errors == 0
        assert rate == 5.0
        assert seconds == pytest.approx(0.01)
        assert scene.lane.recent(30.0) == (0.0, None, None, None)

    def test_the_slowest_hundredth_is_left_out(self, scene: Scene) -> None:
        self.feed(scene, [9.0] * 99)
        self.feed(scene, [9.0], seconds=5.0)
        assert scene.lane.recent(10.0).commit_s == pytest.approx(0.01)
        self.feed(scene, [9.0], seconds=5.0)
        assert scene.lane.recent(10.0).commit_s == pytest.approx(5.0)

    def test_more_units_than_are_remembered(self, scene: Scene) -> None:
        self.feed(scene, [number / 200 for number in range(1, 1001)])
        rate = scene.lane.recent(5.0).rate
        assert math.isclose(rate, 200, rel_tol=0.01)


def test_the_page_has_every_metric_with_its_type_and_labels() -> None:
    """docs/operations.md is compared with what a worker serves that has done everything once."""
    scene = Scene()
    statuses = [
        LaneStatus(
            "intents", "log", 0, LaneState.running, lags={"box.intents": 7}, watermark_delay_s=2.5, windows={"w": 2}
        ),
        LaneStatus("intents", "log", 1, LaneState.recovering, progress=0.25),
    ]
    sinks = [SinkStatus("archive", 0, SinkState.running, lag=1, rate=5.0, dropped={"oldest": 2})]
    scene.metrics.sink_seconds.labels("box", "archive").observe(0.1)
    tables = [TableStatus("rooms", TableState.running, rows=3, lag=0)]
    verifier = Verifier(TrustRoots.of(KEY), "box")
    scene.metrics.watch("w0", "transactional", Now(statuses, sinks, tables, all_run=True), verifier)
    scene.fetched(NOW_MS, NOW_MS, now_s=9.5)
    scene.bench.feed(record(0, Put(box="a", act="tally")), record(1, Put(box="a"), None))
    scene.commit()
    scene.bench.feed(record(2, Put(box="a"), TOKEN, SOON))
    scene.bench.lane.fire(NOW_MS + 60_000)
    scene.commit()
    scene.lane.recovered(1, 1.0)
    scene.lane.sent("box.moves", 1)
    served: dict[str, tuple[str, frozenset[str]]] = {}
    for family in text_string_to_metric_families(generate_latest(scene.metrics.registry).decode()):
        if family.name.endswith("_created"):
            continue
        sample = family.samples[0]
        name = sample.name if family.type in {"counter", "info"} else family.name
        # The text format has no type for an info metric.
        kind = "info" if name == "pf_worker_info" else family.type
        served[name] = kind, frozenset(sample.labels) - {"topology", "le"}
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    table = page.partition("<!-- metrics -->")[2].partition("<!-- /metrics -->")[0]
    told = {
        name: (kind, frozenset(filter(None, labels.split(", "))))
        for name, kind, labels in re.findall(r"^\| `(pf_\w+)` \| (\w+)[^|]* \| ([^|]*?) ?\|", table, re.MULTILINE)
    }
    assert told == served
