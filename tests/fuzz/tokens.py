"""Tokens, whole and broken, at everything that reads them: only what is declared may come of it, and only what is deserved."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from random import Random
from typing import Final

from biscuit_auth import (
    AuthorizationError,
    AuthorizerBuilder,
    Biscuit,
    BiscuitValidationError,
    BlockBuilder,
    KeyPair,
    Rule,
)

from pf_stream.model.capability import HeldGrant
from pf_stream.model.scope import Scope
from pf_stream.model.when import When
from pf_stream.security import Claims, Refusal, TokenError, TokenInfo, TrustRoots, Verifier, attenuate, describe
from pf_stream.security._authoriser import authorise, set_limits
from pf_stream.security._block import read_blocks
from pf_stream.security.envelope import MAX_BLOCKS, Envelope, to_base64url
from pf_stream.security.profile import During, during_texts
from tests.fuzz.forge import KEY, KID, Part, forged
from tests.fuzz.mutate import changed, mutated, parsed, pool_of
from tests.unit.security.cases import (
    AUDIENCE,
    ENDS,
    IMPLIED_BY,
    NOW_MS,
    OPERATIONS,
    PLAIN,
    TOPICS,
    TYPES,
    append,
    biscuit,
    issue,
    random_case,
    random_scope,
)

__all__ = ["CODES", "ROOTS", "check_token", "random_token"]

ROOTS: Final = TrustRoots.of(KEY)
CODES: Final = frozenset(re.findall(r"^ +``(\w+)`` ", Refusal.__doc__ or "", re.MULTILINE))
"""The codes that a refusal may have, out of its own table."""

_BEFORE_READING: Final = frozenset(
    {"token_too_large", "too_many_blocks", "unknown_key", "bad_signature", "malformed_token", "limits_reached"}
)
_OF_THE_READABLE: Final = _BEFORE_READING - {"malformed_token"} | {"wrong_audience"}

_TYPE, _TOPIC = TYPES[0], TOPICS[0]

# What the closed profile lacks, and its own statements in other words.
_OPEN: Final = (
    "check if true;",
    "check all time($t), $t > 2026-01-01T00:00:00Z;",
    'reject if topic($t), $t.starts_with("o");',
    'check if request($o, $r), $o == "A.read", $r.starts_with("/a");',
    'check if request("A.read", $r), $r.matches("^/a(/[^/]+)*$"), $r.length() < 100;',
    "check if [1, 2, 3].all($p -> $p > 0 && [3].any($q -> $q > $p)) or {1}.length() == 1;",
    'f(1, -1, "s", 2026-01-01T00:00:00Z, hex:0aff, true, null); g({1, 2}, ["a", [1]], {"k": {"l": 1}, 2: false});',
    'h($x) <- f($x, $y, $z, $a, $b, $c, $d), $x > 1 trusting authority, previous; check if h(7) or topic("other");',
    'path($r) <- request($o, $r); check if path("/a/c.d") or path($p), $p.contains("a");',
    'right("B.root", "/**"); subject("root"); audience("x"); request("B.root", "/"); time(1970-01-01T00:00:00Z);',
    "check if 9223372036854775807 + 1 > 0;",
    'check if (true === 12).try_or(true); check if "a".extern::test("a");',
    "check if time($t), $t < 2026-01-01T00:15:00Z, $t > 2020-01-01T00:00:00Z;",
    'check if topic("other") or topic("flights.intents"); check if intent_type($t), !{"x", "y"}.contains($t);',
)
_CLOSED: Final = (
    ENDS,
    "check if false;",
    'check if topic("other") or topic("flights.intents");',
    'check if intent_type("flights.departed"); check if time($t), $t >= 2026-01-01T00:00:00Z;',
    'check if request("A.read", "/a/a") or request("A.admin", $r), $r.matches("^/a(/[^/]+)*$");',
)


def _chains() -> list[tuple[Part, ...]]:
    """The blocks of tokens of all shapes."""
    tokens = [issue(PLAIN + ENDS), issue(PLAIN), issue(PLAIN + 'tenant("acme");' + ENDS)]
    for number in range(60):
        case = random_case(Random(number))  # noqa: S311 - to be repeated is what these dice are for
        tokens.append(case.token())
    for source in (*_OPEN, *_CLOSED):
        once = append(tokens[0], source)
        tokens += [issue(PLAIN + ENDS + source), once, append(once, 'check if topic("other");')]
    deep = issue(PLAIN + ENDS)
    for at in range(MAX_BLOCKS):
        deep = append(deep, _CLOSED[at % len(_CLOSED)])
    tokens += [issue(PLAIN + 'right("A.admin", "/**");' * 30 + ENDS), append(tokens[0], "check if true;" * 30), deep]
    chains = [tuple(Part(block.data) for block in Envelope.read(token.encode()).blocks) for token in tokens]
    # Somebody else's block has symbols of its own, so it stands behind any token.
    stranger = KeyPair()
    for source in (*_OPEN, *_CLOSED):
        block = biscuit(tokens[0]).third_party_request().create_block(stranger.private_key, BlockBuilder(source))
        other = biscuit(tokens[0]).append_third_party(stranger.public_key, block)
        data = Envelope.read(to_base64url(bytes(other.to_bytes())).encode()).blocks[-1].data
        chains.append((*chains[0], Part(data, third_party=True)))
    return chains


CHAINS: Final = _chains()
_PARTS: Final = [part for chain in CHAINS for part in chain]
_TREES: Final = {part.data: parsed(part.data) for part in _PARTS}
_POOL: Final = pool_of(list(_TREES.values()))
_WHOLE: Final = [forged(chain) for chain in CHAINS]
_ENVELOPES: Final = [parsed(data) for data in _WHOLE]
_ENVELOPE_POOL: Final = pool_of(_ENVELOPES[:40])


def random_token(rng: Random) -> bytes:
    """Bytes for a ``pf-context``: a token with something wrong in it, or with nothing wrong."""
    kind = rng.random()
    if kind < 0.2:
        text = to_base64url(rng.choice(_WHOLE)).encode()
        for _ in range(rng.randint(1, 3)):
            text = changed(text, rng)
        return text
    if kind < 0.23:
        return rng.choice((rng.randbytes, lambda size: to_base64url(rng.randbytes(size)).encode()))(rng.randint(0, 99))
    if kind < 0.45:
        at = rng.randrange(len(_ENVELOPES))
        return _written(mutated(_ENVELOPES[at], rng, _ENVELOPE_POOL), rng)
    chain = list(rng.choice(CHAINS))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at = rng.randrange(len(chain))
        match rng.randrange(10):
            case 0:
                chain[at] = rng.choice(_PARTS)
            case 1:
                chain.insert(at, rng.choice(_PARTS))
            case 2:
                chain[at] = Part(changed(chain[at].data, rng), chain[at].third_party)
            case _:
                data = chain[at].data
                chain[at] = Part(mutated(_TREES.get(data) or parsed(data), rng, _POOL), chain[at].third_party)
    return _written(forged(chain[:12], version=rng.choice((1, 1, 1, 0)), kid=rng.choice((KID,) * 9 + (8,))), rng)


def _written(data: bytes, rng: Random) -> bytes:
    padded = urlsafe_b64encode(data)
    return padded if rng.random() < 0.01 else padded.rstrip(b"=")


def _told(token: bytes) -> TokenInfo | None:
    try:
        return describe(token)
    except TokenError:
        return None


def check_token(token: bytes, rng: Random, verifier: Verifier) -> str:
    """Hold everything that reads tokens against *token*; returns what *verifier* said of it, in one word.

    Raises AssertionError, or whatever a reader raises that it did not declare.
    """
    outcome = verifier.verify(token)
    # What verifies a token reads it as well, so not everything need be read twice.
    described = isinstance(outcome, Claims) or rng.random() < 0.4
    told = _told(token) if described else None
    again = Verifier(ROOTS, AUDIENCE).verify(token) if rng.random() < 0.02 else outcome
    if isinstance(outcome, Refusal):
        assert outcome == again, "another verifier says another thing"
        assert outcome.code in CODES, f"code {outcome.code!r} is not in the table"
        if described:
            expected = _BEFORE_READING if told is None else _OF_THE_READABLE
            assert outcome.code in expected, f"{outcome}, and it can {'not ' if told is None else ''}be described"
        # That is what a verifier says of any error that it did not expect.
        assert outcome.code != "undecidable", outcome.reason
        return outcome.code
    assert isinstance(again, Claims), f"another verifier says {again}"
    assert told is not None, "it is believed and cannot be described"
    seen = (outcome.subject, outcome.tenant, outcome.audience, outcome.not_before_ms, outcome.expires_ms)
    assert seen == (told.subject, told.tenant, told.audience, told.not_before_ms, told.expires_ms)
    assert (outcome.closed, outcome.revocation_ids) == (told.in_profile, told.revocation_ids)
    _check_deserved(token, outcome, told.capabilities, rng)
    return "closed" if outcome.closed else "open"


def _check_deserved(token: bytes, claims: Claims, rights: tuple[HeldGrant, ...], rng: Random) -> None:
    """What is believed is genuine, and grants what Biscuit's own authoriser grants."""
    root = ROOTS.key(KID)
    assert root is not None
    biscuit = Biscuit.from_bytes(urlsafe_b64decode(token + b"=="), root)
    assert tuple(biscuit.revocation_ids) == claims.revocation_ids
    if rng.random() < 0.1:
        builder = AuthorizerBuilder()
        set_limits(builder)
        try:
            authoriser = builder.build(biscuit)
            plain = authoriser.query(Rule("held($o, $s) <- right($o, $s)"))
            limited = authoriser.query(Rule("held($o, $s, $w) <- right($o, $s, $w)"))
        except (AuthorizationError, BiscuitValidationError):
            assert not claims.closed, "the library cannot load or evaluate it, although it is closed"
        else:
            held = {
                HeldGrant(operation, Scope.parse(scope), *map(When.parse, during))
                for operation, scope, *during in (fact.terms for fact in (*plain, *limited))
            }
            assert held == set(rights), f"the library reads the rights {held}"
    required = rng.choice(OPERATIONS)
    aim = rng.choice(rights) if rights and rng.random() < 0.8 else HeldGrant("A.read", random_scope(rng))
    resource = "/" + "/".join("a" if one == "*" else one for one in (*aim.scope.segments, *("a",) * aim.scope.below))
    operations = IMPLIED_BY[required] if rng.random() < 0.5 else frozenset({aim.operation})
    intent_type = rng.choice((_TYPE, _TYPE, *TYPES))
    topic = rng.choice((_TOPIC, _TOPIC, *TOPICS))
    edges = [edge for edge in (claims.expires_ms, claims.not_before_ms) if 0 < edge < 253_402_300_799_000]
    at_ms = rng.choice((NOW_MS + 1500, *edges)) + rng.choice((-1, 0, 1))
    ours = claims.valid_at(at_ms) or claims.refusal(operations, resource, intent_type, topic, at_ms)
    asked = during_texts(read_blocks(Envelope.read(token).blocks))
    theirs = authorise(
        biscuit,
        rights,
        operations=operations,
        resource=resource,
        intent_type=intent_type,
        topic=topic,
        at_ms=at_ms,
        during=[text for text in asked if During.read(text).holds(at_ms, {})],
    )
    assert ours is None or ours.code in CODES
    assert (ours is None) == (theirs is None), (
        f"we say {ours or 'yes'} and the authoriser {theirs or 'yes'} to {sorted(operations)} on {resource!r}, "
        f"{intent_type!r}, {topic!r}, {at_ms}"
    )
    if rng.random() < 0.05:
        _check_narrowed(token, claims)


def _check_narrowed(token: bytes, claims: Claims) -> None:
    """What is believed can be narrowed, or it is said why not; as a worker does for what is emitted."""
    try:
        narrow = attenuate(token, ROOTS, capabilities=[], topics=["q"]).encode()
    except TokenError:
        return
    narrowed = Verifier(ROOTS, AUDIENCE).verify(narrow)
    if isinstance(narrowed, Refusal):
        # One block more may make its Datalog too dear.
        assert (narrowed.code, claims.closed) == ("limits_reached", False), f"narrowed, it is refused: {narrowed}"
    else:
        assert narrowed.closed == claims.closed
        assert narrowed.refusal(frozenset(OPERATIONS), "/a", "t", "q", NOW_MS) is not None, (
            "narrowed to nothing, it grants"
        )
