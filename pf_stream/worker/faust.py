"""The Faust app of a topology, for Faust's own command line.

::

    PF_TOPOLOGY=topologies/flights/topology.yaml faust -A pf_stream.worker.faust agents
    PF_TOPOLOGY=topologies/flights/topology.yaml faust -A pf_stream.worker.faust tables

``PF_TOPOLOGY`` is a ``.yaml`` file or ``module:name``, ``PF_NAMESPACE`` and ``PF_BOOTSTRAP_SERVERS`` are as for ``pf``. To show
agents and tables no broker is needed. ``faust worker`` is refused: lanes belong to ``pf worker run``.
"""

import os
from typing import Any, Final, NoReturn

from pf_stream.engine import WorkerSettings
from pf_stream.engine.app import build_app
from pf_stream.errors import ConfigurationError, PFError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.security import TrustRoots
from pf_stream.topology.target import load_topology

__all__ = ["app"]

DEFAULT_BOOTSTRAP: Final = "127.0.0.1:9092"


def _app() -> Any:
    target = os.environ.get("PF_TOPOLOGY")
    if not target:
        raise ConfigurationError("PF_TOPOLOGY is not set; it names a .yaml file, or module:name")
    topology = load_topology(target)
    if namespace := os.environ.get("PF_NAMESPACE"):
        topology = topology.within(namespace)
    connection = ConnectionSettings(os.environ.get("PF_BOOTSTRAP_SERVERS") or DEFAULT_BOOTSTRAP)
    made: Any = build_app(topology, topology.partitions, WorkerSettings(connection, TrustRoots({}), worker_id="faust"))
    made.conf.Worker = _refuse
    return made


def _refuse(*_: object, **__: object) -> NoReturn:
    raise SystemExit("this app has agents and tables to show; to run the topology use: pf worker run")


try:
    app = _app()
except PFError as error:
    # Nobody but Faust's command line imports this module, and a traceback would hide the one line that matters.
    raise SystemExit(f"error ({error.code}): {error}") from error
