"""``python -m bench.growth``: how the cost of a record grows with what there is much of."""

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from bench.growth.lanes import AXES, measure
from bench.growth.report import NAMES, Row, draw, fill, load, merge, save, table, verdicts
from bench.growth.workers import Case, Turn, field
from bench.machine import cpu_name
from bench.peers.processes import Cores

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "growth.json"
PLOT: Final = ROOT / "docs" / "growth.svg"
PAGE: Final = ROOT / "docs" / "performance.md"
TURNS: Final = 3
"""Of each point in a round."""
PARTITIONS: Final = (1, 4, 16, 64, 256, 1_000)
PROCESSES: Final = 2


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write and draw; 1 if many partitions cost more than they may."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--rounds", type=int, default=5, help="of three turns of each point; 5")
    parser.add_argument("--only", type=_some, default=tuple(NAMES), help=f"of: {', '.join(NAMES)}; all")
    parser.add_argument("--quick", action="store_true", help="one round of small points; writes nothing but --plot")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"the plot; {PLOT.relative_to(ROOT)}")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw and tell what was written before")
    given = parser.parse_args(arguments)
    plot: Path | None = given.plot or (None if given.quick else PLOT)
    if plot is not None and find_spec("matplotlib") is None:
        parser.error("it draws with matplotlib, which is missing: pip install 'pf-stream[dev]'")
    if given.redraw:
        rows = load(RESULTS)
    else:
        rows = []
        for axis in given.only:
            rows += _measured(axis, given.rounds, quick=given.quick)
            if not given.quick:  # at once: minutes of work are not lost if a later axis fails, or is interrupted
                save(merge(load(RESULTS), rows), RESULTS)
        if not given.quick:
            rows = load(RESULTS)
    print(f"\n{table(rows)}")
    if not given.quick:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    if plot is not None:
        draw(rows, plot)
    found = verdicts(rows)
    for text, well in found:
        print(f"{text}: {'ok' if well else 'TOO MUCH'}")
    return 0 if all(well for _, well in found) else 1


def _some(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; there are: {', '.join(NAMES)}")
    return names


def _measured(axis: str, rounds: int, *, quick: bool) -> Iterator[Row]:
    """The rows of an axis, each printed as soon as it is known."""
    rounds = 1 if quick else rounds
    conditions = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rounds": rounds,
        "load_before": round(os.getloadavg()[0], 2),
    }
    match axis:
        case "partitions":
            found = _partitions(rounds, conditions, quick=quick)
        case "processes":
            found = _processes(rounds, conditions, quick=quick)
        case _:
            found = _in_lanes(axis, rounds, conditions, quick=quick)
    for row in found:
        print(f"{NAMES[axis]}: {row.x:,}: {row.us} µs", flush=True)
        yield row


def _in_lanes(axis: str, rounds: int, conditions: Mapping[str, Any], *, quick: bool) -> Iterator[Row]:
    wanted = 2_000 if quick else 10_000
    points = [point for point in AXES[axis] if not quick or axis == "payload" or point.x <= 1_000]
    took: dict[int, list[float]] = {point.x: [] for point in points}
    for point, us in measure(points, rounds * TURNS, wanted):
        took[point.x].append(us)
    for point in points:
        per_byte = min(took[point.x]) / point.size * 1000 if axis == "payload" else None
        told = {**conditions, "records": point.records(wanted)}
        yield Row.of(axis, point.x, took[point.x], told, ns_per_byte=per_byte)


def _partitions(rounds: int, conditions: Mapping[str, Any], *, quick: bool) -> Iterator[Row]:
    records = 20_000 if quick else 200_000
    counts = [count for count in PARTITIONS if not quick or count <= 64]
    cores = Cores.of_this_machine()
    turns: dict[int, list[Turn]] = {count: [] for count in counts}
    starts: dict[int, list[float]] = {count: [] for count in counts}
    with field(cores) as broker:
        cases = [Case(broker, f"p{count}", count, records) for count in counts]
        for _ in range(rounds):
            for case in cases:
                with case.worker("w0", case.partitions) as (worker, start_s):
                    starts[case.partitions].append(start_s)
                    case.turn([worker])  # after it, all that can be known is known
                    turns[case.partitions] += [case.turn([worker]) for _ in range(TURNS)]
        told = {**conditions, "kafka": broker.version, "pinned": cores.measured is not None, "records": records}
    for count in counts:
        first, *later = starts[count]
        yield _row(
            "partitions",
            count,
            turns[count],
            told,
            first_start_s=first,
            start_s=statistics.median(later) if later else None,
        )


def _processes(rounds: int, conditions: Mapping[str, Any], *, quick: bool) -> Iterator[Row]:
    """One worker, then as many as there are cores, which Kafka shares: nothing is pinned."""
    records = 20_000 if quick else 200_000
    turns: dict[int, list[Turn]] = {count: [] for count in range(1, PROCESSES + 1)}
    with field(Cores(None, None, None)) as broker:
        for number in range(rounds):
            # Topics and a group of its own for each round: a group keeps partitions for who was there, and may come back.
            case = Case(broker, f"round{number}", 4, records)
            with ExitStack() as stack:
                workers = []
                for count, found in turns.items():
                    worker, _ = stack.enter_context(case.worker(f"w{count}", case.partitions // count))
                    workers.append(worker)
                    case.turn(workers)
                    found += [case.turn(workers) for _ in range(TURNS)]
        told = {**conditions, "kafka": broker.version, "pinned": False, "records": records}
    for count, found in turns.items():
        yield _row("processes", count, found, told)


def _row(axis: str, x: int, turns: Sequence[Turn], conditions: Mapping[str, Any], **others: float | None) -> Row:
    rates = [turn.records_per_s for turn in turns if turn.records_per_s is not None]
    return Row.of(
        axis,
        x,
        [turn.us for turn in turns],
        conditions,
        records_per_s=statistics.median(rates) if rates else None,
        broker_share=statistics.median(turn.broker_share for turn in turns),
        others_share=statistics.median(turn.others_share for turn in turns),
        rss_mb=max(turn.rss_mb for turn in turns),
        **others,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
