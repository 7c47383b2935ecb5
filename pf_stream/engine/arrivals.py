"""When what a lane reads was appended and fetched, kept until it is acknowledged."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pf_stream.kafka.batch import Chunk

__all__ = ["Arrivals", "Arrived"]


class Arrived(NamedTuple):
    """Records of one batch, or as many of them as one unit has decided."""

    topic: str
    """Their topic."""
    records: int
    """How many there are."""
    appended_ms: int
    """When the broker appended them, milliseconds since the epoch. On an internal topic, when the intent that caused them was
    appended, since that is what the engine writes there."""
    fetched_s: float
    """When they were fetched, on the event loop's clock."""


class Arrivals:
    """The batches that a lane has fetched and not committed.

    A broker stamps batches and not records, so the header of a batch tells the append time of each record in it, and nobody
    need look at the records.
    """

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._batches: dict[str, deque[tuple[int, int, int, float]]] = {}

    def begin(self, positions: Mapping[str, int]) -> None:
        """Start anew, with the next offset of each source topic."""
        self._positions = dict(positions)
        self._batches = {topic: deque() for topic in positions}

    def add(self, topic: str, chunk: Chunk, now_s: float) -> None:
        """Note what was fetched just now, by the event loop's clock."""
        self._batches[topic].extend((*extent, now_s) for extent in chunk.extents)

    def take(self, positions: Mapping[str, int]) -> Iterator[Arrived]:
        """What lies before *positions* and was not taken yet, in the order of each topic."""
        for topic, position in positions.items():
            taken, self._positions[topic] = self._positions[topic], position
            batches = self._batches[topic]
            while batches and batches[0][0] < position:
                start, end, appended_ms, fetched_s = batches[0]
                # The first batch of a fetch may begin before the offset that was asked for.
                records = min(end, position) - max(start, taken)
                if records > 0:
                    yield Arrived(topic, records, appended_ms, fetched_s)
                if end > position:
                    break
                batches.popleft()
