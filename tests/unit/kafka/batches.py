"""Record batches as a broker returns them."""

from collections.abc import Iterable

from pf_stream.kafka.batch import BatchBuilder

APPEND_TIME = 0x08
MARKER = 0x20


def batch(base: int, times_ms: Iterable[int], attributes: int = 0) -> bytes:
    """A batch whose first record has offset *base*, of records with these timestamps; *attributes* as in its header."""
    builder = BatchBuilder(100_000, compress=False)
    for timestamp_ms in times_ms:
        assert builder.append(timestamp_ms, b"k", b"v", [])
    raw = bytearray(builder.build())
    raw[0:8] = base.to_bytes(8, "big")
    raw[22] |= attributes
    return bytes(raw)
