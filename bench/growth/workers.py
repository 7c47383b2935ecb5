"""Worker processes on a real Kafka, looked at from outside, with a given number of partitions.

What is to be handled is there before they see it: they stand still (``SIGSTOP``) while the topic is filled.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psutil

from bench.growth.load import Load, Row, account, batch, tokens
from bench.growth.topology import topology
from bench.machine import busy_s, used_s
from bench.peers.environments import ROOT
from bench.peers.processes import Cores, Process
from bench.peers.progress import BusySample, shares
from bench.peers.rounds import PATIENT
from pf_stream.components.pace import pace
from pf_stream.core import partition_of
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.dev import BrokerInfo, DevCluster
from pf_stream.kafka.link import ConnectionSettings, Link
from pf_stream.kafka.topics import create_topics
from pf_stream.security import SigningKey

__all__ = ["Case", "Field", "Turn", "field"]

TOKENS: Final = 1_000
BATCH: Final = 100
"""Records of a batch, however many partitions there are."""
REQUEST: Final = 40
"""Most batches of a request."""
SAMPLE_S: Final = 0.05
REST_S: Final = 1.0
"""What follows the last output, marks and offsets, counts too."""
START_S: Final = 600.0
STALL_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What workers did with records that were there."""

    us: float
    """Processor time for a record, all workers, all threads, in microseconds."""
    records_per_s: float | None
    """By outputs, from the first that were seen to the last but one."""
    broker_share: float
    """How much of a core Kafka and the bench used meanwhile."""
    others_share: float
    """How much of a core everything else on the machine used."""
    rss_mb: float
    """Resident memory of the workers together, at most."""


class Field:
    """A broker, and what all cases on it have in common."""

    def __init__(self, broker: BrokerInfo, core: int | None, folder: Path) -> None:
        """*core* is that of the workers, None if they run where the system likes."""
        self.connection = ConnectionSettings(broker.bootstrap_servers)
        self.broker_pid = broker.pid
        self.version = broker.version
        self.core = core
        self.folder = folder
        self.admin = Admin(self.connection)
        self.key = SigningKey.generate()
        self.key.save(folder / "issuer")
        self.trust = folder / "issuer.pub"


@contextmanager
def field(cores: Cores) -> Iterator[Field]:
    """Kafka on its core, this process where the rig is, and a folder for keys and logs, until the block ends."""
    before = os.sched_getaffinity(0) if cores.broker is not None else set()
    try:
        if cores.broker is not None:
            os.sched_setaffinity(0, {cores.broker})  # inherited
        with TemporaryDirectory(prefix="pf-growth-") as folder, DevCluster.temporary(1, settings=PATIENT) as cluster:
            if cores.rig is not None:
                os.sched_setaffinity(0, {cores.rig})
            yield Field(cluster.broker(1), cores.measured, Path(folder))
    finally:
        if before:
            os.sched_setaffinity(0, before)


class Case:
    """The topology with so many partitions, and with topics of its own."""

    def __init__(self, field: Field, name: str, partitions: int, records: int) -> None:
        """*records* is also the number of accounts: each turn has a record for every one of them, so that a unit changes as
        many states as it has records, however they are divided."""
        self.partitions = partitions
        self.records = records
        self._field = field
        self._topology = topology.within(f"{topology.namespace}-{name}")
        create_topics(field.admin, self._topology, partitions)
        self._source = self._topology.topic_name("intents")
        output = self._topology.topic_name("balanced")
        self._outputs = [(output, number) for number in range(partitions)]
        self._load = Load(tokens(field.key, self._topology.namespace, TOKENS), 200)
        self._turns = 0

    @contextmanager
    def worker(self, id_: str, lanes: int) -> Iterator[tuple[Process, float]]:
        """A worker with as many lanes, and the seconds from the start of its process until all of them were open."""
        field = self._field
        log = field.folder / f"{self._topology.namespace}-{id_}.log"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pf_stream", "worker", "run", "bench.growth.topology:topology", "--id", id_]
        command += ["--namespace", self._topology.namespace, "--trust", str(field.trust)]
        command += ["--bootstrap-servers", field.connection.bootstrap_servers]
        # It stands still at times, and must not be taken for dead.
        command += ["--session", "60", "--hang-after", "10m"]
        began = time.monotonic()
        with Process(id_, command, ROOT, log, field.core, {}) as process:
            while log.read_text(encoding="utf-8", errors="replace").count("lane open") < lanes:
                process.check()
                if time.monotonic() - began > START_S:
                    raise process.stuck(f"not all of {lanes:,} lanes were open after {START_S:.0f} s")
                time.sleep(SAMPLE_S)
            yield process, time.monotonic() - began
            process.end(60)

    def turn(self, workers: Sequence[Process]) -> Turn:
        """Let *workers*, who have nothing to do, handle one record of each account.

        Raises:
            StuckError: one ended by itself, or there was no output for two minutes.
        """
        batches = list(self._batches())
        before = self._done()
        engines = [psutil.Process(worker.pid) for worker in workers]
        for engine in engines:
            engine.suspend()
        try:
            asyncio.run(self._append(batches))
        finally:
            for engine in engines:
                engine.resume()
        samples = [self._sample(engines, 0)]
        while samples[-1].done < self.records:
            time.sleep(SAMPLE_S)
            for worker in workers:
                worker.check()
            samples.append(self._sample(engines, self._done() - before))
            if samples[-1].at - next(one.at for one in samples if one.done == samples[-1].done) > STALL_S:
                raise workers[0].stuck(f"{samples[-1].done:,} of {self.records:,} outputs, and no more")
        time.sleep(REST_S)
        rest = self._sample(engines, self._done() - before)
        assert rest.done == self.records, f"{rest.done:,} outputs for {self.records:,} records"
        self._turns += 1
        found, share = pace(samples, self.records), shares(samples)
        return Turn(
            us=(rest.cpu_s - samples[0].cpu_s) / self.records * 1e6,
            records_per_s=None if found is None else found.records_per_s,
            broker_share=share.broker_core_share,
            others_share=share.others_share,
            rss_mb=max(sample.rss for sample in samples) / 1e6,
        )

    def _batches(self) -> Iterator[tuple[int, bytes]]:
        first = self._turns * self.records
        rows: list[list[Row]] = [[] for _ in range(self.partitions)]
        for number in range(self.records):
            partition = partition_of(account(number), self.partitions)
            rows[partition].append(self._load.row(first + number, number, number * 7 % TOKENS))
            if len(rows[partition]) == BATCH:
                yield partition, batch(rows[partition])
                rows[partition] = []
        for partition, left in enumerate(rows):
            if left:
                yield partition, batch(left)

    async def _append(self, batches: Iterable[tuple[int, bytes]]) -> None:
        link = await Link.connect(self._field.connection)
        try:
            await link.watch([self._source])
            request: dict[tuple[str, int], bytes] = {}
            for partition, raw in batches:
                if len(request) == REQUEST or (self._source, partition) in request:
                    await self._send(link, request)
                    request = {}
                request[self._source, partition] = raw
            await self._send(link, request)
        finally:
            await link.close()

    async def _send(self, link: Link, request: dict[tuple[str, int], bytes]) -> None:
        node = link.leader((self._source, 0))
        assert node is not None
        answers = await link.produce(node, list(request.items()))
        assert all(answer.error is None for answer in answers.values()), answers

    def _done(self) -> int:
        return sum(self._field.admin.offsets(self._outputs, "end").values())

    def _sample(self, engines: Sequence[psutil.Process], done: int) -> BusySample:
        broker_s = sum(map(used_s, (psutil.Process(), psutil.Process(self._field.broker_pid))))
        cpu_s = sum(map(used_s, engines))
        rss = sum(engine.memory_info().rss for engine in engines)
        return BusySample(time.monotonic(), done, cpu_s, rss, broker_s, busy_s() - cpu_s - broker_s)
