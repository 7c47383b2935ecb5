"""Effects: what a handler wants to happen, returned as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

from pf_stream.model.intent import Intent

__all__ = [
    "Bell",
    "Cancel",
    "Effect",
    "Effects",
    "Emit",
    "Forget",
    "Reply",
    "Ring",
    "Schedule",
    "Tally",
    "Windows",
    "forgets",
]


@dataclass(slots=True)
class Emit:
    """Send a further intent, under the caller's context narrowed to what that intent requires."""

    intent: Intent
    """What to send; its type must be handled or listed in ``emits`` by the topology."""
    id: str | None = None
    """Its ``ce_id``; made of the position of the record that causes it if not given. It must be the same on every run."""
    time: datetime | int | None = None
    """Its event time, aware, or in milliseconds since the epoch; that of the record that causes it if not given."""


@dataclass(slots=True)
class Reply:
    """Answer whoever sent the intent; nothing is sent if they did not ask (no ``pf-reply-to``)."""

    data: Mapping[str, Any] | BaseModel
    """Anything that has a JSON form."""


@dataclass(slots=True)
class Schedule:
    """Send an intent later: a timer, kept in the changelog of the lane that sets it.

    It fires exactly once and never early. An intent whose key lives in the same lane is handled there, in the unit that
    removes the timer; any other is sent to its topic, as by :class:`Emit`. What the caller may not do is refused when
    the timer is set.
    """

    intent: Intent
    """What to send; its type must be handled or listed in ``emits`` by the topology."""
    after: timedelta | float | None = None
    """How long from now, in seconds if it is a number: from ``ctx.now``, or on the event clock from ``ctx.time``."""
    at: datetime | None = None
    """When, with a zone; either this or *after*."""
    name: str | None = None
    """Name among the timers of this reactor and key, for :class:`Cancel`; setting it again replaces what waits under it.
    A timer without a name cannot be cancelled and replaces none."""
    clock: Literal["wall", "event"] = "wall"
    """``wall``: when the worker's clock says so. ``event``: before the first intent of the lane whose event time is as
    late is handled."""
    deadline: datetime | None = None
    """Until when it is to be handled, aware: of the intents of a lane that are due, those come first whose deadline is near, and
    later than that it is refused (``deadline_passed``)."""
    id: str | None = None
    """As of :class:`Emit`."""
    time: datetime | int | None = None
    """As of :class:`Emit`."""


@dataclass(frozen=True, slots=True, eq=False)
class Bell:
    """A timer that a reactor keeps for each of its keys. Its intent type is made for it: it tells the key, and nothing else."""

    intent: type[Any]
    """The type, which the reactor handles, requires nothing and has one field, ``key``."""
    name: str
    """Of the timer."""
    clock: Literal["wall", "event"]
    """By which clock it is due."""


@dataclass(slots=True)
class Ring:
    """Set a bell for a key, which is that of the intent at hand: as :class:`Schedule`, with less ado."""

    bell: Bell
    """Which one."""
    key: str
    """The key."""
    due_ms: int
    """When it is due, milliseconds since the epoch."""


@dataclass(slots=True)
class Cancel:
    """Remove the timer of that name that this reactor set for this key; nothing happens if there is none."""

    name: str
    """As given to :class:`Schedule`."""


@dataclass(slots=True)
class Forget:
    """Remove the state that this reactor has under this key: what the handler changed in it, too.

    The key is then as one that never was; an intent that follows begins with a new state. Timers of the key stay.
    """


@dataclass(slots=True)
class Tally:
    """Count something that a monitor is to show, such as late records: told to the metrics once the unit is committed.

    It changes no state, and begins at zero with each worker.
    """

    name: str
    """What is counted: lower case letters, digits and ``_``, at most 32. Metrics show the first 32 names of a reactor each for
    itself, and count further ones together, as ``other``."""
    by: int = 1
    """How many, 0 or more."""


@dataclass(slots=True)
class Windows:
    """So many more windows are open than before, or fewer. Their number is kept with the states, for monitors."""

    by: int
    """How many; negative if windows are gone."""


Effect: TypeAlias = Emit | Reply | Schedule | Ring | Cancel | Forget | Tally | Windows
Effects: TypeAlias = Effect | Sequence[Effect] | None
"""What a handler returns."""


def forgets(result: object) -> bool:
    """Whether what a handler returned removes the state of its key."""
    return isinstance(result, Forget) or (
        isinstance(result, list | tuple) and any(isinstance(effect, Forget) for effect in result)
    )
