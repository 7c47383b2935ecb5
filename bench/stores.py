"""Stores of state: how fast a changelog is recovered, what a million keys take, how soon a warm store is ready, and what ten
million keys cost in throughput.

One topology keeps accounts of 100 bytes, once in memory and once in RocksDB. Changelogs are filled beforehand, as earlier
lives of its lanes would have left them. Where the system allows it, the worker has one core for itself, and Kafka and this
process another. See bench/README.md.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "topologies" / "flights"))

from bench.machine import used_s
from nyc.worker import WorkerProcess
from pf_stream import Capability, Context, Intent, Key, Reactor, State, Topology, on, operation
from pf_stream.clock import WallClock
from pf_stream.core import changelog, partition_of, plan
from pf_stream.core.header import Header
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.link import ConnectionSettings, Link, is_transient
from pf_stream.kafka.topics import create_topics
from pf_stream.model.topology import Store
from pf_stream.security import SigningKey, mint

PARTITIONS = 4
BATCH = 1_000
HAND_OVER_KEYS = 100_000
BRANCHES = 10_000
"""Resources over which is decided, however many keys there are."""
LIMIT_S = 900.0


_Record = tuple[bytes, bytes, list[tuple[str, bytes | None]]]


class AccountCap(Capability):
    """Who may book where: ``/{branch}``."""

    book = operation()


class Booked(Intent, name="stores.booked", requires=AccountCap.book("/{branch}")):
    """Something was booked on an account; 200 bytes of JSON."""

    account: Annotated[str, Key]
    branch: str
    amount: int
    at_ms: int
    text: str = ""


class Account(State):
    """An account; 100 bytes of JSON."""

    holder: str = ""
    balance: int = 0
    bookings: int = 0
    first_ms: int = 0


class Accounts(Reactor[Account], id="accounts"):
    """Keeps accounts."""

    @on
    def booked(self, intent: Booked, state: Account, ctx: Context) -> None:
        state.balance += intent.amount
        state.bookings += 1
        state.first_ms = state.first_ms or intent.at_ms


memory = Topology("memory", [Accounts], partitions=PARTITIONS)
rocksdb = Topology("rocksdb", [Accounts], partitions=PARTITIONS, store="rocksdb")


@dataclass(frozen=True, slots=True)
class Start:
    """A start of a worker."""

    ready_s: float
    """From the start of its process until all lanes were open."""
    lanes_s: float
    """Of that, the longest that a lane took."""
    records: int
    """Changelog records that it read."""
    cpu_s: float
    """Processor time that it used, all threads, its own start included."""
    rss_mb: int
    """Resident memory then."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a worker did with intents that were there."""

    records_per_s: int
    """Intents handled per second."""
    cpu_us: float
    """Processor time per intent, all threads, microseconds."""
    rss_mb: int
    """Resident memory at the end."""


class Case:
    """A topology with so many keys."""

    def __init__(self, bench: "Bench", store: Store, keys: int) -> None:
        self.keys = keys
        self.store = store
        self._bench = bench
        topology = rocksdb if store == "rocksdb" else memory
        self.topology = topology.within(f"{topology.name}{keys}n{bench.number}")
        bench.number += 1
        self._topics = create_topics(bench.admin, self.topology)
        asyncio.run(_append(bench.connection, self._changelog()))
        self._dice = random.Random(keys)  # noqa: S311 - to be repeated
        self._sent = 0

    def __str__(self) -> str:
        return f"{self.store}, {self.keys:,} keys"

    def _changelog(self) -> Iterator[tuple[str, int, list[_Record]]]:
        (group,) = plan(self.topology, PARTITIONS)
        prefix, state = group.reactors[0].prefix, Account.__state__
        rows: list[list[_Record]] = [[] for _ in range(PARTITIONS)]
        for number in range(self.keys):
            key = _name(number).encode()
            account = Account(holder=f"holder {number:032d}", balance=number, bookings=1, first_ms=1_700_000_000_000)
            value = changelog.pack_state(1, state.encode(account))
            partition = partition_of(key, PARTITIONS)
            rows[partition].append((changelog.state_key(prefix, key), value, []))
            if len(rows[partition]) == BATCH:
                yield group.changelog, partition, rows[partition]
                rows[partition] = []
        for partition, left in enumerate(rows):
            header = Header.of(group, f"bench{partition}", None).encode()
            end: list[_Record] = [(changelog.HEADER, header, []), (changelog.UNIT, changelog.UNIT_VALUE.pack(1, 1), [])]
            yield group.changelog, partition, [*left, *end]

    def send(self, count: int) -> None:
        """Fill the topic with intents, for keys at random."""
        token = mint(
            self._bench.key,
            subject="bench",
            audience=self.topology.namespace,
            capabilities=[AccountCap.book("/**")],
            now_ms=WallClock().now_ms(),
        )
        asyncio.run(_append(self._bench.connection, self._intents(count, token)))
        self._sent += count

    def _intents(self, count: int, token: str) -> Iterator[tuple[str, int, list[_Record]]]:
        topic = self.topology.topic_name("intents")
        rows: list[list[_Record]] = [[] for _ in range(PARTITIONS)]
        common: list[tuple[str, bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"stores.booked.v1"),
            ("ce_source", b"/bench"),
            ("content-type", b"application/json"),
            ("pf-context", token.encode()),
        ]
        for number in range(count):
            name = _name(self._dice.randrange(self.keys))
            branch = f"branch-{self._dice.randrange(BRANCHES):05d}"
            intent = Booked(account=name, branch=branch, amount=7, at_ms=1_700_000_000_000, text="x" * 100)
            partition = partition_of(name.encode(), PARTITIONS)
            headers = [*common, ("ce_id", b"%d" % (self._sent + number))]
            rows[partition].append((name.encode(), intent.__intent__.encode(intent), headers))
            if len(rows[partition]) == BATCH:
                yield topic, partition, rows[partition]
                rows[partition] = []
        for partition, left in enumerate(rows):
            if left:
                yield topic, partition, left

    @contextmanager
    def worker(self, id_: str = "w0", *options: str) -> Iterator["Worker"]:
        """A worker; drained at the end if it still runs."""
        bench = self._bench
        words = ["--namespace", self.topology.namespace, "--health-port", "0", *options]
        words += ["--state-dir", str(bench.folder / "state")]
        with WorkerProcess(
            bench.connection.bootstrap_servers,
            bench.trust,
            bench.folder / f"{self.topology.namespace}-{id_}-{time.monotonic_ns()}.log",
            topology=f"bench.stores:{self.topology.name}",
            id_=id_,
            options=words,
        ) as process:
            if bench.cores:
                os.sched_setaffinity(process.pid, bench.cores)
            worker = Worker(process)
            yield worker
            if psutil.pid_exists(process.pid):
                process.drain()

    def run(self, count: int) -> Run:
        """Let a worker handle as many intents."""
        self.send(count)
        with self.worker() as worker:
            worker.ready()
            return worker.work(count)

    def end(self) -> None:
        """Delete its topics."""
        ours = [topic.spec.name for topic in self._topics if not topic.spec.name.startswith("__")]
        self._bench.admin.delete(ours)


class Worker:
    """A worker process, looked at from outside."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self._process = psutil.Process(process.pid)
        self._started = time.monotonic()
        self._url = ""

    def ready(self) -> Start:
        """Wait until all its lanes are open."""
        while "worker ready" not in (said := self._log()):
            self.process.check()
            if time.monotonic() - self._started > LIMIT_S:
                raise TimeoutError(said)
            time.sleep(0.01)
        self._url = re.findall(r"ready=(http\S+)", said)[0]
        lanes = re.findall(r"lane open .*recovered=(\d+) seconds=([\d.]+)", said)
        return Start(
            ready_s=round(time.monotonic() - self._started, 2),
            lanes_s=max(float(seconds) for _, seconds in lanes),
            records=sum(int(records) for records, _ in lanes),
            cpu_s=round(self.cpu_s(), 2),
            rss_mb=self.rss_mb(),
        )

    def work(self, count: int) -> Run:
        """Wait until it has handled as many; its speed is measured from a tenth on."""
        first: tuple[float, float, int] | None = None
        while True:
            self.process.check()
            handled = self._handled()
            now = time.monotonic(), self.cpu_s(), handled
            if handled >= count / 10 and first is None:
                first = now
            if handled >= count and first is not None:
                break
            if now[0] - self._started > LIMIT_S:
                raise TimeoutError(f"{handled:,} of {count:,} after {LIMIT_S:.0f} s")
            time.sleep(0.05)
        seconds, cpu_s, records = (end - begin for begin, end in zip(first, now, strict=True))
        return Run(round(records / seconds), round(cpu_s / records * 1e6, 1), self.rss_mb())

    def _handled(self) -> int:
        try:
            with urllib.request.urlopen(self._url, timeout=30) as answer:  # noqa: S310 - our own, http
                lanes = json.load(answer)["lanes"]
        except urllib.error.HTTPError as error:  # not ready, which it says in the same form
            lanes = json.load(error)["lanes"]
        return sum(lane["handled"] for lane in lanes)

    def all_lanes_s(self) -> float:
        """Wait until it has the lanes of another too; the longest that one took to open."""
        before = self._log().count("lane open")
        while (said := self._log()).count("lane open") < before + PARTITIONS:
            self.process.check()
            time.sleep(0.01)
        return max(float(seconds) for seconds in re.findall(r"lane open .*seconds=([\d.]+)", said)[-PARTITIONS:])

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait(10)

    def cpu_s(self) -> float:
        """Processor time that it has used."""
        return used_s(self._process)

    def rss_mb(self) -> int:
        """Its resident memory."""
        return round(self._process.memory_info().rss / 1e6)

    def _log(self) -> str:
        return self.process.log.read_text(encoding="utf-8", errors="replace")


class Bench:
    """What all cases have in common."""

    def __init__(self, folder: Path, bootstrap_servers: str, cores: list[int]) -> None:
        self.folder = folder
        self.cores = cores
        self.connection = ConnectionSettings(bootstrap_servers)
        self.admin = Admin(self.connection)
        self.key = SigningKey.generate(1)
        self.key.save(folder / "key")
        self.trust = folder / "key.pub"
        self.number = 0

    def recovery(self, keys: int, rounds: int, intents: int) -> Iterator[dict[str, object]]:
        """How fast a changelog is read into memory and into RocksDB, and what that takes."""
        cases = [Case(self, "memory", keys), Case(self, "rocksdb", keys)]
        starts: dict[str, list[Start]] = {}
        runs: dict[str, Run] = {}
        for number in range(rounds):
            for case in cases:
                with case.worker(f"w{number}") as worker:  # of another name each time, so it finds nothing on disk
                    starts.setdefault(str(case), []).append(worker.ready())
                    if number == 0:
                        case.send(intents)
                        runs[str(case)] = worker.work(intents)
        for case in cases:
            found = starts[str(case)]
            rates = [round(start.records / start.lanes_s) for start in found]
            yield {
                "what": f"recovery, {case}",
                "records_per_s": _of(rates),
                "lanes_s": _of([start.lanes_s for start in found]),
                "cpu_s": _of([start.cpu_s for start in found]),
                "rss_mb": _of([start.rss_mb for start in found]),
                "rss_mb_after_work": runs[str(case)].rss_mb,
            }
        yield from self._warm(cases[1], rounds)
        for case in cases:
            case.end()

    def _warm(self, case: Case, rounds: int) -> Iterator[dict[str, object]]:
        """How soon a worker is ready that finds its state on disk."""
        for how in ("drained", "killed"):
            found = []
            for _ in range(rounds):
                case.send(20_000)
                with case.worker() as worker:
                    worker.ready()
                    worker.work(20_000)
                    if how == "killed":
                        worker.kill()
                with case.worker() as worker:
                    found.append(worker.ready())
            yield {
                "what": f"restart, {case}, {how}",
                "ready_s": _of([start.ready_s for start in found]),
                "lanes_s": _of([start.lanes_s for start in found]),
                "records": _of([start.records for start in found]),
                "cpu_s": _of([start.cpu_s for start in found]),
                "rss_mb": _of([start.rss_mb for start in found]),
            }

    def throughput(self, large: int, rounds: int, intents: int) -> Iterator[dict[str, object]]:
        """What many keys cost: keys are chosen at random, so with many of them nearly every state is read from disk."""
        cases = [Case(self, "memory", 1_000), Case(self, "rocksdb", 1_000), Case(self, "rocksdb", large)]
        with cases[-1].worker() as worker:
            built = worker.ready()
        yield {
            "what": f"build, {cases[-1]}",
            "records_per_s": round(built.records / built.lanes_s),
            "cpu_s": built.cpu_s,
        }
        runs: dict[str, list[Run]] = {}
        for _ in range(rounds):
            for case in cases:
                runs.setdefault(str(case), []).append(case.run(intents))
        for case in cases:
            found = runs[str(case)]
            yield {
                "what": f"throughput, {case}",
                "records_per_s": _of([run.records_per_s for run in found]),
                "cpu_us": _of([run.cpu_us for run in found]),
                "rss_mb": _of([run.rss_mb for run in found]),
            }
        few, many = (statistics.median(run.records_per_s for run in runs[str(case)]) for case in cases[1:])
        yield {"what": f"throughput, {large:,} keys of 1,000", "share": round(many / few, 2)}

    def hand_over(self, rounds: int) -> Iterator[dict[str, object]]:
        """How long a lane of 100,000 keys stands still beside the session when another worker has to read it."""
        case = Case(self, "memory", HAND_OVER_KEYS * PARTITIONS)
        found = []
        for _ in range(rounds):
            with case.worker("a", "--session", "6") as first:
                first.ready()
                with case.worker("b", "--session", "6") as second:
                    second.ready()
                    first.kill()
                    found.append(second.all_lanes_s())
        case.end()
        yield {"what": "hand-over of 100,000 keys beside the session", "lanes_s": _of(found)}


def main() -> int:
    """Measure, print a line for each, and a table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0].replace("\n", " "))
    arguments.add_argument("--keys", type=int, default=1_000_000, help="of the recovery and the restarts")
    arguments.add_argument("--large", type=int, default=10_000_000, help="keys of the throughput with many")
    arguments.add_argument("--intents", type=int, default=400_000, help="of each measurement of throughput")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", choices=["recovery", "throughput", "hand-over"], help="only these rows")
    given = arguments.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:2])  # Kafka inherits it
    rows = []
    with tempfile.TemporaryDirectory(prefix="pf-stores-") as folder, DevBroker.temporary() as broker:
        bench = Bench(Path(folder), broker.bootstrap_servers, cores[:1])
        print(
            json.dumps({"cores": os.cpu_count(), "python": platform.python_version(), "kafka": broker.version}),
            flush=True,
        )
        for name, work in {
            "recovery": bench.recovery(given.keys, given.rounds, given.intents),
            "throughput": bench.throughput(given.large, given.rounds, given.intents),
            "hand-over": bench.hand_over(given.rounds),
        }.items():
            if given.only in {None, name}:
                for row in work:
                    rows.append(row)
                    print(json.dumps({**row, "load": os.getloadavg()[0]}), flush=True)
    print()
    for row in rows:
        print(
            "| " + " | ".join(f"{value}" if name == "what" else f"{name} {value}" for name, value in row.items()) + " |"
        )
    return 0


def _of(values: list[float] | list[int]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):,} ({min(values):,} to {max(values):,})"


def _name(number: int) -> str:
    return f"account-{number:08d}"


async def _append(connection: ConnectionSettings, batches: Iterable[tuple[str, int, list[_Record]]]) -> None:
    """Append batches, each to a topic and partition."""
    link = await Link.connect(connection)
    try:
        for topic, number, records in batches:
            builder = BatchBuilder(8 << 20, compress=False)
            for key, value, headers in records:
                builder.append(WallClock().now_ms(), key, value, headers)
            batch = builder.build()
            await link.watch([topic])
            while True:
                node = link.leader((topic, number))
                assert node is not None
                error = (await link.produce(node, [((topic, number), batch)]))[topic, number].error
                if error is None:
                    break
                if not is_transient(error):
                    raise error
                await asyncio.sleep(0.1)  # the topic was made just now
                await link.refresh()
    finally:
        await link.close()


if __name__ == "__main__":
    sys.exit(main())
