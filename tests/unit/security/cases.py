"""Tokens for tests: an issuer, tokens that no tool of ours would write, and random cases with two judges.

``random_case`` draws from a ``random.Random``: hypothesis supplies one that it can shrink, a long campaign a seeded one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder

from pf_stream.model.capability import HeldGrant
from pf_stream.model.scope import Scope
from pf_stream.model.when import Calendar, UnknownCalendarError, When
from pf_stream.security import Claims, Refusal, SigningKey, TrustRoots, Verifier, attenuate, mint
from pf_stream.security._authoriser import authorise
from pf_stream.security.envelope import Envelope, to_base64url

KEY = SigningKey.generate(7)
OTHER_KEY = SigningKey.generate(8)
ROOTS = TrustRoots.of(KEY)
AUDIENCE = "flights"
NOW_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z, a Thursday."""
CALENDARS = {"shop": Calendar([When.parse("thu 05:30-05:31 Asia/Kolkata")], "UTC")}
"""Open in the first minute after ``NOW_MS``."""

PLAIN = f'pf(1); subject("alice"); audience("{AUDIENCE}"); right("A.read", "/a/**");'
"""What an authority block must say, and a right."""
ENDS = "check if time($t), $t < 2026-01-01T00:15:00Z;"
"""With it, ``PLAIN`` is in the closed profile."""


def issue(
    source: str, values: Mapping[str, object] | None = None, *, key: SigningKey = KEY, kid: int | None = 7
) -> str:
    """A token whose authority block is *source*, signed, whatever it says."""
    builder = BiscuitBuilder(source, values)
    if kid is not None:
        builder.set_root_key_id(kid)
    return to_base64url(bytes(builder.build(key.private).to_bytes()))


def append(token: str, source: str, values: Mapping[str, object] | None = None) -> str:
    """*token* with a block that says *source*, as any holder can make it."""
    return to_base64url(bytes(biscuit(token).append(BlockBuilder(source, values)).to_bytes()))


def biscuit(token: str) -> Biscuit:
    """The library's view of a genuine token."""
    envelope = Envelope.read(token.encode())
    key = ROOTS.key(7)
    assert key is not None
    return Biscuit.from_bytes(envelope.data, key)


def claims(token: str, audience: str = AUDIENCE) -> Claims:
    """The claims of a token that must be accepted."""
    outcome = Verifier(ROOTS, audience, calendars=CALENDARS).verify(token.encode())
    assert isinstance(outcome, Claims), outcome
    return outcome


def code(outcome: Claims | Refusal | None) -> str | None:
    """The code of a refusal, None for anything else."""
    return outcome.code if isinstance(outcome, Refusal) else None


# --- protobuf, as far as tests write it ------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """*value* in its shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | bytes) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def parts(data: bytes) -> list[tuple[int, int | bytes]]:
    """The fields of a message, leniently: a reader of its own, to check ours against."""
    found: list[tuple[int, int | bytes]] = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            found.append((tag >> 3, number()))
        else:
            size = number()
            found.append((tag >> 3, data[at : at + size]))
            at += size
    return found


def joined(fields: Iterable[tuple[int, int | bytes]]) -> bytes:
    """A message of *fields*."""
    return b"".join(field(number, value) for number, value in fields)


# --- random cases ----------------------------------------------------------------------------------------------------

OPERATIONS = ["A.read", "A.write", "A.admin", "B.root"]
# Required operation -> what its holders may hold, as Operation.implied_by would give it.
IMPLIED_BY = {
    "A.read": frozenset(OPERATIONS),
    "A.write": frozenset({"A.write", "A.admin", "B.root"}),
    "A.admin": frozenset({"A.admin", "B.root"}),
    "B.root": frozenset({"B.root"}),
}
SEGMENTS = ["a", "b", "c.d", "é+", 'q"', "(x|y)", "\\", "$^"]
TYPES = ["flights.departed", "flights.arrived", 'odd"type\\']
TOPICS = ["flights.intents", "other", 'x"), topic("y']
# They begin and end at the moments below.
WHENS = [
    When.parse(text)
    for text in (
        "../..",
        "thu 00:00-00:01 UTC",
        "daily 01:01-01:05 Europe/Berlin",
        "wed 19:00-19:01 America/New_York",
        "wed 23:00-00:05 UTC",
        "2026-01-01T00:00:00.500Z/2026-01-01T00:00:01.500Z",
        "../2026-01-01T00:00:01Z",
        "calendar shop",
        "not calendar shop",
        "calendar nobody",
        "../.. or calendar nobody",
        "calendar shop and not ../2026-01-01T00:00:00.500Z",
        "2026-01-01T00:00:01Z/.. or not (calendar shop or sun 00:00-24:00 UTC)",
    )
]
MOMENTS = [NOW_MS + after for after in (0, 500, 1000, 1500, 60_000, 300_000)]


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What one attenuation block says."""

    capabilities: tuple[HeldGrant, ...] | None
    intent_types: tuple[str, ...] | None
    topics: tuple[str, ...] | None
    expires_ms: int | None
    during: tuple[When, ...] | None


@dataclass(frozen=True, slots=True)
class Case:
    """A token of the closed profile, and a request."""

    rights: tuple[HeldGrant, ...]
    intent_types: tuple[str, ...] | None
    topics: tuple[str, ...] | None
    not_before_ms: int | None
    lifetime_s: float
    during: tuple[When, ...] | None
    narrowings: tuple[Narrowing, ...]
    required: str
    resource: str
    intent_type: str
    topic: str
    at_ms: int

    def whens(self) -> set[When]:
        """All times that the token says."""
        checks = (self.during, *(one.during for one in self.narrowings))
        limits = {right.during for right in self.rights if right.during is not None}
        return limits.union(*(check for check in checks if check is not None))

    def token(self) -> str:
        """The token."""
        token = mint(
            KEY,
            subject='al"ice\\',
            audience=AUDIENCE,
            capabilities=self.rights,
            intent_types=self.intent_types,
            topics=self.topics,
            now_ms=NOW_MS,
            lifetime_s=self.lifetime_s,
            not_before_ms=self.not_before_ms,
            during=self.during,
        )
        for one in self.narrowings:
            token = attenuate(
                token,
                ROOTS,
                capabilities=one.capabilities,
                intent_types=one.intent_types,
                topics=one.topics,
                expires_ms=one.expires_ms,
                during=one.during,
            )
        return token


def random_scope(rng: Random) -> Scope:
    """A scope, half of the time with a wildcard."""
    segments = tuple(rng.choice([*SEGMENTS[:3], "*", rng.choice(SEGMENTS)]) for _ in range(rng.randrange(4)))
    return Scope(segments, rng.random() < 0.4)


def _some(rng: Random, pool: list[str]) -> tuple[str, ...] | None:
    return None if rng.random() < 0.5 else tuple(rng.sample(pool, rng.randint(1, 2)))


def _grants(rng: Random, most: int) -> tuple[HeldGrant, ...]:
    return tuple(HeldGrant(rng.choice(OPERATIONS), random_scope(rng)) for _ in range(rng.randint(0, most)))


def resource_of(rng: Random, scope: Scope) -> str:
    """A resource of *scope*."""
    segments = [rng.choice(SEGMENTS[:4]) if segment == "*" else segment for segment in scope.segments]
    if scope.below:
        segments += (rng.choice(SEGMENTS[:4]) for _ in range(rng.randrange(3)))
    return "/" + "/".join(segments)


def _narrowing(rng: Random, aim: HeldGrant | None, intent_type: str, topic: str) -> Narrowing:
    """A narrowing; with *aim*, mostly one that leaves it."""
    capabilities = _grants(rng, 3) if rng.random() < 0.6 else None
    intent_types, topics = _some(rng, TYPES), _some(rng, TOPICS)
    if aim is not None and rng.random() < 0.9:
        if capabilities is not None:
            kept = HeldGrant(aim.operation, rng.choice([aim.scope, Scope.ANY, Scope(aim.scope.segments, below=True)]))
            capabilities = (*capabilities, kept)
        intent_types = None if intent_types is None else (*intent_types, intent_type)
        topics = None if topics is None else (*topics, topic)
    expires_ms = None if rng.random() < 0.6 else NOW_MS + rng.choice([1000, 1001, 1999, 2000, *[900_000] * 4])
    during = None if rng.random() < 0.7 else tuple(rng.sample(WHENS, rng.randint(1, 4)))
    if capabilities is None and intent_types is None and topics is None and expires_ms is None and during is None:
        topics = (topic,)
    return Narrowing(capabilities, intent_types, topics, expires_ms, during)


def random_case(rng: Random) -> Case:
    """A case near the edge: half of them aim at being granted, and times are at the ends of intervals."""
    rights = tuple(
        replace(grant, during=rng.choice(WHENS)) if rng.random() < 0.3 else grant for grant in _grants(rng, 4)
    )
    intent_type, topic = rng.choice(TYPES), rng.choice(TOPICS)
    aim = rng.choice(rights) if rights and rng.random() < 0.9 else None
    narrowings = tuple(_narrowing(rng, aim, intent_type, topic) for _ in range(rng.choice([0, 0, 1, 1, 2, 3])))
    first = _narrowing(rng, aim, intent_type, topic)
    not_before_ms = None if rng.random() < 0.6 else NOW_MS + rng.choice([-1000, 0, 1, 500])
    lifetime_s = rng.choice([2, 2.5, 3, 900, 900, 900])
    case = Case(
        rights=rights,
        intent_types=first.intent_types,
        topics=first.topics,
        not_before_ms=not_before_ms,
        lifetime_s=lifetime_s,
        during=first.during,
        narrowings=narrowings,
        required="A.read",
        resource="/",
        intent_type=intent_type,
        topic=topic,
        at_ms=NOW_MS,
    )
    return _asked(rng, case, aim)


def another_request(rng: Random, case: Case) -> Case:
    """The same token, and a request that mostly aims at one of its rights; most are for the type and topic of the first."""
    asked = case
    if rng.random() < 0.1:
        asked = replace(case, intent_type=rng.choice(TYPES), topic=rng.choice(TOPICS))
    return _asked(rng, asked, rng.choice(case.rights) if case.rights and rng.random() < 0.9 else None)


def _asked(rng: Random, case: Case, aim: HeldGrant | None) -> Case:
    edges = [NOW_MS + 500, int(NOW_MS + case.lifetime_s * 1000) // 1000 * 1000]
    edges += [one.expires_ms // 1000 * 1000 for one in case.narrowings if one.expires_ms is not None]
    if case.not_before_ms is not None:
        edges.append(-(-case.not_before_ms // 1000) * 1000)
    edges += rng.sample(MOMENTS, 3)
    if aim is None:
        required = rng.choice(OPERATIONS)
        resource = resource_of(rng, random_scope(rng))
    else:
        required = rng.choice([one for one, held in IMPLIED_BY.items() if aim.operation in held])
        resource = resource_of(rng, aim.scope)
    at_ms = rng.choice(edges) + rng.choice([-400, -1, 0, 1, 400])
    return replace(case, required=required, resource=resource, at_ms=at_ms)


def decided(case: Case, seen: Claims) -> Refusal | None:
    """What verified claims say about the request, their validity interval included."""
    return seen.valid_at(case.at_ms) or seen.refusal(
        IMPLIED_BY[case.required], case.resource, case.intent_type, case.topic, case.at_ms
    )


def by_profile(case: Case, token: str) -> bool:
    """Whether the compiled claims grant the request."""
    seen = claims(token)
    assert seen.closed
    return decided(case, seen) is None


@cache
def holds(when: When, at_ms: int) -> bool:
    """Whether *when* holds; not if it names a calendar that nobody has."""
    try:
        return when.holds(at_ms, CALENDARS)
    except UnknownCalendarError:
        return False


def by_authoriser(case: Case, token: Biscuit) -> bool:
    """Whether Biscuit's authoriser grants it, from the token's bytes and the rights that the case was made of."""
    refusal = authorise(
        token,
        case.rights,
        operations=IMPLIED_BY[case.required],
        resource=case.resource,
        intent_type=case.intent_type,
        topic=case.topic,
        at_ms=case.at_ms,
        during=[str(when) for when in case.whens() if holds(when, case.at_ms)],
    )
    assert refusal is None or refusal.code in {"check_failed", "insufficient_capabilities"}, refusal
    return refusal is None
