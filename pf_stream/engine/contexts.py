"""Makes the contexts that steps only name: a caller's token, narrowed to what an emitted intent requires."""

import structlog

from pf_stream.core.plan import EmitPlan
from pf_stream.core.records import Header
from pf_stream.core.unit import Narrowing
from pf_stream.model.capability import HeldGrant
from pf_stream.security.keys import TrustRoots
from pf_stream.security.token import TokenError, attenuate

__all__ = ["ContextMaker"]

log = structlog.get_logger(__name__)

MAX_CONTEXTS = 50_000


class ContextMaker:
    """Narrowed tokens, made once for each caller's token and emitted type.

    An attenuation can only take away, so what comes out grants nothing that the caller lacked (Biscuit, "offline
    attenuation").
    """

    def __init__(self, roots: TrustRoots) -> None:
        self._roots = roots
        self._made: dict[tuple[bytes, Header], bytes | None] = {}

    def __call__(self, narrowing: Narrowing) -> bytes | None:
        """The token to be sent, base64url.

        ``None`` if the caller's token cannot be narrowed, being sealed or as long as a token may be: then the emitted
        intent goes without, and is refused where it arrives.
        """
        key = narrowing.token, narrowing.emit.type
        try:
            return self._made[key]
        except KeyError:
            if len(self._made) >= MAX_CONTEXTS:
                self._made.clear()
            made = self._made[key] = self._narrow(narrowing.token, narrowing.emit)
            return made

    def _narrow(self, token: bytes, emit: EmitPlan) -> bytes | None:
        spec = emit.intent
        try:
            return attenuate(
                token,
                self._roots,
                # An intent that requires nothing gets a token that grants nothing.
                capabilities=[HeldGrant.of(grant.widest()) for grant in spec.requires],
                intent_types=[spec.type],
                topics=[emit.topic],
            ).encode()
        except TokenError as error:
            log.warning("emitted without a context", type=spec.type, reason=str(error))
            return None
