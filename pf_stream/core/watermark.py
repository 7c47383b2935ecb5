"""What a lane tells the lanes downstream of its event clock.

It is told in the header ``pf-watermark`` of what goes to an internal topic whose readers keep an event clock, and, so that
partitions move on to which nothing goes, in records of their own.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import Header
from pf_stream.core.timers import EVENT, Timer, Timers
from pf_stream.core.unit import Copy, Output

__all__ = ["WATERMARK", "WATERMARK_TYPE", "Told", "Watermarks", "parse_watermark"]

WATERMARK: Final = "pf-watermark"
"""``group:partition:time`` of the lane that wrote a record; the time is its event clock in milliseconds since the epoch, and
left out while it has none."""
WATERMARK_TYPE: Final = b"pf.watermark.v1"
"""``ce_type`` of a record that tells nothing else."""

_EVERY_MS: Final = 200
"""How often records of their own are written at most."""
_SIGNS_OF_LIFE: Final = 4
"""How many of them are written in the time after which a silent lane is idle, while the clock stands still."""

_told = re.compile(rb"(([a-z0-9._-]{1,247}):[0-9]{1,6}):(-?[0-9]{1,15})?").fullmatch


class Told(NamedTuple):
    """What a ``pf-watermark`` says."""

    lane: str
    """The lane that wrote it: group and partition."""
    group: str
    """Its group."""
    time_ms: int | None
    """Its event clock; ``None`` if it has none yet."""


def parse_watermark(raw: bytes | None) -> Told | None:
    """What a header says; ``None`` if there is none, or it is not as the engine writes it."""
    told = _told(raw or b"")
    if told is None:
        return None
    return Told(told[1].decode(), told[2].decode(), None if told[3] is None else int(told[3]))


class Watermarks:
    """What one lane tells, and when.

    A lane whose clock stands still goes on telling it, as long as it waits for somebody itself: it is not idle before those
    are for which it waits, and what it has yet to decide must not be late downstream.
    """

    __slots__ = ("_alive_ms", "_lane", "_own", "_plan", "_targets", "_timers", "_told_at_ms", "_told_ms", "_waits")

    def __init__(
        self, plan: GroupPlan, partition: int, timers: Timers, idle_ms: int, waits: Callable[[], bool]
    ) -> None:
        """*waits* tells whether anybody is active for whom the lane waits."""
        self._plan = plan
        self._timers = timers
        self._waits = waits
        self._alive_ms = idle_ms // _SIGNS_OF_LIFE
        self._lane = f"{plan.name}:{partition}:".encode()
        self._own = {source.topic for source in plan.sources}
        self._targets = set(plan.targets)
        """Topics whose readers are told: those that are declared, and those to which something went in this life."""
        self._told_ms: int | None = None
        """What the last records of their own said."""
        self._told_at_ms: int | None = None
        """When that was; ``None`` in a life in which there were none."""

    def header(self, topic: str, timer: Timer | None) -> list[Header]:
        """What goes with a record to *topic*, one of those whose readers keep a clock; nothing where the lane keeps none.

        *timer* is what causes the record, if that is no record itself.
        """
        time_ms = self._timers.event_ms
        if time_ms is None and not self._plan.event_time:
            return []
        if topic not in self._own:
            self._targets.add(topic)
        # What other timers that are due by now will cause is yet to come, and not late.
        if time_ms is not None and timer is not None and timer.clock == EVENT:
            time_ms = min(time_ms, timer.due_ms - 1)
        return [self._header(time_ms)]

    @property
    def has_targets(self) -> bool:
        """Whether anybody is told."""
        return bool(self._targets)

    @property
    def due_ms(self) -> int | None:
        """From when on a unit tells the clock anew; ``None`` while there is no need, or nobody to be told."""
        if not self._targets:
            return None
        time_ms = self._time_ms
        if time_ms is not None and (self._told_ms is None or time_ms > self._told_ms):
            return 0 if self._told_at_ms is None else self._told_at_ms + _EVERY_MS
        if not self._waits():
            return None
        return 0 if self._told_at_ms is None else self._told_at_ms + self._alive_ms

    def is_due(self, now_ms: int) -> bool:
        """Whether a unit that is sealed about *now_ms* tells it."""
        due_ms = self.due_ms
        if due_ms is None:
            return False
        # A clock that was set back by hours must not silence the lane for hours.
        return now_ms >= due_ms or (self._told_at_ms is not None and now_ms < self._told_at_ms)

    def records(self, sequence: int, now_ms: int) -> list[Output | Copy]:
        """Records of their own, for the unit of that number that is sealed about *now_ms*; most units have none."""
        if not self.is_due(now_ms):
            return []
        self._told_ms, self._told_at_ms = self._time_ms, now_ms
        headers: list[Header] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", WATERMARK_TYPE),
            ("ce_source", f"/{self._plan.topology.app_id}".encode()),
            ("ce_id", b"%s%d" % (self._lane, sequence)),
            self._header(self._told_ms),
        ]
        return [
            Output(topic, partition, None, b"", now_ms, [*headers], None)
            for topic in sorted(self._targets)
            for partition in range(self._plan.partitions)
        ]

    def _header(self, time_ms: int | None) -> Header:
        return WATERMARK, self._lane if time_ms is None else b"%s%d" % (self._lane, time_ms)

    @property
    def _time_ms(self) -> int | None:
        """The clock, before what is due by it and has not fired yet."""
        time_ms = self._timers.event_ms
        due_ms = self._timers.next_due_ms(EVENT)
        return time_ms if time_ms is None or due_ms is None else min(time_ms, due_ms - 1)
