"""What a machine says of itself, and of the processes on it."""

import platform
from pathlib import Path

import psutil

__all__ = ["busy_s", "cpu_name", "used_s"]


def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def used_s(process: psutil.Process) -> float:
    """Processor time that a process has used, in seconds."""
    used = process.cpu_times()
    return used.user + used.system


def busy_s() -> float:
    """Processor time that everything on this machine has used, in seconds; waiting for a disk is none."""
    whole = psutil.cpu_times()
    return whole.user + whole.nice + whole.system + getattr(whole, "irq", 0.0) + getattr(whole, "softirq", 0.0)
