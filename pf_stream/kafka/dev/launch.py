"""One start of a broker: from a data folder to a process that does its work, or to the reason why not."""

import datetime as dt
import re
import secrets
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from pf_stream.clock import WallClock
from pf_stream.kafka.dev.artifacts import load_lock
from pf_stream.kafka.dev.errors import BrokerDiedError, BrokerTimeoutError, DiskError, PortBusyError
from pf_stream.kafka.dev.java import Java
from pf_stream.kafka.dev.process import BrokerProcess, spawn
from pf_stream.kafka.dev.progress import Progress, Stage, Step
from pf_stream.kafka.dev.ready import NotReadyError, wait_ready
from pf_stream.kafka.dev.storage import ALONE, BrokerRecord, DataDir, Node

__all__ = ["Launch", "free_port", "is_free"]

_PORT_TRIES = 3
_LOG_LINES = 15
_FULL_BYTES = 1 << 20


class Launch:
    """What the tries of one start share. The caller holds the lock of the data folder."""

    def __init__(self, java: Java, jars: Sequence[Path], data: DataDir, timeout: float, report: Progress) -> None:
        self._java = java
        self._jars = jars
        self._data = data
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._report = report

    def run(self, port: int | None, flags: Sequence[str], *, guarded: bool) -> tuple[BrokerRecord, BrokerProcess]:
        """Start it and wait until it is ready. On any failure, Ctrl-C included, no process is left.

        Raises:
            PortBusyError: *port* is in use.
            BrokerDiedError: it ended by itself.
            BrokerTimeoutError: it was not ready in time.
            DiskError: the data folder cannot be written.
        """
        if port is not None and not is_free(port):
            raise PortBusyError(port)
        for tries_left in reversed(range(_PORT_TRIES)):
            try:
                return self._try(port or self._choose_port(), flags, guarded=guarded)
            except PortBusyError:
                # Somebody took a port between our look and the broker's bind. Ours to choose again, unless it
                # is the one that was asked for.
                if not tries_left or (port is not None and not is_free(port)):
                    raise
        raise AssertionError  # the last try returns or raises

    def _try(self, port: int, flags: Sequence[str], *, guarded: bool) -> tuple[BrokerRecord, BrokerProcess]:
        record, process = self.begin(port, free_port(), flags, guarded=guarded)
        try:
            self.wait_ready(process, port)
        except BaseException:
            process.end(grace=0)
            self._data.forget_record()
            raise
        return record, process

    def begin(
        self,
        port: int,
        controller_port: int,
        flags: Sequence[str],
        node: Node = ALONE,
        *,
        guarded: bool,
        swept: Path | None = None,
    ) -> tuple[BrokerRecord, BrokerProcess]:
        """Start it and do not wait; for *guarded* and *swept* see :func:`spawn`. Raises :class:`DiskError`."""
        self._data.prepare(port, controller_port, node)
        token = secrets.token_hex(8)
        started_at = dt.datetime.fromtimestamp(WallClock().now_ms() / 1000, dt.UTC).isoformat(timespec="milliseconds")
        self._report(Step(Stage.starting))
        process = spawn(self._java, self._jars, self._data, token, flags, guarded=guarded, swept=swept)
        record = BrokerRecord(process.pid, token, port, load_lock().kafka, started_at)
        try:
            self._data.write_record(record)
        except BaseException:
            process.end(grace=0)
            raise
        return record, process

    def wait_ready(self, process: BrokerProcess, port: int, replicas: int = 1) -> None:
        """Return when it is ready, among so many; raises as :meth:`run` does and leaves the process alone."""
        try:
            wait_ready(process, port, self._deadline, lambda: self._report(Step(Stage.starting)), replicas)
        except NotReadyError as error:
            if error.ended:
                raise self._why_it_died(process, port) from None
            raise BrokerTimeoutError(
                self._timeout, error.last_error, self._data.log_path, self._data.log_tail(_LOG_LINES)
            ) from None

    def _choose_port(self) -> int:
        last = self._data.last_port()
        return last if last is not None and is_free(last) else free_port()

    def _why_it_died(self, process: BrokerProcess, port: int) -> Exception:
        lines = self._data.log_tail(500)
        log = "\n".join(lines)
        if "Address already in use" in log:
            return PortBusyError(port)
        # On a full disk the log may be cut before it says so.
        if "No space left on device" in log or shutil.disk_usage(self._data.path).free < _FULL_BYTES:
            return DiskError(self._data.path, "No space left on device")
        causes = [
            line for line in lines if re.search(r"Caused by: |(Exception|Error)\b.*: |^Error|^Unrecognized", line)
        ]
        said = (causes or lines or ["it said nothing"])[-1].strip()
        return BrokerDiedError(f"{process.exit_text()}: {said}", self._data.log_path)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free port below those that the system gives to outgoing connections (32768 and up on Linux, 49152 on
    macOS).

    Out of that range, another program's connection could take the port between our look and the broker's
    bind, and our own tries to connect could even connect to themselves.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        if is_free(port):
            return port
