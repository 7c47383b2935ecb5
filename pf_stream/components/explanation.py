"""Why a token is, or is not, good for an intent: the worker's own decision, requirement by requirement."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from pf_stream.core.authorise import Authority
from pf_stream.core.checks import Case, Checks, compile_checks, fill, first_refusal
from pf_stream.core.plan import Route, plan
from pf_stream.errors import NotFoundError
from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import Grant, HeldGrant, implies
from pf_stream.model.intent import Intent
from pf_stream.model.requirement import Requirement
from pf_stream.model.scope import Scope
from pf_stream.model.topology import Topology
from pf_stream.model.when import Calendar, UnknownCalendarError
from pf_stream.security.claims import Claims
from pf_stream.security.refusal import Refusal
from pf_stream.security.verify import Verifier

__all__ = ["Finding", "Verdict", "explain"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement, and whether it holds."""

    requirement: str
    """As declared."""
    holds: bool
    """Whether it does."""
    because: str
    """What granted it, by which implications; or what is nearest and what is missing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker would do with an intent that came with a token."""

    accepted: bool
    """Whether its handlers would run."""
    code: str | None
    """Why not, for programs; the code of the dead letter."""
    reason: str | None
    """Why not, for people."""
    claims: Claims | None
    """What the token says, if it is believed."""
    findings: tuple[Finding, ...]
    """Every requirement; empty if the token is not believed."""


def explain(topology: Topology, verifier: Verifier, token: bytes, intent: Intent, at_ms: int) -> Verdict:
    """Decide at *at_ms*, milliseconds since the epoch, as a worker does, and say why.

    Raises:
        NotFoundError: no reactor of the topology handles the intent.
    """
    route = _route(topology, intent)
    claims = verifier.verify(token)
    if isinstance(claims, Refusal):
        return Verdict(accepted=False, code=claims.code, reason=claims.reason, claims=None, findings=())
    authority = Authority(verifier)
    values = route.values(intent)
    decided = authority.decide(token, route, values, intent, at_ms)
    refusal = decided if isinstance(decided, Refusal) else authority.judge(decided, route, values, intent, at_ms)
    requirements = topology.requirements(route.intent)
    return Verdict(
        accepted=refusal is None,
        code=None if refusal is None else refusal.code,
        reason=None if refusal is None else refusal.reason,
        claims=claims,
        findings=tuple(_finding(one, topology, claims, route, intent, at_ms) for one in requirements),
    )


def _route(topology: Topology, intent: Intent) -> Route:
    spec = type(intent).__intent__
    for group in plan(topology, topology.partitions):
        for source in group.sources:
            route = source.routes.get(spec.type.encode())
            if route is not None and source.topic == source.origin and route.intent is spec:
                return route
    raise NotFoundError(f"no reactor of topology {topology.name!r} handles {spec.type}")


def _finding(
    requirement: Requirement, topology: Topology, claims: Claims, route: Route, intent: Intent, at_ms: int
) -> Finding:
    checks: Checks = compile_checks([requirement], topology.calendars)
    row = tuple(getattr(intent, field) for field in checks.fields)
    case = Case(claims, row, intent, route.types[0], route.topic, at_ms)
    refusal = first_refusal((*checks.kept, *checks.each), case)
    if isinstance(requirement, Grant):
        resource = fill(requirement, range(len(requirement.fields)), [getattr(intent, f) for f in requirement.fields])
        if not isinstance(resource, Refusal):
            wanted = HeldGrant(requirement.operation.name, Scope.parse(resource))
            return Finding(
                str(requirement), refusal is None, _because(wanted, claims, refusal, at_ms, topology.calendars)
            )
    return Finding(str(requirement), refusal is None, "it holds" if refusal is None else refusal.reason)


def _because(
    wanted: HeldGrant, claims: Claims, refusal: Refusal | None, at_ms: int, calendars: Mapping[str, Calendar]
) -> str:
    held = claims.caller.capabilities
    explanation = Capabilities(*_at(held, at_ms, calendars)).explain(wanted)
    if refusal is not None and any(implies(replace(grant, during=None), wanted) for grant in held):
        return f"{wanted} is granted, but {refusal.reason}"
    if not explanation.granted and Capabilities(*_at(claims.rights, at_ms, calendars)).implies(wanted):
        return f"{explanation}\n  the issuer granted it, and somebody who held the token since narrowed it away"
    return str(explanation)


def _at(grants: Iterable[HeldGrant], at_ms: int, calendars: Mapping[str, Calendar]) -> Iterator[HeldGrant]:
    """Those of *grants* that hold at that time, without saying until when."""
    for grant in grants:
        try:
            if grant.during is None or grant.during.holds(at_ms, calendars):
                yield replace(grant, during=None)
        except UnknownCalendarError:
            pass
