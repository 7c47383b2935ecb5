"""State on disk: what a worker finds of it again, when it does not believe it, and that no kill makes it wrong."""

import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, imported there without `as`
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from pf_stream.engine.errors import StoreError
from pf_stream.errors import ConfigurationError
from pf_stream.kafka.admin import Admin
from pf_stream.model.topology import Guarantee
from tests.kafka._support import (
    Client,
    ProcessWorker,
    ThreadWorker,
    connection,
    durable,
    exact_on_disk,
    in_process,
    in_thread,
    lasting,
    make_topics,
    name_in,
    wait_until,
)

SMALL_TABLES = "tests.kafka.small_tables"


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = lasting.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def same(found: object, wanted: object) -> None:
    assert found == wanted


def all_counted(worker: ThreadWorker, expected: dict[str, int]) -> None:
    assert worker.total() == sum(expected.values())
    assert {name: worker.count(name) for name in expected} == expected


def recovered(worker: ThreadWorker) -> int:
    """Changelog records that its lanes had to read."""
    return worker.call(lambda: sum(runner.recovered for runner in worker.worker.lanes.runners))


def test_what_is_on_disk_is_not_read_again(client: Client, tmp_path: Path) -> None:
    start = partial(in_thread, client.bootstrap_servers, client.topology, state_dir=tmp_path)
    names = [name_in(index % 2, client.topology) for index in range(20)]
    expected = dict.fromkeys(names, 0)
    read = []
    for start_at in range(3):
        with start() as worker:
            read.append(recovered(worker))
            all_counted(worker, expected)
            for name in names[start_at:]:
                client.add(name, 3)
                expected[name] += 3
            client.flush()
            wait_until(partial(all_counted, worker, expected))
    assert read == [0, 0, 0]
    assert durable(client.bootstrap_servers, client.topology).counted() == expected
    # Another worker has nothing on disk, and makes it from the changelogs.
    with start(worker_id="w1") as worker:
        assert recovered(worker) > 60
        all_counted(worker, expected)


@pytest.mark.parametrize(("guarantee", "lives"), [("effectively_once", 4), ("transactional", 3)])
def test_kills_at_any_moment_leave_what_is_right(
    bootstrap_servers: str, unique: str, tmp_path: Path, guarantee: Guarantee, lives: int
) -> None:
    topology = (lasting if guarantee == "effectively_once" else exact_on_disk).within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    dice = random.Random(unique)  # noqa: S311 - any will do
    names = [name_in(index % 2, topology) for index in range(200)]
    options = ("--state-dir", str(tmp_path / "state"))
    expected: Counter[str] = Counter()
    warm = 0
    for life in range(lives):
        with in_process(bootstrap_servers, topology, tmp_path, *options, module=SMALL_TABLES) as worker:
            worker.wait_for("worker ready")
            warm += len(re.findall(r"lane open.*since=[1-9]", worker.log))
            assert "built anew" not in worker.log
            for _ in range(dice.choice([300, 3_000])):
                name = dice.choice(names)
                client.add(name)
                expected[name] += 1
            client.flush()
            if life:
                time.sleep(dice.choice([0, 0.3, 1]))
            else:  # so that there is something on disk
                wait_until(lambda: same(durable(bootstrap_servers, topology).counted(), expected))
            worker.signal(signal.SIGKILL)
            worker.process.wait(10)
    assert warm, "stores that were believed although their worker was killed"
    with in_thread(bootstrap_servers, topology, state_dir=tmp_path / "state") as thread:
        wait_until(partial(all_counted, thread, expected), within=60)
    left = durable(bootstrap_servers, topology)
    assert left.counted() == expected
    assert left.outbox == []
    with in_thread(bootstrap_servers, topology, worker_id="w1", state_dir=tmp_path / "state") as thread:
        all_counted(thread, expected)


class TestBuiltAnew:
    """And it says why."""

    def after(self, client: Client, folder: Path, change: Callable[[], None]) -> ProcessWorker:
        """A worker that starts after a change, on what an earlier one left."""
        options = ("--state-dir", str(folder / "state"))
        self.names = [name_in(index % 2, client.topology) for index in range(10)]
        with in_process(client.bootstrap_servers, client.topology, folder, *options) as worker:
            for name in self.names:
                client.add(name, 5)
            client.flush()
            wait_until(lambda: same(durable(client.bootstrap_servers, client.topology).total(), 50))
            assert worker.end() == 0
        change()
        with in_process(client.bootstrap_servers, client.topology, folder, *options) as worker:
            worker.wait_for("worker ready")
            assert worker.end() == 0
        return worker

    def test_when_deletions_may_be_gone(self, client: Client, tmp_path: Path) -> None:
        def forget_soon() -> None:
            for group in client.topology.groups:
                alter(client, client.topology.changelog(group), "delete.retention.ms", "1")

        worker = self.after(client, tmp_path, forget_soon)
        assert worker.log.count("a store is built anew") == 4
        assert re.search(r"it is 0\.0 hours old, and its changelog keeps deletions for 0\.0", worker.log)
        with in_thread(client.bootstrap_servers, client.topology, state_dir=tmp_path / "state") as thread:
            all_counted(thread, dict.fromkeys(self.names, 5))

    def test_when_the_changelog_is_another(self, client: Client, tmp_path: Path) -> None:
        changelog = client.topology.changelog(client.topology.groups[0])

        def make_anew() -> None:
            admin = Admin(connection(client.bootstrap_servers))
            admin.delete([changelog])
            wait_until(lambda: same(admin.topics([changelog]), {}))
            make_topics(client.bootstrap_servers, client.topology)

        worker = self.after(client, tmp_path, make_anew)
        assert worker.log.count("its changelog was deleted and made anew") == 2

    def test_not_otherwise(self, client: Client, tmp_path: Path) -> None:
        worker = self.after(client, tmp_path, lambda: None)
        assert "built anew" not in worker.log
        assert worker.log.count("lane open") == 4


def alter(client: Client, topic: str, setting: str, value: str) -> None:
    admin = AdminClient({"bootstrap.servers": client.bootstrap_servers, "log_level": 0})
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(10)


def test_a_worker_is_told_where(client: Client, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="name a folder with --state-dir"),
        in_thread(client.bootstrap_servers, client.topology),
    ):
        pass
    with in_process(client.bootstrap_servers, client.topology, tmp_path) as worker:
        assert worker.process.wait(20) == 1
        assert "name a folder with --state-dir" in worker.log


def test_two_of_one_name_do_not_share_it(client: Client, tmp_path: Path) -> None:
    start = partial(in_thread, client.bootstrap_servers, client.topology, state_dir=tmp_path)
    with start(), pytest.raises(StoreError, match="another worker of that name uses it"), start():
        pass


def test_processes_of_one_command_have_a_folder_each(client: Client, tmp_path: Path) -> None:
    options = ("--state-dir", str(tmp_path / "state"), "--processes", "2")
    with in_process(client.bootstrap_servers, client.topology, tmp_path, *options) as worker:
        worker.wait_for("lane open", 4, within=60)
        assert worker.end() == 0
    folders = {path.name for path in (tmp_path / "state" / client.topology.app_id).iterdir()}
    assert folders == {"worker-w0-0", "worker-w0-1"}
