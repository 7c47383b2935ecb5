"""``faust -A pf_stream.topology.faust``: a topology as Faust's own command line shows it. Needs no broker."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kafka._support import ROOT

FAUST = Path(sys.executable).with_name("faust")
FLIGHTS = ROOT / "topologies/flights/topology.yaml"


def faust(*arguments: str, topology: str = str(FLIGHTS), namespace: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PF_TOPOLOGY": topology, "PF_NAMESPACE": namespace, "COLUMNS": "200"}
    command = [str(FAUST), "-A", "pf_stream.topology.faust", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def shown(*arguments: str, namespace: str = "") -> Any:
    done = faust("--json", *arguments, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_agents_are_the_reactors() -> None:
    assert {(agent["name"], agent["topic"]) for agent in shown("agents", namespace="spring")} == {
        ("@fleet", "spring.intents"),
        ("@board", "spring.airports"),
        ("@carriers", "spring.carriers"),
    }


def test_tables_are_the_groups() -> None:
    assert {table["name"] for table in shown("tables")} == {"intents", "airports", "carriers"}


def test_worker_is_refused() -> None:
    done = faust("worker", "--without-web")
    assert done.returncode != 0
    assert "pf worker run" in done.stderr


def test_a_topology_that_cannot_be_had_is_one_line() -> None:
    done = faust("agents", topology="nowhere.yaml")
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error (not_found)")
