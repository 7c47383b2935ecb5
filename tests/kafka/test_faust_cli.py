"""``faust -A pf_stream.worker.faust``: a topology as Faust's own command line shows it. Needs no broker."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kafka._support import ROOT

FAUST = Path(sys.executable).with_name("faust")
FLIGHTS = str(ROOT / "topologies/flights/reactors.yaml")


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def said() -> dict[str, Said]:
    """All commands of these tests at once, since each takes a second to start."""
    commands = {
        "agents": (["--json", "agents"], FLIGHTS, "spring"),
        "tables": (["--json", "tables"], FLIGHTS, ""),
        "worker": (["worker", "--without-web"], FLIGHTS, ""),
        "nowhere": (["agents"], "nowhere.yaml", ""),
    }
    running = {}
    for name, (arguments, topology, namespace) in commands.items():
        environment = {**os.environ, "PF_TOPOLOGY": topology, "PF_NAMESPACE": namespace}
        running[name] = subprocess.Popen(
            [str(FAUST), "-A", "pf_stream.worker.faust", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    answers = {name: process.communicate(timeout=60) for name, process in running.items()}
    return {name: Said(running[name].returncode, out, err) for name, (out, err) in answers.items()}


def test_agents_are_the_reactors(said: dict[str, Said]) -> None:
    assert said["agents"].code == 0
    assert {(agent["name"], agent["topic"]) for agent in json.loads(said["agents"].out)} == {
        ("@fleet", "spring.intents"),
        ("@board", "spring.airports"),
        ("@carriers", "spring.carriers"),
    }


def test_tables_are_the_groups(said: dict[str, Said]) -> None:
    assert said["tables"].code == 0
    assert {table["name"] for table in json.loads(said["tables"].out)} == {"intents", "airports", "carriers"}


def test_worker_is_refused(said: dict[str, Said]) -> None:
    assert said["worker"].code != 0
    assert "pf worker run" in said["worker"].err


def test_a_topology_that_cannot_be_had_is_one_line(said: dict[str, Said]) -> None:
    assert said["nowhere"].code != 0
    assert len(said["nowhere"].err.strip().splitlines()) == 1
    assert said["nowhere"].err.startswith("error (not_found)")
