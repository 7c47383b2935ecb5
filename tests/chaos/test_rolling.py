"""What a rebalance and a rolling restart cost: nothing of the account, and a bounded time.

The bounds are those of docs/architecture.md, "Lanes that change hands".
"""

import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pf_stream import Topology
from pf_stream.clock import WallClock
from pf_stream.kafka.dev import DevCluster
from pf_stream.security import SigningKey
from tests.chaos.campaign._checks import differences_of_state, read_outputs
from tests.chaos.campaign._fleet import Fleet
from tests.chaos.campaign._follower import Follower
from tests.chaos.campaign._load import Load
from tests.chaos.campaign._tracker import Tracker
from tests.chaos.campaign.topology import campaign
from tests.kafka._support import make_topics, wait_until
from tests.shared_broker import PATIENT

RESTARTED_S = 5.0
"""Longest gap of a partition whose worker is restarted."""
UNTOUCHED_S = 1.0
"""Longest gap of a partition whose worker is not."""

IMPORT_S = 1.2
"""What it takes to load the engine on one core that has nothing else to do; more says how slow the machine is now."""
SESSION_S = 30.0
"""Longer than the default, so that a machine that is slow to start a process does not make it a rebalance."""

BATCH = struct.Struct(">qiibIhiqqqhii")
"""Header of a record batch, https://kafka.apache.org/documentation/#recordbatch"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[DevCluster]:
    with DevCluster.temporary(1, settings=PATIENT) as cluster:
        yield cluster


class Field:
    """Workers of the campaign's topology, and what is known of them."""

    def __init__(self, topology: Topology, fleet: Fleet, tracker: Tracker, follower: Follower, load: Load) -> None:
        self.topology = topology
        self.fleet = fleet
        self.tracker = tracker
        self.follower = follower
        self.load = load

    def start(self, *names: str) -> None:
        """Start workers, and wait until they are ready."""
        for name in names:
            self.fleet.start(name)

        def ready() -> None:
            self.fleet.check()
            assert all(map(self.fleet.is_ready, names))

        wait_until(ready, within=60)

    def owned_by(self, *names: str) -> None:
        """Fails unless the lanes belong to these workers, each to one that is named, and each has some."""
        owners = {workers[-1] for workers in self.follower.owners.values()}
        assert owners == set(names)

    def settled(self, servers: str) -> None:
        """Wait until all is handled; then nothing may be lost, doubled or missing."""

        def done() -> None:
            assert self.follower.left() == ""

        wait_until(done, within=60)
        assert differences_of_state(self.follower.durable(), self.tracker.expected) == []
        assert read_outputs(servers, self.topology, self.tracker.expected).differences == []


@contextmanager
def field(cluster: DevCluster, unique: str, folder: Path, *, session_s: float, rate: int = 120) -> Iterator[Field]:
    servers = cluster.bootstrap_servers
    topology = campaign.within(unique)
    make_topics(servers, topology)
    key = SigningKey.generate(1)
    key.save(folder / "issuer")
    fleet = Fleet(servers, unique, folder / "issuer.pub", folder, session_s)
    tracker = Tracker(random.Random(7))  # noqa: S311 - it must be repeatable
    try:
        with Follower(servers, topology) as follower:
            yield Field(topology, fleet, tracker, follower, Load(servers, unique, key, tracker, rate))
    finally:
        fleet.end()


def test_two_workers_swap_partitions_under_load(cluster: DevCluster, unique: str, tmp_path: Path) -> None:
    """One leaves for longer than its session and comes back, then the other; every partition changes hands."""
    with field(cluster, unique, tmp_path, session_s=2.0) as here:
        here.start("a", "b")
        with here.load:
            wait_until(lambda: here.owned_by("a", "b"))
            first = {lane: names[-1] for lane, names in here.follower.owners.items()}
            here.fleet.drain("a")
            wait_until(lambda: here.owned_by("b"), within=30)
            here.start("a")
            wait_until(lambda: here.owned_by("a", "b"), within=30)
            here.fleet.kill("b")
            wait_until(lambda: here.owned_by("a"), within=30)
            here.start("b")
            wait_until(lambda: here.owned_by("a", "b"), within=30)
        here.settled(cluster.bootstrap_servers)
        for lane, names in here.follower.owners.items():
            assert {"a", "b"} <= set(names), f"{lane} stayed with {first[lane]}"


@pytest.mark.timeout(240)
def test_a_rolling_restart_holds_up_each_partition_for_seconds_and_the_others_not(
    cluster: DevCluster, unique: str, tmp_path: Path
) -> None:
    """Within the session a worker that comes back under its name has its partitions still (KIP-345)."""
    names = ("a", "b", "c")
    with field(cluster, unique, tmp_path, session_s=SESSION_S) as here:
        here.start(*names)
        wait_until(lambda: here.owned_by(*names))
        log = f"{here.topology.app_id}-intents-changelog"
        with here.load:
            wait_until(lambda: commits_everywhere(here, log))
            owners = {lane: workers[-1] for lane, workers in here.follower.owners.items()}
            leases = {lane: len(workers) for lane, workers in here.follower.owners.items()}
            worst = []
            slow = 1.0
            for name in names:
                slow = max(slow, slowness())
                began = WallClock().now_ms()
                here.fleet.drain(name)
                here.start(name)
                time.sleep(1)  # so that a rebalance that the new member might cause shows
                gaps = here.follower.longest_gaps(began, WallClock().now_ms())
                # Only commands come so often that a second without one is a gap.
                own = {lane: gap for lane, gap in gaps.items() if lane[0] == log and owners[lane] == name}
                others = {lane: gap for lane, gap in gaps.items() if lane[0] == log and owners[lane] != name}
                worst.append((name, max(own.values()), max(others.values())))
        here.settled(cluster.bootstrap_servers)
        assert {lane: workers[-1] for lane, workers in here.follower.owners.items()} == owners
        # One new lease for each lane, at the restart of its own worker: nobody else was disturbed.
        assert {lane: len(workers) for lane, workers in here.follower.owners.items()} == {
            lane: number + 1 for lane, number in leases.items()
        }
        assert all(own <= RESTARTED_S * slow and others <= UNTOUCHED_S * slow for _, own, others in worst), (
            worst,
            slow,
        )


def test_a_worker_that_lost_its_lanes_writes_nothing_more_and_rejoins(
    cluster: DevCluster, unique: str, tmp_path: Path
) -> None:
    """Paused for longer than its session, it goes on in the middle of what it did; the broker lets none of it through."""
    with field(cluster, unique, tmp_path, session_s=2.0) as here:
        here.start("a", "b")
        with here.load:
            wait_until(lambda: here.owned_by("a", "b"))
            here.fleet.pause("a")
            wait_until(lambda: here.owned_by("b"), within=30)
            here.fleet.resume("a")
            wait_until(lambda: here.owned_by("a", "b"), within=30)
        here.settled(cluster.bootstrap_servers)
        for group in here.topology.groups:
            for number in range(here.topology.partitions):
                epochs = epochs_of(cluster, f"{here.topology.changelog(group)}-{number}")
                assert list(epochs) == sorted(epochs)
                assert epochs[-1] >= 1


def slowness() -> float:
    """How many times slower than it could be this machine starts a process just now; 1 or more."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import pf_stream.engine, pf_stream.cli"], check=True)
    return max(1.0, (time.monotonic() - started) / IMPORT_S)


def commits_everywhere(here: Field, log: str) -> None:
    gaps = here.follower.longest_gaps(0, 1)
    assert sum(lane[0] == log for lane in gaps) == here.topology.partitions


def epochs_of(cluster: DevCluster, partition: str) -> Sequence[int]:
    """Producer epochs of the batches of a changelog partition in the order of its log, as they are on disk."""
    epochs = []
    for segment in sorted((cluster.data_dir / "node-1" / "kafka" / partition).glob("*.log")):
        data = segment.read_bytes()
        at = 0
        while at + BATCH.size <= len(data):
            header = BATCH.unpack_from(data, at)
            length, epoch = header[1], header[10]
            if not length:
                break  # the rest of the segment is not written yet
            epochs.append(epoch)
            at += 12 + length
    assert epochs
    return epochs
