"""Contexts for what is done on somebody's behalf: their token, narrowed; or for what a service does, its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import HeldGrant
from pf_stream.security.claims import Claims
from pf_stream.security.keys import SigningKey, TrustRoots
from pf_stream.security.refusal import Refusal
from pf_stream.security.token import DEFAULT_LIFETIME_S, TokenError, attenuate, mint
from pf_stream.security.verify import Verifier

__all__ = ["Bounds", "Identity", "Narrower"]

REUSED_MS: Final = round(DEFAULT_LIFETIME_S * 1000 / 3)
"""How long a service's token is handed out: two thirds of its life are left to whoever gets it last."""

_MOST_SIGNED: Final = 10_000
"""Most tokens of services that are kept: one for each tenant, service and type that it emits."""


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


@dataclass(frozen=True, slots=True)
class Identity:
    """A service, on behalf of a tenant."""

    reactor: str
    """Id of the reactor that emits under it."""
    subject: str
    """What its tokens call it, ``service:{application}/{reactor}``."""
    key: int
    """The kid of the key that signs them."""
    grants: tuple[HeldGrant, ...]
    """What it may do."""
    tenant: str | None = None
    """On whose behalf."""

    def on_behalf_of(self, tenant: str | None) -> "Identity":
        """The same service for another tenant."""
        return self if tenant == self.tenant else replace(self, tenant=tenant)

    def claims(self, verifier: Verifier) -> Claims:
        """What a token of this service would say to *verifier*, for decisions that need none."""
        return Claims.of_rights(
            self.grants,
            subject=self.subject,
            tenant=self.tenant,
            audience=verifier.audience,
            calendars=verifier.calendars,
            identity=self,
        )


class Narrower:
    """Narrows tokens, each once for the same bounds as long as it is kept, among its notes; and signs those of services.

    An attenuation can only take away, so what comes out grants nothing that its holder lacked (Biscuit, "offline
    attenuation"). It adds a block, of which a token has few; so a token that is within the bounds already stays as it is.
    """

    def __init__(
        self, verifier: Verifier, roots: TrustRoots, keys: Mapping[int, SigningKey] = MappingProxyType({})
    ) -> None:
        """*keys* sign for services, by kid."""
        self._verifier = verifier
        self._recent = verifier.recent
        self._roots = roots
        self._keys = keys
        self._signed: dict[tuple[Identity, Bounds], tuple[int, bytes | TokenError]] = {}

    def __call__(self, origin: bytes | Identity, bounds: Bounds, now_ms: int) -> bytes | TokenError:
        """What :meth:`narrow` or :meth:`sign` says."""
        return self.narrow(origin, bounds) if isinstance(origin, bytes) else self.sign(origin, bounds, now_ms)

    def sign(self, identity: Identity, bounds: Bounds, now_ms: int) -> bytes | TokenError:
        """The token of a service, base64url; or why there is none: this worker was not given its key."""
        signed_ms, signed = self._signed.get((identity, bounds), (0, b""))
        if not 0 <= now_ms - signed_ms < REUSED_MS:
            if len(self._signed) >= _MOST_SIGNED:
                self._signed.clear()
            signed = self._sign(identity, bounds, now_ms)
            self._signed[identity, bounds] = now_ms, signed
        return signed

    def _sign(self, identity: Identity, bounds: Bounds, now_ms: int) -> bytes | TokenError:
        key = self._keys.get(identity.key)
        if key is None:
            return TokenError(f"{identity.subject} is signed by key {identity.key}, which this worker was not given")
        try:
            return mint(
                key,
                subject=identity.subject,
                audience=self._verifier.audience,
                tenant=identity.tenant,
                capabilities=(Capabilities(*identity.grants) & Capabilities(*bounds.capabilities)).minimal().grants,
                intent_types=sorted(bounds.intent_types),
                topics=sorted(bounds.topics),
                now_ms=now_ms,
            ).encode()
        except TokenError as error:
            return error

    def narrow(self, token: bytes, bounds: Bounds) -> bytes | TokenError:
        """*token* to be handed on, base64url; or why there is none: it is sealed, or as long as a token may be."""
        known = self._recent.get(token)
        made = None if known is None else known.notes.get(bounds)
        return self._make(token, bounds) if made is None else made

    def _make(self, token: bytes, bounds: Bounds) -> bytes | TokenError:
        claims = self._verifier.verify(token)
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
