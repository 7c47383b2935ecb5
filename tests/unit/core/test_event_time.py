"""The event clock: the minimum over the upstreams, never back, durable; and who is idle is left out."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream import Topology
from pf_stream.core import Limits, Output, SourceRecord, changelog, partition_of, plan
from pf_stream.core.records import Header
from pf_stream.core.watermark import WATERMARK_TYPE, parse_watermark
from pf_stream.security import mint
from pf_stream.testing import Action, Driver
from tests.unit.core.echo import echo
from tests.unit.core.hours import (
    HOUR_MS,
    START,
    Heard,
    Room,
    Rooms,
    Saw,
    Seen,
    Total,
    Totals,
    at,
    hours,
    joined,
    minute_of,
    secretive,
)
from tests.unit.core.kit import KEY, NOW_MS, Bench, Put, boxes, codes, record
from tests.unit.core.reminders import NoteCap, Write, notes

PARTITIONS = 2
SEEN = "hour.seen"


def key_in(partition: int, prefix: str = "k") -> str:
    """A key that lives in that partition."""
    names = (f"{prefix}{number}" for number in range(1000))
    return next(name for name in names if partition_of(name.encode(), PARTITIONS) == partition)


def seen(
    offset: int, minute: float, source: str, said: bytes | None = None, *, number: int = 0, room: str = "r"
) -> SourceRecord:
    """A record of the internal topic, of an event time in minutes, by an upstream lane that says how far it is."""
    headers: list[Header] = [
        ("pf-source", f"{source}:{offset + 1}:0".encode()),
        ("ce_time", at(minute).isoformat().encode()),
    ]
    if said is not None:
        headers.append(("pf-watermark", said))
    return record(offset, Seen(room=room, number=number), None, *headers)


def only(offset: int, source: str, said: bytes) -> SourceRecord:
    """A record that tells a clock and nothing else."""
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", WATERMARK_TYPE),
        ("ce_source", b"/hour"),
        ("ce_id", b"1"),
        ("pf-source", f"{source}:{offset + 1}:0".encode()),
        ("pf-watermark", said),
    ]
    return SourceRecord(offset, NOW_MS, None, b"", headers)


def said(lane: str, minute: float) -> bytes:
    """What a lane says of itself."""
    return f"{lane}:{round(at(minute).timestamp() * 1000)}".encode()


IDLE = Limits(idle_ms=10_000)


def bench(topology: Topology = secretive, group: str = "seen", **more: object) -> Bench:
    return Bench(topology, group, **{"limits": IDLE, **more})  # type: ignore[arg-type]


def clock(lane: Bench) -> float | None:
    return minute_of(lane.lane.timers.event_ms)


class TestMinimum:
    def test_lanes_that_say_nothing_are_as_far_as_their_records(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 5, "up"), topic=SEEN)
        assert clock(lane) == 10
        lane.feed(seen(2, 7, "other"), seen(3, 30, "up"), topic=SEEN)
        assert clock(lane) == 10, "never back, and not on before the other is as far"
        lane.feed(seen(4, 20, "other"), topic=SEEN)
        assert clock(lane) == 20

    def test_a_lane_is_as_far_as_it_says_and_not_as_its_record(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up", said("intents:0", 4)), topic=SEEN)
        assert clock(lane) == 4
        lane.feed(seen(1, 5, "new", said("intents:0", 6)), topic=SEEN)
        assert clock(lane) == 6, "the same lane, after its changelog was lost"

    def test_who_has_no_clock_yet_holds_it(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up", b"intents:0:"), seen(1, 10, "other", said("intents:1", 9)), topic=SEEN)
        assert clock(lane) is None
        lane.feed(seen(2, 10, "up", said("intents:0", 10)), topic=SEEN)
        assert clock(lane) == 9

    def test_declared_lanes_count_before_they_have_spoken(self) -> None:
        lane = bench(hours, partitions=2)
        lane.feed(seen(0, 10, "up", said("intents:0", 10), room=key_in(0)), topic=SEEN)
        assert clock(lane) is None
        lane.feed(only(1, "other", said("intents:1", 3)), topic=SEEN)
        assert clock(lane) == 3

    def test_two_public_topics(self) -> None:
        driver = Driver(joined, partitions=1)
        driver.send(Saw(who="a", room="r"), time=at(10))
        assert clock_of(driver, "intents") is None
        driver.send(Heard(who="a", room="r"), time=at(4))
        assert clock_of(driver, "intents") == 4
        driver.send(Heard(who="a", room="r"), time=at(40))
        assert clock_of(driver, "intents") == 10

    def test_a_misplaced_key_moves_nothing(self) -> None:
        """It came by a longer way: the others of its topic may be ahead of it, or behind."""
        driver = Driver(hours, partitions=PARTITIONS)
        driver.send(Saw(who=key_in(1), room="r"), time=at(10), partition=0)
        assert clock_of(driver, "intents", 0) == 10
        assert clock_of(driver, "intents", 1) is None

    def test_its_own_group_is_not_waited_for(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up", said("seen:1", 4)), seen(1, 8, "other"), topic=SEEN)
        assert clock(lane) == 8

    def test_a_dead_letter_that_is_sent_again_is_late_and_nobody(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 2, "replay-1f"), seen(2, 20, "up"), topic=SEEN)
        assert clock(lane) == 20

    @pytest.mark.parametrize(
        "bad", [b"", b"x", b"intents:0:1e9", b"intents:0:\xff", b"intents::5", b"a:0:" + b"9" * 400]
    )
    def test_what_is_malformed_says_nothing(self, bad: bytes) -> None:
        lane = bench()
        assert parse_watermark(bad) is None
        lane.feed(only(0, "up", bad), seen(1, 10, "up", bad), topic=SEEN)
        assert clock(lane) == 10
        assert codes([lane.commit()]) == []

    def test_a_repeat_says_nothing(self) -> None:
        lane = bench()
        lane.feed(seen(5, 10, "up", said("intents:0", 10)), topic=SEEN)
        lane.feed(SourceRecord(6, NOW_MS, None, b"", only(2, "up", said("intents:0", 50)).headers), topic=SEEN)
        assert clock(lane) == 10


def clock_of(driver: Driver, group: str, partition: int = 0) -> float | None:
    (lane,) = (one for one in driver._lanes if one.plan.name == group and one.partition == partition)
    return minute_of(lane.lane.timers.event_ms)


class TestWhoSends:
    """What a client writes on a public topic, and when that counts."""

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            (None, "now"),
            (b"", "now"),
            (b"yesterday", "now"),
            (b"2013-01-01T00:10:00", "now"),
            (b"9999-12-31T23:59:59Z", "now"),
            (b"2026-01-02T00:00:00Z", "now"),
            (b"x" * 10_000, "now"),
            (b"1" * 400, "now"),
            (b"-1", "now"),
            (b"-0001-01-01T00:00:00Z", "now"),
            (b"0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
            (b"1905-06-30T00:00:00Z", "1905-06-30T00:00:00+00:00"),
        ],
    )
    def test_any_time(self, raw: bytes | None, expected: str) -> None:
        """What is no time counts as the append; nobody is from the future."""
        driver = Driver(hours, partitions=1)
        intent = Saw(who="a", room="r")
        headers = [header for header in record(0, intent, None).headers if header[0] != "ce_time"]
        if raw is not None:
            headers.append(("ce_time", raw))
        driver.send_raw("intents", key=b"a", value=intent.__intent__.encode(intent), headers=headers)
        expected_time = driver.now if expected == "now" else datetime.fromisoformat(expected)
        for group in ("intents", "seen"):
            (lane,) = (one for one in driver._lanes if one.plan.name == group)
            assert lane.lane.timers.event_ms == round(expected_time.timestamp() * 1000)

    def test_a_watermark_on_a_public_topic_is_nothing(self) -> None:
        driver = Driver(hours, partitions=1)
        driver.send(Saw(who="a", room="r"), time=at(10), headers=[("pf-watermark", said("intents:0", 50))])
        assert clock_of(driver, "intents") == clock_of(driver, "seen") == 10
        driver.send_raw("intents", key=None, value=b"", headers=only(0, "up", said("intents:0", 50)).headers)
        assert clock_of(driver, "intents") == 10
        assert [letter.code for letter in driver.dead_letters()] == ["unknown_type"]


class TestDeclared:
    def test_another_type_is_a_bad_effect(self) -> None:
        driver = Driver(hours, partitions=1)
        driver.send(Saw(who="a", room="r", stray=True), time=at(10))
        (letter,) = driver.dead_letters()
        assert letter.code == "bad_effect"
        assert "emits=[...]" in letter.message

    def test_who_feeds_it_keeps_a_clock_too(self) -> None:
        plans = {group.name: group for group in plan(hours, 2)}
        assert [plans[name].event_time for name in ("intents", "seen", "hours")] == [True] * 3
        assert plans["intents"].targets == ("hour.seen",)
        (source,) = plans["seen"].sources
        assert source.upstreams == ("intents:0", "intents:1")
        assert plans["seen"].feedback == {"seen", "hours"}
        assert plans["hours"].feedback == {"hours"}

    def test_nothing_is_expected_of_who_does_not_say(self) -> None:
        plans = {group.name: group for group in plan(secretive, 2)}
        assert not plans["intents"].event_time
        assert [source.upstreams for source in plans["seen"].sources] == [()]

    def test_what_goes_round_does_not_wait_for_itself(self) -> None:
        """``Echo`` answers ``Rooms``, which read both: whoever comes first from a public topic waits for no answer."""
        plans = {group.name: group for group in plan(echo, 1)}
        assert plans["calls"].feedback == {"calls"}
        assert plans["intents"].feedback == {"intents", "calls"}
        driver = Driver(echo, partitions=1)
        driver.send(Saw(who="a", room="r"), time=at(10))
        assert clock_of(driver, "intents") == clock_of(driver, "calls") == 10


class TestIdle:
    def test_who_is_silent_is_left_out_until_it_speaks(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 1, "other"), topic=SEEN)
        lane.feed(seen(2, 61, "up"), topic=SEEN, now_ms=NOW_MS + 9_000)
        lane.commit()
        assert clock(lane) == 10
        lane.lane.rest(NOW_MS + 9_999, NOW_MS + 9_999)
        assert clock(lane) == 10
        lane.commit()
        assert lane.lane.next_due_ms == NOW_MS + 10_000, "an hour is over then"
        lane.lane.rest(NOW_MS + 10_000, NOW_MS + 10_000)
        assert clock(lane) == 61
        assert lane.lane.is_due(NOW_MS + 10_000)
        lane.feed(seen(3, 62, "other"), seen(4, 99, "up"), topic=SEEN, now_ms=NOW_MS + 11_000)
        assert clock(lane) == 61, "its timer is due: nothing goes on before it has fired"
        assert lane.lane.fire(NOW_MS + 11_000)
        lane.feed(seen(3, 62, "other"), seen(4, 99, "up"), topic=SEEN, now_ms=NOW_MS + 11_000)
        assert clock(lane) == 62

    def test_what_waits_to_be_read_is_no_silence(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 1, "other"), topic=SEEN)
        lane.feed(seen(2, 61, "up"), topic=SEEN, now_ms=NOW_MS + 30_000)
        assert clock(lane) == 10
        lane.lane.rest(NOW_MS + 31_000, None)
        assert clock(lane) == 10, "there may be more to read"
        lane.lane.rest(NOW_MS + 31_000, NOW_MS + 9_000)
        assert clock(lane) == 10, "it was silent for nine seconds when all was read"

    def test_a_lane_that_nothing_waits_for_is_not_woken(self) -> None:
        lane = bench(hours, partitions=2, partition=1)
        lane.feed(only(0, "up", said("intents:0", 5)), topic=SEEN)
        lane.lane.rest(NOW_MS, NOW_MS)
        assert lane.lane.next_due_ms is not None, "it has readers, which are told"
        lane = bench(hours, "hours", partitions=2, partition=1)
        lane.feed(only(0, "up", said("seen:0", 5)), topic="hour.hours")
        lane.lane.rest(NOW_MS, NOW_MS)
        assert lane.lane.next_due_ms is None

    def test_all_are_idle(self) -> None:
        """Whoever is left out last, and also if all begin to be silent at once, as after a crash."""
        for order in (("up", "other"), ("other", "up")):
            minutes = {"up": 50, "other": 10}
            lane = bench()
            for number, name in enumerate(order):
                lane.feed(seen(number, minutes[name], name), topic=SEEN, now_ms=NOW_MS + 1_000 * number)
            for now_ms in range(NOW_MS + 5_000, NOW_MS + 12_000, 1_000):
                lane.lane.rest(now_ms, now_ms)
            assert clock(lane) == 50
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 50, "other"), topic=SEEN)
        lane.commit()
        again = bench(changelog=lane.changelog)
        again.lane.rest(NOW_MS, NOW_MS)
        assert clock(again) == 10
        again.lane.rest(NOW_MS + 10_000, NOW_MS + 10_000)
        assert clock(again) == 50
        again.feed(seen(2, 20, "up"), seen(3, 55, "up"), topic=SEEN, now_ms=NOW_MS + 11_000)
        assert clock(again) == 55, "one speaks again, and is the only one"

    def test_a_declared_one_speaks_again_when_all_are_idle(self) -> None:
        lane = bench(hours, partitions=2)
        lane.feed(only(0, "up", said("intents:0", 10)), only(1, "other", said("intents:1", 50)), topic=SEEN)
        lane.lane.rest(NOW_MS + 10_000, NOW_MS + 10_000)
        lane.feed(only(2, "up", said("intents:0", 20)), only(3, "up", said("intents:0", 55)), topic=SEEN)
        assert clock(lane) == 55

    def test_a_lane_that_was_closed_for_a_while_counts_anew(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 50, "other"), topic=SEEN)
        lane.lane.rest(NOW_MS, NOW_MS)
        lane.lane.reopened()
        for second in (30, 39):
            lane.lane.rest(NOW_MS + 1_000 * second, NOW_MS + 1_000 * second)
            assert clock(lane) == 10
        lane.lane.rest(NOW_MS + 40_000, NOW_MS + 40_000)
        assert clock(lane) == 50

    def test_a_wall_clock_that_is_set_back_keeps_nobody(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 50, "other"), topic=SEEN, now_ms=NOW_MS + HOUR_MS)
        for seconds in (0, 10):
            lane.lane.rest(NOW_MS + 1_000 * seconds, NOW_MS + 1_000 * seconds)
        assert clock(lane) == 50

    def test_a_quiet_topology_comes_to_an_end(self) -> None:
        """One lane speaks, the others never do: hours close when they are idle, by nothing but time."""
        driver = Driver(hours, partitions=3, limits=IDLE)
        driver.send(Saw(who="a", room="r", number=1), time=at(10))
        driver.send(Saw(who="a", room="r", number=2), time=at(70))
        driver.advance(9)
        assert state(driver).closed == {}
        driver.advance(25)
        first = START.timestamp() // 3600
        assert state(driver).closed == {first: [1]}
        driver.advance(20)
        total = driver.state(Totals, "r")
        assert total is not None
        assert (total.hours, total.late) == ({first: [1]}, [])


def state(driver: Driver, room: str = "r") -> Room:
    return driver.state(Rooms, room) or Room()


class TestDurable:
    def test_how_far_each_was_survives(self) -> None:
        """Else the first one to be heard would move the clock."""
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 5, "other", said("intents:1", 5)), topic=SEEN)
        unit = lane.commit()
        stored = {key: value for key, value in unit.entries if key[1:2] == b"c"}
        assert stored.keys() == {changelog.upstream_key(SEEN, "up"), changelog.upstream_key(SEEN, "intents:1")}
        again = bench(changelog=lane.changelog)
        again.feed(seen(2, 50, "up"), topic=SEEN)
        assert clock(again) == 10
        assert b"c" not in {key[1:2] for key, _ in lane.commit().entries}, "nothing moved"

    def test_a_unit_that_is_taken_back(self) -> None:
        lane = bench(limits=replace(IDLE, unit_bytes_hard=5_500))
        lane.feed(seen(0, 10, "up"), topic=SEEN)
        lane.commit()
        lane.feed(seen(1, 40, "up"), seen(2, 30, "new", number=1, room="x" * 2_000), topic=SEEN)
        lane.lane.seal()
        assert clock(lane) == 10
        units = lane.commit_all(seen(1, 40, "up"), seen(2, 30, "new", room="x" * 2_000), topic=SEEN)
        assert codes(units) == [("unit_too_large", 2)]
        assert clock(lane) == 40, "who was refused alone was never heard"

    def test_who_is_idle_and_not_declared_is_forgotten(self) -> None:
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 5, "gone"), topic=SEEN)
        lane.commit()
        lane.feed(seen(2, 20, "up"), topic=SEEN, now_ms=NOW_MS + 9_000)
        lane.lane.rest(NOW_MS + 10_000, NOW_MS + 10_000)
        entries = dict(lane.commit().entries)
        assert entries[changelog.upstream_key(SEEN, "gone")] is None
        again = bench(changelog=lane.changelog)
        again.feed(seen(3, 30, "up"), topic=SEEN)
        assert clock(again) == 30, "it is waited for no more"

    def test_a_changelog_of_before(self) -> None:
        """It has the clock, and nothing of upstreams."""
        old = [(changelog.EVENT_CLOCK, changelog.EVENT_CLOCK_VALUE.pack(round(at(20).timestamp() * 1000)))]
        lane = bench(changelog=old)
        lane.feed(seen(0, 10, "up"), topic=SEEN)
        assert clock(lane) == 20
        lane.feed(seen(1, 30, "up"), topic=SEEN)
        assert clock(lane) == 30

    def test_a_timer_without_a_clock(self) -> None:
        """It was set by a timer of the wall clock, before anything was heard."""
        lane = Bench(notes)
        token = mint(KEY, subject="ann", audience="note", capabilities=[NoteCap.own("/**")], now_ms=NOW_MS)
        times: list[Header] = [("ce_time", at(minute).isoformat().encode()) for minute in (0, 61)]
        lane.feed(record(0, Write(note="n", after=3600, clock="event"), token, times[0]), topic="note.intents")
        lane.commit()
        kept = [entry for entry in lane.changelog if entry[0][1:2] not in {b"e", b"c"}]
        again = Bench(notes, changelog=kept)
        assert not again.feed(record(1, Write(note="n"), token, times[1]), topic="note.intents")
        assert again.lane.is_due(NOW_MS)

    def test_a_clock_that_was_deleted(self) -> None:
        """As a reset does, so that what is read again is not late."""
        lane = bench()
        lane.feed(seen(0, 10, "up"), seen(1, 5, "other"), topic=SEEN)
        unit = lane.commit()
        gone = [(key, None) for key, _ in unit.entries if key[1:2] in {b"e", b"c"}]
        again = bench(changelog=[*lane.changelog, *gone])
        assert clock(again) is None
        again.feed(seen(2, 1, "new"), topic=SEEN)
        assert clock(again) == 1


class TestTold:
    """What a lane writes for those downstream."""

    def told(self, lane: Bench) -> list[tuple[str, int | None, float | None]]:
        """What the next unit's records say: of which kind each is, for which partition, and the minute."""
        found = []
        for output in lane.commit().outputs:
            assert isinstance(output, Output)
            headers = dict(output.headers)
            what = parse_watermark(headers.get("pf-watermark"))
            kind = "only" if headers["ce_type"] == WATERMARK_TYPE else "record"
            found.append((kind, output.partition, None if what is None else minute_of(what.time_ms)))
        return found

    def saw(self, offset: int, minute: float) -> SourceRecord:
        time: Header = ("ce_time", at(minute).isoformat().encode())
        return record(offset, Saw(who="a", room="r"), None, time)

    def test_records_and_at_times_all_partitions(self) -> None:
        lane = Bench(hours, "intents", partitions=2, partition=partition_of(b"a", 2), limits=IDLE)
        lane.feed(self.saw(0, 10), topic="hour.intents")
        assert self.told(lane) == [("record", None, 10), ("only", 0, 10), ("only", 1, 10)]
        lane.feed(self.saw(1, 20), topic="hour.intents", now_ms=NOW_MS + 199)
        assert self.told(lane) == [("record", None, 20)]
        assert lane.lane.next_due_ms == NOW_MS + 200
        lane.lane.rest(NOW_MS + 199, None)
        assert self.told(lane) == []
        lane.lane.rest(NOW_MS + 200, None)
        assert lane.lane.has_work
        assert self.told(lane) == [("only", 0, 20), ("only", 1, 20)]
        lane.feed(self.saw(2, 15), topic="hour.intents", now_ms=NOW_MS + 900)
        assert self.told(lane) == [("record", None, 20)], "its clock has not moved"
        lane.lane.rest(NOW_MS + 2_699, NOW_MS + 2_699)
        assert lane.lane.next_due_ms == NOW_MS + 2_700
        lane.lane.rest(NOW_MS + 2_700, NOW_MS + 2_700)
        assert self.told(lane) == [("only", 0, 20), ("only", 1, 20)], (
            "while it waits for somebody it is not idle itself"
        )
        lane.lane.rest(NOW_MS + 20_000, NOW_MS + 20_000)
        assert self.told(lane) == []
        assert lane.lane.next_due_ms is None

    def test_what_a_timer_causes_is_before_what_made_it_due(self) -> None:
        """Else the first of many hours that end at once would make the others late."""
        lane = bench()
        lane.feed(seen(0, 10, "up", number=1), seen(1, 70, "up", number=2), topic=SEEN)
        lane.feed(seen(1, 70, "up", number=2), seen(2, 700, "up"), topic=SEEN)
        assert lane.lane.fire(NOW_MS)
        (kind, _, minute), *_ = self.told(lane)
        assert kind == "record"
        assert minute is not None
        assert 59.99 < minute < 60
        assert minute_of(lane.lane.timers.event_ms) == 70

    def test_nobody_is_told_where_nobody_asks(self) -> None:
        lane = Bench(boxes, "intents")
        lane.feed(record(0, Put(box="b", item="x")))
        unit = lane.commit()
        assert all("pf-watermark" not in dict(output.headers) for output in unit.outputs)
        assert {key[1:2] for key, _ in unit.entries}.isdisjoint({b"e", b"c"})

    def test_a_newer_workers_watermark_does_not_stop_a_topology_without_clocks(self) -> None:
        lane = Bench(boxes, "moves")
        lane.feed(only(0, "up", said("intents:0", 5)), topic="box.moves")
        unit = lane.commit()
        assert (codes([unit]), unit.positions["box.moves"]) == ([], 1)
        assert b"c" not in {key[1:2] for key, _ in unit.entries}


minutes = st.integers(0, 400)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), minutes, st.sampled_from([0, 0, 0, 0.05, 0.3])), max_size=20
    ),
    crash=st.sampled_from([0, 5, 11]),
)
def test_nothing_is_decided_too_early(seed: int, steps: list[tuple[int, int, int, float]], crash: int) -> None:
    """Whoever sends in the order of time is never late, by however many lanes it comes, in two stages and over crashes."""
    driver = Driver(hours, partitions=3, seed=seed, limits=Limits(unit_records=4, poison_attempts=1 << 30))
    actions = 0

    def misfortune(action: Action) -> None:
        nonlocal actions
        actions += 1
        if crash and actions % crash == 0 and actions < 60:
            driver.crash(action.group, action.partition)

    driver.after_action = misfortune
    expected: dict[str, dict[int, list[int]]] = {}
    furthest: dict[int, int] = {}
    for number, (lane, room, ahead, pause) in enumerate(steps):
        # Each sender's times ascend; the senders are as far apart as they like.
        minute = furthest[lane] = furthest.get(lane, 0) + ahead // 8
        who = next(name for name in map(str, range(99)) if partition_of(name.encode(), 3) == lane)
        driver.send(Saw(who=who, room=f"r{room}", number=number), time=at(minute))
        hour = (round(START.timestamp() * 1000) + minute * 60_000) // HOUR_MS
        expected.setdefault(f"r{room}", {}).setdefault(hour, []).append(number)
        driver.advance(pause)
    driver.after_action = None
    # No sender was silent for long. Now all are, and everything that is over by what the furthest said comes to an end.
    driver.advance(60)
    last = max(furthest.values(), default=0)
    now_hour = (round(START.timestamp() * 1000) + last * 60_000) // HOUR_MS
    for name, by_hour in expected.items():
        found = state(driver, name)
        assert found.late == []
        assert {hour: sorted(numbers) for hour, numbers in found.closed.items()} == {
            hour: numbers for hour, numbers in by_hour.items() if hour < now_hour
        }
        total = driver.state(Totals, name) or Total()
        assert total.late == []
        assert total.hours == {hour: numbers for hour, numbers in by_hour.items() if hour < now_hour}
