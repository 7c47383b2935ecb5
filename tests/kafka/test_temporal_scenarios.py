"""Acceptance scenarios of time on a real Kafka: by the wall clock, and with a worker that is started anew. In memory the same
are in tests/unit/test_temporal_scenarios.py."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from pf_stream import Intent, Topology
from pf_stream.model import Calendar
from pf_stream.model.constraint import after, before, never, only
from pf_stream.model.when import between
from pf_stream.temporal import analytics
from tests.kafka._support import Client, ThreadWorker, headers_of, in_thread, make_topics, token, wait_until
from tests.unit.test_temporal_scenarios import (
    Doer,
    Execute,
    FileDone,
    FileScheduler,
    Operation,
    Plan,
    SchedulerCap,
)

HOUR = timedelta(hours=1)


def now() -> datetime:
    return datetime.now(UTC)


def send(client: Client, *intents: Intent, **headers: str) -> None:
    for intent in intents:
        spec = intent.__intent__
        client.send(spec.key_of(intent), spec.encode(intent), client.headers(spec.type, **headers))
    client.flush()


def codes(client: Client) -> dict[str, str]:
    """Of dead letters, by key."""
    found = client.read(f"{client.topic}.dlq")
    return {(one.key() or b"").decode(): (headers_of(one)["pf-error-code"] or b"").decode() for one in found}


def test_when_files_may_be_handled(bootstrap_servers: str) -> None:
    """S29: handled, put off until it may be, or refused with the code of what forbids it."""
    start = now()
    soon = start + timedelta(seconds=8)
    topologies = {
        "handled": only(between(start - HOUR, start + HOUR), otherwise="refuse"),
        "outside_hours": only(between(start + HOUR, start + 2 * HOUR), otherwise="refuse"),
        "in_maintenance": never(between(start - HOUR, start + HOUR), otherwise="refuse"),
        "too_late": before(start - HOUR),
        "put_off": after(soon),
    }
    for name, constraint in topologies.items():
        topology = Topology(
            "files", [Doer], namespace="t" + secrets.token_hex(5), partitions=1, constraints={"*": constraint}
        )
        make_topics(bootstrap_servers, topology)
        client = Client(bootstrap_servers, topology)
        with in_thread(bootstrap_servers, topology) as worker:
            send(client, Operation(path="/a"))

            def decided(client: Client = client, worker: ThreadWorker = worker) -> None:
                assert codes(client) or worker.state("doer", "/a")

            wait_until(decided)
            if name in {"handled", "put_off"}:
                assert codes(client) == {}
                assert name == "handled" or now() >= soon
            else:
                assert codes(client) == {"/a": name}


def test_a_plan_outlives_its_worker(bootstrap_servers: str) -> None:
    """S31: executed once, after a second and not before, though the worker was not there then; nothing outside of hours."""
    start = now()
    open_ = Calendar([between(start - HOUR, start + HOUR)], "UTC")
    topology = Topology(
        "scheduler",
        [FileScheduler],
        namespace="t" + secrets.token_hex(5),
        partitions=2,
        calendars={"office": open_},
        replies=["replies"],
    )
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    client.context = token(topology, SchedulerCap.plan("/**"))
    replies = f"{topology.namespace}.replies"

    def answers() -> list[Any]:
        return [orjson.loads(message.value() or b"null") for message in client.read(replies)]

    def answered(count: int) -> None:
        assert len(answers()) == count

    with in_thread(bootstrap_servers, topology) as worker:
        send(client, Plan(owner="ann", name="a", in_s=5), Execute(owner="ann", name="a"), pf_reply_to=replies)
        wait_until(lambda: answered(2))
        assert answers() == [{"status": "scheduled"}, {"error": "too_early"}]
        assert worker.state("scheduler", "ann") == {"status": {"a": "scheduled"}, "executed": 0, "failed": 0}
    with in_thread(bootstrap_servers, topology) as worker:

        def executed() -> None:
            assert worker.state("scheduler", "ann")["executed"] == 1

        wait_until(executed)
        assert now() >= start + timedelta(seconds=5)
        assert worker.state("scheduler", "ann")["status"] == {"a": "executed"}
    closed = Calendar([between(start + HOUR, start + 2 * HOUR)], "UTC")
    shut = Topology(
        "scheduler",
        [FileScheduler],
        namespace=topology.namespace,
        partitions=2,
        calendars={"office": closed},
        replies=["replies"],
    )
    with in_thread(bootstrap_servers, shut) as worker:
        send(client, Plan(owner="ann", name="b", in_s=1), pf_reply_to=replies)
        wait_until(lambda: answered(3))
        assert answers()[2]["error"] == "outside_hours"
        assert worker.state("scheduler", "ann")["executed"] == 1


def test_operations_by_period(bootstrap_servers: str) -> None:
    """S35: figures of periods and minutes that equal a count by hand, whatever keys they came under."""
    start = now().replace(second=0, microsecond=0)
    part = analytics(
        "work",
        FileDone,
        operation=lambda done: done.operation,
        periods={
            "maintenance": between(start - 3 * HOUR, start - 2 * HOUR),
            "business": between(start - 2 * HOUR, start - HOUR),
        },
        took_ms=lambda done: done.ms,
        failed=lambda done: not done.ok,
    )
    topology = Topology("files", [], namespace="t" + secrets.token_hex(5), partitions=2, parts=[part])
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    wanted: dict[str, dict[str, int]] = {}
    minutes: dict[str, dict[str, int]] = {}
    with in_thread(bootstrap_servers, topology) as worker:
        for number in range(60):
            at = start - timedelta(minutes=3 * number + 1)
            ok = number % 7 != 0
            intent = FileDone(path=f"/{number}", operation="write", ms=number, ok=ok)
            send(client, intent, ce_time=at.isoformat())
            period = "after_hours" if number < 20 else "business" if number < 40 else "maintenance"
            groups = [wanted.setdefault(period, dict.fromkeys(("count", "failed", "took_ms"), 0))]
            if number < 20:  # the last hour
                minute = str(round(at.timestamp() * 1000))
                groups.append(minutes.setdefault(minute, dict.fromkeys(("count", "failed", "took_ms"), 0)))
            for group in groups:
                group["count"] += 1
                group["failed"] += not ok
                group["took_ms"] += number

        def counted() -> None:
            state = worker.state("work", "write")
            assert state["periods"] == wanted
            assert state["minutes"] == minutes

        wait_until(counted)
