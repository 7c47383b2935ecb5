"""The spans of units that a real lane has sealed, as OpenTelemetry's SDK exports them."""

from collections.abc import Iterable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from pf_stream.core import CommitUnit, SourceRecord
from pf_stream.core.records import Header
from pf_stream.engine.tracing import INTENTS, LaneTracing
from pf_stream.kafka.batch import BatchBuilder, Chunk
from pf_stream.worker.tracing import make_provider
from tests.unit.core.kit import NOW_MS, TOKEN, Bench, Ping, Put, boxes, record

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def traceparent(flags: str = "01", trace: str = TRACE, span: str = SPAN) -> Header:
    return "traceparent", f"00-{trace}-{span}-{flags}".encode()


class Scene:
    """A lane that traces."""

    def __init__(self, ratio: float) -> None:
        self.exporter = InMemorySpanExporter()
        provider = make_provider(ratio, boxes.app_id, "w0")
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.bench = Bench()
        self.tracing = LaneTracing(provider.get_tracer("test"), self.bench.plan, 0)

    def feed(self, *records: SourceRecord, fetched_s: float = 9.0, taken_s: float = 9.5) -> None:
        chunk = self.tracing.watch("box.intents", chunk_of(records), fetched_s, lambda: taken_s)
        self.bench.lane.step("box.intents", chunk, NOW_MS)

    def commit(self) -> CommitUnit[Any]:
        unit = self.bench.commit()
        self.tracing.committed(unit, self.tracing.sealed(unit), 512, (9.25, 9.75, 10.0), NOW_MS)
        return unit

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    @property
    def units(self) -> list[ReadableSpan]:
        return self.spans("unit intents")

    @property
    def intents(self) -> list[ReadableSpan]:
        return self.spans("process box.intents")


def chunk_of(records: Iterable[SourceRecord]) -> Chunk:
    batch = BatchBuilder(1 << 20, compress=False)
    first = None
    for one in records:
        first = one.offset if first is None else first
        assert batch.append(one.timestamp, one.key, one.value, list(one.headers))
    raw = bytearray(batch.build())
    raw[0:8] = (first or 0).to_bytes(8, "big")
    return Chunk(bytes(raw), (), "test")


@pytest.fixture
def scene() -> Scene:
    return Scene(ratio=0)


def test_a_sampled_intent_has_a_span_below_its_senders(scene: Scene) -> None:
    scene.feed(
        record(0, Put(box="a"), TOKEN, traceparent(), timestamp=NOW_MS - 3_000),
        record(1, Put(box="b"), TOKEN),
        record(2, Put(box="c"), TOKEN, traceparent("00")),
        record(3, Put(box="c"), TOKEN, traceparent("02")),
    )
    assert scene.exporter.get_finished_spans() == (), "nothing is committed yet"
    unit = scene.commit()
    (span,) = scene.intents
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.consumer.group.name": "box",
        "messaging.destination.name": "box.intents",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "cloudevents.event_type": "box.put.v1",
        "pf.unit": f"life1:{unit.sequence}",
        "pf.waited_ms": 2_000,
    }
    assert (span.start_time, span.end_time) == ((NOW_MS - 1_000) * 10**6, NOW_MS * 10**6)
    assert [(event.name, event.timestamp) for event in span.events] == [
        ("taken", (NOW_MS - 500) * 10**6),
        ("sealed", (NOW_MS - 250) * 10**6),
    ]
    assert span.status.status_code is StatusCode.UNSET


def test_a_unit_is_linked_to_what_was_sampled_in_it(scene: Scene) -> None:
    other = "1" * 32
    scene.feed(
        record(0, Put(box="a"), TOKEN, traceparent()),
        record(1, Put(box="a"), None, traceparent(trace=other)),
        record(2, Put(box="b"), TOKEN),
    )
    scene.commit()
    (unit,) = scene.units
    assert [f"{link.context.trace_id:032x}" for link in unit.links] == [TRACE, other]
    assert {link.context.span_id for link in unit.links} == {
        span.context.span_id for span in scene.intents if span.context is not None
    }
    attributes = dict(unit.attributes or {})
    assert (attributes["messaging.batch.message_count"], attributes["pf.refused"], attributes["pf.size"]) == (3, 1, 512)
    assert unit.start_time == (NOW_MS - 750) * 10**6
    assert unit.resource.attributes["service.name"] == "box"


def test_a_refused_one_says_why_by_its_code_alone(scene: Scene) -> None:
    scene.feed(record(0, Put(box="a", act="raise", item="a secret"), TOKEN, traceparent()))
    scene.commit()
    (span,) = scene.intents
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert dict(span.attributes or {})["error.type"] == "handler_failed"


def test_later_versions_of_a_traceparent_are_read(scene: Scene) -> None:
    scene.feed(record(0, Put(box="a"), TOKEN, traceparent("ff"), ("tracestate", b"\xff=,,")))
    scene.feed(record(1, Put(box="a"), TOKEN, ("traceparent", f"01-{TRACE}-{SPAN}-03-more-01".encode())))
    scene.commit()
    assert len(scene.intents) == 2


@pytest.mark.parametrize("value", [b"", b"00-x", b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01", b"\xff" * 55])
def test_what_is_no_traceparent_is_not_traced(scene: Scene, value: bytes) -> None:
    scene.feed(record(0, Put(box="a"), TOKEN, ("traceparent", value)))
    scene.commit()
    assert scene.exporter.get_finished_spans() == ()


def test_a_span_id_of_zeros_makes_no_parent(scene: Scene) -> None:
    """The engine hands such a traceparent on; for OpenTelemetry it says nothing."""
    scene.feed(record(0, Put(box="a"), TOKEN, traceparent(span="0" * 16)))
    scene.commit()
    assert scene.intents == []


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (1.0, 20)])
def test_the_ratio_is_that_of_units_without_a_sampled_intent(ratio: float, expected: int) -> None:
    scene = Scene(ratio)
    for offset in range(20):
        scene.feed(record(offset, Ping(box="a")))
        scene.commit()
    assert len(scene.units) == expected
    assert scene.intents == []


def test_a_span_that_is_open_by_chance_is_no_parent() -> None:
    scene = Scene(ratio=1)
    with scene.tracing._tracer.start_as_current_span("somebody's"):
        scene.feed(record(0, Ping(box="a")))
        scene.commit()
    assert [span.parent for span in scene.units] == [None]


def test_a_commit_of_nothing_is_no_unit(scene: Scene) -> None:
    scene.feed(record(0, Put(box="a"), TOKEN, traceparent()))
    scene.commit()
    scene.bench.lane.sent(1, [0])
    unit = scene.bench.commit()
    assert unit.count == 0
    assert not scene.tracing.sealed(unit)


def test_what_the_unit_does_not_decide_comes_with_a_later_one(scene: Scene) -> None:
    """A record may have been drawn and put back."""
    records = [record(offset, Put(box="a"), TOKEN, traceparent()) for offset in range(3)]
    chunk = scene.tracing.watch("box.intents", chunk_of(records), 9.0, lambda: 9.5)
    scene.bench.lane.step("box.intents", chunk, NOW_MS, at_most=1)
    drawn = next(iter(chunk))
    scene.commit()
    assert [dict(span.attributes or {})["messaging.kafka.offset"] for span in scene.intents] == [0]
    scene.bench.feed(drawn)  # type: ignore[arg-type]
    scene.bench.lane.step("box.intents", chunk, NOW_MS)
    scene.commit()
    assert [dict(span.attributes or {})["messaging.kafka.offset"] for span in scene.intents] == [0, 1, 2]


def test_what_is_read_once_more_has_one_span(scene: Scene) -> None:
    sampled = record(0, Put(box="a"), TOKEN, traceparent())
    list(scene.tracing.watch("box.intents", chunk_of([sampled]), 1.0, lambda: 1.0))
    scene.tracing.forget()
    scene.feed(sampled)
    scene.commit()
    assert len(scene.intents) == 1


def test_what_is_not_sampled_takes_nobodys_place(scene: Scene) -> None:
    scene.feed(*(record(offset, Put(box="a"), TOKEN, traceparent("00")) for offset in range(INTENTS)))
    scene.feed(record(INTENTS, Put(box="a"), TOKEN, traceparent()))
    scene.commit()
    assert len(scene.intents) == 1


def test_senders_who_sample_everything_get_some_spans_of_each_unit(scene: Scene) -> None:
    scene.feed(*(record(offset, Put(box="a"), TOKEN, traceparent()) for offset in range(2 * INTENTS)))
    scene.commit()
    assert len(scene.intents) == INTENTS
    scene.feed(record(2 * INTENTS, Put(box="a"), TOKEN, traceparent()))
    scene.commit()
    assert len(scene.intents) == INTENTS + 1


def test_no_token_no_payload_and_no_key_is_in_any_span(scene: Scene) -> None:
    secret = "attic4711"
    scene.feed(
        record(0, Put(box=secret, room=secret, item=secret), TOKEN, traceparent(), ("other", secret.encode())),
        record(1, Put(box=secret, act="raise", item=secret), TOKEN, traceparent()),
        SourceRecord(2, NOW_MS, secret.encode(), b"{", [("ce_type", secret.encode()), traceparent()]),
    )
    scene.commit()
    spans = scene.exporter.get_finished_spans()
    assert len(spans) == 4
    text = "".join(span.to_json() for span in spans)
    assert secret not in text
    assert TOKEN[:20] not in text
