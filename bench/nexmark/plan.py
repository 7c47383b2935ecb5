"""What is to be measured, as the command line says it."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.nexmark.cells import Cell
from bench.nexmark.engines import ENGINES
from bench.nexmark.reference import QUERIES
from bench.peers.plan import count, some

__all__ = ["Plan", "parse"]

NAMES: Final = tuple(dict.fromkeys(engine.name for engine in ENGINES))

MORE: Final = {"q0": 2, "q1": 2, "q2": 2, "q3": 5, "q8": 5}
"""So many times more events are made for queries that are quick, and for those that read no bids, and so but one event in twelve:
most engines commit once a second, and a run of few commits tells no rate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    rounds: int
    """How often."""
    events: int
    """In each run; where no bids are read more are made, and slow engines get a part of them."""
    engines: Sequence[str]
    """Names."""
    queries: Sequence[str]
    """Names."""
    markdown: bool
    """Whether nothing is to be measured, but what was written last told again."""

    def cells(self) -> list[Cell]:
        """Those of one round, in its order: what is compared comes together."""
        return [
            Cell(engine, query, max(1, self.events * MORE.get(query, 1) // engine.part.get(query, 1)))
            for query in self.queries
            for engine in ENGINES
            if engine.name in self.engines and query not in engine.leaves_out
        ]


def parse(arguments: Sequence[str]) -> Plan:
    """Read the command line; ends the process with a usage message if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.nexmark", description="Nexmark, beside pf_stream's peers.")
    parser.add_argument("--rounds", type=count, default=os.environ.get("ROUNDS", "3"), help="(ROUNDS) 3")
    parser.add_argument("--events", type=count, default=1_000_000, help="in each run; 1000000")
    parser.add_argument("--engines", type=some(NAMES), default=NAMES, help=f"of: {', '.join(NAMES)}; all")
    queries = tuple(QUERIES)
    parser.add_argument("--queries", type=some(queries), default=queries, help=f"of: {', '.join(queries)}; all")
    parser.add_argument(
        "--markdown", action="store_true", help="measure nothing: print what was written last, for docs/performance.md"
    )
    given = parser.parse_args(arguments)
    return Plan(given.rounds, given.events, given.engines, given.queries, given.markdown)
