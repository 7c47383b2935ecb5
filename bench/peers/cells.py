"""One engine at one job, once: started, watched, ended, and its accounts compared with what was sent."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from bench.peers.engines import PARTITIONS, Engine, Job
from bench.peers.environments import ROOT
from bench.peers.meter import Meter
from bench.peers.plan import Keys
from bench.peers.processes import Process
from bench.peers.progress import BusySample, Outcome, measured, shares
from bench.peers.rig import Heard, Spec
from bench.peers.rounds import Site
from bench.peers.workload import HOT_KEYS, Ledger, Load, contexts, fill
from pf_stream.clock import WallClock
from pf_stream.core.records import Record
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.link import ConnectionSettings, Link, Partition
from pf_stream.security import SigningKey

__all__ = ["SAMPLE_S", "SOURCE_CONFIG", "STALL_S", "Bench", "committed_records", "partitions_of"]

SAMPLE_S: Final = 0.05
STALL_S: Final = 60.0
"""How long an engine may take until its first commit, or from one to the next."""
LINGER_S: Final = 0.005
"""As Kafka's own producer by default; with less, the generator's requests alone would take a third of the broker's core."""
PAUSE_S: Final = 0.002
SOURCE_CONFIG: Final = {"message.timestamp.type": "LogAppendTime"}


class Bench:
    """A broker with filled topics; runs cells, one at a time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._connection = ConnectionSettings(site.servers)
        self._admin = Admin(self._connection)
        key = SigningKey.generate()
        self._trust = site.folder / "issuer.pub"
        key.save(site.folder / "issuer")
        self._tokens = contexts(key, WallClock().now_ms())
        (site.folder / "tokens").write_bytes(b"\n".join(self._tokens))
        self._ledgers: dict[tuple[Keys, int], Ledger] = {}
        self._filled: set[str] = set()
        self._cells = 0

    # -- topics --------------------------------------------------------------------------------------------------------

    def fill(self, engine: Engine, keys: Keys, records: int) -> str:
        """The topic with *records* records as *engine* is to have them; made the first time."""
        topic = f"bench.{keys}-{records}-{engine.context}"
        if topic not in self._filled:
            self._make([topic], SOURCE_CONFIG)
            load = Load(self._tokens, engine.context, _accounts(keys, records))
            fill(self._site.servers, load.records(topic, records))
            self._filled.add(topic)
        return topic

    def _make(self, topics: Sequence[str], config: dict[str, str]) -> None:
        self._admin.create([NewTopicSpec(topic, PARTITIONS, config) for topic in topics], 1)

    @contextlib.contextmanager
    def _job(self, engine: Engine, source: str | None, *, output: bool) -> Iterator[Job]:
        """A job with topics of its own, which go behind the block; without a *source*, that too."""
        self._cells += 1
        app = f"bench.c{self._cells}"
        with tempfile.TemporaryDirectory(dir=self._site.folder) as folder:
            job = Job(
                app,
                self._site.servers,
                source or f"{app}-in",
                f"{app}-out" if output else None,
                self._trust,
                Path(folder),
                paced=source is None,
            )
            if source is None:
                self._make([job.source], SOURCE_CONFIG)
            if job.output is not None:
                self._make([job.output], {})
            engine.prepare(job, self._admin)
            try:
                yield job
            finally:
                self._admin.delete([name for name in self._admin.names() if _is_of(app, name)])

    def _start(self, engine: Engine, job: Job) -> Process:
        command = [*engine.command(), *engine.options(job)]
        log = job.folder / "engine.log"
        return Process(engine.name, command, ROOT, log, self._site.cores.measured, engine.environment(job))

    # -- throughput ----------------------------------------------------------------------------------------------------

    def throughput(self, engine: Engine, job_name: str, keys: Keys, records: int) -> Outcome:
        """All records at once.

        Raises:
            MissingError: the engine cannot be had.
            StuckError: it ended by itself, or made no progress for a minute.
        """
        source = self.fill(engine, keys, records)
        load_before = os.getloadavg()[0]
        with self._job(engine, source, output=job_name == "counter+output") as job:
            with self._start(engine, job) as process:
                samples = self._watch(job, process, records)
                process.end()
            wrong = asyncio.run(self._faults(engine, job, keys, records))
        return measured(samples, records, load_before, wrong)

    def _watch(self, job: Job, process: Process, records: int) -> list[BusySample]:
        meter = Meter(self._site.servers, job.app, partitions_of([job.source]), [self._site.broker_pid])
        try:
            samples = [meter.sample(process)]
            deadline = time.monotonic() + STALL_S
            while samples[-1].done < records:
                time.sleep(SAMPLE_S)
                samples.append(meter.sample(process))
                if samples[-1].done > samples[-2].done:
                    deadline = time.monotonic() + STALL_S
                elif time.monotonic() > deadline:
                    raise process.stuck(f"{samples[-1].done:,} of {records:,} records, and no more for a minute")
            return samples
        finally:
            meter.close()

    async def _faults(self, engine: Engine, job: Job, keys: Keys, records: int) -> str | None:
        """How the accounts and the outputs are not as they must be."""
        ledger = self._ledgers.get((keys, records))
        if ledger is None:
            ledger = self._ledgers[keys, records] = Ledger(records, _accounts(keys, records))
        link = await Link.connect(self._connection)
        try:
            changelogs = [name for name in self._admin.names() if _is_of(job.app, name) and "changelog" in name]
            last: dict[bytes, bytes] = {}
            for name in changelogs:
                async for record in committed_records(link, name):
                    if record.value is None:
                        last.pop(record.key or b"", None)
                    else:
                        last[record.key or b""] = record.value
            faults = ledger.faults(engine.accounts(last, job.folder))
            if faults is None and job.output is not None:
                seen = bytearray(records)
                outputs = 0
                async for record in committed_records(link, job.output):
                    seen[_number(record)] = 1
                    outputs += 1
                if (outputs, sum(seen)) != (records, records):
                    faults = f"{outputs:,} outputs for {sum(seen):,} of {records:,} records"
            return faults
        finally:
            await link.close()

    # -- latency -------------------------------------------------------------------------------------------------------

    def latency(self, engine: Engine, rate: int, warm_s: float, measure_s: float) -> Outcome:
        """Records at a steady rate. Raises as :meth:`throughput` does."""
        load_before = os.getloadavg()[0]
        with self._job(engine, None, output=True) as job:
            assert job.output is not None
            spec = Spec(
                self._site.servers,
                job.source,
                job.output,
                PARTITIONS,
                str(self._site.folder / "tokens"),
                engine.context,
                rate,
                warm_s,
                measure_s,
                str(job.folder / "began"),
                LINGER_S,
                PAUSE_S,
            )
            with (
                self._start(engine, job) as process,
                Process(
                    "the generator",
                    [sys.executable, "-m", "bench.peers.rig", json.dumps(asdict(spec))],
                    ROOT,
                    job.folder / "rig.log",
                    self._site.cores.rig,
                    {},
                ) as rig,
            ):
                samples = self._watch_rig(job, process, rig, Path(spec.began), measure_s)
                process.end()
            log = (job.folder / "rig.log").read_text(encoding="utf-8")
        heard = Heard(**json.loads(log))
        first, last = samples[0], samples[-1]
        seconds = last.at - first.at
        outcome = Outcome(
            heard.sent,
            load_before,
            records_per_s=rate,
            cpu_us_per_record=(last.cpu_s - first.cpu_s) / (rate * seconds) * 1e6,
            rss_mb=max(sample.rss for sample in samples) / 1e6,
            **asdict(shares(samples)),
            p50_ms=heard.p50_ms,
            p99_ms=heard.p99_ms,
            late_ms=heard.late_ms,
        )
        if heard.in_time < 0.95:
            return replace(outcome, failed=f"behind: {heard.in_time:.0%}", p50_ms=None, p99_ms=None)
        if (heard.answered, heard.repeated) != (heard.sent, 0):
            wrong = f"{heard.answered:,} of {heard.sent:,} records were answered, and {heard.repeated:,} twice"
            return Outcome(heard.sent, load_before, wrong)
        return outcome

    def _watch_rig(self, job: Job, process: Process, rig: Process, began: Path, measure_s: float) -> list[BusySample]:
        """Samples from the beginning of the measurement to its end."""
        meter = Meter(self._site.servers, job.app, partitions_of([job.source]), [self._site.broker_pid, rig.pid])
        try:
            while not began.exists():
                process.check()
                rig.check()
                time.sleep(SAMPLE_S)
            samples = [meter.sample(process, ask=False)]
            ends_at = samples[0].at + measure_s
            while (left := ends_at - time.monotonic()) > 0.1:  # the rig still runs at the last one
                time.sleep(min(0.5, left - 0.1))
                samples.append(meter.sample(process, ask=False))
            while rig.runs:
                process.check()
                time.sleep(SAMPLE_S)
            rig.check(may_end=True)
            return samples
        finally:
            meter.close()


def partitions_of(topics: Iterable[str]) -> list[Partition]:
    """All of the topics' partitions."""
    return [(topic, number) for topic in topics for number in range(PARTITIONS)]


async def committed_records(link: Link, topic: str) -> AsyncIterator[Record]:
    """Every committed record of a topic, in order within each partition."""
    for partition, end in (await link.offsets(partitions_of([topic]), end=True)).items():
        position = 0
        while position < end:
            chunk = (await link.fetch_one(partition, position)).chunk
            if chunk is None:
                break
            for record in chunk:
                if record.offset >= position:
                    yield record
            position = chunk.next_offset


def _accounts(keys: Keys, records: int) -> int:
    return min(HOT_KEYS, records) if keys == "hot" else records


def _is_of(app: str, topic: str) -> bool:
    """Whether a topic was made for an application."""
    return f"{app}-" in topic


def _number(record: Record) -> int:
    value = record.value or b""
    return int(value[value.rindex(b":") + 1 : -1])
