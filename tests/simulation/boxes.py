"""Boxes: two hops, good and bad intents, and a number on each that shows what became of it.

The fold at the end is written down from what was sent, not from the engine: what each intent must have done, once.
"""

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple

import orjson

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
    Schedule,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.core import Limits
from pf_stream.core.records import Header
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.security import mint
from tests.simulation.promise import broken, same
from tests.simulation.workload import (
    KEY,
    PARTITIONS,
    START_MS,
    Batch,
    Once,
    States,
    Workload,
    name_in,
)

__all__ = ["Boxes"]


class ShelfCap(Capability):
    """Who may put what where: ``/{box}``."""

    put = operation()


class Put(Intent, name="sim.put", version=1, requires=ShelfCap.put("/{box}")):
    """Put a number into a box, and its box into a room."""

    box: Annotated[str, Key]
    number: int
    room: str
    act: str = "keep"
    timer_s: float | None = None
    padding: str = ""


class Moved(Intent, name="sim.moved", version=1, topic="moves", requires=ShelfCap.put("/{box}")):
    """What a ``Put`` means for its room; on an internal topic."""

    room: Annotated[str, Key]
    box: str
    number: int


class Told(Intent, name="sim.told", version=1, topic="told", requires=PUBLIC):
    """Another topology is told of a number by the first hop."""

    number: Annotated[int, Key]


class Heard(Intent, name="sim.heard", version=1, topic="heard", requires=PUBLIC):
    """Another topology is told of a number by the second hop."""

    number: Annotated[int, Key]


class Rang(Intent, name="sim.rang", version=1, requires=ShelfCap.put("/{box}")):
    """A timer that a ``Put`` has set."""

    box: Annotated[str, Key]
    number: int
    due_ms: int


class Rung(Intent, name="sim.rung", version=1, topic="rung", requires=PUBLIC):
    """Another topology is told of a number by a timer."""

    number: Annotated[int, Key]


class Box(State):
    """The numbers that were put here, in order, and those for which a timer rang."""

    numbers: list[int] = dataclasses.field(default_factory=list)
    rung: list[int] = dataclasses.field(default_factory=list)
    weight: int = 0
    padding: str = ""


class BoxReactor(Reactor[Box], id="boxes"):
    """The first hop. Every act but ``keep`` is poison, after the state was changed."""

    @on
    def put(self, intent: Put, state: Box, ctx: Context) -> Effects:
        state.numbers.append(intent.number)
        match intent.act:
            case "raise":
                raise ValueError(f"no room for {intent.number}")
            case "nonsense":
                return "nonsense"  # type: ignore[return-value]
            case "wrong type":
                state.weight = "heavy"  # type: ignore[assignment]
            case "swell":
                state.padding = "x" * 60_000
        effects: list[Emit | Reply | Schedule] = [
            Emit(Moved(room=intent.room, box=intent.box, number=intent.number)),
            Emit(Told(number=intent.number)),
            Reply({"number": intent.number}),
        ]
        if intent.timer_s is not None:
            due_ms = round(ctx.now.timestamp() * 1000) + round(intent.timer_s * 1000)
            effects.append(Schedule(Rang(box=intent.box, number=intent.number, due_ms=due_ms), after=intent.timer_s))
        return effects

    @on
    def rang(self, intent: Rang, state: Box, ctx: Context) -> Effects:
        if ctx.now.timestamp() * 1000 < intent.due_ms:
            raise RuntimeError("too early")
        state.rung.append(intent.number)
        return Emit(Rung(number=intent.number))


class Room(State):
    """The numbers that came into this room, in the order in which they came."""

    numbers: list[int] = dataclasses.field(default_factory=list)


class RoomReactor(Reactor[Room], id="rooms"):
    """The second hop."""

    @on
    def moved(self, intent: Moved, state: Room, ctx: Context) -> Effects:
        state.numbers.append(intent.number)
        return Emit(Heard(number=intent.number))


TOPOLOGIES: Final = [
    Topology(
        "sim",
        [BoxReactor, RoomReactor],
        internal=["moves"],
        replies=["replies", "answers.*"],
        emits=[Told, Heard, Rung],
        partitions=PARTITIONS,
        standby=standby,
    )
    for standby in (0, 1)
]
"""By how many other workers follow each lane."""

TOKEN = mint(
    KEY,
    subject="ann",
    audience="sim",
    capabilities=[ShelfCap.put("/**")],
    now_ms=START_MS - 3_600_000,
    lifetime_s=86_400,
)
REPLIES: Final = b"sim.replies"
NOBODY: Final = b"answers.nobody"
"""A topic that does not exist: who asks for a reply there gets none, and holds up nobody."""
POISON: Final = {
    "raise": "handler_failed",
    "nonsense": "bad_effect",
    "wrong type": "bad_state",
    "swell": "unit_too_large",
}
LIMITS: Final = (
    Limits(unit_records=1, unit_bytes_hard=50_000),
    Limits(unit_records=3, unit_bytes_hard=50_000, inline_bytes=500),
    Limits(unit_records=50, unit_bytes_hard=50_000, inline_bytes=0),
)


class Position(NamedTuple):
    """Where a record of the intents topic lies."""

    partition: int
    offset: int


@dataclass
class Expected:
    """What must have become of all that was sent."""

    boxes: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of each box, in the order of its partition's log."""
    rooms: dict[str, Counter[int]] = field(default_factory=dict)
    """Numbers of each room: they come from several lanes, in whatever order."""
    rung: dict[str, Counter[int]] = field(default_factory=dict)
    """Numbers of each box for which a timer must ring."""
    told: Counter[int] = field(default_factory=Counter)
    replies: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    """Number, or ``None`` and the code of a refusal."""
    dead: Counter[tuple[Position, str]] = field(default_factory=Counter)


class Boxes(Workload):
    """Numbers are put into boxes, and their boxes into rooms."""

    def __init__(self, dice: random.Random, standby: bool) -> None:
        super().__init__(dice)
        self.topology = TOPOLOGIES[standby]
        self.limits = dice.choice(LIMITS)
        self._expected = Expected()
        self._sent = 0
        self._partition = 0
        self._pending: list[tuple[Put, str | None, bool]] = []

    def batch(self, count: int, now_ms: int) -> Batch:
        partition = self._partition = self.dice.randrange(PARTITIONS)
        now_ms -= self.dice.choice([0, 5000])
        builder = BatchBuilder(1 << 20, compress=self.dice.random() < 0.5)
        for _ in range(count):
            put, fault, headers = self._choose(partition, now_ms)
            key, value = put.__intent__.key_of(put), put.__intent__.encode(put)
            match fault:
                case "malformed_payload":
                    value = b"{"
                case "key_mismatch":
                    key = b"another"
            builder.append(now_ms, key, value, headers)
            self._pending.append((put, fault, ("pf-reply-to", REPLIES) in headers))
        return Batch("sim.intents", partition, builder.build())

    def _choose(self, partition: int, now_ms: int) -> tuple[Put, str | None, list[Header]]:
        dice = self.dice
        self._sent += 1
        number = self._sent
        misplaced = dice.random() < 0.1
        # A misplaced record may be overtaken by a later one, so each has a box of its own.
        held = not misplaced and dice.random() < 0.05  # and one that is put aside too
        apart = misplaced or held
        box = name_in((partition + misplaced) % PARTITIONS, f"m{number}-" if apart else f"b{dice.randrange(2)}-")
        act, fault = "keep", None
        if not apart and dice.random() < 0.15:
            fault = dice.choice([*POISON.values(), "missing_context", "malformed_payload", "key_mismatch"])
            act = next((act for act, code in POISON.items() if code == fault), "keep")
        put = Put(
            box=box,
            number=number,
            room=f"r{dice.randrange(3)}",
            act=act,
            timer_s=dice.choice([None] * 6 + [0.0, 0.02, 0.5, 20.0]),
            padding=dice.choice(["", "", "", "x" * 600]),
        )
        headers: list[Header] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"sim.put.v1"),
            ("ce_source", b"/simulation"),
            ("ce_id", b"%d" % number),
            ("content-type", b"application/json"),
        ]
        if fault != "missing_context":
            headers.append(("pf-context", TOKEN.encode()))
        if held:
            due = datetime.fromtimestamp(now_ms / 1000 + dice.choice([0.01, 0.3, 15.0]), UTC)
            headers.append(("pf-not-before", due.isoformat().encode()))
        reply_to = dice.choice([None, None, REPLIES, NOBODY])
        if reply_to is not None:
            headers.append(("pf-reply-to", reply_to))
        return put, fault, headers

    def appended(self, offset: int) -> None:
        expected = self._expected
        pending, self._pending = self._pending, []
        for put, fault, reply in pending:
            at = Position(self._partition, offset)
            offset += 1
            if fault is not None:
                expected.dead[at, fault] += 1
                if reply and fault != "missing_context":
                    expected.replies[None, fault] += 1
                continue
            expected.boxes.setdefault(put.box, []).append(put.number)
            expected.rooms.setdefault(put.room, Counter())[put.number] += 1
            expected.told[put.number] += 1
            if put.timer_s is not None:
                expected.rung.setdefault(put.box, Counter())[put.number] += 1
            if reply:
                expected.replies[put.number, ""] += 1

    def check_states(self, states: States, when: str) -> None:
        """Each state is the fold of what was sent."""
        expected = self._expected
        numbers = {at: stored.state["numbers"] for at, stored in states.items()}
        boxes = {key: value for (reactor, key), value in numbers.items() if reactor == "boxes"}
        rooms = {key: value for (reactor, key), value in numbers.items() if reactor == "rooms"}
        rung = {key: Counter(stored.state["rung"]) for (_, key), stored in states.items() if stored.state.get("rung")}
        same("wrong state", f"boxes {when}", boxes, expected.boxes)
        same("wrong state", f"timers {when}", rung, expected.rung)
        same("wrong state", f"rooms {when}", {key: Counter(room) for key, room in rooms.items()}, expected.rooms)
        for room, found in rooms.items():
            for box, wanted in expected.boxes.items():
                came = [number for number in found if number in set(wanted)]
                if came != [number for number in wanted if number in set(came)]:
                    broken("wrong order", f"in room {room} from box {box}: {came}")

    def check_outputs(self, once: Once) -> None:
        expected = self._expected
        for topic, reader in (("told", "numbers told"), ("heard", "numbers heard")):
            numbers = [orjson.loads(record.value or b"")["number"] for record in once(f"sim.{topic}")]
            same("wrong outputs", reader, Counter(numbers), expected.told)
        rung = Counter(orjson.loads(record.value or b"")["number"] for record in once("sim.rung"))
        same("wrong outputs", "numbers rung", rung, sum(expected.rung.values(), Counter()))
        replies: Counter[tuple[int | None, str]] = Counter()
        for record in once("sim.replies"):
            code = dict(record.headers).get("pf-error-code") or b""
            replies[orjson.loads(record.value or b"").get("number"), code.decode()] += 1
        same("wrong outputs", "replies", replies, expected.replies)
        dead: Counter[tuple[tuple[int, int], str]] = Counter()
        for record in once("sim.intents.dlq"):
            headers = {name: (value or b"").decode() for name, value in record.headers}
            at = int(headers["__streams.errors.partition"]), int(headers["__streams.errors.offset"])
            dead[at, headers["pf-error-code"]] += 1
        same("wrong outputs", "dead letters", dead, expected.dead)
        if once("sim.moves.dlq"):
            broken("wrong outputs", "an internal record became a dead letter")
