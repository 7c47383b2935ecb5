"""What is remembered of something right, and is not for anything else."""

from collections.abc import Iterator
from dataclasses import replace

from tests.hostile.forge import fields_of, spelled
from tests.hostile.scene import Attempt, Scene
from tests.hostile.target import Cancelled, GateCap, LoanCap

__all__ = ["memories"]


def memories(at: Scene) -> Iterator[Attempt]:
    """Right after something right, what differs from it in one thing: answers are remembered, and none is for another."""
    insufficient = "insufficient_capabilities"
    own = at.departed(at.ua)
    yield Attempt("memory: another tenant", insufficient, at.departed(at.ua, "DL", "LAX"), own)
    gate = at.mint(GateCap.report("/UA/EWR"))
    yield Attempt("memory: another gate", insufficient, at.departed(gate, origin="LAX"), at.departed(gate))
    reports = at.mint(GateCap.report("/**"))
    yield Attempt(
        "memory: another operation",
        insufficient,
        at.record(Cancelled(carrier="UA", origin="EWR"), reports),
        at.departed(reports),
    )
    version = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v2", "hostile.totalled.v1"])
    older = at.departed(version).having(("ce_type", b"hostile.departed.v1"))
    yield Attempt("memory: an older version", "wrong_intent_type", older, at.departed(version))
    before = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v1", "hostile.totalled.v1"])
    first = at.departed(before).having(("ce_type", b"hostile.departed.v1"))
    yield Attempt(
        "memory: a newer version",
        "wrong_intent_type",
        at.departed(before),
        replace(first, value=b'{"carrier":"UA","origin":"EWR"}'),
    )
    here = at.mint(GateCap.report("/UA/*"), LoanCap.write("/ann/**"), topics=[at.intents, at.totals])
    yield Attempt("memory: another topic", "wrong_topic", at.stored(here), at.departed(here))
    there = at.mint(GateCap.report("/UA/*"), LoanCap.write("/ann/**"), topics=[at.files])
    yield Attempt("memory: another topic, the other way", "wrong_topic", at.departed(there), at.stored(there))
    kind = at.mint(GateCap.admin("/UA/*"), intent_types=["hostile.departed.v2", "hostile.totalled.v1"])
    yield Attempt(
        "memory: another type",
        "wrong_intent_type",
        at.record(Cancelled(carrier="UA", origin="EWR"), kind),
        at.departed(kind),
    )
    public = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.looked.v1"])
    yield Attempt("memory: what is not for anybody", "wrong_intent_type", at.departed(public), at.looked(public))
    # Concatenated, or joined with a slash, the fields say the same.
    yield Attempt(
        "memory: fields that join to the same text", insufficient, at.departed(gate, "U", "AEWR"), at.departed(gate)
    )
    yield Attempt(
        "memory: fields that join to the same text, the other way",
        insufficient,
        at.departed(gate, "UAE", "WR"),
        at.departed(gate),
    )
    yield Attempt("memory: fields exchanged", insufficient, at.departed(gate, "EWR", "UA"), at.departed(gate))
    shelf = at.mint(LoanCap.write("/ann/docs/a"))
    kept = at.stored(shelf)
    yield Attempt("memory: fields that join to the same path", "bad_resource", at.stored(shelf, "ann/docs", "a"), kept)
    yield Attempt(
        "memory: fields that join to the same path, all in one",
        "bad_resource",
        at.stored(shelf, "ann/docs/a", ""),
        kept,
    )
    yield Attempt(
        "memory: fields that join to the same path, a slash in front",
        "bad_resource",
        at.stored(shelf, "", "ann/docs/a"),
        kept,
    )
    composed = at.mint(GateCap.report("/UA/\u00c9"))
    yield Attempt(
        "memory: text that Unicode has for equal",
        "bad_resource",
        at.departed(composed, origin="E\u0301"),
        at.departed(composed, origin="\u00c9"),
    )
    sharp = at.mint(GateCap.report("/UA/stra\u00dfe"))
    yield Attempt(
        "memory: text that is equal without case",
        insufficient,
        at.departed(sharp, origin="strasse"),
        at.departed(sharp, origin="stra\u00dfe"),
    )
    narrow = at.mint(GateCap.report("/UA/1"))
    number = replace(at.departed(narrow, origin="1"), value=b'{"carrier":"UA","origin":1}')
    yield Attempt(
        "memory: a number that looks like the text", "malformed_payload", number, at.departed(narrow, origin="1")
    )
    wide = at.departed(narrow, origin="\uff11")
    yield Attempt("memory: a digit that is a number too", insufficient, wide, at.departed(narrow, origin="1"))
    point = at.departed(narrow, origin="1.0")
    yield Attempt("memory: a number of equal value", insufficient, point, at.departed(narrow, origin="1"))
    yield Attempt(
        "memory: the same token, with a character more",
        "malformed_token",
        at.departed(at.ua + "A"),
        own.plus(("x", b"1")),
    )
    yield Attempt(
        "memory: the same token, with a blank", "malformed_token", at.departed(at.ua + "\t"), own.plus(("x", b"2"))
    )
    eighth = spelled([(1, 8), *fields_of(gate)[1:]])
    yield Attempt(
        "memory: the same blocks under another key's number", "bad_signature", at.departed(eighth), at.departed(gate)
    )
    narrowed = at.narrow(gate, capabilities=[GateCap.report("/UA/LAX")])
    yield Attempt("memory: the same token, narrowed", insufficient, at.departed(narrowed), at.departed(gate))
    over = at.narrow(gate, expires_ms=at.now_ms // 1000 * 1000)
    yield Attempt(
        "memory: the same token, narrowed to what is over", "token_expired", at.departed(over), at.departed(gate)
    )
    yield Attempt(
        "memory: the same record, without its context",
        "missing_context",
        own.without("pf-context").plus(("x", b"3")),
        own,
    )
    yield Attempt(
        "memory: the same record, under another key",
        "key_mismatch",
        replace(own, key=b'["DL","EWR"]').plus(("x", b"4")),
        own,
    )
    subject = at.mint(GateCap.report("/UA/EWR"), subject="ann", tenant="UA")
    stranger = at.mint(GateCap.report("/UA/LAX"), subject="ann", tenant="UA")
    yield Attempt(
        "memory: another token of the same subject", insufficient, at.departed(stranger), at.departed(subject)
    )
