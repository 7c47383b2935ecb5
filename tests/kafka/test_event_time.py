"""The event clock on a real Kafka: two workers, an internal topic between their lanes, partitions to which little goes."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from pf_stream import Topology
from pf_stream.core import Limits
from tests.kafka._support import Client, ThreadWorker, headers_of, in_thread, make_topics, name_in, wait_until
from tests.unit.core.hours import START, hours

FIRST = str(int(START.timestamp()) // 3600)
"""The first hour of that day, as states name it."""
IDLE = Limits(idle_ms=7_000)


def saw(client: Client, who: str, room: str, number: int, minute: float) -> None:
    """Somebody saw something at a minute of that day."""
    value = orjson.dumps({"who": who, "room": room, "number": number})
    when = (START + timedelta(minutes=minute)).isoformat()
    client.send(who, value, client.headers("hour.saw.v1", pf_context=None, ce_time=when))
    client.flush()


def room(name: str, *workers: ThreadWorker) -> dict[str, Any]:
    """What the worker that has it says of a room."""
    for worker in workers:
        state = worker.state("rooms", name)
        if state is not None:
            return dict(state)
    return {"closed": {}, "open": {}, "late": []}


def test_times_that_are_bad(bootstrap_servers: str, unique: str) -> None:
    """What is no time is the time of the append; who is from the future moves the clock to now and no further."""
    topology = Topology(hours.name, hours.reactors, namespace=unique, internal=hours.internal, partitions=1)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    times = [
        None,
        "",
        "yesterday",
        "-1",
        "-0001-01-01T00:00:00Z",
        "1905-06-30T00:00:00Z",
        "9999-12-31T23:59:59Z",
        tomorrow,
    ]
    with in_thread(bootstrap_servers, topology) as worker:
        for number, when in enumerate(times):
            value = orjson.dumps({"who": "a", "room": "r", "number": number})
            client.send("a", value, client.headers("hour.saw.v1", pf_context=None, ce_time=when))
        client.flush()

        def seen() -> None:
            found = room("r", worker)
            numbers = [number for key in ("open", "closed") for of in found[key].values() for number in of]
            # The hour of 9999 ends when no datetime is, at which the handler raises: that is its own, and a dead letter.
            assert sorted([*numbers, *found["late"]]) == [0, 1, 2, 3, 4, 5, 7]
            (letter,) = client.read(f"{unique}.seen.dlq")
            assert headers_of(letter)["pf-error-code"] == b"handler_failed"

        wait_until(seen)
        now_ms = datetime.now(UTC).timestamp() * 1000
        clocks = worker.call(lambda: [runner.lane.timers.event_ms for runner in worker.worker.lanes.runners])
        assert [clock is not None and now_ms - 120_000 < clock <= now_ms for clock in clocks].count(True) >= 2, clocks
        assert all(clock is None or clock <= now_ms for clock in clocks)
        assert room("r", worker)["late"] == [5]
    assert not client.dead_letters()


def test_lanes_of_two_workers_wait_for_each_other(bootstrap_servers: str, unique: str) -> None:
    topology = Topology(hours.name, hours.reactors, namespace=unique, internal=hours.internal, partitions=2)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    near, far = (name_in(number, topology) for number in (0, 1))
    rooms = [name_in(number, topology, "room") for number in (0, 1)]

    def closed(*workers: ThreadWorker, hour: int, numbers: list[list[int]]) -> None:
        key = str(int(FIRST) + hour)
        found = [room(name, *workers) for name in rooms]
        assert [sorted(one["closed"].get(key, [])) for one in found] == numbers
        assert [one["late"] for one in found] == [[], []]

    with in_thread(bootstrap_servers, topology, worker_id="w0", limits=IDLE) as first:
        with in_thread(bootstrap_servers, topology, worker_id="w1", limits=IDLE) as second:
            wait_until(lambda: first.lanes and second.lanes and len(first.lanes | second.lanes) == 6)
            for number, name in enumerate(rooms):
                saw(client, near, name, number, 10)
                saw(client, far, name, 10 + number, 20)
            for minute in (80, 90):  # one lane upstream is ahead, and speaks all the time
                saw(client, near, rooms[0], minute, minute)
                time.sleep(0.5)
            assert [room(name, first, second)["closed"] for name in rooms] == [{}, {}], "the other one may be behind"
            saw(client, far, rooms[0], 61, 61)
            wait_until(lambda: closed(first, second, hour=0, numbers=[[0, 10], [1, 11]]))
        # The lanes of the second come to the first, with what they knew.
        wait_until(lambda: len(first.lanes) == 6)
        saw(client, near, rooms[1], 130, 130)
        time.sleep(1)
        assert FIRST not in room(rooms[0], first)["open"]
        assert str(int(FIRST) + 1) in room(rooms[0], first)["open"], "the other one is at 61"
        saw(client, far, rooms[1], 62, 62)
        # Then nobody says anything any more.
        wait_until(lambda: closed(first, hour=1, numbers=[[61, 80, 90], [62]]), within=40)
    assert not client.dead_letters()
