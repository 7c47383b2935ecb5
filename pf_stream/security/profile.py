"""The closed profile: the facts and checks that pf_stream's own tokens are made of, and what they mean.

A token is a Biscuit (version 3 or later) signed with Ed25519, in base64url without padding, at most 8192 bytes long and 8
blocks deep, whose ``rootKeyId`` names the issuer's key. A token in this profile is compiled once and decided without Datalog;
any other valid Biscuit that says the facts below is *open*, and Biscuit's authoriser decides it. The answers are equal.

**Authority block: facts.** In any order::

    pf(1)                                       exactly once: the version of this profile
    subject("alice")                            exactly once: who asks
    audience("flights")                         exactly once: the namespace that the token is for
    tenant("acme")                              at most once: on whose behalf
    session("7f3a")                             at most once: the session of the issuer's in which it was made
    attribute("clearance", "secret")            up to 32 with different keys: what the issuer knows about the subject
    issued(2026-01-01T00:00:00Z)                at most once: when it was made
    authenticated(2026-01-01T00:00:00Z)         at most once: when the subject proved who it is
    right("FlightCap.report", "/UA/**")         any number: an operation and a scope (``pf_stream.model.scope``)
    right("FlightCap.report", "/UA/**", "mon-fri 09:00-17:00 Europe/London")
                                                likewise, and counts only at these times (``pf_stream.model.when``)

Subject, audience, tenant, session, and an attribute's key and value are 1 to 256 characters, none of them a control character.

**Every block: checks.** Each is one of::

    check if time($t), $t < 2026-01-01T00:15:00Z
    check if time($t), $t >= 2026-01-01T00:00:00Z
    check if intent_type("flights.departed") or intent_type("flights.arrived")
    check if topic("flights.intents")
    check if request("FlightCap.report", "/UA/EWR") or request("FlightCap.report", $r), $r.matches("^/UA(/[^/]+)*$")
    check if false
    check if during("mon-fri 09:00-17:00 Europe/Berlin") or during("calendar overtime")

``request`` and ``check if false`` are one kind: what may be requested; ``check if false`` is the list of nothing. The
alternatives of a check are all of one kind, any number of them, constants or (for ``request``) a variable and a regular
expression that is exactly the one of a scope. The authority block has at least one ``$t <`` check: no token of this profile
lives for ever. Several checks of a kind must all hold. There is nothing else: no rules, no other facts, no ``check all``, no
``reject if``, no ``trusting``, no context, no third-party block; attenuation blocks have no facts.

**Times.** Biscuit's dates are whole seconds, Kafka's times are milliseconds. A token is valid at *t* if not_before <= t < expires
(half-open), both whole seconds, and the authoriser is given floor(t): for whole seconds s, floor(t) < s exactly if t < s, and
floor(t) >= s exactly if t >= s, so both ways agree on every millisecond.

``during`` holds if its text is a set of times (``pf_stream.model.when``) that has t in it, to the millisecond. A text that cannot be
read, or that names a calendar which the verifier does not have, does not hold; nor does the right that it limits. In a right
it must be one that can be read. The authoriser is given ``during(text)`` for each text in the token's ``during`` predicates and
limited rights that holds.

**A request** is granted at time t on a topic, for an intent type, an operation R and a resource, if

1. the authority block holds ``right(o, s)``, or ``right(o, s, w)`` with w holding, o equal to R or implying it, and s covering the
   resource, and
2. each check of every block holds; a ``request`` check holds if one of its alternatives names such an o and covers the resource.

**Reserved.** In any token, open ones too, the authority block may not say ``request``, ``time``, ``during``, ``intent_type`` or
``topic`` facts, nor derive any predicate named here by a rule: rights are facts that the issuer wrote, and the rest is what the
verifier knows. Facts and rules of later blocks are invisible to rights by Biscuit's own scoping.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from pf_stream.model.capability import BadGrantError, HeldGrant
from pf_stream.model.scope import BadScopeError, Scope
from pf_stream.model.when import BadWhenError, Calendar, UnknownCalendarError, When
from pf_stream.security._block import Block, Check, Op, Predicate, Query, Term, TermKind
from pf_stream.security._protobuf import Fault
from pf_stream.security._rights import Rights

__all__ = [
    "DATES",
    "FOREVER_MS",
    "LONGEST_NAME",
    "MOST_ATTRIBUTES",
    "NAMES",
    "During",
    "Profile",
    "are_names",
    "during_texts",
    "name_fault",
    "read_profile",
]

FOREVER_MS: Final = 2**63 - 1
"""The end of an interval that no check ends."""
LONGEST_NAME: Final = 256
"""Most characters in a subject, audience, tenant, session, attribute, intent type or topic."""
MOST_ATTRIBUTES: Final = 32
"""Most attributes of a token."""

NAMES: Final = frozenset({"subject", "audience", "tenant", "session"})
"""Facts that say a name, each at most once."""
DATES: Final = frozenset({"issued", "authenticated"})
"""Facts that say a date, each at most once."""
_RESERVED_FACTS: Final = frozenset({"request", "time", "during", "intent_type", "topic"})
_RESERVED_HEADS: Final = _RESERVED_FACTS | NAMES | DATES | {"pf", "attribute", "right"}
_name: Final = re.compile(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{LONGEST_NAME}}}").fullmatch

# Operators of schema.proto's OpBinary.
_LESS: Final = Op(3, 0)
_NOT_LESS: Final = Op(3, 3)
_MATCHES: Final = Op(3, 8)
_FALSE: Final = ((Op(1, Term(TermKind.BOOL, 0)),),)


def are_names(values: Sequence[str]) -> bool:
    """Whether each of *values* can be a subject, tenant, attribute, topic and so on."""
    # Most have nothing but characters that print, and to see that of all of them at once is quick.
    every = "".join(values)
    if len(every) <= LONGEST_NAME and every.isprintable():
        return all(values)
    return all(_name(value) is not None for value in values)


def name_fault(what: str, value: str) -> str | None:
    """None if *value* can be a subject, tenant, attribute, topic and so on, else what is wrong; *what* begins the sentence."""
    if _name(value) is not None:
        return None
    return f"{what} must have 1 to {LONGEST_NAME} characters, none of them a control character"


class During(NamedTuple):
    """An alternative of a ``during`` check."""

    text: str
    """As the token says it."""
    when: When | None
    """What it means; None if it cannot be read."""

    @classmethod
    def read(cls, text: str) -> "During":
        """The alternative that *text* writes."""
        try:
            return cls(text, When.parse(text))
        except BadWhenError:
            return cls(text, None)

    def holds(self, at_ms: int, calendars: Mapping[str, Calendar]) -> bool:
        """Whether *at_ms* is in it; no if nobody can say."""
        try:
            return self.when is not None and self.when.holds(at_ms, calendars)
        except UnknownCalendarError:
            return False


class Profile(NamedTuple):
    """What a token says, as far as this profile reaches."""

    subject: str
    """Who asks."""
    audience: str
    """The namespace that the token is for."""
    tenant: str | None
    """On whose behalf."""
    session: str | None
    """The issuer's session in which it was made."""
    attributes: Mapping[str, str]
    """What the issuer knows about the subject."""
    issued_ms: int | None
    """When it was made."""
    authenticated_ms: int | None
    """When the subject proved who it is."""
    rights: Rights
    """What the authority block grants."""
    narrowed: tuple[Rights, ...]
    """For each ``request`` check, its alternatives."""
    during: tuple[tuple[During, ...], ...]
    """For each ``during`` check, its alternatives."""
    intent_types: frozenset[str] | None
    """The types that every check allows; None if no check is about them."""
    topics: frozenset[str] | None
    """The topics that every check allows; None if no check is about them."""
    not_before_ms: int
    """The latest of the lower bounds; 0 without one."""
    expires_ms: int
    """The earliest of the upper bounds, exclusive; FOREVER_MS without one."""
    closed: bool
    """Whether this is all that the token says."""


@dataclass(slots=True)
class _Bounds:
    """The checks read so far."""

    narrowed: list[Rights] = field(default_factory=list)
    during: list[tuple[During, ...]] = field(default_factory=list)
    intent_types: frozenset[str] | None = None
    topics: frozenset[str] | None = None
    not_before_ms: int = 0
    expires_ms: int = FOREVER_MS


def read_profile(blocks: Sequence[Block]) -> Profile:
    """What *blocks*, the authority block first, say.

    Raises:
        Fault: the authority block lacks a fact that every token must have, or says what is reserved.
    """
    authority = blocks[0]
    names: dict[str, str] = {}
    attributes: dict[str, str] = {}
    dates: dict[str, int] = {}
    rights: list[HeldGrant] = []
    versions = 0
    closed = True
    for fact in authority.facts:
        if fact.name in names or fact.name in dates:
            raise Fault(f"the authority block says {fact.name} twice")
        if fact.name in NAMES:
            names[fact.name] = _only_name(fact)
        elif fact.name in DATES:
            dates[fact.name] = _only_date(fact)
        elif fact.name == "attribute":
            key, value = _attribute(fact)
            if key in attributes:
                raise Fault(f"the authority block says the attribute {key!r} twice")
            attributes[key] = value
        elif fact.name == "right":
            rights.append(_right(fact))
        elif fact.name == "pf":
            versions += 1
            if fact.terms != (Term(TermKind.INTEGER, 1),):
                raise Fault("the token is of another version of the profile; this is version 1")
        elif fact.name in _RESERVED_FACTS:
            raise Fault(f"the authority block says {fact.name}, which only the verifier may say")
        else:
            closed = False
    for rule in authority.rules:
        if rule.head.name in _RESERVED_HEADS:
            raise Fault(f"the authority block derives {rule.head.name} by a rule; it must be a plain fact")
    if versions != 1:
        raise Fault("the authority block does not say pf(1) once")
    for required in ("subject", "audience"):
        if required not in names:
            raise Fault(f"the authority block has no {required}")
    if len(attributes) > MOST_ATTRIBUTES:
        raise Fault(f"the authority block has more than {MOST_ATTRIBUTES} attributes")
    bounds = _Bounds()
    for index, block in enumerate(blocks):
        closed &= block.plain and not block.rules
        if not block.plain or (index and (block.facts or block.rules)):
            # "trusting", and facts beside them, change what its checks mean: they are the authoriser's to read.
            closed = False
            continue
        for check in block.checks:
            closed &= _apply(check, bounds)
        if index == 0:
            closed &= bounds.expires_ms < FOREVER_MS
    return Profile(
        subject=names["subject"],
        audience=names["audience"],
        tenant=names.get("tenant"),
        session=names.get("session"),
        attributes=MappingProxyType(attributes),
        issued_ms=dates.get("issued"),
        authenticated_ms=dates.get("authenticated"),
        rights=Rights.of(rights),
        narrowed=tuple(bounds.narrowed),
        during=tuple(bounds.during),
        intent_types=bounds.intent_types,
        topics=bounds.topics,
        not_before_ms=bounds.not_before_ms,
        expires_ms=bounds.expires_ms,
        closed=closed,
    )


def during_texts(blocks: Sequence[Block]) -> frozenset[str]:
    """The texts of all times that *blocks* ask about: the authoriser needs to know which of them hold."""
    queries = [
        query
        for block in blocks
        for query in (*block.rules, *(query for check in block.checks for query in check.queries))
    ]
    texts = {
        predicate.terms[0].value
        for query in queries
        for predicate in query.body
        if predicate.name == "during" and [term.kind for term in predicate.terms] == [TermKind.STRING]
    }
    texts.update(fact.terms[2].value for fact in blocks[0].facts if fact.name == "right" and len(fact.terms) == 3)
    return frozenset(texts)


def _only_name(fact: Predicate) -> str:
    if len(fact.terms) == 1 and fact.terms[0].kind == TermKind.STRING:
        value: str = fact.terms[0].value
        if _name(value) is not None:
            return value
    raise Fault(f"the authority block's {fact.name} is not 1 to {LONGEST_NAME} characters without control characters")


def _only_date(fact: Predicate) -> int:
    if len(fact.terms) == 1 and fact.terms[0].kind == TermKind.DATE:
        return _milliseconds(fact.terms[0])
    raise Fault(f"the authority block's {fact.name} is not a date")


def _milliseconds(date: Term) -> int:
    # A date beyond what a Kafka time can be would not survive the multiplication elsewhere.
    seconds: int = date.value
    return min(seconds * 1000, FOREVER_MS)


def _attribute(fact: Predicate) -> tuple[str, str]:
    if [term.kind for term in fact.terms] == [TermKind.STRING, TermKind.STRING]:
        key, value = (term.value for term in fact.terms)
        if _name(key) is not None and _name(value) is not None:
            return key, value
    raise Fault(f"an attribute is not a key and a value of 1 to {LONGEST_NAME} characters without control characters")


def _right(fact: Predicate) -> HeldGrant:
    if 2 <= len(fact.terms) <= 3 and all(term.kind == TermKind.STRING for term in fact.terms):
        operation, scope, *during = (term.value for term in fact.terms)
        try:
            return HeldGrant(operation, Scope.parse(scope), When.parse(during[0]) if during else None)
        except (BadScopeError, BadGrantError, BadWhenError):
            pass
    raise Fault("a right is not an operation and a scope, and perhaps a time")


def _apply(check: Check, bounds: _Bounds) -> bool:
    """Take *check* into *bounds*; False if it has none of the profile's forms."""
    queries = check.queries
    if check.kind != 0 or not queries or any(query.scoped or query.head != ("query", ()) for query in queries):
        return False
    kind = queries[0].body[0].name if queries[0].body else ""
    if kind == "time":
        return len(queries) == 1 and _apply_time(queries[0], bounds)
    if kind in {"intent_type", "topic", "during"}:
        found = [_constant(query, kind) for query in queries]
        texts = list(filter(None, found))
        if len(texts) != len(found):
            return False
        if kind == "during":
            bounds.during.append(tuple(map(During.read, texts)))
        else:
            _apply_names(kind, frozenset(texts), bounds)
        return True
    if len(queries) == 1 and not queries[0].body and queries[0].expressions == _FALSE:
        bounds.narrowed.append(Rights.of(()))
        return True
    alternatives = [_alternative(query) for query in queries]
    grants = tuple(grant for grant in alternatives if grant is not None)
    if len(grants) != len(alternatives):
        return False
    bounds.narrowed.append(Rights.of(grants))
    return True


def _apply_time(query: Query, bounds: _Bounds) -> bool:
    if len(query.body) != 1 or len(query.body[0].terms) != 1 or len(query.expressions) != 1:
        return False
    (variable,) = query.body[0].terms
    ops = query.expressions[0]
    if variable.kind != TermKind.VARIABLE or len(ops) != 3 or ops[0] != (1, variable):
        return False
    date = ops[1].value
    if not isinstance(date, Term) or date.kind != TermKind.DATE:
        return False
    moment = _milliseconds(date)
    if ops[2] == _LESS:
        bounds.expires_ms = min(bounds.expires_ms, moment)
    elif ops[2] == _NOT_LESS:
        bounds.not_before_ms = max(bounds.not_before_ms, moment)
    else:
        return False
    return True


def _apply_names(kind: str, allowed: frozenset[str], bounds: _Bounds) -> None:
    if kind == "topic":
        bounds.topics = allowed if bounds.topics is None else bounds.topics & allowed
    else:
        bounds.intent_types = allowed if bounds.intent_types is None else bounds.intent_types & allowed


def _constant(query: Query, kind: str) -> str | None:
    if len(query.body) != 1 or query.expressions:
        return None
    name, terms = query.body[0]
    if name != kind or len(terms) != 1 or terms[0].kind != TermKind.STRING:
        return None
    value: str = terms[0].value
    return value or None


def _alternative(query: Query) -> HeldGrant | None:
    if len(query.body) != 1 or len(query.expressions) > 1:
        return None
    name, terms = query.body[0]
    if name != "request" or len(terms) != 2 or terms[0].kind != TermKind.STRING:
        return None
    try:
        if not query.expressions:
            if terms[1].kind != TermKind.STRING:
                return None
            scope = Scope.parse(terms[1].value)
            # A "*" here is a character, which no resource has; as a scope it would be a pattern.
            return HeldGrant(terms[0].value, scope) if scope.is_exact else None
        ops = query.expressions[0]
        if terms[1].kind != TermKind.VARIABLE or len(ops) != 3 or ops[0] != (1, terms[1]) or ops[2] != _MATCHES:
            return None
        pattern = ops[1].value
        if not isinstance(pattern, Term) or pattern.kind != TermKind.STRING:
            return None
        matched = Scope.from_regex(pattern.value)
        return None if matched is None else HeldGrant(terms[0].value, matched)
    except (BadScopeError, BadGrantError):
        return None
