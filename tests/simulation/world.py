"""One seed: workers with the real engine, a group that assigns lanes to them, a client, and misfortune.

Every worker is a process of the virtual loop in which :class:`~pf_stream.engine.lanes.Lanes` runs as in a real one. Of the
group only what it decides is modelled: who is a member, when all are to let go, and who gets which lane.
"""

import asyncio
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, NoReturn

import orjson
import pytest
import structlog

from pf_stream.core import changelog, store
from pf_stream.core.plan import GroupPlan, plan
from pf_stream.core.records import Record
from pf_stream.engine import recovery
from pf_stream.engine.lanes import Lanes
from pf_stream.engine.settings import WorkerSettings
from pf_stream.engine.sinks import Progress
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.link import ConnectionSettings, Link
from pf_stream.kafka.topics import Purpose, required_topics
from tests.simulation.broker import Broker, Partition
from tests.simulation.disk import Disk
from tests.simulation.network import INIT_PRODUCER_ID, PRODUCE, Client, Network, Trouble
from tests.simulation.virtual import Process, VirtualLoop
from tests.simulation.workload import LIMITS, PARTITIONS, ROOTS, START_MS, Sender, followed, topology

__all__ = ["BrokenError", "Simulation"]

SESSION_S: Final = 10.0
"""How long the group waits for a member that is silent."""
SETTLE_S: Final = 120.0
"""How long after the last misfortune everything must be done: longer than the longest pause between two rejoins."""

LATER_MS: Final = 7_200_000
"""How far clocks are put forward at the end, so that every timer is due, also one that was set by a clock that was ahead."""

DAY_MS: Final = 86_400_000

LaneKey = tuple[str, int]


class BrokenError(AssertionError):
    """Raised when a promise was broken."""

    def __init__(self, kind: str, what: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {what}")


class _Clock:
    """A worker's wall clock, which may be wrong and may step."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.skew_ms = 0

    def now_ms(self) -> int:
        return START_MS + round(self._loop.time() * 1000) + self.skew_ms


class Worker:
    """A worker process."""

    def __init__(self, name: str, loop: VirtualLoop, disk: Disk | None) -> None:
        self.name = name
        self.disk = disk
        """Of its machine, if it keeps state there."""
        self.process: Process = loop.process(name)
        self.clock = _Clock(loop)
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the process is dead."""
        self.member = False
        """Whether the group counts it in."""
        self.expelled = False
        """Whether the group did so, and gave it up."""
        self.silent = 0
        """For how many reasons the group does not hear of it."""
        self.assigned: frozenset[LaneKey] = frozenset()
        self.assignments: Counter[LaneKey] = Counter()
        """How often it was given a lane."""
        self.fences: Counter[LaneKey] = Counter()
        """How often it took a lane's lease."""
        self._lanes: Lanes | None = None

    @property
    def lanes(self) -> Lanes:
        """Its lanes, once it has started."""
        assert self._lanes is not None
        return self._lanes

    @property
    def is_ready(self) -> bool:
        """Whether no lane of it is being opened."""
        return self._lanes is not None and self._lanes.ready.is_set()

    async def start(self, plans: list[GroupPlan], simulation: "Simulation", limits: Any) -> None:
        """Connect; runs in the worker."""
        settings = WorkerSettings(
            ConnectionSettings("model"), ROOTS, self.name, latency=simulation.dice.choice(["low", "balanced"])
        )
        self._lanes = await Lanes.start(
            plans, settings, limits, self.clock, rejoin=simulation.group.ask, commit=_no_sinks, depot=self.disk
        )


async def _no_sinks(progress: Progress) -> bool:
    raise AssertionError(progress)


class Group:
    """The consumer group: eager rebalances, as aiokafka has them."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._asked = asyncio.Event()
        self._rebalancing = False

    def ask(self) -> None:
        """Somebody joined, left, or wants another assignment."""
        self._asked.set()

    async def run(self) -> None:
        """Rebalance whenever somebody asks."""
        simulation = self._simulation
        while True:
            await self._asked.wait()
            await asyncio.sleep(simulation.dice.random())  # until the members hear of it with their heartbeats
            self._asked.clear()
            self._rebalancing = True
            await self._rebalance()
            self._rebalancing = False

    @property
    def is_settled(self) -> bool:
        """Whether all members have been told what is theirs."""
        return not (self._rebalancing or self._asked.is_set())

    def expel(self, worker: Worker) -> None:
        """Go on without a member."""
        if worker.member:
            self._simulation.note(f"{worker.name} is expelled")
            worker.member = False
            worker.expelled = True
            self.ask()
            if not worker.silent:
                self.heard_of(worker)

    def heard_of(self, worker: Worker) -> None:
        """With its next heartbeat a member hears that it was given up, if it was, and joins again."""

        def again() -> None:
            if worker.expelled and not (worker.gone.done() or worker.silent):
                worker.expelled = False
                worker.member = True
                self.ask()

        self._simulation.network.at(self._simulation.dice.random(), again)

    async def _rebalance(self) -> None:
        simulation = self._simulation
        members = [worker for worker in simulation.workers if worker.member]
        simulation.note(f"rebalance of {', '.join(worker.name for worker in members)}")
        await asyncio.gather(*(self._revoke(worker) for worker in members))
        joined = [worker for worker in members if worker.member]
        shares: dict[str, set[LaneKey]] = {worker.name: set() for worker in joined}
        for lane in simulation.lanes:
            before = [worker for worker in joined if lane in worker.assigned]
            if joined:
                sticky = before and simulation.dice.random() < 0.7
                shares[simulation.dice.choice(before if sticky else joined).name].add(lane)
        for worker in joined:
            worker.assigned = frozenset(shares[worker.name])
            others = [lane for lane in simulation.lanes if lane not in worker.assigned]
            follows = others if simulation.standby else []
            simulation.loop.call_soon(self._assign, worker, worker.assigned, follows, context=worker.process.context)

    async def _revoke(self, worker: Worker) -> None:
        """As the consumer does when a rebalance begins: let go, then commit the hints."""
        simulation = self._simulation
        task = simulation.loop.start(worker.process, worker.lanes.revoke())
        await asyncio.wait({task, worker.gone}, timeout=SESSION_S, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(100):
            if worker.silent and not worker.gone.done():
                await asyncio.sleep(SESSION_S / 100)  # it has let go, and cannot say so
        if task.done():
            task.result()  # an error would crash the consumer
        if not task.done() or worker.silent or worker.gone.done():
            self.expel(worker)
            return
        simulation.check_hints(worker)

    def _assign(self, worker: Worker, share: frozenset[LaneKey], follows: list[LaneKey]) -> None:
        """What a member is told, when it gets to hear it. Runs in the worker."""
        simulation = self._simulation
        if worker.gone.done():
            return
        simulation.note(f"{worker.name} has {sorted(share)}")
        worker.assignments.update(share)
        worker.lanes.assign(
            [(source.topic, number) for name, number in sorted(share) for source in simulation.plans[name].sources],
            [(simulation.plans[name].changelog, number) for name, number in follows],
        )


@dataclass
class _Log:
    """What a changelog partition says, whatever is compacted later."""

    last: dict[bytes, bytes | None] = field(default_factory=dict)
    states: dict[bytes, set[bytes]] = field(default_factory=dict)
    """Every value that a state had."""
    watermarks: dict[str, int] = field(default_factory=dict)
    """By topic."""


class Simulation:
    """A run."""

    def __init__(self, seed: int, misfortunes: Collection[str] = ()) -> None:
        """*misfortunes* are the kinds that may happen, all of them unless told otherwise."""
        self.seed = seed
        self._kinds = [(kind, act) for kind, act in self.acts if not misfortunes or kind in misfortunes]
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        self.loop = VirtualLoop(random.Random(seed + 1))  # noqa: S311
        self.broker = Broker(self.dice.choice([1, 2]))
        self.network = Network(self.loop, self.broker, random.Random(seed + 2), self.now_ms)  # noqa: S311
        self._machines = random.Random(seed + 5)  # noqa: S311
        self.standby = self._machines.random() < 0.5
        """Whether other workers follow each lane."""
        self.plans = {group.name: group for group in plan(followed if self.standby else topology, PARTITIONS)}
        self.lanes = [(name, number) for name in self.plans for number in range(PARTITIONS)]
        self.limits = self.dice.choice(LIMITS)
        self.sender = Sender(self.dice)
        self.workers: list[Worker] = []
        self.repeated = 0
        """Records that were written more than once."""
        self.happened: Counter[str] = Counter()
        """Misfortunes, by kind."""
        self.trace: deque[str] = deque(maxlen=80)
        self._digest = blake2b(digest_size=8)
        self._logs: dict[tuple[str, int], _Log] = {}
        self._sequences: dict[bytes, int] = {}
        """By incarnation: the last unit that is in its changelog."""
        self._broken: asyncio.Future[NoReturn] = self.loop.create_future()
        self._dead: list[asyncio.Task[Any]] = []
        self._started = 0
        self._planned = 0
        """Batches that are yet to be sent."""
        self._calm = False
        """Whether misfortune is over."""
        self.lasting = self._machines.random() < 0.5
        """Whether states are on disks."""
        self._disks: list[Disk] = []
        """Of machines on which no worker runs any more."""
        self._on_commit: dict[Process | None, Callable[[], object]] = {}
        """What happens when a process next sends a commit."""
        self._on_output: dict[Process | None, Callable[[], object]] = {}
        """What happens when a process next sends outputs."""
        self._on_fence: Callable[[Worker], object] | None = None
        """What happens to the next one that takes a lane."""
        self._on_taking: dict[Worker, Callable[[], object]] = {}
        """What happens when somebody takes a lane of a worker."""
        self.network.sending = self._sending
        self.network.carried = self._carried
        self.broker.appended.append(self._watch)
        for spec in required_topics(topology, PARTITIONS):
            if spec.purpose is not Purpose.registry:
                self.broker.create(
                    spec.name,
                    spec.partitions,
                    compact=spec.config.get("cleanup.policy") == "compact",
                    append_time=spec.config.get("message.timestamp.type") == "LogAppendTime",
                    max_bytes=int(spec.config.get("max.message.bytes", 1_048_588)),
                )
        self.changelogs = {group.changelog: group.name for group in self.plans.values()}

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
            self._kill(worker)
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
        misfortune = asyncio.ensure_future(self._misfortune())
        await self._send()
        await misfortune
        await self._settle()
        reading.cancel()
        self.check_outputs()
        self.check_states("at the end")
        self.check_shelves()
        ends = self._ends()
        await self._start_afresh()
        self.check_states("after a recovery from compacted changelogs")
        self.check_shelves()
        if ends != self._ends():
            self.fail("sent again", f"what was marked as sent was sent again: {ends} became {self._ends()}")
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
        if self.lasting:
            disk = self._disks.pop() if self._disks else Disk(self._machines)
        worker = Worker(f"w{self._started}", self.loop, disk)
        self._started += 1
        self.workers.append(worker)
        worker.clock.skew_ms = LATER_MS if self._calm else 0
        self.note(f"{worker.name} starts")
        started = self.loop.start(worker.process, worker.start([*self.plans.values()], self, self.limits))

        def join(task: "asyncio.Task[None]") -> None:
            task.result()
            worker.member = True
            self.group.ask()

        started.add_done_callback(join, context=None)

    def _begin_successor(self) -> None:
        if not self._calm:
            self.begin_worker()

    def _kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self._dead += self.loop.kill(worker.process)
        if worker.disk is not None:
            worker.disk.crash()
            self._disks.append(worker.disk)
        worker.gone.set_result(None)

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.silent]

    # -- misfortune ----------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        dice = self.dice
        left = dice.choice([5, 20, 60])
        while left:
            count = dice.randint(1, min(left, 12))
            left -= count
            self._send_batch(count)
            await asyncio.sleep(dice.choice([0.0, 0.01, 0.3]) * dice.random())

    def _send_late(self) -> None:
        self._planned -= 1
        self._send_batch(self.dice.randint(1, 3))

    def _send_batch(self, count: int) -> None:
        number = self.dice.randrange(PARTITIONS)
        batch = self.sender.batch(number, count, self.now_ms() - self.dice.choice([0, 5000]))
        answer = self.broker.append(f"{topology.namespace}.intents", number, batch, self.now_ms())
        assert answer.code == 0, answer
        self.sender.appended(number, answer.offset)

    async def _misfortune(self) -> None:
        dice = self.dice
        bad = dice.choice([0.0, 0.0, 0.02, 0.1])
        self.network.trouble = Trouble(*(bad * dice.random() for _ in range(5)))
        for _ in range(dice.choice([0, 2, 5, 9])):
            await asyncio.sleep(dice.choice([0.003, 0.03, 0.3, 2.0]) * dice.random())
            kind, act = dice.choice(self._kinds)
            workers = self._alive()
            if kind == "start" or workers:
                self.happened[kind] += 1
                act(self, dice.choice(workers) if workers else None)

    def _later(self, worker: Worker, what: Callable[[], None]) -> None:
        """Let something happen between two callbacks of a worker, soon or at once."""
        worker.process.fuse = self.dice.choice([0, 3, 30, 150]), what

    def _act_kill(self, worker: Worker) -> None:
        def die(victim: Worker = worker) -> None:
            if victim.gone.done() or self._calm:
                return
            self.note(f"{victim.name} is killed")
            self._kill(victim)
            self.network.at(self.dice.choice([0.1, SESSION_S]), self.group.expel, victim)
            self.network.at(self.dice.choice([0.05, 1.0, 15.0]), self._begin_successor)

        match self.dice.randrange(4):
            case 0:
                self._later(worker, die)
            case 1:
                self._on_commit[worker.process] = lambda: self.network.at(0.01 * self.dice.random(), die)
            case 2:
                # Whoever takes a lane next, while it recovers.
                self._on_fence = lambda taker: self.network.at(0.02 * self.dice.random(), die, taker)
                self.group.ask()
            case _:
                # They may or may not arrive, and nothing says that they were sent.
                self._on_output[worker.process] = lambda: self.network.at(0.02 * self.dice.random(), die)

    def _act_freeze(self, worker: Worker) -> None:
        """Stop a worker for a while: between any two callbacks, or with a commit in its hands."""
        seconds = self.dice.choice([0.01, 1.0, 14.0, 25.0])
        until_taken = self.dice.random() < 0.5

        def freeze() -> None:
            if worker.gone.done() or worker.process.frozen or self._calm:
                return
            self.note(f"{worker.name} is frozen for {seconds} s{', or until its lanes are taken' * until_taken}")
            worker.process.frozen = True
            thaw = self._hush(worker, seconds, lambda: setattr(worker.process, "frozen", False))
            if until_taken:
                # The moment that matters: its successor has the lease, and has not yet written under it.
                self._on_taking[worker] = lambda: self.network.at(
                    self.dice.choice([0.03, 0.3]) * self.dice.random(), thaw
                )

        if self.dice.random() < 0.5:
            self._later(worker, freeze)
        else:
            self._on_commit[worker.process] = freeze

    def _sending(self, request: Any) -> bool:
        """A worker is about to send a request; whether it must wait a turn, in which it may freeze."""
        if request.API_KEY != PRODUCE:
            return False
        commits = any(topic in self.changelogs for topic, _ in request.topics)
        trap = (self._on_commit if commits else self._on_output).pop(Process.current(), None)
        if trap is not None:
            trap()
        return trap is not None

    def _carried(self, request: Any) -> None:
        """A broker carries out a request."""
        if request.API_KEY == INIT_PRODUCER_ID:
            for worker, taken in list(self._on_taking.items()):
                if any(request.transactional_id == f"{self.plans[name].changelog}-{n}" for name, n in worker.assigned):
                    del self._on_taking[worker]
                    taken()

    def _act_cut(self, worker: Worker) -> None:
        """Take a worker's network away, perhaps with a commit on its way."""
        seconds = self.dice.choice([0.2, 2.0, 7.0, 15.0])
        regroup = self.dice.random() < 0.5

        def cut() -> None:
            if worker.gone.done() or worker.silent or self._calm:
                return
            self.note(f"{worker.name} is cut off for {seconds} s")
            self.network.cut(worker.process)
            self._hush(worker, seconds, lambda: self.network.mend(worker.process))
            if regroup:
                self.group.ask()

        if self.dice.random() < 0.5:
            cut()
        else:
            self._on_commit[worker.process] = lambda: self.network.at(0.005 * self.dice.random(), cut)

    def _hush(self, worker: Worker, seconds: float, end: Callable[[], None]) -> Callable[[], None]:
        """Let a worker not be heard for a while; returns what ends that early."""
        worker.silent += 1
        done = False

        def over() -> None:
            nonlocal done
            if done:
                return
            done = True
            if worker.gone.done():
                return  # it was killed meanwhile, perhaps in the end: then nothing is sent any more
            self.note(f"{worker.name} is back")
            end()
            worker.silent -= 1
            # Until it hears that it was given up it may meet its successor over new records.
            self.group.heard_of(worker)
            for _ in range(self.dice.choice([0, 2, 5])):
                self._planned += 1
                self.network.at(0.1 * self.dice.random(), self._send_late)

        if seconds > SESSION_S:
            self.network.at(SESSION_S, lambda: self.group.expel(worker) if not done else None)
        self.network.at(seconds, over)
        return over

    def _act_start(self, _: Worker | None) -> None:
        if len(self.workers) < 4:
            self.begin_worker()

    def _act_rebalance(self, _: Worker) -> None:
        self.group.ask()

    def _act_step_clock(self, worker: Worker) -> None:
        worker.clock.skew_ms = self.dice.choice([-3_600_000, -1000, 0, 500, 3_600_000])
        self.note(f"{worker.name} has a clock that is {worker.clock.skew_ms} ms off")

    def _act_compact(self, _: Worker) -> None:
        self.note("the changelogs are compacted")
        self._compact()

    def _compact(self) -> None:
        for name in self.changelogs:
            for partition in self.broker.topics[name].partitions:
                partition.compact(tombstones=self.dice.random() < 0.5 and self._pass_a_day())

    def _pass_a_day(self) -> bool:
        """Deletions are kept for a day. Whether it may be over: not while a lane is opened, which takes seconds."""
        if not all(worker.is_ready for worker in self.workers):
            return False
        for disk in (*self._disks, *(worker.disk for worker in self.workers)):
            for shelf in () if disk is None else disk.shelves.values():
                shelf.grow_older(DAY_MS)
        for worker in self.workers:
            for runner in worker.lanes._standbys.values():
                replica = runner._replica
                end = self.broker.topics[runner.plan.changelog].partitions[runner.partition].end
                if replica is not None and (worker.silent or replica.position < end):
                    replica._complete_ms -= DAY_MS  # it has not heard of its changelog all day
        return True

    def _act_move_leaders(self, _: Worker) -> None:
        self.note("leaders move")
        for topic in self.broker.topics.values():
            for partition in topic.partitions:
                partition.leader = self.dice.randrange(self.broker.nodes)

    acts: Final[list[tuple[str, Callable[..., None]]]] = [
        ("kill", _act_kill),
        ("kill", _act_kill),
        ("freeze", _act_freeze),
        ("freeze", _act_freeze),
        ("cut", _act_cut),
        ("start", _act_start),
        ("rebalance", _act_rebalance),
        ("step clock", _act_step_clock),
        ("compact", _act_compact),
        ("move leaders", _act_move_leaders),
    ]

    # -- the end of a run ----------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """No more misfortune; wait until all is done."""
        self.note("no more misfortune")
        self.network.trouble = Trouble()
        self._calm = True
        for worker in self.workers:
            worker.process.fuse = None
            worker.clock.skew_ms = LATER_MS
        end = self.loop.time() + SETTLE_S
        while True:
            if not self.workers:
                self.begin_worker()
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
        if self._planned:
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
            log = self._logs.get((group.changelog, number), _Log())
            for source in group.sources:
                position, end = (
                    log.watermarks.get(source.topic, 0),
                    self.broker.topics[source.topic].partitions[number].end,
                )
                if position < end:
                    return f"{source.topic}-{number} is decided up to {position} of {end}"
            unit = log.last.get(changelog.UNIT)
            sent = -1 if unit is None else changelog.UNIT_VALUE.unpack(unit)[1]
            for key, value in log.last.items():
                if key[1:2] == b"t" and value is not None:
                    return f"{group.changelog}-{number} has timers that wait"
                if key[1:2] == b"o" and value is not None and changelog.OUTBOX_KEY.unpack(key)[1] > sent:
                    return f"{group.changelog}-{number} has outputs that are not marked as sent"
        return ""

    async def _start_afresh(self) -> None:
        """Everybody ends, well or badly; the changelogs are compacted; a new worker recovers."""
        for worker in list(self.workers):
            if self.dice.random() < 0.5:
                await self.loop.start(worker.process, worker.lanes.stop(1.0))
            self.note(f"{worker.name} ends")
            self._kill(worker)
            worker.member = False
        self._compact()
        await self._settle()

    # -- promises ------------------------------------------------------------------------------------------------------

    def _watch(self, partition: Partition, batch: bytes) -> None:
        """Look at what a broker has just appended."""
        topic = partition.topic.name
        records = Chunk(batch, (), str(partition))
        if topic in self.changelogs:
            self.note(f"{partition} has {partition.end}")
            self._watch_changelog((self.changelogs[topic], partition.number), (topic, partition.number), records)
            return
        for record in records:
            raw = dict(record.headers).get("pf-source")
            if raw is None:
                continue
            self.note(f"{partition} has {raw.decode()}")
            incarnation, sequence, _ = raw.split(b":")
            if int(sequence) > self._sequences.get(incarnation, 0):
                self.fail(
                    "uncommitted output", f"{raw.decode()} is in {partition}, and its unit is not in the changelog"
                )

    def _watch_changelog(self, lane: LaneKey, at: tuple[str, int], records: Collection[Record] | Chunk) -> None:
        log = self._logs.setdefault(at, _Log())
        for record in records:
            key, value = record.key or b"", record.value
            log.last[key] = value
            if value is None:
                continue
            match key[1:2]:
                case b"s":
                    log.states.setdefault(key, set()).add(value[changelog.STATE_PREFIX.size :])
                case b"w":
                    _, start = changelog.parse_name(key, 2)
                    topic, _ = changelog.parse_name(key, start)
                    log.watermarks[topic] = changelog.WATERMARK_VALUE.unpack(value)[0]
                case b"f":
                    self._watch_fence(lane, orjson.loads(value)["worker"])
        header, unit = log.last.get(changelog.HEADER), log.last.get(changelog.UNIT)
        if header is not None and unit is not None:
            incarnation = orjson.loads(header)["incarnation"].encode()
            self._sequences[incarnation] = changelog.UNIT_VALUE.unpack(unit)[0]

    def _watch_fence(self, lane: LaneKey, name: str) -> None:
        for worker in self.workers:
            if worker.name == name:
                if self._on_fence is not None:
                    happens, self._on_fence = self._on_fence, None
                    happens(worker)
                worker.fences[lane] += 1
                if worker.fences[lane] > worker.assignments[lane]:
                    self.fail("unassigned lease", f"{name} took {lane} although the group did not give it")

    def check_hints(self, worker: Worker) -> None:
        """What is committed to the group is in the changelogs."""
        for (topic, number), offset in worker.lanes.hints.items():
            group = next(group for group in self.plans.values() if any(one.topic == topic for one in group.sources))
            log = self._logs.get((group.changelog, number), _Log())
            if offset > log.watermarks.get(topic, 0):
                self.fail("uncommitted position", f"{offset} of {topic}-{number}; durable: {log.watermarks.get(topic)}")

    async def _read_states(self) -> None:
        """Read as a query would, now and then: only what is in the changelogs may be seen."""
        dice = random.Random(self.seed + 4)  # noqa: S311
        while True:
            await asyncio.sleep(0.2 * dice.random())
            for worker in self._alive():
                if worker.member:
                    self.check_hints(worker)
                    for runner in worker.lanes.runners:
                        self._check_read(runner.plan, runner.partition, runner.lane.stored)

    def _check_read(self, group: GroupPlan, number: int, stored: Callable[[str, bytes], bytes | None]) -> None:
        log = self._logs.get((group.changelog, number), _Log())
        for reactor in group.reactors:
            expected = self.sender.expected
            for key in expected.boxes if reactor.spec.id == "boxes" else expected.rooms:
                value = stored(reactor.spec.id, key.encode())
                known = log.states.get(changelog.state_key(reactor.prefix, key.encode()), ())
                if value is not None and value not in known:
                    self.fail("uncommitted read", f"{reactor.spec.id} {key} is {value!r}, which is in no changelog")

    def check_states(self, when: str) -> None:
        """Each state is the fold of what was sent."""
        found: dict[tuple[str, str], list[int]] = {}
        rung: dict[str, Counter[int]] = {}
        expected = self.sender.expected
        for worker in self.workers:
            for runner in worker.lanes.runners:
                for reactor in runner.plan.reactors:
                    for key in expected.boxes if reactor.spec.id == "boxes" else expected.rooms:
                        raw = runner.lane.stored(reactor.spec.id, key.encode())
                        if raw is not None:
                            if (reactor.spec.id, key) in found:
                                self.fail("wrong state", f"{reactor.spec.id} {key} lives twice")
                            state = orjson.loads(raw)
                            found[reactor.spec.id, key] = state["numbers"]
                            if state.get("rung"):
                                rung[key] = Counter(state["rung"])
        boxes = {key: numbers for (reactor, key), numbers in found.items() if reactor == "boxes"}
        rooms = {key: numbers for (reactor, key), numbers in found.items() if reactor == "rooms"}
        self._same("wrong state", f"boxes {when}", boxes, expected.boxes)
        self._same("wrong state", f"timers {when}", rung, expected.rung)
        self._same("wrong state", f"rooms {when}", {key: Counter(room) for key, room in rooms.items()}, expected.rooms)
        for room, numbers in rooms.items():
            for box, wanted in expected.boxes.items():
                came = [number for number in numbers if number in set(wanted)]
                if came != [number for number in wanted if number in set(came)]:
                    self.fail("wrong order", f"in room {room} from box {box}: {came}")

    def check_shelves(self) -> None:
        """What is on the disk of a worker is what the changelogs of its lanes say, and nothing else."""
        for worker in self.workers:
            shelves = {} if worker.disk is None else worker.disk.shelves
            for runner in worker.lanes.runners if shelves else ():
                at = runner.plan.changelog, runner.partition
                last = {key: value for key, value in self._logs.get(at, _Log()).last.items() if value is not None}
                found = {**shelves[at].values}
                for values in (last, found):
                    values.pop(changelog.FENCE, None)  # of which the last one may be from after its recovery
                self._same("wrong shelf", f"the shelf of {at}", found, last)

    def check_outputs(self) -> None:
        """Every output is there, once by its ``pf-source``; a repeat is equal to the first."""
        expected = self.sender.expected
        for topic, reader in (("told", "numbers told"), ("heard", "numbers heard")):
            numbers = [orjson.loads(record.value or b"")["number"] for record in self._once(f"sim.{topic}")]
            self._same("wrong outputs", reader, Counter(numbers), expected.told)
        rung = Counter(orjson.loads(record.value or b"")["number"] for record in self._once("sim.rung"))
        self._same("wrong outputs", "numbers rung", rung, sum(expected.rung.values(), Counter()))
        replies: Counter[tuple[int | None, str]] = Counter()
        for record in self._once("sim.replies"):
            code = dict(record.headers).get("pf-error-code") or b""
            replies[orjson.loads(record.value or b"").get("number"), code.decode()] += 1
        self._same("wrong outputs", "replies", replies, expected.replies)
        dead: Counter[tuple[tuple[int, int], str]] = Counter()
        for record in self._once("sim.intents.dlq"):
            headers = {name: (value or b"").decode() for name, value in record.headers}
            at = int(headers["__streams.errors.partition"]), int(headers["__streams.errors.offset"])
            dead[at, headers["pf-error-code"]] += 1
        self._same("wrong outputs", "dead letters", dead, expected.dead)
        if list(self._once("sim.moves.dlq")):
            self.fail("wrong outputs", "an internal record became a dead letter")

    def _once(self, topic: str) -> list[Record]:
        """The records of a topic without repeats."""
        first: dict[bytes, tuple[Any, Record]] = {}
        for partition in self.broker.topics[topic].partitions:
            for record in partition.records():
                origin = dict(record.headers)["pf-source"] or b""
                content = partition.number, record.key, record.value, tuple(record.headers)
                if first.setdefault(origin, (content, record))[0] != content:
                    self.fail("changed repeat", f"{origin!r} in {topic} was {first[origin]} and came as {content}")
                self.repeated += first[origin][1] is not record
        return [record for _, record in first.values()]

    def _ends(self) -> dict[str, int]:
        return {
            str(partition): partition.end
            for topic in self.broker.topics.values()
            if topic.name.startswith(f"{topology.namespace}.")
            for partition in topic.partitions
        }

    def _same(self, kind: str, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.fail(kind, f"{what}: {found} instead of {expected}")
