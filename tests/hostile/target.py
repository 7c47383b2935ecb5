"""What is attacked: two tenants' gates and shelves, and what only the topology itself may add up."""

from typing import Annotated, Any

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    State,
    Topology,
    on,
    operation,
    upcast,
)

__all__ = ["Cancelled", "Departed", "GateCap", "Looked", "ShelfCap", "Stored", "Totalled", "hostile"]


class GateCap(Capability):
    """Who may say what of a gate: ``/{carrier}/{origin}``. Carriers are the tenants."""

    report = operation()
    cancel = operation()
    admin = operation(implies=(report, cancel))


class ShelfCap(Capability):
    """Who may put files where: ``/{owner}/...``."""

    write = operation()


class Departed(Intent, name="hostile.departed", version=2, requires=GateCap.report("/{carrier}/{origin}")):
    """A flight left."""

    carrier: Annotated[str, Key]
    origin: Annotated[str, Key]
    delay: int = 0

    @upcast(from_version=1)
    @staticmethod
    def _with_delay(old: dict[str, Any]) -> dict[str, Any]:
        late = old.pop("late", False)
        return old | {"delay": 15 if late else 0}


class Cancelled(Intent, name="hostile.cancelled", requires=GateCap.cancel("/{carrier}/{origin}")):
    """The same fields, another operation."""

    carrier: Annotated[str, Key]
    origin: Annotated[str, Key]


class Looked(Intent, name="hostile.looked", requires=PUBLIC):
    """Anybody may."""

    carrier: Annotated[str, Key]
    origin: Annotated[str, Key]


class Stored(Intent, name="hostile.stored", topic="files", requires=ShelfCap.write("/{owner}/{path...}")):
    """A file, on a public topic of its own."""

    owner: Annotated[str, Key]
    path: str


class Totalled(Intent, name="hostile.totalled", topic="totals", requires=GateCap.report("/{carrier}/{origin}")):
    """What only the topology says, on an internal topic."""

    carrier: Annotated[str, Key]
    origin: str
    delay: int


class Gate(State):
    """One gate of one carrier."""

    departed: int = 0
    delay: int = 0
    cancelled: int = 0
    looked: int = 0


class Shelf(State):
    """One owner's files."""

    stored: int = 0
    length: int = 0


class Total(State):
    """One carrier."""

    departed: int = 0
    delay: int = 0


class Gates(Reactor[Gate], id="gates"):
    """Every handler leaves a trace in the state, and each asks for something to be sent."""

    @on
    def departed(self, intent: Departed, state: Gate, ctx: Context) -> Effects:
        state.departed += 1
        state.delay += intent.delay
        return [
            Emit(Totalled(carrier=intent.carrier, origin=intent.origin, delay=intent.delay)),
            Reply({"departed": intent.origin}),
        ]

    @on
    def cancelled(self, intent: Cancelled, state: Gate, ctx: Context) -> Effects:
        state.cancelled += 1
        return Reply({"cancelled": intent.origin})

    @on
    def looked(self, intent: Looked, state: Gate, ctx: Context) -> Effects:
        state.looked += 1
        return Reply({"looked": intent.origin})


class Shelves(Reactor[Shelf], id="shelves"):
    """Keeps files."""

    @on
    def stored(self, intent: Stored, state: Shelf, ctx: Context) -> Effects:
        state.stored += 1
        state.length += len(intent.path)
        return Reply({"stored": intent.path})


class Totals(Reactor[Total], id="totals"):
    """Lives behind the internal topic."""

    @on
    def totalled(self, intent: Totalled, state: Total, ctx: Context) -> None:
        state.departed += 1
        state.delay += intent.delay


hostile = Topology(
    "hostile",
    [Gates, Shelves, Totals],
    internal=["totals"],
    replies=["replies", "answers.*"],
    partitions=2,
)
