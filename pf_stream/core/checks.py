"""Requirements, compiled into checks that a token and an intent pass or not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from pf_stream.model.capability import Field, Grant
from pf_stream.model.intent import Intent
from pf_stream.model.requirement import (
    AllOf,
    AnyOf,
    CallerIs,
    Computed,
    During,
    Requirement,
    fields_of,
    filled_by,
    leaves,
)
from pf_stream.model.rules import Rule
from pf_stream.model.scope import Scope, bad_segment, check_resource
from pf_stream.model.when import Calendar, UnknownCalendarError, When
from pf_stream.security.claims import Claims
from pf_stream.security.refusal import Refusal

__all__ = ["Case", "Check", "Checks", "compile_checks", "fill", "first_refusal"]


class Case(NamedTuple):
    """What is decided about."""

    claims: Claims
    """What the token says."""
    row: tuple[Any, ...]
    """Values of the fields that requirements read, in the order of :attr:`Checks.fields`."""
    intent: Intent
    """The intent."""
    kind: str
    """Its type, by which the token may be limited."""
    topic: str
    """Its topic, likewise."""
    at_ms: int
    """The time for which it is decided."""


class Check(Protocol):
    """One requirement."""

    def refusal(self, case: Case) -> Refusal | None:
        """None if it holds, else why not. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Checks:
    """What one type on one topic requires; empty for ``PUBLIC``."""

    fields: tuple[str, ...]
    """The intent's fields that they read."""
    kept: tuple[Check, ...]
    """Those that have one answer for one token and the same values of the fields, whatever the time and the rest of the intent."""
    each: tuple[Check, ...]
    """Those that are decided for each intent."""


def compile_checks(requirements: Sequence[Requirement], calendars: Mapping[str, Calendar]) -> Checks:
    """The checks for *requirements*, which must all hold; ``during`` may name *calendars*."""
    fields = tuple(dict.fromkeys(field for requirement in requirements for field in fields_of(requirement)))
    compiler = _Compiler(fields, calendars)
    kept: list[Check] = []
    each: list[Check] = []
    for requirement in requirements:
        (kept if _is_kept(requirement) else each).append(compiler.check(requirement))
    if not any(map(_asks_token, requirements)):
        kept.insert(0, _TokenCheck())
    return Checks(fields, tuple(kept), tuple(each))


def _is_kept(requirement: Requirement) -> bool:
    return all(
        isinstance(leaf, Grant) or (isinstance(leaf, CallerIs) and leaf.authenticated_within_ms is None)
        for leaf in leaves(requirement)
    )


def _asks_token(requirement: Requirement) -> bool:
    """Whether *requirement* holds only if the token's own checks do: all of them are asked with a capability."""
    if isinstance(requirement, AllOf):
        return any(map(_asks_token, requirement.requirements))
    # Alternatives that do not ask are made to, below.
    return isinstance(requirement, Grant | Computed | AnyOf)


class _Compiler:
    __slots__ = ("_calendars", "_fields")

    def __init__(self, fields: tuple[str, ...], calendars: Mapping[str, Calendar]) -> None:
        self._fields = fields
        self._calendars = calendars

    def check(self, requirement: Requirement) -> Check:
        match requirement:
            case Grant():
                at = tuple(map(self._fields.index, requirement.fields))
                return _GrantCheck(requirement, requirement.operation.implied_by, at, *_texts(requirement, at))
            case Computed():
                bounds = tuple((bound.operation.name, bound.scope) for bound in requirement.within)
                return _ComputedCheck(requirement, bounds)
            case CallerIs():
                said = []
                for name, value in requirement.said.items():
                    field = filled_by(value)
                    said.append((name, value, None if field is None else self._fields.index(field)))
                return _CallerCheck(tuple(said), requirement.authenticated_within_ms)
            case During():
                return _DuringCheck(requirement.when, self._calendars)
            case Rule():
                return _RuleCheck(requirement)
            case AllOf():
                return _AllCheck(tuple(map(self.check, requirement.requirements)))
            case AnyOf():
                return _AnyCheck(tuple(self._alternative(one) for one in requirement.requirements))

    def _alternative(self, requirement: Requirement) -> Check:
        check = self.check(requirement)
        return check if _asks_token(requirement) else _AllCheck((_TokenCheck(), check))


class _TokenCheck:
    """That the token is for this type on this topic, where no capability asks."""

    __slots__ = ()

    def refusal(self, case: Case) -> Refusal | None:
        return case.claims.misuse(case.kind, case.topic, case.at_ms)


@dataclass(frozen=True, slots=True)
class _GrantCheck:
    grant: Grant
    operations: frozenset[str]
    """Names of the operations that grant it."""
    fields: tuple[int, ...]
    """For each field of the pattern, its position in the row."""
    texts: tuple[str, ...]
    """The pattern's texts, and the empty one before its first "/"."""
    segments: Callable[[tuple[str, ...]], tuple[str, ...]] | None
    """Puts *texts* and the row behind them in the pattern's order; ``None`` if a field may be more than a segment."""

    def refusal(self, case: Case) -> Refusal | None:
        if self.segments is not None:
            segments = self.segments(self.texts + case.row)
            resource = "/".join(segments)
            # If this is a resource, of as many segments, then no field was anything else than a segment.
            if resource.count("/") == len(segments) - 1:
                refusal = case.claims.refusal(self.operations, resource, case.kind, case.topic, case.at_ms)
                if refusal is None or refusal.code != "bad_resource":
                    return refusal
        found = fill(self.grant, self.fields, case.row)
        if isinstance(found, Refusal):
            return found
        return case.claims.refusal(self.operations, found, case.kind, case.topic, case.at_ms)


def _texts(
    grant: Grant, fields: Sequence[int]
) -> tuple[tuple[str, ...], Callable[[tuple[str, ...]], tuple[str, ...]] | None]:
    segments = ("", *grant.segments())
    texts = tuple(segment for segment in segments if isinstance(segment, str))
    if len(segments) == 1 or any(isinstance(segment, Field) and segment.path for segment in segments):
        return texts, None
    before, rows = iter(range(len(texts))), iter(fields)
    order = [next(before) if isinstance(segment, str) else len(texts) + next(rows) for segment in segments]
    return texts, itemgetter(*order)


@dataclass(frozen=True, slots=True)
class _ComputedCheck:
    computed: Computed
    bounds: tuple[tuple[str, Scope], ...]
    """Operation and resources of each grant that it is within."""

    def refusal(self, case: Case) -> Refusal | None:
        try:
            said = self.computed.function(case.intent)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a denial
            return Refusal("undecidable", f"what it requires cannot be computed: {type(error).__name__}")
        grants: Sequence[Any] = said if isinstance(said, list | tuple) else (said,)
        if not grants:
            return Refusal("undecidable", f"{self.computed} says nothing")
        for grant in grants:
            if not isinstance(grant, Grant) or grant.is_template or not (scope := grant.scope).is_exact:
                return Refusal("undecidable", f"{self.computed} says {grant!r:.200}, which is no grant on one resource")
            operations = grant.operation.implied_by
            # As implies() says it, of grants that have no limit in time.
            if not any(operation in operations and bound.includes(scope) for operation, bound in self.bounds):
                return Refusal("undecidable", f"{self.computed} says {grant}, which is outside of that")
            refusal = case.claims.refusal(operations, str(scope), case.kind, case.topic, case.at_ms)
            if refusal is not None:
                return refusal
        return None


@dataclass(frozen=True, slots=True)
class _CallerCheck:
    said: tuple[tuple[str, str, int | None], ...]
    """What must be said, the text, and instead of the text the position in the row."""
    within_ms: int | None

    def refusal(self, case: Case) -> Refusal | None:
        claims = case.claims
        for name, text, position in self.said:
            wanted = text if position is None else case.row[position]
            attribute = name.removeprefix("attribute:")
            have = getattr(claims, name) if attribute == name else claims.attributes.get(attribute)
            if have != wanted:
                return Refusal("wrong_caller", f"the caller's {attribute} is another")
        if self.within_ms is not None:
            proven_ms = claims.authenticated_ms
            if proven_ms is None or case.at_ms >= proven_ms + self.within_ms:
                return Refusal(
                    "authentication_too_old", f"the caller did not prove who they are within {self.within_ms // 1000} s"
                )
        return None


@dataclass(frozen=True, slots=True)
class _DuringCheck:
    when: When
    calendars: Mapping[str, Calendar]

    def refusal(self, case: Case) -> Refusal | None:
        try:
            holds = self.when.holds(case.at_ms, self.calendars)
        except UnknownCalendarError as error:
            return Refusal("undecidable", str(error))
        return None if holds else Refusal("not_now", f"it is allowed only during {self.when}")


@dataclass(frozen=True, slots=True)
class _RuleCheck:
    rule: Rule

    def refusal(self, case: Case) -> Refusal | None:
        try:
            answer: object = self.rule(case.intent, case.claims.caller)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a denial
            return Refusal("undecidable", f"{self.rule} raised {type(error).__name__}")
        if answer is True:
            return None
        if answer is False or isinstance(answer, str):
            return Refusal("denied_by_rule", f"{self.rule}: {answer or 'it does not hold'}")
        return Refusal("undecidable", f"{self.rule} answered {answer!r:.80}, which is neither yes nor no")


@dataclass(frozen=True, slots=True)
class _AllCheck:
    checks: tuple[Check, ...]

    def refusal(self, case: Case) -> Refusal | None:
        return first_refusal(self.checks, case)


@dataclass(frozen=True, slots=True)
class _AnyCheck:
    checks: tuple[Check, ...]

    def refusal(self, case: Case) -> Refusal | None:
        refusals = []
        for check in self.checks:
            refusal = check.refusal(case)
            if refusal is None:
                return None
            refusals.append(refusal)
        if len(refusals) == 1:
            return refusals[0]
        return Refusal(refusals[0].code, "; nor ".join(refusal.reason for refusal in refusals))


def fill(grant: Grant, fields: Sequence[int], row: Sequence[Any]) -> str | Refusal:
    """The resource that *grant* is about: its n-th field is filled by ``row[fields[n]]``."""
    parts = []
    position = 0
    for segment in grant.segments():
        if not isinstance(segment, Field):
            parts.append(segment)
            continue
        value = row[fields[position]]
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


def first_refusal(checks: Iterable[Check], case: Case) -> Refusal | None:
    """The first refusal among *checks*, which must all hold."""
    for check in checks:
        refusal = check.refusal(case)
        if refusal is not None:
            return refusal
    return None
