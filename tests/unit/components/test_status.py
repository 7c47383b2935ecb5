"""What is made of what workers tell."""

import dataclasses

import pytest

from pf_stream import Topology
from pf_stream.components.registry import HEARTBEAT_S, Component, merge, records_for
from pf_stream.components.status import judge
from pf_stream.core.status import LaneState, LaneStatus

NOW_MS = 1_767_225_600_000
LATER_MS = NOW_MS + round(4 * HEARTBEAT_S * 1000)


def worker(flights: Topology, name: str, *lanes: LaneStatus) -> Component:
    found = merge(records_for(flights, name, NOW_MS))
    return dataclasses.replace(found[0], lanes=lanes)


def lane(partition: int, state: LaneState = LaneState.running) -> LaneStatus:
    return LaneStatus("intents", "log", partition, state)


def test_all_is_well_if_every_lane_has_a_worker(flights: Topology) -> None:
    found = [worker(flights, "w0", lane(0)), worker(flights, "w1", lane(1))]
    status = judge(found, flights.app_id, ["intents-0", "intents-1"], NOW_MS)
    assert status.healthy
    assert [one.component.name for one in status.workers] == ["w0", "w1"]


@pytest.mark.parametrize(
    ("state", "healthy"),
    [
        (LaneState.opening, True),
        (LaneState.recovering, True),
        (LaneState.running, True),
        (LaneState.paused, True),
        (LaneState.standby, True),
        (LaneState.waiting, False),
        (LaneState.stopped, False),
    ],
)
def test_a_lane_that_does_not_get_on_is_not_healthy(flights: Topology, state: LaneState, healthy: bool) -> None:
    assert judge([worker(flights, "w0", lane(0, state))], None, [], NOW_MS).healthy is healthy


def test_a_lane_that_nobody_has(flights: Topology) -> None:
    status = judge([worker(flights, "w0", lane(1))], flights.app_id, ["intents-0", "intents-1"], NOW_MS)
    assert (status.healthy, status.unassigned) == (False, ["intents-0"])


def test_who_follows_a_lane_does_not_have_it(flights: Topology) -> None:
    status = judge([worker(flights, "w0", lane(0, LaneState.standby))], flights.app_id, ["intents-0"], NOW_MS)
    assert (status.healthy, status.unassigned) == (False, ["intents-0"])


def test_what_a_lost_worker_had_is_nobodys(flights: Topology) -> None:
    status = judge([worker(flights, "w0", lane(0))], flights.app_id, ["intents-0"], LATER_MS)
    assert [one.lost for one in status.workers] == [True]
    assert (status.healthy, status.unassigned) == (False, ["intents-0"])


def test_workers_of_another_topology_do_not_count(flights: Topology) -> None:
    other = worker(flights.within("other"), "w0", lane(0))
    status = judge([other], flights.app_id, ["intents-0"], NOW_MS)
    assert status.workers == []
    assert status.unassigned == ["intents-0"]
    assert len(judge([other], None, [], NOW_MS).workers) == 1
