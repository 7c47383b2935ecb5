"""What the cells gave, over the rounds: rows for programs, and a table for people."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.nexmark.cells import Cell
from bench.nexmark.engines import ENGINES
from bench.nexmark.reference import QUERIES
from bench.peers.progress import Outcome
from bench.peers.report import number, percent, summary

__all__ = ["rows", "show"]

FIGURES: Final = ("records_per_s", "steady_records_per_s", "cpu_us_per_record", "rss_mb")


def rows(
    outcomes: Mapping[Cell, Sequence[Outcome]], missing: Mapping[str, str], conditions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One for each cell: medians, and in its conditions the rest; *missing* says why an engine could not be had."""
    found = []
    for cell, of_cell in outcomes.items():
        engine = cell.engine
        if not of_cell and engine.name not in missing:
            continue
        figures, told = summary(of_cell, FIGURES)
        found.append(
            {
                "query": cell.query,
                "engine": engine.name,
                "guarantee": engine.guarantee,
                **figures,
                "conditions": {
                    **conditions,
                    "engine_version": engine.version,
                    "rounds": len(of_cell),
                    "events": cell.events,
                    **told,
                    "lacks": engine.lacks,
                    "sets": engine.sets,
                    "missing": missing.get(engine.name),
                },
            }
        )
    return found


def show(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the rows as a table for each query that fits 100 columns, and in words what they lack."""
    for query, of_query in groupby(found, key=lambda row: str(row["query"])):
        table = Table(
            title=f"{query}: {QUERIES[query].title}",
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
        )
        for column in ("engine", "guarantee"):
            table.add_column(column, no_wrap=True)
        for column in ("steady", "least-most", "CPU us", "RSS MB", "broker", "others"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in of_query:
            table.add_row(row["engine"], row["guarantee"], *_cells(row))
        console.print(table)
        console.print()
    for line in _words(found):
        console.print(textwrap.fill(line, console.width, subsequent_indent="  "), markup=False, highlight=False)


def _cells(row: Mapping[str, Any]) -> list[str]:
    conditions = row["conditions"]
    shares = [percent(conditions["broker_core_share"]), percent(conditions["others_share"])]
    for what, shown in (("missing", "not here"), ("wrong", "WRONG"), ("failed", "failed")):
        if conditions[what] is not None:
            return [shown, "", "", "", *shares]
    least, most = conditions["least"]["steady_records_per_s"], conditions["most"]["steady_records_per_s"]
    between = "" if least is None else f"{number(least)}-{number(most)}"
    figures = [number(row[name]) for name in ("steady_records_per_s", "cpu_us_per_record", "rss_mb")]
    return [figures[0], between, *figures[1:], *shares]


def _words(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: dict[str, None] = {}
    for row in found:
        conditions = row["conditions"]
        who = f"{row['engine']} ({row['guarantee']})"
        if conditions["missing"] is not None:
            lines[f"{row['engine']} is not here: {conditions['missing']}"] = None
        for what in ("wrong", "failed"):
            if conditions[what] is not None:
                lines[f"{who} is {what} at {row['query']}: {conditions[what]}"] = None
    shown = {row["engine"] for row in found}
    for engine in ENGINES:
        if engine.name not in shown:
            continue
        if engine.lacks:
            lines[f"{engine.name} lacks: {engine.lacks}"] = None
        if engine.sets:
            lines[f"{engine.name} ({engine.guarantee}) is set so: {engine.sets}"] = None
        if engine.part > 1:
            lines[f"{engine.name} gets one in {engine.part} events"] = None
        for query, why in engine.leaves_out.items():
            lines[f"{engine.name} leaves out {query}: {why}"] = None
    return list(lines)
