"""What is asked for: resources, payloads, keys."""

from collections.abc import Iterator
from dataclasses import replace

import orjson

from tests.hostile.scene import Attempt, Scene
from tests.hostile.target import Cancelled, GateCap, LoanCap

__all__ = ["keys", "payloads", "resources"]


def resources(at: Scene) -> Iterator[Attempt]:
    """Fields that shall be read as something else than what they are."""
    for name, code, path in (
        ("a folder up", "bad_resource", "../bob/x"),
        ("a folder up, further on", "bad_resource", "docs/../../bob/x"),
        ("a folder up, at the end", "bad_resource", "docs/.."),
        ("this folder", "bad_resource", "./../bob/x"),
        ("percent-encoded dots", "bad_resource", "%2e%2e/bob/x"),
        ("percent-encoded dots in capitals", "bad_resource", "%2E%2E/bob/x"),
        ("percent-encoded slash", "bad_resource", "..%2fbob%2fx"),
        ("percent-encoded twice", "bad_resource", "%252e%252e/bob/x"),
        ("overlong percent-encoding", "bad_resource", "%c0%ae%c0%ae/bob/x"),
        ("two slashes", "bad_resource", "docs//a"),
        ("two slashes in front", "bad_resource", "//bob/x"),
        ("a slash at the end", "bad_resource", "docs/"),
        ("nothing", "bad_resource", ""),
        ("a slash", "bad_resource", "/"),
        ("a NUL", "bad_resource", "docs/a\0/../../bob"),
        ("a line end", "bad_resource", "docs/a\n"),
        ("a wildcard", "bad_resource", "*"),
        ("everything below", "bad_resource", "**"),
        ("a question mark", "bad_resource", "docs/?"),
        ("a template", "bad_resource", "{path...}"),
    ):
        yield Attempt(f"path: {name}", code, at.stored(at.ua, path=path))
    docs = at.mint(LoanCap.write("/ann/docs/**"))
    # A backslash is a character as any other: no folder, and no part of the scope.
    for name, path in (
        ("a backslash for a folder up", "docs\\..\\secret"),
        ("a backslash for a slash", "docs\\a"),
        ("a fraction slash", "docs\u2044a"),
        ("a division slash", "docs\u2215a"),
        ("a full-width slash", "docs\uff0fa"),
        ("in capitals", "Docs/a"),
        ("a neighbour of equal beginning", "docs2/a"),
        ("dots of two leaders", "docs\u2025/a"),
        ("three dots", ".../docs/a"),
    ):
        yield Attempt(f"path: {name}", "insufficient_capabilities", at.stored(docs, path=path))
    yield Attempt(
        "path: a one dot leader twice", "insufficient_capabilities", at.stored(docs, path="\u2024\u2024/docs/a")
    )
    for name, code, carrier in (
        ("another tenant", "insufficient_capabilities", "DL"),
        ("in small letters", "insufficient_capabilities", "ua"),
        ("in full width", "insufficient_capabilities", "\uff35\uff21"),
        ("a Cyrillic look-alike", "insufficient_capabilities", "U\u0410"),
        ("a Greek look-alike", "insufficient_capabilities", "U\u0391"),
        ("mathematical letters", "insufficient_capabilities", "\U0001d414\U0001d400"),
        ("a blank behind", "insufficient_capabilities", "UA "),
        ("a blank before", "insufficient_capabilities", " UA"),
        ("a blank that does not break", "insufficient_capabilities", "UA\u00a0"),
        ("a backslash", "insufficient_capabilities", "UA\\..\\DL"),
        ("very long", "insufficient_capabilities", "UA" * 50_000),
        ("a regular expression", "insufficient_capabilities", "(UA|DL)"),
        ("a quote and Datalog", "insufficient_capabilities", 'UA"); right("GateCap.admin", "'),
        ("nothing", "bad_resource", ""),
        ("a dot", "bad_resource", "."),
        ("a folder up", "bad_resource", ".."),
        ("a slash", "bad_resource", "UA/../DL"),
        ("a slash and no more", "bad_resource", "/"),
        ("a wildcard", "bad_resource", "*"),
        ("two wildcards", "bad_resource", "**"),
        ("a part of a wildcard", "bad_resource", "U*"),
        ("a question mark", "bad_resource", "U?"),
        ("a brace", "bad_resource", "{carrier}"),
        ("a percent sign", "bad_resource", "%55%41"),
        ("a line end", "bad_resource", "UA\n"),
        ("a carriage return", "bad_resource", "UA\r"),
        ("a tabulator", "bad_resource", "\tUA"),
        ("a next line", "bad_resource", "UA\u0085"),
        ("a line separator", "bad_resource", "UA\u2028"),
        ("a NUL", "bad_resource", "UA\0"),
        ("a delete", "bad_resource", "UA\x7f"),
        ("an escape", "bad_resource", "\x1b[1mUA"),
        ("no width", "bad_resource", "U\u200bA"),
        ("a joiner", "bad_resource", "U\u200dA"),
        ("a byte order mark", "bad_resource", "\ufeffUA"),
        ("a soft hyphen", "bad_resource", "U\u00adA"),
        ("a word joiner", "bad_resource", "U\u2060A"),
        ("from right to left", "bad_resource", "\u202eAU"),
        ("an isolate", "bad_resource", "\u2067AU\u2069"),
        ("tags", "bad_resource", "UA\U000e0055"),
        ("not in normal form C", "bad_resource", "UA\u0041\u030a"),
        ("a sign that normal form C changes", "bad_resource", "\u212b"),
        ("a Kelvin sign", "bad_resource", "\u212a"),
    ):
        yield Attempt(f"carrier: {name}", code, at.departed(at.ua, carrier))
    # In either field: both are segments of one resource.
    for name, origin in (("a slash", "EWR/1"), ("nothing", ""), ("a folder up", ".."), ("a wildcard", "*")):
        yield Attempt(f"origin: {name}", "bad_resource", at.departed(at.ua, origin=origin))
    endless = at.append(at.ua, "check if true")
    yield Attempt("origin: very long, by the authoriser", "limits_reached", at.departed(endless, origin="E" * 5_000))
    for name, code, token in (
        ("of nothing", "insufficient_capabilities", at.mint()),
        ("of one gate, for another", "insufficient_capabilities", at.mint(GateCap.report("/UA/LAX"))),
        ("of the folder alone", "insufficient_capabilities", at.mint(GateCap.report("/UA"))),
        ("of the root alone", "insufficient_capabilities", at.mint(GateCap.report("/"))),
        ("of a segment too many", "insufficient_capabilities", at.mint(GateCap.report("/UA/EWR/*"))),
        ("of another operation", "insufficient_capabilities", at.mint(GateCap.cancel("/**"))),
        ("of another family", "insufficient_capabilities", at.mint(LoanCap.write("/**"))),
        ("of an operation in capitals", "insufficient_capabilities", at.issue('right("GateCap.Report", "/**");')),
        ("of every operation, by a star", "malformed_token", at.issue('right("GateCap.*", "/**");')),
        ("narrowed to nothing", "insufficient_capabilities", at.narrow(at.ua, capabilities=[])),
        (
            "narrowed to another gate",
            "insufficient_capabilities",
            at.narrow(at.ua, capabilities=[GateCap.report("/UA/LAX")]),
        ),
        (
            "narrowed, and widened again",
            "insufficient_capabilities",
            at.narrow(at.narrow(at.ua, capabilities=[GateCap.report("/UA/LAX")]), capabilities=[GateCap.admin("/**")]),
        ),
        (
            "for another type",
            "wrong_intent_type",
            at.mint(GateCap.report("/**"), intent_types=["hostile.cancelled.v1"]),
        ),
        (
            "for a type without its version",
            "wrong_intent_type",
            at.mint(GateCap.report("/**"), intent_types=["hostile.departed"]),
        ),
        ("for another topic", "wrong_topic", at.mint(GateCap.report("/**"), topics=[at.files])),
        ("for a topic without its namespace", "wrong_topic", at.mint(GateCap.report("/**"), topics=["intents"])),
        (
            "for two topics that exclude each other",
            "wrong_topic",
            at.narrow(at.mint(topics=[at.files]), topics=[at.intents]),
        ),
    ):
        yield Attempt(f"grant: {name}", code, at.departed(token))
    yield Attempt("grant: admin of one, for the other", "insufficient_capabilities", at.departed(at.dl))
    yield Attempt(
        "grant: reports, for a cancellation",
        "insufficient_capabilities",
        at.record(Cancelled(carrier="UA", origin="EWR"), at.ua),
    )


def payloads(at: Scene) -> Iterator[Attempt]:
    """Values that two readers may read as two things, and what says in them that it is allowed."""
    plain = at.departed(at.ua)
    for name, code, value in (
        (
            "a field twice, the first one's own",
            "insufficient_capabilities",
            b'{"carrier":"UA","origin":"EWR","carrier":"DL"}',
        ),
        ("an escaped slash", "bad_resource", b'{"carrier":"UA\\u002f..","origin":"EWR"}'),
        ("escaped dots", "bad_resource", b'{"carrier":"\\u002e\\u002e","origin":"EWR"}'),
        ("overlong UTF-8", "malformed_payload", b'{"carrier":"UA\xc0\xaf","origin":"EWR"}'),
        ("half a surrogate", "malformed_payload", b'{"carrier":"\\ud800","origin":"EWR"}'),
        ("a number for a text", "malformed_payload", b'{"carrier":7,"origin":"EWR"}'),
        ("true for a text", "malformed_payload", b'{"carrier":true,"origin":"EWR"}'),
        ("a list for a text", "malformed_payload", b'{"carrier":["UA","DL"],"origin":"EWR"}'),
        ("null for a text", "malformed_payload", b'{"carrier":null,"origin":"EWR"}'),
        ("a field in capitals", "malformed_payload", b'{"Carrier":"UA","origin":"EWR"}'),
        ("a field too few", "malformed_payload", b'{"carrier":"UA"}'),
        ("UTF-16", "malformed_payload", '{"carrier":"UA","origin":"EWR"}'.encode("utf-16")),
        ("a byte order mark", "malformed_payload", b'\xef\xbb\xbf{"carrier":"UA","origin":"EWR"}'),
        ("two documents", "malformed_payload", b'{"carrier":"UA","origin":"EWR"}{"carrier":"DL","origin":"EWR"}'),
        ("a comment", "malformed_payload", b'{"carrier":"UA"/*DL*/,"origin":"EWR"}'),
        ("nothing", "malformed_payload", b""),
        ("larger than is read", "payload_too_large", b" " * (1 << 20) + b'{"carrier":"UA","origin":"EWR"}'),
    ):
        yield Attempt(f"payload: {name}", code, replace(plain, value=value))
    yield Attempt("payload: none, to delete", "null_value", replace(plain, value=None))
    asked = {"carrier": "DL", "origin": "EWR"}
    for name, more in (
        ("the context in it", {"pf-context": at.dl}),
        ("the context in it, as a name", {"pf_context": at.dl}),
        ("a capability in it", {"capabilities": ["GateCap.admin:/**"]}),
        ("a right in it", {"right": ["GateCap.admin", "/**"]}),
        ("a subject in it", {"subject": "bob"}),
    ):
        # Even the attacker's own gate is not reported so: unknown fields are refused.
        value = orjson.dumps({**asked, **more})
        yield Attempt(f"payload: {name}", "malformed_payload", replace(at.departed(None, "DL"), value=value))
    own = replace(at.departed(None), value=orjson.dumps({"carrier": "UA", "origin": "EWR", "context": at.ua}))
    yield Attempt("payload: one's own context in it", "malformed_payload", own)


def keys(at: Scene) -> Iterator[Attempt]:
    """Record keys that are not those of the payload: state lives where the key says."""
    plain = at.departed(at.ua)
    for name, key in {
        "another tenant's": b'["DL","EWR"]',
        "another order": b'["EWR","UA"]',
        "with blanks": b'["UA", "EWR"]',
        "without the brackets": b"UA,EWR",
        "the first field alone": b"UA",
        "in small letters": b'["ua","ewr"]',
        "with a NUL": b'["UA","EWR"]\0',
        "in UTF-16": '["UA","EWR"]'.encode("utf-16"),
        "of no text": b"\xff\xfe",
        "empty": b"",
    }.items():
        yield Attempt(f"key: {name}", "key_mismatch", replace(plain, key=key))
    yield Attempt("key: none", "null_key", replace(plain, key=None))
    yield Attempt("key: the owner's with a slash", "key_mismatch", replace(at.stored(at.ua), key=b"/ann"))
    # What is allowed is asked first: who may not, is not told which key it is.
    yield Attempt(
        "key: one's own, with another's payload",
        "insufficient_capabilities",
        replace(at.departed(at.ua, "DL"), key=b'["UA","EWR"]'),
    )
