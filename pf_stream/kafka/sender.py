"""Sending records, for tools. The engine has its own way."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError as Answer
from confluent_kafka import KafkaException, Message, Producer

from pf_stream.core.records import Header
from pf_stream.kafka._confluent import TIMEOUT_S, Session, answer_of
from pf_stream.kafka.errors import KafkaError, TopicMissingError
from pf_stream.kafka.link import ConnectionSettings

__all__ = ["NewRecord", "Position", "SupersededError", "TransactionalSender", "send"]

MAX_BYTES = 8 << 20

TRANSACTION_S: Final = 10.0
"""How long a transaction may be open: for readers, its partitions end where it begins, until it ends or the broker ends it."""
PATIENCE_S: Final = 6 * TIMEOUT_S
"""How long the end of a transaction is tried for."""

Position = tuple[str, int, int]
"""Topic, partition and offset."""


class SupersededError(KafkaError):
    """Raised when somebody else has begun to send under the same transactional id since."""

    code = "superseded"

    def __init__(self, transactional_id: str) -> None:
        super().__init__(
            f"another command sends as {transactional_id!r} now, and took over from this one; "
            f"what was not yet committed here is not sent"
        )


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to be sent."""

    topic: str
    """Target."""
    key: bytes | None
    """Decides the partition, as Java's and aiokafka's producers do (murmur2); without one, any."""
    value: bytes | None
    """Its value; None deletes the key on a compacted topic."""
    headers: Sequence[Header] = field(default=())
    """In their order."""
    partition: int | None = None
    """Target partition, whatever the key says."""


# librdkafka writes what is fatal to stderr by itself, whatever its log level; it comes as an error too.
_QUIET = logging.getLogger(f"{__name__}.librdkafka")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class _Sending:
    """A confluent-kafka producer, and where what was given to it has gone."""

    def __init__(self, settings: ConnectionSettings, linger_ms: int = 0, **more: str | int | bool) -> None:
        self.session = Session(settings)
        self.producer = Producer(
            self.session.configuration(
                enable_idempotence=True,
                partitioner="murmur2_random",
                message_max_bytes=MAX_BYTES,
                linger_ms=linger_ms,
                allow_auto_create_topics=False,
                **more,
            ),
            logger=_QUIET,
        )
        self._known = self.session.metadata(self.producer).topics

    def send(self, records: Iterable[NewRecord]) -> list[Position]:
        """Send records; returns where each is, once all in-sync replicas have it."""
        positions: dict[int, Position] = {}
        failures: list[KafkaError] = []
        total = 0
        for index, record in enumerate(records):
            if record.topic not in self._known:
                raise TopicMissingError([record.topic], "See what there is: pf topics list")
            total += 1

            def delivered(answer: Answer | None, message: Message, index: int = index) -> None:
                if answer is not None:
                    failures.append(self.session.error(answer, f"send to {message.topic()}"))
                    return
                topic, partition, offset = message.topic(), message.partition(), message.offset()
                assert topic is not None
                assert partition is not None
                assert offset is not None
                positions[index] = topic, partition, offset

            while True:
                try:
                    self.producer.produce(
                        record.topic,
                        record.value,
                        record.key,
                        -1 if record.partition is None else record.partition,
                        headers=list(record.headers),
                        on_delivery=delivered,
                    )
                    break
                except BufferError:  # the client's queue is full
                    self.producer.poll(0.1)
                except KafkaException as error:
                    raise self.session.error(error.args[0], f"send to {record.topic}") from error
            self.producer.poll(0)
        self.producer.flush()
        if failures:
            raise failures[0]
        return [positions[index] for index in range(total)]


def send(settings: ConnectionSettings, records: Iterable[NewRecord], *, linger_ms: int = 0) -> list[Position]:
    """Send records; returns where each of them is, once all in-sync replicas have it.

    Thousands go in a fraction of the time if each may wait a few milliseconds, *linger_ms*, to go together with others.
    Records of one partition keep their order. A record that is sent again after a lost answer is not doubled.

    Raises:
        TopicMissingError: a target does not exist; it is not made.
        KafkaError: a record was not taken. Those before and after it may have been.
    """
    return _Sending(settings, linger_ms, message_timeout_ms=int(3 * TIMEOUT_S * 1000)).send(records)


class TransactionalSender:
    """Sends records that are there together or not at all (KIP-98).

    Whoever is made last under a transactional id is the only one: what an earlier one left open is ended first, and it can
    send nothing more.
    """

    def __init__(self, settings: ConnectionSettings, transactional_id: str) -> None:
        """Take the transactional id; raises :class:`KafkaError`, :class:`NotAuthorisedError` if it is not for us."""
        self._id = transactional_id
        self._sending = _Sending(
            settings, transactional_id=transactional_id, transaction_timeout_ms=int(TRANSACTION_S * 1000)
        )
        with self._sending.session.mapped(f"send as {transactional_id!r}"):
            self._sending.producer.init_transactions(PATIENCE_S)

    def send(self, records: Iterable[NewRecord]) -> list[Position]:
        """Send records within the open :meth:`transaction`; raises as :func:`send` does."""
        return self._sending.send(records)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is sent within the block is committed behind it, and aborted if it raises.

        Raises:
            SupersededError: nothing of the block is sent.
            KafkaError: it could not be committed; whether it was is known to whoever takes the transactional id next.
        """
        try:
            self._sending.producer.begin_transaction()
            yield
            self._commit()
        except KafkaException as error:
            self._abort()
            raise self._error(error) from error
        except SystemError as error:
            # confluent-kafka calls back with an exception set when a producer was fenced, and what is called trips over it.
            answer = self._abort()
            if answer is None:
                raise
            raise self._error(answer) from error
        except BaseException:
            self._abort()
            raise

    def _error(self, error: KafkaException) -> KafkaError:
        answer = answer_of(error)
        if answer.code() in _FENCED:
            return SupersededError(self._id)
        return self._sending.session.error(answer, f"send as {self._id!r}")

    def _commit(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._sending.producer.commit_transaction(TIMEOUT_S)
                return
            except KafkaException as error:
                if not answer_of(error).retriable() or time.monotonic() > deadline:
                    raise

    def _abort(self) -> KafkaException | None:
        """Abort, or say why not; the broker does it then when its time is over, or when the next one takes the id."""
        try:
            self._sending.producer.abort_transaction(TIMEOUT_S)
        except KafkaException as error:
            return error
        return None


_FENCED = frozenset({Answer._FENCED, Answer.INVALID_PRODUCER_EPOCH, Answer.PRODUCER_FENCED})
