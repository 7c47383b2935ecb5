"""Who may do what: the decision, and the memory of decisions."""

from collections.abc import Sequence
from typing import Any, Final

from pf_stream.core.checks import Case, Check, first_refusal
from pf_stream.core.plan import Route
from pf_stream.model.intent import Intent
from pf_stream.security.narrowing import Identity
from pf_stream.security.refusal import Refusal
from pf_stream.security.verify import Claims, Verifier

__all__ = ["Authority"]

MAX_DECISIONS = 100_000


class Authority:
    """Everything that a decision depends on: the trust roots, and for speed what was decided before.

    A worker has one; lanes share it. Equal inputs give equal answers, with or without the memory.
    """

    __slots__ = ("decisions", "verifier")

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.decisions: dict[tuple[bytes, Route, Any], Claims] = {}
        """Granted: (token, route, values of the fields that requirements read). Only tokens of the closed profile are
        here, and of those only what does not depend on the time; the validity interval is checked for each record, and so
        are the requirements that must be."""

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
        if refusal is not None:
            return refusal
        if claims.closed and not claims.timed and claims.identity is None:
            if len(self.decisions) >= MAX_DECISIONS:
                self.decisions.clear()
            self.decisions[claims.token, route, values] = claims
        return claims

    def judge(self, claims: Claims, route: Route, values: Any, intent: Intent, at_ms: int) -> Refusal | None:
        """Decide what :meth:`decide` left: the validity interval, and what must be decided for each intent."""
        if not claims.not_before_ms <= at_ms < claims.expires_ms:
            return claims.valid_at(at_ms)
        return _refusal(route.checks.each, claims, route, values, intent, at_ms)


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
