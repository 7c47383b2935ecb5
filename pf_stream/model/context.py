"""The context that a handler is given: who asked for what, and when. Frozen data, no services."""

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from pf_stream.model.callers import MAX_TRACE, Caller
from pf_stream.model.table import GlobalTable

__all__ = [
    "EARLIEST_MS",
    "LATEST_MS",
    "Context",
    "event_time_ms",
    "is_traceparent",
    "parse_time_ms",
    "request_id_of",
    "trace_of",
]

_traceparent: Final = re.compile(
    rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.{0,400})?"
).fullmatch


class Claims(Protocol):
    """What the sender's token says, as far as contexts tell it."""

    @property
    def subject(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...
    @property
    def caller(self) -> Caller: ...


class Rows(Protocol):
    """What tables hold."""

    def row(self, table: GlobalTable[Any], key: bytes) -> Any: ...


R = TypeVar("R")

_NOBODY: Final = Caller()


class Waited(Protocol):
    """The timer that brought an intent."""

    @property
    def due_ms(self) -> int: ...
    @property
    def scheduled(self) -> bool: ...


class Context:
    """What a handler may know beside the intent and its state.

    The same intent always yields an equal context, so a handler that uses nothing else decides alike on every run.
    Properties are computed when read: most handlers read one or two.
    """

    __slots__ = (
        "_claims",
        "_headers",
        "_hops",
        "_now_ms",
        "_offset",
        "_partition",
        "_rows",
        "_time_ms",
        "_timer",
        "_timestamp_ms",
        "_topic",
        "_watermark_ms",
    )

    def __init__(
        self,
        claims: Claims | None,
        headers: dict[str, bytes],
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        now_ms: int,
        timer: Waited | None = None,
        hops: int = 0,
        watermark_ms: int | None = None,
        time_ms: int | None = None,
        rows: Rows | None = None,
    ) -> None:
        self._rows = rows
        self._time_ms = time_ms
        self._watermark_ms = watermark_ms
        self._claims = claims
        self._hops = hops
        self._headers = headers
        self._topic = topic
        self._partition = partition
        self._offset = offset
        self._timestamp_ms = timestamp_ms
        self._now_ms = now_ms
        self._timer = timer

    @property
    def subject(self) -> str:
        """Who asked; the empty string for an intent that requires nothing and came without a context."""
        return "" if self._claims is None else self._claims.subject

    @property
    def tenant(self) -> str | None:
        """On whose behalf."""
        return None if self._claims is None else self._claims.tenant

    @property
    def caller(self) -> Caller:
        """Who asked, with all that the token says, and how the request came here."""
        known = _NOBODY if self._claims is None else self._claims.caller
        return replace(known, request_id=self.request_id, trace=trace_of(self._headers, self._hops), hops=self._hops)

    @property
    def request_id(self) -> str:
        """The request that this intent is part of, 32 hexadecimal digits: what it causes has the same.

        The trace-id of the sender's ``traceparent`` (W3C Trace Context), else one made of the position of the first record.
        """
        caused = self._hops > 0 or (self._timer is not None and self._timer.scheduled)
        return request_id_of(self._headers, None if caused else self.position)

    @property
    def now_ms(self) -> int:
        """Processing time, milliseconds since the epoch: the same for every run of this intent's unit."""
        return self._now_ms

    @property
    def now(self) -> datetime:
        """Processing time, aware, UTC."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    @property
    def time_ms(self) -> int:
        """Event time, milliseconds since the epoch: ``ce_time``, else the record's timestamp."""
        if self._time_ms is None:
            self._time_ms = event_time_ms(self._headers, self._timestamp_ms)
        return self._time_ms

    @property
    def time(self) -> datetime:
        """Event time, aware, UTC."""
        return datetime.fromtimestamp(self.time_ms / 1000, UTC)

    @property
    def watermark_ms(self) -> int | None:
        """The lane's event clock when this intent is handled, milliseconds since the epoch: intents of earlier event times
        may come, and are late. ``None`` where no reactor asked for it (``event_time=True``) and no timer runs on it, and
        while an upstream has yet to say how far it is."""
        return self._watermark_ms

    def row(self, table: GlobalTable[R], key: str | bytes) -> R | None:
        """The row of *table* under *key*, or ``None``: as it is for the whole unit that this intent is handled in. A unit that
        is undone and done again may see a newer one.

        Raises :class:`LookupError` if the topology does not have the table.
        """
        if self._rows is None:
            raise LookupError(f"the topology has no table of {table.topic!r}: Topology(..., tables=[...])")
        found: R | None = self._rows.row(table, key.encode() if isinstance(key, str) else key)
        return found

    @property
    def due_ms(self) -> int | None:
        """When the timer that brought this intent was due, milliseconds since the epoch; ``None`` if it did not wait."""
        return None if self._timer is None else self._timer.due_ms

    @property
    def intent_id(self) -> str:
        """The sender's ``ce_id``."""
        return self._headers["ce_id"].decode(errors="replace")

    @property
    def source(self) -> str:
        """The sender's ``ce_source``."""
        return self._headers["ce_source"].decode(errors="replace")

    @property
    def position(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the record; of a scheduled intent its topic, and the offset of what scheduled it."""
        return self._topic, self._partition, self._offset

    def uuid(self, name: str = "") -> uuid.UUID:
        """A UUID (version 5) that is the same on every run of this intent; *name* tells several apart."""
        # A scheduled intent has no record of its own; its id is made of the one that scheduled it, and a number.
        scheduled = self._timer is not None and self._timer.scheduled
        origin = self.intent_id if scheduled else f"{self._topic}:{self._partition}:{self._offset}"
        return uuid.uuid5(uuid.NAMESPACE_URL, f"pf:{origin}:{name}")

    def __repr__(self) -> str:
        return f"Context(subject={self.subject!r}, tenant={self.tenant!r}, position={self.position!r})"


EARLIEST_MS: Final = -62_135_596_800_000
LATEST_MS: Final = 253_402_300_799_000
"""The first and the last second that a datetime holds, years 1 to 9999."""


def request_id_of(headers: Mapping[str, bytes], position: tuple[str, int, int] | None) -> str:
    """The id of a record's request; *position* is its own, or ``None`` if the engine made it because of another record."""
    given = _traceparent(headers.get("traceparent") or b"")
    if given is not None:
        return given[1].decode()
    # An engine's id is the position of the record that caused it, and a number.
    origin = headers["ce_id"].rpartition(b":")[0] if position is None else "{}:{}:{}".format(*position).encode()
    return hashlib.blake2b(origin, digest_size=16).hexdigest()


def is_traceparent(value: bytes | None) -> bool:
    """Whether *value* is a ``traceparent`` (W3C Trace Context, section 3.2); what is none says nothing."""
    return _traceparent(value or b"") is not None


def trace_of(headers: Mapping[str, bytes], hops: int) -> tuple[str, ...]:
    """What a record's request went through, ``{topology}/{reactor}``, the latest last; nothing for one that a client sent."""
    if not hops:
        return ()
    earlier = headers.get("pf-trace") or b""
    steps = [*filter(None, earlier.split(b">")), headers["ce_source"].removeprefix(b"/")]
    return tuple(step.decode(errors="replace") for step in steps[-MAX_TRACE:])


def event_time_ms(headers: Mapping[str, bytes], timestamp_ms: int) -> int:
    """When what a record tells of happened: its ``ce_time``, else its timestamp; milliseconds since the epoch.

    A producer may write any 64 bits as the timestamp. What no datetime holds is taken for the nearest that one does.
    """
    raw = headers.get("ce_time")
    time_ms = None
    if raw is not None:
        second, end_ms = raw[:19], _ENDS_MS.get(raw[19:])
        second_ms = _seconds_ms.get(second)
        if second_ms is not None and end_ms is not None:
            return second_ms + end_ms
        time_ms = parse_time_ms(raw)
        if time_ms is not None and end_ms is not None and _second(second) and time_ms - end_ms < LATEST_MS:
            if len(_seconds_ms) >= _SECONDS_KEPT:
                _seconds_ms.clear()
            _seconds_ms[second] = time_ms - end_ms
    if time_ms is None:
        time_ms = timestamp_ms
    if EARLIEST_MS <= time_ms <= LATEST_MS:
        return time_ms
    return EARLIEST_MS if time_ms < 0 else LATEST_MS


_ENDS_MS: Final = {
    fraction + zone: ms
    for zone in (b"Z", b"+00:00")
    for fraction, ms in ((b"", 0), *((b".%03d" % ms, ms) for ms in range(1000)))
}
"""What is mostly written behind the seconds, and what it adds."""
_SECONDS_KEPT: Final = 1024
_seconds_ms: Final[dict[bytes, int]] = {}
"""Seconds that were met of late with such an end: times come in crowds."""
_second: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}").fullmatch


def parse_time_ms(text: bytes) -> int | None:
    """RFC 3339 (section 5.6) to milliseconds since the epoch; ``None`` if it is no such time, or has no zone."""
    try:
        parsed = datetime.fromisoformat(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    if parsed.tzinfo is None:
        return None
    return round(parsed.timestamp() * 1000)
