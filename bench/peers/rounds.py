"""Engines in turn, round by round, on a broker of their own."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from rich.console import Console

from bench.machine import cpu_name
from bench.peers.engines import PARTITIONS
from bench.peers.environments import MissingError
from bench.peers.processes import Cores, StuckError
from bench.peers.progress import Outcome
from pf_stream.kafka.dev import DevCluster
from pf_stream.kafka.errors import KafkaError

__all__ = ["PATIENT", "Rounds", "Site", "console", "on_a_broker"]

PATIENT: Final = {"broker.session.timeout.ms": "30000"}
"""A broker that is alone is not to be taken for dead, and its partitions from it, when others have its core for a second."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Cell(Protocol):
    @property
    def engine(self) -> _Named: ...


C = TypeVar("C", bound=_Cell)


@dataclass(frozen=True, slots=True)
class Site:
    """Where engines are measured."""

    servers: str
    """Kafka."""
    broker_pid: int
    """Its process."""
    cores: Cores
    """Who runs where."""
    folder: Path
    """For files that go with it."""


def on_a_broker(run: Callable[[Site], None], note: Callable[[str], None]) -> dict[str, Any]:
    """Call *run* with a new broker; the conditions of what it measures.

    Kafka has its core, and this process is where the rig is. Ctrl-C ends it: the conditions say so.
    """
    cores = Cores.of_this_machine()
    version = ""
    with tempfile.TemporaryDirectory(prefix="pf-bench-") as folder:
        try:
            if cores.broker is not None:
                os.sched_setaffinity(0, {cores.broker})
            with DevCluster.temporary(1, settings=PATIENT) as cluster:
                broker = cluster.broker(1)
                if cores.rig is not None:
                    os.sched_setaffinity(0, {cores.rig})
                run(Site(broker.bootstrap_servers, broker.pid, cores, Path(folder)))
                version = broker.version
        except KeyboardInterrupt:
            note("interrupted; what was measured so far:")
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "pinned": cores.measured is not None,
        "python": platform.python_version(),
        "kafka": version,
        "partitions": PARTITIONS,
        "interrupted": not version,
    }


def console() -> Console:
    """Where tables go: as wide as the terminal, or a hundred columns in a file."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=100)


class Rounds(Generic[C]):
    """What came of each cell: a thing that an engine is to do."""

    def __init__(self, cells: Iterable[C]) -> None:
        self.outcomes: dict[C, list[Outcome]] = {cell: [] for cell in cells}
        self.missing: dict[str, str] = {}
        """By name of an engine, why it could not be had."""
        self._console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Tell those who wait."""
        self._console.print(text, markup=False, soft_wrap=True)

    def run(self, rounds: int, measure: Callable[[C], Outcome]) -> None:
        """Measure every cell in every round."""
        for number in range(1, rounds + 1):
            for cell, outcomes in self.outcomes.items():
                if cell.engine.name in self.missing:
                    continue
                try:
                    outcome = measure(cell)
                except MissingError as error:
                    self.missing[cell.engine.name] = str(error)
                    self.note(f"{cell.engine.name} is not here: {error}")
                    continue
                except (StuckError, KafkaError) as error:
                    outcome = Outcome(0, os.getloadavg()[0], failed=str(error).partition("\n")[0])
                    self.note(str(error))
                outcomes.append(outcome)
                self.note(f"{number}/{rounds}  {cell}: {_said(outcome)}")


def _said(outcome: Outcome) -> str:
    if outcome.wrong is not None:
        return f"WRONG: {outcome.wrong}"
    if outcome.failed is not None:
        return outcome.failed
    if outcome.p99_ms is not None:
        return f"p50 {outcome.p50_ms:.1f} ms, p99 {outcome.p99_ms:.1f} ms"
    return f"{outcome.records_per_s:,.0f} records/s, {outcome.cpu_us_per_record:.1f} us"
