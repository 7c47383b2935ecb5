"""Constraints: when an intent may be handled at all, whoever asks, and what becomes of it at other times.

::

    class WriteFile(Intent, ..., constraints=[only("calendar office"), never("daily 02:00-04:00 UTC"), within("24h")])

An intent that came outside of office hours is put aside until they begin, and one in a maintenance window until that is over; if
that would be too late for it, it is refused at once. With ``otherwise="refuse"`` it is refused instead of put aside.

Topology files write one of them as text (:func:`parse_constraint`)::

    only calendar office                                  times, see ``pf_stream.model.when``
    never daily 02:00-04:00 UTC otherwise refuse          instead of waiting
    after 2026-03-01T00:00:00Z
    before 2026-06-01T00:00:00Z
    within 24h

What can never be handled is refused where that is declared: one that never holds, and several that never hold together.

A requirement (:func:`pf_stream.during`) is something else: it says what rights are good for, and is judged by the time at which
the intent was sent. A constraint is judged by the time at which it is handled.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias, get_args

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest
from pf_stream.model._periods import period_ms, period_text
from pf_stream.model.when import BadWhenError, Calendar, When, between

__all__ = [
    "Constraint",
    "Otherwise",
    "after",
    "before",
    "never",
    "only",
    "parse_constraint",
    "read_constraints",
    "sometimes",
    "within",
]

Otherwise: TypeAlias = Literal["wait", "refuse"]
"""What becomes of an intent at another time: it waits until it may be handled, or it becomes a dead letter."""

_FROM_MS: Final = 1_767_225_600_000
"""2026-01-01: what held only before never holds."""
_SPAN_MS: Final = 4 * 366 * 86_400_000
"""Within which times that come at all come: each week, or each year where clocks are changed."""

_instants: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z").findall


@dataclass(frozen=True, slots=True)
class Constraint:
    """One of them; made by :func:`only`, :func:`never`, :func:`after`, :func:`before` and :func:`within`.

    Raises:
        DefinitionError: it never holds.
    """

    code: str
    """What an intent is refused with: ``outside_hours``, ``in_maintenance``, ``too_early``, ``too_late``, ``deadline_passed``."""
    when: When | None = None
    """The times at which it may be handled; ``None`` for any."""
    waits: bool = False
    """Whether it waits for such a time."""
    within_ms: int | None = None
    """How long after its event time it may be handled, in milliseconds."""

    def __post_init__(self) -> None:
        # Of one that names calendars, the topology says it.
        if self.when is not None and not self.when.calendars and not sometimes([self], {}):
            raise DefinitionError(f"constraint '{self}'", ["no time is left at which an intent may be handled"])

    def __str__(self) -> str:
        """As :func:`parse_constraint` reads it."""
        if self.when is None:
            return f"within {period_text(self.within_ms or 0)}"
        times = str(self.when)
        match self.code:
            case "too_late":
                return f"before {times.removeprefix('../')}"
            case "too_early":
                text = f"after {times.removesuffix('/..')}"
            case "in_maintenance":
                text = f"never {times.removeprefix('not ')}"
            case _:
                text = f"only {times}"
        return text if self.waits else f"{text} otherwise refuse"


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


def parse_constraint(text: str) -> Constraint:
    """The constraint that *text* writes, in one of the forms above.

    Raises:
        DefinitionError: it has none of the forms, or never holds.
    """
    word, _, rest = text.partition(" ")
    read = _FORMS.get(word)
    if read is None:
        known = ", ".join(_FORMS)
        raise DefinitionError(f"constraint {text!r}", [f"it must begin with one of {known}{nearest(word, _FORMS)}"])
    return read(rest)


def _waiting(make: Callable[..., Constraint], read: Callable[[str], object]) -> Callable[[str], Constraint]:
    """The reader of a text that may end with what is to be done otherwise."""

    def parse(text: str) -> Constraint:
        times, said, otherwise = text.rpartition(" otherwise ")
        return make(read(times), otherwise=otherwise) if said else make(read(text))

    return parse


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise DefinitionError("constraint", [f"{text!r} is no time such as 2026-01-01T00:00:00Z"]) from None


_FORMS: Final[Mapping[str, Callable[[str], Constraint]]] = {
    "only": _waiting(only, str),
    "never": _waiting(never, str),
    "after": _waiting(after, _instant),
    "before": lambda text: before(_instant(text)),
    "within": within,
}
"""By the word with which they begin."""


def sometimes(constraints: Sequence[Constraint], calendars: Mapping[str, Calendar]) -> bool:
    """Whether there is a time, in 2026 or later, at which all of *constraints* let an intent be handled."""
    whens = [one.when for one in constraints if one.when is not None]
    texts = [when.text for when in whens]
    texts += [one.text for when in whens for name in when.calendars for one in calendars[name].open]
    # Between these all comes again and again, and after the last one too.
    edges = {round(datetime.fromisoformat(edge).timestamp() * 1000) for text in texts for edge in _instants(text)}
    return any(_together(whens, calendars, start_ms) for start_ms in sorted({_FROM_MS, *edges}) if start_ms >= _FROM_MS)


def _together(whens: Sequence[When], calendars: Mapping[str, Calendar], start_ms: int) -> bool:
    at_ms, until_ms = start_ms, start_ms + _SPAN_MS
    while True:
        before_ms = at_ms
        for when in whens:
            next_ms = when.next(at_ms, calendars, until_ms)
            if next_ms is None:
                return False
            at_ms = next_ms
        if at_ms == before_ms:
            return True


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
