"""Global tables on a real Kafka: read whole before any lane begins, followed, with tombstones and what is no row."""

import asyncio
import time
from dataclasses import dataclass
from dataclasses import field as field_of

import orjson
import pytest
from confluent_kafka import Producer

from pf_stream import Context, GlobalTable, Reactor, State, Topology, on
from pf_stream.core.status import TableState
from pf_stream.engine import tables
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import missing_topics
from tests.kafka._support import Added, Client, ThreadWorker, in_thread, make_topics, wait_until


@dataclass
class Label:
    text: str


LABELS = GlobalTable("labels", Label, most_bytes=100_000)


class Labelled(State):
    texts: list[str | None] = field_of(default_factory=list)


class Labels(Reactor[Labelled], id="labels"):
    @on
    def added(self, intent: Added, state: Labelled, ctx: Context) -> None:
        row = ctx.row(LABELS, intent.how)
        state.texts = [*state.texts, None if row is None else row.text]


class Rows:
    """Writes rows, and intents that look at them."""

    def __init__(self, bootstrap_servers: str, unique: str, *, most_bytes: int = 100_000) -> None:
        self.topology = Topology("labelled", [Labels], namespace=unique, partitions=2, tables=[LABELS])
        make_topics(bootstrap_servers, self.topology)
        self.client = Client(bootstrap_servers, self.topology)
        self._producer = Producer({"bootstrap.servers": bootstrap_servers})
        self._topic = f"{unique}.labels"

    def write(self, **rows: str | bytes | None) -> None:
        for key, row in rows.items():
            value = orjson.dumps({"text": row}) if isinstance(row, str) else row
            self._producer.produce(self._topic, key=key.encode(), value=value)
        self._producer.flush()

    def ask(self, name: str, key: str) -> None:
        value = orjson.dumps({"name": name, "by": 1, "how": key})
        self.client.send(name, value, self.client.headers("counts.added.v1"))
        self.client.flush()


@pytest.fixture
def rows(bootstrap_servers: str, unique: str) -> Rows:
    return Rows(bootstrap_servers, unique)


def texts(worker: ThreadWorker, name: str) -> list[str | None]:
    state = worker.state("labels", name)
    return [] if state is None else list(state["texts"])


def status(worker: ThreadWorker) -> tuple[TableState, int, int | None, int]:
    (one,) = worker.worker.lanes.table_statuses
    return one.state, one.rows, one.lag, one.bad


def test_rows_are_there_before_a_lane_begins_and_follow(
    bootstrap_servers: str, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tables._Table._open

    async def late(table: tables._Table) -> None:
        await asyncio.sleep(3)  # lanes would be open long before
        await opened(table)

    monkeypatch.setattr(tables._Table, "_open", late)
    assert missing_topics(Admin(ConnectionSettings(bootstrap_servers)), rows.topology) == []
    many = {f"k{number}": f"row {number}" for number in range(500)}
    rows.write(**many)
    rows.write(k1="one", k2=None, k3=b"no JSON")
    for key in ("k0", "k1", "k2", "k3", "k499"):
        rows.ask("late", key)  # before any worker is there
    with in_thread(bootstrap_servers, rows.topology, worker_id="w0") as worker:
        wait_until(lambda: len(texts(worker, "late")) == 5)
        assert texts(worker, "late") == ["row 0", "one", None, None, "row 499"]
        wait_until(lambda: status(worker) == (TableState.running, 498, 0, 1))
        rows.write(k2="two", k1=None)
        wait_until(lambda: status(worker)[1] == 498 and status(worker)[2] == 0)
        time.sleep(0.5)
        rows.ask("then", "k2")
        rows.ask("then", "k1")
        wait_until(lambda: texts(worker, "then") == ["two", None])
    with in_thread(bootstrap_servers, rows.topology, worker_id="w1") as worker:  # another one reads it anew
        rows.ask("then", "k2")
        wait_until(lambda: texts(worker, "then") == ["two", None, "two"])
        assert status(worker)[1] == 498
    assert not rows.client.dead_letters()


def test_a_table_that_is_too_large_ends_the_worker(bootstrap_servers: str, rows: Rows) -> None:
    with in_thread(bootstrap_servers, rows.topology, worker_id="w0") as worker:
        wait_until(lambda: status(worker)[0] is TableState.running)
        rows.write(**{f"k{number}": "x" * 1_000 for number in range(200)})
        wait_until(worker.worker.crashed.done)
        error = worker.worker.crashed.exception()
        assert getattr(error, "code", None) == "table_full"
