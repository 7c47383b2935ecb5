"""Timetables: the times for which a job is to run.

A timetable is a period or a cron expression, and what limits it. **Times of a cron expression are those of its zone's wall
clock, as Debian's cron has them** (by `cronsim`): where the minute or the hour begins with ``*`` it runs by the time that
passes; a job of fixed hours and minutes whose time is skipped when clocks go forward runs as soon as they have, and one whose
time comes twice when they go back runs at the first. With a sixth field in front, for seconds, no such care is taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from pf_stream.errors import DefinitionError
from pf_stream.model.when import BadWhenError, Calendar, When, is_zone

__all__ = ["Timetable"]

_LATEST_MS: Final = 253_402_300_799_999
_LONGEST_SEARCH: Final = 1_000
"""How often it is tried whether one is not excluded; after each the search goes on where one may be."""
_FARTHEST_MS: Final = 50 * 366 * 86_400_000
"""How far ahead a time is looked for: as cronsim does."""
_FIRST_SPAN_MS: Final = 60_000
_REFERENCE_MS: Final = 1_767_225_600_000
"""2026-01-01, from where it is tried whether there is a time at all, if no start is given."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """The times of a job: every so often, or by a cron expression.

    Raises:
        DefinitionError: with every fault, one of which may be that there is no such time.
    """

    every_ms: int | None = None
    """A period, counted from *start_ms*, or from 1970-01-01T00:00Z; either this or *cron*."""
    cron: str | None = None
    """A cron expression of five fields, or of six with seconds in front."""
    zone: str = "UTC"
    """IANA name of the zone in which the expression is read."""
    during: When | None = None
    """Times that are not in it are left out."""
    exclude: When | None = None
    """Times that are in it are left out."""
    start_ms: int | None = None
    """The first time is this or later."""
    end_ms: int | None = None
    """Every time is before this."""
    calendars: Mapping[str, Calendar] = field(default_factory=dict, repr=False)
    """Those that *during* and *exclude* name."""
    _tz: tzinfo = field(init=False, repr=False, compare=False)
    _open: When | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise DefinitionError("timetable", faults)
        object.__setattr__(self, "_tz", UTC if self.zone == "UTC" else ZoneInfo(self.zone))
        try:
            object.__setattr__(self, "_open", _open(self.during, self.exclude))
            first = self.after((self.start_ms or _REFERENCE_MS) - 1)
        except (CronSimError, BadWhenError) as error:
            raise DefinitionError("timetable", [f"{self}: {error}"]) from None
        if first is None:
            raise DefinitionError("timetable", [f"{self} never comes"])

    def _faults(self) -> Iterator[str]:
        if (self.every_ms is None) == (self.cron is None):
            yield "give a period (every) or a cron expression (cron), and not both"
        if self.every_ms is not None and self.every_ms < 1:
            yield f"every must be a millisecond or more, not {self.every_ms} ms"
        if not is_zone(self.zone):
            yield f"there is no time zone {self.zone!r}; write an IANA name such as Europe/Berlin, or UTC"
        for when in (self.during, self.exclude):
            for name in sorted(when.calendars - self.calendars.keys() if when is not None else ()):
                yield f"'{when}' names the calendar {name!r}, which is not given"
        if self.start_ms is not None and self.end_ms is not None and self.end_ms <= self.start_ms:
            yield "its end is not after its start"

    def __str__(self) -> str:
        text = f"every {self.every_ms} ms" if self.cron is None else f"cron {self.cron!r} {self.zone}"
        if self.during is not None:
            text += f" during {self.during}"
        if self.exclude is not None:
            text += f" except {self.exclude}"
        return text

    @property
    def named_calendars(self) -> dict[str, Calendar]:
        """The calendars that it depends on."""
        return {} if self._open is None else {name: self.calendars[name] for name in sorted(self._open.calendars)}

    # -- times, in milliseconds since the epoch ------------------------------------------------------------------------

    def after(self, at_ms: int) -> int | None:
        """The first time after *at_ms*; ``None`` if there is none in the next fifty years."""
        return next(self.times(at_ms, min(at_ms + _FARTHEST_MS, _LATEST_MS)), None)

    def times(self, after_ms: int, until_ms: int) -> Iterator[int]:
        """The times after *after_ms* and until *until_ms*, in order."""
        if self.start_ms is not None:
            after_ms = max(after_ms, self.start_ms - 1)
        if self.end_ms is not None:
            until_ms = min(until_ms, self.end_ms - 1)
        looked = 0
        while True:
            for at_ms in self._raw(after_ms, until_ms):
                open_ms = at_ms if self._open is None else self._open.next(at_ms, self.calendars, until_ms)
                if open_ms == at_ms:
                    looked = 0
                    yield at_ms
                    continue
                looked += 1
                if open_ms is None or looked > _LONGEST_SEARCH:
                    return
                after_ms = open_ms - 1  # go on where one may be
                break
            else:
                return

    def latest(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        """The last times, *most* of them, after *after_ms* and until *until_ms*, in order."""
        span_ms = _FIRST_SPAN_MS if self.every_ms is None else self.every_ms * most
        while True:
            # Forwards from ever farther back: a clock that was changed makes going backwards ambiguous.
            from_ms = max(after_ms, until_ms - span_ms)
            found = list(self.times(from_ms, until_ms))
            if len(found) >= most or from_ms == after_ms:
                return found[-most:]
            span_ms *= 2

    def _raw(self, after_ms: int, until_ms: int) -> Iterator[int]:
        if self.every_ms is not None:
            anchor = self.start_ms or 0
            first = anchor + ((after_ms - anchor) // self.every_ms + 1) * self.every_ms
            yield from range(first, until_ms + 1, self.every_ms)
            return
        assert self.cron is not None
        if after_ms < -_LATEST_MS // 10 or after_ms > _LATEST_MS:
            return
        last_ms = after_ms
        for at in CronSim(self.cron, datetime.fromtimestamp(after_ms // 1000, self._tz)):
            at_ms = round(at.timestamp() * 1000)
            if at_ms > until_ms:
                return
            # Begun in the hour that comes a second time, it says the first one once more.
            if at_ms > last_ms:
                yield at_ms
                last_ms = at_ms


def _open(during: When | None, exclude: When | None) -> When | None:
    if exclude is None:
        return during
    return ~exclude if during is None else during & ~exclude
