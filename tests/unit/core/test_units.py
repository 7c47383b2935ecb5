"""The commit unit: what one micro-batch decided, each thing once, and the same for the same input."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.core import CommitUnit, Limits, Narrowing, Output, SourceRecord, changelog
from pf_stream.core.outputs import emitted, emitted_size, output_size
from pf_stream.core.records import Header
from pf_stream.model import Emit
from tests.unit.core.kit import NOW_MS, TOKEN, Bench, Box, Ping, Put, record

STATE = changelog.state_key(changelog.state_prefix("boxes"), b"b")

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_is_in_it() -> None:
    bench = Bench()
    bench.feed(record(0, Put(box="b", item="1")), record(1, Put(box="b", item="2")), record(2, Put(box="c"), None))
    unit = bench.commit()
    assert (unit.sequence, unit.incarnation, unit.count) == (1, "life1", 3)
    assert unit.positions == {"box.intents": 3, "box.intents.rerouted": 0}
    values = dict(unit.entries)
    assert len(values) == len(unit.entries), "each key once"
    assert values.keys() == {
        STATE,
        changelog.state_key(changelog.state_prefix("watch"), b"b"),
        changelog.watermark_key("boxes", "box.intents"),
        changelog.watermark_key("watch", "box.intents"),
        changelog.HEADER,
        changelog.UNIT,
    }
    assert values[STATE] == b'\x01\x00\x01{"items":["1","2"],"weight":2,"anything":[]}'
    assert values[changelog.watermark_key("boxes", "box.intents")] == changelog.WATERMARK_VALUE.pack(3, bytes(16))
    assert values[changelog.UNIT] == changelog.UNIT_VALUE.pack(1, 0)
    assert [output.topic for output in unit.outputs] == ["box.moves", "box.moves", "box.intents.dlq"]


def test_what_an_emitted_intent_looks_like() -> None:
    bench = Bench()
    source = record(0, Put(box="b", item="1"), TOKEN, ("ce_time", b"2025-01-01T00:00:00Z"), ("traceparent", TRACE))
    bench.feed(source, now_ms=source.timestamp + 500)
    (output,) = bench.commit().outputs
    emit = next(plan for plan in bench.plan.emits.values() if plan.topic == "box.moves" and plan.intent.requires)
    assert output == Output(
        topic="box.moves",
        partition=None,
        key=b"attic",
        value=b'{"room":"attic","box":"b","item":"1"}',
        timestamp_ms=source.timestamp,
        headers=[
            ("ce_specversion", b"1.0"),
            ("ce_type", b"box.moved.v1"),
            ("ce_source", b"/box/boxes"),
            ("ce_id", b"box.intents:0:0:0"),
            ("ce_time", b"2025-01-01T00:00:00Z"),
            ("content-type", b"application/json"),
            ("pf-hops", b"1"),
            ("traceparent", TRACE),
        ],
        context=Narrowing(TOKEN.encode(), emit.bounds),
    )


def test_what_one_record_causes_is_one_span_and_counts_with_its_token() -> None:
    bench = Bench()
    cause = record(7, Put(box="b"))
    delivery: Any = SimpleNamespace(
        is_scheduled=False,
        trace=None,
        record=cause,
        headers=dict(cause.headers),
        timer=None,
        source=SimpleNamespace(plan=SimpleNamespace(topic="t")),
        hops=1,
        at_ms=NOW_MS,
        claims=SimpleNamespace(identity=None, token=TOKEN.encode(), tenant=None),
    )
    emit = next(plan for plan in bench.plan.emits.values() if plan.topic == "box.moves" and plan.intent.requires)
    moved = emit.intent.model.model_validate({"room": "attic", "box": "b", "item": "1"})
    reactor = bench.plan.reactors[0]
    first, second = (emitted(delivery, 0, reactor, moved, emit, index, Emit(moved)) for index in (0, 11))
    assert [dict(one.headers)["ce_id"] for one in (first, second)] == [b"t:0:7:0", b"t:0:7:11"]
    assert dict(first.headers)["traceparent"] == dict(second.headers)["traceparent"]
    bare = first._replace(context=None, headers=first.headers[:-2])
    told = sum(len(value or b"") for _, value in first.headers[-2:])
    assert emitted_size(first) == emitted_size(bare) + told + len(TOKEN.encode())


@pytest.mark.parametrize(
    ("length", "kept"), [(8 * 1024 - 55, ["traceparent", "tracestate"]), (8 * 1024 - 54, ["traceparent"])]
)
def test_a_trace_is_handed_on_up_to_a_length(length: int, kept: list[str]) -> None:
    bench = Bench()
    bench.feed(record(0, Put(box="b"), TOKEN, ("traceparent", TRACE), ("tracestate", b"x" * length)))
    (output,) = bench.commit().outputs
    assert [name for name, _ in output.headers if name.startswith("trace")] == kept


def test_a_time_that_is_longer_than_any_is_not_handed_on() -> None:
    bench = Bench()
    bench.feed(record(0, Put(box="b"), TOKEN, ("ce_time", b"2025-01-01T00:00:00Z" + b" " * 45)))
    (output,) = bench.commit().outputs
    assert dict(output.headers)["ce_time"] == b"2026-01-01T00:00:00.000+00:00"


@pytest.mark.parametrize(
    "more",
    [
        [("traceparent", TRACE), ("tracestate", b"x" * 8_000)],
        [("pf-reply-to", b"box.replies"), ("pf-correlation-id", b"x" * 8_000)],
    ],
    ids=["trace", "reply"],
)
def test_what_outputs_copy_of_their_cause_counts_in_the_size(more: list[Header]) -> None:
    """Else a unit would grow beyond what one commit takes, and its lane would stop."""
    bench = Bench(limits=Limits(unit_bytes=1_000_000))
    bench.feed(*(record(offset, Put(box="b"), TOKEN, *more) for offset in range(200)))
    outputs = bench.commit().outputs
    assert 500_000 < sum(output_size(output) for output in outputs) < 1_010_000


def test_the_key_of_an_emitted_intent_counts_in_the_size() -> None:
    bench = Bench(limits=Limits(unit_bytes=1_000_000))
    bench.feed(*(record(offset, Put(box="b", room="r" * 8_000)) for offset in range(200)))
    outputs = bench.commit().outputs
    assert 500_000 < sum(output_size(output) for output in outputs) < 1_020_000


def test_without_a_time_the_records_is_taken_and_without_a_context_none_is_made() -> None:
    bench = Bench()
    bench.feed(record(0, Ping(box="b", rounds=1), None, ("tracestate", b"x")))
    (output,) = bench.commit().outputs
    assert isinstance(output, Output)
    assert dict(output.headers)["ce_time"] == b"2026-01-01T00:00:00.000+00:00"
    assert "tracestate" not in dict(output.headers), "which says nothing without a traceparent"
    assert output.context is None


def test_an_empty_unit_says_only_that_it_was() -> None:
    bench = Bench()
    bench.feed(record(0, Put(box="b")))
    bench.commit()
    assert bench.commit().entries == [(changelog.UNIT, changelog.UNIT_VALUE.pack(2, 0))]


def test_gaps_between_offsets_are_no_matter() -> None:
    """Transactions and compaction leave them."""
    bench = Bench()
    bench.lane.start_at("box.intents", 10, bytes(16))
    bench.feed(record(9, Ping(box="b"), None), record(12, Ping(box="b"), None), record(40, Ping(box="b"), None))
    unit = bench.commit()
    assert (unit.count, unit.positions["box.intents"]) == (2, 41)


class TestCut:
    def test_by_records(self) -> None:
        bench = Bench(limits=Limits(unit_records=3))
        records = iter([record(at, Ping(box="b"), None) for at in range(7)])
        counts = []
        while not bench.lane.step("box.intents", records, 0):
            assert bench.lane.is_full
            assert not bench.lane.step("box.intents", records, 0), "a full unit takes nothing"
            counts.append(bench.commit().count)
        counts.append(bench.commit().count)
        assert counts == [3, 3, 1]
        assert bench.state(Box, "boxes", "b") == Box(weight=7)

    def test_by_bytes(self) -> None:
        bench = Bench(limits=Limits(unit_bytes=10_000))
        units = bench.commit_all(*(record(at, Put(box=str(at), item="x" * 1_000)) for at in range(20)))
        assert sum(unit.count for unit in units) == 20
        assert 3 <= len(units) <= 10

    def test_by_the_caller(self) -> None:
        bench = Bench()
        records = iter([record(at, Ping(box="b"), None) for at in range(5)])
        assert not bench.lane.step("box.intents", records, 0, 2)
        assert (bench.lane.count, bench.lane.is_full) == (2, False)
        assert not bench.lane.step("box.intents", records, 0, 2)
        assert bench.lane.step("box.intents", records, 0, 2)
        assert bench.commit().count == 5


RECORDS = st.lists(
    st.builds(
        lambda box, act, token: (box, act, token),
        st.sampled_from("abc"),
        st.sampled_from(["keep", "keep", "raise", "raise in the second", "wrong type", "adopt"]),
        st.sampled_from([TOKEN, TOKEN, None, "junk"]),
    ),
    max_size=12,
)


def as_records(drawn: list[tuple[str, str, str | None]]) -> list[SourceRecord]:
    return [
        record(at, Put(box=box, item=str(at), act=act, items=["i"] if at % 3 == 0 else []), token)
        for at, (box, act, token) in enumerate(drawn)
    ]


@settings(max_examples=40, deadline=None)
@given(RECORDS)
def test_the_same_input_gives_the_same_units(drawn: list[tuple[str, str, str | None]]) -> None:
    """So a crash between any two actions is harmless: what runs again decides the same."""
    records = as_records(drawn)
    one, other = Bench(), Bench()
    assert one.commit_all(*records) == other.commit_all(*records)
    assert one.changelog == other.changelog


@settings(max_examples=40, deadline=None)
@given(RECORDS, st.integers(1, 5))
def test_how_records_share_units_decides_nothing(drawn: list[tuple[str, str, str | None]], size: int) -> None:
    records = as_records(drawn)
    whole, cut = Bench(), Bench(limits=Limits(unit_records=size))
    units, pieces = whole.commit_all(*records), cut.commit_all(*records)
    assert all(unit.count <= size for unit in pieces)
    assert last(units) == last(pieces)
    assert [output for unit in units for output in unit.outputs] == [
        output for unit in pieces for output in unit.outputs
    ]
    assert (whole.lane.handled, whole.lane.refused) == (cut.lane.handled, cut.lane.refused)


def last(units: list[CommitUnit]) -> dict[bytes, bytes | None]:
    """The last value of each key, without what counts the units."""
    return {key: value for unit in units for key, value in unit.entries if key != changelog.UNIT}


def test_a_state_is_seen_from_outside_once_its_unit_is_acknowledged() -> None:
    bench = Bench()
    bench.commit_all(record(0, Put(box="a", item="first")))
    bench.feed(record(1, Put(box="a", item="second")), record(2, Put(box="b", item="third")))
    assert isinstance(bench.lane.seal(), CommitUnit)
    before = bench.state(Box, "boxes", "a")
    assert before is not None
    assert before.items == ["first"]
    assert bench.state(Box, "boxes", "b") is None
    bench.lane.acknowledged()
    after = bench.state(Box, "boxes", "a")
    assert after is not None
    assert after.items == ["first", "second"]
    assert bench.state(Box, "boxes", "b") is not None
