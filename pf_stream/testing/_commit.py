"""Commits in memory, in the shape of the engine's: acquire, begin, commit, and what is sent afterwards, one step at a time.

See :class:`pf_stream.engine.commit.Committer`. Nothing waits here, so the methods are plain functions, and to send is an
action of its own instead of a task: the driver decides what happens between two of them.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import orjson

from pf_stream.core import BatchEntry, CommitUnit, Copy, Narrowing, OutboxEntry, Output, PointerEntry
from pf_stream.core.changelog import FENCE, outbox_key
from pf_stream.core.outbox import encode_entry
from pf_stream.core.records import Header
from pf_stream.kafka.errors import FencedError
from pf_stream.model.topology import Guarantee
from pf_stream.testing._topics import MemoryTopics
from pf_stream.testing.records import Position

__all__ = ["MemoryChangelog", "MemoryCommitter"]

_Row: TypeAlias = tuple[bytes | None, bytes | None, int, list[Header]]


@dataclass(slots=True)
class MemoryChangelog:
    """The changelog partition of a lane; it outlives every life of the lane."""

    topic: str
    """Its topic."""
    partition: int
    """Its number."""
    records: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    """Key and value of every record, in order."""
    epoch: int = 0
    """Of the last owner: older ones are refused."""


class MemoryCommitter:
    """Commits the units of one lane. To make one is to take the lane from whoever had it."""

    def __init__(
        self,
        changelog: MemoryChangelog,
        topics: MemoryTopics,
        narrow: Callable[[Narrowing], bytes | None],
        guarantee: Guarantee,
        sent: Callable[[int, Collection[int]], None],
    ) -> None:
        """*sent* is told of outbox entries that need not be kept."""
        changelog.epoch += 1
        self.fence = len(changelog.records)
        changelog.records.append((FENCE, b"{}"))
        self._epoch = changelog.epoch
        self._changelog = changelog
        self._topics = topics
        self._narrow = narrow
        self._transactional = guarantee == "transactional"
        self._sent = sent
        self._unsent: list[tuple[int, tuple[int, ...], dict[int, OutboxEntry]]] = []
        """By unit, in order: the indexes that the mark will name, and the entries that are left."""
        self._left: list[OutboxEntry] = []
        """What lives under the other guarantee left unsent: part of the next commit."""

    @property
    def backlog(self) -> int:
        """Committed units whose outputs are on their way."""
        return len(self._unsent)

    def begin(self, unsent: Sequence[tuple[int, Mapping[int, OutboxEntry]]]) -> None:
        """Take over what was left unsent."""
        for sequence, entries in unsent:
            if self._transactional:
                self._left += entries.values()
                self._sent(sequence, entries)
            else:
                self._unsent.append((sequence, tuple(entries), dict(entries)))

    def commit(self, unit: CommitUnit) -> list[Position]:
        """Make a unit durable, whole; returns where those of its outputs went that are part of the commit.

        Raises :class:`FencedError`.
        """
        changelog = self._changelog
        if self._epoch < changelog.epoch:
            raise FencedError(changelog.topic, changelog.partition)
        entries = dict(enumerate(self._outbox(unit)))
        changelog.records.extend(unit.entries)
        if self._transactional:
            written = [self._write(entry) for entry in (*self._left, *entries.values())]
            self._left.clear()
            return written
        changelog.records.extend((outbox_key(unit.sequence, at), encode_entry(entry)) for at, entry in entries.items())
        if entries:
            self._unsent.append((unit.sequence, tuple(entries), entries))
        return []

    def send(self, dice: random.Random) -> Position:
        """Send the first outbox entry of some target partition, and tell of a unit of which nothing is left."""
        first: dict[tuple[str, int], tuple[dict[int, OutboxEntry], int]] = {}
        for _, _, entries in self._unsent:
            for index, entry in entries.items():
                first.setdefault((entry.topic, entry.partition), (entries, index))
        entries, index = dice.choice(list(first.values()))
        at = self._write(entries.pop(index))
        while self._unsent and not self._unsent[0][2]:
            sequence, indexes, _ = self._unsent.pop(0)
            self._sent(sequence, indexes)
        return at

    def _outbox(self, unit: CommitUnit) -> list[OutboxEntry]:
        """The unit's outputs, those of one partition together; a pointer stands alone, in its place."""
        entries: list[PointerEntry | tuple[str, int, list[_Row]]] = []
        open_rows: dict[tuple[str, int], list[_Row]] = {}
        for index, output in enumerate(unit.outputs):
            source: Header = ("pf-source", f"{unit.incarnation}:{unit.sequence}:{index}".encode())
            chosen = output.to_partition if isinstance(output, Copy) else output.partition
            topic, partition = at = output.topic, self._topics.partition_of(output.key) if chosen is None else chosen
            if isinstance(output, Copy):
                open_rows.pop(at, None)
                entries.append(
                    PointerEntry(
                        topic=topic,
                        partition=partition,
                        source=output.source,
                        source_partition=output.partition,
                        offset=output.offset,
                        timestamp_ms=output.timestamp_ms,
                        headers=(*output.headers, source),
                        drop=output.drop,
                    )
                )
                continue
            rows = open_rows.get(at)
            if rows is None:
                rows = open_rows[at] = []
                entries.append((topic, partition, rows))
            rows.append((output.key, output.value, output.timestamp_ms, [*self._headers(output), source]))
        return [
            entry if isinstance(entry, PointerEntry) else BatchEntry(entry[0], entry[1], _encode(entry[2]))
            for entry in entries
        ]

    def _headers(self, output: Output) -> list[Header]:
        context = None if output.context is None else self._narrow(output.context)
        return output.headers if context is None else [*output.headers, ("pf-context", context)]

    def _write(self, entry: OutboxEntry) -> Position:
        if isinstance(entry, PointerEntry):
            return self._copy(entry)
        for key, value, timestamp_ms, headers in _decode(entry.batch):
            at = self._topics.write(entry.topic, entry.partition, key, value, headers, timestamp_ms)
        return at

    def _copy(self, entry: PointerEntry) -> Position:
        original = self._topics.log(entry.source, entry.source_partition)[entry.offset]
        headers = [header for header in original.headers if header[0] not in entry.drop]
        return self._topics.write(
            entry.topic,
            entry.partition,
            original.key,
            original.value,
            [*headers, *entry.headers],
            entry.timestamp_ms,
        )


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")


def _name(text: str) -> str:
    """A header's name, which need not be UTF-8: what is not stands in it as surrogates, which JSON lacks."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _read_name(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "surrogateescape")


def _encode(rows: list[_Row]) -> bytes:
    """Records as bytes, which is all that a changelog keeps; a real one holds a Kafka record batch."""
    return orjson.dumps(
        [
            [_text(key), _text(value), timestamp_ms, [[_name(name), _text(raw)] for name, raw in headers]]
            for key, value, timestamp_ms, headers in rows
        ]
    )


def _decode(batch: bytes) -> list[_Row]:
    return [
        (_bytes(key), _bytes(value), timestamp_ms, [(_read_name(name), _bytes(raw)) for name, raw in headers])
        for key, value, timestamp_ms, headers in orjson.loads(batch)
    ]
