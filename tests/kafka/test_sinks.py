"""Sinks on a real Kafka: what the topology writes reaches its consumer, however slow that is, and all else goes on."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import psutil
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from pf_stream import (
    PUBLIC,
    Buffer,
    Capability,
    Context,
    Delivered,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    RetryInPlace,
    Sink,
    State,
    Tally,
    Topology,
    on,
    operation,
)
from pf_stream.clock import WallClock
from pf_stream.components.replay import Caller, Replayer, select_letters
from pf_stream.core.status import SinkState, SinkStatus
from pf_stream.engine.app import LaneConsumer
from pf_stream.engine.sinks import Progress
from pf_stream.model.topology import Guarantee
from tests.kafka import draining as draining_module
from tests.kafka._support import (
    ROOTS,
    Client,
    Counts,
    ThreadWorker,
    Totalled,
    connection,
    headers_of,
    in_process,
    in_thread,
    make_topics,
    read_topic,
    token,
    wait_until,
)

Batch = Sequence[Delivered[Totalled]]


class Consumer:
    """Notes what it gets, after *delay_s*; raises at names that begin with ``bad``, and hangs in partitions of *hung*."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.calls = 0
        self.hung: set[int] = set()
        self.delay_s = 0.0
        self.fails = 0
        """How many calls are to fail, whatever they bring."""

    async def __call__(self, batch: Batch) -> None:
        self.calls += 1
        while batch[0].position[1] in self.hung:  # noqa: ASYNC110 - which is set from another thread
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.delay_s)
        if self.fails:
            self.fails -= 1
            raise ConnectionError("away")
        if any(one.intent.name.startswith("bad") for one in batch):
            raise ValueError(f"{len(batch)} records, and a bad one among them")
        self.batches.append(batch)

    @property
    def got(self) -> list[Delivered[Totalled]]:
        return [one for batch in self.batches for one in batch]


def drained(
    namespace: str,
    to: Consumer,
    buffer: Buffer | None = None,
    batch: int = 500,
    attempts: int = 3,
    guarantee: Guarantee = "effectively_once",
) -> Topology:
    """Counts, with a sink for what they emit."""
    retry = RetryInPlace(attempts, backoff_s=0.01)
    sink = Sink("drain", of=Totalled, to=to, buffer=buffer or Buffer(), batch=batch, on_error=retry)
    return Topology(
        "drained",
        [Counts],
        namespace=namespace,
        internal=["totals"],
        emits=[Totalled],
        partitions=1,
        guarantee=guarantee,
        sinks=[sink],
    )


def status(worker: ThreadWorker, partition: int = 0) -> SinkStatus:
    def look() -> SinkStatus:
        sinks = worker.worker.lanes.sinks
        assert sinks is not None
        return sinks.statuses[partition]

    return worker.call(look)


def committed(bootstrap_servers: str, topology: Topology) -> int:
    """What the group has committed for the one partition of the sink's topic."""
    from confluent_kafka import Consumer as Asking
    from confluent_kafka import TopicPartition

    asking = Asking({"bootstrap.servers": bootstrap_servers, "group.id": topology.app_id, "log_level": 0})
    try:
        (found,) = asking.committed([TopicPartition(f"{topology.namespace}.totals", 0)], timeout=10)
        return int(found.offset)
    finally:
        asking.close()


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


def started(bootstrap_servers: str, topology: Topology) -> Client:
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


@pytest.mark.parametrize("guarantee", get_args(Guarantee))
def test_what_a_topology_writes_is_handed_over_in_order(
    bootstrap_servers: str, unique: str, consumer: Consumer, guarantee: Guarantee
) -> None:
    topology = drained(unique, consumer, batch=7, guarantee=guarantee)
    client = started(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology):
        for number in range(30):
            client.add(f"n{number}")
        client.flush()
        wait_until(lambda: len(consumer.got) == 30)
    assert [one.intent.name for one in consumer.got] == [f"n{number}" for number in range(30)]
    assert max(map(len, consumer.batches)) <= 7
    places = [one.position[2] for one in consumer.got]
    assert places == sorted(places)
    assert {one.position[:2] for one in consumer.got} == {(f"{unique}.totals", 0)}
    assert {one.key for one in consumer.got} == {b"all"}
    assert len({one.source for one in consumer.got}) == 30
    assert committed(bootstrap_servers, topology) > places[-1], "a drain commits"
    client.add("later", 5)
    client.flush()
    with in_thread(bootstrap_servers, topology):
        wait_until(lambda: len(consumer.got) >= 35)
    assert [one.intent.name for one in consumer.got[30:]] == ["later"] * 5, "it goes on where it was"


def test_it_goes_on_where_its_topic_begins_if_what_it_wanted_is_deleted(
    bootstrap_servers: str, unique: str, consumer: Consumer
) -> None:
    topology = drained(unique, consumer, batch=1)
    client = started(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology):
        client.add("first")
        client.flush()
        wait_until(lambda: len(consumer.got) == 1)
    consumer.hung.add(0)
    with in_thread(bootstrap_servers, topology) as worker:
        for number in range(6):
            client.add(f"n{number}")
        client.flush()
        wait_until(lambda: status(worker).accepted == 6)
        consumer.fails = 1 << 30
        consumer.hung.clear()
    *_, next_to_last, last = (message.offset() or 0 for message in read_topic(bootstrap_servers, f"{unique}.totals"))
    kafka = AdminClient({"bootstrap.servers": bootstrap_servers})
    ((_, deleted),) = kafka.delete_records([TopicPartition(f"{unique}.totals", 0, next_to_last)]).items()
    deleted.result(10)
    consumer.fails = 0
    with capture_logs() as logs, in_thread(bootstrap_servers, topology):
        wait_until(lambda: len(consumer.got) == 3)
    assert [one.position[2] for one in consumer.got[1:]] == [next_to_last, last]
    (told,) = (entry for entry in logs if entry["event"].startswith("sink goes on where its topic begins"))
    assert (told["begin"], told["sink"]) == (next_to_last, "<sink drain-0>")


def test_what_a_consumer_does_not_take_is_a_dead_letter(
    bootstrap_servers: str, unique: str, consumer: Consumer
) -> None:
    topology = drained(unique, consumer, batch=16)
    client = started(bootstrap_servers, topology)
    names = [f"{'bad' if number in {3, 4, 29} else 'n'}{number}" for number in range(40)]
    for name in names:
        client.add(name)
    client.flush()
    with in_thread(bootstrap_servers, topology) as worker:
        wait_until(lambda: status(worker).dead_letters == 3 and len(consumer.got) == 37)
        told = status(worker)
        assert (told.state, told.handed, told.lag) == (SinkState.running, 37, 0)
    letters = read_topic(bootstrap_servers, f"{unique}.totals.dlq")
    assert [headers_of(letter)["__streams.errors.offset"] for letter in letters] == [b"3", b"4", b"29"]
    headers = headers_of(letters[0])
    assert headers["pf-error-code"] == b"sink_failed"
    assert headers["__streams.errors.exception"] == b"builtins.ValueError"
    assert headers["__streams.errors.message"] == b"drain: ValueError: 1 records, and a bad one among them"
    assert headers["ce_type"] == b"counts.totalled.v1"
    assert "pf-context" not in headers
    original = read_topic(bootstrap_servers, f"{unique}.totals")[3]
    assert (letters[0].key(), letters[0].value()) == (original.key(), original.value())
    assert [one.intent.name for one in consumer.got] == [name for name in names if name.startswith("n")]


def test_a_consumer_that_fails_for_a_while_loses_nothing(
    bootstrap_servers: str, unique: str, consumer: Consumer
) -> None:
    topology = drained(unique, consumer, attempts=50)
    client = started(bootstrap_servers, topology)
    consumer.fails = 5
    with in_thread(bootstrap_servers, topology) as worker:
        client.add("a", 10)
        client.flush()
        wait_until(lambda: status(worker).state is SinkState.retrying)
        assert status(worker).reason == "ConnectionError: away"
        wait_until(lambda: len(consumer.got) == 10)
        told = status(worker)
    assert (told.failures, told.dead_letters, told.reason) == (5, 0, None)


def test_a_consumer_that_hangs_holds_up_its_own_partition(
    bootstrap_servers: str, unique: str, consumer: Consumer
) -> None:
    topology = Topology(
        "drained",
        [Counts],
        namespace=unique,
        internal=["totals"],
        emits=[Totalled],
        partitions=2,
        sinks=[Sink("drain", of=Totalled, to=consumer, buffer=Buffer(records=20), batch=10)],
    )
    client = started(bootstrap_servers, topology)
    # Where all of one total goes is of no matter here: both partitions of the sink's topic are to get something.
    totals = Client(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology) as worker:
        client.add("a")
        client.flush()
        wait_until(lambda: len(consumer.got) == 1)
        busy = consumer.got[0].position[1]
        consumer.hung = {busy}
        client.add("a", 500)
        client.flush()
        wait_until(lambda: worker.count("a") == 501)
        wait_until(lambda: status(worker, busy).state is SinkState.full)
        told = status(worker, busy)
        assert (told.buffered, told.position, told.dropped) == (20, 1, None)
        other = 1 - busy
        value = b'{"total":"t","name":"elsewhere","by":1}'
        headers = totals.headers("counts.totalled.v1", pf_source="upstream:1:1", pf_hops="1")
        totals.send(b"t", value, headers, topic=f"{unique}.totals", partition=other)
        totals.flush()
        wait_until(lambda: any(one.intent.name == "elsewhere" for one in consumer.got))
        assert status(worker, busy).paused_s > 0
        began = time.monotonic()
        worker.run(worker.worker.lanes.revoke())
        assert time.monotonic() - began < 4, "a rebalance does not wait for it"
        consumer.hung = set()
        worker.call(worker.worker._app.consumer.rejoin)
        wait_until(lambda: len(consumer.got) >= 502)
    assert Counter(one.intent.name for one in consumer.got) == {"a": 501, "elsewhere": 1}


def test_what_the_engine_writes_twice_is_handed_over_once(
    bootstrap_servers: str, unique: str, consumer: Consumer
) -> None:
    """Also if the worker ended in between: what was taken from whom is committed with the offset."""
    topology = drained(unique, consumer)
    client = started(bootstrap_servers, topology)

    def write(*sources: str) -> None:
        for source in sources:
            headers = client.headers("counts.totalled.v1", pf_source=source, pf_hops="1")
            client.send(b"t", b'{"total":"t","name":"n","by":1}', headers, topic=f"{unique}.totals", partition=0)
        client.flush()

    with in_thread(bootstrap_servers, topology) as worker:
        write("up:1:0", "up:1:1", "up:1:0", "up:1:1", "other:1:0", "up:2:0")
        wait_until(lambda: status(worker).position == 6)
        assert status(worker).repeats == 2
    with in_thread(bootstrap_servers, topology) as worker:
        write("up:2:0", "other:1:0", "up:3:0")
        wait_until(lambda: status(worker).position == 9)
        assert status(worker).repeats == 2
    assert [one.source for one in consumer.got] == ["up:1:0", "up:1:1", "other:1:0", "up:2:0", "up:3:0"]


def test_records_that_nobody_of_ours_wrote(bootstrap_servers: str, unique: str, consumer: Consumer) -> None:
    topology = drained(unique, consumer)
    client = started(bootstrap_servers, topology)
    value = b'{"total":"t","name":"n","by":1}'
    kind = "counts.totalled.v1"
    for headers, payload in (
        (client.headers(kind), value),
        (client.headers(kind, pf_source="up:1:0"), b"no JSON"),
        (client.headers("counts.nonsense.v1", pf_source="up:1:1"), value),
        (client.headers(kind, pf_source="up:1:2"), value),
    ):
        client.send(b"t", payload, headers, topic=f"{unique}.totals", partition=0)
    client.flush()
    with in_thread(bootstrap_servers, topology):
        wait_until(lambda: len(consumer.got) == 1)
    letters = read_topic(bootstrap_servers, f"{unique}.totals.dlq")
    codes = [headers_of(letter)["pf-error-code"] for letter in letters]
    assert codes == [b"untrusted_record", b"malformed_payload", b"unknown_type"]


def test_a_newer_version_stops_the_sink_behind_what_it_knows(
    bootstrap_servers: str, unique: str, consumer: Consumer
) -> None:
    topology = drained(unique, consumer)
    client = started(bootstrap_servers, topology)
    for number, kind in enumerate(("counts.totalled.v1", "counts.totalled.v2")):
        headers = client.headers(kind, pf_source=f"up:1:{number}")
        client.send(b"t", b'{"total":"t","name":"n","by":1}', headers, topic=f"{unique}.totals", partition=0)
    client.flush()
    with in_thread(bootstrap_servers, topology) as worker:
        wait_until(lambda: status(worker).code == "newer_version")
        assert status(worker).state is SinkState.stopped
        wait_until(lambda: committed(bootstrap_servers, topology) == 1)
    assert len(consumer.got) == 1
    assert read_topic(bootstrap_servers, f"{unique}.totals.dlq") == []


@pytest.mark.parametrize(
    ("buffer", "handed", "reason"),
    [
        (Buffer(records=30), 300, None),
        (Buffer(records=30, strategy="drop_oldest"), 40, "oldest"),
        (Buffer(records=30, strategy="drop_newest"), 40, "newest"),
        (Buffer(records=30, strategy="buffer"), 300, None),
        (Buffer(records=30, strategy="sample", keep=10, mark=0.5), None, "sampled"),
    ],
    ids=lambda value: value.strategy if isinstance(value, Buffer) else "",
)
def test_every_strategy_while_the_consumer_is_away(
    bootstrap_servers: str, unique: str, consumer: Consumer, buffer: Buffer, handed: int | None, reason: str | None
) -> None:
    """300 records while it has one batch of ten in hand, and room for thirty: state has them all, whatever is dropped."""
    topology = drained(unique, consumer, buffer, batch=10)
    client = started(bootstrap_servers, topology)
    consumer.hung = {0}
    with in_thread(bootstrap_servers, topology) as worker:
        client.add("a", 10)
        client.flush()
        wait_until(lambda: consumer.calls == 1 and status(worker).position == 0)
        for number in range(290):
            client.add(f"b{number}")
        client.flush()
        wait_until(lambda: worker.count("b289") == 1)
        taken = {"block": 10, "sample": 10}.get(buffer.strategy, 300)

        def settled() -> bool:
            told = status(worker)
            refused = sum(count for why, count in (told.dropped or {}).items() if why != "oldest")
            return told.accepted + refused >= taken and (taken == 300 or told.state is SinkState.full)

        wait_until(settled)
        told = status(worker)
        assert told.position == 0
        assert told.buffered <= (300 if buffer.strategy == "buffer" else 30)
        assert (told.spilled_bytes > 0) == (buffer.strategy == "buffer")
        consumer.hung = set()
        wait_until(lambda: status(worker).position == 300)
        told = status(worker)
    got = [one.position[2] for one in consumer.got]
    assert got == sorted(set(got))
    dropped = sum((told.dropped or {}).values())
    assert len(got) + dropped == 300
    assert set(told.dropped or {}) == ({reason} if reason else set())
    if handed is not None:
        # How many it had taken before it hung depends on how they came.
        assert handed - 10 <= len(got) <= handed
    if buffer.strategy == "drop_oldest":
        assert got[-1] == 299
    if buffer.strategy == "drop_newest":
        assert got[-1] < 50


def test_a_throttled_consumer_gets_no_more_than_its_rate(
    bootstrap_servers: str, unique: str, consumer: Consumer
) -> None:
    topology = drained(unique, consumer, Buffer(strategy="throttle", rate=50))
    client = started(bootstrap_servers, topology)
    client.add("a", 150)
    client.flush()
    with in_thread(bootstrap_servers, topology):
        wait_until(lambda: len(consumer.got) >= 5)
        began, before = time.monotonic(), len(consumer.got)
        time.sleep(1)
        after, seconds = len(consumer.got), time.monotonic() - began
    assert 20 <= after - before <= 50 * seconds + 6


def test_an_adaptive_sink_follows_what_it_sees(bootstrap_servers: str, unique: str, consumer: Consumer) -> None:
    """While the consumer is slow batches are halved to the least, and the rate falls; once it is quick both recover."""
    buffer = Buffer(records=50, strategy="adaptive", rate=500, min_rate=100, slow_s=0.25)
    topology = drained(unique, consumer, buffer, batch=40)
    client = started(bootstrap_servers, topology)
    consumer.delay_s = 0.6
    client.add("a", 2_000)
    client.flush()
    with in_thread(bootstrap_servers, topology) as worker:
        wait_until(lambda: status(worker).slowed >= 2)
        told = status(worker)
        assert told.buffered <= 50
        assert told.rate is not None
        assert 100 <= told.rate <= 0.81 * 500 + 25
        wait_until(lambda: status(worker).batch == 10)
        told = status(worker)
        assert told.halved == 2, "from 40 to 20 to 10"
        wait_until(lambda: len(consumer.batches[-1]) == 10)
        consumer.delay_s = 0.0
        wait_until(lambda: status(worker).batch == 40)
        low = status(worker).rate
        assert low is not None
        wait_until(lambda: (status(worker).rate or 0) > low, within=10)
        wait_until(lambda: status(worker).position == 2_000, within=60)
    assert max(map(len, consumer.batches)) <= 40
    assert [one.position[2] for one in consumer.got] == list(range(2_000))


def test_dead_letters_of_a_sink_are_sent_again(bootstrap_servers: str, unique: str, consumer: Consumer) -> None:
    topology = drained(unique, consumer, attempts=2)
    client = started(bootstrap_servers, topology)
    for name in ("bad1", "good", "bad2"):
        client.add(name)
    client.flush()
    with in_thread(bootstrap_servers, topology) as worker:
        wait_until(lambda: status(worker).dead_letters == 2)
        letters = select_letters(f"{unique}.totals.dlq")
        caller = Caller(token(topology), topology, ROOTS)
        replayer = Replayer(connection(bootstrap_servers), letters, caller, WallClock())
        assert [one.obstacle for one in replayer.execute()] == [None, None]
        wait_until(lambda: status(worker).dead_letters == 4)
        assert status(worker).repeats == 0
    assert [one.intent.name for one in consumer.got] == ["good"]


# -- keys of many partitions -----------------------------------------------------------------------------------------------


class FileCap(Capability):
    """Files by their paths."""

    read = operation()
    write = operation()


class ReadFile(Intent, name="files.read", requires=FileCap.read("/{path}")):
    """Somebody wants to read."""

    path: Annotated[str, Key]


class WriteFile(Intent, name="files.write", requires=FileCap.write("/{path}")):
    """Somebody wants to write."""

    path: Annotated[str, Key]


class FileReadEvent(Intent, name="files.was_read", topic="reads", requires=PUBLIC):
    """It was read."""

    path: Annotated[str, Key]


class FileWriteEvent(Intent, name="files.was_written", topic="writes", requires=PUBLIC):
    """It was written."""

    path: Annotated[str, Key]


class FileState(State):
    """What was done with a file."""

    reads: int = 0
    writes: int = 0


class FileStream(Reactor[FileState], id="file_stream"):
    """Counts, and tells."""

    @on
    def read(self, intent: ReadFile, state: FileState, ctx: Context) -> Effects:
        state.reads += 1
        return [Emit(FileReadEvent(path=intent.path)), Tally("reads")]

    @on
    def write(self, intent: WriteFile, state: FileState, ctx: Context) -> Effects:
        state.writes += 1
        return [Emit(FileWriteEvent(path=intent.path)), Tally("writes")]


class Archive:
    """A consumer of file events, that takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.got: list[Delivered[Any]] = []

    async def __call__(self, batch: Sequence[Delivered[Any]]) -> None:
        await asyncio.sleep(self.seconds)
        self.got += batch


def files(namespace: str, reads: Archive, writes: Archive, buffer: Buffer) -> Topology:
    return Topology(
        "files",
        [FileStream],
        namespace=namespace,
        internal=["reads", "writes"],
        emits=[FileReadEvent, FileWriteEvent],
        partitions=2,
        sinks=[
            Sink("reads", of=FileReadEvent, to=reads, buffer=buffer, batch=20),
            Sink("writes", of=FileWriteEvent, to=writes, buffer=buffer, batch=20),
        ],
    )


def send(client: Client, kind: type[Intent], count: int, context: str) -> None:
    spec = kind.__intent__
    for number in range(count):
        intent = kind(path=f"f{number}")  # type: ignore[call-arg] # both have one
        client.send(spec.key_of(intent), spec.encode(intent), client.headers(spec.type, pf_context=context))
    client.flush()


def test_s20_a_file_stream(bootstrap_servers: str, unique: str) -> None:
    """S20: what is allowed is counted and told, what is denied is an error, and the sink slows down where it must."""
    reads, writes = Archive(0.1), Archive()
    buffer = Buffer(records=30, strategy="adaptive", rate=1_000, slow_s=0.05)
    topology = files(unique, reads, writes, buffer)
    client = started(bootstrap_servers, topology)
    reader = token(topology, FileCap.read("/**"))
    with in_thread(bootstrap_servers, topology) as worker:
        send(client, ReadFile, 600, reader)
        send(client, WriteFile, 40, token(topology, FileCap.write("/**")))
        send(client, WriteFile, 5, reader)
        wait_until(lambda: len(reads.got) == 600 and len(writes.got) == 40, within=60)
        assert worker.state("file_stream", "f3") == {"reads": 1, "writes": 1}
        assert worker.refused == {"insufficient_capabilities": 5}
        lanes = worker.call(lambda: worker.worker.lanes.statuses)
        counted = Counter[str]()
        for lane in lanes:
            counted.update((lane.tallies or {}).get("file_stream", {}))
        assert counted == {"reads": 600, "writes": 40}
        errors = [lane.error_rate for lane in lanes if lane.error_rate is not None]
        assert errors
        assert max(errors) > 0
        sinks = worker.call(lambda: worker.worker.lanes.sink_statuses)
        of_reads = [sink for sink in sinks if sink.sink == "reads"]
        assert sum(sink.slowed for sink in of_reads) > 0, "the buffer was full"
        assert sum(sink.halved for sink in of_reads) > 0, "processing was slow"
        assert sum(sink.handed for sink in sinks) == 640
    assert Counter(one.intent.path for one in reads.got) == Counter(f"f{number}" for number in range(600))


def test_a_partition_that_moves_goes_on_elsewhere(bootstrap_servers: str, unique: str) -> None:
    """Two workers, of which one comes later and goes again: nothing is missing, and little comes twice."""
    ours, theirs = Archive(0.25), Archive(0.25)
    buffer = Buffer(records=100)
    topology = files(unique, ours, ours, buffer)
    client = started(bootstrap_servers, topology)
    context = token(topology, FileCap.read("/**"))
    with in_thread(bootstrap_servers, topology):
        send(client, ReadFile, 2_000, context)
        wait_until(lambda: len(ours.got) >= 100)
        with in_thread(bootstrap_servers, files(unique, theirs, theirs, buffer), worker_id="w1", session_s=6) as other:
            wait_until(lambda: len(theirs.got) >= 100)
            partitions = {one.position[1] for one in theirs.got}
            assert len(partitions) == 1
            assert {sink.partition for sink in other.call(lambda: other.worker.lanes.sink_statuses)} == partitions
        wait_until(lambda: len({one.source for one in ours.got + theirs.got}) == 2_000, within=60)
    repeated = len(ours.got) + len(theirs.got) - 2_000
    assert repeated <= 2 * 2 * 20, repeated


def lines(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.timeout(600)
def test_kills_lose_nothing_and_what_comes_twice_is_known(
    bootstrap_servers: str, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six lives, each ended by dice: in the middle of a batch, between two, or before the worker has begun to read."""
    file = tmp_path / "drained"
    monkeypatch.setenv(draining_module.FILE, str(file))
    monkeypatch.setenv(draining_module.DELAY, "0.04")
    topology = draining_module.draining.within(unique)
    client = started(bootstrap_servers, topology)
    dice = random.Random(unique)  # noqa: S311 - a failure shows the name, which is the seed
    kills, count = 5, 1_000
    for number in range(count):
        client.add(f"n{number}")
    client.flush()

    def seen() -> int:
        return len({line[2] for line in lines(file)})

    for life in range(kills + 1):
        with in_process(bootstrap_servers, topology, tmp_path, session_s=6, module=draining_module.__name__) as worker:
            wanted = count if life == kills else min(count - 1, seen() + dice.choice([0, 1, 20, 21, 90, 140]))

            def enough(wanted: int = wanted) -> None:
                assert seen() >= wanted, worker.log

            wait_until(enough, within=90)
            if life == kills:
                assert worker.end() == 0
            else:
                time.sleep(dice.random() * 0.1)
                worker.signal(signal.SIGKILL)
                worker.process.wait(10)
    names = {line[2]: line[3] for line in lines(file)}
    assert sorted(names.values()) == sorted(f"n{number}" for number in range(count)), "each once, by its pf-source"
    # All of one total lives in one partition. What is new comes in its order, whatever comes again before it.
    first = dict.fromkeys(int(line[1]) for line in lines(file))
    assert list(first) == sorted(first)
    # A batch in hand at each kill, and what was handed over since the last commit.
    repeated = len(lines(file)) - count
    assert repeated <= kills * 3 * 20, repeated


def test_a_worker_that_cannot_commit_for_a_reason_that_nobody_knows_ends(
    bootstrap_servers: str, unique: str, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hand over for ever, and all of it again after the next start."""
    commit, failures = LaneConsumer.commit_progress, [ValueError("out of luck")]

    async def failing(self: LaneConsumer, progress: Progress) -> bool:
        if failures:
            raise failures.pop()
        return await commit(self, progress)

    monkeypatch.setattr(LaneConsumer, "commit_progress", failing)
    topology = drained(unique, consumer)
    client = started(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology) as worker:
        client.add("a")
        client.flush()
        wait_until(worker.worker.crashed.done)
        assert str(worker.worker.crashed.exception()) == "out of luck"


def rss(worker_pid: int) -> int:
    return int(psutil.Process(worker_pid).memory_info().rss)


def test_memory_stays_flat_and_all_else_goes_on(
    bootstrap_servers: str, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that is a hundred times slower than its source, for half a minute."""
    file = tmp_path / "drained"
    monkeypatch.setenv(draining_module.FILE, str(file))
    monkeypatch.setenv(draining_module.DELAY, "2")  # ten a second, in one partition
    topology = draining_module.draining.within(unique)
    client = started(bootstrap_servers, topology)
    with in_process(bootstrap_servers, topology, tmp_path, module=draining_module.__name__) as worker:
        worker.wait_for("worker ready")
        sizes: list[int] = []
        began = time.monotonic()
        sent = 0
        while (passed := time.monotonic() - began) < 25:
            while sent < passed * 1500:
                client.add(f"n{sent % 100}")
                sent += 1
            client.flush()
            if passed > 8:
                sizes.append(rss(worker.process.pid))
            time.sleep(0.05)
        wait_until(lambda: sum(1 for _ in read_topic(bootstrap_servers, f"{unique}.totals")) == sent, within=10)
        ended = time.monotonic()
        assert worker.end() == 0
        assert time.monotonic() - ended < 10
    assert 20 <= len(lines(file)) < sent / 50
    first, last = sizes[: len(sizes) // 4], sizes[-len(sizes) // 4 :]
    growth = sum(last) / len(last) - sum(first) / len(first)
    assert growth < 8 << 20, f"{growth / 1e6:.1f} MB in some 13 s of {sent} records"
