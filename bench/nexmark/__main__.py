"""``python -m bench.nexmark``: the queries on pf_stream and its peers, in rounds; answers are compared with duckdb's."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.nexmark.cells import Bench
from bench.nexmark.plan import parse
from bench.nexmark.report import rows, show
from bench.peers.report import save
from bench.peers.rounds import Rounds, console, on_a_broker

RESULTS: Final = Path(__file__).parents[1] / "nexmark.json"


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write ``bench/nexmark.json``; 1 if an answer was wrong, 130 if interrupted."""
    plan = parse(arguments)
    rounds = Rounds(plan.cells())
    conditions = on_a_broker(lambda site: rounds.run(plan.rounds, Bench(site).run), rounds.note)
    found = rows(rounds.outcomes, rounds.missing, conditions)
    show(found, console())
    if conditions["interrupted"]:
        return 130
    save(found, RESULTS)
    rounds.note(f"written to {RESULTS}")
    return 1 if any(row["conditions"]["wrong"] for row in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
