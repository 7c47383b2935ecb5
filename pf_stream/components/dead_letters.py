"""Dead letters: what was refused, and why."""

import base64
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from pf_stream.core.refusal import CODES
from pf_stream.errors import NotFoundError, PFError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import TopicRecord, read_topic
from pf_stream.kafka.topics import Purpose, required_topics
from pf_stream.model import Topology
from pf_stream.model._names import nearest

__all__ = [
    "HIDDEN",
    "BadPositionError",
    "DeadLetter",
    "check_code",
    "dead_letter_topics",
    "last_dead_letters",
    "parse_dead_letter",
    "read_dead_letter",
]

HIDDEN: Final = "(hidden)"
"""What is shown in place of a token."""

SUFFIX: Final = ".dlq"


class BadPositionError(PFError):
    """Raised when a text does not say where a dead letter lies."""

    code = "bad_position"

    def __init__(self, text: str, fault: str) -> None:
        super().__init__(f"{text!r} {fault}; write it as pf dlq list shows it: TOPIC{SUFFIX}:PARTITION:OFFSET")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was refused."""

    position: str
    """Where it lies: ``topic:partition:offset``."""
    code: str
    """Why, for programs; one of :data:`pf_stream.core.CODES`."""
    message: str
    """Why, for people."""
    exception: str
    """Name of the error."""
    origin: str
    """Where the refused record lay: ``topic:partition:offset``."""
    type: str | None
    """Type of the intent, as its sender named it."""
    timestamp_ms: int
    """When it was refused, milliseconds since the epoch."""
    key: str | None
    """Its key, as text."""
    headers: tuple[tuple[str, str | None], ...]
    """Its headers as text, but for a token."""
    value: Any
    """Its JSON; text, or base64, where it is none."""


def dead_letter_topics(topology: Topology) -> list[str]:
    """Where the topology's dead letters go."""
    return [spec.name for spec in required_topics(topology) if spec.purpose is Purpose.dead_letters]


def check_code(code: str) -> None:
    """That records can be refused for *code*; raises :class:`NotFoundError`."""
    if code not in CODES:
        raise NotFoundError(f"there is no code {code!r}{nearest(code, CODES)}")


def last_dead_letters(
    settings: ConnectionSettings, topology: Topology, count: int, codes: Collection[str] = ()
) -> list[DeadLetter]:
    """The last *count* dead letters, of *codes* if some are given, the latest last.

    Raises:
        NotFoundError: there is no such code.
        TopicMissingError: a dead letter topic does not exist.
    """
    for code in codes:
        check_code(code)
    found: list[DeadLetter] = []
    for topic in dead_letter_topics(topology):
        # A code can only be looked for from the beginning; without one, each partition's last are enough.
        records = read_topic(settings, topic, start=None if codes else -count)
        found += _last(records, count, codes)
    return sorted(found, key=lambda letter: letter.timestamp_ms)[-count:]


def _last(records: Iterator[TopicRecord], count: int, codes: Collection[str]) -> list[DeadLetter]:
    by_partition: dict[int, deque[TopicRecord]] = {}
    for record in records:
        if not codes or record.header("pf-error-code") in codes:
            by_partition.setdefault(record.partition, deque(maxlen=count)).append(record)
    return [parse_dead_letter(record) for kept in by_partition.values() for record in kept]


def read_dead_letter(settings: ConnectionSettings, position: str) -> DeadLetter:
    """The dead letter at ``topic:partition:offset``.

    Raises:
        BadPositionError: *position* is written in another way.
        NotFoundError: nothing lies there.
    """
    parts = position.rsplit(":", 2)
    if len(parts) != 3 or not parts[1].isdecimal() or not parts[2].isdecimal():
        raise BadPositionError(position, "is no position")
    topic, partition, offset = parts[0], int(parts[1]), int(parts[2])
    if not topic.endswith(SUFFIX):
        raise BadPositionError(position, "is not in a topic of dead letters")
    for record in read_topic(settings, topic, partitions=[partition], start=offset, count=1):
        if record.offset == offset:
            return parse_dead_letter(record)
    raise NotFoundError(f"there is no dead letter at {position}")


def parse_dead_letter(record: TopicRecord) -> DeadLetter:
    """What a record of a dead letter topic says."""
    origin = [record.header(f"__streams.errors.{part}") or "?" for part in ("topic", "partition", "offset")]
    return DeadLetter(
        position=f"{record.topic}:{record.partition}:{record.offset}",
        code=record.header("pf-error-code") or "unknown",
        message=record.header("__streams.errors.message") or "",
        exception=record.header("__streams.errors.exception") or "",
        origin=":".join(origin),
        type=record.header("ce_type"),
        timestamp_ms=record.timestamp,
        key=None if record.key is None else record.key.decode(errors="replace"),
        headers=tuple((name, HIDDEN if name.lower() == "pf-context" else _text(raw)) for name, raw in record.headers),
        value=_value(record.value),
    )


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="replace")


def _value(raw: bytes | None) -> Any:
    if raw is None:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(raw).decode()}"
