"""Verifying tokens: :class:`Verifier` turns a token's bytes into :class:`Claims` or a :class:`Refusal`, once.

It is pure: no clock, no I/O. Whatever goes wrong is a denial.
"""

from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import biscuit_auth
from biscuit_auth import Biscuit

from pf_stream.model.when import Calendar
from pf_stream.security._alike import Alike
from pf_stream.security._authoriser import is_library_failure
from pf_stream.security._block import read_blocks
from pf_stream.security._cache import BoundedCache
from pf_stream.security._cost import MAX_DECISION_US, decision_cost_us
from pf_stream.security._protobuf import Fault
from pf_stream.security._shorthand import read_shorthand, statements_in, unread
from pf_stream.security.claims import Claims, OpenToken
from pf_stream.security.envelope import MAX_BLOCKS, MAX_TOKEN_BYTES, Envelope, SealedBlock, from_base64url
from pf_stream.security.keys import TrustRoots
from pf_stream.security.profile import During, Profile, during_texts, read_profile
from pf_stream.security.refusal import Refusal

__all__ = ["Verifier"]

_NO_CALENDARS: Final[Mapping[str, Calendar]] = MappingProxyType({})
_BAD_SIGNATURE: Final = Refusal(
    "bad_signature", "a signature does not fit: the token was changed or is not the issuer's"
)
_LONGEST_UNREAD: Final = 512
"""In bytes, of all blocks that holders added and that say something outside the profile. Reading them takes far longer than
checking their signatures; what our tools write is read at sight, however long."""
_MOST_UNREAD: Final = 12
"""Facts, rules and checks in those blocks."""
_LONGEST_OPEN: Final = 2048
"""In bytes, of all blocks that holders added to a token of which any says something outside the profile."""
_LONG_BLOCKS: Final = Refusal(
    "limits_reached",
    "its holders added more outside the profile than is read: blocks that say such have at most "
    f"{_LONGEST_UNREAD} bytes and {_MOST_UNREAD} statements together, and all that were added {_LONGEST_OPEN} bytes",
)


class Verifier:
    """Believes tokens that one of *roots* signed for *audience*. A value: another set of roots is another verifier.

    *calendars* are those that the times in tokens may name; a time that names another one never holds.

    Verified tokens are kept by their bytes, with their notes; refused ones in a cache of their own, so that junk never pushes
    out what is valid. Neither does a holder who narrows his token again and again, or uses it for ever other resources: what
    was made from one token of the issuer, notes included, has one share of the memory.
    """

    __slots__ = (
        "_accepted",
        "_alike",
        "_max_blocks",
        "_max_token_bytes",
        "_refused",
        "_roots",
        "accepted",
        "audience",
        "calendars",
        "known",
        "recent",
        "rejected",
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
        self._alike = Alike()
        self.audience = audience
        """The namespace for which tokens must be."""
        self.calendars = calendars
        """Those that tokens may name."""
        self._max_token_bytes = max_token_bytes
        self._max_blocks = max_blocks
        self._accepted: BoundedCache[bytes, Claims] = BoundedCache(cache_bytes, _accepted_size, _root)
        self._refused: BoundedCache[bytes, Claims | Refusal] = BoundedCache(refused_cache_bytes, _outcome_size)
        self.recent: Mapping[bytes, Claims] = self._accepted.recent
        """Tokens that were used lately. What is here, :meth:`verify` would return."""
        self.accepted = 0
        """How many tokens were verified and believed; one that was forgotten meanwhile counts again."""
        self.rejected = 0
        """How many were verified and not believed."""
        self.known = 0
        """How often :meth:`verify` was asked about a token that had been verified. Most is known without asking: see
        :attr:`recent`."""

    def verify(self, token: bytes) -> Claims | Refusal:
        """What *token*, base64url as in the ``pf-context`` header, says; or why it is not believed. Never raises.

        Time is not looked at; see :meth:`Claims.valid_at`.
        """
        known = self._accepted.get(token)
        if known is not None:
            self.known += 1
            return known
        if len(token) > self._max_token_bytes:
            return Refusal(
                "token_too_large",
                f"the token has {len(token)} bytes; at most {self._max_token_bytes} are read",
            )
        refused = self._refused.get(token)
        if refused is not None:
            self.known += 1
            return refused
        outcome = self._verify(token)
        if isinstance(outcome, Claims):
            self.accepted += 1
            self._accepted.put(token, outcome)
        else:
            self.rejected += 1
            self._refused.put(token, outcome)
        return outcome

    @property
    def cached(self) -> Mapping[str, tuple[int, int]]:
        """What is kept, for tokens that are good and others: how many, and bytes by estimate, notes included."""
        accepted, refused = self._accepted, self._refused
        return {"accepted": (len(accepted), accepted.bytes), "refused": (len(refused), refused.bytes)}

    def note(self, claims: Claims, question: Hashable, answer: Any, size: int) -> None:
        """Keep *answer* with the token, if its share has room for *size* bytes."""
        if question not in claims.notes and self._accepted.grow(claims.token, claims, size):
            claims.notes[question] = answer
            claims.size += size

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
            data = from_base64url(token)
            seen = self._alike.read(data)
            if seen is not None:
                root = self._roots.key(seen.kid)
                assert root is not None, "a pattern is made of tokens that one of these roots has signed"
                Biscuit.from_bytes(data, root)
                return self._claims(token, seen.profile, seen.signatures)
            return self._verify_new(token, Envelope.of(data))
        except Fault as fault:
            return Refusal("malformed_token", f"the token cannot be read: {fault}")
        except biscuit_auth.BiscuitValidationError:
            return _BAD_SIGNATURE
        except BaseException as error:
            if is_library_failure(error):
                return Refusal("undecidable", f"verifying failed: {type(error).__name__}")
            raise

    def _verify_new(self, token: bytes, envelope: Envelope) -> Claims | Refusal:
        if len(envelope.blocks) > self._max_blocks:
            return Refusal(
                "too_many_blocks",
                f"the token has {len(envelope.blocks)} blocks; at most {self._max_blocks} are verified",
            )
        root = self._roots.key(envelope.kid)
        if root is None:
            return Refusal("unknown_key", f"the token names key {envelope.kid}, which is not among the trust roots")
        added = sum(len(block.data) for block in envelope.blocks[1:])
        profile = None
        if added > _LONGEST_UNREAD:
            # That it is too long is cheaper to find out than whether it is signed.
            profile = read_shorthand(envelope.blocks)
            if profile is None and _is_too_long(envelope.blocks, added):
                return _LONG_BLOCKS
        biscuit = Biscuit.from_bytes(envelope.data, root)
        if added <= _LONGEST_UNREAD:
            profile = read_shorthand(envelope.blocks)
            if profile is None and added and _is_too_long(envelope.blocks, added):
                return _LONG_BLOCKS
        if profile is not None:
            self._alike.learn(envelope, profile)
            return self._claims(token, profile, envelope.signatures)
        blocks = read_blocks(envelope.blocks)
        profile = read_profile(blocks)
        cost = 0 if profile.closed else decision_cost_us(blocks)
        if cost > MAX_DECISION_US:
            return Refusal(
                "limits_reached", f"deciding by its Datalog may take longer than {MAX_DECISION_US / 1000:g} ms"
            )
        open_ = None if profile.closed else (biscuit, tuple(map(During.read, sorted(during_texts(blocks)))))
        return self._claims(token, profile, envelope.signatures, open_)

    def _claims(
        self, token: bytes, profile: Profile, signatures: tuple[bytes, ...], open_: OpenToken | None = None
    ) -> Claims | Refusal:
        if profile.audience != self.audience:
            return Refusal("wrong_audience", f"the token is for {profile.audience!r}, and this is {self.audience!r}")
        return Claims(token, profile, signatures, self.calendars, open_)


def _is_too_long(blocks: Sequence[SealedBlock], added: int) -> bool:
    if added > _LONGEST_OPEN:
        return True
    if added <= _LONGEST_UNREAD and sum(statements_in(block.data) for block in blocks[1:]) <= _MOST_UNREAD:
        return False
    size, statements = unread(blocks)
    return size > _LONGEST_UNREAD or statements > _MOST_UNREAD


def _root(claims: Claims) -> bytes:
    """Which token of the issuer it was made from: the signature that no holder can change."""
    return claims._signatures[0]


def _accepted_size(token: bytes, claims: Claims) -> int:
    return claims.size


def _outcome_size(token: bytes, outcome: Claims | Refusal) -> int:
    return outcome.size if isinstance(outcome, Claims) else 250 + len(token) + len(outcome.reason)
