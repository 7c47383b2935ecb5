"""Sinks over a model of Kafka and of a group, in virtual time: crashes between any two callbacks, rebalances, bad connections, and
consumers that are slow, raise, hang or swallow their cancellation.

Whatever happens: what is committed was handed over or is a dead letter, all of it is in the end, the first time in the order of its
partition; what an upstream lane writes twice is not, unless the first was dropped; and a buffer never holds more than its bound.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple, get_args

import aiokafka.errors as kafka_errors
import pytest
from aiokafka.protocol.commit import OffsetFetchRequest

from pf_stream import PUBLIC, Buffer, Context, Delivered, Intent, Key, Reactor, RetryInPlace, Sink, State, Topology, on
from pf_stream.core.sink import sink_plans
from pf_stream.engine import sink_runner
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.reader import Reader
from pf_stream.engine.sinks import Sinks
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder, stamp
from pf_stream.kafka.link import Partition
from pf_stream.kafka.offsets import Committed
from pf_stream.model import Emit, Strategy
from tests.simulation.broker import Broker
from tests.simulation.network import Client, Network, Trouble
from tests.simulation.virtual import Process, VirtualLoop

SEEDS = range(14)
PARTITIONS = 2
BUFFER = 12
BATCH = 5
ATTEMPTS = 3
LARGEST = 1_000
"""Bytes of a record, by far."""
LOSSLESS = ("block", "throttle", "buffer", "adaptive")
EPOCH_MS = 1_767_225_600_000


class Came(Intent, name="came", requires=PUBLIC):
    """Something came."""

    key: Annotated[str, Key]


class Kept(Intent, name="kept", topic="kept", requires=PUBLIC):
    """It goes to the sink."""

    key: Annotated[str, Key]
    bad: bool


class Nothing(State):
    """None."""


class Pass(Reactor[Nothing], id="pass"):
    """Not run here: the model writes what it would."""

    @on
    def came(self, intent: Came, state: Nothing, ctx: Context) -> Emit:
        return Emit(Kept(key=intent.key, bad=False))


class Clock:
    """The virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return EPOCH_MS + round(self._loop.time() * 1000)


class Group:
    """Who has which partition, and what is committed. Only an owner may commit, as of when that arrives."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.owners: dict[Partition, Worker] = {}
        self.offsets: dict[Partition, Committed] = {}

    async def commit(self, worker: "Worker", progress: Mapping[Partition, Committed]) -> bool:
        """Carry a commit to the coordinator and its answer back, one of which may be lost."""
        world = self._world
        arrived: asyncio.Future[bool] = world.loop.create_future()
        lost, unanswered = (world.dice.random() < world.network.trouble.lost for _ in range(2))

        def arrive() -> None:
            if lost:
                return
            for at, done in progress.items():
                if self.owners.get(at) is worker:
                    world.check_commit(at, done)
                    self.offsets[at] = done
            if not unanswered and not arrived.done():
                arrived.set_result(True)

        world.network.at(world.dice.random() * 0.02, arrive)
        try:
            async with asyncio.timeout(2):
                return await arrived
        except TimeoutError:
            return False


class GroupClient(Client):
    """A client that can ask for committed offsets too."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.network)
        self._world = world

    async def send(self, node: int, request: Any, *, group: object = None) -> Any:
        if not isinstance(request, OffsetFetchRequest):
            return await super().send(node, request, group=group)
        world = self._world
        await asyncio.sleep(world.dice.random() * 0.01)
        if world.dice.random() < world.network.trouble.lost:
            raise kafka_errors.KafkaConnectionError("lost")
        rows = {
            number: world.group.offsets.get((world.plan.topic, number), Committed(-1, ""))
            for number in range(PARTITIONS)
        }
        return SimpleNamespace(topics=[(world.plan.topic, [(number, *at, 0) for number, at in rows.items()])])


class Worker:
    """A process with sinks."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.process: Process = world.loop.process(name)
        self.sinks: Sinks | None = None

    async def begin(self) -> None:
        """Connect; nothing is assigned yet."""
        world = self.world
        links = [GroupClient(world).link() for _ in range(3)]
        for link in links:
            await link.watch([world.plan.topic, world.plan.dead_letters])
        control, reading, sending = links
        reader = Reader(reading, gather=True)
        self._reading = asyncio.create_task(reader.run())
        sinks = Sinks(
            [world.plan],
            control=control,
            reader=reader,
            outputs=Appender(sending),
            metrics=Metrics(world.topology),
            clock=world.clock,
            commit=lambda progress: world.group.commit(self, progress),
            folder=None,
        )
        self._committing = asyncio.create_task(sinks.run())
        self.sinks = sinks

    @property
    def runners(self) -> list[sink_runner.SinkRunner]:
        return [] if self.sinks is None else list(self.sinks._runners.values())


class World:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        self.loop = VirtualLoop(self.dice)
        self.clock = Clock(self.loop)
        strategies: Sequence[Strategy] = get_args(Strategy)
        self.strategy = strategies[seed % len(strategies)]
        buffer = Buffer(
            records=BUFFER, strategy=self.strategy, rate=200, min_rate=50, disk=6_000, slow_s=0.2, mark=0.5, keep=3
        )
        sink = Sink(
            "model",
            of=Kept,
            to=self.consume,
            buffer=buffer,
            batch=BATCH,
            on_error=RetryInPlace(ATTEMPTS, backoff_s=0.05),
        )
        self.topology = Topology("model", [Pass], internal=["kept"], emits=[Kept], partitions=PARTITIONS, sinks=[sink])
        (self.plan,) = sink_plans(self.topology, PARTITIONS)
        self.broker = Broker(2)
        self.broker.create(self.plan.topic, PARTITIONS)
        self.broker.create(self.plan.dead_letters, PARTITIONS)
        self.network = Network(self.loop, self.broker, self.dice, self.clock.now_ms)
        self.group = Group(self)
        self.workers: list[Worker] = []
        self.dead: list[asyncio.Task[Any]] = []
        self.lives = 0
        self.kills = 0
        self.calm = False
        self.first: dict[Partition, dict[int, bool]] = {(self.plan.topic, number): {} for number in range(PARTITIONS)}
        """Offsets of what was written for the first time, by partition, and whether no consumer takes it."""
        self.handed: dict[Partition, dict[int, int]] = {at: {} for at in self.first}
        """How often each offset was handed over, in the order of the first time."""
        self.refused: Counter[tuple[Partition, int]] = Counter()
        """How often a record was refused that came alone."""
        self.faults: list[str] = []
        """What a consumer has seen; what it raises would be taken for its own failure."""
        self.sequence = 0
        self.written: list[tuple[int, bool, bytes]] = []

    # -- what the sinks meet -------------------------------------------------------------------------------------------

    async def consume(self, batch: Sequence[Delivered[Kept]]) -> None:
        """Take a batch, or raise."""
        try:
            await self._consume(batch)
        except Exception:
            if len(batch) == 1:
                self.refused[batch[0].position[:2], batch[0].position[2]] += 1
            raise

    async def _consume(self, batch: Sequence[Delivered[Kept]]) -> None:
        """In whatever manner."""
        self.check_memory()
        places = [one.position[2] for one in batch]
        if len(batch) > BATCH or places != sorted(set(places)):
            self.faults.append(f"a batch of {places}")
        dice = self.dice
        mood = 1.0 if self.calm else dice.random()
        await asyncio.sleep(dice.choice([0, 0.01, 0.3]) * dice.random())
        if mood < 0.05:
            raise ConnectionError("away")
        if mood < 0.07:
            await asyncio.sleep(30)
        if mood < 0.08:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                await asyncio.sleep(3)  # it will not end
            raise ConnectionError("late")
        if any(one.intent.bad for one in batch):
            raise ValueError("a bad one")
        for one in batch:
            at, offset = one.position[:2], one.position[2]
            # Where the first was dropped, the other may come: the next worker decides anew, and knows of none.
            if offset not in self.first[at] and self.strategy in LOSSLESS:
                self.faults.append(f"{one.source} was handed over before, as another record")
            self.handed[at][offset] = self.handed[at].get(offset, 0) + 1
        await asyncio.sleep(dice.choice([0, 0.01, 0.3]) * dice.random())

    def write(self) -> None:
        """Write a batch of records, as lanes do, which write some of the last ones again after a crash."""
        dice, builder = self.dice, BatchBuilder(1 << 20, compress=False)
        number = dice.randrange(PARTITIONS)
        at = self.plan.topic, number
        partition = self.broker.partition(*at)
        assert partition is not None
        rows: list[tuple[bool, bytes, bool]] = []
        if dice.random() < 0.2:
            rows += [(bad, source, False) for place, bad, source in self.written[-6:] if place == number]
        for _ in range(dice.choice([1, 3, 20])):
            self.sequence += 1
            rows.append((dice.random() < 0.02, b"up%d:%d:0" % (number, self.sequence), True))
        for index, (bad, source, new) in enumerate(rows):
            value = self.plan.spec.encode(Kept(key=f"k{number}", bad=bad))
            headers = [("ce_type", b"kept.v1"), ("pf-source", source)]
            builder.append(self.clock.now_ms(), b"k%d" % number, value, headers)
            if new:
                self.first[at][partition.end + index] = bad
                self.written.append((number, bad, source))
        self.broker.append(*at, stamp(builder.build(), -1, -1, -1), self.clock.now_ms())

    # -- what must hold ------------------------------------------------------------------------------------------------

    def buried(self, at: Partition) -> set[int]:
        """Offsets of which there is a dead letter."""
        partition = self.broker.partition(self.plan.dead_letters, at[1])
        assert partition is not None
        return {int(dict(record.headers)["__streams.errors.offset"] or b"") for record in partition.records()}

    def check_commit(self, at: Partition, done: Committed) -> None:
        """Nothing is passed over by a commit."""
        if self.strategy in LOSSLESS:
            missing = {offset for offset in self.first[at] if offset < done.offset}
            missing -= self.handed[at].keys() | self.buried(at)
            if missing:
                self.faults.append(f"{done.offset} of {at} is committed, and {sorted(missing)} went nowhere")

    def check_memory(self) -> None:
        for worker in self.workers:
            for runner in worker.runners:
                queue = runner._drain.queue
                on_disk = len(queue) - len(queue._records)
                bounded = len(queue._records) <= BUFFER and queue.spilled < 6_000 + LARGEST
                if not bounded or queue.size > BUFFER * LARGEST or (on_disk and self.strategy != "buffer"):
                    self.faults.append(
                        f"{runner} has {len(queue)} records of {queue.size} bytes, and {queue.spilled} on disk"
                    )

    # -- the course of it ----------------------------------------------------------------------------------------------

    async def _rebalance(self) -> None:
        """Every worker lets go, and the partitions are divided anew."""
        tasks = [
            self.loop.start(worker.process, worker.sinks.revoke())
            for worker in self.workers
            if worker.sinks is not None
        ]
        if tasks:
            await asyncio.wait(tasks, timeout=10)  # of one that is killed meanwhile nothing comes
        for task in tasks:
            if task.done():
                task.result()
        able = [worker for worker in self.workers if worker.sinks is not None]
        self.group.owners = {at: self.dice.choice(able) for at in self.first} if able else {}
        for worker in able:
            assert worker.sinks is not None
            mine = [at for at, owner in self.group.owners.items() if owner is worker]
            worker.process.context.run(worker.sinks.assign, mine)

    def _kill(self, worker: Worker) -> None:
        if worker in self.workers and not self.calm:
            self.kills += 1
            self.workers.remove(worker)
            self.dead += self.loop.kill(worker.process)

    async def _start(self) -> None:
        self.lives += 1
        worker = Worker(self, f"w{self.lives}")
        self.workers.append(worker)
        await asyncio.wait([self.loop.start(worker.process, worker.begin())], timeout=5)

    async def _misfortune(self) -> None:
        dice = self.dice
        for _ in range(8):
            await asyncio.sleep(dice.random() * 2)
            match dice.choice(["kill", "kill", "start", "network", "rebalance"]):
                case "kill" if self.workers:
                    victim = dice.choice(self.workers)
                    victim.process.fuse = dice.choice([0, 3, 30, 150]), lambda victim=victim: self._kill(victim)
                    await asyncio.sleep(0.2)
                case "network":
                    self.network.trouble = dice.choice([Trouble(), Trouble(lost=0.05, unanswered=0.05, slow=0.1)])
                    continue
                case "start" if len(self.workers) < 3:
                    await self._start()
            if not self.workers:
                await self._start()
            await self._rebalance()

    async def _live(self) -> None:
        await self._start()
        await self._rebalance()
        misfortune = asyncio.create_task(self._misfortune())
        while not misfortune.done():
            self.write()
            self.check_memory()
            await asyncio.sleep(self.dice.random() * 0.2)
        misfortune.result()
        self.calm = True
        self.network.trouble = Trouble()
        for worker in self.workers:
            worker.process.fuse = None
        if not self.workers:
            await self._start()
        await self._rebalance()
        ends = {at: self.broker.partition(*at) for at in self.first}
        until = self.loop.time() + 600
        while any(
            end is None or self.group.offsets.get(at, Committed(0, "")).offset < end.end for at, end in ends.items()
        ):
            assert self.loop.time() < until, f"stuck at {self.group.offsets}; {[w.runners for w in self.workers]}"
            await asyncio.sleep(0.2)

    def run(self) -> None:
        """All of it, and what must hold in the end."""
        try:
            self.loop.run_until_complete(self._live())
            assert not self.faults + self.loop.faults
            for at in self.first:
                got, buried = list(self.handed[at]), self.buried(at)
                hasty = {offset for offset in buried if self.refused[at, offset] < ATTEMPTS}
                assert not hasty, (
                    f"dead letters of {at} that were not refused alone as often as declared: {sorted(hasty)}"
                )
                if self.strategy in LOSSLESS:  # where something was dropped, the next worker may decide otherwise
                    assert got == sorted(got), "the first time all comes in its order"
                    assert self.first[at].keys() == set(got) | buried
        finally:
            self.calm = True
            self.network.close()
            self.loop.bury(self.dead)
            self.loop.close()


class Run(NamedTuple):
    """What is remembered of a run."""

    kills: int
    repeated: int
    buried: int


@cache
def ran(seed: int) -> Run:
    """Run a seed, once for all tests."""
    world = World(seed)
    world.run()
    repeated = sum(count > 1 for handed in world.handed.values() for count in handed.values())
    return Run(world.kills, repeated, sum(len(world.buried(at)) for at in world.first))


@pytest.mark.parametrize("seed", SEEDS)
def test_sinks_keep_what_they_promise(seed: int) -> None:
    ran(seed)


def test_the_seeds_reach_what_they_are_for() -> None:
    runs = [ran(seed) for seed in SEEDS[:7]]
    assert sum(run.kills for run in runs) > 5
    assert sum(run.repeated for run in runs) > 10, "what the consumer had in hand came again"
    assert sum(run.buried for run in runs) > 0
