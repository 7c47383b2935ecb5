"""Record batches with header names that are no UTF-8: aiokafka neither reads nor writes them.

Brokers do not check header names, so one such record from any client would stop its partition for good. Here a name is
text by ``surrogateescape`` (PEP 383), which gives the same bytes back. Slow; only used where aiokafka gives up.

Source: Apache Kafka documentation, "Message format", sections "Record Batch" and "Record".
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from aiokafka import codec
from aiokafka.errors import CorruptRecordException

from pf_stream.core.records import Header, SourceRecord

__all__ = ["LenientBuilder", "read_leniently"]

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_FROM: Final = 12
_MAGIC: Final = 2
_CODEC_MASK: Final = 0x07
_APPEND_TIME: Final = 0x08
_ZSTD: Final = 4
_DECODERS: Final = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, _ZSTD: codec.zstd_decode}


def read_leniently(batch: bytes) -> Iterator[SourceRecord]:
    """The records of one batch; raises aiokafka's ``CorruptRecordException`` if it is not built as it should be."""
    base, _, _, _, _, attributes, _, first, latest, _, _, _, count = _HEADER.unpack_from(batch)
    body = batch[_HEADER.size :]
    compression = attributes & _CODEC_MASK
    try:
        if compression:
            body = _DECODERS[compression](body)
        stamped = int(bool(attributes & _APPEND_TIME))
        reader = _Reader(body)
        for _ in range(count):
            end = reader.varint() + reader.at
            reader.take(1)  # attributes, of which there are none
            timestamp = reader.varint()
            offset = reader.varint()
            record = SourceRecord(
                offset=base + offset,
                timestamp=latest if stamped else first + timestamp,
                key=reader.text(),
                value=reader.text(),
                headers=[
                    ((reader.text() or b"").decode(errors="surrogateescape"), reader.text())
                    for _ in range(reader.varint())
                ],
                timestamp_type=stamped,
            )
            if reader.at != end:
                raise IndexError(end)
            yield record
    except (IndexError, KeyError) as error:
        raise CorruptRecordException(f"the batch at offset {base} has wrong lengths or an unknown codec") from error


class _Reader:
    """A position in the body of a batch."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def varint(self) -> int:
        """A zigzag-encoded integer of up to ten bytes."""
        value = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7

    def take(self, length: int) -> bytes:
        end = self.at + length
        if length < 0 or end > len(self._data):
            raise IndexError(end)
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def text(self) -> bytes | None:
        """Bytes with their length in front, -1 for none."""
        length = self.varint()
        return None if length == -1 else self.take(length)


class LenientBuilder:
    """Builds one batch, with the methods of aiokafka's builder that :class:`~pf_stream.kafka.batch.BatchBuilder` uses."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._times: list[int] = []

    def append(
        self, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Sequence[Header]
    ) -> bool | None:
        """Add a record; ``None`` if the batch is full. The first record always fits."""
        first = self._times[0] if self._times else timestamp_ms
        record = bytearray(1)
        record += _varint(timestamp_ms - first) + _varint(offset) + _text(key) + _text(value) + _varint(len(headers))
        for name, data in headers:
            record += _text(name.encode(errors="surrogateescape")) + _text(data)
        framed = _varint(len(record)) + record
        if self._times and _HEADER.size + len(self._body) + len(framed) > self._max_bytes:
            return None
        self._body += framed
        self._times.append(timestamp_ms)
        return True

    def build(self) -> bytes:
        """The batch, uncompressed, without its checksum."""
        count = len(self._times)
        length = _HEADER.size - _LENGTH_FROM + len(self._body)
        times = self._times[0], max(self._times)
        return _HEADER.pack(0, length, -1, _MAGIC, 0, 0, count - 1, *times, -1, -1, -1, count) + self._body


def _varint(value: int) -> bytes:
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _text(data: bytes | None) -> bytes:
    return b"\x01" if data is None else _varint(len(data)) + data
