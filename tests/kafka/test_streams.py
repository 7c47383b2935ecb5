"""Pipelines on a real Kafka whose workers are killed: what comes of them is what plain Python makes of the same records."""

import random
import signal
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Annotated

import orjson
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pf_stream import PUBLIC, Intent, Key, Topology
from pf_stream.core.status import LaneStatus
from pf_stream.streams import Windowed, count, pipeline, stream, tumbling
from pf_stream.streams._operator import instant
from tests.kafka import rooms
from tests.kafka._support import (
    Client,
    ProcessWorker,
    headers_of,
    in_process,
    in_thread,
    make_topics,
    token,
    wait_until,
)
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


# -- S28: what can be seen of a stream ------------------------------------------------------------------------------------


class Measured(Intent, name="meters.measured", requires=PUBLIC):
    """What a meter shows."""

    meter: Annotated[str, Key]
    value: int


class Hourly(Intent, name="meters.hourly", topic="hourly", requires=PUBLIC):
    """How often it showed something in an hour."""

    meter: Annotated[str, Key]
    count: int


def checked(measured: Measured) -> Measured:
    if measured.value < 0:
        raise ValueError("a meter does not go back")
    return measured


def hourly(told: Windowed[int]) -> Hourly:
    return Hourly(meter=told.key, count=told.value)


meters = Topology(
    "meters",
    [],
    partitions=1,
    parts=[
        pipeline(
            "meters",
            stream(Measured).map(checked).by_key().window(tumbling("1h")).aggregate(count()).emit(hourly),
        )
    ],
)


def test_s28_rate_error_rate_and_latency_of_a_stream(bootstrap_servers: str, unique: str) -> None:
    """S28: of 105 values five are refused; what is late is told too."""
    topology = meters.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    def send(number: int, at: datetime) -> None:
        intent = Measured(meter="m", value=-1 if number % 21 == 0 else number)
        spec = intent.__intent__
        client.send("m", spec.encode(intent), client.headers(spec.type, ce_time=at.isoformat()))

    with in_thread(bootstrap_servers, topology) as worker:
        for number in range(105):
            # The last three belong to an hour that has closed by then.
            send(number, hour - timedelta(hours=2) if number > 101 else hour)
        client.flush()

        def decided() -> LaneStatus:
            (lane,) = worker.call(lambda: worker.worker.lanes.statuses)
            assert (lane.handled, lane.refused) == (100, 5)
            # Of the last ten seconds, and of what was committed.
            assert lane.error_rate == pytest.approx(5 / 105, abs=1e-4)
            assert lane.rate == pytest.approx(10.0)
            return lane

        lane = wait_until(decided)
        assert lane.lag == 0
        assert lane.watermark_delay_s is not None
        assert 0 <= lane.watermark_delay_s < 3600 + 60
        assert lane.tallies == {"meters-window": {"late": 3}}
        assert lane.timers == 1, "one key has open windows"
        assert lane.windows == {"meters-window": 1}
        text = worker.call(lambda: generate_latest(worker.worker.metrics.registry)).decode()
    samples = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]

    def total(sample: str, /, **labels: str) -> float:
        return sum(value for one, has, value in samples if one == sample and labels.items() <= has.items())

    assert total("pf_records_refused_total", partition="0") == 5
    assert total("pf_latency_from_append_seconds_count", topic=client.topic, partition="0") == 105
    assert total("pf_lag_records", partition="0") == 0
    assert total("pf_tally_total", partition="0", name="late") == 3
    assert total("pf_windows_open", partition="0", reactor="meters-window") == 1
