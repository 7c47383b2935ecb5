"""Reads the source partitions of all lanes, one fetch at a time for each broker."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiokafka.errors as kafka_errors
import structlog

from pf_stream.engine.errors import TopicReplacedError, WatermarkRangeError
from pf_stream.errors import PFError
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import BACKOFF_S, Link, Partition, is_transient, refusal

__all__ = ["Feed", "Reader"]

log = structlog.get_logger(__name__)

PARTITION_BYTES: Final = 1 << 20
FETCH_BYTES: Final = 16 << 20
GATHER_BYTES: Final = 64 << 10
GATHER_MS: Final = 8
IDLE_MS: Final = 250
LOOK_S: Final = 1.0
"""How long until a topic that is missing is looked for again."""


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
    topic_id: bytes
    """Id of the topic that *offset* belongs to."""
    doubtful: bool = False
    """Whether there was trouble, and it must be seen first that the topic is still the same."""
    high_watermark: int = -1
    """Offset behind the partition's last record, as of the last fetch."""
    asked: float = 0.0
    """When that was sent, on the event loop's clock."""


class Reader:
    """The fetch loop.

    A partition whose lane has enough is left out, so a slow lane holds up nobody. Under load the broker gathers
    (``fetch.min.bytes``) for up to 8 ms, since a fetch of two records costs as much as one of two thousand; when nothing
    comes, a fetch waits longer and ends with the first record.

    A fetch names a topic and not its id. So after any trouble nothing is read until it is seen that the topic was not
    made anew meanwhile and still has the offset: records of another topic would be taken for the next ones.
    """

    def __init__(self, link: Link, *, gather: bool, look_ms: int = GATHER_MS) -> None:
        """*look_ms* is how long an idle fetch waits while a partition is left out, which may become ready meanwhile."""
        self._link = link
        self._gather = gather
        self._look_ms = look_ms
        self._feeds: dict[Partition, Feed] = {}
        self._nodes: dict[int, asyncio.Task[None]] = {}
        self._looking: set[tuple[str, int | None]] = set()
        self._failing_since: float | None = None
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
                    for partition, feed in list(self._feeds.items()):
                        node = self._link.leader(partition)
                        if node is None or feed.doubtful:
                            feed.doubtful = True
                            if (partition[0], node) not in self._looking:
                                self._looking.add((partition[0], node))
                                group.create_task(self._look_again(partition[0], node))
                        elif node not in self._nodes or self._nodes[node].done():
                            self._nodes[node] = group.create_task(self._read_node(node))
        finally:
            self._nodes.clear()

    async def _read_node(self, node: int) -> None:
        """Fetch from one broker while it leads partitions whose lanes are ready."""
        idle = False
        while True:
            led = [
                feed for feed in self._feeds.values() if not feed.doubtful and self._link.leader(feed.partition) == node
            ]
            wanted = {feed.partition: feed for feed in led if feed.ready()}
            if not wanted:
                return  # run() starts this again when a lane becomes ready
            waits = idle and len(wanted) == len(led)
            wait_ms = IDLE_MS if waits else self._look_ms if idle else GATHER_MS
            asked = asyncio.get_running_loop().time()
            try:
                results = await self._link.fetch(
                    node,
                    {partition: feed.offset for partition, feed in wanted.items()},
                    max_wait_ms=wait_ms,
                    min_bytes=GATHER_BYTES if self._gather and not waits else 1,
                    partition_bytes=PARTITION_BYTES,
                    max_bytes=FETCH_BYTES,
                )
            except kafka_errors.KafkaError as error:
                if not is_transient(error):
                    for feed in wanted.values():
                        feed.failed(error)
                    return
                if self._failing_since is None:
                    self._failing_since = asyncio.get_running_loop().time()
                    log.warning("Kafka cannot be read; waiting", broker=node, reason=repr(error))
                for feed in led:
                    feed.doubtful = True
                await asyncio.sleep(BACKOFF_S)
                await self._link.refresh()
                self._wake.set()
                return
            if self._failing_since is not None:
                seconds = round(asyncio.get_running_loop().time() - self._failing_since, 1)
                log.info("Kafka can be read again", after_s=seconds)
                self._failing_since = None
            idle = True
            stale = False
            for partition, result in results.items():
                if result.error is not None and self._feeds.get(partition) is wanted[partition]:
                    stale = self._refused(wanted[partition], result.error) or stale
            for partition, result in results.items():
                feed = wanted[partition]
                if result.error is None:
                    feed.high_watermark, feed.asked = result.high_watermark, asked
                if result.chunk is None or feed.doubtful or self._feeds.get(partition) is not feed:
                    continue
                idle = False
                feed.offset = result.chunk.next_offset
                feed.deliver(result.chunk)
            if stale:
                await asyncio.sleep(BACKOFF_S)
                await self._link.refresh()
                self._wake.set()
                return

    def _refused(self, feed: Feed, error: kafka_errors.BrokerResponseError) -> bool:
        if not (is_transient(error) or isinstance(error, kafka_errors.OffsetOutOfRangeError)):
            feed.failed(refusal(f"read {feed.partition[0]}", error))
            return False
        for other in self._feeds.values():
            # A lane that was not read just now would miss that its topic was away for a moment.
            other.doubtful = other.doubtful or other.partition[0] == feed.partition[0]
        return True

    async def _look_again(self, topic: str, node: int | None) -> None:
        """Find out whether the doubtful partitions of a topic that one broker leads, or nobody, can be read on.

        All at once, since there may be a thousand; and broker by broker, so that one that is away holds up no other.
        """
        missing = False
        try:
            while doubtful := [
                feed
                for feed in self._feeds.values()
                if feed.doubtful and feed.partition[0] == topic and self._link.leader(feed.partition) == node
            ]:
                try:
                    why = await self._link.why_absent(topic)
                    if why is None:
                        await self._check(topic, doubtful)
                        return
                    if not isinstance(why, TopicMissingError):
                        raise why
                except TopicMissingError:
                    pass  # it went between two requests
                except (PFError, kafka_errors.KafkaError) as error:
                    for feed in doubtful:
                        self._give_up(feed, error)
                    return
                if not missing:
                    missing = True
                    log.warning("a source topic is missing; waiting for it", topic=topic)
                await asyncio.sleep(LOOK_S)
        finally:
            self._looking.discard((topic, node))
            self.wake()

    async def _check(self, topic: str, doubtful: list[Feed]) -> None:
        partitions = [feed.partition for feed in doubtful]
        offsets = [feed.offset for feed in doubtful]
        begins = await self._link.offsets(partitions, end=False)
        ends = await self._link.offsets(partitions, end=True)
        # The id last: whatever the offsets belong to, an older topic or this one, is told by it.
        found = (await self._link.describe([topic])).get(topic)
        if found is None:
            raise TopicMissingError([topic], "Create it with: pf topics create")
        for feed, offset in zip(doubtful, offsets, strict=True):
            begin, end = begins[feed.partition], ends[feed.partition]
            if found.id != feed.topic_id:
                self._give_up(feed, TopicReplacedError(topic))
            elif feed.offset != offset:
                pass  # its leader moved, whom somebody else asked: it has been read on, perhaps beyond this end
            elif not begin <= offset <= end:
                self._give_up(feed, WatermarkRangeError(*feed.partition, offset, begin, end))
            else:
                feed.doubtful = False

    def _give_up(self, feed: Feed, error: Exception) -> None:
        if self._feeds.get(feed.partition) is feed:
            feed.failed(error)
