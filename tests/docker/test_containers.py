"""The image and the settings of docker-compose.yml, in a container of their own."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import create_topics
from pf_stream.topology import load_topology

ROOT = Path(__file__).parent.parent.parent

sys.path.insert(0, str(ROOT / "topologies" / "flights"))

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_flight_goes_through_a_worker(tmp_path: Path) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    from nyc.contexts import Issuer
    from nyc.data import airlines, outcomes, read_file, reports, totals
    from nyc.producer import Sender, intents
    from nyc.results import Results
    from nyc.worker import TOPOLOGY, WorkerProcess

    kafka: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]["kafka"]
    port = _free_port()
    inside = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].partition(",")[0]
    settings = kafka["environment"] | {"KAFKA_ADVERTISED_LISTENERS": f"{inside},OUTSIDE://localhost:{port}"}
    container = (
        DockerContainer(kafka["image"])
        .with_envs(**{name: str(value) for name, value in settings.items()})
        .with_kwargs(hostname="kafka")
        .with_bind_ports(9092, port)
        .waiting_for(LogMessageWaitStrategy("Kafka Server started"))
    )
    with container:
        servers = f"localhost:{port}"
        connection = ConnectionSettings(servers)
        topology = load_topology(str(TOPOLOGY))
        create_topics(Admin(connection), topology)
        issuer = Issuer.new(topology.namespace)
        issuer.key.save(tmp_path / "issuer.key")
        frame = read_file().head(1)
        sender = Sender(servers, topology.topic_name("intents"))
        sent = list(intents(reports(frame), issuer.contexts(airlines())))
        for intent in sent:
            sender.send(intent)
        assert sender.flush(30)
        results = Results(connection, topology, topology.partitions)
        with WorkerProcess(servers, tmp_path / "issuer.key.pub", tmp_path / "worker.log") as worker:
            while results.decided() < len(sent) or not results.complete():
                worker.check()
                results.advance(0.2)
            assert worker.drain() == 0
        assert results.differences(totals(frame), {}, outcomes(frame)) == []
        results.close()
