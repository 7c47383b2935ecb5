"""Whether a broker does its work."""

import socket
import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pf_stream.kafka.dev.process import BrokerProcess

__all__ = ["NotReadyError", "answers", "wait_ready"]

_TOPIC = "pf-dev-ready"
_TICK_S = 0.02
_REQUEST_S = 2.0


class NotReadyError(Exception):
    """Raised when the deadline passes or the process ends; the caller knows the log and says why."""

    def __init__(self, last_error: str, *, ended: bool) -> None:
        self.last_error = last_error
        self.ended = ended
        super().__init__(last_error)


def wait_ready(process: BrokerProcess, port: int, deadline: float, tick: Callable[[], None], replicas: int = 1) -> None:
    """Return once a topic of *replicas* could be created: a controller leads, and has brokers to put partitions on.

    The controller does all but write the topic down. A real one, deleted again, would leave folders for a minute, and
    for good if the broker is killed meanwhile.

    *deadline* is on the monotonic clock. *tick* is called again and again meanwhile.
    """
    admin: AdminClient | None = None
    topic = NewTopic(_TOPIC, num_partitions=1, replication_factor=replicas)
    last_error = "it does not listen"
    while True:
        tick()
        # The wait for its end is the pause between two tries, so an end is seen at once.
        if process.ended(_TICK_S):
            raise NotReadyError(last_error, ended=True)
        if time.monotonic() >= deadline:
            raise NotReadyError(last_error, ended=False)
        if admin is None:
            if not _listens(port):
                continue
            admin = _admin(port)
        try:
            admin.create_topics([topic], validate_only=True, request_timeout=_REQUEST_S)[_TOPIC].result()
        except KafkaException as error:
            last_error = str(error.args[0])
        else:
            return


def answers(port: int) -> bool:
    """Whether the broker answers a metadata request within two seconds."""
    try:
        return bool(_admin(port).list_topics(timeout=_REQUEST_S).brokers)
    except KafkaException:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), _REQUEST_S).close()
    except OSError:
        return False
    return True


def _admin(port: int) -> AdminClient:
    return AdminClient(
        {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 50,
            "topic.metadata.refresh.fast.interval.ms": 20,
            "log_level": 0,  # a broker that is not there yet is no news
        }
    )
