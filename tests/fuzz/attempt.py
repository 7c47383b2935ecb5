"""One input by its number: made, tried, and judged. The number and the seed are all that it depends on."""

import time
from dataclasses import dataclass
from random import Random
from typing import Final

from pf_stream.security import Verifier
from tests.fuzz.records import Checker, Input, random_record
from tests.fuzz.tokens import ROOTS, check_token, random_token
from tests.unit.security.cases import AUDIENCE

__all__ = ["Attempt", "Fuzzer"]

_RECORDS: Final = 0.3
"""Share of inputs that are whole records."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of an input."""

    given: bytes | Input
    """A token, or a record."""
    outcome: str
    """``token`` or ``record``, and what it came to in one word: a code if it was refused."""
    fault: BaseException | None
    """What should not have happened."""
    ms: float
    """How long it took to judge, in milliseconds of processor time: other processes do not count."""


class Fuzzer:
    """Makes and tries the inputs of a seed. What it keeps from one to the next are caches, as a worker does."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._verifier = Verifier(ROOTS, AUDIENCE)
        self._checker = Checker(self._verifier)

    def attempt(self, number: int) -> Attempt:
        """Try one input."""
        # A seed that is text is hashed by SHA-512, not by the process's own hash.
        rng = Random(f"{self._seed}:{number}")  # noqa: S311 - to be repeated is what these dice are for
        given: bytes | Input = random_record(rng) if rng.random() < _RECORDS else random_token(rng)
        started = time.thread_time()
        fault: BaseException | None = None
        try:
            if isinstance(given, Input):
                outcome = f"record {self._checker.check(given)}"
            else:
                outcome = f"token {check_token(given, rng, self._verifier)}"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception, and just what is looked for
            outcome, fault = "failed", error
        return Attempt(given, outcome, fault, 1000 * (time.thread_time() - started))
