"""Spans of OpenTelemetry: one for each unit, and one for each intent whose sender traces it.

They are made when a unit is acknowledged, from times that the lane has noted, so a unit that is taken back leaves none. They hold
where a record came from and what became of it; no token, no payload, no key.

Attributes: OpenTelemetry's semantic conventions for messaging and Kafka, and ``pf.`` for what these have no name for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import Record
from pf_stream.core.unit import CommitUnit
from pf_stream.kafka.batch import Chunk
from pf_stream.model.context import is_traceparent

__all__ = ["LaneTracing"]

INTENTS: Final = 32
"""Most intents of a unit that get a span: each costs as much as two intents that have none, and senders decide who is sampled."""


class _Sampled(NamedTuple):
    """An intent that is to have a span."""

    topic: str
    offset: int
    kind: str | None
    """Its type, if the topology knows it."""
    parent: Context
    """The sender's span."""
    appended_ms: int
    fetched_s: float
    taken_s: float
    """When the step took it, as *fetched_s* on the event loop's clock."""


class LaneTracing:
    """Makes the spans of one lane."""

    def __init__(self, tracer: Tracer, plan: GroupPlan, partition: int) -> None:
        self._tracer = tracer
        self._name = f"unit {plan.name}"
        self._types = {
            source.topic: {raw: route.intent.type for raw, route in source.routes.items()} for source in plan.sources
        }
        self._common: Mapping[str, str] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.consumer.group.name": plan.topology.app_id,
            "messaging.destination.partition.id": str(partition),
        }
        self._sampled: list[_Sampled] = []

    def forget(self) -> None:
        """What was read and not committed will be read again."""
        self._sampled.clear()

    def watch(self, topic: str, chunk: Chunk, fetched_s: float, time: Callable[[], float]) -> Iterator[Record]:
        """The records of a chunk; those that are sampled are noted as they are taken. *time* is the event loop's clock."""
        for record in chunk:
            for name, value in record.headers:
                if name == "traceparent":
                    parent = _sampled_parent(value) if len(self._sampled) < INTENTS else None
                    if parent is not None:
                        kind = self._types[topic].get(dict(record.headers).get("ce_type") or b"")
                        self._sampled.append(
                            _Sampled(topic, record.offset, kind, parent, record.timestamp, fetched_s, time())
                        )
                    break
            yield record

    def sealed(self, unit: CommitUnit[Any]) -> Sequence[_Sampled]:
        """The sampled intents of a unit that was sealed just now."""
        if not self._sampled:
            return ()
        found = [one for one in self._sampled if one.offset < unit.positions[one.topic]]
        self._sampled = [one for one in self._sampled if one.offset >= unit.positions[one.topic]]
        return found

    def committed(
        self,
        unit: CommitUnit[Any],
        sampled: Sequence[_Sampled],
        size: int,
        times_s: tuple[float, float, float],
        ended_ms: int,
    ) -> None:
        """A unit of *size* bytes is acknowledged.

        *times_s* are those of its first record, its sealing and its acknowledgement on the event loop's clock; *ended_ms* is
        the last one by the wall clock.
        """
        opened_s, sealed_s, ended_s = times_s
        ended_ns = ended_ms * 1_000_000

        def wall_ns(time_s: float) -> int:
            return ended_ns - int((ended_s - time_s) * 1e9)

        name = f"{unit.incarnation}:{unit.sequence}"
        links = []
        for one in sampled:
            attributes: dict[str, str | int] = {
                **self._common,
                "messaging.destination.name": one.topic,
                "messaging.kafka.offset": one.offset,
                "pf.unit": name,
                "pf.waited_ms": max(0, wall_ns(one.fetched_s) // 1_000_000 - one.appended_ms),
            }
            if one.kind is not None:
                attributes["cloudevents.event_type"] = one.kind
            started_ns = wall_ns(one.fetched_s)
            span = self._tracer.start_span(
                f"process {one.topic}", one.parent, SpanKind.CONSUMER, attributes, start_time=started_ns
            )
            span.add_event("taken", timestamp=wall_ns(one.taken_s))
            span.add_event("sealed", timestamp=wall_ns(sealed_s))
            for refused in unit.refused:
                if (refused.topic, refused.offset) == (one.topic, one.offset):
                    span.set_attribute("error.type", refused.code)
                    span.set_status(Status(StatusCode.ERROR))
            span.end(ended_ns)
            links.append(Link(span.get_span_context()))
        # Of no context: a span that was open as the worker was started is no parent of all that it does.
        span = self._tracer.start_span(
            self._name, Context(), SpanKind.CONSUMER, links=links, start_time=wall_ns(opened_s)
        )
        if span.is_recording():
            span.set_attributes(
                {
                    **self._common,
                    "messaging.batch.message_count": unit.count,
                    "pf.unit": name,
                    "pf.refused": len(unit.refused),
                    "pf.size": size,
                }
            )
            span.add_event("sealed", timestamp=wall_ns(sealed_s))
            span.end(ended_ns)


def _sampled_parent(traceparent: bytes | None) -> Context | None:
    """The span that a ``traceparent`` names (W3C Trace Context, section 3.2.2), if it is sampled.

    OpenTelemetry's own parser would read ``tracestate`` too, and log what senders write there.
    """
    if traceparent is None or not is_traceparent(traceparent):
        return None
    _, trace_id, span_id, flags = (int(part, 16) for part in traceparent.split(b"-", 4)[:4])
    parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return set_span_in_context(NonRecordingSpan(parent)) if parent.is_valid and parent.trace_flags.sampled else None
