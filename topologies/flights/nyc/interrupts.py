"""Ctrl-C and its relatives: heard at once where that is safe, soon where it is not, and only once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Interrupted", "Interrupts"]


class Interrupted(BaseException):
    """Raised when a signal asks us to end."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


class Interrupts:
    """Turns SIGINT, SIGTERM and SIGHUP into :class:`Interrupted`.

    Only the first counts: what is done because of it takes a moment, and a second Ctrl-C must not break that off.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came."""
        self._held = False
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, self._hear)

    def _hear(self, number: int, _: object) -> None:
        if self.number is None:
            self.number = number
            if not self._held:
                raise Interrupted(number)

    def check(self) -> None:
        """Raise if one came."""
        if self.number is not None:
            raise Interrupted(self.number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise only in :meth:`check`, and at the end of the block.

        For code that must not be left half done; and for calls of librdkafka, which take an exception out of the middle of
        them for one of their own.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.check()
