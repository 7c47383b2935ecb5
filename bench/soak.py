"""A worker at half load for a while: does memory, do open files, threads, tasks or the latency grow?

The worker is a process of its own that runs the engine in its event loop and writes down what it holds every few seconds.
This process makes the load and reads the replies: a latency is from the moment an intent is handed to the Kafka client to
the moment its reply is read. See bench/README.md.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, cast

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from pf_stream import Capability, Context, Effects, Emit, Intent, Key, Reactor, Reply, State, Topology, on, operation
from pf_stream.clock import WallClock
from pf_stream.engine import Worker, WorkerSettings
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.dev import DevCluster
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import create_topics
from pf_stream.security import SigningKey, TrustRoots, mint

NAMES = 1_000
SAMPLE_S = 5.0
BURST = 30_000
MIB = 1 << 20
GROWTH_MB = 1.0
"""Most megabytes of resident memory a minute after the first minutes."""
# What was read is deleted soon, so that the disk of whoever tries this does not fill.
BROKER = {
    "log.segment.bytes": str(32 * MIB),
    "log.retention.bytes": str(64 * MIB),
    "log.retention.check.interval.ms": "5000",
}


class CountCap(Capability):
    """Who may count what: ``/{name}``."""

    add = operation()


class Added(Intent, name="soak.added", requires=CountCap.add("/{name}")):
    """Something was counted."""

    name: Annotated[str, Key]


class Noticed(Intent, name="soak.noticed", topic="notices", requires=CountCap.add("/{name}")):
    """The same, on the second hop."""

    name: Annotated[str, Key]


class Count(State):
    """One name."""

    n: int = 0


class Counts(Reactor[Count], id="counts"):
    """Counts, answers and tells."""

    @on
    def added(self, intent: Added, state: Count, ctx: Context) -> Effects:
        state.n += 1
        return [Emit(Noticed(name=intent.name)), Reply({"n": state.n})]


class Notices(Reactor[Count], id="notices"):
    """Counts what it is told."""

    @on
    def noticed(self, intent: Noticed, state: Count, ctx: Context) -> None:
        state.n += 1


soak = Topology("soak", [Counts, Notices], internal=["notices"], replies=["replies"], partitions=4)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the worker held at a moment."""

    at: float
    """Seconds on the monotonic clock, which all processes of a machine share."""
    rss_mb: float
    """Resident memory."""
    files: int
    """Open files and sockets."""
    threads: int
    """Threads."""
    tasks: int
    """asyncio tasks."""
    handled: int
    """Intents so far."""


def main() -> int:
    """Run it; 0 if nothing grew and every intent was answered once."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--minutes", type=float, default=30.0, help="30")
    arguments.add_argument(
        "--rate", type=int, help="intents a second; by default half of what a burst shows to be possible"
    )
    arguments.add_argument("--worker", nargs=3, metavar=("SERVERS", "TRUST", "FIGURES"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.worker:
        servers, trust, figures = given.worker
        return asyncio.run(_work(servers, Path(trust), Path(figures)))
    with tempfile.TemporaryDirectory(prefix="pf-soak-") as name, DevCluster.temporary(1, settings=BROKER) as cluster:
        return _soak(Path(name), cluster.bootstrap_servers, given.minutes, given.rate)


async def _work(servers: str, trust: Path, figures: Path) -> int:
    """The worker's process."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    settings = WorkerSettings(ConnectionSettings(servers), TrustRoots.load([trust]), "soak-0")
    worker = await Worker.start(soak, settings)
    await worker.ready()
    process = psutil.Process()
    with figures.open("w", encoding="utf-8") as lines:
        while not asked.is_set():
            sample = Sample(
                time.monotonic(),
                process.memory_info().rss / 1e6,
                process.num_fds(),
                process.num_threads(),
                len(asyncio.all_tasks()),
                worker.handled,
            )
            lines.write(json.dumps(asdict(sample)) + "\n")
            lines.flush()
            try:
                async with asyncio.timeout(SAMPLE_S):
                    await asked.wait()
            except TimeoutError:
                if worker.crashed.done():
                    worker.crashed.result()
    await worker.stop()
    return 0


def _soak(folder: Path, servers: str, minutes: float, rate: int | None) -> int:
    create_topics(Admin(ConnectionSettings(servers)), soak)
    key = SigningKey.generate(1)
    key.save(folder / "issuer")
    figures = folder / "figures"
    figures.touch()
    command = [sys.executable, __file__, "--worker", servers, str(folder / "issuer.pub"), str(figures)]
    worker = subprocess.Popen(command)
    try:
        _wait_ready(worker, figures)
        traffic = _Traffic(servers, key)
        with traffic:
            if rate is None:
                rate = round(traffic.burst(BURST) / 2)
            conditions = {
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "partitions": soak.partitions,
                "rate": rate,
                "minutes": minutes,
                "load_before": round(os.getloadavg()[0], 2),
            }
            print(json.dumps(conditions), flush=True)
            started = time.monotonic()
            traffic.even(rate, minutes * 60, worker)
            ended = time.monotonic()
            traffic.wait_until_answered(60)
    finally:
        worker.terminate()
        code = worker.wait(60)
    samples = [Sample(**json.loads(line)) for line in figures.read_text(encoding="utf-8").splitlines()]
    inside = [sample for sample in samples if started <= sample.at <= ended]
    warm = min(300.0, minutes * 60 / 3)
    latencies = [(at, took) for at, took in zip(traffic.read_at, traffic.took, strict=True) if started <= at - took]
    _series(inside, latencies, started, ended)
    verdicts = _verdicts([s for s in inside if s.at >= started + warm], latencies, started + warm, ended)
    verdicts.append(("answers", f"{traffic.answered:,} of {traffic.sent:,}", traffic.answered == traffic.sent))
    verdicts.append(("worker's exit code", str(code), code == 0))
    print(f"\nafter the first {warm / 60:.1f} minutes\n\n| what | found | verdict |\n|---|---|---|")
    for what, found, good in verdicts:
        print(f"| {what} | {found} | {'ok' if good else 'FAILED'} |")
    return 0 if all(good for _, _, good in verdicts) else 1


def _wait_ready(worker: "subprocess.Popen[bytes]", figures: Path) -> None:
    deadline = time.monotonic() + 60
    while not figures.stat().st_size:
        if worker.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the worker is not ready")
        time.sleep(0.05)


class _Traffic:
    """Intents out, replies in."""

    def __init__(self, servers: str, key: SigningKey) -> None:
        token = mint(
            key,
            subject="soak",
            audience=soak.namespace,
            capabilities=(CountCap.add("/**"),),
            now_ms=WallClock().now_ms(),
            lifetime_s=7 * 24 * 3600,
        )
        self._headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", "1.0"),
            ("ce_type", "soak.added.v1"),
            ("ce_source", "/soak"),
            ("content-type", "application/json"),
            ("pf-context", token),
            ("pf-reply-to", f"{soak.namespace}.replies"),
        ]
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "zstd",
            }
        )
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": "soak", "enable.auto.commit": False})
        replies = f"{soak.namespace}.replies"
        self._consumer.assign([TopicPartition(replies, number, 0) for number in range(soak.partitions)])
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="replies")
        self.sent = 0
        """Intents so far."""
        self.answered = 0
        """Replies so far."""
        self.read_at = array("d")
        """When each reply was read, in seconds."""
        self.took = array("d")
        """How long after its intent that was."""

    def __enter__(self) -> None:
        self._reader.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._reader.join()
        self._consumer.close()

    def burst(self, count: int) -> float:
        """As many as go at once; intents handled a second."""
        started = time.monotonic()
        for _ in range(count):
            self._send()
        self.wait_until_answered(120)
        return count / (time.monotonic() - started)

    def even(self, rate: int, seconds: float, worker: "subprocess.Popen[bytes]") -> None:
        """An even stream."""
        started = time.monotonic()
        first = self.sent
        while (passed := time.monotonic() - started) < seconds:
            while self.sent - first < passed * rate:
                self._send()
            self._producer.poll(0.005)
            if worker.poll() is not None:
                raise RuntimeError(f"the worker ended with exit code {worker.returncode}")

    def wait_until_answered(self, within: float) -> None:
        """Wait for the replies to everything that was sent, for so long at most."""
        deadline = time.monotonic() + within
        self._producer.flush(within)
        while self.answered < self.sent and time.monotonic() < deadline:
            time.sleep(0.01)

    def _send(self) -> None:
        name = f"name-{self.sent % NAMES}"
        headers = [*self._headers, ("ce_id", str(self.sent)), ("pf-correlation-id", repr(time.monotonic()))]
        while True:
            try:
                self._producer.produce(
                    f"{soak.namespace}.intents", b'{"name":"%s"}' % name.encode(), name, headers=headers
                )
                break
            except BufferError:
                self._producer.poll(0.05)
        self.sent += 1

    def _read(self) -> None:
        while not self._over.is_set():
            for message in self._consumer.consume(5000, 0.02):
                if message.error() is not None:
                    continue
                now = time.monotonic()
                headers = dict(cast("list[tuple[str, bytes]]", message.headers()))
                self.read_at.append(now)
                self.took.append(now - float(headers["pf-correlation-id"]))
                self.answered += 1


def _series(samples: Sequence[Sample], latencies: Sequence[tuple[float, float]], started: float, ended: float) -> None:
    """Ten rows over the time."""
    print("\n| minute | RSS MB | files | threads | tasks | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|")
    for number in range(10):
        begin = started + (ended - started) * number / 10
        end = started + (ended - started) * (number + 1) / 10
        held = [sample for sample in samples if begin <= sample.at < end]
        took = [latency for at, latency in latencies if begin <= at < end]
        if held and len(took) > 1:
            last = held[-1]
            print(
                f"| {(end - started) / 60:.1f} | {last.rss_mb:.1f} | {last.files} | {last.threads} | {last.tasks} "
                f"| {_percentile(took, 50):.1f} | {_percentile(took, 99):.1f} |"
            )


def _verdicts(
    samples: Sequence[Sample], latencies: Sequence[tuple[float, float]], started: float, ended: float
) -> list[tuple[str, str, bool]]:
    """What is looked at, what was found, and whether that is good."""
    minutes = [sample.at / 60 for sample in samples]
    slope = statistics.linear_regression(minutes, [sample.rss_mb for sample in samples]).slope
    third = (ended - started) / 3
    first = [latency for at, latency in latencies if started <= at < started + third]
    last = [latency for at, latency in latencies if ended - third <= at < ended]
    before, after = _percentile(first, 99), _percentile(last, 99)
    verdicts = [("memory", f"{slope:+.2f} MB a minute", slope < GROWTH_MB)]
    for what in ("files", "threads", "tasks"):
        counts = [getattr(sample, what) for sample in samples]
        third_of = max(1, len(counts) // 3)
        early, late = max(counts[:third_of]), max(counts[-third_of:])
        # A connection or a commit more or less under way is no growth.
        verdicts.append((what, f"at most {early}, then {late}", late <= early + 5))
    verdicts.append(
        (
            "latency",
            f"p50 {_percentile(first, 50):.1f} ms, then {_percentile(last, 50):.1f}; p99 {before:.1f}, then {after:.1f}",
            after <= 2 * before + 20,
        )
    )
    return verdicts


def _percentile(seconds: Sequence[float], percent: int) -> float:
    """In milliseconds."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1000


if __name__ == "__main__":
    sys.exit(main())
