"""What a test reads back from the driver: frozen data, to be compared whole."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from pf_stream.core.records import Header

__all__ = ["DeadLetter", "OutputRecord", "Position"]


class Position(NamedTuple):
    """Where a record lies."""

    topic: str
    """Full name of the topic."""
    partition: int
    """Number of the partition."""
    offset: int
    """Offset within it."""


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A record that the topology wrote."""

    topic: str
    """Full name of the topic."""
    partition: int
    """Number of the partition."""
    key: bytes | None
    """Record key."""
    value: bytes | None
    """Record value."""
    headers: tuple[Header, ...]
    """All headers, in order."""
    timestamp_ms: int
    """Record timestamp, milliseconds since the epoch."""

    def json(self) -> Any:
        """The value, parsed; raises ``ValueError`` if it is no JSON."""
        return orjson.loads(self.value or b"")

    def header(self, name: str) -> bytes | None:
        """The last header of that name, or ``None``."""
        return dict(self.headers).get(name)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was refused."""

    code: str
    """Why, as a code; see :data:`pf_stream.core.CODES`."""
    message: str
    """Why, for people."""
    topic: str
    """Topic of the refused record."""
    partition: int
    """Its partition."""
    offset: int
    """Its offset."""
    record: OutputRecord
    """The dead letter itself: key, value and headers of the refused record, and what was added."""

    @classmethod
    def of(cls, record: OutputRecord) -> "DeadLetter":
        """Read a record of a dead letter topic."""
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        return cls(
            code=headers["pf-error-code"],
            message=headers["__streams.errors.message"],
            topic=headers["__streams.errors.topic"],
            partition=int(headers["__streams.errors.partition"]),
            offset=int(headers["__streams.errors.offset"]),
            record=record,
        )
