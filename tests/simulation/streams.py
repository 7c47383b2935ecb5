"""Streams: pipelines, timers on the event clock, maps and a job, over what comes out of order, twice, or from those who fall silent.

Each run has some of the *kinds* below. In a *strict* one, whoever is silent is waited for, and nothing is out of order by more than
the stages allow: so all that they say is known. In the others lanes are left out after some seconds.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, NamedTuple

import orjson

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Forget,
    Intent,
    Key,
    MapState,
    Part,
    Reactor,
    Schedule,
    Service,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.core import Limits
from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import Header
from pf_stream.core.timers import EVENT
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.security import mint
from pf_stream.streams import (
    Aggregate,
    Windowed,
    aggregate,
    counted,
    early,
    global_window,
    hopping,
    pipeline,
    session,
    sliding,
    stream,
    tumbling,
)
from pf_stream.streams._operator import instant
from pf_stream.streams.stream import End, Stream
from pf_stream.temporal import JobRun, job, jobs
from tests.simulation import reckoning
from tests.simulation.changelogs import Log
from tests.simulation.promise import broken, same
from tests.simulation.reckoning import NOBODY, Result, Sent
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

__all__ = ["END_MS", "KINDS", "PlaceCap", "Seen", "Streams", "intent_of", "topology_of"]

BASE_MS: Final = START_MS - 3 * 86_400_000
"""When everything happens: long ago, so that no worker's clock is before it."""
END_MS: Final = START_MS - 86_400_000
"""The time of what is said last. Everything is over by then."""
BOUND_MS: Final = 60_000
IDLE_MS: Final = 4_000
ROOMS: Final = ["r0", "r1", "r2"]
TICK_MS: Final = 1_800_000


class PlaceCap(Capability):
    """Who may report what: ``/{who}``."""

    report = operation()


class Saw(Intent, name="sim.saw", requires=PlaceCap.report("/{who}")):
    """Somebody saw something in a room."""

    who: Annotated[str, Key]
    room: str
    number: int
    act: str = ""


class Heard(Intent, name="sim.heard", requires=PlaceCap.report("/{who}")):
    """Somebody heard something there."""

    who: Annotated[str, Key]
    room: str
    number: int


class Book(Intent, name="sim.book", requires=PlaceCap.report("/{who}")):
    """Somebody's ledger changes."""

    who: Annotated[str, Key]
    number: int
    act: str


class Beat(Intent, name="sim.beat", requires=PlaceCap.report("/{who}")):
    """Somebody says what time it is, and nothing else."""

    who: Annotated[str, Key]


class Wake(Intent, name="sim.wake", requires=PUBLIC):
    """A timer on the event clock."""

    who: Annotated[str, Key]
    number: int
    due_ms: int


class Tick(Intent, name="sim.tick", topic="ticks", requires=PlaceCap.report("/clock")):
    """What the job sends."""

    clock: Annotated[str, Key]
    nominal_ms: int


class Said(Intent, name="sim.said", topic="said", requires=PUBLIC):
    """What a stage tells, to another topology."""

    key: Annotated[str, Key]
    stage: str
    start_ms: int = 0
    end_ms: int = 0
    kind: str = ""
    numbers: list[int] = []  # noqa: RUF012 - pydantic copies it


# -- reactors ------------------------------------------------------------------------------------------------------------


class Guest(State):
    """What somebody reported."""

    count: int = 0


class Guests(Reactor[Guest], id="guests", emits=[]):
    """Counts, and refuses some, when others have taken them already."""

    @on
    def saw(self, intent: Saw, state: Guest, ctx: Context) -> None:
        state.count += 1
        if intent.act == "raise":
            raise ValueError(f"nobody saw {intent.number}")

    @on
    def heard(self, intent: Heard, state: Guest, ctx: Context) -> None:
        state.count += 1

    @on
    def beat(self, intent: Beat, state: Guest, ctx: Context) -> Effects:
        return Forget()


class Alarm(State):
    """What somebody is yet to be woken for, and how far the clock was."""

    waits: int = 0
    set: int = 0
    clock_ms: int = 0


class Alarms(Reactor[Alarm], id="alarms", event_time=True, emits=[Said]):
    """Half a minute after it was seen, by the event clock."""

    @on
    def saw(self, intent: Saw, state: Alarm, ctx: Context) -> Effects:
        self._look(state, ctx)
        state.waits += 1
        state.set += 1
        due_ms = ctx.time_ms + 30_000
        wake = Wake(who=intent.who, number=intent.number, due_ms=due_ms)
        return Schedule(wake, at=instant(due_ms), name=str(state.set), clock="event")

    @on
    def wake(self, intent: Wake, state: Alarm, ctx: Context) -> Effects:
        self._look(state, ctx)
        if state.clock_ms < intent.due_ms:
            raise RuntimeError("too early")
        state.waits -= 1
        return Emit(Said(key=intent.who, stage="alarms", numbers=[intent.number]))

    def _look(self, state: Alarm, ctx: Context) -> None:
        assert ctx.watermark_ms is not None
        if ctx.watermark_ms < state.clock_ms:
            raise RuntimeError("the clock went back")
        state.clock_ms = ctx.watermark_ms


class Ledger(State):
    """Numbers, each an entry of its own."""

    rows: MapState[int, list[str]]
    names: MapState[str, int]
    booked: int = 0


class Ledgers(Reactor[Ledger], id="ledgers", emits=[Said]):
    """Puts, deletes, walks and forgets; some of it is taken back."""

    @on
    def book(self, intent: Book, state: Ledger, ctx: Context) -> Effects:
        state.booked += 1
        number = intent.number
        first = state.rows.first()
        match intent.act:
            case "delete" if first is not None:
                del state.rows[first[0]]
            case "change":
                for _, row in state.rows.items(number - 8, number):
                    row.append("changed")
            case "clear":
                return Forget()
            case _:
                state.rows[number] = [intent.act]
                state.names[f"n{number % 3}"] = number
        if intent.act == "raise":
            for key, row in state.rows.items():
                row.append("raised")
                if key % 2:
                    del state.rows[key]
            raise ValueError(f"nobody books {number}")
        return Emit(Said(key=intent.who, stage="ledgers", numbers=[key for key, _ in state.rows.items()]))


class Times(State):
    """For which times the job ran."""

    nominal_ms: tuple[int, ...] = ()


class Clocks(Reactor[Times], id="clocks", emits=[]):
    """Hears the job: a repeat would be heard twice."""

    @on
    def tick(self, intent: Tick, state: Times, ctx: Context) -> None:
        state.nominal_ms += (intent.nominal_ms,)


@job(every="30m", misfire="all")
def ticking(run: JobRun) -> Effects:
    if run.nominal > run.ctx.now:
        raise RuntimeError("too early")
    return Emit(Tick(clock="clock", nominal_ms=round(run.nominal.timestamp() * 1000)))


# -- pipelines -----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two that met."""

    key: str
    left: int
    right: int


def number_of(intent: Saw | Heard | None) -> int:
    return NOBODY if intent is None else intent.number


def pair(left: Saw | None, right: Heard | None) -> Pair:
    return Pair((left or right).room, number_of(left), number_of(right))  # type: ignore[union-attr]


def pair_of_one(left: Saw | None, right: Heard | None) -> Pair:
    return Pair((left or right).who, number_of(left), number_of(right))  # type: ignore[union-attr]


def room_of(intent: Saw | Heard) -> str:
    return intent.room


def numbers_of(window: Windowed[list[int]]) -> list[int]:
    return window.value


def is_gone(heard: Heard) -> bool:
    return heard.number % 5 == 0


NUMBERS: Final[Aggregate[Saw, list[int]]] = aggregate(
    list[int], lambda a, saw: [*a, saw.number], lambda a: a, merge=lambda a, b: a + b, stored=list[int]
)
LISTS: Final[Aggregate[list[int], list[int]]] = aggregate(
    list[int], lambda a, numbers: a + numbers, lambda a: a, stored=list[int]
)


def tell_windows(stage: str, windows: "Stream[Windowed[list[int]]]") -> End:
    def tell(one: Windowed[list[int]]) -> Said:
        return Said(
            key=one.key, stage=stage, start_ms=one.start_ms, end_ms=one.end_ms, kind=one.kind, numbers=one.value
        )

    return windows.emit(tell)


def tell_pairs(stage: str, pairs: "Stream[Pair]") -> End:
    def tell(one: Pair) -> Said:
        return Said(key=one.key, stage=stage, numbers=[one.left, one.right])

    return pairs.emit(tell)


def windows(name: str, window: Any, **emission: Any) -> Part:
    """Numbers by room, in windows."""
    rooms = stream(Saw).key_by(room_of)
    timed = {"late": "late"} if name not in {"counted", "all"} else {}
    return pipeline(name, tell_windows(name, rooms.window(window, **timed).aggregate(NUMBERS, **emission)))


def chained() -> Part:
    """Windows of windows."""
    minutes = stream(Saw).key_by(room_of).window(tumbling("1m", bound="1m"), late="late", name="minutes")
    numbers = minutes.aggregate(NUMBERS).map(numbers_of)
    fives = numbers.key_by(lambda numbers: f"of {min(numbers) % 2}").window(tumbling("5m"), late="late", name="fives")
    return pipeline("chained", tell_windows("chained", fives.aggregate(LISTS)))


def deduped() -> Part:
    """Each once."""

    def tell(saw: Saw) -> Said:
        return Said(key=saw.room, stage="deduped", numbers=[saw.number])

    once = stream(Saw).key_by(room_of).dedupe(lambda saw: str(saw.number), within="24h")
    return pipeline("deduped", once.emit(tell))


def joined() -> Part:
    left, right = stream(Saw).key_by(room_of), stream(Heard).key_by(room_of)
    pairs = left.join(right, pair, before="30s", after="20s", bound="1m", how="outer")
    return pipeline("joined", tell_pairs("joined", pairs))


def as_of() -> Part:
    left, right = stream(Saw).key_by(room_of), stream(Heard).key_by(room_of)
    pairs = left.as_of(right, pair, tolerance="2m", bound="1m", how="left")
    return pipeline("latest", tell_pairs("latest", pairs))


def looked_up() -> Part:
    table = stream(Heard).by_key().table(remove=is_gone)
    pairs = stream(Saw).by_key().lookup(table, pair_of_one, how="left")
    return pipeline("looked", tell_pairs("looked", pairs))


def tables() -> Part:
    table = stream(Heard).by_key().table(remove=is_gone)
    pairs = stream(Saw).by_key().table().join(table, pair_of_one, how="outer")
    return pipeline("tables", tell_pairs("tables", pairs))


# -- kinds ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What there is to be compared at the end of a run."""

    sent: Sequence[Sent]
    """In the order of each partition's log."""
    results: Sequence[Result]
    """What the kind told, in the order of each key's."""
    late: Counter[int]
    """What it said was late."""
    strict: bool
    """Whether nothing may be late."""

    @property
    def saws(self) -> Sequence[Sent]:
        return [one for one in self.sent if one.kind == "saw"]

    @property
    def reports(self) -> Sequence[Sent]:
        return [one for one in self.sent if one.kind != "book"]

    def check_windows(self, name: str, windows: reckoning.Windows) -> None:
        windows.check(name, self.saws, self.results, self.late, strict=self.strict)

    def check_rows(self, *, tables: bool) -> None:
        expected = reckoning.rows_of(self.reports, lambda number: number % 5 == 0, tables=tables)
        for who in {who for who, _ in expected} | {one.key for one in self.results}:
            found = [one.numbers for one in self.results if one.key == who]
            same("wrong outputs", f"rows of {who}", found, [numbers for key, numbers in expected if key == who])

    def check_chained(self) -> None:
        minutes = reckoning.hopping(60_000, 60_000).expected(self.saws)
        expected: dict[reckoning.Span, Counter[int]] = {}
        for (_, start_ms, _), numbers in minutes.items():
            five = start_ms // 300_000 * 300_000
            expected.setdefault((f"of {min(numbers) % 2}", five, five + 300_000), Counter()).update(numbers)
        found = reckoning.told("chained", self.results)
        if self.strict:
            same("wrong outputs", "windows of windows", found, expected)
            same("wrong outputs", "what is late for them", self.late, Counter())
        else:
            taken = sum(found.values(), Counter()) + self.late
            same("wrong outputs", "windows of windows", taken, Counter(one.number for one in self.saws))

    def check_once(self) -> None:
        numbers = Counter(one.numbers[0] for one in self.results)
        same("wrong outputs", "each once", numbers, Counter({one.number for one in self.saws}))


@dataclass(frozen=True)
class Kind:
    """Something that a run may have in it."""

    make: Callable[[], Part | list[type[Reactor[Any]]]]
    """The part, or reactors."""
    check: Callable[[Seen], None]
    """Looks at what it told."""
    keeps: tuple[str, ...] = ()
    """Reactors of it that have states when everything is over."""


KINDS: Final[dict[str, Kind]] = {
    "tumbling": Kind(
        lambda: windows("tumbling", tumbling("1m", bound="1m")),
        lambda seen: seen.check_windows("tumbling", reckoning.hopping(60_000, 60_000)),
    ),
    "graced": Kind(
        lambda: windows("graced", tumbling("1m", bound="1m", grace="2m")),
        lambda seen: seen.check_windows("graced", reckoning.hopping(60_000, 60_000)),
    ),
    "hopping": Kind(
        lambda: windows("hopping", hopping("2m", every="40s", bound="1m"), emit=early(records=2)),
        lambda seen: seen.check_windows("hopping", reckoning.hopping(120_000, 40_000)),
    ),
    "sliding": Kind(
        lambda: windows("sliding", sliding("90s", bound="1m")),
        lambda seen: seen.check_windows("sliding", reckoning.sliding(90_000)),
    ),
    "session": Kind(
        lambda: windows("session", session("50s", bound="1m")),
        lambda seen: seen.check_windows("session", reckoning.sessions(50_000)),
    ),
    "chained": Kind(chained, Seen.check_chained),
    "counted": Kind(
        lambda: windows("counted", counted(3)),
        lambda seen: None,  # with its states
        keeps=("counted-window",),
    ),
    "all": Kind(
        lambda: windows("all", global_window(records=4, every="2s")),
        lambda seen: reckoning.check_global(seen.saws, seen.results),
        keeps=("all-window",),
    ),
    "deduped": Kind(deduped, Seen.check_once),
    "joined": Kind(
        joined, lambda seen: reckoning.check_join(30_000, 20_000, seen.reports, seen.results, strict=seen.strict)
    ),
    "latest": Kind(as_of, lambda seen: reckoning.check_as_of(120_000, seen.reports, seen.results, strict=seen.strict)),
    "looked": Kind(looked_up, lambda seen: seen.check_rows(tables=False), keeps=("looked-lookup",)),
    "tables": Kind(tables, lambda seen: seen.check_rows(tables=True), keeps=("tables-tables",)),
    "alarms": Kind(lambda: [Alarms], lambda seen: None, keeps=("alarms",)),
    "ledgers": Kind(lambda: [Ledgers], lambda seen: None, keeps=("ledgers",)),
    "ticking": Kind(
        lambda: jobs(ticking, service=Service(7, ["PlaceCap.report:/*"])),
        lambda seen: None,
        keeps=("clocks", "jobs"),
    ),
}


@cache
def made(name: str) -> Part | list[type[Reactor[Any]]]:
    return KINDS[name].make()


def topology_of(names: Iterable[str], standby: int) -> Topology:
    """One of some kinds."""
    found = {name: made(name) for name in names}
    parts = [one for one in found.values() if isinstance(one, Part)]
    reactors = [reactor for one in found.values() if isinstance(one, list) for reactor in one]
    ticks = "ticking" in found
    return Topology(
        "sim",
        [*reactors, *([Clocks] if ticks else []), Guests],
        internal=["ticks"] if ticks else [],
        emits=[Said],
        parts=parts,
        partitions=PARTITIONS,
        standby=standby,
    )


# -- the workload --------------------------------------------------------------------------------------------------------

TOKEN: Final = mint(
    KEY,
    subject="ann",
    audience="sim",
    capabilities=[PlaceCap.report("/**")],
    now_ms=START_MS - 3_600_000,
    lifetime_s=86_400,
)


class Streams(Workload):
    """Some kinds, over what is seen, heard and booked."""

    def __init__(self, dice: random.Random, standby: bool, kinds: Sequence[str] = ()) -> None:
        """*kinds* are some of the names; a few of them by chance if not given."""
        super().__init__(dice)
        chosen = dice.sample(sorted(KINDS), dice.choice([1, 2, 2, 3]))
        self.kinds = list(kinds) or chosen
        self.topology = topology_of(self.kinds, standby)
        self.strict = dice.random() < 0.6
        self.limits = Limits(
            unit_records=dice.choice([1, 3, 50]),
            inline_bytes=dice.choice([0, 500, 64 << 10]),
            idle_ms=86_400_000 if self.strict else IDLE_MS,
        )
        self._partition = 0
        self._pending: list[Sent] = []
        self._sent: list[Sent] = []
        self._refused: Counter[tuple[int, int]] = Counter()
        """Partition and offset of those at which a handler raises."""
        self._front_ms = BASE_MS
        self._reached_ms: dict[int, int] = {}
        """By partition, how far it is in event time."""
        self._number = 0
        self._before: list[Sent] = []
        """What may be sent again."""
        self.results: dict[str, list[Result]] = {}
        """By kind, what was told."""
        self.late: dict[str, Counter[int]] = {}
        """By kind, what was late."""

    def batch(self, count: int, now_ms: int) -> Batch:
        partition = self._partition = self.dice.choice([0, 0, 1] if self.dice.random() < 0.5 else [0, 1])
        self._pending = [self.choose(partition) for _ in range(count)]
        return self._batch(partition, self._pending, now_ms)

    def _batch(self, partition: int, sent: Iterable[Sent], now_ms: int) -> Batch:
        builder = BatchBuilder(1 << 20, compress=self.dice.random() < 0.5)
        for one in sent:
            intent = intent_of(one)
            headers: list[Header] = [
                ("ce_specversion", b"1.0"),
                ("ce_type", intent.__intent__.type.encode()),
                ("ce_source", b"/simulation"),
                ("ce_id", b"%d" % one.number),
                ("content-type", b"application/json"),
                ("ce_time", instant(one.time_ms).isoformat().encode()),
                ("pf-context", TOKEN.encode()),
            ]
            builder.append(now_ms, intent.__intent__.key_of(intent), intent.__intent__.encode(intent), headers)
        return Batch("sim.intents", partition, builder.build())

    def choose(self, partition: int) -> Sent:
        """What somebody says next whose key lives in *partition*."""
        dice = self.dice
        again = [one for one in self._before if one.partition == partition]
        if again and dice.random() < 0.15:
            # What is sent again happened when it did, and must not be late if nothing may.
            one = dice.choice(again)
            if not self.strict or one.time_ms >= self._front_ms - BOUND_MS:
                return one
        self._number += 1
        kind = dice.choice(["saw", "saw", "heard"])
        act = "raise" if kind == "saw" and dice.random() < 0.06 else ""
        if "ledgers" in self.kinds and dice.random() < 0.5:
            kind, act = "book", dice.choice(["put", "put", "put", "put", "delete", "change", "clear", "raise"])
        disorder_ms = dice.choice([0, 0, 1_000, dice.randrange(BOUND_MS), BOUND_MS])
        if not self.strict and dice.random() < 0.1:
            disorder_ms = dice.randrange(5 * BOUND_MS)
        self._front_ms += dice.choice([0, 0, 1_000, 5_000, 20_000, 70_000])
        time_ms = max(BASE_MS, self._front_ms - disorder_ms)
        time_ms -= time_ms % dice.choice([1_000, 10_000]) if disorder_ms < BOUND_MS - 10_000 else 0
        one = Sent(
            kind,
            partition,
            name_in(partition, f"p{dice.randrange(2)}-"),
            dice.choice(ROOMS),
            self._number,
            time_ms,
            act,
        )
        self._before.append(one)
        return one

    def appended(self, offset: int) -> None:
        for number, one in enumerate(self._pending):
            self._reached_ms[one.partition] = max(self._reached_ms.get(one.partition, 0), one.time_ms)
            if one.act == "raise":
                self._refused[one.partition, offset + number] += 1
            else:
                self._sent.append(one)

    def last(self, now_ms: int) -> Iterable[Batch]:
        # Of those who say nothing more somebody else must find out that they are silent.
        for partition in range(PARTITIONS) if self.strict else [self.dice.randrange(PARTITIONS)]:
            self._reached_ms[partition] = END_MS
            beat = Sent("beat", partition, name_in(partition, "beat"), "", 0, END_MS)
            yield self._batch(partition, [beat], now_ms)

    # -- event clocks --------------------------------------------------------------------------------------------------

    def farthest_ms(self, group: GroupPlan, partition: int) -> int:
        reached = self._reached_ms
        if any(source.topic == "sim.intents" for source in group.sources):
            return reached.get(partition, 0)
        times = [reached.get(number, 0) for number in range(PARTITIONS)]
        return min(times) if self.strict else max(times)

    def left(self, group: GroupPlan, partition: int, log: Log) -> str:
        farthest_ms, due_ms = self.farthest_ms(group, partition), log.due_ms(EVENT)
        # That somebody is silent too long is found out when something depends on it.
        matters = self.strict or (due_ms is not None and due_ms <= farthest_ms)
        if group.event_time and farthest_ms and log.clock_ms != farthest_ms and matters:
            return f"the event clock of {group.name}-{partition} is at {log.clock_ms}, and will be at {farthest_ms}"
        return ""

    # -- what is expected ----------------------------------------------------------------------------------------------

    def check_outputs(self, once: Once) -> None:
        results: dict[str, list[Result]] = {}
        for record in once("sim.said"):
            said = orjson.loads(record.value or b"")
            one = Result(said["key"], said["start_ms"], said["end_ms"], said["kind"], tuple(said["numbers"]))
            results.setdefault(said["stage"], []).append(one)
        late: dict[str, Counter[int]] = {}
        has_late = any(intent.__intent__.topic == "late" for intent in self.topology.emits)
        for record in once("sim.late") if has_late else ():
            stage = (dict(record.headers)["ce_type"] or b"").decode().split(".")[0]
            value = orjson.loads(record.value or b"")["value"]
            late.setdefault(stage, Counter()).update(value if isinstance(value, list) else [value["number"]])
        self.results, self.late = results, late
        for name in self.kinds:
            seen = Seen(self._sent, results.get(name, ()), late.get(name, Counter()), self.strict)
            KINDS[name].check(seen)
        dead: Counter[tuple[int, int]] = Counter()
        for record in once("sim.intents.dlq"):
            headers = {name: (value or b"").decode() for name, value in record.headers}
            same("wrong outputs", "why it is dead", headers["pf-error-code"], "handler_failed")
            dead[int(headers["__streams.errors.partition"]), int(headers["__streams.errors.offset"])] += 1
        same("wrong outputs", "dead letters", dead, self._refused)

    def check_states(self, states: States, when: str) -> None:
        by_reactor: dict[str, dict[str, Any]] = {}
        for (reactor, key), stored in states.items():
            by_reactor.setdefault(reactor, {})[key] = stored.state
        keeps = {"guests", *(reactor for name in self.kinds for reactor in KINDS[name].keeps)}
        same("wrong state", f"reactors that have states {when}", by_reactor.keys() - keeps, set())
        reports = [one for one in self._sent if one.kind != "book"]
        guests = {who: {"count": count} for who, count in Counter(one.who for one in reports).items()}
        same("wrong state", f"guests {when}", by_reactor.get("guests", {}), guests)
        saws = [one for one in reports if one.kind == "saw"]
        for name in self.kinds:
            results = self.results.get(name, [])
            match name:
                case "counted":
                    rest = {room: state["made"] for room, state in by_reactor.get("counted-window", {}).items()}
                    reckoning.check_counted(3, saws, results, rest)
                case "all":
                    counts = {room: state["count"] for room, state in by_reactor.get("all-window", {}).items()}
                    same("wrong state", f"all {when}", counts, Counter(one.room for one in saws))
                case "looked" | "tables":
                    self._check_rows(name, by_reactor, reports, when)
                case "alarms":
                    self._check_alarms(by_reactor.get("alarms", {}), saws, results, when)
                case "ledgers":
                    self._check_ledgers(states, results, when)
                case "ticking":
                    self._check_ticks(by_reactor, when)

    def _check_rows(self, name: str, by_reactor: dict[str, dict[str, Any]], reports: Sequence[Sent], when: str) -> None:
        last = {(one.who, one.kind): one.number for one in reports}
        rows = {at: number for at, number in last.items() if at[1] == "saw" or number % 5}
        if name == "looked":
            found = {
                (who, "heard"): row["row"][0]["number"] for who, row in by_reactor.get("looked-lookup", {}).items()
            }
            rows = {at: number for at, number in rows.items() if at[1] == "heard"}
        else:
            found = {
                (who, kind): one["number"]
                for who, row in by_reactor.get("tables-tables", {}).items()
                for kind, port in (("saw", "left"), ("heard", "right"))
                for one in row[port]
            }
        same("wrong state", f"rows {when}", found, rows)

    def _check_alarms(self, states: dict[str, Any], saws: Sequence[Sent], results: Sequence[Result], when: str) -> None:
        """Who is to be woken by the end of the clock is, once; others wait still."""
        woken = Counter(one.number for one in saws if one.time_ms + 30_000 <= self._reached_ms[one.partition])
        waits = Counter(one.who for one in saws if one.time_ms + 30_000 > self._reached_ms[one.partition])
        same("wrong outputs", "alarms", Counter(one.numbers[0] for one in results), woken)
        found = Counter({who: state["waits"] for who, state in states.items() if state["waits"]})
        same("wrong state", f"alarms {when}", found, waits)

    def _check_ledgers(self, states: States, results: Sequence[Result], when: str) -> None:
        """Each ledger is the fold of its log, and so is what was said of it each time."""
        ledgers: dict[str, tuple[dict[int, list[str]], dict[str, int], int]] = {}
        said: dict[str, list[tuple[int, ...]]] = {}
        for one in self._sent:
            if one.kind != "book":
                continue
            rows, names, booked = ledgers.pop(one.who, ({}, {}, 0))
            if one.act == "clear":
                continue
            if one.act == "delete" and rows:
                del rows[min(rows)]
            elif one.act == "change":
                for key in rows:
                    if one.number - 8 <= key < one.number:
                        rows[key].append("changed")
            else:
                rows[one.number] = [one.act]
                names[f"n{one.number % 3}"] = one.number
            ledgers[one.who] = rows, names, booked + 1
            said.setdefault(one.who, []).append(tuple(sorted(rows)))
        expected = {
            who: (
                {("rows", key): row for key, row in rows.items()} | {("names", key): n for key, n in names.items()},
                booked,
            )
            for who, (rows, names, booked) in ledgers.items()
        }
        found = {
            key: (stored.entries, stored.state["booked"])
            for (reactor, key), stored in states.items()
            if reactor == "ledgers"
        }
        same("wrong state", f"ledgers {when}", found, expected)
        told = {who: [one.numbers for one in results if one.key == who] for who in {one.key for one in results}}
        same("wrong outputs", "what was said of ledgers", told, said)

    def _check_ticks(self, by_reactor: dict[str, dict[str, Any]], when: str) -> None:
        """Each time once, in order, and none left out."""
        times = by_reactor.get("clocks", {}).get("clock", {"nominal_ms": []})["nominal_ms"]
        if times != list(range(times[0] if times else 0, (times[-1] if times else -1) + 1, TICK_MS)):
            broken("wrong state", f"times for which the job ran, {when}: {times}")


def intent_of(sent: Sent) -> Intent:
    """The intent as which it is sent."""
    match sent.kind:
        case "saw":
            return Saw(who=sent.who, room=sent.room, number=sent.number, act=sent.act)
        case "heard":
            return Heard(who=sent.who, room=sent.room, number=sent.number)
        case "book":
            return Book(who=sent.who, number=sent.number, act=sent.act)
    return Beat(who=sent.who)
