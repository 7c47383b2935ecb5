"""The engines: how each is started, and which queries it leaves out."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.nexmark.events import Auction, Bid, Event, Person
from bench.peers.engines import PARTITIONS, QUIX
from bench.peers.environments import ROCKSDB, ROOT, STREAMS, java_command, python
from bench.peers.processes import StuckError

__all__ = ["ENGINES", "Engine", "Job"]

_APPS: Final = Path(__file__).parent / "apps"


@dataclass(frozen=True, slots=True)
class Job:
    """A query, for once."""

    query: str
    """Which."""
    app: str
    """Consumer group, and a part of the name of topics."""
    servers: str
    """Kafka."""
    topics: Mapping[type[Event], str]
    """Where the events are."""
    output: str
    """Where the answers go."""
    trust: Path
    """File with the public key of those who made the tokens."""
    folder: Path
    """For whatever an engine keeps on disk."""


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """One that answers queries."""

    name: str
    """As in ``--engines``."""
    guarantee: str
    """As the engine calls it."""
    version: str
    """Of the engine."""
    command: Callable[[Job], Sequence[str]]
    """How it is started; raises :class:`MissingError` if it cannot be had."""
    lacks: str
    """What others do for a record and it does not; empty if nothing."""
    sets: str
    """What is not as it is by default."""
    part: Mapping[str, int] = field(default_factory=dict)
    """By query, if it gets one in so many events, so that a slow one does not run for an hour."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Settings for its program."""
    prepare: Callable[[Job, Mapping[str, str]], None] = lambda _, __: None
    """Makes what topics it does not make itself; is given its environment. Raises :class:`StuckError`."""
    leaves_out: Mapping[str, str] = field(default_factory=dict)
    """By query, why it has no program for it."""

    def environment(self, job: Job) -> dict[str, str]:
        """All that its program is told."""
        return {
            "BENCH_QUERY": job.query,
            "BENCH_APP": job.app,
            "BENCH_SERVERS": job.servers,
            "BENCH_PERSONS": job.topics[Person],
            "BENCH_AUCTIONS": job.topics[Auction],
            "BENCH_BIDS": job.topics[Bid],
            "BENCH_OUTPUT": job.output,
            "BENCH_FOLDER": str(job.folder),
            "BENCH_GUARANTEE": self.guarantee,
            **self.environ,
        }


def _pf(job: Job, *words: str) -> Sequence[str]:
    return (
        sys.executable,
        "-m",
        "pf_stream",
        *words,
        "bench.nexmark.topology:topology",
        "--bootstrap-servers",
        job.servers,
    )


def _worker(job: Job) -> Sequence[str]:
    return *_pf(job, "worker", "run"), "--id", "bench-0", "--trust", str(job.trust)


def _make_topics(job: Job, environ: Mapping[str, str]) -> None:
    command = *_pf(job, "topics", "create"), "--partitions", str(PARTITIONS)
    log = job.folder / "topics.log"
    with log.open("ab") as output:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environ}, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        raise StuckError(f"no topics for it: exit code {done.returncode}", log)


@cache
def _java() -> Sequence[str]:
    return java_command(_APPS / "NexmarkStreams.java", ROCKSDB)


def _pf_stream(guarantee: str) -> Engine:
    return Engine("pf_stream", guarantee, version("pf-stream"), _worker, lacks="", sets="", prepare=_make_topics)


def _kafka_streams(guarantee: str, commit_ms: str, sets: str) -> Engine:
    return Engine(
        "kafka-streams",
        guarantee,
        STREAMS.version,
        lambda _: _java(),
        lacks="capability check; behind a repartition windows have no end, so that queries 8, 11 and 12 tell updates",
        sets=f"windows of one partition tell their result at once when they close, not once a second{sets}",
        environ={"BENCH_COMMIT_MS": commit_ms},
    )


def _quix(guarantee: str) -> Engine:
    return Engine(
        "quix",
        guarantee,
        QUIX,
        lambda _: [python("quix", [f"quixstreams=={QUIX}"]), str(_APPS / "quix_nexmark.py")],
        lacks="capability check, validation; behind a repartition windows have no end, so that queries 8, 11 and 12 tell updates",
        sets="commits every second, not every five",
        part={"q4": 2, "q5": 2, "q6": 2, "q7": 2, "q11": 5, "q12": 5},
        environ={"BENCH_COMMIT_S": "1"},
    )


ENGINES: Final = (
    _pf_stream("effectively_once"),
    _pf_stream("transactional"),
    _kafka_streams("exactly_once_v2", "100", ""),
    _kafka_streams("at_least_once", "1000", "; commits every second, not every 30"),
    _quix("exactly-once"),
    _quix("at-least-once"),
)
