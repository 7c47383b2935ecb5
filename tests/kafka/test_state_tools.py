"""All state checked, and that of one reactor dropped, on a real broker."""

from typing import Any

import orjson
import pytest

from pf_stream.components import state
from pf_stream.core import changelog
from pf_stream.core.changelog import pack_state, state_key, state_prefix, watermark_key
from pf_stream.core.records import SourceRecord
from pf_stream.core.timers import WALL, Timer, encode_timer
from tests.kafka._support import Client, counts, durable, make_topics, name_in, read_topic, wait_until
from tests.kafka.test_positions import counted, forgotten, pf, short_session


@pytest.fixture
def client(bootstrap_servers: str, unique: str) -> Client:
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


def log(client: Client, group: str = "intents") -> str:
    return f"{client.topology.app_id}-{group}-changelog"


def write(client: Client, key: bytes, value: bytes | None, partition: int = 0) -> int:
    """Append to the changelog; returns the offset."""
    return client.place(key, value, [], partition=partition, topic=log(client)).offset


def ghost(client: Client, states: int) -> None:
    """What a reactor has left that the topology no longer has."""
    prefix = state_prefix("ghost")
    for number in range(states):
        client.send(state_key(prefix, b"%d" % number), pack_state(1, b"{}"), [], partition=0, topic=log(client))
    tea = Timer(1 << 41, WALL, client.topic, SourceRecord(0, 0, b"1", b"{}", ()), 0, scheduled=True, failed=0)
    client.send(changelog.timer_key("ghost", b"1", b"tea"), encode_timer(tea), [], partition=0, topic=log(client))
    windows = changelog.WINDOWS_VALUE.pack(3)
    client.send(changelog.windows_key("ghost"), windows, [], partition=0, topic=log(client))
    position = changelog.WATERMARK_VALUE.pack(3, bytes(16))
    client.send(watermark_key("ghost", client.topic), position, [], partition=0, topic=log(client))
    client.flush()


def reactors(client: Client) -> set[str]:
    """Those of which anything is kept."""
    found = durable(client.bootstrap_servers, client.topology)
    return {reactor for reactor, _ in found.states} | {reactor for reactor, _, _ in found.watermarks}


def test_what_cannot_be_decoded_is_found(client: Client) -> None:
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    for name in names:
        client.add(name, 2)
    client.flush()
    with short_session(client) as worker:
        wait_until(lambda: counted(worker, dict.fromkeys(names, 2), 4))
    ghost(client, 2)
    good = {"keys": {"counts": 2, "totals": 1}, "undeclared": {"ghost": 2}, "faults": []}
    assert pf(client, "state", "check") == good

    prefix = state_prefix("counts")
    write(client, state_key(prefix, b"mended"), b"?")
    write(client, state_key(prefix, b"mended"), pack_state(1, b'{"n":1}'))
    write(client, state_key(prefix, b"gone"), b"?")
    write(client, state_key(prefix, b"gone"), None)
    at = {name: write(client, state_key(prefix, name.encode()), raw) for name, raw in BAD.items()}
    found = pf(client, "state", "check", code=5)
    assert found["keys"] == {"counts": 3 + len(BAD), "totals": 1}
    assert [(fault["key"], fault["offset"]) for fault in found["faults"]] == list(at.items())
    assert {(fault["reactor"], fault["topic"], fault["partition"]) for fault in found["faults"]} == {
        ("counts", log(client), 0)
    }
    assert "it has version 7, and Count is version 1 here" in found["faults"][0]["reason"]
    assert pf(client, "state", "check", "totals") == {"keys": {"totals": 1}, "undeclared": {}, "faults": []}
    assert "did you mean 'totals'" in pf(client, "state", "check", "totls", code=3)


BAD = {"version": pack_state(7, b"{}"), "type": pack_state(1, b'{"n":"x"}'), "short": b"\x01"}


def test_what_a_reactor_left_is_dropped(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "BATCH", 2)
    name = name_in(0, client.topology)
    client.add(name, 3)
    client.flush()
    with short_session(client) as worker:
        wait_until(lambda: counted(worker, {name: 3}, 3))
        ghost(client, 5)
        assert "error (workers_running)" in pf(client, "state", "drop", "ghost", "--execute", code=1)
    before = durable(client.bootstrap_servers, client.topology)
    assert reactors(client) == {"counts", "totals", "ghost"}

    would = pf(client, "state", "drop", "ghost")
    assert total(would) == (5, 1, 1)
    assert durable(client.bootstrap_servers, client.topology) == before
    forgotten(client)
    header = {"format": 1, "topology": "counts", "version": 1, "partitions": 2, "incarnation": "x"}
    header |= {"reactors": {"counts": 1, "ghost": 1}}
    write(client, changelog.HEADER, orjson.dumps(header))
    assert pf(client, "state", "drop", "ghost", "--execute") == would
    assert reactors(client) == {"counts", "totals"}
    kept = [r for r in read_topic(client.bootstrap_servers, log(client)) if r.partition() == 0]
    assert [r.value() for r in kept if r.key() == changelog.windows_key("ghost")][-1] is None
    headers = [r.value() for r in kept if r.key() == changelog.HEADER]
    assert orjson.loads(headers[-1] or b"") == header | {"reactors": {"counts": 1}}
    assert total(pf(client, "state", "drop", "ghost")) == (0, 0, 0)
    assert "nothing is kept of a reactor 'gost'; did you mean 'ghost'" in pf(client, "state", "drop", "gost", code=3)
    after = durable(client.bootstrap_servers, client.topology)
    assert after.states == {key: value for key, value in before.states.items() if key[0] != "ghost"}

    client.add(name, 1)
    client.flush()
    with short_session(client) as worker:
        wait_until(lambda: counted(worker, {name: 4}, 4))


def total(rows: Any) -> tuple[int, ...]:
    """States, timers and positions, of all lanes."""
    return tuple(sum(row[name] for row in rows) for name in ("states", "timers", "positions"))


def test_a_reactor_that_the_topology_has_begins_anew(client: Client) -> None:
    """It reads its topic from the start, also what it took as repeats before, and comes to the same sum."""
    names = [name_in(partition, client.topology) for partition in (0, 1)]
    for name in names:
        client.add(name, 3)
    client.flush()
    with short_session(client) as worker:
        wait_until(lambda: counted(worker, dict.fromkeys(names, 3), 6))
    assert "error (declared_reactor)" in pf(client, "state", "drop", "totals", "--execute", code=1)
    forgotten(client)
    assert total(pf(client, "state", "drop", "totals", "--force", "--execute"))[0] == 1
    assert reactors(client) == {"counts"}
    with short_session(client) as worker:
        client.add(names[0])
        client.flush()
        wait_until(lambda: counted(worker, {names[0]: 4, names[1]: 3}, 7))
