"""The commands of a campaign, on their way into Kafka."""

import threading
import time

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pf_stream.clock import WallClock
from pf_stream.security import SigningKey, mint
from tests.chaos.campaign._tracker import Command, Tracker
from tests.chaos.campaign.topology import CampaignCap

__all__ = ["Load"]


class Load:
    """Sends the tracker's commands at an even rate while the block runs; all are acknowledged afterwards."""

    def __init__(self, servers: str, namespace: str, key: SigningKey, tracker: Tracker, rate: int) -> None:
        self._topic = f"{namespace}.intents"
        self._namespace = namespace
        self._context = mint(
            key,
            subject="campaign",
            audience=namespace,
            capabilities=(CampaignCap.act("/**"),),
            now_ms=WallClock().now_ms(),
            lifetime_s=24 * 3600,
        )
        self._tracker = tracker
        self._rate = rate
        self._failed: list[KafkaError] = []
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": 2 << 20,
                "message.timeout.ms": 600_000,
                "log_level": 0,
            }
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.flush()

    def send(self, command: Command) -> None:
        """Queue one."""
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", "1.0"),
            ("ce_type", f"campaign.{command.kind}.v1"),
            ("ce_source", "/campaign"),
            ("ce_id", str(command.number)),
            ("content-type", "application/json"),
            ("pf-context", self._context),
        ]
        if command.wants_reply:
            headers += [
                ("pf-reply-to", f"{self._namespace}.replies"),
                ("pf-correlation-id", str(command.number)),
            ]
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    orjson.dumps(command.payload),
                    command.account,
                    headers=headers,
                    on_delivery=self._delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until Kafka has acknowledged everything."""
        assert self._producer.flush(120) == 0, "Kafka does not take the commands"
        if self._failed:
            raise KafkaException(self._failed[0])  # nobody could tell what must be there

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(error)

    def _run(self) -> None:
        started = time.monotonic()
        sent = 0
        while not self._over.wait(0.02):
            due = int((time.monotonic() - started) * self._rate)
            while sent < due:
                self.send(self._tracker.draw())
                sent += 1
