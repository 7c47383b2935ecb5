"""Looking at an engine from outside, while it runs: offsets of its group, processor time, memory."""

import os
import time
from collections.abc import Mapping, Sequence

import psutil

from bench.machine import busy_s, used_s
from bench.peers.processes import Process
from bench.peers.progress import BusySample
from pf_stream.kafka.groups import GroupOffsets
from pf_stream.kafka.link import ConnectionSettings, Partition

__all__ = ["Meter"]


class Meter:
    """Takes samples of one engine; the same for all of them."""

    committed: Mapping[Partition, int]
    """What had been committed when the last sample was taken."""

    def __init__(self, servers: str, group: str, partitions: Sequence[Partition], beside: Sequence[int]) -> None:
        """*beside* are the processes on the broker's core, by id; this process is another."""
        self._settings = ConnectionSettings(servers)
        self._group = group
        self.committed = dict.fromkeys(partitions, 0)
        self._offsets = GroupOffsets(self._settings, group, partitions)
        self._beside = [psutil.Process(pid) for pid in (os.getpid(), *beside)]

    def sample(self, process: Process, *, ask: bool = True) -> BusySample:
        """What is so now; without asking Kafka, nothing counts as done. Raises :class:`StuckError`."""
        if ask:
            self.committed = self._offsets.read()
        done = sum(self.committed.values())
        try:
            engine = psutil.Process(process.pid)
            cpu_s, rss = used_s(engine), engine.memory_info().rss
            broker_s = sum(map(used_s, self._beside))
        except psutil.NoSuchProcess:
            process.check()
            raise
        return BusySample(time.monotonic(), done, cpu_s, rss, broker_s, busy_s() - cpu_s - broker_s)

    def follow(self, partitions: Sequence[Partition]) -> None:
        """Ask for others from now on."""
        self._offsets.close()
        self._offsets = GroupOffsets(self._settings, self._group, partitions)

    def close(self) -> None:
        """Ask no more."""
        self._offsets.close()
