"""The buffer of one partition of a sink: bounded, with a strategy for when it is full.

Nothing here waits, reads a clock or a file: times are given, in seconds on any clock that does not go back, and so is the disk.
"""

from collections import deque
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from pf_stream.backpressure.bucket import Bucket
from pf_stream.backpressure.counts import Counts
from pf_stream.model.sink import Buffer, Strategy

__all__ = ["Adaptive", "Disk", "Queue", "Sized", "make_queue"]

LEAST_BATCH: Final = 10
"""Adaptive batches do not get smaller, unless the sink's are."""
FALL: Final = 0.9
"""What the adaptive rate is multiplied by when the buffer is nearly full."""
RISE: Final = 0.05
"""Which share of its maximum an adaptive rate or batch grows by, each time that all is well."""
DEFAULT_RATE: Final = 10_000.0


class Sized(Protocol):
    """A record that waits."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        ...


S = TypeVar("S", bound=Sized)


class Disk(Protocol[S]):
    """Where records wait that have no room in memory: first in, first out."""

    size: int
    """Bytes that those take which wait."""

    def __len__(self) -> int: ...
    def append(self, record: S, /) -> int:
        """Add one; returns the bytes that were written."""
        ...

    def popleft(self) -> S: ...


class Queue(Generic[S]):
    """A buffer that is full when it is full: the strategy ``block``, on which the others build.

    Whoever fills it asks whether it is :meth:`ready` before each :meth:`put`, so it never holds more than the bound and one
    record. What it gives out is in the order in which it came.
    """

    def __init__(self, buffer: Buffer, batch: int, counts: Counts) -> None:
        self._buffer = buffer
        self.batch = batch
        """Most records that are handed over at once."""
        self.counts = counts
        """What it has done."""
        self._records: deque[S] = deque()
        self.size = 0
        """Bytes in memory."""

    def __len__(self) -> int:
        return len(self._records)

    @property
    def oldest(self) -> S | None:
        """What is handed over next."""
        return self._records[0] if self._records else None

    @property
    def fill(self) -> float:
        """Which share of it is taken, 1 and more if it is full."""
        return max(len(self._records) / self._buffer.records, self.size / self._buffer.bytes)

    @property
    def rate(self) -> float | None:
        """Records a second that it lets through, if it limits that."""
        return None

    @property
    def spilled(self) -> int:
        """Bytes that wait on disk."""
        return 0

    def ready(self, now_s: float) -> bool:
        """Whether it takes another record."""
        return self.fill < 1

    def put(self, record: S, now_s: float) -> None:
        """Take a record."""
        self._add(record)

    def take(self, now_s: float) -> list[S]:
        """The next batch; empty if nothing may be handed over now."""
        return self._take(self.batch)

    def handed(self, records: int, seconds: float) -> None:
        """The consumer has done with a batch, which took so long."""

    def adjust(self, lag: int | None, memory: int | None) -> None:
        """Told about once a second how many records wait in Kafka, and how many bytes the process has."""

    def wait_s(self, now_s: float) -> float | None:
        """After how long time alone may change what :meth:`ready` and :meth:`take` say; ``None`` if it does not."""
        return None

    def _add(self, record: S) -> None:
        self._records.append(record)
        self.size += record.size
        self.counts.accepted += 1

    def _take(self, most: int) -> list[S]:
        records = self._records
        taken = list(islice(records, most))
        for record in taken:
            records.popleft()
            self.size -= record.size
        return taken

    def _drop_oldest(self, reason: str) -> None:
        self.size -= self._records.popleft().size
        self.counts.dropped[reason] += 1


class DropOldest(Queue[S]):
    """Makes room for what comes."""

    def ready(self, now_s: float) -> bool:
        return True

    def put(self, record: S, now_s: float) -> None:
        while self._records and self.fill >= 1:
            self._drop_oldest("oldest")
        self._add(record)


class DropNewest(Queue[S]):
    """Keeps what it has."""

    def ready(self, now_s: float) -> bool:
        return True

    def put(self, record: S, now_s: float) -> None:
        if self.fill < 1:
            self._add(record)
        else:
            self.counts.dropped["newest"] += 1


class Throttle(Queue[S]):
    """Hands over so many a second."""

    def __init__(self, buffer: Buffer, batch: int, counts: Counts) -> None:
        super().__init__(buffer, batch, counts)
        assert buffer.rate is not None
        self._bucket = Bucket(buffer.rate)

    @property
    def rate(self) -> float | None:
        return self._bucket.rate

    def take(self, now_s: float) -> list[S]:
        taken = self._take(min(self.batch, self._bucket.available(now_s)))
        self._bucket.take(len(taken))
        return taken

    def wait_s(self, now_s: float) -> float | None:
        self._bucket.available(now_s)
        return self._bucket.wait_s() if self._records else None


class Spilling(Queue[S]):
    """Puts what has no room in memory on the disk; memory has the older ones."""

    def __init__(self, buffer: Buffer, batch: int, counts: Counts, disk: Disk[S]) -> None:
        super().__init__(buffer, batch, counts)
        self._disk = disk

    def __len__(self) -> int:
        return len(self._records) + len(self._disk)

    @property
    def spilled(self) -> int:
        return self._disk.size

    def ready(self, now_s: float) -> bool:
        return self._disk.size < self._buffer.disk if len(self._disk) else True

    def put(self, record: S, now_s: float) -> None:
        if len(self._disk) or self.fill >= 1:
            self.counts.accepted += 1
            self.counts.spilled += self._disk.append(record)
        else:
            self._add(record)

    def take(self, now_s: float) -> list[S]:
        taken = super().take(now_s)
        while len(self._disk) and self.fill < 1:
            record = self._disk.popleft()
            self._records.append(record)
            self.size += record.size
        return taken


class Sampling(Queue[S]):
    """Keeps one of so many while it is nearly full."""

    def __init__(self, buffer: Buffer, batch: int, counts: Counts) -> None:
        super().__init__(buffer, batch, counts)
        self._passed = 0

    def put(self, record: S, now_s: float) -> None:
        if self.fill < self._buffer.mark:
            self._passed = 0
        else:
            self._passed = self._passed % self._buffer.keep + 1
            if self._passed < self._buffer.keep:
                self.counts.dropped["sampled"] += 1
                return
        self._add(record)


class Adaptive(Queue[S]):
    """Lets the rate of reading and the size of batches follow what it sees: down by a factor, up by steps (AIMD).

    Nearly full, the rate falls to nine tenths, each second. A batch that takes too long halves the next ones. Too much memory
    drops a tenth of what waits, the oldest, each second. When all is well both grow by steps, the rate only while something
    waits in Kafka.
    """

    def __init__(self, buffer: Buffer, batch: int, counts: Counts) -> None:
        super().__init__(buffer, batch, counts)
        self._most = batch
        self._rate = max(buffer.min_rate, DEFAULT_RATE if buffer.rate is None else buffer.rate)
        self._bucket = Bucket(self._rate)

    @property
    def rate(self) -> float | None:
        return self._bucket.rate

    def ready(self, now_s: float) -> bool:
        return self.fill < 1 and self._bucket.available(now_s) > 0

    def put(self, record: S, now_s: float) -> None:
        self._bucket.take(1)
        self._add(record)

    def handed(self, records: int, seconds: float) -> None:
        least = min(LEAST_BATCH, self._most)
        if seconds > self._buffer.slow_s:
            if self.batch > least:
                self.counts.halved += 1
            self.batch = max(least, self.batch // 2)
        else:
            self.batch = min(self._most, self.batch + max(1, round(RISE * self._most)))

    def adjust(self, lag: int | None, memory: int | None) -> None:
        limit = self._buffer.memory
        if limit is not None and memory is not None and memory > limit:
            for _ in range(-(-len(self._records) // 10)):
                self._drop_oldest("memory")
        bucket = self._bucket
        if self.fill > self._buffer.mark:
            if bucket.rate > self._buffer.min_rate:
                self.counts.slowed += 1
            bucket.rate = max(self._buffer.min_rate, FALL * bucket.rate)
        elif lag is None or lag > 0:
            bucket.rate = min(self._rate, bucket.rate + RISE * self._rate)

    def wait_s(self, now_s: float) -> float | None:
        self._bucket.available(now_s)
        return self._bucket.wait_s() if self.fill < 1 else None


_PLAIN: Final[dict[Strategy, type[Queue[Sized]]]] = {
    "block": Queue,
    "drop_oldest": DropOldest,
    "drop_newest": DropNewest,
    "throttle": Throttle,
    "sample": Sampling,
    "adaptive": Adaptive,
}


def make_queue(buffer: Buffer, batch: int, counts: Counts, disk: Disk[S] | None) -> Queue[S]:
    """The queue for a *buffer*; for the strategy ``buffer`` it needs a *disk*."""
    if buffer.strategy == "buffer":
        assert disk is not None
        return Spilling(buffer, batch, counts, disk)
    queue: type[Queue[S]] = _PLAIN[buffer.strategy]  # type: ignore[assignment] # each is for any record
    return queue(buffer, batch, counts)
