"""A live topology is changed: its workers are replaced one by one by those of the next version, under load."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from pf_stream.components.stored import ChangelogStates, read_state
from pf_stream.core import changelog
from pf_stream.model import Topology
from tests.kafka._support import (
    Client,
    ProcessWorker,
    connection,
    durable,
    headers_of,
    in_process,
    make_topics,
    name_in,
    read_topic,
    token,
    wait_until,
)
from tests.tally import v1, v2


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = v1.tally.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    client.context = token(topology, v1.TallyCap.add("/**"))
    return client


class Load:
    """Intents at some thousand a second, of version 1, and of version 2 too once that is said."""

    def __init__(self, client: Client, names: list[str]) -> None:
        self.sent: Counter[str] = Counter()
        self.newer = threading.Event()
        self._client = client
        self._names = names
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._produce)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def add(self, name: str, by: int) -> None:
        value = orjson.dumps({"name": name, "by": by})
        self._client.send(name, value, self._client.headers("tally.added.v1"))
        self.sent[name] += by

    def _produce(self) -> None:
        while not self._over.wait(0.01):
            for name in self._names:
                self.add(name, 1)
                if self.newer.is_set():
                    value = orjson.dumps({"thing": name, "amount": 10, "unit": "box"})
                    self._client.send(name, value, self._client.headers("tally.added.v2"))
                    self.sent[name] += 10
        self._client.flush()


def amounts(client: Client, reactor: str) -> dict[str, Any]:
    """What is stored of a reactor, in whatever version."""
    states = durable(client.bootstrap_servers, client.topology).states
    return {key: state.get("amount", state.get("n")) for (id_, key), state in states.items() if id_ == reactor}


def test_a_rolling_upgrade_under_load_loses_nothing(client: Client, tmp_path: Path) -> None:
    """Every shape changes: the states, the public intent, and the internal one, which goes both ways between versions."""
    servers = client.bootstrap_servers
    names = [name_in(index % 2, client.topology) for index in range(24)]
    quiet = name_in(0, client.topology)
    load = Load(client, names)
    load.add(quiet, 7)
    with ExitStack() as workers:

        def start(topology: Topology, worker_id: str) -> ProcessWorker:
            module = (v1 if topology.version == 1 else v2).__name__
            worker = in_process(
                servers, topology.within(client.topology.namespace), tmp_path, worker_id=worker_id, module=module
            )
            return workers.enter_context(worker)

        first, second = start(v1.tally, "w0"), start(v1.tally, "w1")
        for worker in (first, second):
            worker.wait_for("worker ready")
            worker.wait_for("lane open")
        with load.running():
            wait_until(lambda: at_least(amounts(client, "sums"), 1_000))

            assert first.end() == 0
            first = start(v2.tally, "w0")
            first.wait_for("lane open", within=60)
            # What it emits reaches the other, which does not know it and lets it lie.
            second.wait_for("code=newer_version", within=60)
            assert "Upgrade this worker" in second.log

            assert second.end() == 0
            second = start(v2.tally, "w1")
            second.wait_for("lane open", within=60)
            load.newer.set()
            done = sum(load.sent.values())
            wait_until(lambda: at_least(amounts(client, "sums"), done), within=60)

        def exact() -> None:
            assert amounts(client, "counts") == dict(load.sent)
            letters: Counter[str] = Counter()
            for name, amount in load.sent.items():
                letters[name[-1]] += amount
            assert amounts(client, "sums") == dict(letters)

        wait_until(exact, within=60)
        for worker in (first, second):
            assert worker.end() == 0
            assert "code=" not in worker.log, worker.log

    assert client.dead_letters() == []
    assert client.read(f"{client.topology.namespace}.sums.dlq") == []
    sums = [headers_of(message) for message in client.read(f"{client.topology.namespace}.sums")]
    assert {headers["ce_type"] for headers in sums} == {b"tally.summed.v1", b"tally.summed.v2"}
    assert set(Counter(headers["pf-source"] for headers in sums).values()) == {1}, "nothing was sent twice"
    assert durable(servers, client.topology).outbox == []

    current = v2.tally.within(client.topology.namespace)
    assert {name: stored_version(client, name) for name in names} == dict.fromkeys(names, 2)
    untouched = read_state(ChangelogStates(connection(servers), current, "counts"), quiet)
    assert (untouched.stored_version, untouched.version) == (1, 2), "nobody asked for it since"
    assert untouched.state == {"amount": 7, "units": ["piece"]}


def at_least(found: dict[str, Any], amount: int) -> None:
    assert sum(found.values()) >= amount


def stored_version(client: Client, name: str) -> int:
    """Of the last state in the changelog."""
    key = changelog.state_key(changelog.state_prefix("counts"), name.encode())
    log = f"{client.topology.app_id}-intents-changelog"
    last = [message.value() for message in read_topic(client.bootstrap_servers, log) if message.key() == key][-1]
    version: int = changelog.STATE_PREFIX.unpack_from(last or b"")[1]
    return version
