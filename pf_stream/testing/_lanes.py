"""A lane between topics and a changelog in memory: what the engine does, one action at a time."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Literal, TypeAlias

import orjson

from pf_stream.core import (
    Authority,
    BatchEntry,
    CommitUnit,
    Copy,
    GroupPlan,
    Lane,
    Limits,
    Narrowing,
    OutboxEntry,
    Output,
    PointerEntry,
    Rewind,
)
from pf_stream.core.changelog import FENCE, outbox_key
from pf_stream.core.outbox import encode_entry
from pf_stream.core.records import Header
from pf_stream.testing._topics import MemoryTopics
from pf_stream.testing.records import Position

__all__ = ["ActionKind", "MemoryLane"]

ActionKind: TypeAlias = Literal["step", "fire", "commit", "rewind", "output", "mark"]

_BATCH_SIZES: Final = (1, 1, 2, 3, 5, 8, 13, 100, 1000)

_Row: TypeAlias = tuple[bytes | None, bytes | None, int, list[Header]]


class MemoryLane:
    """One partition of one group. The changelog outlives the lane's memory; everything else is made from it again."""

    def __init__(
        self,
        plan: GroupPlan,
        partition: int,
        authority: Authority,
        limits: Limits,
        topics: MemoryTopics,
        narrow: Callable[[Narrowing], bytes | None],
        dice: random.Random,
        changelog: list[tuple[bytes, bytes | None]],
    ) -> None:
        self.plan = plan
        self.partition = partition
        self.changelog = changelog
        """Key and value of every record, in order."""
        self.past: Counter[str] = Counter()
        """Refusals that lives of this lane counted before they ended."""
        self._authority = authority
        self._limits = limits
        self._topics = topics
        self._narrow = narrow
        self._dice = dice
        self.lane = self._recover()

    def _recover(self) -> Lane:
        lane = Lane(self.plan, self.partition, self._authority, self._limits)
        lane.restore(self.changelog)
        for topic, position in lane.begin(f"{self._dice.getrandbits(64):016x}").items():
            if position is None:
                # An id of sixteen bytes, as the broker gives one to each topic.
                lane.start_at(topic, 0, topic.encode()[-16:].rjust(16, b"\0"))
        self.changelog.append((FENCE, b"{}"))
        # What is committed and not known to be sent: by unit, in order, with the indexes that the mark will name.
        self._unsent: list[tuple[int, tuple[int, ...], dict[int, OutboxEntry]]] = [
            (sequence, tuple(entries), entries) for sequence, entries in lane.unsent()
        ]
        return lane

    def crash(self) -> None:
        """Lose everything but the changelog, which may have been compacted in the meantime."""
        self.past += self.lane.refused
        compaction = self._dice.choice(("none yet", "values", "values and tombstones"))
        if compaction != "none yet":
            last = {key: at for at, (key, _) in enumerate(self.changelog)}
            self.changelog[:] = [
                (key, value)
                for at, (key, value) in enumerate(self.changelog)
                if last[key] == at and (value is not None or compaction == "values")
            ]
        self.lane = self._recover()

    # -- actions -------------------------------------------------------------------------------------------------------

    def ready(self, now_ms: int) -> list[ActionKind]:
        """What may be done next, in any order."""
        kinds: list[ActionKind] = []
        lane = self.lane
        # A lane that takes its intents one by one waits for each to be committed.
        waits = lane.is_full or (lane.suspects.careful and lane.has_work)
        due = not waits and lane.is_due(now_ms)
        readable = not waits and any(self._readable(now_ms))
        if due:
            kinds.append("fire")
        elif readable:  # what is due comes first, as in the engine
            kinds.append("step")
        if lane.has_work:
            kinds.append("commit")
        elif lane.has_marks and not (due or readable or self._unsent):
            kinds.append("mark")
        if self._unsent:
            kinds.append("output")
        return kinds

    def do(self, kind: ActionKind, now_ms: int) -> tuple[ActionKind, Position | None]:
        """Do it; returns what was done, which may differ, and for an output where it went."""
        match kind:
            case "step":
                self._step(now_ms)
            case "fire":
                self.lane.fire(now_ms, self._dice.choice(_BATCH_SIZES))
            case "output":
                return kind, self._send_one()
            case _:
                unit = self.lane.seal()
                if isinstance(unit, Rewind):
                    return "rewind", None
                self._append(unit)
        return kind, None

    def wakes_ms(self, now_ms: int) -> int | None:
        """When there is something to do that waits for the clock; ``None`` if there is nothing."""
        pauses = [self.lane.paused_until_ms(topic) for topic in self.lane.positions]
        times = [at_ms for at_ms in (self.lane.next_due_ms, *pauses) if at_ms is not None and at_ms > now_ms]
        return min(times, default=None)

    def _readable(self, now_ms: int) -> Iterator[str]:
        for topic, position in self.lane.positions.items():
            if now_ms >= self.lane.paused_until_ms(topic) and position < len(self._topics.log(topic, self.partition)):
                yield topic

    def _step(self, now_ms: int) -> None:
        topic = self._dice.choice(list(self._readable(now_ms)))
        start = self.lane.positions[topic]
        size = self._dice.choice(_BATCH_SIZES)
        records = islice(self._topics.log(topic, self.partition), start, start + size)
        self.lane.step(topic, records, now_ms)

    def _append(self, unit: CommitUnit) -> None:
        """Make the unit durable, whole; that is its acknowledgement too."""
        entries = dict(enumerate(self._outbox(unit)))
        self.changelog.extend(unit.entries)
        self.changelog.extend((outbox_key(unit.sequence, at), encode_entry(entry)) for at, entry in entries.items())
        self.lane.acknowledged()
        if entries:
            self._unsent.append((unit.sequence, tuple(entries), entries))

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

    def _send_one(self) -> Position:
        """Send the first outbox entry of some target partition, and note a unit of which nothing is left."""
        first: dict[tuple[str, int], tuple[dict[int, OutboxEntry], int]] = {}
        for _, _, entries in self._unsent:
            for index, entry in entries.items():
                first.setdefault((entry.topic, entry.partition), (entries, index))
        entries, index = self._dice.choice(list(first.values()))
        entry = entries.pop(index)
        if isinstance(entry, PointerEntry):
            at = self._copy(entry)
        else:
            for key, value, timestamp_ms, headers in _decode(entry.batch):
                at = self._topics.write(entry.topic, entry.partition, key, value, headers, timestamp_ms)
        while self._unsent and not self._unsent[0][2]:
            sequence, indexes, _ = self._unsent.pop(0)
            self.lane.sent(sequence, indexes)
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
