"""The workers of a campaign, as processes that are treated badly."""

import os
import signal
import threading
from pathlib import Path

from nyc.worker import WorkerDiedError, WorkerProcess
from tests.chaos.campaign.topology import TOPOLOGY

__all__ = ["Fleet"]


DRAIN_S = 45
UNAVAILABLE = "kafka_unavailable"


class Fleet:
    """``pf worker run`` under one name each, and a supervisor; what they say is appended to a log for each name."""

    def __init__(self, servers: str, namespace: str, trust: Path, folder: Path, session_s: float) -> None:
        self._servers = servers
        self._options = ["--namespace", namespace, "--session", str(session_s)]
        self._trust = trust
        self._folder = folder
        self._running: dict[str, WorkerProcess] = {}
        self._was_ready: dict[str, int] = {}
        self._lock = threading.RLock()
        self.restarts = 0
        """Workers that found no Kafka when they began, ended, and were started again."""

    @property
    def names(self) -> list[str]:
        """Those that run."""
        return sorted(self._running)

    def log(self, name: str) -> Path:
        """What a worker has said."""
        return self._folder / f"{name}.log"

    def start(self, name: str) -> None:
        """Start one."""
        with self._lock:
            assert name not in self._running
            self._was_ready[name] = self.ready(name)
            self._running[name] = WorkerProcess(
                self._servers,
                self._trust,
                self.log(name),
                topology=TOPOLOGY,
                id_=name,
                python=["-W", "error"],
                options=self._options,
            )

    def ready(self, name: str) -> int:
        """How often it has said that it is ready, since the first start under this name."""
        log = self.log(name)
        return log.read_text(errors="replace").count("worker ready") if log.exists() else 0

    def is_ready(self, name: str) -> bool:
        """Whether it has been ready since its start."""
        return self.ready(name) > self._was_ready[name]

    def kill(self, name: str) -> None:
        """SIGKILL."""
        with self._lock:
            worker = self._running.pop(name)
        worker.kill()

    def drain(self, name: str) -> None:
        """SIGTERM; if it had begun its work, it must end by itself, and well."""
        with self._lock:
            worker = self._running.pop(name)
            begun = self.is_ready(name)
        code = worker.drain(DRAIN_S)
        assert code == 0 or not begun, f"{name} ended with {code} when it was asked to; see {self.log(name)}"

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        os.kill(self._running[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        os.kill(self._running[name].pid, signal.SIGCONT)

    def check(self) -> None:
        """Raise if one has ended that nobody has ended; one that found no Kafka when it began is started again."""
        with self._lock:
            for name, worker in list(self._running.items()):
                try:
                    worker.check()
                except WorkerDiedError as error:
                    if self.is_ready(name) or UNAVAILABLE not in str(error):
                        raise
                    self.restarts += 1
                    self.kill(name)
                    self.start(name)

    def end(self) -> None:
        """SIGKILL to all."""
        for name in self.names:
            self.kill(name)
