"""The envelope of a token: base64url, then Biscuit's outer message. Read before any cryptography.

One token has one spelling here: base64url (RFC 4648 section 5) without padding, white space or stray bits, and the outer message
(Biscuit specification, "Serialization") in the order in which every serialiser writes it. Otherwise the same token could be
sent under many byte strings, each missing every cache.
"""

from base64 import urlsafe_b64encode
from binascii import a2b_base64
from typing import Final, NamedTuple

from pf_stream.security._protobuf import Fault, fields

__all__ = ["MAX_BLOCKS", "MAX_TOKEN_BYTES", "Envelope", "SealedBlock", "from_base64url", "to_base64url"]

MAX_TOKEN_BYTES: Final = 8192
"""Longest token in bytes of base64url; longer ones are refused unread."""
MAX_BLOCKS: Final = 8
"""Most blocks in a token, the authority block included."""

# The standard alphabet instead of the other; whatever is in neither, or in the standard one alone, becomes what no reader takes.
_translation: Final = bytes(
    {0x2D: 0x2B, 0x5F: 0x2F}.get(byte, byte if chr(byte).isascii() and chr(byte).isalnum() else 0x21)
    for byte in range(256)
)

_LAST_OF_TWO: Final = b"AQgw"
_LAST_OF_THREE: Final = b"AEIMQUYcgkosw048"
"""The last characters that have no stray bits, after so many of four."""

_ED25519: Final = 0
# What every library writes around what it says, with a key of Ed25519 and a token that can be narrowed.
_KEY: Final = b"\x12\x24\x08\x00\x12\x20"
_SIGNATURE: Final = b"\x1a\x40"
_PROOF: Final = b"\x22\x22\x0a\x20"


class SealedBlock(NamedTuple):
    """A block as it was signed."""

    data: bytes
    """The block's own message; see ``_block``."""
    signature: bytes
    """64 bytes; in hexadecimal, the block's revocation id."""
    third_party: bool
    """Whether somebody else signed it too."""

    def __repr__(self) -> str:
        return f"<SealedBlock of {len(self.data)} bytes>"


class Envelope(NamedTuple):
    """A token's outer message. Nothing in it is verified."""

    data: bytes
    """The outer message."""
    kid: int | None
    """The number of the key that is said to have signed the authority block."""
    blocks: tuple[SealedBlock, ...]
    """The authority block first."""
    sealed: bool
    """Whether it can no longer be narrowed."""

    def __repr__(self) -> str:
        return f"<Envelope of {len(self.blocks)} blocks>"

    @classmethod
    def read(cls, token: bytes) -> "Envelope":
        """Take *token* apart.

        Raises:
            Fault: it is not written as above.
        """
        return cls.of(from_base64url(token))

    @classmethod
    def of(cls, data: bytes) -> "Envelope":
        """Take the outer message *data* apart; raises as :meth:`read` does."""
        try:
            usual = cls._read_usual(data)
        except IndexError:
            usual = None
        return usual or cls._read_any(data)

    @classmethod
    def _read_usual(cls, data: bytes) -> "Envelope | None":
        """What :meth:`_read_any` reads, where it is spelled as every library does; None, or an IndexError, where it is not."""
        end = len(data) - 36
        if data[0] != 0x08 or data[1] > 0x7F or data[end : end + 4] != _PROOF:
            return None
        blocks = []
        at = 2
        tag = 0x12
        while at < end:
            # SignedBlock: block = 1, nextKey = 2, signature = 3, version = 5
            size = data[at + 1]
            start = at + 3
            if size > 0x7F:
                size = size & 0x7F | data[at + 2] << 7
                start += 1
            stop = start - 1 + size
            length = data[start]
            begin = start + 1
            if length > 0x7F:
                length = length & 0x7F | data[begin] << 7
                begin += 1
            # Below 128 a number in two bytes is not in its shortest form.
            if data[at] != tag or data[start - 1] != 0x0A or (size < 0x80) != (start == at + 3):
                return None
            if (length < 0x80) != (begin == start + 1):
                return None
            at = begin
            after = at + length
            signed = after + 104
            if (
                data[after : after + 6] != _KEY
                or data[after + 38 : after + 40] != _SIGNATURE
                or not (stop == signed or (stop == signed + 2 and data[signed] == 0x28 and data[signed + 1] < 0x80))
            ):
                return None
            blocks.append(SealedBlock(data[at:after], data[after + 40 : signed], False))
            at = stop
            tag = 0x1A
        return cls(data, data[1], tuple(blocks), False) if blocks and at == end else None

    @classmethod
    def _read_any(cls, data: bytes) -> "Envelope":
        kid: int | None = None
        blocks: list[SealedBlock] = []
        sealed: bool | None = None
        last = 0
        for number, value in fields(data):
            if number < last or (number == last and number != 3):
                raise Fault("the token's parts are not in their order")
            last = number
            if number == 1 and isinstance(value, int) and value < 1 << 32:
                kid = value
            elif number == 2 or (number == 3 and blocks):
                blocks.append(_block(value))
            elif number == 4 and blocks:
                sealed = _sealed(value)
            else:
                raise Fault("the token has an unknown part")
        if sealed is None:
            raise Fault("the token is not complete")
        return cls(data, kid, tuple(blocks), sealed)

    @property
    def signatures(self) -> tuple[bytes, ...]:
        """One per block; in hexadecimal, its revocation id: revoking it revokes this token and all that were made from it."""
        return tuple([block.signature for block in self.blocks])


def to_base64url(data: bytes) -> str:
    """The one spelling of *data*."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(token: bytes) -> bytes:
    """The outer message of *token*; raises Fault unless that is its one spelling."""
    try:
        data = a2b_base64(token.translate(_translation) + b"=" * (-len(token) % 4), strict_mode=True)
    except ValueError:
        raise Fault("it is not base64url without padding") from None
    left = len(token) % 4
    if left and token[-1] not in (_LAST_OF_TWO if left == 2 else _LAST_OF_THREE):
        raise Fault("it is not base64url in its one spelling: the last character has stray bits")
    return data


def _block(value: int | bytes) -> SealedBlock:
    # SignedBlock: block = 1, nextKey = 2, signature = 3, externalSignature = 4, version = 5
    parts = _parts(value, 5)
    data, key, signature = parts.get(1), parts.get(2), parts.get(3)
    if not isinstance(data, bytes) or not isinstance(signature, bytes) or key is None:
        raise Fault("a block is not complete")
    if isinstance(parts.get(4, b""), int) or isinstance(parts.get(5, 0), bytes):
        raise Fault("a block has an unknown part")
    # An ECDSA signature can be changed into another valid one by anybody, and revocation ids are signatures: a revoked
    # block would live on under another id. Ed25519's cannot.
    if _parts(key, 2).get(1) != _ED25519:
        raise Fault("a block's key is not Ed25519")
    if len(signature) != 64:
        raise Fault("a signature is not 64 bytes")
    return SealedBlock(data, signature, third_party=4 in parts)


def _sealed(value: int | bytes) -> bool:
    # Proof: nextSecret = 1 or finalSignature = 2
    parts = _parts(value, 2)
    if len(parts) != 1:
        raise Fault("the token's proof is not one")
    return 2 in parts


def _parts(value: int | bytes, highest: int) -> dict[int, int | bytes]:
    """The fields of a message in which each occurs at most once, in order."""
    if isinstance(value, int):
        raise Fault("a field has the wrong type")
    found = fields(value)
    last = 0
    for number, _ in found:
        if not last < number <= highest:
            raise Fault("a part of the token is written twice, out of order or unknown")
        last = number
    return dict(found)
