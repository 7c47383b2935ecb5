"""Where the acknowledged states of a lane lie.

A lane asks its shelf for a state when it needs it, and puts there what became durable. That a shelf on disk is read within
the step leaves the step pure: what a shelf says of a key follows from the changelog alone, and the changelog of a lane does
not change but by its own units.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

__all__ = ["MemoryShelf", "Shelf"]


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
        self._values: dict[bytes, bytes | None] = {}
        """What was deleted stays as ``None``: its key is listed."""
        self._keys: dict[bytes, list[bytes]] = {prefix: [] for prefix in prefixes}
        """Those of the values by prefix, in the order in which they came. They can be walked in pieces while others come, as
        the dictionary cannot; copying the keys of one takes up to 70 ms for a million."""
        self.get = self._values.get

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        values = self._values
        for key, value in entries:
            if key in values:
                values[key] = value
            elif value is not None:
                for prefix, keys in self._keys.items():
                    if key.startswith(prefix):
                        keys.append(key)
                        values[key] = value
                        break

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        keys = self._keys[prefix]
        return (key for key in islice(keys, len(keys)) if self._values[key] is not None)

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        return ()
