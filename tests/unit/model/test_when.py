"""Whens: their text, and which instants they hold. Times are written as local times with their offset from UTC."""

import contextlib
import re
from datetime import UTC, date, datetime
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.errors import DefinitionError, PFError
from pf_stream.model.when import (
    LONGEST_WHEN,
    BadWhenError,
    Calendar,
    UnknownCalendarError,
    When,
    between,
    calendar,
    weekly,
)


def ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


OFFICE = Calendar(
    open=[weekly("mon-fri", "09:00", "17:00", zone="Europe/Berlin")],
    zone="Europe/Berlin",
    holidays=[date(2026, 5, 1), date(2026, 12, 25)],
)
MAINTENANCE = Calendar(open=[weekly("daily", "02:00", "04:00", zone="Europe/Berlin")], zone="Europe/Berlin")
CALENDARS = {"office": OFFICE, "maintenance": MAINTENANCE}


def holds(when: str | When, *times: str) -> list[bool]:
    """Whether *when* holds at each of *times*."""
    rule = When.parse(when) if isinstance(when, str) else when
    return [rule.holds(ms(time), CALENDARS) for time in times]


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
days = st.one_of(
    st.just("daily"),
    st.lists(st.sampled_from([*DAYS, "mon-fri", "fri-mon", "sat-tue"]), min_size=1, max_size=3).map(",".join),
)
clocks = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
instants = st.integers(ms("2025-12-01T00:00:00Z"), ms("2026-12-01T00:00:00Z"))
weeklies = (
    st.tuples(days, clocks, clocks | st.just("24:00"), st.sampled_from(ZONES))
    .filter(lambda drawn: drawn[1] != drawn[2])
    .map(lambda drawn: weekly(*drawn[:3], zone=drawn[3]))
)
betweens = st.builds(
    lambda start, length, ends: between(
        datetime.fromtimestamp(start / 1000, UTC) if ends != "after" else None,
        datetime.fromtimestamp((start + length) / 1000, UTC) if ends != "before" else None,
    ),
    instants,
    st.integers(1, 10**10),
    st.sampled_from(["both", "after", "before"]),
)
leaves = weeklies | betweens | st.sampled_from(["office", "maintenance"]).map(calendar)


def fits(text: str) -> bool:
    return len(text) <= LONGEST_WHEN


def combined(inner: st.SearchStrategy[When]) -> st.SearchStrategy[When]:
    pairs = st.tuples(inner, inner).filter(lambda pair: fits(f"({pair[0]}) and ({pair[1]})"))
    return (
        pairs.map(lambda pair: pair[0] & pair[1])
        | pairs.map(lambda pair: pair[0] | pair[1])
        | inner.filter(lambda when: fits(f"not ({when})")).map(lambda when: ~when)
    )


whens = st.recursive(leaves, combined, max_leaves=6)


class TestText:
    @pytest.mark.parametrize(
        "text",
        [
            "mon-fri 09:00-17:00 Europe/Berlin",
            "mon 00:00-24:00 UTC",
            "sat,sun 22:00-02:00 America/New_York",
            "mon-wed,fri 09:00-17:00 UTC",
            "daily 02:00-04:00 America/Argentina/Buenos_Aires",
            "2026-01-01T00:00:00Z/2026-02-01T00:00:00Z",
            "2026-01-01T00:00:00.001Z/..",
            "../2026-01-01T00:00:00Z",
            "../..",
            "calendar office",
            "calendar eu-west.maintenance_2",
            "not calendar maintenance",
            "not not calendar maintenance",
            "calendar a and calendar b and not calendar c",
            "calendar a and calendar b or calendar c",
            "calendar a and (calendar b or calendar c)",
            "not (calendar a and calendar b)",
            "(calendar c or not (calendar a or calendar b)) and calendar d",
        ],
    )
    def test_prints_what_it_read(self, text: str) -> None:
        assert str(When.parse(text)) == text

    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("  mon   09:00-17:00 UTC ", "mon 09:00-17:00 UTC"),
            ("sun,mon 09:00-17:00 UTC", "mon,sun 09:00-17:00 UTC"),
            ("mon,mon,tue 09:00-17:00 UTC", "mon,tue 09:00-17:00 UTC"),
            ("mon-tue 09:00-17:00 UTC", "mon,tue 09:00-17:00 UTC"),
            ("fri-mon 09:00-17:00 UTC", "mon,fri-sun 09:00-17:00 UTC"),
            ("mon-sun 09:00-17:00 UTC", "daily 09:00-17:00 UTC"),
            ("tue-mon 09:00-17:00 UTC", "daily 09:00-17:00 UTC"),
            ("fri 22:00-00:00 UTC", "fri 22:00-24:00 UTC"),
            ("2026-01-01T01:00:00+01:00/..", "2026-01-01T00:00:00Z/.."),
            ("2026-01-01T00:00:00.5Z/..", "2026-01-01T00:00:00.500Z/.."),
            ("2026-01-01T00:00:00.000Z/..", "2026-01-01T00:00:00Z/.."),
            ("(calendar a)", "calendar a"),
            ("((calendar a) and calendar b) and (calendar c)", "calendar a and calendar b and calendar c"),
            ("calendar a or (calendar b and calendar c)", "calendar a or calendar b and calendar c"),
            ("not(calendar a)or(calendar b)", "calendar b or not calendar a"),
            ("calendar b and calendar a and calendar b", "calendar a and calendar b"),
            ("calendar b or (calendar a or calendar b)", "calendar a or calendar b"),
        ],
    )
    def test_one_spelling(self, text: str, canonical: str) -> None:
        assert str(When.parse(text)) == canonical
        assert When.parse(text) == When.parse(canonical)

    @settings(max_examples=200)
    @given(whens)
    def test_reads_what_it_printed(self, when: When) -> None:
        again = When.parse(str(when))
        assert (again, hash(again), str(again)) == (when, hash(when), str(when))
        assert again.calendars == when.calendars

    @settings(max_examples=200)
    @given(whens, instants)
    def test_what_was_read_again_means_the_same(self, when: When, at_ms: int) -> None:
        # _parse remembers texts, not what made them.
        assert When.parse(str(when)).holds(at_ms, CALENDARS) == when.holds(at_ms, CALENDARS)

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "it ends where it should have days"),
            ("mon", "it ends where it should have a window"),
            ("mon 09:00-17:00", "it ends where it should have a time zone"),
            ("calendar", "it ends where it should have the name of a calendar"),
            ("not", "it ends where it should have days"),
            ("calendar a and", "it ends where it should have days"),
            ("calendar a or", "it ends where it should have days"),
            ("or calendar a", "'or' is no day"),
            ("Mon 09:00-17:00 UTC", "'Mon' is no day"),
            ("monday 09:00-17:00 UTC", "'monday' is no day"),
            ("mon-fry 09:00-17:00 UTC", "'mon-fry' is no day"),
            ("mon- 09:00-17:00 UTC", "'mon-' is no day"),
            ("mon-mon 09:00-17:00 UTC", "'mon-mon' is no day"),
            ("mon, 09:00-17:00 UTC", "'' is no day"),
            ("daily,mon 09:00-17:00 UTC", "'daily' is no day"),
            ("mon 9:00-17:00 UTC", "'9:00' is no time of day, which is HH:MM"),
            ("mon 09:00-17:60 UTC", "'17:60' is no time of day"),
            ("mon 09:00-24:01 UTC", "'24:01' is no time of day"),
            ("mon 24:00-01:00 UTC", "'24:00' is no time of day"),
            ("mon 09:00:00-17:00 UTC", "'09:00:00' is no time of day"),
            ("mon 09:00 UTC", "'' is no time of day"),
            ("mon ٠٩:00-17:00 UTC", "the character U+0660"),
            ("mon 09:00-09:00 UTC", "the window 09:00-09:00 is empty"),
            ("mon 09:00-17:00 Europe/Berln", "no time zone 'Europe/Berln'"),
            ("mon 09:00-17:00 Europe", "no time zone 'Europe'"),
            ("mon 09:00-17:00 localtime", "no time zone 'localtime'"),
            ("mon 09:00-17:00 posix/Europe/Berlin", "no time zone 'posix/Europe/Berlin'"),
            ("mon 09:00-17:00 ../../etc/passwd", "no time zone '../../etc/passwd'"),
            ("mon 09:00-17:00 +01:00", "no time zone '+01:00'"),
            ("mon 09:00-17:00 UTC tue 09:00-17:00 UTC", "'tue' is unexpected; join two with 'and' or 'or'"),
            ("calendar a not calendar b", "'not' is unexpected"),
            ("2026-01-01T00:00:00/..", "'2026-01-01T00:00:00' is no time such as"),
            ("2026-01-01/..", "'2026-01-01' is no time such as"),
            ("2026-02-29T00:00:00Z/..", "'2026-02-29T00:00:00Z' is no time such as"),
            ("2026-01-01T24:00:00Z/..", "'2026-01-01T24:00:00Z' is no time such as"),
            ("2026-01-01T00:00:00.0001Z/..", "is no time such as"),
            ("2026-01-01T00:00:00Z/", "'' is no time such as"),
            ("2026-01-01T00:00:00Z/../..", "'../..' is no time such as"),
            ("2026-01-01T00:00:00Z", "it ends where it should have a window"),
            ("2026-01-02T00:00:00Z/2026-01-02T00:00:00Z", "its end is not after its start"),
            ("2026-01-02T00:00:00Z/2026-01-01T00:00:00Z", "its end is not after its start"),
            ("1969-12-31T23:59:59Z/..", "before 1970"),
            ("9999-12-31T23:59:59-01:00/..", "after 9999"),
            ("calendar Office", "'Office' is no name of a calendar"),
            ("calendar -", "'-' is no name of a calendar"),
            ("calendar )", "')' is no name of a calendar"),
            ("(calendar a", "a '(' is not closed"),
            ("calendar a)", "')' is unexpected"),
            ("()", "it ends where it should have a window"),
            ("calendar a\nand calendar b", "the character U+000A"),
            ("calendar a\u00a0and calendar b", "the character U+00A0"),
            ("(" * 33 + "calendar a" + ")" * 33, "nested too deeply"),
            ("not " * 61 + "calendar abc", None),
            ("not " * 61 + "calendar abcd", "it has 257 characters, and 256 are the most"),
            ("x" * 100_000, "it has 100000 characters"),
        ],
    )
    def test_refuses_all_else_and_says_why(self, text: str, fault: str | None) -> None:
        if fault is None:
            assert str(When.parse(text)) == text
            return
        with pytest.raises(BadWhenError, match=re.escape(fault)) as caught:
            When.parse(text)
        assert (caught.value.code, isinstance(caught.value, PFError)) == ("bad_when", True)
        assert len(str(caught.value)) < 600
        assert str(caught.value).endswith("write it as 'mon-fri 09:00-17:00 Europe/Berlin'")

    @settings(max_examples=200)
    @given(st.lists(st.sampled_from([*"()/-", "..", "not", "and", "or", "calendar", "mon", "09:00-10:00", "UTC"])))
    def test_any_other_text_is_refused_as_such(self, words: list[str]) -> None:
        for text in (" ".join(words), "".join(words)):
            with contextlib.suppress(BadWhenError):
                assert len(str(When.parse(text))) <= LONGEST_WHEN

    def test_is_frozen_data(self) -> None:
        when = When.parse("calendar office")
        assert repr(when) == "When(text='calendar office')"
        with pytest.raises(AttributeError):
            when.text = "calendar other"  # type: ignore[misc]

    def test_what_cannot_be_written_cannot_be_made(self) -> None:
        with pytest.raises(BadWhenError, match="it has 263 characters"):
            calendar("a" * 120) & calendar("b" * 120)

    def test_deep_ones_can_be_read(self) -> None:
        """The length ends sooner than the depth."""
        always = between(None, None)
        when = ~always
        for _ in range(16):
            when = ~(when | always)
            assert When.parse(str(when)) == when
        with pytest.raises(BadWhenError, match="characters"):
            ~(when | always)


class TestWeekly:
    @pytest.mark.parametrize("zone", ["Europe/London", "America/New_York", "Asia/Kolkata"])
    def test_is_half_open_to_the_millisecond(self, zone: str) -> None:
        offset = {"Europe/London": "+00:00", "America/New_York": "-05:00", "Asia/Kolkata": "+05:30"}[zone]
        edges = [f"2026-01-05T{time}{offset}" for time in ("08:59:59.999", "09:00:00", "16:59:59.999", "17:00:00")]
        assert holds(f"mon-fri 09:00-17:00 {zone}", *edges) == [False, True, True, False]

    def test_days_are_the_zones(self) -> None:
        """Monday begins in Kolkata while it is still Sunday in UTC."""
        assert holds("mon 00:00-24:00 Asia/Kolkata", "2026-01-04T18:29:59.999Z", "2026-01-04T18:30:00Z") == [
            False,
            True,
        ]
        assert holds("mon 00:00-24:00 UTC", "2026-01-04T18:30:00Z", "2026-01-05T23:59:59.999Z") == [False, True]

    def test_each_day(self) -> None:
        for index, day in enumerate(DAYS):
            found = holds(f"{day} 00:00-24:00 UTC", *(f"2026-01-{5 + number:02}T12:00:00Z" for number in range(7)))
            assert found == [number == index for number in range(7)]

    def test_past_midnight_it_belongs_to_the_day_on_which_it_begins(self) -> None:
        rule = "fri 22:00-02:00 UTC"
        assert holds(rule, "2026-01-09T21:59:59.999Z", "2026-01-09T22:00:00Z") == [False, True]
        assert holds(rule, "2026-01-10T01:59:59.999Z", "2026-01-10T02:00:00Z") == [True, False]
        assert holds(rule, "2026-01-09T01:00:00Z", "2026-01-10T22:00:00Z") == [False, False]

    def test_past_the_end_of_the_week(self) -> None:
        rule = "sun 23:00-01:00 Europe/London"
        assert holds(rule, "2026-01-11T23:30:00Z", "2026-01-12T00:59:59.999Z", "2026-01-12T01:00:00Z") == [
            True,
            True,
            False,
        ]
        assert holds(rule, "2026-01-11T00:30:00Z") == [False]

    def test_until_midnight(self) -> None:
        for rule in ("fri 22:00-24:00 UTC", "fri 22:00-00:00 UTC"):
            assert holds(rule, "2026-01-09T23:59:59.999Z", "2026-01-10T00:00:00Z", "2026-01-09T00:00:00Z") == [
                True,
                False,
                False,
            ]

    @pytest.mark.parametrize(
        ("zone", "day", "before", "after"),
        [
            ("Europe/London", "2026-03-29", "+00:00", "+01:00"),
            ("America/New_York", "2026-03-08", "-05:00", "-04:00"),
        ],
    )
    def test_skipped_times_never_are(self, zone: str, day: str, before: str, after: str) -> None:
        """London skips 01:00 to 02:00, New York 02:00 to 03:00; both on a Sunday."""
        first = 1 if zone == "Europe/London" else 2
        skipped = f"sun {first:02}:00-{first + 1:02}:00 {zone}"
        around = f"sun {first:02}:30-{first + 1:02}:30 {zone}"
        last = f"{day}T{first - 1:02}:59:59.999{before}"
        jumped = ms(last) + 1
        assert ms(f"{day}T{first + 1:02}:00:00{after}") == jumped
        assert not any(When.parse(skipped).holds(jumped + step, {}) for step in range(-7_200_000, 7_200_000, 60_000))
        held = [step for step in range(-7_200_000, 7_200_000, 60_000) if When.parse(around).holds(jumped + step, {})]
        assert held == list(range(0, 1_800_000, 60_000))

    @pytest.mark.parametrize(
        ("zone", "day", "before", "after"),
        [
            ("Europe/London", "2026-10-25", "+01:00", "+00:00"),
            ("America/New_York", "2026-11-01", "-04:00", "-05:00"),
        ],
    )
    def test_both_passes_of_a_repeated_hour_count(self, zone: str, day: str, before: str, after: str) -> None:
        """Both repeat 01:00 to 02:00."""
        rule = f"sun 01:15-01:45 {zone}"
        for offset in (before, after):
            assert holds(
                rule,
                f"{day}T01:14:59.999{offset}",
                f"{day}T01:15:00{offset}",
                f"{day}T01:44:59.999{offset}",
                f"{day}T01:45:00{offset}",
            ) == [False, True, True, False]

    def test_hours_follow_the_wall_clock_through_the_year(self) -> None:
        rule = "mon-fri 09:00-17:00 Europe/London"
        assert holds(rule, "2026-03-27T08:30:00Z", "2026-03-30T08:30:00Z", "2026-10-26T08:30:00Z") == [
            False,
            True,
            False,
        ]

    def test_february_29(self) -> None:
        assert holds("tue 09:00-17:00 UTC", "2028-02-29T12:00:00Z", "2028-03-01T12:00:00Z") == [True, False]
        assert holds("wed 00:00-24:00 UTC", "2028-02-29T23:59:59.999Z", "2028-03-01T00:00:00Z") == [False, True]

    def test_a_year_that_no_calendar_has(self) -> None:
        """Total: no instant raises."""
        for at_ms in (2**62, -(2**62), 253_402_300_800_000, -62_135_596_800_001):
            assert not weekly("daily", "00:00", "24:00", zone="UTC").holds(at_ms, {})
            assert not When.parse("calendar office").holds(at_ms, CALENDARS)
            assert between(None, None).holds(at_ms, {})

    @settings(max_examples=200)
    @given(weeklies, instants)
    def test_every_minute_is_whole(self, when: When, at_ms: int) -> None:
        start = at_ms // 60_000 * 60_000
        assert when.holds(start, {}) == when.holds(at_ms, {}) == when.holds(start + 59_999, {})

    def test_constructors_say_what_is_wrong(self) -> None:
        with pytest.raises(BadWhenError, match="'9' is no time of day"):
            weekly("mon", "9", "17:00", zone="UTC")
        with pytest.raises(BadWhenError, match="no time zone ''"):
            weekly("mon", "09:00", "17:00", zone="")
        with pytest.raises(BadWhenError, match="'x y' is no name"):
            calendar("x y")


class TestBetween:
    def test_is_half_open_to_the_millisecond(self) -> None:
        rule = "2026-01-01T00:00:00Z/2026-02-01T00:00:00.500Z"
        assert holds(
            rule,
            "2025-12-31T23:59:59.999Z",
            "2026-01-01T00:00:00Z",
            "2026-02-01T00:00:00.499Z",
            "2026-02-01T00:00:00.500Z",
        ) == [False, True, True, False]

    def test_either_side_may_be_open(self) -> None:
        edges = ("2025-12-31T23:59:59.999Z", "2026-01-01T00:00:00Z")
        assert holds("2026-01-01T00:00:00Z/..", *edges) == [False, True]
        assert holds("../2026-01-01T00:00:00Z", *edges) == [True, False]
        assert holds("../..", *edges) == [True, True]

    def test_what_is_finer_than_a_millisecond(self) -> None:
        """Whole milliseconds are judged: the first that is not before a bound is the same for start and end."""
        moment = datetime(2026, 1, 1, 0, 0, 0, 1, UTC)
        assert str(between(moment, None)) == "2026-01-01T00:00:00.001Z/.."
        assert str(between(None, moment)) == "../2026-01-01T00:00:00.001Z"

    def test_times_have_a_zone(self) -> None:
        with pytest.raises(BadWhenError, match="has no zone"):
            between(datetime(2026, 1, 1), None)  # noqa: DTZ001 - on purpose
        with pytest.raises(BadWhenError, match="has no zone"):
            between(None, datetime(2026, 1, 1))  # noqa: DTZ001 - on purpose


class TestCalendar:
    def test_is_open_by_its_rules_and_closed_on_holidays(self) -> None:
        rule = "calendar office"
        assert holds(rule, "2026-04-30T09:00:00+02:00", "2026-05-01T09:00:00+02:00") == [True, False]
        assert holds(rule, "2026-05-02T09:00:00+02:00", "2026-05-04T08:59:59.999+02:00") == [False, False]

    def test_a_holiday_is_a_day_in_its_zone(self) -> None:
        """May 1st begins in Auckland while it is still April 30th in UTC."""
        open_ = [weekly("daily", "00:00", "24:00", zone="UTC")]
        nz = Calendar(open=open_, zone="Pacific/Auckland", holidays={date(2026, 5, 1)})
        edges = ("2026-05-01T00:00:00+12:00", "2026-05-02T00:00:00+12:00")
        assert [nz.is_open(ms(edge) + step) for edge in edges for step in (-1, 0)] == [True, False, False, True]

    def test_of_several_rules_any(self) -> None:
        both = Calendar(
            [weekly("mon", "09:00", "10:00", zone="UTC"), between(datetime(2026, 1, 6, tzinfo=UTC), None)], "UTC"
        )
        times = ("2026-01-05T08:00:00Z", "2026-01-05T09:00:00Z", "2026-01-06T00:00:00Z")
        assert [both.is_open(ms(time)) for time in times] == [False, True, True]
        assert not Calendar([], "UTC").is_open(0)

    def test_an_unknown_one_is_an_error_wherever_it_stands(self) -> None:
        for text in (
            "calendar nobody",
            "not calendar nobody",
            "../.. or calendar nobody",
            "not ../.. and calendar nobody",
        ):
            with pytest.raises(UnknownCalendarError, match="no calendar 'nobody'") as caught:
                When.parse(text).holds(0, CALENDARS)
            assert (caught.value.code, caught.value.name) == ("unknown_calendar", "nobody")

    def test_a_when_tells_its_calendars(self) -> None:
        assert When.parse("calendar a and not (calendar b or ../..) or calendar a").calendars == {"a", "b"}
        assert When.parse("../..").calendars == frozenset()

    def test_tells_every_fault(self) -> None:
        with pytest.raises(DefinitionError) as caught:
            Calendar([calendar("other")], "Mars/Olympus", [datetime(2026, 1, 1)])  # noqa: DTZ001 - on purpose
        assert [fault.partition("'")[0] for fault in caught.value.faults] == [
            "the rule ",
            "the holiday datetime.datetime(2026, 1, 1, 0, 0) is not a date",
            "there is no time zone ",
        ]

    def test_is_a_value(self) -> None:
        rules = [weekly("mon", "09:00", "10:00", zone="UTC")]
        one, two = Calendar(rules, "UTC", [date(2026, 1, 1)]), Calendar(tuple(rules), "UTC", {date(2026, 1, 1)})
        assert (one, hash(one)) == (two, hash(two))


class TestAlgebra:
    @settings(max_examples=100)
    @given(leaves, leaves, instants)
    def test_de_morgan(self, one: When, two: When, at_ms: int) -> None:
        assert (~(one & two)).holds(at_ms, CALENDARS) == (~one | ~two).holds(at_ms, CALENDARS)
        assert (~(one | two)).holds(at_ms, CALENDARS) == (~one & ~two).holds(at_ms, CALENDARS)

    @settings(max_examples=100)
    @given(leaves, leaves, instants)
    def test_operators_are_those_of_logic(self, one: When, two: When, at_ms: int) -> None:
        first, second = one.holds(at_ms, CALENDARS), two.holds(at_ms, CALENDARS)
        assert (one & two).holds(at_ms, CALENDARS) == (first and second)
        assert (one | two).holds(at_ms, CALENDARS) == (first or second)
        assert (~one).holds(at_ms, CALENDARS) == (not first)
        assert (~~one).holds(at_ms, CALENDARS) == first

    @settings(max_examples=100)
    @given(leaves, leaves, leaves)
    def test_order_and_repetition_mean_nothing(self, one: When, two: When, three: When) -> None:
        assert (one & two, one | two) == (two & one, two | one)
        assert (one & one, one | one) == (one, one)
        assert ((one & two) & three, (one | two) | three) == (one & (two & three), one | (two | three))
        assert (one & two & three).parts == {one, two, three}
        assert (one | two).parts == {one | two}

    def test_and_binds_tighter_than_or_and_not_tightest(self) -> None:
        yes, no = "../..", "not ../.."
        assert holds(f"{yes} or {yes} and {no}", "2026-01-01T00:00:00Z") == [True]
        assert holds(f"({yes} or {yes}) and {no}", "2026-01-01T00:00:00Z") == [False]
        assert holds(f"not {no} or {yes}", "2026-01-01T00:00:00Z") == [True]
        assert holds(f"not ({no} or {yes})", "2026-01-01T00:00:00Z") == [False]


class TestScenarios:
    """What may be done to files when; January 2026, the 5th is a Monday."""

    HOURS: Final = "mon-fri 09:00-17:00 Europe/Berlin"
    ALLOWED: Final = {"read": "../..", "write": HOURS, "delete": f"{HOURS} and not calendar maintenance"}

    @pytest.mark.parametrize(
        ("time", "allowed"),
        [
            ("2026-01-05T10:00:00", "read write delete"),
            ("2026-01-05T20:00:00", "read"),
            ("2026-01-05T03:00:00", "read"),
            ("2026-01-05T08:59:59.999", "read"),
            ("2026-01-05T09:00:00", "read write delete"),
            ("2026-01-05T16:59:59.999", "read write delete"),
            ("2026-01-05T17:00:00", "read"),
            ("2026-01-10T10:00:00", "read"),
            ("2026-01-11T10:00:00", "read"),
        ],
    )
    def test_operations_in_business_hours(self, time: str, allowed: str) -> None:
        """S29: reading always, writing in business hours, deleting only there and not in maintenance; weekends are denied."""
        found = [name for name, rule in self.ALLOWED.items() if holds(rule, f"{time}+01:00") == [True]]
        assert found == allowed.split()

    def test_time_limited_capabilities(self) -> None:
        """S33: a limit, a window and a pattern, all half-open; administration pauses while there is maintenance."""
        limit = between(None, datetime(2026, 1, 5, 12, tzinfo=UTC))
        window = between(datetime(2026, 1, 5, 9, tzinfo=UTC), datetime(2026, 1, 5, 17, tzinfo=UTC))
        admin = ~calendar("maintenance")
        assert holds(limit, "2026-01-05T11:59:59.999Z", "2026-01-05T12:00:00Z") == [True, False]
        assert holds(window, "2026-01-05T08:59:59.999Z", "2026-01-05T09:00:00Z", "2026-01-05T17:00:00Z") == [
            False,
            True,
            False,
        ]
        edges = ("01:59:59.999", "02:00:00", "03:59:59.999", "04:00:00")
        assert holds(admin, *(f"2026-01-10T{edge}+01:00" for edge in edges)) == [True, False, False, True]

    def test_windows_and_contexts(self) -> None:
        """S56: constraints by name: business hours, with their holidays, and the maintenance window."""
        assert holds("calendar office", "2026-12-24T10:00:00+01:00", "2026-12-25T10:00:00+01:00") == [True, False]
        rule = "calendar office or calendar maintenance"
        assert holds(rule, "2026-12-25T02:00:00+01:00", "2026-12-25T04:00:00+01:00") == [True, False]


class TestNext:
    @given(
        st.recursive(leaves, combined, max_leaves=4),
        instants,
        st.integers(0, 45 * 86_400_000),
    )
    @settings(max_examples=300)
    def test_it_is_the_first_that_holds(self, when: When, at: int, ahead: int) -> None:
        found = when.next(at, CALENDARS, at + ahead)
        if found is None:
            found = at + ahead + 1
        else:
            assert at <= found <= at + ahead
            assert when.holds(found, CALENDARS)
        # It changes on minutes, or at bounds that were drawn; both are where it would be seen just before.
        tried = {at, *range(at - at % 60_000, found, max(60_000, (found - at) // 2_000 // 60_000 * 60_000)), found - 1}
        assert not any(when.holds(one, CALENDARS) for one in tried if at <= one < found)

    @pytest.mark.parametrize(
        ("when", "at", "found"),
        [
            # an evening, a weekend, a holiday with a weekend behind it
            ("calendar office", "2026-03-03T18:00:00+01:00", "2026-03-04T09:00:00+01:00"),
            ("calendar office", "2026-03-06T17:00:00+01:00", "2026-03-09T09:00:00+01:00"),
            ("calendar office", "2026-04-30T20:00:00+02:00", "2026-05-04T09:00:00+02:00"),
            ("not calendar office", "2026-03-03T10:00:00+01:00", "2026-03-03T17:00:00+01:00"),
            ("not calendar maintenance", "2026-03-03T03:00:00+01:00", "2026-03-03T04:00:00+01:00"),
            # a start that is skipped comes when the clocks are put forward
            ("daily 02:30-05:00 Europe/Berlin", "2026-03-29T00:30:00+01:00", "2026-03-29T03:00:00+02:00"),
            # a window that is skipped comes a week later
            ("sun 02:00-03:00 Europe/Berlin", "2026-03-23T00:00:00+01:00", "2026-04-05T02:00:00+02:00"),
            # the night before clocks are put forward is a night like any other
            ("daily 00:30-05:00 Europe/Berlin", "2026-03-28T06:00:00+01:00", "2026-03-29T00:30:00+01:00"),
            ("daily 00:30-01:30 Europe/Berlin", "2026-03-28T01:30:00+01:00", "2026-03-29T00:30:00+01:00"),
            # a day that begins at 01:00
            ("sun 00:00-12:00 Africa/Cairo", "2026-04-19T12:00:00+02:00", "2026-04-26T00:00:00+03:00"),
            ("fri 00:00-12:00 Africa/Cairo", "2026-04-23T12:00:00+02:00", "2026-04-24T01:00:00+03:00"),
            # a window of the hour that comes twice comes twice
            ("sun 02:00-02:30 Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"),
            ("daily 02:15-02:45 Australia/Lord_Howe", "2026-10-04T01:00:00+10:30", "2026-10-04T02:30:00+11:00"),
            ("2026-02-01T00:00:00Z/..", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("../2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", None),
            ("mon 09:00-17:00 UTC and tue 09:00-17:00 UTC", "2026-01-01T00:00:00Z", None),
        ],
    )
    def test_of_what_happens(self, when: str, at: str, found: str | None) -> None:
        until = ms("2027-01-01T00:00:00Z")
        assert When.parse(when).next(ms(at), CALENDARS, until) == (None if found is None else ms(found))

    def test_a_calendar_says_when_it_opens(self) -> None:
        friday = ms("2026-03-06T18:00:00+01:00")
        assert OFFICE.next_open(friday, friday + 10 * 86_400_000) == ms("2026-03-09T09:00:00+01:00")
        assert OFFICE.next_open(friday, friday + 86_400_000) is None

    def test_at_the_end_of_all_calendars_there_is_none(self) -> None:
        last = ms("9999-12-31T23:59:59Z")
        assert When.parse("mon 09:00-10:00 UTC").next(last, {}, last + 10**12) is None

    def test_a_calendar_that_is_not_given_is_no_answer(self) -> None:
        with pytest.raises(UnknownCalendarError):
            When.parse("calendar elsewhere").next(0, CALENDARS, 10**12)
