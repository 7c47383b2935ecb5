"""Acceptance scenarios of streams, as a user would run them: through the driver, from intents with tokens to a sink's consumer."""

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

import pytest

from pf_stream import (
    PUBLIC,
    Buffer,
    Capability,
    Context,
    Delivered,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    Sink,
    State,
    Tally,
    Topology,
    on,
    operation,
)
from pf_stream.streams import Windowed, count, global_window, last, pipeline, stream, total, tumbling
from pf_stream.testing import Driver, Limits

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
Operation = Literal["read", "write", "delete"]


class FileCap(Capability):
    """Files by path."""

    read = operation()
    write = operation()


# --- S25: FileStream -> TimeWindow -> AdaptiveBackpressure -----------------------------------------------------------------


class ReadFile(Intent, name="pipe.read", requires=FileCap.read("/{path...}")):
    """Read a file."""

    path: Annotated[str, Key]


class WriteFile(Intent, name="pipe.write", requires=FileCap.write("/{path...}")):
    """Write a file."""

    path: Annotated[str, Key]


class FileTouched(Intent, name="pipe.touched", topic="touched", requires=PUBLIC):
    """One of both has happened."""

    path: Annotated[str, Key]
    operation: Operation


class FileActivitySummary(Intent, name="pipe.summary", topic="summaries", requires=PUBLIC):
    """What happened to a file in a minute."""

    path: Annotated[str, Key]
    read_count: int
    write_count: int
    timestamp: datetime


class FileState(State):
    """A file."""

    reads: int = 0
    writes: int = 0


class FileStream(Reactor[FileState], id="file_stream"):
    """Counts, and tells."""

    @on
    def read(self, intent: ReadFile, state: FileState, ctx: Context) -> Effects:
        state.reads += 1
        return [Emit(FileTouched(path=intent.path, operation="read")), Tally("reads")]

    @on
    def write(self, intent: WriteFile, state: FileState, ctx: Context) -> Effects:
        state.writes += 1
        return [Emit(FileTouched(path=intent.path, operation="write")), Tally("writes")]


class Activity(NamedTuple):
    """Of a window."""

    reads: int
    writes: int


def checked(touched: FileTouched) -> FileTouched:
    """A stage that refuses some."""
    if touched.path.startswith("/locked"):
        raise PermissionError(f"{touched.path} is locked")
    return touched


def summary(window: Windowed[Activity]) -> FileActivitySummary:
    """What the window tells."""
    reads, writes = window.value
    return FileActivitySummary(path=window.key, read_count=reads, write_count=writes, timestamp=window.start)


time_window = pipeline(
    "time_window",
    stream(FileTouched)
    .map(checked)
    .by_key()
    .window(tumbling("60s"))
    .aggregate(
        Activity,
        reads=total(lambda one: int(one.operation == "read")),
        writes=total(lambda one: int(one.operation == "write")),
    )
    .emit(summary),
)


class Warehouse:
    """A consumer."""

    def __init__(self) -> None:
        self.batches: list[list[FileActivitySummary]] = []

    async def __call__(self, batch: Sequence[Delivered[FileActivitySummary]]) -> None:
        self.batches.append([one.intent for one in batch])


def composed(to: Warehouse) -> Topology:
    """``FileProcessingPipeline``."""
    buffer = Buffer(records=20, strategy="adaptive", rate=1_000, min_rate=100, slow_s=1)
    return Topology(
        "composed",
        [FileStream],
        internal=["touched", "summaries"],
        emits=[FileTouched, FileActivitySummary],
        parts=[time_window],
        sinks=[Sink("warehouse", of=FileActivitySummary, to=to, buffer=buffer, batch=20)],
    )


class TestComposedPipeline:
    """S25."""

    @pytest.mark.parametrize("seed", range(3))
    def test_events_pass_the_stages_in_order(self, seed: int) -> None:
        """S25: one summary for each path and minute reaches the consumer, at the pace that suits it; crashes change nothing."""
        warehouse = Warehouse()
        driver = Driver(composed(warehouse), partitions=1, seed=seed, now=NOON + timedelta(hours=1))
        ann = driver.context(FileCap.read("/**"), FileCap.write("/**"))
        expected: Counter[tuple[str, datetime, str]] = Counter()
        for minute in range(3):
            for number in range(30):
                path, at = f"/f{number % 15}", NOON + timedelta(minutes=minute, seconds=number)
                kind = WriteFile if number % 3 == 0 else ReadFile
                driver.send(kind(path=path), ann, time=at)
                expected[path, NOON + timedelta(minutes=minute), "write" if kind is WriteFile else "read"] += 1
            if seed:
                driver.crash(group="intents")
        driver.send(ReadFile(path="/end"), ann, time=NOON + timedelta(minutes=5))  # closes what is open
        driver.advance(3)
        counts = driver.sink_counts("warehouse")
        assert counts.accepted == 20, "the buffer is full, and what follows waits in the topic"
        assert counts.slowed >= 2, "so the rate has fallen"
        assert driver.drain("warehouse", takes_s=3) == 45
        assert driver.sink_counts("warehouse").halved >= 1, "and batches, since the consumer is slow"
        assert [len(batch) for batch in warehouse.batches[:2]] == [20, 10]
        got = [one for batch in warehouse.batches for one in batch]
        found = {(one.path, one.timestamp, "read"): one.read_count for one in got}
        found |= {(one.path, one.timestamp, "write"): one.write_count for one in got}
        assert len(got) == 45
        assert {key: n for key, n in found.items() if n} == expected
        assert [one.timestamp for one in got] == sorted(one.timestamp for one in got), "in the order of their minutes"
        assert not driver.sink_counts("warehouse").dropped

    def test_it_stops_at_the_first_error(self) -> None:
        """S25: what one stage refuses no later one sees, the reason is told, and what is right passes."""
        warehouse = Warehouse()
        driver = Driver(composed(warehouse), partitions=1, now=NOON + timedelta(hours=1))
        reader = driver.context(FileCap.read("/**"))
        driver.send(WriteFile(path="/f"), reader, time=NOON)  # the first stage: not allowed
        driver.send(ReadFile(path="/locked/f"), reader, time=NOON)  # the second: raises
        driver.send(ReadFile(path="/f"), reader, time=NOON)
        driver.send(ReadFile(path="/end"), reader, time=NOON + timedelta(minutes=5))
        driver.drain("warehouse")
        denied, failed = driver.dead_letters()
        assert (denied.code, denied.topic) == ("insufficient_capabilities", "composed.intents")
        assert (failed.code, failed.topic) == ("handler_failed", "composed.touched")
        assert "/locked/f is locked" in failed.message
        assert driver.tallies == {("file_stream", "reads"): 3}
        wanted = FileActivitySummary(path="/f", read_count=1, write_count=0, timestamp=NOON)
        assert warehouse.batches == [[wanted]]


# --- S27: event sourcing, commands and queries, analytics ------------------------------------------------------------------


class ChangeFile(Intent, name="store.change", requires=FileCap.write("/{path...}")):
    """A command."""

    path: Annotated[str, Key]
    operation: Operation
    user_id: str


class FileChanged(Intent, name="store.changed", topic="events", requires=PUBLIC):
    """A domain event: what a command has led to."""

    user_id: Annotated[str, Key]
    path: str
    operation: Operation
    version: int


class ListFiles(Intent, name="store.list", requires=FileCap.read("/")):
    """A query."""

    user_id: Annotated[str, Key]


class FileAnalyticsEvent(Intent, name="store.analytics", topic="analytics", requires=PUBLIC):
    """Running metrics of an operation."""

    operation: Annotated[str, Key]
    user_id: str
    timestamp: datetime
    metrics: dict[str, int]


class Log(State):
    """The events of a file, from which all else follows."""

    events: list[str] = dataclasses.field(default_factory=list)


class Store(Reactor[Log], id="store"):
    """Takes commands: stores an event and tells it, or refuses."""

    @on
    def change(self, intent: ChangeFile, state: Log, ctx: Context) -> Effects:
        there = bool(state.events) and state.events[-1] != "delete"
        if intent.operation != "write" and not there:
            return Reply({"error": "file_not_found"})
        state.events.append(intent.operation)
        version = len(state.events)
        event = FileChanged(user_id=intent.user_id, path=intent.path, operation=intent.operation, version=version)
        return [Emit(event), Reply({"version": version})]


class Files(State):
    """What a user did last to each file."""

    files: dict[str, str] = dataclasses.field(default_factory=dict)


class Catalogue(Reactor[Files], id="catalogue"):
    """The read model: folds events, and answers queries."""

    @on
    def changed(self, intent: FileChanged, state: Files, ctx: Context) -> None:
        state.files[intent.path] = f"{intent.operation} {intent.version}"

    @on
    def list(self, intent: ListFiles, state: Files, ctx: Context) -> Effects:
        return Reply({"files": state.files})


class Running(NamedTuple):
    """Of one operation."""

    operations: int
    user_id: str
    at: str


def told(window: Windowed[Running]) -> FileAnalyticsEvent:
    """Running metrics, so far."""
    operations, user_id, at = window.value
    return FileAnalyticsEvent(
        operation=window.key, user_id=user_id, timestamp=datetime.fromisoformat(at), metrics={"operations": operations}
    )


analytics = pipeline(
    "analytics",
    stream(FileChanged)
    .key_by(lambda event: event.operation)
    .window(global_window(records=1))
    .aggregate(
        Running,
        operations=count(),
        user_id=last(lambda event: event.user_id, str),
        at=last(lambda _: NOON.isoformat(), str),
    )
    .emit(told),
)
store = Topology(
    "store",
    [Store, Catalogue],
    internal=["events"],
    emits=[FileChanged, FileAnalyticsEvent],
    parts=[analytics],
    replies=["replies"],
)


@pytest.mark.parametrize("seed", range(4))
def test_event_sourcing_cqrs_and_analytics(seed: int) -> None:
    """S27: the read model is the fold of the events, queries change nothing, and analytics counts each operation once."""
    driver = Driver(store, seed=seed, limits=Limits(poison_attempts=1 << 30))  # its many crashes are nobody's fault
    ann = driver.context(FileCap.read("/**"), FileCap.write("/**"))
    steps: list[tuple[str, Operation, str]] = [
        ("/a", "write", "ann"),
        ("/b", "write", "bob"),
        ("/a", "read", "bob"),
        ("/a", "delete", "ann"),
        ("/a", "read", "bob"),  # there is no such file any more
        ("/c", "delete", "bob"),  # nor ever was there that one
        ("/a", "write", "ann"),
        ("/b", "read", "ann"),
    ]
    dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
    if seed % 2:
        driver.after_action = lambda action: driver.crash() if dice.random() < 0.1 else None
    for path, kind, user in steps:
        driver.send(ChangeFile(path=path, operation=kind, user_id=user), ann, reply_to="replies")
    driver.after_action = None
    seen: dict[bytes | None, Any] = {one.header("pf-source"): one.json() for one in driver.outputs("events")}
    events = list(seen.values())
    assert Counter(event["operation"] for event in events) == {"write": 3, "read": 2, "delete": 1}

    folded: dict[str, dict[str, str]] = {}
    for event in sorted(events, key=lambda event: int(event["version"])):
        folded.setdefault(event["user_id"], {})[event["path"]] = f"{event['operation']} {event['version']}"
    for user, files in folded.items():
        assert driver.state(Catalogue, user) == Files(files=files)
    stored = driver.state(Store, "/a")
    assert stored == Log(events=["write", "read", "delete", "write"])

    before = len(driver.outputs("events"))
    driver.send(ListFiles(user_id="bob"), ann, reply_to="replies", correlation_id="query")
    (answer,) = [reply for reply in driver.replies() if reply.header("pf-correlation-id") == b"query"]
    assert answer.json() == {"files": folded["bob"]}
    assert len(driver.outputs("events")) == before, "a query tells nothing"
    assert driver.state(Catalogue, "bob") == Files(files=folded["bob"])

    running: dict[str, list[int]] = {}
    for one in {one.header("pf-source"): one.json() for one in driver.outputs("analytics")}.values():
        running.setdefault(one["operation"], []).append(one["metrics"]["operations"])
    assert running == {"write": [1, 2, 3], "read": [1, 2], "delete": [1]}
