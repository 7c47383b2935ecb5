"""The engines: how each is started, what it is set to, where it keeps its accounts, and what it lacks beside pf_stream."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import orjson

from bench.peers.apps.ledger import ledger
from bench.peers.environments import STREAMS, java_command, python
from bench.peers.workload import CONTEXT, OTHER_CONTEXT
from pf_stream.core.changelog import STATE_PREFIX, parse_state_key
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.topics import create_topics

__all__ = ["ENGINES", "JOBS", "PARTITIONS", "Engine", "Job"]

JOBS: Final = ("counter", "counter+output")
QUIX: Final = "3.28.1"
FAUST: Final = "0.15.3"
PARTITIONS: Final = 4
_APPS: Final = Path(__file__).parent / "apps"

Account = tuple[bytes, int, int]
"""Key, count and total."""


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine is to do."""

    app: str
    """Consumer group, and a part of the name of every topic that it makes."""
    servers: str
    """Kafka."""
    source: str
    """What it reads."""
    output: str | None
    """Where it writes a record for each that it reads, if it does."""
    trust: Path
    """File with the public key of those who made the tokens."""
    folder: Path
    """For whatever it keeps on disk."""
    paced: bool
    """Whether records come at a rate, and the time until they come out is what counts."""

    @property
    def environ(self) -> dict[str, str]:
        """The same as the programs read it."""
        environ = {
            "BENCH_APP": self.app,
            "BENCH_SERVERS": self.servers,
            "BENCH_SOURCE": self.source,
            "BENCH_FOLDER": str(self.folder),
        }
        return environ if self.output is None else {**environ, "BENCH_OUTPUT": self.output}


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """One row of the table."""

    name: str
    """As in ``--engines``."""
    guarantee: str
    """As the engine calls it."""
    version: str
    """Of the engine."""
    command: Callable[[], Sequence[str]]
    """How it is started; raises :class:`MissingError` if it cannot be had."""
    accounts: Callable[[Mapping[bytes, bytes], Path], Iterator[Account]]
    """The accounts that it has kept, by the last values in its changelog, and its folder."""
    lacks: str
    """What others do for a record and it does not; empty if nothing."""
    sets: str
    """What is not as it is by default."""
    part: int = 1
    """It gets one in so many records, so that a slow one does not run for an hour."""
    jobs: Sequence[str] = JOBS
    """What it can do."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Settings for its program."""
    paced_environ: Mapping[str, str] = field(default_factory=dict)
    """More of them, for records that come at a rate."""
    prepare: Callable[[Job, Admin], None] = lambda _, __: None
    """Makes what topics it does not make itself."""
    options: Callable[[Job], Sequence[str]] = lambda _: ()
    """What follows the command."""
    context: str = CONTEXT
    """Header of its records that has the token."""

    def environment(self, job: Job) -> dict[str, str]:
        """All that its program is told."""
        environ = {**job.environ, "BENCH_GUARANTEE": self.guarantee, **self.environ}
        return {**environ, **self.paced_environ} if job.paced else environ


# --- accounts ---------------------------------------------------------------------------------------------------------


def _of_pf_stream(last: Mapping[bytes, bytes], _: Path) -> Iterator[Account]:
    for key, value in last.items():
        if key[1:2] == b"s":
            state = orjson.loads(value[STATE_PREFIX.size :])
            yield parse_state_key(key)[1], state["count"], state["total"]


def _of_plain(last: Mapping[bytes, bytes], _: Path) -> Iterator[Account]:
    for key, value in last.items():
        state = orjson.loads(value)
        yield key, state["count"], state["total"]


def _of_quix(last: Mapping[bytes, bytes], _: Path) -> Iterator[Account]:
    for key, value in last.items():
        state = orjson.loads(value)
        yield key.partition(b"|")[0], state["count"], state["total"]


def _of_raw(_: Mapping[bytes, bytes], folder: Path) -> Iterator[Account]:
    with (folder / "balances.jsonl").open(encoding="ascii") as file:
        for line in file:
            key, count, total = json.loads(line)
            yield key.encode(), count, total


# --- pf_stream --------------------------------------------------------------------------------------------------------


def _worker() -> Sequence[str]:
    return sys.executable, "-m", "pf_stream", "worker", "run", "bench.peers.apps.ledger:topology", "--id", "bench-0"


def _worker_options(job: Job) -> Sequence[str]:
    latency = "low" if job.paced else "balanced"
    return "--trust", str(job.trust), "--bootstrap-servers", job.servers, "--latency", latency


def _make_topics(job: Job, admin: Admin) -> None:
    name = job.app.partition(".")[2]
    create_topics(admin, ledger(name, job.source, job.output, "effectively_once", checked=True), PARTITIONS)


def _pf_stream(name: str, guarantee: str, *, checks: bool) -> Engine:
    return Engine(
        name,
        guarantee,
        version("pf-stream"),
        _worker,
        _of_pf_stream,
        lacks="" if checks else "capability check and context of outputs, as its peers do",
        sets="latency low where latency is measured",
        environ={} if checks else {"BENCH_UNCHECKED": "1"},
        prepare=_make_topics,
        options=_worker_options,
        context=CONTEXT if checks else OTHER_CONTEXT,
    )


# --- peers ------------------------------------------------------------------------------------------------------------


@cache
def _java() -> Sequence[str]:
    return java_command(_APPS / "KafkaStreamsApp.java")


def _kafka_streams(guarantee: str, commit_ms: str, sets: str) -> Engine:
    return Engine(
        "kafka-streams",
        guarantee,
        STREAMS.version,
        _java,
        _of_plain,
        lacks="capability check; Jackson sees to the types of fields, and not that none is missing",
        sets=sets,
        environ={"BENCH_COMMIT_MS": commit_ms},
        paced_environ={} if guarantee.startswith("exactly") else {"BENCH_LINGER_MS": "0"},
    )


def _quix(guarantee: str) -> Engine:
    exactly = guarantee == "exactly-once"
    return Engine(
        "quix",
        guarantee,
        QUIX,
        lambda: [python("quix", [f"quixstreams=={QUIX}"]), str(_APPS / "quix_app.py")],
        _of_quix,
        lacks="capability check, validation",
        sets="commits every second, not every five" + ("; every 100 ms where latency is measured" if exactly else ""),
        part=5,
        environ={"BENCH_COMMIT_S": "1"},
        paced_environ={"BENCH_COMMIT_S": "0.1"} if exactly else {},
    )


def _faust() -> Engine:
    return Engine(
        "faust",
        "at_least_once",
        FAUST,
        lambda: [
            python("faust", [f"faust-streaming=={FAUST}", f"orjson=={version('orjson')}"]),
            str(_APPS / "faust_app.py"),
            "worker",
            "--without-web",
        ],
        _of_plain,
        lacks="capability check, validation; counts twice after a crash",
        sets="commits every second, not every 2.8",
        part=50,
    )


def _raw(name: str, lacks: str, environ: Mapping[str, str]) -> Engine:
    wanted = [f"{package}=={version(package)}" for package in ("aiokafka", "orjson", "pydantic")]
    return Engine(
        name,
        "none",
        version("aiokafka"),
        lambda: [python("raw", wanted), str(_APPS / "raw_app.py")],
        _of_raw,
        lacks=lacks,
        sets="up to 4 MiB of a partition in a fetch",
        jobs=("counter",),
        environ=environ,
    )


ENGINES: Final = (
    _pf_stream("pf_stream", "effectively_once", checks=True),
    _pf_stream("pf_stream", "transactional", checks=True),
    _pf_stream("pf_stream-equal", "effectively_once", checks=False),
    _kafka_streams("exactly_once_v2", "100", ""),
    _kafka_streams("at_least_once", "1000", "commits every second, not every 30; linger 0 where latency is measured"),
    _quix("exactly-once"),
    _quix("at-least-once"),
    _faust(),
    _raw("raw-aiokafka", "changelog, outputs, capability check, validation: the most that Python can do", {}),
    _raw(
        "raw-pydantic",
        "changelog, outputs, capability check; validates with the same pydantic model",
        {"BENCH_VALIDATED": "1"},
    ),
)
