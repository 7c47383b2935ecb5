"""A short campaign of every harm but the long silence; ``make chaos`` runs longer ones."""

from pathlib import Path

import pytest

from tests.chaos.campaign._campaign import Plan, run_campaign
from tests.chaos.campaign._checks import differences_of_state
from tests.chaos.campaign._tracker import Expected
from tests.kafka._support import Durable

SEED = 20


@pytest.mark.timeout(400)  # a broker that is killed comes back late on a machine that is busy
def test_nothing_is_lost_doubled_or_missing_whatever_happens(tmp_path: Path) -> None:
    report = run_campaign(Plan(SEED, seconds=20, brokers=1), tmp_path, print)
    print("\n".join(report.lines()))  # noqa: T201 - shown if this fails, with the seed
    assert report.differences == []
    assert report.commands > 1000
    assert report.actions.total() >= 4
    before, after = report.records
    assert after < before


def test_a_difference_is_seen() -> None:
    expected = Expected(
        accounts={"a": {"balance": 1, "chain": 2, "text": "", "rings": 0}},
        ledgers={"x": {"received": 1, "count": 1, "marks": 1}},
    )
    lost = Durable({("accounts", "a"): {"balance": 1, "chain": 2, "text": "", "rings": 0}}, {}, [], {}, [])
    assert differences_of_state(lost, expected) == [
        "ledgers x: None instead of {'received': 1, 'count': 1, 'marks': 1}"
    ]
    doubled = Durable(
        {
            ("accounts", "a"): {"balance": 2, "chain": 3, "text": "", "rings": 0},
            ("ledgers", "x"): {"received": 1, "count": 1, "marks": 1},
        },
        {},
        [b"output"],
        {},
        [b"a timer"],
    )
    assert differences_of_state(doubled, expected) == [
        (
            "accounts a: {'balance': 2, 'chain': 3, 'text': '', 'rings': 0} "
            "instead of {'balance': 1, 'chain': 2, 'text': '', 'rings': 0}"
        ),
        "timers: 1 instead of 0, as [\"b'a timer'\"]",
        "1 outputs are not marked as sent",
    ]
