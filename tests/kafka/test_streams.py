"""Pipelines on a real Kafka whose workers are killed: what comes of them is what plain Python makes of the same records."""

import random
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from time import sleep

import orjson
import pytest

from pf_stream.streams._operator import instant
from tests.kafka import rooms
from tests.kafka._support import Client, ProcessWorker, headers_of, in_process, make_topics, token, wait_until
from tests.simulation.reckoning import Result, Sent
from tests.simulation.streams import END_MS, KINDS, PlaceCap, Seen, Streams, intent_of
from tests.simulation.workload import name_in

CHUNKS = 12
KILLS = 4


@pytest.mark.timeout(300)  # a worker that is started again on a machine that is busy is ready late
def test_windows_and_joins_survive_kill_9(bootstrap_servers: str, unique: str, tmp_path: Path) -> None:
    """Two workers, of which one is killed at a moment that the test's name decides, four times, and starts again."""
    dice = random.Random(unique)  # noqa: S311 - to be repeated is what these dice are for
    topology = rooms.sim.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    client.context = token(topology, PlaceCap.report("/**"))
    source = Streams(dice, standby=False, kinds=rooms.KINDS)
    source.strict = True
    sent: list[Sent] = []

    def send(one: Sent) -> None:
        intent = intent_of(one)
        when = instant(one.time_ms).isoformat()
        headers = client.headers(intent.__intent__.type, ce_id=str(one.number), ce_time=when)
        client.send(one.who, intent.__intent__.encode(intent), headers, partition=one.partition)
        sent.append(one)

    def check() -> None:
        """All that was told, once by its source and repeated as it was."""
        first: dict[bytes, tuple[bytes | None, ...]] = {}
        results: dict[str, list[Result]] = {}
        for message in client.read(f"{unique}.said"):
            origin = headers_of(message)["pf-source"] or b""
            known, content = origin in first, (message.key(), message.value())
            assert first.setdefault(origin, content) == content
            if not known:
                said = orjson.loads(message.value() or b"")
                one = Result(said["key"], said["start_ms"], said["end_ms"], said["kind"], tuple(said["numbers"]))
                results.setdefault(said["stage"], []).append(one)
        good = [one for one in sent if one.act != "raise" and one.kind != "beat"]
        for name in rooms.KINDS:
            KINDS[name].check(Seen(good, results.get(name, ()), Counter(), strict=True))
        assert client.read(f"{unique}.late") == []
        # Dead letters are outputs too: after a crash the last of them may be there twice.
        refused = {
            tuple(headers_of(message)[f"__streams.errors.{name}"] for name in ("topic", "partition", "offset"))
            for message in client.dead_letters()
        }
        assert len(refused) == sum(one.act == "raise" for one in sent)

    workers: dict[str, ProcessWorker] = {}
    with ExitStack() as stack:

        def start(name: str) -> None:
            one = in_process(bootstrap_servers, topology, tmp_path, worker_id=name, module=rooms.__name__)
            workers[name] = stack.enter_context(one)

        for name in ("w0", "w1"):
            start(name)
        for worker in workers.values():
            worker.wait_for("worker ready", within=90)
        kills = dice.sample(range(CHUNKS), KILLS)
        for chunk in range(CHUNKS):
            for _ in range(40):
                send(source.choose(dice.randrange(2)))
            client.flush()
            sleep(dice.random())
            if chunk in kills:
                name = dice.choice(sorted(workers))
                workers[name].wait_for("lane open", within=90)
                sleep(0.3 * dice.random())
                workers[name].signal(signal.SIGKILL)
                workers[name].process.wait(10)
                start(name)
        for partition in (0, 1):
            send(Sent("beat", partition, name_in(partition, "beat"), "", 0, END_MS))
        client.flush()
        wait_until(check, within=60)
