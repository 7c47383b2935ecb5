"""The development broker: each promise of ``pf dev``, against the real process."""

from confluent_kafka.admin import AdminClient


def test_session_broker_answers(bootstrap_servers: str) -> None:
    metadata = AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(timeout=5)
    assert len(metadata.brokers) == 1
