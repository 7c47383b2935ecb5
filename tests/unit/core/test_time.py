"""When a token must be valid, and what deadlines mean."""

from datetime import timedelta

import pytest

from pf_stream.core.records import APPEND_TIME, CREATE_TIME
from pf_stream.security import mint
from pf_stream.testing import Driver
from tests.unit.core.kit import KEY, NOW_MS, Bench, Box, BoxCap, Boxes, Put, Room, Rooms, boxes, codes, record

HOUR_MS = 3_600_000


def test_a_backlog_of_two_hours_does_not_expire() -> None:
    """Nor on the second hop, whose record is older than its token's end when it is taken."""
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"), lifetime_s=60)
    with driver.paused():
        for item in "abc":
            driver.send(Put(box="b", item=item), token)
            driver.advance(2)
        driver.advance(timedelta(hours=2))
    assert driver.dead_letters() == []
    assert driver.state(Boxes, "b") == Box(items=["a", "b", "c"], weight=3)
    assert driver.state(Rooms, "attic") == Room(items=["a", "b", "c"])
    assert [moved.timestamp_ms - NOW_MS for moved in driver.outputs("moves")] == [0, 2_000, 4_000]


def test_what_is_appended_after_the_end_is_refused() -> None:
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"), lifetime_s=60)
    driver.advance(59.999)
    driver.send(Put(box="b", item="in time"), token)
    driver.advance(0.001)
    driver.send(Put(box="b", item="late"), token)
    assert driver.state(Boxes, "b") == Box(items=["in time"], weight=1)
    assert [letter.code for letter in driver.dead_letters()] == ["token_expired"]


def test_what_is_appended_before_the_start_is_refused_even_if_it_waits() -> None:
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"), not_before=driver.now + timedelta(seconds=10))
    with driver.paused():
        driver.send(Put(box="b"), token)
        driver.advance(11)
        driver.send(Put(box="b", item="in time"), token)
    assert [letter.code for letter in driver.dead_letters()] == ["token_not_yet_valid"]
    assert driver.state(Boxes, "b") == Box(items=["in time"], weight=1)


@pytest.mark.parametrize(("timestamp_type", "expected"), [(APPEND_TIME, []), (CREATE_TIME, [("token_expired", 0)])])
def test_a_producers_clock_is_not_believed(timestamp_type: int, expected: list[tuple[str, int]]) -> None:
    """On a topic with CreateTime the time of processing counts: whoever back-dates gains nothing."""
    token = mint(KEY, subject="ann", audience="box", capabilities=[BoxCap.put("/**")], now_ms=NOW_MS, lifetime_s=60)
    bench = Bench()
    bench.feed(
        record(0, Put(box="b"), token, timestamp=NOW_MS + 1, timestamp_type=timestamp_type), now_ms=NOW_MS + HOUR_MS
    )
    assert codes([bench.commit()]) == expected


@pytest.mark.parametrize("hours", [-24, -1, 0, 1])
def test_a_workers_clock_is_not_asked_where_the_broker_dates(hours: int) -> None:
    """Neither one that is set back nor one that is ahead changes who is accepted, nor do decisions made before."""
    token = mint(KEY, subject="ann", audience="box", capabilities=[BoxCap.put("/**")], now_ms=NOW_MS, lifetime_s=60)
    bench = Bench()
    bench.feed(record(0, Put(box="b"), token, timestamp=NOW_MS + 1), now_ms=NOW_MS + 1)
    bench.feed(
        record(1, Put(box="b"), token, timestamp=NOW_MS + 60_000),
        record(2, Put(box="b"), token, timestamp=NOW_MS + 59_999),
        now_ms=NOW_MS + hours * HOUR_MS,
    )
    assert codes([bench.commit()]) == [("token_expired", 1)]
    assert bench.state(Box, "boxes", "b") == Box(items=["", ""], weight=2)


def test_where_the_producer_dates_a_workers_clock_that_is_set_back_is_what_counts() -> None:
    """Which is why public topics have LogAppendTime."""
    token = mint(KEY, subject="ann", audience="box", capabilities=[BoxCap.put("/**")], now_ms=NOW_MS, lifetime_s=60)
    bench = Bench()
    for offset, now_ms in enumerate((NOW_MS + HOUR_MS, NOW_MS + 59_999)):
        bench.feed(record(offset, Put(box="b"), token, timestamp=NOW_MS, timestamp_type=CREATE_TIME), now_ms=now_ms)
    assert codes([bench.commit()]) == [("token_expired", 0)]


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (2**63 - 1, b"9999-12-31T23:59:59.000+00:00"),
        (253_402_300_800_000, b"9999-12-31T23:59:59.000+00:00"),
        (-1, b"1969-12-31T23:59:59.999+00:00"),
        (-(2**63), b"0001-01-01T00:00:00.000+00:00"),
    ],
)
def test_a_timestamp_that_no_calendar_has_is_no_failure_of_the_handler(timestamp: int, expected: bytes) -> None:
    bench = Bench()
    bench.feed(record(0, Put(box="b"), timestamp=timestamp, timestamp_type=CREATE_TIME))
    unit = bench.commit()
    assert codes([unit]) == []
    (moved,) = unit.outputs
    assert dict(moved.headers)["ce_time"] == expected


def test_one_decision_is_remembered_and_the_interval_is_not() -> None:
    """The same token and resource, before and after its end."""
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"), lifetime_s=60)
    for _ in range(3):
        driver.send(Put(box="b"), token)
    driver.advance(60)
    driver.send(Put(box="b"), token)
    assert [letter.code for letter in driver.dead_letters()] == ["token_expired"]


class TestDeadline:
    def test_it_holds_to_the_millisecond(self) -> None:
        driver = Driver(boxes)
        token = driver.context(BoxCap.put("/**"))
        deadline = driver.now + timedelta(seconds=5)
        with driver.paused():
            driver.send(Put(box="b", item="a"), token, deadline=deadline)
            driver.advance(5)
        with driver.paused():
            driver.send(Put(box="b", item="b"), token, deadline=deadline)
            driver.advance(0.001)
        assert driver.state(Boxes, "b") == Box(items=["a"], weight=1)
        assert [letter.code for letter in driver.dead_letters()] == ["deadline_passed"]

    def test_not_before_holds_to_the_millisecond(self) -> None:
        driver = Driver(boxes)
        token = driver.context(BoxCap.put("/**"))
        driver.send(Put(box="b", item="a"), token, not_before=driver.now)
        driver.send(Put(box="b", item="b"), token, not_before=driver.now + timedelta(milliseconds=1))
        assert driver.state(Boxes, "b") == Box(items=["a"], weight=1)
        driver.advance(0.001)
        assert driver.state(Boxes, "b") == Box(items=["a", "b"], weight=2)
        assert not driver.dead_letters()

    def test_the_unauthorised_do_not_learn_of_it(self) -> None:
        driver = Driver(boxes)
        driver.send(Put(box="b"), driver.context(), deadline=driver.now - timedelta(1))
        assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"]
