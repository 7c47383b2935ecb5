"""A token bucket: so many in a second, and no more than a moment's worth at once."""

from typing import Final

__all__ = ["Bucket"]

BURST_S: Final = 0.1
"""How much may be saved up. A worker does not wake up for each record of a high rate."""


class Bucket:
    """Lets *rate* through a second, one at a time where that is less than ten."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        """How many in a second; may be set."""
        self._tokens = max(1.0, rate * BURST_S)
        self._at_s: float | None = None

    def available(self, now_s: float) -> int:
        """How many may go now."""
        passed = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s if self._at_s is None else max(self._at_s, now_s)
        self._tokens = min(max(1.0, self.rate * BURST_S), self._tokens + passed * self.rate)
        return int(self._tokens)

    def take(self, count: int) -> None:
        """They have gone."""
        self._tokens -= count

    def wait_s(self) -> float:
        """How long from the last look until one may go; 0 if one may already."""
        return max(0.0, (1.0 - self._tokens) / self.rate)
