"""Lanes that change hands, under load: what is kept, what is handed over, and who is refused."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.cluster import ClusterMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from structlog.testing import capture_logs

from pf_stream import Topology
from pf_stream.core import changelog
from pf_stream.engine.lease import acquire
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.link import Link, Partition
from tests.kafka._support import (
    Client,
    ThreadWorker,
    connection,
    counts,
    durable,
    exact,
    in_process,
    in_thread,
    make_topics,
    name_in,
    now_ms,
    wait_until,
)


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def lanes_of(worker: ThreadWorker) -> dict[str, object]:
    """The memory of each open lane."""
    return worker.call(lambda: {repr(runner): runner.lane for runner in worker.worker.lanes.runners})


# -- a lane that comes back to the same worker ---------------------------------------------------------------------------


def test_a_lane_that_nobody_else_wrote_is_kept(client: Client) -> None:
    """Its fence lies right behind its own last append, so its memory is good; another one's is not."""
    kept, changed = (name_in(partition, client.topology) for partition in (0, 1))
    log = f"{client.topology.app_id}-intents-changelog"
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        client.add(kept, 7)
        client.add(changed, 7)
        client.flush()
        wait_until(lambda: same(worker.total(), 14))
        wait_until(lambda: same(durable(client.bootstrap_servers, client.topology).outbox, []))
        before = lanes_of(worker)
        key = changelog.state_key(changelog.state_prefix("counts"), changed.encode())
        client.place(key, changelog.pack_state(1, b'{"n": 1000}'), [], partition=1, topic=log)

        epoch = last_epoch(client, log)
        worker.call(worker.worker.lanes._rejoin)

        def assigned_anew() -> None:
            assert last_epoch(client, log) == epoch + 1
            assert len(worker.lanes) == 4

        wait_until(assigned_anew)
        after = lanes_of(worker)
        recovered = {name for name, lane in after.items() if lane is not before[name]}
        assert recovered == {f"<lane {log}-1>"}
        client.add(kept)
        client.add(changed)
        client.flush()
        wait_until(lambda: same((worker.count(kept), worker.count(changed), worker.total()), (8, 1001, 16)))


def test_a_lane_whose_lease_was_taken_asks_the_group_and_goes_on(client: Client) -> None:
    """As if two workers had one id: the broker refuses the one that acquired first, and the group decides anew."""
    name, other = (name_in(partition, client.topology) for partition in (0, 1))
    log = f"{client.topology.app_id}-intents-changelog"
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        client.add(name, 5)
        client.flush()
        wait_until(lambda: same(worker.total(), 5))
        worker.run(take((log, 0), client.bootstrap_servers))
        client.add(name, 5)
        client.add(other, 5)
        client.flush()
        wait_until(lambda: same((worker.count(name), worker.count(other), worker.total()), (10, 5, 15)))
        assert [entry["lane"] for entry in logs if entry.get("code") == "fenced"] == [f"<lane {log}-0>"]
        assert len(worker.lanes) == 4


def test_a_lane_whose_lease_was_taken_says_so_when_the_group_takes_it_too(client: Client) -> None:
    """What it would append at its end is refused; then it is assigned anew, and goes on."""
    log = f"{client.topology.app_id}-intents-changelog"
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        worker.run(take((log, 0), client.bootstrap_servers))
        worker.call(worker.worker.lanes._rejoin)
        wait_until(lambda: any(entry["event"] == "lane was lost before it had ended" for entry in logs))
        client.add(name_in(0, client.topology), 5)
        client.flush()
        wait_until(lambda: same(worker.total(), 5))
        lost = [(entry["lane"], entry["code"]) for entry in logs if entry["event"].startswith("lane was lost")]
        assert lost == [(f"<lane {log}-0>", "fenced")]


async def take(lane: Partition, bootstrap_servers: str) -> None:
    """Take a lane's lease, as another worker would."""
    link = await Link.connect(connection(bootstrap_servers))
    appender = Appender(link)
    try:
        await acquire(link, appender, lane, "somebody else", now_ms())
    finally:
        await appender.close()
        await link.close()


def last_epoch(client: Client, log: str) -> int:
    """The lowest, over the partitions, of the epochs of the last fences."""
    last: dict[int | None, int] = {}
    for message in client.read(log):
        if message.key() == changelog.FENCE:
            last[message.partition()] = orjson.loads(message.value() or b"")["epoch"]
    return min(last.values())


def same(found: object, wanted: object) -> None:
    assert found == wanted


# -- two workers -----------------------------------------------------------------------------------------------------------


@contextmanager
def load(client: Client, names: list[str]) -> Iterator[Counter[str]]:
    """Intents at some thousand a second while the block runs; afterwards all have been sent."""
    sent: Counter[str] = Counter()
    over = threading.Event()

    def produce() -> None:
        while not over.wait(0.01):
            for name in names:
                client.add(name, 2)
                sent[name] += 2
        client.flush()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("topology", [counts, exact], ids=lambda topology: topology.guarantee)
def test_a_second_worker_comes_is_paused_is_refused_and_leaves(
    topology: Topology, bootstrap_servers: str, unique: str, tmp_path: Path
) -> None:
    """Under load all the time; every count is exact.

    It joins and takes lanes over; it is stopped (SIGSTOP) for longer than its session lasts, so its lanes go back; it
    goes on (SIGCONT) with what it had in hand and the broker refuses it; it is ended (SIGTERM) and drains.
    """
    servers, topology = bootstrap_servers, topology.within(unique)
    make_topics(servers, topology)
    client = Client(servers, topology)
    names = [name_in(index % 2, topology) for index in range(10)]
    with in_thread(servers, topology, worker_id="first") as first, load(client, names) as sent:
        assert len(first.lanes) == 4
        with in_process(servers, topology, tmp_path, worker_id="second", session_s=2.0) as second:
            second.wait_for("worker ready")
            wait_until(lambda: shared(first))

            second.signal(signal.SIGSTOP)
            wait_until(lambda: same(len(first.lanes), 4), within=30)
            second.signal(signal.SIGCONT)
            second.wait_for("code=fenced")
            wait_until(lambda: shared(first))

            assert second.end() == 0
            assert "worker stopped" in second.log
        wait_until(lambda: same(len(first.lanes), 4), within=30)
    with in_thread(servers, topology, worker_id="first") as first:
        wait_until(lambda: same({name: first.count(name) for name in names}, dict(sent)))
        wait_until(lambda: same(first.total(), sum(sent.values())))
    left = durable(servers, topology)
    assert left.counted() == dict(sent)
    assert left.total() == sum(sent.values())
    assert left.outbox == []


def shared(first: ThreadWorker) -> None:
    assert 0 < len(first.lanes) < 4


def test_topics_that_a_leader_does_not_know_yet_are_divided_when_it_does(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of all brokers: the first answer about topics leaves some out, and nobody would ask again."""
    assign = PartitionAssignor.assign
    times = 0

    def forgetful(self: PartitionAssignor, cluster: ClusterMetadata, members: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            cluster._partitions = {}
        return assign(self, cluster, members)

    monkeypatch.setattr(PartitionAssignor, "assign", forgetful)
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        client.add("apples", 10)
        client.flush()

        def all_counted() -> None:
            assert worker.count("apples") == 10

        wait_until(all_counted)
    assert times >= 2
