"""Spans on their way to a collector."""

import subprocess
import sys
import time

import pytest

from pf_stream.worker.tracing import CLOSE_S, Tracing, make_provider
from tests.collector import collector

NO_OTEL = """
import sys
from pf_stream.errors import PFError
from pf_stream.worker.tracing import Tracing
{first}
try:
    Tracing.start(0.5, "box", "w0")
except PFError as error:
    print(error.code, error)
"""


def test_the_last_spans_reach_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint)
        tracing = Tracing.start(1.0, "box", "w0")
        tracing.tracer.start_span("unit intents").end()
        tracing.close()
    assert [span.name for span in collected.spans] == ["unit intents"]
    found = {attribute.key: attribute.value.string_value for attribute in collected.resources[0].resource.attributes}
    assert (found["service.name"], found["service.instance.id"]) == ("box", "w0")


@pytest.mark.slow
def test_a_collector_that_is_away_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing = Tracing.start(1.0, "box", "w0")
    tracing.tracer.start_span("unit intents").end()
    began = time.monotonic()
    tracing.close()
    assert time.monotonic() - began < CLOSE_S + 1


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    attributes = make_provider(1.0, "box", "w0").resource.attributes
    assert attributes["service.name"] == "ours"
    assert attributes["deployment.environment.name"] == "test"
    assert attributes["service.instance.id"] == "w0"


@pytest.mark.slow
def test_without_opentelemetry_a_worker_says_what_to_install() -> None:
    program = NO_OTEL.format(first="sys.modules['opentelemetry'] = None")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tracing_missing spans need OpenTelemetry: install pf-stream[otel]")


@pytest.mark.slow
def test_who_does_not_trace_loads_nothing_of_it() -> None:
    program = (
        "import sys, pf_stream.worker.process, pf_stream.engine.lanes\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
