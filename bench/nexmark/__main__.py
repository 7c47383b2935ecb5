"""``python -m bench.nexmark``: the queries on pf_stream and its peers, in rounds; answers are compared with duckdb's."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.nexmark.cells import Bench
from bench.nexmark.plan import parse
from bench.nexmark.report import markdown, rows, show
from bench.peers.report import save
from bench.peers.rounds import Rounds, console, on_a_broker

RESULTS: Final = Path(__file__).parents[1] / "nexmark.json"


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write ``bench/nexmark.json``; 1 if an engine gave no answer or a wrong one, 130 if interrupted."""
    plan = parse(arguments)
    if plan.markdown:
        print(markdown(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return 0
    rounds = Rounds(plan.cells())
    conditions = on_a_broker(lambda site: rounds.run(plan.rounds, Bench(site).run), rounds.note)
    found = rows(rounds.outcomes, rounds.missing, conditions)
    show(found, console())
    if conditions["interrupted"]:
        return 130
    save(found, RESULTS)
    rounds.note(f"written to {RESULTS}")
    return 1 if any(row["answers"] != "right" and not row["conditions"]["missing"] for row in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
