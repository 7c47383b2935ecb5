"""Jobs in a topology: when they run, what becomes of runs that cannot, and who may do what with them."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

from pf_stream import (
    Capability,
    Context,
    DefinitionError,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    RetryLater,
    Service,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.model import Calendar, When
from pf_stream.temporal import (
    BackfillJob,
    CancelJob,
    Job,
    JobEnded,
    JobRun,
    JobState,
    PauseJob,
    ResumeJob,
    ScheduleJob,
    TemporalCap,
    TriggerJob,
    UnscheduleJob,
    job,
    jobs,
)
from pf_stream.temporal.intents import DeclareJob, EndRun, JobDue, RunJob
from pf_stream.testing import Driver
from pf_stream.testing.driver import Action


class DayCap(Capability):
    """What may be done with days: ``/{day}``."""

    count = operation()


class CountDay(Intent, name="day.count", topic="days", requires=DayCap.count("/{day}")):
    """A day is to be counted."""

    day: Annotated[str, Key]
    cancels: str | None = None


class Days(State):
    """What was counted."""

    counted: list[str] = dataclasses.field(default_factory=list)
    times: list[int] = dataclasses.field(default_factory=list)
    subjects: list[str] = dataclasses.field(default_factory=list)
    cancels: list[str | None] = dataclasses.field(default_factory=list)


class Counter(Reactor[Days], id="counter"):
    """Counts days, whoever asks: all under one key, so that the order shows."""

    @on
    def count(self, intent: CountDay, state: Days, ctx: Context) -> Effects:
        state.counted.append(ctx.intent_id)
        state.times.append(ctx.time_ms)
        state.subjects.append(ctx.subject)
        state.cancels.append(intent.cancels)
        return None


START = datetime(2026, 3, 2, 10, tzinfo=UTC)
"""A Monday."""
SERVICE = Service(7, ["DayCap.count:/*"])
MINUTE = timedelta(minutes=1)


def count(run: JobRun) -> Effects:
    """Have it counted."""
    return Emit(CountDay(day="d", cancels=None if run.cancels is None else f"{run.cancels:%H:%M}"))


def topology(*declared: Job, **arguments: Any) -> Topology:
    """Counting, with these jobs."""
    return Topology("days", [Counter], internal=["days"], parts=[jobs(*declared, service=SERVICE, **arguments)])


def driver_of(*declared: Job, seed: int = 0, **arguments: Any) -> Driver:
    """It, from Monday at ten."""
    return Driver(topology(*declared, **arguments), now=START, seed=seed)


def counted(driver: Driver) -> list[str]:
    """The nominal times of what was counted, of whatever job, ``HH:MM``."""
    state = driver.state(Counter, "d")
    return [] if state is None else [name.partition("@")[2][11:16] for name in state.counted]


def state_of(driver: Driver, name: str = "count") -> JobState:
    reactor = next(one for one in driver.topology.reactors if one.__reactor__.id == "jobs")
    state = driver.state(reactor, name)
    assert isinstance(state, JobState)
    return state


def send(driver: Driver, intent: Intent) -> None:
    """By somebody who may manage, schedule and report."""
    grants = [TemporalCap.manage("/**"), TemporalCap.schedule("/**"), TemporalCap.report("/**")]
    driver.send(intent, driver.context(*grants))


def violations(driver: Driver) -> list[tuple[str, str]]:
    return [(record.json()["code"], record.json()["reason"]) for record in driver.outputs("violations")]


def test_a_job_runs_when_it_is_time_and_never_before() -> None:
    driver = driver_of(job(cron="0 2 * * *", tz="Europe/Berlin")(count))
    driver.advance(timedelta(hours=14, minutes=59, seconds=59))
    assert counted(driver) == []
    driver.advance(1)
    state = driver.state(Counter, "d")
    assert state == Days(["count@2026-03-03T01:00:00.000Z:0"], [1_772_499_600_000], ["service:days/jobs"], [None])
    driver.advance(timedelta(days=30))
    assert counted(driver) == ["01:00"] * 27 + ["00:00"] * 4  # on the 29th 02:00 is skipped, and then it is summer
    assert driver.dead_letters() == []
    assert (state_of(driver).begun, state_of(driver).late_ms, state_of(driver).missed) == (31, 0, 0)


def test_without_a_job_there_is_nothing() -> None:
    driver = driver_of()
    driver.advance(timedelta(days=1))
    assert driver.topology.starts == ()
    assert counted(driver) == []


@pytest.mark.parametrize("seed", range(40))
def test_a_crash_between_any_two_actions_changes_nothing(seed: int) -> None:
    driver = driver_of(job(every="1m")(count), seed=seed)
    acted = [0]

    def crash(action: Action) -> None:
        acted[0] += 1
        if acted[0] % 7 == seed % 7:
            driver.crash()

    driver.after_action = crash
    driver.advance(5 * MINUTE)
    assert counted(driver) == [f"10:0{minute}" for minute in range(6)]


class TestTheClock:
    def test_stepped_back_an_hour(self) -> None:
        driver = driver_of(job(every="10m")(count))
        driver.advance(10 * MINUTE)
        driver.clock.advance(-3600)
        driver.advance(timedelta(minutes=69))
        assert counted(driver) == ["10:00", "10:10"]
        driver.advance(MINUTE)
        assert counted(driver) == ["10:00", "10:10", "10:20"]

    @pytest.mark.parametrize(
        ("arguments", "after", "missed"),
        [
            ({}, ["10:00"], 143),
            ({"misfire": "skip"}, ["10:00"], 143),
            ({"misfire": "all", "most": 3}, ["09:40", "09:50", "10:00"], 141),
            ({"misfire": "all", "catch_up": "10m"}, ["09:50", "10:00"], 142),
        ],
    )
    def test_stepped_forward_a_day(self, arguments: dict[str, Any], after: list[str], missed: int) -> None:
        driver = driver_of(job(every="10m", **arguments)(count))
        driver.advance(MINUTE)
        driver.clock.advance(86_400 - 60)
        driver.advance(0)
        assert counted(driver) == ["10:00", *after]
        assert state_of(driver).missed == missed
        driver.advance(10 * MINUTE)
        assert counted(driver)[-1] == "10:10"


def test_while_all_workers_are_down_nothing_runs_and_then_what_the_policy_says() -> None:
    driver = driver_of(job(every="1h", misfire="all")(count))
    driver.advance(0)
    with driver.paused():
        driver.advance(timedelta(hours=3, minutes=30))
    assert counted(driver) == ["10:00", "11:00", "12:00", "13:00"]
    state = state_of(driver)
    assert (state.late_ms, state.latest_ms) == (1_800_000, 9_000_000)


def test_a_limit_and_an_end() -> None:
    driver = driver_of(job(every="1m", limit=3)(count))
    driver.advance(timedelta(hours=1))
    assert counted(driver) == ["10:00", "10:01", "10:02"]
    assert state_of(driver).next_ms is None
    driver = driver_of(job(every="1m", limit=3, misfire="all", most=10)(count))
    driver.advance(1)
    driver.clock.advance(3600)
    driver.advance(0)
    assert len(counted(driver)) == 3, "many are due at once, and two are left"
    driver = driver_of(job(every="1m", end=START + 2 * MINUTE)(count))
    driver.advance(timedelta(hours=1))
    assert counted(driver) == ["10:00", "10:01"]


def test_one_that_is_far_away_gets_there() -> None:
    driver = driver_of(job(cron="0 0 29 2 *")(count))
    driver.advance(timedelta(days=730))
    assert counted(driver) == ["00:00"]
    assert driver.dead_letters() == []


def test_jitter_puts_it_off() -> None:
    late = job(every="1m", jitter="30s")(count)
    driver = driver_of(late)
    delay = late.delay_ms(round((START + MINUTE).timestamp() * 1000))
    driver.advance(MINUTE + timedelta(milliseconds=delay - 1))
    assert counted(driver) == ["10:00"]
    driver.advance(0.001)
    assert counted(driver) == ["10:00", "10:01"]
    assert state_of(driver).late_ms == 0


class TestWhoActs:
    def test_a_service_that_may_not_is_refused_and_the_times_go_on(self) -> None:
        service = Service(7, ["DayCap.count:/other"])
        part = jobs(job(every="1m")(count), service=service)
        driver = Driver(Topology("days", [Counter], internal=["days"], parts=[part]), now=START)
        driver.advance(2 * MINUTE)
        assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"] * 3
        assert counted(driver) == []
        assert state_of(driver).begun == 3

    def test_nobody_else_may_begin_a_run(self) -> None:
        driver = driver_of(job(every="1h")(count))
        inner = [
            DeclareJob(job="count"),
            JobDue(job="count"),
            RunJob(job="count", nominal_ms=0),
            EndRun(job="count", nominal_ms=0),
        ]
        for intent in inner:
            send(driver, intent)
        assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"] * 4

    @pytest.mark.parametrize("intent", [PauseJob, ResumeJob, TriggerJob, CancelJob, UnscheduleJob])
    def test_who_may_not_manage_is_refused(self, intent: Callable[..., Intent]) -> None:
        driver = driver_of(job(every="1h")(count))
        driver.send(intent(job="count"), driver.context(TemporalCap.manage("/other"), TemporalCap.report("/**")))
        assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"]

    def test_what_is_not_known_is_said(self) -> None:
        driver = driver_of(job(every="1h")(count))
        send(driver, PauseJob(job="counts"))
        (letter,) = driver.dead_letters()
        assert "there is no job 'counts'; did you mean 'count'?" in letter.message


class TestFailures:
    def fails(self, times: int, **arguments: Any) -> Job:
        def run(run: JobRun) -> Effects:
            if run.attempt <= times:
                raise ValueError(f"attempt {run.attempt}")
            return Emit(CountDay(day="d"))

        return job(name="count", **arguments)(run)

    def test_a_run_that_fails_is_told_of_and_the_times_go_on(self) -> None:
        driver = driver_of(self.fails(9, every="1m"))
        driver.advance(MINUTE)
        assert violations(driver) == [("run_failed", "ValueError: attempt 1")] * 2
        assert state_of(driver).failed == 2
        assert driver.dead_letters() == []

    def test_it_is_done_again(self) -> None:
        driver = driver_of(self.fails(2, every="1h", retry=RetryLater(attempts=3, backoff_s=10)))
        driver.advance(29)
        assert counted(driver) == []
        assert state_of(driver).running == {1_772_445_600_000: 2}
        driver.advance(1)
        assert counted(driver) == ["10:00"]
        assert (state_of(driver).running, violations(driver)) == ({}, [])

    def test_each_attempt_is_told_why_it_runs(self) -> None:
        causes: list[str] = []

        @job(name="count", every="1h", retry=RetryLater(attempts=2, backoff_s=10))
        def fails(run: JobRun) -> Effects:
            causes.append(run.cause)
            raise ValueError

        driver = driver_of(fails)
        driver.advance(10)
        driver.advance(MINUTE)
        send(driver, TriggerJob(job="count"))
        driver.advance(10)
        assert causes == ["time", "time", "trigger", "trigger"]

    def test_up_to_a_number(self) -> None:
        driver = driver_of(self.fails(9, every="1h", retry=RetryLater(attempts=3, backoff_s=10)))
        driver.advance(timedelta(minutes=59))
        assert violations(driver) == [("run_failed", "ValueError: attempt 3")]
        assert state_of(driver).running == {}

    def test_a_bad_effect_is_a_dead_letter_and_the_times_go_on(self) -> None:
        @job(name="count", every="1m")
        def unknown(run: JobRun) -> Effects:
            return "nothing"  # type: ignore[return-value]

        driver = driver_of(unknown)
        driver.advance(2 * MINUTE)
        assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"] * 3


def reporting(**arguments: Any) -> Job:
    return job(every="1m", **{"reports": True, "bound": "150s", "limit": 5, **arguments})(count)


def ended(driver: Driver, minute: int, *, failed: bool = False) -> None:
    send(
        driver,
        JobEnded(job="count", nominal=START + minute * MINUTE, failed=failed, reason="it broke" if failed else ""),
    )


class TestOverlap:
    def test_allow(self) -> None:
        driver = driver_of(reporting())
        driver.advance(2 * MINUTE)
        assert counted(driver) == ["10:00", "10:01", "10:02"]
        assert len(state_of(driver).running) == 3

    def test_skip(self) -> None:
        driver = driver_of(reporting(overlap="skip"))
        driver.advance(2 * MINUTE)
        assert (counted(driver), state_of(driver).skipped) == (["10:00"], 2)
        ended(driver, 0)
        driver.advance(MINUTE)
        assert counted(driver) == ["10:00", "10:03"]

    def test_buffer_one(self) -> None:
        driver = driver_of(reporting(overlap="buffer_one"))
        driver.advance(2 * MINUTE)
        assert (counted(driver), state_of(driver).skipped) == (["10:00"], 1)
        ended(driver, 0)
        assert counted(driver) == ["10:00", "10:01"]
        ended(driver, 1)
        assert state_of(driver).running == {}

    def test_cancel(self) -> None:
        driver = driver_of(reporting(overlap="cancel"))
        driver.advance(2 * MINUTE)
        assert counted(driver) == ["10:00", "10:01", "10:02"]
        state = driver.state(Counter, "d")
        assert state is not None
        assert state.cancels == [None, "10:00", "10:01"]
        assert (len(state_of(driver).running), state_of(driver).cancelled) == (1, 2)
        ended(driver, 0)  # too late to say so
        assert len(state_of(driver).running) == 1
        driver.advance(timedelta(minutes=2, seconds=29))  # those that were cancelled have no bound any more
        assert violations(driver) == []

    def test_the_end_that_is_never_reported(self) -> None:
        driver = driver_of(reporting(overlap="skip", limit=1))
        driver.advance(timedelta(seconds=149))
        assert state_of(driver).running != {}
        driver.advance(1)
        assert violations(driver) == [("time_bound_exceeded", "it has not ended 150 s after it began")]
        assert (state_of(driver).running, state_of(driver).overdue) == ({}, 1)

    def test_the_end_that_is_reported_leaves_no_violation(self) -> None:
        driver = driver_of(reporting(limit=1))
        driver.advance(10)
        ended(driver, 0)
        ended(driver, 0)
        driver.advance(timedelta(minutes=10))
        assert violations(driver) == []

    def test_a_failure_that_is_reported(self) -> None:
        driver = driver_of(reporting(limit=1, retry=RetryLater(attempts=2, backoff_s=10)))
        driver.advance(1)
        ended(driver, 0, failed=True)
        driver.advance(10)
        assert counted(driver) == ["10:00", "10:00"]
        ended(driver, 0, failed=True)
        driver.advance(timedelta(minutes=10))
        assert violations(driver) == [("run_failed", "it broke")]


class TestManagement:
    def test_pause_and_resume(self) -> None:
        driver = driver_of(job(every="1m")(count))
        driver.advance(0)
        send(driver, PauseJob(job="count"))
        driver.advance(5 * MINUTE)
        driver.crash()
        assert counted(driver) == ["10:00"]
        send(driver, TriggerJob(job="count"))
        assert counted(driver) == ["10:00", "10:05"]
        driver.advance(30)
        send(driver, ResumeJob(job="count"))
        assert counted(driver) == ["10:00", "10:05"]
        driver.advance(MINUTE)
        assert counted(driver) == ["10:00", "10:05", "10:06"]
        assert state_of(driver).missed == 0

    def test_resume_of_what_was_not_paused_leaves_nothing_out(self) -> None:
        driver = driver_of(job(every="1m")(count))
        driver.advance(0)
        send(driver, ResumeJob(job="count"))
        driver.advance(MINUTE)
        assert counted(driver) == ["10:00", "10:01"]

    @pytest.mark.parametrize("seed", range(10))
    def test_backfill(self, seed: int) -> None:
        driver = driver_of(job(cron="0 * * * *", limit=1)(count), seed=seed)
        driver.advance(0)
        send(driver, BackfillJob(job="count", start=START - timedelta(hours=4), end=START))
        driver.crash()
        assert counted(driver) == ["10:00", "06:00", "07:00", "08:00", "09:00"]
        assert state_of(driver).backfill_end_ms is None

    def test_backfill_waits_for_each_end(self) -> None:
        driver = driver_of(reporting(overlap="skip", limit=1))
        driver.advance(0)
        send(driver, BackfillJob(job="count", start=START - 3 * MINUTE, end=START))
        assert counted(driver) == ["10:00"]
        for minute in (0, -3, -2, -1):
            ended(driver, minute)
        assert counted(driver) == ["10:00", "09:57", "09:58", "09:59"]
        assert state_of(driver).skipped == 0

    def test_backfill_that_finds_another_run_under_way_waits_for_its_end(self) -> None:
        """Both are due at once, and what was triggered comes first: its nominal time is earlier."""
        driver = driver_of(reporting(overlap="skip", limit=1))
        driver.advance(0)
        ended(driver, 0)
        driver.advance(MINUTE)
        with driver.paused():
            send(driver, TriggerJob(job="count"))
            send(driver, BackfillJob(job="count", start=START + 2 * MINUTE, end=START + 4 * MINUTE))
        assert counted(driver) == ["10:00", "10:01"]
        for minute in (1, 2, 3):
            ended(driver, minute)
        assert counted(driver) == ["10:00", "10:01", "10:02", "10:03"]
        assert (state_of(driver).running, state_of(driver).skipped) == ({}, 0)

    def test_cancel_ends_what_is_under_way(self) -> None:
        driver = driver_of(reporting(overlap="buffer_one"))
        driver.advance(MINUTE)
        send(driver, CancelJob(job="count"))
        state = state_of(driver)
        assert (state.running, state.waiting_ms, state.cancelled) == ({}, None, 1)
        driver.advance(MINUTE)
        assert counted(driver) == ["10:00", "10:02"]


class TestAtRunTime:
    def test_one_that_sends(self) -> None:
        driver = driver_of(emits=[CountDay])
        send(driver, ScheduleJob(job="mine", every="1m", intent="day.count.v1", payload={"day": "d"}))
        driver.advance(2 * MINUTE)
        driver.crash()
        driver.advance(MINUTE)
        state = driver.state(Counter, "d")
        assert state is not None
        assert state.counted[0] == "mine@2026-03-02T10:00:00.000Z:0"
        assert set(state.subjects) == {"service:days/jobs"}
        assert counted(driver) == ["10:00", "10:01", "10:02", "10:03"]

    def test_one_that_runs_a_function(self) -> None:
        driver = driver_of(job()(count))
        send(driver, ScheduleJob(job="mine", cron="*/2 * * * *", run="count"))
        driver.advance(3 * MINUTE)
        assert counted(driver) == ["10:00", "10:02"]

    def test_is_changed_and_removed(self) -> None:
        driver = driver_of(job()(count))
        send(driver, ScheduleJob(job="mine", every="1m", run="count"))
        driver.advance(MINUTE)
        send(driver, ScheduleJob(job="mine", every="1h", run="count"))
        driver.advance(timedelta(hours=1))
        assert counted(driver) == ["10:00", "10:01", "11:00"]
        send(driver, UnscheduleJob(job="mine"))
        driver.advance(timedelta(hours=2))
        assert counted(driver) == ["10:00", "10:01", "11:00"]
        reactor = driver.topology.reactors[1]
        assert driver.state(reactor, "mine") is None

    def test_changed_while_the_clock_is_back_it_runs_no_time_again(self) -> None:
        driver = driver_of(job()(count))
        send(driver, ScheduleJob(job="mine", every="1m", run="count"))
        driver.advance(2 * MINUTE)
        driver.clock.advance(-90)
        send(driver, ScheduleJob(job="mine", every="30s", run="count"))
        driver.advance(2 * MINUTE)
        assert state_of(driver, "mine").last_ms == round((START + 2.5 * MINUTE).timestamp() * 1000)
        assert counted(driver) == ["10:00", "10:01", "10:02", "10:02"]

    def test_changed_after_its_limit_it_has_no_next_time(self) -> None:
        driver = driver_of(job()(count))
        send(driver, ScheduleJob(job="mine", every="1m", run="count", limit=2))
        driver.advance(5 * MINUTE)
        send(driver, ScheduleJob(job="mine", every="2m", run="count", limit=2))
        assert state_of(driver, "mine").next_ms is None
        driver.advance(5 * MINUTE)
        assert counted(driver) == ["10:00", "10:01"]

    def test_names_the_calendars_of_the_topology(self) -> None:
        office = Calendar([When.parse("mon 12:00-13:00 UTC")], "UTC")
        driver = driver_of(job()(count), calendars={"lunch": office})
        send(driver, ScheduleJob(job="mine", every="30m", during="calendar lunch", run="count"))
        driver.advance(timedelta(days=1))
        assert counted(driver) == ["12:00", "12:30"]

    @pytest.mark.parametrize(
        ("fields", "fault"),
        [
            ({"every": "1m"}, "say what it does"),
            ({"every": "1m", "run": "coun"}, "did you mean 'count'?"),
            ({"every": "1m", "intent": "day.secret.v1"}, "there is no intent 'day.secret.v1'"),
            ({"every": "1m", "intent": "day.count.v1", "payload": {"day": 7}}, "payload: day"),
            ({"cron": "0 0 30 2 *", "run": "count"}, "Bad day-of-month"),
            ({"every": "1m", "run": "count", "retry": {"attempts": 1}}, "attempts=1 is no retry"),
            ({"every": "1m", "run": "count", "job": "count"}, "declares the job 'count' itself"),
        ],
    )
    def test_what_is_wrong_is_a_dead_letter(self, fields: dict[str, Any], fault: str) -> None:
        driver = driver_of(job()(count), emits=[CountDay])
        send(driver, ScheduleJob(**{"job": "mine", **fields}))
        (letter,) = driver.dead_letters()
        assert letter.code == "handler_failed"
        assert fault in letter.message


class TestVersions:
    def test_a_new_timetable_goes_on_from_now(self) -> None:
        driver = driver_of(job(every="1m")(count))
        driver.advance(MINUTE)
        driver.redeploy(topology(job(every="1h")(count)))
        driver.advance(timedelta(hours=1))
        assert counted(driver) == ["10:00", "10:01", "11:00"]

    def test_the_same_goes_on_as_if_nothing_had_been(self) -> None:
        driver = driver_of(job(every="1m")(count))
        driver.advance(30)
        driver.redeploy(topology(job(every="1m")(count)))
        driver.advance(90)
        assert counted(driver) == ["10:00", "10:01", "10:02"]

    def test_one_that_is_gone_runs_no_more(self) -> None:
        driver = driver_of(job(every="1m")(count))
        driver.advance(0)
        driver.redeploy(topology(job(name="other", every="1h")(count)))
        driver.advance(5 * MINUTE)
        assert counted(driver) == ["10:00", "10:00"]  # of the other one
        assert driver.state(driver.topology.reactors[1], "count") is None
        assert driver.dead_letters() == []


def test_two_jobs_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two jobs are called 'count'"):
        jobs(job(every="1m")(count), job(every="2m")(count), service=SERVICE)
