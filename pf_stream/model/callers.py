"""Callers: who asks, on whose behalf, with which capabilities; as proven by a token, or about to be written into one.

What is done on a caller's behalf goes on under a caller made from it, by *propagation*; what two callers have a part in, under
one made from both, by *composition*. Strategies are functions, known by name, and one's own are added by a decorator. Two
laws hold for every strategy, one's own too, because they are checked after it:

* propagation never widens: no capability, no time, no tenant or audience that the caller did not have;
* composition never grants what neither granted, and never for longer than both.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from pf_stream.errors import DefinitionError, PFError
from pf_stream.model._names import nearest
from pf_stream.model.capabilities import Capabilities

__all__ = [
    "MAX_TRACE",
    "Caller",
    "Composition",
    "Propagation",
    "RefusedCallerError",
    "compose",
    "composition",
    "propagation",
]

F = TypeVar("F", bound=Callable[..., Any])

MAX_TRACE: Final = 16
"""Steps of a request that are told, the latest ones."""

_FOREVER_MS: Final = 2**63 - 1
_NOTHING: Final = Capabilities()


class RefusedCallerError(PFError):
    """Raised when a strategy would make a caller that may do more than it should, or raises itself. It is a denial."""

    code = "refused_caller"

    def __init__(self, strategy: str, fault: str) -> None:
        self.strategy = strategy
        super().__init__(f"strategy {strategy!r}: {fault}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    subject: str = ""
    """Who; the empty string for somebody who came without a token."""
    tenant: str | None = None
    """On whose behalf."""
    audience: str = ""
    """The namespace that the token is for."""
    session: str | None = None
    """The issuer's name for the session in which it was given out."""
    capabilities: Capabilities = _NOTHING
    """What they may do. Of a token with conditions outside the closed profile: at most."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else the issuer says of them."""
    issued_ms: int | None = None
    """When the token was made, milliseconds since the epoch."""
    authenticated_ms: int | None = None
    """When the subject last proved who they are; ``None`` if the issuer does not say."""
    not_before_ms: int = 0
    """First millisecond in which the token is valid."""
    expires_ms: int = _FOREVER_MS
    """First millisecond in which it is no longer valid."""
    request_id: str = ""
    """The request that all this is for: 32 hexadecimal digits, the trace-id of W3C Trace Context."""
    trace: tuple[str, ...] = ()
    """What the request went through, ``{topology}/{reactor}``, in order, the latest :data:`MAX_TRACE`."""
    hops: int = 0
    """How often it was emitted onward."""

    def propagate(self, through: str, to: Capabilities | None = None, *, strategy: str = "narrow") -> "Caller":
        """The caller under which *through*, ``{topology}/{reactor}``, goes on; *to* is what that needs.

        ============  ===========================================================================================
        ``narrow``    the same request, and of the capabilities only what lies in *to*; what emitted intents get
        ``inherit``   the same request with all capabilities
        ``copy``      a new request, whose id follows from the old one, with all capabilities
        ============  ===========================================================================================

        Raises:
            RefusedCallerError: a strategy of one's own raised or widens.
            DefinitionError: there is no such strategy.
        """
        made = _run(strategy, _propagations, lambda function: function(self, to))
        if not made.capabilities <= self.capabilities:
            raise RefusedCallerError(
                strategy, f"it grants {made.capabilities - self.capabilities}, which the caller lacks"
            )
        if made.not_before_ms < self.not_before_ms or made.expires_ms > self.expires_ms:
            raise RefusedCallerError(strategy, "it is valid for longer than the caller's token")
        _check_said(strategy, made, self)
        return replace(made, trace=(*self.trace, through)[-MAX_TRACE:], hops=self.hops + 1)


Propagation: TypeAlias = Callable[[Caller, Capabilities | None], Caller]
Composition: TypeAlias = Callable[[Caller, Caller], Caller]


def compose(one: Caller, other: Caller, *, strategy: str = "intersect") -> Caller:
    """The caller for what both have a part in. It is *one*'s request.

    ==============  =========================================================================================
    ``intersect``   what both may do; what both say of themselves
    ``merge``       what either may do; what both say of themselves, since requirements may ask for that
    ``override``    what *other* may do and says
    ==============  =========================================================================================

    Whatever the strategy: valid while both are.

    Raises:
        RefusedCallerError: they are of two tenants or audiences; or a strategy of one's own raised, or grants what neither did.
        DefinitionError: there is no such strategy.
    """
    if (one.tenant, one.audience) != (other.tenant, other.audience):
        raise RefusedCallerError(strategy, "the callers are of two tenants or audiences, which nothing may join")
    made = _run(strategy, _compositions, lambda function: function(one, other))
    either = one.capabilities | other.capabilities
    if not made.capabilities <= either:
        raise RefusedCallerError(strategy, f"it grants {made.capabilities - either}, which neither caller has")
    _check_said(strategy, made, one, other)
    return replace(
        made,
        not_before_ms=max(one.not_before_ms, other.not_before_ms, made.not_before_ms),
        expires_ms=min(one.expires_ms, other.expires_ms, made.expires_ms),
        authenticated_ms=_earlier(one.authenticated_ms, other.authenticated_ms),
        request_id=one.request_id,
        trace=one.trace,
        hops=max(one.hops, other.hops),
    )


def propagation(name: str) -> Callable[[Propagation], Propagation]:
    """Make a function of the caller, and of what is needed or ``None``, a strategy of :meth:`Caller.propagate`."""
    return lambda function: _register(name, function, _propagations)


def composition(name: str) -> Callable[[Composition], Composition]:
    """Make a function of two callers a strategy of :func:`compose`."""
    return lambda function: _register(name, function, _compositions)


def _narrow(caller: Caller, to: Capabilities | None) -> Caller:
    return caller if to is None else replace(caller, capabilities=(caller.capabilities & to).minimal())


def _inherit(caller: Caller, _: Capabilities | None) -> Caller:
    return caller


def _copy(caller: Caller, _: Capabilities | None) -> Caller:
    origin = f"{caller.request_id}:{caller.hops}:{'>'.join(caller.trace)}".encode()
    return replace(caller, request_id=hashlib.blake2b(origin, digest_size=16).hexdigest())


def _intersect(one: Caller, other: Caller) -> Caller:
    return replace(
        one,
        session=one.session if one.session == other.session else None,
        capabilities=(one.capabilities & other.capabilities).minimal(),
        attributes=MappingProxyType(dict(one.attributes.items() & other.attributes.items())),
    )


def _merge(one: Caller, other: Caller) -> Caller:
    return replace(_intersect(one, other), capabilities=(one.capabilities | other.capabilities).minimal())


def _override(_: Caller, other: Caller) -> Caller:
    return other


_propagations: Final[dict[str, Propagation]] = {"narrow": _narrow, "inherit": _inherit, "copy": _copy}
_compositions: Final[dict[str, Composition]] = {"intersect": _intersect, "merge": _merge, "override": _override}
_own: Final = frozenset((*_propagations, *_compositions))


def _earlier(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else min(one, other)


def _check_said(strategy: str, made: Caller, *origins: Caller) -> None:
    """That *made* says nothing of itself that no origin says: requirements may ask for it."""
    for what in ("subject", "tenant", "audience"):
        if getattr(made, what) not in [getattr(origin, what) for origin in origins]:
            raise RefusedCallerError(strategy, f"it is for another {what}, {getattr(made, what)!r:.80}")
    if made.session is not None and made.session not in [origin.session for origin in origins]:
        raise RefusedCallerError(strategy, "it is of another session")
    more = made.attributes.items() - {item for origin in origins for item in origin.attributes.items()}
    if more:
        raise RefusedCallerError(
            strategy, f"it says {', '.join(sorted(name for name, _ in more))} of itself, which nobody said"
        )
    proven = [origin.authenticated_ms for origin in origins if origin.authenticated_ms is not None]
    if made.authenticated_ms is not None and made.authenticated_ms > max(proven, default=-1):
        raise RefusedCallerError(strategy, "it says that the subject was authenticated later than anybody said")


def _register(name: str, function: F, strategies: dict[str, F]) -> F:
    if name in _own:
        raise DefinitionError(f"strategy {name!r}", ["that is one of the library's own; choose another name"])
    strategies[name] = function
    return function


def _run(strategy: str, strategies: Mapping[str, F], run: Callable[[F], Caller]) -> Caller:
    function = strategies.get(strategy)
    if function is None:
        raise DefinitionError(f"strategy {strategy!r}", [f"there is none{nearest(strategy, strategies)}"])
    try:
        made = run(function)
    except Exception as error:
        raise RefusedCallerError(strategy, f"it raised {type(error).__name__}") from error
    if not isinstance(made, Caller):
        raise RefusedCallerError(strategy, f"it made {made!r:.80}, which is no Caller")
    return made
