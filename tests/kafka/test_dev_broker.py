"""The development broker: each promise of ``pf dev``, against the real process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from filelock import FileLock

from pf_stream.kafka.dev import (
    BrokerBusyError,
    BrokerDiedError,
    BrokerInfo,
    BrokerRunningError,
    BrokersDifferError,
    BrokerState,
    BrokerTimeoutError,
    DevBroker,
    DevCluster,
    launch,
)
from pf_stream.kafka.dev.aot import aot_flags, aot_path
from pf_stream.kafka.dev.artifacts import fetch, load_lock
from pf_stream.kafka.dev.java import find_java
from pf_stream.kafka.dev.progress import Stage, Step
from pf_stream.kafka.dev.storage import ClusterRecord, DataDir, jars_dir
from tests.kafka._support import read_topic

PF = [sys.executable, "-m", "pf_stream"]
TRAIN = [sys.executable, "-P", "-m", "pf_stream.kafka.dev._train"]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder without jars and AOT cache, as on a first start; the jars come from the user's own."""
    load_jars()
    monkeypatch.setenv("PF_MAVEN_MIRROR", str(jars_dir()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[DevBroker]:
    """A broker that has not been started, in a folder with a name that needs care; stopped after the test."""
    broker = DevBroker(tmp_path / "größe, a=b $HOME")
    yield broker
    broker.down(timeout=0)


def load_jars() -> tuple[Path, ...]:
    return fetch(load_lock().artifacts, jars_dir())


def trainers(cache: Path) -> list[psutil.Process]:
    """Processes of training runs for this cache folder: Python and JVM."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            ours = "-XX:AOTCacheOutput=" in line or "pf_stream.kafka.dev._train" in line
            if ours and process.environ().get("XDG_CACHE_HOME") == str(cache):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(check: Callable[[], object], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def pf(*arguments: str, data_dir: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*PF, "dev", *arguments, "--data-dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def topics(info: BrokerInfo) -> set[str]:
    return set(AdminClient({"bootstrap.servers": info.bootstrap_servers}).list_topics(timeout=5).topics)


def create_topic(info: BrokerInfo, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": info.bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_two_starts_at_once_in_one_folder_are_one_broker(broker: DevBroker) -> None:
    with ThreadPoolExecutor() as pool:
        starts = [pool.submit(pf, "up", "-o", "json", data_dir=broker.data_dir) for _ in range(2)]
        done = [start.result() for start in starts]
    assert done[0].stdout == done[1].stdout
    assert sorted("running already" in each.stderr for each in done) == [False, True]
    port = json.loads(done[0].stdout)["port"]
    assert DevBroker(broker.data_dir, port).up().port == port
    with pytest.raises(BrokerRunningError, match=f"runs on port {port}, not {port + 1}"):
        DevBroker(broker.data_dir, port + 1).up()


def test_nobody_touches_a_folder_that_another_process_works_on(broker: DevBroker) -> None:
    broker.data_dir.mkdir()
    steps: list[Step] = []
    with FileLock(DataDir(broker.data_dir).lock_path):
        with pytest.raises(BrokerBusyError, match=r"for 0\.1 s"):
            broker.up(timeout=0.1, progress=steps.append)
        with pytest.raises(BrokerBusyError):
            broker.down(timeout=0)
        with pytest.raises(BrokerBusyError):
            broker.reset(timeout=0)
    assert [step.stage for step in steps] == [Stage.waiting]


def test_busy_port_that_was_asked_for(broker: DevBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = pf("up", "--port", str(port), data_dir=broker.data_dir, expect=1)
    assert refused.stderr == (
        f"error (port_busy): port {port} is in use on 127.0.0.1; choose another one, or none to take a free one\n"
    )
    assert broker.status().state is BrokerState.stopped


def test_port_that_is_taken_between_look_and_bind(broker: DevBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        choices = iter([port, launch.free_port()])
        monkeypatch.setattr(launch.Launch, "_choose_port", lambda _: next(choices))
        assert broker.up().port != port


def test_broker_that_dies_says_why_in_one_line(broker: DevBroker) -> None:
    broker.data_dir.mkdir()
    DataDir(broker.data_dir).prepare(20_001, 20_002)
    meta = broker.data_dir / "kafka" / "meta.properties"
    meta.write_text(meta.read_text(encoding="ascii").replace("node.id=1", "node.id=7"), encoding="ascii")
    with pytest.raises(BrokerDiedError, match=r"exit code 1: .*node id .*7.* \(log: .*broker\.log\)$") as caught:
        broker.up()
    assert "\n" not in str(caught.value)
    assert broker.status().state is BrokerState.stopped


def test_broker_that_is_not_ready_in_time_leaves_nothing(broker: DevBroker) -> None:
    pids: list[int] = []

    def watch(_: Step) -> None:
        record = DataDir(broker.data_dir).read_record()
        pids.extend([record.pid] if record else [])

    with pytest.raises(
        BrokerTimeoutError, match=rf"not ready after 0\.2 s: .*; end of {re.escape(str(broker.log_path))}:"
    ):
        broker.up(timeout=0.2, progress=watch)
    assert pids
    assert gone(pids[0])
    assert broker.status().state is BrokerState.stopped


def started_half(broker: DevBroker) -> tuple["subprocess.Popen[str]", int]:
    """A ``pf dev up`` whose broker's process exists and is not ready yet."""
    command = [*PF, "dev", "up", "--data-dir", str(broker.data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    data = DataDir(broker.data_dir)
    wait_until(data.read_record)
    record = data.read_record()
    assert record
    return process, record.pid


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_start_leaves_nothing(broker: DevBroker, by: signal.Signals, code: int) -> None:
    process, pid = started_half(broker)
    process.send_signal(by)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert gone(pid)
    assert broker.status().state is BrokerState.stopped


def test_broker_whose_starter_was_killed_is_found_and_a_hung_one_is_ended(broker: DevBroker) -> None:
    process, pid = started_half(broker)
    process.kill()
    process.communicate(timeout=30)
    assert broker.up().pid == pid
    assert broker.status().state is BrokerState.running
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    assert broker.status().state is BrokerState.unhealthy
    assert broker.down(timeout=0.1) is BrokerState.running
    assert gone(pid)


def test_two_brokers_at_once_and_the_temporary_one_leaves_nothing(broker: DevBroker) -> None:
    class BoomError(Exception):
        pass

    with ThreadPoolExecutor() as pool, pytest.raises(BoomError), ExitStack() as block:  # noqa: PT012 - two facts, one start
        starting = pool.submit(broker.up)
        temporary = block.enter_context(DevBroker.temporary())
        lasting = starting.result()
        create_topic(temporary, "only-in-one")
        wait_until(lambda: topics(temporary) == {"only-in-one"})
        assert topics(lasting) == set()
        raise BoomError
    assert gone(temporary.pid)
    assert not temporary.data_dir.exists()
    assert broker.status().state is BrokerState.running


def test_killed_broker_is_noticed_and_comes_back_with_its_data(broker: DevBroker) -> None:
    info = broker.up()
    create_topic(info, "kept")
    os.kill(info.pid, signal.SIGKILL)
    wait_until(lambda: gone(info.pid))
    assert broker.status().state is BrokerState.stale
    assert json.loads(pf("status", "-o", "json", data_dir=broker.data_dir, expect=5).stdout)["state"] == "stale"
    steps: list[Step] = []
    revived = broker.up(progress=steps.append)
    assert steps[0].stage is Stage.stale
    assert topics(revived) == {"kept"}
    os.kill(revived.pid, signal.SIGKILL)
    wait_until(lambda: gone(revived.pid))
    assert broker.down() is BrokerState.stale
    assert broker.status().state is BrokerState.stopped


def test_commands_from_first_start_to_reset(broker: DevBroker) -> None:
    """A day with ``pf dev``: up, up again, look, down, up with the same data, reset."""
    folder = broker.data_dir
    assert pf("status", data_dir=folder, expect=3).stdout.split()[:2] == ["state", "stopped"]
    assert pf("down", data_dir=folder).stderr == "no broker is running\n"
    assert "no broker has been started there" in pf("logs", data_dir=folder, expect=3).stderr

    first = json.loads(pf("up", "-o", "json", data_dir=folder).stdout)
    assert first["bootstrap_servers"] == f"127.0.0.1:{first['port']}"
    assert Path(first["data_dir"]) == folder
    again = pf("up", "-o", "json", data_dir=folder)
    assert json.loads(again.stdout) == first
    assert again.stderr == "Kafka is running already\n"

    pipe = f"{sys.executable} -m pf_stream dev status -o json | jq -r '.state, .bootstrap_servers, .rss_bytes > 1e7'"
    shown = subprocess.run(
        ["sh", "-c", pipe],
        env=os.environ | {"PF_DEV_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["running", first["bootstrap_servers"], "true"]
    assert "Kafka Server started" in pf("logs", "-n", "1", data_dir=folder).stdout

    info = broker.up()
    assert info.pid == first["pid"]
    create_topic(info, "kept")
    assert pf("down", data_dir=folder).stderr == "stopped\n"
    assert gone(info.pid)

    later = broker.up()
    assert (later.port, later.pid == info.pid) == (info.port, False)  # clients need not be told anew
    assert topics(later) == {"kept"}

    pf("reset", "--yes", data_dir=folder)
    assert gone(later.pid)
    assert {path.name for path in folder.iterdir()} <= {".lock"}


needs_aot = pytest.mark.skipif(not find_java().has_aot, reason="this Java has no AOT cache")


@needs_aot
@pytest.mark.timeout(300)  # the training run has the lowest priority
def test_aot_cache_is_made_once_in_the_background(broker: DevBroker, own_cache: Path) -> None:
    broker.up()
    wait_until(lambda: len(trainers(own_cache)) == 2)  # Python and its JVM
    cache = aot_path(find_java(), load_jars())
    assert cache
    subprocess.run(TRAIN, timeout=60, check=True)
    assert not cache.exists()  # it saw that another one is at it, and left it to that
    wait_until(cache.exists, within=240)
    wait_until(lambda: not trainers(own_cache))
    assert not list(cache.parent.glob("aot-*"))
    broker.down(timeout=0)

    info = broker.up()
    assert f"-XX:AOTCache={cache}" in psutil.Process(info.pid).cmdline()
    assert "[aot" not in broker.log_path.read_text(encoding="utf-8")  # the runtime took it
    broker.down(timeout=0)

    cache.write_bytes(b"not a cache")
    java = find_java()
    flags = [*java.flags, *aot_flags(java, load_jars()), "-version"]
    assert (
        subprocess.run([java.executable, *flags], capture_output=True, check=False).returncode == 0
    )  # goes on without


@needs_aot
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_training_run_that_is_ended_leaves_nothing(own_cache: Path, by: signal.Signals) -> None:
    with subprocess.Popen(TRAIN) as trainer:
        wait_until(lambda: len(trainers(own_cache)) == 2)
        trainer.send_signal(by)
    wait_until(lambda: not trainers(own_cache))
    wait_until(lambda: not list((own_cache / "pf_stream" / "kafka").glob("aot-*")))


def test_session_broker_answers(bootstrap_servers: str) -> None:
    metadata: Any = AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(timeout=5)
    assert metadata.brokers


# -- several brokers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    """A cluster that has not been started; stopped after the test."""
    cluster = DevCluster(tmp_path / "three", 3)
    yield cluster
    if cluster.exists:
        cluster.down(timeout=0)


def test_three_brokers_from_up_to_reset(cluster: DevCluster) -> None:
    up = json.loads(pf("up", "--brokers", "3", "-o", "json", data_dir=cluster.data_dir).stdout)
    assert up["bootstrap_servers"] == cluster.bootstrap_servers
    assert [broker["port"] for broker in up["brokers"]] == [cluster.broker(node).port for node in (1, 2, 3)]
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    admin.create_topics([NewTopic("mine", 1)])["mine"].result(10)

    def known() -> bool:
        """Each broker learns of a topic in its own time."""
        found = admin.list_topics(timeout=5)
        replicas = sorted(found.topics["mine"].partitions[0].replicas) if "mine" in found.topics else []
        return (len(found.brokers), replicas) == (3, [1, 2, 3])

    wait_until(known)
    assert "running already" in pf("up", data_dir=cluster.data_dir).stderr
    refused = pf("up", "--brokers", "5", data_dir=cluster.data_dir, expect=1).stderr
    assert "error (brokers_differ)" in refused
    assert "is the folder of 3 brokers, not of 5" in refused.replace("\n", " ")

    cluster.kill(2)
    status = json.loads(pf("status", "-o", "json", data_dir=cluster.data_dir, expect=5).stdout)
    assert (status["state"], [broker["state"] for broker in status["brokers"]]) == (
        "unhealthy",
        ["running", "stale", "running"],
    )
    assert "stale" in pf("status", data_dir=cluster.data_dir, expect=5).stdout
    again = json.loads(pf("up", "-o", "json", data_dir=cluster.data_dir).stdout)
    assert again["bootstrap_servers"] == up["bootstrap_servers"]
    assert [before["pid"] == after["pid"] for before, after in zip(up["brokers"], again["brokers"], strict=True)] == [
        True,
        False,
        True,
    ]
    assert "INFO" in pf("logs", "--node", "2", data_dir=cluster.data_dir).stdout
    assert pf("logs", "--node", "4", data_dir=cluster.data_dir, expect=3).stdout == ""

    pids = [broker["pid"] for broker in again["brokers"]]
    assert pf("down", data_dir=cluster.data_dir).stderr == "stopped\n"
    assert all(map(gone, pids))
    pf("status", data_dir=cluster.data_dir, expect=3)
    pf("up", data_dir=cluster.data_dir)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    wait_until(known)
    pf("reset", "--yes", data_dir=cluster.data_dir)
    assert not cluster.exists
    assert {path.name for path in cluster.data_dir.iterdir()} <= {".lock"}


def test_any_node_may_be_lost_while_records_are_written() -> None:
    """Each node in turn; whichever leads the partition or the cluster, every acknowledged record is there once."""
    with DevCluster.temporary(3) as three:
        admin = AdminClient({"bootstrap.servers": three.bootstrap_servers})
        admin.create_topics([NewTopic("t", 3)])["t"].result(10)
        producer = Producer({"bootstrap.servers": three.bootstrap_servers, "enable.idempotence": True, "log_level": 0})
        failed: list[object] = []
        acknowledged: list[object] = []

        def delivered(error: object, message: object) -> None:
            (acknowledged if error is None else failed).append(error)

        for number in range(1500):
            if number % 500 == 250:
                three.kill(1 + number // 500)
            if number % 500 == 499:
                assert producer.flush(30) == 0
                three.start(1 + number // 500)
            producer.produce("t", b"%d" % number, partition=number % 3, on_delivery=delivered)
            producer.poll(0)
        assert producer.flush(30) == 0
        assert (len(acknowledged), failed) == (1500, [])
        found = [int(message.value() or b"-1") for message in read_topic(three.bootstrap_servers, "t")]
        assert sorted(found) == list(range(1500))
        folder = three.data_dir
    assert not folder.exists()


def test_a_folder_is_for_one_broker_or_for_several(broker: DevBroker, cluster: DevCluster) -> None:
    broker.up()
    with pytest.raises(BrokersDifferError, match="is the folder of 1 broker, not of 3"):
        DevCluster(broker.data_dir, 3).up()
    DataDir(cluster.data_dir).path.mkdir()
    DataDir(cluster.data_dir).write_cluster(ClusterRecord("c", (1, 2, 3), (4, 5, 6)))
    with pytest.raises(BrokersDifferError, match="is the folder of 3 brokers, not of 1"):
        DevBroker(cluster.data_dir).up()
