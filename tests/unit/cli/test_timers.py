"""``pf timers``: what is found wrong before Kafka is asked, and how times are shown."""

import pytest
from typer.testing import CliRunner, Result

from pf_stream.cli import timers
from pf_stream.cli.timers import _row
from pf_stream.components.timers import WaitingTimer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PF_NAMESPACE", raising=False)
    monkeypatch.setenv("PF_TOPOLOGY", "tests.unit.core.reminders:notes")
    monkeypatch.setenv("PF_BOOTSTRAP_SERVERS", "nobody.invalid:1")


def run(*args: str) -> Result:
    return CliRunner().invoke(timers.app, list(args))


@pytest.mark.parametrize("verb", ["show", "cancel", "fire"])
@pytest.mark.parametrize("text", ["notes", "notes:1", "notes:1:x", "notes:-1:2"])
def test_a_timer_is_written_as_it_is_listed(verb: str, text: str) -> None:
    done = run(verb, text)
    assert done.exit_code == 1
    assert "bad_timer" in done.stderr
    assert "GROUP:PARTITION:OFFSET" in done.stderr


def test_a_time_that_is_none() -> None:
    done = run("list", "--due-before", "soon")
    assert done.exit_code == 2


def test_times_are_shown_as_times_however_late() -> None:
    timer = WaitingTimer("notes:0:1", "notes", 0, "notes", "n", None, None, "event", 0, None)
    assert (_row(timer)["due"], _row(timer)["deadline"]) == ("1970-01-01T00:00:00.000Z", None)
    far = WaitingTimer("notes:0:1", "notes", 0, "notes", "n", None, None, "event", 1 << 60, None)
    assert _row(far)["due"] == "9999-12-31T23:59:59.000Z"
