"""Keys in the order in which they are due, for very many of them."""

from array import array
from heapq import heappop, heappush, heapreplace
from typing import Final

__all__ = ["DueKeys"]

_RECENT: Final = 4_096
"""How many wait as pairs. More of them are sorted at once, which takes some 2 ms."""

_NEVER: Final = 1 << 63

_Run = tuple[int, bytes, int, "array[int]", list[bytes]]
"""The first of the keys that were sorted together, when it is due, a number that no other run has, and those that follow, the last
one first."""


class DueKeys:
    """A queue of keys by the time at which they are due; those of one time are ordered by themselves.

    A heap of pairs takes 112 bytes for each beside the key, and the garbage collector looks at all of them. So only the latest are in
    one: the others lie in sorted runs, 16 bytes each, and there is a heap of the first ones of the runs.
    """

    __slots__ = ("_count", "_recent", "_runs", "first_ms")

    def __init__(self) -> None:
        self._recent: list[tuple[int, bytes]] = []
        self._runs: list[_Run] = []
        self._count = 0
        """Runs that there ever were."""
        self.first_ms = _NEVER
        """When the first one is due; later than any time if there is none."""

    def add(self, due_ms: int, key: bytes) -> None:
        """Add a key; it may be there already, also for that time."""
        self.first_ms = min(self.first_ms, due_ms)
        heappush(self._recent, (due_ms, key))
        if len(self._recent) >= _RECENT:
            self._settle()

    def _settle(self) -> None:
        recent, self._recent = self._recent, []
        recent.sort(reverse=True)
        times, keys = array("q", [due_ms for due_ms, _ in recent]), [key for _, key in recent]
        self._count += 1
        heappush(self._runs, (times.pop(), keys.pop(), self._count, times, keys))

    def first(self) -> tuple[int, bytes] | None:
        """When the first one is due, and its key; ``None`` if there is none."""
        recent, runs = self._recent, self._runs
        if runs and not (recent and recent[0] < runs[0]):
            return runs[0][:2]
        return recent[0] if recent else None

    def pop(self) -> bytes:
        """Remove the first one, which there is; returns its key."""
        recent, runs = self._recent, self._runs
        if not runs or (recent and recent[0] < runs[0]):
            key = heappop(recent)[1]
        else:
            _, key, number, times, keys = runs[0]
            if keys:
                due_ms, left = times.pop(), len(times)
                if not left & (left - 1):
                    times = times[:]  # an array does not shrink by itself, as a list does
                heapreplace(runs, (due_ms, keys.pop(), number, times, keys))
            else:
                heappop(runs)
        first = self.first()
        self.first_ms = _NEVER if first is None else first[0]
        return key
