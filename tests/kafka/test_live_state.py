"""State told by real workers over HTTP: whoever is asked, to whom it may be told, and what the changelog says."""

import dataclasses
import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pf_stream.cli import _build
from pf_stream.components.live import LiveStates, ReadRefusedError, WorkerUnavailableError, find_worker
from pf_stream.components.registry import components
from pf_stream.components.stored import ChangelogStates, read_state
from pf_stream.model import StateCap, Topology
from tests.kafka._support import (
    Client,
    CountCap,
    ProcessWorker,
    connection,
    counts,
    durable,
    exact,
    in_process,
    make_topics,
    name_in,
    now_ms,
    token,
    wait_until,
)
from tests.kafka.test_operations import all_lanes_run, get, workers


@pytest.fixture(params=[counts, exact], ids=["leased", "transactional"])
def either(request: pytest.FixtureRequest) -> Topology:
    """Under either guarantee."""
    topology: Topology = request.param
    return topology


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    return made(bootstrap_servers, counts.within(unique))


def made(bootstrap_servers: str, topology: Topology) -> Client:
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


@contextmanager
def serving(client: Client, folder: Path, worker_id: str, *options: str, **more: Any) -> Iterator[ProcessWorker]:
    """A worker that answers on a port of its own."""
    options = ("--health-port", "0", *options)
    with in_process(client.bootstrap_servers, client.topology, folder, *options, worker_id=worker_id, **more) as worker:
        worker.wait_for("health checks")
        yield worker


def port_of(worker: ProcessWorker) -> int:
    found = re.search(r"live=http://127\.0\.0\.1:(\d+)/live", worker.log)
    assert found is not None
    return int(found[1])


def asked(client: Client, worker: ProcessWorker, reactor: str = "counts", context: str | None = None) -> LiveStates:
    return LiveStates(client.topology, reactor, context or reader(client), port_of(worker))


def reader(client: Client, *scopes: str) -> str:
    return token(client.topology, *map(StateCap.read, scopes or ("/**",)))


def offline(client: Client, reactor: str = "counts") -> ChangelogStates:
    return ChangelogStates(connection(client.bootstrap_servers), client.topology, reactor)


def counted(client: Client, total: int) -> None:
    assert durable(client.bootstrap_servers, client.topology).total() == total


def pf(client: Client, *words: str, code: int = 0) -> str:
    """A command of the topology; what it prints, or says on stderr if it prints nothing."""
    environment = {
        "PF_BOOTSTRAP_SERVERS": client.bootstrap_servers,
        "PF_NAMESPACE": client.topology.namespace,
        "PF_TOPOLOGY": f"tests.kafka._support:{client.topology.name}",
    }
    done = CliRunner().invoke(_build(), [*words], env=environment)
    assert done.exit_code == code, done.output
    return done.stdout or done.stderr


def test_two_workers_tell_what_the_changelog_says_whichever_is_asked(
    bootstrap_servers: str, unique: str, tmp_path: Path, either: Topology
) -> None:
    client = made(bootstrap_servers, either.within(unique))
    names = [name_in(number % 2, client.topology) for number in range(20)]
    with serving(client, tmp_path, "w0") as one, serving(client, tmp_path, "w1") as two:
        wait_until(lambda: all_lanes_run(client, "w0", "w1"), within=90)
        for number, name in enumerate(names):
            client.add(name, number % 3 + 1)
        client.flush()
        total = sum(number % 3 + 1 for number in range(20))
        wait_until(lambda: counted(client, total), within=60)

        committed = {name: read_state(offline(client), name) for name in names}
        owners = set()
        for worker in (one, two):
            told = {name: read_state(asked(client, worker), name) for name in names}
            owners |= {(found.partition, found.worker) for found in told.values()}
            unsaid: dict[str, Any] = {"offset": None, "timestamp_ms": None}
            assert told == {
                name: dataclasses.replace(found, worker=told[name].worker, **unsaid)
                for name, found in committed.items()
            }
            for reactor in ("counts", "totals"):
                raw = {state.key: state.raw for state in offline(client, reactor).all("")}
                assert {state.key: state.raw for state in asked(client, worker, reactor).all("")} == raw
                page = asked(client, worker, reactor).page("", "0", 1000)
                assert page == offline(client, reactor).page("", "0", 1000)
                assert sorted(key for key, _ in page.keys) == sorted(key.decode() for key in raw)
        # Each of two lanes has one owner, whoever was asked, and both workers were needed.
        assert len(owners) == 2
        assert {worker for _, worker in owners} == {"w0", "w1"}

        context = tmp_path / "reader.ctx"
        context.write_text(reader(client))
        with_token = ("--context", str(context), "-o", "json")
        assert json.loads(pf(client, "state", "get", "counts", names[4], *with_token))["state"]["n"] == 2
        assert "no state under the key 'nobody'" in pf(client, "state", "get", "counts", "nobody", *with_token, code=3)
        assert json.loads(pf(client, "state", "check", *with_token))["keys"] == {"counts": 20, "totals": 1}
        (total_line,) = pf(client, "state", "export", "totals", "--context", str(context)).splitlines()
        assert json.loads(total_line)["state"]["n"] == total
        assert find_worker(connection(bootstrap_servers), client.topology, now_ms()) in {port_of(one), port_of(two)}
        assert one.end() == 0
        assert two.end() == 0
        assert reader(client)[:40] not in one.log + two.log


def test_who_may_not_is_told_nothing(client: Client, tmp_path: Path) -> None:
    name, other = (name_in(number, client.topology) for number in (0, 1))
    client.add(name)
    client.flush()
    with serving(client, tmp_path, "w0") as worker:
        worker.wait_for("worker ready", within=90)
        wait_until(lambda: counted(client, 1))
        for context, code in (
            (token(client.topology, CountCap.admin("/**")), "insufficient_capabilities"),
            (reader(client, f"/counts/{other}"), "insufficient_capabilities"),
            (token(counts.within("elsewhere"), StateCap.read("/**")), "wrong_audience"),
        ):
            for ask in every_question(name):
                with pytest.raises(ReadRefusedError) as refused:
                    ask(asked(client, worker, context=context))
                assert refused.value.code == code
        state = asked(client, worker, context=reader(client, f"/counts/{name}")).get(name.encode())
        assert state is not None
        path = f"/state/{client.topology.app_id}/counts?key={name}"
        assert get(port_of(worker), path)[0] == 401
        assert get(port_of(worker), path, Host="evil.example", Authorization=f"Bearer {reader(client)}")[0] == 400
        context_file = tmp_path / "weak.ctx"
        context_file.write_text(reader(client, f"/counts/{other}"))
        settings = connection(client.bootstrap_servers)
        wait_until(
            lambda: any(one.app == client.topology.app_id and one.port is not None for one in components(settings))
        )
        said = pf(client, "state", "get", "counts", name, "--context", str(context_file), code=4)
        assert "error (insufficient_capabilities)" in said
        assert worker.end() == 0


def every_question(name: str) -> list[Callable[[LiveStates], object]]:
    return [
        lambda states: states.get(name.encode()),
        lambda states: states.page("", "0", 10),
        lambda states: list(states.all("")),
    ]


def test_a_lane_that_recovers_says_how_far_it_is(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name_in(0, client.topology)
    client.add(name, 3)
    client.flush()
    with serving(client, tmp_path, "w0") as worker:
        wait_until(lambda: counted(client, 3), within=90)
        assert worker.end() == 0
    door = tmp_path / "door"
    door.touch()
    monkeypatch.setenv("PF_TEST_DOOR", str(door))
    with serving(client, tmp_path, "w0", module="tests.kafka.slow") as worker:

        def recovering() -> None:
            for ask in every_question(name):
                with pytest.raises(WorkerUnavailableError) as unavailable:
                    ask(asked(client, worker))
                assert unavailable.value.code == "lane_recovering"
                assert "40 % of its changelog is read" in str(unavailable.value)

        wait_until(recovering, within=90)
        path = f"/state/{client.topology.app_id}/counts?key={name}"
        status, body = get(port_of(worker), path, Authorization=f"Bearer {reader(client)}")
        assert (status, body["error"], body["progress"]) == (503, "lane_recovering", 0.4)
        # Who may not read is refused as ever.
        assert get(port_of(worker), path, Authorization=f"Bearer {token(client.topology)}")[0] == 403
        door.unlink()
        worker.wait_for("worker ready")
        assert read_state(asked(client, worker), name).state["n"] == 3
        assert worker.end() == 0


@pytest.mark.timeout(240)
def test_lanes_that_change_hands(client: Client, tmp_path: Path) -> None:
    """A worker is killed: what it had is with nobody for a while, and then told by the other."""
    names = [name_in(number, client.topology) for number in (0, 1)]
    with (
        serving(client, tmp_path, "w0", session_s=6) as one,
        serving(client, tmp_path, "w1", session_s=6) as two,
    ):
        wait_until(lambda: all_lanes_run(client, "w0", "w1"), within=90)
        for name in names:
            client.add(name, 2)
        client.flush()
        wait_until(lambda: counted(client, 4), within=60)
        (lost,) = [name for name in names if read_state(asked(client, one), name).worker == "w1"]
        two.signal(signal.SIGKILL)
        two.process.wait(10)
        # The registry still says that it is there, so it is the one to be asked.
        with pytest.raises(WorkerUnavailableError) as unavailable:
            asked(client, one).get(lost.encode())
        assert unavailable.value.code == "no_answer"
        assert f"127.0.0.1:{port_of(two)}" in str(unavailable.value)

        def told_by_the_other() -> None:
            try:
                found = read_state(asked(client, one), lost)
            except WorkerUnavailableError as error:
                raise AssertionError(error) from error
            assert (found.worker, found.state["n"]) == ("w0", 2)

        wait_until(told_by_the_other, within=60)
        assert one.end() == 0


def test_what_is_told_was_committed_however_busy_the_lane_is(client: Client, tmp_path: Path) -> None:
    """A count that was told is in the changelog, and none ever becomes less."""
    names = [name_in(number % 2, client.topology) for number in range(50)]
    with serving(client, tmp_path, "w0") as worker:
        worker.wait_for("worker ready", within=90)
        for _ in range(40):
            for name in names:
                client.add(name)
        seen: dict[bytes, int] = {}
        while sum(seen.values()) < 2000:
            told = {state.key: json.loads(state.raw[3:])["n"] for state in asked(client, worker).all("")}
            committed = {state.key: json.loads(state.raw[3:])["n"] for state in offline(client).all("")}
            assert all(count >= seen.get(key, 0) for key, count in told.items())
            assert all(committed[key] >= count for key, count in told.items())
            seen = told
        client.flush()
        assert seen == {name.encode(): 40 for name in names}
        assert worker.end() == 0


def test_a_worker_without_a_port_is_none_to_ask(client: Client, tmp_path: Path) -> None:
    context = tmp_path / "reader.ctx"
    context.write_text(reader(client))
    said = pf(client, "state", "list", "counts", "--context", str(context), code=5)
    assert "error (no_worker)" in said
    with in_process(client.bootstrap_servers, client.topology, tmp_path) as worker:
        wait_until(lambda: all_lanes_run(client, "w0"), within=90)
        assert workers(client)["w0"].port is None
        said = pf(client, "state", "list", "counts", "--context", str(context), code=1)
        assert "no worker answers on a port: 'w0'. Start them with --health-port" in " ".join(said.split())
        assert worker.end() == 0
