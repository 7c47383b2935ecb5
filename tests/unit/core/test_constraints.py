"""When intents may be handled: what waits, until when, and what is refused. The driver's clock stands where it is told."""

import dataclasses
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
from pf_stream.model.constraint import Constraint, after, before, never, only, within
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
