"""Reading a lane's changelog back: all of it up to a fence, or where it has a key."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from pf_stream.kafka.link import Link, Partition, refusal

__all__ = ["Progress", "last_offset", "recover"]

CHUNK_BYTES: Final = 2 << 20


class Progress(NamedTuple):
    """How far a recovery is."""

    part: float
    """Share of the changelog that is read, 0 to 1."""
    records: int
    """Records that were read."""
    rate: float
    """Records a second."""
    left_s: float
    """Seconds that the rest will take if it goes on like that."""


async def recover(
    link: Link,
    changelog: Partition,
    fence: int,
    take: Callable[[list[tuple[bytes, bytes | None]]], None],
    progress: Callable[[Progress], None] = lambda _: None,
    start: int = 0,
) -> int:
    """Hand every record of ``[start, fence)`` to *take*, key and value, in the order of the log; returns how many there were.

    *progress* is told how far it is. Everything before the fence, and nothing else: on a compacted topic only the whole
    is consistent.
    """
    time = asyncio.get_running_loop().time
    began = time()
    count = 0
    begin = position = max(start, (await link.offsets([changelog], end=False))[changelog])
    fetching = asyncio.create_task(link.fetch_one(changelog, position, CHUNK_BYTES)) if position < fence else None
    try:
        while fetching is not None:
            result = await fetching
            if result.error is not None:
                raise refusal(f"read {changelog[0]}", result.error)
            following = position if result.chunk is None else result.chunk.next_offset
            # The broker sends the next chunk while this one is worked on.
            fetching = (
                asyncio.create_task(link.fetch_one(changelog, following, CHUNK_BYTES)) if following < fence else None
            )
            if result.chunk is None:
                continue
            for entries, end in result.chunk.entries(position, fence):
                take(entries)
                count += len(entries)
                part, seconds = (end - begin) / (fence - begin), time() - began
                progress(Progress(part, count, count / max(seconds, 1e-3), seconds * (1 - part) / part))
                await asyncio.sleep(0)
            position = following
    finally:
        if fetching is not None:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
    return count


async def last_offset(link: Link, changelog: Partition, key: bytes) -> int | None:
    """Offset of the last record with *key*; ``None`` if there is none before what cannot be read."""
    position = (await link.offsets([changelog], end=False))[changelog]
    end = (await link.offsets([changelog], end=True))[changelog]
    found = None
    while position < end:
        result = await link.fetch_one(changelog, position)
        if result.chunk is None:
            break
        for record in result.chunk:
            if record.key == key:
                found = record.offset
        position = result.chunk.next_offset
    return found
