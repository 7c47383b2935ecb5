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

A cluster has such a folder for each of its nodes, and says in ``cluster.json`` which they are::

    DIR/
        .lock
        cluster.json            id and ports of the cluster (see ClusterRecord)
        node-1/ node-2/ ...     as above

``format`` costs a JVM (two seconds). It writes two things: ``meta.properties``, four lines of text, and the
first snapshot of the metadata log, which is the same for every folder of a Kafka version and comes with this
package.
"""

import base64
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from pf_stream.kafka.dev.errors import BrokerBusyError, DiskError
from pf_stream.kafka.dev.progress import Progress, Stage, Step

__all__ = [
    "ALONE",
    "BrokerRecord",
    "ClusterRecord",
    "DataDir",
    "Listener",
    "Node",
    "cache_dir",
    "default_data_dir",
    "jars_dir",
    "kafka_uuid",
]

_OURS = (
    "kafka",
    "tmp",
    "broker.json",
    "broker.log",
    "broker.previous.log",
    "server.properties",
    "log4j2.properties",
)
_CLUSTER = "cluster.json"
_SNAPSHOT = "00000000000000000000-0000000000.checkpoint"

# The brokers of one user: few threads, one partition for each internal topic, and timeouts that let a
# broker come back two seconds after a kill instead of eleven. A topic's records survive the loss of any one
# of three brokers, and go on being written meanwhile.
_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=kafka

auto.create.topics.enable=false
num.partitions=4
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=1
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

broker.heartbeat.interval.ms=100
broker.session.timeout.ms={session_ms}
controller.quorum.election.backoff.max.ms={election_ms}
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
class Listener:
    """A second door of a broker, for clients that shall be let in otherwise, or come through a proxy."""

    port: int
    """Where it listens, on 127.0.0.1."""
    advertised_port: int
    """Where clients are told to connect to: the proxy's port, or *port*."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node is told beside its own ports. A broker that is alone needs nothing of it."""

    id: int = 1
    """From 1 on."""
    voters: tuple[int, ...] = ()
    """Controller ports of all nodes in the order of their ids; none if it is alone."""
    cluster_id: str | None = None
    """Id of the cluster; made up if it is not given."""
    second: Listener | None = None
    """The listener ``SECOND``; without security unless *settings* say otherwise."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further properties of the broker; they come last, so they overrule what is there."""


ALONE: Final = Node()


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What ``cluster.json`` says about a cluster of several nodes."""

    cluster_id: str
    """Id of the cluster."""
    ports: tuple[int, ...]
    """Client ports of the nodes, in the order of their ids."""
    controller_ports: tuple[int, ...]
    """Their controllers' ports."""


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

    @contextmanager
    def locked(self, timeout: float, report: Progress) -> Iterator[None]:
        """Make the folder, and hold its lock.

        Raises:
            BrokerBusyError: another process holds it for *timeout* seconds.
            DiskError: the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.lock_path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                report(Step(Stage.waiting))
                lock.acquire(timeout=timeout)
        except Timeout:
            raise BrokerBusyError(self.path, timeout) from None
        except OSError as error:
            raise DiskError(self.path, error.strerror or str(error)) from error
        try:
            yield
        finally:
            lock.release()

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

    def prepare(self, port: int, controller_port: int, node: Node = ALONE) -> None:
        """Write the settings of a start, and format the folder if this is its first."""
        try:
            self.path.mkdir()
        except FileExistsError:
            pass
        except OSError as error:
            raise DiskError(self.path, error.strerror or str(error)) from error
        self._write("server.properties", _properties(port, controller_port, node))
        self._write("log4j2.properties", _LOG4J2)
        try:
            if self.log_path.exists():
                self.log_path.replace(self.path / "broker.previous.log")
            shutil.rmtree(self.path / "tmp", ignore_errors=True)  # a killed JVM leaves its libraries
            (self.path / "tmp").mkdir()
            if not (self.path / "kafka" / "meta.properties").exists():
                self._format(node)
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

    def remove_if_empty(self) -> None:
        """Remove the folder, unless something lies in it that is not ours."""
        with suppress(OSError):
            self.path.rmdir()

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the log."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        except OSError:
            return []

    def _format(self, node: Node) -> None:
        cluster_id = node.cluster_id or kafka_uuid()
        meta = f"version=1\nnode.id={node.id}\ndirectory.id={kafka_uuid()}\ncluster.id={cluster_id}\n"
        # Made beside its place and moved there: a half-formatted folder must not look like a formatted one.
        with tempfile.TemporaryDirectory(dir=self.path, prefix="format-") as scratch:
            fresh = Path(scratch) / "kafka"
            (fresh / "__cluster_metadata-0").mkdir(parents=True)
            (fresh / "meta.properties").write_text(meta, encoding="ascii")
            snapshot = files("pf_stream.kafka.dev").joinpath("_bootstrap.checkpoint").read_bytes()
            (fresh / "__cluster_metadata-0" / _SNAPSHOT).write_bytes(snapshot)
            fresh.replace(self.path / "kafka")

    def read_cluster(self) -> ClusterRecord | None:
        """The cluster of several nodes that lives here, if one does."""
        try:
            found = json.loads((self.path / _CLUSTER).read_bytes())
            return ClusterRecord(found["cluster_id"], tuple(found["ports"]), tuple(found["controller_ports"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def write_cluster(self, record: ClusterRecord) -> None:
        """Remember a cluster."""
        self._write(_CLUSTER, json.dumps(asdict(record), indent=1) + "\n")

    def forget_cluster(self) -> None:
        """There is no cluster here any more."""
        (self.path / _CLUSTER).unlink(missing_ok=True)

    @property
    def is_single(self) -> bool:
        """Whether a broker that is alone has been here."""
        return (self.path / "kafka").exists()

    def node(self, number: int) -> "DataDir":
        """The folder of a node of the cluster."""
        return DataDir(self.path / f"node-{number}")

    def _write(self, name: str, text: str) -> None:
        part = self.path / f"{name}.part"
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self.path / name)
        except OSError as error:
            raise DiskError(self.path / name, error.strerror or str(error)) from error


def _properties(port: int, controller_port: int, node: Node) -> str:
    voters = node.voters or (controller_port,)
    alone = len(voters) == 1
    replicas = min(3, len(voters))
    properties = _PROPERTIES.format(
        node=node.id,
        port=port,
        controller_port=controller_port,
        voters=",".join(f"{number}@127.0.0.1:{voter}" for number, voter in enumerate(voters, 1)),
        replicas=replicas,
        in_sync=max(1, replicas - 1),
        # Several brokers on few cores: one that waits for a core must not be taken for dead, and candidates that stand
        # at the same moment must get out of each other's way.
        session_ms=1000 if alone else 3000,
        election_ms=50 if alone else 500,
    )
    more: dict[str, str] = {}
    if node.second is not None:
        first = f"PLAINTEXT://127.0.0.1:{port}"
        second = "SECOND://127.0.0.1:{}"
        # Of a property that is named twice, Java takes the last.
        more |= {
            "listeners": f"{first},CONTROLLER://127.0.0.1:{controller_port},{second.format(node.second.port)}",
            "advertised.listeners": f"{first},{second.format(node.second.advertised_port)}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECOND:PLAINTEXT",
        }
    return properties + "".join(f"{name}={value}\n" for name, value in (more | dict(node.settings)).items())


def cache_dir() -> Path:
    """Where jars, AOT caches and the default data folder live, per user."""
    return user_cache_path("pf_stream") / "kafka"


def jars_dir() -> Path:
    """Where the jars are kept."""
    return cache_dir() / "jars"


def default_data_dir() -> Path:
    """Data folder of ``pf dev`` when none is named."""
    return cache_dir() / "broker"


def kafka_uuid() -> str:
    """A random UUID as Kafka writes it: base64url without padding, never with a leading dash (a flag)."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text
