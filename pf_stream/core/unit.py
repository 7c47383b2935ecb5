"""The commit unit: everything that one micro-batch decides, to be made durable at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol

from typing_extensions import TypeVar

from pf_stream.core.records import Header
from pf_stream.security.narrowing import Bounds, Identity

__all__ = ["CommitUnit", "Copy", "Narrowing", "Output", "Outputs", "Refused", "Rewind"]


class Narrowing(NamedTuple):
    """A context that is to be made: the caller's token, narrowed, or a service's own.

    Making it needs randomness, so the step names it and the commit side makes the bytes, once for each pair.
    """

    origin: bytes | Identity
    """The caller's token, or the service that is to sign one for itself."""
    bounds: Bounds
    """What the token is for."""


class Output(NamedTuple):
    """A record to be written after the commit."""

    topic: str
    """Target topic."""
    partition: int | None
    """Target partition; ``None`` if the key decides."""
    key: bytes | None
    """Record key."""
    value: bytes | None
    """Record value."""
    timestamp_ms: int
    """Record timestamp; on internal topics the time at which the causing intent was judged."""
    headers: list[Header]
    """Headers, without ``pf-source`` and, if *context* is set, ``pf-context``."""
    context: Narrowing | None
    """Context to be made and added."""


class Copy(NamedTuple):
    """A large record that is to be written after the commit by reading it again where it came from."""

    topic: str
    """Target topic."""
    to_partition: int | None
    """Target partition; ``None`` if the key decides."""
    source: str
    """Topic of the original."""
    partition: int
    """Partition of the original."""
    offset: int
    """Offset of the original."""
    key: bytes | None
    """Record key."""
    timestamp_ms: int
    """Record timestamp of the copy."""
    headers: list[Header]
    """Headers to be added to those of the original, without ``pf-source``."""
    drop: frozenset[str]
    """Headers of the original to be left out."""


class Refused(NamedTuple):
    """A record that was refused."""

    topic: str
    """Its source topic."""
    offset: int
    """Its offset there; of a timer's, that of the record that set it."""
    code: str
    """Why."""


class Outputs(Protocol):
    """Takes the outputs of a unit as they are decided."""

    def extend(self, outputs: list[Output | Copy], /) -> None: ...


O_co = TypeVar("O_co", bound=Outputs, default=list[Output | Copy], covariant=True)


@dataclass(frozen=True, slots=True)
class CommitUnit(Generic[O_co]):
    """A sealed unit."""

    sequence: int
    """Number of the unit within the lane, ascending by one."""
    incarnation: str
    """Random name of the lane's life; with the sequence and an index it names each output for ever."""
    entries: list[tuple[bytes, bytes | None]]
    """Changelog records but for the outbox: key and value; ``None`` deletes."""
    outputs: O_co
    """What is to be sent once the unit is acknowledged."""
    positions: dict[str, int]
    """Next offset of each source topic."""
    count: int
    """Source records that the unit covers; 0 for a unit that only marks outputs as sent."""
    handled: Mapping[str, int]
    """Intents that it handles, by type."""
    refused: Sequence[Refused]
    """Records that it refuses."""
    repeats: int
    """Records that it drops because they are repeats."""
    tallies: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """What its reactors count, by reactor and name."""
    due: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """When the timers of the wall clock that it takes were due, milliseconds since the epoch, by the reactor that set them; under
    the empty name those of records that were put aside."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """The open unit was taken back; its records must be fed again, from these positions."""

    positions: dict[str, int]
    """Next offset of each source topic."""
