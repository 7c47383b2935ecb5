"""Where a lane stands in one of its source topics."""

import re
from typing import TYPE_CHECKING

from pf_stream.core.plan import SourcePlan
from pf_stream.core.records import Record

if TYPE_CHECKING:
    from pf_stream.core.delivery import Delivery

__all__ = ["Mark", "Source", "parse_origin"]

Mark = tuple[int, int]
"""Unit sequence and index of a record that an upstream lane wrote."""

# As the commit side writes it. Whatever else stands there was not written by it, and must not reach the changelog.
_origin = re.compile(rb"([0-9A-Za-z_-]{1,64}):([0-9]{1,18}):([0-9]{1,9})").fullmatch


def parse_origin(pf_source: bytes) -> tuple[bytes, Mark] | None:
    """Incarnation of the upstream lane and the record's mark; ``None`` if that is no ``pf-source``."""
    written = _origin(pf_source)
    return None if written is None else (written[1], (int(written[2]), int(written[3])))


class Source:
    """Positions of one source topic: as the open unit has them, and as they were last sealed."""

    __slots__ = (
        "_known_marks",
        "_known_until",
        "_marks",
        "_moved",
        "_sealed_marks",
        "_taken",
        "ahead",
        "deferred",
        "failing",
        "next",
        "paused_until_ms",
        "plan",
        "poisoned",
        "sealed",
        "topic_id",
    )

    def __init__(self, plan: SourcePlan) -> None:
        self.plan = plan
        self.topic_id = bytes(16)
        self.next = 0
        """Offset of the next record to take; everything below is decided."""
        self.sealed = 0
        """*next* as of the last sealed unit."""
        self.ahead: dict[int, int] = {}
        """Reactors that have seen more than *next*, because another one is new: index to next offset."""
        self.poisoned: dict[int, str] = {}
        """Offsets whose intent alone made a unit that could not be sealed: offset to code."""
        self.deferred: Record | None = None
        """A record that was put back: it comes first when the step goes on."""
        self.paused_until_ms = 0
        """Nothing is taken from the topic before; milliseconds since the epoch."""
        self.failing: tuple[int, int] = (-1, 0)
        """The record whose handler raises and is run again: offset, and how often it raised."""
        self._taken: tuple[bytes, Mark | None, bool] | None = None
        """What the last :meth:`take` changed: incarnation, its mark before, whether that had moved."""
        self._marks: dict[bytes, Mark] = {}
        """Last record taken from each upstream lane, by incarnation."""
        self._moved: set[bytes] = set()
        self._sealed_marks: dict[bytes, Mark] = {}
        self._known_marks: dict[bytes, Mark] = {}
        """While a new reactor reads what the others have seen, *marks* begin anew, and these are theirs."""
        self._known_until = 0
        """Offset from which on *known_marks* hold too."""

    def restore_mark(self, incarnation: bytes, mark: Mark | None) -> None:
        """Take a mark from the changelog; None if it was deleted."""
        if mark is None:
            self._marks.pop(incarnation, None)
        else:
            self._marks[incarnation] = mark

    def begin(self, seen: dict[int, int | None]) -> int | None:
        """End the recovery, with each reader's watermark by index; ``None`` is a reactor that is new.

        Returns where to start; ``None`` if no reactor has read the topic before.
        """
        known = [offset for offset in seen.values() if offset is not None]
        # A new reactor starts at the beginning, and the others pass over what they know. An internal topic is read from the
        # beginning again as long as one lags behind, since what was taken from which upstream lane follows only from that.
        from_start = len(known) < len(seen) or (self.plan.internal and len(set(known)) > 1)
        self.next = self.sealed = 0 if from_start else min(known)
        self.ahead = {i: offset for i, offset in seen.items() if offset is not None and offset > self.next}
        if self.plan.internal and self.ahead:
            self._known_marks, self._marks = self._marks, {}
            self._known_until = max(self.ahead.values())
        self._sealed_marks = dict(self._marks)
        return self.next if known else None

    def has_seen(self, reactor: int, offset: int) -> bool:
        """Whether a reactor, by index, is past *offset* although the lane is not."""
        return offset < self.ahead.get(reactor, 0)

    def passes_over(self, reactor: int, delivery: "Delivery") -> bool:
        """Whether a reactor, by index, must not see a delivery while another one catches up: it has seen it or will."""
        timer, offset = delivery.timer, delivery.record.offset
        if timer is None:
            return self.has_seen(reactor, offset)
        # What waited as a timer comes to all. Who has not read its record yet reads it still, and would have it twice.
        return not timer.scheduled and offset >= max(self.next, self.ahead.get(reactor, 0))

    def take(self, offset: int, incarnation: bytes, mark: Mark) -> bool:
        """Note a record of an internal topic; ``False`` if it was taken before: a lane repeats itself after a crash."""
        last = self._marks.get(incarnation)
        if offset >= self._known_until and incarnation in self._known_marks:
            last = max(last or (0, 0), self._known_marks[incarnation])
        if last is not None and mark <= last:
            return False
        self._taken = incarnation, self._marks.get(incarnation), incarnation in self._moved
        self._marks[incarnation] = mark
        self._moved.add(incarnation)
        return True

    def put_back(self, record: Record) -> None:
        """Take back that *record*, the last one, was taken: the step goes on with it."""
        self.next = record.offset
        self.deferred = record
        if self.plan.internal and self._taken is not None:
            incarnation, before, moved = self._taken
            if before is None:
                del self._marks[incarnation]
            else:
                self._marks[incarnation] = before
            if not moved:
                self._moved.discard(incarnation)
            self._taken = None

    def seal(self) -> list[tuple[bytes, Mark]]:
        """Make the open positions the sealed ones; returns the marks that moved, to be stored."""
        self.sealed = self.next
        self._taken = None
        if self.poisoned:
            self.poisoned = {offset: code for offset, code in self.poisoned.items() if offset >= self.next}
        if self.ahead:
            self.ahead = {i: offset for i, offset in self.ahead.items() if offset > self.next}
        moved = []
        for incarnation in self._moved:
            mark = self._sealed_marks[incarnation] = self._marks[incarnation]
            moved.append((incarnation, max(mark, self._known_marks.get(incarnation, mark))))
        self._moved.clear()
        return moved

    def rewind(self) -> None:
        """Go back to the sealed positions."""
        self.next = self.sealed
        self.deferred = None
        self._taken = None
        self._marks = dict(self._sealed_marks)
        self._moved.clear()
