"""Processes that are measured, or that measure: each on a core of its own where the machine allows it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "Process", "StuckError"]

LOG_LINES = 8
_NOT_FOR_US = ("PF_", "BENCH_", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")


class StuckError(Exception):
    """Raised when a process ended that should run, or does nothing more; tells the end of its log."""

    def __init__(self, what: str, log: Path) -> None:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        super().__init__("\n".join([what, *said]))


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where. None: wherever the system likes."""

    measured: int | None
    """The engine's core, which nobody else of the bench uses."""
    broker: int | None
    """Kafka's."""
    rig: int | None
    """Of those who send, read and look: a third one if there is one, else Kafka's."""

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """Three cores that this process may use, or two; none if it has but one, or the system does not pin."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(None, None, None)
        free = sorted(os.sched_getaffinity(0))
        if len(free) < 2:
            return cls(None, None, None)
        return cls(free[0], free[1], free[2] if len(free) > 2 else free[1])


class Process:
    """A process in a session of its own, so that no Ctrl-C reaches it; it is killed when this process ends in any way."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, log: Path, core: int | None, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self._log = log
        before = os.sched_getaffinity(0) if core is not None else set()
        if core is not None:
            os.sched_setaffinity(0, {core})  # inherited: a JVM counts its cores when it starts
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    cwd=folder,
                    # Settings of the user's own, for pf_stream or for Java, are not for this.
                    env={name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_US)}
                    | dict(environ),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        finally:
            if core is not None:
                os.sched_setaffinity(0, before)
        self.pid = self._process.pid
        # A shell that reads from a pipe whose other end closes when this process ends, however that happens.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _ || kill -s KILL -- "-$1"', "pf-bench-guard", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def check(self, *, may_end: bool = False) -> None:
        """Raise :class:`StuckError` if it has ended; with *may_end*, if it has failed."""
        if not self.runs and not (may_end and self._process.returncode == 0):
            raise self.stuck(f"it ended with exit code {self._process.returncode}")

    def stuck(self, what: str) -> StuckError:
        """The error to be raised because of what it does, or does not."""
        return StuckError(f"{self.name}: {what}", self._log)

    def end(self, grace_s: float = 30) -> int:
        """Ask it to end, kill it if that takes too long; its exit code."""
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._ended()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._ended()

    def _ended(self) -> int:
        code = self._process.wait()
        if self._guard.poll() is None:
            self._guard.communicate(b"\n")
        return code
