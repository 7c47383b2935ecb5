"""Where the acknowledged states of a lane lie.

A lane asks its shelf for a state when it needs it, and puts there what became durable. That a shelf on disk is read within
the step leaves the step pure: what a shelf says of a key follows from the changelog alone, and the changelog of a lane does
not change but by its own units.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Final, Protocol

from pf_stream.core.changelog import state_key_end

__all__ = ["MemoryShelf", "Shelf"]

_PART: Final = 1_000
"""How many keys a list has at most; to insert one moves 8 bytes of each."""
_MOVES: Final = 4
"""How many keys are looked at for each that is removed: at most about a quarter of all are such that were."""


class Shelf(Protocol):
    """What a lane has at hand of its changelog: at least the states, by the keys that they have there."""

    @property
    def position(self) -> int:
        """Changelog offset before which it holds everything: reading from there on makes it complete.

        It may hold some of what comes behind that. Reading that again changes nothing, since the last value of a key counts.
        """

    def get(self, key: bytes, /) -> bytes | None:
        """Value of a state, by its changelog key."""

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        """Take acknowledged records of the changelog, in its order, ``None`` for a deletion; *position* is the new
        :attr:`position`. All of it or nothing survives the end of the process."""

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        """The keys of states that begin with *prefix*, each once, without those of their entries.

        They may be taken in pieces while others are put there, which may be left out.
        """

    def entries(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of entries of one state, ``start <= key < stop``, by key. Nothing may be put there meanwhile."""

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        """All that it holds beside states: positions, timers, marks, outputs, the header."""


class MemoryShelf:
    """States in memory, as bytes. It ends with the process and is made again from the whole changelog."""

    __slots__ = ("_entries", "_keys", "_values", "get")

    position = 0

    def __init__(self, prefixes: Iterable[bytes]) -> None:
        """*prefixes* are the beginnings of the keys that are asked for; others are not kept."""
        self._values: dict[bytes, bytes] = {}
        self._keys = {prefix: _Keys() for prefix in prefixes}
        """Those of the values that are states, by prefix."""
        self._entries: dict[bytes, SortedKeys] = {}
        """Those that are entries, by the key of their state."""
        self.get = self._values.get

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        values = self._values
        for key, value in entries:
            if key in values:
                if value is not None:
                    values[key] = value
                else:
                    del values[key]
                    self._unlist(key)
            elif value is not None:
                for prefix, keys in self._keys.items():
                    if key.startswith(prefix):
                        values[key] = value
                        at = len(prefix) + 4  # as in state_key_end, which a recovery would call for each key
                        end = at + int.from_bytes(key[at - 4 : at], "big")
                        if len(key) == end:
                            keys.add(key)
                        else:
                            self._entries.setdefault(key[:end], SortedKeys()).add(key)
                        break

    def _unlist(self, key: bytes) -> None:
        state = key[: state_key_end(key)]
        if state != key:
            entries = self._entries[state]
            entries.remove(key)
            if not entries:
                del self._entries[state]
            return
        next(keys for prefix, keys in self._keys.items() if key.startswith(prefix)).remove(key)

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        return (key for key in self._keys[prefix].walk() if key in self._values)

    def entries(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        keys = self._entries.get(start[: state_key_end(start)])
        return iter(()) if keys is None else ((key, self._values[key]) for key in keys.within(start, stop))

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        return ()


class SortedKeys:
    """Keys in their order, in lists that are short enough for one to be inserted or removed anywhere."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[list[bytes]] = [[]]
        """None of them is empty, unless all are."""

    def __bool__(self) -> bool:
        return bool(self._parts[0])

    def _part(self, key: bytes) -> int:
        """Which part has *key*, or would have it."""
        return max(bisect_right(self._parts, key, key=itemgetter(0)) - 1, 0) if len(self._parts) > 1 else 0

    def add(self, key: bytes) -> None:
        """Add a key that is not there."""
        at = self._part(key)
        part = self._parts[at]
        insort(part, key)
        if len(part) > _PART:
            half = len(part) // 2
            self._parts.insert(at + 1, part[half:])
            del part[half:]

    def remove(self, key: bytes) -> None:
        """Remove a key that is there."""
        at = self._part(key)
        part = self._parts[at]
        del part[bisect_left(part, key)]
        if not part and len(self._parts) > 1:
            del self._parts[at]

    def within(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """Those of ``start <= key < stop``; none is added or removed meanwhile."""
        first = self._part(start)
        part = self._parts[first]
        low = bisect_left(part, start)
        if first == len(self._parts) - 1 or stop <= part[-1]:
            return iter(part[low : bisect_left(part, stop, low)])
        return self._beyond(first, low, stop)

    def _beyond(self, first: int, low: int, stop: bytes) -> Iterator[bytes]:
        for part in self._parts[first:]:
            high = len(part) if part[-1] < stop else bisect_left(part, stop)
            yield from part[low:high]
            if high < len(part):
                return
            low = 0


class _Keys:
    """Keys in the order in which they came, 8 bytes each. They can be walked in pieces while others come and go.

    A dictionary cannot, and copying the keys of one takes up to 70 ms for a million. So those that are removed stay in their
    place, and for each some others are moved to the end, or left out if they were removed; which is never more than a part of all.
    """

    __slots__ = ("_at", "_gone", "_moved", "_old")

    def __init__(self) -> None:
        self._old: list[bytes] = []
        """Never changed: walks are on the way."""
        self._at = 0
        """Those of *_old* before this are among *_moved*, or gone."""
        self._moved: list[bytes] = []
        """Only ever longer."""
        self._gone: set[bytes] = set()
        """Those that were removed and are in one of the lists still."""

    def add(self, key: bytes) -> None:
        """Add a key that is not there."""
        if key in self._gone:
            self._gone.remove(key)
        else:
            self._moved.append(key)

    def remove(self, key: bytes) -> None:
        """Remove a key that is there."""
        gone, moved = self._gone, self._moved
        gone.add(key)
        for other in self._old[self._at : self._at + _MOVES]:
            if other in gone:
                gone.remove(other)
            else:
                moved.append(other)
        self._at += _MOVES
        if self._at >= len(self._old):
            self._old, self._moved, self._at = moved, [], 0

    def walk(self) -> Iterator[bytes]:
        """Each key that there is now, once, and perhaps some that are not there any more."""
        return chain(islice(self._old, self._at, None), islice(self._moved, len(self._moved)))
