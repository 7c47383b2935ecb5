"""How a unit becomes durable, and its outputs reach their topics."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pf_stream.core.outbox import OutboxEntry
from pf_stream.core.unit import CommitUnit
from pf_stream.engine.encode import OutboxBuilder

__all__ = ["Committed", "Committer", "Events", "Unsent"]

Unsent = Sequence[tuple[int, Mapping[int, OutboxEntry]]]
"""Outputs of earlier lives of a lane that are committed and not known to be sent: unit sequence and entries, in order."""


class Committed(NamedTuple):
    """A unit that is durable."""

    last_offset: int
    """The last changelog offset that is taken by it."""
    size: int
    """Bytes that were appended to the changelog."""
    outbox: Sequence[tuple[bytes, bytes | None]] = ()
    """Changelog records of its outputs, which follow those of the unit."""


def _nobody(topic: str, records: int) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class Events:
    """What a committer tells its lane."""

    sent: Callable[[int, Collection[int]], None]
    """The outbox entries of a unit, and of all units before it, need not be kept: they are in Kafka, or will be together
    with the next unit, which marks them."""
    failed: Callable[[Exception], None]
    """Outputs of a committed unit cannot be sent, which must stop the lane."""
    wrote: Callable[[str, int], None] = _nobody
    """So many records of outputs are in a topic."""


class Committer(Protocol):
    """Commits the units of one lane while it is assigned to this worker.

    To have one is to have taken the lane: who had it before can commit no more. Then the lane recovers, up to the
    :attr:`fence`; then :meth:`begin`, and :meth:`commit` for one unit after another while :meth:`run` goes on beside;
    at last :meth:`stop`. Any error of :meth:`commit` ends it: nobody may know then what is durable, so the lane's
    memory is void, and the group decides who takes the lane next.

    State, positions and outputs of a unit stand or fall together: a crash before the commit leaves nothing of it, one
    after it loses nothing of it.
    """

    @property
    def fence(self) -> int:
        """Changelog offset before which everything is the past."""

    @property
    def backlog(self) -> int:
        """Committed units whose outputs are on their way."""

    def begin(self, unsent: Unsent) -> None:
        """Take over what was left unsent; it goes before whatever is committed from here on."""

    async def run(self) -> None:
        """Send what is committed, until cancelled; returns at once if that is part of the commit."""

    async def commit(self, unit: CommitUnit[OutboxBuilder]) -> Committed:
        """Make a unit durable. Raises one of :mod:`pf_stream.kafka.errors`."""

    async def wait_until_sent(self) -> None:
        """Wait until there is no backlog."""

    def stop(self) -> None:
        """Commit and send nothing more; what is in flight may still arrive."""
