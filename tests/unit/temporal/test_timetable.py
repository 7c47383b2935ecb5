"""Timetables: which times they have, above all where clocks are changed. Times are local, with their offset from UTC."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.errors import DefinitionError
from pf_stream.model import Calendar, When
from pf_stream.temporal import Timetable


def ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def local(times: list[int], zone: str) -> list[str]:
    """``HH:MM+HHMM`` of each."""
    return [f"{datetime.fromtimestamp(at / 1000, ZoneInfo(zone)):%H:%M%z}" for at in times]


HALF_HOURS = "*/30 * * * *"
HOURLY = "30 * * * *"
AT_0130 = "30 1 * * *"
AT_0230 = "30 2 * * *"

CHANGES = {
    # zone and day: for each expression, the times until 04:00
    ("America/New_York", "2026-03-08"): {
        AT_0130: "01:30-0500",
        AT_0230: "03:00-0400",  # skipped, so it comes as soon as the clocks have been put forward
        HALF_HOURS: "00:00-0500 00:30-0500 01:00-0500 01:30-0500 03:00-0400 03:30-0400",
        HOURLY: "00:30-0500 01:30-0500 03:30-0400",
    },
    ("America/New_York", "2026-11-01"): {
        AT_0130: "01:30-0400",  # it comes twice, and the first one counts
        AT_0230: "02:30-0500",
        HALF_HOURS: "00:00-0400 00:30-0400 01:00-0400 01:30-0400 01:00-0500 01:30-0500 02:00-0500 02:30-0500 "
        "03:00-0500 03:30-0500",
        HOURLY: "00:30-0400 01:30-0400 01:30-0500 02:30-0500 03:30-0500",
    },
    ("Europe/Berlin", "2026-03-29"): {
        AT_0130: "01:30+0100",
        AT_0230: "03:00+0200",
        HALF_HOURS: "00:00+0100 00:30+0100 01:00+0100 01:30+0100 03:00+0200 03:30+0200",
        HOURLY: "00:30+0100 01:30+0100 03:30+0200",
    },
    ("Europe/Berlin", "2026-10-25"): {
        AT_0130: "01:30+0200",
        AT_0230: "02:30+0200",
        HALF_HOURS: "00:00+0200 00:30+0200 01:00+0200 01:30+0200 02:00+0200 02:30+0200 02:00+0100 02:30+0100 "
        "03:00+0100 03:30+0100",
        HOURLY: "00:30+0200 01:30+0200 02:30+0200 02:30+0100 03:30+0100",
    },
    # Half an hour: at 02:00 it is 02:30, and at 02:00 it is 01:30.
    ("Australia/Lord_Howe", "2026-10-04"): {
        AT_0130: "01:30+1030",
        AT_0230: "02:30+1100",
        HALF_HOURS: "00:00+1030 00:30+1030 01:00+1030 01:30+1030 02:30+1100 03:00+1100 03:30+1100",
        HOURLY: "00:30+1030 01:30+1030 03:30+1100",
    },
    ("Australia/Lord_Howe", "2026-04-05"): {
        AT_0130: "01:30+1100",
        AT_0230: "02:30+1030",
        HALF_HOURS: "00:00+1100 00:30+1100 01:00+1100 01:30+1100 01:30+1030 02:00+1030 02:30+1030 03:00+1030 03:30+1030",
        HOURLY: "00:30+1100 01:30+1100 02:30+1030 03:30+1030",
    },
    ("UTC", "2026-03-29"): {
        AT_0130: "01:30+0000",
        AT_0230: "02:30+0000",
        HALF_HOURS: "00:00+0000 00:30+0000 01:00+0000 01:30+0000 02:00+0000 02:30+0000 03:00+0000 03:30+0000",
        HOURLY: "00:30+0000 01:30+0000 02:30+0000 03:30+0000",
    },
}
ROWS = [(zone, day, cron, times) for (zone, day), rows in CHANGES.items() for cron, times in rows.items()]


@pytest.mark.parametrize(("zone", "day", "cron", "times"), ROWS)
class TestWhereClocksAreChanged:
    def test_as_promised(self, zone: str, day: str, cron: str, times: str) -> None:
        start = round(datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
        end = round(datetime.fromisoformat(f"{day}T04:00").replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
        assert local(list(Timetable(cron=cron, zone=zone).times(start - 1, end - 1)), zone) == times.split()

    def test_as_cronsim_has_them(self, zone: str, day: str, cron: str, times: str) -> None:
        start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone)) - timedelta(seconds=1)
        sim = CronSim(cron, start)
        assert local([round(next(sim).timestamp() * 1000) for _ in times.split()], zone) == times.split()

    def test_from_one_to_the_next_it_is_the_same(self, zone: str, day: str, cron: str, times: str) -> None:
        table = Timetable(cron=cron, zone=zone)
        at: int | None = ms(f"{day}T00:00{times[5:8]}:{times[8:10]}") - 1
        found: list[int] = []
        for _ in times.split():
            assert at is not None
            at = table.after(at)
            found += [] if at is None else [at]
        assert local(found, zone) == times.split()


CRONS = ["* * * * *", "*/7 3-5 * * 1-5", "0 0 1,15 * *", "30 2 * * *", "59 23 L * *", "0 */6 * * *", "10 30 2 * * *"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]
instants = st.integers(ms("2025-12-01T00:00:00Z"), ms("2027-01-01T00:00:00Z"))
tables = st.builds(
    lambda cron, zone: Timetable(cron=cron, zone=zone), st.sampled_from(CRONS), st.sampled_from(ZONES)
) | st.builds(
    lambda every, start: Timetable(every_ms=every, start_ms=start), st.integers(1_000, 10**9), instants | st.none()
)


class TestLatest:
    @given(tables, instants, st.integers(0, 3 * 86_400_000), st.integers(1, 50))
    @settings(max_examples=150, deadline=None)
    def test_it_is_the_end_of_all(self, table: Timetable, after: int, ahead: int, most: int) -> None:
        times = list(table.times(after, after + ahead))
        assert times == sorted(set(times))
        assert all(after < at <= after + ahead for at in times)
        assert table.latest(after, after + ahead, most) == times[-most:]
        assert table.after(after) == (times[0] if times else table.after(after + ahead))

    def test_of_a_long_time_it_looks_at_the_end_alone(self) -> None:
        second = Timetable(every_ms=1_000)
        now = ms("2026-06-01T12:00:00Z")
        assert second.latest(ms("2000-01-01T00:00:00Z"), now, 3) == [now - 2_000, now - 1_000, now]
        minute = Timetable(cron="* * * * *", zone="Europe/Berlin")
        assert minute.latest(ms("2000-01-01T00:00:00Z"), now, 2) == [now - 60_000, now]


class TestLimits:
    def test_a_period_is_counted_from_the_start(self) -> None:
        start = ms("2026-01-01T00:00:07Z")
        assert list(Timetable(every_ms=60_000, start_ms=start).times(0, start + 130_000)) == [
            start,
            start + 60_000,
            start + 120_000,
        ]
        assert Timetable(every_ms=600_000).after(ms("2026-01-01T00:03:07Z")) == ms("2026-01-01T00:10:00Z")

    def test_start_is_included_and_end_is_not(self) -> None:
        start, end = ms("2026-01-05T00:00:00Z"), ms("2026-01-07T00:00:00Z")
        table = Timetable(cron="0 0 * * *", start_ms=start, end_ms=end)
        assert list(table.times(0, end * 2)) == [start, start + 86_400_000]
        assert table.after(start + 86_400_000) is None

    def test_a_business_calendar(self) -> None:
        office = Calendar([When.parse("mon-fri 09:00-17:00 Europe/Berlin")], "Europe/Berlin", [date(2026, 5, 1)])
        table = Timetable(
            cron="0 */8 * * *",
            zone="Europe/Berlin",
            during=When.parse("calendar office"),
            calendars={"office": office},
        )
        days = [
            datetime.fromtimestamp(at / 1000, UTC).day
            for at in table.times(*map(ms, ("2026-04-29T00:00:00Z", "2026-05-06T00:00:00Z")))
        ]
        assert days == [29, 30, 4, 5]  # 16:00 local; no holiday, no weekend

    def test_exclude(self) -> None:
        table = Timetable(every_ms=3_600_000, exclude=When.parse("daily 02:00-04:00 UTC"))
        times = table.times(ms("2026-01-01T00:00:00Z"), ms("2026-01-01T06:00:00Z"))
        assert local(list(times), "UTC") == ["01:00+0000", "04:00+0000", "05:00+0000", "06:00+0000"]

    def test_it_waits_for_what_is_far(self) -> None:
        table = Timetable(cron="* * * * *", during=When.parse("2040-01-01T00:00:00Z/.."))
        assert table.after(ms("2026-01-01T00:00:00Z")) == ms("2040-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "give a period"),
        ({"every_ms": 1, "cron": "* * * * *"}, "not both"),
        ({"every_ms": 0}, "a millisecond or more"),
        ({"cron": "0 2 * *"}, "Wrong number of fields"),
        ({"cron": "61 2 * * *"}, "Bad minute"),
        ({"cron": "0 0 30 2 *"}, "Bad day-of-month"),
        ({"cron": "0 0 29 2 MON#1"}, None),
        ({"cron": "0 2 * * *", "zone": "Europe/Bonn"}, "no time zone 'Europe/Bonn'"),
        ({"cron": "0 2 * * *", "during": When.parse("daily 03:00-04:00 UTC")}, "never comes"),
        ({"cron": "0 2 * * *", "exclude": When.parse("daily 02:00-03:00 UTC")}, "never comes"),
        ({"cron": "0 2 * * *", "start_ms": 10**12, "end_ms": 10**12 + 1000}, "never comes"),
        ({"cron": "0 2 * * *", "start_ms": 5, "end_ms": 5}, "end is not after"),
        ({"cron": "0 2 * * *", "during": When.parse("calendar office")}, "names the calendar 'office'"),
    ],
)
def test_what_never_comes_is_refused(fields: dict[str, object], fault: str | None) -> None:
    if fault is None:
        Timetable(**fields)  # type: ignore[arg-type]
        return
    with pytest.raises(DefinitionError, match=fault):
        Timetable(**fields)  # type: ignore[arg-type]
