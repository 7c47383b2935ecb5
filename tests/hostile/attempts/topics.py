"""Where only the engine writes, and where nobody may."""

from collections.abc import Iterator
from dataclasses import replace

from tests.hostile.scene import EVE, Attempt, Scene
from tests.hostile.target import GateCap, Looked

__all__ = ["internal", "replies"]


def internal(at: Scene) -> Iterator[Attempt]:
    """A client that writes to internal topics: its headers may be believed there, but nothing goes without a context."""
    plain = at.totalled(at.ua)
    for name, value in (
        ("none at all", None),
        ("empty", b""),
        ("of one part", b"forged"),
        ("of two parts", b"forged:1"),
        ("of four parts", b"forged:1:0:0"),
        ("of words", b"forged:one:zero"),
        ("of less than nothing", b"forged:-1:0"),
        ("of a number too great", b"forged:1:" + b"9" * 30),
        ("of no text", b"\xff:1:0"),
        ("of a long name", b"x" * 65 + b":1:0"),
        ("with a blank", b"forged:1:0 "),
        ("with a line end", b"forged:1:0\n"),
        ("of other digits", "forged:\u0661:0".encode()),
        ("of the one that it was rerouted from", f"{at.intents}:0:0".encode()),
    ):
        yield Attempt(f"internal: pf-source {name}", "untrusted_record", plain.having(("pf-source", value)))
    yield Attempt("internal: no pf-source", "untrusted_record", plain.without("pf-source"))
    yield Attempt(
        "internal: PF-Source", "untrusted_record", plain.without("pf-source").plus(("PF-Source", b"forged:1:0"))
    )
    for name, hops in (("of a word", b"many"), ("of less than nothing", b"-1"), ("of too many digits", b"1" * 99)):
        yield Attempt(f"internal: pf-hops {name}", "untrusted_record", at.totalled(at.ua).plus(("pf-hops", hops)))
    yield Attempt("internal: too many hops", "too_many_hops", at.totalled(at.ua).plus(("pf-hops", b"17")))
    yield Attempt("internal: far too many hops", "too_many_hops", at.totalled(at.ua).plus(("pf-hops", b"999999999")))
    yield Attempt(
        "internal: pf-source twice", "duplicate_header", at.totalled(at.ua).plus(("pf-source", b"forged:0:0"))
    )
    yield Attempt("internal: pf-source, without a context", "missing_context", at.totalled(None))
    yield Attempt("internal: pf-source, and a context of junk", "malformed_token", at.totalled("junk"))
    yield Attempt("internal: pf-source, for another tenant", "insufficient_capabilities", at.totalled(at.ua, "DL"))
    other = at.mint(GateCap.report("/UA/*"), topics=[at.intents])
    yield Attempt("internal: a token for the public topic", "wrong_topic", at.totalled(other))
    typed = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v2"])
    yield Attempt("internal: a token for the public type", "wrong_intent_type", at.totalled(typed))
    # Known, but not here: no newer version of the topology can have written it.
    public = replace(at.departed(at.ua), topic=at.totals).plus(("pf-source", b"forgedpublic:1:0"))
    yield Attempt("internal: a type of the public topic", "unknown_type", public)
    free = replace(at.looked(None), topic=at.totals).plus(("pf-source", b"forgedfree:1:0"))
    yield Attempt("internal: a type that anybody may send, elsewhere", "unknown_type", free)
    yield Attempt("internal: another's key", "key_mismatch", replace(at.totalled(at.ua), key=b"DL"))
    # Who may not, is refused where the record lies, and nothing is sent on.
    for name, code, message in (
        ("without a context", "missing_context", at.departed(None)),
        ("for another tenant", "insufficient_capabilities", at.departed(at.ua, "DL")),
        (
            "with a context of junk, and said to be sent on",
            "malformed_token",
            at.departed("junk").plus(("pf-rerouted", b"x")),
        ),
    ):
        yield Attempt(f"misplaced: {name}", code, message.misplaced())
    rerouted = f"{at.intents}.rerouted"
    # No pf-source that is one: whoever may write here could say one, but no context stands in for it, and the other way round.
    yield Attempt("rerouted: no pf-source", "untrusted_record", replace(at.departed(at.ua), topic=rerouted))
    for number, (name, code, message) in enumerate((
        ("without a context", "missing_context", at.departed(None)),
        ("a context of junk", "malformed_token", at.departed("junk")),
        ("for another tenant", "insufficient_capabilities", at.departed(at.ua, "DL")),
        ("of the internal topic's type", "unknown_type", at.totalled(at.ua).without("pf-source")),
        ("a newer version", "unsupported_version", at.departed(at.ua).having(("ce_type", b"hostile.departed.v3"))),
        ("a type of nobody", "unknown_type", at.departed(at.ua).having(("ce_type", b"nobody.knows.v1"))),
        ("misplaced again", "wrong_partition", at.record(Looked(carrier="UA", origin="nowhere"), None).misplaced()),
    )):  # fmt: skip
        source = ("pf-source", b"forgedrerouted%d:1:0" % number)
        yield Attempt(f"rerouted: pf-source, {name}", code, replace(message, topic=rerouted).plus(source))


def replies(at: Scene) -> Iterator[Attempt]:
    """Topics that a client must not write to through us."""
    plain = at.departed(at.ua)
    for name, topic in {
        "of the groups' offsets": "__consumer_offsets",
        "of transactions": "__transaction_state",
        "of the registry": "__pf.registry",
        "a public one": at.intents,
        "another public one": at.files,
        "an internal one": at.totals,
        "of rerouted records": f"{at.intents}.rerouted",
        "of dead letters": f"{at.intents}.dlq",
        "of state": f"{at.namespace}-intents-changelog",
        "of another namespace": "other.replies",
        "without its namespace": "replies",
        "in capitals": f"{at.namespace}.replies".upper(),
        "a path": f"{at.namespace}.replies/../{at.intents}",
        "a path in a pattern": "answers./../x",
        "a wildcard": "answers.*",
        "a wildcard of another kind": "answers.[a-z]",
        "with a blank": "answers.x ",
        "with a line end": "answers.x\n",
        "with a NUL": "answers.x\0",
        "with a dot that is none": "answers\u2024x",
        "with dots in full width": "answers\uff0ex",
        "with a look-alike": "\u0430nswers.x",
        "of dead letters, in a pattern": "answers.x.dlq",
        "of rerouted records, in a pattern": "answers.x.rerouted",
        "of state, in a pattern": "answers.x-changelog",
        "empty": "",
        "a dot": ".",
        "two dots": "..",
        "a slash": "/",
        "of 250 characters": "answers." + "x" * 242,
        "two": f"answers.x,{at.intents}",
        "percent-encoded": "answers%2ex",
    }.items():
        yield Attempt(f"reply topic: {name}", "bad_reply_topic", plain.plus(("pf-reply-to", topic.encode())))
    yield Attempt("reply topic: of no text", "bad_reply_topic", plain.plus(("pf-reply-to", b"answers.\xff")))
    # Who has not proven who they are is told nothing, wherever they want to be told.
    asked = ("pf-reply-to", f"{at.namespace}.replies".encode())
    for name, code, message in (
        ("without a context", "missing_context", at.departed(None)),
        ("with a junk context", "malformed_token", at.departed("junk")),
        ("with another issuer's", "bad_signature", at.departed(at.mint(GateCap.admin("/**"), key=EVE))),
        (
            "with one for another namespace",
            "wrong_audience",
            at.departed(at.mint(GateCap.admin("/**"), audience="other")),
        ),
        (
            "without a context, of a type that nobody knows",
            "unknown_type",
            at.departed(None).having(("ce_type", b"x.v1")),
        ),
        ("without a context, on an internal topic", "untrusted_record", at.totalled(None).without("pf-source")),
    ):
        yield Attempt(f"reply: {name}", code, message.plus(asked))
