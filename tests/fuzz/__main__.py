"""``make fuzz``: many inputs, or one again. Prints what is needed to replay a failure; exits with 1 if there is one."""

import argparse
import multiprocessing
import os
import secrets
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz.attempt import Attempt, Fuzzer

CHUNK: Final = 500
"""Inputs that a process tries in one go."""
PATIENCE_S: Final = 120
"""How long the slowest of them may take together: what takes longer hangs, or has ended its process."""
MOST_FAILURES: Final = 20
ACCEPTED: Final = ("token closed", "token open", "record handled", "record waits", "record sent on", "record repeat")
"""Outcomes that are no refusals."""


@dataclass(slots=True)
class Figures:
    """What became of a range of inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How many, by outcome."""
    slowest: tuple[float, int] = (0.0, 0)
    """Milliseconds and number of the slowest one."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Number and text of those that failed."""

    def add(self, other: "Figures") -> None:
        self.outcomes += other.outcomes
        self.slowest = max(self.slowest, other.slowest)
        self.failures += other.failures


def shown(seed: int, number: int, tried: Attempt) -> str:
    """An input, and what is wrong with it, for people."""
    given = tried.given.hex() if isinstance(tried.given, bytes) else repr(tried.given)
    text = f"input {number} of seed {seed}: {tried.outcome} in {tried.ms:.1f} ms\n{given}"
    if tried.fault is not None:
        text += f"\n{''.join(traceback.format_exception(tried.fault))}"
        text += f"replay with: python -m tests.fuzz --seed {seed} --replay {number}"
    return text


def tried(work: tuple[int, range]) -> Figures:
    """Try a range of inputs of a seed."""
    seed, numbers = work
    figures = Figures()
    fuzzer = Fuzzer(seed)
    for number in numbers:
        one = fuzzer.attempt(number)
        figures.outcomes[one.outcome] += 1
        figures.slowest = max(figures.slowest, (one.ms, number))
        if one.fault is not None:
            figures.failures.append((number, shown(seed, number, one)))
    return figures


def campaign(seed: int, inputs: int) -> Figures:
    """Try them all, in as many processes as there are processors."""
    ranges = [range(start, min(start + CHUNK, inputs)) for start in range(0, inputs, CHUNK)]
    total = Figures()
    started = told = time.monotonic()
    with multiprocessing.Pool(min(len(ranges), os.cpu_count() or 1)) as pool:
        results = pool.imap(tried, [(seed, numbers) for numbers in ranges])
        for numbers in ranges:
            try:
                found = results.next(PATIENCE_S)
            except multiprocessing.TimeoutError:
                found = Figures(
                    failures=[
                        (
                            numbers.start,
                            f"inputs {numbers[0]} to {numbers[-1]} of seed {seed} do not end, or ended their process",
                        )
                    ]
                )
            total.add(found)
            for _, text in found.failures:
                sys.stdout.write(f"{text}\n\n")
            now = time.monotonic()
            if now - told > 10 or numbers is ranges[-1]:
                told = now
                done = numbers.stop
                sys.stdout.write(f"{done:,} of {inputs:,} inputs, {done / (now - started):,.0f} a second, ")
                sys.stdout.write(f"{len(total.failures)} failed\n")
            sys.stdout.flush()
            if len(total.failures) >= MOST_FAILURES or not found.outcomes:
                break
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many")
    parser.add_argument("--seed", type=int, help="what decides them; another each time by default")
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="this input of the seed alone")
    arguments = parser.parse_args()
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    if arguments.replay is not None:
        one = Fuzzer(seed).attempt(arguments.replay)
        sys.stdout.write(f"{shown(seed, arguments.replay, one)}\n")
        return 0 if one.fault is None else 1
    sys.stdout.write(f"seed {seed}\n")
    total = campaign(seed, arguments.inputs)
    for outcome, count in total.outcomes.most_common():
        sys.stdout.write(f"{count:>10,}  {outcome}\n")
    inputs, accepted = total.outcomes.total(), sum(total.outcomes[outcome] for outcome in ACCEPTED)
    sys.stdout.write(f"{inputs:,} inputs, {accepted:,} accepted, {len(total.failures)} failed, seed {seed}; ")
    ms, number = total.slowest
    sys.stdout.write(f"the slowest, input {number}, took {ms:.1f} ms\n")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
