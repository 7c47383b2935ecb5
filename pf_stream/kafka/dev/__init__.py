"""A real Apache Kafka of one node for development and tests, without Docker or a system Java.

::

    with DevBroker.temporary() as broker:
        ...  # connect to broker.bootstrap_servers
"""

from pf_stream.errors import ConfigurationError

try:
    import psutil  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "psutil":
        raise
    raise ConfigurationError("the development broker needs more: pip install 'pf-stream[dev]'") from None

from pf_stream.kafka.dev.broker import BrokerInfo, BrokerState, BrokerStatus, DevBroker
from pf_stream.kafka.dev.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    BrokerBusyError,
    BrokerDiedError,
    BrokerRunningError,
    BrokerTimeoutError,
    BrokerUnstoppableError,
    DevBrokerError,
    DiskError,
    JavaUnusableError,
    PortBusyError,
    RepositoryUnreachableError,
)
from pf_stream.kafka.dev.progress import Progress, Stage, Step

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
    "DevBroker",
    "DevBrokerError",
    "DiskError",
    "JavaUnusableError",
    "PortBusyError",
    "Progress",
    "RepositoryUnreachableError",
    "Stage",
    "Step",
]
