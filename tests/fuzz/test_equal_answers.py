"""A hundred thousand requests, each decided twice: by compiled claims, and by Biscuit's authoriser."""

from collections import Counter
from random import Random

import pytest

from tests.unit.security.cases import (
    Case,
    another_request,
    append,
    biscuit,
    by_authoriser,
    claims,
    decided,
    random_case,
)

SEEDS = range(10)
TOKENS = 100
"""Per seed; every tenth is open."""
REQUESTS = 100
"""Per token."""


def forms(case: Case) -> list[str]:
    """What the token of *case* has in it."""
    later = case.narrowings
    said = {
        "narrowed": bool(later),
        "narrowed often": len(later) > 1,
        "request": any(one.capabilities for one in later),
        "false": any(one.capabilities == () for one in later),
        "type": case.intent_types is not None,
        "type, narrowed": any(one.intent_types is not None for one in later),
        "topic": case.topics is not None,
        "topic, narrowed": any(one.topics is not None for one in later),
        "start": case.not_before_ms is not None,
        "end, narrowed": any(one.expires_ms is not None for one in later),
        "during": case.during is not None,
        "during, narrowed": any(one.during is not None for one in later),
        "during, of several": any(one.during is not None and len(one.during) > 1 for one in later),
        "limited right": any(right.during is not None for right in case.rights),
        "limited and other rights": len({right.during is None for right in case.rights}) == 2,
    }
    return [form for form, there in said.items() if there]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
def test_equal(seed: int) -> None:
    """Both answers, every code and every form are common in each part of the hundred thousand."""
    rng = Random(seed)  # noqa: S311 - a seed, not a secret
    codes: Counter[str | None] = Counter()
    open_codes: Counter[str | None] = Counter()
    said: Counter[str] = Counter()
    for number in range(TOKENS):
        case = random_case(rng)
        token = case.token() if number % 10 else append(case.token(), "check if true")
        seen, judge = claims(token), biscuit(token)
        assert seen.closed == bool(number % 10)
        said.update(forms(case))
        for _ in range(REQUESTS):
            case = another_request(rng, case)
            refusal = decided(case, seen)
            assert (refusal is None) == by_authoriser(case, judge), (case, refusal)
            (codes if seen.closed else open_codes)[None if refusal is None else refusal.code] += 1
    assert (codes + open_codes).total() == 10_000
    assert codes.keys() == {
        None,
        "token_expired",
        "token_not_yet_valid",
        "not_now",
        "insufficient_capabilities",
        "wrong_intent_type",
        "wrong_topic",
    }
    assert min(codes.values()) >= 200, codes
    assert open_codes.keys() <= codes.keys()
    assert len(open_codes) >= 6, open_codes
    assert open_codes[None] >= 100, open_codes
    assert len(said) == 15, said
    assert min(said.values()) >= 3, said
