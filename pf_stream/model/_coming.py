"""The next instant at which a set of instants holds, or does not: found from one change of it to the next."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pf_stream.model.when import Calendar

__all__ = ["Coming", "coming_bounds", "coming_days", "coming_joined", "coming_opposite", "coming_times", "local_at"]

Coming: TypeAlias = "Callable[[int, bool, Mapping[str, Calendar], int], int | None]"
"""From an instant on, the first that is in the set, or that is not, by the calendars of these names, up to a last one;
``None`` if there is none. Instants are milliseconds since the epoch."""

_WEEKLY_DAYS: Final = 17
"""Within which a weekly window comes, even if clocks that go forward skip the first one."""
_DAY: Final = timedelta(days=1)


def local_at(at_ms: int, zone: ZoneInfo) -> datetime | None:
    """The local time in *zone*; ``None`` in a year that no calendar has."""
    try:
        return datetime.fromtimestamp(at_ms // 1000, zone)
    except (ValueError, OverflowError, OSError):
        return None


def coming_times(test: Callable[[int], bool], zone: ZoneInfo, minutes: tuple[int, ...]) -> Coming:
    """Of a weekly window, whose *test* changes at these minutes of local days, or where clocks are changed."""

    def coming(at_ms: int, wanted: bool, _: object, until_ms: int) -> int | None:
        if test(at_ms) == wanted:
            return at_ms
        local = local_at(at_ms, zone)
        if local is None:
            return None
        day = local.date()
        for ahead in range(-1, _WEEKLY_DAYS):
            for change in _changes(zone, day.toordinal() + ahead, minutes):
                if change > until_ms:
                    return None
                if change > at_ms and test(change) == wanted:
                    return change
        return None

    return coming


def coming_days(days: Collection[date], zone: ZoneInfo) -> Coming:
    """Of local days."""

    def coming(at_ms: int, wanted: bool, _: object, until_ms: int) -> int | None:
        local = local_at(at_ms, zone)
        if local is None:
            return None if wanted else at_ms
        day = local.date()
        if (day in days) == wanted:
            return at_ms
        if wanted:
            later = min((one for one in days if one > day), default=None)
            if later is None:
                return None
            day = later
        else:
            while day in days:
                if day == date.max:
                    return None
                day += _DAY
        for change in _changes(zone, day.toordinal(), (0,)):
            began = local_at(change, zone)
            if at_ms < change <= until_ms and began is not None and began.date() == day:
                return change
        return None

    return coming


def coming_bounds(first_ms: int | None, last_ms: int | None) -> Coming:
    """Of what lies from *first_ms* until before *last_ms*."""

    def coming(at_ms: int, wanted: bool, _: object, until_ms: int) -> int | None:
        early = first_ms is not None and at_ms < first_ms
        late = last_ms is not None and at_ms >= last_ms
        if (not early and not late) == wanted:
            return at_ms
        change = (None if late else first_ms) if wanted else last_ms
        return change if change is not None and change <= until_ms else None

    return coming


def coming_opposite(inner: Coming) -> Coming:
    """Of all that is not in a set."""
    return lambda at_ms, wanted, calendars, until_ms: inner(at_ms, not wanted, calendars, until_ms)


def coming_joined(parts: Sequence[Coming], *, all_of: bool) -> Coming:
    """Of what is in all of several sets, or in any."""

    def coming(at_ms: int, wanted: bool, calendars: "Mapping[str, Calendar]", until_ms: int) -> int | None:
        if wanted != all_of:  # one is enough
            found = [part(at_ms, wanted, calendars, until_ms) for part in parts]
            return min((one for one in found if one is not None), default=None)
        while True:
            latest = at_ms
            for part in parts:
                one = part(latest, wanted, calendars, until_ms)
                if one is None:
                    return None
                latest = one
            if latest == at_ms:
                return at_ms
            at_ms = latest

    return coming


@lru_cache(maxsize=16_384)
def _changes(zone: ZoneInfo, ordinal: int, minutes: tuple[int, ...]) -> tuple[int, ...]:
    """When it is one of *minutes* of the day of that ordinal, and when clocks are changed on it; in order."""
    try:
        midnight = datetime.combine(date.fromordinal(ordinal), datetime.min.time())
        times = [midnight + timedelta(minutes=minute) for minute in minutes]
        # Of a time that comes twice both; of one that is skipped none is right, and where it is skipped is a change too.
        found = {_ms(time.replace(tzinfo=zone, fold=fold)) for time in times for fold in (0, 1)}
        found.update(_jumps(zone, midnight))
    except (OverflowError, ValueError):
        return ()  # the end of all calendars
    return tuple(sorted(found))


def _jumps(zone: ZoneInfo, midnight: datetime) -> Iterator[int]:
    """When clocks are changed on a local day, or to it."""
    edges = [midnight.replace(tzinfo=UTC) + timedelta(hours=hours) for hours in (-15, 6, 27, 48)]
    for low, high in pairwise(edges):
        if low.astimezone(zone).utcoffset() == high.astimezone(zone).utcoffset():
            continue
        before, after = _ms(low) // 1000, _ms(high) // 1000
        offset = low.astimezone(zone).utcoffset()
        while after - before > 1:
            middle = (before + after) // 2
            if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
                before = middle
            else:
                after = middle
        if midnight.date() in {datetime.fromtimestamp(second, zone).date() for second in (before, after)}:
            yield after * 1000


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
