"""Kafka goes away and comes back; the worker stays, says so in a few lines, and goes on."""

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pf_stream.kafka.dev import DevBroker
from tests.kafka._support import Client, counts, durable, in_process, make_topics, wait_until

TRIES = 30


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[DevBroker]:
    """A broker that can be ended and started again."""
    made = DevBroker(tmp_path / "kafka")
    made.up()
    yield made
    made.reset()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ready(port: int) -> tuple[int, set[str]]:
    """Status code, and what the lanes do."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        asking.request("GET", "/ready")
        answer = asking.getresponse()
        return answer.status, {lane["state"] for lane in json.load(answer)["lanes"]}
    finally:
        asking.close()


@contextmanager
def closed_door(port: int) -> Iterator[socket.socket]:
    """Somebody who listens in the broker's place and hangs up on everybody."""
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until(lambda: bind(door, port))  # the killed broker's connections are gone a moment before its door is
        door.listen()
        door.settimeout(30)
        yield door


def bind(door: socket.socket, port: int) -> None:
    try:
        door.bind(("127.0.0.1", port))
    except OSError as error:
        raise AssertionError(f"port {port}: {error}") from error


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_worker_outlives_an_outage_and_says_little(broker: DevBroker, tmp_path: Path, how: str) -> None:
    found = broker.status().broker
    assert found is not None
    topology = counts.within("outage")
    make_topics(found.bootstrap_servers, topology)
    client = Client(found.bootstrap_servers, topology)
    port = free_port()

    def total(wanted: int) -> None:
        assert durable(found.bootstrap_servers, topology).total() == wanted

    with in_process(found.bootstrap_servers, topology, tmp_path, "--health-port", str(port)) as worker:
        worker.wait_for("worker ready")
        client.add("apples", 100)
        client.flush()
        wait_until(lambda: total(100))
        assert ready(port) == (200, {"running"})
        said = len(worker.log)

        if how == "killed":
            client.add("apples", 2000)  # in the middle of work
            os.kill(found.pid, signal.SIGKILL)
        else:
            broker.down()
            client.add("apples", 2000)
        wait_until(lambda: same(ready(port), (503, {"waiting"})))
        with closed_door(found.port) as door:
            for _ in range(TRIES):
                door.accept()[0].close()
        during = worker.log[said:]
        assert during.count("Kafka cannot be read; waiting") == 1
        assert during.count("registry not told") <= 1
        assert during.count("\n") <= 20, during
        assert worker.process.poll() is None

        broker.up()
        client.flush()
        wait_until(lambda: total(2100), within=60)
        wait_until(lambda: same(ready(port), (200, {"running"})))
        worker.wait_for("Kafka can be read again")
        assert worker.end() == 0
    left = durable(found.bootstrap_servers, topology)
    assert left.counted() == {"apples": 2100}
    assert left.outbox == []


def test_a_worker_can_be_stopped_while_kafka_is_away(broker: DevBroker, tmp_path: Path) -> None:
    """In the middle of work: it cannot commit, and cannot say good-bye to the group, and ends nevertheless."""
    found = broker.status().broker
    assert found is not None
    topology = counts.within("away")
    make_topics(found.bootstrap_servers, topology)
    client = Client(found.bootstrap_servers, topology)
    with in_process(found.bootstrap_servers, topology, tmp_path) as worker:
        worker.wait_for("worker ready")
        client.add("apples", 500)
        client.flush()
        os.kill(found.pid, signal.SIGKILL)
        worker.wait_for("Kafka cannot be read; waiting")
        assert worker.end(within=40) == 0
    broker.up()
    with in_process(found.bootstrap_servers, topology, tmp_path) as worker:

        def all_counted() -> None:
            assert durable(found.bootstrap_servers, topology).counted() == {"apples": 500}

        wait_until(all_counted, within=30)
        assert worker.end() == 0


def same(found: object, wanted: object) -> None:
    assert found == wanted
