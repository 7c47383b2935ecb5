"""Tokens: made by an issuer, narrowed by whoever holds them, read without being believed.

What is written is the closed profile; see ``pf_stream.security.profile``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import biscuit_auth
from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder

from pf_stream.errors import PFError
from pf_stream.model.capability import Grant, HeldGrant
from pf_stream.model.context import LATEST_MS
from pf_stream.model.when import When
from pf_stream.security._block import read_blocks
from pf_stream.security._protobuf import Fault
from pf_stream.security.envelope import MAX_BLOCKS, MAX_TOKEN_BYTES, Envelope, to_base64url
from pf_stream.security.keys import SigningKey, TrustRoots
from pf_stream.security.profile import MOST_ATTRIBUTES, name_fault, read_profile

__all__ = ["DEFAULT_LIFETIME_S", "TokenError", "TokenInfo", "attenuate", "describe", "mint"]

DEFAULT_LIFETIME_S: Final = 900.0
"""How long a token lives unless told otherwise: 15 minutes."""


class TokenError(PFError):
    """Raised when a token cannot be made, narrowed or read; the message never holds the token."""

    code = "bad_token"


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What a token says. Nothing of it is verified."""

    subject: str
    """Who asks."""
    tenant: str | None
    """On whose behalf."""
    audience: str
    """The namespace that it is for."""
    session: str | None
    """The issuer's session in which it was made."""
    attributes: Mapping[str, str]
    """What the issuer knows about the subject."""
    issued_ms: int | None
    """When it was made, milliseconds since the epoch."""
    authenticated_ms: int | None
    """When the subject proved who it is; likewise."""
    capabilities: tuple[HeldGrant, ...]
    """What the authority block grants."""
    narrowed_to: tuple[tuple[HeldGrant, ...], ...]
    """What later checks leave of it: for each check its alternatives, one of which must hold too."""
    during: tuple[tuple[When, ...], ...]
    """When it may be used: for each check its alternatives, one of which must hold; those that cannot be read, never do."""
    intent_types: frozenset[str] | None
    """The types that it is for; None for all."""
    topics: frozenset[str] | None
    """The topics that it is for; None for all."""
    not_before_ms: int
    """First millisecond in which it is valid; 0 for no bound."""
    expires_ms: int
    """First millisecond in which it is no longer valid; ``profile.FOREVER_MS`` for no bound."""
    in_profile: bool
    """Whether the above is all that it says; if not, it has conditions that are not told here."""
    kid: int | None
    """The key that is said to have signed it."""
    blocks: int
    """How many blocks it has, the authority block included."""
    sealed: bool
    """Whether it can no longer be narrowed."""
    revocation_ids: tuple[str, ...]
    """One per block."""


def mint(
    key: SigningKey,
    *,
    subject: str,
    audience: str,
    capabilities: Sequence[Grant | HeldGrant],
    now_ms: int,
    tenant: str | None = None,
    intent_types: Sequence[str] | None = None,
    topics: Sequence[str] | None = None,
    lifetime_s: float = DEFAULT_LIFETIME_S,
    not_before_ms: int | None = None,
    session: str | None = None,
    attributes: Mapping[str, str] | None = None,
    authenticated_ms: int | None = None,
    during: Sequence[When | str] | None = None,
) -> str:
    """Make a token: *subject*, for *tenant*, may use *capabilities* in the namespace *audience*.

    It expires at *now_ms* + *lifetime_s*, rounded down to a whole second, and with *not_before_ms* (rounded up) it is not valid
    before; so never longer than asked. Without *intent_types* or *topics* it is good for all. With *during* it may be used
    only while one of these holds; a capability with a time of its own counts only then.

    *session* and *attributes* (at most 32) are what the issuer knows about the subject, which proved who it is at
    *authenticated_ms*, rounded down to a whole second.

    Returns:
        base64url without padding.

    Raises:
        TokenError: a name is empty or has control characters, the interval is empty, or the token would be too large.
        BadWhenError: a text of *during* is no time.
        DefinitionError: a capability is a template.
    """
    expires_ms = int(now_ms + lifetime_s * 1000) // 1000 * 1000
    start_ms = None if not_before_ms is None else -(-not_before_ms // 1000) * 1000
    if expires_ms <= max(now_ms, start_ms or 0):
        raise TokenError(
            "the token would never be valid: its end, rounded down to a whole second, is not after its start"
        )
    block = _Source()
    block.add("pf(1);")
    for what, value in (("subject", subject), ("audience", audience), ("tenant", tenant), ("session", session)):
        if value is not None:
            block.add(f"{what}({{}});", _named(f"the {what}", value))
    for grant in dict.fromkeys(map(HeldGrant.of, capabilities)):
        limit = () if grant.during is None else (str(grant.during),)
        block.add(f"right({{}}, {{}}{', {}' * len(limit)});", grant.operation, str(grant.scope), *limit)
    if attributes is not None and len(attributes) > MOST_ATTRIBUTES:
        raise TokenError(f"the token would have {len(attributes)} attributes, and {MOST_ATTRIBUTES} are the most")
    for name, value in (attributes or {}).items():
        block.add("attribute({}, {});", _named("an attribute's key", name), _named(f"the attribute {name!r}", value))
    for what, moment_ms in (("issued", now_ms), ("authenticated", authenticated_ms)):
        if moment_ms is not None:
            block.add(f"{what}({{}});", _date(moment_ms))
    block.bound(None, intent_types, topics, start_ms, expires_ms, during)
    builder = BiscuitBuilder(block.text, block.values)
    builder.set_root_key_id(key.kid)
    return _spelled(builder.build(key.private))


def attenuate(
    token: str | bytes,
    roots: TrustRoots,
    *,
    capabilities: Sequence[Grant | HeldGrant] | None = None,
    intent_types: Sequence[str] | None = None,
    topics: Sequence[str] | None = None,
    expires_ms: int | None = None,
    during: Sequence[When | str] | None = None,
) -> str:
    """Narrow *token*: offline, without the issuer's private key; what it did not grant, the result does not grant either.

    *roots* hold the issuer's public key: only a token that is genuine is narrowed. None leaves a bound as it is. An empty list of
    capabilities leaves nothing that may be requested. *expires_ms* is rounded down to a whole second. With *during* the result may
    be used only while one of these holds.

    Raises:
        TokenError: the token is not genuine or sealed, a name is not one, a capability has a time of its own, or the result
            would have too many blocks or bytes.
        BadWhenError: a text of *during* is no time.
        DefinitionError: a capability is a template.
    """
    try:
        envelope = Envelope.read(_as_bytes(token))
    except Fault as fault:
        raise TokenError(f"the token cannot be read: {fault}") from None
    if envelope.sealed:
        raise TokenError("the token is sealed: it cannot be narrowed any more")
    if len(envelope.blocks) >= MAX_BLOCKS:
        raise TokenError(
            f"the token has {len(envelope.blocks)} blocks already, and {MAX_BLOCKS} are the most; narrow an earlier one"
        )
    root = roots.key(envelope.kid)
    if root is None:
        raise TokenError(f"the token is signed by key {envelope.kid}, which is not among the trust roots")
    block = _Source()
    end_ms = None if expires_ms is None else expires_ms // 1000 * 1000
    block.bound(capabilities, intent_types, topics, None, end_ms, during)
    if not block.text:
        raise TokenError("there is nothing to narrow: give capabilities, intent types, topics, times or an expiry")
    try:
        parent = Biscuit.from_bytes(envelope.data, root)
    except biscuit_auth.BiscuitValidationError:
        raise TokenError("the token is not genuine: a signature does not fit") from None
    return _spelled(parent.append(BlockBuilder(block.text, block.values)))


def describe(token: str | bytes) -> TokenInfo:
    """Read *token* without verifying anything: for people, never for decisions.

    Raises:
        TokenError: it is not a token of ours.
    """
    try:
        envelope = Envelope.read(_as_bytes(token))
        profile = read_profile(read_blocks(envelope.blocks))
    except Fault as fault:
        raise TokenError(f"the token cannot be read: {fault}") from None
    return TokenInfo(
        subject=profile.subject,
        tenant=profile.tenant,
        audience=profile.audience,
        session=profile.session,
        attributes=profile.attributes,
        issued_ms=profile.issued_ms,
        authenticated_ms=profile.authenticated_ms,
        capabilities=profile.rights.grants,
        narrowed_to=tuple(one.grants for one in profile.narrowed),
        during=tuple(tuple(one.when for one in check if one.when is not None) for check in profile.during),
        intent_types=profile.intent_types,
        topics=profile.topics,
        not_before_ms=profile.not_before_ms,
        expires_ms=profile.expires_ms,
        in_profile=profile.closed,
        kid=envelope.kid,
        blocks=len(envelope.blocks),
        sealed=envelope.sealed,
        revocation_ids=tuple(signature.hex() for signature in envelope.signatures),
    )


class _Source:
    """Datalog text with its values apart: a value is never part of the text, so it cannot become Datalog."""

    __slots__ = ("_lines", "_values")

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._values: list[object] = []

    def add(self, line: str, *values: object) -> None:
        """Add a statement; each ``{}`` stands for the next value."""
        first = len(self._values)
        self._lines.append(line.format(*(f"{{v{first + index}}}" for index in range(len(values)))))
        self._values.extend(values)

    def any_of(self, alternatives: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        """Add a check of which one alternative must hold."""
        lines, values = zip(*alternatives, strict=True)
        self.add("check if " + " or ".join(lines) + ";", *(value for some in values for value in some))

    def bound(
        self,
        capabilities: Sequence[Grant | HeldGrant] | None,
        intent_types: Sequence[str] | None,
        topics: Sequence[str] | None,
        start_ms: int | None,
        expires_ms: int | None,
        during: Sequence[When | str] | None,
    ) -> None:
        """Add the profile's checks for the bounds that are given."""
        if capabilities is not None:
            grants = dict.fromkeys(map(HeldGrant.of, capabilities))
            if grants:
                self.any_of(map(_requested, grants))
            else:
                self.add("check if false;")
        for kind, names in (("intent_type", intent_types), ("topic", topics)):
            if names is not None:
                if not names:
                    raise TokenError(f"the list of {kind}s is empty: the token would be good for nothing")
                self.any_of((f"{kind}({{}})", (_named(f"a {kind}", name),)) for name in dict.fromkeys(names))
        if during is not None:
            if not during:
                raise TokenError("the list of times is empty: the token would be good for nothing")
            texts = (str(When.parse(one) if isinstance(one, str) else one) for one in during)
            self.any_of(("during({})", (text,)) for text in dict.fromkeys(texts))
        if start_ms is not None:
            self.add("check if time($t), $t >= {};", _date(start_ms))
        if expires_ms is not None:
            self.add("check if time($t), $t < {};", _date(expires_ms))

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    @property
    def values(self) -> Mapping[str, object]:
        return {f"v{index}": value for index, value in enumerate(self._values)}


def _requested(grant: HeldGrant) -> tuple[str, tuple[object, ...]]:
    if grant.during is not None:
        raise TokenError(f"a token is not narrowed to {grant}: what is requested has no time; pass the time as during")
    if grant.scope.is_exact:
        return "request({}, {})", (grant.operation, str(grant.scope))
    return "request({}, $r), $r.matches({})", (grant.operation, grant.scope.to_regex())


def _named(what: str, value: str) -> str:
    fault = name_fault(what, value)
    if fault is not None:
        raise TokenError(fault)
    return value


def _date(ms: int) -> datetime:
    if not 0 <= ms <= LATEST_MS:
        raise TokenError("a time of the token is before 1970 or after 9999")
    return datetime.fromtimestamp(ms // 1000, UTC)


def _as_bytes(token: str | bytes) -> bytes:
    # Anything but ASCII is no base64url, and is refused as such.
    return token if isinstance(token, bytes) else token.encode("utf-8", "replace")


def _spelled(token: Biscuit) -> str:
    spelled = to_base64url(bytes(token.to_bytes()))
    if len(spelled) > MAX_TOKEN_BYTES:
        raise TokenError(
            f"the token would have {len(spelled)} bytes, and {MAX_TOKEN_BYTES} are the most; grant wider scopes in fewer rights"
        )
    return spelled
