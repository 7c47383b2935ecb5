"""The record around the intent: its context, its type, its form."""

import base64
import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Final

import orjson

from pf_stream.core.records import Header
from pf_stream.security import MAX_TOKEN_BYTES
from pf_stream.security.envelope import Envelope
from tests.hostile.scene import Attempt, Message, Scene
from tests.hostile.target import GateCap

__all__ = ["contexts", "structured", "types"]

STRUCTURED: Final = ("content-type", b"application/cloudevents+json")


def contexts(at: Scene) -> Iterator[Attempt]:
    """The context elsewhere, or spelled otherwise."""
    naked = at.departed(None)
    yield Attempt("context: none", "missing_context", naked)
    yield Attempt("context: null", "missing_context", naked.plus(("pf-context", None)))
    token = at.ua.encode()
    for name in (
        "PF-Context", "Pf-context", "pf_context", "pfcontext", " pf-context", "pf-context ", "pf-context\0", "\uff50f-context",
        "pf\u2010context", "x-pf-context", "context", "token", "Authorization", "authorization", "biscuit", "cookie",
        "ce_pfcontext", "ce_pf-context", "ce_authorization", "ce_subject", "pf-context-", "pf-contexts", "__pf-context",
    ):  # fmt: skip
        yield Attempt(f"context: as header {name!r}", "missing_context", naked.plus((name, token)))
    bearer = naked.plus(("Authorization", b"Bearer " + token))
    yield Attempt("context: as a bearer token", "missing_context", bearer)
    for name, headers in {
        "capabilities": (("pf-capabilities", b"GateCap.admin:/**"),),
        "a subject": (("pf-subject", b"root"), ("pf-tenant", b"DL")),
        "X-headers": (("X-Capabilities", b"GateCap.admin:/**"), ("X-User", b"root"), ("X-Forwarded-User", b"root")),
        "revocation ids": (("pf-revocation-ids", b"00"),),
        "an audit record": (("pf-error-code", b""), ("pf-replayed-from", f"{at.intents}.dlq:0:0".encode())),
        "that it was verified": (("pf-verified", b"true"), ("pf-trusted", b"1")),
        "pf-source": (("pf-source", b"0123456789abcdef:1:0"),),
        "pf-hops": (("pf-hops", b"1"),),
        "pf-rerouted": (("pf-rerouted", f"{at.intents}:0:0".encode()),),
        "all of the engine's": (
            ("pf-source", b"0123456789abcdef:1:0"),
            ("pf-hops", b"1"),
            ("pf-rerouted", f"{at.intents}:0:0".encode()),
            ("ce_source", b"/hostile/gates"),
        ),
    }.items():
        yield Attempt(f"headers: {name}, without a context", "missing_context", naked.having(*headers))
        other = at.departed(at.ua, "DL").having(*headers)
        yield Attempt(f"headers: {name}, for another tenant", "insufficient_capabilities", other)
    mixed = next(
        one for number in count() if {"-", "_"} <= set(one := at.mint(GateCap.report("/UA/*"), subject=f"ann{number}"))
    )
    odd = next(
        one for number in count() if len(one := at.mint(GateCap.report("/UA/*"), subject="a" * (number + 1))) % 4
    )
    raw = Envelope.read(token).data
    jwt = b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290IiwiYXVkIjoiaG9zdGlsZSJ9."
    for name, context in {
        "a blank before": b" " + token,
        "a blank behind": token + b" ",
        "a line end behind": token + b"\n",
        "a NUL behind": token + b"\0",
        "line breaks": b"\n".join(token[place : place + 64] for place in range(0, len(token), 64)),
        "padding": odd.encode() + b"=" * (-len(odd) % 4),
        "padding, percent-encoded": odd.encode() + b"%3D" * (-len(odd) % 4),
        "the standard alphabet": mixed.translate(str.maketrans("-_", "+/")).encode(),
        "hexadecimal": raw.hex().encode()[:MAX_TOKEN_BYTES],
        "raw bytes": raw,
        "base64 twice": base64.urlsafe_b64encode(token).rstrip(b"="),
        "UTF-16": at.ua.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + token,
        "compressed": gzip.compress(token, mtime=0),
        "a scheme in front": b"Bearer " + token,
        "a scheme in front, Biscuit's": b"biscuit:" + token,
        "in quotes": b'"' + token + b'"',
        "JSON": orjson.dumps({"token": at.ua}),
        "PEM": b"-----BEGIN BISCUIT-----\n" + token + b"\n-----END BISCUIT-----",
        "two, with a comma": token + b"," + token,
        "two, with a blank": at.dl.encode() + b" " + token,
        "a JWT without a signature": jwt,
        "a JWT with one": jwt + b"c2lnbmF0dXJl",
        "a macaroon": base64.urlsafe_b64encode(b"\x02\x01\x07hostile\x02\x04root\x00\x00\x06 " + bytes(32)).rstrip(
            b"="
        ),
        "a word": b"admin",
        "the word null": b"null",
        "true": b"true",
        "Datalog": b'right("GateCap.admin", "/**")',
        "its revocation id": hashlib.sha256(token).hexdigest().encode(),
    }.items():
        yield Attempt(f"context: {name}", "malformed_token", at.departed(context))
    for name, first, second in (
        ("both right", at.ua, at.dl),
        ("the same", at.ua, at.ua),
        ("right and junk", at.ua, "junk"),
        ("junk and right", "junk", at.ua),
        ("right and empty", at.ua, ""),
    ):
        twice = at.departed(first).plus(("pf-context", second.encode()))
        yield Attempt(f"context: twice, {name}", "duplicate_header", twice)
    yield Attempt("context: twice, right and null", "duplicate_header", at.departed(at.ua).plus(("pf-context", None)))
    yield Attempt(
        "context: twice, for what anybody may", "duplicate_header", at.looked(at.ua).plus(("pf-context", b"junk"))
    )
    yield Attempt("context: junk, for what anybody may", "malformed_token", at.looked("junk"))
    for name, token_ in (
        ("for another topic", at.mint(topics=[at.files])),
        ("for another topic, and a block says ours", at.append(at.mint(topics=[at.files]), f'topic("{at.intents}")')),
    ):
        yield Attempt(f"context: {name}, for what anybody may", "wrong_topic", at.looked(token_))
    many = naked.plus(*((f"x-{number}", b"") for number in range(64)), ("pf-context", at.ua.encode()))
    yield Attempt("headers: too many to look at", "too_many_headers", many)


def types(at: Scene) -> Iterator[Attempt]:
    """Types that shall be taken for others."""
    for name, code, kind in (
        ("in capitals", "unknown_type", b"HOSTILE.DEPARTED.V2"),
        ("a capital", "unknown_type", b"hostile.Departed.v2"),
        ("a blank behind", "unknown_type", b"hostile.departed.v2 "),
        ("a blank before", "unknown_type", b" hostile.departed.v2"),
        ("a line end", "unknown_type", b"hostile.departed.v2\n"),
        ("a NUL", "unknown_type", b"hostile.departed.v2\0"),
        ("a NUL and more", "unknown_type", b"hostile.looked.v1\0hostile.departed.v2"),
        ("a look-alike", "unknown_type", "hostil\u0435.departed.v2".encode()),
        ("full width", "unknown_type", "hostile.departed.v\uff12".encode()),
        ("no width", "unknown_type", "hostile.departed\u200b.v2".encode()),
        ("UTF-16", "unknown_type", "hostile.departed.v2".encode("utf-16")),
        ("of no text", "unknown_type", b"\xff\xfe"),
        ("without a version", "unknown_type", b"hostile.departed"),
        ("a version of one point", "unknown_type", b"hostile.departed.v2.0"),
        ("a version less than none", "unknown_type", b"hostile.departed.v-1"),
        ("a version with a sign", "unknown_type", b"hostile.departed.v+2"),
        ("a version in capitals", "unknown_type", b"hostile.departed.V2"),
        ("a version that is a word", "unknown_type", b"hostile.departed.latest"),
        ("version 0", "unsupported_version", b"hostile.departed.v0"),
        ("version 01", "unsupported_version", b"hostile.departed.v01"),
        ("version 002", "unsupported_version", b"hostile.departed.v002"),
        ("a newer version", "unsupported_version", b"hostile.departed.v3"),
        ("the newest version", "unsupported_version", b"hostile.departed.v999999999"),
        ("a version that what anybody may never had", "unsupported_version", b"hostile.looked.v2"),
        ("of the internal topic", "unknown_type", b"hostile.totalled.v1"),
        ("of another public topic", "unknown_type", b"hostile.stored.v1"),
        ("of a reply", "unknown_type", b"hostile.departed.reply"),
        ("of a refusal", "unknown_type", b"pf.refused"),
        ("a pattern", "unknown_type", b"hostile.*"),
        ("two", "unknown_type", b"hostile.looked.v1,hostile.departed.v2"),
        ("a path", "unknown_type", b"../hostile.departed.v2"),
        ("empty", "malformed_envelope", b""),
        ("null", "malformed_envelope", None),
    ):
        yield Attempt(f"type: {name}", code, at.departed(at.ua).having(("ce_type", kind)))
    yield Attempt("type: none", "malformed_envelope", at.departed(at.ua).without("ce_type"))
    free = at.departed(None).plus(("ce_type", b"hostile.looked.v1"))
    yield Attempt("type: two, the last of what anybody may", "duplicate_header", free)
    yield Attempt(
        "type: two, the first of what anybody may",
        "duplicate_header",
        at.looked(None).plus(("ce_type", b"hostile.departed.v2")),
    )
    yield Attempt(
        "type: as header CE_TYPE alone",
        "malformed_envelope",
        at.departed(at.ua).without("ce_type").plus(("CE_TYPE", b"hostile.departed.v2")),
    )
    older = at.departed(at.ua).having(("ce_type", b"hostile.departed.v1"))
    late = b'{"carrier":"DL","origin":"EWR","late":true}'
    yield Attempt("type: an older version, for another tenant", "insufficient_capabilities", replace(older, value=late))
    yield Attempt("type: an older version, without a context", "missing_context", older.without("pf-context"))
    yield Attempt("type: an older version of what is no object", "malformed_payload", replace(older, value=b'["UA"]'))
    # A token that is limited to types names the version that is sent, not what becomes of it.
    newest = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v2"])
    oldest = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v1"])
    yield Attempt(
        "type: an older version, with a token for the newer",
        "wrong_intent_type",
        older.having(("pf-context", newest.encode())),
    )
    yield Attempt("type: the newer version, with a token for the older", "wrong_intent_type", at.departed(oldest))
    for name, header in (
        ("specversion of the past", ("ce_specversion", b"0.3")),
        ("specversion with a blank", ("ce_specversion", b"1.0 ")),
        ("specversion null", ("ce_specversion", None)),
        ("source empty", ("ce_source", b"")),
        ("id null", ("ce_id", None)),
    ):
        yield Attempt(f"envelope: {name}", "malformed_envelope", at.departed(at.ua).having(header))
    for name in ("ce_id", "ce_source", "content-type", "pf-reply-to", "pf-source"):
        twice = at.departed(at.ua).without(name).plus((name, b"application/json"), (name, b"application/json"))
        yield Attempt(f"envelope: {name} twice", "duplicate_header", twice)


def structured(at: Scene) -> Iterator[Attempt]:
    """The whole event in the value."""
    data = {"carrier": "UA", "origin": "EWR"}
    event: dict[str, object] = {
        "specversion": "1.0",
        "type": "hostile.departed.v2",
        "source": "/client",
        "id": "1",
        "data": data,
    }
    plain = at.departed(None)

    def sent(value: bytes | dict[str, object], context: str | None = None, *more: Header) -> Message:
        raw = value if isinstance(value, bytes) else orjson.dumps(value)
        headers = (STRUCTURED, *more) if context is None else (STRUCTURED, ("pf-context", context.encode()), *more)
        return replace(plain, value=raw, headers=headers)

    for name, attribute in (("pf-context", at.ua), ("pfcontext", at.ua), ("context", at.ua), ("ce_pf-context", at.ua)):
        yield Attempt(f"structured: attribute {name}", "missing_context", sent({**event, name: attribute}))
    other = {**event, "data": {"carrier": "DL", "origin": "EWR"}}
    yield Attempt(
        "structured: one's own as header, another's as attribute",
        "insufficient_capabilities",
        sent({**other, "pf-context": at.dl}, at.ua),
    )
    yield Attempt("structured: for another tenant", "insufficient_capabilities", sent(other, at.ua))
    text = orjson.dumps(event)
    free = text.replace(b'"type":', b'"type":"hostile.looked.v1","type":')
    yield Attempt("structured: type twice, the first of what anybody may", "missing_context", sent(free))
    twice = text.replace(b'"data":', b'"data":{"carrier":"UA","origin":"EWR"},"data":').replace(
        b'{"carrier":"UA","origin":"EWR"}}', b'{"carrier":"DL","origin":"EWR"}}'
    )
    yield Attempt("structured: data twice, the first one's own", "insufficient_capabilities", sent(twice, at.ua))
    yield Attempt(
        "structured: the header says what anybody may",
        "missing_context",
        sent(event, None, ("ce_type", b"hostile.looked.v1")),
    )
    for name, value in {
        "no type": {**event, "type": None},
        "an empty type": {**event, "type": ""},
        "a list of types": {**event, "type": ["hostile.departed.v2"]},
        "a specversion that is a number": {**event, "specversion": 1.0},
        "capabilities as an object": {**event, "capabilities": {"GateCap.admin": "/**"}},
        "data in base64": {
            **{name: one for name, one in event.items() if name != "data"},
            "data_base64": base64.b64encode(orjson.dumps(data)).decode(),
        },
        "no data": {name: one for name, one in event.items() if name != "data"},
    }.items():
        yield Attempt(f"structured: {name}", "malformed_envelope", sent(value, at.ua))
    for name, one in (("a text", orjson.dumps(data).decode()), ("null", None), ("a list", [data])):
        yield Attempt(f"structured: data that are {name}", "malformed_payload", sent({**event, "data": one}, at.ua))
    yield Attempt("structured: a list of events", "malformed_envelope", sent(orjson.dumps([event]), at.ua))
    yield Attempt("structured: an event in an event", "malformed_payload", sent({**event, "data": event}, at.ua))
    yield Attempt(
        "structured: type of the internal topic", "unknown_type", sent({**event, "type": "hostile.totalled.v1"}, at.ua)
    )
    batch = sent(orjson.dumps([event]), at.ua).having(("content-type", b"application/cloudevents-batch+json"))
    yield Attempt("structured: a batch", "malformed_envelope", batch)
    yield Attempt(
        "structured: content-type twice", "duplicate_header", sent(event, at.ua, ("content-type", b"application/json"))
    )
    yield Attempt("structured: context twice", "duplicate_header", sent(event, at.ua, ("pf-context", b"junk")))
    capitals = replace(sent(event, at.ua), headers=(("Content-Type", STRUCTURED[1]), ("pf-context", at.ua.encode())))
    yield Attempt("structured: content-type in capitals", "malformed_envelope", capitals)
    yield Attempt("structured: another's key", "key_mismatch", replace(sent(event, at.ua), key=b'["DL","EWR"]'))
