"""Long walks on a worker's event loop, in pieces between which its lanes work."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final, TypeVar

__all__ = ["BrokenOffError", "Turns"]

SLICE_S: Final = 0.002
"""How long one walks between two turns of the event loop: a fifth of what a lane takes."""
WALKS: Final = 4
"""How many walks are under way at most."""

A = TypeVar("A")
B = TypeVar("B")


class BrokenOffError(Exception):
    """Raised when what is walked through is no longer there."""


class Turns:
    """Lets one walk at a time have a slice of a turn, so that several take no more of the loop than one."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._walks = 0

    @property
    def taken(self) -> bool:
        """Whether as many walk as may."""
        return self._walks >= WALKS

    async def walk(
        self, items: Iterator[A], take: Callable[[A], B | None], go_on: Callable[[], bool]
    ) -> AsyncGenerator[list[B], None]:
        """What *take* makes of each item, if anything, in lists.

        Raises :class:`BrokenOffError` once *go_on* says no, which is asked before each slice.
        """
        time = asyncio.get_running_loop().time
        self._walks += 1
        try:
            over = False
            while not over:
                piece: list[B] = []
                async with self._turn:
                    if not go_on():
                        raise BrokenOffError
                    until = time() + SLICE_S
                    for item in items:
                        taken = take(item)
                        if taken is not None:
                            piece.append(taken)
                        if time() > until:
                            break
                    else:
                        over = True
                    await asyncio.sleep(0)
                if piece:
                    yield piece
        finally:
            self._walks -= 1
