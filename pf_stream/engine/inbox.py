"""What was read for a lane and waits for its step."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from pf_stream.engine.reader import Feed, Reader
from pf_stream.kafka.batch import Chunk

__all__ = ["Inbox"]

CHUNKS: Final = 2
"""Fetched chunks that wait, for each source partition."""


T = TypeVar("T")


class Inbox(Generic[T]):
    """Chunks of one lane's source topics, each topic in its order; a topic that may not go on holds up no other."""

    def __init__(
        self,
        reader: Reader,
        partition: int,
        failed: Callable[[Exception], None],
        received: Callable[[str, Chunk], T],
    ) -> None:
        """*received* is told of each chunk, with its topic, and gives what waits for the step."""
        self._reader = reader
        self._partition = partition
        self._failed = failed
        self._received = received
        self._feeds: list[Feed] = []
        self._chunks: dict[str, deque[T]] = {}
        self.arrived = asyncio.Event()
        """Set when something has come."""

    def read(self, topic: str, offset: int, topic_id: bytes) -> None:
        """Read a topic, of that id, from *offset* on."""
        chunks: deque[T] = deque()
        self._chunks[topic] = chunks

        def deliver(chunk: Chunk) -> None:
            chunks.append(self._received(topic, chunk))
            self.arrived.set()

        feed = Feed(
            partition=(topic, self._partition),
            offset=offset,
            ready=lambda: len(chunks) < CHUNKS,
            deliver=deliver,
            failed=self._failed,
            topic_id=topic_id,
        )
        self._feeds.append(feed)
        self._reader.add(feed)

    def first(self, paused_until_ms: Callable[[str], int], now_ms: int) -> tuple[str, T] | None:
        """A topic that is not paused, and its first chunk; ``None`` if there is none."""
        for topic, chunks in self._chunks.items():
            if chunks and paused_until_ms(topic) <= now_ms:
                return topic, chunks[0]
        return None

    def done(self, topic: str) -> None:
        """The first chunk of a topic is used up; it is another topic's turn."""
        chunks = self._chunks.pop(topic)
        chunks.popleft()
        self._chunks[topic] = chunks
        self._reader.wake()

    @property
    def waiting(self) -> list[str]:
        """Topics of which something waits."""
        return [topic for topic, chunks in self._chunks.items() if chunks]

    @property
    def feeds(self) -> list[Feed]:
        """What is read."""
        return self._feeds

    def read_no_more(self) -> None:
        """Stop reading; what waits stays."""
        for feed in self._feeds:
            self._reader.remove(feed)
        self._feeds = []

    def clear(self) -> None:
        """Stop reading and forget what waits."""
        self.read_no_more()
        self._chunks = {}
