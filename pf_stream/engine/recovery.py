"""Reading a lane's changelog back, up to a fence."""

import asyncio
from collections.abc import Callable, Iterable

from pf_stream.kafka.link import Link, Partition, refusal

__all__ = ["recover"]


async def recover(
    link: Link,
    changelog: Partition,
    fence: int,
    take: Callable[[Iterable[tuple[bytes, bytes | None]]], None],
    progress: Callable[[float], None] = lambda _: None,
) -> int:
    """Hand every record below *fence* to *take*, key and value, in the order of the log; returns how many there were.

    *progress* is told how much of it is read, from 0 to 1. Everything before the fence, and nothing else: on a compacted
    topic only the whole is consistent.
    """
    count = 0
    begin = position = (await link.offsets([changelog], end=False))[changelog]
    while position < fence:
        progress((position - begin) / (fence - begin))
        result = await link.fetch_one(changelog, position)
        if result.error is not None:
            raise refusal(f"read {changelog[0]}", result.error)
        if result.chunk is None:
            continue
        records = [record for record in result.chunk if position <= record.offset < fence]
        take((record.key or b"", record.value) for record in records)
        count += len(records)
        position = result.chunk.next_offset
        await asyncio.sleep(0)
    return count
