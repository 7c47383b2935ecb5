"""The one place where wall time is read.

Times are integer milliseconds since the Unix epoch (UTC), as in Kafka's record timestamps.
"""

import time
from typing import Protocol

__all__ = ["Clock", "VirtualClock", "WallClock"]


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...


class WallClock:
    """The machine's clock."""

    __slots__ = ()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class VirtualClock:
    """A clock that stands still until it is told to move; for tests."""

    __slots__ = ("_now_ms",)

    def __init__(self, now_ms: int = 1_767_225_600_000) -> None:
        self._now_ms = now_ms  # 2026-01-01T00:00:00Z unless told otherwise

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, seconds: float) -> None:
        """Move by *seconds*; a negative value sets the clock back, as an operator or NTP might."""
        self._now_ms += round(seconds * 1000)
