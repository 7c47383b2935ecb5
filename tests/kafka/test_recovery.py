"""What a worker makes of what an earlier one left: state, outputs that nobody marked as sent, a broker that was gone."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pf_stream.core import changelog
from pf_stream.kafka.dev import BrokerInfo, DevBroker
from tests.kafka._support import (
    Client,
    ThreadWorker,
    counts,
    durable,
    headers_of,
    in_process,
    in_thread,
    make_topics,
    name_in,
    read_topic,
    wait_until,
)


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def test_state_after_a_restart(client: Client) -> None:
    """Counts go on where they were, also for keys that nobody asks for any more."""
    names = [name_in(index % 2, client.topology) for index in range(20)]
    expected = dict.fromkeys(names, 0)
    for start in range(2):
        with in_thread(client.bootstrap_servers, client.topology) as worker:
            for name in names[start:]:
                client.add(name, 3)
                expected[name] += 3
            client.flush()
            wait_until(partial(all_counted, worker, expected))
    left = durable(client.bootstrap_servers, client.topology)
    assert left.counted() == expected
    assert not client.dead_letters()


def all_counted(worker: ThreadWorker, expected: dict[str, int]) -> None:
    assert worker.total() == sum(expected.values())
    assert {name: worker.count(name) for name in expected} == expected


def same(found: object, wanted: object) -> None:
    assert found == wanted


def test_outputs_that_were_committed_and_not_marked_are_sent_again(client: Client) -> None:
    """The changelog as a crash between the sending and the mark leaves it.

    What is sent again has the same ``pf-source``, so that readers can tell; the internal reader does.
    """
    name = name_in(0, client.topology)
    client.add(name, 50)
    client.flush()
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        wait_until(lambda: same(worker.total(), 50))
    assert durable(client.bootstrap_servers, client.topology).outbox == []
    totals = f"{client.topology.namespace}.totals"
    first = sources(client, totals)
    assert len(first) == 50
    assert set(first.values()) == {1}

    log = f"{client.topology.app_id}-intents-changelog"
    records = [record for record in read_topic(client.bootstrap_servers, log) if record.partition() == 0]
    (unit,) = [record for record in records if record.key() == changelog.UNIT][-1:]
    sequence, _ = changelog.UNIT_VALUE.unpack(unit.value() or b"")
    for record in records:
        if (record.key() or b"")[1:2] == b"o" and record.value() is not None:
            client.send(record.key(), record.value(), [], partition=0, topic=log)
    client.send(changelog.UNIT, changelog.UNIT_VALUE.pack(sequence, 0), [], partition=0, topic=log)
    client.flush()
    assert durable(client.bootstrap_servers, client.topology).outbox

    with in_thread(client.bootstrap_servers, client.topology) as worker:
        # Behind what is sent again, so that its arrival shows that the rest was read.
        client.add(name)
        client.flush()
        wait_until(lambda: same(worker.total(), 51))
        assert worker.count(name) == 51
    again = sources(client, totals)
    assert first.items() <= {source: times - 1 for source, times in again.items()}.items()
    assert len(again) == 51
    left = durable(client.bootstrap_servers, client.topology)
    assert left.outbox == []
    assert left.total() == 51


def sources(client: Client, topic: str) -> Counter[bytes | None]:
    """How often each ``pf-source`` appears in a topic."""
    return Counter(headers_of(message)["pf-source"] for message in client.read(topic))


# -- the broker goes and comes back ---------------------------------------------------------------------------------------


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[DevBroker, BrokerInfo]]:
    """A broker that may be killed."""
    broker = DevBroker(tmp_path / "kafka")
    try:
        yield broker, broker.up()
    finally:
        broker.down(timeout=0)


def test_broker_is_killed_under_a_running_worker(
    broker: tuple[DevBroker, BrokerInfo], unique: str, tmp_path: Path
) -> None:
    """It resumes by itself and is exact; and it says little meanwhile."""
    kafka, info = broker
    topology = counts.within(unique)
    make_topics(info.bootstrap_servers, topology)
    client = Client(info.bootstrap_servers, topology)
    names = [name_in(partition, topology) for partition in (0, 1)]
    for name in names:
        client.add(name, 10_000)
    client.flush()
    with in_process(info.bootstrap_servers, topology, tmp_path) as worker:
        worker.wait_for("worker ready")
        wait_until(lambda: started(client))
        os.kill(info.pid, signal.SIGKILL)
        before = len(worker.log)
        # Until the worker has noticed: so the outage is one, and not a hiccup.
        wait_until(lambda: noticed(worker.log[before:]))
        assert kafka.up().bootstrap_servers == info.bootstrap_servers
        for name in names:
            client.add(name, 10)
        client.flush()

        def exact() -> None:
            left = durable(info.bootstrap_servers, topology)
            assert left.counted() == dict.fromkeys(names, 10_010)
            assert left.total() == 20_020

        wait_until(exact, within=40)
        outage = worker.log[before:]
        assert worker.end() == 0
    lines = [line.partition("] ")[2] for line in outage.splitlines() if re.match(r"\d{4}-", line)]
    assert len(lines) < 30, outage
    # Each library says a thing once, our own code when it begins and when it ends.
    said = Counter(line.split(":")[0] for line in lines)
    assert said["aiokafka"] <= 3, outage
    assert "Kafka does not take appends; waiting" in outage
    assert "Kafka takes appends again" in outage
    assert "Traceback" not in outage


def started(client: Client) -> None:
    assert durable(client.bootstrap_servers, client.topology).counted()


def noticed(log: str) -> None:
    assert "Kafka" in log
