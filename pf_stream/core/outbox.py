"""Values of the changelog's outbox records: outputs that are committed and wait to be sent.

::

    value = 0x01 form topic partition body
    form  'b': body is the record batch to append to the target, complete but for the producer id, epoch and sequence
          'p': body is JSON and points at a source record, too large to be kept twice: topic, partition, offset, timestamp,
               headers to be added (base64) and dropped; the rest is read again when it is sent

``topic`` is a length byte and UTF-8, ``partition`` an int32, big-endian.
"""

import base64
import struct
from dataclasses import dataclass

import orjson

from pf_stream.core.changelog import parse_name
from pf_stream.core.records import Header

__all__ = ["BatchEntry", "OutboxEntry", "PointerEntry", "decode_entry", "encode_entry"]

_PARTITION = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """A record batch for one partition."""

    topic: str
    """Target topic."""
    partition: int
    """Target partition."""
    batch: bytes
    """The record batch, magic 2."""


@dataclass(frozen=True, slots=True)
class PointerEntry:
    """A record to be copied from where it was read."""

    topic: str
    """Target topic."""
    partition: int
    """Target partition."""
    source: str
    """Topic of the original."""
    source_partition: int
    """Partition of the original."""
    offset: int
    """Offset of the original."""
    timestamp_ms: int
    """Timestamp of the copy."""
    headers: tuple[Header, ...]
    """Headers to be added to those of the original."""
    drop: frozenset[str]
    """Headers of the original to be left out."""


OutboxEntry = BatchEntry | PointerEntry


def encode_entry(entry: OutboxEntry) -> bytes:
    """Value of an outbox record."""
    name = entry.topic.encode()
    head = bytes((len(name),)) + name + _PARTITION.pack(entry.partition)
    if isinstance(entry, BatchEntry):
        return b"\x01b" + head + entry.batch
    body = {
        "topic": entry.source,
        "partition": entry.source_partition,
        "offset": entry.offset,
        "timestamp": entry.timestamp_ms,
        "drop": sorted(entry.drop),
        "headers": [[key, None if value is None else base64.b64encode(value).decode()] for key, value in entry.headers],
    }
    return b"\x01p" + head + orjson.dumps(body)


def decode_entry(value: bytes) -> OutboxEntry:
    """The entry of an outbox record's value."""
    topic, at = parse_name(value, 2)
    (partition,) = _PARTITION.unpack_from(value, at)
    body = value[at + _PARTITION.size :]
    if value[1:2] == b"b":
        return BatchEntry(topic, partition, body)
    data = orjson.loads(body)
    headers = tuple((key, None if raw is None else base64.b64decode(raw)) for key, raw in data["headers"])
    return PointerEntry(
        topic,
        partition,
        data["topic"],
        data["partition"],
        data["offset"],
        data["timestamp"],
        headers,
        frozenset(data["drop"]),
    )
