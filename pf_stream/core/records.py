"""What the step reads."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["APPEND_TIME", "CREATE_TIME", "Header", "Record", "SourceRecord"]

Header = tuple[str, bytes | None]

CREATE_TIME = 0
"""``timestamp_type`` of a record that carries its producer's clock."""
APPEND_TIME = 1
"""``timestamp_type`` of a record that the broker stamped when it appended it."""


class Record(Protocol):
    """A Kafka record of a known topic and partition. aiokafka's parsed records are such, without a copy."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch."""
        ...

    @property
    def timestamp_type(self) -> int | None: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


class SourceRecord(NamedTuple):
    """A record made in memory."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    timestamp_type: int = APPEND_TIME
