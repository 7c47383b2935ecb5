"""The consumer group, of which only what it decides is modelled: who is a member, when all are to let go, and who gets which lane."""

import asyncio
from typing import TYPE_CHECKING, Final

from tests.simulation.worker import LaneKey, Worker

if TYPE_CHECKING:
    from tests.simulation.world import Simulation

__all__ = ["SESSION_S", "Group"]

SESSION_S: Final = 10.0
"""How long the group waits for a member that is silent."""


class Group:
    """The group: eager rebalances, as aiokafka has them."""

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
