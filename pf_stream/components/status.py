"""How the workers of a cluster do, as they tell the registry, and what of a topology nobody works on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pf_stream.components.registry import Component, components
from pf_stream.core.status import LaneState, SinkState, TableState
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.topics import check_topics
from pf_stream.model import Topology

__all__ = ["ClusterStatus", "WorkerStatus", "judge", "read_status"]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker, as it was last heard of."""

    component: Component
    """What it announced."""
    lost: bool
    """Whether it ended without saying so, or cannot reach Kafka."""

    @property
    def healthy(self) -> bool:
        """Whether it is there, and all its lanes, sinks and tables get on."""
        lanes, sinks = {LaneState.stopped, LaneState.waiting}, {SinkState.stopped, SinkState.waiting}
        one = self.component
        faulty = any(lane.state in lanes for lane in one.lanes) or any(sink.state in sinks for sink in one.sinks)
        faulty = faulty or any(table.state is TableState.waiting for table in one.tables)
        return not self.lost and not faulty


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """All workers, of one topology or of all."""

    workers: Sequence[WorkerStatus]
    """By application and name."""
    unassigned: Sequence[str]
    """Lanes of the topology that no worker has, as ``intents-0``; none if no topology was named."""

    @property
    def healthy(self) -> bool:
        """Whether all is at work."""
        return not self.unassigned and all(worker.healthy for worker in self.workers)


def read_status(settings: ConnectionSettings, topology: Topology | None, now_ms: int) -> ClusterStatus:
    """What the registry says now; with a topology, of its workers alone, and which of its lanes nobody has.

    Raises:
        TopicMissingError: the topics of the topology, or of any, have not been made.
    """
    expected: list[str] = []
    if topology is not None:
        partitions = check_topics(Admin(settings), topology)
        expected = [f"{group.name}-{number}" for group in topology.groups for number in range(partitions)]
    return judge(components(settings), None if topology is None else topology.app_id, expected, now_ms)


def judge(found: Iterable[Component], app: str | None, expected: Iterable[str], now_ms: int) -> ClusterStatus:
    """The status that *found* amounts to; *expected* are the lanes that an application must have."""
    workers = [
        WorkerStatus(one, one.is_lost(now_ms)) for one in found if one.kind == "worker" and app in {None, one.app}
    ]
    lanes = (lane for worker in workers if not worker.lost for lane in worker.component.lanes)
    assigned = {lane.name for lane in lanes if lane.state is not LaneState.standby}
    return ClusterStatus(workers, [lane for lane in expected if lane not in assigned])
