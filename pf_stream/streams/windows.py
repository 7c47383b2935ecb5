"""Windows: how the values of a key are cut into pieces that end."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from pf_stream.errors import DefinitionError
from pf_stream.model._periods import period_ms

__all__ = [
    "Clock",
    "CountWindow",
    "Emission",
    "Global",
    "Kind",
    "Session",
    "Sliding",
    "Timed",
    "Window",
    "Windowed",
    "counted",
    "early",
    "global_window",
    "hopping",
    "milliseconds",
    "on_close",
    "on_update",
    "session",
    "sliding",
    "tumbling",
]

R_co = TypeVar("R_co", covariant=True)

Clock: TypeAlias = Literal["event", "processing"]
"""``event``: a value belongs to when it happened (``ce_time``). ``processing``: to when it is handled."""
Kind: TypeAlias = Literal["final", "early", "update", "retraction"]
"""What a result says. ``final``: the window has closed. ``early``: it has not. ``update``: what it holds now, in place of what was
said before. ``retraction``: what was said before, and holds no more."""

_LONGEST_MS: Final = 360 * 86_400_000
"""How long a window may be open in all: a timer waits for its end, and none waits longer than a year."""


@dataclass(frozen=True, slots=True)
class Windowed(Generic[R_co]):
    """The result of a window of one key."""

    key: str
    """The key."""
    start_ms: int
    """When the window begins, milliseconds since the epoch; of a window that time does not end, when its first value was."""
    end_ms: int
    """When it ends, exclusive."""
    value: R_co
    """What the aggregate made of it."""
    kind: Kind = "final"
    """What it says."""

    @property
    def start(self) -> datetime:
        """When the window begins, UTC."""
        return datetime.fromtimestamp(self.start_ms / 1000, UTC)

    @property
    def end(self) -> datetime:
        """When it ends, exclusive, UTC."""
        return datetime.fromtimestamp(self.end_ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Timed:
    """Windows that time ends."""

    clock: Clock
    """Whose time."""
    bound_ms: int
    """How far values may be out of order: a window closes so long after its end."""
    grace_ms: int
    """For how long after it closed a window takes values and corrects its result."""


@dataclass(frozen=True, slots=True)
class Hopping(Timed):
    """Windows of one size that begin at equal distances; made by :func:`tumbling` and :func:`hopping`."""

    size_ms: int
    """How long each is."""
    every_ms: int
    """From the beginning of one to that of the next; at most the size."""
    offset_ms: int
    """When one of them begins, after the epoch."""


@dataclass(frozen=True, slots=True)
class Sliding(Timed):
    """For each time at which there is a value, the window that ends with it; made by :func:`sliding`."""

    size_ms: int
    """How long each is."""


@dataclass(frozen=True, slots=True)
class Session(Timed):
    """Windows of values with no long pause between them; made by :func:`session`."""

    gap_ms: int
    """The pause that ends one."""


@dataclass(frozen=True, slots=True)
class CountWindow:
    """Windows of so many values each; made by :func:`counted`."""

    size: int
    """How many."""


@dataclass(frozen=True, slots=True)
class Global:
    """One window that nothing ends, with results when a trigger says so; made by :func:`global_window`."""

    records: int | None
    """After so many values."""
    every_ms: int | None
    """So long after the first value since the last result, by the worker's clock."""
    when: Callable[[Any], bool] | None
    """After a value of which this holds."""
    purge: bool
    """Whether it is empty after each result."""


Window: TypeAlias = Hopping | Sliding | Session | CountWindow | Global


def tumbling(size: str, *, offset: str = "0s", clock: Clock = "event", bound: str = "0s", grace: str = "0s") -> Hopping:
    """Windows of one *size*, each begins where the one before it ends: ``tumbling("1h")`` begins on the hour, UTC.

    A window [start, end) closes when the event clock has come to end + *bound*, and takes values until end + bound +
    *grace*; those that come in the grace correct its result. What comes later still is late. Periods are a number and a
    unit: ``30s``, ``10m``, ``24h``, ``7d``.

    Raises :class:`DefinitionError`.
    """
    return hopping(size, every=size, offset=offset, clock=clock, bound=bound, grace=grace)


def hopping(
    size: str, *, every: str, offset: str = "0s", clock: Clock = "event", bound: str = "0s", grace: str = "0s"
) -> Hopping:
    """Windows of one *size*, of which one begins *every* so often: a value belongs to size / every of them.

    Raises :class:`DefinitionError`.
    """
    subject = f"window of {size} every {every}"
    size_ms, every_ms = milliseconds(size, subject), milliseconds(every, subject)
    offset_ms = milliseconds(offset, subject, zero=True)
    faults = []
    if every_ms > size_ms:
        faults.append(f"every={every!r} is longer than size={size!r}, so that values would be in no window")
    elif size_ms // every_ms > 1000:
        faults.append(f"a value would be in {size_ms // every_ms} windows; 1000 is the most: choose a longer every")
    return Hopping(*_timed(subject, clock, bound, grace, size_ms, faults), size_ms, every_ms, offset_ms % every_ms)


def sliding(size: str, *, clock: Clock = "event", bound: str = "0s") -> Sliding:
    """For each time at which a key has a value, the values of the *size* before, that time's included: a moving aggregate.

    Raises :class:`DefinitionError`.
    """
    subject = f"sliding window of {size}"
    size_ms = milliseconds(size, subject)
    return Sliding(*_timed(subject, clock, bound, "0s", size_ms, []), size_ms)


def session(gap: str, *, clock: Clock = "event", bound: str = "0s") -> Session:
    """Values that follow each other within less than *gap*; a session ends *gap* after its last value.

    Raises :class:`DefinitionError`.
    """
    subject = f"session with gap {gap}"
    gap_ms = milliseconds(gap, subject)
    return Session(*_timed(subject, clock, bound, "0s", gap_ms, []), gap_ms)


def counted(size: int) -> CountWindow:
    """Windows of *size* values each, in the order of arrival; raises :class:`DefinitionError`."""
    if size < 1:
        raise DefinitionError("count window", [f"size={size} must be 1 or more"])
    return CountWindow(size)


def global_window(
    *,
    records: int | None = None,
    every: str | None = None,
    when: Callable[[Any], bool] | None = None,
    purge: bool = False,
) -> Global:
    """One window that nothing ends; its results are ``early``: after so many *records*, *every* so often, or *when* a value
    is one that says so. It grows no more than its aggregate does; with *purge* it is empty after each result.

    Raises :class:`DefinitionError`.
    """
    faults = []
    if records is None and every is None and when is None:
        faults.append("has no trigger, so that nothing would come of it: give records, every or when")
    if records is not None and records < 1:
        faults.append(f"records={records} must be 1 or more")
    if faults:
        raise DefinitionError("global window", faults)
    return Global(records, None if every is None else milliseconds(every, "global window"), when, purge)


@dataclass(frozen=True, slots=True)
class Emission:
    """When a window tells its result; see :func:`on_close`, :func:`on_update` and :func:`early`."""

    close: bool
    """When it closes."""
    update: bool
    """At each value."""
    every_ms: int | None = None
    """So long after the first value that no result has told of, by the worker's clock."""
    records: int | None = None
    """After so many values that no result has told of."""


def on_close() -> Emission:
    """One ``final`` result of each window and key, when it closes."""
    return Emission(close=True, update=False)


def on_update() -> Emission:
    """At each value an ``update``, behind a ``retraction`` of what was said before; nothing more at the end."""
    return Emission(close=False, update=True)


def early(*, every: str | None = None, records: int | None = None) -> Emission:
    """``early`` results on the way, *every* so often or after so many *records*, and the ``final`` one.

    Raises :class:`DefinitionError`.
    """
    if every is None and records is None:
        raise DefinitionError("early(...)", ["says not when: give every or records"])
    if records is not None and records < 1:
        raise DefinitionError("early(...)", [f"records={records} must be 1 or more"])
    every_ms = None if every is None else milliseconds(every, "early(...)")
    return Emission(close=True, update=False, every_ms=every_ms, records=records)


def milliseconds(text: str, subject: str, *, zero: bool = False) -> int:
    """A period in milliseconds; raises :class:`DefinitionError`."""
    if zero and text == "0s":
        return 0
    found = period_ms(text)
    if found is None:
        raise DefinitionError(subject, [f"{text!r} must be a number and a unit, such as '30s', '10m', '24h' or '7d'"])
    return found


def _timed(
    subject: str, clock: Clock, bound: str, grace: str, size_ms: int, faults: list[str]
) -> tuple[Clock, int, int]:
    bound_ms = milliseconds(bound, subject, zero=True)
    grace_ms = milliseconds(grace, subject, zero=True)
    if clock not in {"event", "processing"}:
        faults.append(f"clock={clock!r} must be 'event' or 'processing'")
    if clock == "processing" and (bound_ms or grace_ms):
        faults.append("nothing is out of order in processing time: leave out bound and grace")
    if size_ms + bound_ms + grace_ms > _LONGEST_MS:
        faults.append("is open for more than 360 days, with bound and grace: it would wait longer than a timer may")
    if faults:
        raise DefinitionError(subject, faults)
    return clock, bound_ms, grace_ms
