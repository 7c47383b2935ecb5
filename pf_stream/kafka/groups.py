"""What a consumer group has committed, for those who watch it, and for those who move it."""

from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Answer

from pf_stream.kafka._confluent import TIMEOUT_S, Session, answer_of
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.kafka.offsets import Committed

__all__ = ["GroupOffsets"]

_LATER: Final = frozenset(
    {
        Answer._TIMED_OUT,
        Answer.COORDINATOR_LOAD_IN_PROGRESS,
        Answer.COORDINATOR_NOT_AVAILABLE,
        Answer.NOT_COORDINATOR,
    }
)
"""Answers that pass: the topic of offsets is being made, or moves to another broker."""


class GroupOffsets:
    """Asks for the offsets of a group without being a member.

    A consumer asks, and not librdkafka's admin client: that one crashes if a broker answers that it is not the coordinator.
    """

    def __init__(self, settings: ConnectionSettings, group: str, partitions: Iterable[Partition]) -> None:
        self._session = Session(settings)
        # Of a transaction that is open, nobody can tell how it will end: what was committed before it counts.
        self._consumer = Consumer(self._session.configuration(group_id=group, isolation_level="read_uncommitted"))
        self._partitions = [TopicPartition(*partition) for partition in partitions]
        self._known = {(partition.topic, partition.partition): 0 for partition in self._partitions}

    def read(self) -> dict[Partition, int]:
        """What is committed for each partition, 0 where nothing is; as last known, if it cannot be learnt now.

        Raises:
            KafkaError: the group's offsets cannot be read.
        """
        try:
            found = self._consumer.committed(self._partitions, timeout=TIMEOUT_S)
        except KafkaException as error:
            answer = answer_of(error)
            if answer.code() not in _LATER:
                raise self._session.error(answer, "read the offsets of a group") from error
        else:
            for partition in found:
                self._known[partition.topic, partition.partition] = max(0, partition.offset)
        return dict(self._known)

    def committed(self) -> dict[Partition, Committed]:
        """What is committed now, with what was committed beside it, for partitions where something is.

        Raises:
            KafkaError: the group's offsets cannot be read.
        """
        with self._session.mapped("read the offsets of a group"):
            found = self._consumer.committed(self._partitions, timeout=TIMEOUT_S)
        return {
            (one.topic, one.partition): Committed(one.offset, one.metadata or "") for one in found if one.offset >= 0
        }

    def commit(self, offsets: Mapping[Partition, Committed]) -> None:
        """Commit in the group's name, while it has no members.

        Raises:
            KafkaError: Kafka does not take it, since somebody has joined the group, or for want of a right.
        """
        action = "move the offsets of a group"
        rows = [TopicPartition(*at, done.offset, done.metadata) for at, done in offsets.items()]
        with self._session.mapped(action):
            answers = self._consumer.commit(offsets=rows, asynchronous=False)
        for answer in answers or ():
            if answer.error is not None:
                raise self._session.error(answer.error, action)

    def close(self) -> None:
        """Ask no more."""
        self._consumer.close()
