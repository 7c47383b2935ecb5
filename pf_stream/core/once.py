"""Intents that are handled once: what was handled of late, so that a second one is dropped."""

from collections import deque
from typing import Final

from pf_stream.core import changelog

__all__ = ["Once"]

_SWEPT_AT_ONCE: Final = 1_000
"""Most marks that one unit removes: a day's worth of them must not make a unit too large."""
_SLACK_MS: Final = 3_600_000
"""How long a mark is kept beyond its end: what was rerouted comes later than what was appended with it."""

_VALUE = changelog.ONCE_VALUE


_LATEST_MS = 2**63 - 1
"""The last millisecond that a mark can say; a record's timestamp may be as late."""


class Once:
    """Marks of a lane, each good until a time: as they were last sealed, and what the open unit adds.

    A mark names the record that made it, so that the same record, read again on behalf of a new reactor, is no repeat.
    """

    __slots__ = ("_added", "_latest_ms", "_queue", "_sealed", "dropped")

    def __init__(self) -> None:
        self.dropped = 0
        """Repeats that the open unit drops."""
        self._sealed: dict[bytes, bytes] = {}
        self._added: dict[bytes, bytes] = {}
        self._queue: deque[tuple[int, bytes]] = deque()
        """Until when, and the key, about in the order of expiry."""
        self._latest_ms = 0
        """The latest time at which an intent was judged: a backlog is read later than it was appended."""

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take a changelog record."""
        if value is None:
            self._sealed.pop(key, None)
        else:
            self._sealed[key] = value

    def begin(self) -> None:
        """End the recovery."""
        self._queue = deque(sorted((_until(value), key) for key, value in self._sealed.items()))

    def is_repeat(self, key: bytes, topic: str, offset: int, judged_ms: int) -> bool:
        """Whether an intent with that mark was taken from another record, less than its time before *judged_ms*."""
        value = self._added.get(key) or self._sealed.get(key)
        if value is None or judged_ms >= _until(value) or _is_from(value, topic, offset):
            return False
        self.dropped += 1
        return True

    def add(self, key: bytes, topic: str, offset: int, judged_ms: int, period_ms: int) -> None:
        """Mark an intent, judged at *judged_ms*, as taken from a record for *period_ms*."""
        self._set(key, topic, offset, min(judged_ms + period_ms, _LATEST_MS))
        self._latest_ms = max(self._latest_ms, judged_ms)

    def discard(self, key: bytes, topic: str, offset: int) -> None:
        """Let an intent be sent again: the record that made the mark was refused after all."""
        value = self._added.get(key) or self._sealed.get(key)
        if value is not None and _is_from(value, topic, offset):
            self._set(key, topic, offset, 0)

    def _set(self, key: bytes, topic: str, offset: int, until_ms: int) -> None:
        self._added[key] = _VALUE.pack(until_ms, offset) + changelog.pack_name(topic)

    def seal(self) -> list[tuple[bytes, bytes | None]]:
        """Make the open unit's marks the sealed ones, and drop those whose time is over; returns the changelog records."""
        entries: list[tuple[bytes, bytes | None]] = list(self._added.items())
        self._queue.extend((_until(value), key) for key, value in self._added.items())
        self._sealed |= self._added
        self._added.clear()
        self.dropped = 0
        for _ in range(_SWEPT_AT_ONCE):
            if not self._queue or self._queue[0][0] + _SLACK_MS >= self._latest_ms:
                break
            until_ms, key = self._queue.popleft()
            value = self._sealed.get(key)
            if value is not None and _until(value) == until_ms:
                del self._sealed[key]
                entries.append((key, None))
        return entries

    def rewind(self) -> None:
        """Forget the open unit's marks."""
        self._added.clear()
        self.dropped = 0


def _until(value: bytes) -> int:
    until_ms: int = _VALUE.unpack_from(value)[0]
    return until_ms


def _is_from(value: bytes, topic: str, offset: int) -> bool:
    return bool(_VALUE.unpack_from(value)[1] == offset and changelog.parse_name(value, _VALUE.size)[0] == topic)
