"""What was measured: rows for programs, tables for people, the plot, and the place in the page that tells of it."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

__all__ = ["NAMES", "Row", "draw", "fill", "load", "merge", "save", "table", "verdicts"]

NAMES: Final = {
    "unit": "records of a unit",
    "keys": "keys",
    "tokens": "distinct tokens",
    "payload": "bytes of a value",
    "partitions": "partitions on one worker",
    "processes": "worker processes, 4 partitions",
}
"""What is varied, in the order of all tables."""
MANY: Final = (4, 1_000)
"""Partitions that are compared."""
MOST_RATIO: Final = 1.5
MOST_START_S: Final = 60.0
BEGIN: Final = "<!-- growth -->"
END: Final = "<!-- /growth -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One point, over the rounds."""

    axis: str
    """A name of :data:`NAMES`."""
    x: int
    """How much there was of it."""
    us: float
    """Processor time for a record in microseconds, all threads, in the best turn: what else the machine does only adds."""
    median_us: float
    """The same in the turn in the middle."""
    most_us: float
    """The same in the worst one."""
    ns_per_byte: float | None = None
    """The best, divided by the bytes of a value, in nanoseconds."""
    records_per_s: float | None = None
    """Of all workers together; the median."""
    first_start_s: float | None = None
    """From the start of a worker until all its lanes were open, when they had never lived before."""
    start_s: float | None = None
    """The same when they had; the median."""
    rss_mb: float | None = None
    """Resident memory of the workers, at most."""
    broker_share: float | None = None
    """How much of a core Kafka and the bench used meanwhile; the median."""
    others_share: float | None = None
    """How much of a core everything else on the machine used; the median."""
    conditions: Mapping[str, Any]
    """Machine, versions, turns, load before."""

    @classmethod
    def of(cls, axis: str, x: int, took: Sequence[float], conditions: Mapping[str, Any], **others: Any) -> "Row":
        """The row of turns that *took* so many microseconds for a record."""
        return cls(
            axis=axis,
            x=x,
            us=round(min(took), 2),
            median_us=round(statistics.median(took), 2),
            most_us=round(max(took), 2),
            conditions={**conditions, "turns": len(took)},
            **{name: value if value is None else round(value, 2) for name, value in others.items()},
        )


def load(path: Path) -> list[Row]:
    """What :func:`save` wrote; nothing if there is no such file."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows, as a list of objects."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def merge(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """*new*, and of *old* those axes that *new* has nothing of; in the order of the tables."""
    measured = {row.axis for row in new}
    order = list(NAMES)
    return sorted(
        [*new, *(row for row in old if row.axis not in measured)], key=lambda row: (order.index(row.axis), row.x)
    )


def table(rows: Sequence[Row]) -> str:
    """All figures of all points."""
    others = [one.name for one in fields(Row) if one.default is None]
    lines = ["| what | how much | best µs | median | most | |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        beside = ", ".join(f"{name} {getattr(row, name):,}" for name in others if getattr(row, name) is not None)
        lines.append(
            f"| {NAMES[row.axis]} | {row.x:,} | {row.us:.2f} | {row.median_us:.2f} | {row.most_us:.2f} | {beside} |"
        )
    return "\n".join(lines)


def verdicts(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """What many partitions may cost and what they do, and whether that is so; nothing if that was not measured."""
    found = {row.x: row for row in rows if row.axis == "partitions"}
    few, many = (found.get(count) for count in MANY)
    if few is None or many is None:
        return []
    ratio = many.us / few.us
    start_s = max(many.first_start_s or 0, many.start_s or 0)
    return [
        (
            f"a record costs {ratio:.2f} times as much with {MANY[1]:,} partitions as with {MANY[0]}",
            ratio <= MOST_RATIO,
        ),
        (f"a worker with {MANY[1]:,} partitions starts in {start_s:.1f} s", start_s <= MOST_START_S),
    ]


# --- the page ---------------------------------------------------------------------------------------------------------


def fill(page: str, rows: Sequence[Row]) -> str:
    """*page* with the figures at their place.

    Raises:
        ValueError: it has no such place.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place between {BEGIN} and {END}")
    return f"{head}{begin}\n{_summary(rows)}\n{end}{tail}"


def _summary(rows: Sequence[Row]) -> str:
    lines = ["| what there is much of | µs of processor time for a record |", "|---|---|"]
    for axis, name in NAMES.items():
        some = [row for row in rows if row.axis == axis]
        if some:
            lines.append(f"| {name} | {', '.join(f'{row.x:,}: {_number(row.us)}' for row in some)} |")
        per_byte = [f"{row.x:,}: {_number(row.ns_per_byte)}" for row in some if row.ns_per_byte is not None]
        if per_byte:
            lines.append(f"| the same, in ns for a byte | {', '.join(per_byte)} |")
    notes = [f"{text[0].upper()}{text[1:]}." for text, _ in verdicts(rows)]
    for row in rows:
        if row.axis == "processes":
            who = "One process handles" if row.x == 1 else f"{row.x} processes handle"
            notes.append(
                f"{who} {row.records_per_s or 0:,.0f} records/s, while Kafka and the bench use {row.broker_share:.0%} of a core "
                f"and all else {row.others_share:.0%}."
            )
    told = {f"{row.conditions['cpu']}, Python {row.conditions['python']}" for row in rows}
    return "\n".join([*lines, "", " ".join([*notes, f"Best of the turns; {' and '.join(sorted(told))}."])])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


# --- the plot ---------------------------------------------------------------------------------------------------------


def draw(rows: Sequence[Row], path: Path) -> None:
    """A small plot for each axis, as SVG; the same bytes for the same rows and the same matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    panels = [
        (NAMES[axis], "µs", [(row.x, row.us, row.median_us) for row in rows if row.axis == axis])
        for axis in ("unit", "keys", "partitions", "tokens", "payload")
    ]
    panels.append(
        (
            NAMES["payload"],
            "ns for a byte",
            [
                (row.x, row.ns_per_byte, row.median_us / row.x * 1000)
                for row in rows
                if row.axis == "payload" and row.ns_per_byte is not None
            ],
        )
    )
    style = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "growth",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(800 / 96, 460 / 96), facecolor="white", layout="constrained")
        for axes, (name, unit, points) in zip(figure.subplots(2, 3).flat, panels, strict=True):
            axes.set_title(unit, loc="left", fontsize=9, color="#444444")
            axes.set_xlabel(name)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(_short))
            axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            if points:
                x, best, median = zip(*points, strict=True)
                axes.plot(x, median, color="#b8c4d6", linewidth=1, marker="o", markersize=2.5, label="median turn")
                axes.plot(x, best, color="#1f5fa8", linewidth=1.5, marker="o", markersize=3.5, label="best turn")
            axes.set_ylim(bottom=0)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.axes[0].legend(handles, labels, frameon=False, fontsize=8)
        figure.suptitle("Processor time for a record", fontsize=10)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _short(value: float, _: object) -> str:
    """1k for a thousand."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
