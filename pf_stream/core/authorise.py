"""Who may do what: the decision, and the memory of decisions."""

from collections.abc import Sequence
from typing import Any, Final

from pf_stream.core.checks import Case, Check, first_refusal
from pf_stream.core.plan import Route
from pf_stream.model.intent import Intent
from pf_stream.security.claims import Claims
from pf_stream.security.narrowing import Identity
from pf_stream.security.refusal import Refusal
from pf_stream.security.verify import Verifier

__all__ = ["Authority"]


class Authority:
    """Everything that a decision depends on: the trust roots, and for speed what was decided before.

    A worker has one; lanes share it. Equal inputs give equal answers, with or without the memory.

    What was granted is among the notes of its token, under the route and the values of the fields that its requirements
    read. Nothing there can be taken for something else: a token's bytes say tenant, audience and rights; a route is one
    type on one topic with its requirements, and equal to itself alone; values are compared one by one, never joined. Only
    tokens of the closed profile have such notes, of those only what does not depend on the time; the validity interval is
    checked for each record, and so are the requirements that must be. Refusals are not kept.
    """

    __slots__ = ("recent", "verifier")

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.recent = verifier.recent
        """Tokens with their notes, to look before asking :meth:`decide`."""

    def decide(
        self, origin: bytes | Identity, route: Route, values: Any, intent: Intent, at_ms: int
    ) -> Claims | Refusal:
        """Whether a token, or what a service may do, grants what *route* requires of every intent with these *values*.

        *values* is what ``route.values`` took from the intent. What must be decided for each intent, and at each time, is
        left to :meth:`judge`.
        """
        claims = self.verifier.verify(origin) if isinstance(origin, bytes) else origin.claims(self.verifier)
        if isinstance(claims, Refusal):
            return claims
        refusal = _refusal(route.checks.kept, claims, route, values, intent, at_ms)
        if claims.identity is not None:
            return refusal or claims
        if refusal is not None:
            if not claims.notes:
                self.verifier.useless(claims)
            return refusal
        self.verifier.useful(claims)
        if claims.closed and not claims.timed:
            length = sum(map(len, values)) if route.width > 1 else len(values or "")
            self.verifier.note(claims, (route, values), True, _NOTE_BYTES + _VALUE_BYTES * route.width + 4 * length)
        return claims

    def judge(self, claims: Claims, route: Route, values: Any, intent: Intent, at_ms: int) -> Refusal | None:
        """Decide what :meth:`decide` left: the validity interval, and what must be decided for each intent."""
        refusal = claims.valid_at(at_ms)
        if refusal is None:
            return _refusal(route.checks.each, claims, route, values, intent, at_ms)
        if claims.identity is None:
            self.verifier.useless(claims)
        return refusal


_NOTE_BYTES: Final = 300
"""What a note takes apart from the values."""
_VALUE_BYTES: Final = 60
"""What a value takes apart from its characters, of which each takes at most four."""


_ABOUT_THE_TYPE: Final = frozenset({"wrong_intent_type", "check_failed"})
"""Codes that another type may not have."""


def _refusal(
    checks: Sequence[Check], claims: Claims, route: Route, values: Any, intent: Intent, at_ms: int
) -> Refusal | None:
    row = values if route.width > 1 else (values,)
    first: Refusal | None = None
    for kind in route.types:
        refusal = first_refusal(checks, Case(claims, row, intent, kind, route.topic, at_ms))
        if refusal is None:
            return None
        first = first or refusal
        if refusal.code not in _ABOUT_THE_TYPE:
            break
    return first
