"""Capabilities, arranged to be asked about."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pf_stream.model.capability import HeldGrant
from pf_stream.model.scope import Scope

__all__ = ["Rights"]


class Rights(NamedTuple):
    """What a token grants, or one of its checks leaves of it."""

    grants: tuple[HeldGrant, ...]
    """All of it."""
    scopes: Mapping[str, tuple[Scope, ...]]
    """By operation what is granted at any time."""
    limited: bool
    """Whether something is granted at some times only."""

    @classmethod
    def of(cls, grants: Iterable[HeldGrant]) -> "Rights":
        """Arrange *grants*."""
        every = tuple(grants)
        scopes: dict[str, tuple[Scope, ...]] = {}
        for grant in every:
            if grant.during is None:
                scopes[grant.operation] = (*scopes.get(grant.operation, ()), grant.scope)
        return cls(every, scopes, any(grant.during is not None for grant in every))

    def cover(self, operations: frozenset[str], resource: str) -> bool:
        """Whether one of *operations* on *resource* is granted at any time."""
        scopes = self.scopes
        for operation in operations:
            if operation in scopes:
                for scope in scopes[operation]:
                    if scope.covers(resource):
                        return True
        return False

    def granting(self, operations: frozenset[str], resource: str) -> list[HeldGrant]:
        """Those that grant one of *operations* on *resource*, at any time or some."""
        return [right for right in self.grants if right.operation in operations and right.scope.covers(resource)]

    def including(self, operations: frozenset[str], scope: Scope) -> list[HeldGrant]:
        """Those that each grant one of *operations* on all resources of *scope*, at any time or some."""
        return [right for right in self.grants if right.operation in operations and right.scope.includes(scope)]
