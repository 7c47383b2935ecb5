"""One campaign: load, harm, and the account of both."""

import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its public names, imported there without `as`
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from pf_stream.clock import WallClock
from pf_stream.kafka.dev import DevCluster, Listener, free_port
from pf_stream.security import SigningKey
from tests.chaos._proxy import Proxy
from tests.chaos.campaign._checks import differences_of_state, read_outputs
from tests.chaos.campaign._fleet import Fleet
from tests.chaos.campaign._follower import Follower
from tests.chaos.campaign._load import Load
from tests.chaos.campaign._nemesis import Nemesis
from tests.chaos.campaign._tracker import Tracker
from tests.chaos.campaign.topology import campaign
from tests.kafka._support import durable, headers_of, make_topics, read_topic

__all__ = ["Plan", "Report", "run_campaign"]

WORKERS = ("w0", "w1", "w2")
SETTLE_S = 180.0
COMPACT_S = 60.0
# The cleaner looks after half a second instead of fifteen. One broker that waits for a core must not be taken for dead, as little
# as one of several.
BROKER = {"log.cleaner.backoff.ms": "500", "broker.session.timeout.ms": "3000"}
COMPACT_NOW = {
    "segment.ms": "500",
    "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "0",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall happen."""

    seed: int
    """Decides commands and harm."""
    seconds: float
    """How long harm is done."""
    brokers: int = 3
    """Nodes of the cluster."""
    rate: int = 150
    """Commands a second."""
    session_s: float = 3.0
    """Session of the workers."""


@dataclass(slots=True)
class Report:
    """What has happened."""

    commands: int = 0
    """Sent and acknowledged."""
    actions: Counter[str] = field(default_factory=Counter)
    """Harm that was done."""
    restarts: int = 0
    """Workers that had to be started again since Kafka was away as they began."""
    repeats: int = 0
    source_repeats: int = 0
    """Commands that stand twice in their topic, of which the second does not count."""
    """Outputs that were sent again, recognisably."""
    leases: int = 0
    """How often a lane was acquired, all lanes together."""
    rebalances: int = 0
    """The most leases of one lane: each assignment of the group gives every lane a new one."""
    longest_gap_s: dict[str, float] = field(default_factory=dict)
    """Longest time without a commit, by lane."""
    settled_s: float = 0.0
    """From the end of all harm until all was done."""
    records: tuple[int, int] = (0, 0)
    """Records of the changelogs before and after compaction."""
    differences: list[str] = field(default_factory=list)
    """What is not as it should be."""

    def lines(self) -> list[str]:
        """For people."""
        gaps = sorted(self.longest_gap_s.values())
        middle = gaps[len(gaps) // 2] if gaps else 0
        worst = max(self.longest_gap_s, key=self.longest_gap_s.__getitem__, default="no lane")
        return [
            f"commands             {self.commands:,}",
            *(f"{name:<20} {times}" for name, times in sorted(self.actions.items())),
            f"started again        {self.restarts} workers that began while Kafka was away",
            f"leases               {self.leases} in all, {self.rebalances} for one lane at most (one each rebalance)",
            f"repeated commands    {self.source_repeats} that the producer's side has written twice",
            f"repeated outputs     {self.repeats}, each with the pf-source and the bytes of the first",
            f"longest gap          {gaps[-1] if gaps else 0:.1f} s on {worst}, {middle:.1f} s on the median lane",
            f"settled after        {self.settled_s:.1f} s",
            f"changelog records    {self.records[0]:,} before compaction, {self.records[1]:,} after",
            *(f"DIFFERENCE           {difference}" for difference in self.differences),
            f"check                {'FAILED' if self.differences else 'ok: none lost, none doubled, none missing'}",
        ]


def run_campaign(plan: Plan, folder: Path, say: Callable[[str], None]) -> Report:
    """Run it; what workers and brokers say is in *folder* afterwards.

    Raises AssertionError when a worker ends by itself, or when what was sent is not handled in time.
    """
    report = Report()
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy.listening()) for _ in range(plan.brokers)]
        listeners = [Listener(free_port(), proxy.port) for proxy in proxies]
        for proxy, listener in zip(proxies, listeners, strict=True):
            proxy.target = listener.port
        cluster = stack.enter_context(DevCluster.temporary(plan.brokers, second=listeners, settings=BROKER))
        stack.callback(_keep_logs, cluster, folder)
        say(f"Kafka runs: {plan.brokers} brokers")
        _Campaign(plan, folder, say, report, stack, cluster, proxies).run()
    return report


def _keep_logs(cluster: DevCluster, folder: Path) -> None:
    for node in cluster.nodes:
        (folder / f"broker-{node}.log").write_bytes(cluster.log_path(node).read_bytes())


class _Campaign:
    def __init__(
        self,
        plan: Plan,
        folder: Path,
        say: Callable[[str], None],
        report: Report,
        stack: ExitStack,
        cluster: DevCluster,
        proxies: list[Proxy],
    ) -> None:
        self._plan = plan
        self._say = say
        self._report = report
        self._cluster = cluster
        self._proxies = proxies
        self._servers = cluster.bootstrap_servers
        self._topology = campaign.within(f"c{secrets.token_hex(4)}")
        make_topics(self._servers, self._topology)
        key = SigningKey.generate(1)
        key.save(folder / "issuer", overwrite=True)
        behind = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        self._fleet = Fleet(behind, self._topology.namespace, folder / "issuer.pub", folder, plan.session_s)
        stack.callback(self._fleet.end)
        self._tracker = Tracker(random.Random(plan.seed))  # noqa: S311 - it must be repeatable
        self._follower = stack.enter_context(Follower(self._servers, self._topology))
        self._load = Load(self._servers, self._topology.namespace, key, self._tracker, plan.rate)

    def run(self) -> None:
        for name in WORKERS:
            self._fleet.start(name)
        self._wait_ready()
        with self._load:
            began = WallClock().now_ms()
            nemesis = Nemesis(
                self._plan.seed,
                self._fleet,
                self._cluster,
                self._proxies,
                topic=self._topology.topic_name("intents"),
                session_s=self._plan.session_s,
                silence=self._plan.seconds >= 120,
                say=self._say,
            )
            nemesis.run(self._plan.seconds)
            ended = WallClock().now_ms()
        self._report.actions = nemesis.done
        self._report.restarts = self._fleet.restarts
        self._say("all is well again; waiting until everything is handled")
        self._settle()
        self._report.commands = self._tracker.count
        self._gaps(began, ended)
        self._compare("at the end")
        outputs = read_outputs(self._servers, self._topology, self._tracker.expected)
        self._report.repeats = outputs.repeats
        sent = [
            headers_of(message)["ce_id"] for message in read_topic(self._servers, self._topology.topic_name("intents"))
        ]
        self._report.source_repeats = len(sent) - len(set(sent))
        self._report.differences += outputs.differences
        for name in self._fleet.names:
            self._fleet.drain(name)
        leases = [len(names) for names in self._follower.owners.values()]
        self._report.leases, self._report.rebalances = sum(leases), max(leases)
        self._compact()
        self._compare("after compaction")
        self._recover()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not all(self._fleet.is_ready(name) for name in self._fleet.names):
            self._fleet.check()
            assert time.monotonic() < deadline, "the workers are not ready after a minute"
            time.sleep(0.05)

    def _settle(self) -> None:
        """Wait until every record is handled and every output is marked as sent."""
        started = time.monotonic()
        while left := self._follower.left():
            self._fleet.check()
            assert time.monotonic() - started < SETTLE_S, f"not done after {SETTLE_S:.0f} s: {left}"
            time.sleep(0.2)
        self._report.settled_s = time.monotonic() - started

    def _gaps(self, began: int, ended: int) -> None:
        for (log, number), gap in self._follower.longest_gaps(began, ended).items():
            self._report.longest_gap_s[f"{log}-{number}"] = gap

    def _compare(self, when: str) -> None:
        found = differences_of_state(durable(self._servers, self._topology), self._tracker.expected)
        self._report.differences += [f"{when}: {difference}" for difference in found]

    def _compact(self) -> None:
        """Let the broker compact the changelogs: a worker's fences begin new segments, the old ones are cleaned."""
        logs = [self._topology.changelog(group) for group in self._topology.groups]
        before = sum(len(read_topic(self._servers, log)) for log in logs)
        # What is left at least: a record for each key, and what lies in the last segments.
        keys = sum(len({(m.partition(), m.key()) for m in read_topic(self._servers, log)}) for log in logs)
        admin = AdminClient({"bootstrap.servers": self._servers})
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in COMPACT_NOW.items()
        ]
        resources = [ConfigResource(ResourceType.TOPIC, log, incremental_configs=entries) for log in logs]
        for future in admin.incremental_alter_configs(resources).values():
            future.result(30)
        self._fleet.start("w0")
        self._wait_ready()
        self._fleet.drain("w0")
        deadline = time.monotonic() + COMPACT_S
        while (after := sum(len(read_topic(self._servers, log)) for log in logs)) > keys + 40 * len(logs):
            assert time.monotonic() < deadline, f"no compaction: {after} records of {keys} keys, {before} at first"
            time.sleep(0.5)
        self._report.records = before, after

    def _recover(self) -> None:
        """Ask a worker that has read nothing but the compacted changelogs what it knows of each account."""
        self._fleet.start("w0")
        self._wait_ready()
        for account in sorted(self._tracker.expected.accounts):
            self._load.send(self._tracker.ask(account))
        self._load.flush()
        self._settle()
        self._compare("after recovery")
        outputs = read_outputs(self._servers, self._topology, self._tracker.expected)
        self._report.differences += [f"after recovery: {difference}" for difference in outputs.differences]
        self._fleet.drain("w0")
