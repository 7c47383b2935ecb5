"""Reads the source partitions of all lanes, one fetch at a time for each broker."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiokafka.errors as kafka_errors
import structlog

from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.link import BACKOFF_S, FetchResult, Link, Partition, is_transient

__all__ = ["Feed", "Reader"]

log = structlog.get_logger(__name__)

PARTITION_BYTES: Final = 1 << 20
FETCH_BYTES: Final = 16 << 20
GATHER_BYTES: Final = 64 << 10
GATHER_MS: Final = 8
IDLE_MS: Final = 250


@dataclass(slots=True, eq=False)
class Feed:
    """One source partition that a lane reads."""

    partition: Partition
    """Which."""
    offset: int
    """Where the next fetch starts."""
    ready: Callable[[], bool]
    """Whether the lane takes another chunk."""
    deliver: Callable[[Chunk], None]
    """Takes what was read."""
    failed: Callable[[Exception], None]
    """Told that the partition cannot be read on."""
    high_watermark: int = -1
    """Offset behind the partition's last record, as of the last fetch."""


class Reader:
    """The fetch loop.

    A partition whose lane has enough is left out, so a slow lane holds up nobody. Under load the broker gathers
    (``fetch.min.bytes``) for up to 8 ms, since a fetch of two records costs as much as one of two thousand; when nothing
    comes, a fetch waits longer and ends with the first record.
    """

    def __init__(self, link: Link, *, gather: bool) -> None:
        self._link = link
        self._gather = gather
        self._feeds: dict[Partition, Feed] = {}
        self._nodes: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    def add(self, feed: Feed) -> None:
        """Start reading a partition."""
        self._feeds[feed.partition] = feed
        self.wake()

    def remove(self, feed: Feed) -> None:
        """Stop reading it; what is on its way is dropped."""
        if self._feeds.get(feed.partition) is feed:
            del self._feeds[feed.partition]

    def wake(self) -> None:
        """Look again: a lane has become ready."""
        self._wake.set()

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    lost = []
                    for partition in self._feeds:
                        node = self._link.leader(partition)
                        if node is None:
                            lost.append(partition[0])
                        elif node not in self._nodes or self._nodes[node].done():
                            self._nodes[node] = group.create_task(self._read_node(node))
                    if lost:
                        await self._link.watch(sorted(set(lost)))
                        await asyncio.sleep(BACKOFF_S)
                        await self._link.refresh()
                        self._wake.set()
        finally:
            self._nodes.clear()

    async def _read_node(self, node: int) -> None:
        """Fetch from one broker while it leads partitions whose lanes are ready."""
        idle = False
        while True:
            led = [feed for feed in self._feeds.values() if self._link.leader(feed.partition) == node]
            wanted = {feed.partition: feed for feed in led if feed.ready()}
            if not wanted:
                return  # run() starts this again when a lane becomes ready
            waits = idle and len(wanted) == len(led)
            try:
                results = await self._link.fetch(
                    node,
                    {partition: feed.offset for partition, feed in wanted.items()},
                    max_wait_ms=IDLE_MS if waits else GATHER_MS,
                    min_bytes=GATHER_BYTES if self._gather and not waits else 1,
                    partition_bytes=PARTITION_BYTES,
                    max_bytes=FETCH_BYTES,
                )
            except kafka_errors.KafkaError as error:
                if not is_transient(error):
                    for feed in wanted.values():
                        feed.failed(error)
                    return
                log.debug("fetch failed", node=node, error=repr(error))
                await asyncio.sleep(BACKOFF_S)
                await self._link.refresh()
                self._wake.set()
                return
            idle = True
            stale = False
            for partition, feed in wanted.items():
                result = results.get(partition)
                if result is None or self._feeds.get(partition) is not feed:
                    continue
                if result.error is not None:
                    stale = self._refused(feed, result) or stale
                elif result.chunk is not None:
                    idle = False
                    feed.high_watermark = result.high_watermark
                    feed.offset = result.chunk.next_offset
                    feed.deliver(result.chunk)
            if stale:
                await asyncio.sleep(BACKOFF_S)
                await self._link.refresh()
                self._wake.set()
                return

    def _refused(self, feed: Feed, result: FetchResult) -> bool:
        assert result.error is not None
        if is_transient(result.error):
            return True
        feed.failed(result.error)
        return False
