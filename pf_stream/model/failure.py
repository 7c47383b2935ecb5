"""What happens to an intent whose handler raises."""

from dataclasses import dataclass
from typing import TypeAlias

from pf_stream.errors import DefinitionError

__all__ = ["OnError", "RetryInPlace", "RetryLater"]


@dataclass(frozen=True, slots=True)
class _Retry:
    attempts: int = 5
    """How often the handler is run in all before the intent becomes a dead letter; 2 or more."""
    backoff_s: float = 1.0
    """Seconds until the second attempt; twice as long before each further one."""
    max_backoff_s: float = 60.0
    """Longest pause between two attempts, in seconds."""

    def __post_init__(self) -> None:
        faults = []
        if self.attempts < 2:
            faults.append(f"attempts={self.attempts} is no retry: 2 or more, or leave on_error out")
        if self.backoff_s <= 0:
            faults.append(f"backoff_s={self.backoff_s} must be more than 0")
        if self.max_backoff_s < self.backoff_s:
            faults.append(f"max_backoff_s={self.max_backoff_s} must not be less than backoff_s={self.backoff_s}")
        if faults:
            raise DefinitionError(type(self).__name__, faults)

    def delay_ms(self, failed: int) -> int:
        """Milliseconds to wait after *failed* attempts, 1 or more."""
        # 2**60 s is longer than any maximum, and floats end at 2**1024.
        return round(1000 * min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failed - 1, 60)))


@dataclass(frozen=True, slots=True)
class RetryInPlace(_Retry):
    """Run the handler again after a pause in which nothing else of its partition is read: order is kept.

    For handlers that fail until something is repaired or deployed. Attempts are counted from zero after a restart.
    """


@dataclass(frozen=True, slots=True)
class RetryLater(_Retry):
    """Put the intent aside and run the handler again after a pause; what comes behind it goes ahead meanwhile.

    For intents that depend on others which may not have arrived. The intent waits as a timer, so attempts are counted
    across restarts.
    """


OnError: TypeAlias = RetryInPlace | RetryLater | None
"""``None`` makes the intent a dead letter at once."""
