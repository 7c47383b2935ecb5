"""Nexmark on a real Kafka, as the bench runs it: the answers of pf_stream are duckdb's."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from bench.nexmark.cells import Bench, Cell
from bench.nexmark.engines import ENGINES
from bench.nexmark.events import events
from bench.peers.processes import Cores, StuckError
from bench.peers.rounds import Site
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.link import ConnectionSettings

COUNT = 3_000


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    """A broker of its own: behind a run the bench deletes every topic that was made meanwhile."""
    with DevBroker.temporary() as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="module")
def bench(servers: str, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    site = Site(servers, os.getpid(), Cores(None, None, None), tmp_path_factory.mktemp("nexmark"))
    # A minute of events, so that there are several windows; those of eight tenths of a second are in no order.
    bench = Bench(site, partial(events, seed=3, per_second=50, disorder=40))
    bench.fill(COUNT, "q6")
    return bench


@pytest.mark.parametrize(
    ("query", "guarantee"), [("q7", "effectively_once"), ("q11", "transactional"), ("q6", "effectively_once")]
)
def test_the_answers_are_those_of_duckdb(bench: Bench, servers: str, query: str, guarantee: str) -> None:
    admin = Admin(ConnectionSettings(servers))
    bench.fill(COUNT, query)
    before = admin.names()
    (engine,) = (one for one in ENGINES if (one.name, one.guarantee) == ("pf_stream", guarantee))
    outcome = bench.run(Cell(engine, query, COUNT))
    assert outcome.wrong is None
    assert outcome.records > 0.9 * COUNT
    made = set(admin.names()) - set(before)
    assert all(name.startswith("__") for name in made)


def test_an_engine_that_ends_by_itself_is_not_waited_for(bench: Bench) -> None:
    program = "import time; time.sleep(2); raise SystemExit('I give up')"
    ending = replace(ENGINES[0], command=lambda _: (sys.executable, "-c", program))
    began = time.monotonic()
    with pytest.raises(StuckError, match="exit code 1\nI give up"):
        bench.run(Cell(ending, "q6", COUNT))
    assert time.monotonic() - began < 30
