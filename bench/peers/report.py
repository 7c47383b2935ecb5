"""What the cells gave, over the rounds: rows for programs, and tables for people."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

from bench.peers.plan import Cell
from bench.peers.progress import Figure, Outcome

__all__ = ["number", "percent", "rows", "save", "show", "summary"]

CELL: Final = 15
"""What fits into a cell of the table; what is longer is told below."""
MOST_SHARE: Final = 0.75
"""Of its core that Kafka and the bench may use while latency is measured: above, it is the bench that is measured."""
FIGURES: Final = ("records_per_s", "steady_records_per_s", "cpu_us_per_record", "p50_ms", "p99_ms", "rss_mb")


def rows(
    outcomes: Mapping[Cell, Sequence[Outcome]], missing: Mapping[str, str], conditions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One for each cell: medians, and in its conditions the rest; *missing* says why an engine could not be had."""
    return [_row(cell, of, missing, conditions) for cell, of in outcomes.items() if of or cell.engine.name in missing]


def _row(
    cell: Cell, outcomes: Sequence[Outcome], missing: Mapping[str, str], conditions: Mapping[str, Any]
) -> dict[str, Any]:
    engine = cell.engine
    figures, told = summary(outcomes, FIGURES, ("late_ms",))
    return {
        "engine": engine.name,
        "guarantee": engine.guarantee,
        "job": cell.job,
        "keys": cell.keys,
        **figures,
        "conditions": {
            **conditions,
            "engine_version": engine.version,
            "rounds": len(outcomes),
            "records": max((outcome.records for outcome in outcomes), default=None),
            "offered_per_s": cell.rate,
            **told,
            "lacks": engine.lacks,
            "sets": engine.sets,
            "missing": missing.get(engine.name),
        },
    }


def summary(
    outcomes: Sequence[Outcome], names: Sequence[str], more: Sequence[str] = ()
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """The medians of some figures over the rounds, and what else is to be said of them; without figures if one is wrong."""
    wrong = next((outcome.wrong for outcome in outcomes if outcome.wrong), None)
    figures = {
        name: None if wrong is not None else Figure.of([getattr(outcome, name) for outcome in outcomes])
        for name in names
    }
    shares = {
        name: Figure.of([getattr(outcome, name) for outcome in outcomes])
        for name in ("broker_core_share", "others_share", "load_before", *more)
    }
    return {name: _of(figure, "median") for name, figure in figures.items()}, {
        **{name: _of(figure, "median", 2) for name, figure in shares.items()},
        "least": {name: _of(figure, "least") for name, figure in figures.items()},
        "most": {name: _of(figure, "most") for name, figure in figures.items()},
        "wrong": wrong,
        "failed": next((outcome.failed for outcome in outcomes if outcome.failed), None),
    }


def _of(figure: Figure | None, part: Literal["median", "least", "most"], digits: int = 1) -> float | None:
    """Rounded so that it says no more than was measured."""
    if figure is None:
        return None
    value: float = getattr(figure, part)
    return round(value) if abs(value) >= 1000 else round(value, digits)


def save(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the rows."""
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def show(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the rows as tables that fit 100 columns, and in words what they lack."""
    for title, some in _sections([row for row in found if row["conditions"]["offered_per_s"] is None]):
        table = _table(title, ("rec/s", "least-most", "steady", "CPU us", "RSS MB"))
        for row in some:
            _add(
                table,
                row,
                (
                    number(row["records_per_s"]),
                    _range(row, "records_per_s"),
                    number(row["steady_records_per_s"]),
                    number(row["cpu_us_per_record"]),
                    number(row["rss_mb"]),
                ),
            )
        console.print(table)
        console.print()
    for title, some in _sections([row for row in found if row["conditions"]["offered_per_s"] is not None]):
        table = _table(title, ("p50 ms", "least-most", "p99 ms", "least-most", "CPU"))
        for row in some:
            cpu = row["cpu_us_per_record"]
            _add(
                table,
                row,
                (
                    number(row["p50_ms"]),
                    _range(row, "p50_ms"),
                    number(row["p99_ms"]),
                    _range(row, "p99_ms"),
                    percent(None if cpu is None else cpu * row["conditions"]["offered_per_s"] / 1e6),
                ),
            )
        console.print(table)
        console.print()
    for line in _words(found):
        console.print(textwrap.fill(line, console.width, subsequent_indent="  "), markup=False, highlight=False)


def _sections(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for row in found:
        rate = row["conditions"]["offered_per_s"]
        title = f"{row['job']}, {row['keys']} keys" + ("" if rate is None else f": latency at {rate:,} records/s")
        sections.setdefault(title, []).append(row)
    return list(sections.items())


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("engine", no_wrap=True)
    table.add_column("guarantee", no_wrap=True)
    for column in (*columns, "broker", "others"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _add(table: Table, row: Mapping[str, Any], cells: Sequence[str]) -> None:
    conditions = row["conditions"]
    for what, shown in (("missing", "not here"), ("wrong", "WRONG")):
        if conditions[what] is not None:
            cells = [shown, *([""] * (len(cells) - 1))]
    shares = [percent(conditions["broker_core_share"]), percent(conditions["others_share"])]
    table.add_row(row["engine"], row["guarantee"], *cells, *shares)


def _words(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know of the rows: what is missing or wrong, what each lacks, and what was set."""
    lines: dict[str, None] = {}
    for row in found:
        conditions = row["conditions"]
        who = f"{row['engine']} ({row['guarantee']})"
        where = f"{row['job']}, {row['keys']} keys"
        if conditions["offered_per_s"] is not None:
            where += f", {conditions['offered_per_s']:,}/s"
        if conditions["missing"] is not None:
            lines[f"{row['engine']} is not here: {conditions['missing']}"] = None
        if conditions["wrong"] is not None:
            lines[f"{who} is WRONG at {where}: {conditions['wrong']}"] = None
        if conditions["failed"] is not None and len(conditions["failed"]) > CELL:
            lines[f"{who} at {where}: {conditions['failed']}"] = None
        if conditions["offered_per_s"] is not None and (conditions["broker_core_share"] or 0) > MOST_SHARE:
            lines[f"{who} at {where}: not to be quoted, the broker's core was busy"] = None
    for row in found:
        conditions = row["conditions"]
        who = f"{row['engine']} ({row['guarantee']})"
        if conditions["lacks"]:
            lines[f"{row['engine']} lacks: {conditions['lacks']}"] = None
        if conditions["sets"]:
            lines[f"{who} is set so: {conditions['sets']}"] = None
    return list(lines)


def number(value: float | None) -> str:
    """For a cell of the table."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _range(row: Mapping[str, Any], name: str) -> str:
    least, most = row["conditions"]["least"][name], row["conditions"]["most"][name]
    if least is None:
        failed: str = row["conditions"]["failed"] or ""
        return failed if len(failed) <= CELL else ""
    return f"{number(least)}-{number(most)}"


def percent(share: float | None) -> str:
    """For a cell of the table."""
    return "-" if share is None else f"{share:.0%}"
