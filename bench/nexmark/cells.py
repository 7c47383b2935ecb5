"""One engine at one query, once: started, watched, ended, and its answers compared with duckdb's."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from bench.nexmark.engines import Engine, Job
from bench.nexmark.events import Auction, Bid, Event, Person, events
from bench.nexmark.records import BELOW, Spelling, contexts, last
from bench.nexmark.reference import QUERIES, Row, answers, rows
from bench.nexmark.topology import NAMESPACE
from bench.peers.cells import SAMPLE_S, SOURCE_CONFIG, STALL_S, committed_records, partitions_of
from bench.peers.engines import PARTITIONS
from bench.peers.environments import ROOT
from bench.peers.meter import Meter
from bench.peers.processes import Process
from bench.peers.progress import BusySample, Outcome, measured
from bench.peers.rounds import Site
from bench.peers.workload import fill
from pf_stream.clock import WallClock
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.errors import KafkaError, KafkaUnavailableError
from pf_stream.kafka.link import ConnectionSettings, Link
from pf_stream.security import SigningKey

__all__ = ["Bench", "Cell"]

QUIET_S: Final = 1.5
"""An engine may be ready if it has committed nothing for so long: all of them commit once a second."""
PATIENCE_S: Final = 25.0
"""An engine is ready if it has committed nothing for so long: windows of the worker's own time have ended by then."""
LOOK_S: Final = 1.0
"""How often one looks for topics that an engine has made, and at answers that are not right yet."""
_CONFIG: Final = {**SOURCE_CONFIG, "retention.ms": "-1", "max.message.bytes": str(8 << 20)}
"""Events are of another year, and must not be too old to be kept, wherever they are copied to. Records as large as pf_stream may
write them, which minds topics that take less."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An engine at a query."""

    engine: Engine
    """Which."""
    query: str
    """Which."""
    events: int
    """How many are made for it, of all kinds."""

    def __str__(self) -> str:
        return f"{self.query}, {self.engine.name} ({self.engine.guarantee})"


class Bench:
    """A broker with filled topics; runs cells, one at a time."""

    def __init__(self, site: Site, make: Callable[[int], Iterable[Event]] = events) -> None:
        """*make* is given how many events there shall be."""
        self._site = site
        self._make = make
        self._connection = ConnectionSettings(site.servers)
        self._admin = Admin(self._connection)
        key = SigningKey.generate()
        self._trust = site.folder / "issuer.pub"
        key.save(site.folder / "issuer")
        self._tokens = contexts(key, WallClock().now_ms())
        self._wanted: dict[tuple[int, str], list[Row]] = {}
        self._sizes: dict[str, int] = {}
        self._cells = 0

    def fill(self, count: int, query: str) -> dict[type[Event], str]:
        """The topics of *count* events, and the last ones; those that *query* reads are filled the first time."""
        topics: dict[type[Event], str] = {
            kind: f"{NAMESPACE}.{kind.__name__.lower()}s-{count}" for kind in (Person, Auction, Bid)
        }
        if (count, query) not in self._wanted:
            kinds = QUERIES[query].sources
            some = [event for event in self._make(count) if isinstance(event, kinds)]
            alike = [name for name, other in QUERIES.items() if other.sources == kinds]
            self._wanted |= {(count, name): found for name, found in answers(some, alike).items()}
            some += [event for event in last(PARTITIONS) if isinstance(event, kinds)]
            missing = tuple(kind for kind in kinds if topics[kind] not in self._sizes)
            self._admin.create([NewTopicSpec(topics[kind], PARTITIONS, _CONFIG) for kind in missing], 1)
            spelling = Spelling(self._tokens, topics)
            fill(self._site.servers, spelling.records(event for event in some if isinstance(event, missing)))
            for kind in missing:
                self._sizes[topics[kind]] = sum(isinstance(event, kind) for event in some)
        return topics

    @contextlib.contextmanager
    def _job(self, cell: Cell) -> Iterator[Job]:
        """A job with topics of its own, which go behind the block with all that were made meanwhile."""
        self._cells += 1
        topics = self.fill(cell.events, cell.query)
        before = set(self._admin.names())
        app = f"{NAMESPACE}.c{self._cells}"
        with tempfile.TemporaryDirectory(dir=self._site.folder) as folder:
            job = Job(cell.query, app, self._site.servers, topics, f"{app}-out", self._trust, Path(folder))
            self._admin.create([NewTopicSpec(job.output, PARTITIONS, _CONFIG)], 1)
            try:
                yield job
            finally:
                # A broker that is slow at it deletes them later; what was measured counts all the same.
                with contextlib.suppress(KafkaError):
                    self._admin.delete([name for name in self._made(before) if not name.startswith("__")])

    def _made(self, before: set[str]) -> list[str]:
        return [name for name in self._admin.names() if name not in before]

    def run(self, cell: Cell) -> Outcome:
        """All events at once.

        Raises:
            MissingError: the engine cannot be had.
            StuckError: it ended by itself, or made no progress for a minute.
        """
        with self._job(cell) as job:
            load_before = os.getloadavg()[0]
            command = cell.engine.command(job)
            log = job.folder / "engine.log"
            environ = cell.engine.environment(job)
            cell.engine.prepare(job, environ)
            with Process(cell.engine.name, command, ROOT, log, self._site.cores.measured, environ) as process:
                samples, wrong = self._watch(cell, job, process)
                process.end()
            size = sum(self._sizes[job.topics[kind]] for kind in QUERIES[cell.query].sources)
        return measured(_of_events(samples, size), size, load_before, wrong)

    def _watch(self, cell: Cell, job: Job, process: Process) -> tuple[list[BusySample], str | None]:
        """Samples of all that it commits, on all hops, until its answers are right or nothing comes any more."""
        sources = [job.topics[kind] for kind in QUERIES[cell.query].sources]
        there = set(self._admin.names()) - set(sources)
        size = sum(self._sizes[topic] for topic in sources)
        meter = Meter(self._site.servers, job.app, partitions_of(sources), [self._site.broker_pid])
        followed: list[str] = []
        faults = _Faults(self._connection, cell.query, job.output, self._wanted[cell.events, cell.query])
        try:
            samples = [meter.sample(process)]
            moved_at = looked_at = read_at = samples[0].at
            while True:
                time.sleep(SAMPLE_S)
                sample = meter.sample(process)
                if sample.done > samples[-1].done:
                    moved_at = sample.at
                samples.append(sample)
                if sample.at - looked_at > LOOK_S:
                    looked_at = sample.at
                    process.check()
                    # A broker that is too busy to say which there are is asked again.
                    with contextlib.suppress(KafkaUnavailableError):
                        own = self._made(there)
                        if own != followed:
                            followed = own
                            meter.follow(partitions_of([*sources, *own]))
                read = sum(number for (topic, _), number in meter.committed.items() if topic in sources)
                quiet_s = sample.at - moved_at
                if read >= size and quiet_s > QUIET_S and sample.at - read_at > LOOK_S:
                    read_at = sample.at
                    found = asyncio.run(faults.now())
                    if found is None or quiet_s > PATIENCE_S:
                        return samples, found
                if quiet_s > STALL_S:
                    raise process.stuck(f"{read:,} of {size:,} events, and no more for a minute")
        finally:
            meter.close()


def _of_events(samples: Sequence[BusySample], count: int) -> list[BusySample]:
    """The samples as if each event were done when its share of all records was, on whatever hop."""
    total = samples[-1].done
    return [replace(sample, done=sample.done * count // total) for sample in samples]


class _Faults:
    """How the answers are not as they must be."""

    def __init__(self, connection: ConnectionSettings, query: str, output: str, wanted: Sequence[Row]) -> None:
        self._connection = connection
        self._query = QUERIES[query]
        self._output = output
        self._wanted = wanted
        self._ends: dict[Any, int] = {}
        self._found: str | None = "nothing was answered"

    async def now(self) -> str | None:
        """None if they are; read again if there are more."""
        link = await Link.connect(self._connection)
        try:
            ends = dict(await link.offsets(partitions_of([self._output]), end=True))
            if ends != self._ends:
                self._ends = ends
                told = [
                    orjson.loads(record.value)
                    async for record in committed_records(link, self._output)
                    if record.value is not None
                ]
                self._found = self._compare(rows(self._query, told, BELOW))
        finally:
            await link.close()
        return self._found

    def _compare(self, found: Sequence[Row]) -> str | None:
        if found == self._wanted:
            return None
        if len(found) != len(self._wanted):
            return f"{len(found):,} answers instead of {len(self._wanted):,}"
        differ = [(one, other) for one, other in zip(found, self._wanted, strict=True) if one != other]
        return f"{len(differ):,} of {len(found):,} answers, such as {differ[0][0]} instead of {differ[0][1]}"
