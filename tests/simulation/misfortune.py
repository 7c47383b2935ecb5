"""Misfortune: what the dice let happen to workers, their network, and what they find when they come back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.group import SESSION_S
from tests.simulation.network import INIT_PRODUCER_ID, PRODUCE, Trouble
from tests.simulation.virtual import Process
from tests.simulation.worker import Worker

if TYPE_CHECKING:
    from tests.simulation.world import Simulation

__all__ = ["Misfortune"]

DAY_MS: Final = 86_400_000


class Misfortune:
    """All that goes wrong in a run."""

    def __init__(self, simulation: "Simulation", kinds: Collection[str]) -> None:
        """*kinds* are those that may happen, all of them if empty."""
        self._simulation = simulation
        self._dice = simulation.dice
        self._network = simulation.network
        self._kinds = [(kind, act) for kind, act in self.acts if not kinds or kind in kinds]
        self.happened: Counter[str] = Counter()
        """By kind."""
        self._on_commit: dict[Process | None, Callable[[], object]] = {}
        """What happens when a process next sends a commit."""
        self._on_output: dict[Process | None, Callable[[], object]] = {}
        """What happens when a process next sends outputs."""
        self._on_fence: Callable[[Worker], object] | None = None
        """What happens to the next one that takes a lane."""
        self._on_taking: dict[Worker, Callable[[], object]] = {}
        """What happens when somebody takes a lane of a worker."""
        self._network.sending = self._sending
        self._network.carried = self._carried

    async def run(self) -> None:
        """Let it happen."""
        simulation, dice = self._simulation, self._dice
        bad = dice.choice([0.0, 0.0, 0.02, 0.1])
        self._network.trouble = Trouble(*(bad * dice.random() for _ in range(5)))
        for _ in range(dice.choice([0, 2, 5, 9])):
            await asyncio.sleep(dice.choice([0.003, 0.03, 0.3, 2.0]) * dice.random())
            kind, act = dice.choice(self._kinds)
            workers = simulation.alive()
            if kind == "start" or workers:
                self.happened[kind] += 1
                act(self, dice.choice(workers) if workers else None)

    def _later(self, worker: Worker, what: Callable[[], None]) -> None:
        """Let something happen between two callbacks of a worker, soon or at once."""
        worker.process.fuse = self._dice.choice([0, 3, 30, 150]), what

    def _act_kill(self, worker: Worker) -> None:
        def die(victim: Worker = worker) -> None:
            if victim.gone.done() or self._simulation.calm:
                return
            self._simulation.note(f"{victim.name} is killed")
            self._simulation.kill(victim)
            self._network.at(self._dice.choice([0.1, SESSION_S]), self._simulation.group.expel, victim)
            self._network.at(self._dice.choice([0.05, 1.0, 15.0]), self._simulation.begin_successor)

        match self._dice.randrange(4):
            case 0:
                self._later(worker, die)
            case 1:
                self._on_commit[worker.process] = lambda: self._network.at(0.01 * self._dice.random(), die)
            case 2:
                # Whoever takes a lane next, while it recovers.
                self._on_fence = lambda taker: self._network.at(0.02 * self._dice.random(), die, taker)
                self._simulation.group.ask()
            case _:
                # They may or may not arrive, and nothing says that they were sent.
                self._on_output[worker.process] = lambda: self._network.at(0.02 * self._dice.random(), die)

    def _act_freeze(self, worker: Worker) -> None:
        """Stop a worker for a while: between any two callbacks, or with a commit in its hands."""
        seconds = self._dice.choice([0.01, 1.0, 14.0, 25.0])
        until_taken = self._dice.random() < 0.5

        def freeze() -> None:
            if worker.gone.done() or worker.process.frozen or self._simulation.calm:
                return
            self._simulation.note(
                f"{worker.name} is frozen for {seconds} s{', or until its lanes are taken' * until_taken}"
            )
            worker.process.frozen = True
            thaw = self._hush(worker, seconds, lambda: setattr(worker.process, "frozen", False))
            if until_taken:
                # The moment that matters: its successor has the lease, and has not yet written under it.
                self._on_taking[worker] = lambda: self._network.at(
                    self._dice.choice([0.03, 0.3]) * self._dice.random(), thaw
                )

        if self._dice.random() < 0.5:
            self._later(worker, freeze)
        else:
            self._on_commit[worker.process] = freeze

    def _sending(self, request: Any) -> bool:
        """A worker is about to send a request; whether it must wait a turn, in which it may freeze."""
        if request.API_KEY != PRODUCE:
            return False
        commits = any(topic in self._simulation.plan_of for topic, _ in request.topics)
        trap = (self._on_commit if commits else self._on_output).pop(Process.current(), None)
        if trap is not None:
            trap()
        return trap is not None

    def _carried(self, request: Any) -> None:
        """A broker carries out a request."""
        if request.API_KEY == INIT_PRODUCER_ID:
            for worker, taken in list(self._on_taking.items()):
                if any(
                    request.transactional_id == f"{self._simulation.plans[name].changelog}-{n}"
                    for name, n in worker.assigned
                ):
                    del self._on_taking[worker]
                    taken()

    def fenced(self, taker: Worker) -> None:
        """Hear that somebody has taken a lane."""
        if self._on_fence is not None:
            happens, self._on_fence = self._on_fence, None
            happens(taker)

    def _act_cut(self, worker: Worker) -> None:
        """Take a worker's network away, perhaps with a commit on its way."""
        seconds = self._dice.choice([0.2, 2.0, 7.0, 15.0])
        regroup = self._dice.random() < 0.5

        def cut() -> None:
            if worker.gone.done() or worker.silent or self._simulation.calm:
                return
            self._simulation.note(f"{worker.name} is cut off for {seconds} s")
            self._network.cut(worker.process)
            self._hush(worker, seconds, lambda: self._network.mend(worker.process))
            if regroup:
                self._simulation.group.ask()

        if self._dice.random() < 0.5:
            cut()
        else:
            self._on_commit[worker.process] = lambda: self._network.at(0.005 * self._dice.random(), cut)

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
            self._simulation.note(f"{worker.name} is back")
            end()
            worker.silent -= 1
            # Until it hears that it was given up it may meet its successor over new records.
            self._simulation.group.heard_of(worker)
            for _ in range(self._dice.choice([0, 2, 5])):
                self._simulation.planned += 1
                self._network.at(0.1 * self._dice.random(), self._simulation.send_late)

        if seconds > SESSION_S:
            self._network.at(SESSION_S, lambda: self._simulation.group.expel(worker) if not done else None)
        self._network.at(seconds, over)
        return over

    def _act_start(self, _: Worker | None) -> None:
        if len(self._simulation.workers) < 4:
            self._simulation.begin_worker()

    def _act_rebalance(self, _: Worker) -> None:
        self._simulation.group.ask()

    def _act_step_clock(self, worker: Worker) -> None:
        worker.clock.skew_ms = self._dice.choice([-3_600_000, -1000, 0, 500, 3_600_000])
        self._simulation.note(f"{worker.name} has a clock that is {worker.clock.skew_ms} ms off")

    def _act_compact(self, _: Worker) -> None:
        self._simulation.note("the changelogs are compacted")
        self.compact()

    def compact(self) -> None:
        for name in self._simulation.plan_of:
            for partition in self._simulation.broker.topics[name].partitions:
                partition.compact(tombstones=self._dice.random() < 0.5 and self._pass_a_day())

    def _pass_a_day(self) -> bool:
        """Deletions are kept for a day. Whether it may be over: not while a lane is opened, which takes seconds."""
        if not all(worker.is_ready for worker in self._simulation.workers):
            return False
        for disk in (*self._simulation.disks, *(worker.disk for worker in self._simulation.workers)):
            for shelf in () if disk is None else disk.shelves.values():
                shelf.grow_older(DAY_MS)
        for worker in self._simulation.workers:
            for runner in worker.lanes._standbys.values():
                replica = runner._replica
                end = self._simulation.broker.topics[runner.plan.changelog].partitions[runner.partition].end
                if replica is not None and (worker.silent or replica.position < end):
                    replica._complete_ms -= DAY_MS  # it has not heard of its changelog all day
        return True

    def _act_move_leaders(self, _: Worker) -> None:
        self._simulation.note("leaders move")
        for topic in self._simulation.broker.topics.values():
            for partition in topic.partitions:
                partition.leader = self._dice.randrange(self._simulation.broker.nodes)

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
