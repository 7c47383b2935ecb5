"""The committer in memory keeps the contract of all committers."""

import random
from typing import Any

import pytest

from pf_stream.clock import VirtualClock
from pf_stream.core import CommitUnit, Lane
from pf_stream.model.topology import Guarantee
from pf_stream.testing._commit import MemoryChangelog, MemoryCommitter
from pf_stream.testing._topics import MemoryTopics
from tests.commit_contract import CommitContract, Life, Seen, begin, new_lane, the_plan


class MemorySystem:
    def __init__(self, guarantee: Guarantee) -> None:
        self.guarantee = guarantee
        self.plan = the_plan("memory", guarantee)
        self.changelog = MemoryChangelog(self.plan.changelog, 0)
        self.topics = MemoryTopics(1, VirtualClock())

    async def open(self, *, sending: bool = True) -> Life:
        return MemoryLife(self, sending=sending)

    async def seen(self) -> Seen:
        outputs = [(record.value, dict(record.headers)) for record in self.topics.written.get("memory.told", ())]
        return Seen.of(self.changelog.records, outputs)


class MemoryLife:
    def __init__(self, system: MemorySystem, *, sending: bool) -> None:
        self.lane: Lane[Any] = new_lane(system.plan)
        self._sending = sending
        self._committer = MemoryCommitter(
            system.changelog, system.topics, lambda narrowing: None, system.guarantee, self.lane.sent
        )
        begin(self.lane, system.changelog.records[: self._committer.fence])
        self._committer.begin(self.lane.unsent())

    async def commit(self, unit: CommitUnit[Any]) -> None:
        self._committer.commit(unit)

    async def sent(self) -> None:
        while self._sending and self._committer.backlog:
            self._committer.send(random.Random(0))  # noqa: S311 - any order will do

    async def end(self) -> None:
        """A life in memory has nothing to stop."""


@pytest.fixture(params=["effectively_once", "transactional"])
def system(request: pytest.FixtureRequest) -> MemorySystem:
    return MemorySystem(request.param)


class TestMemory(CommitContract):
    pass
