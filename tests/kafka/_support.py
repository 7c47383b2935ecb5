"""What the tests against a real Kafka share: a small topology, workers in a thread or a process, and a plain client.

The client is confluent-kafka's and says what docs/protocol.md tells everybody to say, so that a mistake of ours is not
made on both sides.
"""

import asyncio
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, cast

import orjson
import structlog
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka import KafkaError as Answer
from opentelemetry.trace import Tracer
from structlog.dev import plain_traceback

from pf_stream import Capability, Context, Effects, Emit, Intent, Key, Reactor, Reply, State, Topology, on, operation
from pf_stream.clock import WallClock
from pf_stream.core import Limits, changelog
from pf_stream.engine import Worker, WorkerSettings
from pf_stream.engine.settings import SESSION_S
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import create_topics
from pf_stream.model import Grant
from pf_stream.security import SigningKey, TrustRoots, mint

T = TypeVar("T")

# As in a worker process: the default shows local variables in tracebacks, which for a payload takes minutes.
structlog.configure(
    processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(exception_formatter=plain_traceback)]
)

ROOT = Path(__file__).parents[2]
SIGNER = SigningKey.generate(7)
ROOTS = TrustRoots.of(SIGNER)

Headers = list[tuple[str, bytes | None]]


# -- a topology -----------------------------------------------------------------------------------------------------------


class CountCap(Capability):
    """Who may count what: ``/{name}``."""

    add = operation()
    admin = operation(implies=add)


class Added(Intent, name="counts.added", version=1, requires=CountCap.add("/{name}")):
    """Something was counted."""

    name: Annotated[str, Key]
    by: int = 1
    how: str = ""
    """What the handler shall do wrong."""


class Totalled(Intent, name="counts.totalled", version=1, topic="totals", requires=CountCap.add("/{name}")):
    """The same, for the total of all names."""

    total: Annotated[str, Key]
    name: str
    by: int


class Unlisted(Intent, name="counts.unlisted", version=1, requires=CountCap.add("/{name}")):
    """No topology knows it."""

    name: Annotated[str, Key]


class Count(State):
    """One name, or one total."""

    n: int = 0
    notes: list[Any] = field(default_factory=list)


class Counts(Reactor[Count], id="counts"):
    """Counts, and misbehaves if it is asked to."""

    @on
    def added(self, intent: Added, state: Count, ctx: Context) -> Effects:
        state.n += intent.by
        if intent.how:
            return cast("Effects", misbehave(intent, state))
        return [
            Emit(Totalled(total=TOTAL, name=intent.name, by=intent.by)),
            Reply({"name": intent.name, "n": state.n}),
        ]


class Totals(Reactor[Count], id="totals"):
    """Sums up what comes through an internal topic, which shows whether anything came twice."""

    @on
    def totalled(self, intent: Totalled, state: Count, ctx: Context) -> None:
        state.n += intent.by


TOTAL = "all"

counts = Topology("counts", [Counts, Totals], internal=["totals"], replies=["replies", "answers.*"], partitions=2)

exact = Topology(
    "exact",
    [Counts, Totals],
    internal=["totals"],
    replies=["replies", "answers.*"],
    partitions=2,
    guarantee="transactional",
)
"""The same, with a Kafka transaction for each unit."""

lasting = Topology(
    "lasting",
    [Counts, Totals],
    internal=["totals"],
    replies=["replies", "answers.*"],
    partitions=2,
    store="rocksdb",
)
"""The same, with its state on disk."""

followed = Topology(
    "followed", [Counts, Totals], internal=["totals"], replies=["replies", "answers.*"], partitions=2, standby=1
)
"""The same, with another worker that follows each lane."""

followed_on_disk = Topology(
    "followed_on_disk",
    [Counts, Totals],
    internal=["totals"],
    replies=["replies", "answers.*"],
    partitions=2,
    standby=1,
    store="rocksdb",
)
"""Both."""

exact_on_disk = Topology(
    "exact_on_disk",
    [Counts, Totals],
    internal=["totals"],
    replies=["replies", "answers.*"],
    partitions=2,
    guarantee="transactional",
    store="rocksdb",
)
"""With its state on disk, and a Kafka transaction for each unit."""


class SpitefulError(Exception):
    """It cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def misbehave(intent: Added, state: Count) -> Any:
    """Do what *intent* asks for and no handler should do."""
    match intent.how:
        case "raises":
            raise ValueError(f"cannot count {intent.name}")
        case "raises with a surrogate":
            raise ValueError("a file \udcff name")
        case "raises what cannot be shown":
            raise SpitefulError
        case "exits":
            sys.exit("enough")
        case "hangs":
            threading.Event().wait()
        case "runs away":
            re.match("(n+)+$", "n" * 40 + "!")  # keeps the interpreter's lock
        case "returns a number":
            return 42
        case "returns text in a list":
            return [Reply({"n": 1}), "nonsense"]
        case "emits text":
            return Emit("nonsense")  # type: ignore[arg-type]
        case "emits what is not declared":
            return Emit(Unlisted(name=intent.name))
        case "replies what has no JSON form":
            return Reply({"n": object()})
        case "logs":
            logging.getLogger("counts").warning("counting %s", intent.name)
        case "takes its time":
            time.sleep(0.03)
        case "leaves a wrong type":
            state.n = "nonsense"  # type: ignore[assignment]
        case "leaves a circle":
            state.notes.append(state.notes)
        case "leaves a surrogate":
            state.notes.append("\udcff")
        case unknown:
            raise AssertionError(unknown)
    return None


# -- waiting --------------------------------------------------------------------------------------------------------------


def wait_until(check: Callable[[], T], within: float = 20.0) -> T:
    """Call *check* until it raises no AssertionError and is not False; after *within* seconds the last one goes through."""
    deadline = time.monotonic() + within
    while True:
        try:
            found = check()
            assert found is not False
            return found
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


# -- topics, tokens and records --------------------------------------------------------------------------------------------


def connection(bootstrap_servers: str) -> ConnectionSettings:
    return ConnectionSettings(bootstrap_servers)


def make_topics(bootstrap_servers: str, topology: Topology) -> None:
    """As ``pf topics create`` does."""
    create_topics(Admin(connection(bootstrap_servers)), topology)


def now_ms() -> int:
    return WallClock().now_ms()


def token(topology: Topology, *capabilities: Grant, subject: str = "tester") -> str:
    """A context for *topology*'s namespace; it may count everything unless told otherwise."""
    held = capabilities or (CountCap.add("/**"),)
    return mint(SIGNER, subject=subject, audience=topology.namespace, capabilities=held, now_ms=now_ms())


class Place(NamedTuple):
    """Where a record was appended."""

    partition: int
    offset: int


class Client:
    """A Kafka client that produces to a topology's intents topic and reads whatever topic it likes."""

    def __init__(self, bootstrap_servers: str, topology: Topology, *, partitioner: str = "murmur2_random") -> None:
        self.bootstrap_servers = bootstrap_servers
        self.topology = topology
        self.topic = f"{topology.namespace}.intents"
        self.context = token(topology)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "partitioner": partitioner,
                "linger.ms": 5,
                "message.max.bytes": 8 << 20,
                "enable.idempotence": True,
                "log_level": 0,
            }
        )
        self._placed: dict[int, Place] = {}
        self._sent = 0

    def headers(self, kind: str = "counts.added.v1", **more: str | bytes | None) -> Headers:
        """What an intent needs; *more* have ``_`` for ``-``, and None leaves one out."""
        given: dict[str, str | bytes | None] = {
            "ce_specversion": "1.0",
            "ce_type": kind,
            "ce_source": "/tests",
            "ce_id": secrets.token_hex(8),
            "content-type": "application/json",
            "pf-context": self.context,
            **{name if name.startswith("ce_") else name.replace("_", "-"): value for name, value in more.items()},
        }
        return [
            (name, value.encode() if isinstance(value, str) else value)
            for name, value in given.items()
            if value is not None
        ]

    def send(
        self,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        *,
        partition: int = -1,
        topic: str | None = None,
    ) -> int:
        """Queue a record; returns its number for :meth:`flush`."""
        number = self._sent
        self._sent += 1

        def delivered(error: Answer | None, message: Message) -> None:
            assert error is None, error
            place = message.partition(), message.offset()
            assert place[0] is not None
            assert place[1] is not None
            self._placed[number] = Place(place[0], place[1])

        while True:
            try:
                self._producer.produce(
                    topic or self.topic,
                    value,
                    key,
                    partition,
                    headers=list(self.headers() if headers is None else headers),
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self._producer.poll(0)
        return number

    def flush(self) -> dict[int, Place]:
        """Wait until Kafka has everything; where it all is, by number."""
        assert self._producer.flush(30) == 0
        assert len(self._placed) == self._sent
        return self._placed

    def place(self, *args: Any, **kwargs: Any) -> Place:
        """:meth:`send` one record and wait."""
        number = self.send(*args, **kwargs)
        return self.flush()[number]

    def add(self, name: str, times: int = 1, *, partition: int = -1, **payload: Any) -> None:
        """Queue intents that count *name*."""
        value = orjson.dumps({"name": name, **payload})
        for _ in range(times):
            self.send(name, value, partition=partition)

    def read(self, topic: str) -> list[Message]:
        """Every committed record of a topic, each partition in its order."""
        return read_topic(self.bootstrap_servers, topic)

    def dead_letters(self) -> list[Message]:
        return self.read(f"{self.topic}.dlq")

    def dead_letter(self, place: Place) -> Message:
        """The one dead letter of the record at *place*; fails if there is none or more."""
        origin = {
            "__streams.errors.topic": self.topic.encode(),
            "__streams.errors.partition": b"%d" % place.partition,
            "__streams.errors.offset": b"%d" % place.offset,
        }
        found = [message for message in self.dead_letters() if origin.items() <= headers_of(message).items()]
        assert len(found) == 1, f"{len(found)} dead letters of {place}"
        return found[0]


def headers_of(message: Message) -> dict[str, bytes | None]:
    return dict(header_list(message))


def header_list(message: Message) -> Headers:
    # No deserialiser is set, so these are bytes, whatever the annotations allow.
    return list(cast("Headers", message.headers() or []))


def read_topic(bootstrap_servers: str, topic: str) -> list[Message]:
    """Every committed record of *topic* up to its present ends, in the order of each partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        assert partitions, f"there is no topic {topic}"
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        left = set(partitions)
        found = []
        deadline = time.monotonic() + 30
        while left:
            assert time.monotonic() < deadline, f"{topic} cannot be read"
            for message in consumer.consume(1000, 0.05):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == Answer._PARTITION_EOF:
                    left.discard(message.partition() or 0)
                else:
                    raise AssertionError(error)
        return found
    finally:
        consumer.close()


def partition_for(name: str, topology: Topology) -> int:
    """Kafka's default partitioner, as the clients know it."""
    from aiokafka.partitioner import murmur2

    return int((murmur2(name.encode()) & 0x7FFFFFFF) % topology.partitions)


def name_in(partition: int, topology: Topology, prefix: str = "n") -> str:
    """A new name that belongs to *partition*."""
    while True:
        name = prefix + secrets.token_hex(4)
        if partition_for(name, topology) == partition:
            return name


# -- what is durable ------------------------------------------------------------------------------------------------------


class Durable(NamedTuple):
    """What the changelogs of a topology hold, last value of each key."""

    states: dict[tuple[str, str], Any]
    """By reactor and key."""
    watermarks: dict[tuple[str, str, int], int]
    """By reactor, topic and partition."""
    outbox: list[bytes]
    """Values of outputs that are not marked as sent."""
    marked: dict[tuple[str, int], tuple[int, int]]
    """Unit sequence and the sequence up to which outputs were marked as sent, by changelog and partition."""
    timers: list[bytes]
    """Keys of the timers that wait."""

    def total(self) -> int:
        return int(self.states.get(("totals", TOTAL), {"n": 0})["n"])

    def counted(self) -> dict[str, int]:
        """Count of every name."""
        return {key: state["n"] for (reactor, key), state in self.states.items() if reactor == "counts"}


def durable(bootstrap_servers: str, topology: Topology) -> Durable:
    """Read the changelogs as a recovery would."""
    last: dict[tuple[str, int, bytes], bytes | None] = {}
    for group in topology.groups:
        topic = topology.changelog(group)
        for message in read_topic(bootstrap_servers, topic):
            last[topic, message.partition() or 0, message.key() or b""] = message.value()
    return decoded(last)


def decoded(last: Mapping[tuple[str, int, bytes], bytes | None]) -> Durable:
    """What the last values mean, by changelog, partition and key."""
    found = Durable({}, {}, [], {}, [])
    for (topic, partition, key), value in last.items():
        if value is None:
            continue
        match key[1:2]:
            case b"s":
                reactor, name, _ = changelog.parse_state_key(key)
                body = value[changelog.STATE_PREFIX.size :]
                found.states[reactor, name.decode()] = orjson.loads(body)
            case b"w":
                reactor, at = changelog.parse_name(key, 2)
                source, _ = changelog.parse_name(key, at)
                found.watermarks[reactor, source, partition] = changelog.WATERMARK_VALUE.unpack(value)[0]
            case b"o":
                found.outbox.append(value)
            case b"t":
                found.timers.append(key)
            case b"u":
                found.marked[topic, partition] = changelog.UNIT_VALUE.unpack(value)
    return found


# -- workers --------------------------------------------------------------------------------------------------------------


class ThreadWorker:
    """A worker in a thread of this process, with an event loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
        self._loop = loop
        self.worker = worker

    def run(self, coroutine: Coroutine[Any, Any, T], within: float = 30.0) -> T:
        """Run something where the worker runs."""
        if not self._loop.is_running():
            coroutine.close()
            raise RuntimeError("the worker's thread has died")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(within)

    def call(self, function: Callable[[], T]) -> T:
        """Call something where the worker runs."""

        async def called() -> T:
            return function()

        return self.run(called())

    def ready(self) -> None:
        """Wait until every lane is open or has stopped."""
        self.run(self.worker.lanes.ready.wait())

    def state(self, reactor: str, key: str) -> Any:
        """Committed state, None if there is none."""

        def stored() -> list[bytes]:
            values = [runner.lane.stored(reactor, key.encode()) for runner in self.worker.lanes.runners]
            return [value for value in values if value is not None]

        found = self.call(stored)
        assert len(found) <= 1, f"{key} lives in {len(found)} lanes"
        return orjson.loads(found[0]) if found else None

    def count(self, name: str) -> int:
        state = self.state("counts", name)
        return 0 if state is None else int(state["n"])

    def total(self) -> int:
        state = self.state("totals", TOTAL)
        return 0 if state is None else int(state["n"])

    @property
    def refused(self) -> Counter[str]:
        return self.call(lambda: self.worker.refused)

    @property
    def lanes(self) -> set[str]:
        """The lanes that are open."""
        return self.call(lambda: {repr(runner) for runner in self.worker.lanes.runners})


@contextmanager
def in_thread(
    at: str | ConnectionSettings,
    topology: Topology,
    *,
    worker_id: str = "w0",
    limits: Limits | None = None,
    session_s: float = SESSION_S,
    service_keys: tuple[SigningKey, ...] = (),
    roots: TrustRoots = ROOTS,
    state_dir: Path | None = None,
    tracer: Tracer | None = None,
) -> Iterator[ThreadWorker]:
    """A worker that is ready, and drained and stopped after the block; *at* bootstrap servers, or with a name of its own."""
    settings = WorkerSettings(
        connection(at) if isinstance(at, str) else at,
        roots,
        worker_id,
        service_keys,
        state_dir=state_dir,
        session_s=session_s,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"worker {worker_id}")
    thread.start()
    try:
        started = asyncio.run_coroutine_threadsafe(
            Worker.start(topology, settings, limits, tracer=tracer), loop
        ).result(60)
        worker = ThreadWorker(loop, started)
        try:
            worker.ready()
            yield worker
        finally:
            worker.run(started.stop())
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class ProcessWorker:
    """``pf worker run`` as people start it."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1, within: float = 30.0) -> None:
        """Wait until it has said *text*."""

        def said() -> None:
            assert self.log.count(text) >= times, f"{text!r} is missing in:\n{self.log}"

        wait_until(said, within)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, within: float = 30.0) -> int:
        """Ask it to stop; its exit code."""
        self.process.terminate()
        return self.process.wait(within)


@contextmanager
def in_process(
    bootstrap_servers: str,
    topology: Topology,
    folder: Path,
    *options: str,
    worker_id: str = "w0",
    session_s: float | None = None,
    module: str = __name__,
) -> Iterator[ProcessWorker]:
    """A worker process; killed after the block if it still runs. *options* are further ones of the command.

    *module* is where the topology stands, under its own name. *session_s* is how long its group waits for it when it has
    gone.
    """
    trust = folder / "issuer.pub"
    SIGNER.save(folder / "issuer", overwrite=True)
    log = folder / f"{worker_id}-{secrets.token_hex(3)}.log"
    command = [sys.executable, "-W", "error", "-m", "pf_stream", "worker", "run", f"{module}:{topology.name}"]
    command += ["--namespace", topology.namespace, "--id", worker_id, "--trust", str(trust), *options]
    if session_s is not None:
        command += ["--session", str(session_s)]
    environment = {**os.environ, "PF_BOOTSTRAP_SERVERS": bootstrap_servers}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment)
    try:
        yield ProcessWorker(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
