"""A sink's consumer, as one partition calls it.

It is somebody else's code: it may raise what it likes, hang, or swallow its cancellation. So it runs in a task of its own,
which nothing awaits but a ``wait``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from pf_stream.model.sink import Delivered

__all__ = ["ClosingError", "Consumer"]

log = structlog.get_logger(__name__)

CANCEL_S: Final = 1.0
"""How long a consumer that is cancelled may take to end."""

Batch = Sequence[Delivered[Any]]


class ClosingError(Exception):
    """Raised in place of another call when there shall be none."""


class Consumer:
    """Calls the consumer, once at a time."""

    def __init__(self, function: Callable[[Batch], Awaitable[None]], name: str) -> None:
        """*name* is what it is called in the log."""
        self._function = function
        self._name = name
        self._calling: asyncio.Task[BaseException | None] | None = None
        self.closing = False
        """Whether it is called no more."""

    @property
    def is_busy(self) -> bool:
        """Whether it is at work."""
        return self._calling is not None

    async def call(self, batch: Batch) -> BaseException | None:
        """Give it a batch; returns why it did not take that. Raises :class:`ClosingError`."""
        if self.closing:
            raise ClosingError
        calling = self._calling = asyncio.create_task(self._attempt(batch))
        await asyncio.wait({calling})
        self._calling = None
        return asyncio.InvalidStateError("it was cancelled") if calling.cancelled() else calling.result()

    async def _attempt(self, batch: Batch) -> BaseException | None:
        try:
            await self._function(batch)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a consumer raises is dealt with as declared
            return error
        return None

    async def end(self) -> None:
        """End a call whose caller was cancelled, or leave it behind."""
        calling, self._calling = self._calling, None
        if calling is None:
            return
        calling.cancel()
        if not (await asyncio.wait({calling}, timeout=CANCEL_S))[0]:
            log.warning("a sink's consumer does not end although it is cancelled", sink=self._name)
