"""Which of the intents that wait and are due comes first, where they have deadlines.

*Critical* are those with less than five minutes to their deadline, *high* with less than an hour, *medium* with less than a day,
*low* all others that have one. Within a class the time decides at which they were due.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

__all__ = ["Urgency"]

_BOUNDS_MS: Final = (300_000, 3_600_000, 86_400_000)
"""Less than so much to the deadline: critical, high, medium."""

_Entry = tuple[int, bytes, bytes]
"""When it is due, its key, and the timer, encoded."""


class Urgency:
    """Timers that have a deadline. An entry counts as long as its timer is the one of its key."""

    __slots__ = ("_classes", "_coming", "_current", "_rising")

    def __init__(self, current: Callable[[bytes], bytes | None]) -> None:
        """*current* says which timer a key has."""
        self._current = current
        self._coming: list[tuple[int, bytes, bytes, int]] = []
        """Not seen to be due yet: an entry, and the deadline."""
        self._classes: tuple[list[_Entry], ...] = ([], [], [], [])
        """Seen to be due, by class, the most urgent first."""
        self._rising: list[tuple[int, int, _Entry]] = []
        """When an entry is in a more urgent class, and in which; it stays in the other one too."""

    def add(self, due_ms: int, key: bytes, timer: bytes, deadline_ms: int) -> None:
        """Note a timer."""
        heappush(self._coming, (due_ms, key, timer, deadline_ms))

    def next_due_ms(self) -> int | None:
        """When the first of them is due, or was; ``None`` if there is none."""
        coming = self._coming
        while coming and self._current(coming[0][1]) is not coming[0][2]:
            heappop(coming)
        times = [coming[0][0]] if coming else []
        times += [head[0] for entries in self._classes if (head := self._head(entries)) is not None]
        return min(times, default=None)

    def take(self, now_ms: int) -> bytes | None:
        """Remove the most urgent one that is due, and return its key; ``None`` if none is."""
        self._sort(now_ms)
        for entries in self._classes:
            head = self._head(entries)
            if head is not None and head[0] <= now_ms:
                return heappop(entries)[1]
        return None

    def _head(self, entries: list[_Entry]) -> _Entry | None:
        while entries:
            if self._current(entries[0][1]) is entries[0][2]:
                return entries[0]
            heappop(entries)
        return None

    def _sort(self, now_ms: int) -> None:
        while self._coming and self._coming[0][0] <= now_ms:
            due_ms, key, timer, deadline_ms = heappop(self._coming)
            if self._current(key) is not timer:
                continue
            left_ms = deadline_ms - now_ms
            found = next((number for number, bound in enumerate(_BOUNDS_MS) if left_ms < bound), len(_BOUNDS_MS))
            heappush(self._classes[found], (due_ms, key, timer))
            for number in range(found):
                heappush(self._rising, (deadline_ms - _BOUNDS_MS[number] + 1, number, (due_ms, key, timer)))
        while self._rising and self._rising[0][0] <= now_ms:
            _, number, entry = heappop(self._rising)
            if self._current(entry[1]) is entry[2]:
                heappush(self._classes[number], entry)
