"""``once``: a second intent of the same key, subject and id is dropped for a while, and only that."""

from datetime import timedelta
from typing import Annotated, Any

import pytest

from pf_stream import PUBLIC, Context, Intent, Key, Reactor, Topology, on, upcast
from pf_stream.core import Limits
from pf_stream.core.once import Once
from pf_stream.core.records import Header
from pf_stream.testing import Driver
from tests.unit.core.reminders import CLOSED, Note, NoteCap, Notes, Pay, notes


def paid(driver: Driver) -> int:
    state = driver.state(Notes, "n")
    return 0 if state is None else state.paid


@pytest.mark.parametrize("crash", [False, True])
def test_a_second_one_is_dropped_within_the_time_and_taken_after_it(crash: bool) -> None:
    driver = Driver(notes, limits=Limits(poison_attempts=1 << 30))
    for seconds, expected in ((0, 1), (3599.999, 1), (0.001, 2), (10, 2), (10_000, 3)):
        driver.advance(seconds)
        driver.send(Pay(note="n", amount=1), id="p1")
        if crash:
            driver.crash()
        assert paid(driver) == expected
    assert driver.dead_letters() == []


def test_other_ids_subjects_and_keys_are_no_repeats() -> None:
    driver = Driver(notes)
    ann, bob = (driver.context(NoteCap.own("/**"), subject=name) for name in ("ann", "bob"))
    with driver.paused():
        for token in (ann, bob, None, ann):
            for id_ in ("p1", "p2", "p1"):
                driver.send(Pay(note="n", amount=1), token, id=id_)
    assert paid(driver) == 3 * 2
    driver.send(Pay(note="m", amount=1), ann, id="p1")
    assert driver.state(Notes, "m") == Note(paid=1)


def test_a_failed_one_may_be_sent_again() -> None:
    driver = Driver(notes)
    CLOSED.add("n")
    try:
        driver.send(Pay(note="n", amount=1, fail=True), id="p1")
        driver.send(Pay(note="n", amount=1, fail=True), id="p2", not_before=driver.now + timedelta(seconds=1))
        driver.send(Pay(note="n", amount=1, fail=True), id="p2")
        driver.advance(1)
    finally:
        CLOSED.discard("n")
    assert [letter.code for letter in driver.dead_letters()] == ["handler_failed"] * 2, "p2's repeat was dropped"
    for id_ in ("p1", "p2"):
        driver.send(Pay(note="n", amount=1, fail=True), id=id_)
    assert paid(driver) == 2


def test_wherever_it_was_sent() -> None:
    driver = Driver(notes, partitions=2)
    for partition in (0, 1, 0, 1):
        driver.send(Pay(note="n", amount=1), id="p1", partition=partition)
    assert paid(driver) == 1


def test_a_sender_that_was_upgraded_between_its_two_tries() -> None:
    """The second one has a newer version, and is the same intent."""

    class Fee(Intent, name="fee.pay", version=2, requires=PUBLIC, once="1h"):
        account: Annotated[str, Key]
        cents: int

        @upcast(from_version=1)
        @staticmethod
        def _in_cents(old: dict[str, Any]) -> dict[str, Any]:
            return {"account": old["account"], "cents": 100 * old["euros"]}

    class Fees(Reactor[Note], id="fees"):
        @on
        def pay(self, intent: Fee, state: Note, ctx: Context) -> None:
            state.paid += intent.cents

    driver = Driver(Topology("fee", [Fees]))
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"fee.pay.v1"),
        ("ce_id", b"p1"),
        ("ce_source", b"/t"),
        ("content-type", b"application/json"),
    ]
    driver.send_raw("intents", key=b"n", value=b'{"account": "n", "euros": 3}', headers=headers)
    driver.send(Fee(account="n", cents=300), id="p1")
    driver.send(Fee(account="n", cents=1), id="p2")
    assert driver.state(Fees, "n") == Note(paid=301)


def test_marks_are_removed_when_their_time_is_over() -> None:
    once = Once()
    once.begin()
    stored: dict[bytes, bytes | None] = {}
    for minute in range(300):
        once.add(b"%d" % minute, "t", minute, minute * 60_000, 60_000)
        stored |= dict(once.seal())
    left = [key for key, value in stored.items() if value is not None]
    assert 60 <= len(left) <= 63, "an hour of them, and what is still good"
    assert once.is_repeat(b"299", "t", 1000, 299 * 60_000)
    assert not once.is_repeat(b"299", "t", 299, 299 * 60_000), "the same record is no repeat"
    assert once.is_repeat(b"299", "u", 299, 299 * 60_000)


def test_what_is_taken_back_leaves_no_mark() -> None:
    once = Once()
    once.begin()
    once.add(b"k", "t", 1, 0, 1000)
    once.rewind()
    assert not once.is_repeat(b"k", "t", 2, 0)
    assert once.seal() == []


def test_a_record_from_the_end_of_time_is_marked_like_any_other() -> None:
    """Its mark could not say a later time, and a mark that cannot be written would stop the lane."""
    once = Once()
    once.add(b"k", "t", 0, 2**63 - 1, 1_000)
    assert once.is_repeat(b"k", "t", 1, 2**63 - 2)
    assert len(once.seal()) == 1
