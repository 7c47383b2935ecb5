"""A model of what workers have on disk: shelves that outlive them, as of some unit.

``tests/shelf_contract.py`` asks it and RocksDB the same.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

from pf_stream.core.changelog import state_key_end
from pf_stream.engine.depot import Note
from pf_stream.kafka.link import Partition

__all__ = ["Disk", "ModelShelf"]

Write = tuple[Sequence[tuple[bytes, bytes | None]], Note | None]


class ModelShelf:
    """A :class:`~pf_stream.engine.depot.LastingShelf` of which a crash takes away some of the latest writes."""

    def __init__(self) -> None:
        self.at_ms = 0
        self.note: Note | None = None
        self.values: dict[bytes, bytes] = {}
        """What it holds, for the process."""
        self.unwritten: list[Write] = []
        """What was put there of late and may be lost."""
        self._written: tuple[dict[bytes, bytes], Note | None] = ({}, None)
        self._topic_id = bytes(16)

    @property
    def position(self) -> int:
        return 0 if self.note is None else self.note.position

    def get(self, key: bytes, /) -> bytes | None:
        return self.values.get(key)

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        if position != self.position:
            self.note = Note(self._topic_id, position, self.at_ms)
        self.unwritten.append((list(entries), self.note))
        _apply(self.values, entries)

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        return iter(sorted(key for key in self.values if key.startswith(prefix) and len(key) == state_key_end(key)))

    def entries(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, self.values[key]) for key in sorted(self.values) if start <= key < stop])

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        return [(key, value) for key, value in sorted(self.values.items()) if key[1:2] != b"s"]

    async def clear(self, topic_id: bytes) -> None:
        self.values, self.note, self._topic_id = {}, None, topic_id
        self.write()

    def write(self) -> None:
        """Make durable what was put there."""
        self._written = dict(self.values), self.note
        self.unwritten.clear()

    def reopened(self, kept: int) -> "ModelShelf":
        """As another process finds it, if the first *kept* of what was unwritten has become durable."""
        found = ModelShelf()
        values, found.note = self._written
        found.values = dict(values)
        for entries, note in self.unwritten[:kept]:
            _apply(found.values, entries)
            found.note = note
        if found.note is not None:
            found._topic_id = found.note.topic_id
        found.write()
        return found

    def grow_older(self, ms: int) -> None:
        """As if it had been used last so long before."""
        written = self._written[1]
        self._written = self._written[0], None if written is None else written._replace(at_ms=written.at_ms - ms)
        self.note = None if self.note is None else self.note._replace(at_ms=self.note.at_ms - ms)
        self.unwritten = [
            (entries, None if note is None else note._replace(at_ms=note.at_ms - ms))
            for entries, note in self.unwritten
        ]


def _apply(values: dict[bytes, bytes], entries: Iterable[tuple[bytes, bytes | None]]) -> None:
    for key, value in entries:
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value


class Disk:
    """The disk of a machine, on which one worker runs at a time. A :class:`~pf_stream.engine.depot.Depot`."""

    def __init__(self, dice: random.Random) -> None:
        self.shelves: dict[Partition, ModelShelf] = {}
        self._dice = dice

    async def shelf(self, changelog: Partition) -> ModelShelf:
        return self.shelves.setdefault(changelog, ModelShelf())

    async def close(self) -> None:
        for shelf in self.shelves.values():
            shelf.write()

    def crash(self) -> None:
        """The process is gone; what it had not written yet, is."""
        for changelog, shelf in self.shelves.items():
            most = len(shelf.unwritten)
            self.shelves[changelog] = shelf.reopened(self._dice.choice([most, self._dice.randint(0, most)]))
