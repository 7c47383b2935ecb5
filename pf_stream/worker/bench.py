"""Measuring a topology: its topics are filled, a worker process has them, and then intents come at a rate.

All is seen from outside: what the group has committed, the processor time of the process, and for the latency the times at
which the broker appended an intent and the unit that handled it. So nothing of the topology has to be changed for it.
"""

import asyncio
import itertools
import signal
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from pf_stream.clock import Clock
from pf_stream.components.dead_letters import last_dead_letters
from pf_stream.components.messaging import make_record, read_event
from pf_stream.components.pace import Sample, pace, percentile
from pf_stream.components.specimens import Specimens
from pf_stream.core.changelog import WATERMARK_VALUE, watermark_key
from pf_stream.core.plan import GroupPlan, plan
from pf_stream.errors import ConfigurationError, PFError
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.groups import GroupOffsets
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.kafka.reader import read_topic
from pf_stream.kafka.sender import NewRecord, Position, send
from pf_stream.kafka.topics import Purpose, create_topics, missing_topics, required_topics
from pf_stream.model import Intent, Topology
from pf_stream.model.requirement import grants_of
from pf_stream.security import SigningKey, mint
from pf_stream.worker.supervisor import Child, ChildProcess

__all__ = ["BenchSettings", "Measured", "NotMeasuredError", "measure", "read_intents"]

SAMPLE_S: Final = 0.1
SETTLED_S: Final = 3.0
"""Offsets are committed once a second: what has not moved for so long has come to its end."""
STALL_S: Final = 60.0
"""How long a worker may take until it commits something."""
FILL_LINGER_MS: Final = 20
LOG_LINES: Final = 8
LETTERS: Final = 1_000
"""Most dead letters that are looked at."""
_LIFETIME_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What is to be measured."""

    connection: ConnectionSettings
    """The cluster."""
    target: str
    """The topology as commands take it: the worker is another process and loads it for itself."""
    intents: int
    """How many there are to be handled at once."""
    rate: int
    """How many a second there are then, for the latency."""
    seconds: float
    """For how long."""
    latency: Literal["low", "balanced"]
    """The worker's setting of that name."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it."""

    topology: str
    """Its name."""
    guarantee: str
    """How it commits."""
    intents: int
    """Intents that were to be handled at once."""
    records: int
    """Records that this made on all hops, the intents among them."""
    intents_per_s: float
    """Intents a second, each with all that follows from it."""
    records_per_s: float
    """Records a second. Of a transactional topology, markers of transactions on internal topics count as records."""
    cpu_us_per_record: float
    """Processor time of the worker for a record, in microseconds."""
    rss_mb: float
    """Most resident memory of the worker, in megabytes."""
    offered_per_s: int
    """Intents a second while latency was measured."""
    p50_ms: float
    """From the append of an intent to that of the unit that handled it: half of them took no longer."""
    p99_ms: float
    """Likewise, 99 of 100 of them."""
    refused: Mapping[str, int]
    """Dead letters by code, of the last thousand: what was refused was not handled, and the rates are of that."""


class NotMeasuredError(PFError):
    """Raised when nothing can be said; tells the end of the worker's log if that is why."""

    code = "not_measured"

    def __init__(self, why: str, log: Path | None = None) -> None:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:] if log else []
        super().__init__("\n".join([why, *said]))


def read_intents(topology: Topology, lines: Iterable[bytes]) -> list[Intent]:
    """Intents of JSON objects with ``type`` and ``data``, one a line.

    Raises:
        ConfigurationError: there is none, or a line is none; names it.
    """
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(read_event(topology, line))
            except PFError as error:
                raise ConfigurationError(f"line {number}: {error}") from error
    if not found:
        raise ConfigurationError('there are no intents: write one a line, as {"type": ..., "data": {...}}')
    return found


def made_up(topology: Topology, keys: int) -> Callable[[int], Intent]:
    """Intents of all types that come from outside, in turn, with so many keys each; see :class:`Specimens`.

    Raises:
        ConfigurationError: nothing comes from outside.
    """
    handled = {handler.intent.type for spec in topology.specs for handler in spec.handlers}
    specs = [
        spec
        for spec in topology.intents
        if spec.type in handled and not topology.is_internal(topology.topic_name(spec.topic))
    ]
    if not specs:
        raise ConfigurationError(f"topology {topology.name!r} handles no intent from outside")
    specimens = [Specimens(spec, keys) for spec in specs]
    return lambda number: specimens[number % len(specs)].make(number // len(specs))


def measure(topology: Topology, settings: BenchSettings, intent: Callable[[int], Intent], clock: Clock) -> Measured:
    """Measure *topology*, in topics that are made for it and deleted afterwards; *intent* gives them by number.

    A context is made for them that grants what they require. Raises:

        ConfigurationError: a topic of the topology is there already.
        NotMeasuredError: the worker does not start or stands still, or all was over too soon.
    """
    admin = Admin(settings.connection)
    needed = required_topics(topology)
    absent = missing_topics(admin, topology)
    shared = {Purpose.registry, Purpose.probe}
    there = [spec.name for spec in needed if spec not in absent and spec.purpose not in shared]
    if there:
        raise ConfigurationError(
            f"topic {there[0]} is there already, and what is measured must have topics of its own: name another namespace"
        )
    try:
        # One clock for both ends of a latency.
        dated = {"message.timestamp.type": "LogAppendTime"}
        logs = [spec for spec in needed if spec.purpose is Purpose.changelog]
        admin.create(
            [NewTopicSpec(spec.name, spec.partitions, {**spec.config, **dated}) for spec in logs],
            min(3, admin.brokers()),
        )
        create_topics(admin, topology)
        with tempfile.TemporaryDirectory(prefix="pf-bench-") as folder:
            return asyncio.run(_Run(topology, settings, intent, clock, admin, Path(folder)).run())
    finally:
        admin.delete([spec.name for spec in absent if spec.purpose not in shared])


class _Run:
    """One measurement."""

    def __init__(
        self,
        topology: Topology,
        settings: BenchSettings,
        intent: Callable[[int], Intent],
        clock: Clock,
        admin: Admin,
        folder: Path,
    ) -> None:
        self._topology = topology
        self._settings = settings
        self._intent = intent
        self._clock = clock
        self._admin = admin
        self._folder = folder
        self._log = folder / "worker.log"
        self._groups = plan(topology, topology.partitions)
        self._numbers = range(topology.partitions)
        sources = [source for group in self._groups for source in group.sources]
        self._sources = [(source.topic, number) for source in sources for number in self._numbers]
        self._outer = [(source.topic, number) for source in sources if not source.internal for number in self._numbers]
        self._offsets = GroupOffsets(settings.connection, topology.app_id, self._sources)
        kids = {service.key for service in topology.services.values()}
        self._key = SigningKey.generate(next(kid for kid in itertools.count(1) if kid not in kids))
        self._service_keys = [SigningKey.generate(kid) for kid in sorted(kids)]
        self._context = mint(
            self._key,
            subject="pf bench",
            audience=topology.namespace,
            capabilities=[
                grant.widest()
                for spec in topology.intents
                for requirement in topology.requirements(spec)
                for grant in grants_of(requirement)
            ],
            now_ms=clock.now_ms(),
            lifetime_s=_LIFETIME_S,
        )

    async def run(self) -> Measured:
        """All of it."""
        settings, count = self._settings, self._settings.intents
        await asyncio.to_thread(send, settings.connection, self._records(range(count)), linger_ms=FILL_LINGER_MS)
        worker = await ChildProcess.start(Child("bench-0", self._command()), self._log)
        ended = asyncio.create_task(worker.ended())
        try:
            samples = await self._work(psutil.Process(worker.pid), ended)
            found = pace(samples, samples[-1].done)
            if found is None:
                raise NotMeasuredError(f"{count:,} intents were over too soon to tell a rate: give more with --records")
            paced = range(count, count + round(settings.rate * settings.seconds))
            latencies = sorted(await self._latencies(paced, ended))
        finally:
            worker.signal(signal.SIGTERM)
            if not (await asyncio.wait([ended], timeout=STALL_S))[0]:
                worker.signal(signal.SIGKILL)
            await ended
            self._offsets.close()
        letters = last_dead_letters(settings.connection, self._topology, LETTERS)
        return Measured(
            topology=self._topology.name,
            guarantee=self._topology.guarantee,
            intents=count,
            records=samples[-1].done,
            intents_per_s=found.records_per_s * count / samples[-1].done,
            records_per_s=found.records_per_s,
            cpu_us_per_record=found.cpu_us_per_record,
            rss_mb=found.rss_mb,
            offered_per_s=settings.rate,
            p50_ms=percentile(latencies, 0.5),
            p99_ms=percentile(latencies, 0.99),
            refused=dict(Counter(letter.code for letter in letters)),
        )

    def _command(self) -> tuple[str, ...]:
        settings = self._settings
        self._key.save(self._folder / "issuer")
        command = [sys.executable, "-P", "-m", "pf_stream", "worker", "run", settings.target, "--id", "bench-0"]
        command += ["--namespace", self._topology.namespace, "--latency", settings.latency]
        command += ["--bootstrap-servers", settings.connection.bootstrap_servers]
        command += ["--trust", str(self._folder / "issuer.pub")]
        for key in self._service_keys:
            path = self._folder / f"service-{key.kid}"
            key.save(path)
            command += ["--service-key", str(path), "--trust", f"{path}.pub"]
        return tuple(command)

    def _records(self, numbers: Iterable[int]) -> Iterator[NewRecord]:
        for number in numbers:
            yield make_record(
                self._topology,
                self._intent(number),
                context=self._context,
                reply_to=None,
                now_ms=self._clock.now_ms(),
                id_=str(number),
            )

    def _paced(self, numbers: Sequence[int]) -> Iterator[NewRecord]:
        start = time.monotonic()
        for at, record in enumerate(self._records(numbers)):
            time.sleep(max(0.0, start + at / self._settings.rate - time.monotonic()))
            yield record

    async def _work(self, process: psutil.Process, ended: "asyncio.Future[int]") -> list[Sample]:
        """Look on until all is done that follows from what was sent."""
        ends = self._admin.offsets(self._outer, "end")
        samples: list[Sample] = []
        moved = time.monotonic()
        while True:
            committed = await asyncio.to_thread(self._offsets.read)
            if ended.done():
                raise NotMeasuredError(
                    f"the worker ended with exit code {ended.result()}; the end of its log:", self._log
                )
            used, now = process.cpu_times(), time.monotonic()
            done = sum(committed.values())
            if samples and done > samples[-1].done:
                moved = now
            samples.append(Sample(now, done, used.user + used.system, process.memory_info().rss))
            complete = all(committed[partition] >= end for partition, end in ends.items())
            if complete and now - moved > SETTLED_S:
                return samples
            if now - moved > STALL_S:
                raise NotMeasuredError(
                    f"{done:,} records are handled, and no more for {STALL_S:.0f} s; the end of the worker's log:",
                    self._log,
                )
            await asyncio.sleep(SAMPLE_S)

    async def _latencies(self, numbers: Sequence[int], ended: "asyncio.Future[int]") -> list[float]:
        """Milliseconds from append to commit, of intents that come at a rate."""
        logs = [(group.changelog, number) for group in self._groups for number in self._numbers]
        before = await asyncio.to_thread(self._admin.offsets, logs, "end")
        sent = await asyncio.to_thread(send, self._settings.connection, self._paced(numbers))
        behind: dict[Partition, int] = {}
        for topic, number, offset in sent:
            behind[topic, number] = max(offset + 1, behind.get((topic, number), 0))
        deadline = time.monotonic() + STALL_S
        while not await self._reached(behind):
            if ended.done() or time.monotonic() > deadline:
                raise NotMeasuredError("the worker did not keep up with the rate; the end of its log:", self._log)
            await asyncio.sleep(SAMPLE_S)
        return await asyncio.to_thread(self._between, sent, before)

    async def _reached(self, ends: Mapping[Partition, int]) -> bool:
        committed = await asyncio.to_thread(self._offsets.read)
        return all(committed[partition] >= end for partition, end in ends.items())

    def _between(self, sent: Sequence[Position], before: Mapping[Partition, int]) -> list[float]:
        commits: dict[Partition, _Commits] = {}
        for group in self._groups:
            commits |= self._commits(group, before)
        first: dict[str, dict[int, int]] = {}
        for topic, number, offset in sent:
            starts = first.setdefault(topic, {})
            starts[number] = min(offset, starts.get(number, offset))
        return [
            commits[topic, record.partition].after(record.offset) - record.timestamp
            for topic, starts in first.items()
            for record in read_topic(self._settings.connection, topic, partitions=starts, start=starts)
        ]

    def _commits(self, group: GroupPlan, before: Mapping[Partition, int]) -> dict[Partition, "_Commits"]:
        """Of the group's source partitions; of several readers of one, those of the last of them."""
        keys = {
            watermark_key(reader.spec.id, source.topic): source.topic
            for source in group.sources
            for reader in source.readers
        }
        found: dict[Partition, _Commits] = {}
        for number in self._numbers:
            start = before[group.changelog, number]
            for record in read_topic(self._settings.connection, group.changelog, partitions=[number], start=start):
                topic = keys.get(record.key or b"")
                if topic is not None and record.value is not None:
                    following, _ = WATERMARK_VALUE.unpack(record.value)
                    found.setdefault((topic, number), _Commits()).add(record.key or b"", following, record.timestamp)
        return found


class _Commits:
    """When a source partition was committed up to where, by each of its readers."""

    def __init__(self) -> None:
        self._readers: dict[bytes, tuple[list[int], list[int]]] = {}

    def add(self, reader: bytes, following: int, time_ms: int) -> None:
        """All below *following* was committed at a time."""
        offsets, times = self._readers.setdefault(reader, ([], []))
        offsets.append(following)
        times.append(time_ms)

    def after(self, offset: int) -> int:
        """When the record at *offset* was committed by all readers, in milliseconds since the epoch."""
        return max(times[bisect_right(offsets, offset)] for offsets, times in self._readers.values())
