"""Sets of capabilities: what somebody holds, as a value to ask, join, narrow and explain.

::

    held = Capabilities(FlightCap.report("/UA/**"), "FlightCap.admin:/AA/**")
    held.implies(FlightCap.report("/AA/EWR"))   # True: admin implies report
    held & Capabilities("FlightCap.report:/*/EWR")
    print(held.explain(FlightCap.report("/DL/JFK")))

A set is ordered by what it grants: ``<=`` is that order, ``|`` its least upper bound, ``&`` its greatest lower bound. All of it
follows from one question, :func:`pf_stream.model.capability.implies`, asked grant by grant. Two scopes, or two times, that cover
a third only together do not count as covering it; one resource at one instant is never covered by two together, so no decision
is lost. Times are compared by their words: one is known to be within another if it has all that "and" joins in the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pf_stream.model._implication import implied, meaning_of, way
from pf_stream.model.capability import Grant, HeldGrant, implied_by, implies, parse_grant
from pf_stream.model.when import When

__all__ = ["Capabilities", "Explanation"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a set of capabilities grants something, or does not."""

    required: HeldGrant
    """What was asked for; of a template, its :meth:`Grant.widest`."""
    granted: bool
    """The answer."""
    by: HeldGrant | None
    """The grant that granted it, by the fewest implications; None if refused."""
    chain: tuple[str, ...]
    """The operations from the held to the required one, each of which declares that it implies the next; empty if refused."""
    nearest: HeldGrant | None
    """If refused, a grant of the operation or one that implies it on another scope, else one of the same family, else None."""
    missing: str
    """If refused, what would have to be held instead, as a sentence; else empty."""

    def __str__(self) -> str:
        if self.by is not None:
            steps = f", since {' implies '.join(self.chain)}" if len(self.chain) > 1 else ""
            return f"granted: {self.required}\n  by {self.by}{steps}"
        nearest = f"\n  nearest: {self.nearest}" if self.nearest is not None else ""
        return f"refused: {self.required}{nearest}\n  {self.missing}"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Capabilities:
    """A set of grants: given as such, without fields to fill, or as text; iterated by their text.

    Equal to another with the same grants; two that grant the same in different words are ``<=`` each other.

    Raises:
        DefinitionError: a grant is a template.
        BadGrantError: a text is not ``Family.operation:/scope``.
    """

    grants: tuple[HeldGrant, ...]
    """Each once, sorted by text."""

    def __init__(self, *grants: HeldGrant | Grant | str) -> None:
        object.__setattr__(self, "grants", tuple(sorted(set(map(_held, grants)), key=str)))

    def implies(self, required: HeldGrant | Grant | str) -> bool:
        """Whether one of the grants implies *required*, which may be a template: see :func:`~pf_stream.model.capability.implies`."""
        want = _wanted(required)
        return any(implies(grant, want) for grant in self.grants)

    def explain(self, required: HeldGrant | Grant | str) -> Explanation:
        """The answer of :meth:`implies` and the reason for it."""
        want = _wanted(required)
        ways = {grant: way(grant.operation, want.operation) for grant in self.grants}
        granting = [grant for grant in self.grants if implies(grant, want)]
        if granting:
            by = min(granting, key=lambda grant: len(ways[grant]))
            return Explanation(want, granted=True, by=by, chain=ways[by], nearest=None, missing="")
        return Explanation(
            want, granted=False, by=None, chain=(), nearest=self._nearest(want, ways), missing=_missing(want)
        )

    def _nearest(self, want: HeldGrant, ways: Mapping[HeldGrant, tuple[str, ...]]) -> HeldGrant | None:
        elsewhere = [grant for grant in self.grants if ways[grant]]
        if elsewhere:
            return min(elsewhere, key=lambda grant: (grant.scope.intersect(want.scope) is None, len(ways[grant])))
        related = [grant for grant in self.grants if _family(grant) == _family(want)]
        return min(related, key=lambda grant: not grant.scope.includes(want.scope), default=None)

    def union(self, other: "Capabilities") -> "Capabilities":
        """What either grants."""
        return Capabilities(*self.grants, *other.grants)

    def intersection(self, other: "Capabilities") -> "Capabilities":
        """What both grant, never more: of each pair, the strongest operations that follow from both, where and when both are.

        Raises:
            BadWhenError: the time that two grants have in common is too long to be written.
        """
        return Capabilities(
            *(
                HeldGrant(operation, scope, _both(one.during, two.during))
                for one in self.grants
                for two in other.grants
                if (scope := one.scope.intersect(two.scope)) is not None
                for operation in _strongest(_all_of(one.operation) & _all_of(two.operation))
            )
        )

    def difference(self, other: "Capabilities") -> "Capabilities":
        """The grants that *other* does not imply, whole: none is cut down to what *other* lacks of it."""
        return Capabilities(*(grant for grant in self.grants if not other.implies(grant)))

    def minimal(self) -> "Capabilities":
        """The same in the fewest grants: without those that another one implies."""
        return Capabilities(
            *(
                grant
                for grant in self.grants
                if not any(implies(other, grant) for other in self.grants if other != grant)
            )
        )

    def __or__(self, other: object) -> "Capabilities":
        return self.union(other) if isinstance(other, Capabilities) else NotImplemented

    def __and__(self, other: object) -> "Capabilities":
        return self.intersection(other) if isinstance(other, Capabilities) else NotImplemented

    def __sub__(self, other: object) -> "Capabilities":
        return self.difference(other) if isinstance(other, Capabilities) else NotImplemented

    def __le__(self, other: object) -> bool:
        """Whether *other* implies every grant."""
        return all(map(other.implies, self.grants)) if isinstance(other, Capabilities) else NotImplemented

    def __iter__(self) -> Iterator[HeldGrant]:
        return iter(self.grants)

    def __len__(self) -> int:
        return len(self.grants)

    def __repr__(self) -> str:
        return f"Capabilities({', '.join(repr(str(grant)) for grant in self.grants)})"


def _held(grant: HeldGrant | Grant | str) -> HeldGrant:
    return parse_grant(grant) if isinstance(grant, str) else HeldGrant.of(grant)


def _wanted(required: HeldGrant | Grant | str) -> HeldGrant:
    return _held(required.widest() if isinstance(required, Grant) else required)


def _both(one: When | None, two: When | None) -> When | None:
    if one is None or two is None:
        return one or two
    return one & two


def _family(grant: HeldGrant) -> str:
    return grant.operation.partition(".")[0]


def _all_of(operation: str) -> set[str]:
    return {operation, *implied(operation)}


def _strongest(operations: set[str]) -> set[str]:
    return operations.difference(*map(implied, operations))


def _missing(want: HeldGrant) -> str:
    stronger = sorted(implied_by(want.operation) - {want.operation})
    if stronger:
        return f"Hold {want}, or {' or '.join(stronger)} on that scope."
    if want.operation not in (meaning_of(_family(want)) or ()):
        return f"Hold {want}; no operation of that name is known here, so nothing else implies it."
    return f"Hold {want}; nothing else implies it."
