"""Workers as operators see them: supervised, watched, asked how they do."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from pf_stream import Topology
from pf_stream.components.registry import Component, components
from pf_stream.core.status import LaneState, LaneStatus
from pf_stream.engine.watchdog import EXIT_HUNG
from tests.kafka._support import (
    ROOT,
    Client,
    ProcessWorker,
    connection,
    counts,
    durable,
    in_process,
    in_thread,
    make_topics,
    name_in,
    now_ms,
    wait_until,
)
from tests.kafka.alarms import alarms


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def same(found: object, wanted: object) -> None:
    assert found == wanted


def workers(client: Client) -> dict[str, Component]:
    """What the registry says of the topology's workers."""
    found = components(connection(client.bootstrap_servers))
    return {one.name: one for one in found if one.kind == "worker" and one.app == client.topology.app_id}


def lanes(client: Client, worker: str) -> dict[str, str]:
    """State of each lane of a worker."""
    found = workers(client)
    return {lane.name: lane.state.value for lane in found[worker].lanes} if worker in found else {}


# -- several processes ----------------------------------------------------------------------------------------------------


def children(worker: ProcessWorker) -> list[psutil.Process]:
    return psutil.Process(worker.process.pid).children()


def all_lanes_run(client: Client, *names: str) -> None:
    found = [lanes(client, name) for name in names]
    assert all(found), found  # each has some
    assert sorted(lane for of_one in found for lane in of_one) == ["intents-0", "intents-1", "totals-0", "totals-1"]
    assert {state for of_one in found for state in of_one.values()} == {"running"}


def test_killed_workers_come_back_and_all_drain(client: Client, tmp_path: Path) -> None:
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    with in_process(client.bootstrap_servers, client.topology, tmp_path, "--processes", "2") as worker:
        wait_until(lambda: all_lanes_run(client, "w0-0", "w0-1"), within=60)
        for process in children(worker):
            for name in names:
                client.add(name, 200)
            client.flush()
            killed = name_of(process)
            process.kill()
            worker.wait_for(f"how='killed by SIGKILL' in_s=1.0 worker={killed}")
        worker.wait_for("worker process started", times=4)
        wait_until(lambda: same(durable(client.bootstrap_servers, client.topology).total(), 800), within=60)
        started = children(worker)
        assert len(started) == 2
        assert worker.end() == 0
        assert psutil.wait_procs(started, timeout=0)[1] == []
        assert worker.log.count("worker stopped") == 2
    assert workers(client) == {}
    left = durable(client.bootstrap_servers, client.topology)
    assert left.counted() == dict.fromkeys(names, 400)
    assert left.outbox == []


def name_of(process: psutil.Process) -> str:
    command = process.cmdline()
    return command[command.index("--id") + 1]


def test_workers_whose_parent_is_killed_drain(client: Client, tmp_path: Path) -> None:
    with in_process(client.bootstrap_servers, client.topology, tmp_path, "--processes", "2") as worker:
        worker.wait_for("worker ready", times=2, within=60)
        orphans = children(worker)
        worker.signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(orphans, timeout=30)
        assert alive == []
        assert worker.log.count("the supervisor of this worker is gone") == 2
        assert worker.log.count("worker stopped") == 2


# -- a handler that hangs -------------------------------------------------------------------------------------------------


def test_a_handler_that_hangs_is_named_and_ended(client: Client, tmp_path: Path) -> None:
    with in_process(client.bootstrap_servers, client.topology, tmp_path, "--hang-after", "2s") as worker:
        worker.wait_for("worker ready")
        name = name_in(1, client.topology)
        client.add(name, 3)
        client.add(name, how="hangs")
        (*_, place) = client.flush().values()
        assert worker.process.wait(30) == EXIT_HUNG
        (line,) = [line for line in worker.log.splitlines() if "the worker hangs" in line]
        assert f"lane='<lane {client.topology.app_id}-intents-changelog-1>'" in line
        assert f"offset={place.offset} partition=1" in line
        assert f"topic={client.topic}" in line
        assert "in misbehave" in worker.log


def test_a_regular_expression_that_runs_away_is_ended_too(client: Client, tmp_path: Path) -> None:
    """It keeps the interpreter's lock, so no thread of Python can look."""
    with in_process(client.bootstrap_servers, client.topology, tmp_path, "--hang-after", "1s") as worker:
        worker.wait_for("worker ready")
        client.add(name_in(0, client.topology), how="runs away")
        client.flush()
        assert worker.process.wait(30) == -signal.SIGPROF
        assert "in misbehave" in worker.log


def test_a_worker_that_was_stopped_has_not_hung(client: Client, tmp_path: Path) -> None:
    name = name_in(0, client.topology)
    with in_process(client.bootstrap_servers, client.topology, tmp_path, "--hang-after", "1s") as worker:
        worker.wait_for("worker ready")
        worker.signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(2)
        worker.signal(signal.SIGCONT)
        client.add(name)
        client.flush()
        wait_until(lambda: same(durable(client.bootstrap_servers, client.topology).counted(), {name: 1}))
        assert worker.end() == 0


# -- health ---------------------------------------------------------------------------------------------------------------


def get(port: int, path: str, **headers: str) -> tuple[int, Any]:
    """Status code and JSON, or text."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        asking.request("GET", path, headers=headers)
        answer = asking.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body.startswith(b"{") else body
    finally:
        asking.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_health_is_told_on_the_loopback_interface_alone(client: Client, tmp_path: Path) -> None:
    port = free_port()
    options = ("--health-port", str(port))
    with in_process(client.bootstrap_servers, client.topology, tmp_path, *options) as worker:
        worker.wait_for("worker ready")
        listening = [
            connection.laddr
            for connection in psutil.Process(worker.process.pid).net_connections("all")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", port)]
        assert get(port, "/live") == (200, {"worker": "w0", "live": True})
        code, body = get(port, "/ready")
        assert (code, body["ready"]) == (200, True)
        assert {lane["lane"]: lane["state"] for lane in body["lanes"]} == dict.fromkeys(
            ["intents-0", "intents-1", "totals-0", "totals-1"], "running"
        )
        assert get(port, "/ready", Host="evil.example")[0] == 400
        assert worker.end() == 0


def test_a_port_that_is_taken_ends_the_start(client: Client, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ("--health-port", str(port))
        with in_process(client.bootstrap_servers, client.topology, tmp_path, *options) as worker:
            assert worker.process.wait(30) == 1
            assert f"cannot listen on 127.0.0.1:{port}" in worker.log


# -- states of lanes ------------------------------------------------------------------------------------------------------


def test_a_stopped_lane_is_told_until_it_is_assigned_anew(client: Client, tmp_path: Path) -> None:
    from pf_stream.core import changelog

    name = name_in(1, client.topology)
    log = f"{client.topology.app_id}-intents-changelog"
    key = changelog.state_key(changelog.state_prefix("counts"), name.encode())
    port = free_port()
    client.place(key, changelog.pack_state(1, b"no JSON"), [], partition=1, topic=log)
    with in_process(client.bootstrap_servers, client.topology, tmp_path, "--health-port", str(port)) as worker:
        worker.wait_for("worker ready")
        assert get(port, "/ready")[0] == 200
        client.add(name)
        client.flush()
        worker.wait_for("lane stopped")
        code, body = get(port, "/ready")
        assert (code, body["ready"]) == (503, False)
        (told,) = [lane for lane in body["lanes"] if lane["state"] == "stopped"]
        assert told["lane"] == "intents-1"
        assert name in told["reason"]
        assert get(port, "/live")[0] == 200  # a restart would not help
        wait_until(lambda: same(lanes(client, "w0").get("intents-1"), "stopped"), within=5)
        assert worker.end() == 0


def test_progress_positions_and_lag(client: Client) -> None:
    name = name_in(0, client.topology)
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        client.add(name, 5)
        client.flush()
        wait_until(lambda: same(worker.total(), 5))

        def told() -> None:
            status = next(one for one in worker.call(lambda: worker.worker.lanes.statuses) if one.name == "intents-0")
            assert (status.state, status.handled, status.lag) == (LaneState.running, 5, 0)
            assert status.positions is not None
            assert status.positions[client.topic] == 5

        wait_until(told)


def test_a_paused_lane_says_until_when(bootstrap_servers: str, unique: str, tmp_path: Path) -> None:
    topology = Topology(alarms.name, alarms.reactors, namespace=unique, internal=alarms.internal, partitions=2)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    door = tmp_path / "door"
    door.touch()
    alarm = name_in(0, topology)
    with in_thread(bootstrap_servers, topology) as worker:
        value = json.dumps({"alarm": alarm, "door": str(door), "text": ""}).encode()
        client.send(alarm, value, client.headers("alarms.push.v1", pf_context=None))
        client.flush()

        def status() -> LaneStatus:
            return next(one for one in worker.call(lambda: worker.worker.lanes.statuses) if one.name == "intents-0")

        def paused() -> None:
            found = status()
            assert found.state is LaneState.paused
            assert found.until_ms is not None
            assert abs(found.until_ms - now_ms()) < 10_000
            assert found.lag == 1
            assert worker.call(lambda: worker.worker.lanes.all_run)  # it is at work

        wait_until(paused)
        door.unlink()
        wait_until(lambda: same((status().state, status().lag), (LaneState.running, 0)))


# -- pf status ------------------------------------------------------------------------------------------------------------


def pf(client: Client, *words: str, columns: int = 60) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PF_BOOTSTRAP_SERVERS": client.bootstrap_servers, "COLUMNS": str(columns)}
    command = [sys.executable, "-W", "error", "-m", "pf_stream", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_status_of_a_topology(client: Client, tmp_path: Path) -> None:
    topology = ("tests.kafka._support:counts", "--namespace", client.topology.namespace)
    nobody = pf(client, "status", *topology)
    assert nobody.returncode == 5, nobody.stderr
    assert "intents-0" in nobody.stdout
    assert "no worker" in nobody.stdout

    with in_process(client.bootstrap_servers, client.topology, tmp_path) as worker:
        wait_until(lambda: all_lanes_run(client, "w0"), within=60)
        done = pf(client, "status", *topology)
        assert done.returncode == 0, done.stdout + done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 60
        assert done.stdout.count("running") == 5
        data = json.loads(pf(client, "status", *topology, "-o", "json").stdout)
        assert data["healthy"] is True
        assert [lane["state"] for lane in data["workers"][0]["lanes"]] == ["running"] * 4
        worker.signal(signal.SIGKILL)
        worker.process.wait(10)
