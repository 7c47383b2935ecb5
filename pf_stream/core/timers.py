"""Timers of a lane: intents that wait, in the changelog like everything else that must survive."""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from pf_stream.core import changelog
from pf_stream.core.due import DueKeys
from pf_stream.core.endings import NUMBER_BYTES, Endings
from pf_stream.core.records import APPEND_TIME, Header, Record, SourceRecord
from pf_stream.core.urgency import Urgency
from pf_stream.model.context import parse_time_ms

__all__ = ["EVENT", "WALL", "Mould", "Timer", "Timers", "encode_bell", "held_key", "timer_end"]

WALL: Final = 0
"""A timer of this clock is due when the worker's clock says so."""
EVENT: Final = 1
"""A timer of this clock is due when an intent of that event time arrives."""

DEADLINE: Final = "pf-deadline"
"""Header that says until when an intent is to be handled, RFC 3339."""

_HEAD = struct.Struct(">BBqqqqBBHI")
_HEAD_1 = struct.Struct(">BBqqqqBBH")
_END = struct.Struct(">I")
_DUE = struct.Struct(">q")
_LENGTH = struct.Struct(">i")
_DUE_AT: Final = 2
_JUDGED_AT: Final = 10
_FLAGS_AT: Final = 35
_END_AT: Final = 38
_SCHEDULED: Final = 1
_HAS_DEADLINE: Final = 2
_LONG: Final = 0xFE
_SHORT: Final = tuple(bytes((length,)) for length in range(_LONG))
_FIRST_WHOLE: Final = 0x80
_WHOLE: Final[dict[Header, bytes]] = {
    header: bytes((_FIRST_WHOLE + index,)) for index, header in enumerate(changelog.TIMER_HEADERS)
}
_ID: Final = changelog.TIMER_HEADER_NAMES.index("ce_id") + 1
_RUN: Final = 8
"""How many timers that one intent causes follow each other before what they have in common is kept for itself. That takes as
much as it saves in two or three of them."""
_OF_A_RUN: Final = 0
"""First byte of a timer in memory whose common part is kept for itself; else it is the format."""
_COMMON: Final = frozenset(
    {"ce_specversion", "ce_type", "ce_source", "content-type", "pf-hops", "pf-context", "pf-service"}
)
"""Headers that timers of one handler have in common, if one caller sets them."""
_NAMES: Final = {name: bytes((index,)) for index, name in enumerate(changelog.TIMER_HEADER_NAMES, 1)}


class Timer(NamedTuple):
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
    """Value of a timer's changelog record; its layout is that of :mod:`pf_stream.core.changelog`.

    Of what a handler made, headers that many timers have in common come last; else they keep their order.
    """
    record = timer.record
    flags = _SCHEDULED if timer.scheduled else 0
    common: list[Header] = []
    own = [_blob(record.key), _blob(record.value)]
    for header in record.headers:
        name = header[0]
        if timer.scheduled and name in _COMMON:
            common.append(header)
        else:
            own.append(_header(header))
        if name == DEADLINE:
            flags |= _HAS_DEADLINE
    middle = b"".join(own)
    head = _HEAD.pack(
        changelog.TIMER_FORMAT,
        timer.clock,
        timer.due_ms,
        timer.judged_ms,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        flags,
        timer.failed,
        _HEAD.size + len(middle),
    )
    return head + middle + timer_end(timer.topic, tuple(common))


def encode_bell(
    clock: int, due_ms: int, judged_ms: int, offset: int, key: bytes, value: bytes, own: Iterable[Header], end: bytes
) -> bytes:
    """As :func:`encode_timer`, of one that a handler made, without a deadline; *end* is the :func:`timer_end` of its headers that
    many have in common, *own* are the others."""
    middle = b"".join((_blob(key), _blob(value), *map(_header, own)))
    size = _HEAD.size + len(middle)
    form = changelog.TIMER_FORMAT
    head = _HEAD.pack(form, clock, due_ms, judged_ms, offset, judged_ms, APPEND_TIME, _SCHEDULED, 0, size)
    return b"%b%b%b" % (head, middle, end)


class Mould:
    """What timers have in common that a handler sets because of one intent, and that differ in nothing but when they are due, their
    clock, key, value and id."""

    __slots__ = ("_between", "_flags", "_judged_ms", "_offset", "_rest")

    def __init__(self, timer: Timer, raw: bytes) -> None:
        """*raw* is what :func:`encode_timer` made of *timer*, whose first header that is not common is its id."""
        record = timer.record
        own = len(_blob(record.key)) + len(_blob(record.value)) + len(_header(("ce_id", dict(record.headers)["ce_id"])))
        self._offset, self._judged_ms, self._flags = record.offset, timer.judged_ms, raw[_FLAGS_AT]
        self._rest = raw[_HEAD.size + own :]
        """What follows the id."""
        self._between = _END.unpack_from(raw, _END_AT)[0] - own
        """Where the end begins, but for the key, the value and the id."""

    def cast(self, due_ms: int, clock: int, key: bytes, value: bytes, id_: bytes) -> bytes:
        """A timer as :func:`encode_timer` would make it."""
        own = b"%b%b\x03%b" % (_blob(key), _blob(value), _blob(id_))
        head = _HEAD.pack(
            changelog.TIMER_FORMAT,
            clock,
            due_ms,
            self._judged_ms,
            self._offset,
            self._judged_ms,
            APPEND_TIME,
            self._flags,
            0,
            self._between + len(own),
        )
        return head + own + self._rest


@lru_cache(maxsize=4_096)
def timer_end(topic: str, headers: tuple[Header, ...]) -> bytes:
    """What a timer's value ends with, which many have in common."""
    return changelog.pack_name(topic) + b"".join(map(_header, headers))


def _header(header: Header) -> bytes:
    name, data = header
    whole = _WHOLE.get((name, data))
    return whole or (_NAMES.get(name) or b"\0" + _blob(name.encode(errors="surrogateescape"))) + _blob(data)


def decode_timer(raw: bytes) -> Timer:
    """The timer of a changelog record's value."""
    if raw[0] != changelog.TIMER_FORMAT:
        return _decode_format_1(raw)
    _, clock, due_ms, judged_ms, offset, timestamp, timestamp_type, flags, failed, end = _HEAD.unpack_from(raw)
    key, at = _take(raw, _HEAD.size)
    value, at = _take(raw, at)
    topic, common = _common(raw[end:])
    headers = (*_headers(raw, at, end), *common)
    record = SourceRecord(offset, timestamp, key, value, headers, timestamp_type)
    return Timer(due_ms, clock, topic, record, judged_ms, bool(flags & _SCHEDULED), failed)


@lru_cache(maxsize=1_024)
def _common(end: bytes) -> tuple[str, tuple[Header, ...]]:
    """What :func:`timer_end` made: many timers that fire together have the same."""
    topic, at = changelog.parse_name(end, 0)
    return topic, tuple(_headers(end, at, len(end)))


def _headers(raw: bytes, at: int, end: int) -> list[Header]:
    headers: list[Header] = []
    while at < end:
        code = raw[at]
        at += 1
        if code >= _FIRST_WHOLE:
            headers.append(changelog.TIMER_HEADERS[code - _FIRST_WHOLE])
            continue
        if code:
            name = changelog.TIMER_HEADER_NAMES[code - 1]
        else:
            told, at = _take(raw, at)
            name = (told or b"").decode(errors="surrogateescape")
        data, at = _take(raw, at)
        headers.append((name, data))
    return headers


def _decode_format_1(raw: bytes) -> Timer:
    _, clock, due_ms, judged_ms, offset, timestamp, timestamp_type, scheduled, failed = _HEAD_1.unpack_from(raw)
    topic, at = changelog.parse_name(raw, _HEAD_1.size)
    blobs: list[bytes | None] = []
    while at < len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        blobs.append(None if length < 0 else raw[at : at + length])
        at += max(length, 0)
    key, value, *fields = blobs
    headers: list[Header] = [
        ((name or b"").decode(errors="surrogateescape"), data)
        for name, data in zip(fields[::2], fields[1::2], strict=True)
    ]
    record = SourceRecord(offset, timestamp, key, value, tuple(headers), timestamp_type)
    return Timer(due_ms, clock, topic, record, judged_ms, bool(scheduled), failed)


def _blob(data: bytes | None) -> bytes:
    if data is None:
        return b"\xff"
    length = len(data)
    return _SHORT[length] + data if length < _LONG else b"\xfe" + _LENGTH.pack(length) + data


def _take(raw: bytes, at: int) -> tuple[bytes | None, int]:
    """What :func:`_blob` made, at a position, and the position behind it."""
    length = raw[at]
    at += 1
    if length >= _LONG:
        if length > _LONG:
            return None, at
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
    return raw[at : at + length], at + length


class Timers:
    """All timers of a lane: as they were last sealed, and what the open unit changes.

    Timers wait as bytes and are decoded when they are due: there may be many, and most wait long. What many have in common, such
    as the type and the token, is kept once. Of those that are due, the
    ones of the event clock come first, then by :mod:`pf_stream.core.urgency` those that have a deadline, then the others; each
    by the time at which they were due.
    """

    __slots__ = (
        "_alike",
        "_causes",
        "_changed",
        "_endings",
        "_queues",
        "_run",
        "_sealed",
        "_sealed_event_ms",
        "_urgent",
        "event_ms",
        "poisoned",
    )

    def __init__(self) -> None:
        self.event_ms: int | None = None
        """The event clock: the latest that :class:`~pf_stream.core.upstreams.Upstreams` ever gave; ``None`` until then."""
        self.poisoned: dict[bytes, str] = {}
        """Timers that alone made a unit that could not be sealed: key to code."""
        self._sealed: dict[bytes, bytes] = {}
        """Without their ends, but for those that have a deadline; of long runs that one intent caused, what each alone has."""
        self._endings = Endings()
        self._causes = Endings()
        """What the timers of such a run have in common, without the end."""
        self._alike: bytes | None = None
        """The same of the timer that was sealed last."""
        self._run = 0
        """How many before that one had the same."""
        self._sealed_event_ms: int | None = None
        self._changed: dict[bytes, bytes | None] = {}
        # By clock. An entry is good if the timer of that key is due at that time; it is not searched for when one changes.
        self._queues = DueKeys(), DueKeys()
        self._urgent: Urgency | None = None
        """Those of the wall clock that have a deadline; ``None`` until there was one."""

    # -- recovery ------------------------------------------------------------------------------------------------------

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take a changelog record."""
        if value is not None and value[0] != changelog.TIMER_FORMAT:
            value = encode_timer(decode_timer(value))
        self._store(key, value)

    def _store(self, key: bytes, raw: bytes | None) -> bool:
        """Take what is sealed; returns whether that changes anything."""
        before = self._sealed.get(key)
        if raw is not None:
            self._sealed[key] = raw if _has_deadline(raw) else self._shorten(raw)
        elif before is not None:
            del self._sealed[key]
        else:
            return False
        if before is not None:
            self._release(before)
        return True

    def _shorten(self, raw: bytes) -> bytes:
        end = _END.unpack_from(raw, _END_AT)[0]
        short = self._endings.shorten(raw[:end], raw[end:])
        own, alike = _part(short)
        if alike is None or alike != self._alike:
            self._alike, self._run = alike, 0
            return short
        self._run += 1
        if self._run < _RUN:
            return short
        known = self._causes.count
        shorter = self._causes.shorten(own, alike)
        if self._causes.count == known:
            self._endings.release(short)  # what they have in common has the end, once
        return shorter

    def _release(self, kept: bytes) -> None:
        if kept[0] == _OF_A_RUN:
            alike = self._causes.release(kept)
            if alike is not None:
                self._endings.release(alike)
        elif not _has_deadline(kept):
            self._endings.release(kept)

    def restore_clock(self, event_ms: int | None) -> None:
        """Take the event clock from the changelog; None if it was deleted."""
        self.event_ms = self._sealed_event_ms = event_ms

    def begin(self) -> None:
        """End the recovery."""
        for key, raw in self._sealed.items():
            self._queue(key, raw)

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
            key = self._queues[clock].pop()
        timer = decode_timer(self._whole(key))
        self._changed[key] = None
        return key, timer

    @property
    def waiting(self) -> int:
        """How many wait, the open unit's changes not included."""
        return len(self._sealed)

    def is_due(self, now_ms: int) -> bool:
        """Whether a timer is due at *now_ms* or on the event clock."""
        return self._due_clock(now_ms) is not None

    def _due_clock(self, now_ms: int) -> int | None:
        if self.may_be_due():
            due_ms = self.next_due_ms(EVENT)
            if due_ms is not None and self.event_ms is not None and due_ms <= self.event_ms:
                return EVENT
        due_ms = self.next_due_ms(WALL)
        return None if due_ms is None or due_ms > now_ms else WALL

    def next_due_ms(self, clock: int) -> int | None:
        """When the next timer of a clock is due; ``None`` if there is none."""
        due_ms = self._next_queued_ms(clock)
        if self._urgent is None or clock == EVENT:
            return due_ms
        urgent_ms = self._urgent.next_due_ms()
        return due_ms if urgent_ms is None else urgent_ms if due_ms is None else min(due_ms, urgent_ms)

    def _next_queued_ms(self, clock: int) -> int | None:
        queue, changed, sealed = self._queues[clock], self._changed, self._sealed
        while (first := queue.first()) is not None:
            due_ms, key = first
            raw = changed[key] if key in changed else sealed.get(key)
            if raw is not None and raw[1] == clock and _due(raw) == due_ms:
                return due_ms
            queue.pop()
        return None

    def move_event_clock(self, event_ms: int) -> bool:
        """Move the event clock, never back. Returns whether a timer is due by it."""
        if self.event_ms is None or event_ms > self.event_ms:
            self.event_ms = event_ms
        return self.may_be_due() and self._due_clock(-1) is not None

    def may_be_due(self) -> bool:
        """Whether a timer may be due on the event clock; soon told."""
        # What was set first of all may be gone, but nothing is due before it was.
        return self.event_ms is not None and self._queues[EVENT].first_ms <= self.event_ms

    def seal(self) -> list[tuple[bytes, bytes | None]]:
        """Make the open unit's changes the sealed ones; returns the changelog records."""
        entries: list[tuple[bytes, bytes | None]] = []
        for key, raw in self._changed.items():
            if self._store(key, raw):  # else it was set and gone within one unit
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
        if not (_has_deadline(raw) and self._is_urgent(key, raw)):
            self._queues[raw[1]].add(_due(raw), key)

    def _is_urgent(self, key: bytes, raw: bytes) -> bool:
        """Whether a timer that has a deadline waits among those that have one; if so, it does from now on."""
        if raw[1] == EVENT:
            return False
        said = dict(decode_timer(raw).record.headers).get(DEADLINE)
        deadline_ms = None if said is None else parse_time_ms(said)
        if deadline_ms is None:
            return False
        if self._urgent is None:
            self._urgent = Urgency(self._current)
        self._urgent.add(_due(raw), key, raw, deadline_ms)
        return True

    def _whole(self, key: bytes) -> bytes:
        """The timer of a key that has one."""
        changed = self._changed.get(key)
        if changed is not None:
            return changed
        kept = self._sealed[key]
        if kept[0] == _OF_A_RUN:
            kept = _join(kept, self._causes.end(kept))
        elif _has_deadline(kept):
            return kept
        return self._endings.whole(kept)

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


def _part(short: bytes) -> tuple[bytes, bytes | None]:
    """Of a timer without its end: what it alone has, and what it has in common with others that the same intent caused: when that was
    judged and the like, the beginning of the id, and what follows it. ``None`` if it looks as if there were no others."""
    id_at = _HEAD.size
    for _ in range(2):  # key and value
        if short[id_at] >= _LONG:
            return short, None
        id_at += 1 + short[id_at]
    id_end = id_at + 2 + short[id_at + 1]
    number_at = short.rfind(b":", id_at, id_end) + 1
    if short[id_at] != _ID or not number_at or id_end > len(short) - NUMBER_BYTES:
        return short, None
    own = b"%c%b%b%b" % (_OF_A_RUN, short[1:_JUDGED_AT], short[_HEAD.size : id_at], short[number_at:id_end])
    cause = short[id_at + 2 : number_at]
    return own, b"%b%c%b%b" % (short[_JUDGED_AT:_END_AT], len(cause), cause, short[id_end:])


def _join(own: bytes, alike: bytes) -> bytes:
    """A timer without its end; *own* ends with a number for *alike*."""
    at = _JUDGED_AT
    for _ in range(2):
        at += 1 + own[at]
    cause_at = _END_AT - _JUDGED_AT + 1
    cause_end = cause_at + alike[cause_at - 1]
    id_ = alike[cause_at:cause_end] + own[at:-NUMBER_BYTES]
    middle = b"%b%c%c%b%b" % (own[_JUDGED_AT:at], _ID, len(id_), id_, alike[cause_end:])
    return b"%c%b%b%b%b" % (
        changelog.TIMER_FORMAT,
        own[1:_JUDGED_AT],
        alike[: cause_at - 1],
        _END.pack(_HEAD.size + len(middle) - NUMBER_BYTES),
        middle,
    )


def _has_deadline(raw: bytes) -> bool:
    return raw[0] != _OF_A_RUN and bool(raw[_FLAGS_AT] & _HAS_DEADLINE)


def _due(raw: bytes) -> int:
    due_ms: int = _DUE.unpack_from(raw, _DUE_AT)[0]
    return due_ms
