"""Sending records, for tools. The engine has its own way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError as Answer
from confluent_kafka import KafkaException, Message, Producer

from pf_stream.core.records import Header
from pf_stream.kafka._confluent import TIMEOUT_S, Session
from pf_stream.kafka.errors import KafkaError, TopicMissingError
from pf_stream.kafka.link import ConnectionSettings

__all__ = ["NewRecord", "Position", "send"]

MAX_BYTES = 8 << 20

Position = tuple[str, int, int]
"""Topic, partition and offset."""


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


def send(settings: ConnectionSettings, records: Iterable[NewRecord]) -> list[Position]:
    """Send records; returns where each of them is, once all in-sync replicas have it.

    Records of one partition keep their order. A record that is sent again after a lost answer is not doubled.

    Raises:
        TopicMissingError: a target does not exist; it is not made.
        KafkaError: a record was not taken. Those before and after it may have been.
    """
    session = Session(settings)
    producer = Producer(
        session.configuration(
            enable_idempotence=True,
            partitioner="murmur2_random",
            message_max_bytes=MAX_BYTES,
            message_timeout_ms=int(3 * TIMEOUT_S * 1000),
            linger_ms=0,
            allow_auto_create_topics=False,
        )
    )
    known = session.metadata(producer).topics
    positions: dict[int, Position] = {}
    failures: list[KafkaError] = []
    total = 0
    for index, record in enumerate(records):
        if record.topic not in known:
            raise TopicMissingError([record.topic], "See what there is: pf topics list")
        total += 1

        def delivered(answer: Answer | None, message: Message, index: int = index) -> None:
            if answer is not None:
                failures.append(session.error(answer, f"send to {message.topic()}"))
                return
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert partition is not None
            assert offset is not None
            positions[index] = topic, partition, offset

        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    -1 if record.partition is None else record.partition,
                    headers=list(record.headers),
                    on_delivery=delivered,
                )
                break
            except BufferError:  # the client's queue is full
                producer.poll(0.1)
            except KafkaException as error:
                raise session.error(error.args[0], f"send to {record.topic}") from error
        producer.poll(0)
    producer.flush()
    if failures:
        raise failures[0]
    return [positions[index] for index in range(total)]
