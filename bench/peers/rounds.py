"""Engines in turn, round by round, on a broker of their own."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from rich.console import Console

from bench.peers.environments import MissingError
from bench.peers.processes import Cores, StuckError
from bench.peers.progress import Outcome
from pf_stream.kafka.dev import BrokerInfo, DevBroker

__all__ = ["Rounds", "broker_of"]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Cell(Protocol):
    @property
    def engine(self) -> _Named: ...


C = TypeVar("C", bound=_Cell)


@contextmanager
def broker_of(cores: Cores) -> Iterator[BrokerInfo]:
    """Kafka on its core, and this process where the rig is."""
    if cores.broker is not None:
        os.sched_setaffinity(0, {cores.broker})
    with DevBroker.temporary() as broker:
        if cores.rig is not None:
            os.sched_setaffinity(0, {cores.rig})
        yield broker


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
                except StuckError as error:
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
