"""``pf worker run`` on the flights topology, as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["TOPOLOGY", "WorkerDiedError", "WorkerProcess"]

TOPOLOGY = Path(__file__).parent.parent / "topology.yaml"
LOG_LINES = 12


class WorkerDiedError(Exception):
    """Raised when the worker ended by itself; tells the end of its log."""

    def __init__(self, code: int, log: Path) -> None:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        super().__init__("\n".join([f"the worker ended with exit code {code}; the end of its log:", *said]))


class WorkerProcess:
    """A worker.

    It leads a session of its own, so that no Ctrl-C reaches it; and it is killed when this process ends in whatever way,
    unless it is *kept*.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        trust: Path,
        log: Path,
        *,
        topology: str = str(TOPOLOGY),
        id_: str = "flights-0",
        kept: bool = False,
        python: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        """*python* are options of the interpreter, *options* those of the command."""
        self.log = log
        command = [sys.executable, *python, "-m", "pf_stream", "worker", "run", topology, "--id", id_]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "--trust", str(trust), "--bootstrap-servers", bootstrap_servers, *options],
                # Settings for the user's own cluster are not for this one; temporary files go where the log is.
                env={name: value for name, value in os.environ.items() if not name.startswith("PF_")}
                | {"TMPDIR": str(log.parent)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._guard = None if kept else _guard(self.pid)

    def check(self) -> None:
        """Raise :class:`WorkerDiedError` if it has ended."""
        code = self._process.poll()
        if code is not None:
            raise WorkerDiedError(code, self.log)

    def ask_to_end(self) -> None:
        """Ask it to finish what is under way, and then to end."""
        self._process.terminate()

    def drain(self, seconds: float = 20) -> int:
        """Ask it to end, and wait; the exit code, or -9 if that took too long."""
        self.ask_to_end()
        return self.wait(seconds)

    def wait(self, seconds: float = 20) -> int:
        """Wait until it has ended, as it was asked to; the exit code, or -9 if that took too long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()
        return self._ended()

    def kill(self) -> int:
        """End it at once, as a power failure would."""
        self._process.kill()
        return self._ended()

    def _ended(self) -> int:
        code = self._process.wait()
        if self._guard is not None:
            self._guard.communicate(b"\n")
            self._guard = None
        return code

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _guard(pid: int) -> "subprocess.Popen[bytes]":
    """A shell that reads from a pipe whose other end closes when this process ends, however that happens."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _ || kill -s KILL "$1"', "pf-demo-guard", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
