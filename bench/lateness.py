"""A million timers that wait in a worker on a real Kafka: what they take, what setting and cancelling one costs, how long a restart
is, and how late 5,000 a second fire beside them.

Whether none is lost, early or there twice is said by what the firings emit, and by the states. See bench/README.md.
"""

import argparse
import json
import math
import os
import platform
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from confluent_kafka import Producer

sys.path.insert(0, str(Path(__file__).parent.parent / "topologies" / "flights"))

from bench.stores import Worker
from nyc.worker import WorkerProcess
from pf_stream import PUBLIC, Cancel, Context, Effects, Emit, Intent, Key, Reactor, Schedule, State, Topology, on
from pf_stream.components.pace import percentile
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import read_topic
from pf_stream.kafka.topics import create_topics
from pf_stream.security import SigningKey

PARTITIONS: Final = 4
KEYS: Final = 1_000
AT_ONCE: Final = 100
"""Timers that one intent sets or cancels, of those that set many."""
DAY_MS: Final = 86_400_000
SINGLES: Final = 50_000
"""Intents of which each sets or cancels one."""
LIMIT_S: Final = 300.0
MOST_MB: Final = 500
MOST_RECOVERY_S: Final = 10.0
MOST_LATE_MS: Final = 50.0
"""Beside the commit."""


class Touch(Intent, name="lateness.touch", requires=PUBLIC):
    """Sets nothing: what an intent costs by itself."""

    key: Annotated[str, Key]


class Fill(Intent, name="lateness.fill", requires=PUBLIC):
    """Set *count* timers: *first*, *first* + *step*, ...; number n is due n / *per_s* seconds after *at_ms*."""

    key: Annotated[str, Key]
    first: int
    step: int
    count: int
    at_ms: int
    per_s: int


class Clear(Intent, name="lateness.clear", requires=PUBLIC):
    """Cancel them."""

    key: Annotated[str, Key]
    first: int
    step: int
    count: int


class Ring(Intent, name="lateness.ring", requires=PUBLIC):
    """It is time."""

    key: Annotated[str, Key]
    number: int


class Rung(Intent, name="lateness.rung", topic="rung", requires=PUBLIC):
    """What a firing causes."""

    key: Annotated[str, Key]
    number: int
    late_ms: int
    times: int
    """How often it rang for this key, by the state."""


class Bell(State):
    """How often it rang."""

    times: int = 0


class Bells(Reactor[Bell], id="bells"):
    """Rings."""

    @on
    def touch(self, intent: Touch, state: Bell, ctx: Context) -> Effects:
        return None

    @on
    def fill(self, intent: Fill, state: Bell, ctx: Context) -> Effects:
        numbers = range(intent.first, intent.first + intent.step * intent.count, intent.step)
        start_s = (intent.at_ms - ctx.now_ms) / 1000
        return [
            Schedule(Ring(key=intent.key, number=number), after=start_s + number / intent.per_s, name=str(number))
            for number in numbers
        ]

    @on
    def clear(self, intent: Clear, state: Bell, ctx: Context) -> Effects:
        numbers = range(intent.first, intent.first + intent.step * intent.count, intent.step)
        return [Cancel(str(number)) for number in numbers]

    @on
    def ring(self, intent: Ring, state: Bell, ctx: Context) -> Effects:
        assert ctx.due_ms is not None
        state.times += 1
        return Emit(Rung(key=intent.key, number=intent.number, late_ms=ctx.now_ms - ctx.due_ms, times=state.times))


lateness = Topology("lateness", [Bells], internal=["rung"], emits=[Rung], partitions=PARTITIONS)

Row = tuple[str, str, bool | None]
"""What, what was found, and whether that is as promised; ``None`` where nothing is."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations that were made between two scrapes."""

    counts: dict[float, float]
    """By upper bound, those up to it."""

    @property
    def total(self) -> int:
        return round(self.counts.get(math.inf, 0))

    def quantile(self, share: float) -> float:
        """As Prometheus has it: evenly spread within a bucket; seconds."""
        wanted, low, below = share * self.counts[math.inf], 0.0, 0.0
        for bound, upto in sorted(self.counts.items()):
            if upto >= wanted:
                return low if math.isinf(bound) else low + (bound - low) * (wanted - below) / max(upto - below, 1)
            low, below = bound, upto
        return low


class Scrape:
    """The metrics of the worker at one moment, summed over lanes."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.buckets: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
        for name, labels, value in re.findall(r"^(pf_\w+)(?:\{([^\n]*)\})? (\S+)$", text, re.MULTILINE):
            self.sums[name] += float(value)
            if name.endswith("_bucket"):
                bound = float(re.findall(r'le="([^"]+)"', labels)[0])
                self.buckets[name.removesuffix("_bucket")][bound] += float(value)

    def since(self, before: "Scrape", name: str) -> Histogram:
        """What a histogram took since then."""
        return Histogram({bound: count - before.buckets[name][bound] for bound, count in self.buckets[name].items()})


class Bench:
    """A Kafka, a topology and a worker of it."""

    def __init__(self, folder: Path, servers: str, cores: Sequence[int]) -> None:
        self._folder, self._servers, self._cores = folder, servers, cores
        self._connection = ConnectionSettings(servers)
        create_topics(Admin(self._connection), lateness)
        SigningKey.generate(1).save(folder / "key")
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "log_level": 0,  # it outlives Kafka by a moment
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._sent = 0

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        with WorkerProcess(
            self._servers,
            self._folder / "key.pub",
            self._folder / "log",
            topology="bench.lateness:lateness",
            id_="w0",
            options=["--health-port", "0", "--session", "30"],
        ) as process:
            if self._cores:
                os.sched_setaffinity(process.pid, self._cores)
            # The log goes on: what an earlier life said is no news.
            process.log.write_text("")
            yield Worker(process)
            process.drain(60)

    def port(self) -> int:
        return int(re.findall(r"ready=http://127.0.0.1:(\d+)", (self._folder / "log").read_text())[0])

    def send(self, intents: Iterable[Intent]) -> int:
        """Send intents; returns how many."""
        before = self._sent
        for intent in intents:
            spec = intent.__intent__
            headers: list[tuple[str, str | bytes | None]] = [
                ("ce_specversion", "1.0"),
                ("ce_type", spec.type),
                ("ce_source", "/bench"),
                ("ce_id", str(self._sent)),
                ("ce_time", "2026-01-01T00:00:00Z"),
                ("content-type", "application/json"),
            ]
            key = spec.key_of(intent)
            while True:
                try:
                    self._producer.produce("lateness.intents", spec.encode(intent), key, headers=headers)
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self._sent += 1
        self._producer.flush(60)
        return self._sent - before

    def timed(self, worker: Worker, intents: Iterable[Intent], timers: int) -> tuple[float, float]:
        """How many timers a second the worker gets through, all of them there before it begins, and microseconds of processor
        time for each."""
        before = Scrape(self.port()).sums["pf_intents_handled_total"]
        os.kill(worker.process.pid, signal.SIGSTOP)
        try:
            count = self.send(intents)
        finally:
            began, cpu_s = time.monotonic(), worker.cpu_s()
            os.kill(worker.process.pid, signal.SIGCONT)
        self.wait(worker, lambda scrape: scrape.sums["pf_intents_handled_total"] >= before + count)
        return timers / (time.monotonic() - began), (worker.cpu_s() - cpu_s) / timers * 1e6

    def wait(self, worker: Worker, done: Callable[[Scrape], bool]) -> Scrape:
        """Wait until the metrics say so."""
        deadline = time.monotonic() + LIMIT_S
        while not done(scrape := Scrape(self.port())):
            worker.process.check()
            if time.monotonic() > deadline:
                raise TimeoutError(dict(scrape.sums))
            time.sleep(0.1)
        return scrape

    def costs(self, worker: Worker) -> Iterator[Row]:
        """What setting and cancelling costs, of timers that are due in a day."""
        at_ms = now_ms() + DAY_MS
        for what, intents in {
            "intent that sets none": (Touch(key=key(n)) for n in range(SINGLES)),
            "intent that sets one": (fill(n % KEYS, -1 - n, 1, at_ms) for n in range(SINGLES)),
            "intent that cancels one": (
                Clear(key=key(n % KEYS), first=-1 - n, step=1, count=1) for n in range(SINGLES)
            ),
        }.items():
            yield what, _cost(*self.timed(worker, intents, SINGLES)), None

    def fill(self, worker: Worker, count: int) -> Iterator[Row]:
        """Set so many timers, a hundred by an intent, that are due in a day."""
        at_ms, begins = now_ms() + DAY_MS, range(0, count, AT_ONCE)
        intents = (fill(n // AT_ONCE % KEYS, 1_000_000 + n, AT_ONCE, at_ms) for n in begins)
        rate, cpu_us = self.timed(worker, intents, count)
        yield f"timer of {AT_ONCE} that an intent sets", _cost(rate, cpu_us), rate >= 50_000

    def clear(self, worker: Worker, count: int) -> Iterator[Row]:
        """Cancel them."""
        begins = range(0, count, AT_ONCE)
        clears = (Clear(key=key(n // AT_ONCE % KEYS), first=1_000_000 + n, step=1, count=AT_ONCE) for n in begins)
        rate, cpu_us = self.timed(worker, clears, count)
        waiting = Scrape(self.port()).sums["pf_timers_waiting"]
        yield f"timer of {AT_ONCE} that an intent cancels", _cost(rate, cpu_us), rate >= 50_000 and waiting == 0

    def fire(self, worker: Worker, per_s: int, seconds: int, lead_s: int) -> Iterator[Row]:
        """Let so many fire each second, evenly."""
        total, empty = per_s * seconds, Scrape(self.port())
        begin_ms = now_ms() + lead_s * 1000
        each, more = divmod(total, KEYS)
        self.send(
            Fill(key=key(n), first=n, step=KEYS, count=each + (n < more), at_ms=begin_ms, per_s=per_s)
            for n in range(KEYS)
        )
        self.wait(worker, lambda scrape: scrape.sums["pf_timers_waiting"] >= empty.sums["pf_timers_waiting"] + total)
        if now_ms() > begin_ms:
            raise TimeoutError(f"{total:,} timers were not set within {lead_s} s: give more with --lead")
        time.sleep((begin_ms - now_ms()) / 1000)
        before, cpu_s, began = Scrape(self.port()), worker.cpu_s(), time.monotonic()
        waiting = round(before.sums["pf_timers_waiting"])
        time.sleep(seconds)
        cpu = (worker.cpu_s() - cpu_s) / (time.monotonic() - began)
        fired = "pf_timer_lateness_seconds"
        # The first ones may have fired before that was asked.
        after = self.wait(worker, lambda scrape: scrape.since(empty, fired).total >= total)
        late, commit = after.since(empty, fired), after.since(before, "pf_commit_seconds")
        yield "timers that wait as the first is due", f"{waiting:,}", None
        yield f"processor time at {per_s:,} firings a second", f"{cpu:.0%} of a core", None
        yield (
            "lateness, due to commit",
            _ms(late.quantile(0.5), late.quantile(0.99)),
            (late.quantile(0.99) <= MOST_LATE_MS / 1000 + commit.quantile(0.99)),
        )
        yield "commit", _ms(commit.quantile(0.5), commit.quantile(0.99)), None
        time.sleep(2)  # what was committed last is on its way
        yield from self._checks(total)
        yield "memory then", f"{worker.rss_mb()} MB", None

    def _checks(self, total: int) -> Iterator[Row]:
        heard: list[dict[str, Any]] = [
            orjson.loads(record.value)
            for record in read_topic(self._connection, "lateness.rung")
            if record.value is not None and dict(record.headers or ()).get("ce_type") == b"lateness.rung.v1"
        ]
        numbers = Counter(one["number"] for one in heard)
        late = sorted(one["late_ms"] for one in heard)
        yield "of that, due to handled", _ms(percentile(late, 0.5) / 1000, percentile(late, 0.99) / 1000), None
        yield "early", f"{sum(one < 0 for one in late):,}", late[0] >= 0
        lost = total - sum(0 <= number < total for number in numbers)
        yield "lost", f"{lost:,} of {total:,}", lost == 0
        twice = sum(count > 1 for count in numbers.values())
        by_key: Counter[str] = Counter()
        for one in heard:
            by_key[one["key"]] = max(by_key[one["key"]], one["times"])
        yield "twice", f"{twice:,}; by the states {by_key.total():,} in all", twice == 0 and by_key.total() == total


def key(number: int) -> str:
    return f"bell-{number % KEYS:04}"


def fill(number: int, first: int, count: int, at_ms: int) -> Fill:
    return Fill(key=key(number), first=first, step=1, count=count, at_ms=at_ms, per_s=1_000)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _cost(rate: float, cpu_us: float) -> str:
    return f"{rate:,.0f} a second, {cpu_us:.1f} us of processor time"


def _ms(half: float, most: float) -> str:
    return f"p50 {half * 1000:.1f} ms, p99 {most * 1000:.1f} ms"


def measure(bench: Bench, given: argparse.Namespace) -> Iterator[Row]:
    """Each row."""
    with bench.worker() as worker:
        empty = worker.ready().rss_mb
        yield "memory of a worker without timers", f"{empty} MB", None
        yield from bench.costs(worker)
        yield from bench.fill(worker, given.timers)
        time.sleep(1)
        mb = worker.rss_mb()
        yield f"memory with {given.timers:,} timers that were set", f"{mb} MB", mb < MOST_MB
    with bench.worker() as worker:
        start = worker.ready()
        yield "memory after recovery", f"{start.rss_mb} MB", start.rss_mb < MOST_MB
        yield "recovery", f"{start.lanes_s:.1f} s, ready after {start.ready_s:.1f} s", start.ready_s < MOST_RECOVERY_S
        yield from bench.fire(worker, given.rate, given.seconds, given.lead)
        yield from bench.clear(worker, given.timers)


def main() -> int:
    """Measure, and print a row for each figure; 0 if all that is promised holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0].replace("\n", " "))
    parser.add_argument("--timers", type=int, default=1_000_000, help="that wait beside those that fire")
    parser.add_argument("--rate", type=int, default=5_000, help="firings a second")
    parser.add_argument("--seconds", type=int, default=60, help="of them")
    parser.add_argument("--lead", type=int, default=60, help="seconds in which those are set")
    parser.add_argument("--json", type=Path, help="write the rows there")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:2])  # Kafka inherits it
    rows = []
    with tempfile.TemporaryDirectory(prefix="pf-lateness-") as folder, DevBroker.temporary() as broker:
        conditions = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "kafka": broker.version,
            "partitions": PARTITIONS,
            "load_before": round(os.getloadavg()[0], 2),
        }
        print(json.dumps(conditions), flush=True)
        for what, found, good in measure(Bench(Path(folder), broker.bootstrap_servers, cores[:1]), given):
            rows.append({"what": what, "found": found, "good": good})
            verdict = "" if good is None else "ok" if good else "FAILED"
            print(f"| {what} | {found} | {verdict} |", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n")
    return 0 if all(row["good"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
