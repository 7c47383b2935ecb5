"""Reading state from outside: who may.

A read is decided before anything is looked up, by the token alone, so that who may not read learns nothing of what there is.
It requires ``StateCap.read`` on ``/{reactor}/{key}``, and what is about many keys requires it on ``/{reactor}/**``. A token that is
limited to intent types or topics reads only if it names :data:`READ_TYPE` and :data:`READ_TOPIC`, which are no intent's and no
topic's: so a context that goes with an intent through a topology is good for no reading.
"""

from typing import Final

from pf_stream.model.scope import Scope, bad_segment
from pf_stream.model.state import StateCap
from pf_stream.security.claims import Claims
from pf_stream.security.refusal import Refusal
from pf_stream.security.verify import Verifier

__all__ = ["READ_TOPIC", "READ_TYPE", "refusal_to_read"]

READ_TYPE: Final = "pf.state.read"
"""What stands for the intent's type; that of an intent ends in its version."""
READ_TOPIC: Final = "__pf.state"
"""What stands for its topic."""


def refusal_to_read(
    verifier: Verifier, token: bytes | None, reactor: str, key: str | None, at_ms: int
) -> Refusal | None:
    """None if *token* may read the state of *reactor* under *key* at that time, or under any key if *key* is None.

    A key that cannot be a segment of a resource, as one with ``/`` or ``%``, is read by who may read all.
    """
    if token is None:
        return Refusal("missing_context", "reading state requires a token")
    claims = verifier.verify(token)
    if isinstance(claims, Refusal):
        return claims
    refusal = claims.valid_at(at_ms) or _refusal(claims, reactor, key, at_ms)
    if refusal is None:
        verifier.useful(claims)
    elif not claims.notes:
        verifier.useless(claims)
    return refusal


def _refusal(claims: Claims, reactor: str, key: str | None, at_ms: int) -> Refusal | None:
    if bad_segment(reactor):
        return Refusal("bad_resource", "there is no reactor of such a name")
    operations = StateCap.read.implied_by
    if key is None or bad_segment(key):
        scope = Scope((reactor,), below=True)
        refusal = claims.refusal_within(operations, scope, READ_TYPE, READ_TOPIC, at_ms)
    else:
        scope = Scope((reactor, key), below=False)
        refusal = claims.refusal(operations, str(scope), READ_TYPE, READ_TOPIC, at_ms)
    if refusal is None:
        return None
    match refusal.code:
        case "insufficient_capabilities":
            what = f"reading this takes {StateCap.read.name}:{scope!s:.200}"
        case "wrong_intent_type":
            what = f"reading is of type {READ_TYPE!r}"
        case "wrong_topic":
            what = f"reading is on topic {READ_TOPIC!r}"
        case _:
            return refusal
    return Refusal(refusal.code, f"{refusal.reason}; {what}")
