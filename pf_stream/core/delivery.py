"""One record on its way through the step."""

from typing import Any

from pf_stream.core.plan import Route
from pf_stream.core.records import Header, Record
from pf_stream.core.source import Source
from pf_stream.core.timers import Timer
from pf_stream.model.intent import Intent
from pf_stream.security.claims import Claims

__all__ = ["Delivery", "Headers"]

Headers = dict[str, Any]
"""By name; of a name that appears more than once the last one."""


class Delivery:
    """A record and what has been found out about it. From *route* on the fields are set once it is admitted."""

    __slots__ = (
        "at_ms",
        "claims",
        "due_ms",
        "headers",
        "hops",
        "intent",
        "key",
        "now_ms",
        "record",
        "route",
        "source",
        "time_ms",
        "timer",
        "timer_key",
        "trace",
        "value",
    )

    route: Route
    """Its type on its topic."""
    value: bytes
    """The intent as JSON."""
    intent: Intent
    """The intent."""
    key: bytes
    """Its key."""
    claims: Claims | None
    """Who sent it, as proven; ``None`` if it requires nothing and came without a context."""
    at_ms: int
    """When its context was judged."""
    hops: int
    """How often it was emitted onward."""

    due_ms: int | None
    """When it is to be handled, if that is not now."""

    def __init__(
        self,
        source: Source,
        record: Record,
        headers: Headers,
        now_ms: int,
        timer: Timer | None = None,
        timer_key: bytes = b"",
    ) -> None:
        self.source = source
        self.record = record
        self.headers = headers
        self.now_ms = now_ms
        self.time_ms: int | None = None
        """Event time, if it was asked for."""
        self.timer = timer
        """The timer that brought it; ``None`` if it was read just now."""
        self.timer_key = timer_key
        """The timer's changelog key."""
        self.trace: tuple[Header, ...] | None = None
        """What all that it causes is told of its request, once that has been found out and is the same for all."""

    @property
    def is_scheduled(self) -> bool:
        """Whether a handler made it, for later: it has no record of its own."""
        return self.timer is not None and self.timer.scheduled

    @property
    def failed(self) -> int:
        """Attempts at which its handler raised."""
        if self.timer is not None:
            return self.timer.failed
        offset, failed = self.source.failing
        return failed if offset == self.record.offset else 0
