"""Hours, days and overdue flights of a backlog on a real Kafka; the demo has them as they come."""

from pathlib import Path

from nyc.contexts import Issuer
from nyc.data import airlines, outcomes, read_file, reports, totals
from nyc.producer import Sender, intents
from nyc.results import Results
from nyc.worker import TOPOLOGY, WorkerProcess
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.topology import load_topology
from tests.kafka._support import make_topics


def test_timers_that_are_due_again_and_again_do_not_make_units_small(
    bootstrap_servers: str, unique: str, tmp_path: Path
) -> None:
    frame = read_file(60)
    topology = load_topology(str(TOPOLOGY)).within(unique)
    make_topics(bootstrap_servers, topology)
    issuer = Issuer.new(unique)
    issuer.key.save(tmp_path / "issuer.key")
    sender = Sender(bootstrap_servers, topology.topic_name("intents"))
    for intent in intents(reports(frame), issuer.contexts(airlines())):
        sender.send(intent)
    assert sender.flush(60)
    count = 2 * len(frame) + len(airlines())
    results = Results(ConnectionSettings(bootstrap_servers), topology, topology.partitions)
    with WorkerProcess(
        bootstrap_servers, tmp_path / "issuer.key.pub", tmp_path / "worker.log", options=["--namespace", unique]
    ) as worker:
        while results.decided() < count or not results.complete():
            worker.check()
            results.advance(0.2)
        assert worker.drain() == 0
    results.close()
    assert results.differences(totals(frame), {}, outcomes(frame)) == []
    assert results.units < count / 3
