"""Conditions, facts and rules in blocks: Datalog, as text and byte by byte."""

from collections.abc import Iterator

from biscuit_auth import BlockBuilder, PublicKey

from pf_stream.security import SigningKey
from pf_stream.security.envelope import to_base64url
from tests.hostile.forge import (
    RIGHT,
    append_bytes,
    block,
    checks,
    derives,
    fields_of,
    nested,
    right_of,
    said,
    spelled,
    variable,
)
from tests.hostile.scene import EVE, PARTNER, Attempt, Scene
from tests.hostile.target import GateCap
from tests.unit.security import cases
from tests.unit.security.cases import field

__all__ = ["datalog"]


def datalog(at: Scene) -> Iterator[Attempt]:
    """What blocks say, those that any holder appends and those that an issuer was talked into."""
    facts, few = ("".join(f"f({number});" for number in range(size)) for size in (300, 60))
    for name, source in {
        "a join": facts + "check if f($a), f($b), f($c), f($d), $a + $b + $c + $d == -1",
        "a wide join": few + "check if " + ", ".join(f"f($v{number})" for number in range(60)),
        "a join in a rule": facts + "g($a) <- f($a), f($b), f($c), f($d), $a + $b + $c + $d == -1",
        "a head that explodes": few + "g($a, $b, $c, $d) <- f($a), f($b), f($c), f($d)",
        "rules in a circle": "f($x) <- g($x); g($x) <- f($x); f(1)",
        "a rule that feeds itself": "f(1); f($x) <- f($x)",
        "requests joined": "check if " + ", ".join(f"request($o{number}, $r)" for number in range(8)),
        "closures in closures": "check if " + closures(60, "a", "b", "c"),
        "deep closures": "check if " + closures(4, *"abcdefghij"),
        "a repetition in an expression": 'check if "x".matches("\\\\w{1000}")',
        "repetitions in repetitions": 'check if "x".matches("((a{99}){99}){99}")',
        "an expression out of a fact": 'p("\\\\w{999}"); check if p($p), "x".matches($p)',
        "an expression out of the request": 'check if request($o, $r), "x".matches("\\\\w" + $r)',
        "long sums": 'f("' + "x" * 1000 + '"); check if f($x), ' + " + ".join(["$x"] * 200) + ' == "a"',
    }.items():
        yield Attempt(f"bomb: {name}", "limits_reached", at.departed(at.append(at.ua, source)))
    for name, source in {
        "a right": 'right("GateCap.report", "/DL/**")',
        "a right to everything": 'right("GateCap.admin", "/**")',
        "a right by a rule": "right($o, $r) <- request($o, $r)",
        "a right by a rule that trusts the issuer": "right($o, $r) <- request($o, $r) trusting authority",
        "a right by a rule that trusts what came before": "right($o, $r) <- request($o, $r) trusting previous",
        "another subject": 'subject("bob")',
        "another tenant": 'tenant("DL")',
        "the request": 'request("GateCap.report", "/UA/EWR")',
        "the whole of a profile": 'pf(1); subject("bob"); audience("x"); right("GateCap.admin", "/**")',
        "a check that trusts what came before": "check if true trusting previous",
        "a check of the right itself": 'check if right($o, "/UA/*") trusting authority',
    }.items():
        yield Attempt(f"block: {name}", "insufficient_capabilities", at.departed(at.append(at.ua, source), "DL"))
    # A check sees the facts of its own block and of the issuer's, never those of a later one.
    elsewhere = at.narrow(at.ua, topics=[at.files])
    cancelling = at.narrow(at.ua, intent_types=["hostile.cancelled.v1"])
    losing = at.narrow(at.ua, capabilities=[GateCap.report("/UA/LAX")])
    open_check = at.append(at.ua, f'check if topic($t), $t.starts_with("{at.files}")')
    for name, code, token in (
        ("topic", "wrong_topic", at.append(elsewhere, f'topic("{at.files}")')),
        ("topic, by a rule", "wrong_topic", at.append(elsewhere, f'topic("{at.files}") <- intent_type($t)')),
        ("type", "wrong_intent_type", at.append(cancelling, 'intent_type("hostile.cancelled.v1")')),
        ("request", "insufficient_capabilities", at.append(losing, 'request("GateCap.report", "/UA/LAX")')),
        ("topic, for a check of the authoriser's", "check_failed", at.append(open_check, f'topic("{at.files}")')),
    ):
        yield Attempt(f"block: what a narrowing asks for, as a fact: {name}", code, at.departed(token))
    for name, code, source in (
        ("a check that fails", "check_failed", "check if 1 > 2"),
        ("a check of all that fails", "check_failed", "check all request($o, $r), $r == 7"),
        ("a refusal", "check_failed", "reject if true"),
        ("a check of an unknown fact", "check_failed", "check if nobody($x)"),
        ("a division by nothing", "undecidable", "check if 1 / 0 == 1"),
        ("a number too great", "undecidable", "check if 9223372036854775807 + 1 > 0"),
        ("a text plus a number", "undecidable", "check if request($o, $r), $r + 1 == 2"),
        ("a number for a condition", "undecidable", "check if 1 == 2 || 1"),
        ("an expression that is none", "check_failed", 'check if "x".matches("(")'),
    ):
        yield Attempt(f"block: {name}", code, at.departed(at.append(at.ua, source)))
    # Some holds, but nobody asks for anything: a token that only the authoriser can judge is not taken for nothing.
    yield Attempt(
        "block: conditions, for what anybody may", "undecidable", at.looked(at.append(at.ua, "check if true"))
    )
    yield from _raw_blocks(at)
    yield from _third_parties(at)
    yield from _issued(at)


def closures(size: int, *names: str) -> str:
    """An ``all`` in an ``all`` in an ``all``."""
    array = "[" + ",".join(map(str, range(size))) + "]"
    inner = " + ".join(f"${name}" for name in names) + " >= 0"
    for name in reversed(names):
        inner = f"{array}.all(${name} -> {inner})"
    return inner


def _raw_blocks(at: Scene) -> Iterator[Attempt]:
    """Blocks that the library does not build, rightly signed."""
    ua = at.ua
    everything = [variable(0), variable(1)]
    for name, code, content in (
        # The library finds it only when it builds the authoriser.
        ("a right with an unbound head", "undecidable", lambda at: derives(said(RIGHT, *everything))),
        (
            "a right with a head that is half bound",
            "undecidable",
            lambda at: derives(said(RIGHT, *everything), said(at, variable(0))),
        ),
        ("a symbol that is not in the table", "malformed_token", lambda at: checks(said(at + 99))),
        ("an unknown part", "malformed_token", lambda at: field(9, b"")),
        ("a check of an unknown kind", "malformed_token", lambda at: field(6, field(2, 7))),
        ("a term of an unknown kind", "malformed_token", lambda at: checks(said(at, field(15, b"")))),
        ("a collection in a collection, too deeply", "malformed_token", lambda at: checks(said(at, nested(40)))),
    ):
        token = append_bytes(ua, block(ua, ["q"], content))
        yield Attempt(f"raw block: {name}", code, at.departed(token))
    for name, code, data in (
        ("nothing", "malformed_token", b""),
        ("a version of the future", "malformed_token", field(3, 99)),
        ("a version of the past", "malformed_token", field(3, 1)),
        ("two versions", "malformed_token", field(3, 3) + field(3, 3)),
        # The library verifies and reads at once, and has one error for what does not fit and what it cannot read.
        ("no protobuf", "bad_signature", b"\xff" * 9),
        ("a string that is no UTF-8", "bad_signature", field(1, b"\xff") + field(3, 3)),
        ("a string that the table has already", "bad_signature", block(ua, ["GateCap.report", "/**"], right_of)),
    ):
        yield Attempt(f"raw block: {name}", code, at.departed(append_bytes(ua, data)))
    free = block(ua, ["q"], lambda _: field(4, field(1, said(RIGHT, *everything))))
    yield Attempt(
        "raw block: a right with variables", "insufficient_capabilities", at.departed(append_bytes(ua, free), "DL")
    )
    again = block(ua, ["GateCap.admin", "/**"], right_of)
    yield Attempt(
        "raw block: a right by the number of its name",
        "insufficient_capabilities",
        at.departed(append_bytes(ua, again), "DL"),
    )


def _third_parties(at: Scene) -> Iterator[Attempt]:
    """Blocks that somebody else signed too."""
    everything = 'right("GateCap.admin", "/**"); approved("ann")'
    for name, key in (("of one's own", EVE), ("of the partner", PARTNER)):
        token = third_party(at.ua, key, everything)
        # Whoever signs it beside the holder, it is a later block.
        yield Attempt(f"third party: a right {name}", "insufficient_capabilities", at.departed(token, "DL"))
    asks = at.issue(f'right("GateCap.report", "/UA/*"); check if approved("ann") trusting {PARTNER.public};')
    yield Attempt("third party: asked for, and none", "check_failed", at.departed(asks))
    yield Attempt(
        "third party: asked for, and one's own", "check_failed", at.departed(third_party(asks, EVE, everything))
    )
    plain = at.append(asks, 'approved("ann")')
    yield Attempt("third party: asked for, and a block that nobody signed", "check_failed", at.departed(plain))
    approved = third_party(asks, PARTNER, everything)
    moved = fields_of(third_party(at.ua, PARTNER, everything))
    kid, authority, _, proof = fields_of(approved)
    yield Attempt(
        "third party: one that was signed for another token",
        "bad_signature",
        at.departed(spelled([kid, authority, moved[2], proof])),
    )
    yield Attempt("third party: for another tenant", "insufficient_capabilities", at.departed(approved, "DL"))


def third_party(token: str, key: SigningKey, source: str) -> str:
    """*token* with a block that the holder of *key* signed for it."""
    genuine = cases.biscuit(token)
    made = genuine.third_party_request().create_block(key.private, BlockBuilder(source))
    return to_base64url(bytes(genuine.append_third_party(PublicKey(key.public), made).to_bytes()))


def _issued(at: Scene) -> Iterator[Attempt]:
    """Authority blocks that an issuer of no care signs."""
    for name, source in {
        "says the request": 'right("GateCap.report", "/UA/*"); request("GateCap.report", "/DL/EWR");',
        "says the time": f"time({at.date(-900)});",
        "says the topic": f'topic("{at.files}");',
        "says the type": 'intent_type("hostile.departed.v2");',
        "derives rights from requests": "right($o, $r) <- request($o, $r);",
        "derives a subject": 'subject("bob") <- subject("ann");',
        "says two subjects": 'subject("bob");',
        "says two audiences": 'audience("other");',
        "says two versions": "pf(2);",
        "has a right up a folder": 'right("GateCap.report", "/UA/../DL/*");',
        "has a right with a wildcard in a name": 'right("GateCap.report", "/U*/*");',
        "has a right without a slash": 'right("GateCap.report", "UA");',
        "has a right of three": 'right("GateCap.report", "/**", "/**");',
        "has a right of one": 'right("GateCap.report");',
        "has a right of numbers": "right(1, 2);",
        "has an empty tenant": 'tenant("");',
    }.items():
        yield Attempt(f"issued: {name}", "malformed_token", at.departed(at.issue(source)))
    for name, source in {
        "says no subject": f'pf(1); audience("{at.namespace}"); right("GateCap.admin", "/**");',
        "says no audience": 'pf(1); subject("ann"); right("GateCap.admin", "/**");',
        "says no version": f'subject("ann"); audience("{at.namespace}"); right("GateCap.admin", "/**");',
        "says another version": f'pf(2); subject("ann"); audience("{at.namespace}"); right("GateCap.admin", "/**");',
        "says nothing": "x(1);",
    }.items():
        yield Attempt(f"issued: {name}", "malformed_token", at.departed(at.raw_issue(source)))
    injected = at.mint(GateCap.report("/UA/*"), subject='ann"); right("GateCap.admin", "/**')
    yield Attempt("issued: a subject that is Datalog", "insufficient_capabilities", at.departed(injected, "DL"))
    typed = at.mint(GateCap.report("/UA/*"), intent_types=['x") or intent_type("hostile.departed.v2'])
    yield Attempt("issued: a type that is Datalog", "wrong_intent_type", at.departed(typed))
    rule = at.issue('right("GateCap.report", "/UA/*"); may($o, $r) <- request($o, $r);')
    yield Attempt("issued: a rule of another name", "insufficient_capabilities", at.departed(rule, "DL"))
