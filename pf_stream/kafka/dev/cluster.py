"""A real Kafka of several nodes on this machine, each of them broker and controller.

Of three, any one may be lost at any moment: the other two still have every acknowledged record, elect a controller, and
take writes (``min.insync.replicas=2``).
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pf_stream.kafka.dev.aot import aot_flags, make_aot_in_background
from pf_stream.kafka.dev.broker import (
    START_S,
    STOP_S,
    BrokerInfo,
    BrokerState,
    BrokerStatus,
    broker_info,
    installation,
    look,
)
from pf_stream.kafka.dev.errors import BrokerRunningError, BrokersDifferError, PortBusyError
from pf_stream.kafka.dev.launch import Launch, free_port, is_free
from pf_stream.kafka.dev.process import BrokerProcess, find
from pf_stream.kafka.dev.progress import Progress, Stage, Step
from pf_stream.kafka.dev.storage import ClusterRecord, DataDir, Listener, Node, default_data_dir, kafka_uuid

__all__ = ["ClusterInfo", "DevCluster"]

BROKERS = 3
_PORT_TRIES = 3


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A cluster that was started."""

    bootstrap_servers: str
    """What Kafka clients connect to: ``127.0.0.1:PORT`` of each broker, comma separated."""
    data_dir: Path
    """Its data folder."""
    version: str
    """Version of Kafka."""
    brokers: tuple[BrokerInfo, ...]
    """The nodes, in the order of their ids from 1 on."""


class DevCluster:
    """The nodes of one data folder. Any instance for the same folder means the same cluster.

    Parameters:
        data_dir: where the folders of the nodes are; the user's cache folder by default.
        brokers: how many nodes; by default as many as the folder has, or three.
        port: port of node 1 on 127.0.0.1, the others' follow; by default the last ones if they are free, else any.
    """

    def __init__(self, data_dir: Path | None = None, brokers: int | None = None, port: int | None = None) -> None:
        self._data = DataDir((data_dir or default_data_dir()).expanduser().absolute())
        self._brokers = brokers
        self._port = port
        self._second: tuple[Listener, ...] = ()
        self._settings: Mapping[str, str] = {}
        self._guarded = False
        self._held: dict[int, BrokerProcess] = {}
        """Nodes that this process has started, with the guards that it must release."""

    @classmethod
    @contextmanager
    def temporary(
        cls,
        brokers: int = 3,
        *,
        second: Sequence[Listener] = (),
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        timeout: float = START_S,
    ) -> Iterator["DevCluster"]:
        """A running cluster in a folder of its own; both go after the block, or when this process ends in any way.

        *second* gives each node another listener, and *settings* are further broker properties. Raises what :meth:`up`
        raises.
        """
        with tempfile.TemporaryDirectory(prefix="pf-dev-") as folder:
            self = cls(Path(folder), brokers)
            self._second = tuple(second)
            self._settings = settings or {}
            self._guarded = True
            try:
                self.up(progress=progress, timeout=timeout)
                yield self
            finally:
                for process in self._held.values():
                    process.end(grace=0)  # nobody will read its data again

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        return self._data.path

    @property
    def exists(self) -> bool:
        """Whether the folder holds a cluster."""
        return self._data.read_cluster() is not None

    @property
    def nodes(self) -> range:
        """Ids of the nodes; none if the folder holds no cluster."""
        record = self._data.read_cluster()
        return range(1, 1 + len(record.ports) if record else 1)

    @property
    def bootstrap_servers(self) -> str:
        """``127.0.0.1:PORT`` of each node, comma separated."""
        return ",".join(f"127.0.0.1:{port}" for port in self._record().ports)

    def log_path(self, node: int) -> Path:
        """A node's output since its last start."""
        return self._data.node(node).log_path

    def up(self, *, progress: Progress | None = None, timeout: float = START_S) -> ClusterInfo:
        """Start the nodes that do not run; they stay when this process ends.

        Returns when a topic could be created on all of them. If this raises, none that it started is left behind.

        Raises:
            DevBrokerError: a leaf of it says what failed, see ``errors``.
            JavaUnusableError: there is no Java runtime for it.
            ConfigurationError: ``PF_MAVEN_MIRROR`` cannot be used.
        """
        report = progress or _ignore
        with self._data.locked(timeout, report):
            self._check()
            running = self._running()
            if running:
                if self._port not in {None, self._record().ports[0]}:
                    raise BrokerRunningError(self._data.path, self._record().ports[0], self._port or 0)
                missing = [node for node in self.nodes if node not in running]
                if not missing:
                    report(Step(Stage.running))
                self._start(missing, self.nodes, progress, timeout)
            else:
                self._start_all(progress, timeout)
        if not self._guarded:
            make_aot_in_background(*installation(progress))
        return self._info()

    def start(self, node: int, *, timeout: float = START_S) -> BrokerInfo:
        """Start a node of a cluster of which others run, as after :meth:`kill`; returns when it takes new partitions.

        Raises as :meth:`up`.
        """
        with self._data.locked(timeout, _ignore):
            if self._process(node) is None:
                self._start([node], [node], None, timeout)
        return self.broker(node)

    def kill(self, node: int) -> None:
        """End a node at once, as a power failure would."""
        self._end(node, 0)

    def status(self) -> list[BrokerStatus]:
        """What is found of each node now; asks them, for two seconds each at most, and changes nothing."""
        return [look(self._data.node(node)) for node in self.nodes]

    def broker(self, node: int) -> BrokerInfo:
        """A node that was started."""
        data = self._data.node(node)
        record = data.read_record()
        assert record is not None, f"node {node} was not started"
        return broker_info(data, record)

    def down(self, *, timeout: float = STOP_S) -> BrokerState:
        """Stop all nodes. Their data stay.

        Returns what was found: ``running`` if any node ran, ``stale`` if some have gone without being stopped and none
        ran, or ``stopped``.

        Raises:
            BrokerBusyError: another process works on the same folder.
            BrokerUnstoppableError: a process remains.
        """
        with self._data.locked(timeout, _ignore):
            return self._down(timeout)

    def reset(self, *, timeout: float = STOP_S) -> BrokerState:
        """Stop all nodes and delete their data; other files in the folder stay. Returns and raises as :meth:`down`."""
        with self._data.locked(timeout, _ignore):
            found = self._down(timeout)
            for node in self.nodes:
                self._data.node(node).reset()
                self._data.node(node).remove_if_empty()
            self._data.forget_cluster()
            return found

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _record(self) -> ClusterRecord:
        record = self._data.read_cluster()
        assert record is not None
        return record

    def _info(self) -> ClusterInfo:
        brokers = tuple(self.broker(node) for node in self.nodes)
        return ClusterInfo(self.bootstrap_servers, self._data.path, brokers[0].version, brokers)

    def _check(self) -> None:
        """Refuse a folder that is something else."""
        there = 1 if self._data.is_single else len(self.nodes)
        if self._data.is_single or (there and self._brokers not in {None, there}):
            raise BrokersDifferError(self._data.path, there, self._brokers or BROKERS)

    def _start_all(self, progress: Progress | None, timeout: float) -> None:
        for tries_left in reversed(range(_PORT_TRIES)):
            self._choose_ports()
            try:
                return self._start(self.nodes, self.nodes, progress, timeout)
            except PortBusyError:
                # Somebody took a port between our look and a broker's bind.
                if not tries_left or self._port is not None:
                    raise
        raise AssertionError  # the last try returns or raises

    def _choose_ports(self) -> None:
        """The ports that were asked for, else the last ones if they are all free, else others."""
        record = self._data.read_cluster()
        count = self._brokers or BROKERS if record is None else len(record.ports)
        ports: tuple[int, ...]
        if self._port is not None:
            ports = tuple(range(self._port, self._port + count))
            for port in ports:
                if not is_free(port):
                    raise PortBusyError(port)
        elif record is not None and all(map(is_free, record.ports)):
            ports = record.ports
        else:
            ports = _free_ports(count, ())
        cluster_id = kafka_uuid() if record is None else record.cluster_id
        # Nobody knows a controller's port but the nodes, and all of them are started anew.
        self._data.write_cluster(ClusterRecord(cluster_id, ports, _free_ports(count, ports)))

    def _start(self, nodes: Sequence[int], awaited: Sequence[int], progress: Progress | None, timeout: float) -> None:
        """Start *nodes* at once, and wait until those that are *awaited* are ready."""
        java, jars = installation(progress)
        record = self._record()
        launches = {
            node: Launch(java, jars, self._data.node(node), timeout, progress or _ignore) for node in self.nodes
        }
        begun: list[int] = []
        try:
            for node in nodes:
                _, self._held[node] = launches[node].begin(
                    record.ports[node - 1],
                    record.controller_ports[node - 1],
                    aot_flags(java, jars),
                    Node(
                        node,
                        record.controller_ports,
                        record.cluster_id,
                        self._second[node - 1] if self._second else None,
                        self._settings,
                    ),
                    guarded=self._guarded,
                    swept=self._data.path,
                )
                begun.append(node)
            running = self._running()
            for node in awaited:
                launches[node].wait_ready(running[node], record.ports[node - 1], min(3, len(running)))
        except BaseException:
            for node in begun:
                self._end(node, 0)
                self._data.node(node).forget_record()
            raise

    def _process(self, node: int) -> BrokerProcess | None:
        """The process of a node, if it runs."""
        held = self._held.get(node)
        if held is not None and not held.ended(0):
            return held
        record = self._data.node(node).read_record()
        return None if record is None else find(record)

    def _running(self) -> dict[int, BrokerProcess]:
        return {node: process for node in self.nodes if (process := self._process(node)) is not None}

    def _end(self, node: int, grace: float) -> None:
        # One of ours that has ended by itself still has a guard to be released.
        process = self._held.pop(node, None) or self._process(node)
        if process is not None:
            process.end(grace)

    def _down(self, timeout: float) -> BrokerState:
        running = self._running()
        stale = [node for node in self.nodes if self._data.node(node).read_record() is not None]
        # All at once: the last ones would wait for a majority that has gone.
        for process in running.values():
            process.ask_to_end()
        for node in stale:
            self._end(node, timeout)
            self._data.node(node).forget_record()
        return BrokerState.running if running else BrokerState.stale if stale else BrokerState.stopped


def _free_ports(count: int, taken: Sequence[int]) -> tuple[int, ...]:
    ports: set[int] = set()
    while len(ports) < count:
        ports |= {free_port()} - set(taken)
    return tuple(sorted(ports))


def _ignore(_: Step) -> None:
    """Progress that nobody watches."""
