"""Shelves that outlive their worker, and whether they may be believed."""

from typing import NamedTuple, Protocol

from pf_stream.core.shelf import Shelf
from pf_stream.kafka.link import Partition

__all__ = ["Depot", "LastingShelf", "Note", "doubt"]


class Note(NamedTuple):
    """What a shelf says of itself: it holds everything that its changelog said at a time."""

    topic_id: bytes
    """Id of the changelog topic."""
    position: int
    """Changelog offset before which it holds everything."""
    at_ms: int
    """A time when nothing lay behind that offset, milliseconds since the epoch."""


class LastingShelf(Shelf, Protocol):
    """A shelf that is there again after the end of the process, as of some unit; of the last one if it was closed."""

    at_ms: int
    """The time that is noted with the next position; see :class:`Note`."""

    @property
    def note(self) -> Note | None:
        """What it says of itself; ``None`` if it never held all of a changelog."""

    async def clear(self, topic_id: bytes) -> None:
        """Forget everything: from now on it is for the changelog of that topic id."""


class Depot(Protocol):
    """The shelves of a worker, one for each lane that it ever had."""

    async def shelf(self, changelog: Partition) -> LastingShelf:
        """That of a lane, empty if it is new.

        Raises :class:`StoreError`.
        """

    async def close(self) -> None:
        """Let go of all shelves; nothing that they hold is lost."""


def doubt(note: Note, topic_id: bytes, begin: int, end: int, retention_ms: int, now_ms: int) -> str | None:
    """Why a shelf may not be believed; ``None`` if it may.

    *topic_id* is that of the changelog topic as it is now, which holds ``[begin, end)`` of the lane's partition and keeps
    deletions for *retention_ms* (``delete.retention.ms``).
    """
    age_ms = now_ms - note.at_ms
    if note.topic_id != topic_id:
        return "its changelog was deleted and made anew"
    if not begin <= note.position <= end:
        return f"it is of offset {note.position}, and its changelog holds [{begin}, {end})"
    if not 0 <= age_ms < retention_ms:
        # What was deleted since then may be gone from the changelog without a trace, and be on the shelf still.
        return f"it is {age_ms / 3_600_000:.1f} hours old, and its changelog keeps deletions for {retention_ms / 3_600_000:.1f}"
    return None
