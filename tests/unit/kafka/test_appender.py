"""Appends that fail in a way that nobody foresaw."""

import asyncio
from typing import Any, cast

import pytest

from pf_stream.kafka.appender import Appender
from pf_stream.kafka.errors import AppendError
from pf_stream.kafka.link import Link


class Broken:
    """A link with a fault of its own: no broker can be made to cause one."""

    def __init__(self, knows_leader: bool) -> None:
        self._knows_leader = knows_leader

    def leader(self, partition: object) -> int | None:
        return 1 if self._knows_leader else None

    async def watch(self, topics: object) -> None:
        raise ValueError("out of order")

    async def produce(self, *_: Any) -> None:
        raise ValueError("out of order")


@pytest.mark.parametrize("knows_leader", [True, False])
def test_who_waits_for_an_append_hears_of_it(knows_leader: bool) -> None:
    """For ever was how long they waited before."""

    async def work() -> None:
        appender = Appender(cast("Link", Broken(knows_leader)))
        first, second = (appender.submit(self, ("t", 0), b"batch") for self in (1, 2))
        for done in (first, second):
            with pytest.raises(AppendError, match="out of order"):
                await asyncio.wait_for(done, 5)
        with pytest.raises(AppendError, match="out of order"):
            await asyncio.wait_for(appender.submit(3, ("t", 0), b"batch"), 5)
        await appender.close()

    asyncio.run(work())
