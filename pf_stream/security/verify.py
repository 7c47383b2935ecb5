"""Verifying tokens and deciding by them: the hot path's half of capability security.

:class:`Verifier` turns a token's bytes into :class:`Claims` or a :class:`Refusal`, once; :meth:`Claims.refusal` decides a
request. Both are pure: no clock, no I/O; time is an argument. Whatever goes wrong is a denial.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import biscuit_auth
from biscuit_auth import Biscuit

from pf_stream.model.callers import Caller
from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import HeldGrant
from pf_stream.model.scope import Scope, check_resource
from pf_stream.model.when import Calendar, When
from pf_stream.security._authoriser import authorise, is_library_failure
from pf_stream.security._block import Block, read_blocks
from pf_stream.security._cache import BoundedCache
from pf_stream.security._cost import MAX_DECISION_US, USUAL_REQUESTS, decision_cost_us
from pf_stream.security._protobuf import Fault
from pf_stream.security._shorthand import read_shorthand, unread_bytes
from pf_stream.security.envelope import MAX_BLOCKS, MAX_TOKEN_BYTES, Envelope
from pf_stream.security.keys import TrustRoots
from pf_stream.security.profile import FOREVER_MS, During, during_texts, read_profile
from pf_stream.security.refusal import Refusal

if TYPE_CHECKING:
    from pf_stream.security.narrowing import Identity

__all__ = ["Claims", "Notes", "Refusal", "Verifier"]

_Scopes = Mapping[str, tuple[Scope, ...]]
_NO_CALENDARS: Final[Mapping[str, Calendar]] = MappingProxyType({})


class Notes(dict[Hashable, Any]):
    """What was found out about a token, by question: kept as long as the token is, by :meth:`Verifier.note`."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        """In bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Claims:
    """What a verified token says; made by :meth:`Verifier.verify`."""

    token: bytes = field(repr=False)
    """The token as it was received."""
    subject: str
    """Who asks."""
    tenant: str | None
    """On whose behalf."""
    audience: str
    """The namespace that it is for, which is the verifier's."""
    session: str | None
    """The issuer's session in which it was made."""
    attributes: Mapping[str, str]
    """What the issuer knows about the subject."""
    issued_ms: int | None
    """When it was made, milliseconds since the epoch."""
    authenticated_ms: int | None
    """When the subject proved who it is; likewise."""
    not_before_ms: int
    """First millisecond in which it is valid; for an open token, as far as the profile reads its checks."""
    expires_ms: int
    """First millisecond in which it is no longer valid; likewise."""
    revocation_ids: tuple[str, ...]
    """One per block, the authority block's first."""
    closed: bool
    """Whether it is inside the closed profile, so that :meth:`refusal` doesn't depend on the time unless it is :attr:`timed`."""
    timed: bool
    """Whether it, or a right in it, is limited to times such as business hours."""
    _rights: _Scopes = field(repr=False)
    _limited: tuple[HeldGrant, ...] = field(repr=False)
    _narrowed: tuple[_Scopes, ...] = field(repr=False)
    _intent_types: frozenset[str] | None = field(repr=False)
    _topics: frozenset[str] | None = field(repr=False)
    _during: tuple[tuple[During, ...], ...] = field(repr=False)
    _calendars: Mapping[str, Calendar] = field(repr=False)
    # What the authoriser needs of a token outside the profile: the token, the rights of its authority block, and the times
    # that it asks about.
    _open: tuple[Biscuit, tuple[HeldGrant, ...], tuple[During, ...]] | None = field(repr=False)
    notes: Notes = field(default_factory=Notes, repr=False)
    """Answers that stay true of these very bytes, whatever the time. A question is a value that equals no other one."""
    identity: "Identity | None" = field(default=None, repr=False)
    """The service that they are made for, if they are of no token."""

    @classmethod
    def of_rights(
        cls,
        rights: tuple[HeldGrant, ...],
        *,
        subject: str,
        tenant: str | None,
        audience: str,
        calendars: Mapping[str, Calendar],
        identity: "Identity",
    ) -> "Claims":
        """What a token of the service *identity* would say, if it held *rights* for ever."""
        return cls(
            token=b"",
            subject=subject,
            tenant=tenant,
            audience=audience,
            session=None,
            attributes=MappingProxyType({}),
            issued_ms=None,
            authenticated_ms=None,
            not_before_ms=0,
            expires_ms=FOREVER_MS,
            revocation_ids=(),
            closed=True,
            timed=any(right.during is not None for right in rights),
            _rights=_by_operation(right for right in rights if right.during is None),
            _limited=tuple(right for right in rights if right.during is not None),
            _narrowed=(),
            _intent_types=None,
            _topics=None,
            _during=(),
            _calendars=calendars,
            _open=None,
            identity=identity,
        )

    @property
    def caller(self) -> Caller:
        """Who asks, as handlers and rules see it; of an open token, the capabilities are what it grants at most."""
        held = Capabilities(*self.rights)
        for narrowed in self._narrowed:
            held &= Capabilities(*_grants(narrowed))
        return Caller(
            subject=self.subject,
            tenant=self.tenant,
            audience=self.audience,
            session=self.session,
            capabilities=held.minimal(),
            attributes=self.attributes,
            issued_ms=self.issued_ms,
            authenticated_ms=self.authenticated_ms,
            not_before_ms=self.not_before_ms,
            expires_ms=self.expires_ms,
        )

    @property
    def rights(self) -> tuple[HeldGrant, ...]:
        """What the issuer granted; holders since may have narrowed it."""
        return (*_grants(self._rights), *self._limited)

    @property
    def during(self) -> tuple[tuple[When, ...], ...]:
        """For each ``during`` check its alternatives, of which one must hold; what cannot be read never does, and is left out."""
        return tuple(tuple(one.when for one in check if one.when is not None) for check in self._during)

    def valid_at(self, at_ms: int) -> Refusal | None:
        """None if the token is valid at *at_ms*, milliseconds since the epoch: not_before <= at < expires."""
        if at_ms >= self.expires_ms:
            return _EXPIRED
        if at_ms < self.not_before_ms:
            return _NOT_YET_VALID
        return None

    def untimely(self, at_ms: int) -> Refusal | None:
        """None if each ``during`` check holds at *at_ms*, milliseconds since the epoch; ask :meth:`valid_at` too."""
        for check in self._during:
            if not any(one.holds(at_ms, self._calendars) for one in check):
                return self._not_now(check)
        return None

    def is_limited_to(self, intent_types: frozenset[str], topics: frozenset[str]) -> bool:
        """Whether the token is for some of these types on some of these topics, and for nothing else."""
        if self._intent_types is None or self._topics is None:
            return False
        return self._intent_types <= intent_types and self._topics <= topics

    def misuse(self, intent_type: str, topic: str, at_ms: int) -> Refusal | None:
        """None if the token may go with an intent that requires nothing: it is for that type on that topic at that time."""
        if self._intent_types is not None and intent_type not in self._intent_types:
            return _WRONG_INTENT_TYPE
        if self._topics is not None and topic not in self._topics:
            return _WRONG_TOPIC
        if self._open is not None:
            return _OPEN
        # That it has expired says more than that it is too late in the day.
        return (self.valid_at(at_ms) or self.untimely(at_ms)) if self._during else None

    def refusal(
        self, operations: frozenset[str], resource: str, intent_type: str, topic: str, at_ms: int
    ) -> Refusal | None:
        """None if the token grants one of *operations* on *resource* to an intent of that type on that topic.

        *operations* are the ``implied_by`` of the required operation. For a closed token that is not :attr:`timed` the answer is the
        same at any time (ask :meth:`valid_at` too) and may be kept; for any other it is about *at_ms* alone.
        """
        if check_resource(resource) is not None:
            return _BAD_RESOURCE
        if self._intent_types is not None and intent_type not in self._intent_types:
            return _WRONG_INTENT_TYPE
        if self._topics is not None and topic not in self._topics:
            return _WRONG_TOPIC
        for narrowed in self._narrowed:
            if not _any_covers(narrowed, operations, resource):
                return _INSUFFICIENT
        held = _any_covers(self._rights, operations, resource)
        limited = [] if held else [right for right in self._limited if _covers(right, operations, resource)]
        if not held and not limited:
            return _INSUFFICIENT
        if self._open is None and not self.timed:
            return None
        refusal = self.valid_at(at_ms) or self.untimely(at_ms)
        if refusal is not None:
            return refusal
        if not held and not any(self._counts(right, at_ms) for right in limited):
            return self._not_now([During.read(str(right.during)) for right in limited])
        if self._open is None:
            return None
        return self._by_authoriser(operations, resource, intent_type, topic, at_ms)

    def refusal_within(
        self, operations: frozenset[str], scope: Scope, intent_type: str, topic: str, at_ms: int
    ) -> Refusal | None:
        """None if one right of the token grants one of *operations* on every resource of *scope*, at that time.

        Rights that cover the scope only together do not count, and never does an open token: its own checks are about one
        resource, and nobody can ask them about all.
        """
        if self._open is not None:
            return _OPEN_SCOPE
        refusal = self.misuse(intent_type, topic, at_ms) or self.valid_at(at_ms)
        if refusal is not None:
            return refusal
        held = _any_includes(self._rights, operations, scope)
        limited = [right for right in self._limited if right.operation in operations and right.scope.includes(scope)]
        if not (held or limited) or not all(_any_includes(one, operations, scope) for one in self._narrowed):
            return _INSUFFICIENT
        if held or any(self._counts(right, at_ms) for right in limited):
            return None
        return self._not_now([During.read(str(right.during)) for right in limited])

    def _by_authoriser(
        self, operations: frozenset[str], resource: str, intent_type: str, topic: str, at_ms: int
    ) -> Refusal | None:
        assert self._open is not None
        if len(resource) > _LONGEST_OPEN_RESOURCE:
            return _LONG_RESOURCE
        if len(operations) > USUAL_REQUESTS:
            blocks = read_blocks(Envelope.read(self.token).blocks)
            if decision_cost_us(blocks, len(operations)) > MAX_DECISION_US:
                return Refusal("limits_reached", f"{len(operations)} operations are too many for the token's Datalog")
        token, rights, during = self._open
        return authorise(
            token,
            [right for right in rights if _covers(right, operations, resource) and self._counts(right, at_ms)],
            operations=operations,
            resource=resource,
            intent_type=intent_type,
            topic=topic,
            at_ms=at_ms,
            during=[one.text for one in during if one.holds(at_ms, self._calendars)],
        )

    def _counts(self, right: HeldGrant, at_ms: int) -> bool:
        return right.during is None or During(right.during.text, right.during).holds(at_ms, self._calendars)

    def _not_now(self, allowed: Sequence[During]) -> Refusal:
        notes = [f"{one.text!r:.100} cannot be read" for one in allowed if one.when is None]
        unknown = {
            name for one in allowed if one.when is not None for name in one.when.calendars - self._calendars.keys()
        }
        notes += [f"there is no calendar {name!r} here" for name in sorted(unknown)]
        told = " or ".join(dict.fromkeys(repr(one.text) for one in allowed))
        return Refusal("not_now", "; ".join([f"the token allows it only during {told:.300}", *notes[:3]]))


_EXPIRED: Final = Refusal("token_expired", "the token had expired at that time")
_NOT_YET_VALID: Final = Refusal("token_not_yet_valid", "the token was not valid yet at that time")
_BAD_RESOURCE: Final = Refusal("bad_resource", "the resource is not a concrete path")
_WRONG_INTENT_TYPE: Final = Refusal("wrong_intent_type", "the token is not for this type of intent")
_WRONG_TOPIC: Final = Refusal("wrong_topic", "the token is not for this topic")
_OPEN: Final = Refusal("undecidable", "the token's own checks cannot be asked about an intent that requires nothing")
_OPEN_SCOPE: Final = Refusal("undecidable", "the token's own checks cannot be asked about many resources at once")
_INSUFFICIENT: Final = Refusal("insufficient_capabilities", "the token grants no such operation on that resource")
_BAD_SIGNATURE: Final = Refusal(
    "bad_signature", "a signature does not fit: the token was changed or is not the issuer's"
)
_LONGEST_OPEN_RESOURCE: Final = 4096
"""In characters. What a regular expression costs grows with what it is matched against, and that the sender chooses."""
_LONGEST_UNREAD: Final = 1024
"""In bytes, of all blocks that holders added and that say something outside the profile. Reading them takes far longer than
checking their signatures; what our tools write is read at sight, however long."""
_LONG_BLOCKS: Final = Refusal(
    "limits_reached",
    f"its holders added blocks that say something outside the profile, longer than {_LONGEST_UNREAD} bytes together",
)
_LONG_RESOURCE: Final = Refusal(
    "limits_reached", f"the resource is longer than the {_LONGEST_OPEN_RESOURCE} characters of a decision by Datalog"
)


def _covers(right: HeldGrant, operations: frozenset[str], resource: str) -> bool:
    return right.operation in operations and right.scope.covers(resource)


def _any_covers(held: _Scopes, operations: frozenset[str], resource: str) -> bool:
    for operation in operations:
        for scope in held.get(operation, ()):
            if scope.covers(resource):
                return True
    return False


def _any_includes(held: _Scopes, operations: frozenset[str], scope: Scope) -> bool:
    return any(one.includes(scope) for operation in operations for one in held.get(operation, ()))


class Verifier:
    """Believes tokens that one of *roots* signed for *audience*. A value: another set of roots is another verifier.

    *calendars* are those that the times in tokens may name; a time that names another one never holds.

    Verified tokens are kept by their bytes, with their notes; refused ones in a cache of their own, so that junk never pushes
    out what is valid. Neither does a holder who narrows his token again and again, or uses it for ever other resources: what
    was made from one token of the issuer, notes included, has one share of the memory.
    """

    __slots__ = (
        "_accepted",
        "_max_blocks",
        "_max_token_bytes",
        "_refused",
        "_roots",
        "audience",
        "calendars",
        "recent",
    )

    def __init__(
        self,
        roots: TrustRoots,
        audience: str,
        *,
        calendars: Mapping[str, Calendar] = _NO_CALENDARS,
        max_token_bytes: int = MAX_TOKEN_BYTES,
        max_blocks: int = MAX_BLOCKS,
        cache_bytes: int = 64 * 1024 * 1024,
        refused_cache_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self._roots = roots
        self.audience = audience
        """The namespace for which tokens must be."""
        self.calendars = calendars
        """Those that tokens may name."""
        self._max_token_bytes = max_token_bytes
        self._max_blocks = max_blocks
        self._accepted: BoundedCache[bytes, Claims] = BoundedCache(cache_bytes, _claims_size, _root)
        self._refused: BoundedCache[bytes, Claims | Refusal] = BoundedCache(refused_cache_bytes, _outcome_size)
        self.recent: Mapping[bytes, Claims] = self._accepted.recent
        """Tokens that were used lately. What is here, :meth:`verify` would return."""

    def verify(self, token: bytes) -> Claims | Refusal:
        """What *token*, base64url as in the ``pf-context`` header, says; or why it is not believed. Never raises.

        Time is not looked at; see :meth:`Claims.valid_at`.
        """
        known = self._accepted.get(token)
        if known is not None:
            return known
        if len(token) > self._max_token_bytes:
            return Refusal(
                "token_too_large",
                f"the token has {len(token)} bytes; at most {self._max_token_bytes} are read",
            )
        refused = self._refused.get(token)
        if refused is not None:
            return refused
        outcome = self._verify(token)
        if isinstance(outcome, Claims):
            self._accepted.put(token, outcome)
        else:
            self._refused.put(token, outcome)
        return outcome

    def note(self, claims: Claims, question: Hashable, answer: Any, size: int) -> None:
        """Keep *answer* with the token, if its share has room for *size* bytes."""
        if question not in claims.notes and self._accepted.grow(claims.token, claims, size):
            claims.notes[question] = answer
            claims.notes.size += size

    def useful(self, claims: Claims) -> None:
        """The token was good for something: it is kept among the valid ones."""
        if claims.token not in self.recent:
            self._refused.drop(claims.token)
            self._accepted.put(claims.token, claims)

    def useless(self, claims: Claims) -> None:
        """The token was good for nothing: until it is, it has its place among the refused ones, genuine as it may be."""
        self._accepted.drop(claims.token)
        self._refused.drop(claims.token)
        self._refused.put(claims.token, claims)

    def _verify(self, token: bytes) -> Claims | Refusal:
        try:
            envelope = Envelope.read(token)
            if len(envelope.blocks) > self._max_blocks:
                return Refusal(
                    "too_many_blocks",
                    f"the token has {len(envelope.blocks)} blocks; at most {self._max_blocks} are verified",
                )
            root = self._roots.key(envelope.kid)
            if root is None:
                return Refusal("unknown_key", f"the token names key {envelope.kid}, which is not among the trust roots")
            biscuit = Biscuit.from_bytes(envelope.data, root)
            profile = read_shorthand(envelope.blocks)
            blocks: tuple[Block, ...] = ()
            if profile is None:
                added = sum(len(block.data) for block in envelope.blocks[1:])
                if added > _LONGEST_UNREAD and unread_bytes(envelope.blocks) > _LONGEST_UNREAD:
                    return _LONG_BLOCKS
                blocks = read_blocks(envelope.blocks)
                profile = read_profile(blocks)
        except Fault as fault:
            return Refusal("malformed_token", f"the token cannot be read: {fault}")
        except biscuit_auth.BiscuitValidationError:
            return _BAD_SIGNATURE
        except BaseException as error:
            if is_library_failure(error):
                return Refusal("undecidable", f"verifying failed: {type(error).__name__}")
            raise
        if not profile.closed:
            cost = decision_cost_us(blocks)
            if cost > MAX_DECISION_US:
                return Refusal(
                    "limits_reached", f"deciding by its Datalog may take longer than {MAX_DECISION_US / 1000:g} ms"
                )
        if profile.audience != self.audience:
            return Refusal("wrong_audience", f"the token is for {profile.audience!r}, and this is {self.audience!r}")
        limited = tuple(right for right in profile.rights if right.during is not None)
        asked = () if profile.closed else tuple(map(During.read, sorted(during_texts(blocks))))
        return Claims(
            token=token,
            subject=profile.subject,
            tenant=profile.tenant,
            audience=profile.audience,
            session=profile.session,
            attributes=profile.attributes,
            issued_ms=profile.issued_ms,
            authenticated_ms=profile.authenticated_ms,
            not_before_ms=profile.not_before_ms,
            expires_ms=profile.expires_ms,
            revocation_ids=envelope.revocation_ids,
            closed=profile.closed,
            timed=bool(profile.during or limited),
            _rights=_by_operation(right for right in profile.rights if right.during is None),
            _limited=limited,
            # Each hop's block says mostly what the one before said.
            _narrowed=tuple(_by_operation(grants) for grants, _ in groupby(profile.narrowed)),
            _intent_types=profile.intent_types,
            _topics=profile.topics,
            _during=profile.during,
            _calendars=self.calendars,
            _open=None if profile.closed else (biscuit, profile.rights, asked),
        )


def _grants(scopes: _Scopes) -> tuple[HeldGrant, ...]:
    return tuple(HeldGrant(operation, scope) for operation, several in scopes.items() for scope in several)


def _by_operation(grants: Iterable[HeldGrant]) -> _Scopes:
    scopes: dict[str, tuple[Scope, ...]] = {}
    for grant in grants:
        scopes[grant.operation] = (*scopes.get(grant.operation, ()), grant.scope)
    return scopes


def _root(claims: Claims) -> str:
    """Which token of the issuer it was made from: the signature that no holder can change."""
    return claims.revocation_ids[0]


def _claims_size(token: bytes, claims: Claims) -> int:
    # Measured, see bench/decisions.py; what an open token costs is mostly the library's copy of it.
    grants = sum(map(len, (claims._rights, *claims._narrowed)))
    times = len(claims._limited) + sum(map(len, claims._during)) + (0 if claims._open is None else len(claims._open[2]))
    fixed = 600 + 250 * len(claims.revocation_ids) + 300 * grants + 1200 * times + 150 * len(claims.attributes)
    return fixed + (1 if claims.closed else 17) * len(token) + claims.notes.size


def _outcome_size(token: bytes, outcome: Claims | Refusal) -> int:
    return _claims_size(token, outcome) if isinstance(outcome, Claims) else 250 + len(token) + len(outcome.reason)
