"""Both committers of the engine keep the contract of all committers, on a real Kafka."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from pf_stream.clock import WallClock
from pf_stream.core import Authority, CommitUnit, Lane, Limits
from pf_stream.engine.commit import Committer, Events
from pf_stream.engine.contexts import ContextMaker
from pf_stream.engine.encode import OutboxBuilder
from pf_stream.engine.leased import LeasedCommitter
from pf_stream.engine.metrics import Metrics
from pf_stream.engine.reader import Reader
from pf_stream.engine.shared import Shared
from pf_stream.engine.targets import Targets
from pf_stream.engine.transactional import TransactionalCommitter
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.errors import FencedError
from pf_stream.kafka.link import Link, Partition
from pf_stream.model.topology import Guarantee
from pf_stream.security import SigningKey, TrustRoots, Verifier
from pf_stream.security.narrowing import Narrower
from tests.commit_contract import CommitContract, Seen, begin, new_lane, note, the_plan, topology
from tests.kafka._support import connection, headers_of, make_topics, now_ms, read_topic

ACQUIRE: dict[str, Callable[[Partition, Shared, Targets, Events], Awaitable[Committer]]] = {
    "effectively_once": LeasedCommitter.acquire,
    "transactional": TransactionalCommitter.acquire,
}


class KafkaSystem:
    def __init__(self, bootstrap_servers: str, namespace: str, guarantee: Guarantee) -> None:
        self.servers = bootstrap_servers
        self.guarantee = guarantee
        self.plan = the_plan(namespace, guarantee)
        self.told = f"{namespace}.told"
        make_topics(bootstrap_servers, topology(namespace, guarantee))

    async def open(self, *, sending: bool = True) -> "KafkaLife":
        link = await Link.connect(connection(self.servers))
        verifier = Verifier(TrustRoots.of(SigningKey.generate(1)), self.plan.topology.namespace)
        shared = Shared(
            worker_id="contract",
            group=self.plan.topology.app_id,
            guarantee=self.guarantee,
            clock=WallClock(),
            authority=Authority(verifier),
            limits=Limits(),
            contexts=ContextMaker(Narrower(verifier, TrustRoots.of(SigningKey.generate(1))), WallClock()),
            control=link,
            reader=Reader(link, gather=False),
            changelog=Appender(link),
            outputs=Appender(link),
            trial=asyncio.Lock(),
            metrics=Metrics(self.plan.topology),
            committed=lambda at, position: None,
        )
        life = KafkaLife(self, shared)
        await life.acquire(sending=sending)
        return life

    async def seen(self) -> Seen:
        def read() -> Seen:
            log = read_topic(self.servers, self.plan.changelog)
            outputs = [(message.value(), headers_of(message)) for message in read_topic(self.servers, self.told)]
            return Seen.of(((message.key() or b"", message.value()) for message in log), outputs)

        return await asyncio.to_thread(read)

    def group_position(self) -> int:
        """Committed offset of the group, 0 if there is none."""
        kafka = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        group = self.plan.topology.app_id
        (answer,) = kafka.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
        topic = f"{self.plan.topology.namespace}.intents"
        return max((at.offset for at in answer.result(10).topic_partitions if at.topic == topic), default=0)


class KafkaLife:
    lane: Lane[Any]
    committer: Committer

    def __init__(self, system: KafkaSystem, shared: Shared) -> None:
        self.shared = shared
        self._system = system
        self._work: asyncio.Task[None] | None = None

    async def acquire(self, *, sending: bool) -> None:
        shared = self.shared
        targets = Targets(self._system.plan, shared.control)
        self.lane = new_lane(
            self._system.plan,
            lambda incarnation, sequence: OutboxBuilder(incarnation, sequence, targets.partitions, shared.contexts),
        )
        events = Events(sent=self.lane.sent, failed=self._failed)
        at = self._system.plan.changelog, 0
        self.committer = await ACQUIRE[shared.guarantee](at, shared, targets, events)
        begin_at = (await shared.control.offsets([at], end=False))[at]
        records = await shared.control.read_range(at, begin_at, self.committer.fence)
        begin(self.lane, ((record.key, record.value) for record in records))
        self.committer.begin(self.lane.unsent())
        if sending:
            self._work = asyncio.create_task(self.committer.run())

    def _failed(self, error: Exception) -> None:
        raise error

    async def commit(self, unit: CommitUnit[Any]) -> None:
        await self.committer.commit(unit)

    async def sent(self) -> None:
        await self.committer.wait_until_sent()
        if isinstance(self.committer, TransactionalCommitter):
            # A commit is acknowledged some milliseconds before its markers let readers pass; the next one waits for them.
            await self.committer._transactions.touch()

    async def end(self) -> None:
        self.committer.stop()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        await self.shared.changelog.close()
        await self.shared.outputs.close()
        await self.shared.control.close()


@pytest.fixture(params=["effectively_once", "transactional"])
def system(request: pytest.FixtureRequest, bootstrap_servers: str, unique: str) -> KafkaSystem:
    return KafkaSystem(bootstrap_servers, unique, request.param)


class TestKafka(CommitContract):
    pass


# -- transactions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def transactional(bootstrap_servers: str, unique: str) -> KafkaSystem:
    return KafkaSystem(bootstrap_servers, unique, "transactional")


def test_nothing_is_seen_before_the_end_of_the_transaction_and_everything_after_it(
    transactional: KafkaSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that looks between the appends and the end, as a crash there would leave it, sees nothing."""
    system = transactional

    async def work() -> None:
        life = await system.open()
        await life.commit(note(life.lane, 1))
        await life.sent()
        assert await asyncio.to_thread(system.group_position) == 1

        transactions = life.committer._transactions  # type: ignore[attr-defined]
        end = transactions.end
        seen: list[tuple[Seen, int]] = []

        async def look_first(*, commit: bool) -> None:
            seen.append((await system.seen(), await asyncio.to_thread(system.group_position)))
            await end(commit=commit)

        monkeypatch.setattr(transactions, "end", look_first)
        await life.commit(note(life.lane, 2))
        monkeypatch.undo()
        await life.sent()
        (before, position), after = seen[0], await system.seen()
        assert (before.n, before.position, before.told, position) == (1, 1, [1], 1)
        assert (after.n, after.position, after.told) == (3, 3, [1, 2, 3])
        assert await asyncio.to_thread(system.group_position) == 3
        await life.end()

    asyncio.run(work())


def test_a_crash_within_a_transaction_leaves_nothing(
    transactional: KafkaSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is appended and the transaction stays open; the next owner aborts it before it reads."""
    system = transactional

    async def work() -> None:
        life = await system.open()
        await life.commit(note(life.lane, 1))
        transactions = life.committer._transactions  # type: ignore[attr-defined]

        async def die(*, commit: bool) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(transactions, "end", die)
        with pytest.raises(asyncio.CancelledError):
            await life.commit(note(life.lane, 2))
        monkeypatch.undo()
        newer = await system.open()
        assert newer.lane.positions[f"{system.plan.topology.namespace}.intents"] == 1
        with pytest.raises(FencedError):
            await transactions.end(commit=True)
        await newer.commit(note(newer.lane, 2))
        await newer.sent()
        seen = await system.seen()
        assert (seen.n, seen.position, seen.told) == (3, 3, [1, 2, 3])
        assert set(seen.sources.values()) == {1}
        await life.end()
        await newer.end()

    asyncio.run(work())


def test_a_failed_commit_aborts_so_that_readers_are_not_held_up(
    transactional: KafkaSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = transactional

    async def work() -> None:
        life = await system.open()
        transactions = life.committer._transactions  # type: ignore[attr-defined]

        end = transactions.end

        async def fail(*, commit: bool) -> None:
            if commit:
                raise RuntimeError("no")
            await end(commit=False)

        monkeypatch.setattr(transactions, "end", fail)
        with pytest.raises(RuntimeError, match="no"):
            await life.commit(note(life.lane, 2))
        monkeypatch.undo()
        # What somebody else writes behind it can be read, though nobody took the lane.
        builder = BatchBuilder(4096, compress=False)
        builder.append(now_ms(), b"k", b'{"n": 7}', [("pf-source", b"other")])
        await life.shared.outputs.submit(object(), (system.told, 0), builder.build())

        def read() -> list[bytes | None]:
            return [message.value() for message in read_topic(system.servers, system.told)]

        assert await asyncio.to_thread(read) == [b'{"n": 7}']
        await life.end()

    asyncio.run(work())


def test_what_was_left_under_the_other_guarantee_is_part_of_the_first_transaction(transactional: KafkaSystem) -> None:
    """A topology that becomes transactional: its outbox is sent once, together with the marks."""
    system = transactional

    async def work() -> None:
        system.guarantee = "effectively_once"
        life = await system.open(sending=False)
        await life.commit(note(life.lane, 2))
        await life.end()
        system.guarantee = "transactional"
        life = await system.open()
        assert life.lane.has_marks
        assert (await system.seen()).told == []
        mark = life.lane.seal()
        assert isinstance(mark, CommitUnit)
        await life.commit(mark)
        await life.sent()
        await life.end()
        system.guarantee = "effectively_once"
        life = await system.open()
        await life.commit(note(life.lane, 1))
        await life.sent()
        seen = await system.seen()
        assert (seen.n, seen.told) == (3, [1, 2, 3])
        assert set(seen.sources.values()) == {1}
        await life.end()

    asyncio.run(work())


def test_no_batch_comes_while_the_coordinator_is_busy_with_its_transaction(
    transactional: KafkaSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leader would refuse it for the moment, and the appender would wait a tenth of a second."""
    system = transactional

    async def work() -> None:
        life = await system.open()
        refused: list[object] = []
        produce = life.shared.control.produce

        async def watched(*args: Any) -> Any:
            answers = await produce(*args)
            refused.extend(answer.error for answer in answers.values() if answer.error is not None)
            return answers

        await life.commit(note(life.lane, 1))  # the leader of a new topic may be new to its broker
        monkeypatch.setattr(life.shared.control, "produce", watched)
        for _ in range(100):
            await life.commit(note(life.lane, 1))
        assert refused == []
        await life.end()

    asyncio.run(work())
