"""What a sink reads of its partition: from Kafka into the buffer, for as long as that takes records."""

import asyncio
from typing import Final

from pf_stream.core.drain import Drain
from pf_stream.engine.reader import Feed, Reader
from pf_stream.engine.waiting import wait_within
from pf_stream.kafka.batch import Chunk
from pf_stream.kafka.link import Link, Partition

__all__ = ["Intake"]

SLICE_S: Final = 0.005
"""How long records are taken into a buffer between two turns of the event loop."""
STRIDE: Final = 64
"""Records after which the clock is looked at."""
ADJUST_S: Final = 1.0
"""How often a queue is told how things are."""


def resident_bytes() -> int | None:
    """Memory of this process; None where nobody tells."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - each second, and a path would cost more than the reading
            return int(file.read().split()[1]) * 4096
    except OSError:
        return None


class Intake:
    """Fills the buffer of a partition. It holds one fetch at a time, and is left out of the next one until that is taken in."""

    def __init__(
        self, drain: Drain, partition: Partition, topic_id: bytes, reader: Reader, control: Link, moved: asyncio.Event
    ) -> None:
        """Read from where *drain* goes on; *moved* is set when there is something to commit."""
        self._drain = drain
        self._reader = reader
        self._control = control
        self._moved = moved
        self._chunk: Chunk | None = None
        self._arrived = asyncio.Event()
        """Set when something was read."""
        self.filled = asyncio.Event()
        """Set when the buffer has got something."""
        self.room = asyncio.Event()
        """To be set when it has given something."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with an error when the partition cannot be read on."""
        self._paused_since: float | None = None
        self._feed = Feed(
            partition=partition,
            offset=drain.next,
            ready=lambda: self._chunk is None,
            deliver=self._deliver,
            failed=self._fail,
            topic_id=topic_id,
        )
        reader.add(self._feed)

    def _deliver(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._arrived.set()

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    def stop(self) -> None:
        """Read no more."""
        self._reader.remove(self._feed)
        self._pause(None)

    async def run(self) -> None:
        """Take in what is read, until cancelled."""
        time, drain = asyncio.get_running_loop().time, self._drain
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            chunk = self._chunk
            assert chunk is not None
            until = time() + SLICE_S
            for number, record in enumerate(chunk, 1):
                if record.offset < drain.next:
                    continue
                while not drain.queue.ready(now_s := time()):
                    await self._wait_for_room(now_s)
                    until = time() + SLICE_S
                drain.take_in(record, now_s)
                if number % STRIDE == 0 and time() > until:
                    self.filled.set()
                    await asyncio.sleep(0)
                    until = time() + SLICE_S
            drain.pass_to(chunk.next_offset)
            self._chunk = None
            self.filled.set()
            self._moved.set()  # what is left out is done
            self._reader.wake()

    async def _wait_for_room(self, now_s: float) -> None:
        """Read nothing more: the partition is paused until the consumer has taken something."""
        self.filled.set()
        self.room.clear()
        self._pause(now_s)
        await wait_within(self._drain.queue.wait_s(now_s), self.room)
        self._pause(None)

    def _pause(self, now_s: float | None) -> None:
        """Note that nothing is read from now on, or that reading goes on."""
        self._drain.counts.paused_s += self.paused_s
        self._paused_since = now_s

    async def adjust(self) -> None:
        """Tell the queue each second how things are, until cancelled."""
        feed, time = self._feed, asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(ADJUST_S)
            if time() - feed.asked > ADJUST_S:
                # While it is paused nothing is fetched, and that is when it is of interest how far it is behind.
                ends = await self._control.offsets([feed.partition], end=True)
                feed.high_watermark, feed.asked = ends[feed.partition], time()
            self._drain.queue.adjust(self.lag, resident_bytes())
            self.room.set()

    # -- what others may read ------------------------------------------------------------------------------------------

    @property
    def lag(self) -> int | None:
        """Records of the partition that were not handed over, as of the last fetch."""
        end = self._feed.high_watermark
        return None if end < 0 else max(0, end - self._drain.progress[0])

    @property
    def is_doubtful(self) -> bool:
        """Whether Kafka gives nothing to read."""
        return self._feed.doubtful

    @property
    def is_full(self) -> bool:
        """Whether it waits for room."""
        return self._paused_since is not None and self._drain.queue.fill >= 1

    @property
    def paused_s(self) -> float:
        """For how long it has been paused, beyond what is counted."""
        since = self._paused_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since
