"""What a verified token says, and deciding by it: the hot path's half of capability security.

:meth:`Claims.refusal` decides a request. It is pure: no clock, no I/O; time is an argument. Whatever goes wrong is a denial.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from biscuit_auth import Biscuit

from pf_stream.model.callers import Caller
from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import HeldGrant
from pf_stream.model.scope import Scope, check_resource
from pf_stream.model.when import Calendar, When
from pf_stream.security._authoriser import authorise
from pf_stream.security._block import read_blocks
from pf_stream.security._cost import MAX_DECISION_US, USUAL_REQUESTS, decision_cost_us
from pf_stream.security._rights import Rights
from pf_stream.security.envelope import Envelope
from pf_stream.security.profile import FOREVER_MS, During, Profile
from pf_stream.security.refusal import Refusal

if TYPE_CHECKING:
    from pf_stream.security.narrowing import Identity

__all__ = ["Claims", "OpenToken"]

OpenToken = tuple[Biscuit, tuple[During, ...]]
"""What the authoriser needs of a token outside the profile: the token, and the times that it asks about."""

_OPEN: Final = Refusal("undecidable", "the token's own checks cannot be asked about an intent that requires nothing")
_OPEN_SCOPE: Final = Refusal("undecidable", "the token's own checks cannot be asked about many resources at once")
_INSUFFICIENT: Final = Refusal("insufficient_capabilities", "the token grants no such operation on that resource")
_LONGEST_OPEN_RESOURCE: Final = 4096
"""In characters. What a regular expression costs grows with what it is matched against, and that the sender chooses."""
_LONG_RESOURCE: Final = Refusal(
    "limits_reached", f"the resource is longer than the {_LONGEST_OPEN_RESOURCE} characters of a decision by Datalog"
)


class Claims:
    """What a verified token says; made by :meth:`Verifier.verify`. Nothing of it changes but its notes."""

    __slots__ = (
        "_calendars",
        "_during",
        "_intent_types",
        "_narrowed",
        "_open",
        "_rights",
        "_signatures",
        "_topics",
        "attributes",
        "audience",
        "authenticated_ms",
        "closed",
        "expires_ms",
        "identity",
        "issued_ms",
        "not_before_ms",
        "notes",
        "session",
        "size",
        "subject",
        "tenant",
        "timed",
        "token",
    )

    token: bytes
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
    closed: bool
    """Whether it is inside the closed profile, so that :meth:`refusal` doesn't depend on the time unless it is :attr:`timed`."""
    timed: bool
    """Whether it, or a right in it, is limited to times such as business hours."""

    def __init__(
        self,
        token: bytes,
        profile: Profile,
        signatures: tuple[bytes, ...],
        calendars: Mapping[str, Calendar],
        open_: "OpenToken | None" = None,
        identity: "Identity | None" = None,
    ) -> None:
        self.token = token
        # All at once, since this is done for each token that was never seen.
        (
            self.subject,
            self.audience,
            self.tenant,
            self.session,
            self.attributes,
            self.issued_ms,
            self.authenticated_ms,
            self._rights,
            narrowed,
            self._during,
            self._intent_types,
            self._topics,
            self.not_before_ms,
            self.expires_ms,
            self.closed,
        ) = profile
        self.timed = bool(profile.during) or profile.rights.limited
        self.notes: dict[Hashable, Any] = {}
        """Answers that stay true of these very bytes, whatever the time: see :meth:`Verifier.note`. A question is a value that
        equals no other one."""
        self.identity = identity
        """The service that they are made for, if they are of no token."""
        self._signatures = signatures
        # Each hop's block says mostly what the one before said.
        self._narrowed = narrowed if len(narrowed) < 2 else tuple(rights for rights, _ in groupby(narrowed))
        self._calendars = calendars
        self._open = open_
        # Measured, see bench/decisions.py; what an open token costs is mostly the library's copy of it.
        grants = len(profile.rights.grants)
        for rights in self._narrowed:
            grants += len(rights.grants)
        size = 600 + 150 * len(signatures) + 300 * grants + 150 * len(profile.attributes) + len(token)
        if profile.during:
            size += 1200 * sum(map(len, profile.during))
        if open_ is not None:
            size += 16 * len(token) + 1200 * len(open_[1])
        self.size = size
        """About how much memory it takes with its notes, in bytes."""

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
        profile = Profile(
            subject=subject,
            audience=audience,
            tenant=tenant,
            session=None,
            attributes=MappingProxyType({}),
            issued_ms=None,
            authenticated_ms=None,
            rights=Rights.of(rights),
            narrowed=(),
            during=(),
            intent_types=None,
            topics=None,
            not_before_ms=0,
            expires_ms=FOREVER_MS,
            closed=True,
        )
        return cls(b"", profile, (), calendars, identity=identity)

    def __repr__(self) -> str:
        return f"<Claims of {self.subject!r} for {self.audience!r}>"

    @property
    def revocation_ids(self) -> tuple[str, ...]:
        """One per block, the authority block's first: its signature, in hexadecimal."""
        return tuple(signature.hex() for signature in self._signatures)

    @property
    def caller(self) -> Caller:
        """Who asks, as handlers and rules see it; of an open token, the capabilities are what it grants at most."""
        held = Capabilities(*self.rights)
        for narrowed in self._narrowed:
            held &= Capabilities(*narrowed.grants)
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
        return self._rights.grants

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
            if not narrowed.cover(operations, resource):
                return _INSUFFICIENT
        held = self._rights.cover(operations, resource)
        limited = self._rights.granting(operations, resource) if self._rights.limited and not held else []
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
        held = self._rights.including(operations, scope)
        if not held or not all(narrowed.including(operations, scope) for narrowed in self._narrowed):
            return _INSUFFICIENT
        if any(self._counts(right, at_ms) for right in held):
            return None
        return self._not_now([During.read(str(right.during)) for right in held])

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
        token, during = self._open
        return authorise(
            token,
            [right for right in self._rights.granting(operations, resource) if self._counts(right, at_ms)],
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
