"""A short run of the fuzzer, and that it is what it claims to be: it replays, it gets far, and it finds what is wrong."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from secrets import randbits
from typing import Any

import pytest

from pf_stream.core import admission
from pf_stream.security import Claims, _block, profile
from tests.fuzz import records
from tests.fuzz.__main__ import shown, tried
from tests.fuzz.attempt import Fuzzer

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
DIGEST = "from tests.fuzz.test_fuzz import digest; print(digest(5, 200))"


def digest(seed: int, inputs: int) -> str:
    """What the first inputs of a seed are, and what becomes of them."""
    fuzzer = Fuzzer(seed)
    attempts = [fuzzer.attempt(number) for number in range(inputs)]
    return sha256(repr([(one.given, one.outcome) for one in attempts]).encode("utf-8", "surrogatepass")).hexdigest()


def test_nothing_happens_that_is_not_declared() -> None:
    """Other inputs each time; a failure says how to have it again."""
    seed = randbits(32)
    fuzzer = Fuzzer(seed)
    for number in range(2_000):
        one = fuzzer.attempt(number)
        assert one.fault is None, shown(seed, number, one)


def test_an_input_replays() -> None:
    """In another process, where sets have another order and keys are made anew."""
    again = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": PATHS},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert again.stdout.strip() == digest(5, 200)


def test_an_input_does_not_depend_on_those_before_it() -> None:
    fuzzer = Fuzzer(5)
    for number in (*range(300), 250):
        last = fuzzer.attempt(number)
    alone = Fuzzer(5).attempt(250)
    assert (last.given, last.outcome) == (alone.given, alone.outcome)


def test_inputs_get_far() -> None:
    """Most codes are met within a few thousand inputs, and what is accepted is not rare."""
    found = tried((5, range(4_000)))
    assert found.failures == []
    outcomes = found.outcomes
    assert outcomes.total() == 4_000
    assert min(outcomes["token closed"], outcomes["token open"], outcomes["record handled"]) > 100
    of_tokens, of_records = (
        {outcome.removeprefix(kind) for outcome in outcomes if outcome.startswith(kind)}
        for kind in ("token ", "record ")
    )
    assert {"bad_signature", "malformed_token", "too_many_blocks", "unknown_key", "wrong_audience"} <= of_tokens
    # The first depend on handlers and on the worker's end, the next on requirements that these types do not have, the others
    # take more inputs.
    never = {"poison", "bad_state", "bad_effect", "unit_too_large", "handler_failed"}
    never |= {"denied_by_rule", "wrong_caller", "authentication_too_old"}
    never |= {"outside_hours", "in_maintenance", "too_early", "too_late", "sink_failed"}
    rare = {
        "limits_reached",
        "undecidable",
        "token_too_large",
        "too_many_blocks",
        "too_many_hops",
        "not_before",
        "not_now",
    }
    assert records.CODES - of_records <= never | rare


def test_the_command_tells_how_many_became_what() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", "600", "--seed", "5"],
        env=os.environ | {"PYTHONPATH": PATHS},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    first, *lines, last = done.stdout.splitlines()
    assert first == "seed 5"
    told = [line.split(maxsplit=1) for line in lines if line.startswith(" ")]
    expected = tried((5, range(600))).outcomes
    assert {outcome: int(count) for count, outcome in told} == expected
    assert re.match(r"600 inputs, \d+ accepted, 0 failed, seed 5; the slowest, input \d+, took ", last)


def _valid(*_: object) -> None:
    return None


def _time(text: bytes) -> int:
    return round(float(text))


MUTANTS: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "a reader that raises something else": (_block, "text", lambda data: data.decode()),
    "a profile that takes the wrong operator": (profile, "_LESS", _block.Op(3, 2)),  # type: ignore[dict-item]
    "a token that never expires": (Claims, "valid_at", _valid),
    "a lane that raises": (admission, "parse_time_ms", _time),
    "repetitions that are not seen": (admission.Admission, "is_repeat", lambda self, delivery: False),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_wrong_is_found(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, wrong)
    fuzzer = Fuzzer(5)
    assert any(fuzzer.attempt(number).fault is not None for number in range(4_000))
