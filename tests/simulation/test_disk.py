"""The model of a disk keeps the contract of all shelves that outlive their process."""

import asyncio
import random

import pytest

from pf_stream.engine.depot import LastingShelf, Note
from tests.shelf_contract import TOPIC, ShelfContract, state
from tests.simulation.disk import Disk

LANE = "log", 0


class ModelPlace:
    def __init__(self) -> None:
        self.disk = Disk(random.Random(0))  # noqa: S311 - to be repeated

    async def open(self) -> LastingShelf:
        return await self.disk.shelf(LANE)

    async def close(self) -> None:
        await self.disk.close()
        self.disk.crash()

    def kill(self) -> None:
        self.disk.crash()


@pytest.fixture
def place() -> ModelPlace:
    return ModelPlace()


class TestModel(ShelfContract):
    def test_it_grows_older(self, place: ModelPlace) -> None:
        async def work() -> None:
            shelf = await place.disk.shelf(LANE)
            await shelf.clear(TOPIC)
            shelf.at_ms = 100
            shelf.put([(state("a"), b"1")], 1)
            shelf.write()
            shelf.at_ms = 200
            shelf.put([], 2)
            shelf.grow_older(50)
            assert shelf.note == Note(TOPIC, 2, 150)
            assert [shelf.reopened(kept).note for kept in (0, 1)] == [Note(TOPIC, 1, 50), Note(TOPIC, 2, 150)]

        asyncio.run(work())
