"""What a consumer group has committed, asked over a :class:`~pf_stream.kafka.link.Link`."""

from collections.abc import Collection
from typing import NamedTuple

import aiokafka.errors as kafka_errors
from aiokafka.client import CoordinationType
from aiokafka.protocol.commit import OffsetFetchRequest

from pf_stream.kafka.link import Link, Partition, Pause, error_of, is_transient, refusal

__all__ = ["Committed", "committed"]


class Committed(NamedTuple):
    """A committed offset."""

    offset: int
    """The next one to read."""
    metadata: str
    """What was committed with it."""


async def committed(link: Link, group: str, partitions: Collection[Partition]) -> dict[Partition, Committed]:
    """What *group* has committed for *partitions*, as far as it has; waits out a lost coordinator.

    Raises :class:`KafkaError` or :class:`NotAuthorisedError`.
    """
    topics: dict[str, list[int]] = {}
    for topic, number in partitions:
        topics.setdefault(topic, []).append(number)
    request = OffsetFetchRequest(group, list(topics.items()))
    pause = Pause(link)
    while True:
        try:
            answer = await link.to_coordinator(CoordinationType.GROUP, group, request)
            found: dict[Partition, Committed] = {}
            errors = [error_of(getattr(answer, "error_code", 0), group)]
            for topic, rows in answer.topics:
                for number, offset, metadata, code in rows:
                    errors.append(error_of(code, f"{topic}-{number}"))
                    if offset >= 0:
                        found[topic, number] = Committed(offset, metadata or "")
            for error in errors:
                if error is not None:
                    raise error
            return found
        except kafka_errors.KafkaError as error:
            if not is_transient(error):
                raise refusal(f"read the offsets of group {group!r}", error) from error
            link.forget_coordinator(CoordinationType.GROUP, group)
            await pause()
