"""Who may do what: the decision, and the memory of decisions."""

from sys import getsizeof
from typing import Any, Final

from pf_stream.core.plan import Requirement, Route
from pf_stream.model.capability import Field
from pf_stream.model.scope import bad_segment, check_resource
from pf_stream.security.refusal import Refusal
from pf_stream.security.verify import Claims, Verifier

__all__ = ["Authority"]


class Authority:
    """Everything that a decision depends on: the trust roots, and for speed what was decided before.

    A worker has one; lanes share it. Equal inputs give equal answers, with or without the memory.

    What was granted is among the notes of its token, under the route and the values of the fields that its requirements
    read. Nothing there can be taken for something else: a token's bytes say tenant, audience and rights; a route is one
    type on one topic with its requirements, and equal to itself alone; values are compared one by one, never joined. Only
    tokens of the closed profile have such notes, whose decisions do not depend on the time; the validity interval
    is checked for each record. Refusals are not kept.
    """

    __slots__ = ("recent", "verifier")

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.recent = verifier.recent
        """Tokens with their notes, to look before asking :meth:`decide`."""

    def decide(self, token: bytes, route: Route, values: Any, at_ms: int) -> Claims | Refusal:
        """Whether *token* grants what *route* requires, apart from its validity interval.

        *values* is what ``route.values`` took from the intent.
        """
        claims = self.verifier.verify(token)
        if isinstance(claims, Refusal):
            return claims
        first: Refusal | None = None
        for kind in route.types:
            refusal = _refusal(claims, route, values, kind, at_ms)
            if refusal is None:
                break
            first = first or refusal
            if refusal.code not in _ABOUT_THE_TYPE:
                return self._refused(claims, first)
        else:
            assert first is not None
            return self._refused(claims, first)
        self.verifier.useful(claims)
        if claims.closed:
            size = _NOTE_BYTES + sum(map(getsizeof, values if route.width > 1 else (values,)))
            self.verifier.note(claims, (route, values), True, size)
        return claims

    def _refused(self, claims: Claims, refusal: Refusal) -> Refusal:
        if not claims.notes:
            self.verifier.useless(claims)
        return refusal


_NOTE_BYTES: Final = 300
"""What a note takes apart from the values."""


_ABOUT_THE_TYPE: Final = frozenset({"wrong_intent_type", "check_failed"})
"""Codes that another type may not have."""


def _refusal(claims: Claims, route: Route, values: Any, kind: str, at_ms: int) -> Refusal | None:
    """Why *claims* do not grant what *route* requires to an intent of type *kind*."""
    if not route.requirements:
        return claims.misuse(kind, route.topic)
    row = values if route.width > 1 else (values,)
    for requirement in route.requirements:
        resource = _resource(requirement, row)
        if isinstance(resource, Refusal):
            return resource
        refusal = claims.refusal(requirement.operations, resource, kind, route.topic, at_ms)
        if refusal is not None:
            return refusal
    return None


def _resource(requirement: Requirement, row: tuple[Any, ...]) -> str | Refusal:
    parts = []
    position = 0
    for segment in requirement.grant.segments():
        if not isinstance(segment, Field):
            parts.append(segment)
            continue
        value = row[requirement.fields[position]]
        position += 1
        if segment.path:
            path = value if value.startswith("/") else "/" + value
            fault = check_resource(path)
            if fault is not None:
                return Refusal("bad_resource", f"field {segment.name!r}: {fault}")
            parts.append(path[1:])
        elif bad_segment(value):
            return Refusal("bad_resource", f"field {segment.name!r} cannot be a segment of a resource")
        else:
            parts.append(value)
    return "/" + "/".join(parts)
