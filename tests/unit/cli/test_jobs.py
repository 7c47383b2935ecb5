"""``pf jobs``: what is known without Kafka, and what is found wrong before anything is sent."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pf_stream.cli import jobs
from pf_stream.cli.jobs import _row, _short, _state
from pf_stream.errors import NotFoundError
from pf_stream.temporal.reactor import Jobs

SHOP = """
from typing import Annotated
from pf_stream import PUBLIC, Effects, Intent, Key, Reactor, Service, State, Topology, on
from pf_stream.temporal import JobRun, job, jobs

class Ping(Intent, name="ping", requires=PUBLIC):
    host: Annotated[str, Key]

class Seen(State):
    count: int = 0

class Watcher(Reactor[Seen], id="watcher"):
    @on
    def pinged(self, intent: Ping, state: Seen, ctx: object) -> None: ...

@job(cron="0 2 * * *", tz="Europe/Berlin")
def nightly(run: JobRun) -> Effects:
    return None

plain = Topology("plain", [Watcher])
shop = Topology("shop", [Watcher], parts=[jobs(nightly, service=Service(7, ["StateCap.read:/"]))])
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobshop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("PF_CONTEXT", "PF_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PF_TOPOLOGY", "jobshop:shop")
    monkeypatch.setenv("PF_BOOTSTRAP_SERVERS", "nobody.invalid:1")


def run(*args: str) -> Result:
    return CliRunner().invoke(jobs.app, list(args))


def test_the_next_times() -> None:
    done = run("next", "nightly", "--count", "3", "--after", "2026-03-27T12:00:00Z", "-o", "json")
    assert done.exit_code == 0, done.stderr
    assert [row["nominal"] for row in json.loads(done.stdout)] == [
        "2026-03-28T01:00:00.000Z",
        "2026-03-29T01:00:00.000Z",
        "2026-03-30T00:00:00.000Z",
    ]
    assert len(json.loads(run("next", "nightly", "-o", "json").stdout)) == 5


def test_a_backfill_says_first_what_it_would_do() -> None:
    span = ("--from", "2026-03-01T00:00:00Z", "--until", "2026-03-03T00:00:00Z")
    done = run("backfill", "nightly", *span, "-o", "json")
    assert [row["nominal"] for row in json.loads(done.stdout)] == [
        "2026-03-01T01:00:00.000Z",
        "2026-03-02T01:00:00.000Z",
    ]
    assert "nothing is sent without --execute" in done.stderr


@pytest.mark.parametrize(
    "verb", ["list", "next x", "pause x", "resume x", "trigger x", "cancel x", "backfill x --from 1d"]
)
def test_a_topology_without_jobs(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PF_TOPOLOGY", "jobshop:plain")
    done = run(*verb.split())
    assert done.exit_code == 3
    assert "topology 'plain' has no jobs" in done.stderr


def test_a_name_that_cannot_be_one() -> None:
    assert run("pause", "Nightly").exit_code != 0


class NoStates:
    """States of jobs, of which there are none."""

    spec = Jobs.__reactor__

    def get(self, key: bytes) -> None:
        return None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nightly", "no lane knows the job 'nightly' yet"),
        ("nigthly", "there is no job 'nigthly'; did you mean 'nightly'?"),
    ],
)
def test_a_job_that_nobody_knows(name: str, message: str) -> None:
    nightly: Any = None

    class Known(Jobs, id="jobs"):
        declared = {"nightly": nightly}  # noqa: RUF012

    states: Any = NoStates()
    with pytest.raises(NotFoundError, match=re.escape(message)):
        _state(states, Known, name)


def test_times_are_shown_as_times() -> None:
    state = {
        "next_ms": 1_772_499_600_000,
        "last_ms": None,
        "waiting_ms": None,
        "backfill_ms": None,
        "backfill_end_ms": 0,
        "backfilled_ms": 0,
        "definition": '{"timetable": "cron"}',
        "made": "",
        "paused": False,
        "late_ms": 7,
        **dict.fromkeys(("missed", "skipped", "failed", "cancelled", "overdue"), 0),
    }
    row = _row("nightly", {**state, "running": {"1772499600000": 1}, "missed": 2})
    assert (row["timetable"], row["made"]) == ("cron", None)
    assert _short(row) == {
        "job": "nightly",
        "next": "2026-03-03T01:00:00Z",
        "last": None,
        "late": None,
        "running": 1,
        "trouble": "2 missed",
    }
    assert _short(row | {"paused": True, "last": "2026-03-03T01:00:00.000Z"})["next"] == "paused"
    assert _short({"job": "new"})["trouble"] == "no lane knows it yet"
    assert (row["next"], row["last"], row["missed"]) == ("2026-03-03T01:00:00.000Z", None, 2)
    assert row["running"] == ["2026-03-03T01:00:00.000Z"]
