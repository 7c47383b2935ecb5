"""The changelogs of a topology, followed while they are written."""

import threading
from collections import defaultdict
from itertools import pairwise
from types import TracebackType

import orjson
from confluent_kafka import Consumer, TopicPartition

from pf_stream import Topology
from pf_stream.core import changelog
from pf_stream.core.plan import REROUTED
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings, Partition
from tests.kafka._support import Durable, decoded

__all__ = ["Follower"]


class Follower:
    """Reads along in a thread of its own; what it says is as of the last record that it has read."""

    def __init__(self, servers: str, topology: Topology) -> None:
        self._topology = topology
        self._admin = Admin(ConnectionSettings(servers))
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "campaign",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        logs = [topology.changelog(group) for group in topology.groups]
        self._consumer.assign([TopicPartition(log, number, 0) for log in logs for number in range(topology.partitions)])
        self._last: dict[tuple[str, int, bytes], bytes | None] = {}
        self._commits: defaultdict[Partition, list[int]] = defaultdict(list)
        self._owners: defaultdict[Partition, list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="follower")

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._over.is_set():
            messages = self._consumer.consume(2000, 0.1)
            with self._lock:
                for message in messages:
                    if message.error() is not None:
                        continue  # a broker is away; what it would have sent comes later
                    lane = message.topic() or "", message.partition() or 0
                    key = message.key() or b""
                    assert isinstance(key, bytes)
                    if key == changelog.FENCE:
                        self._owners[lane].append(orjson.loads(message.value() or b"{}")["worker"])
                    elif key == changelog.UNIT:
                        self._commits[lane].append(message.timestamp()[1])
                    self._last[*lane, key] = message.value()

    @property
    def owners(self) -> dict[Partition, list[str]]:
        """The workers that acquired each lane, in their order."""
        with self._lock:
            return {lane: list(names) for lane, names in self._owners.items()}

    def longest_gaps(self, began: int, ended: int) -> dict[Partition, float]:
        """Longest time without a commit, in seconds, by lane.

        *began* and *ended* are milliseconds since the epoch; commits have the time of their worker's clock.
        """
        gaps = {}
        with self._lock:
            for lane, times in self._commits.items():
                inside = [began, *sorted(time for time in times if began <= time <= ended), ended]
                gaps[lane] = max(after - before for before, after in pairwise(inside)) / 1000
        return gaps

    def durable(self) -> Durable:
        """What the changelogs hold."""
        with self._lock:
            return decoded(self._last)

    def left(self) -> str:
        """What is not yet done: records that were not read by every reactor, and outputs that were not marked as sent."""
        found = self.durable()
        positions: dict[Partition, int] = {}
        for (_, topic, number), position in found.watermarks.items():
            positions[topic, number] = min(position, positions.get((topic, number), position))
        intents, transfers = map(self._topology.topic_name, ("intents", "transfers"))
        sources = [intents, intents + REROUTED, transfers]
        partitions = [(topic, number) for topic in sources for number in range(self._topology.partitions)]
        ends = self._admin.offsets(partitions, "end")
        behind = {partition: end - positions.get(partition, 0) for partition, end in ends.items()}
        waiting = {f"{topic}-{number}": count for (topic, number), count in behind.items() if count}
        near = [key for key in found.timers if b"far-" not in key]
        if not waiting and not found.outbox and not near:
            return ""
        return f"{sum(waiting.values())} records ({waiting}), {len(found.outbox)} outputs, {len(near)} timers"
