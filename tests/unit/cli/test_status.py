"""``pf status``: what is printed of what workers tell."""

import dataclasses
import json

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from pf_stream.cli import _build
from pf_stream.clock import WallClock
from pf_stream.components import status
from pf_stream.components.registry import Component
from pf_stream.core.status import LaneState, LaneStatus, SinkState, SinkStatus

RUNNING = LaneStatus(
    "intents", "log", 0, LaneState.running, positions={"t": 5}, lag=3, handled=5, rate=41.6, commit_p99_ms=7.4
)
RECOVERING = LaneStatus("intents", "log", 1, LaneState.recovering, progress=0.4, recovery_rate=210_000, left_s=3.4)
PAUSED = LaneStatus("totals", "log", 0, LaneState.paused, until_ms=1_767_225_600_000)
STOPPED = LaneStatus(
    "totals", "log", 1, LaneState.stopped, code="state_undecodable", reason="reactor 'fleet' has a state under [bold]N1"
)


def worker(*lanes: LaneStatus, silent_ms: int = 0) -> Component:
    heard_ms = WallClock().now_ms() - silent_ms
    return Component("worker", "flights-0", "1", "flights", "flights", "flights-0", (), (), heard_ms, heard_ms, lanes)


def pf_status(monkeypatch: pytest.MonkeyPatch, *found: Component, output: str = "table") -> Result:
    monkeypatch.setattr(status, "components", lambda _: list(found))
    environment = {"COLUMNS": "60", "PF_BOOTSTRAP_SERVERS": "nobody.invalid:1"}
    return CliRunner().invoke(_build(), ["status", "-o", output], env=environment)


def test_every_state_is_told_in_sixty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    done = pf_status(monkeypatch, worker(RUNNING, RECOVERING, PAUSED, STOPPED))
    assert done.exit_code == 5
    assert max(map(len, done.stdout.splitlines())) <= 60
    words = " ".join(done.stdout.split())
    assert "flights-0 - 3 42 7 ms running" in words
    assert "- intents-0 3 42 7 ms running" in words
    assert "intents-1 - - - recovering 40 %, 210,000/s, 3 s left" in words
    assert "2026-01-01T00:00:00.000Z" in words.replace(" ", ""), "whole, if folded"
    assert "stopped: state_undecodable:" in words
    assert "[bold]N1" in words


def test_a_worker_has_the_sums_of_its_lanes_and_the_slowest_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(RUNNING, partition=2, lag=10, rate=0.6, commit_p99_ms=30.2)
    done = pf_status(monkeypatch, worker(RUNNING, other))
    assert "flights-0 - 13 42 30 ms running" in " ".join(done.stdout.split())


def test_a_healthy_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    done = pf_status(monkeypatch, worker(RUNNING, RECOVERING, PAUSED))
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_lost_worker_is_told_without_its_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    done = pf_status(monkeypatch, worker(RUNNING, silent_ms=100_000))
    assert done.exit_code == 5
    assert "lost: not heard of for 1" in " ".join(done.stdout.split())
    assert "intents-0" not in done.stdout


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    done = pf_status(monkeypatch)
    assert done.exit_code == 0
    assert "no worker has announced itself" in done.stderr


def test_json_has_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.loads(pf_status(monkeypatch, worker(PAUSED, STOPPED), output="json").stdout)
    assert set(data) == {"healthy", "workers", "unassigned"}
    (one,) = data["workers"]
    assert set(one) == {"worker", "app", "status", "started", "heartbeat", "lanes", "sinks", "tables"}
    paused, stopped = one["lanes"]
    assert set(paused) == {field.name for field in dataclasses.fields(LaneStatus)} - {"until_ms"} | {"lane", "until"}
    assert paused["until"] == "2026-01-01T00:00:00.000Z"
    assert (stopped["lane"], stopped["state"], stopped["code"]) == ("totals-1", "stopped", "state_undecodable")


def test_sinks_stand_below_the_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    full = SinkStatus("warehouse", 0, SinkState.full, lag=70_000, dropped={"oldest": 1_200, "memory": 3})
    failing = SinkStatus("warehouse", 1, SinkState.retrying, code="OSError", reason="OSError: away")
    one = dataclasses.replace(worker(RUNNING), sinks=(full, failing))
    done = pf_status(monkeypatch, one)
    assert done.exit_code == 0
    words = " ".join(done.stdout.split())
    assert "> warehouse-0 70000 - - full, 1,203 dropped" in words
    assert "> warehouse-1 - - - retrying: OSError: away" in words
    (told, _) = json.loads(pf_status(monkeypatch, one, output="json").stdout)["workers"][0]["sinks"]
    assert set(told) == {field.name for field in dataclasses.fields(SinkStatus)}
    assert (told["sink"], told["state"], told["dropped"]) == ("warehouse", "full", {"oldest": 1_200, "memory": 3})
    stopped = dataclasses.replace(full, state=SinkState.stopped)
    assert pf_status(monkeypatch, dataclasses.replace(one, sinks=(stopped,))).exit_code == 5


def test_yaml_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    done = pf_status(monkeypatch, worker(PAUSED, STOPPED), output="yaml")
    assert done.exit_code == 5
    same = pf_status(monkeypatch, worker(PAUSED, STOPPED), output="json")
    read, data = YAML(typ="safe", pure=True).load(done.stdout), json.loads(same.stdout)
    assert read["workers"][0]["lanes"] == data["workers"][0]["lanes"]
