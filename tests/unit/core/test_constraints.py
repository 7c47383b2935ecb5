"""When intents may be handled: what waits, until when, and what is refused. The driver's clock stands where it is told."""

import dataclasses
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream import (
    PUBLIC,
    Context,
    DefinitionError,
    Effects,
    Intent,
    Key,
    Reactor,
    RetryLater,
    Schedule,
    State,
    Topology,
    on,
)
from pf_stream.core.constraints import constrained
from pf_stream.model import Calendar, When
from pf_stream.model.constraint import Constraint, Otherwise, after, before, never, only, parse_constraint, within
from pf_stream.security.refusal import Refusal
from pf_stream.testing import Driver

OFFICE = Calendar([When.parse("mon-fri 09:00-17:00 Europe/Berlin")], "Europe/Berlin", [date(2026, 5, 1)])
CALENDARS = {"office": OFFICE}


class Write(Intent, name="file.write", requires=PUBLIC, constraints=[only("calendar office"), within("7d")]):
    """In office hours, and not a week late."""

    path: Annotated[str, Key]
    fails: bool = False


class Delete(Intent, name="file.delete", requires=PUBLIC):
    """Not in maintenance, says its handler."""

    path: Annotated[str, Key]


class Later(Intent, name="file.later", requires=PUBLIC):
    """Have it written in an hour."""

    path: Annotated[str, Key]


class Log(State):
    """When what happened, Berlin time."""

    lines: list[str] = dataclasses.field(default_factory=list)


class Files(Reactor[Log], id="files", on_error=RetryLater(attempts=2, backoff_s=3600, max_backoff_s=3600)):
    """Writes down."""

    @on
    def write(self, intent: Write, state: Log, ctx: Context) -> Effects:
        if intent.fails and not state.lines:
            state.lines.append("never kept")
            raise ValueError(intent.path)
        state.lines.append(f"write {ctx.now:%a %H:%M}")
        return None

    @on(constraints=never("daily 02:00-04:00 UTC"))
    def delete(self, intent: Delete, state: Log, ctx: Context) -> Effects:
        state.lines.append(f"delete {ctx.now:%a %H:%M}")
        return None

    @on
    def later(self, intent: Later, state: Log, ctx: Context) -> Effects:
        return Schedule(Write(path=intent.path), after=3600)


FILES = Topology("files", [Files], calendars=CALENDARS)


def driver_at(time: str) -> Driver:
    return Driver(FILES, now=datetime.fromisoformat(time))


def lines(driver: Driver) -> list[str]:
    log = driver.state(Files, "f")
    return [] if log is None else log.lines


def codes(driver: Driver) -> list[str]:
    return [letter.code for letter in driver.dead_letters()]


class TestWaiting:
    def test_within_hours_it_is_handled_at_once(self) -> None:
        driver = driver_at("2026-03-02T09:00:00+01:00")
        driver.send(Write(path="f"))
        assert lines(driver) == ["write Mon 08:00"]

    @pytest.mark.parametrize("crash", [False, True])
    def test_a_write_on_friday_evening_waits_for_monday_morning(self, crash: bool) -> None:
        driver = driver_at("2026-03-06T18:00:00+01:00")
        driver.send(Write(path="f"))
        if crash:
            driver.crash()
        driver.advance(timedelta(days=2, hours=15) - timedelta(milliseconds=1))
        assert lines(driver) == []
        driver.advance(0.001)
        assert lines(driver) == ["write Mon 08:00"]
        assert codes(driver) == []

    def test_in_maintenance_it_waits_for_its_end(self) -> None:
        driver = driver_at("2026-03-06T03:00:00Z")
        driver.send(Delete(path="f"))
        driver.advance(timedelta(minutes=59, seconds=59))
        assert lines(driver) == []
        driver.advance(1)
        assert lines(driver) == ["delete Fri 04:00"]

    def test_what_was_due_while_nobody_was_there_waits_once_more(self) -> None:
        driver = driver_at("2026-03-02T08:00:00+01:00")
        driver.send(Write(path="f"))
        with driver.paused():
            driver.advance(timedelta(hours=10))
        assert lines(driver) == []
        driver.advance(timedelta(hours=15))
        assert lines(driver) == ["write Tue 08:00"]

    def test_what_is_scheduled_and_what_failed_wait_too(self) -> None:
        driver = driver_at("2026-03-02T16:30:00+01:00")
        driver.send(Later(path="f"))
        driver.advance(timedelta(days=1))
        assert lines(driver) == ["write Tue 08:00"]
        driver = driver_at("2026-03-02T16:30:00+01:00")
        driver.send(Write(path="f", fails=True))
        driver.advance(timedelta(days=1))
        assert codes(driver) == ["handler_failed"]  # the second attempt of two, on Tuesday
        assert driver.dead_letters()[0].record.timestamp_ms == round(
            datetime.fromisoformat("2026-03-03T09:00:00+01:00").timestamp() * 1000
        )

    def test_with_not_before_it_is_the_first_time_from_then_on(self) -> None:
        driver = driver_at("2026-03-02T10:00:00+01:00")
        driver.send(Write(path="f"), not_before=driver.now + timedelta(hours=9))
        driver.advance(timedelta(days=1))
        assert lines(driver) == ["write Tue 08:00"]


class TestTooLate:
    def test_past_the_deadline_it_is_refused_at_once(self) -> None:
        driver = driver_at("2026-03-06T18:00:00+01:00")
        driver.send(Write(path="f"), deadline=driver.now + timedelta(hours=1))
        assert codes(driver) == ["deadline_passed"]

    def test_what_happened_too_long_ago_is_refused(self) -> None:
        driver = driver_at("2026-03-02T10:00:00+01:00")
        driver.send(Write(path="f"), time=driver.now - timedelta(days=7) + timedelta(milliseconds=1))
        driver.send(Write(path="f"), time=driver.now - timedelta(days=7))
        assert lines(driver) == ["write Mon 09:00"]
        assert codes(driver) == ["deadline_passed"]

    def test_a_sender_from_the_future_has_no_more_time(self) -> None:
        driver = driver_at("2026-03-02T08:00:00+01:00")
        with driver.paused():
            driver.send(Write(path="f"), time=driver.now + timedelta(days=300))
            driver.advance(timedelta(days=8))
        driver.advance(1)
        assert codes(driver) == ["deadline_passed"]


def file_topology(*constraints: Constraint) -> Topology:
    """Whose deletions are constrained by these alone."""

    class Open(Reactor[Log], id="open"):
        @on
        def delete(self, intent: Delete, state: Log, ctx: Context) -> Effects:
            state.lines.append(f"{ctx.now:%Y-%m-%dT%H:%M}")
            return None

    return Topology("files", [Open], calendars=CALENDARS, constraints={"file.delete": constraints})


def done(constraint: Constraint, sent: str, *, days: float = 5, deadline: str | None = None) -> list[str]:
    """When an intent that is sent at a time is handled, UTC, or the code with which it is refused."""
    topology = file_topology(constraint)
    driver = Driver(topology, now=datetime.fromisoformat(sent))
    driver.send(Delete(path="f"), deadline=None if deadline is None else datetime.fromisoformat(deadline))
    driver.advance(timedelta(days=days))
    log = driver.state(topology.reactors[0], "f")
    return [*([] if log is None else log.lines), *codes(driver)]


class TestEachKind:
    """What becomes of an intent that comes at another time: by rule it waits, or is refused with the kind's code."""

    @pytest.mark.parametrize(
        ("make", "sent", "handled", "code"),
        [
            # business hours: to the next business hour
            (
                lambda o: only("calendar office", otherwise=o),
                "2026-03-06T18:00+01:00",
                "2026-03-09T08:00",
                "outside_hours",
            ),
            # which is not on a holiday
            (
                lambda o: only("calendar office", otherwise=o),
                "2026-04-30T17:00+02:00",
                "2026-05-04T07:00",
                "outside_hours",
            ),
            # weekdays
            (
                lambda o: only("mon-fri 00:00-24:00 UTC", otherwise=o),
                "2026-03-07T12:00Z",
                "2026-03-09T00:00",
                "outside_hours",
            ),
            # maintenance: to its end
            (
                lambda o: never("daily 02:00-04:00 UTC", otherwise=o),
                "2026-03-06T03:00Z",
                "2026-03-06T04:00",
                "in_maintenance",
            ),
            # within an interval
            (
                lambda o: only("2026-03-10T00:00:00Z/2026-03-11T00:00:00Z", otherwise=o),
                "2026-03-06T03:00Z",
                "2026-03-10T00:00",
                "outside_hours",
            ),
            (
                lambda o: after(datetime(2026, 3, 7, tzinfo=UTC), otherwise=o),
                "2026-03-06T03:00Z",
                "2026-03-07T00:00",
                "too_early",
            ),
            # where clocks are changed meanwhile, by an hour less or more: it is 9:00 on the wall
            (
                lambda o: only("calendar office", otherwise=o),
                "2026-03-27T18:00+01:00",
                "2026-03-30T07:00",
                "outside_hours",
            ),
            (
                lambda o: only("calendar office", otherwise=o),
                "2026-10-23T18:00+02:00",
                "2026-10-26T08:00",
                "outside_hours",
            ),
            # the end of a maintenance window that is skipped: as soon as the clocks have gone forward
            (
                lambda o: never("sun 01:00-02:30 Europe/Berlin", otherwise=o),
                "2026-03-29T01:30+01:00",
                "2026-03-29T01:00",
                "in_maintenance",
            ),
            # one within the hour that comes twice is there twice: it waits for the end of the pass in which it came
            (
                lambda o: never("sun 02:00-02:30 Europe/Berlin", otherwise=o),
                "2026-10-25T02:10+02:00",
                "2026-10-25T00:30",
                "in_maintenance",
            ),
            (
                lambda o: never("sun 02:00-02:30 Europe/Berlin", otherwise=o),
                "2026-10-25T02:10+01:00",
                "2026-10-25T01:30",
                "in_maintenance",
            ),
        ],
    )
    def test_waits_or_is_refused(
        self, make: Callable[[Otherwise], Constraint], sent: str, handled: str, code: str
    ) -> None:
        assert done(make("wait"), sent) == [handled]
        assert done(make("refuse"), sent, days=0) == [code]
        # With a deadline before the time for which it would wait, it is refused at once.
        earlier = datetime.fromisoformat(f"{handled}Z") - timedelta(milliseconds=1)
        assert done(make("wait"), sent, days=0, deadline=earlier.isoformat()) == ["deadline_passed"]

    @pytest.mark.parametrize(
        ("constraint", "last", "code"),
        [
            (before(datetime(2026, 3, 7, tzinfo=UTC)), "2026-03-06T23:59:59.999Z", "too_late"),
            (only("../2026-03-07T00:00:00Z"), "2026-03-06T23:59:59.999Z", "outside_hours"),
        ],
    )
    def test_what_does_not_come_again(self, constraint: Constraint, last: str, code: str) -> None:
        assert done(constraint, last) == [last[:16]]
        assert done(constraint, "2026-03-07T00:00Z", days=0) == [code]

    def test_within_counts_by_what_passes_and_not_by_the_wall(self) -> None:
        topology = file_topology(within("1d"))
        driver = Driver(topology, now=datetime.fromisoformat("2026-03-29T12:00:00+02:00"))
        driver.send(Delete(path="f"), time=datetime.fromisoformat("2026-03-28T12:00:00+01:00"))  # 23 hours ago
        driver.send(Delete(path="f"), time=datetime.fromisoformat("2026-03-28T11:00:00+01:00"))  # 24
        assert codes(driver) == ["deadline_passed"]


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "constraint"),
        [
            ("only calendar office", only("calendar office")),
            (
                "only mon-fri 09:00-17:00 Europe/Berlin otherwise refuse",
                only("mon-fri 09:00-17:00 Europe/Berlin", otherwise="refuse"),
            ),
            ("never daily 02:00-04:00 UTC", never("daily 02:00-04:00 UTC")),
            ("never (sat 00:00-24:00 UTC or sun 00:00-24:00 UTC)", never("sat 00:00-24:00 UTC or sun 00:00-24:00 UTC")),
            ("after 2026-03-07T00:00:00Z", after(datetime(2026, 3, 7, tzinfo=UTC))),
            (
                "after 2026-03-07T00:00:00Z otherwise refuse",
                after(datetime(2026, 3, 7, tzinfo=UTC), otherwise="refuse"),
            ),
            ("before 2026-03-07T00:00:00Z", before(datetime(2026, 3, 7, tzinfo=UTC))),
            ("within 15m", within("15m")),
            ("within 1d", within("24h")),
        ],
    )
    def test_are_read_and_written(self, text: str, constraint: Constraint) -> None:
        assert parse_constraint(text) == constraint
        assert str(constraint) == text

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "must begin with one of only, never, after, before, within"),
            ("onyl calendar office", "did you mean 'only'"),
            ("only", "write it as"),
            ("only mon-fri", "a window such as 09:00-17:00"),
            ("only mon-fri 09:00-17:00 Europe/Berlim", "no time zone 'Europe/Berlim'"),
            ("only calendar office otherwise wonder", "must be 'wait' or 'refuse', not 'wonder'"),
            ("after soon", "'soon' is no time such as"),
            ("after 2026-03-07T00:00:00", "has no zone"),
            ("before 2026-03-07T00:00:00Z otherwise refuse", "is no time such as"),
            ("within soon", "must be a number and a unit"),
        ],
    )
    def test_what_is_wrong_is_said(self, text: str, fault: str) -> None:
        with pytest.raises(DefinitionError, match=re.escape(fault)):
            parse_constraint(text)


class TestNever:
    """What can never hold is refused where it is declared."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: only("mon 09:00-10:00 UTC and tue 09:00-10:00 UTC"),
            lambda: never("daily 00:00-24:00 Europe/Berlin"),
            lambda: before(datetime(2020, 1, 1, tzinfo=UTC)),
            lambda: parse_constraint("only ../2020-01-01T00:00:00Z otherwise refuse"),
        ],
    )
    def test_alone(self, make: Callable[[], Constraint]) -> None:
        with pytest.raises(DefinitionError, match="no time is left"):
            make()

    @pytest.mark.parametrize(
        "rare",
        [
            "2100-01-01T00:00:00Z/2100-01-01T00:00:01Z",
            "mon 09:00-10:00 UTC and 2101-01-01T00:00:00Z/..",
            # only in the weeks in which one of them has changed its clocks and the other has not
            "daily 09:00-09:30 Europe/Berlin and daily 04:00-04:30 America/New_York",
        ],
    )
    def test_what_comes_seldom_comes(self, rare: str) -> None:
        assert only(rare).when == When.parse(rare)

    @pytest.mark.parametrize(
        "constraints",
        [
            [only("calendar office"), only("sat,sun 00:00-24:00 Europe/Berlin")],
            [after(datetime(2026, 3, 7, tzinfo=UTC)), before(datetime(2026, 3, 7, tzinfo=UTC))],
            [never("calendar office"), only("wed 10:00-11:00 Europe/Berlin")],
        ],
    )
    def test_together(self, constraints: list[Constraint]) -> None:
        with pytest.raises(DefinitionError, match=r"file\.delete can never be handled"):
            file_topology(*constraints)

    def test_of_type_handler_and_topology(self) -> None:
        with pytest.raises(DefinitionError, match=r"file\.write can never be handled"):
            Topology("files", [Files], calendars=CALENDARS, constraints={"file.write": only("sun 00:00-24:00 UTC")})


class TestOfTheTopology:
    def test_are_beside_those_of_type_and_handler(self) -> None:
        limited = Topology(
            "files",
            [Files],
            calendars=CALENDARS,
            constraints={"file.write": [never("mon 00:00-24:00 Europe/Berlin")], "file.delete": within("1h")},
        )
        driver = Driver(limited, now=datetime.fromisoformat("2026-03-06T18:00:00+01:00"))
        driver.send(Write(path="f"))
        driver.send(Delete(path="f"), time=driver.now - timedelta(hours=1))
        driver.advance(timedelta(days=5))
        assert lines(driver) == ["write Tue 08:00"]
        assert codes(driver) == ["deadline_passed"]
        assert limited.within("elsewhere").constraints == limited.constraints

    def test_for_all_that_comes_from_outside(self) -> None:
        """What the topology itself causes on its own topics goes on: it is part of what was begun."""

        class Step(Intent, name="file.step", topic="steps", requires=PUBLIC):
            path: Annotated[str, Key]

        class Steps(Reactor[Log], id="steps", emits=[Step]):
            @on
            def delete(self, intent: Delete, state: Log, ctx: Context) -> Effects:
                return Schedule(Step(path=intent.path), after=7200)

            @on
            def step(self, intent: Step, state: Log, ctx: Context) -> Effects:
                state.lines.append(f"step {ctx.now:%H:%M}")
                return None

        closed = never("daily 02:00-04:00 UTC")
        topology = Topology("files", [Files, Steps], internal=["steps"], calendars=CALENDARS, constraints={"*": closed})
        assert set(topology.constraints) == {"file.write", "file.delete", "file.later"}
        driver = Driver(topology, now=datetime(2026, 3, 6, 1, tzinfo=UTC))
        driver.send(Delete(path="f"))
        driver.advance(timedelta(hours=1, minutes=30))
        driver.send(Delete(path="f"))
        driver.advance(timedelta(hours=12))
        log = driver.state(Steps, "f")
        assert log is not None
        assert log.lines == ["step 03:00", "step 06:00"]

    @pytest.mark.parametrize(
        ("constraints", "fault"),
        [
            (
                {"file.wirte": within("1h")},
                "constrains 'file.wirte', which no reactor handles; did you mean 'file.write'",
            ),
            ({"file.write": []}, "is no constraint"),
            ({"file.write": "within 1h"}, "is no constraint"),
            ({"file.write": only("calendar home")}, "no calendar 'home'"),
        ],
    )
    def test_what_is_wrong_is_said(self, constraints: Any, fault: str) -> None:
        with pytest.raises(DefinitionError, match=re.escape(fault)):
            Topology("files", [Files], calendars=CALENDARS, constraints=constraints)

    def test_for_all_of_nothing(self) -> None:
        class Inner(Intent, name="file.inner", topic="inner", requires=PUBLIC):
            path: Annotated[str, Key]

        class Inside(Reactor[Log], id="inside"):
            @on
            def inner(self, intent: Inner, state: Log, ctx: Context) -> Effects:
                return None

        with pytest.raises(DefinitionError, match="and that is nothing"):
            Topology("files", [Inside], internal=["inner"], constraints={"*": within("1h")})


class TestDeclarations:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: only("always"),
            lambda: never("always"),
            lambda: only("daily 09:00-17:00 UTC", otherwise="wonder"),  # type: ignore[arg-type]
            lambda: within("soon"),
            lambda: after(datetime(2026, 1, 1)),  # noqa: DTZ001
            lambda: before(datetime(2026, 1, 1)),  # noqa: DTZ001
        ],
    )
    def test_what_is_no_constraint(self, make: object) -> None:
        with pytest.raises(DefinitionError):
            make()  # type: ignore[operator]

    def test_what_is_none_is_refused_where_it_is_declared(self) -> None:
        with pytest.raises(DefinitionError, match="is no constraint"):

            class Odd(Intent, name="file.odd", requires=PUBLIC, constraints="daily 09:00-17:00 UTC"):
                path: Annotated[str, Key]

        bad: Any = 7
        with pytest.raises(DefinitionError, match="handler 'odd': constraints=7"):

            class Odds(Reactor[Log], id="odds"):
                @on(constraints=bad)
                def odd(self, intent: Delete, state: Log, ctx: Context) -> Effects: ...

    def test_a_calendar_that_is_not_there(self) -> None:
        with pytest.raises(DefinitionError, match="no calendar 'office'; did you mean 'offices'"):
            Topology("files", [Files], calendars={"offices": OFFICE})


instants = st.integers(1_772_409_600_000, 1_775_088_000_000)
some = st.lists(
    st.sampled_from(
        [
            only("mon-fri 09:00-17:00 Europe/Berlin"),
            only("calendar office"),
            never("daily 10:00-12:00 UTC"),
            never("wed 00:00-24:00 UTC", otherwise="refuse"),
            after(datetime(2026, 3, 20, tzinfo=UTC)),
            before(datetime(2026, 3, 25, tzinfo=UTC)),
            within("2d"),
        ]
    ),
    min_size=1,
    max_size=4,
)


@given(some, instants, st.none() | st.integers(0, 10 * 86_400_000))
@settings(max_examples=200)
def test_it_is_the_first_time_that_all_allow(constraints: list[Constraint], at: int, left: int | None) -> None:
    deadline = None if left is None else at + left
    horizon = at + 30 * 86_400_000
    found = constrained(constraints, CALENDARS, at_ms=at, happened_ms=at, deadline_ms=deadline, horizon_ms=horizon)

    def allowed(now: int) -> bool:
        return all(one.when is None or one.when.holds(now, CALENDARS) for one in constraints)

    last = min(horizon, horizon if deadline is None else deadline)
    if any(one.within_ms is not None for one in constraints):
        last = min(last, at + 2 * 86_400_000 - 1)
    steps = range(at - at % 900_000 + 900_000, last + 1, 900_000)
    first = at if allowed(at) else next((step for step in steps if allowed(step)), None)
    if isinstance(found, Refusal):
        waits = [one for one in constraints if one.when is not None and not one.waits]
        assert first is None or any(
            not one.when.holds(step, CALENDARS) for one in waits if one.when for step in (at, *steps) if step <= first
        )
    else:
        assert found == first
