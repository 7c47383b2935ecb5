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
    't'        reactor key name                      a timer, see below; deleted when it fires or is cancelled. Of a record that
                                                     was put aside: an empty reactor, its topic, its offset in digits
    'e'        -                                     int64 event clock, milliseconds since the epoch
    'c'        topic lane                            int64 event time that an upstream has reached; the lane is group:partition
                                                     as in pf-watermark, or an incarnation, or empty for a public topic
    'i'        name key subject ce_id                int64 end, int64 offset, topic: until when a second intent of that
                                                     subject and id is dropped, and the record of the first
    'n'        reactor                               int64 windows that are open; deleted when none is
    'p'        -                                     uint32 attempts, key of a timer: what is tried next, by a lane whose workers
                                                     ended again and again; a record as if it were put aside

    timer      = 0x02 clock due judged offset timestamp timestamp_type flags failed end blob blob header* topic header*
    clock      uint8: 0 wall, 1 event; due, judged, timestamp: int64, milliseconds since the epoch; offset: int64
    flags      uint8: 1 if a handler made it, not if it was put aside; 2 if it has a deadline; failed: uint16, attempts that failed
    end        uint32: where the topic begins; what comes from there on many timers have in common
    blob       of the record's key and value: 0xff for none; else the length in a byte, or if it is above 0xfd 0xfe and the length as
               int32; and bytes
    header     0x80 + n: the n-th of TIMER_HEADERS; n: the n-th name of TIMER_HEADER_NAMES, counted from 1, and a blob; 0: two
               blobs, its name and its value
    earlier    = 0x01 clock due judged offset timestamp timestamp_type flags failed topic blob blob (blob blob)*
               where a blob is an int32 length, -1 for none, and bytes; this was written before, and is still read

A state's own key has no subkey; that of an entry of one of its maps is ``field ('i' int | 's' text)``, its value that of a state
with the JSON of the entry. ``int`` is 0x80 plus the number of bytes that follow, which hold it; if it is negative, 0x80 minus that
number, and they hold it plus 256 to the power of that. So entries are sorted as their keys are.

``reactor``, ``topic``, ``field``, ``incarnation``, ``lane`` are a length byte and UTF-8; ``key``, ``name``, ``subject`` and
``ce_id`` are a uint32 length and bytes, ``text`` is UTF-8 to the end. Integers are
big-endian. Everything that one micro-batch decides is one record batch, which Kafka appends whole or not at all; the
topic is compacted, which keeps the last value of each key.
"""

import struct
from functools import lru_cache
from typing import Final

__all__ = [
    "BEHIND_ENTRIES",
    "EVENT_CLOCK",
    "EVENT_CLOCK_VALUE",
    "FENCE",
    "FORMAT",
    "FORMAT_BYTE",
    "HEADER",
    "ONCE_VALUE",
    "SUSPECT",
    "TIMER_FORMAT",
    "TIMER_HEADERS",
    "TIMER_HEADER_NAMES",
    "UNIT",
    "UNIT_VALUE",
    "WATERMARK_VALUE",
    "WINDOWS_VALUE",
    "entries_range",
    "mark_key",
    "once_key",
    "outbox_key",
    "pack_entry_key",
    "pack_name",
    "pack_state",
    "parse_entry_key",
    "parse_name",
    "parse_state_key",
    "parse_subkey",
    "state_key",
    "state_key_end",
    "state_prefix",
    "timer_key",
    "upstream_key",
    "watermark_key",
    "windows_key",
]

FORMAT: Final = 1
FORMAT_BYTE: Final = b"\x01"
"""First byte of every key."""
HEADER: Final = b"\x01h"
FENCE: Final = b"\x01f"
UNIT: Final = b"\x01u"
EVENT_CLOCK: Final = b"\x01e"
SUSPECT: Final = b"\x01p"
BEHIND_ENTRIES: Final = b"\xff"
"""No subkey and no key within a field begins so: ids of fields have at most 128 bytes."""

TIMER_FORMAT: Final = 2
"""First byte of a timer."""
TIMER_HEADERS: Final = (("ce_specversion", b"1.0"), ("content-type", b"application/json"))
"""Headers that nearly every record has. What waits is very many timers, so these are a byte in one; the list only ever grows."""
TIMER_HEADER_NAMES: Final = (
    "ce_type",
    "ce_source",
    "ce_id",
    "ce_time",
    "pf-hops",
    "pf-context",
    "pf-service",
    "pf-deadline",
    "pf-not-before",
    "pf-reply-to",
    "pf-correlation-id",
    "pf-source",
    "pf-watermark",
    "pf-trace",
    "traceparent",
    "tracestate",
)
"""Names of headers, likewise."""

UNIT_VALUE = struct.Struct(">qq")
WATERMARK_VALUE = struct.Struct(">q16s")
WINDOWS_VALUE = struct.Struct(">q")
MARK_VALUE = struct.Struct(">qi")
EVENT_CLOCK_VALUE = struct.Struct(">q")
ONCE_VALUE = struct.Struct(">qq")  # and the topic
OUTBOX_KEY = struct.Struct(">2sqH")
STATE_PREFIX = struct.Struct(">BH")
_LENGTH = struct.Struct(">I")


@lru_cache(maxsize=4_096)
def pack_name(text: str) -> bytes:
    """A length byte and UTF-8."""
    raw = text.encode()
    return bytes((len(raw),)) + raw


def parse_name(data: bytes, at: int) -> tuple[str, int]:
    """A length byte and UTF-8 at *at*: the text and the position behind it."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def state_prefix(reactor: str) -> bytes:
    """First bytes of every state key of a reactor."""
    return b"\x01s" + pack_name(reactor)


def state_key(prefix: bytes, key: bytes) -> bytes:
    """Changelog key of the state under *key*; *prefix* is the reactor's :func:`state_prefix`."""
    return prefix + _LENGTH.pack(len(key)) + key


def parse_state_key(data: bytes) -> tuple[str, bytes, bytes]:
    """Reactor id, key and subkey (empty for the state itself)."""
    reactor, at = parse_name(data, 2)
    end = state_key_end(data)
    return reactor, data[at + _LENGTH.size : end], data[end:]


def state_key_end(data: bytes) -> int:
    """Where the subkey begins in the key of a state or an entry: the length of the state's own key."""
    at = 7 + data[2]
    return at + int.from_bytes(data[at - 4 : at], "big")


def entries_range(key: bytes) -> tuple[bytes, bytes]:
    """Between which keys, the first one included, those of the entries of a state lie; *key* is the state's own."""
    return key + b"\x01", key + BEHIND_ENTRIES


def pack_entry_key(key: int | str) -> bytes:
    """Key of an entry within its field: sorted as the keys are, among those of one type.

    Raises ``ValueError`` for a number of more than 127 bytes, and for a text that has no UTF-8.
    """
    if isinstance(key, str):
        return b"s" + key.encode()
    length = (abs(key).bit_length() + 7) // 8
    if length > 127:
        raise ValueError("a number of more than 127 bytes cannot be the key of an entry")
    if key < 0:
        return b"i%c" % (0x80 - length) + (key + (1 << 8 * length)).to_bytes(length, "big")
    return b"i%c" % (0x80 + length) + key.to_bytes(length, "big")


def parse_entry_key(data: bytes, at: int) -> int | str:
    """What :func:`pack_entry_key` made, from *at* to the end; raises ``ValueError`` if it did not."""
    match data[at : at + 1]:
        case b"s":
            return data[at + 1 :].decode()
        case b"i" if data[at + 1 :] and len(data) - at - 2 == abs(data[at + 1] - 0x80):
            number = int.from_bytes(data[at + 2 :], "big")
            return number if data[at + 1] >= 0x80 else number - (1 << 8 * (0x80 - data[at + 1]))
    raise ValueError(f"{data[at:]!r} is no key of an entry")


def parse_subkey(data: bytes) -> tuple[str, int | str]:
    """Field and key of an entry; raises ``ValueError`` if that is not what *data* is."""
    field, at = parse_name(data, 0)
    return field, parse_entry_key(data, at)


def pack_state(version: int, json: bytes) -> bytes:
    """Value of a state record."""
    return STATE_PREFIX.pack(FORMAT, version) + json


def watermark_key(reactor: str, topic: str) -> bytes:
    """Changelog key of the next offset that *reactor* has not yet seen of *topic*."""
    return b"\x01w" + pack_name(reactor) + pack_name(topic)


def windows_key(reactor: str) -> bytes:
    """Changelog key of how many windows of *reactor* are open."""
    return b"\x01n" + pack_name(reactor)


def mark_key(topic: str, incarnation: str) -> bytes:
    """Changelog key of the last record taken from an upstream lane."""
    return b"\x01d" + pack_name(topic) + pack_name(incarnation)


def upstream_key(topic: str, lane: str) -> bytes:
    """Changelog key of the event time that an upstream has reached."""
    return b"\x01c" + pack_name(topic) + pack_name(lane)


def outbox_key(sequence: int, index: int) -> bytes:
    """Changelog key of an output that waits to be sent."""
    return OUTBOX_KEY.pack(b"\x01o", sequence, index)


def timer_key(reactor: str, key: bytes, name: bytes) -> bytes:
    """Changelog key of the timer of that name which *reactor* set for *key*."""
    return b"\x01t" + pack_name(reactor) + _LENGTH.pack(len(key)) + key + _LENGTH.pack(len(name)) + name


def once_key(name: bytes, key: bytes, subject: bytes, ce_id: bytes) -> bytes:
    """Changelog key of the mark of an intent that is handled once."""
    return b"\x01i" + b"".join(_LENGTH.pack(len(part)) + part for part in (name, key, subject, ce_id))
