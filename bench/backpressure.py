"""A consumer a hundred times slower than its source, for a while: does a worker's memory grow, and do the lanes mind?

The worker is a process of its own. This process sends intents at a steady rate, reads the worker's ``/metrics`` every few
seconds, and prints memory, lag and throughput over time. Then the same again without the sink: what grows there too is the
worker's, not the sink's. See docs/backpressure.md.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import orjson
import psutil
from confluent_kafka import Producer

from pf_stream import PUBLIC, Buffer, Context, Delivered, Emit, Intent, Key, Reactor, Sink, State, Topology, on
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import create_topics
from pf_stream.model import Strategy
from pf_stream.security import SigningKey

RATE = 2_000
SLOWER = 100
BATCH = 20
PARTITIONS = 4
SAMPLE_S = 10.0
WARM_S = 60.0
"""What comes before this is not looked at: buffers fill, and caches."""
GROWTH_MB = 0.5
"""Most megabytes of resident memory a minute by which a worker may grow faster than one without the sink."""
STRATEGY = "BENCH_STRATEGY"
"""The buffer's; empty: without the sink."""
PORT = 18_431


class Seen(Intent, name="slow.seen", requires=PUBLIC):
    """Something came."""

    name: Annotated[str, Key]
    text: str


class Kept(Intent, name="slow.kept", topic="kept", requires=PUBLIC):
    """It goes to the consumer."""

    name: Annotated[str, Key]
    text: str


class Count(State):
    """How often."""

    n: int = 0


class Counts(Reactor[Count], id="counts"):
    """Counts, and passes on."""

    @on
    def seen(self, intent: Seen, state: Count, ctx: Context) -> Emit:
        state.n += 1
        return Emit(Kept(name=intent.name, text=intent.text))


async def slowly(batch: Sequence[Delivered[Kept]]) -> None:
    """Take a hundredth of what comes."""
    await asyncio.sleep(len(batch) * PARTITIONS * SLOWER / RATE)


def _topology(chosen: str) -> Topology:
    strategy: Strategy | None = next((one for one in get_args(Strategy) if one == chosen), None)
    if strategy is None:
        return Topology("slow", [Counts], emits=[Kept], partitions=PARTITIONS)
    buffer = Buffer(records=2_000, strategy=strategy, rate=RATE / SLOWER, disk=64 << 20)
    sink = Sink("slowly", of=Kept, to=slowly, buffer=buffer, batch=BATCH)
    return Topology("slow", [Counts], internal=["kept"], emits=[Kept], partitions=PARTITIONS, sinks=[sink])


slow = _topology(os.environ.get(STRATEGY, "block"))


def main() -> int:
    """Run; 0 if memory grows no faster than without the sink, and the worker drains in time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long each of the two runs lasts")
    parser.add_argument("--strategy", choices=get_args(Strategy), default="block")
    options = parser.parse_args()
    growth, drained = _run(options.strategy, options.minutes)
    control, also = _run("", options.minutes)
    print(f"resident memory grows by {growth:+.2f} MB a minute with the sink, by {control:+.2f} without it")
    return 0 if growth - control <= GROWTH_MB and drained and also else 1


def _run(strategy: str, minutes: float) -> tuple[float, bool]:
    """Megabytes a minute, and whether the worker drained in time."""
    print(f"strategy {strategy}" if strategy else "without the sink")
    environment = {**os.environ, STRATEGY: strategy}
    with DevBroker.temporary() as broker, tempfile.TemporaryDirectory() as name:
        servers, folder = broker.bootstrap_servers, Path(name)
        create_topics(Admin(ConnectionSettings(servers)), _topology(strategy))
        key = SigningKey.generate(1)
        key.save(folder / "issuer", overwrite=True)
        command = [sys.executable, "-m", "pf_stream", "worker", "run", "bench.backpressure:slow"]
        command += ["--trust", str(folder / "issuer.pub"), "--health-port", str(PORT)]
        with (folder / "log").open("wb") as log:
            environment["PF_BOOTSTRAP_SERVERS"] = servers
            worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            samples = _load(servers, worker, minutes * 60)
            began = time.monotonic()
            worker.terminate()
            code = worker.wait(60)
            drained_s = time.monotonic() - began
        finally:
            worker.kill()
    print(f"drained in {drained_s:.1f} s with exit code {code}")
    late = [(at_s, mb) for at_s, mb in samples if at_s >= min(WARM_S, minutes * 30)]
    return _slope(late) * 60, code == 0 and drained_s < 20


def _load(servers: str, worker: "subprocess.Popen[bytes]", seconds: float) -> list[tuple[float, float]]:
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "linger.ms": 5})
    headers: list[tuple[str, str | bytes | None]] = [
        ("ce_specversion", "1.0"),
        ("ce_type", "slow.seen.v1"),
        ("ce_source", "/bench"),
        ("ce_id", "1"),
        ("content-type", "application/json"),
    ]
    process = psutil.Process(worker.pid)
    while not _metrics():
        time.sleep(0.2)
    print("seconds  resident MB  intents handled/s  lag of lanes  handed over/s  lag of sink  buffered  dropped")
    samples: list[tuple[float, float]] = []
    began = time.monotonic()
    sent, sampled, before = 0, 0.0, _metrics()
    while (passed := time.monotonic() - began) < seconds:
        while sent < passed * RATE:
            name = f"n{sent % 1_000}"
            producer.produce("slow.intents", orjson.dumps({"name": name, "text": "x" * 200}), name, headers=headers)
            sent += 1
        producer.poll(0)
        if passed - sampled >= SAMPLE_S:
            now, span, sampled = _metrics(), passed - sampled, passed
            if not now:
                print(f"{passed:7.0f} the worker is not ready", flush=True)
                continue
            samples.append((passed, process.memory_info().rss / 1e6))
            print(
                f"{passed:7.0f} {samples[-1][1]:12.1f} "
                f"{(now['pf_intents_handled_total'] - before['pf_intents_handled_total']) / span:18.0f} "
                f"{now['pf_lag_records']:13.0f} "
                f"{(now['pf_sink_handed_total'] - before['pf_sink_handed_total']) / span:14.1f} "
                f"{now['pf_sink_lag_records']:12.0f} {now['pf_sink_buffered_records']:9.0f} "
                f"{now['pf_sink_dropped_total']:8.0f}",
                flush=True,
            )
            before = now
        time.sleep(0.01)
    producer.flush(10)
    return samples


class _Sums(dict[str, float]):
    def __missing__(self, name: str) -> float:
        return 0.0


def _metrics() -> _Sums:
    """Every metric, summed over its labels; nothing while the worker does not answer, or is not ready."""
    sums = _Sums()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return sums
    for name, value in re.findall(r"^(pf_\w+)(?:\{[^\n]*\})? (\S+)$", text, re.MULTILINE):
        sums[name] += float(value)
    return sums if sums["pf_worker_ready"] else _Sums()


def _slope(samples: Sequence[tuple[float, float]]) -> float:
    """Megabytes a second, by least squares."""
    count = len(samples)
    if count < 2:
        return 0.0
    mean_s, mean_mb = sum(at for at, _ in samples) / count, sum(mb for _, mb in samples) / count
    return sum((at - mean_s) * (mb - mean_mb) for at, mb in samples) / sum((at - mean_s) ** 2 for at, _ in samples)


if __name__ == "__main__":
    sys.exit(main())
