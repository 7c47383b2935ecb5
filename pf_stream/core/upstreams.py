"""What an event clock waits for: those from whom a lane gets its records.

Each public source topic is one upstream. Its time is the latest event time among its intents, capped by their append times.
On an internal topic each lane that writes there is one, and its time is what it says of its own clock; where it says nothing,
the latest event time among its records. The lane's clock is the minimum. Who is silent for long is *idle* and left out, until
it speaks again. If all are idle nobody contradicts the latest of what they said, and that is the time: otherwise it would be
a matter of milliseconds, who of them was left out last.

What comes by a topic for misplaced keys moves nothing: it is an intent of the public topic that took a longer way.
"""

from operator import itemgetter
from typing import Final

from pf_stream.core import changelog
from pf_stream.core.delivery import Delivery
from pf_stream.core.plan import GroupPlan
from pf_stream.core.source import parse_origin
from pf_stream.core.watermark import WATERMARK, parse_watermark
from pf_stream.model.context import event_time_ms

__all__ = ["Upstreams"]

_REPLAY: Final = b"replay-"
"""What stands for a lane where a person has sent a dead letter again."""

_IDLE_LONG_AGO: Final = 0

_Key = tuple[str, str]
"""Topic and lane; the lane is empty for a public topic."""


class _Upstream:
    """One of them."""

    __slots__ = ("heard_ms", "idle", "sealed_ms", "time_ms")

    def __init__(self) -> None:
        self.time_ms: int | None = None
        """How far it is; ``None`` if it has not said so."""
        self.sealed_ms: int | None = None
        """That, as it was last sealed."""
        self.heard_ms: int | None = None
        """When it spoke last in this life of the lane, or the lane first had nothing to read; processing time."""
        self.idle = False


class Upstreams:
    """All upstreams of a lane: as they were last sealed, and what the open unit changes.

    Who is idle is not stored: it follows from processing time, and is found out anew after a crash.
    """

    __slots__ = (
        "_all",
        "_expected",
        "_forgotten",
        "_idle_ms",
        "_low_ms",
        "_moved",
        "_plan",
        "_public",
        "needed",
        "stale",
    )

    def __init__(self, plan: GroupPlan, idle_ms: int) -> None:
        self.needed = plan.event_time
        """Whether the lane keeps an event clock at all: who has no use for one pays nothing for it."""
        self._plan = plan
        self._idle_ms = idle_ms
        self._expected: frozenset[_Key] = frozenset(
            (source.topic, lane)
            for source in plan.sources
            if source.origin == source.topic
            for lane in (source.upstreams if source.internal else ("",))
        )
        """Those that count before they have spoken."""
        self._all = {key: _Upstream() for key in self._expected}
        self._public = {source.topic: self._all[source.topic, ""] for source in plan.sources if not source.internal}
        """Those that are topics; they stay the same objects."""
        self._moved: set[_Key] = set()
        self._forgotten: set[_Key] = set()
        self._low_ms: int | None = None
        self.stale = False
        """Whether :attr:`low_ms` may be another than it was."""

    # -- recovery ------------------------------------------------------------------------------------------------------

    def restore(self, topic: str, lane: str, time_ms: int | None) -> None:
        """Take a changelog record; None if it was deleted."""
        self.needed |= time_ms is not None
        self.stale = True
        key = topic, lane
        if time_ms is not None or key in self._expected:
            upstream = self._all.setdefault(key, _Upstream())
            upstream.time_ms = upstream.sealed_ms = time_ms
        else:
            self._all.pop(key, None)

    # -- the open unit -------------------------------------------------------------------------------------------------

    def hear(self, delivery: Delivery, time_ms: int | None) -> None:
        """Take what a record of an internal topic that was read just now says of its upstream; *time_ms* is its own, capped event
        time, if any."""
        source = delivery.source.plan
        if source.origin != source.topic:
            return
        told = parse_watermark(delivery.headers.get(WATERMARK))
        if told is not None:
            if told.group in self._plan.feedback:
                return
            lane, time_ms = told.lane, told.time_ms
        else:
            origin = parse_origin(delivery.headers.get("pf-source") or b"")
            if time_ms is None or origin is None or origin[0].startswith(_REPLAY):
                return
            lane = origin[0].decode()
        self._speaks((source.topic, lane), time_ms, delivery.now_ms)

    def hear_intent(self, delivery: Delivery) -> None:
        """Take what an admitted intent says of its upstream."""
        time_ms = delivery.time_ms = event_time_ms(delivery.headers, delivery.record.timestamp)
        upstream = self._public.get(delivery.source.plan.topic)
        # Nobody is from the future: a sender's clock must not make all timers of a lane due.
        if upstream is None:
            self.hear(delivery, min(time_ms, delivery.at_ms))
        elif upstream.idle or upstream.time_ms is None or time_ms > upstream.time_ms:
            self._speaks((delivery.source.plan.topic, ""), min(time_ms, delivery.at_ms), delivery.now_ms)
        else:
            upstream.heard_ms = delivery.now_ms

    def _speaks(self, key: _Key, time_ms: int | None, now_ms: int) -> None:
        upstream = self._all.get(key)
        if upstream is None:
            upstream = self._all[key] = _Upstream()
            self.stale = True
        if upstream.idle:
            upstream.idle = False
            self.stale = True
        upstream.heard_ms = now_ms
        known_ms = upstream.time_ms
        if time_ms is not None and (known_ms is None or time_ms > known_ms):
            upstream.time_ms = time_ms
            if known_ms == upstream.sealed_ms:
                self._moved.add(key)
            if known_ms is None or known_ms == self._low_ms:
                self.stale = True

    @property
    def low_ms(self) -> int | None:
        """The event time that all have reached who are not idle; ``None`` if one of them has not said how far it is."""
        if self.stale:
            self.stale = False
            self._low_ms = self._find_low_ms()
        return self._low_ms

    def _find_low_ms(self) -> int | None:
        low_ms: int | None = None
        for upstream in self._all.values():
            if upstream.idle:
                continue
            time_ms = upstream.time_ms
            if time_ms is None:
                return None
            if low_ms is None or time_ms < low_ms:
                low_ms = time_ms
        return self._latest_ms if low_ms is None else low_ms

    def reopened(self) -> None:
        """Count anew how long each is silent: nobody was listened to for a while."""
        for upstream in self._all.values():
            upstream.heard_ms = None

    def any_active(self) -> bool:
        """Whether the clock waits for anybody."""
        return self.needed and not all(upstream.idle for upstream in self._all.values())

    @property
    def _latest_ms(self) -> int | None:
        times = (upstream.time_ms for upstream in self._all.values() if upstream.time_ms is not None)
        return max(times, default=None)

    def rest(self, now_ms: int, read_ms: int) -> None:
        """Find out at *now_ms* who was idle at *read_ms*, when nothing was left to be read."""
        for upstream in self._all.values():
            if upstream.heard_ms is None:
                upstream.heard_ms = read_ms
            elif upstream.heard_ms > now_ms:
                upstream.heard_ms = now_ms  # a clock that was set back must not keep it from being idle for hours
            elif not upstream.idle and read_ms - upstream.heard_ms >= self._idle_ms:
                upstream.idle = self.stale = True

    def forget(self, event_ms: int | None) -> None:
        """Forget who is idle, not expected, and not ahead of the clock: until it speaks again it changes nothing."""
        for key, upstream in list(self._all.items()):
            if not upstream.idle or key in self._expected:
                continue
            if upstream.time_ms is None or (event_ms is not None and upstream.time_ms <= event_ms):
                del self._all[key]
                self._moved.discard(key)
                if upstream.sealed_ms is not None:
                    self._forgotten.add(key)

    def idle_moves(self) -> list[tuple[int, int]]:
        """If nobody speaks any more: when one more will be idle, and the time to which the clock may move then, in order.

        That of one of whom it is not known since when it is silent is 0: :meth:`rest` comes first.
        """
        active = sorted(
            (
                (_IDLE_LONG_AGO if one.heard_ms is None else one.heard_ms + self._idle_ms, one.time_ms)
                for one in self._all.values()
                if not one.idle
            ),
            key=itemgetter(0),
        )
        moves = []
        low_ms, all_idle = self._latest_ms, True
        for idle_at_ms, time_ms in reversed(active):
            if low_ms is not None:
                moves.append((idle_at_ms, low_ms))
            if time_ms is None:
                break
            low_ms = time_ms if all_idle or low_ms is None else min(time_ms, low_ms)
            all_idle = False
        return moves[::-1]

    # -- the unit ------------------------------------------------------------------------------------------------------

    def seal(self) -> list[tuple[bytes, bytes | None]]:
        """Make the open unit's changes the sealed ones; returns the changelog records."""
        entries: list[tuple[bytes, bytes | None]] = [
            (changelog.upstream_key(*key), None) for key in self._forgotten - self._all.keys()
        ]
        for key in self._moved:
            upstream = self._all[key]
            upstream.sealed_ms = upstream.time_ms
            entries.append((changelog.upstream_key(*key), changelog.EVENT_CLOCK_VALUE.pack(upstream.time_ms)))
        self._forgotten.clear()
        self._moved.clear()
        return sorted(entries)

    def rewind(self) -> None:
        """Forget the open unit's changes."""
        for key in self._moved:
            upstream = self._all[key]
            upstream.time_ms = upstream.sealed_ms
            if upstream.time_ms is None and key not in self._expected:
                del self._all[key]
        self._moved.clear()
        self.stale = True
