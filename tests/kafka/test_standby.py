"""Lanes that another worker follows: it has their state at hand when their own worker is killed."""

import re
import signal
from functools import partial
from pathlib import Path

import pytest

from pf_stream import Topology
from pf_stream.core.status import LaneState, LaneStatus
from tests.kafka._support import (
    Client,
    ThreadWorker,
    durable,
    followed,
    followed_on_disk,
    in_process,
    in_thread,
    make_topics,
    name_in,
    wait_until,
)

SESSION_S = 6.0


@pytest.fixture(params=[followed, followed_on_disk], ids=["memory", "rocksdb"])
def client(request: pytest.FixtureRequest, bootstrap_servers: str, unique: str) -> Client:
    topology: Topology = request.param.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def statuses(worker: ThreadWorker) -> list[LaneStatus]:
    return worker.call(lambda: worker.worker.lanes.statuses)


def named(worker: ThreadWorker, state: LaneState) -> set[str]:
    return {lane.name for lane in statuses(worker) if lane.state is state}


def follows_all_of(worker: ThreadWorker, lanes: set[str]) -> None:
    assert {lane.name: lane.lag for lane in statuses(worker) if lane.state is LaneState.standby} == dict.fromkeys(
        lanes, 0
    )


def test_a_standby_takes_over_from_a_worker_that_is_killed(client: Client, tmp_path: Path) -> None:
    """It has read nearly everything by then; state is exact, and so is what it sends."""
    topology, servers = client.topology, client.bootstrap_servers
    options = ("--state-dir", str(tmp_path / "state"))
    names = [name_in(index % 2, topology) for index in range(2_000)]
    expected = dict.fromkeys(names, 0)

    def count(times: int) -> None:
        for name in names[::times]:
            client.add(name)
            expected[name] += 1
        client.flush()

    every = {"intents-0", "intents-1", "totals-0", "totals-1"}
    with in_thread(servers, topology, worker_id="w1", session_s=SESSION_S, state_dir=tmp_path / "state") as standby:
        with in_process(servers, topology, tmp_path, *options, session_s=SESSION_S) as worker:
            worker.wait_for("worker ready", within=60)

            def divided() -> None:
                own = named(standby, LaneState.running)
                assert 0 < len(own) < 4
                follows_all_of(standby, every - own)
                assert standby.call(lambda: standby.worker.lanes.all_run)

            wait_until(divided, within=60)
            own = named(standby, LaneState.running)
            count(1)
            wait_until(partial(all_durable, client, expected), within=60)
            wait_until(lambda: follows_all_of(standby, every - own))
            worker.signal(signal.SIGKILL)
            worker.process.wait(10)
            count(3)
        wait_until(partial(all_counted, standby, expected), within=60)
        taken = standby.call(
            lambda: {
                f"{runner.plan.name}-{runner.partition}": (runner.recovered_from, runner.recovered)
                for runner in standby.worker.lanes.runners
            }
        )
    assert taken.keys() == every
    for lane in every - own:
        since, read = taken[lane]
        assert read <= 50, f"{lane} read {read} records of its changelog, from {since} on"
        assert since > 500 or not lane.startswith("intents"), f"{lane} was read from {since} on"
    assert durable(servers, topology).counted() == expected
    assert not client.dead_letters()


def all_durable(client: Client, expected: dict[str, int]) -> None:
    assert durable(client.bootstrap_servers, client.topology).total() == sum(expected.values())


def all_counted(worker: ThreadWorker, expected: dict[str, int]) -> None:
    assert worker.total() == sum(expected.values())
    assert {name: worker.count(name) for name in expected} == expected


def test_a_worker_alone_follows_nobody(client: Client, tmp_path: Path) -> None:
    with in_process(
        client.bootstrap_servers, client.topology, tmp_path, "--state-dir", str(tmp_path / "state")
    ) as worker:
        worker.wait_for("worker ready", within=60)
        assert worker.log.count("lane open") == 4
        assert worker.end() == 0
    assert not re.search("standby|Traceback", worker.log)
