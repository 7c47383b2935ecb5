"""Timers of a lane: intents that wait, in the changelog like everything else that must survive."""

import struct
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from pf_stream.core import changelog
from pf_stream.core.records import Header, Record, SourceRecord
from pf_stream.core.urgency import Urgency
from pf_stream.model.context import parse_time_ms

__all__ = ["EVENT", "WALL", "Timer", "Timers", "held_key"]

WALL: Final = 0
"""A timer of this clock is due when the worker's clock says so."""
EVENT: Final = 1
"""A timer of this clock is due when an intent of that event time arrives."""

DEADLINE: Final = "pf-deadline"
"""Header that says until when an intent is to be handled, RFC 3339."""
_DEADLINE: Final = DEADLINE.encode()

_HEAD = struct.Struct(">BBqqqqBBH")
_DUE = struct.Struct(">q")
_LENGTH = struct.Struct(">i")
_DUE_AT: Final = 2
_ABSENT: Final = -1


@dataclass(frozen=True, slots=True)
class Timer:
    """An intent that waits."""

    due_ms: int
    """When it is due, milliseconds since the epoch."""
    clock: int
    """Of which clock: :data:`WALL` or :data:`EVENT`."""
    topic: str
    """Full name of the topic that it came by, or would go to."""
    record: SourceRecord
    """The record as it came; or, of a scheduled one, as it would be sent, with the token of who caused it and the offset of
    the record that did."""
    judged_ms: int
    """When its context was judged, milliseconds since the epoch."""
    scheduled: bool
    """Whether a handler made it; else it came as a record and was put aside."""
    failed: int
    """Attempts at which its handler raised."""


def held_key(topic: str, offset: int) -> bytes:
    """Changelog key of the timer of a record that was put aside."""
    return changelog.timer_key("", topic.encode(), b"%d" % offset)


def encode_timer(timer: Timer) -> bytes:
    """Value of a timer's changelog record; its layout is that of :mod:`pf_stream.core.changelog`."""
    record = timer.record
    name = timer.topic.encode()
    parts = [
        _HEAD.pack(
            changelog.FORMAT,
            timer.clock,
            timer.due_ms,
            timer.judged_ms,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            timer.scheduled,
            timer.failed,
        ),
        bytes((len(name),)),
        name,
    ]
    for data in (record.key, record.value):
        parts += _blob(data)
    for header, data in record.headers:
        parts += _blob(header.encode(errors="surrogateescape"))
        parts += _blob(data)
    return b"".join(parts)


def decode_timer(raw: bytes) -> Timer:
    """The timer of a changelog record's value."""
    _, clock, due_ms, judged_ms, offset, timestamp, timestamp_type, scheduled, failed = _HEAD.unpack_from(raw)
    topic, at = changelog.parse_name(raw, _HEAD.size)
    blobs: list[bytes | None] = []
    while at < len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        blobs.append(None if length == _ABSENT else raw[at : at + length])
        at += max(length, 0)
    key, value, *fields = blobs
    headers: list[Header] = [
        ((name or b"").decode(errors="surrogateescape"), data)
        for name, data in zip(fields[::2], fields[1::2], strict=True)
    ]
    record = SourceRecord(offset, timestamp, key, value, tuple(headers), timestamp_type)
    return Timer(due_ms, clock, topic, record, judged_ms, bool(scheduled), failed)


def _blob(data: bytes | None) -> tuple[bytes, bytes]:
    return (_LENGTH.pack(_ABSENT), b"") if data is None else (_LENGTH.pack(len(data)), data)


class Timers:
    """All timers of a lane: as they were last sealed, and what the open unit changes.

    Timers wait as bytes and are decoded when they are due: there may be many, and most wait long. Of those that are due, the
    ones of the event clock come first, then by :mod:`pf_stream.core.urgency` those that have a deadline, then the others; each
    by the time at which they were due.
    """

    __slots__ = ("_changed", "_queues", "_sealed", "_sealed_event_ms", "_urgent", "event_ms", "poisoned")

    def __init__(self) -> None:
        self.event_ms: int | None = None
        """The event clock: the latest that :class:`~pf_stream.core.upstreams.Upstreams` ever gave; ``None`` until then."""
        self.poisoned: dict[bytes, str] = {}
        """Timers that alone made a unit that could not be sealed: key to code."""
        self._sealed: dict[bytes, bytes] = {}
        self._sealed_event_ms: int | None = None
        self._changed: dict[bytes, bytes | None] = {}
        # By clock. An entry is good if the timer of that key is due at that time; it is not searched for when one changes.
        self._queues: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]] = ([], [])
        self._urgent: Urgency | None = None
        """Those of the wall clock that have a deadline; ``None`` until there was one."""

    # -- recovery ------------------------------------------------------------------------------------------------------

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take a changelog record."""
        if value is None:
            self._sealed.pop(key, None)
        else:
            self._sealed[key] = value

    def restore_clock(self, event_ms: int | None) -> None:
        """Take the event clock from the changelog; None if it was deleted."""
        self.event_ms = self._sealed_event_ms = event_ms

    def begin(self) -> None:
        """End the recovery."""
        for key, raw in self._sealed.items():
            if not self._is_urgent(key, raw):
                self._queues[raw[1]].append((_due(raw), key))
        for queue in self._queues:
            heapify(queue)

    # -- the open unit -------------------------------------------------------------------------------------------------

    def set(self, key: bytes, raw: bytes) -> None:
        """Set a timer, encoded, in place of the one of that key."""
        self._changed[key] = raw
        self._queue(key, raw)

    def cancel(self, key: bytes) -> None:
        """Remove a timer if it waits."""
        if self._current(key) is not None:
            self._changed[key] = None

    def take_due(self, now_ms: int) -> tuple[bytes, Timer] | None:
        """Remove a timer that is due at *now_ms* or on the event clock, the earliest first; ``None`` if there is none."""
        clock = self._due_clock(now_ms)
        if clock is None:
            return None
        key = self._urgent.take(now_ms) if self._urgent is not None and clock == WALL else None
        if key is None:
            _, key = heappop(self._queues[clock])
        raw = self._current(key)
        assert raw is not None
        self._changed[key] = None
        return key, decode_timer(raw)

    @property
    def waiting(self) -> int:
        """How many wait, the open unit's changes not included."""
        return len(self._sealed)

    def is_due(self, now_ms: int) -> bool:
        """Whether a timer is due at *now_ms* or on the event clock."""
        return self._due_clock(now_ms) is not None

    def _due_clock(self, now_ms: int) -> int | None:
        for clock, reached in ((EVENT, self.event_ms), (WALL, now_ms)):
            due_ms = self.next_due_ms(clock)
            if due_ms is not None and reached is not None and due_ms <= reached:
                return clock
        return None

    def next_due_ms(self, clock: int) -> int | None:
        """When the next timer of a clock is due; ``None`` if there is none."""
        due_ms = self._next_queued_ms(clock)
        if self._urgent is None or clock == EVENT:
            return due_ms
        urgent_ms = self._urgent.next_due_ms()
        return due_ms if urgent_ms is None else urgent_ms if due_ms is None else min(due_ms, urgent_ms)

    def _next_queued_ms(self, clock: int) -> int | None:
        queue = self._queues[clock]
        while queue:
            due_ms, key = queue[0]
            raw = self._current(key)
            if raw is not None and raw[1] == clock and _due(raw) == due_ms:
                return due_ms
            heappop(queue)
        return None

    def move_event_clock(self, event_ms: int) -> bool:
        """Move the event clock, never back. Returns whether a timer is due by it."""
        if self.event_ms is None or event_ms > self.event_ms:
            self.event_ms = event_ms
        return self.may_be_due() and self._due_clock(-1) is not None

    def may_be_due(self) -> bool:
        """Whether a timer may be due on the event clock; soon told."""
        queue = self._queues[EVENT]
        # What was set first of all may be gone, but nothing is due before it was.
        return bool(queue) and self.event_ms is not None and queue[0][0] <= self.event_ms

    def seal(self) -> list[tuple[bytes, bytes | None]]:
        """Make the open unit's changes the sealed ones; returns the changelog records."""
        entries: list[tuple[bytes, bytes | None]] = []
        for key, raw in self._changed.items():
            if raw is not None:
                self._sealed[key] = raw
            elif self._sealed.pop(key, None) is None:
                continue  # set and gone within one unit
            entries.append((key, raw))
        self._changed.clear()
        if self.event_ms != self._sealed_event_ms:
            assert self.event_ms is not None
            self._sealed_event_ms = self.event_ms
            entries.append((changelog.EVENT_CLOCK, changelog.EVENT_CLOCK_VALUE.pack(self.event_ms)))
        if self.poisoned:
            self.poisoned = {key: code for key, code in self.poisoned.items() if key in self._sealed}
        return entries

    def rewind(self) -> None:
        """Forget the open unit's changes."""
        for key in self._changed:
            raw = self._sealed.get(key)
            if raw is not None:
                self._queue(key, raw)
        self._changed.clear()
        self.event_ms = self._sealed_event_ms

    def _queue(self, key: bytes, raw: bytes) -> None:
        if not self._is_urgent(key, raw):
            heappush(self._queues[raw[1]], (_due(raw), key))

    def _is_urgent(self, key: bytes, raw: bytes) -> bool:
        """Whether a timer has a deadline; if so, it waits among those that have one."""
        if _DEADLINE not in raw or raw[1] == EVENT:
            return False
        said = dict(decode_timer(raw).record.headers).get(DEADLINE)
        deadline_ms = None if said is None else parse_time_ms(said)
        if deadline_ms is None:
            return False
        if self._urgent is None:
            self._urgent = Urgency(self._current)
        self._urgent.add(_due(raw), key, raw, deadline_ms)
        return True

    def _current(self, key: bytes) -> bytes | None:
        return self._changed[key] if key in self._changed else self._sealed.get(key)

    def __contains__(self, key: bytes) -> bool:
        return self._current(key) is not None


def size_of(record: Record) -> int:
    """Bytes of a record, by estimate."""
    size = 64 + len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + 8
    return size


def _due(raw: bytes) -> int:
    due_ms: int = _DUE.unpack_from(raw, _DUE_AT)[0]
    return due_ms
