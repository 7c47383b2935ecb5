"""Timers listed, shown, cancelled and fired on a real broker."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from pf_stream.cli import _build
from tests.kafka._support import in_thread, name_in, wait_until
from tests.kafka.test_positions import forgotten
from tests.kafka.test_timers import Sender, expect, log, prepared


def pf(sender: Sender, *args: str, code: int = 0) -> Any:
    """A command about timers; what it says on stderr if it prints nothing."""
    environment = {
        "PF_BOOTSTRAP_SERVERS": sender.bootstrap_servers,
        "PF_NAMESPACE": sender.topology.namespace,
        "PF_TOPOLOGY": "tests.kafka.alarms:alarms",
    }
    done = CliRunner().invoke(_build(), ["timers", *args, "-o", "json"], env=environment)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if done.stdout else done.stderr


def waiting(sender: Sender, *args: str) -> dict[str, str]:
    """Where timers lie, by name, in the order of their times."""
    return {row["name"]: row["timer"] for row in pf(sender, "list", *args)}


@pytest.mark.timeout(120)
def test_one_is_cancelled_one_fired_and_one_left(bootstrap_servers: str, unique: str) -> None:
    topology, sender = prepared(bootstrap_servers, unique)
    alarm, other = name_in(0, topology), name_in(1, topology)
    with in_thread(bootstrap_servers, topology, session_s=6) as worker:
        sender.tell("set", alarm, after=3600, name="first")
        sender.tell("set", alarm, after=7200, name="second")
        sender.tell("set", other, after=5400, name="third")
        sender.flush()
        wait_until(lambda: len(log(worker, alarm)) == 2 and len(log(worker, other)) == 1)
        at = waiting(sender)
        assert "error (workers_running)" in pf(sender, "cancel", at["first"], "--execute", code=1)
    forgotten(sender)

    assert list(at) == ["first", "third", "second"]
    assert waiting(sender) == at
    assert list(waiting(sender, "--reactor", "alarms", "--key", alarm)) == ["first", "second"]
    assert waiting(sender, "--reactor", "rings") == waiting(sender, "--due-before", "0s") == {}
    assert "did you mean 'alarms'" in pf(sender, "list", "--reactor", "alarm", code=3)
    shown = pf(sender, "show", at["second"])
    assert shown["intent"] == {"alarm": alarm, "text": "second"}
    assert (shown["type"], shown["clock"], shown["subject"]) == ("alarms.ring.v1", "wall", None)

    for verb in ("cancel", "fire"):
        assert pf(sender, verb, at["first"])[0]["name"] == "first"
    assert waiting(sender) == at
    pf(sender, "cancel", at["first"], "--execute")
    assert list(waiting(sender)) == ["third", "second"]
    assert "error (no_timer)" in pf(sender, "cancel", at["first"], "--execute", code=3)
    pf(sender, "fire", at["second"], "--execute")
    assert list(waiting(sender)) == ["second", "third"]
    assert list(waiting(sender, "--due-before", "0s")) == ["second"]

    with in_thread(bootstrap_servers, topology) as worker:
        expect(worker, alarm, ["second in time"], "rings")
        assert log(worker, alarm) == ["set first", "set second", "ring second"]
        assert log(worker, other) == ["set third"]
    assert waiting(sender) == {"third": at["third"]}
    assert not sender.dead_letters()
