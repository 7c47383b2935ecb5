"""Constraints: when an intent may be handled at all, whoever asks, and what becomes of it at other times.

::

    class WriteFile(Intent, ..., constraints=[only("calendar office"), never("daily 02:00-04:00 UTC"), within("24h")])

An intent that came outside of office hours is put aside until they begin, and one in a maintenance window until that is over; if
that would be too late for it, it is refused at once. With ``otherwise="refuse"`` it is refused instead of put aside.

A requirement (:func:`pf_stream.during`) is something else: it says what rights are good for, and is judged by the time at which
the intent was sent. A constraint is judged by the time at which it is handled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, get_args

from pf_stream.errors import DefinitionError
from pf_stream.model._periods import period_ms
from pf_stream.model.when import BadWhenError, When, between

__all__ = ["Constraint", "Otherwise", "after", "before", "never", "only", "read_constraints", "within"]

Otherwise: TypeAlias = Literal["wait", "refuse"]
"""What becomes of an intent at another time: it waits until it may be handled, or it becomes a dead letter."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One of them; made by :func:`only`, :func:`never`, :func:`after`, :func:`before` and :func:`within`."""

    code: str
    """What an intent is refused with: ``outside_hours``, ``in_maintenance``, ``too_early``, ``too_late``, ``deadline_passed``."""
    when: When | None = None
    """The times at which it may be handled; ``None`` for any."""
    waits: bool = False
    """Whether it waits for such a time."""
    within_ms: int | None = None
    """How long after its event time it may be handled, in milliseconds."""

    def __str__(self) -> str:
        return f"only {self.when}" if self.when is not None else f"within {(self.within_ms or 0) // 1000} s"


def only(when: When | str, *, otherwise: Otherwise = "wait") -> Constraint:
    """Handle it at these times alone, such as business hours or weekdays; else ``outside_hours``.

    Raises:
        DefinitionError: the text says no times.
    """
    return Constraint("outside_hours", _when("only", when), _waits("only", otherwise))


def never(when: When | str, *, otherwise: Otherwise = "wait") -> Constraint:
    """Do not handle it at these times, such as a maintenance window; else ``in_maintenance``.

    Raises:
        DefinitionError: the text says no times.
    """
    return Constraint("in_maintenance", ~_when("never", when), _waits("never", otherwise))


def after(moment: datetime, *, otherwise: Otherwise = "wait") -> Constraint:
    """Do not handle it before *moment*, aware; else ``too_early``."""
    return Constraint("too_early", _between("after", moment, None), _waits("after", otherwise))


def before(moment: datetime) -> Constraint:
    """Handle it before *moment*, aware, or refuse it: ``too_late``."""
    return Constraint("too_late", _between("before", None, moment))


def within(period: str) -> Constraint:
    """Handle it less than *period* (such as ``"15m"``) after it happened, or refuse it: ``deadline_passed``."""
    within_ms = period_ms(period)
    if within_ms is None:
        raise DefinitionError("within(...)", [f"{period!r} must be a number and a unit, such as '15m' or '1h'"])
    return Constraint("deadline_passed", within_ms=within_ms)


def read_constraints(given: object) -> tuple[Constraint, ...] | None:
    """*given*, a constraint or a sequence of them, as a tuple; ``None`` if it is something else."""
    several = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    return several if all(isinstance(one, Constraint) for one in several) else None


def _when(label: str, when: When | str) -> When:
    try:
        return When.parse(when) if isinstance(when, str) else when
    except BadWhenError as error:
        raise DefinitionError(f"{label}(...)", [str(error)]) from None


def _between(label: str, start: datetime | None, end: datetime | None) -> When:
    try:
        return between(start, end)
    except BadWhenError as error:
        raise DefinitionError(f"{label}(...)", [str(error)]) from None


def _waits(label: str, otherwise: str) -> bool:
    if otherwise not in get_args(Otherwise):
        raise DefinitionError(f"{label}(...)", [f"otherwise must be 'wait' or 'refuse', not {otherwise!r}"])
    return otherwise == "wait"
