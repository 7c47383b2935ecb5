"""Records of a changelog topic, format 1.

A lane's changelog partition holds everything the lane must know after a crash. Keys are bytes::

    key        = 0x01 kind body
    kind       body                                  value
    'h'        -                                     JSON: format, topology, version, partitions, incarnation,
                                                     reactors (id: state version)
    'f'        -                                     JSON: worker, producer id, epoch; marks the start of a lease
    'u'        -                                     int64 unit sequence, int64 sequence up to which outputs were sent
    'w'        reactor topic                         int64 next offset, 16 bytes topic id
    's'        reactor key [subkey]                  0x01, uint16 state version, JSON
    'd'        topic incarnation                     int64 unit sequence, int32 index: the last record taken from it
    'o'        int64 unit sequence, uint16 index     one output, see pf_stream.core.outbox; deleted once sent

``reactor``, ``topic``, ``incarnation`` are a length byte and UTF-8; ``key`` is a uint32 length and bytes. Integers are
big-endian. Everything that one micro-batch decides is one record batch, which Kafka appends whole or not at all; the
topic is compacted, which keeps the last value of each key.
"""

import struct
from typing import Final

__all__ = [
    "FENCE",
    "FORMAT",
    "FORMAT_BYTE",
    "HEADER",
    "UNIT",
    "UNIT_VALUE",
    "WATERMARK_VALUE",
    "mark_key",
    "outbox_key",
    "pack_state",
    "parse_name",
    "parse_state_key",
    "state_key",
    "watermark_key",
]

FORMAT: Final = 1
FORMAT_BYTE: Final = b"\x01"
"""First byte of every key."""
HEADER: Final = b"\x01h"
FENCE: Final = b"\x01f"
UNIT: Final = b"\x01u"

UNIT_VALUE = struct.Struct(">qq")
WATERMARK_VALUE = struct.Struct(">q16s")
MARK_VALUE = struct.Struct(">qi")
OUTBOX_KEY = struct.Struct(">2sqH")
STATE_PREFIX = struct.Struct(">BH")
_LENGTH = struct.Struct(">I")


def _name(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw


def parse_name(data: bytes, at: int) -> tuple[str, int]:
    """A length byte and UTF-8 at *at*: the text and the position behind it."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def state_prefix(reactor: str) -> bytes:
    """First bytes of every state key of a reactor."""
    return b"\x01s" + _name(reactor)


def state_key(prefix: bytes, key: bytes) -> bytes:
    """Changelog key of the state under *key*; *prefix* is the reactor's :func:`state_prefix`."""
    return prefix + _LENGTH.pack(len(key)) + key


def parse_state_key(data: bytes) -> tuple[str, bytes, bytes]:
    """Reactor id, key and subkey (empty for the state itself)."""
    reactor, at = parse_name(data, 2)
    (length,) = _LENGTH.unpack_from(data, at)
    start = at + _LENGTH.size
    return reactor, data[start : start + length], data[start + length :]


def pack_state(version: int, json: bytes) -> bytes:
    """Value of a state record."""
    return STATE_PREFIX.pack(FORMAT, version) + json


def watermark_key(reactor: str, topic: str) -> bytes:
    """Changelog key of the next offset that *reactor* has not yet seen of *topic*."""
    return b"\x01w" + _name(reactor) + _name(topic)


def mark_key(topic: str, incarnation: str) -> bytes:
    """Changelog key of the last record taken from an upstream lane."""
    return b"\x01d" + _name(topic) + _name(incarnation)


def outbox_key(sequence: int, index: int) -> bytes:
    """Changelog key of an output that waits to be sent."""
    return OUTBOX_KEY.pack(b"\x01o", sequence, index)
