"""The broker's data folder: what lies in it, and how it is made ready without Kafka's ``format`` tool.

::

    DIR/
        .lock                   held by whoever starts, stops or resets
        broker.json             the broker that was started last, until it is stopped (see BrokerRecord)
        broker.log              its output; broker.previous.log is the one before
        server.properties       written at each start
        log4j2.properties       likewise
        kafka/                  Kafka's own: meta.properties, topics
        tmp/                    native libraries that the JVM unpacks

``format`` costs a JVM (two seconds). It writes two things: ``meta.properties``, four lines of text, and the
first snapshot of the metadata log, which is the same for every folder of a Kafka version and comes with this
package.
"""

import base64
import json
import shutil
import tempfile
import uuid
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

from pf_stream.kafka.dev.errors import DiskError

__all__ = ["BrokerRecord", "DataDir", "cache_dir", "default_data_dir", "jars_dir"]

_OURS = (
    "kafka",
    "tmp",
    "broker.json",
    "broker.log",
    "broker.previous.log",
    "server.properties",
    "log4j2.properties",
)
_SNAPSHOT = "00000000000000000000-0000000000.checkpoint"

# A single broker of one user: few threads, one partition for each internal topic, and timeouts that let a
# broker come back two seconds after a kill instead of eleven.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=kafka

auto.create.topics.enable=false
num.partitions=4
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0

broker.heartbeat.interval.ms=100
broker.session.timeout.ms=1000
controller.quorum.election.backoff.max.ms=50
controller.quorum.append.linger.ms=0

num.network.threads=1
num.io.threads=2
num.replica.fetchers=1
num.recovery.threads.per.data.dir=1
background.threads=2
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
group.coordinator.threads=1
share.coordinator.threads=1
"""

_LOG4J2 = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c{1})%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.start.name=kafka.server.KafkaRaftServer
logger.start.level=info
logger.version.name=org.apache.kafka.common.utils.AppInfoParser
logger.version.level=info
"""


@dataclass(frozen=True, slots=True)
class BrokerRecord:
    """What ``broker.json`` says about a started broker."""

    pid: int
    """Process id."""
    token: str
    """Random text on the command line of that process: a recycled pid does not have it."""
    port: int
    """Port of the clients, on 127.0.0.1."""
    version: str
    """Version of Kafka."""
    started_at: str
    """When the process was started, RFC 3339 in UTC."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """Paths and contents of one data folder. Every method that writes raises :class:`DiskError`."""

    path: Path
    """The folder, absolute."""

    @property
    def lock_path(self) -> Path:
        """Held while the broker is being started, stopped or reset."""
        return self.path / ".lock"

    @property
    def log_path(self) -> Path:
        """What the broker prints."""
        return self.path / "broker.log"

    @property
    def _record_path(self) -> Path:
        return self.path / "broker.json"

    def read_record(self) -> BrokerRecord | None:
        """The broker that was started last and not stopped; it may have gone since."""
        try:
            return BrokerRecord(**json.loads(self._record_path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # not there, or not ours: nothing can be said about a process

    def write_record(self, record: BrokerRecord) -> None:
        """Remember a broker that was started."""
        self._write(self._record_path.name, json.dumps(asdict(record), indent=1) + "\n")

    def forget_record(self) -> None:
        """There is no broker any more."""
        self._record_path.unlink(missing_ok=True)

    def last_port(self) -> int | None:
        """The port of the broker that was started last, even if it was stopped."""
        try:
            properties = (self.path / "server.properties").read_text(encoding="utf-8")
        except OSError:
            return None
        marker = "advertised.listeners=PLAINTEXT://127.0.0.1:"
        ports = (line.removeprefix(marker) for line in properties.splitlines() if line.startswith(marker))
        port = next(ports, "")
        return int(port) if port.isdecimal() else None

    def prepare(self, port: int, controller_port: int) -> None:
        """Write the settings of a start, and format the folder if this is its first."""
        properties = _PROPERTIES.format(port=port, controller_port=controller_port)
        self._write("server.properties", properties)
        self._write("log4j2.properties", _LOG4J2)
        try:
            if self.log_path.exists():
                self.log_path.replace(self.path / "broker.previous.log")
            shutil.rmtree(self.path / "tmp", ignore_errors=True)  # a killed JVM leaves its libraries
            (self.path / "tmp").mkdir()
            if not (self.path / "kafka" / "meta.properties").exists():
                self._format()
        except OSError as error:
            raise DiskError(self.path, error.strerror or str(error)) from error

    def reset(self) -> None:
        """Delete what a broker wrote, and nothing else that may lie in the folder."""
        try:
            for name in _OURS:
                path = self.path / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise DiskError(self.path, error.strerror or str(error)) from error

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the log."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        except OSError:
            return []

    def _format(self) -> None:
        meta = f"version=1\nnode.id=1\ndirectory.id={_kafka_uuid()}\ncluster.id={_kafka_uuid()}\n"
        # Made beside its place and moved there: a half-formatted folder must not look like a formatted one.
        with tempfile.TemporaryDirectory(dir=self.path, prefix="format-") as scratch:
            fresh = Path(scratch) / "kafka"
            (fresh / "__cluster_metadata-0").mkdir(parents=True)
            (fresh / "meta.properties").write_text(meta, encoding="ascii")
            snapshot = files("pf_stream.kafka.dev").joinpath("_bootstrap.checkpoint").read_bytes()
            (fresh / "__cluster_metadata-0" / _SNAPSHOT).write_bytes(snapshot)
            fresh.replace(self.path / "kafka")

    def _write(self, name: str, text: str) -> None:
        part = self.path / f"{name}.part"
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self.path / name)
        except OSError as error:
            raise DiskError(self.path / name, error.strerror or str(error)) from error


def cache_dir() -> Path:
    """Where jars, AOT caches and the default data folder live, per user."""
    return user_cache_path("pf_stream") / "kafka"


def jars_dir() -> Path:
    """Where the jars are kept."""
    return cache_dir() / "jars"


def default_data_dir() -> Path:
    """Data folder of ``pf dev`` when none is named."""
    return cache_dir() / "broker"


def _kafka_uuid() -> str:
    """A random UUID as Kafka writes it: base64url without padding, never with a leading dash (a flag)."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text
