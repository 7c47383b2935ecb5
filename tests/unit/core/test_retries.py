"""What happens to an intent whose handler raises, by policy; and to one that ends its worker."""

from collections.abc import Iterator

import pytest

from pf_stream import DefinitionError, Effects, Reactor, RetryInPlace, RetryLater, State, on
from pf_stream.core import CommitUnit, Limits
from pf_stream.core.changelog import FENCE, SUSPECT
from pf_stream.core.suspect import Suspects
from pf_stream.model import Context
from pf_stream.testing import Driver
from tests.unit.core.kit import Bench, Box, Put, WorkerKilled, codes, record
from tests.unit.core.reminders import CLOSED, Knock, KnockLater, KnockOnce, Note, NoteCap, Notes, Write, notes


@pytest.fixture
def closed() -> Iterator[set[str]]:
    """Doors that the test closes."""
    yield CLOSED
    CLOSED.clear()


def log(driver: Driver, note: str) -> list[str]:
    state = driver.state(Notes, note)
    return [] if state is None else state.log


def test_in_place_nothing_overtakes_it(closed: set[str]) -> None:
    driver = Driver(notes, partitions=1)
    closed.add("a")
    driver.send(Knock(note="b"))
    driver.send(Knock(note="a"))
    driver.send(Knock(note="b"))
    assert log(driver, "b") == ["knock"]
    driver.advance(0.999)
    closed.clear()
    assert log(driver, "a") == []
    driver.advance(0.001)
    assert (log(driver, "a"), log(driver, "b")) == (["knock"], ["knock", "knock"])
    assert not driver.dead_letters()


def test_in_place_other_partitions_go_on(closed: set[str]) -> None:
    driver = Driver(notes, partitions=4)
    closed.add("a")
    for note in "abcdefgh":
        driver.send(Knock(note=note))
    waits = [note for note in "abcdefgh" if not log(driver, note)]
    assert "a" in waits
    assert 0 < len(waits) < 8
    driver.advance(10)
    assert [note for note in "abcdefgh" if not log(driver, note)] == ["a"]
    assert [letter.code for letter in driver.dead_letters()] == ["handler_failed"]


def test_in_place_gives_up_after_its_attempts_with_its_pauses(closed: set[str]) -> None:
    driver = Driver(notes)
    closed.add("a")
    driver.send(Knock(note="a"))
    driver.advance(1 + 2 + 3 - 0.001)
    assert not driver.dead_letters()
    driver.advance(0.001)
    (letter,) = driver.dead_letters()
    assert letter.code == "handler_failed"
    assert letter.message == "notes.knock: closed (attempt 4 of 4)"
    assert driver.state(Notes, "a") is None


def test_timers_fire_while_a_partition_waits(closed: set[str]) -> None:
    driver = Driver(notes, partitions=1)
    driver.send(Write(note="b", text="x", after=0.5), driver.context(NoteCap.own("/**")))
    closed.add("a")
    driver.send(Knock(note="a"))
    driver.advance(0.6)
    assert log(driver, "b") == ["write x", "remind x late 0 by tester"]


@pytest.mark.parametrize("crash", [False, True])
def test_later_others_go_ahead_and_attempts_outlive_a_crash(closed: set[str], crash: bool) -> None:
    driver = Driver(notes, partitions=1, limits=Limits(poison_attempts=1 << 30))
    closed.add("a")
    driver.send(KnockLater(note="a"), id="first")
    driver.send(Write(note="a", text="x"), driver.context())
    driver.send(KnockOnce(note="b"))
    assert log(driver, "b") == ["knock once"]
    if crash:
        driver.crash()
    driver.advance(5)
    if crash:
        driver.crash()
    driver.advance(9.999)
    assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"]
    driver.advance(0.001)
    letter = driver.dead_letters()[-1]
    assert (letter.code, letter.message) == ("handler_failed", "notes.knock_later: closed (attempt 3 of 3)")
    assert (letter.topic, letter.offset) == ("note.intents", 0)


def test_later_it_succeeds(closed: set[str]) -> None:
    driver = Driver(notes)
    closed.add("a")
    driver.send(KnockLater(note="a"))
    closed.clear()
    driver.advance(4.999)
    assert driver.state(Notes, "a") is None
    driver.advance(0.001)
    assert driver.state(Notes, "a") == Note(log=["knock later"])


def test_a_handler_may_have_no_second_chance(closed: set[str]) -> None:
    driver = Driver(notes)
    closed.add("a")
    driver.send(KnockOnce(note="a"))
    assert [letter.message for letter in driver.dead_letters()] == ["notes.knock_once: closed"]


@pytest.mark.parametrize("policy", [RetryInPlace, RetryLater])
@pytest.mark.parametrize("bad", [{"attempts": 1}, {"backoff_s": 0}, {"backoff_s": 2, "max_backoff_s": 1}])
def test_a_policy_that_is_none(policy: type[RetryInPlace], bad: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(bad))):
        policy(**bad)  # type: ignore[arg-type]


def test_pauses_double_up_to_the_longest() -> None:
    policy = RetryLater(attempts=2000, backoff_s=0.5, max_backoff_s=3)
    assert [policy.delay_ms(failed) for failed in (1, 2, 3, 4, 1999)] == [500, 1000, 2000, 3000, 3000]


def test_what_is_no_policy_is_refused_when_the_class_is_made() -> None:
    class Empty(State):
        n: int = 0

    with pytest.raises(DefinitionError, match="on_error='often'"):

        class Often(Reactor[Empty], id="often", on_error="often"):  # type: ignore[arg-type]
            @on
            def put(self, intent: Put, state: Empty, ctx: Context) -> Effects:
                return None

    with pytest.raises(DefinitionError, match="handler 'put': on_error=3"):

        class Thrice(Reactor[Empty], id="thrice"):
            @on(on_error=3)  # type: ignore[call-overload,untyped-decorator]
            def put(self, intent: Put, state: Empty, ctx: Context) -> Effects:
                return None


class Life:
    """A worker's life on a lane: opens it, takes a record at a time from the first that is undecided, commits."""

    def __init__(self, log: list[tuple[bytes, bytes | None]], records: list[Put]) -> None:
        self.bench = Bench(changelog=log, limits=Limits(poison_attempts=3))
        log.append((FENCE, b"{}"))
        self.bench.changelog = log
        self.records = [record(at, put) for at, put in enumerate(records)]

    def run(self) -> list[CommitUnit]:
        """Until everything is decided; raises :class:`WorkerKilled` where a handler does."""
        units: list[CommitUnit] = []
        while True:
            self.bench.feed(*self.records)
            if not self.bench.lane.has_work:
                return units
            units.append(self.bench.commit())


def test_an_intent_that_ends_its_workers_becomes_a_dead_letter() -> None:
    log: list[tuple[bytes, bytes | None]] = []
    puts = [Put(box="b", item="1"), Put(box="b", item="2", act="die"), Put(box="b", item="3")]
    deaths = 0
    units: list[CommitUnit] = []
    while True:
        life = Life(log, puts)
        try:
            units = life.run()
            break
        except WorkerKilled:
            deaths += 1
            assert deaths < 20
    assert codes(units) == [("poison", 1)]
    assert life.bench.state(Box, "boxes", "b") == Box(items=["1", "3"], weight=2)
    assert 4 <= deaths <= 7
    assert dict(log)[SUSPECT] is None, "it is forgotten"
    assert any("3 times" in str(unit.outputs) for unit in units)


def test_workers_that_end_for_other_reasons_refuse_nothing() -> None:
    """Killed right after each commit, and between a mark and its intent, but not always at the same one."""
    log: list[tuple[bytes, bytes | None]] = []
    puts = [Put(box="b", item=str(at)) for at in range(8)]
    for _ in range(60):
        life = Life(log, puts)
        life.bench.feed(*life.records)
        if life.bench.lane.has_work:
            assert codes([life.bench.commit()]) == []
    assert life.bench.state(Box, "boxes", "b") == Box(items=[put.item for put in puts], weight=8)


def test_a_lane_that_was_opened_in_vain_takes_care_for_a_while() -> None:
    suspects = Suspects(3)
    suspects.opened()
    suspects.begin()
    assert not suspects.careful
    suspects = Suspects(3)
    suspects.opened()
    suspects.opened()
    suspects.begin()
    assert suspects.careful
    for number in range(10):
        key = b"%d" % number
        assert not suspects.may_try(key)
        assert suspects.marking
        suspects.seal(decided=False)
        assert suspects.may_try(key)
        suspects.seal(decided=True)
    assert not suspects.careful


@pytest.mark.slow
def test_an_intent_far_behind_comes_first_after_a_few_lives() -> None:
    """Whatever a life decided before it reached the deadly one is kept but for its last unit."""
    log: list[tuple[bytes, bytes | None]] = []
    puts = [Put(box="b", item="x", act="die" if at == 700 else "keep") for at in range(720)]
    deaths = 0
    while True:
        life = Life(log, puts)
        try:
            life.run()
            break
        except WorkerKilled:
            deaths += 1
            assert deaths < 30
    assert life.bench.lane.refused == {"poison": 1}
    state = life.bench.state(Box, "boxes", "b")
    assert state is not None
    assert state.weight == 719
