"""Sends the spans of a worker process to a collector, over OTLP and HTTP.

Where to, with which headers and how long to wait is said by the variables of OpenTelemetry (``OTEL_EXPORTER_OTLP_ENDPOINT`` and so
on). This needs the extra ``otel``; a worker that does not trace loads nothing of it.
"""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pf_stream.errors import PFError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

__all__ = ["Tracing", "TracingMissingError"]

CLOSE_S: Final = 2.0
"""How long a worker that ends waits for a collector to take its last spans."""


class TracingMissingError(PFError):
    """Raised when spans are wanted and OpenTelemetry is not installed."""

    code = "tracing_missing"

    def __init__(self) -> None:
        super().__init__("spans need OpenTelemetry: install pf-stream[otel], or leave --trace out")


class Tracing:
    """The spans of one process on their way."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider

    @classmethod
    def start(cls, ratio: float, app: str, worker: str) -> "Tracing":
        """Trace intents that their senders sample, the units in which they are, and *ratio* of the other units.

        Raises :class:`TracingMissingError`.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingMissingError from error
        provider = make_provider(ratio, app, worker)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    @property
    def tracer(self) -> "Tracer":
        """Makes the spans."""
        return self._provider.get_tracer("pf_stream")

    def close(self) -> None:
        """Send what is left; what a collector does not take in time is lost."""
        # A thread, since the exporter may try for longer than anybody wants to wait.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def make_provider(ratio: float, app: str, worker: str) -> "TracerProvider":
    """What makes spans and decides which; without anything yet that takes them."""
    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, SamplingResult, TraceIdRatioBased
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

    class Units(TraceIdRatioBased):
        """Takes each unit that has an intent which is sampled."""

        def should_sample(
            self,
            parent_context: Context | None,
            trace_id: int,
            name: str,
            kind: SpanKind | None = None,
            attributes: Attributes = None,
            links: Sequence[Link] | None = None,
            trace_state: TraceState | None = None,
        ) -> SamplingResult:
            asked = parent_context, trace_id, name, kind, attributes, links, trace_state
            linked = any(link.context.trace_flags.sampled for link in links or ())
            return ALWAYS_ON.should_sample(*asked) if linked else super().should_sample(*asked)

    # What the environment says of the resource counts more than what we know.
    known = Resource.create({"service.name": app, "service.instance.id": worker})
    return TracerProvider(
        sampler=ParentBased(Units(ratio)),
        resource=known.merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,  # see Tracing.close
    )
