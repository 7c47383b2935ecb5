"""Acceptance scenarios of time on a real Kafka: by the wall clock, and with a worker that is started anew. In memory the same
are in tests/unit/test_temporal_scenarios.py."""

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from pf_stream import Effects, Emit, Intent, Service, Topology
from pf_stream.model import Calendar
from pf_stream.model.capability import Grant, HeldGrant
from pf_stream.model.constraint import after, before, never, only
from pf_stream.model.when import When, between
from pf_stream.security import mint
from pf_stream.temporal import JobRun, analytics, job, jobs
from tests.kafka._support import (
    SIGNER,
    Client,
    ThreadWorker,
    headers_of,
    in_thread,
    make_topics,
    now_ms,
    token,
    wait_until,
)
from tests.unit.test_security_scenarios import FileRead, FileSystemCap, FileWrite, TimedAdmin, TimedFiles, TimedRead, fs
from tests.unit.test_temporal_scenarios import (
    Doer,
    Execute,
    FileDone,
    FileScheduler,
    JobWork,
    Operation,
    Plan,
    SchedulerCap,
    Work,
    WorkBatch,
    Worker,
)

HOUR = timedelta(hours=1)
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


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


@job(every="1s", limit=3)
def each_second(run: JobRun) -> Effects:
    return Emit(JobWork(desk="d"))


def test_kinds_of_intents(bootstrap_servers: str, unique: str) -> None:
    """S32: at once, at its time and not before, as often as it may be, several in their order, the most urgent first."""
    part = jobs(each_second, service=Service(SIGNER.kid, ["TemporalCap.report:/none"]))
    topology = Topology("work", [Worker], namespace=unique, internal=["periodic"], partitions=1, parts=[part])
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology, service_keys=(SIGNER,)) as worker:

        def done(desk: str) -> list[str]:
            state = worker.state("worker", desk)
            return [] if state is None else [line.split()[0] for line in state["done"]]

        due = now() + timedelta(seconds=6)
        wanted = ["critical", "high", "medium", "low", "normal"]
        left = dict(zip(wanted, (HOUR / 15, HOUR / 2, 23 * HOUR, 48 * HOUR, None), strict=True))
        for what in reversed(wanted):
            time = left[what]
            deadline = {} if time is None else {"pf_deadline": (due + time).isoformat()}
            send(client, Work(desk="urgent", what=what), pf_not_before=due.isoformat(), **deadline)
        soon = now() + timedelta(seconds=2)
        send(client, Work(desk="a", what="delayed"), pf_not_before=soon.isoformat())
        send(client, Work(desk="a", what="immediate"), WorkBatch(desk="b", whats=["a", "b", "c"]))

        def first() -> None:
            assert done("a")
            assert done("b")

        wait_until(first)
        assert done("b") == ["a", "b", "c"]
        found = done("a")
        if now() < soon:  # else this machine is slow, and nothing can be said of it
            assert found == ["immediate"]

        def all_of_them() -> None:
            assert done("a") == ["immediate", "delayed"]
            assert done("d") == ["periodic"] * 3
            assert done("urgent")

        wait_until(all_of_them)
        assert now() >= due
        wait_until(lambda: same(done("urgent"), wanted))
        assert done("d") == ["periodic"] * 3, "no more than its limit"
    assert codes(client) == {}


def same(found: object, wanted: object) -> None:
    assert found == wanted


def limited(topology: Topology, *capabilities: Grant | HeldGrant, during: list[When | str] | None = None) -> str:
    return mint(
        SIGNER, subject="ann", audience=topology.namespace, capabilities=capabilities, now_ms=now_ms(), during=during
    )


def test_a_window_is_half_open(bootstrap_servers: str, unique: str) -> None:
    """S33: whatever was appended before it begins, or when it has ended, is denied, and all between is not."""
    topology = fs.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    intent = FileRead(volume="v", path="/a")
    spec = intent.__intent__
    sent = 0
    with in_thread(bootstrap_servers, topology) as worker:
        begin = now().replace(microsecond=0) + timedelta(seconds=2)
        end = begin + timedelta(seconds=1)
        client.context = limited(topology, FileSystemCap.read("/**"), during=[f"{begin.isoformat()}/{end.isoformat()}"])
        while now() < end + timedelta(seconds=0.2):
            client.place("v", spec.encode(intent), client.headers(spec.type))
            sent += 1
        wait_until(lambda: same(worker.worker.handled + worker.refused.total(), sent))
        assert set(worker.refused) == {"not_now"}
    denied = {int(headers_of(one)["__streams.errors.offset"] or b"") for one in client.dead_letters()}
    first_ms, end_ms = (round(at.timestamp() * 1000) for at in (begin, end))
    outside = set()
    for message in client.read(client.topic):
        offset, at_ms = message.offset(), message.timestamp()[1]
        assert offset is not None
        if not first_ms <= at_ms < end_ms:
            outside.add(offset)
    assert 0 < len(outside) < sent
    assert denied == outside


def test_some_of_a_token_is_limited(bootstrap_servers: str, unique: str) -> None:
    """S33: writing within its hours alone, reading always; days of the week that are not today; administration in maintenance."""
    start = now()
    today, tomorrow = DAYS[start.weekday()], DAYS[(start.weekday() + 1) % 7]
    others = ",".join(day for day in DAYS if day not in {today, tomorrow})
    topology = fs.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    read, write = FileRead(volume="v", path="/a"), FileWrite(volume="v", path="/a", content="x")
    always, write_all = FileSystemCap.read("/**"), HeldGrant.of(FileSystemCap.write("/**"))
    inside, outside = between(start - HOUR, start + HOUR), between(start + HOUR, start + 2 * HOUR)
    cases: list[tuple[str, list[str | None]]] = [
        (limited(topology, always, replace(write_all, during=inside)), [None, None]),
        (limited(topology, always, replace(write_all, during=outside)), [None, "not_now"]),
        (
            limited(topology, always, during=[f"{today},{tomorrow} 00:00-24:00 UTC"]),
            [None, "insufficient_capabilities"],
        ),
        (limited(topology, always, during=[f"{others} 00:00-24:00 UTC"]), ["not_now", "insufficient_capabilities"]),
    ]
    with in_thread(bootstrap_servers, topology) as worker:
        wanted: list[str | None] = []
        for context, expected in cases:
            client.context = context
            send(client, read, write)
            wanted += expected
        wait_until(lambda: same(worker.worker.handled + worker.refused.total(), len(wanted)))

        def told() -> None:
            found = {
                int(headers_of(one)["__streams.errors.offset"] or b""): (
                    headers_of(one)["pf-error-code"] or b""
                ).decode()
                for one in client.dead_letters()
            }
            assert [found.get(offset) for offset in range(len(wanted))] == wanted

        wait_until(told)


@pytest.mark.parametrize("in_maintenance", [False, True])
def test_no_administration_in_maintenance(bootstrap_servers: str, unique: str, in_maintenance: bool) -> None:
    """S33: in office hours, but not while there is maintenance; reading always."""
    start = now()
    inside, outside = between(start - HOUR, start + HOUR), between(start + HOUR, start + 2 * HOUR)
    calendars = {
        "office": Calendar([inside], "UTC"),
        "maintenance": Calendar([inside if in_maintenance else outside], "UTC"),
    }
    topology = Topology("timed", [TimedFiles], namespace=unique, partitions=1, calendars=calendars)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    client.context = token(topology, FileSystemCap.admin("/**"))
    with in_thread(bootstrap_servers, topology) as worker:
        send(client, TimedAdmin(volume="v", path="/a"), TimedRead(volume="v", path="/a"))
        wait_until(lambda: same(worker.worker.handled + worker.refused.total(), 2))
        wanted = ["read"] if in_maintenance else ["admin", "read"]
        wait_until(lambda: same(worker.state("timed", "v")["operations"], wanted))
        assert worker.refused == ({"not_now": 1} if in_maintenance else {})


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
            assert state is not None
            assert state["periods"] == wanted
            assert state["minutes"] == minutes

        wait_until(counted)
