"""Throughput of the reactors of the flights: one worker process, topics filled beforehand.

What is measured is the time from the first commit to the last one, for the flights and the two intents that each of them
causes: state, outputs and positions of all lanes are durable then. Each round has topics of its own, and its totals are
compared with pandas'. Where the system allows it, the worker has one core for itself, and Kafka and this process another.
See bench/README.md.
"""

import argparse
import json
import os
import platform
import pstats
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "topologies" / "flights"))

from bench.machine import cpu_name, used_s
from nyc.contexts import Issuer
from nyc.data import flights, read_file, totals
from nyc.producer import Sender, intents
from nyc.results import Results
from nyc.worker import WorkerProcess
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import create_topics
from pf_stream.topology import load_topology

LIMIT_S = 300.0
TOPOLOGY = Path(__file__).parent.parent / "topologies/flights/reactors.yaml"


@dataclass(frozen=True, slots=True)
class Run:
    """One round."""

    flights: int
    """Flight intents."""
    seconds: float
    """From the first commit to the last."""
    flights_per_s: int
    """Flight intents per second."""
    records_per_s: int
    """Records handled per second: each flight is three, on two hops."""
    cpu_us_per_flight: float
    """Processor time of the worker, all threads, per flight."""
    rss_peak_mb: int
    """Most resident memory of the worker since its start."""
    broker_cores: float
    """Processor time of Kafka per second."""
    exact: bool
    """Whether all totals equal pandas'."""
    load_before: float
    """Load average over a minute, before the round."""


def main() -> int:
    """Run the rounds; 0 if all were exact."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", "3")), help="(ROUNDS) 3")
    arguments.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th flight")
    arguments.add_argument("--partitions", type=int, default=4, help="of each topic")
    arguments.add_argument("--latency", choices=["low", "balanced"], default="balanced", help="setting of the worker")
    arguments.add_argument(
        "--profile", action="store_true", help="one round under cProfile; prints what takes the time"
    )
    given = arguments.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:2])  # Kafka inherits it
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="pf-bench-") as folder, DevBroker.temporary() as broker:
        conditions = {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "pinned": len(cores) > 1,
            "python": platform.python_version(),
            "kafka": broker.version,
            "partitions": given.partitions,
            "latency": given.latency,
        }
        print(json.dumps(conditions), flush=True)
        bench = _Bench(Path(folder), broker.bootstrap_servers, broker.pid, given.partitions, given.every)
        for number in range(1 if given.profile else given.rounds):
            run = bench.run(f"round{number}", cores[:1], given.latency, profile=given.profile)
            print(json.dumps(asdict(run)), flush=True)
            runs.append(run)
    _table(runs)
    return 0 if all(run.exact for run in runs) else 1


class _Bench:
    """What the rounds have in common."""

    def __init__(self, folder: Path, bootstrap_servers: str, broker: int, partitions: int, every: int) -> None:
        self._folder = folder
        self._connection = ConnectionSettings(bootstrap_servers)
        self._admin = Admin(self._connection)
        self._broker = psutil.Process(broker)
        self._partitions = partitions
        self._frame = read_file(every)
        self._expected = totals(self._frame)

    def run(self, namespace: str, cores: list[int], latency: str, *, profile: bool) -> Run:
        """Fill the topics of a new namespace, then let a worker have them."""
        load = os.getloadavg()[0]
        count = len(self._frame)
        topology = load_topology(str(TOPOLOGY)).within(namespace)
        topics = create_topics(self._admin, topology, self._partitions)
        issuer = Issuer.new(namespace)
        key = self._folder / f"{namespace}.key"
        issuer.key.save(key)
        sender = Sender(self._connection.bootstrap_servers, topology.topic_name("intents"))
        for intent in intents(flights(self._frame), issuer.contexts(sorted(self._frame["carrier"].unique()))):
            sender.send(intent)
        while not sender.flush(1):
            pass

        # The second hop alone says when all is done, and following it costs next to nothing.
        second = Results(self._connection, topology, self._partitions, reactors=["board", "carriers"], told=[])
        stats = self._folder / "profile"
        with WorkerProcess(
            self._connection.bootstrap_servers,
            Path(f"{key}.pub"),
            self._folder / "worker.log",
            topology=str(TOPOLOGY),
            python=["-m", "cProfile", "-o", str(stats)] if profile else [],
            options=["--namespace", namespace, "--latency", latency],
        ) as worker:
            if cores:
                os.sched_setaffinity(worker.pid, cores)
            process = psutil.Process(worker.pid)
            first: _Usage | None = None
            deadline = time.monotonic() + LIMIT_S
            while (done := second.decided("airports") + second.decided("carriers")) < 2 * count:
                worker.check()
                second.advance(0.02)
                if done and first is None:
                    first = _Usage.of(process, self._broker)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{done:,} of {2 * count:,} effects after {LIMIT_S:.0f} s")
            last = _Usage.of(process, self._broker)
            peak = _peak_rss(process)
            second.close()
            worker.drain()
        if profile:
            pstats.Stats(str(stats)).sort_stats("tottime").print_stats(45)

        results = Results(self._connection, topology, self._partitions, told=[])
        while not results.complete():
            results.advance(0.2)
        exact = not results.differences(self._expected, {})
        results.close()
        self._admin.delete([topic.spec.name for topic in topics if topic.spec.name.startswith(namespace)])
        assert first is not None
        wall = last.at - first.at
        return Run(
            flights=count,
            seconds=round(results.seconds, 2),
            flights_per_s=round(count / results.seconds),
            records_per_s=round(3 * count / results.seconds),
            cpu_us_per_flight=round((last.worker - first.worker) / count * 1e6, 1),
            rss_peak_mb=round(peak / 1e6),
            broker_cores=round((last.broker - first.broker) / wall, 2),
            exact=exact,
            load_before=round(load, 2),
        )


@dataclass(frozen=True, slots=True)
class _Usage:
    """Processor time that was used so far, in seconds."""

    at: float
    worker: float
    broker: float

    @classmethod
    def of(cls, worker: psutil.Process, broker: psutil.Process) -> "_Usage":
        return cls(time.monotonic(), used_s(worker), used_s(broker))


def _peak_rss(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return process.memory_info().rss  # elsewhere: what it has at the end


def _table(runs: list[Run]) -> None:
    columns = ("flights/s", "records/s", "CPU us/flight", "RSS MB", "Kafka cores", "seconds", "load before")
    rows = [
        (r.flights_per_s, r.records_per_s, r.cpu_us_per_flight, r.rss_peak_mb, r.broker_cores, r.seconds, r.load_before)
        for r in runs
    ]
    print("\n| round | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for number, row in enumerate(rows, 1):
        print(f"| {number} | " + " | ".join(f"{value:,}" for value in row) + " |")
    if len(rows) > 1:
        median = [statistics.median(column) for column in zip(*rows, strict=True)]
        print("| median | " + " | ".join(f"{value:,}" for value in median) + " |")


if __name__ == "__main__":
    sys.exit(main())
