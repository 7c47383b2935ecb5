"""Appends record batches: in order for each partition, one in flight for each, all brokers at once."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiokafka.errors as kafka_errors
import structlog

from pf_stream.kafka.errors import AppendError, FencedError, KafkaError, NotAuthorisedError, TimestampRefusedError
from pf_stream.kafka.link import BACKOFF_S, Link, Partition, Produced, is_transient

__all__ = ["Appender"]

log = structlog.get_logger(__name__)

MAX_IN_FLIGHT: Final = 4
"""Requests to one broker; each for other partitions."""
MAX_BACKOFF_S: Final = 2.0

_FENCED = (
    kafka_errors.InvalidProducerEpoch,
    kafka_errors.ProducerFenced,
)


@dataclass(slots=True)
class _Item:
    owner: object
    batch: bytes
    transactional_id: str | None
    done: "asyncio.Future[int]"


class Appender:
    """Appends batches that carry their own producer id, epoch and sequence.

    An append whose answer is lost is sent again with the same bytes, which the broker recognises; so it succeeds or
    fails, and is never done twice.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._queues: dict[Partition, deque[_Item]] = {}
        self._in_flight: set[Partition] = set()
        self._requests: dict[int, int] = {}
        self._transactions: set[tuple[int, str]] = set()
        """Broker and transaction of the requests that are on their way."""
        self._pumping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing_since: float | None = None

    def submit(
        self, owner: object, partition: Partition, batch: bytes, transactional_id: str | None = None
    ) -> "asyncio.Future[int]":
        """Queue a batch, of a transaction if it names one. The future gives the offset of its first record.

        It raises :class:`FencedError`, :class:`NotAuthorisedError`, :class:`TopicMissingError` or :class:`AppendError`;
        trouble that may pass is waited out.
        """
        item = _Item(owner, batch, transactional_id, asyncio.get_running_loop().create_future())
        self._queues.setdefault(partition, deque()).append(item)
        if not self._pumping:
            # Not at once: what else is submitted by now goes into the same request.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)
        return item.done

    def drop(self, owner: object) -> None:
        """Forget everything queued for *owner*; what is in flight may still be appended."""
        for queue in self._queues.values():
            kept = [item for item in queue if item.owner is not owner]
            if len(kept) < len(queue):
                for item in queue:
                    if item.owner is owner:
                        item.done.cancel()
                queue.clear()
                queue.extend(kept)

    async def close(self) -> None:
        """Stop; what is queued is forgotten."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for queue in self._queues.values():
            for item in queue:
                item.done.cancel()

    def _pump(self) -> None:
        self._pumping = False
        # A request names one transaction, so the batches of each need one of their own. And only one at a time: a broker
        # that asks the coordinator about a transaction drops that question for a newer one (KIP-890), and refuses the batch.
        waiting: dict[tuple[int, str | None], list[tuple[Partition, _Item]]] = {}
        lost: list[Partition] = []
        for partition, queue in self._queues.items():
            if not queue or partition in self._in_flight:
                continue
            node = self._link.leader(partition)
            if node is None:
                lost.append(partition)
            else:
                waiting.setdefault((node, queue[0].transactional_id), []).append((partition, queue[0]))
        for (node, transactional_id), items in waiting.items():
            if transactional_id is not None and (node, transactional_id) in self._transactions:
                continue
            if self._requests.get(node, 0) < MAX_IN_FLIGHT:
                if transactional_id is not None:
                    self._transactions.add((node, transactional_id))
                self._requests[node] = self._requests.get(node, 0) + 1
                self._in_flight.update(partition for partition, _ in items)
                self._start(self._send(node, items, transactional_id), [partition for partition, _ in items])
        if lost:
            self._in_flight.update(lost)
            self._start(self._find(lost), lost)

    def _start(self, coroutine: Coroutine[Any, Any, None], partitions: Sequence[Partition]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, partitions))

    def _ended(self, partitions: Sequence[Partition], task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        # Whatever it is, who waits for these appends must hear of it rather than wait for ever.
        for partition in partitions:
            for item in list(self._queues[partition]):
                self._fail(partition, item, error)
        self._in_flight.difference_update(partitions)
        self._pump()

    async def _find(self, partitions: list[Partition]) -> None:
        """Learn the leaders of partitions."""
        topics = {topic for topic, _ in partitions}
        await self._link.watch(sorted(topics))
        lost = [partition for partition in partitions if self._link.leader(partition) is None]
        if lost:
            missing = topics - (await self._link.describe(sorted(topics))).keys()
            await self._wait("no leader", lost)
            # Twice, and not at once: a broker may learn of a topic later than its producer.
            absent = {topic: await self._link.why_absent(topic) for topic in missing}
            for partition in lost:
                why = absent.get(partition[0])
                if why is not None:
                    for item in list(self._queues[partition]):
                        self._fail(partition, item, why)
        self._in_flight.difference_update(partitions)
        self._pump()

    async def _send(self, node: int, items: list[tuple[Partition, _Item]], transactional_id: str | None) -> None:
        retry: list[Partition] = []
        try:
            batches = [(partition, item.batch) for partition, item in items]
            answers = await self._link.produce(node, batches, transactional_id)
        except kafka_errors.KafkaError as error:
            if not is_transient(error):
                for partition, item in items:
                    self._fail(partition, item, error)
            else:
                retry = [partition for partition, _ in items]
                reason: object = error
        else:
            for partition, item in items:
                answer = answers[partition]
                if self._settled(partition, item, answer):
                    continue
                retry.append(partition)
                reason = answer.error
        finally:
            self._requests[node] -= 1
            if transactional_id is not None:
                self._transactions.discard((node, transactional_id))
        if retry:
            self._in_flight.difference_update(partition for partition, _ in items if partition not in retry)
            self._pump()
            await self._wait(str(reason) or type(reason).__name__, retry)
            self._in_flight.difference_update(retry)
        else:
            if self._failing_since is not None:
                seconds = round(asyncio.get_running_loop().time() - self._failing_since, 1)
                log.info("Kafka takes appends again", after_s=seconds)
                self._failing_since = None
            self._in_flight.difference_update(partition for partition, _ in items)
        self._pump()

    def _settled(self, partition: Partition, item: _Item, answer: Produced) -> bool:
        error = answer.error
        if error is not None and not isinstance(error, kafka_errors.DuplicateSequenceNumber):
            if is_transient(error):
                return False
            self._fail(partition, item, error)
            return True
        self._pop(partition, item)
        if not item.done.done():
            item.done.set_result(answer.offset)
        return True

    def _fail(self, partition: Partition, item: _Item, error: BaseException) -> None:
        self._pop(partition, item)
        if item.done.done():
            return
        failure: KafkaError
        if isinstance(error, KafkaError):
            failure = error
        elif isinstance(error, _FENCED):
            failure = FencedError(*partition)
        elif isinstance(error, kafka_errors.TopicAuthorizationFailedError):
            failure = NotAuthorisedError(f"write to {partition[0]}", error)
        elif isinstance(error, kafka_errors.InvalidTimestampError):
            failure = TimestampRefusedError(*partition)
        else:
            failure = AppendError(*partition, repr(error))
        if failure is not error:
            failure.__cause__ = error
        item.done.set_exception(failure)

    def _pop(self, partition: Partition, item: _Item) -> None:
        queue = self._queues[partition]
        if queue and queue[0] is item:  # else the owner was dropped meanwhile
            queue.popleft()

    async def _wait(self, reason: str, partitions: list[Partition]) -> None:
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("Kafka does not take appends; waiting", reason=reason, partitions=len(partitions))
        waited = now - self._failing_since
        await asyncio.sleep(min(MAX_BACKOFF_S, BACKOFF_S + waited / 4))
        await self._link.refresh()
