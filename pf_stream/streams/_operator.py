"""Operators: what is done with the values of each key, by a reactor of its own, and what that reactor needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias

from pf_stream.model import Context, Effect, Forget, Intent
from pf_stream.model.effect import Bell
from pf_stream.model.state import StateSpec

__all__ = ["Add", "Built", "Fire", "Flow", "Operator", "Push", "Quick", "Stage", "event_times", "instant"]


class Flow:
    """What is on its way because of one intent."""

    __slots__ = ("context", "effects", "key_of", "origin", "push", "time_ms", "values")

    def __init__(self, origin: Any, key_of: Callable[[Any], str], context: Context, push: "Push") -> None:
        self.origin = origin
        """The intent at hand."""
        self.key_of = key_of
        """Takes its key from it."""
        self.context = context
        """Its context."""
        self.effects: list[Effect] = []
        """What is to happen."""
        self.push = push
        """Takes values on to the stages behind."""
        self.values: list[Any] = []
        """What has come to the end of a way that gathers values."""
        self.time_ms: int | None = None
        """When that which is pushed happened, milliseconds since the epoch; ``None`` for the time of the intent at hand."""

    @property
    def key(self) -> str:
        """The key of the state at hand; made when it is read, which is seldom."""
        return self.key_of(self.origin)

    def send(self, values: list[Any], time_ms: int | None = None) -> None:
        """Take *values* on, which happened at *time_ms*, or when the intent at hand did."""
        self.time_ms = time_ms
        self.push(values, self)

    def forget(self) -> None:
        """Remove the state of the key."""
        self.effects.append(Forget())


Push: TypeAlias = Callable[[list[Any], Flow], None]
"""Takes values on their way."""
Add: TypeAlias = Callable[[Any, Any, Flow], None]
"""Takes one value, the state of its key and the flow."""
Quick: TypeAlias = Callable[[Any, Any, Context], bool]
"""Takes a value, the state of its key and the context; ``False`` if it has done nothing, because more is to be done. It changes
the state by its last step alone."""
Fire: TypeAlias = Callable[[Any, Any, Flow], None]
"""Takes the intent of a timer, the state of its key and the flow."""


@dataclass(frozen=True, slots=True)
class Built:
    """An operator, made for its place in a pipeline."""

    state: Mapping[str, tuple[Any, Callable[[], Any] | None]]
    """Fields of its state: type, and what makes the first value, which a :class:`MapState` needs not; without any it has no
    state."""
    add: Mapping[str, Add]
    """By port, what takes a value."""
    fire: Mapping[str, Fire] = field(default_factory=dict)
    """By name of a timer, what it does."""
    quick: Mapping[str, Quick] = field(default_factory=dict)
    """By port, what may take a value without more ado; nearly all values, if there is such a way for them."""
    late: tuple[type[Intent], ...] = ()
    """Types, among those that it emits, that nobody here handles."""
    storing: Callable[[StateSpec], StateSpec] | None = None
    """Makes of what is known of the state's class how it is stored; ``None``: as it is."""


class Stage(Protocol):
    """The place of an operator in a pipeline."""

    @property
    def lag_ms(self) -> int:
        """How long after it happened a value may come because stages before this one hold it back."""
        ...

    def value_type(self, port: str) -> Any:
        """Type of the values at a port, as pydantic stores it; raises :class:`DefinitionError` if it is not known."""
        ...

    def timer(self, name: str, **fields: Any) -> type[Any]:
        """Makes the intent type of a timer: a key, and *fields*."""
        ...

    def bell(self, name: str, clock: Literal["wall", "event"]) -> Bell:
        """Makes a timer whose intent tells a key, and nothing else."""
        ...

    def outlet(self, name: str, topic: str, **fields: Any) -> type[Any]:
        """Makes an intent type that is emitted to *topic*: a key, and *fields*; anybody may send it."""
        ...


class Operator(Protocol):
    """An operator, as declared."""

    @property
    def kind(self) -> str:
        """Name of the stage if it is given none."""
        ...

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of its inputs."""
        ...

    @property
    def many(self) -> bool:
        """Whether what comes of it follows from many callers."""
        ...

    @property
    def result(self) -> Any:
        """Type of what comes of it; ``None`` if it is not known."""
        ...

    @property
    def event_time(self) -> bool:
        """Whether it needs the event clock."""
        ...

    @property
    def hold_ms(self) -> int:
        """How long after it happened a value may come of it."""
        ...

    def build(self, stage: Stage) -> Built:
        """Make it for its place."""
        ...


def event_times(flow: Flow) -> tuple[int, int]:
    """When the intent at hand happened, and what the event clock says, or that time as long as the clock says nothing, so that
    the intent is not late; milliseconds since the epoch."""
    context = flow.context
    # Nobody is from the future: what waits for that time would wait for ever.
    time_ms = min(context.time_ms, context.now_ms)
    clock_ms = context.watermark_ms
    return time_ms, time_ms if clock_ms is None else clock_ms


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def instant(time_ms: int) -> datetime:
    """Milliseconds since the epoch as a time."""
    return _EPOCH + timedelta(milliseconds=time_ms)
