"""Timers: set, cancelled, fired once and never early, by either clock, over crashes; intents that are put aside."""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pf_stream.core import Limits, SourceRecord, partition_of
from pf_stream.core.changelog import TIMER_HEADER_NAMES, TIMER_HEADERS
from pf_stream.core.timers import EVENT, WALL, Timer, Timers, decode_timer, encode_timer
from pf_stream.security import mint
from pf_stream.testing import Driver
from tests.unit.core.kit import KEY, NOW_MS, Bench, codes, record
from tests.unit.core.reminders import Hearers, Note, NoteCap, Notes, Write, notes


@pytest.fixture(params=["calm", "crashes"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A driver; the second kind loses its memory after every commit."""
    driver = Driver(notes, partitions=3, limits=Limits(poison_attempts=1 << 30))
    if request.param == "crashes":
        driver.after_action = lambda action: (
            driver.crash(action.group, action.partition) if action.kind == "commit" else None
        )
    yield driver
    assert driver.dead_letters() == []


def log(driver: Driver, note: str = "n") -> list[str]:
    state = driver.state(Notes, note)
    return [] if state is None else state.log


def heard(driver: Driver, note: str = "n") -> list[str]:
    state = driver.state(Hearers, note)
    return [] if state is None else state.log


def token(driver: Driver) -> str:
    return driver.context(NoteCap.own("/**"), subject="ann", lifetime_s=600)


class TestWall:
    def test_it_fires_once_at_its_time_and_what_it_emits_arrives(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=60), token(driver))
        driver.advance(59.999)
        assert log(driver) == ["write a"]
        driver.advance(0.001)
        assert log(driver) == ["write a", "remind a late 0 by ann"]
        driver.advance(3600)
        assert log(driver) == ["write a", "remind a late 0 by ann"]
        assert heard(driver) == ["a"]

    def test_a_worker_that_was_away_fires_late_and_says_so(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=60), token(driver))
        with driver.paused():
            driver.advance(90)
        assert log(driver) == ["write a", "remind a late 30000 by ann"]

    def test_at_a_time_in_any_zone(self, driver: Driver) -> None:
        at = driver.now.astimezone(timezone(timedelta(hours=-7))) + timedelta(seconds=5)
        driver.send(Write(note="n", text="a", at=at), token(driver))
        driver.advance(4.999)
        assert len(log(driver)) == 1
        driver.advance(0.001)
        assert len(log(driver)) == 2

    def test_at_a_time_that_is_over(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", at=driver.now - timedelta(seconds=5)), token(driver))
        assert log(driver) == ["write a", "remind a late 5000 by ann"]

    def test_those_of_one_time_and_of_many(self, driver: Driver) -> None:
        for second in (3, 1, 2, 2):
            driver.send(Write(note="n", text=str(second), after=second), token(driver))
        driver.advance(10)
        assert [line for line in log(driver) if line.startswith("remind")] == [
            f"remind {second} late 0 by ann" for second in (1, 2, 2, 3)
        ]

    def test_one_that_sets_the_next(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="tick", after=10, again=3), token(driver))
        driver.advance(100)
        assert log(driver) == ["write tick", *["remind tick late 0 by ann"] * 4]
        assert heard(driver) == ["tick"] * 4

    def test_the_clock_set_back_fires_nothing_early(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=60), token(driver))
        driver.advance(-3600)
        driver.advance(3600 + 59.999)
        assert len(log(driver)) == 1
        driver.advance(0.001)
        assert len(log(driver)) == 2

    def test_the_clock_set_forward_a_day_fires_what_is_due_then_once_and_in_order(self, driver: Driver) -> None:
        for second in (86_000, 3_600, 60, 90_000):
            driver.send(Write(note="n", text=str(second), after=second), token(driver))
        driver.clock.advance(86_400)
        driver.advance(0)
        fired = [
            "remind 60 late 86340000 by ann",
            "remind 3600 late 82800000 by ann",
            "remind 86000 late 400000 by ann",
        ]
        assert log(driver)[4:] == fired
        driver.clock.advance(-86_400)
        driver.advance(89_999)
        assert log(driver)[4:] == fired, "and nothing twice when it is set back"
        driver.advance(1)
        assert log(driver)[4:] == [*fired, "remind 90000 late 0 by ann"]

    def test_a_timer_for_a_key_of_another_lane_goes_there(self) -> None:
        driver = Driver(notes, partitions=3)
        home = partition_of(b"n", 3)
        other = next(name for name in "abcdefgh" if partition_of(name.encode(), 3) != home)
        driver.send(Write(note="n", text="a", after=5, other=other), token(driver))
        driver.advance(4.9)
        assert log(driver, other) == []
        driver.advance(0.1)
        assert log(driver, other) == ["remind a by ann"], "it came by its topic, as anybody's"

    def test_a_timer_for_another_group_goes_there(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=5, kind="told"), token(driver))
        driver.advance(5)
        assert heard(driver) == ["a"]
        assert log(driver) == ["write a"]

    def test_it_is_not_taken_for_a_poisonous_record_of_the_offset_that_set_it(self) -> None:
        """Both came by topics of one lane: the timer's record by the one for misplaced keys, the other by the public one."""
        bench = Bench(notes)
        note = mint(KEY, subject="ann", audience="note", capabilities=[NoteCap.own("/**")], now_ms=NOW_MS)
        rerouted = record(0, Write(note="n", text="a", after=0), note, ("pf-source", b"life0:1:0"))
        bench.feed(rerouted, topic="note.intents.rerouted")
        bench.lane.sources["note.intents"].poisoned[0] = "unit_too_large"  # as when a unit was taken back just now
        assert bench.lane.fire(NOW_MS)
        assert codes([bench.commit()]) == []
        state = bench.state(Note, "notes", "n")
        assert state is not None
        assert state.log == ["write a", "remind a late 0 by ann"]


class TestNames:
    def test_a_name_has_one_timer(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=10, name="x"), token(driver))
        driver.send(Write(note="n", text="b", after=20, name="x"), token(driver))
        driver.send(Write(note="n", text="c", after=20, name="y"), token(driver))
        driver.send(Write(note="m", text="d", after=20, name="x"), token(driver))
        driver.advance(60)
        assert sorted(line for line in log(driver) if "remind" in line) == [
            "remind b late 0 by ann",
            "remind c late 0 by ann",
        ]
        assert "remind d late 0 by ann" in log(driver, "m")

    def test_a_cancelled_one_does_not_fire(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=10, name="x"), token(driver))
        driver.send(Write(note="m", text="b", cancel="x"), token(driver))
        driver.send(Write(note="n", text="c", cancel="y"), token(driver))
        driver.advance(9)
        driver.send(Write(note="n", text="d", cancel="x"), token(driver))
        driver.advance(60)
        assert log(driver) == ["write a", "write c", "write d"]

    def test_cancelled_and_set_by_one_intent(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=10, name="x"), token(driver))
        driver.send(Write(note="n", text="b", after=20, name="x", cancel="x"), token(driver))
        driver.advance(60)
        assert log(driver) == ["write a", "write b", "remind b late 0 by ann"]


class TestEventClock:
    def send(self, driver: Driver, text: str, second: int, **more: object) -> None:
        """An intent that tells of something that happened at a second of 2013."""
        time = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        driver.send(Write.model_validate({"note": "n", "text": text, **more}), token(driver), time=time)

    def test_it_fires_before_the_first_intent_that_is_as_late(self, driver: Driver) -> None:
        self.send(driver, "a", 0, after=60, clock="event")
        self.send(driver, "b", 59)
        driver.advance(3600)
        assert log(driver) == ["write a", "write b"]
        self.send(driver, "c", 60)
        self.send(driver, "d", 61)
        assert [line.split(" late")[0] for line in log(driver)] == [
            "write a",
            "write b",
            "remind a",
            "write c",
            "write d",
        ]

    def test_what_happens_at_that_time_cannot_cancel_it(self, driver: Driver) -> None:
        self.send(driver, "a", 0, after=60, clock="event", name="x")
        self.send(driver, "b", 60, cancel="x")
        assert [line.split(" late")[0] for line in log(driver)] == ["write a", "remind a", "write b"]

    def test_it_does_not_go_back(self, driver: Driver) -> None:
        self.send(driver, "a", 100, after=60, clock="event")
        self.send(driver, "b", 150)
        self.send(driver, "c", 20, after=60, clock="event")
        self.send(driver, "d", 30)
        assert [line.split(" late")[0] for line in log(driver)] == [
            "write a",
            "write b",
            "write c",
            "remind c",
            "write d",
        ]

    def test_a_sender_from_the_future_moves_it_to_now(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a", after=60, clock="event"), token(driver))
        driver.send(Write(note="n", text="b"), token(driver), time=driver.now + timedelta(days=1000))
        assert log(driver) == ["write a", "write b"]
        driver.advance(60)
        driver.send(Write(note="n", text="c"), token(driver))
        assert [line.split(" late")[0] for line in log(driver)] == ["write a", "write b", "remind a", "write c"]

    def test_who_is_refused_does_not_move_it(self) -> None:
        driver = Driver(notes, partitions=1)
        self.send(driver, "a", 0, after=60, clock="event")
        driver.send(Write(note="n"), driver.context(), time=datetime(2014, 1, 1, tzinfo=UTC))
        assert log(driver) == ["write a"]
        assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"]


class TestAuthority:
    def test_what_the_caller_may_not_do_is_refused_when_it_is_set(self) -> None:
        driver = Driver(notes)
        driver.send(Write(note="n", text="a", after=60), driver.context(NoteCap.write("/**")))
        (letter,) = driver.dead_letters()
        assert letter.code == "insufficient_capabilities"
        assert "note.remind.v1" in letter.message
        assert log(driver) == []

    def test_it_is_judged_when_it_is_set_and_not_when_it_fires(self) -> None:
        driver = Driver(notes)
        driver.send(Write(note="n", text="a", after=3600), driver.context(NoteCap.own("/**"), lifetime_s=60))
        driver.advance(3600)
        assert log(driver)[1:] == ["remind a late 0 by tester"]
        assert heard(driver) == ["a"], "what it causes goes on, as what a backlog causes"

    def test_a_chain_of_timers_ends_with_its_token(self) -> None:
        driver = Driver(notes)
        driver.send(Write(note="n", text="a", after=10, again=9), driver.context(NoteCap.own("/**"), lifetime_s=35))
        driver.advance(1000)
        assert len(log(driver)) == 1 + 3, "at 10, 20 and 30 s"
        (letter,) = driver.dead_letters()
        assert letter.code == "token_expired"

    def test_a_key_that_is_no_longer_trusted_is_refused_when_it_fires(self) -> None:
        driver = Driver(notes, seed=1)
        driver.send(Write(note="n", text="a", after=60), driver.context(NoteCap.own("/**")))
        driver.roots = Driver(notes, seed=2).roots
        driver.redeploy(notes)
        driver.advance(60)
        assert log(driver) == ["write a"]
        (letter,) = driver.dead_letters()
        assert letter.code in {"unknown_key", "bad_signature"}
        assert letter.record.header("pf-context") is None

    @pytest.mark.parametrize("after", [366 * 86_400 + 1, 1e18, float("inf"), float("nan"), -1e18])
    def test_no_timer_without_an_end(self, after: float) -> None:
        driver = Driver(notes)
        intent = Write(note="n").model_copy(update={"after": after})
        driver.send_raw(
            "intents",
            key=b"n",
            value=intent.__intent__.encode(intent),
            headers=[
                ("ce_specversion", b"1.0"),
                ("ce_type", b"note.write.v1"),
                ("ce_id", b"1"),
                ("ce_source", b"/t"),
                ("content-type", b"application/json"),
                ("pf-context", driver.context(NoteCap.own("/**")).encode()),
            ],
        )
        assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"]
        assert log(driver) == []

    @pytest.mark.parametrize(
        "bad",
        [
            {"fail": True},  # neither after nor at
            {"after": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)},
            {"at": datetime(2030, 1, 1)},  # noqa: DTZ001 - that is what is wrong with it
            {"after": 1, "name": ""},
            {"cancel": ""},
        ],
    )
    def test_what_is_no_timer(self, bad: dict[str, object]) -> None:
        driver = Driver(notes)
        driver.send(Write.model_validate({"note": "n", **bad}), driver.context(NoteCap.own("/**")))
        assert [letter.code for letter in driver.dead_letters()] == ["bad_effect"]
        driver.advance(10**6)
        assert log(driver) == []


class TestPutAside:
    def test_not_before_is_handled_at_its_time(self, driver: Driver) -> None:
        driver.send(Write(note="n", text="a"), token(driver), not_before=driver.now + timedelta(seconds=5))
        driver.send(Write(note="n", text="b"), token(driver))
        driver.advance(4.999)
        assert log(driver) == ["write b"]
        driver.advance(0.001)
        assert log(driver) == ["write b", "write a"]

    def test_wherever_it_was_sent(self, driver: Driver) -> None:
        """A misplaced one is sent on first, and waits where its key lives."""
        wrong = (partition_of(b"n", 3) + 1) % 3
        until = driver.now + timedelta(seconds=5)
        driver.send(Write(note="n", text="a"), token(driver), not_before=until, partition=wrong)
        driver.advance(5)
        assert log(driver) == ["write a"]

    def test_a_deadline_before_it_is_refused_at_once(self) -> None:
        driver = Driver(notes)
        late = driver.now + timedelta(seconds=5)
        driver.send(
            Write(note="n"), token(driver), not_before=late, deadline=late - timedelta(milliseconds=1), id="first"
        )
        driver.send(Write(note="n", text="ok"), token(driver), not_before=late, deadline=late)
        assert [letter.code for letter in driver.dead_letters()] == ["deadline_passed"]
        driver.advance(5)
        assert log(driver) == ["write ok"]

    def test_a_deadline_that_passes_meanwhile(self) -> None:
        driver = Driver(notes)
        late = driver.now + timedelta(seconds=5)
        driver.send(Write(note="n", text="a"), token(driver), not_before=late, deadline=late + timedelta(seconds=1))
        with driver.paused():
            driver.advance(7)
        (letter,) = driver.dead_letters()
        assert (letter.code, letter.topic, letter.offset) == ("deadline_passed", "note.intents", 0)
        assert letter.record.json()["text"] == "a"
        assert log(driver) == []


timers = st.builds(
    Timer,
    due_ms=st.integers(0, 2**62),
    clock=st.sampled_from([WALL, EVENT]),
    topic=st.text(st.characters(codec="ascii"), min_size=1, max_size=200),
    record=st.builds(
        SourceRecord,
        offset=st.integers(0, 2**62),
        timestamp=st.integers(-1, 2**62),
        key=st.none() | st.binary(),
        value=st.none() | st.binary(),
        headers=st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8")) | st.sampled_from(TIMER_HEADER_NAMES),
                st.none() | st.binary() | st.integers(250, 260).map(bytes),
            )
            | st.sampled_from(TIMER_HEADERS)
        ).map(tuple),
        timestamp_type=st.sampled_from([0, 1]),
    ),
    judged_ms=st.integers(0, 2**62),
    scheduled=st.booleans(),
    failed=st.integers(0, 2**16 - 1),
)


@given(timers)
def test_a_timer_is_read_as_it_was_written(timer: Timer) -> None:
    assert same(decode_timer(encode_timer(timer)), timer)


def same(one: Timer, two: Timer) -> bool:
    """Of what a handler made, headers may be in another order, but for those of one name."""
    if not two.scheduled:
        return one == two
    one, two = (
        timer._replace(record=timer.record._replace(headers=sorted(timer.record.headers, key=itemgetter(0))))
        for timer in (one, two)
    )
    return one == two


def in_format_1(timer: Timer) -> bytes:
    """As timers were written before."""

    def blob(data: bytes | None) -> bytes:
        return struct.pack(">i", -1 if data is None else len(data)) + (data or b"")

    record = timer.record
    times = timer.due_ms, timer.judged_ms, record.offset, record.timestamp, record.timestamp_type
    head = struct.pack(">BBqqqqBBH", 1, timer.clock, *times, timer.scheduled, timer.failed)
    topic = timer.topic.encode()
    headers = [blob(name.encode()) + blob(value) for name, value in record.headers]
    return b"".join((head, bytes((len(topic),)), topic, blob(record.key), blob(record.value), *headers))


@given(timers)
def test_a_timer_of_before_is_read_and_kept_as_one_of_today(timer: Timer) -> None:
    old = in_format_1(timer)
    assert decode_timer(old) == timer
    lane = Timers()
    lane.restore(b"key", old)
    assert lane._whole(b"key") == encode_timer(timer)


def test_what_stands_for_a_header_does_not_change() -> None:
    """A number of the changelog: what was written once is read by what is here."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/json"),
        ("ce_type", b"a"),
        ("pf-context", b"b"),
        ("tracestate", b"c" * 300),
        ("x", None),
        ("pf-service", b"d"),
    )
    timer = Timer(1, WALL, "t", SourceRecord(2, 3, b"k", None, headers), 4, scheduled=True, failed=5)
    raw = bytes.fromhex(
        "0200 0000000000000001 0000000000000004 0000000000000002 0000000000000003 01 01 0005 00000163"
        "01 6b ff 10 fe 0000012c" + "63" * 300 + "00 01 78 ff 01 74 80 81 01 01 61 06 01 62 07 01 64"
    )
    assert encode_timer(timer) == raw
    assert same(decode_timer(raw), timer)


def test_what_many_timers_have_in_common_is_kept_once_and_let_go() -> None:
    def raw(number: int, token: bytes, due_ms: int = 5) -> bytes:
        headers = (("ce_id", b"%d" % number), ("ce_type", b"a.v1"), ("pf-context", token * 500))
        record = SourceRecord(number, 0, b"k", b"{}", headers)
        return encode_timer(Timer(due_ms, WALL, "t", record, 0, scheduled=True, failed=0))

    timers = Timers()
    for number in range(100):
        timers.set(b"%d" % number, raw(number, b"ab"[number % 2 : number % 2 + 1]))
    assert len(timers.seal()) == 100
    assert timers._endings.count == 2
    assert all(len(short) < 70 for short in timers._sealed.values())
    timers.set(b"0", raw(0, b"c", due_ms=9))
    for number in range(1, 99, 2):
        timers.cancel(b"%d" % number)
    timers.seal()
    assert timers._endings.count == 3
    timers.rewind()
    found = [due[1].record for _ in range(50) if (due := timers.take_due(5)) is not None]
    assert {dict(record.headers)["pf-context"] for record in found} == {b"a" * 500, b"b" * 500}
    assert sorted(record.offset for record in found) == [*range(2, 100, 2), 99]
    timers.seal()
    assert timers._endings.count == 1
    due = timers.take_due(9)
    assert due is not None
    assert same(due[1], decode_timer(raw(0, b"c", due_ms=9)))
    timers.seal()
    assert timers._endings.count == 0


def of_a_run(cause: int, number: int, *, long: bool = False) -> bytes:
    """One of the timers that an intent at offset *cause* sets."""
    headers = (
        ("ce_id", b"in:0:%d:%d" % (cause, number)),
        ("ce_time", b"2026-01-01T00:00:%02d.000+00:00" % cause),
        ("ce_type", b"a.v1"),
        ("pf-context", b"t" * 500),
    )
    record = SourceRecord(cause, 7, b"k%d" % number, b"v" * (300 if long else number), headers)
    return encode_timer(Timer(number, WALL, "t", record, 7, scheduled=True, failed=0))


def test_what_the_timers_of_one_intent_have_in_common_is_kept_once() -> None:
    timers = Timers()
    whole = {b"%d %d" % (cause, number): of_a_run(cause, number) for cause in range(3) for number in range(50)}
    for key, raw in whole.items():
        timers.restore(key, raw)
    assert sorted(map(len, timers._sealed.values()))[3 * 42 - 1] <= 70
    assert timers._causes.count == 3
    assert timers._endings.count == 1
    assert {key: timers._whole(key) for key in whole} == whole
    timers.begin()
    found = {}
    while (due := timers.take_due(50)) is not None:
        found[due[0]] = encode_timer(due[1])
    assert found == whole
    timers.rewind()
    assert timers.next_due_ms(WALL) == 0
    for key in whole:
        timers.cancel(key)
    assert len(timers.seal()) == 150
    assert timers._causes.count == timers._endings.count == 0


short_of_a_run = st.builds(of_a_run, st.integers(0, 2), st.integers(0, 30), long=st.booleans())
odd = st.builds(lambda timer: encode_timer(timer._replace(clock=WALL)), timers)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.one_of(short_of_a_run, odd, st.none()), st.integers(1, 20)),
        max_size=8,
    )
)
def test_timers_in_memory_are_whole_again_whatever_came_before(steps: list[tuple[int, bytes | None, int]]) -> None:
    """So many keys get that timer, or none."""
    lane, model = Timers(), dict[bytes, bytes]()
    for first, raw, count in steps:
        for number in range(first, first + count):
            key = b"%d" % number
            lane.restore(key, raw)
            if raw is None:
                model.pop(key, None)
            else:
                model[key] = raw
        assert {key: lane._whole(key) for key in model} == model
    for key in model:
        lane.restore(key, None)
    assert lane._causes.count == lane._endings.count == 0


def test_a_header_name_that_is_no_utf8_is_kept() -> None:
    name = b"bad\xff".decode(errors="surrogateescape")
    timer = Timer(1, WALL, "t", SourceRecord(0, 0, b"k", b"v", ((name, b"\xff"),)), 1, scheduled=False, failed=0)
    assert decode_timer(encode_timer(timer)) == timer


changes = st.lists(
    st.tuples(
        st.sampled_from(["set", "cancel", "take", "seal", "rewind"]),
        st.sampled_from([b"a", b"b", b"c"]),
        st.integers(0, 20),
    ),
    max_size=40,
)


@given(changes)
def test_timers_are_a_dictionary_with_one_way_back(steps: list[tuple[str, bytes, int]]) -> None:
    """Against a dictionary that is copied at each seal; and a recovery from what was sealed."""
    timers = Timers()
    timers.begin()
    stored: dict[bytes, bytes | None] = {}
    sealed: dict[bytes, int] = {}
    current: dict[bytes, int] = {}
    for step, key, number in steps:
        match step:
            case "set":
                raw = encode_timer(Timer(number, WALL, "t", SourceRecord(0, 0, key, b"", ()), 0, True, 0))
                timers.set(key, raw)
                current[key] = number
            case "cancel":
                timers.cancel(key)
                current.pop(key, None)
            case "take":
                due = timers.take_due(number)
                first = min(((at, name) for name, at in current.items() if at <= number), default=None)
                assert (None if due is None else (due[1].due_ms, due[0])) == first
                if first is not None:
                    del current[first[1]]
            case "seal":
                stored |= dict(timers.seal())
                sealed = dict(current)
            case _:
                timers.rewind()
                current = dict(sealed)
        assert timers.next_due_ms(WALL) == min(current.values(), default=None)
        assert [key in timers for key in (b"a", b"b", b"c")] == [key in current for key in (b"a", b"b", b"c")]
    again = Timers()
    for key, value in stored.items():
        again.restore(key, value)
    again.begin()
    found = {}
    while (due := again.take_due(100)) is not None:
        found[due[0]] = due[1].due_ms
    assert found == sealed
