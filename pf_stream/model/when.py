"""Whens: sets of instants, such as business hours, that say when something may be done.

::

    mon-fri 09:00-17:00 Europe/Berlin           each week; days are mon, mon-fri, "sat,sun", daily, "mon-wed,sat"
    sat 22:00-02:00 UTC                         past midnight: it belongs to the day on which it begins
    2026-01-01T00:00:00Z/2026-02-01T00:00:00Z   from the first instant until before the second; either may be ".."
    calendar office                             what the topology's calendar of that name says
    not X    X and Y    X or Y    (X)           "not" binds tightest, then "and", then "or"

The text is what tokens, intents and files hold: at most 256 characters of ASCII, words apart by spaces.

**The wall clock decides** about days and times of day, in the zone that is written (an IANA name; there is no default). On the
day on which clocks go back, both passes of the repeated hour count; times that are skipped when they go forward never are.
Every interval is half-open: 09:00-17:00 includes 09:00:00.000 and 16:59:59.999, and not 17:00:00.000.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache, reduce
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

from pf_stream.errors import DefinitionError, PFError
from pf_stream.model._coming import (
    Coming,
    coming_bounds,
    coming_days,
    coming_joined,
    coming_opposite,
    coming_times,
    local_at,
)
from pf_stream.model._names import nearest

__all__ = [
    "LONGEST_WHEN",
    "BadWhenError",
    "Calendar",
    "UnknownCalendarError",
    "When",
    "between",
    "calendar",
    "is_calendar_name",
    "is_zone",
    "weekly",
]

LONGEST_WHEN: Final = 256
"""Most characters in the text of a when."""

_DEEPEST: Final = 32
"""Parentheses within each other; a text that is printed has fewer, because it would be too long before."""

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES: Final = 24 * 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS: Final = 253_402_300_799_999

_unprintable: Final = re.compile(r"[^ -~]").search
_words: Final = re.compile(r"[()]|[^ ()]+").findall
_clock: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII).fullmatch
_instant: Final = re.compile(
    r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d(\.\d{1,3})?(Z|[+-]\d\d:\d\d)", re.ASCII
).fullmatch
_calendar_name: Final = re.compile(r"[a-z][a-z0-9_.-]*").fullmatch

# What binds how tightly: an operand that binds less than its operator needs parentheses.
_OR, _AND, _NOT, _ATOM = range(4)


def is_calendar_name(name: str) -> bool:
    """Whether a calendar can be called *name*."""
    return _calendar_name(name) is not None


def is_zone(name: str) -> bool:
    """Whether the IANA database has a time zone *name*."""
    return name in _zones()


class BadWhenError(PFError):
    """Raised when a text, or what a constructor was given, is no set of instants."""

    code = "bad_when"

    def __init__(self, text: str, fault: str) -> None:
        self.text = text
        self.fault = fault
        super().__init__(f"when {text!r:.300}: {fault}; write it as 'mon-fri 09:00-17:00 Europe/Berlin'")


class UnknownCalendarError(PFError):
    """Raised when a when names a calendar that is not given: nobody knows whether it holds, so it must not be taken to."""

    code = "unknown_calendar"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no calendar {name!r}; declare it in the topology")


_Test = Callable[[int, "Mapping[str, Calendar]"], bool]


@dataclass(frozen=True, slots=True)
class When:
    """A set of instants; made by :meth:`parse`, :func:`weekly`, :func:`between`, :func:`calendar` and ``&``, ``|``, ``~``.

    Equal to another if their texts are: what "and" and "or" join is sorted and there once, so ``a & b == b & a``.

    Raises:
        BadWhenError: the text would be longer than 256 characters.
    """

    text: str
    """The canonical text."""
    calendars: frozenset[str] = field(repr=False, compare=False)
    """Names of all calendars that it depends on."""
    _binds: int = field(repr=False, compare=False)
    _test: _Test = field(repr=False, compare=False)
    _coming: Coming = field(repr=False, compare=False)
    _joined: frozenset["When"] = field(default=frozenset(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.text) > LONGEST_WHEN:
            raise BadWhenError(self.text, f"it has {len(self.text)} characters, and {LONGEST_WHEN} are the most")

    @classmethod
    def parse(cls, text: str) -> "When":
        """The set that *text* writes.

        Raises:
            BadWhenError: it has none of the forms above; the message says why.
        """
        return _parse(text)

    def holds(self, at_ms: int, calendars: "Mapping[str, Calendar]") -> bool:
        """Whether *at_ms*, milliseconds since the epoch, is in this set. A year that no calendar has, is on no day.

        Raises:
            UnknownCalendarError: one of :attr:`calendars` is not given, whether or not the answer hangs on it.
        """
        if self.calendars and not self.calendars <= calendars.keys():
            raise UnknownCalendarError(min(self.calendars - calendars.keys()))
        return self._test(at_ms, calendars)

    def next(self, at_ms: int, calendars: "Mapping[str, Calendar]", until_ms: int) -> int | None:
        """The first instant from *at_ms* to *until_ms*, both included, that is in this set; ``None`` if none is.

        In milliseconds since the epoch. The longer the search, the more it costs: some milliseconds for a year of a set that
        never holds.

        Raises:
            UnknownCalendarError: as :meth:`holds`.
        """
        if self.calendars and not self.calendars <= calendars.keys():
            raise UnknownCalendarError(min(self.calendars - calendars.keys()))
        return self._coming(at_ms, True, calendars, until_ms) if at_ms <= until_ms else None

    @property
    def parts(self) -> frozenset["When"]:
        """What "and" joins in it, or itself alone: whoever has all parts of another set, and more, is included in it."""
        return self._operands(_AND)

    def __and__(self, other: "When") -> "When":
        return _join(_AND, " and ", self._operands(_AND) | other._operands(_AND), _both)

    def __or__(self, other: "When") -> "When":
        return _join(_OR, " or ", self._operands(_OR) | other._operands(_OR), _either)

    def __invert__(self) -> "When":
        test = self._test
        return When(
            f"not {self._within(_NOT)}",
            self.calendars,
            _NOT,
            lambda at_ms, calendars: not test(at_ms, calendars),
            coming_opposite(self._coming),
        )

    def _operands(self, operator: int) -> frozenset["When"]:
        return self._joined if self._binds == operator else frozenset({self})

    def _within(self, operator: int) -> str:
        return self.text if self._binds >= operator else f"({self.text})"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Calendar:
    """Open times and the days on which nothing is open: business hours, or a maintenance window.

    Raises:
        DefinitionError: with every fault of it.
    """

    open: Sequence[When]
    """It is open when any of these holds, unless the day is a holiday. They may not name calendars."""
    zone: str
    """IANA name of the zone whose days the holidays are."""
    holidays: Collection[date] = ()
    """Local days on which it is closed."""
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _coming: Coming = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = [
            f"the rule '{when}' names a calendar; write its times instead" for when in self.open if when.calendars
        ]
        # A datetime is a date, and equal to none.
        faults += [f"the holiday {day!r} is not a date" for day in self.holidays if type(day) is not date]
        if self.zone not in _zones():
            # Of six hundred zones only those that are near are a help.
            near = nearest(self.zone, get_close_matches(self.zone, _zones()))
            faults.append(f"{_zone_fault(self.zone)}{near}")
        if faults:
            raise DefinitionError("calendar", faults)
        object.__setattr__(self, "open", tuple(self.open))
        object.__setattr__(self, "holidays", frozenset(self.holidays))
        object.__setattr__(self, "_zone", _zone(self.zone))
        open_ = coming_joined([when._coming for when in self.open], all_of=False)
        closed = coming_days(frozenset(self.holidays), self._zone)
        object.__setattr__(self, "_coming", coming_joined([open_, coming_opposite(closed)], all_of=True))

    def is_open(self, at_ms: int) -> bool:
        """Whether it is open at *at_ms*, milliseconds since the epoch."""
        if not any(when.holds(at_ms, {}) for when in self.open):
            return False
        local = local_at(at_ms, self._zone)
        return local is not None and local.date() not in self.holidays

    def next_open(self, at_ms: int, until_ms: int) -> int | None:
        """The first instant from *at_ms* to *until_ms* at which it is open; ``None`` if it stays closed."""
        return self._coming(at_ms, True, {}, until_ms) if at_ms <= until_ms else None


def weekly(days: str, start: str, end: str, *, zone: str) -> When:
    """From *start* until before *end* on each of *days*: ``weekly("mon-fri", "09:00", "17:00", zone="Europe/London")``.

    An end before the start is on the next day; ``24:00`` is the end of the day itself.

    Raises:
        BadWhenError: one of them is not written as above.
    """
    text = f"{days} {start}-{end} {zone}"
    on = _days(days, text)
    first = _minutes(start, text)
    last = _DAY_MINUTES if end == "24:00" else _minutes(end, text)
    if first == last:
        raise BadWhenError(text, f"the window {start}-{end} is empty; the whole day is 00:00-24:00")
    if zone not in _zones():
        raise BadWhenError(text, _zone_fault(zone))
    if last < first:
        last += _DAY_MINUTES
    local_zone = _zone(zone)

    def test(at_ms: int) -> bool:
        local = local_at(at_ms, local_zone)
        if local is None:
            return False
        minute = local.hour * 60 + local.minute
        today = local.weekday()
        return (on[today] and first <= minute < last) or (on[today - 1] and minute + _DAY_MINUTES < last)

    # That midnight is the end of the day is said in one way only.
    end = "24:00" if end == "00:00" else end
    coming = coming_times(test, local_zone, (first, last % _DAY_MINUTES))
    return When(f"{_spelled(on)} {start}-{end} {zone}", frozenset(), _ATOM, lambda at_ms, _: test(at_ms), coming)


def between(start: datetime | None, end: datetime | None) -> When:
    """From *start* until before *end*, both aware; None for no bound.

    Raises:
        BadWhenError: a time has no zone or is not in the years 1970 to 9999, or the end is not after the start.
    """
    text = "/".join(".." if moment is None else moment.isoformat() for moment in (start, end))
    for moment in (start, end):
        if moment is not None and moment.utcoffset() is None:
            raise BadWhenError(text, f"{moment.isoformat()} has no zone; append 'Z'")
    # Rounded up: the first whole millisecond that is not before it, for a start and for an excluded end.
    first = None if start is None else -((_EPOCH - start) // timedelta(milliseconds=1))
    last = None if end is None else -((_EPOCH - end) // timedelta(milliseconds=1))
    if any(ms is not None and not 0 <= ms <= _LATEST_MS for ms in (first, last)):
        raise BadWhenError(text, "a time is before 1970 or after 9999")
    if first is not None and last is not None and last <= first:
        raise BadWhenError(text, "its end is not after its start")

    def test(at_ms: int, _: object) -> bool:
        return (first is None or first <= at_ms) and (last is None or at_ms < last)

    return When(f"{_moment(first)}/{_moment(last)}", frozenset(), _ATOM, test, coming_bounds(first, last))


def calendar(name: str) -> When:
    """The times at which the topology's calendar *name* is open.

    Raises:
        BadWhenError: it cannot be a name.
    """
    if not is_calendar_name(name):
        raise BadWhenError(
            f"calendar {name}", f"{name!r} is no name of a calendar: lower-case letters, digits, '_', '.' and '-'"
        )
    return When(
        f"calendar {name}",
        frozenset({name}),
        _ATOM,
        lambda at_ms, calendars: calendars[name].is_open(at_ms),
        lambda at_ms, wanted, calendars, until_ms: calendars[name]._coming(at_ms, wanted, calendars, until_ms),
    )


def _join(operator: int, word: str, parts: frozenset[When], test: Callable[[_Test, _Test], _Test]) -> When:
    ordered = sorted(parts, key=str)
    if len(ordered) == 1:
        return ordered[0]
    return When(
        word.join(part._within(operator) for part in ordered),
        frozenset().union(*(part.calendars for part in ordered)),
        operator,
        reduce(test, (part._test for part in ordered)),
        coming_joined([part._coming for part in ordered], all_of=operator == _AND),
        parts,
    )


def _both(one: _Test, two: _Test) -> _Test:
    return lambda at_ms, calendars: one(at_ms, calendars) and two(at_ms, calendars)


def _either(one: _Test, two: _Test) -> _Test:
    return lambda at_ms, calendars: one(at_ms, calendars) or two(at_ms, calendars)


@cache
def _zones() -> frozenset[str]:
    """The zones of the IANA database; a machine's folder of them has others too, such as ``localtime``."""
    return frozenset(files("tzdata").joinpath("zones").read_text("ascii").split())


@cache  # bounded by the names in _zones
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _zone_fault(name: str) -> str:
    return f"there is no time zone {name!r}; write an IANA name such as Europe/Berlin, or UTC"


def _minutes(text: str, whole: str) -> int:
    match = _clock(text)
    if match is None:
        raise BadWhenError(whole, f"{text!r} is no time of day, which is HH:MM")
    return int(match[1]) * 60 + int(match[2])


def _days(text: str, whole: str) -> tuple[bool, ...]:
    """For each day from Monday, whether it is one of them."""
    if text == "daily":
        return (True,) * 7
    on = [False] * 7
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS) or first == last:
            raise BadWhenError(whole, f"{part!r} is no day and no days, which are mon, tue, ..., mon-fri, or daily")
        start = _DAYS.index(first)
        length = (_DAYS.index(last) - start) % 7 if dash else 0
        for day in range(start, start + length + 1):
            on[day % 7] = True
    return tuple(on)


def _spelled(on: tuple[bool, ...]) -> str:
    """Days in a row, three or more, as ``mon-fri``."""
    if all(on):
        return "daily"
    rows: list[list[str]] = []
    for day, wanted in enumerate(on):
        if wanted:
            if not day or not on[day - 1]:
                rows.append([])
            rows[-1].append(_DAYS[day])
    return ",".join(f"{row[0]}-{row[-1]}" if len(row) > 2 else ",".join(row) for row in rows)


def _moment(ms: int | None) -> str:
    if ms is None:
        return ".."
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


@lru_cache(maxsize=4096)
def _parse(text: str) -> When:
    if len(text) > LONGEST_WHEN:
        raise BadWhenError(text, f"it has {len(text)} characters, and {LONGEST_WHEN} are the most")
    odd = _unprintable(text)
    if odd is not None:
        raise BadWhenError(text, f"it has the character U+{ord(odd[0]):04X}, and only ASCII and spaces may be in it")
    return _Reader(text).read()


class _Reader:
    """Recursive descent: or, and, not, and what they are about."""

    __slots__ = ("_at", "_depth", "_text", "_words")

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[str] = _words(text)
        self._at = 0
        self._depth = 0

    def read(self) -> When:
        found = self._either()
        if self._at < len(self._words):
            raise self._fault(f"{self._words[self._at]!r} is unexpected; join two with 'and' or 'or'")
        return found

    def _either(self) -> When:
        found = self._both()
        while self._take("or"):
            found |= self._both()
        return found

    def _both(self) -> When:
        found = self._negated()
        while self._take("and"):
            found &= self._negated()
        return found

    def _negated(self) -> When:
        if self._take("not"):
            return ~self._negated()
        return self._atom()

    def _atom(self) -> When:
        word = self._next("days such as mon-fri")
        if word == "(":
            return self._group()
        if word == "calendar":
            return calendar(self._next("the name of a calendar"))
        if "/" in word:
            start, _, end = word.partition("/")
            return between(self._moment(start), self._moment(end))
        window = self._next("a window such as 09:00-17:00")
        start, _, end = window.partition("-")
        return weekly(word, start, end, zone=self._next("a time zone: an IANA name such as Europe/Berlin, or UTC"))

    def _group(self) -> When:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._fault("it is nested too deeply")
        found = self._either()
        if not self._take(")"):
            raise self._fault("a '(' is not closed")
        self._depth -= 1
        return found

    def _moment(self, text: str) -> datetime | None:
        if text == "..":
            return None
        try:
            if _instant(text) is not None:
                return datetime.fromisoformat(text)
        except ValueError:
            pass
        raise self._fault(f"{text!r} is no time such as 2026-01-01T00:00:00Z, with its zone, and not '..'")

    def _take(self, word: str) -> bool:
        if self._at < len(self._words) and self._words[self._at] == word:
            self._at += 1
            return True
        return False

    def _next(self, wanted: str) -> str:
        if self._at == len(self._words):
            raise self._fault(f"it ends where it should have {wanted}")
        self._at += 1
        return self._words[self._at - 1]

    def _fault(self, fault: str) -> BadWhenError:
        return BadWhenError(self._text, fault)
