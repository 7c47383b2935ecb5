"""The registry: what workers write, and what can be made of what lies there."""

import asyncio
import dataclasses
import json
import socket
import time

import pytest

from pf_stream import Topology, caller
from pf_stream.clock import VirtualClock
from pf_stream.components.registry import HEARTBEAT_S, Component, Peers, Registry, merge, records_for
from pf_stream.core.status import LaneState, LaneStatus
from pf_stream.kafka.errors import KafkaUnavailableError
from pf_stream.kafka.topics import REGISTRY
from pf_stream.model import Requirement, grant

NOW_MS = 1_767_225_600_000


class Compacted:
    """A compacted topic in memory."""

    def __init__(self) -> None:
        self.latest: dict[bytes, bytes] = {}
        self.sent = 0

    async def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        assert topic == REGISTRY
        self.sent += 1
        if value is None:
            del self.latest[key]
        else:
            self.latest[key] = value


@pytest.fixture
def topic() -> Compacted:
    return Compacted()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW_MS)


@pytest.fixture
def registry(topic: Compacted, flights: Topology, clock: VirtualClock) -> Registry:
    return Registry(topic, flights, "w1", clock)


def test_one_record_for_the_worker_and_one_for_each_reactor(flights: Topology) -> None:
    records = dict(records_for(flights.within("test"), "w1", NOW_MS))
    assert list(records) == [
        b"worker:test.flights:w1",
        b"reactor:test.flights:fleet:w1",
        b"reactor:test.flights:board:w1",
        b"reactor:test.flights:carriers:w1",
    ]
    assert json.loads(records[b"reactor:test.flights:fleet:w1"]) == {
        "kind": "reactor",
        "name": "fleet",
        "version": "1",
        "app": "test.flights",
        "namespace": "test",
        "worker": "w1",
        "intents": ["flights.departed.v1"],
        "capabilities": ["FlightCap.report(/{carrier}/{origin})"],
        "started_ms": NOW_MS,
        "heartbeat_ms": NOW_MS,
        "lanes": [],
        "sinks": [],
        "tables": [],
        "host": None,
        "port": None,
    }


def test_what_the_topology_requires_is_told_too(flights: Topology) -> None:
    more: dict[str, list[Requirement]] = {"flights.departed": [caller(tenant="UA"), grant("FlightCap.admin:/")]}
    guarded = Topology("flights", flights.reactors, requires=more)
    fleet, board = (json.loads(value) for _, value in records_for(guarded, "w1", NOW_MS)[1:3])
    report = "FlightCap.report(/{carrier}/{origin})"
    assert fleet["capabilities"] == ["FlightCap.admin(/)", report, "caller's tenant is UA"]
    assert board["capabilities"] == [report]


def test_announced_components_are_found_again(topic: Compacted, registry: Registry) -> None:
    asyncio.run(registry.report())
    found = merge(topic.latest.items())
    assert [(c.kind, c.name) for c in found] == [
        ("worker", "w1"),
        ("reactor", "board"),
        ("reactor", "carriers"),
        ("reactor", "fleet"),
    ]


def test_a_heartbeat_is_one_record_and_keeps_the_reactors_alive(
    topic: Compacted, registry: Registry, clock: VirtualClock
) -> None:
    asyncio.run(registry.report())
    sent = topic.sent
    clock.advance(4 * HEARTBEAT_S)
    assert all(component.is_lost(clock.now_ms()) for component in merge(topic.latest.items()))
    asyncio.run(registry.report())
    assert topic.sent == sent + 1
    found = merge(topic.latest.items())
    assert not any(component.is_lost(clock.now_ms()) for component in found)
    assert {component.started_ms for component in found} == {NOW_MS}


def test_a_report_carries_the_lanes(topic: Compacted, registry: Registry) -> None:
    stopped = LaneStatus("intents", "log", 1, LaneState.stopped, code="fenced", reason="it belongs to another")
    running = LaneStatus("intents", "log", 0, LaneState.running, positions={"flights.intents": 7}, lag=3, handled=7)
    asyncio.run(registry.report([running, stopped]))
    worker, *reactors = merge(topic.latest.items())
    assert worker.lanes == (running, stopped)
    assert all(reactor.lanes == () for reactor in reactors)


def test_a_report_that_failed_half_way_announces_the_reactors_with_the_next(
    topic: Compacted, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = topic.send

    async def away(*_: object) -> None:
        if topic.sent:
            raise KafkaUnavailableError("nowhere:1", "gone")
        await send(REGISTRY, b"one", b"{}")

    monkeypatch.setattr(topic, "send", away)
    with pytest.raises(KafkaUnavailableError):
        asyncio.run(registry.report())
    monkeypatch.setattr(topic, "send", send)
    asyncio.run(registry.report())
    assert len(merge(topic.latest.items())) == 4


def test_a_report_says_where_the_worker_answers(topic: Compacted, flights: Topology, clock: VirtualClock) -> None:
    asyncio.run(Registry(topic, flights, "w1", clock, 8081).report())
    asyncio.run(Registry(topic, flights, "w2", clock).report())
    one, two, *reactors = merge(topic.latest.items())
    assert (one.host, one.port) == (socket.gethostname(), 8081)
    assert (two.host, two.port) == (socket.gethostname(), None)
    assert {(reactor.host, reactor.port) for reactor in reactors} == {(None, None)}


def test_a_record_of_an_older_worker_has_no_lanes_and_no_port(flights: Topology) -> None:
    key, value = records_for(flights, "w1", NOW_MS)[0]
    older = json.loads(value)
    for name in ("lanes", "host", "port", "sinks"):
        del older[name]
    (found,) = merge([(key, json.dumps(older).encode())])
    assert (found.lanes, found.host, found.port, found.sinks) == ((), None, None, ())


def test_peers_are_read_once_for_many_who_ask(flights: Topology, clock: VirtualClock) -> None:
    reads = 0
    lane = LaneStatus("intents", "log", 1, LaneState.running)

    def read() -> list[Component]:
        nonlocal reads
        reads += 1
        time.sleep(0.05)
        return [dataclasses.replace(one, lanes=(lane,)) for one in merge(records_for(flights, "w1", NOW_MS))]

    async def ask() -> set[str | None]:
        peers = Peers(read, flights.app_id, "w0", clock)
        found = await asyncio.gather(*(peers.with_lane(f"intents-{number}") for number in (0, 1, 1, 1)))
        return {None if one is None else one.name for one in found}

    assert asyncio.run(ask()) == {None, "w1"}
    assert reads == 1


@pytest.mark.parametrize(("missed", "lost"), [(3.0, False), (3.01, True)])
def test_a_worker_is_lost_after_three_heartbeats(
    topic: Compacted, registry: Registry, missed: float, lost: bool
) -> None:
    asyncio.run(registry.report())
    component = merge(topic.latest.items())[0]
    assert component.is_lost(NOW_MS + round(missed * HEARTBEAT_S * 1000)) is lost


def test_nothing_remains_of_a_worker_that_stopped(topic: Compacted, registry: Registry) -> None:
    asyncio.run(registry.report())
    asyncio.run(registry.withdraw())
    assert topic.latest == {}


def test_workers_of_one_topology_do_not_overwrite_each_other(
    topic: Compacted, flights: Topology, clock: VirtualClock
) -> None:
    for worker in ("w1", "w2"):
        asyncio.run(Registry(topic, flights, worker, clock).report())
    assert len(merge(topic.latest.items())) == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"worker:flights:w9", b"no JSON"),
        (b"worker:flights:w9", b"{}"),
        (b"worker:flights:w9", b'{"kind": "worker", "name": 3}'),
        (b"worker:flights:w9", None),  # the record of w1 under another's name
    ],
)
def test_what_is_no_announcement_is_left_out(flights: Topology, key: bytes, value: bytes | None) -> None:
    records = records_for(flights, "w1", NOW_MS)
    assert len(merge([*records, (key, records[0][1] if value is None else value)])) == len(records)
