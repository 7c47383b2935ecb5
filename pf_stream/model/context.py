"""The context that a handler is given: who asked for what, and when. Frozen data, no services."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

__all__ = ["ANONYMOUS", "Caller", "Context", "event_time_ms", "parse_time_ms"]


class Caller(Protocol):
    """Who sent the intent, as proven by the token."""

    @property
    def subject(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class _Anonymous:
    subject: str = ""
    tenant: str | None = None


ANONYMOUS: Final[Caller] = _Anonymous()
"""The caller of an intent that requires nothing and came without a context."""


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
        "_caller",
        "_headers",
        "_now_ms",
        "_offset",
        "_partition",
        "_timer",
        "_timestamp_ms",
        "_topic",
    )

    def __init__(
        self,
        caller: Caller,
        headers: dict[str, bytes],
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        now_ms: int,
        timer: Waited | None = None,
    ) -> None:
        self._caller = caller
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
        return self._caller.subject

    @property
    def tenant(self) -> str | None:
        """On whose behalf."""
        return self._caller.tenant

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
        return event_time_ms(self._headers, self._timestamp_ms)

    @property
    def time(self) -> datetime:
        """Event time, aware, UTC."""
        return datetime.fromtimestamp(self.time_ms / 1000, UTC)

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


_EARLIEST_MS: Final = -62_135_596_800_000
_LATEST_MS: Final = 253_402_300_799_000
"""The first and the last second that a datetime holds, years 1 to 9999."""


def event_time_ms(headers: Mapping[str, bytes], timestamp_ms: int) -> int:
    """When what a record tells of happened: its ``ce_time``, else its timestamp; milliseconds since the epoch.

    A producer may write any 64 bits as the timestamp. What no datetime holds is taken for the nearest that one does.
    """
    raw = headers.get("ce_time")
    parsed = None if raw is None else parse_time_ms(raw)
    return min(max(timestamp_ms if parsed is None else parsed, _EARLIEST_MS), _LATEST_MS)


def parse_time_ms(text: bytes) -> int | None:
    """RFC 3339 (section 5.6) to milliseconds since the epoch; ``None`` if it is no such time, or has no zone."""
    try:
        parsed = datetime.fromisoformat(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    if parsed.tzinfo is None:
        return None
    return round(parsed.timestamp() * 1000)
