"""Verifying tokens and deciding by them: the hot path's half of capability security.

:class:`Verifier` turns a token's bytes into :class:`Claims` or a :class:`Refusal`, once; :meth:`Claims.refusal` decides a
request. Both are pure: no clock, no I/O; time is an argument. Whatever goes wrong is a denial.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import biscuit_auth
from biscuit_auth import Biscuit

from pf_stream.model.capability import HeldGrant
from pf_stream.model.scope import Scope, check_resource
from pf_stream.security._authoriser import authorise, is_library_failure
from pf_stream.security._block import Block, read_blocks
from pf_stream.security._cache import BoundedCache
from pf_stream.security._cost import MAX_DECISION_US, USUAL_REQUESTS, decision_cost_us
from pf_stream.security._protobuf import Fault
from pf_stream.security._shorthand import read_shorthand
from pf_stream.security.envelope import MAX_BLOCKS, MAX_TOKEN_BYTES, Envelope
from pf_stream.security.keys import TrustRoots
from pf_stream.security.profile import read_profile
from pf_stream.security.refusal import Refusal

__all__ = ["Claims", "Notes", "Refusal", "Verifier"]

_Scopes = Mapping[str, tuple[Scope, ...]]


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
    not_before_ms: int
    """First millisecond in which it is valid; for an open token, as far as the profile reads its checks."""
    expires_ms: int
    """First millisecond in which it is no longer valid; likewise."""
    revocation_ids: tuple[str, ...]
    """One per block, the authority block's first."""
    closed: bool
    """Whether it is inside the closed profile, so that :meth:`refusal` doesn't depend on the time."""
    _rights: _Scopes = field(repr=False)
    _narrowed: tuple[_Scopes, ...] = field(repr=False)
    _intent_types: frozenset[str] | None = field(repr=False)
    _topics: frozenset[str] | None = field(repr=False)
    # What the authoriser needs of a token outside the profile: the token, and the rights of its authority block.
    _open: tuple[Biscuit, tuple[HeldGrant, ...]] | None = field(repr=False)
    notes: Notes = field(default_factory=Notes, repr=False)
    """Answers that stay true of these very bytes, whatever the time. A question is a value that equals no other one."""

    def valid_at(self, at_ms: int) -> Refusal | None:
        """None if the token is valid at *at_ms*, milliseconds since the epoch: not_before <= at < expires."""
        if at_ms >= self.expires_ms:
            return _EXPIRED
        if at_ms < self.not_before_ms:
            return _NOT_YET_VALID
        return None

    def is_limited_to(self, intent_types: frozenset[str], topics: frozenset[str]) -> bool:
        """Whether the token is for some of these types on some of these topics, and for nothing else."""
        if self._intent_types is None or self._topics is None:
            return False
        return self._intent_types <= intent_types and self._topics <= topics

    def misuse(self, intent_type: str, topic: str) -> Refusal | None:
        """None if the token may go with an intent that requires nothing: it is for that type on that topic."""
        if self._intent_types is not None and intent_type not in self._intent_types:
            return _WRONG_INTENT_TYPE
        if self._topics is not None and topic not in self._topics:
            return _WRONG_TOPIC
        return None if self._open is None else _OPEN

    def refusal(
        self, operations: frozenset[str], resource: str, intent_type: str, topic: str, at_ms: int
    ) -> Refusal | None:
        """None if the token grants one of *operations* on *resource* to an intent of that type on that topic.

        *operations* are the ``implied_by`` of the required operation. For a closed token the answer is the same at any time
        (ask :meth:`valid_at` too) and may be kept; for an open one it is about *at_ms* alone.
        """
        if check_resource(resource) is not None:
            return _BAD_RESOURCE
        if self._intent_types is not None and intent_type not in self._intent_types:
            return _WRONG_INTENT_TYPE
        if self._topics is not None and topic not in self._topics:
            return _WRONG_TOPIC
        if not _any_covers(self._rights, operations, resource):
            return _INSUFFICIENT
        for narrowed in self._narrowed:
            if not _any_covers(narrowed, operations, resource):
                return _INSUFFICIENT
        if self._open is None:
            return None
        return self.valid_at(at_ms) or self._by_authoriser(operations, resource, intent_type, topic, at_ms)

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
        token, rights = self._open
        return authorise(
            token,
            [right for right in rights if right.operation in operations and right.scope.covers(resource)],
            operations=operations,
            resource=resource,
            intent_type=intent_type,
            topic=topic,
            at_ms=at_ms,
        )


_EXPIRED: Final = Refusal("token_expired", "the token had expired at that time")
_NOT_YET_VALID: Final = Refusal("token_not_yet_valid", "the token was not valid yet at that time")
_BAD_RESOURCE: Final = Refusal("bad_resource", "the resource is not a concrete path")
_WRONG_INTENT_TYPE: Final = Refusal("wrong_intent_type", "the token is not for this type of intent")
_WRONG_TOPIC: Final = Refusal("wrong_topic", "the token is not for this topic")
_OPEN: Final = Refusal("undecidable", "the token's own checks cannot be asked about an intent that requires nothing")
_INSUFFICIENT: Final = Refusal("insufficient_capabilities", "the token grants no such operation on that resource")
_BAD_SIGNATURE: Final = Refusal(
    "bad_signature", "a signature does not fit: the token was changed or is not the issuer's"
)
_LONGEST_OPEN_RESOURCE: Final = 4096
"""In characters. What a regular expression costs grows with what it is matched against, and that the sender chooses."""
_LONGEST_OPEN_BLOCKS: Final = 1024
"""In bytes, of all blocks but the issuer's. Reading them takes far longer than checking their signatures, and any holder can
write them; what our tools write is read at sight, however long."""
_LONG_BLOCKS: Final = Refusal(
    "limits_reached",
    f"its blocks say something outside the profile and are longer than {_LONGEST_OPEN_BLOCKS} bytes together",
)
_LONG_RESOURCE: Final = Refusal(
    "limits_reached", f"the resource is longer than the {_LONGEST_OPEN_RESOURCE} characters of a decision by Datalog"
)


def _any_covers(held: _Scopes, operations: frozenset[str], resource: str) -> bool:
    for operation in operations:
        for scope in held.get(operation, ()):
            if scope.covers(resource):
                return True
    return False


class Verifier:
    """Believes tokens that one of *roots* signed for *audience*. A value: another set of roots is another verifier.

    Verified tokens are kept by their bytes, with their notes; refused ones in a cache of their own, so that junk never pushes
    out what is valid. Neither does a holder who narrows his token again and again, or uses it for ever other resources: what
    was made from one token of the issuer, notes included, has one share of the memory.
    """

    __slots__ = ("_accepted", "_audience", "_max_blocks", "_max_token_bytes", "_refused", "_roots", "recent")

    def __init__(
        self,
        roots: TrustRoots,
        audience: str,
        *,
        max_token_bytes: int = MAX_TOKEN_BYTES,
        max_blocks: int = MAX_BLOCKS,
        cache_bytes: int = 64 * 1024 * 1024,
        refused_cache_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self._roots = roots
        self._audience = audience
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
                if sum(len(block.data) for block in envelope.blocks[1:]) > _LONGEST_OPEN_BLOCKS:
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
        if profile.audience != self._audience:
            return Refusal("wrong_audience", f"the token is for {profile.audience!r}, and this is {self._audience!r}")
        return Claims(
            token,
            profile.subject,
            profile.tenant,
            self._audience,
            profile.not_before_ms,
            profile.expires_ms,
            envelope.revocation_ids,
            profile.closed,
            _by_operation(profile.rights),
            # Each hop's block says mostly what the one before said.
            tuple(_by_operation(grants) for grants, _ in groupby(profile.narrowed)),
            profile.intent_types,
            profile.topics,
            None if profile.closed else (biscuit, profile.rights),
        )


def _by_operation(grants: tuple[HeldGrant, ...]) -> _Scopes:
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
    fixed = 450 + 250 * len(claims.revocation_ids) + 300 * grants
    return fixed + (1 if claims.closed else 17) * len(token) + claims.notes.size


def _outcome_size(token: bytes, outcome: Claims | Refusal) -> int:
    return _claims_size(token, outcome) if isinstance(outcome, Claims) else 250 + len(token) + len(outcome.reason)
