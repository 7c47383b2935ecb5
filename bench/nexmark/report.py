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

__all__ = ["markdown", "rows", "show"]

FIGURES: Final = ("records_per_s", "steady_records_per_s", "cpu_us_per_record", "rss_mb")
PER_CORE: Final = "records_per_s_per_core"
"""What a core would do that has nothing else to do and never waits: by the processor time of a record."""
_LEGEND: Final = (
    "In a cell: records/s (steady, on the engine's one core), µs of processor time for a record, most MB resident. An answer"
    " that is not duckdb's takes its figures away."
)
_CONDITIONS: Final = ("cpu", "cores", "pinned", "python", "kafka", "partitions", "rounds")


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
        us = figures["cpu_us_per_record"]
        found.append(
            {
                "query": cell.query,
                "engine": engine.name,
                "guarantee": engine.guarantee,
                "answers": _answers(of_cell),
                **figures,
                PER_CORE: round(1e6 / us) if us else None,
                "conditions": {
                    **conditions,
                    "engine_version": engine.version,
                    "rounds": len(of_cell),
                    "events": cell.events,
                    "records": max((outcome.records for outcome in of_cell), default=None),
                    **told,
                    "lacks": engine.lacks,
                    "sets": engine.sets,
                    "missing": missing.get(engine.name),
                },
            }
        )
    return found


def _answers(outcomes: Sequence[Outcome]) -> str | None:
    """How they are; None if one round, or all, came to none."""
    if any(outcome.wrong is not None for outcome in outcomes):
        return "WRONG"
    return "right" if outcomes and all(outcome.records for outcome in outcomes) else None


def show(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the rows as a table for each query that fits 100 columns, and in words what they lack."""
    for query, of_query in groupby(found, key=lambda row: str(row["query"])):
        table = Table(
            title=f"{query}: {QUERIES[query].title}",
            title_justify="left",
            box=None,
            pad_edge=False,
            collapse_padding=True,
            header_style="bold",
        )
        for column in ("engine", "guarantee", "answers"):
            table.add_column(column, no_wrap=True)
        for column in ("steady", "least-most", "per core", "CPU us", "RSS MB", "broker", "others"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in of_query:
            table.add_row(row["engine"], row["guarantee"], *_cells(row))
        console.print(table)
        console.print()
    for line in _words(found):
        console.print(textwrap.fill(line, console.width, subsequent_indent="  "), markup=False, highlight=False)


def _cells(row: Mapping[str, Any]) -> list[str]:
    conditions = row["conditions"]
    answers = "not here" if conditions["missing"] is not None else row["answers"] or "none"
    least, most = conditions["least"]["steady_records_per_s"], conditions["most"]["steady_records_per_s"]
    between = "" if least is None else f"{number(least)}-{number(most)}"
    figures = [number(row[name]) for name in ("steady_records_per_s", PER_CORE, "cpu_us_per_record", "rss_mb")]
    shares = [percent(conditions["broker_core_share"]), percent(conditions["others_share"])]
    return [answers, figures[0], between, *figures[1:], *shares]


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows as one table with a line for each query, under what is true of all of them, and over what must be known."""
    who = list(dict.fromkeys((row["engine"], row["guarantee"], row["conditions"]["engine_version"]) for row in found))
    lines = [
        f"Conditions: {', '.join(_conditions(found))}. {_LEGEND}",
        "",
        f"| query | {' | '.join(f'{engine} {version}, `{guarantee}`' for engine, guarantee, version in who)} |",
        f"|---|{'---:|' * len(who)}",
    ]
    for query, of_query in groupby(found, key=lambda row: str(row["query"])):
        cells = {(row["engine"], row["guarantee"]): _cell(row) for row in of_query}
        each = " | ".join(cells.get((engine, guarantee), "-") for engine, guarantee, _ in who)
        lines.append(f"| {query}: {QUERIES[query].title} | {each} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in _words(found))])


def _cell(row: Mapping[str, Any]) -> str:
    if row["conditions"]["missing"] is not None:
        return "not here"
    if row["answers"] != "right":
        return f"**{row['answers'] or 'none'}**"
    rate, us, rss = (number(row[name]) for name in ("steady_records_per_s", "cpu_us_per_record", "rss_mb"))
    return f"{rate}/s, {us} µs, {rss} MB"


def _conditions(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is the same for all, and of what is not, how far it goes."""
    conditions = [row["conditions"] for row in found]
    told = [f"{name} {', '.join(dict.fromkeys(str(one[name]) for one in conditions))}" for name in _CONDITIONS]
    for name in ("records", "load_before", "others_share"):
        known = [one[name] for one in conditions if one[name] is not None]
        if known:
            told.append(f"{name} {min(known):,} to {max(known):,}")
    return told


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
        for part in sorted(set(engine.part.values())):
            where = ", ".join(query for query, one in engine.part.items() if one == part)
            lines[f"{engine.name} gets one in {part} events at {where}"] = None
        for query, why in engine.leaves_out.items():
            lines[f"{engine.name} leaves out {query}: {why}"] = None
    return list(lines)
