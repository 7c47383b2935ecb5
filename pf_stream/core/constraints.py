"""Whether an intent may be handled now, and if not, when."""

from collections.abc import Mapping, Sequence

from pf_stream.model.constraint import Constraint
from pf_stream.model.when import Calendar
from pf_stream.security.refusal import Refusal

__all__ = ["constrained"]


def constrained(
    constraints: Sequence[Constraint],
    calendars: Mapping[str, Calendar],
    *,
    at_ms: int,
    happened_ms: int,
    deadline_ms: int | None,
    horizon_ms: int,
) -> int | Refusal:
    """The first time from *at_ms* on at which all of *constraints* let an intent be handled, or why it is refused.

    Times are milliseconds since the epoch: when it happened, until when its sender wants it handled, if they say so, and until
    when it may wait at all.
    """
    until_ms = horizon_ms if deadline_ms is None else min(horizon_ms, deadline_ms)
    for constraint in constraints:
        if constraint.within_ms is not None:
            last_ms = happened_ms + constraint.within_ms - 1
            if at_ms > last_ms:
                return Refusal("deadline_passed", f"the constraint '{constraint}' does not hold any more")
            until_ms = min(until_ms, last_ms)
    found_ms, first = at_ms, None
    while True:
        start_ms = found_ms
        for constraint in constraints:
            when = constraint.when
            if when is None or when.holds(found_ms, calendars):
                continue
            if not constraint.waits:
                return Refusal(constraint.code, f"the constraint '{constraint}' does not hold")
            first = first or constraint
            next_ms = when.next(found_ms, calendars, until_ms)
            if next_ms is None:
                late = until_ms < horizon_ms
                return Refusal(
                    "deadline_passed" if late else first.code, f"the constraint '{first}' will hold too late"
                )
            found_ms = next_ms
        if found_ms == start_ms:
            return found_ms
