"""An airline's side of the wire: a plain Kafka client, and nothing of pf_stream.

What is sent is the protocol of docs/protocol.md: the key is the intent's key field, the value its JSON, the headers are
CloudEvents attributes and the context.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from nyc.data import Report

__all__ = ["Headers", "Intent", "Sender", "intents"]

Headers = list[tuple[str, bytes]]
Intent = tuple[str, bytes, Headers]
"""Key, value and headers of a record."""

POLL_EVERY = 500


def envelope(id_: str, report: Report, context: bytes | None) -> Headers:
    """Headers of a record that says what *report* does."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", report.type.encode()),
        ("ce_source", b"/airlines/" + report.carrier.encode()),
        ("ce_id", id_.encode()),
        ("ce_time", report.time.encode()),
        ("content-type", b"application/json"),
    ]
    return headers if context is None else [*headers, ("pf-context", context)]


def intents(reports: Iterable[Report], contexts: dict[str, str]) -> Iterator[Intent]:
    """Each report as its airline sends it."""
    tokens = {carrier: token.encode() for carrier, token in contexts.items()}
    for number, report in enumerate(reports):
        yield report.key, report.payload, envelope(f"report-{number}", report, tokens[report.carrier])


class Sender:
    """A producer that finds keys where Java's finds them, and that sends nothing twice."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._failed: KafkaError | None = None
        self._sent = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "queue.buffering.max.messages": 100_000,
                "on_delivery": self._delivered,
                "log_level": 0,  # what matters comes as an error
            }
        )

    def send(self, intent: Intent) -> None:
        """Queue a record; wait while the queue is full."""
        key, value, headers = intent
        produce: Any = self._producer.produce
        while True:
            try:
                produce(self._topic, value, key, headers=headers)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._sent += 1
        if self._sent % POLL_EVERY == 0:
            self._producer.poll(0)

    def flush(self, seconds: float) -> bool:
        """Wait, at most so long; whether Kafka has everything.

        Raises:
            RuntimeError: it did not take a record.
        """
        left = self._producer.flush(seconds)
        if self._failed is not None:
            raise RuntimeError(f"a record was not taken: {self._failed}")
        return left == 0

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed = error
