"""What counting, measuring and tracing cost: processor time of a lane's path from fetched bytes to an acknowledged commit.

No Kafka: the flights are in record batches as a fetch returns them, and a commit is acknowledged at once, so that nothing but
the path itself is measured. All ways are measured in turns of some hundred records, on the same ones: what else the machine does
meets them alike. See bench/README.md.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import generate_latest

sys.path.insert(0, str(Path(__file__).parent.parent / "topologies" / "flights"))

from flights import FlightCap, FlightDeparted, flights
from pf_stream.clock import WallClock
from pf_stream.core import Authority, CommitUnit, Lane, Limits, plan
from pf_stream.core.records import Header
from pf_stream.core.status import LaneState, LaneStatus
from pf_stream.engine.contexts import ContextMaker
from pf_stream.engine.encode import OutboxBuilder, encode_unit, outbox_records
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.tracing import LaneTracing
from pf_stream.kafka.batch import BatchBuilder, Chunk, crc32c, record_count
from pf_stream.security import SigningKey, TrustRoots, Verifier, mint
from pf_stream.security.narrowing import Narrower
from pf_stream.worker.tracing import make_provider

KEY: Final = SigningKey.generate(1)
ROOTS: Final = TrustRoots.of(KEY)
PLAN: Final = next(group for group in plan(flights, 1) if group.name == "intents")
TOPIC: Final = flights.topic_name("intents")
CARRIERS: Final = 16
PARTITIONS: Final = 4
STRIDE: Final = 16
"""As the runner takes records."""
APPEND_TIME: Final = 0x08
TURN: Final = 400
"""Records of a turn, or a unit if that is more. One of so many has a span, so that all turns are alike."""
TARGET: Final = 1.05
"""Most that all of it may cost, against none of it."""


@dataclass(slots=True)
class Row:
    """A line of the table."""

    way: str
    """What is on."""
    unit: int
    """Records of a unit."""
    target: float | None
    """Most that *ratio* may be."""
    us: float = 0.0
    """Microseconds for a record, in the tenth of the turns that was least disturbed: what else the machine does only adds."""
    ratio: float = 1.0
    """That divided by what the bare path took."""
    ratios: list[float] = field(default_factory=list)
    """The same of each round's sum."""

    @property
    def met(self) -> bool | None:
        """Whether it is below the target; None without one."""
        return None if self.target is None else self.ratio <= self.target


class _Encoding(SpanExporter):
    """Does what an exporter does, and sends nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


class _Path:
    """A lane at work, with some of what watches it."""

    def __init__(self, fetched: Sequence[bytes], *, counting: bool = False, ratio: float | None = None) -> None:
        self.fetched = fetched
        """What it is given, over and over."""
        verifier = Verifier(ROOTS, flights.namespace)
        contexts = ContextMaker(Narrower(verifier, ROOTS), WallClock())
        targets = {emit.topic: PARTITIONS for emit in PLAN.emits.values()}
        self._lane = Lane(
            PLAN,
            0,
            Authority(verifier),
            Limits(),
            lambda incarnation, sequence: OutboxBuilder(incarnation, sequence, targets, contexts),
        )
        for topic in self._lane.begin("bench"):
            self._lane.start_at(topic, 0, bytes(16))
        self._counted = Metrics(flights).lane(PLAN, 0) if counting else None
        if self._counted is not None:
            self._counted.arrivals.begin(self._lane.positions)
        self._provider = None if ratio is None else make_provider(ratio, flights.app_id, "bench")
        self._tracing: LaneTracing | None = None
        if self._provider is not None:
            self._provider.add_span_processor(BatchSpanProcessor(_Encoding()))
            self._tracing = LaneTracing(self._provider.get_tracer("bench"), PLAN, 0)

    def run(self, fetched: Sequence[bytes], unit: int) -> float:
        """Seconds of processor time that these batches take, all threads."""
        lane, counted, tracing = self._lane, self._counted, self._tracing
        clock, now = WallClock(), time.monotonic
        end = lane.positions[TOPIC]
        batches = []
        for raw in fetched:
            batches.append(_moved(raw, end))
            end += record_count(raw)
        began = time.process_time()
        for raw in batches:
            chunk = Chunk(raw, (), "bench")
            fetched_s = now()
            if counted is not None:
                counted.arrivals.add(TOPIC, chunk, fetched_s)
            records = chunk if tracing is None else tracing.watch(TOPIC, chunk, fetched_s, now)
            exhausted = False
            while not exhausted:
                opened = now()
                while lane.count < unit and not (exhausted or lane.is_full):
                    exhausted = lane.step(TOPIC, records, clock.now_ms(), min(STRIDE, unit - lane.count))
                if lane.has_work:
                    self._commit(opened)
        if self._provider is not None:
            self._provider.force_flush()
        return time.process_time() - began

    def _commit(self, opened: float) -> None:
        lane, counted, tracing = self._lane, self._counted, self._tracing
        clock, now = WallClock(), time.monotonic
        unit = lane.seal()
        assert isinstance(unit, CommitUnit)
        assert not unit.refused
        sealed = now()
        sampled = () if tracing is None else tracing.sealed(unit)
        outbox = unit.outputs.entries()
        batch = encode_unit(unit, outbox_records(unit.sequence, outbox), clock.now_ms())
        lane.acknowledged()
        lane.sent(unit.sequence, outbox)
        ended, ended_ms = now(), clock.now_ms()
        if counted is not None:
            counted.committed(unit, len(batch), sealed, ended, ended_ms)
        if tracing is not None:
            tracing.committed(unit, sampled, len(batch), (opened, sealed, ended), ended_ms)


def _moved(raw: bytes, offset: int) -> bytes:
    """A batch as it would be further on in the log, appended just now."""
    moved = bytearray(raw)
    moved[0:8] = offset.to_bytes(8, "big")
    moved[35:43] = WallClock().now_ms().to_bytes(8, "big")
    moved[17:21] = crc32c(bytes(moved[21:])).to_bytes(4, "big")
    return bytes(moved)


def _fetched(count: int, size: int, sampled_every: int) -> list[bytes]:
    """*count* flights in batches of *size*; of every so many, one that its sender traces, and of none if that is 0."""
    now_ms = WallClock().now_ms()
    tokens = [
        mint(
            KEY,
            subject=f"airline {number}",
            audience=flights.namespace,
            capabilities=[FlightCap.report("/**")],
            now_ms=now_ms,
            lifetime_s=86_400,
        ).encode()
        for number in range(CARRIERS)
    ]
    batches = []
    for first in range(0, count, size):
        builder = BatchBuilder(16 << 20, compress=False)
        for number in range(first, min(count, first + size)):
            flight = FlightDeparted(
                tailnum=f"N{number % 1000}",
                carrier=f"C{number % CARRIERS}",
                origin="EWR",
                flight=number,
                dest="X",
                delay=3,
            )
            headers: list[Header] = [
                ("ce_specversion", b"1.0"),
                ("ce_type", b"flights.departed.v1"),
                ("ce_source", b"/bench"),
                ("ce_id", b"%d" % number),
                ("content-type", b"application/json"),
                ("pf-context", tokens[number % CARRIERS]),
            ]
            if sampled_every and number % sampled_every == 0:
                headers.append(("traceparent", b"00-%032x-%016x-01" % (number + 1, number + 1)))
            spec = FlightDeparted.__intent__
            builder.append(now_ms, spec.key_of(flight), spec.encode(flight), headers)
        raw = bytearray(builder.build())
        raw[22] |= APPEND_TIME
        batches.append(bytes(raw))
    return batches


def main() -> int:
    """Run the rounds; 0 if all targets were met."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=15, help="15")
    arguments.add_argument("--records", type=int, default=8_000, help="of each way, in each round; 8000")
    arguments.add_argument("-o", "--output", choices=["table", "json"], default="table")
    given = arguments.parse_args()
    conditions = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "prometheus-client": version("prometheus-client"),
        "opentelemetry-sdk": version("opentelemetry-sdk"),
        "rounds": given.rounds,
        "load": round(os.getloadavg()[0], 2),
    }
    scrapes = {lanes: round(_scrape(lanes), 1) for lanes in (4, 1000)}
    rows = [row for unit in (2000, 100, 10) for row in _rounds(given.rounds, given.records, unit)]
    if given.output == "json":
        found = [asdict(row) | {"met": row.met} for row in rows]
        print(json.dumps({"conditions": conditions, "rows": found, "scrape_ms": scrapes}))
    else:
        print(json.dumps(conditions))
        _table(rows)
        print("".join(f"\na scrape of {lanes:,} lanes: {ms} ms" for lanes, ms in scrapes.items()))
    return 0 if all(row.met is not False for row in rows) else 1


def _rounds(rounds: int, records: int, unit: int) -> list[Row]:
    # Batches as long as units, so that counting meets as many of them as it would.
    plain, traced = (_fetched(records, unit, every) for every in (0, TURN))
    target = TARGET if unit >= 100 else None
    ways = {
        "bare": _Path(plain),
        "metrics": _Path(plain, counting=True),
        "metrics and tracing, nothing sampled": _Path(plain, counting=True, ratio=0.0),
        "metrics and tracing, one intent in 400": _Path(traced, counting=True, ratio=0.01),
    }
    rows = {way: Row(way, unit, None if way == "bare" else target) for way in ways}
    for path in ways.values():
        path.run(path.fetched, unit)
    # As in a worker that is ready.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    turn = max(1, TURN // unit)
    order = [*ways]
    starts = range(0, len(plain), turn)
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for first in starts:
            order.append(order.pop(0))  # another one begins
            for way in order:
                took[way].append(ways[way].run(ways[way].fetched[first : first + turn], unit))
        for way, row in rows.items():
            row.ratios.append(sum(took[way][-len(starts) :]) / sum(took["bare"][-len(starts) :]))
    for way, row in rows.items():
        row.us = statistics.quantiles(took[way], n=10)[0] / (turn * unit) * 1e6
        row.ratio = row.us / rows["bare"].us
    return list(rows.values())


def _scrape(lanes: int) -> float:
    """Milliseconds of processor time of a scrape of so many lanes that have handled something."""
    metrics = Metrics(flights)
    group = next(group for group in plan(flights, lanes) if group.name == "intents")
    statuses = [
        LaneStatus("intents", group.changelog, number, LaneState.running, lags={TOPIC: 0}) for number in range(lanes)
    ]
    verifier = Verifier(ROOTS, flights.namespace)
    work: Any = SimpleNamespace(statuses=statuses, sink_statuses=[], table_statuses=[], all_run=True)
    metrics.watch("bench", "effectively_once", work, verifier)
    for number in range(lanes):
        lane = metrics.lane(group, number)
        lane.arrivals.begin({TOPIC: 0})
        unit: CommitUnit[Any] = CommitUnit(1, "bench", [], [], {TOPIC: 1}, 1, {"flights.departed.v1": 1}, [], 0)
        lane.committed(unit, 1000, 0.0, 0.01, 0)
    began = time.process_time()
    for _ in range(5):
        generate_latest(metrics.registry)
    return (time.process_time() - began) / 5 * 1e3


def _table(rows: Sequence[Row]) -> None:
    print("\n| records of a unit | what is on | µs a record | against bare | rounds: median | least | most | |")
    print("|---" * 8 + "|")
    for row in rows:
        ratios = [row.ratio, statistics.median(row.ratios), min(row.ratios), max(row.ratios)]
        verdict = "" if row.met is None else "ok" if row.met else f"above {row.target}"
        cells = " | ".join(f"{value:.3f}" for value in ratios)
        print(f"| {row.unit:,} | {row.way} | {row.us:.2f} | {cells} | {verdict} |")


if __name__ == "__main__":
    sys.exit(main())
