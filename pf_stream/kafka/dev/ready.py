"""Whether a broker does its work: a topic can be created and deleted."""

import secrets
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pf_stream.kafka.dev.process import BrokerProcess

__all__ = ["NotReadyError", "answers", "wait_ready"]

_TICK_S = 0.02
_REQUEST_S = 2.0


class NotReadyError(Exception):
    """Raised when the deadline passes or the process ends; the caller knows the log and says why."""

    def __init__(self, last_error: str, *, ended: bool) -> None:
        self.last_error = last_error
        self.ended = ended
        super().__init__(last_error)


def wait_ready(process: BrokerProcess, port: int, deadline: float, tick: Callable[[], None]) -> None:
    """Return once a topic has been created and deleted again.

    *deadline* is on the monotonic clock. *tick* is called again and again meanwhile.
    """
    admin: AdminClient | None = None
    topic = f"pf-dev-ready-{secrets.token_hex(4)}"
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
            _create_and_delete(admin, topic)
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


def _create_and_delete(admin: AdminClient, topic: str) -> None:
    limits = {"request_timeout": _REQUEST_S, "operation_timeout": _REQUEST_S}
    new = NewTopic(topic, num_partitions=1, replication_factor=1)
    # An earlier try whose answer was lost may have done it.
    _done(admin.create_topics([new], **limits)[topic], already=KafkaError.TOPIC_ALREADY_EXISTS)
    _done(admin.delete_topics([topic], **limits)[topic], already=KafkaError.UNKNOWN_TOPIC_OR_PART)


def _done(future: Future[None], already: int) -> None:
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() != already:
            raise
