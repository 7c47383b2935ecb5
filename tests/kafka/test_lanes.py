"""Lanes on a real broker: which start, which stop alone and say why, and what a worker leaves behind."""

import asyncio
import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from structlog.testing import capture_logs
from structlog.typing import EventDict

from pf_stream.clock import WallClock
from pf_stream.core import Limits
from pf_stream.engine.errors import GroupLostError
from pf_stream.kafka.errors import TimestampRefusedError
from pf_stream.kafka.topics import PartitionsDisagreeError, required_topics
from tests.kafka._support import (
    ROOT,
    SIGNER,
    Client,
    CountCap,
    counts,
    durable,
    exact,
    in_process,
    in_thread,
    make_topics,
    name_in,
    token,
    wait_until,
)


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def lane(client: Client, group: str, partition: int) -> str:
    return f"<lane {client.topology.app_id}-{group}-changelog-{partition}>"


def stopped(logs: list[EventDict], lane: str) -> EventDict:
    """What was said about a lane that stopped."""
    found = [entry for entry in logs if entry.get("lane") == lane and "code" in entry]
    assert len(found) == 1, f"{len(found)} times it was said that {lane} stopped"
    assert found[0]["log_level"] == "error"
    return found[0]


def admin(client: Client) -> AdminClient:
    return AdminClient({"bootstrap.servers": client.bootstrap_servers, "log_level": 0})


# -- a process ------------------------------------------------------------------------------------------------------------


def test_a_worker_process_listens_nowhere_and_drains(client: Client, tmp_path: Path) -> None:
    """SIGTERM in the middle of 20,000 intents: exit code 0, and nothing half done is left in the changelogs."""
    topology = client.topology
    names = [name_in(partition, topology) for partition in (0, 1)]
    with in_process(client.bootstrap_servers, topology, tmp_path) as worker:
        worker.wait_for("worker ready")
        process = psutil.Process(worker.process.pid)
        for one in (process, *process.children(recursive=True)):
            assert [c.laddr for c in one.net_connections("all") if c.status == psutil.CONN_LISTEN] == []

        for _ in range(100):
            for name in names:
                client.add(name, 100)
        client.flush()
        wait_until(lambda: started(client))
        assert worker.end() == 0
        assert "worker stopped" in worker.log
        assert "rror" not in worker.log

    left = durable(client.bootstrap_servers, topology)
    assert not left.outbox
    done = sum(left.counted().values())
    assert done > 0
    assert done == sum(
        offset
        for (reactor, topic, _), offset in left.watermarks.items()
        if (reactor, topic) == ("counts", client.topic)
    )
    with in_thread(client.bootstrap_servers, topology) as again:
        wait_until(lambda: same([again.count(name) for name in names], [10_000, 10_000]))
        wait_until(lambda: same(again.total(), 20_000))


def started(client: Client) -> None:
    assert durable(client.bootstrap_servers, client.topology).counted()


def same(found: object, wanted: object) -> None:
    assert found == wanted


def test_missing_topics_end_the_start_and_name_the_command(bootstrap_servers: str, unique: str, tmp_path: Path) -> None:
    with in_process(bootstrap_servers, counts.within(unique), tmp_path) as worker:
        assert worker.process.wait(30) == 3
        assert f"{unique}.intents" in worker.log
        assert "pf topics create" in worker.log
        assert "Traceback" not in worker.log


def test_a_worker_that_has_lost_its_group_says_so(client: Client) -> None:
    """A crash within Faust would otherwise leave a process that reads nothing and never ends."""
    with in_thread(client.bootstrap_servers, client.topology) as running:
        worker = running.worker

        async def crash() -> None:
            await worker._app.consumer.crash(RuntimeError("out of luck"))
            async with asyncio.timeout(10):
                await worker.crashed

        with pytest.raises(GroupLostError, match="out of luck"):
            running.run(crash())


AHEAD_MS = 2 * 3_600_000


def test_a_worker_whose_clock_is_far_ahead_does_not_start(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fire timers early; brokers refuse what is dated an hour ahead of them, which is told with what to do."""
    real = WallClock.now_ms
    monkeypatch.setattr(WallClock, "now_ms", lambda clock: real(clock) + AHEAD_MS)
    with (
        pytest.raises(
            TimestampRefusedError, match=r"(?s)set this machine's clock.*pf doctor.*timestamp\.after\.max\.ms"
        ),
        in_thread(client.bootstrap_servers, client.topology),
    ):
        pass


@pytest.mark.parametrize("guarantee", ["effectively_once", "transactional"])
def test_a_lane_whose_clock_runs_ahead_commits_nothing_until_it_is_set_right(
    bootstrap_servers: str, unique: str, guarantee: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = (counts if guarantee == "effectively_once" else exact).within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    ahead_ms, real = [0], WallClock.now_ms
    monkeypatch.setattr(WallClock, "now_ms", lambda clock: real(clock) + ahead_ms[-1])
    name = name_in(0, topology)
    with in_thread(bootstrap_servers, topology) as worker:
        client.add(name)
        client.flush()
        wait_until(lambda: same((worker.count(name), worker.total()), (1, 1)))
        ahead_ms.append(AHEAD_MS)
        client.add(name)
        client.flush()

        def told() -> None:
            found = [one for one in worker.call(lambda: worker.worker.lanes.statuses) if one.code]
            assert {one.code for one in found} == {"timestamp_refused"}
            assert all("set this machine's clock" in (one.reason or "") for one in found)

        wait_until(told)
        assert durable(bootstrap_servers, topology).counted() == {name: 1}
        ahead_ms.append(0)
        wait_until(lambda: same((worker.count(name), worker.total()), (2, 2)))


def test_large_tokens_do_not_make_a_unit_too_large(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each emitted intent carries its caller's token, which may weigh more than all the rest."""
    monkeypatch.setattr("pf_stream.engine.encode.UNIT_BYTES", 200_000)
    limits = Limits(unit_bytes=120_000, unit_bytes_hard=190_000)
    name = name_in(0, client.topology)
    for _ in range(150):
        # Of its own for each, so that they do not shrink when they are compressed together.
        rights = [CountCap.add(f"/{secrets.token_urlsafe(30)}") for _ in range(60)]
        client.context = token(client.topology, CountCap.add("/**"), *rights)
        client.add(name)
    assert len(client.context) > 5_000
    client.flush()
    with in_thread(client.bootstrap_servers, client.topology, limits=limits) as worker:
        wait_until(lambda: same((worker.count(name), worker.total()), (150, 150)))


# -- source topics that are not what they were --------------------------------------------------------------------------


def test_a_source_topic_that_was_made_anew_stops_its_lanes(client: Client) -> None:
    """Between two starts; the lanes of the other group go on."""
    name = name_in(0, client.topology)
    client.add(name, 5)
    client.flush()
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        wait_until(lambda: same(worker.count(name), 5))
    make_anew(client)
    client.add(name, 9)
    client.flush()
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        entry = stopped(logs, lane(client, "intents", 0))
        assert entry["code"] == "topic_replaced"
        assert client.topic in entry["reason"]
        assert worker.lanes == {lane(client, "totals", 0), lane(client, "totals", 1), lane(client, "intents", 1)}
    assert durable(client.bootstrap_servers, client.topology).counted() == {name: 5}


def test_a_source_topic_that_is_made_anew_under_a_running_worker_stops_its_lanes(client: Client) -> None:
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        for name in names:
            client.add(name, 5)
        client.flush()
        wait_until(lambda: same([worker.count(name) for name in names], [5, 5]))
        make_anew(client)
        # More than before, so that the offsets of the old topic exist in the new one.
        for name in names:
            client.add(name, 9)
        client.flush()

        def both_stopped() -> None:
            for partition in (0, 1):
                assert stopped(logs, lane(client, "intents", partition))["code"] == "topic_replaced"

        wait_until(both_stopped)
        assert worker.lanes == {lane(client, "totals", 0), lane(client, "totals", 1)}
    assert durable(client.bootstrap_servers, client.topology).counted() == dict.fromkeys(names, 5)


def make_anew(client: Client) -> None:
    """Delete the intents topic and create it again."""
    kafka = admin(client)
    kafka.delete_topics([client.topic])[client.topic].result(10)

    def gone() -> None:
        assert client.topic not in kafka.list_topics(timeout=10).topics

    wait_until(gone)
    make_topics(client.bootstrap_servers, client.topology)


def grow(client: Client, topics: Iterable[str]) -> None:
    """As ``kafka-topics --alter --partitions 4`` does."""
    kafka = admin(client)  # its futures need it alive
    for asked in kafka.create_partitions([NewPartitions(topic, 4) for topic in topics]).values():
        asked.result(10)


def test_a_source_topic_that_gets_partitions_ends_the_worker_and_no_other_starts(client: Client) -> None:
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    with in_thread(client.bootstrap_servers, client.topology) as running:
        for name in names:
            client.add(name, 5)
        client.flush()
        wait_until(lambda: same(running.total(), 10))
        grow(client, [client.topic])
        worker = running.worker

        async def noticed() -> None:
            await worker.lanes._shared.control.refresh()  # once a minute by itself
            async with asyncio.timeout(10):
                await worker.crashed

        with pytest.raises(PartitionsDisagreeError, match=rf"2: \(this worker\).* 4: {client.topic}\. Kafka adds part"):
            running.run(noticed())
    with (
        pytest.raises(
            PartitionsDisagreeError, match=rf"4: {client.topic}\. Kafka adds partitions to a topic and takes"
        ),
        in_thread(client.bootstrap_servers, client.topology),
    ):
        pass
    assert durable(client.bootstrap_servers, client.topology).counted() == dict.fromkeys(names, 5)


def test_topics_that_all_got_partitions_stop_every_lane(client: Client) -> None:
    """The new ones too, which have nothing of their own that tells: keys that moved there would get a second state."""
    name = name_in(0, client.topology)
    client.add(name, 5)
    client.flush()
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        wait_until(lambda: same(worker.total(), 5))
    grow(client, [spec.name for spec in required_topics(client.topology) if spec.copartitioned])
    again = Client(client.bootstrap_servers, client.topology)
    for number in range(40):
        again.add(f"n{number}")
    again.add(name)
    again.flush()
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        worker.call(worker.worker.lanes._rejoin)  # a group gives a worker that comes back what it had before

        def all_stopped() -> None:
            for group, partition in itertools.product(("intents", "totals"), range(4)):
                at = lane(client, group, partition)
                reasons = {entry["reason"] for entry in logs if entry.get("lane") == at and entry.get("code")}
                assert len(reasons) == 1, at
                assert f"{group}-changelog was written for 2 partitions and the source topics have 4" in reasons.pop()

        wait_until(all_stopped)
        assert worker.lanes == set()
    assert durable(client.bootstrap_servers, client.topology).counted() == {name: 5}


def test_records_that_were_deleted_before_they_were_read_stop_the_lane(client: Client) -> None:
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    for name in names:
        client.add(name, 5)
    client.flush()
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        wait_until(lambda: same([worker.count(name) for name in names], [5, 5]))
    for name in names:
        client.add(name, 5)
    client.flush()
    kafka = admin(client)  # its futures need it alive
    ((_, deleted),) = kafka.delete_records([TopicPartition(client.topic, 0, 7)]).items()
    deleted.result(10)
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        entry = stopped(logs, lane(client, "intents", 0))
        assert entry["code"] == "watermark_range"
        assert f"offset 5 of {client.topic}-0, which holds [7, 10)" in entry["reason"]
        wait_until(lambda: same(worker.count(names[1]), 10))


def test_a_broker_that_goes_away_as_a_worker_starts(client: Client, tmp_path: Path) -> None:
    """The topics were there a moment ago; it is said as if Kafka had been away all the time."""
    SIGNER.save(tmp_path / "issuer", overwrite=True)
    program = """
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer import AIOKafkaProducer
from pf_stream.cli import main

async def gone(self):
    raise KafkaConnectionError("Unable to bootstrap")

AIOKafkaProducer.start = gone
main()
"""
    command = [sys.executable, "-c", program, "worker", "run", "tests.kafka._support:counts"]
    command += ["--namespace", client.topology.namespace, "--trust", str(tmp_path / "issuer.pub")]
    environment = {**os.environ, "PF_BOOTSTRAP_SERVERS": client.bootstrap_servers}
    ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "kafka_unavailable" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_slow_handlers_let_the_event_loop_turn(client: Client) -> None:
    """Four seconds of work that came in one fetch: heartbeats, commits and other lanes must not wait for all of it."""
    name = name_in(0, client.topology)

    async def longest_wait() -> float:
        longest = 0.0
        while worker.worker.handled < 130:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(0)
            longest = max(longest, asyncio.get_running_loop().time() - before)
        return longest

    with in_thread(client.bootstrap_servers, client.topology) as worker, ThreadPoolExecutor(1) as beside:
        longest = beside.submit(worker.run, longest_wait())
        client.add(name, 130, how="takes its time")
        client.flush()
        assert longest.result(30) < 1.5

        def all_counted() -> None:
            assert worker.count(name) == 130

        wait_until(all_counted)
