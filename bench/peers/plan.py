"""What is to be measured, as the command line says it."""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from bench.peers.engines import ENGINES, JOBS, Engine

__all__ = ["Cell", "Keys", "Plan", "count", "parse", "some"]

Keys = Literal["hot", "distinct"]
"""``hot``: 1,000 of them; ``distinct``: another for each record."""

KEYS: Final = get_args(Keys)
NAMES: Final = tuple(dict.fromkeys(engine.name for engine in ENGINES))
RATES: Final = (1_000, 20_000)
QUICK_RECORDS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Cell:
    """An engine at a job."""

    engine: Engine
    """Which."""
    job: str
    """One of :data:`JOBS`."""
    keys: Keys
    """Of the records."""
    rate: int | None
    """Records a second, where latency is measured; else as many as go."""

    def __str__(self) -> str:
        what = f"{self.engine.name} ({self.engine.guarantee}), {self.job}, {self.keys} keys"
        return what if self.rate is None else f"{what}, {self.rate:,}/s"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    rounds: int
    """How often."""
    records: int
    """In each run of throughput; slow engines get a part of them."""
    engines: Sequence[str]
    """Names."""
    jobs: Sequence[str]
    """For throughput."""
    keys: Sequence[Keys]
    """For throughput."""
    rates: Sequence[int]
    """For latency, records a second."""
    quick: bool
    """Whether it is to see that all works, more than to measure: each engine once."""

    def cells(self) -> list[Cell]:
        """Those of one round, in its order: what is compared comes together."""
        engines = [engine for engine in ENGINES if engine.name in self.engines]
        if self.quick:
            engines = [next(engine for engine in engines if engine.name == name) for name in self.engines]
            return [Cell(engine, engine.jobs[-1], self.keys[0], None) for engine in engines] + list(
                self._paced(engines)
            )
        return [
            Cell(engine, job, keys, None)
            for job in self.jobs
            for keys in self.keys
            for engine in engines
            if job in engine.jobs
        ] + list(self._paced(engines))

    def _paced(self, engines: Sequence[Engine]) -> Iterator[Cell]:
        for rate in self.rates:
            yield from (Cell(engine, JOBS[-1], "hot", rate) for engine in engines if JOBS[-1] in engine.jobs)


def parse(arguments: Sequence[str]) -> Plan:
    """Read the command line; ends the process with a usage message if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="pf_stream beside its peers.")
    parser.add_argument("--rounds", type=count, default=os.environ.get("ROUNDS", "3"), help="(ROUNDS) 3")
    parser.add_argument("--records", type=count, help="in each run of throughput; 1000000")
    parser.add_argument("--engines", type=some(NAMES), default=NAMES, help=f"of: {', '.join(NAMES)}; all")
    parser.add_argument("--jobs", type=some(JOBS), default=JOBS, help=f"of: {', '.join(JOBS)}; both")
    parser.add_argument("--keys", type=some(KEYS), default=KEYS, help=f"of: {', '.join(KEYS)}; both")
    parser.add_argument("--rates", type=_rates, help="for latency, records a second; 1000,20000; none: 0")
    parser.add_argument("--quick", action="store_true", help="each engine once, for two minutes; writes nothing")
    given = parser.parse_args(arguments)
    quick = given.quick
    return Plan(
        rounds=1 if quick else given.rounds,
        records=given.records or (QUICK_RECORDS if quick else 1_000_000),
        engines=given.engines,
        jobs=given.jobs,
        keys=given.keys,
        rates=given.rates if given.rates is not None else () if quick else RATES,
        quick=quick,
    )


def count(text: str) -> int:
    """A number of the command line, 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few")
    return number


def some(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Reads names with commas between them, each one of *known*."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are: {', '.join(known)}")
        return names

    return read


def _rates(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(",")) if text != "0" else ()
