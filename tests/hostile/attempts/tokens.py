"""Bytes of tokens: changed, cut off, put elsewhere."""

import string
from collections.abc import Iterator
from typing import Final

from pf_stream.security import MAX_TOKEN_BYTES
from pf_stream.security.envelope import Envelope, to_base64url
from tests.hostile.forge import (
    append_bytes,
    block,
    changed,
    checks,
    fields_of,
    public_key,
    said,
    said_text,
    seal,
    spelled,
)
from tests.hostile.scene import EVE, Attempt, Scene
from tests.hostile.target import GateCap
from tests.unit.security.cases import field, joined

__all__ = ["blocks", "cut", "tampered"]

_BASE64URL: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def tampered(at: Scene) -> Iterator[Attempt]:
    """Each kind of byte of a token, changed: the text, Biscuit's outer message, the blocks, the proof."""
    token = at.narrow(at.ua, topics=[at.intents, at.totals])
    raw = Envelope.read(token.encode()).data

    def text(place: int, new: str | None = None) -> str:
        old = token[place]
        return token[:place] + (new or _BASE64URL[(_BASE64URL.index(old) + 1) % 64]) + token[place + 1 :]

    def byte(place: int, new: int) -> str:
        return to_base64url(raw[:place] + bytes([new]) + raw[place + 1 :])

    def flip(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    # A character that spells the key which the authority block is signed with: 15 bytes behind the beginning of that key.
    inside = 4 * (5 + raw.index(b"\x08\x00\x12\x20") // 3)
    kid, authority, narrowing, proof = fields_of(token)
    for place in range(4):
        yield Attempt(f"text: character {place} of four", "bad_signature", at.departed(text(inside + place)))
    for name, place, new in (
        ("first", 0, "B"),
        ("in the middle, of no alphabet", inside, "!"),
        ("in the middle, of standard base64", inside, "+"),
        ("in the middle, a line end", inside, "\n"),
    ):
        yield Attempt(f"text: a character {name}", "malformed_token", at.departed(text(place, new)))
    for name, context in {
        "upper and lower case exchanged": token.swapcase(),
        "backwards": token[::-1],
        "twice": token * 2,
        "a character more": token + "A",
        "one bit beyond the last byte": stray_bit(at),
    }.items():
        yield Attempt(f"text: {name}", "malformed_token", at.departed(context))
    for name, place, value in (
        ("tag of the key's number", 0, 0x00),
        ("tag of the authority block: that of a later one", 2, 0x1A),
        ("tag of the authority block: of a number", 2, 0x10),
        ("tag of the authority block: of eight bytes", 2, 0x11),
        ("length of the authority block, one more", 3, raw[3] + 1),
        ("length of the authority block, one less", 3, raw[3] - 1),
        ("tag of the block's data", 5, 0x12),
    ):
        yield Attempt(f"bytes: {name}", "malformed_token", at.departed(byte(place, value)))
    for number, what in ((1, "data"), (2, "next key"), (3, "signature")):
        for index, which in ((1, "authority block"), (2, "attenuation")):
            context = changed(token, index, number, flip)
            yield Attempt(f"bytes: {what} of the {which}", "bad_signature", at.departed(context))
    carrier = changed(token, 1, 1, lambda data: data.replace(b"/UA/*", b"/DL/*"))
    yield Attempt("bytes: the carrier of a right", "bad_signature", at.departed(carrier, "DL"))
    scope = changed(token, 1, 1, lambda data: data.replace(b"/UA/*", b"/*/**"))
    yield Attempt("bytes: the scope of a right", "bad_signature", at.departed(scope, "DL"))
    subject = changed(token, 1, 1, lambda data: data.replace(b"ann", b"bob"))
    yield Attempt("bytes: the subject", "bad_signature", at.departed(subject))
    ends = field(4, (at.now_ms // 1000 + 900))
    later = changed(token, 1, 1, lambda data: data.replace(ends, field(4, (at.now_ms // 1000 + 901))))
    yield Attempt("bytes: the end", "bad_signature", at.departed(later))
    elsewhere = changed(token, 2, 1, lambda data: data.replace(at.totals.encode(), at.totals.encode().upper()))
    yield Attempt("bytes: a topic of the attenuation", "bad_signature", at.departed(elsewhere))
    algorithm = changed(token, 1, 2, lambda key: key.replace(b"\x08\x00", b"\x08\x01", 1))
    yield Attempt("bytes: the algorithm of the next key", "malformed_token", at.departed(algorithm))
    short = changed(token, 1, 3, lambda data: data[:-1])
    yield Attempt("bytes: a signature of 63 bytes", "malformed_token", at.departed(short))
    nothing = changed(token, 1, 3, lambda _: bytes(64))
    yield Attempt("bytes: a signature of zeros", "bad_signature", at.departed(nothing))
    secret = proof[1]
    assert isinstance(secret, bytes)
    for name, code, fields in (
        ("the proof's secret", "bad_signature", [kid, authority, narrowing, (4, flip(secret))]),
        ("a seal of zeros", "bad_signature", [kid, authority, narrowing, (4, field(2, bytes(64)))]),
        ("an empty proof", "malformed_token", [kid, authority, narrowing, (4, b"")]),
        ("two proofs in one", "malformed_token", [kid, authority, narrowing, (4, secret + field(2, bytes(64)))]),
        ("two proofs", "malformed_token", [kid, authority, narrowing, proof, proof]),
        ("an unknown part", "malformed_token", [kid, authority, narrowing, proof, (5, b"")]),
        ("two key numbers", "malformed_token", [kid, kid, authority, narrowing, proof]),
    ):
        yield Attempt(f"bytes: {name}", code, at.departed(spelled(fields)))
    long_form = to_base64url(b"\x08\x87\x00" + joined([authority, narrowing, proof]))
    yield Attempt("bytes: the key's number in a longer form", "malformed_token", at.departed(long_form))


def stray_bit(at: Scene) -> str:
    """A token whose last character has a bit that belongs to no byte."""
    token = next(token for name in ("a", "aa", "aaa") if len(token := at.mint(subject=name)) % 4)
    last = token[-1]
    return token[:-1] + _BASE64URL[_BASE64URL.index(last) + 1]


def cut(at: Scene) -> Iterator[Attempt]:
    """Tokens that end early."""
    token = at.narrow(at.ua, topics=[at.intents])
    raw = Envelope.read(token.encode()).data
    kid, authority, narrowing, _ = fields_of(token)
    for name, context in {
        "to nothing": "",
        "to a character": token[:1],
        "to four characters": token[:4],
        "to its half": token[: len(token) // 2],
        "by a character": token[:-1],
        "by two bytes": to_base64url(raw[:-2]),
        "by its proof": spelled([kid, authority, narrowing]),
        "behind the authority block": spelled([kid, authority]),
        "inside the authority block": to_base64url(raw[:100]),
        "by its beginning": token[4:],
    }.items():
        yield Attempt(f"cut: {name}", "malformed_token", at.departed(context))


def blocks(at: Scene) -> Iterator[Attempt]:
    """Blocks taken away, put elsewhere, taken from other tokens, or signed by the wrong key."""
    narrow = at.narrow(at.narrow(at.ua, topics=[at.files]), intent_types=["hostile.stored.v1"])
    kid, authority, one, two, proof = fields_of(narrow)
    other = fields_of(at.narrow(at.narrow(at.dl, topics=[at.intents]), topics=[at.intents]))
    wide = fields_of(at.mint(GateCap.admin("/**"), key=EVE))
    own = fields_of(at.append(at.ua, "check if true"))
    mine = (4, field(1, b"e" * 32))
    for name, fields in {
        "all attenuation removed": [kid, authority, proof],
        "the last attenuation removed": [kid, authority, one, proof],
        "the first attenuation removed": [kid, authority, two, proof],
        "all attenuation removed, with a proof of one's own": [kid, authority, mine],
        "the last attenuation removed, with a proof of one's own": [kid, authority, one, mine],
        "reordered": [kid, authority, two, one, proof],
        "one of them twice": [kid, authority, one, one, two, proof],
        "authority block of another token": [kid, other[1], one, two, proof],
        "attenuation of another token": [kid, authority, other[2], other[3], proof],
        "attenuation and proof of another token": [kid, authority, other[2], other[3], other[4]],
        "proof of another token": [kid, authority, one, two, other[4]],
        "authority block of one's own": [kid, wide[1], one, two, proof],
        "authority block as attenuation of one's own": [kid, wide[1], (3, authority[1]), proof],
    }.items():
        yield Attempt(f"blocks: {name}", "bad_signature", at.departed(spelled(fields)))
    for name, fields in {
        "no authority block": [kid, one, two, proof],
        "two authority blocks": [kid, authority, (2, wide[1][1]), proof],
        "authority block behind attenuation": [kid, one, authority, two, proof],
        "proof in front": [kid, proof, authority, one, two],
        "no block": [kid, proof],
    }.items():
        yield Attempt(f"blocks: {name}", "malformed_token", at.departed(spelled(fields)))
    harmless = block(at.ua, ["topic", at.intents], lambda first: checks(said(first, said_text(first + 1))))
    forged = append_bytes(at.ua, harmless, secret=b"e" * 32)
    yield Attempt("blocks: appended with a wrong key", "bad_signature", at.departed(forged))
    sealed = seal(at.ua)
    kid, authority, final = fields_of(sealed)
    for name, context in {
        "then a block put in that was made before": spelled([kid, authority, own[2], final]),
        "then appended to with a key of one's own": append_bytes(sealed, harmless, secret=b"s" * 32),
        "and its seal taken for a secret": spelled([kid, authority, (4, field(1, b"s" * 32))]),
    }.items():
        yield Attempt(f"blocks: sealed, {name}", "bad_signature", at.departed(context))
    resigned = changed(at.ua, 1, 2, lambda _: field(1, 0) + field(2, public_key(b"e" * 32)))
    kid, authority, _ = fields_of(resigned)
    yield Attempt("blocks: next key of one's own", "bad_signature", at.departed(spelled([kid, authority, mine])))
    yield Attempt("blocks: nine", "too_many_blocks", at.departed(at.append(at.ua, *["check if true"] * 8)))
    # Sizes are checked first, and so many blocks do not fit into the most that a token may have.
    hundred = [kid, authority, *[(3, one[1])] * 99, proof]
    yield Attempt("blocks: 100", "token_too_large", at.departed(spelled(hundred)))
    kid, authority, *_ = fields_of(at.raw_issue("pf(1)"))
    forty = [kid, authority, *[(3, one[1])] * 30, proof]
    yield Attempt("blocks: as many as the size allows", "too_many_blocks", at.departed(spelled(forty)))
    yield Attempt("size: one byte too many", "token_too_large", at.departed("A" * (MAX_TOKEN_BYTES + 1)))
    yield Attempt("size: a megabyte", "token_too_large", at.departed("A" * (1 << 20)))
    yield Attempt("size: all that is allowed, of nothing", "malformed_token", at.departed("A" * MAX_TOKEN_BYTES))
