"""The flights with which what is left after a chaos test is counted."""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "topologies" / "flights"))

from nyc.contexts import Issuer
from nyc.data import Outcomes, Totals, airlines, outcomes, read_file, reports, totals
from nyc.producer import Intent, Sender, intents
from nyc.refusals import Refusals
from nyc.results import Results
from nyc.worker import TOPOLOGY, WorkerProcess
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import create_topics
from pf_stream.topology import load_topology

EVERY = 40
REFUSED = 350


@dataclass(slots=True)
class Run:
    """Every fortieth flight of the year, announced and reported, and what must be refused, on the way into topics of their own."""

    namespace: str
    count: int
    """Intents in all."""
    expected: Totals
    told: Outcomes
    refused: dict[str, str]
    results: Results
    _intents: Iterator[Intent]
    _topic: str
    _servers: str
    _folder: Path

    @classmethod
    def prepared(cls, servers: str, frame: pd.DataFrame, folder: Path) -> "Run":
        """Topics in a namespace of its own; nothing is sent yet."""
        namespace = f"chaos{secrets.token_hex(4)}"
        connection = ConnectionSettings(servers)
        topology = load_topology(str(TOPOLOGY)).within(namespace)
        create_topics(Admin(connection), topology)
        issuer = Issuer.new(namespace)
        issuer.key.save(folder / "issuer.key")
        refusals = Refusals.among(frame, issuer, REFUSED)
        contexts = issuer.contexts(airlines())
        good = 2 * len(frame) + len(contexts)
        return cls(
            namespace,
            good + REFUSED,
            totals(frame),
            outcomes(frame),
            refusals.codes,
            Results(connection, topology, topology.partitions),
            refusals.mixed_into(intents(reports(frame), contexts), good),
            topology.topic_name("intents"),
            servers,
            folder,
        )

    def send(self, share: float = 1) -> None:
        """Send that share of all intents, or what is left."""
        sender = Sender(self._servers, self._topic)
        for intent in islice(self._intents, round(self.count * share)):
            sender.send(intent)
        assert sender.flush(60)

    def differences(self) -> list[str]:
        """What is not as it must be."""
        return self.results.differences(self.expected, self.refused, self.told)

    def worker(self) -> WorkerProcess:
        """A worker; every one of a run has the same name, as after a restart."""
        return WorkerProcess(
            self._servers,
            self._folder / "issuer.key.pub",
            self._folder / "worker.log",
            options=["--namespace", self.namespace],
        )


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    """Every fortieth flight."""
    return read_file(EVERY)


@pytest.fixture
def run(bootstrap_servers: str, frame: pd.DataFrame, tmp_path: Path) -> Iterator[Run]:
    """A run of its own for each test."""
    prepared = Run.prepared(bootstrap_servers, frame, tmp_path)
    yield prepared
    prepared.results.close()
