"""A lane as its changelog makes it, before it begins: recovered by who opens it, followed by who stands by for it."""

import asyncio
from collections.abc import Callable
from typing import Final, Self

import structlog

from pf_stream.core.lane import Lane
from pf_stream.core.shelf import Shelf
from pf_stream.engine.depot import LastingShelf, doubt
from pf_stream.engine.encode import OutboxBuilder
from pf_stream.engine.inbox import Inbox
from pf_stream.engine.reader import Feed
from pf_stream.engine.recovery import Progress, recover
from pf_stream.engine.shared import Shared
from pf_stream.engine.waiting import wait_within
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import Link, Partition

__all__ = ["Replica"]

log = structlog.get_logger(__name__)

LOOK_S: Final = 10.0
"""How often one that follows looks when it was last told how far its changelog is."""


class Replica:
    """What a worker has of a lane. It is the same, up to its position, whoever reads it, and when."""

    def __init__(self, lane: Lane[OutboxBuilder], changelog: Partition, shared: Shared) -> None:
        self.lane = lane
        """The lane."""
        self.position = lane.shelf.position
        """Changelog offset at which it goes on reading."""
        self.shelf: LastingShelf | None = None
        """Its shelf, if that is on disk."""
        self._changelog = changelog
        self._shared = shared
        self._feed: Feed | None = None
        self._complete_ms = 0
        """When nothing lay behind what it had read, milliseconds since the epoch."""
        self._retention_ms: int | None = None
        """How long its changelog keeps deletions, once it follows."""

    @classmethod
    async def open(
        cls,
        make_lane: Callable[[Shelf | None], Lane[OutboxBuilder]],
        changelog: Partition,
        end: int,
        shared: Shared,
    ) -> Self:
        """What earlier lives have left on disk, if it may be believed; else nothing. The changelog has reached *end*."""
        if shared.depot is None:
            return cls(make_lane(None), changelog, shared)
        control = shared.control
        shelf = await shared.depot.shelf(changelog)
        topic_id = await _topic_id(control, changelog[0])
        why = None
        if shelf.note is not None:
            begin = (await control.offsets([changelog], end=False))[changelog]
            retention_ms = await _retention_ms(control, changelog[0])
            why = doubt(shelf.note, topic_id, begin, end, retention_ms, shared.clock.now_ms())
            if why is not None:
                log.warning("a store is built anew", changelog=changelog[0], partition=changelog[1], reason=why)
        if shelf.note is None or why is not None:
            await shelf.clear(topic_id)
        self = cls(make_lane(shelf), changelog, shared)
        self.shelf = shelf
        return self

    async def catch_up(self, fence: int, before_ms: int, progress: Callable[[Progress], None]) -> int:
        """Read all before the *fence*, which was appended after *before_ms*; returns how many records that were."""
        start, self.position = self.position, fence
        count = await recover(self._shared.control, self._changelog, fence, self.lane.restore, progress, start)
        self._completed(before_ms)
        return count

    def _completed(self, at_ms: int) -> None:
        self._complete_ms = at_ms
        if self.shelf is not None:
            self.shelf.at_ms = at_ms
        self.lane.restored(self.position)

    # -- following -----------------------------------------------------------------------------------------------------

    @property
    def lag(self) -> int | None:
        """Changelog records that one that follows has yet to read, as of the last fetch."""
        if self._feed is None or self._feed.high_watermark < 0:
            return None
        return max(0, self._feed.high_watermark - self.position)

    @property
    def is_stale(self) -> bool:
        """Whether it has followed, and then not for so long that it may have missed deletions."""
        age_ms = self._shared.clock.now_ms() - self._complete_ms
        return self._retention_ms is not None and not 0 <= age_ms < self._retention_ms

    async def follow(self, failed: Callable[[Exception], None]) -> None:
        """Read what is appended, for as long as it does not get stale. *failed* is told that nothing can be read any more."""
        control, reader, changelog = self._shared.control, self._shared.follower, self._changelog
        assert reader is not None
        topic_id = await _topic_id(control, changelog[0])
        self._retention_ms = await _retention_ms(control, changelog[0])
        self._complete_ms = self._shared.clock.now_ms()
        self.position = max(self.position, (await control.offsets([changelog], end=False))[changelog])
        inbox = Inbox(reader, changelog[1], failed, lambda _, chunk: chunk)
        inbox.read(changelog[0], self.position, topic_id)
        (self._feed,) = inbox.feeds
        try:
            while not self.is_stale:
                inbox.arrived.clear()
                found = inbox.first(lambda _: 0, 0)
                if found is not None:
                    await self._take(found[1])
                    inbox.done(found[0])
                if self.lag == 0:
                    self._completed(self._asked_ms(self._feed))
                if found is None:
                    await wait_within(LOOK_S, inbox.arrived)
        finally:
            self._feed = None
            inbox.clear()

    async def _take(self, chunk: Chunk) -> None:
        for entries, end in chunk.entries(self.position, chunk.next_offset):
            self.lane.restore(entries)
            self.position = end
            await asyncio.sleep(0)
        self.position = chunk.next_offset

    def _asked_ms(self, feed: Feed) -> int:
        """When the fetch was sent that has last told how far the changelog is."""
        return self._shared.clock.now_ms() - round(1000 * (asyncio.get_running_loop().time() - feed.asked))


async def _topic_id(control: Link, topic: str) -> bytes:
    described = await control.describe([topic])
    if topic not in described:
        raise await control.why_absent(topic) or TopicMissingError([topic], "It was away for a moment.")
    return described[topic].id


async def _retention_ms(control: Link, topic: str) -> int:
    """How long a changelog keeps deletions; 0 if that is not told, so that nothing is believed."""
    return int(await control.topic_setting(topic, "delete.retention.ms") or 0)
