"""The group's offsets, which are hints."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

from faust.types import TP
from mode.utils.logging import CompositeLogger

from pf_stream.engine.app import LaneConsumer

AT = TP("t", 0)


class Cut(LaneConsumer):
    """A consumer whose broker takes what is committed, or does not."""

    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self._committed_offset = defaultdict(lambda: None)
        self.in_transaction = False
        self.log = CompositeLogger(logging.getLogger(__name__))
        self.lanes: Any = SimpleNamespace(hints={AT: 5})
        self.app: Any = SimpleNamespace(producer=SimpleNamespace(flush=AsyncMock()), tables=Mock(), monitor=Mock())

    def assignment(self) -> set[TP]:
        return {AT}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return self.takes


def test_an_offset_that_the_broker_did_not_take_is_committed_again() -> None:
    async def left(*, takes: bool) -> dict[TP, int]:
        consumer = Cut(takes)
        offsets = consumer._filter_committable_offsets({AT})
        assert offsets == {AT: 5}
        assert await consumer._commit_offsets(offsets) is takes
        return consumer._filter_committable_offsets({AT})

    assert asyncio.run(left(takes=True)) == {}
    assert asyncio.run(left(takes=False)) == {AT: 5}
