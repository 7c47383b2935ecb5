"""Producer ids, and the transactions that are written under them (KIP-98).

A transaction is begun by naming the partitions that it will write; their batches go through an
:class:`~pf_stream.kafka.appender.Appender`; ending it makes all of it visible to ``read_committed`` readers, or nothing.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import aiokafka.errors as kafka_errors
from aiokafka.client import CoordinationType
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from pf_stream.kafka.errors import FencedError, KafkaError, NotAuthorisedError, TopicMissingError, TransactionError
from pf_stream.kafka.link import NOT_AUTHORISED, Link, Partition, Pause, error_of, is_transient

__all__ = ["Transactions", "init_producer_id", "transactional_id"]

TIMEOUT_MS: Final = 60_000
"""After this the coordinator aborts a transaction that nobody ends."""
CONCURRENT_S: Final = 0.002
"""First wait for the markers of the transaction before: they take some milliseconds, and nobody tells when they are done."""
MAX_CONCURRENT_S: Final = 0.05

_FENCED = (
    kafka_errors.InvalidProducerEpoch,
    kafka_errors.InvalidProducerIdMapping,
    kafka_errors.ProducerFenced,
)
_MOVED = (
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.NotCoordinatorError,
)


def transactional_id(lane: Partition) -> str:
    """The transactional id of whoever writes a changelog partition."""
    return f"{lane[0]}-{lane[1]}"


async def init_producer_id(link: Link, name: str) -> tuple[int, int]:
    """A producer id and a new epoch for a transactional id.

    Whoever had it before is outdated, and a transaction that it left open is aborted. Waits out a lost coordinator.

    Raises :class:`NotAuthorisedError` or :class:`KafkaError`.
    """
    try:
        answer = await _ask(
            link,
            (CoordinationType.TRANSACTION, name),
            InitProducerIdRequest(name, TIMEOUT_MS),
            lambda answer: [error_of(answer.error_code, name)],
        )
    except NOT_AUTHORISED as error:
        raise NotAuthorisedError(f"use transactional id {name!r}", error) from error
    except kafka_errors.KafkaError as error:
        raise KafkaError(f"no producer id for {name!r}: {error!r}") from error
    return answer.producer_id, answer.producer_epoch


class Transactions:
    """The transactions of one lane's producer, one after another.

    Every method waits out what may pass, and raises :class:`FencedError` if the producer is outdated,
    :class:`NotAuthorisedError`, or :class:`TransactionError`.
    """

    def __init__(self, link: Link, lane: Partition, producer_id: int, epoch: int) -> None:
        self.id = transactional_id(lane)
        """The transactional id."""
        self._link = link
        self._lane = lane
        self._producer_id = producer_id
        self._epoch = epoch

    async def add(self, partitions: Collection[Partition], optional: Callable[[str], bool]) -> set[Partition]:
        """Begin a transaction that will write *partitions*; returns those that it can.

        A topic that does not exist, or that this principal may not write, is left out if it is *optional*.
        """
        wanted = set(partitions)
        pause = Pause(self._link)
        while True:
            refused = await self._add(wanted)
            if not refused:
                return wanted
            unknown = {partition[0] for partition, error in refused.items() if _is_unknown(error)}
            # A broker may learn of a topic later than its producer.
            missing = unknown - (await self._link.describe(sorted(unknown))).keys() if unknown else set()
            lost = {
                partition: error
                for partition, error in refused.items()
                if partition[0] in missing or isinstance(error, kafka_errors.TopicAuthorizationFailedError)
            }
            for partition, error in lost.items():
                if not optional(partition[0]):
                    if partition[0] in missing:
                        raise TopicMissingError([partition[0]], "It was deleted while in use.")
                    raise NotAuthorisedError(f"write to {partition[0]}", error) from error
            wanted -= lost.keys()
            if not lost:
                await pause()

    async def _add(self, partitions: Iterable[Partition]) -> dict[Partition, kafka_errors.BrokerResponseError]:
        """Add all of *partitions*, or none and say which are to blame."""
        topics: dict[str, list[int]] = {}
        for topic, number in partitions:
            topics.setdefault(topic, []).append(number)
        refused: dict[Partition, kafka_errors.BrokerResponseError] = {}

        def errors(answer: Any) -> list[kafka_errors.BrokerResponseError | None]:
            refused.clear()
            others = []
            for topic, rows in answer.errors:
                for number, code in rows:
                    error = error_of(code, f"{topic}-{number}")
                    if _is_unknown(error) or isinstance(error, kafka_errors.TopicAuthorizationFailedError):
                        refused[topic, number] = error
                    elif not isinstance(error, kafka_errors.OperationNotAttempted):
                        others.append(error)
            return others

        request = AddPartitionsToTxnRequest(self.id, self._producer_id, self._epoch, list(topics.items()))
        await self._request("adding partitions", request, errors)
        return refused

    async def commit_offsets(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Make the offsets of a group part of the transaction. Not while a batch of it is appended.

        The broker of each asks the coordinator whether it belongs to the transaction. A broker that is asked for two things
        of one transaction at once drops the first question, and the coordinator answers none while it notes the group
        (KIP-890): both end in a refusal that passes, and cost a back-off.
        """
        await self._request(
            "adding the group",
            AddOffsetsToTxnRequest(self.id, self._producer_id, self._epoch, group),
            lambda answer: [error_of(answer.error_code, group)],
        )
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for (topic, number), offset in offsets.items():
            topics.setdefault(topic, []).append((number, offset, ""))
        await self._request(
            "committing offsets",
            TxnOffsetCommitRequest(self.id, group, self._producer_id, self._epoch, list(topics.items())),
            lambda answer: [error_of(code, topic) for topic, rows in answer.errors for _, code in rows],
            (CoordinationType.GROUP, group),
        )

    async def end(self, *, commit: bool) -> None:
        """End the transaction. Its markers may be written a moment later; the next one waits for them."""
        await self._request(
            "committing" if commit else "aborting",
            EndTxnRequest(self.id, self._producer_id, self._epoch, commit),
            lambda answer: [error_of(answer.error_code, self.id)],
        )

    async def touch(self) -> None:
        """Write a transaction in which nothing is: the coordinator forgets whoever writes none for a week."""
        await self.add([self._lane], lambda topic: False)
        await self.end(commit=True)

    async def _request(
        self,
        action: str,
        request: Any,
        errors: "Callable[[Any], Iterable[kafka_errors.BrokerResponseError | None]]",
        coordinator: tuple[CoordinationType, str] | None = None,
    ) -> None:
        try:
            await _ask(self._link, coordinator or (CoordinationType.TRANSACTION, self.id), request, errors)
        except _FENCED as error:
            raise FencedError(*self._lane) from error
        except NOT_AUTHORISED as error:
            raise NotAuthorisedError(f"write in a transaction of {self.id!r}", error) from error
        except kafka_errors.KafkaError as error:
            raise TransactionError(self.id, action, repr(error)) from error


def _is_unknown(error: object) -> bool:
    return isinstance(error, kafka_errors.UnknownTopicOrPartitionError)


async def _ask(
    link: Link,
    coordinator: tuple[CoordinationType, str],
    request: Any,
    errors: Callable[[Any], Iterable[kafka_errors.BrokerResponseError | None]],
) -> Any:
    """The answer of a coordinator, wherever it is, once it has none of the errors that pass."""
    pause = Pause(link)
    concurrent = CONCURRENT_S
    while True:
        try:
            answer = await link.to_coordinator(*coordinator, request)
            for error in errors(answer):
                if error is not None:
                    raise error
            return answer
        except kafka_errors.ConcurrentTransactions:
            await asyncio.sleep(concurrent)
            concurrent = min(MAX_CONCURRENT_S, 2 * concurrent)
        except kafka_errors.KafkaError as error:
            if not is_transient(error):
                raise
            if isinstance(error, _MOVED):
                link.forget_coordinator(*coordinator)
            await pause()
