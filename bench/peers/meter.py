"""Looking at an engine from outside, while it runs: offsets of its group, processor time, memory."""

import time
from pathlib import Path

import psutil
from bench.peers.processes import Cores, Process
from bench.peers.progress import Sample
from confluent_kafka import Consumer, TopicPartition

__all__ = ["Meter", "cpu_name"]


class Meter:
    """Takes samples of one engine; the same for all of them."""

    def __init__(self, servers: str, group: str, source: str, partitions: int, cores: Cores, broker_pid: int) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": group,
                # As committed as of now, even if a transaction is about to commit more.
                "isolation.level": "read_uncommitted",
            }
        )
        self._partitions = [TopicPartition(source, number) for number in range(partitions)]
        self._core = cores.broker
        self._broker = psutil.Process(broker_pid)

    def sample(self, process: Process, *, ask: bool = True) -> Sample:
        """What is so now; without asking Kafka, nothing counts as done."""
        done = 0
        if ask:
            committed = self._consumer.committed(self._partitions, timeout=10)
            done = sum(max(0, partition.offset) for partition in committed)
        try:
            seen = psutil.Process(process.pid)
            with seen.oneshot():
                used = seen.cpu_times()
                rss = seen.memory_info().rss
        except psutil.NoSuchProcess:
            process.check()
            raise
        return Sample(time.monotonic(), done, used.user + used.system, self._busy(), rss)

    def close(self) -> None:
        """Ask no more."""
        self._consumer.close()

    def _busy(self) -> float:
        if self._core is None:
            used = self._broker.cpu_times()
            return used.user + used.system
        core = psutil.cpu_times(percpu=True)[self._core]
        return core.user + core.nice + core.system + getattr(core, "irq", 0.0) + getattr(core, "softirq", 0.0)


def cpu_name() -> str:
    """What the processor calls itself."""
    import platform

    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
