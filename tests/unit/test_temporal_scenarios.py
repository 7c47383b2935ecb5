"""Acceptance scenarios of time, as a user would run them. S29 and S33, of what rights are good for, are with security's."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    Schedule,
    Service,
    State,
    Tally,
    Topology,
    on,
    operation,
)
from pf_stream.model import Calendar, Part, When
from pf_stream.model.constraint import Constraint, after, before, never, only
from pf_stream.temporal import Figures, JobRun, OperationFigures, TemporalCap, TriggerJob, analytics, job, jobs
from pf_stream.testing import Driver

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
OFFICE = Calendar([When.parse("mon-fri 09:00-17:00 UTC")], "UTC")
HOUR = timedelta(hours=1)

# --- S29: when a file may be handled ---------------------------------------------------------------------------------


class Operation(Intent, name="files.operation", requires=PUBLIC):
    """Something that is done with a file."""

    path: Annotated[str, Key]


class Done(State):
    """At what times."""

    times: list[str] = dataclasses.field(default_factory=list)


class Doer(Reactor[Done], id="doer"):
    @on
    def do(self, intent: Operation, state: Done, ctx: Context) -> Effects:
        state.times.append(f"{ctx.now:%a %H:%M}")
        return None


def constrained(*constraints: Constraint) -> Topology:
    return Topology("files", [Doer], calendars={"office": OFFICE}, constraints={"files.operation": constraints})


@pytest.mark.parametrize(
    ("constraint", "hour", "code"),
    [
        (only("calendar office", otherwise="refuse"), 10, None),
        (only("calendar office", otherwise="refuse"), 20, "outside_hours"),
        (never("daily 02:00-04:00 UTC", otherwise="refuse"), 3, "in_maintenance"),
        (never("daily 02:00-04:00 UTC", otherwise="refuse"), 4, None),
        (before(MONDAY + 10 * HOUR), 9, None),
        (before(MONDAY + 10 * HOUR), 10, "too_late"),
        (after(MONDAY + 10 * HOUR, otherwise="refuse"), 9, "too_early"),
        (after(MONDAY + 10 * HOUR, otherwise="refuse"), 10, None),
        # during a time that overlaps office hours, for what is left of them
        (only("2026-03-02T16:00:00Z/2026-03-02T18:00:00Z and calendar office", otherwise="refuse"), 16, None),
        (
            only("2026-03-02T16:00:00Z/2026-03-02T18:00:00Z and calendar office", otherwise="refuse"),
            17,
            "outside_hours",
        ),
    ],
)
def test_before_after_during_and_overlap(constraint: Constraint, hour: int, code: str | None) -> None:
    """S29: 10:00 allowed, 20:00 not; before, after, during and overlap are half-open."""
    driver = Driver(constrained(constraint), now=MONDAY + hour * HOUR)
    driver.send(Operation(path="/a"))
    assert [letter.code for letter in driver.dead_letters()] == ([] if code is None else [code])
    assert (driver.state(Doer, "/a") is None) == (code is not None)


# --- S31: the file scheduler -----------------------------------------------------------------------------------------


class SchedulerCap(Capability):
    """What may be done with schedules: ``/{owner}``."""

    plan = operation()


class Plan(
    Intent,
    name="scheduler.plan",
    requires=SchedulerCap.plan("/{owner}"),
    constraints=only("calendar office", otherwise="refuse"),
):
    """Have an operation executed in a while; nobody may plan one outside of office hours."""

    owner: Annotated[str, Key]
    name: str
    in_s: float
    fails: bool = False


class Execute(Intent, name="scheduler.execute", requires=SchedulerCap.plan("/{owner}")):
    """Execute it."""

    owner: Annotated[str, Key]
    name: str
    fails: bool = False


class CleanUp(Intent, name="scheduler.clean_up", requires=PUBLIC):
    """What was executed a day ago is of no interest any more."""

    owner: Annotated[str, Key]
    name: str


class Plans(State):
    """Of one owner."""

    status: dict[str, str] = dataclasses.field(default_factory=dict)
    executed: int = 0
    failed: int = 0


class FileScheduler(Reactor[Plans], id="scheduler"):
    """Executes what was planned, once and not too early; at most 1,000 wait."""

    @on
    def plan(self, intent: Plan, state: Plans, ctx: Context) -> Effects:
        if sum(status == "scheduled" for status in state.status.values()) >= 1000:
            return Reply({"error": "too_many"})
        state.status[intent.name] = "scheduled"
        execute = Execute(owner=intent.owner, name=intent.name, fails=intent.fails)
        return [Schedule(execute, after=intent.in_s, name=intent.name), Reply({"status": "scheduled"})]

    @on
    def execute(self, intent: Execute, state: Plans, ctx: Context) -> Effects:
        if ctx.due_ms is None:  # sent by somebody who could not wait
            return Reply({"error": "too_early"})
        state.status[intent.name] = "failed" if intent.fails else "executed"
        state.failed += intent.fails
        state.executed += not intent.fails
        clean_up = CleanUp(owner=intent.owner, name=intent.name)
        return [Schedule(clean_up, after=86_400), Tally("failed" if intent.fails else "executed")]

    @on
    def clean_up(self, intent: CleanUp, state: Plans, ctx: Context) -> Effects:
        state.status.pop(intent.name, None)
        return None


scheduler = Topology("scheduler", [FileScheduler], calendars={"office": OFFICE}, replies=["replies"])


def ask(driver: Driver, intent: Intent) -> None:
    driver.send(intent, driver.context(SchedulerCap.plan("/ann")), reply_to="replies")


class TestFileScheduler:
    """S31."""

    def test_executes_once_and_not_too_early(self) -> None:
        """S31: after a second it is executed; what is sent before is too early; a restart keeps the schedule."""
        driver = Driver(scheduler, now=MONDAY + 10 * HOUR)
        ask(driver, Plan(owner="ann", name="a", in_s=1))
        ask(driver, Plan(owner="ann", name="b", in_s=1, fails=True))
        ask(driver, Execute(owner="ann", name="a"))
        assert [reply.json() for reply in driver.replies()] == [
            {"status": "scheduled"},
            {"status": "scheduled"},
            {"error": "too_early"},
        ]
        driver.advance(0.999)
        driver.crash()
        assert driver.state(FileScheduler, "ann") == Plans({"a": "scheduled", "b": "scheduled"})
        driver.advance(0.101)
        assert driver.state(FileScheduler, "ann") == Plans({"a": "executed", "b": "failed"}, 1, 1)
        assert driver.tallies == {("scheduler", "executed"): 1, ("scheduler", "failed"): 1}
        driver.advance(timedelta(hours=23, minutes=59))
        assert driver.state(FileScheduler, "ann") == Plans({"a": "executed", "b": "failed"}, 1, 1)
        driver.advance(60)
        assert driver.state(FileScheduler, "ann") == Plans({}, 1, 1)

    @pytest.mark.slow
    def test_a_thousand_at_most(self) -> None:
        """S31: one more is refused, and there is room again when they were executed."""
        driver = Driver(scheduler, now=MONDAY + 10 * HOUR)
        for number in range(1000):
            ask(driver, Plan(owner="ann", name=str(number), in_s=60))
        ask(driver, Plan(owner="ann", name="more", in_s=60))
        driver.advance(61)
        ask(driver, Plan(owner="ann", name="more", in_s=60))
        assert [reply.json() for reply in driver.replies()][1000:] == [{"error": "too_many"}, {"status": "scheduled"}]
        state = driver.state(FileScheduler, "ann")
        assert state is not None
        assert state.executed == 1000

    def test_outside_of_hours_nothing_is_planned(self) -> None:
        """S31: it is refused, with the reason in the reply."""
        driver = Driver(scheduler, now=MONDAY + 20 * HOUR)
        ask(driver, Plan(owner="ann", name="a", in_s=1))
        assert [reply.json()["error"] for reply in driver.replies()] == ["outside_hours"]
        assert driver.state(FileScheduler, "ann") is None


# --- S32: delayed, periodic, immediate, batch, priority --------------------------------------------------------------


class Work(Intent, name="work.do", requires=PUBLIC):
    """Work to be done."""

    desk: Annotated[str, Key]
    what: str


class WorkBatch(Intent, name="work.batch", requires=PUBLIC):
    """Several at once."""

    desk: Annotated[str, Key]
    whats: list[str]


class JobWork(Intent, name="work.periodic", topic="periodic", requires=PUBLIC):
    """What the job has done."""

    desk: Annotated[str, Key]


class Desk(State):
    """What was done when."""

    done: list[str] = dataclasses.field(default_factory=list)


class Worker(Reactor[Desk], id="worker"):
    @on
    def do(self, intent: Work, state: Desk, ctx: Context) -> Effects:
        state.done.append(f"{intent.what} {ctx.now:%H:%M}")
        return None

    @on
    def batch(self, intent: WorkBatch, state: Desk, ctx: Context) -> Effects:
        return [Schedule(Work(desk=intent.desk, what=what), after=0) for what in intent.whats]

    @on
    def periodic(self, intent: JobWork, state: Desk, ctx: Context) -> Effects:
        state.done.append(f"periodic {ctx.now:%H:%M}")
        return None


@job(every="30m", limit=3)
def half_hourly(run: JobRun) -> Effects:
    return Emit(JobWork(desk="d"))


work = Topology(
    "work", [Worker], internal=["periodic"], parts=[jobs(half_hourly, service=Service(7, ["TemporalCap.report:/none"]))]
)


class TestKindsOfIntents:
    """S32."""

    def done(self, driver: Driver) -> list[str]:
        state = driver.state(Worker, "d")
        return [] if state is None else state.done

    def test_immediate_delayed_and_periodic(self) -> None:
        """S32: at once, at its time, and every interval."""
        driver = Driver(work, now=MONDAY + timedelta(minutes=10))
        driver.send(Work(desk="d", what="delayed"), not_before=MONDAY + HOUR)
        driver.send(Work(desk="d", what="immediate"))
        driver.advance(2 * HOUR)
        assert self.done(driver) == [
            "immediate 00:10",
            "periodic 00:30",
            *sorted(["delayed 01:00", "periodic 01:00"]),
            "periodic 01:30",
        ]

    def test_a_batch(self) -> None:
        """S32: all of it, in its order."""
        driver = Driver(work, now=MONDAY)
        driver.send(WorkBatch(desk="d", whats=["a", "b", "c"]))
        assert self.done(driver)[:3] == ["a 00:00", "b 00:00", "c 00:00"]

    def test_priority_by_deadline(self) -> None:
        """S32: critical, high, medium, low, normal, in whatever order they came."""
        driver = Driver(work, now=MONDAY + timedelta(minutes=1))
        due = MONDAY + timedelta(minutes=2)
        left = {"normal": None, "low": timedelta(days=2), "medium": 23 * HOUR, "high": HOUR / 2, "critical": HOUR / 15}
        with driver.paused():
            for what, time in left.items():
                deadline = None if time is None else due + time
                driver.send(Work(desk="d", what=what), not_before=due, deadline=deadline)
        driver.advance(60)
        assert [line.split()[0] for line in self.done(driver)] == ["critical", "high", "medium", "low", "normal"]


# --- S35: monitor and analytics --------------------------------------------------------------------------------------


class FileDone(Intent, name="files.done", requires=PUBLIC):
    """A file was worked on."""

    path: Annotated[str, Key]
    operation: str
    ms: int
    ok: bool = True


def measured() -> Part:
    return analytics(
        "work",
        FileDone,
        operation=lambda done: done.operation,
        periods={"maintenance": "daily 02:00-04:00 UTC", "business": OFFICE},
        took_ms=lambda done: done.ms,
        failed=lambda done: not done.ok,
    )


def figures(driver: Driver, part: Part, what: str) -> OperationFigures:
    state = driver.state(part.reactors[1], what)
    assert isinstance(state, OperationFigures)
    return state


class TestMonitorAndAnalytics:
    """S35."""

    @pytest.mark.parametrize("crash", [False, True])
    def test_operations_by_period_and_by_minute(self, crash: bool) -> None:
        """S35: count, duration and success rate of each period, and figures of each minute, as counted by hand."""
        part = measured()
        driver = Driver(Topology("files", [], parts=[part]), now=MONDAY + timedelta(days=1))
        rows = [  # hour of Monday, minute, operation, ms, ok
            (3, 0, "write", 100, True),
            (3, 59, "write", 300, False),
            (4, 0, "write", 50, True),  # after hours
            (9, 0, "write", 10, True),
            (9, 0, "read", 1, True),
            (16, 59, "write", 30, False),
            (16, 59, "write", 20, True),
            (16, 59, "write", 40, True),
            (17, 0, "write", 70, True),
        ]
        for number, (hour, minute, what, ms, ok) in enumerate(rows):
            driver.send(
                FileDone(path=f"/{number}", operation=what, ms=ms, ok=ok),
                time=MONDAY + timedelta(hours=hour, minutes=minute, seconds=number),
            )
            if crash:
                driver.crash()
        write = figures(driver, part, "write")
        assert write == OperationFigures(
            {"maintenance": Figures(2, 1, 400), "after_hours": Figures(2, 0, 120), "business": Figures(4, 1, 100)},
            {
                round((MONDAY + timedelta(hours=16, minutes=59)).timestamp() * 1000): Figures(3, 1, 90),
                round((MONDAY + timedelta(hours=17)).timestamp() * 1000): Figures(1, 0, 70),
            },
        )
        assert (write.periods["business"].success_rate, write.periods["business"].mean_ms) == (0.75, 25)
        assert figures(driver, part, "read").periods == {"business": Figures(1, 0, 1)}
        if not crash:
            assert {name: count for (_, name), count in driver.tallies.items()} == {
                "maintenance": 2,
                "maintenance_failed": 1,
                "after_hours": 2,
                "business": 5,
                "business_failed": 1,
            }

    def test_minutes_out_of_order(self) -> None:
        """S35: of the last hour of event time, whatever comes when."""
        part = measured()
        driver = Driver(Topology("files", [], parts=[part]), now=MONDAY + timedelta(days=1))
        for minute in (61, 0, 2, 1, 61):
            driver.send(FileDone(path="/a", operation="read", ms=1), time=MONDAY + timedelta(minutes=minute))
        state = figures(driver, part, "read")
        start = round(MONDAY.timestamp() * 1000)
        assert {(at - start) // 60_000: one.count for at, one in state.minutes.items()} == {61: 2, 2: 1}
        assert state.periods["after_hours"].count == 4 + 1

    def test_the_delay_of_a_schedule(self) -> None:
        """S35: the mean delay of what a job does: how long after the nominal time it was handled."""
        delays = analytics("delays", JobWork, operation=lambda _: "half_hourly", periods={})
        topology = Topology(
            "work",
            [Worker],
            internal=["periodic"],
            parts=[jobs(half_hourly, service=Service(7, ["TemporalCap.report:/none"])), delays],
        )
        driver = Driver(topology, now=MONDAY + timedelta(minutes=10))
        driver.advance(30 * 60)  # in time
        with driver.paused():
            driver.advance(22 * 60)
        assert figures(driver, delays, "half_hourly").periods["after_hours"] == Figures(2, 0, 2 * 60_000)
        assert figures(driver, delays, "half_hourly").periods["after_hours"].mean_ms == 60_000
        driver.send(TriggerJob(job="half_hourly"), driver.context(TemporalCap.manage("/**")))
        assert figures(driver, delays, "half_hourly").periods["after_hours"].count == 3

    def test_the_last_hundred_violations(self) -> None:
        """S35: what was refused by the time lies in the dead letters, with its code."""
        driver = Driver(constrained(only("calendar office", otherwise="refuse")), now=MONDAY)
        for number in range(120):
            driver.send(Operation(path=f"/{number}"))
        last = driver.dead_letters()[-100:]
        assert {letter.code for letter in last} == {"outside_hours"}
        assert driver.refused == {"outside_hours": 120}
