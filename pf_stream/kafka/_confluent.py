"""What all confluent-kafka clients of ours share: quiet configuration, a first request, errors in our words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError as Answer
from confluent_kafka import KafkaException

from pf_stream.kafka.errors import KafkaError, KafkaUnavailableError, NotAuthorisedError
from pf_stream.kafka.link import ConnectionSettings

__all__ = ["TIMEOUT_S", "Session", "answer_of"]

TIMEOUT_S = 5.0
"""How long a tool waits for an answer."""
FIRST_S = 1.0
"""How long before it gives up on brokers that have all refused the connection."""

_UNAVAILABLE = frozenset(
    {
        Answer._TRANSPORT,
        Answer._ALL_BROKERS_DOWN,
        Answer._RESOLVE,
        Answer._TIMED_OUT,
        Answer._TIMED_OUT_QUEUE,
        Answer._MSG_TIMED_OUT,
        Answer.BROKER_NOT_AVAILABLE,
        Answer.COORDINATOR_NOT_AVAILABLE,
        Answer.LEADER_NOT_AVAILABLE,
        Answer.NETWORK_EXCEPTION,
        Answer.REQUEST_TIMED_OUT,
    }
)
_REFUSED = frozenset(
    {
        Answer._AUTHENTICATION,
        Answer._SSL,
        Answer.CLUSTER_AUTHORIZATION_FAILED,
        Answer.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
        Answer.GROUP_AUTHORIZATION_FAILED,
        Answer.SASL_AUTHENTICATION_FAILED,
        Answer.TOPIC_AUTHORIZATION_FAILED,
        Answer.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


def answer_of(error: KafkaException) -> Answer:
    """The broker's or the client's answer that an exception carries."""
    answer = error.args[0]
    assert isinstance(answer, Answer)
    return answer


class Session:
    """The configuration of one client, and what it said while it could not connect."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.settings = settings
        self._said: Answer | None = None
        self._all_down = False

    def configuration(self, **more: str | int | bool) -> dict[str, Any]:
        """Configuration of a client: *more* has librdkafka's names with ``_`` for ``.``."""
        return {
            # librdkafka writes its log to stderr by itself; what matters of it comes as an error.
            "log_level": 0,
            "error_cb": self._hear,
            "socket.connection.setup.timeout.ms": int(TIMEOUT_S * 1000),
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 500,
            **self.settings.for_librdkafka(),
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def _hear(self, answer: Answer) -> None:
        # "All brokers are down" follows the reason and would hide it.
        if answer.code() == Answer._ALL_BROKERS_DOWN:
            self._all_down = True
        else:
            self._said = answer

    def metadata(self, client: Any) -> Any:
        """The cluster's metadata as *client* is told it; raises our error, and that soon if every broker refuses."""
        try:
            return self._ask(client, FIRST_S)
        except KafkaException as error:
            if not self._all_down and answer_of(error).code() in _UNAVAILABLE:
                with self.mapped("read the cluster's metadata"):
                    return self._ask(client, TIMEOUT_S - FIRST_S)
            raise self.error(answer_of(error), "read the cluster's metadata") from error

    def _ask(self, client: Any, timeout_s: float) -> Any:
        try:
            return client.list_topics(timeout=timeout_s)
        finally:
            client.poll(0)  # why there is no answer is told by a callback

    def error(self, answer: Answer, action: str) -> KafkaError:
        """Our error for *answer* to the attempt to *action*."""
        if answer.code() in _UNAVAILABLE:
            heard = self._said
            if heard is not None and heard.code() in _REFUSED:
                return NotAuthorisedError(action, _reason(heard))
            return KafkaUnavailableError(self.settings.bootstrap_servers, _reason(heard or answer))
        if answer.code() in _REFUSED:
            return NotAuthorisedError(action, _reason(answer))
        return KafkaError(f"cannot {action}: {answer.str()} ({answer.name()})")

    @contextmanager
    def mapped(self, action: str) -> Iterator[None]:
        """Raise our error where the block raises confluent-kafka's."""
        try:
            yield
        except KafkaException as error:
            raise self.error(answer_of(error), action) from error


def _reason(answer: Answer) -> str:
    """What an answer says, without librdkafka's inner states: ``...: Connection refused (after 0ms in state CONNECT)``."""
    text: str = answer.str()
    return re.sub(r" \(after \d+ms in state .*", "", text)
