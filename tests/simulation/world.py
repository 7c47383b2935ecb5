"""One seed: workers with the real engine, a group that assigns lanes to them, a client, and misfortune.

Every worker is a process of the virtual loop in which :class:`~pf_stream.engine.lanes.Lanes` runs as in a real one. What
they run, and what must become of what they are sent, is a :class:`~tests.simulation.workload.Workload`.
"""

import asyncio
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Final, NoReturn, TypeAlias

import orjson
import pytest
import structlog

from pf_stream.core import changelog, store
from pf_stream.core.plan import plan
from pf_stream.core.records import Record
from pf_stream.core.timers import EVENT, WALL
from pf_stream.core.watermark import WATERMARK_TYPE
from pf_stream.engine import recovery
from pf_stream.engine.runner import LaneRunner
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.link import ConnectionSettings, Link
from pf_stream.kafka.topics import Purpose, required_topics
from tests.simulation.boxes import Boxes
from tests.simulation.broker import Broker, Partition
from tests.simulation.changelogs import Changelogs
from tests.simulation.disk import Disk
from tests.simulation.group import Group
from tests.simulation.misfortune import Misfortune
from tests.simulation.network import Client, Network, Trouble
from tests.simulation.promise import BrokenError, broken, same
from tests.simulation.streams import Streams
from tests.simulation.virtual import Process, VirtualLoop
from tests.simulation.worker import Worker
from tests.simulation.workload import PARTITIONS, START_MS, Batch, Stored, Workload

__all__ = ["WORKLOADS", "Simulation"]

SETTLE_S: Final = 120.0
"""How long after the last misfortune everything must be done: longer than the longest pause between two rejoins."""

LATER_MS: Final = 7_200_000
"""How far clocks are put forward at the end, so that every timer is due, also one that was set by a clock that was ahead."""

SOON_MS: Final = 60_000
"""Timers that wait no longer than that are waited for."""

MakeWorkload: TypeAlias = Callable[[random.Random, bool], Workload]
"""Takes the run's dice, and whether workers follow lanes."""
WORKLOADS: Final[Sequence[MakeWorkload]] = (Boxes, Streams)


class Simulation:
    """A run."""

    def __init__(
        self, seed: int, misfortunes: Collection[str] = (), workloads: Sequence[MakeWorkload] = WORKLOADS
    ) -> None:
        """*misfortunes* are the kinds that may happen, all of them if empty; *workloads* take turns."""
        self.seed = seed
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        self.loop = VirtualLoop(random.Random(seed + 1))  # noqa: S311
        self.broker = Broker(self.dice.choice([1, 2]))
        self.network = Network(self.loop, self.broker, random.Random(seed + 2), self.now_ms)  # noqa: S311
        self._machines = random.Random(seed + 5)  # noqa: S311
        self.standby = self._machines.random() < 0.5
        """Whether other workers follow each lane."""
        self.workload = workloads[seed % len(workloads)](self.dice, self.standby)
        self.topology = self.workload.topology
        self.plans = {group.name: group for group in plan(self.topology, PARTITIONS)}
        self.plan_of = {group.changelog: group.name for group in self.plans.values()}
        """Names of groups, by changelog."""
        self.lanes = [(name, number) for name in self.plans for number in range(PARTITIONS)]
        self.workers: list[Worker] = []
        self.repeated = 0
        """Records that were written more than once."""
        self.trace: deque[str] = deque(maxlen=80)
        self.planned = 0
        """Batches that are yet to be sent."""
        self.calm = False
        """Whether misfortune is over."""
        self._said_last = False
        """Whether nothing is sent any more."""
        self.disks: list[Disk] = []
        """Of machines on which no worker runs any more."""
        self.misfortune = Misfortune(self, misfortunes)
        self._digest = blake2b(digest_size=8)
        self._changelogs = Changelogs()
        self._broken: asyncio.Future[NoReturn] = self.loop.create_future()
        self._dead: list[asyncio.Task[Any]] = []
        self._started = 0
        self._lasting = self._machines.random() < 0.5
        """Whether states are on disks."""
        self.broker.appended.append(self._watch)
        for spec in required_topics(self.topology, PARTITIONS):
            if spec.purpose is not Purpose.registry:
                self.broker.create(
                    spec.name,
                    spec.partitions,
                    compact=spec.config.get("cleanup.policy") == "compact",
                    append_time=spec.config.get("message.timestamp.type") == "LogAppendTime",
                    max_bytes=int(spec.config.get("max.message.bytes", 1_048_588)),
                )

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run it; raises :class:`BrokenError`, with the last actions as a note."""
        with self._in_place_of_the_world():
            try:
                asyncio.set_event_loop(None)
                self.group = Group(self)
                self.loop.run_until_complete(self._run())
                if self.loop.faults:
                    raise BrokenError("complaint", "; ".join(self.loop.faults))
            except BaseException as error:
                error.add_note(f"replay: make simulate SEED={self.seed}")
                error.add_note("last actions:\n  " + "\n  ".join(self.trace))
                raise
            finally:
                self._end()

    def _end(self) -> None:
        for worker in list(self.workers):
            self.kill(worker)
        self.network.close()
        self.loop.bury(self._dead)
        if self._broken.done() and not self._broken.cancelled():
            self._broken.exception()
        self.loop.close()

    async def _run(self) -> None:
        main = asyncio.ensure_future(self._story())
        ends: set[asyncio.Future[Any]] = {main, self._broken}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._broken.done():
            self._broken.result()
        main.result()

    async def _story(self) -> None:
        group = asyncio.ensure_future(self.group.run())
        group.add_done_callback(lambda task: task.cancelled() or task.result())
        for _ in range(self.dice.choice([1, 2, 2, 3])):
            self.begin_worker()
        reading = asyncio.ensure_future(self._read_states())
        misfortune = asyncio.ensure_future(self.misfortune.run())
        await self._send()
        await misfortune
        await self._settle()
        reading.cancel()
        self.workload.check_outputs(self._once)
        self._check_states("at the end")
        await self._check_shelves()
        sent = self._sent()
        await self._start_afresh()
        self._check_states("after a recovery from compacted changelogs")
        await self._check_shelves()
        again = self._sent()
        same("sent again", "what was marked as sent", {at: again[at] for at in sent}, sent)
        group.cancel()

    @contextmanager
    def _in_place_of_the_world(self) -> Iterator[None]:
        """Connections, random names and logs."""

        async def connect(settings: ConnectionSettings) -> Link:
            return Client(self.network).link()

        before = structlog.get_config()
        dice = random.Random(self.seed + 3)  # noqa: S311
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Link, "connect", connect)
            patch.setattr(recovery, "CHUNK_BYTES", dice.choice([1, 1_000, recovery.CHUNK_BYTES]))
            patch.setattr(store, "_LIVE", 0)
            patch.setattr(store, "_LIVE_IN_LANE", dice.choice([0, 1, 64]))
            patch.setattr(secrets, "token_hex", lambda count: f"{dice.getrandbits(8 * count):0{2 * count}x}")
            structlog.configure(processors=[self._log])
            try:
                yield
            finally:
                structlog.configure(**before)

    def _log(self, logger: Any, method: str, event: Any) -> NoReturn:
        process = Process.current()
        rest = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
        self.note(f"{'?' if process is None else process.name} says: {event['event']} {rest}")
        if method == "error" and event.get("code") not in {"fenced", "append_refused"}:
            self.fail("lane stopped", f"{event['event']} {rest}")
        raise structlog.DropEvent

    def note(self, text: str) -> None:
        """Put down what happens."""
        line = f"{self.loop.time():.6f} {text}"
        self._digest.update(line.encode())
        self.trace.append(line)

    @property
    def digest(self) -> str:
        """Of everything that was put down: equal for equal runs."""
        return self._digest.hexdigest()

    def fail(self, kind: str, what: str) -> None:
        """End the run."""
        self.note(f"BROKEN {kind}: {what}")
        if not self._broken.done():
            self._broken.set_exception(BrokenError(kind, what))

    def now_ms(self) -> int:
        """The brokers' time."""
        return START_MS + round(self.loop.time() * 1000)

    # -- workers -------------------------------------------------------------------------------------------------------

    def begin_worker(self) -> None:
        """Start a process; when it is connected it joins the group."""
        disk = None
        if self._lasting:
            disk = self.disks.pop() if self.disks else Disk(self._machines)
        worker = Worker(f"w{self._started}", self.loop, disk)
        self._started += 1
        self.workers.append(worker)
        worker.clock.skew_ms = LATER_MS if self.calm else 0
        self.note(f"{worker.name} starts")
        started = self.loop.start(worker.process, worker.start([*self.plans.values()], self))

        def join(task: "asyncio.Task[None]") -> None:
            task.result()
            worker.member = True
            self.group.ask()

        started.add_done_callback(join, context=None)

    def begin_successor(self) -> None:
        """Start one in place of one that was killed."""
        if not self.calm:
            self.begin_worker()

    def kill(self, worker: Worker) -> None:
        """End a process at once."""
        self.workers.remove(worker)
        self._dead += self.loop.kill(worker.process)
        if worker.disk is not None:
            worker.disk.crash()
            self.disks.append(worker.disk)
        worker.gone.set_result(None)

    def alive(self) -> list[Worker]:
        """Those that are heard."""
        return [worker for worker in self.workers if not worker.silent]

    # -- the client ----------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        dice = self.dice
        left = dice.choice([5, 20, 60])
        while left:
            count = dice.randint(1, min(left, 12))
            left -= count
            self._send_batch(count)
            await asyncio.sleep(dice.choice([0.0, 0.01, 0.3]) * dice.random())

    def send_late(self) -> None:
        """Send some of those that were planned."""
        self.planned -= 1
        self._send_batch(self.dice.randint(1, 3))

    def _send_batch(self, count: int) -> None:
        self.workload.appended(self._append(self.workload.batch(count, self.now_ms())))

    def _append(self, batch: Batch) -> int:
        answer = self.broker.append(batch.topic, batch.partition, batch.records, self.now_ms())
        assert answer.code == 0, answer
        return answer.offset

    # -- the end of a run ----------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """No more misfortune; wait until all is done."""
        self.note("no more misfortune")
        self.network.trouble = Trouble()
        self.calm = True
        for worker in self.workers:
            worker.process.fuse = None
            worker.clock.skew_ms = LATER_MS
        end = self.loop.time() + SETTLE_S
        while True:
            if not self.workers:
                self.begin_worker()
            if not (self._said_last or self.planned or any(worker.silent for worker in self.workers)):
                self._said_last = True
                for batch in self.workload.last(self.now_ms()):
                    self._append(batch)
            left = self._left()
            if not left:
                return
            if self.loop.time() > end:
                self.fail("stuck", left)
            await asyncio.sleep(0.25)

    def _left(self) -> str:
        """What is not done yet."""
        if not self.group.is_settled:
            return "the group is rebalancing"
        if not self._said_last:
            return "not everything was sent"
        for worker in self.workers:
            if worker.silent or not worker.member:
                return f"{worker.name} is no member"
            open_lanes = {(runner.plan.name, runner.partition) for runner in worker.lanes.runners}
            if not worker.lanes.ready.is_set() or open_lanes != worker.assigned:
                return f"{worker.name} was given {sorted(worker.assigned)} and has open {sorted(open_lanes)}"
        orphans = set(self.lanes).difference(*(worker.assigned for worker in self.workers))
        if orphans:  # those of a worker that was killed, until the group misses it
            return f"nobody has {sorted(orphans)}"
        for name, number in self.lanes:
            group = self.plans[name]
            log = self._changelogs.log(name, number)
            for source in group.sources:
                position = log.watermarks.get(source.topic, 0)
                end = self.broker.topics[source.topic].partitions[number].end
                if position < end:
                    return f"{source.topic}-{number} is decided up to {position} of {end}"
            for clock, reached_ms in ((WALL, self.now_ms() + LATER_MS + SOON_MS), (EVENT, log.clock_ms)):
                due_ms = log.due_ms(clock)
                if due_ms is not None and reached_ms is not None and due_ms <= reached_ms:
                    return f"{group.changelog}-{number} has timers that are due"
            if log.has_unsent:
                return f"{group.changelog}-{number} has outputs that are not marked as sent"
            left = self.workload.left(group, number, log)
            if left:
                return left
        return ""

    async def _start_afresh(self) -> None:
        """Everybody ends, well or badly; the changelogs are compacted; a new worker recovers."""
        for worker in list(self.workers):
            if self.dice.random() < 0.5:
                await self.loop.start(worker.process, worker.lanes.stop(1.0))
            self.note(f"{worker.name} ends")
            self.kill(worker)
            worker.member = False
        self.misfortune.compact()
        await self._settle()

    # -- promises ------------------------------------------------------------------------------------------------------

    def _watch(self, partition: Partition, batch: bytes) -> None:
        """Look at what a broker has just appended."""
        records = Chunk(batch, (), str(partition))
        name = self.plan_of.get(partition.topic.name)
        try:
            if name is None:
                self._watch_outputs(partition, records)
                return
            self.note(f"{partition} has {partition.end}")
            for taker in self._changelogs.watch(name, partition, records):
                self._watch_fence((name, partition.number), taker)
            clock_ms = self._changelogs.log(name, partition.number).clock_ms
            farthest_ms = self.workload.farthest_ms(self.plans[name], partition.number)
            if clock_ms is not None and farthest_ms is not None and clock_ms > farthest_ms:
                broken("clock", f"that of {partition} is at {clock_ms}, and what it waits for at {farthest_ms}")
        except BrokenError as error:
            self.fail(error.kind, str(error))

    def _watch_outputs(self, partition: Partition, records: Chunk) -> None:
        for record in records:
            raw = dict(record.headers).get("pf-source")
            if raw is None:
                continue
            self.note(f"{partition} has {raw.decode()}")
            incarnation, sequence, _ = raw.split(b":")
            if int(sequence) > self._changelogs.sequences.get(incarnation, 0):
                broken("uncommitted output", f"{raw.decode()} is in {partition}, and its unit is not in the changelog")

    def _watch_fence(self, lane: tuple[str, int], name: str) -> None:
        for worker in self.workers:
            if worker.name == name:
                self.misfortune.fenced(worker)
                worker.fences[lane] += 1
                if worker.fences[lane] > worker.assignments[lane]:
                    broken("unassigned lease", f"{name} took {lane} although the group did not give it")

    def check_hints(self, worker: Worker) -> None:
        """What is committed to the group is in the changelogs."""
        for (topic, number), offset in worker.lanes.hints.items():
            group = next(group for group in self.plans.values() if any(one.topic == topic for one in group.sources))
            durable = self._changelogs.log(group.name, number).watermarks.get(topic, 0)
            if offset > durable:
                self.fail("uncommitted position", f"{offset} of {topic}-{number}; durable: {durable}")

    async def _read_states(self) -> None:
        """Read as a query would, now and then: only what is in the changelogs may be seen."""
        dice = random.Random(self.seed + 4)  # noqa: S311
        while True:
            await asyncio.sleep(0.2 * dice.random())
            for worker in self.alive():
                if worker.member:
                    self.check_hints(worker)
                    for runner in worker.lanes.runners:
                        self._check_read(runner)

    def _check_read(self, runner: LaneRunner) -> None:
        known = self._changelogs.log(runner.plan.name, runner.partition).states
        for reactor in runner.plan.reactors:
            for key in runner.lane.keys(reactor.spec.id):
                at = changelog.state_key(reactor.prefix, key)
                rows = [(b"", runner.lane.raw(reactor.spec.id, key)), *runner.lane.entries(reactor.spec.id, key)]
                for subkey, value in rows:
                    if value is not None and value not in known.get(at + subkey, ()):
                        what = f"{reactor.spec.id} {key!r} {subkey!r} is {value!r}"
                        self.fail("uncommitted read", f"{what}, which is in no changelog")

    def _check_states(self, when: str) -> None:
        """Each state is where its key lives, once, and the workload finds it right."""
        found: dict[tuple[str, str], Stored] = {}
        for worker in self.workers:
            for runner in worker.lanes.runners:
                for reactor in runner.plan.reactors:
                    name = reactor.spec.id
                    for key in runner.lane.keys(name):
                        if (name, key.decode()) in found:
                            broken("wrong state", f"{name} {key!r} lives twice")
                        entries = {
                            changelog.parse_subkey(subkey): orjson.loads(raw[changelog.STATE_PREFIX.size :])
                            for subkey, raw in runner.lane.entries(name, key)
                        }
                        found[name, key.decode()] = Stored(orjson.loads(runner.lane.stored(name, key) or b""), entries)
        self.workload.check_states(found, when)

    async def _check_shelves(self) -> None:
        """What is on the disk of a worker is what the changelogs of its lanes say, and nothing else."""
        for worker in self.workers:
            shelves = {} if worker.disk is None else worker.disk.shelves
            for runner in worker.lanes.runners if shelves else ():
                at = runner.plan.changelog, runner.partition
                log = self._changelogs.log(runner.plan.name, runner.partition)
                for _ in range(100):
                    if shelves[at].values.get(changelog.UNIT) != log.last.get(changelog.UNIT):
                        await asyncio.sleep(0.005)  # until the acknowledgement has come
                last = {key: value for key, value in log.last.items() if value is not None}
                found = {**shelves[at].values}
                for values in (last, found):
                    values.pop(changelog.FENCE, None)  # of which the last one may be from after its recovery
                same("wrong shelf", f"the shelf of {at}", found, last)

    def _once(self, topic: str) -> list[Record]:
        """The records of a topic without repeats, which must be equal to the first."""
        first: dict[bytes, tuple[Any, Record]] = {}
        for partition in self.broker.topics[topic].partitions:
            for record in partition.records():
                origin = dict(record.headers)["pf-source"] or b""
                content = partition.number, record.key, record.value, tuple(record.headers)
                if first.setdefault(origin, (content, record))[0] != content:
                    broken("changed repeat", f"{origin!r} in {topic} was {first[origin]} and came as {content}")
                self.repeated += first[origin][1] is not record
        return [record for _, record in first.values()]

    def _sent(self) -> Counter[tuple[str, bytes]]:
        """How often each output was written. Records that only tell a clock are left out: those are written all the time."""
        sent: Counter[tuple[str, bytes]] = Counter()
        for topic in self.broker.topics.values():
            for partition in topic.partitions if topic.name not in self.plan_of else ():
                for record in partition.records():
                    headers = dict(record.headers)
                    if "pf-source" in headers and headers.get("ce_type") != WATERMARK_TYPE:
                        sent[str(partition), headers["pf-source"] or b""] += 1
        return sent
