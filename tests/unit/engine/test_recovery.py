"""Recovery from the broker model: every record before the fence, once, in order, and how far it is on the way."""

import asyncio
import random

import pytest

from pf_stream.engine.recovery import Progress, last_offset, recover
from pf_stream.kafka import batch
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.errors import KafkaError
from tests.simulation.broker import Broker
from tests.simulation.network import Client, Network, Trouble
from tests.simulation.virtual import VirtualLoop

LOG = "log", 0


def the_log(batches: int, dice: random.Random) -> Broker:
    """A compacted changelog."""
    broker = Broker()
    broker.create("log", 1, compact=True)
    for number in range(batches):
        builder = BatchBuilder(1 << 20, compress=False)
        for _ in range(dice.randint(1, 30)):
            builder.append(1, b"%d" % dice.randrange(100), dice.choice([b"%d" % number, None]), [])
        assert broker.append(*LOG, builder.build(), 0).code == 0
        if number == batches // 2:
            broker.topics["log"].partitions[0].compact(tombstones=True)
    return broker


@pytest.mark.parametrize("seed", range(20))
def test_every_record_before_the_fence(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)  # noqa: S311 - to be repeated
    monkeypatch.setattr(batch, "_ENTRIES", dice.choice([1, 50, 2_000]))
    monkeypatch.setattr("pf_stream.engine.recovery.CHUNK_BYTES", dice.choice([1, 2_000, 1 << 20]))
    broker = the_log(40, dice)
    partition = broker.topics["log"].partitions[0]
    loop = VirtualLoop(dice)
    network = Network(loop, broker, dice, lambda: 0)
    network.trouble = Trouble(lost=0.05, unanswered=0.05)
    fence = dice.randrange(partition.end + 1)
    start = dice.choice([0, dice.randrange(fence + 1)])
    taken: list[tuple[bytes, bytes | None]] = []
    told: list[Progress] = []

    async def work() -> int:
        return await recover(Client(network).link(), LOG, fence, taken.extend, told.append, start)

    count = loop.run_until_complete(work())
    assert taken == [(record.key, record.value) for record in partition.records(start, fence)]
    assert count == len(taken)
    assert [progress.records for progress in told] == sorted(progress.records for progress in told)
    assert all(0 < progress.part <= 1 and progress.left_s >= 0 for progress in told)
    if told:
        assert told[-1].records == count
        assert told[-1].rate > 0
    loop.close()


def test_a_topic_that_is_gone_is_said() -> None:
    """By whatever the broker says; nothing of it is kept."""
    dice = random.Random(0)  # noqa: S311
    broker = the_log(5, dice)
    loop = VirtualLoop(dice)
    partition = broker.topics["log"].partitions[0]
    end, partition.begin = partition.end, 0

    async def work() -> None:
        await recover(Client(Network(loop, broker, dice, lambda: 0)).link(), LOG, end + 5, cut, start=0)

    def cut(entries: object) -> None:
        partition.end = 1  # as an unclean election leaves it

    with pytest.raises(KafkaError, match="cannot read log"):
        loop.run_until_complete(work())
    assert not asyncio.all_tasks(loop), "and the fetch that was under way is none any more"
    loop.close()


@pytest.mark.parametrize("key", [b"7", b"none has it"])
def test_where_a_key_was_last(key: bytes) -> None:
    dice = random.Random(1)  # noqa: S311 - to be repeated
    broker = the_log(40, dice)
    partition = broker.topics["log"].partitions[0]
    loop = VirtualLoop(dice)
    network = Network(loop, broker, dice, lambda: 0)
    offsets = [record.offset for record in partition.records(0, partition.end) if record.key == key]
    assert loop.run_until_complete(last_offset(Client(network).link(), LOG, key)) == max(offsets, default=None)
    loop.close()
