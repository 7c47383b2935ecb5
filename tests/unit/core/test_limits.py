"""Bounds hold at their edges: what is as large as allowed passes, and one more does not."""

import pytest

from pf_stream.core import Lane, Limits
from pf_stream.core.records import Header
from pf_stream.testing import Driver
from tests.unit.core.kit import TOKEN, Bench, BoxCap, Ping, Put, boxes, codes, event, record


def put_of(size: int) -> Put:
    """A put whose JSON has so many bytes."""
    empty = len(Put.__intent__.encode(Put(box="b")))
    return Put(box="b", item="x" * (size - empty))


@pytest.mark.parametrize(("size", "expected"), [(500, []), (501, [("payload_too_large", 0)])])
def test_the_size_of_a_payload(size: int, expected: list[tuple[str, int]]) -> None:
    assert len(Put.__intent__.encode(put_of(size))) == size
    bench = Bench(limits=Limits(payload_bytes=500))
    assert codes(bench.commit_all(record(0, put_of(size)))) == expected


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("count", "expected"), [(12, []), (13, [("too_many_headers", 0)])])
def test_the_number_of_headers(count: int, expected: list[tuple[str, int]], repeated: bool) -> None:
    """However many of them have the same name."""
    extra: list[Header] = [("x" if repeated else f"x{at}", None) for at in range(count - len(event(Put(box="b"))))]
    bench = Bench(limits=Limits(headers=12))
    assert codes(bench.commit_all(record(0, Put(box="b"), TOKEN, *extra))) == expected


def test_the_size_of_what_is_copied_instead_of_kept() -> None:
    """Key, value and headers together."""
    base = len("n") + len("hv") + len("k") + len(b"12345")
    for inline, copied in ((base, False), (base - 1, True)):
        driver = Driver(boxes, limits=Limits(inline_bytes=inline))
        driver.send_raw("intents", key=b"k", value=b"12345", headers=[("n", None), ("h", b"v")])
        outputs = [
            value or b""
            for lane in driver._lanes
            for key, value in lane.changelog.records
            if key[1:2] == b"o" and value
        ]
        assert [value[1:2] == b"p" for value in outputs] == [copied]
        assert [letter.record.value for letter in driver.dead_letters()] == [b"12345"]


@pytest.mark.parametrize("part", ["key", "value", "header name", "header value"])
def test_dead_letters_count_into_the_size_of_a_unit(part: str) -> None:
    """Else a stream of refusals would make one that no broker takes."""
    driver = Driver(boxes, seed=1, limits=Limits(unit_bytes=5_000, payload_bytes=100))
    large = b"x" * 1_000
    with driver.paused():
        for _ in range(40):
            driver.send_raw(
                "intents",
                key=large if part == "key" else b"b",
                value=large if part == "value" else b"{",
                headers=[("x" * 1_000, None)]
                if part == "header name"
                else [("x", large)]
                if part == "header value"
                else [],
                partition=0,
            )
    units = [count for count in dead_letters_by_unit(driver) if count]
    assert sum(units) == 40
    assert max(units) <= 6


def dead_letters_by_unit(driver: Driver) -> list[int]:
    """How many records each unit's outbox holds."""
    return [
        value.count(b'"pf-error-code"')
        for lane in driver._lanes
        for key, value in lane.changelog.records
        if key[1:2] == b"o" and value
    ]


def test_emitted_intents_and_states_count_too() -> None:
    bench = Bench(limits=Limits(unit_bytes=20_000))
    units = bench.commit_all(*(record(at, Put(box=str(at), item="x" * 500)) for at in range(60)))
    assert max(unit.count for unit in units) < 20
    large = Bench(limits=Limits(unit_bytes=20_000))
    large.commit_all(*(record(at, Put(box=str(at), item="x" * 3_000)) for at in range(20)))
    again = large.commit_all(*(record(20 + at, Ping(box=str(at)), None) for at in range(20)))
    assert max(unit.count for unit in again) < 10, "a state counts as large as it was"


def test_reply_topics_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pf_stream.core.admission._REPLY_TOPICS_BYTES", 2_000)
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"))
    for at in range(25):
        driver.send(Put(box="b"), token, reply_to=f"box.replies.{at}")
    assert len(driver.replies()) == 25


def test_a_source_that_was_never_read_has_no_id() -> None:
    bench = Bench()
    fresh = Lane(bench.plan, 0, bench.authority, bench.lane.limits)
    assert fresh.begin("life2") == {"box.intents": None, "box.intents.rerouted": None}
    assert [source.topic_id for source in fresh.sources.values()] == [bytes(16)] * 2
