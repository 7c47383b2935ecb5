"""Every strategy, from outside: what is kept, in which order, and that it is always bounded."""

from collections import Counter, deque
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.backpressure import Counts, Queue, make_queue
from pf_stream.model.sink import Buffer, Strategy

STRATEGIES: list[Strategy] = ["block", "drop_oldest", "drop_newest", "throttle", "buffer", "sample", "adaptive"]


@dataclass(frozen=True)
class One:
    """A record."""

    number: int
    size: int = 1


class Pile:
    """A disk in memory."""

    def __init__(self) -> None:
        self.records: deque[One] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self.records)

    def append(self, record: One) -> int:
        self.records.append(record)
        self.size += record.size
        return record.size

    def popleft(self) -> One:
        record = self.records.popleft()
        self.size -= record.size
        return record


def queue(buffer: Buffer, batch: int = 100, counts: Counts | None = None) -> Queue[One]:
    return make_queue(buffer, batch, counts or Counts(), Pile())


def offered(queue: Queue[One], count: int, now_s: float = 0.0) -> list[int]:
    """Give it records while it takes some; what it did not take is returned."""
    for number in range(1, count + 1):
        if not queue.ready(now_s):
            return list(range(number, count + 1))
        queue.put(One(number), now_s)
    return []


def emptied(queue: Queue[One], now_s: float = 0.0) -> list[int]:
    found: list[int] = []
    while batch := queue.take(now_s):
        found += [one.number for one in batch]
    return found


class TestS24:
    """Five events into a buffer of three."""

    def test_drop_oldest_keeps_the_last_three(self) -> None:
        counts = Counts()
        kept = queue(Buffer(records=3, strategy="drop_oldest"), counts=counts)
        assert offered(kept, 5) == []
        assert emptied(kept) == [3, 4, 5]
        assert counts.dropped == Counter(oldest=2)

    def test_drop_newest_keeps_the_first_three(self) -> None:
        counts = Counts()
        kept = queue(Buffer(records=3, strategy="drop_newest"), counts=counts)
        assert offered(kept, 5) == []
        assert emptied(kept) == [1, 2, 3]
        assert counts.dropped == Counter(newest=2)

    def test_block_takes_no_fourth_until_there_is_room(self) -> None:
        kept = queue(Buffer(records=3), batch=1)
        assert offered(kept, 5) == [4, 5]
        assert [one.number for one in kept.take(0.0)] == [1]
        assert kept.ready(0.0)

    def test_throttle_gives_one_per_interval(self) -> None:
        kept = queue(Buffer(records=3, strategy="throttle", rate=2))
        assert offered(kept, 3) == []
        times = []
        for tenth in range(20):
            times += [(tenth / 10, one.number) for one in kept.take(tenth / 10)]
        assert times == [(0.0, 1), (0.5, 2), (1.0, 3)]

    def test_buffer_keeps_all_five(self) -> None:
        counts = Counts()
        kept = queue(Buffer(records=3, strategy="buffer"), batch=2, counts=counts)
        assert offered(kept, 5) == []
        assert (len(kept), kept.size, kept.spilled, counts.spilled) == (5, 3, 2, 2)
        assert emptied(kept) == [1, 2, 3, 4, 5]


class TestS23:
    """The adaptive one: 10,000 records, and not below a hundred a second."""

    def full_to(self, kept: Queue[One], share: float) -> None:
        now_s = 0.0
        while kept.fill < share:
            while not kept.ready(now_s):
                now_s += 0.1
            kept.put(One(0), now_s)

    def test_above_four_fifths_the_rate_falls_to_nine_tenths(self) -> None:
        counts = Counts()
        kept = queue(Buffer(records=10_000, strategy="adaptive", rate=1_000), counts=counts)
        self.full_to(kept, 0.8)
        kept.adjust(lag=5, memory=None)
        assert (kept.rate, counts.slowed) == (1_000, 0), "not above it"
        self.full_to(kept, 0.81)
        rates = []
        for _ in range(30):
            kept.adjust(lag=5, memory=None)
            rates.append(kept.rate)
        assert rates[:3] == pytest.approx([900, 810, 729])
        assert rates[-1] == 100
        slowed = counts.slowed
        kept.adjust(lag=5, memory=None)
        assert counts.slowed == slowed, "at its least there is nothing to count"

    def test_it_recovers_by_steps_while_something_waits(self) -> None:
        kept = queue(Buffer(records=10, strategy="adaptive", rate=1_000))
        self.full_to(kept, 1)
        for _ in range(5):
            kept.adjust(lag=5, memory=None)
        low = kept.rate
        assert low is not None
        emptied(kept)
        kept.adjust(lag=0, memory=None)
        assert kept.rate == low
        kept.adjust(lag=1, memory=None)
        assert kept.rate == pytest.approx(low + 50)
        for _ in range(30):
            kept.adjust(lag=1, memory=None)
        assert kept.rate == 1_000

    def test_slow_processing_halves_the_batch_down_to_ten(self) -> None:
        counts = Counts()
        kept = queue(Buffer(strategy="adaptive", slow_s=0.5), batch=100, counts=counts)
        sizes = []
        for _ in range(6):
            kept.handed(100, 0.6)
            sizes.append(kept.batch)
        assert sizes == [50, 25, 12, 10, 10, 10]
        assert counts.halved == 4
        kept.handed(10, 0.5)
        assert kept.batch == 15
        for _ in range(30):
            kept.handed(10, 0.1)
        assert kept.batch == 100

    def test_memory_pressure_drops_the_oldest(self) -> None:
        counts = Counts()
        kept = queue(Buffer(records=100, strategy="adaptive", memory=1_000), counts=counts)
        for number in range(25):
            kept.put(One(number), 0.0)
        kept.adjust(lag=None, memory=1_000)
        assert len(kept) == 25
        kept.adjust(lag=None, memory=1_001)
        assert (len(kept), kept.oldest) == (22, One(3))
        assert counts.dropped == Counter(memory=3)
        for _ in range(30):
            kept.adjust(lag=None, memory=1_001)
        assert len(kept) == 0

    def test_ten_into_five_is_backpressure(self) -> None:
        counts = Counts()
        kept = queue(Buffer(records=5, strategy="adaptive"), counts=counts)
        assert offered(kept, 10) == [6, 7, 8, 9, 10]
        kept.adjust(lag=5, memory=None)
        assert counts.slowed == 1


def test_a_sample_is_every_nth_above_the_mark() -> None:
    counts = Counts()
    kept = queue(Buffer(records=10, strategy="sample", keep=3, mark=0.5), counts=counts)
    assert offered(kept, 14) == []
    assert emptied(kept) == [1, 2, 3, 4, 5, 8, 11, 14]
    assert counts.dropped == Counter(sampled=6)


def test_a_full_disk_blocks() -> None:
    kept = queue(Buffer(records=2, strategy="buffer", disk=3), batch=1)
    assert offered(kept, 10) == [6, 7, 8, 9, 10]
    kept.take(0.0)
    assert kept.ready(0.0)


def test_bytes_bound_it_too_and_a_large_record_waits_alone() -> None:
    kept = queue(Buffer(bytes=10))
    kept.put(One(1, 500), 0.0)
    assert not kept.ready(0.0)
    assert [one.number for one in kept.take(0.0)] == [1]
    assert kept.ready(0.0)


def test_a_high_rate_is_let_through_in_tenths_of_a_second() -> None:
    kept = queue(Buffer(strategy="throttle", rate=1_000), batch=5_000)
    for number in range(3_000):
        kept.put(One(number), 0.0)
    got = sum(len(kept.take(number / 20)) for number in range(41))
    assert 2_000 <= got <= 2_001 + 100


BUFFERS = st.builds(
    Buffer,
    records=st.integers(1, 8),
    bytes=st.integers(1, 20),
    strategy=st.sampled_from(STRATEGIES),
    rate=st.floats(0.5, 50),
    min_rate=st.just(1.0),
    disk=st.integers(1, 20),
    keep=st.integers(1, 4),
    mark=st.floats(0.1, 0.9),
    slow_s=st.just(1.0),
    memory=st.just(100),
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 12)),
        st.tuples(st.just("take"), st.integers(0, 300)),
        st.tuples(st.just("adjust"), st.integers(90, 110)),
    ),
    max_size=80,
)


@given(BUFFERS, st.integers(1, 5), ACTIONS)
@settings(max_examples=200)
def test_it_is_bounded_in_order_and_every_record_is_accounted_for(
    buffer: Buffer, batch: int, actions: list[tuple[str, int]]
) -> None:
    counts = Counts()
    kept = queue(buffer, batch, counts)
    now_s, number = 0.0, 0
    got: list[int] = []
    for action, value in actions:
        now_s += 0.05
        if action == "put" and kept.ready(now_s):
            kept.put(One(number, value), now_s)
            number += 1
        elif action == "take":
            taken = kept.take(now_s)
            assert len(taken) <= min(batch, kept.batch)
            got += [one.number for one in taken]
            kept.handed(len(taken), value / 100)
        elif action == "adjust":
            kept.adjust(value % 3, value)
        assert kept.size < buffer.bytes + 12
        assert kept.spilled < buffer.disk + 12
        assert len(kept) <= buffer.records + (buffer.disk + 12 if buffer.strategy == "buffer" else 0)
        if kept.oldest is not None and got:
            assert kept.oldest.number > got[-1]
        assert (kept.oldest is None) == (len(kept) == 0)
    assert got == sorted(set(got))
    assert number == len(got) + len(kept) + sum(counts.dropped.values())
    before = {"oldest": 0, "memory": 0, **counts.dropped}
    assert counts.accepted == len(got) + len(kept) + before["oldest"] + before["memory"]
    if buffer.strategy in {"block", "throttle", "buffer"}:
        assert not counts.dropped
    # Whatever it was told, it gives out all that it has in the end.
    while len(kept):
        now_s += 10
        got += [one.number for one in kept.take(now_s)]
    assert kept.size == 0


@given(st.floats(1, 5_000), st.lists(st.floats(0, 0.3), min_size=1, max_size=60))
@settings(max_examples=200)
def test_no_more_than_the_rate_in_any_stretch_of_time(rate: float, steps: list[float]) -> None:
    kept = queue(Buffer(records=10**6, strategy="throttle", rate=rate), batch=10**6)
    one = One(0)
    for _ in range(10_000):
        kept.put(one, 0.0)
    now_s, given_ = 0.0, []
    for step in steps:
        now_s += step
        given_.append((now_s, len(kept.take(now_s))))
    for first, (start_s, _) in enumerate(given_):
        total = 0
        for at_s, count in given_[first:]:
            total += count
            assert total <= (at_s - start_s) * rate + max(1.0, rate * 0.1) + 1e-6
