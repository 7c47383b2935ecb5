"""The global tables of a worker: each compacted topic is read whole, from its beginning, and then as it grows.

On a connection of their own, so that a fetch of the lanes never waits for one of them. What cannot be read on ends the worker:
its lanes would go on with rows that are out of date.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import structlog

from pf_stream.core.records import Record
from pf_stream.core.status import TableState, TableStatus
from pf_stream.core.tables import TableRows
from pf_stream.engine.reader import Feed, Reader
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import Link
from pf_stream.model.topology import Topology

__all__ = ["Tables"]

log = structlog.get_logger(__name__)

STRIDE: Final = 256
"""Records that are taken between two turns of the event loop."""


class Tables:
    """The tables of a topology, as this worker has them."""

    def __init__(self, topology: Topology, control: Link, reader: Reader) -> None:
        self.reader = reader
        """The fetch loop; whoever makes this runs it."""
        self.rows = {table.topic: TableRows(table) for table in topology.tables}
        """By topic as the topology names it."""
        self.ready = asyncio.Event()
        """Set once each topic was read to where it ended when reading began."""
        self._tables = [_Table(topology.topic_name(name), rows, control, reader) for name, rows in self.rows.items()]

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            TableFullError: the rows take too much memory.
            TableRowError: a record is no row, and its table is declared to stop then.
            TopicMissingError, NotAuthorisedError, TopicReplacedError, WatermarkRangeError: the topic cannot be read on.
        """
        tasks = [asyncio.create_task(table.run(), name=f"table {table.topic}") for table in self._tables]
        tasks.append(asyncio.create_task(self._wait(), name="tables"))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self) -> None:
        for table in self._tables:
            await table.ready.wait()
        self.ready.set()

    @property
    def partitions(self) -> dict[str, int]:
        """By full name of a topic, how many partitions of it are read."""
        return {table.topic: len(table.parts) for table in self._tables if table.parts}

    @property
    def statuses(self) -> list[TableStatus]:
        """Every table, in the order of their declaration."""
        return [table.status for table in self._tables]


@dataclass(slots=True, eq=False)
class _Part:
    """One partition of a table."""

    number: int
    """Which."""
    position: int
    """Next offset to be taken."""
    end: int
    """Where it ended when reading began."""
    feed: Feed | None = None
    """By which it is read."""
    chunk: Chunk | None = None
    """What was read and not taken yet."""


class _Table:
    """One table."""

    def __init__(self, topic: str, rows: TableRows, control: Link, reader: Reader) -> None:
        self.topic = topic
        self.ready = asyncio.Event()
        self.parts: Sequence[_Part] = ()
        self._rows = rows
        self._control = control
        self._reader = reader
        self._arrived = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        await self._open()
        taking: asyncio.Future[None] = asyncio.create_task(self._take())
        try:
            done, _ = await asyncio.wait({taking, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            taking.cancel()
            for part in self.parts:
                if part.feed is not None:
                    self._reader.remove(part.feed)

    async def _open(self) -> None:
        control, topic = self._control, self.topic
        described = (await control.describe([topic])).get(topic)
        if described is None:
            raise await control.why_absent(topic) or TopicMissingError([topic], "It was away for a moment.")
        partitions = [(topic, number) for number in range(described.partitions)]
        begins = await control.offsets(partitions, end=False)
        ends = await control.offsets(partitions, end=True)
        self.parts = [_Part(at[1], begins[at], ends[at]) for at in partitions]
        for part in self.parts:
            part.feed = self._feed(part, described.id)
            self._reader.add(part.feed)
        self._look()

    def _feed(self, part: _Part, topic_id: bytes) -> Feed:
        def deliver(chunk: Chunk) -> None:
            part.chunk = chunk
            self._arrived.set()

        def fail(error: Exception) -> None:
            if not self._failed.done():
                self._failed.set_exception(error)

        return Feed((self.topic, part.number), part.position, lambda: part.chunk is None, deliver, fail, topic_id)

    async def _take(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            for part in self.parts:
                chunk = part.chunk
                if chunk is None:
                    continue
                for records in _strides(chunk, part.position):
                    self._rows.read(part.number, records)
                    await asyncio.sleep(0)
                part.position = max(part.position, chunk.next_offset)
                part.chunk = None
                self._reader.wake()
            self._look()

    def _look(self) -> None:
        if not self.ready.is_set() and all(part.position >= part.end for part in self.parts):
            self.ready.set()
            log.info("table read", topic=self.topic, rows=len(self._rows.rows), bytes=self._rows.bytes)

    @property
    def status(self) -> TableStatus:
        feeds = [part.feed for part in self.parts if part.feed is not None]
        known = bool(feeds) and all(feed.high_watermark >= 0 for feed in feeds)
        lag = sum(max(0, part.feed.high_watermark - part.position) for part in self.parts if part.feed is not None)
        waiting = any(feed.doubtful for feed in feeds)
        state = TableState.waiting if waiting else TableState.running if self.ready.is_set() else TableState.reading
        rows = self._rows
        return TableStatus(rows.table.topic, state, len(rows.rows), rows.bytes, lag if known else None, rows.bad)


def _strides(chunk: Chunk, start: int) -> Iterable[list[Record]]:
    records = (record for record in chunk if record.offset >= start)
    while stride := list(islice(records, STRIDE)):
        yield stride
