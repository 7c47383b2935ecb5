"""What the engine's own headers are worth: everything on internal topics, nothing on public ones."""

import pytest

from pf_stream.core import Copy, Limits, Output, partition_of
from pf_stream.core.records import Header
from pf_stream.testing import Driver
from tests.unit.core.kit import (
    TOKEN,
    Bench,
    Box,
    BoxCap,
    Boxes,
    Moved,
    Ping,
    Pong,
    Put,
    Room,
    Rooms,
    Watch,
    Watched,
    boxes,
    event,
    record,
)

FORGED: list[Header] = [
    ("pf-source", b"forged:999999:0"),
    ("pf-hops", b"99"),
    ("pf-rerouted", b"box.intents:0:0"),
    ("pf-watermark", b"intents:0:1"),
]


def elsewhere(key: str) -> int:
    """A partition where *key* does not live."""
    return (partition_of(key.encode(), 4) + 1) % 4


class TestPublicTopics:
    def test_forged_headers_are_not_believed(self) -> None:
        """Neither as a repetition, nor as a count of hops, nor as already rerouted."""
        driver = Driver(boxes)
        for item in "xyz":
            driver.send(Put(box="b", item=item), driver.context(BoxCap.put("/**")), headers=FORGED)
        assert driver.state(Boxes, "b") == Box(items=["x", "y", "z"], weight=3)
        assert driver.dead_letters() == []

    def test_hops_begin_at_one(self) -> None:
        driver = Driver(boxes)
        driver.send(Put(box="b"), driver.context(BoxCap.put("/**")), headers=FORGED)
        (moved,) = driver.outputs("moves")
        assert moved.header("pf-hops") == b"1"

    @pytest.mark.parametrize("seed", range(4))
    def test_a_misplaced_record_is_rerouted_once_without_them(self, seed: int) -> None:
        driver = Driver(boxes, seed=seed)
        token = driver.context(BoxCap.put("/**"))
        driver.send(Put(box="b", item="x"), token, headers=FORGED, partition=elsewhere("b"))
        driver.send(Put(box="b", item="y"), token, headers=FORGED, partition=elsewhere("b"))
        assert driver.state(Boxes, "b") == Box(items=["x", "y"], weight=2)
        first, second = driver.outputs("box.intents.rerouted")
        assert first.partition == second.partition == partition_of(b"b", 4)
        names = [name for name, _ in first.headers]
        assert names.count("pf-rerouted") == names.count("pf-source") == 1
        assert "pf-hops" not in names
        assert "pf-watermark" not in names
        assert first.header("pf-rerouted") == f"box.intents:{elsewhere('b')}:0".encode()
        assert first.header("pf-source") != FORGED[0][1]


class TestReroute:
    @pytest.mark.parametrize("size", [10, 100_000])
    def test_small_and_large_records_arrive_as_they_were(self, size: int) -> None:
        driver = Driver(boxes)
        token = driver.context(BoxCap.put("/**"))
        extra: list[Header] = [("x", None), ("x", b"\xff"), ("traceparent", b"00-1")]
        driver.send(Put(box="b", item="x" * size), token, headers=extra, partition=elsewhere("b"))
        (copy,) = driver.outputs("box.intents.rerouted")
        ours = {"pf-rerouted", "pf-source"}
        assert [name for name, _ in copy.headers if name not in ours] == [
            "ce_specversion",
            "ce_type",
            "ce_source",
            "ce_id",
            "ce_time",
            "content-type",
            "pf-context",
            "x",
            "x",
            "traceparent",
        ]
        assert [value for name, value in copy.headers if name == "x"] == [None, b"\xff"]
        assert copy.header("pf-context") == token.encode()
        assert driver.state(Boxes, "b") == Box(items=["x" * size], weight=1)

    @pytest.mark.parametrize("seed", range(4))
    def test_records_of_both_kinds_keep_their_order(self, seed: int) -> None:
        driver = Driver(boxes, seed=seed, limits=Limits(inline_bytes=1_000))
        token = driver.context(BoxCap.put("/**"))
        items = ["a", "b" * 2_000, "c", "d" * 2_000, "e"]
        with driver.paused():
            for item in items:
                driver.send(Put(box="b", item=item), token, partition=elsewhere("b"))
        assert driver.state(Boxes, "b") == Box(items=items, weight=5)

    def test_a_token_is_judged_where_the_record_was_appended(self) -> None:
        """Waiting to be rerouted costs a token none of its life."""
        driver = Driver(boxes)
        token = driver.context(BoxCap.put("/**"), lifetime_s=60)
        with driver.paused():
            driver.send(Put(box="b", item="x"), token, partition=elsewhere("b"))
            driver.advance(7_200)
        assert driver.state(Boxes, "b") == Box(items=["x"], weight=1)
        assert driver.dead_letters() == []

    def test_it_is_authorised_for_the_topic_that_the_sender_wrote_to(self) -> None:
        driver = Driver(boxes)
        token = driver.context(BoxCap.put("/**"), topics=["box.intents"])
        driver.send(Put(box="b", item="x"), token, partition=elsewhere("b"))
        assert driver.state(Boxes, "b") == Box(items=["x"], weight=1)

    def test_a_refused_record_is_not_rerouted(self) -> None:
        driver = Driver(boxes)
        driver.send(Put(box="b"), partition=elsewhere("b"))
        assert driver.outputs("box.intents.rerouted") == []
        assert [(letter.code, letter.partition) for letter in driver.dead_letters()] == [
            ("missing_context", elsewhere("b"))
        ]


class TestInternalTopics:
    def moved(self, driver: Driver, source: bytes, item: str, *more: Header) -> None:
        """As if a lane had written it."""
        moved = Moved(room="attic", box="b", item=item)
        driver.send_raw(
            "moves",
            key=b"attic",
            value=moved.__intent__.encode(moved),
            headers=[*event(moved, driver.context(BoxCap.put("/**"))), ("pf-source", source), *more],
        )

    @pytest.mark.parametrize("crash", [False, True])
    def test_what_was_taken_is_not_taken_again(self, crash: bool) -> None:
        driver = Driver(boxes)
        for source, item in [(b"a:1:0", "1"), (b"a:1:1", "2"), (b"b:1:0", "3"), (b"a:2:0", "4")]:
            self.moved(driver, source, item)
        if crash:
            driver.crash()
        for source in (b"a:1:0", b"a:1:1", b"b:1:0", b"a:2:0"):
            self.moved(driver, source, "again")
        self.moved(driver, b"b:1:1", "5")
        self.moved(driver, b"a:10:0", "6")
        assert driver.state(Rooms, "attic") == Room(items=["1", "2", "3", "4", "5", "6"])
        assert driver.dead_letters() == []

    def test_a_repetition_is_no_dead_letter_even_if_the_first_was_one(self) -> None:
        driver = Driver(boxes)
        for _ in range(2):
            driver.send_raw(
                "moves", key=b"attic", value=b"{}", headers=[*event(Ping(box="b"), None), ("pf-source", b"a:1:0")]
            )
        assert [letter.code for letter in driver.dead_letters()] == ["unknown_type"]

    def test_hops_are_counted_and_end(self) -> None:
        driver = Driver(boxes, limits=Limits(hops=5))
        driver.send(Ping(box="b", rounds=4))
        assert driver.dead_letters() == []
        driver.send(Ping(box="c", rounds=5))
        assert [(letter.code, letter.topic) for letter in driver.dead_letters()] == [("too_many_hops", "box.moves")]
        assert driver.state(Rooms, "b") == Room(pongs=5)
        assert driver.state(Rooms, "c") == Room(pongs=5)
        assert [record.header("pf-hops") for record in driver.outputs("moves")][:5] == [b"1", b"2", b"3", b"4", b"5"]

    def test_an_untrusted_record_is_told_at_its_time_of_processing(self) -> None:
        """Its own time is whatever it says."""
        driver = Driver(boxes)
        pong = Pong(room="attic", rounds=0)
        driver.send_raw(
            "moves",
            key=b"attic",
            value=pong.__intent__.encode(pong),
            headers=[*event(pong, driver.context()), ("pf-reply-to", b"box.replies")],
            timestamp=driver.now.replace(year=9999),
        )
        (letter,) = driver.dead_letters()
        assert letter.code == "untrusted_record"
        assert letter.record.timestamp_ms == driver.clock.now_ms()
        assert [record.timestamp_ms for record in driver.replies()] == [driver.clock.now_ms()]

    def test_both_reactors_of_a_type_see_it_once_after_a_crash_between_append_and_outputs(self) -> None:
        driver = Driver(boxes, seed=5)
        crashed = False

        def crash(action: object) -> None:
            nonlocal crashed
            if getattr(action, "kind", "") == "output" and not crashed:
                crashed = True
                driver.crash()

        driver.after_action = crash
        driver.send(Put(box="b", item="x"), driver.context(BoxCap.put("/**"), subject="ann"))
        assert crashed
        assert len(driver.outputs("moves")) == 2, "sent again, since nobody noted that it was sent"
        assert driver.state(Rooms, "attic") == Room(items=["x"])
        assert driver.state(Watch, "b") == Watched(items=["x"], writers=["ann"])


def test_a_large_record_is_rerouted_by_a_pointer() -> None:
    """Instead of passing through the changelog."""
    bench = Bench(partitions=4, partition=elsewhere("b"), limits=Limits(inline_bytes=1_000))
    at = bench.lane.partition
    source = record(0, Put(box="b", item="x" * 1_000), TOKEN, *FORGED)
    bench.feed(source, record(1, Put(box="b"), TOKEN, *FORGED))
    large, small = bench.commit().outputs
    assert large == Copy(
        topic="box.intents.rerouted",
        to_partition=None,
        source="box.intents",
        partition=at,
        offset=0,
        key=b"b",
        timestamp_ms=source.timestamp,
        headers=[("pf-rerouted", f"box.intents:{at}:0".encode())],
        drop=frozenset({"pf-source", "pf-hops", "pf-trace", "pf-rerouted", "pf-watermark"}),
    )
    assert isinstance(small, Output)
    assert dict(small.headers)["pf-rerouted"] == f"box.intents:{at}:1".encode()
    assert bench.lane.handled == 0
