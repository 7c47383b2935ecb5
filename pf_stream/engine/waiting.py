"""Waiting for what may happen, and not for ever."""

import asyncio

__all__ = ["wait_within"]


async def wait_within(seconds: float | None, event: asyncio.Event) -> None:
    """Wait until *event* is set, or so many seconds have passed; without a number, until it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
