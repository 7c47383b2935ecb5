"""What time it is for the brokers, measured from here.

Kafka has no request that asks for the time. But a broker stamps a record with it where the topic says so, and tells the
stamp in its answer (``log_append_time`` of the produce response).
"""

import secrets
from dataclasses import dataclass

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message, Producer
from confluent_kafka import KafkaError as Answer

from pf_stream.clock import Clock
from pf_stream.kafka._confluent import TIMEOUT_S, Session
from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.errors import KafkaError
from pf_stream.kafka.link import ConnectionSettings

__all__ = ["PROBE", "ClockReading", "read_clocks"]

PROBE = "__pf.clock-"
"""First part of the name of the topic that is made for a measurement, and deleted after it."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One broker's clock against this machine's."""

    broker: int
    """Its node id."""
    ahead_ms: int
    """How far its clock is ahead of ours; negative if it is behind."""
    within_ms: int
    """How wrong that may be: half of the time that the answer took."""


def read_clocks(settings: ConnectionSettings, brokers: list[int], clock: Clock) -> list[ClockReading]:
    """Compare the clocks of *brokers*, by node id, with *clock*.

    Makes a topic of one partition for each of them, writes two records to each, and deletes the topic.

    Raises:
        NotAuthorisedError: this principal may not make a topic.
    """
    admin = Admin(settings)
    topic = PROBE + secrets.token_hex(4)
    admin.create([NewTopicSpec(topic, len(brokers), {"message.timestamp.type": "LogAppendTime"}, tuple(brokers))], 1)
    try:
        return _measure(settings, topic, brokers, clock)
    finally:
        admin.delete([topic])


def _measure(settings: ConnectionSettings, topic: str, brokers: list[int], clock: Clock) -> list[ClockReading]:
    session = Session(settings)
    producer = Producer(
        session.configuration(linger_ms=0, message_timeout_ms=int(TIMEOUT_S * 1000), allow_auto_create_topics=False)
    )
    session.metadata(producer)
    stamps: list[int] = []
    failures: list[Answer] = []

    def delivered(answer: Answer | None, message: Message) -> None:
        kind, stamp = message.timestamp()
        if answer is not None:
            failures.append(answer)
        elif kind == TIMESTAMP_LOG_APPEND_TIME:
            stamps.append(stamp)

    readings = []
    for partition, broker in enumerate(brokers):
        for _ in range(2):  # the first one connects
            stamps.clear()
            sent_ms = clock.now_ms()
            producer.produce(topic, b"", partition=partition, on_delivery=delivered)
            producer.flush(2 * TIMEOUT_S)
            answered_ms = clock.now_ms()
        if failures:
            raise session.error(failures[0], f"write to {topic}")
        if not stamps:
            raise KafkaError(f"broker {broker} did not stamp a record of {topic} with its time")
        readings.append(
            ClockReading(broker, stamps[0] - (sent_ms + answered_ms) // 2, (answered_ms - sent_ms + 1) // 2)
        )
    return readings
