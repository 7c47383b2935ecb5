"""A real Kafka of one node, for development and tests: start it, find it again, stop it, forget its data."""

import datetime as dt
import enum
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pf_stream.clock import WallClock
from pf_stream.kafka.dev.aot import aot_flags, make_aot_in_background
from pf_stream.kafka.dev.artifacts import fetch, load_lock
from pf_stream.kafka.dev.errors import BrokerRunningError, BrokersDifferError
from pf_stream.kafka.dev.java import Java, find_java
from pf_stream.kafka.dev.launch import Launch
from pf_stream.kafka.dev.process import find
from pf_stream.kafka.dev.progress import Progress, Stage, Step
from pf_stream.kafka.dev.ready import answers
from pf_stream.kafka.dev.storage import BrokerRecord, DataDir, default_data_dir, jars_dir

__all__ = [
    "START_S",
    "STOP_S",
    "BrokerInfo",
    "BrokerState",
    "BrokerStatus",
    "DevBroker",
    "broker_info",
    "installation",
    "look",
]

START_S = 60.0
STOP_S = 20.0


class BrokerState(enum.StrEnum):
    """What can be said of a data folder."""

    running = "running"
    """Its broker answers."""
    unhealthy = "unhealthy"
    """Its broker's process runs and does not answer: it starts, or it hangs."""
    stale = "stale"
    """Its broker has gone without being stopped."""
    stopped = "stopped"
    """No broker."""


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """A broker that was started."""

    bootstrap_servers: str
    """What Kafka clients connect to: ``127.0.0.1:PORT``."""
    pid: int
    """Process id."""
    port: int
    """Port of the clients."""
    data_dir: Path
    """Its data folder."""
    version: str
    """Version of Kafka."""
    started_at: str
    """RFC 3339, in UTC."""


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What is found when looking."""

    state: BrokerState
    """In one word."""
    data_dir: Path
    """The data folder that was looked at."""
    broker: BrokerInfo | None
    """The broker, also when it is stale."""
    uptime_s: int | None
    """Whole seconds since its start, if its process runs."""
    rss_bytes: int | None
    """Resident memory, if its process runs."""


class DevBroker:
    """The broker of one data folder. Holds no process: any instance for the same folder means the same broker.

    Parameters:
        data_dir: where topics, log and settings are kept; the user's cache folder by default.
        port: port on 127.0.0.1; by default the folder's last one if it is free, else any free one.
    """

    def __init__(self, data_dir: Path | None = None, port: int | None = None) -> None:
        self._data = DataDir((data_dir or default_data_dir()).expanduser().absolute())
        self._port = port

    @classmethod
    @contextmanager
    def temporary(cls, *, progress: Progress | None = None, timeout: float = START_S) -> Iterator[BrokerInfo]:
        """A broker with a data folder of its own; both go after the block, or when this process ends in any way.

        Raises what :meth:`up` raises.
        """
        java, jars = installation(progress)
        with tempfile.TemporaryDirectory(prefix="pf-dev-") as folder:
            data = DataDir(Path(folder))
            launch = Launch(java, jars, data, timeout, progress or _ignore)
            record, process = launch.run(None, aot_flags(java, jars), guarded=True)
            try:
                yield broker_info(data, record)
            finally:
                process.end(grace=0)  # nobody will read its data again

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        return self._data.path

    @property
    def log_path(self) -> Path:
        """The broker's output since its last start."""
        return self._data.log_path

    def up(self, *, progress: Progress | None = None, timeout: float = START_S) -> BrokerInfo:
        """Start the broker, or find the one that runs; it stays when this process ends.

        Returns when a topic could be created in it. What it needs is downloaded first, on the first start;
        *timeout* is for the time after that, in seconds. If this raises, no broker is left behind.

        Raises:
            DevBrokerError: a leaf of it says what failed, see ``errors``.
            JavaUnusableError: there is no Java runtime for it.
            ConfigurationError: ``PF_MAVEN_MIRROR`` cannot be used.
        """
        report = progress or _ignore
        java, jars = installation(progress)
        with self._data.locked(timeout, report):
            if cluster := self._data.read_cluster():
                raise BrokersDifferError(self._data.path, len(cluster.ports), 1)
            record = self._data.read_record()
            process = find(record) if record else None
            if record and process:
                if self._port not in {None, record.port}:
                    raise BrokerRunningError(self._data.path, record.port, self._port)
                report(Step(Stage.running))
                # Whoever started it may have died before it was ready.
                Launch(java, jars, self._data, timeout, _ignore).wait_ready(process, record.port)
                return broker_info(self._data, record)
            if record:
                report(Step(Stage.stale))
            launch = Launch(java, jars, self._data, timeout, report)
            record, _ = launch.run(self._port, aot_flags(java, jars), guarded=False)
        make_aot_in_background(java, jars)
        return broker_info(self._data, record)

    def status(self) -> BrokerStatus:
        """What is found now; asks the broker, for two seconds at most, and changes nothing."""
        return look(self._data)

    def down(self, *, timeout: float = STOP_S) -> BrokerState:
        """Stop the broker: SIGTERM, after *timeout* seconds SIGKILL. Its data stay.

        Returns what was found: ``running``, ``stale`` (nothing to stop, the folder is tidied) or ``stopped``.

        Raises:
            BrokerBusyError: another process works on the same folder.
            BrokerUnstoppableError: the process remains.
        """
        if not self._data.path.is_dir():
            return BrokerState.stopped
        with self._data.locked(timeout, _ignore):
            return self._stop(timeout)

    def reset(self, *, timeout: float = STOP_S) -> BrokerState:
        """Stop the broker and delete its data; other files in the folder stay. Returns and raises as :meth:`down`."""
        if not self._data.path.is_dir():
            return BrokerState.stopped
        with self._data.locked(timeout, _ignore):
            found = self._stop(timeout)
            self._data.reset()
            return found

    def _stop(self, timeout: float) -> BrokerState:
        record = self._data.read_record()
        if record is None:
            return BrokerState.stopped
        process = find(record)
        if process is not None:
            process.end(timeout)
        self._data.forget_record()
        return BrokerState.stale if process is None else BrokerState.running


def look(data: DataDir) -> BrokerStatus:
    """What is found in a data folder now; asks its broker, for two seconds at most."""
    record = data.read_record()
    if record is None:
        return BrokerStatus(BrokerState.stopped, data.path, None, None, None)
    info = broker_info(data, record)
    process = find(record)
    if process is None:
        return BrokerStatus(BrokerState.stale, data.path, info, None, None)
    state = BrokerState.running if answers(record.port) else BrokerState.unhealthy
    started = dt.datetime.fromisoformat(record.started_at).timestamp()
    uptime_s = max(0, WallClock().now_ms() // 1000 - int(started))
    return BrokerStatus(state, data.path, info, uptime_s, process.rss_bytes())


def installation(progress: Progress | None) -> tuple[Java, tuple[Path, ...]]:
    """The Java runtime and the jars, fetched if they are missing."""
    return find_java(), fetch(load_lock().artifacts, jars_dir(), progress=progress)


def broker_info(data: DataDir, record: BrokerRecord) -> BrokerInfo:
    """What is known of a broker that was started."""
    return BrokerInfo(
        bootstrap_servers=f"127.0.0.1:{record.port}",
        pid=record.pid,
        port=record.port,
        data_dir=data.path,
        version=record.version,
        started_at=record.started_at,
    )


def _ignore(_: Step) -> None:
    """Progress that nobody watches."""
