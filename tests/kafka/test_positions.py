"""Positions moved on a real broker: what is counted again, what is not, and lanes that go on after they had to stop."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs
from typer.testing import CliRunner

from pf_stream import Context, Delivered, Reactor, Sink, Topology, on
from pf_stream.cli import _build
from pf_stream.clock import WallClock
from pf_stream.components.changelogs import LaneLog
from pf_stream.components.positions import OutOfRangeError, Reset, StaleReaderError, Target, positions
from pf_stream.core import changelog
from pf_stream.errors import NotFoundError
from pf_stream.kafka.admin import Admin
from tests.kafka._support import (
    Added,
    Client,
    Count,
    Counts,
    ThreadWorker,
    Totalled,
    connection,
    counts,
    durable,
    in_thread,
    make_topics,
    name_in,
    wait_until,
)


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def pf(client: Client, *args: str, code: int = 0) -> Any:
    """A command of the topology; what it says on stderr if it prints nothing."""
    environment = {
        "PF_BOOTSTRAP_SERVERS": client.bootstrap_servers,
        "PF_NAMESPACE": client.topology.namespace,
        "PF_TOPOLOGY": "tests.kafka._support:counts",
    }
    done = CliRunner().invoke(_build(), [*args, "-o", "json"], env=environment)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if done.stdout else done.stderr


def forgotten(client: Client) -> None:
    """Wait until the group has forgotten the workers that were stopped."""

    def none() -> None:
        assert Admin(connection(client.bootstrap_servers)).members(client.topology.app_id) == []

    wait_until(none, within=20)


def short_session(client: Client) -> AbstractContextManager[ThreadWorker]:
    """A worker that its group forgets as soon after its end as a broker allows."""
    return in_thread(client.bootstrap_servers, client.topology, session_s=6)


def reset(client: Client, *args: str) -> Any:
    """Move positions, once the group has forgotten the workers."""
    forgotten(client)
    return pf(client, "offsets", "reset", "--execute", *args)


def work(client: Client, expected: dict[str, int], total: int) -> None:
    """Run a worker until counts and total are as they should be."""
    with short_session(client) as worker:
        wait_until(lambda: counted(worker, expected, total))


def counted(worker: ThreadWorker, expected: dict[str, int], total: int) -> None:
    assert {name: worker.count(name) for name in expected} == expected
    assert worker.total() == total


def test_what_is_read_again_is_counted_again(client: Client) -> None:
    zero, one = (name_in(partition, client.topology) for partition in (0, 1))
    client.add(zero, 10)
    client.add(one, 5)
    client.flush()
    with short_session(client) as worker:
        wait_until(lambda: counted(worker, {zero: 10, one: 5}, 15))
        said = pf(client, "offsets", "reset", "--to", "start", "--execute", code=1)
        assert "error (workers_running): topology 'counts' has running workers" in said
        assert "w0 at 127.0.0.1" in said
        counted(worker, {zero: 10, one: 5}, 15)

    shown = pf(client, "offsets", "show")
    assert {(row["topic"], row["partition"]): row["position"] for row in shown if row["topic"] == client.topic} == {
        (client.topic, 0): 10,
        (client.topic, 1): 5,
    }
    assert {(row["lag"], row["state"]) for row in shown} <= {(0, "ok"), (0, "new")}

    only = ("--topic", "intents", "--partition", "0", "--to", "-3")
    change = {"reactor": "counts", "topic": client.topic, "partition": 0, "before": 10, "after": 7}
    assert pf(client, "offsets", "reset", *only) == [change]
    assert pf(client, "offsets", "show") == shown  # a dry run
    assert reset(client, *only) == [change]
    (moved,) = [row for row in pf(client, "offsets", "show") if row["lag"]]
    assert (moved["position"], moved["lag"]) == (7, 3)

    work(client, {zero: 13, one: 5}, 18)
    assert not client.dead_letters()


def test_an_internal_topic_is_read_again_if_it_is_named(client: Client) -> None:
    """The marks of its upstream lanes move too, or what is read again would be passed over as repeats."""
    zero, one = (name_in(partition, client.topology) for partition in (0, 1))
    client.add(zero, 4)
    client.add(one, 2)
    client.flush()
    work(client, {zero: 4, one: 2}, 6)
    totals = f"{client.topology.namespace}.totals"
    changed = reset(client, "--to", "start")
    assert {change["topic"] for change in changed} == {client.topic}
    changed = reset(client, "--to", "-2", "--topic", "totals")
    assert {change["topic"] for change in changed} == {totals}
    # The public one from its start: 6 more, each emitted anew; and the last 2 of the internal one.
    work(client, {zero: 8, one: 4}, 14)
    end = durable(client.bootstrap_servers, client.topology)
    assert max(offset for (_, topic, _), offset in end.watermarks.items() if topic == totals) >= 12


def test_lanes_that_stopped_go_on(client: Client) -> None:
    zero, one = (name_in(partition, client.topology) for partition in (0, 1))
    client.add(zero, 2)
    client.add(one, 2)
    client.flush()
    work(client, {zero: 2, one: 2}, 4)

    # Records are deleted before they are read.
    client.add(zero, 3)
    client.flush()
    admin = AdminClient({"bootstrap.servers": client.bootstrap_servers, "log_level": 0})
    for future in admin.delete_records([TopicPartition(client.topic, 0, 4)]).values():
        future.result(10)
    assert stopped(client) == {"watermark_range": f"--topic {client.topic} --partition 0 --to start"}
    shown = pf(client, "offsets", "show", code=5)
    assert {row["partition"] for row in shown if row["state"] == "out of range"} == {0}
    reset(client, "--topic", client.topic, "--partition", "0", "--to", "start")
    work(client, {zero: 3, one: 2}, 5)

    # The topic is made anew.
    everything = Admin(connection(client.bootstrap_servers))
    everything.delete([client.topic])
    make_topics(client.bootstrap_servers, client.topology)
    client = Client(client.bootstrap_servers, client.topology)
    client.add(zero, 3)
    client.flush()
    assert stopped(client) == {"topic_replaced": f"--topic {client.topic} --to start"}
    shown = pf(client, "offsets", "show", code=5)
    assert {row["topic"] for row in shown if row["state"] == "replaced"} == {client.topic}
    reset(client, "--topic", client.topic, "--to", "start")
    work(client, {zero: 6, one: 2}, 8)


def stopped(client: Client) -> dict[str, str]:
    """Code of what stops the lanes of a worker, and the command that each names."""
    with capture_logs() as logs, short_session(client):
        pass
    told = {entry["code"]: entry["reason"] for entry in logs if entry["event"].startswith("lane stopped")}
    return {
        code: reason.partition("pf offsets reset -t TOPOLOGY ")[2].removesuffix(" --execute")
        for code, reason in told.items()
    }


def test_what_there_is_not(client: Client) -> None:
    settings, topology = connection(client.bootstrap_servers), client.topology
    start = Target("start")
    with pytest.raises(NotFoundError, match="has no reactor 'cunts'; did you mean 'counts'"):
        Reset(settings, topology, start, reactor="cunts")
    with pytest.raises(NotFoundError, match=r"does not read .*; did you mean '.*intents'"):
        Reset(settings, topology, start, topic="intent")
    with pytest.raises(NotFoundError, match="there is no partition 2; topology 'counts' has 2, from 0"):
        Reset(settings, topology, start, partition=2)
    with pytest.raises(NotFoundError, match="'totals' reads no public topic; name one with --topic"):
        Reset(settings, topology, start, reactor="totals")
    with pytest.raises(OutOfRangeError, match=r"-0 holds \[0, 0\), so nothing can go on at 7"):
        Reset(settings, topology, Target("offset", 7))
    assert "is no position; write start, end, +N" in pf(client, "offsets", "reset", "--to", "7x", code=2)
    assert {one.state for one in positions(settings, topology)} == {"new"}


def test_targets(client: Client) -> None:
    name = name_in(0, client.topology)
    client.add(name, 10)
    client.flush()
    settings = connection(client.bootstrap_servers)

    def at(target: Target) -> int:
        return Reset(settings, client.topology, target, partition=0).preview()[0].after

    assert [at(Target("start", number)) for number in (0, 3, 30)] == [0, 3, 10]
    assert [at(Target("end", number)) for number in (0, -3, -30)] == [10, 7, 0]
    assert at(Target("offset", 10)) == 10
    now = WallClock().now_ms()
    assert [at(Target("time", time)) for time in (now - 3_600_000, now + 3_600_000)] == [0, 10]


def test_marks_are_those_of_the_records_before_the_position(client: Client) -> None:
    topic = f"{client.topology.namespace}.totals"
    for source in ("a:1:0", "b:5:0", "a:2:1", "a:1:0", "none", "a:3:0", "c:1:0"):
        client.send("k", b"{}", [("pf-source", source.encode())], topic=topic, partition=0)
    client.flush()
    log = LaneLog()
    stored = {"a": (3, 0), "b": (5, 0), "c": (1, 0), "gone": (9, 9)}
    pack = changelog.MARK_VALUE.pack
    log.take((changelog.mark_key(topic, name), pack(*mark)) for name, mark in stored.items())

    def marks(offset: int | None) -> dict[bytes, bytes | None]:
        return dict(log.move_marks(connection(client.bootstrap_servers), (topic, 0), offset))

    def key(name: str) -> bytes:
        return changelog.mark_key(topic, name)

    assert marks(7) == {}
    assert marks(5) == {key("a"): pack(2, 1), key("c"): None}
    assert marks(1) == {key("a"): pack(1, 0), key("b"): None, key("c"): None}
    assert marks(None) == dict.fromkeys(map(key, stored))


class Others(Reactor[Count], id="others"):
    """A second reader of the intents."""

    @on
    def added(self, intent: Added, state: Count, ctx: Context) -> None: ...


def test_a_topic_that_was_made_anew_is_not_reset_for_one_of_its_readers(bootstrap_servers: str, unique: str) -> None:
    """The other's position would count as one in the new topic, since there is one id for both."""
    topology = Topology("pair", [Counts, Others], namespace=unique, emits=[Totalled], partitions=2)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    settings, start = connection(bootstrap_servers), Target("start")
    value = changelog.WATERMARK_VALUE.pack(3, b"another topic id")
    log = f"{topology.app_id}-intents-changelog"
    # One that the topology does not declare is no reader.
    for reactor in ("undeclared", "counts", "others"):
        if reactor == "others":
            assert Reset(settings, topology, start, reactor="counts").preview()
        client.send(changelog.watermark_key(reactor, client.topic), value, [], topic=log, partition=0)
        client.flush()
    with pytest.raises(StaleReaderError, match="since reactor 'others' read it"):
        Reset(settings, topology, start, reactor="counts").preview()
    assert [change.before for change in Reset(settings, topology, start).preview()] == [3, 3, None, None]
    assert [one.state for one in positions(settings, topology) if one.topic == client.topic] == ["replaced"] * 2 + [
        "new"
    ] * 2


# -- sinks -----------------------------------------------------------------------------------------------------------------

handed: list[str] = []


async def note(batch: Sequence[Delivered[Totalled]]) -> None:
    """A consumer."""
    handed.extend(one.intent.name for one in batch)


noted = Topology(
    "noted",
    [Counts],
    internal=["totals"],
    emits=[Totalled],
    partitions=1,
    sinks=[Sink("notes", of=Totalled, to=note)],
)


def test_a_sink_hands_over_again_from_where_it_is_told(bootstrap_servers: str, unique: str) -> None:
    topology = noted.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    handed.clear()

    def shown() -> list[Any]:
        rows = pf(client, "offsets", "show", "-t", "tests.kafka.test_positions:noted")
        return [row for row in rows if row.get("sink") == "notes"]

    new = {"sink": "notes", "topic": f"{unique}.totals", "partition": 0, "position": None, "begin": 0, "end": 0}
    assert shown() == [{**new, "lag": 0, "state": "new"}]
    names = [f"n{number}" for number in range(6)]
    for name in names:
        client.add(name)
    client.flush()
    with short_session(client):
        wait_until(lambda: len(handed) == 6)
        said = pf(
            client,
            *("offsets", "reset", "-t", "tests.kafka.test_positions:noted"),
            *("--sink", "notes", "--to", "start", "--execute"),
            code=1,
        )
        assert "error (workers_running)" in said
    (row,) = shown()
    assert (row["position"], row["end"], row["lag"], row["state"]) == (row["end"], row["end"], 0, "ok")
    to = ("-t", "tests.kafka.test_positions:noted", "--sink", "notes", "--to", "2")
    change = {"sink": "notes", "topic": f"{unique}.totals", "partition": 0, "before": row["end"], "after": 2}
    assert pf(client, "offsets", "reset", *to) == [change]
    assert shown() == [row], "a dry run"
    assert reset(client, *to) == [change]
    assert (shown()[0]["position"], shown()[0]["lag"]) == (2, row["end"] - 2)
    with short_session(client) as worker:
        # The marks went back too, or what comes again would be left out as a repeat.
        wait_until(lambda: len(handed) >= 10)
        assert worker.count("n0") == 1, "and nothing is counted again"
    assert handed == [*names, *names[2:]]
    assert "has no sink 'note'; did you mean 'notes'" in pf(
        client, "offsets", "reset", *to[:3], "note", *to[4:], code=3
    )
    assert "it stands alone" in pf(client, "offsets", "reset", *to, "--topic", "intents", code=2)
