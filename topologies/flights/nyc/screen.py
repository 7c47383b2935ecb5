"""What the demonstration shows: bars in a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from nyc.data import Outcomes, Totals
from nyc.refusals import KINDS

__all__ = ["Bars", "Doing", "Screen"]

WIDTH = 76
BUSIEST = 5


class Doing:
    """A step under way."""

    def __init__(self, progress: Progress, text: str) -> None:
        self._progress = progress
        self._task = progress.add_task(text, total=None)
        self._quarter = 0
        self.result = text

    def part(self, text: str, done: int, total: int) -> None:
        """Tell how much of the step is done, in units of which it has many."""
        self._progress.update(self._task, description=text, completed=done, total=total)
        quarter = 4 * done // total
        if self._progress.disable and quarter > self._quarter:
            self._quarter = quarter
            self._progress.console.print(f"    {text}: {25 * quarter} %")

    def rest(self, text: str) -> None:
        """Tell that what is left cannot be counted."""
        self._progress.update(self._task, description=text)
        self._progress.tasks[0].total = None  # update() takes None for no change

    def done(self, text: str) -> None:
        """Tell the result."""
        self.result = text


class Bars:
    """How far the intents are."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._started = time.monotonic()
        self._tasks: dict[str, TaskID] = {}
        self._quarters: Counter[str] = Counter()

    def show(self, what: str, count: int) -> None:
        """Tell how many were *what* so far."""
        rate = f"{count / max(time.monotonic() - self._started, 1e-3):,.0f}/s"
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=self._total, rate="")
        if count < self._total or not self._progress.tasks[self._tasks[what]].finished:
            self._progress.update(self._tasks[what], completed=count, rate=rate)
        quarter = 4 * count // self._total
        if self._progress.disable and quarter > self._quarters[what]:
            self._quarters[what] = quarter
            self._progress.console.print(f"    {what} {25 * quarter:>3} %, {rate}")


class Screen:
    """Writes to stdout; no wider than the terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._width = min(self._console.width, WIDTH)

    def say(self, text: str = "", style: str = "") -> None:
        """Write a paragraph, wrapped."""
        self._print(Text(text, style=style))

    def command(self, text: str) -> None:
        """Write a line that is to be copied, and so never wrapped."""
        self._console.print(Text(f"  {text}"), soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Doing]:
        """Show a step while it is done; then its result, and the seconds that it took."""
        started = time.monotonic()
        with self._progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(None)) as progress:
            doing = Doing(progress, text)
            yield doing
        self.done(doing.result, time.monotonic() - started)

    def done(self, text: str, seconds: float) -> None:
        """Write what was done, and the seconds that it took."""
        line = Table.grid(expand=True)
        line.add_column(ratio=1)
        line.add_column(justify="right", style="dim")
        line.add_row(Text(text), f"  {seconds:.1f} s")
        self._print(Padding(line, (0, 0, 0, 2)))

    @contextmanager
    def bars(self, total: int) -> Iterator[Bars]:
        """Bars for *total* intents."""
        columns = (
            TextColumn("  {task.description:<7}"),
            BarColumn(None),
            TextColumn("{task.completed:>9,.0f}"),
            TextColumn("{task.fields[rate]:>9}"),
        )
        with self._progress(*columns) as progress:
            yield Bars(progress, total)

    def board(self, totals: Totals) -> None:
        """Write the table of the airports."""
        table = _table(("airport", 0), ("flights", 1), ("cancelled", 1), ("mean delay", 1), ("worst", 1))
        for airport, (flights, cancelled, late, worst) in sorted(totals.airports.items()):
            table.add_row(
                airport, f"{flights:,}", f"{cancelled:,}", _minutes(late, flights - cancelled), f"{worst or 0:,.0f} min"
            )
        self._show("The board, by origin airport", table)

    def carriers(self, totals: Totals, names: Mapping[str, str]) -> None:
        """Write the table of the carriers, the largest first."""
        table = _table(("carrier", 0), ("flights", 1), ("cancelled", 1), ("mean delay", 1), ("miles", 1))
        named = self._width >= 70
        rows = sorted(totals.carriers.items(), key=lambda item: -item[1][0])
        for carrier, (flights, cancelled, late, miles) in rows:
            table.add_row(
                f"{carrier} {names.get(carrier, '')}" if named else carrier,
                f"{flights:,}",
                f"{cancelled:,}",
                _minutes(late, flights - cancelled),
                f"{miles:,.0f}",
            )
        self._show("The carriers", table)

    def busiest(self, totals: Totals) -> None:
        """Write the aircraft with the most legs. Flights without a tail number are under their carrier: no aircraft."""
        table = _table(("aircraft", 0), ("legs", 1), ("cancelled", 1), ("mean delay", 1), ("miles", 1))
        aircraft = [(key, one) for key, one in totals.aircraft.items() if key not in totals.carriers]
        for tail, (legs, cancelled, late, miles) in sorted(aircraft, key=lambda item: (-item[1][0], item[0]))[:BUSIEST]:
            table.add_row(tail, f"{legs:,}", f"{cancelled:,}", _minutes(late, legs), f"{miles:,.0f}")
        self._show(f"The busiest of {len(aircraft):,} aircraft", table)

    def told(self, outcomes: Outcomes) -> None:
        """Write how much was told of hours, days and flights that are overdue, and the most of each."""
        table = _table(("told of", 0), ("times", 1), ("the most", -1))
        delays = {at: delay for at, (_, _, delay) in outcomes.hours.items() if delay is not None}
        worst = max(delays, key=delays.__getitem__, default=None)
        if worst is not None:
            table.add_row("an airport's hour", f"{len(outcomes.hours):,}", f"{worst}: {delays[worst]:,.0f} min late")
        longest = max(outcomes.days, key=lambda at: outcomes.days[at][1:], default=None)
        if longest is not None:
            _, legs, miles = outcomes.days[longest]
            table.add_row("an aircraft's day", f"{len(outcomes.days):,}", f"{longest}: {legs} legs, {miles:,.0f} miles")
        overdue = Counter(outcomes.overdue.values()).most_common(1)
        for origin, count in overdue:
            table.add_row("a flight an hour late", f"{len(outcomes.overdue):,}", f"{origin}: {count:,}")
        self._show("By the clock of the flights", table)

    def refused(self, codes: Sequence[str]) -> None:
        """Write how many were refused, by code."""
        table = _table(("code", 0), ("refused", 1), ("what was tried", -1))
        counts = Counter(codes)
        for code in [*KINDS, *sorted(counts.keys() - KINDS.keys())]:
            table.add_row(code, f"{counts[code]:,}", KINDS.get(code, "not ours"))
        self._show("Refused", table)

    def _show(self, title: str, table: Table) -> None:
        self.say()
        self.say(title, style="bold")
        self._print(Padding(table, (0, 0, 0, 2)))

    def _print(self, what: RenderableType) -> None:
        if self._console.is_terminal:
            self._console.print(what, width=self._width)
            return
        # rich fills lines up with blanks, which is of no use in a file.
        with self._console.capture() as text:
            self._console.print(what, width=self._width)
        for line in text.get().splitlines():
            self._console.out(line.rstrip(), highlight=False)

    def _progress(self, *columns: ProgressColumn) -> Progress:
        return Progress(
            *columns, console=self._console, transient=True, expand=True, disable=not self._console.is_terminal
        )


def _table(*columns: tuple[str, int]) -> Table:
    """Columns by name: 0 is a word, 1 a number, -1 a text that is wrapped."""
    table = Table(box=None, pad_edge=False, expand=False, header_style="dim")
    for name, kind in columns:
        table.add_column(
            name,
            justify="right" if kind > 0 else "left",
            no_wrap=kind >= 0,
        )
    return table


def _minutes(total: float, count: int) -> str:
    return f"{total / count:.1f} min" if count else "-"
