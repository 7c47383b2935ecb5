"""Jobs as they are declared: what is refused, which of the times that passed are used, and how far a run is put off."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pf_stream import DefinitionError, Effects, Emit, Reply, RetryLater, Schedule
from pf_stream.model import Calendar, When
from pf_stream.temporal import Job, JobRun, JobViolation, job, sends
from pf_stream.temporal.declaration import effects_of

AT = datetime(2026, 1, 1, 2, tzinfo=UTC)
AT_MS = 1_767_232_800_000
MINUTE = 60_000


def nothing(run: JobRun) -> Effects:
    return None


def minutely(**arguments: object) -> Job:
    return job(every="1m", **arguments)(nothing)  # type: ignore[arg-type]


class TestJob:
    def test_is_called_as_its_function(self) -> None:
        assert job(every="1m")(nothing).name == "nothing"
        assert job(name="a.job-2", every="1m")(nothing).name == "a.job-2"

    def test_reads_periods(self) -> None:
        made = minutely(jitter="5s", catch_up=timedelta(hours=1), tolerance="2m", reports=True, bound="6h")
        assert (made.jitter_ms, made.catch_up_ms, made.tolerance_ms) == (5_000, 3_600_000, 120_000)
        assert made.bound_ms == 21_600_000
        assert made.timetable is not None
        assert made.timetable.every_ms == MINUTE

    def test_takes_calendars(self) -> None:
        office = Calendar([When.parse("mon-fri 09:00-17:00 Europe/Berlin")], "Europe/Berlin")
        made = job(cron="0 * * * *", during=office, exclude="fri 12:00-24:00 Europe/Berlin")(nothing)
        friday = datetime(2026, 3, 6, 10, 30, tzinfo=UTC)
        after = made.next_ms(round(friday.timestamp() * 1000))
        assert after == round(datetime(2026, 3, 9, 8, tzinfo=UTC).timestamp() * 1000)

    @pytest.mark.parametrize(
        ("arguments", "faults"),
        [
            ({"name": "Nightly"}, ["lower-case"]),
            ({"every": "soon"}, ["every='soon'"]),
            ({"every": "1m", "cron": "* * * * *"}, ["not both"]),
            ({"cron": "0 0 30 2 *"}, ["Bad day-of-month"]),
            ({"every": "1m", "limit": 0, "most": 2_000}, ["limit", "most"]),
            (
                {"every": "1m", "misfire": "never", "overlap": "maybe"},
                ["misfire must be one of once, all, skip", "overlap"],
            ),
            ({"every": "1m", "jitter": "1m"}, ["jitter of 60000 ms must be less"]),
            ({"every": "1m", "jitter": timedelta(seconds=-1)}, ["must not be negative"]),
            ({"every": "1m", "reports": True}, ["need a bound"]),
            ({"every": "1m", "bound": "1m"}, ["reports=True"]),
            ({"every": "1m", "during": "always"}, ["when 'always'"]),
            ({"every": "1m", "during": "calendar office"}, ["'office', which is not given"]),
            ({"every": "1m", "start": datetime(2026, 1, 1)}, ["start 2026-01-01T00:00:00 has no zone"]),  # noqa: DTZ001
        ],
    )
    def test_what_is_wrong_is_said_at_once(self, arguments: dict[str, object], faults: list[str]) -> None:
        with pytest.raises(DefinitionError) as caught:
            job(**arguments)(nothing)  # type: ignore[arg-type]
        for fault in faults:
            assert fault in str(caught.value)

    def test_another_timetable_is_another_definition(self) -> None:
        one = minutely()
        assert one.definition == minutely(overlap="skip").definition
        assert one.definition != minutely(jitter="1s").definition
        assert one.definition != job(every="2m")(nothing).definition
        closed = [Calendar([When.parse(f"{day} 00:00-24:00 UTC")], "UTC") for day in ("sat", "sun")]
        assert minutely(exclude=closed[0]).definition != minutely(exclude=closed[1]).definition


class TestMisfires:
    """At 02:00 it is told what passed since 01:00."""

    @pytest.mark.parametrize(
        ("arguments", "late"),
        [
            ({}, [0]),
            ({"misfire": "once", "catch_up": "30s"}, [0]),
            ({"misfire": "skip"}, [1, 0]),
            ({"misfire": "skip", "tolerance": timedelta(0)}, [0]),
            ({"misfire": "all"}, list(range(59, -1, -1))),
            ({"misfire": "all", "most": 3}, [2, 1, 0]),
            ({"misfire": "all", "catch_up": "2m"}, [2, 1, 0]),
        ],
    )
    def test_policies(self, arguments: dict[str, object], late: list[int]) -> None:
        made = minutely(**arguments)
        due = made.due(AT_MS - 60 * MINUTE, AT_MS)
        assert len(due) == 60
        assert made.choose(due, AT_MS) == [AT_MS - minutes * MINUTE for minutes in late]

    def test_nothing_is_chosen_of_what_is_too_old(self) -> None:
        made = minutely(catch_up="10s")
        assert made.choose(made.due(AT_MS - MINUTE, AT_MS + 20_000), AT_MS + 20_000) == []

    def test_of_very_many_the_last_are_known(self) -> None:
        due = minutely(misfire="all").due(0, AT_MS)
        assert (len(due), due[-1]) == (1_000, AT_MS)


class TestJitter:
    @given(st.integers(1, 10**6))
    def test_it_follows_from_name_and_time(self, number: int) -> None:
        made, nominal = minutely(jitter="30s"), AT_MS + number * MINUTE
        delay = made.delay_ms(nominal)
        assert 0 <= delay <= 30_000
        assert delay == minutely(jitter="30s").delay_ms(nominal)
        assert made.due(nominal - MINUTE, nominal + delay)[-1] == nominal
        assert delay == 0 or nominal not in made.due(nominal - MINUTE, nominal + delay - 1)

    def test_it_differs_between_times_and_names(self) -> None:
        made, other = minutely(jitter="30s"), job(name="other", every="1m", jitter="30s")(nothing)
        delays = [made.delay_ms(AT_MS + number * MINUTE) for number in range(200)]
        assert len(set(delays)) > 190
        assert delays != [other.delay_ms(AT_MS + number * MINUTE) for number in range(200)]


class TestEffects:
    def run_of(self) -> JobRun:
        return JobRun("j", AT, 1, "time", None, None)  # type: ignore[arg-type]

    def violation(self) -> JobViolation:
        return JobViolation(job="j", nominal=AT, code="run_failed", reason="")

    def test_are_of_the_nominal_time(self) -> None:
        violation = self.violation()

        @job(name="j", retry=RetryLater())
        def made(run: JobRun) -> Effects:
            return [Emit(violation), Reply({}), Schedule(violation, after=1, id="mine", time=AT + timedelta(1))]

        assert effects_of(made, self.run_of()) == [
            Emit(violation, id="j@2026-01-01T02:00:00.000Z:0", time=AT),
            Reply({}),
            Schedule(violation, after=1, id="mine", time=AT + timedelta(1)),
        ]

    def test_of_one_and_of_none(self) -> None:
        one = job(name="j")(sends(self.violation()))
        assert effects_of(one, self.run_of()) == [Emit(self.violation(), id="j@2026-01-01T02:00:00.000Z:0", time=AT)]
        assert effects_of(job(name="j")(nothing), self.run_of()) == []
