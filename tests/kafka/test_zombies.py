"""What the broker refuses from a lane's previous owner, and what the engine makes of it.

The engine leans on behaviour of brokers that no document promises; these tests are where it is seen.
"""

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from aiokafka.errors import RequestTimedOutError
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from structlog.testing import capture_logs

from pf_stream.core import changelog
from pf_stream.engine import lease as engine_lease
from pf_stream.engine.lease import Lease, acquire
from pf_stream.engine.probe import leases_hold
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.dev import DevBroker, launch, storage
from pf_stream.kafka.errors import AppendError, FencedError, TransactionError
from pf_stream.kafka.link import Link, Partition
from pf_stream.kafka.topics import PROBE
from pf_stream.kafka.transaction import Transactions, init_producer_id, transactional_id
from tests.kafka._support import (
    Client,
    ThreadWorker,
    connection,
    counts,
    durable,
    exact,
    headers_of,
    in_thread,
    make_topics,
    name_in,
    now_ms,
    read_topic,
    wait_until,
)


class Lab:
    """Leases of one lane, and what its changelog holds."""

    def __init__(self, link: Link, lane: Partition) -> None:
        self.link = link
        self.lane = lane
        self.appender = Appender(link)

    async def acquire(self) -> Lease:
        return await acquire(self.link, self.appender, self.lane, "tests", now_ms())

    async def append(self, lease: Lease, value: str, *, key: bytes = b"k", transactional: bool = False) -> int:
        builder = BatchBuilder(4096, compress=False)
        builder.append(now_ms(), key, value.encode("latin-1"), [])
        batch = lease.stamp(self.lane, builder.build(), transactional=transactional)
        name = transactional_id(self.lane) if transactional else None
        return await self.appender.submit(lease, self.lane, batch, name)

    def transactions(self, lease: Lease) -> Transactions:
        return Transactions(self.link, self.lane, lease.producer_id, lease.epoch)

    async def committed(self) -> list[str]:
        """Values of the committed records but fences, in order."""
        servers = self.link.settings.bootstrap_servers
        found = await asyncio.to_thread(read_topic, servers, self.lane[0])
        return [(message.value() or b"").decode() for message in found if message.key() != changelog.FENCE]


def needed(topic: str) -> bool:
    """No topic is optional."""
    return False


def in_lab(bootstrap_servers: str, name: str, work: Callable[[Lab], Coroutine[Any, Any, None]], **config: str) -> None:
    """Run *work* on a new compacted topic of one partition."""
    topic = f"{name}-changelog"
    Admin(connection(bootstrap_servers)).create([NewTopicSpec(topic, 1, {"cleanup.policy": "compact", **config})], 1)

    async def run() -> None:
        link = await Link.connect(connection(bootstrap_servers))
        lab = Lab(link, (topic, 0))
        try:
            async with asyncio.timeout(60):
                await work(lab)
        finally:
            await lab.appender.close()
            await link.close()

    asyncio.run(run())


# -- leases ---------------------------------------------------------------------------------------------------------------


def test_an_older_lease_is_refused_from_the_fence_on(bootstrap_servers: str, unique: str) -> None:
    """An epoch alone refuses nothing; the first batch under it does. So what is read up to the fence is all there is."""

    async def work(lab: Lab) -> None:
        old = await lab.acquire()
        assert await lab.append(old, "in time") == old.fence + 1
        producer_id, epoch = await init_producer_id(lab.link, transactional_id(lab.lane))
        assert (producer_id, epoch) == (old.producer_id, old.epoch + 1)
        await lab.append(old, "before the fence")
        new = await lab.acquire()
        assert new.fence == old.fence + 3
        with pytest.raises(FencedError):
            await lab.append(old, "too late")
        await lab.append(new, "new")
        with pytest.raises(FencedError):
            await lab.append(old, "too late again")
        assert await lab.committed() == ["in time", "before the fence", "new"]

    in_lab(bootstrap_servers, unique, work)


def test_whoever_acquires_last_has_the_lane(bootstrap_servers: str, unique: str) -> None:
    """Which is why only the group's decision may be followed by an acquisition."""

    async def work(lab: Lab) -> None:
        first, second = await lab.acquire(), await lab.acquire()
        again = await lab.acquire()
        for lease in (first, second):
            with pytest.raises(FencedError):
                await lab.append(lease, "no")
        await lab.append(again, "yes")
        assert await lab.committed() == ["yes"]

    in_lab(bootstrap_servers, unique, work)


# -- transactions ---------------------------------------------------------------------------------------------------------


def test_the_open_transaction_of_an_older_lease_is_aborted(bootstrap_servers: str, unique: str) -> None:
    """Paused after its produce: neither that nor its late produce and its late end are seen by anybody."""

    async def work(lab: Lab) -> None:
        old = await lab.acquire()
        before = lab.transactions(old)
        await before.add([lab.lane], needed)
        await lab.append(old, "open", transactional=True)
        new = await lab.acquire()
        with pytest.raises((FencedError, AppendError)):
            await lab.append(old, "late", transactional=True)
        for commit in (True, False):
            with pytest.raises(FencedError):
                await before.end(commit=commit)
        with pytest.raises(FencedError):
            await before.add([lab.lane], needed)
        with pytest.raises(FencedError):
            await lab.append(old, "late and without a transaction")
        after = lab.transactions(new)
        await after.add([lab.lane], needed)
        await lab.append(new, "new", transactional=True)
        await after.end(commit=True)
        assert await lab.committed() == ["new"]

    in_lab(bootstrap_servers, unique, work)


def test_a_transaction_that_was_being_committed_lies_before_the_fence(bootstrap_servers: str, unique: str) -> None:
    async def work(lab: Lab) -> None:
        old = await lab.acquire()
        before = lab.transactions(old)
        await before.add([lab.lane], needed)
        at = await lab.append(old, "committed", transactional=True)
        await before.end(commit=True)
        new = await lab.acquire()
        assert new.fence == at + 2  # the marker lies between
        assert await lab.committed() == ["committed"]

    in_lab(bootstrap_servers, unique, work)


def test_either_mode_refuses_a_predecessor_of_the_other(bootstrap_servers: str, unique: str) -> None:
    """A topology may change its guarantee while a worker that knows the old one is paused."""

    async def work(lab: Lab) -> None:
        leased = await lab.acquire()
        await lab.append(leased, "leased")
        transactional = await lab.acquire()
        with pytest.raises(FencedError):
            await lab.append(leased, "late")
        transactions = lab.transactions(transactional)
        await transactions.add([lab.lane], needed)
        await lab.append(transactional, "open", transactional=True)
        again = await lab.acquire()
        await lab.append(again, "leased again")
        with pytest.raises(FencedError):
            await transactions.end(commit=True)
        assert await lab.committed() == ["leased", "leased again"]

    in_lab(bootstrap_servers, unique, work)


def test_an_end_whose_answer_was_lost_is_asked_for_again(bootstrap_servers: str, unique: str) -> None:
    async def work(lab: Lab) -> None:
        lease = await lab.acquire()
        transactions = lab.transactions(lease)
        await transactions.add([lab.lane], needed)
        await lab.append(lease, "once", transactional=True)
        await transactions.end(commit=True)
        await transactions.end(commit=True)
        with pytest.raises(TransactionError):
            await transactions.end(commit=False)
        assert await lab.committed() == ["once"]

    in_lab(bootstrap_servers, unique, work)


# -- what the fence survives ----------------------------------------------------------------------------------------------

HASTY = """
log.cleaner.backoff.ms=50
transactional.id.expiration.ms=4000
transaction.remove.expired.transaction.cleanup.interval.ms=200
"""


@pytest.fixture(scope="module")
def hasty_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """A broker that compacts at once, forgets transactional ids after four seconds, and may be killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_PROPERTIES", storage._PROPERTIES + HASTY)
        broker = DevBroker(tmp_path_factory.mktemp("hasty") / "kafka")
        try:
            broker.up()
            yield broker
        finally:
            broker.down(timeout=0)


def servers_of(broker: DevBroker) -> str:
    found = broker.status().broker
    assert found is not None
    return found.bootstrap_servers


def test_the_fence_survives_compaction_and_the_death_of_its_broker(hasty_broker: DevBroker, unique: str) -> None:
    config = {
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.001",
        "delete.retention.ms": "50",
        "max.compaction.lag.ms": "200",
    }

    async def work(lab: Lab) -> None:
        old = await lab.acquire()
        await lab.append(old, "old")
        new = await lab.acquire()
        last = 0

        async def compacted() -> bool:
            # A segment ends with the first append after its time, and only ended ones are compacted.
            nonlocal last
            last += 1
            await lab.append(new, str(last))
            await lab.append(new, "{}", key=changelog.FENCE)
            log = await asyncio.to_thread(read_topic, lab.link.settings.bootstrap_servers, lab.lane[0])
            return all((message.offset() or 0) > new.fence for message in log)

        while not await compacted():  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0.05)
        with pytest.raises(FencedError):
            await lab.append(old, "after compaction")
        info = hasty_broker.status().broker
        assert info is not None
        os.kill(info.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: same(launch.is_free(info.port), True))
        await asyncio.to_thread(hasty_broker.up)
        with pytest.raises(FencedError):
            await lab.append(old, "after the restart")
        await lab.append(new, "new")
        assert "new" in await lab.committed()
        assert not [value for value in await lab.committed() if value.startswith("after")]

    in_lab(servers_of(hasty_broker), unique, work, **config)


def test_a_transactional_id_that_is_used_is_not_forgotten(hasty_broker: DevBroker, unique: str) -> None:
    """Else the next owner gets another producer id, and its fence refuses nobody: this is why a lease is renewed."""

    async def work(lab: Lab) -> None:
        other = Lab(lab.link, (f"{lab.lane[0]}-2", 0))
        Admin(lab.link.settings).create([NewTopicSpec(other.lane[0], 1, {"cleanup.policy": "compact"})], 1)
        renewed, silent = await lab.acquire(), await other.acquire()
        transactions = lab.transactions(renewed)
        forgotten = 8.0  # twice as long as the broker remembers
        until = asyncio.get_running_loop().time() + forgotten
        while asyncio.get_running_loop().time() < until:
            await transactions.touch()
            await asyncio.sleep(0.2)
        after, after_silence = await lab.acquire(), await other.acquire()
        assert after.producer_id == renewed.producer_id
        assert after_silence.producer_id != silent.producer_id
        with pytest.raises(FencedError):
            await lab.append(renewed, "late")
        await other.append(silent, "late")  # not refused, though the lane has another owner
        await other.appender.close()

    in_lab(servers_of(hasty_broker), unique, work)


# -- appends --------------------------------------------------------------------------------------------------------------


def test_appends_whose_answers_are_lost_are_neither_doubled_nor_reordered(
    bootstrap_servers: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when many are queued at once, by several tasks."""

    async def work(lab: Lab) -> None:
        produce = lab.link.produce
        lost = 0

        async def lose(*args: Any) -> Any:
            nonlocal lost
            answer = await produce(*args)
            lost += 1
            if lost % 3 == 0:
                raise RequestTimedOutError
            return answer

        monkeypatch.setattr(lab.link, "produce", lose)
        monkeypatch.setattr("pf_stream.kafka.appender.BACKOFF_S", 0.001)
        lease = await lab.acquire()
        wanted = [str(number) for number in range(30)]
        offsets = await asyncio.gather(*(lab.append(lease, value) for value in wanted))
        assert lost > 40
        assert list(offsets) == sorted(set(offsets))
        assert await lab.committed() == wanted

    in_lab(bootstrap_servers, unique, work)


# -- the engine -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["effectively_once", "transactional"])
def client(request: pytest.FixtureRequest, bootstrap_servers: str, unique: str) -> Client:
    topology = (counts if request.param == "effectively_once" else exact).within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def same(found: object, wanted: object) -> None:
    assert found == wanted


class Gate:
    """Stands before the appends of one partition: what comes while it is shut waits, stamped and ready to leave."""

    def __init__(self, worker: ThreadWorker, partition: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
        appender = worker.worker.lanes._shared.changelog
        submit = appender.submit
        self.waiting = threading.Event()
        self._worker = worker
        self._open = asyncio.Event()

        def late(owner: object, at: Partition, batch: bytes, name: str | None = None) -> "asyncio.Future[int]":
            if at != partition or self._open.is_set():
                return submit(owner, at, batch, name)

            async def wait() -> int:
                self.waiting.set()
                await self._open.wait()
                return await submit(owner, at, batch, name)

            return asyncio.ensure_future(wait())

        monkeypatch.setattr(appender, "submit", late)

    def open(self) -> None:
        self._worker.call(self._open.set)


def test_a_worker_that_was_paused_before_its_append_is_refused_and_goes_on_from_what_is_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile another owner has taken the lane and changed its state. Nothing is lost, and nothing counts twice."""
    name = name_in(0, client.topology)
    log = f"{client.topology.app_id}-intents-changelog"
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        client.add(name, 5)
        client.flush()
        wait_until(lambda: same(worker.total(), 5))
        gate = Gate(worker, (log, 0), monkeypatch)
        client.add(name, 5)
        client.flush()
        assert gate.waiting.wait(20)

        async def take() -> None:
            link = await Link.connect(connection(client.bootstrap_servers))
            lab = Lab(link, (log, 0))
            lease = await lab.acquire()
            state = changelog.pack_state(1, b'{"n": 1000}').decode("latin-1")
            await lab.append(lease, state, key=changelog.state_key(changelog.state_prefix("counts"), name.encode()))
            await lab.appender.close()
            await link.close()

        asyncio.run(take())
        gate.open()
        wait_until(lambda: same((worker.count(name), worker.total()), (1005, 10)))
        assert [entry["lane"] for entry in logs if entry.get("code") == "fenced"] == [f"<lane {log}-0>"]
        assert len(worker.lanes) == 4
    totals = [headers_of(message)["pf-source"] for message in client.read(f"{client.topology.namespace}.totals")]
    assert len(totals) == len(set(totals)) == 10


def test_a_lane_that_is_taken_while_it_opens_asks_the_group(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fence is refused; it must not stay closed, and must not acquire again by itself."""
    log = f"{client.topology.app_id}-intents-changelog"
    once = threading.Lock()

    async def beaten(link: Link, name: str) -> tuple[int, int]:
        mine = await init_producer_id(link, name)
        if name == f"{log}-0" and once.acquire(blocking=False):
            lab = Lab(link, (log, 0))
            producer_id, epoch = await init_producer_id(link, name)
            await lab.append(Lease(producer_id, epoch, -1, {}), "{}", key=changelog.FENCE)
            await lab.appender.close()
        return mine

    monkeypatch.setattr(engine_lease, "init_producer_id", beaten)
    name = name_in(0, client.topology)
    client.add(name, 5)
    client.flush()
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        wait_until(lambda: same(worker.total(), 5))
        assert [entry["lane"] for entry in logs if entry.get("code") == "fenced"] == [f"<lane {log}-0>"]
        assert len([entry for entry in logs if entry["event"].startswith("rejoining the group")]) == 1
        assert len(worker.lanes) == 4


def test_any_refused_append_ends_the_memory_and_asks_the_group(client: Client) -> None:
    """Here a changelog that takes small batches only, for a while."""
    name, other = (name_in(partition, client.topology) for partition in (0, 1))
    log = f"{client.topology.app_id}-intents-changelog"
    with capture_logs() as logs, in_thread(client.bootstrap_servers, client.topology) as worker:
        client.add(name, 5)
        client.flush()
        wait_until(lambda: same(worker.total(), 5))
        wait_until(lambda: same(durable(client.bootstrap_servers, client.topology).outbox, []))
        limit(client, log, "80")
        client.add(name, 5)
        client.flush()

        def refused() -> None:
            assert [entry for entry in logs if entry.get("code") == "append_refused"]

        wait_until(refused)
        limit(client, log, str(8 << 20))
        client.add(other, 5)
        client.flush()
        wait_until(lambda: same((worker.count(name), worker.count(other), worker.total()), (10, 5, 15)), within=40)
        assert f"<lane {log}-0>" in {entry["lane"] for entry in logs if entry.get("code") == "append_refused"}
        assert len(worker.lanes) == 4
    left = durable(client.bootstrap_servers, client.topology)
    assert left.counted() == {name: 10, other: 5}


def limit(client: Client, topic: str, size: str) -> None:
    """Set the largest batch that a topic takes."""
    kafka = AdminClient({"bootstrap.servers": client.bootstrap_servers, "log_level": 0})
    entry = ConfigEntry("max.message.bytes", size, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    (changed,) = kafka.incremental_alter_configs([resource]).values()
    changed.result(10)


def test_a_silent_lane_appends_from_time_to_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker forgets a fence after a day of silence."""
    monkeypatch.setattr("pf_stream.engine.runner.KEEP_ALIVE_S", 0.1)
    log = f"{client.topology.app_id}-totals-changelog"
    with in_thread(client.bootstrap_servers, client.topology):

        def appended() -> None:
            units = [message for message in client.read(log) if message.key() == changelog.UNIT]
            assert Counter(message.partition() for message in units).keys() == {0, 1}
            assert len(units) >= 6

        wait_until(appended)


def test_a_lease_is_renewed_and_a_lane_that_was_renewed_is_kept(
    bootstrap_servers: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewing writes a marker behind the last append, which is no write of somebody else's."""
    monkeypatch.setattr("pf_stream.engine.leased.RENEW_S", 0.0)
    touched: list[str] = []
    touch = Transactions.touch

    async def counted(self: Transactions) -> None:
        touched.append(self.id)
        await touch(self)

    monkeypatch.setattr(Transactions, "touch", counted)
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    name = name_in(0, topology)
    log = f"{topology.app_id}-intents-changelog"
    with in_thread(bootstrap_servers, topology) as worker:
        client.add(name, 5)
        client.flush()
        wait_until(lambda: same(worker.total(), 5))
        wait_until(lambda: same(durable(bootstrap_servers, topology).outbox, []))
        assert f"{log}-0" in touched
        before = worker.call(lambda: {repr(runner): runner.lane for runner in worker.worker.lanes.runners})
        worker.call(worker.worker.lanes.ready.clear)
        worker.call(worker.worker.lanes._rejoin)
        worker.ready()
        wait_until(lambda: same(len(worker.lanes), 4))
        after = worker.call(lambda: {repr(runner): runner.lane for runner in worker.worker.lanes.runners})
        assert [key for key, lane in after.items() if lane is not before[key]] == []
        client.add(name, 5)
        client.flush()
        wait_until(lambda: same((worker.count(name), worker.total()), (10, 10)))


# -- the self-test at start -----------------------------------------------------------------------------------------------


def test_leases_hold_on_this_broker(bootstrap_servers: str, unique: str) -> None:
    async def work(lab: Lab) -> None:
        for _ in range(2):
            assert await leases_hold(lab.link, lab.appender, lab.lane, f"{unique}-w-probe", "w", now_ms())

    in_lab(bootstrap_servers, unique, work)


def without_fences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the producer off what goes to the probe, so that the broker cannot tell an old lease from a new one."""
    stamp = Lease.stamp

    def unstamped(self: Lease, partition: Partition, batch: bytes, *, transactional: bool = False) -> bytes:
        if partition[0] == PROBE:
            return batch
        return stamp(self, partition, batch, transactional=transactional)

    monkeypatch.setattr(Lease, "stamp", unstamped)


def test_where_leases_do_not_hold_a_worker_says_so_once_and_uses_transactions(
    bootstrap_servers: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_fences(monkeypatch)
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    name = name_in(0, topology)
    with capture_logs() as logs, in_thread(bootstrap_servers, topology) as worker:
        client.add(name, 5)
        client.flush()
        wait_until(lambda: same((worker.count(name), worker.total()), (5, 5)))
        (said,) = [entry for entry in logs if entry["log_level"] == "error"]
        assert "does not refuse an outdated producer" in said["event"]
        assert said["guarantee"] == "transactional"
    records = client.read(f"{topology.app_id}-intents-changelog")
    assert not [message for message in records if (message.key() or b"")[1:2] == b"o"]


def test_a_topology_that_is_transactional_needs_no_leases(
    bootstrap_servers: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_fences(monkeypatch)
    topology = exact.within(unique)
    make_topics(bootstrap_servers, topology)
    with capture_logs() as logs, in_thread(bootstrap_servers, topology):
        assert not [entry for entry in logs if entry["log_level"] == "error"]
