"""Topologies on disk: files that name reactors, and what is derived from them."""

from pf_stream.topology.file import Fault, TopologyFile, TopologyFileError, read_topology_file
from pf_stream.topology.target import TargetError, load_topology

__all__ = [
    "Fault",
    "TargetError",
    "TopologyFile",
    "TopologyFileError",
    "load_topology",
    "read_topology_file",
]
