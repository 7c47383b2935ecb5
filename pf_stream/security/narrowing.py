"""Contexts for what is done on somebody's behalf: their token, narrowed."""

from dataclasses import dataclass, field
from typing import Final

from pf_stream.model.capability import HeldGrant
from pf_stream.security.keys import TrustRoots
from pf_stream.security.refusal import Refusal
from pf_stream.security.token import TokenError, attenuate
from pf_stream.security.verify import Claims, Verifier

__all__ = ["Bounds", "Narrower"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a narrowed token is for."""

    capabilities: tuple[HeldGrant, ...]
    """What may be requested with it."""
    intent_types: frozenset[str]
    """For which types."""
    topics: frozenset[str]
    """On which topics."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # They are part of a key that is looked up for each emitted intent.
        object.__setattr__(self, "_hash", hash((self.capabilities, self.intent_types, self.topics)))

    def __hash__(self) -> int:
        return self._hash


_NOTE_BYTES: Final = 500
"""What a note takes apart from the narrowed token; or all of it, where it says why there is none."""


class Narrower:
    """Narrows tokens, each once for the same bounds, as long as the token is kept: the result is among its notes.

    An attenuation can only take away, so what comes out grants nothing that its holder lacked (Biscuit, "offline
    attenuation"). It adds a block, of which a token has few; so a token that is within the bounds already stays as it is.
    """

    def __init__(self, verifier: Verifier, roots: TrustRoots) -> None:
        self._verifier = verifier
        self._roots = roots

    def __call__(self, token: bytes, bounds: Bounds) -> bytes | TokenError:
        """The token to be handed on, base64url; or why there is none: it is sealed, or as long as a token may be."""
        claims = self._verifier.recent.get(token) or self._verifier.verify(token)
        made = None if isinstance(claims, Refusal) else claims.notes.get(bounds)
        if made is None:
            made = self._narrow(token, claims, bounds)
            if not isinstance(claims, Refusal):
                self._verifier.note(claims, bounds, made, _NOTE_BYTES + (len(made) if isinstance(made, bytes) else 0))
        return made

    def _narrow(self, token: bytes, claims: Claims | Refusal, bounds: Bounds) -> bytes | TokenError:
        if not isinstance(claims, Refusal) and claims.is_limited_to(bounds.intent_types, bounds.topics):
            return token
        try:
            return attenuate(
                token,
                self._roots,
                capabilities=bounds.capabilities,
                intent_types=sorted(bounds.intent_types),
                topics=sorted(bounds.topics),
            ).encode()
        except TokenError as error:
            return error
