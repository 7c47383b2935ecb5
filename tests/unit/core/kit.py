"""A topology whose handlers do as they are told, and a lane to be fed by hand."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Forget,
    Intent,
    Key,
    Reactor,
    Reply,
    State,
    Tally,
    Topology,
    on,
    operation,
)
from pf_stream.core import Authority, CommitUnit, Lane, Limits, Rewind, SourceRecord, plan
from pf_stream.core.decoding import decode_whole
from pf_stream.core.records import APPEND_TIME, Header
from pf_stream.security import SigningKey, TrustRoots, Verifier, mint

NOW_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z, where the driver's clock stands at first."""


class BoxCap(Capability):
    """What may be done with boxes: ``/{room}/{box}``."""

    put = operation()
    own = operation(implies=put)


class Put(Intent, name="box.put", version=1, requires=BoxCap.put("/{room}/{box}")):
    """Put an item into a box."""

    box: Annotated[str, Key]
    item: str = ""
    room: str = "attic"
    act: str = "keep"
    """What the handlers do: see :class:`Boxes` and :class:`Watch`."""
    items: list[str] = Field(default_factory=list)


class Moved(Intent, name="box.moved", version=1, topic="moves", requires=BoxCap.put("/{room}/{box}")):
    """What a ``Put`` means for its room."""

    room: Annotated[str, Key]
    box: str
    item: str


class Ping(Intent, name="box.ping", version=1, requires=PUBLIC):
    """Anybody may."""

    box: Annotated[str, Key]
    rounds: int = 0


class Pong(Intent, name="box.pong", version=1, topic="moves", requires=PUBLIC):
    """Sends itself onward, *rounds* times."""

    room: Annotated[str, Key]
    rounds: int


class Stray(Intent, name="box.stray", version=1, requires=PUBLIC):
    """No topology knows it."""

    box: Annotated[str, Key]


class Box(State):
    """One box."""

    items: list[str] = dataclasses.field(default_factory=list)
    weight: int = 0
    anything: list[Any] = dataclasses.field(default_factory=list)


class UnprintableError(Exception):
    """Raised by a handler that means it ill."""

    def __str__(self) -> str:
        raise RuntimeError


class WorkerKilled(BaseException):
    """Stands for what ends a process: nothing catches it."""


class Boxes(Reactor[Box], id="boxes"):
    """Every act but ``keep`` and ``forget`` is a way to go wrong, after the state was changed."""

    @on
    def put(self, intent: Put, state: Box, ctx: Context) -> Effects:
        state.items.append(intent.item)
        state.weight += 1
        match intent.act:
            case "raise":
                raise ValueError(f"no room for {intent.item}")
            case "raise surrogate":
                raise ValueError("\ud800")
            case "raise unprintable":
                raise UnprintableError
            case "raise long":
                raise ValueError("x" * 2_000_000)
            case "return nonsense":
                return "nonsense"  # type: ignore[return-value]
            case "return nonsense among effects":
                return [Reply({"n": 1}), None]  # type: ignore[list-item]
            case "emit stray":
                return Emit(Stray(box=intent.box))
            case "emit huge":
                return Emit(Moved(room=intent.room, box=intent.box, item="x" * 1_000_000))
            case "reply object":
                return Reply({"object": object()})
            case "reply huge":
                return Reply({"text": "x" * 1_000_000})
            case "wrong type":
                state.weight = "heavy"  # type: ignore[assignment]
            case "wrong item":
                state.items.append(3)  # type: ignore[arg-type]
            case "circle":
                state.anything.append(state.anything)
            case "surrogate":
                state.anything.append("\ud800")
            case (
                "swell"
            ):  # where no later act takes it away: what is too large only between two intents is never stored
                state.anything.append("x" * 30_000)
            case "adopt":
                state.items = intent.items
            case "tally":
                return [Tally("late", 2), Tally("late"), Tally("opened")]
            case "tally under a long name":
                return Tally("x" * 33)
            case "tally less":
                return Tally("late", -1)
            case "tally a half":
                return Tally("late", 0.5)  # type: ignore[arg-type]
            case "die":
                raise WorkerKilled
        return [
            *([Forget()] if intent.act == "forget" else []),
            Emit(Moved(room=intent.room, box=intent.box, item=intent.item)),
            Reply({"items": state.items, "weight": state.weight}),
        ]

    @on
    def ping(self, intent: Ping, state: Box, ctx: Context) -> Effects:
        state.weight += 1
        return Emit(Pong(room=intent.box, rounds=intent.rounds)) if intent.rounds else None


class Watched(State):
    """What the second reactor saw of a box."""

    items: list[str] = dataclasses.field(default_factory=list)
    writers: list[str] = dataclasses.field(default_factory=list)


class Watch(Reactor[Watched], id="watch"):
    """Handles the same type as :class:`Boxes`, after it."""

    @on
    def seen(self, intent: Put, state: Watched, ctx: Context) -> None:
        if intent.items:
            state.items = intent.items
        state.items.append(intent.item)
        state.writers.append(ctx.subject)
        if intent.act == "raise in the second":
            raise RuntimeError("the second reactor cannot")


class Room(State):
    """One room."""

    items: list[str] = dataclasses.field(default_factory=list)
    pongs: int = 0


class Rooms(Reactor[Room], id="rooms"):
    """Lives behind an internal topic."""

    @on
    def moved(self, intent: Moved, state: Room, ctx: Context) -> None:
        state.items.append(intent.item)

    @on
    def pong(self, intent: Pong, state: Room, ctx: Context) -> Effects:
        state.pongs += 1
        return Emit(Pong(room=intent.room, rounds=intent.rounds - 1)) if intent.rounds else None


boxes = Topology("box", [Boxes, Watch, Rooms], internal=["moves"], replies=["replies", "box.replies.*"])

KEY = SigningKey.generate(1)
TOKEN = mint(KEY, subject="ann", audience="box", capabilities=[BoxCap.put("/**")], now_ms=NOW_MS)

LIMITS = Limits()

S = TypeVar("S", bound=State)


def event(intent: Intent, token: str | None = TOKEN, *more: Header) -> list[Header]:
    """The headers of an intent, in binary mode."""
    context: list[Header] = [] if token is None else [("pf-context", token.encode())]
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", intent.__intent__.type.encode()),
        ("ce_source", b"/kit"),
        ("ce_id", b"1"),
        ("content-type", b"application/json"),
        *context,
        *more,
    ]


def record(
    offset: int,
    intent: Intent,
    token: str | None = TOKEN,
    *more: Header,
    timestamp: int = NOW_MS,
    timestamp_type: int = APPEND_TIME,
) -> SourceRecord:
    """The record of an intent."""
    spec = intent.__intent__
    return SourceRecord(
        offset, timestamp, spec.key_of(intent), spec.encode(intent), event(intent, token, *more), timestamp_type
    )


plans = functools.cache(plan)
"""A plan is frozen, and takes longer to make than most tests take with it."""


class Bench:
    """A lane of one of the groups of a topology, its changelog, and nothing else."""

    def __init__(
        self,
        topology: Topology = boxes,
        group: str = "intents",
        *,
        partition: int = 0,
        partitions: int = 1,
        limits: Limits = LIMITS,
        changelog: Sequence[tuple[bytes, bytes | None]] = (),
    ) -> None:
        self.changelog = list(changelog)
        self.plan = next(one for one in plans(topology, partitions) if one.name == group)
        self.authority = Authority(Verifier(TrustRoots.of(KEY), topology.namespace))
        self.lane = Lane(self.plan, partition, self.authority, limits)
        self.lane.restore(self.changelog)
        self.positions = self.lane.begin("life1")
        for topic, position in self.positions.items():
            if position is None:
                self.lane.start_at(topic, 0, bytes(16))

    def feed(self, *records: SourceRecord, topic: str = "box.intents", now_ms: int = NOW_MS) -> bool:
        """Step over records."""
        return self.lane.step(topic, records, now_ms)

    def commit(self) -> CommitUnit:
        """Seal the open unit, which must be possible, and append it."""
        unit = self.lane.seal()
        assert isinstance(unit, CommitUnit)
        self.changelog.extend(unit.entries)
        self.lane.acknowledged()
        return unit

    def commit_all(self, *records: SourceRecord, topic: str = "box.intents", now_ms: int = NOW_MS) -> list[CommitUnit]:
        """Step and seal until all records are decided, going back where a unit is taken back."""
        units: list[CommitUnit] = []
        while True:
            self.feed(*records, topic=topic, now_ms=now_ms)
            unit = self.lane.seal()
            if isinstance(unit, Rewind):
                continue
            self.changelog.extend(unit.entries)
            self.lane.acknowledged()
            if not unit.count:
                return units
            units.append(unit)

    def state(self, state_type: type[S], reactor: str, key: str) -> S | None:
        """The sealed state."""
        stored = self.lane.stored(reactor, key.encode())
        if stored is None:
            return None
        spec = next(one.spec for one in self.plan.reactors if one.spec.id == reactor)
        assert spec.state_type is state_type
        state: S = decode_whole(spec, key.encode(), stored, self.lane.entries(reactor, key.encode()))
        return state


def codes(units: Iterable[CommitUnit]) -> list[tuple[str, int]]:
    """Code and offset of the dead letters in units."""
    found = []
    for unit in units:
        for output in unit.outputs:
            headers = dict(output.headers)
            if output.topic.endswith(".dlq"):
                found.append(
                    ((headers["pf-error-code"] or b"").decode(), int(headers["__streams.errors.offset"] or b"-1"))
                )
    return found
