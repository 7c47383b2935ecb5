"""Where the acknowledged states of a lane lie.

A lane asks its shelf for a state when it needs it, and puts there what became durable. That a shelf on disk is read within
the step leaves the step pure: what a shelf says of a key follows from the changelog alone, and the changelog of a lane does
not change but by its own units.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final, Protocol

__all__ = ["MemoryShelf", "Shelf"]

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
        """The keys of states that begin with *prefix*, each once.

        They may be taken in pieces while others are put there, which may be left out.
        """

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        """All that it holds beside states: positions, timers, marks, outputs, the header."""


class MemoryShelf:
    """States in memory, as bytes. It ends with the process and is made again from the whole changelog."""

    __slots__ = ("_keys", "_values", "get")

    position = 0

    def __init__(self, prefixes: Iterable[bytes]) -> None:
        """*prefixes* are the beginnings of the keys that are asked for; others are not kept."""
        self._values: dict[bytes, bytes] = {}
        self._keys = {prefix: _Keys() for prefix in prefixes}
        """Those of the values, by prefix."""
        self.get = self._values.get

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        values = self._values
        for key, value in entries:
            if key in values:
                if value is not None:
                    values[key] = value
                else:
                    del values[key]
                    self._keys_with(key).remove(key)  # type: ignore[union-attr]
            elif value is not None:
                keys = self._keys_with(key)
                if keys is not None:
                    keys.add(key)
                    values[key] = value

    def _keys_with(self, key: bytes) -> "_Keys | None":
        for prefix, keys in self._keys.items():
            if key.startswith(prefix):
                return keys
        return None

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        return (key for key in self._keys[prefix].walk() if key in self._values)

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        return ()


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
