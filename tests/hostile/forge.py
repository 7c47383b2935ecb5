"""What a forger does to tokens with bytes alone: Biscuit's library makes none of these.

A holder of a token that is not sealed has the secret of its last block, so anybody may sign a block after it, whatever the
block's bytes are. Hence a signer of our own: Ed25519 (RFC 8032, section 6), slow and short.
Source for what is signed: Biscuit specification, "Cryptography", version 0 of the signatures.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, TypeAlias

from pf_stream.security.envelope import Envelope, to_base64url
from tests.unit.security.cases import field, joined, parts

__all__ = [
    "RIGHT",
    "Fields",
    "append_bytes",
    "block",
    "changed",
    "checks",
    "derives",
    "fields_of",
    "nested",
    "public_key",
    "right_of",
    "said",
    "said_text",
    "seal",
    "spelled",
    "symbols_in",
    "variable",
]

Fields = list[tuple[int, int | bytes]]

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_Y: Final = 46316835694926478169428394003475163141307993866256225615783033603165251855960

_Point: TypeAlias = tuple[int, int, int, int]
"""Extended homogeneous coordinates: x/z, y/z, and t = xy/z."""
_BASE: Final = (_X, _Y, 1, _X * _Y % _P)

RIGHT: Final = 4
_QUERY: Final = 27
"""Numbers of symbols that every token knows."""


def _add(one: _Point, two: _Point) -> _Point:
    (x1, y1, z1, t1), (x2, y2, z2, t2) = one, two
    a, b, c, d = (y1 - x1) * (y2 - x2) % _P, (y1 + x1) * (y2 + x2) % _P, 2 * t1 * t2 * _D % _P, 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


@cache
def _times(number: int) -> bytes:
    """*number* times the base point, compressed."""
    found: _Point = (0, 1, 1, 0)
    point = _BASE
    while number:
        if number & 1:
            found = _add(found, point)
        point = _add(point, point)
        number >>= 1
    x, y, z, _ = found
    inverse = pow(z, -1, _P)
    return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(32, "little")


def _hash(*data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(data)).digest(), "little")


def _scalar(secret: bytes) -> int:
    return (int.from_bytes(hashlib.sha512(secret).digest()[:32], "little") & (1 << 254) - 8) | 1 << 254


def public_key(secret: bytes) -> bytes:
    """The 32 bytes that go with a secret."""
    return _times(_scalar(secret))


def _sign(secret: bytes, message: bytes) -> bytes:
    nonce = _hash(hashlib.sha512(secret).digest()[32:], message)
    point = _times(nonce % _L)
    answer = (nonce + _hash(point, public_key(secret), message) * _scalar(secret)) % _L
    return point + answer.to_bytes(32, "little")


def fields_of(token: str) -> Fields:
    """The outer message of a token: the number of the key, the blocks, the proof."""
    return parts(Envelope.read(token.encode()).data)


def spelled(fields: Fields) -> str:
    """An outer message as a token."""
    return to_base64url(joined(fields))


def changed(token: str, block: int, number: int, change: Callable[[bytes], bytes]) -> str:
    """*token* with one field of one block, 1 for the authority block, put through *change*."""
    fields = fields_of(token)
    kind, raw = fields[block]
    assert isinstance(raw, bytes)
    inner = [(one, change(value) if one == number and isinstance(value, bytes) else value) for one, value in parts(raw)]
    fields[block] = kind, joined(inner)
    return spelled(fields)


def symbols_in(token: str) -> int:
    """The number that the first string of a further block will have: a token's own strings are numbered from 1024 on."""
    count = 0
    for number, raw in fields_of(token):
        if number in {2, 3} and isinstance(raw, bytes):
            data = dict(parts(raw))[1]
            assert isinstance(data, bytes)
            count += sum(1 for one, _ in parts(data) if one == 1)
    return 1024 + count


def _secret_of(fields: Fields) -> bytes:
    """The secret that a token which is not sealed hands on."""
    proof = fields[-1][1]
    assert isinstance(proof, bytes)
    ((kind, secret),) = parts(proof)
    assert kind == 1
    assert isinstance(secret, bytes)
    return secret


def append_bytes(token: str, block: bytes, *, secret: bytes | None = None, next_secret: bytes = b"n" * 32) -> str:
    """*token* with a block of any bytes, signed as its holder can, or with another *secret*."""
    fields = fields_of(token)
    key = field(1, 0) + field(2, public_key(next_secret))
    signature = _sign(secret or _secret_of(fields), block + bytes(4) + public_key(next_secret))
    new = field(1, block) + field(2, key) + field(3, signature)
    return spelled([*fields[:-1], (3, new), (4, field(1, next_secret))])


def seal(token: str) -> str:
    """*token* so that nobody can narrow it any more."""
    fields = fields_of(token)
    last = fields[-2][1]
    assert isinstance(last, bytes)
    block = dict(parts(last))
    data, key, signature = block[1], block[2], block[3]
    assert isinstance(data, bytes)
    assert isinstance(key, bytes)
    assert isinstance(signature, bytes)
    public = dict(parts(key))[2]
    assert isinstance(public, bytes)
    final = _sign(_secret_of(fields), data + bytes(4) + public + signature)
    return spelled([*fields[:-1], (4, field(2, final))])


# -- blocks, byte by byte ------------------------------------------------------------------------------------------------


def block(token: str, symbols: Sequence[str], content: Callable[[int], bytes]) -> bytes:
    """The bytes of a block behind *token*: its own strings, and what names them by their number, the first's being given."""
    table = b"".join(field(1, symbol.encode()) for symbol in symbols)
    return table + field(3, 3) + content(symbols_in(token))


def said(name: int, *terms: bytes) -> bytes:
    """A predicate."""
    return field(1, name) + b"".join(field(2, term) for term in terms)


def said_text(number: int) -> bytes:
    """A term: a string."""
    return field(3, number)


def variable(number: int) -> bytes:
    """A term: a variable."""
    return field(1, number)


def checks(*predicates: bytes) -> bytes:
    """``check if`` of predicates."""
    return field(6, field(1, field(1, field(1, _QUERY)) + b"".join(field(2, one) for one in predicates)))


def derives(head: bytes, *body: bytes) -> bytes:
    """A rule."""
    return field(5, field(1, head) + b"".join(field(2, one) for one in body))


def right_of(first: int) -> bytes:
    """A fact: the right to the first of a block's own strings, on the second."""
    return field(4, field(1, said(RIGHT, said_text(first), said_text(first + 1))))


def nested(depth: int) -> bytes:
    """A term: an array of an array of an array."""
    term = variable(0)
    for _ in range(depth):
        term = field(9, field(1, term))
    return term
