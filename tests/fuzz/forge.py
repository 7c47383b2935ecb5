"""Tokens made of any bytes and signed all the same: what an issuer, or a holder, could send if they meant it ill.

Every token here comes out the same in every process, so that an input can be had again; the library signs with keys of the moment.
Source: Biscuit specification, "Cryptography", signed payloads of version 0 and 1; RFC 8032 section 5.1.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256, sha512
from typing import Final

from biscuit_auth import KeyPair, PrivateKey

from pf_stream.security import SigningKey
from tests.unit.security.cases import field

__all__ = ["KEY", "KID", "Part", "forged"]

_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_BASE: Final = b"\x58" + b"\x66" * 31


class _Secret:
    """A key that signs, with a nonce of 1 each time: that gives the key away, and saves the arithmetic."""

    def __init__(self, number: int) -> None:
        self.seed = sha256(b"pf_stream fuzz %d" % number).digest()
        self.pair = KeyPair.from_private_key(PrivateKey(f"ed25519-private/{self.seed.hex()}"))
        self.public = bytes(self.pair.public_key.to_bytes())
        clamped = bytearray(sha512(self.seed).digest()[:32])
        clamped[0] &= 0xF8
        clamped[31] = clamped[31] & 0x7F | 0x40
        self._scalar = int.from_bytes(clamped, "little")

    def sign(self, message: bytes) -> bytes:
        challenge = int.from_bytes(sha512(_BASE + self.public + message).digest(), "little")
        return _BASE + ((1 + challenge * self._scalar) % _ORDER).to_bytes(32, "little")

    def public_message(self) -> bytes:
        return field(1, 0) + field(2, self.public)


_ROOT: Final = _Secret(0)
_NEXT: Final = [_Secret(number) for number in range(1, 13)]
_STRANGER: Final = _Secret(100)

KID: Final = 7
KEY: Final = SigningKey(KID, _ROOT.pair)
"""Signs every forged token."""


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a token to be."""

    data: bytes
    """Its message, or anything else."""
    third_party: bool = False
    """Whether somebody else signs it too."""


def forged(parts: Sequence[Part], *, version: int = 1, kid: int = KID) -> bytes:
    """The outer message of a token of *parts*, at most 12, signed as the specification says."""
    signer = _ROOT
    before = b""
    out = [field(1, kid)]
    for at, part in enumerate(parts):
        following = _NEXT[at]
        external = None
        if part.third_party:
            payload = b"\0EXTERNAL\0\0VERSION\0" + _U32[1] + b"\0PAYLOAD\0" + part.data + b"\0PREVSIG\0" + before
            external = _STRANGER.sign(payload)
        if version == 0:
            payload = part.data + (external or b"") + _U32[0] + following.public
        else:
            payload = b"\0BLOCK\0\0VERSION\0" + _U32[1] + b"\0PAYLOAD\0" + part.data
            payload += b"\0ALGORITHM\0" + _U32[0] + b"\0NEXTKEY\0" + following.public
            payload += b"\0PREVSIG\0" + before if at else b""
            payload += b"" if external is None else b"\0EXTERNALSIG\0" + external
        before = signer.sign(payload)
        block = field(1, part.data) + field(2, following.public_message()) + field(3, before)
        if external is not None:
            block += field(4, field(1, external) + field(2, _STRANGER.public_message()))
        if version:
            block += field(5, version)
        out.append(field(3 if at else 2, block))
        signer = following
    out.append(field(4, field(1, signer.seed)))
    return b"".join(out)


_U32: Final = (b"\0\0\0\0", b"\1\0\0\0")
