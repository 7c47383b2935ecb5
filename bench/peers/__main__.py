"""``python -m bench.peers``: pf_stream beside its peers, in rounds."""

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.peers.cells import Bench
from bench.peers.engines import JOBS
from bench.peers.plan import Cell, Plan, parse
from bench.peers.progress import Outcome
from bench.peers.report import rows, save, show
from bench.peers.rounds import Rounds, console, on_a_broker
from bench.peers.workload import BYTES

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
    comparison = _Comparison(plan)
    conditions = on_a_broker(lambda site: comparison.run(Bench(site)), comparison.note)
    found = comparison.rows({**conditions, "value_bytes": BYTES})
    show(found, console())
    if conditions["interrupted"]:
        return 130
    if not plan.quick:
        save(found, RESULTS)
        comparison.note(f"written to {RESULTS}")
    return 1 if any(row["conditions"]["wrong"] for row in found) else 0


class _Comparison:
    """The rounds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rounds = Rounds(plan.cells())
        self.note = self._rounds.note

    def run(self, bench: Bench) -> None:
        """All of them."""
        self._rounds.run(self._plan.rounds, lambda cell: self._measure(bench, cell))

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
            for other, outcomes in self._rounds.outcomes.items()
            for outcome in outcomes
            if (other.engine, other.job, other.keys, other.rate) == (cell.engine, JOBS[-1], cell.keys, None)
            and outcome.records_per_s is not None
        ]
        return statistics.median(rates) if rates else None

    def rows(self, conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What came of it."""
        return rows(self._rounds.outcomes, self._rounds.missing, conditions)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
