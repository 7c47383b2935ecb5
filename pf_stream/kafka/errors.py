"""What Kafka can answer, in our words.

::

    KafkaError
    ├── KafkaUnavailableError     no broker answers; retryable
    ├── NotAuthorisedError        the broker refuses the principal
    ├── FencedError               another worker holds the lane
    ├── TopicMissingError         a topic does not exist
    ├── AppendError               a record batch was refused for good
    │   └── TimestampRefusedError     for its time
    └── TransactionError          a transaction cannot be completed
"""

from collections.abc import Sequence

from pf_stream.errors import NotFoundError, PFError

__all__ = [
    "AppendError",
    "FencedError",
    "KafkaError",
    "KafkaUnavailableError",
    "NotAuthorisedError",
    "TimestampRefusedError",
    "TopicMissingError",
    "TransactionError",
]


class KafkaError(PFError):
    """Raised when Kafka does not do what it was asked."""

    code = "kafka"


class KafkaUnavailableError(KafkaError):
    """Raised when no broker of the cluster answers."""

    code = "kafka_unavailable"
    retryable = True

    def __init__(self, bootstrap_servers: str, reason: object) -> None:
        super().__init__(f"no Kafka broker answers at {bootstrap_servers}: {reason}. Is it running? (pf dev status)")


class NotAuthorisedError(KafkaError):
    """Raised when the broker does not let this principal do what it asked."""

    code = "kafka_not_authorised"

    def __init__(self, action: str, reason: object) -> None:
        self.action = action
        self.reason = str(reason)
        super().__init__(f"Kafka does not allow this principal to {action}: {reason}")


class FencedError(KafkaError):
    """Raised when an append is refused because another worker has acquired the lane since."""

    code = "fenced"

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"{topic}-{partition} belongs to another worker now; if that was no rebalance, two workers run with one id"
        )


class TopicMissingError(KafkaError, NotFoundError):
    """Raised when topics that are needed do not exist."""

    code = "topic_missing"

    def __init__(self, topics: Sequence[str], fix: str) -> None:
        self.topics = tuple(topics)
        super().__init__(f"missing topics: {', '.join(topics)}. {fix}")


class AppendError(KafkaError):
    """Raised when the broker refuses a record batch for good."""

    code = "append_refused"

    def __init__(self, topic: str, partition: int, reason: object) -> None:
        super().__init__(f"the broker refused a batch for {topic}-{partition}: {reason}")


class TimestampRefusedError(AppendError):
    """Raised when the broker refuses a record batch whose time is too far from its own."""

    code = "timestamp_refused"

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            topic,
            partition,
            "its time is too far from the broker's: set this machine's clock right (pf doctor compares it with the brokers'). If "
            "it is right, see the topic's message.timestamp.after.max.ms, an hour if not set, and message.timestamp.before.max.ms",
        )


class TransactionError(KafkaError):
    """Raised when a transaction cannot be completed: nothing of it will be visible."""

    code = "transaction_failed"

    def __init__(self, transactional_id: str, action: str, reason: object) -> None:
        super().__init__(f"the transaction of {transactional_id!r} failed, at {action}: {reason}")
