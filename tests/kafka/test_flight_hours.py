"""Hourly delays on a real Kafka: four lanes upstream that get on unevenly, and what pandas makes of the same flights."""

from datetime import datetime, timedelta
from pathlib import Path

import orjson

from nyc.contexts import Issuer
from nyc.data import by_day, flights, hours, read_file
from nyc.producer import Sender, intents
from nyc.worker import WorkerProcess
from pf_stream.core import partition_of
from pf_stream.topology import read_topology_file
from tests.kafka._support import ROOT, Client, make_topics, wait_until

HOURS = ROOT / "topologies/flights/hours.yaml"


def test_hours_as_pandas_has_them(bootstrap_servers: str, unique: str, tmp_path: Path) -> None:
    frame = by_day(read_file(100))
    topology = read_topology_file(HOURS).within(unique)
    make_topics(bootstrap_servers, topology)
    issuer = Issuer.new(unique)
    issuer.key.save(tmp_path / "issuer.key")
    sender = Sender(bootstrap_servers, topology.topic_name("intents"))
    for intent in intents(flights(frame), issuer.contexts(sorted(frame["carrier"].unique()))):
        sender.send(intent)
    assert sender.flush(60)

    lanes = [partition_of(key.encode(), topology.partitions) for key in frame["tailnum"].fillna(frame["carrier"])]
    clock = frame["time"].groupby(lanes).max().min()
    expected = hours(frame)
    over = {at for at in expected if at[1] + timedelta(hours=25) <= clock}  # the last hours stay open for a while
    assert len(over) > 2000
    client = Client(bootstrap_servers, topology)

    def closed() -> None:
        values = [orjson.loads(message.value() or b"") for message in client.read(topology.topic_name("hourly"))]
        found = {
            (one["origin"], datetime.fromisoformat(one["hour"])): (
                one["flights"],
                one["cancelled"],
                one["minutes_late"],
            )
            for one in values
        }
        assert len(found) == len(values), "each is said once"
        assert found.items() <= expected.items()
        assert found.keys() >= over

    options = ["--namespace", unique]
    with WorkerProcess(
        bootstrap_servers, tmp_path / "issuer.key.pub", tmp_path / "worker.log", topology=str(HOURS), options=options
    ) as worker:
        wait_until(closed, within=50)
        assert worker.drain() == 0
    assert not client.dead_letters()
