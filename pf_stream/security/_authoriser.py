"""The slow way: Biscuit's own authoriser decides. It is the judge; the closed profile is its shorthand."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from biscuit_auth import AuthorizationError, AuthorizerBuilder, Biscuit, Fact, Policy

from pf_stream.model.capability import HeldGrant
from pf_stream.security.refusal import Refusal

__all__ = ["authorise", "is_library_failure", "refusal_of", "set_limits"]

# The default of 1 ms refuses valid tokens on a busy machine; 100 ms did so too, in our own tests. And a decision must be the
# same whenever it is made. What keeps it short is the bound on the work a token may ask for (``_cost``); this is a last resort.
_MAX_TIME: Final = timedelta(seconds=10)
_MAX_FACTS: Final = 1000
_MAX_ITERATIONS: Final = 100

_LATEST_S: Final = 253_402_300_799

# The library tells the kinds of failure apart only by its text.
_failed_check: Final = re.compile(r"Check n°(\d+) in block n°(\d+)")


def authorise(
    token: Biscuit,
    rights: Iterable[HeldGrant],
    *,
    operations: Iterable[str],
    resource: str,
    intent_type: str,
    topic: str,
    at_ms: int,
    during: Iterable[str] = (),
) -> Refusal | None:
    """Ask the authoriser whether *token*, verified, grants one of *operations* on *resource*; None is yes.

    *during* are the texts of times that hold at *at_ms*, of those that the token asks about.

    *rights* are the plain ``right`` facts of the authority block. Each becomes a policy that asks for the same fact in the scope of
    authority and authoriser alone, so no fact or rule of a later block can stand in for it.
    """
    try:
        builder = AuthorizerBuilder()
        builder.add_fact(Fact("time({at})", {"at": datetime.fromtimestamp(at_ms // 1000, UTC)}))
        builder.add_fact(Fact("intent_type({name})", {"name": intent_type}))
        builder.add_fact(Fact("topic({name})", {"name": topic}))
        for name in operations:
            builder.add_fact(Fact("request({name}, {resource})", {"name": name, "resource": resource}))
        for text in during:
            builder.add_fact(Fact("during({text})", {"text": text}))
        for right in rights:
            held = "right({name}, {scope})" if right.during is None else "right({name}, {scope}, $w), during($w)"
            builder.add_policy(
                Policy(
                    f"allow if {held}, request({{name}}, $r), $r.matches({{regex}})",
                    {"name": right.operation, "scope": str(right.scope), "regex": right.scope.to_regex()},
                )
            )
        set_limits(builder)
        builder.build(token).authorize()
    except AuthorizationError as error:
        return refusal_of(error)
    except BaseException as error:
        if is_library_failure(error):
            return Refusal("undecidable", f"the authoriser failed: {type(error).__name__}")
        raise
    return None


def set_limits(builder: AuthorizerBuilder) -> None:
    """Bound what *builder*'s authoriser may spend on a decision."""
    # The library's stub forgets these two methods.
    limits = builder.limits()  # type: ignore[attr-defined]
    limits.max_time, limits.max_facts, limits.max_iterations = _MAX_TIME, _MAX_FACTS, _MAX_ITERATIONS
    builder.set_limits(limits)  # type: ignore[attr-defined]


def is_library_failure(error: BaseException) -> bool:
    """Whether *error* is the library's, a panic included (which is no ``Exception``), and not somebody stopping us."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def refusal_of(error: AuthorizationError) -> Refusal:
    """What the authoriser's *error* means."""
    text = str(error)
    if text.startswith("authorization failed"):
        failed = _failed_check.search(text)
        if failed is not None:
            return Refusal("check_failed", f"check {failed[1]} of block {failed[2]} does not hold")
        return Refusal("insufficient_capabilities", "the token grants no such operation on that resource")
    if "limit" in text:
        return Refusal("limits_reached", "the token's Datalog reached the limits of a decision")
    return Refusal("undecidable", "the token's Datalog cannot be evaluated")
