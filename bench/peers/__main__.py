"""``python -m bench.peers``: pf_stream beside its peers, in rounds."""

import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench.peers.cells import Bench, Outcome
from bench.peers.engines import JOBS, PARTITIONS
from bench.peers.environments import MissingError
from bench.peers.meter import cpu_name
from bench.peers.plan import Cell, Plan, parse
from bench.peers.processes import Cores, StuckError
from bench.peers.report import rows, save, show
from bench.peers.workload import BYTES
from pf_stream.kafka.dev import BrokerInfo, DevBroker

RESULTS: Final = Path(__file__).parents[1] / "results.json"
WARM_S: Final = 5.0
JVM_WARM_S: Final = 30.0
"""A JVM compiles during the first half million records; its latency meanwhile is not that of its later life."""
MEASURE_S: Final = 15.0
TRIED: Final = 0.8
"""A rate is not tried with an engine that does less than this share of it at full speed."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write ``bench/results.json``; 1 if a result was wrong, 130 if interrupted."""
    plan = parse(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    cores = Cores.of_this_machine()
    comparison = _Comparison(plan)
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="pf-bench-") as folder:
        try:
            with _broker(cores) as broker:
                bench = Bench(broker.bootstrap_servers, broker.pid, cores, Path(folder))
                comparison.run(bench)
                version = broker.version
        except KeyboardInterrupt:
            interrupted = True
            comparison.note("interrupted; what was measured so far:")
    found = comparison.rows(
        {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "pinned": cores.measured is not None,
            "python": platform.python_version(),
            "kafka": "" if interrupted else version,
            "partitions": PARTITIONS,
            "value_bytes": BYTES,
        }
    )
    show(found, console)
    if interrupted:
        return 130
    if not plan.quick:
        save(found, RESULTS)
        comparison.note(f"written to {RESULTS}")
    return 1 if any(row["conditions"]["wrong"] for row in found) else 0


@contextmanager
def _broker(cores: Cores) -> Iterator[BrokerInfo]:
    """Kafka on its core, and this process where the rig is."""
    if cores.broker is not None:
        os.sched_setaffinity(0, {cores.broker})
    with DevBroker.temporary() as broker:
        if cores.rig is not None:
            os.sched_setaffinity(0, {cores.rig})
        yield broker


class _Comparison:
    """The rounds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._outcomes: dict[Cell, list[Outcome]] = {cell: [] for cell in plan.cells()}
        self._missing: dict[str, str] = {}
        self._console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Tell those who wait."""
        self._console.print(text, markup=False, soft_wrap=True)

    def run(self, bench: Bench) -> None:
        """All of them."""
        for number in range(1, self._plan.rounds + 1):
            for cell, outcomes in self._outcomes.items():
                if cell.engine.name in self._missing:
                    continue
                try:
                    outcome = self._measure(bench, cell)
                except MissingError as error:
                    self._missing[cell.engine.name] = str(error)
                    self.note(f"{cell.engine.name} is not here: {error}")
                    continue
                except StuckError as error:
                    outcome = Outcome(0, os.getloadavg()[0], failed=str(error).partition("\n")[0])
                    self.note(str(error))
                outcomes.append(outcome)
                self.note(f"{number}/{self._plan.rounds}  {cell}: {_said(outcome)}")

    def _measure(self, bench: Bench, cell: Cell) -> Outcome:
        engine = cell.engine
        if cell.rate is None:
            return bench.throughput(engine, cell.job, cell.keys, max(1, self._plan.records // engine.part))
        most = self._most(cell)
        if most is not None and most < TRIED * cell.rate:
            return Outcome(0, os.getloadavg()[0], failed=f"does {most:,.0f}/s")
        warm_s = JVM_WARM_S if engine.name == "kafka-streams" else WARM_S
        return bench.latency(engine, cell.rate, warm_s, MEASURE_S)

    def _most(self, cell: Cell) -> float | None:
        """What the engine does of the same job, as far as it is known."""
        rates = [
            outcome.records_per_s
            for other, outcomes in self._outcomes.items()
            for outcome in outcomes
            if (other.engine, other.job, other.keys, other.rate) == (cell.engine, JOBS[-1], cell.keys, None)
            and outcome.records_per_s is not None
        ]
        return statistics.median(rates) if rates else None

    def rows(self, conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What came of it."""
        return rows(self._outcomes, self._missing, conditions)


def _said(outcome: Outcome) -> str:
    if outcome.wrong is not None:
        return f"WRONG: {outcome.wrong}"
    if outcome.failed is not None:
        return outcome.failed
    if outcome.p99_ms is not None:
        return f"p50 {outcome.p50_ms:.1f} ms, p99 {outcome.p99_ms:.1f} ms"
    return f"{outcome.records_per_s:,.0f} records/s, {outcome.cpu_us_per_record:.1f} us"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
