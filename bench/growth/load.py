"""The records, as many as are needed, made when they are needed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.growth.topology import GrowthCap
from pf_stream.clock import WallClock
from pf_stream.core.records import Header
from pf_stream.kafka.batch import BatchBuilder, crc32c
from pf_stream.security import SigningKey, mint

__all__ = ["Load", "Row", "account", "batch", "fetched", "tokens"]

DAY_S: Final = 24 * 3600
_APPEND_TIME: Final = 0x08

Row = tuple[bytes, bytes, list[Header]]
"""Key, value and headers."""


@dataclass(frozen=True, slots=True)
class Load:
    """How records are spelled."""

    tokens: Sequence[bytes]
    """By tenant."""
    size: int
    """Bytes of a value."""

    def row(self, seq: int, number: int, tenant: int) -> Row:
        """Record *seq*, for account *number*, with the token of *tenant*."""
        key = account(number)
        head = b'{"account":"%s","tenant":"t%06d","amount":%d,"seq":%d,"memo":"' % (key, tenant, 1 + seq % 7, seq)
        headers: list[Header] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"growth.posted.v1"),
            ("ce_source", b"/bench"),
            ("ce_id", b"%d" % seq),
            ("content-type", b"application/json"),
            ("pf-context", self.tokens[tenant]),
        ]
        return key, head.ljust(self.size - 2, b"x") + b'"}', headers


def account(number: int) -> bytes:
    """Key of an account."""
    return b"a%07d" % number


def tokens(key: SigningKey, audience: str, count: int) -> list[bytes]:
    """A token for each of so many tenants, with which it may post for itself, for a day."""
    now_ms = WallClock().now_ms()
    return [
        mint(
            key,
            subject=f"tenant {number}",
            audience=audience,
            capabilities=[GrowthCap.post(f"/t{number:06d}")],
            now_ms=now_ms,
            lifetime_s=DAY_S,
        ).encode()
        for number in range(count)
    ]


def batch(rows: Iterable[Row]) -> bytes:
    """Records as a producer sends them, just now."""
    now_ms = WallClock().now_ms()
    builder = BatchBuilder(256 << 20, compress=False)
    for key, value, headers in rows:
        builder.append(now_ms, key, value, headers)
    return builder.build()


def fetched(sent: bytes, offset: int) -> bytes:
    """The same as a fetch returns it: from *offset* on, with the time at which the broker appended it."""
    raw = bytearray(sent)
    raw[0:8] = offset.to_bytes(8, "big")
    raw[22] |= _APPEND_TIME
    raw[17:21] = crc32c(bytes(raw[21:])).to_bytes(4, "big")
    return bytes(raw)
