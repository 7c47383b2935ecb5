"""Looking at an engine from outside, while it runs: offsets of its group, processor time, memory."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bench.peers.processes import Process
from bench.peers.progress import Sample

__all__ = ["Meter", "cpu_name"]

_LATER = {
    KafkaError._TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


class Meter:
    """Takes samples of one engine; the same for all of them."""

    def __init__(self, servers: str, group: str, source: str, partitions: int, beside: Sequence[int]) -> None:
        """*beside* are the processes on the broker's core, by id; this process is another."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": group,
                # As committed as of now, even if a transaction is about to commit more.
                "isolation.level": "read_uncommitted",
            }
        )
        self._partitions = [TopicPartition(source, number) for number in range(partitions)]
        self._done = 0
        self._beside = [psutil.Process(pid) for pid in (os.getpid(), *beside)]

    def sample(self, process: Process, *, ask: bool = True) -> Sample:
        """What is so now; without asking Kafka, nothing counts as done. Raises :class:`StuckError`."""
        if ask:
            self._ask()
        try:
            engine = psutil.Process(process.pid)
            cpu_s, rss = _used(engine), engine.memory_info().rss
            broker_s = sum(map(_used, self._beside))
        except psutil.NoSuchProcess:
            process.check()
            raise
        whole = psutil.cpu_times()
        busy_s = whole.user + whole.nice + whole.system + getattr(whole, "irq", 0.0) + getattr(whole, "softirq", 0.0)
        return Sample(time.monotonic(), self._done, cpu_s, broker_s, busy_s - cpu_s - broker_s, rss)

    def _ask(self) -> None:
        try:
            committed = self._consumer.committed(self._partitions, timeout=10)
        except KafkaException as error:
            # The broker has just started and makes the topic for offsets, or has no time for us.
            if error.args[0].code() not in _LATER:
                raise
        else:
            self._done = sum(max(0, partition.offset) for partition in committed)

    def close(self) -> None:
        """Ask no more."""
        self._consumer.close()


def _used(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
