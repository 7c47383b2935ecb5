"""A collector of OpenTelemetry's spans, as far as a test needs one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

__all__ = ["Collected", "collector"]


@dataclass
class Collected:
    """What a collector was sent."""

    endpoint: str
    """Where it listens."""
    resources: list[ResourceSpans] = field(default_factory=list)
    """What came, with what it came from."""

    @property
    def spans(self) -> list[Span]:
        """All spans."""
        return [span for one in self.resources for scope in one.scope_spans for span in scope.spans]


@contextmanager
def collector() -> Iterator[Collected]:
    """One that takes OTLP over HTTP on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                collected.resources.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is there
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        collected = Collected(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collected
        finally:
            server.shutdown()
            thread.join()
