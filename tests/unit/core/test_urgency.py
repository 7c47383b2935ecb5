"""Of what is due at once, what comes first: by deadline, then by the time at which it was due."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream import PUBLIC, Context, Effects, Intent, Key, Reactor, Schedule, State, Topology, on
from pf_stream.core import SourceRecord
from pf_stream.core.timers import WALL, Timer, Timers, encode_timer
from pf_stream.testing import Driver
from tests.unit.core.kit import NOW_MS

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def timer(due_ms: int, deadline_ms: int | None) -> bytes:
    headers: tuple[tuple[str, bytes], ...] = (("ce_type", b"x.v1"),)
    if deadline_ms is not None:
        text = datetime.fromtimestamp(deadline_ms / 1000, UTC).isoformat(timespec="milliseconds")
        headers += (("pf-deadline", text.encode()),)
    return encode_timer(Timer(due_ms, WALL, "t", SourceRecord(0, 0, b"k", b"{}", headers), 0, scheduled=True, failed=0))


def urgency(deadline_ms: int | None, now_ms: int) -> int:
    """The class, from the words of the declaration."""
    if deadline_ms is None:
        return 4
    left = deadline_ms - now_ms
    return 0 if left < 5 * MINUTE else 1 if left < HOUR else 2 if left < DAY else 3


def drain(timers: Timers, now_ms: int) -> list[bytes]:
    taken = []
    while (due := timers.take_due(now_ms)) is not None:
        taken.append(due[0])
    return taken


deadlines = st.none() | st.sampled_from([0, 5 * MINUTE - 1, 5 * MINUTE, HOUR - 1, HOUR, DAY - 1, DAY, 9 * DAY])
drawn = st.lists(st.tuples(st.integers(0, 5), deadlines), max_size=40)


@given(drawn, st.integers(0, 3), st.booleans())
@settings(max_examples=200)
def test_the_order_is_that_of_the_classes(rows: list[tuple[int, int | None]], split: int, recovered: bool) -> None:
    waiting = {
        b"%03d" % index: (NOW_MS + due, None if left is None else NOW_MS + left)
        for index, (due, left) in enumerate(rows)
    }
    timers = Timers()
    for key, (due_ms, deadline_ms) in waiting.items():
        if recovered:
            timers.restore(key, timer(due_ms, deadline_ms))
        else:
            timers.set(key, timer(due_ms, deadline_ms))
    timers.begin()
    for now_ms in (NOW_MS + split, NOW_MS + 5, NOW_MS + 5 + MINUTE):
        due = {key: row for key, row in waiting.items() if row[0] <= now_ms}
        expected = sorted(due, key=lambda key: (urgency(waiting[key][1], now_ms), waiting[key][0], key))
        assert timers.is_due(now_ms) == bool(due)
        assert drain(timers, now_ms) == expected
        for key in due:
            del waiting[key]
        assert timers.next_due_ms(WALL) == min((row[0] for row in waiting.values()), default=None)
    assert not waiting


def test_what_waits_becomes_more_urgent() -> None:
    timers = Timers()
    timers.set(b"low", timer(NOW_MS, NOW_MS + 25 * HOUR))
    timers.set(b"medium", timer(NOW_MS + 1, NOW_MS + 23 * HOUR))
    timers.set(b"normal", timer(NOW_MS, None))
    assert timers.take_due(NOW_MS + 1) is not None  # medium
    later = NOW_MS + 25 * HOUR - MINUTE
    timers.set(b"high", timer(NOW_MS, later + HOUR - 1))
    assert drain(timers, later) == [b"low", b"high", b"normal"]


def test_one_that_was_replaced_or_cancelled_does_not_come() -> None:
    timers = Timers()
    timers.set(b"a", timer(NOW_MS, NOW_MS + MINUTE))
    timers.set(b"b", timer(NOW_MS, NOW_MS + MINUTE))
    timers.set(b"c", timer(NOW_MS, NOW_MS + MINUTE))
    timers.seal()
    timers.set(b"a", timer(NOW_MS + 10, NOW_MS + MINUTE))
    timers.cancel(b"b")
    assert drain(timers, NOW_MS) == [b"c"]
    timers.rewind()
    assert drain(timers, NOW_MS) == [b"a", b"b", b"c"]
    assert timers.next_due_ms(WALL) is None


def test_a_clock_that_is_put_back_makes_nothing_early() -> None:
    timers = Timers()
    timers.set(b"a", timer(NOW_MS, NOW_MS + HOUR))
    timers.set(b"b", timer(NOW_MS + 1, NOW_MS + HOUR))
    assert timers.take_due(NOW_MS + 1) is not None
    assert timers.take_due(NOW_MS) is None
    assert timers.next_due_ms(WALL) == NOW_MS + 1
    assert drain(timers, NOW_MS + 1) == [b"b"]


def test_a_deadline_that_is_none_is_none() -> None:
    headers = (("pf-deadline", b"soon"), ("x", b"pf-deadline"))
    record = SourceRecord(0, 0, b"k", b"{}", headers)
    timers = Timers()
    timers.set(b"odd", encode_timer(Timer(NOW_MS, WALL, "t", record, 0, scheduled=True, failed=0)))
    timers.set(b"urgent", timer(NOW_MS, NOW_MS + 9 * DAY))
    assert drain(timers, NOW_MS) == [b"urgent", b"odd"]


class Put(Intent, name="urgent.put", requires=PUBLIC):
    """Something to be done in an hour."""

    key: Annotated[str, Key]
    left_s: int | None = None


class Done(Intent, name="urgent.done", requires=PUBLIC):
    """It is done."""

    key: Annotated[str, Key]
    left_s: int | None


class Log(State):
    """In which order."""

    left: list[int | None] = dataclasses.field(default_factory=list)


class Worker(Reactor[Log], id="worker"):
    """Puts off."""

    @on
    def put(self, intent: Put, state: Log, ctx: Context) -> Effects:
        hour = ctx.now + timedelta(hours=1)
        deadline = None if intent.left_s is None else hour + timedelta(seconds=intent.left_s)
        return Schedule(Done(key=intent.key, left_s=intent.left_s), at=hour, deadline=deadline)

    @on
    def done(self, intent: Done, state: Log, ctx: Context) -> Effects:
        state.left.append(intent.left_s)
        return None


@pytest.mark.parametrize("crash", [False, True])
def test_what_is_scheduled_may_have_a_deadline(crash: bool) -> None:
    driver = Driver(Topology("urgent", [Worker]))
    with driver.paused():
        for left_s in (None, 90_000, 7_200, 600, 60, -1):
            driver.send(Put(key="k", left_s=left_s))
    if crash:
        driver.crash()
    driver.advance(3600)
    assert driver.state(Worker, "k") == Log([60, 600, 7_200, 90_000, None])
    assert [letter.code for letter in driver.dead_letters()] == ["deadline_passed"]


def test_intents_that_were_put_aside_too() -> None:
    driver = Driver(Topology("urgent", [Worker]))
    at = driver.now + timedelta(hours=1)
    for left_s in (None, 7_200, 60):
        deadline = None if left_s is None else at + timedelta(seconds=left_s)
        driver.send(Done(key="k", left_s=left_s), not_before=at, deadline=deadline)
    driver.advance(3600)
    assert driver.state(Worker, "k") == Log([60, 7_200, None])
