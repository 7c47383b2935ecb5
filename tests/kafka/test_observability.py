"""What can be seen of a worker that is at work: its metrics, its spans and what it says."""

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pf_stream import Topology
from pf_stream.core import changelog
from pf_stream.worker.tracing import make_provider
from tests.collector import collector
from tests.kafka._support import (
    Client,
    counts,
    durable,
    exact,
    headers_of,
    in_process,
    in_thread,
    make_topics,
    name_in,
    token,
    wait_until,
)
from tests.kafka.alarms import alarms

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> Samples:
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        asking.request("GET", "/metrics")
        answer = asking.getresponse()
        assert answer.status == 200
        return parse(answer.read().decode())
    finally:
        asking.close()


def total(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples of a name that have these labels."""
    return sum(value for (one, has), value in samples.items() if one == name and labels.items() <= dict(has).items())


def is_counter(name: str) -> bool:
    return name.endswith(("_total", "_bucket", "_count", "_sum"))


def wait_for(look: Callable[[], Samples], name: str, value: float, **labels: str) -> Samples:
    def check() -> Samples:
        samples = look()
        assert total(samples, name, **labels) == value, {key: samples[key] for key in samples if key[0] == name}
        return samples

    return wait_until(check)


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def free_ports(count: int) -> int:
    """The first of *count* ports in a row that nobody uses."""
    used = {connection.laddr.port for connection in psutil.net_connections("tcp") if connection.laddr}
    return next(port for port in range(21_000, 32_000) if not used & set(range(port, port + count)))


def send(client: Client, good: int, refused: int, malformed: int) -> None:
    """Intents, some without a context, some that are no JSON."""
    for number in range(good):
        client.add(name_in(number % 2, client.topology))
    for _ in range(refused):
        client.send("apples", b'{"name": "apples"}', client.headers(pf_context=None))
    for _ in range(malformed):
        client.send("apples", b"{", client.headers())
    client.flush()


def test_what_was_sent_is_what_is_counted(client: Client, tmp_path: Path) -> None:
    port = free_ports(1)
    app = client.topology.app_id
    with in_process(client.bootstrap_servers, client.topology, tmp_path, "--health-port", str(port)) as worker:
        worker.wait_for("worker ready")
        # This one cannot be committed, so the records of its unit are read and decided more than once.
        client.add(name_in(0, client.topology), how="leaves a wrong type")
        send(client, 300, 5, 3)
        wait_for(lambda: scrape(port), "pf_intents_handled_total", 300, type="counts.totalled.v1")
        # The dead letters left with their unit's other outputs, perhaps a moment later.
        first = wait_for(lambda: scrape(port), "pf_outputs_sent_total", 9, kind="dead_letter")
        assert total(first, "pf_intents_handled_total", type="counts.added.v1") == 300
        assert total(first, "pf_records_refused_total") == 9
        assert total(first, "pf_records_refused_total", code="bad_state") == 1
        assert total(first, "pf_records_refused_total", code="missing_context") == 5
        assert total(first, "pf_records_refused_total", code="malformed_payload") == 3
        assert total(first, "pf_outputs_sent_total", kind="intent") == 300
        assert total(first, "pf_unit_records_sum", group="intents") == 309
        assert total(first, "pf_unit_records_sum", group="totals") == 300
        for name in ("pf_latency_from_append_seconds", "pf_latency_from_fetch_seconds"):
            assert total(first, f"{name}_count", topic=client.topic) == 309
            assert total(first, f"{name}_count", topic=f"{client.topology.namespace}.totals") == 300
            assert 0 < total(first, f"{name}_sum", topic=client.topic) < 309 * 20
        assert total(first, "pf_unit_bytes_sum") > 600 * 20
        assert total(first, "pf_tokens_verified_total", outcome="accepted") >= 1
        assert total(first, "pf_token_cache_bytes", cache="accepted") > 0
        assert total(first, "pf_lag_records") == 0
        assert total(first, "pf_lane_state", state="running") == 4
        assert total(first, "pf_recovery_ratio") == 4
        assert total(first, "pf_recovery_seconds_count") == 4
        assert total(first, "pf_worker_ready") == 1
        assert total(first, "pf_worker_info", worker="w0", guarantee="effectively_once") == 1
        assert total(first, "process_cpu_seconds_total") > 0
        assert all(dict(labels)["topology"] == app for name, labels in first if name.startswith("pf_"))
        assert client.context not in str(first)

        send(client, 100, 0, 0)
        second = wait_for(lambda: scrape(port), "pf_intents_handled_total", 400, type="counts.totalled.v1")
        assert total(second, "pf_intents_handled_total", type="counts.added.v1") == 400
        falling = {key: value for key, value in first.items() if is_counter(key[0]) and second[key] < value}
        assert falling == {}
        assert worker.end() == 0


def test_a_worker_that_starts_again_has_recovered_and_counts_from_nothing(client: Client) -> None:
    with in_thread(client.bootstrap_servers, client.topology):
        send(client, 20, 0, 0)
        wait_until(lambda: none_left(client, 20))
    with in_thread(client.bootstrap_servers, client.topology) as worker:
        samples = parse(worker.call(lambda: generate_latest(worker.worker.metrics.registry)).decode())
        assert total(samples, "pf_intents_handled_total") == 0
        assert total(samples, "pf_recovered_records_total") > 20
        assert total(samples, "pf_recovery_seconds_count") == 4


def none_left(client: Client, expected: int) -> None:
    assert durable(client.bootstrap_servers, client.topology).total() == expected


def test_outputs_of_transactions_are_counted_when_they_are_committed(bootstrap_servers: str, unique: str) -> None:
    topology: Topology = exact.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology) as worker:
        client.context = token(topology)
        send(client, 40, 2, 0)

        def look() -> Samples:
            return parse(worker.call(lambda: generate_latest(worker.worker.metrics.registry)).decode())

        wait_for(look, "pf_intents_handled_total", 40, type="counts.totalled.v1")
        samples = wait_for(look, "pf_outputs_sent_total", 2, kind="dead_letter")
        assert total(samples, "pf_outputs_sent_total", kind="intent") == 40
        assert total(samples, "pf_worker_info", guarantee="transactional") == 1


def test_a_timer_that_waits_and_a_lane_that_has_stopped(client: Client) -> None:
    name = name_in(1, client.topology)
    log = f"{client.topology.app_id}-intents-changelog"
    key = changelog.state_key(changelog.state_prefix("counts"), name.encode())
    client.place(key, changelog.pack_state(1, b"no JSON"), [], partition=1, topic=log)
    other = name_in(0, client.topology)
    with in_thread(client.bootstrap_servers, client.topology) as worker:

        def look() -> Samples:
            return parse(worker.call(lambda: generate_latest(worker.worker.metrics.registry)).decode())

        value = json.dumps({"name": other}).encode()
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        client.send(other, value, client.headers(pf_not_before=tomorrow.isoformat()))
        client.add(name)
        client.flush()
        samples = wait_for(look, "pf_lane_state", 1, group="intents", partition="1", state="stopped")
        assert total(samples, "pf_lane_state", state="running") == 3
        assert total(samples, "pf_worker_ready") == 0
        wait_for(look, "pf_timers_waiting", 1, group="intents", partition="0")


def test_how_late_timers_are(bootstrap_servers: str, unique: str) -> None:
    topology = alarms.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology) as worker:

        def look() -> Samples:
            return parse(worker.call(lambda: generate_latest(worker.worker.metrics.registry)).decode())

        def tell(**payload: object) -> None:
            headers = client.headers("alarms.set.v1", pf_context=None)
            client.send("a", json.dumps({"alarm": "a", **payload}).encode(), headers)
            client.flush()

        for number in range(20):
            tell(after=0.2 + number / 50, name=f"n{number}")
        samples = wait_for(look, "pf_timer_lateness_seconds_count", 20, reactor="alarms")
        assert 0 < total(samples, "pf_timer_lateness_seconds_sum") < 20 * 5
        assert 0 < max(lane.timer_late_ms or 0 for lane in worker.call(lambda: worker.worker.lanes.statuses)) < 5_000
        tell(after=-30, name="overdue")
        samples = wait_for(look, "pf_timer_lateness_seconds_count", 21)
        assert total(samples, "pf_timer_lateness_seconds_bucket", le="10.0") == 20
        assert 30 < total(samples, "pf_timer_lateness_seconds_sum") < 30 + 21 * 5


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def traceparent(flags: str) -> str:
    return f"00-{TRACE}-{SPAN}-{flags}"


def test_a_sampled_intent_is_traced_over_both_hops(client: Client) -> None:
    exporter = InMemorySpanExporter()
    provider = make_provider(0, client.topology.app_id, "w0")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    name = name_in(0, client.topology)
    with in_thread(client.bootstrap_servers, client.topology, tracer=provider.get_tracer("test")) as worker:
        value = json.dumps({"name": name}).encode()
        client.add(name, 20)
        sampled = client.place(name, value, client.headers(traceparent=traceparent("01")))
        client.send(name, value, client.headers(traceparent=traceparent("00")))
        client.flush()
        wait_until(lambda: none_left(client, 22))
        worker.call(lambda: None)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    totals = f"{client.topology.namespace}.totals"
    assert sorted(spans) == sorted(["unit intents", "unit totals", f"process {client.topic}", f"process {totals}"])
    assert len(exporter.get_finished_spans()) == 4
    for topic in (client.topic, totals):
        span = spans[f"process {topic}"]
        assert span.context is not None
        assert span.parent is not None
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.events[0].timestamp <= span.events[1].timestamp <= span.end_time
        assert abs(span.end_time / 1e9 - time.time()) < 60
    assert dict(spans[f"process {client.topic}"].attributes or {})["messaging.kafka.offset"] == sampled.offset
    onward = [headers_of(message).get("traceparent") for message in client.read(totals)]
    assert sorted(filter(None, onward)) == [traceparent("00").encode(), traceparent("01").encode()]
    text = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert client.context[:20] not in text


def test_a_worker_process_sends_its_spans_to_a_collector(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint)
        options = ("--trace", "0.0", "--processes", "2")
        with in_process(client.bootstrap_servers, client.topology, tmp_path, *options) as worker:
            worker.wait_for("worker ready", times=2, within=60)
            for partition in (0, 1):
                name = name_in(partition, client.topology)
                client.send(name, json.dumps({"name": name}).encode(), client.headers(traceparent=traceparent("01")))
            client.flush()
            wait_until(lambda: none_left(client, 2))
            assert worker.end() == 0
    names = Counter(span.name for span in collected.spans)
    assert names[f"process {client.topic}"] == names[f"process {client.topology.namespace}.totals"] == 2
    workers = {
        attribute.value.string_value
        for one in collected.resources
        for attribute in one.resource.attributes
        if attribute.key == "service.instance.id"
    }
    assert workers == {"w0-0", "w0-1"}


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_every_line_of_all_processes_is_json_if_that_is_wanted(client: Client, tmp_path: Path) -> None:
    options = ("--processes", "2", "--log-format", "json", "--log-level", "debug")
    with in_process(client.bootstrap_servers, client.topology, tmp_path, *options) as worker:
        worker.wait_for("worker ready", times=2, within=60)
        names = [name_in(partition, client.topology) for partition in (0, 1)]
        for name in names:
            client.add(name, how="logs")
        client.flush()
        worker.wait_for("counting", times=2)
        assert worker.end() == 0
    said_otherwise = [line for line in worker.log.splitlines() if not is_json(line)]
    assert said_otherwise == []
    lines = [json.loads(line) for line in worker.log.splitlines()]
    assert {"worker process started", "worker started", "lane open", "worker stopped"} <= {
        one["event"] for one in lines
    }
    assert all({"level", "timestamp"} <= one.keys() for one in lines)
    said = {one["event"]: one for one in lines}
    for partition, name in enumerate(names):
        line = said[f"counting {name}"]
        assert line["lane"] == f"<lane {client.topology.app_id}-intents-changelog-{partition}>"
        assert (line["topic"], line["logger"], line["level"]) == (client.topic, "counts", "warning")


def test_each_of_several_processes_has_a_port_of_its_own(client: Client, tmp_path: Path) -> None:
    port = free_ports(2)
    options = ("--processes", "2", "--health-port", str(port))
    with in_process(client.bootstrap_servers, client.topology, tmp_path, *options) as worker:
        worker.wait_for("worker ready", times=2, within=60)

        def both(intents: int) -> list[Samples]:
            found = [scrape(port), scrape(port + 1)]
            assert sum(total(one, "pf_intents_handled_total", type="counts.totalled.v1") for one in found) == intents
            assert [total(one, "pf_lane_state") for one in found] == [2, 2]
            return found

        wait_until(partial(both, 0), within=60)  # the first one had all lanes, and may have been ready with them
        send(client, 60, 0, 0)
        for number, samples in enumerate(wait_until(partial(both, 60))):
            assert total(samples, "pf_worker_info", worker=f"w0-{number}") == 1
        assert worker.end() == 0
