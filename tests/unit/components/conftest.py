"""The flights, as the component's users have them."""

from pathlib import Path

import pytest

from pf_stream import Topology
from pf_stream.topology import read_topology_file


@pytest.fixture(scope="session")
def flights() -> Topology:
    return read_topology_file(Path(__file__).parents[3] / "topologies/flights/reactors.yaml")
