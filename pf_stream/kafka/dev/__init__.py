"""A real Apache Kafka of one node or of several, for development and tests, without Docker or a system Java.

::

    with DevBroker.temporary() as broker:
        ...  # connect to broker.bootstrap_servers
    with DevCluster.temporary(3) as cluster:
        cluster.kill(1)  # any one may be lost
"""

from pf_stream.errors import ConfigurationError

try:
    import psutil  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "psutil":
        raise
    raise ConfigurationError("the development broker needs more: pip install 'pf-stream[dev]'") from None

from pf_stream.kafka.dev.broker import BrokerInfo, BrokerState, BrokerStatus, DevBroker
from pf_stream.kafka.dev.cluster import ClusterInfo, DevCluster
from pf_stream.kafka.dev.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    BrokerBusyError,
    BrokerDiedError,
    BrokerRunningError,
    BrokersDifferError,
    BrokerTimeoutError,
    BrokerUnstoppableError,
    DevBrokerError,
    DiskError,
    JavaUnusableError,
    PortBusyError,
    RepositoryUnreachableError,
)
from pf_stream.kafka.dev.launch import free_port
from pf_stream.kafka.dev.progress import Progress, Stage, Step
from pf_stream.kafka.dev.storage import Listener

__all__ = [
    "ArtifactCorruptError",
    "ArtifactMissingError",
    "BrokerBusyError",
    "BrokerDiedError",
    "BrokerInfo",
    "BrokerRunningError",
    "BrokerState",
    "BrokerStatus",
    "BrokerTimeoutError",
    "BrokerUnstoppableError",
    "BrokersDifferError",
    "ClusterInfo",
    "DevBroker",
    "DevBrokerError",
    "DevCluster",
    "DiskError",
    "JavaUnusableError",
    "Listener",
    "PortBusyError",
    "Progress",
    "RepositoryUnreachableError",
    "Stage",
    "Step",
    "free_port",
]
