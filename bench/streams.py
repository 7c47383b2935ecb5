"""What event time, windows and joins cost: processor time of a record in a lane, beside that of a plain reactor with a state.

No Kafka: records are in batches as a fetch returns them, their token and their resource are known, and a commit is acknowledged
at once. All ways take turns of a thousand records, on the same ones. See bench/README.md.
"""

import argparse
import gc
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pf_stream import PUBLIC, Capability, Context, Effects, Intent, Key, Reactor, State, Topology, on, operation
from pf_stream.clock import WallClock
from pf_stream.core import Authority, CommitUnit, Lane, Limits, plan
from pf_stream.core.records import Header
from pf_stream.engine.contexts import ContextMaker
from pf_stream.engine.encode import OutboxBuilder, encode_unit, outbox_records
from pf_stream.kafka.batch import BatchBuilder, Chunk, crc32c
from pf_stream.security import SigningKey, TrustRoots, Verifier, mint
from pf_stream.security.narrowing import Narrower
from pf_stream.streams import Stream, Windowed, count, hopping, pipeline, session, stream, total, tumbling
from pf_stream.worker.memory import keep_freed_memory

SIZE: Final = 200
"""Bytes of a value."""
TENANTS: Final = 16
PARTITIONS: Final = 4
"""Of the topic of the results."""
TURN: Final = 1_000
"""Records of a turn, and at most of a unit."""
STRIDE: Final = 16
"""As the runner takes records."""
MINUTE_MS: Final = 60_000
DISORDER_MS: Final = 5_000
"""How far records are out of order at most; windows wait for twice as long."""
APPEND_TIME: Final = 0x08
SIGNER: Final = SigningKey.generate(1)
ROOTS: Final = TrustRoots.of(SIGNER)
NAMESPACE: Final = "bench"


class StreamsCap(Capability):
    """Who may say something: ``/{tenant}``."""

    say = operation()


class Asked(Intent, name="streams.asked", topic="streams", requires=StreamsCap.say("/{tenant}")):
    """Something happened."""

    key: Annotated[str, Key]
    tenant: str
    amount: int
    seq: int
    memo: str


class Answered(Intent, name="streams.answered", topic="streams", requires=StreamsCap.say("/{tenant}")):
    """And something else, which belongs to it."""

    key: Annotated[str, Key]
    tenant: str
    amount: int
    seq: int
    memo: str


class Told(Intent, name="streams.told", topic="told", requires=PUBLIC):
    """What came of it."""

    key: Annotated[str, Key]
    at: int
    number: int
    amount: int


class Sums(State):
    """A key."""

    number: int = 0
    amount: int = 0


def _sums(name: str, *, event_time: bool) -> type[Reactor[Any]]:
    class Plain(Reactor[Sums], id=name, event_time=event_time):
        """Counts and adds."""

        @on
        def asked(self, intent: Asked, state: Sums, ctx: Context) -> Effects:
            state.number += 1
            state.amount += intent.amount
            return None

    return Plain


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a window."""

    number: int
    """Values."""
    amount: int
    """Their sum."""


def told(window: Windowed[Summary]) -> Told:
    return Told(key=window.key, at=window.start_ms, number=window.value.number, amount=window.value.amount)


def both(asked: Asked, answered: Answered) -> Told:
    return Told(key=asked.key, at=asked.seq, number=answered.seq, amount=asked.amount + answered.amount)


def _windowed(name: str, window: Any) -> Topology:
    summed: Stream[Windowed[Summary]] = (
        stream(Asked)
        .by_key()
        .window(window)
        .aggregate(Summary, number=count(), amount=total(lambda asked: asked.amount))
    )
    return Topology(name, [], parts=[pipeline(name, summed.emit(told))], namespace=NAMESPACE)


def _joined(name: str, within: str) -> Topology:
    pairs = stream(Asked).by_key().join(stream(Answered).by_key(), both, after=within, bound="10s")
    return Topology(name, [], parts=[pipeline(name, pairs.emit(Told))], namespace=NAMESPACE)


def _as_of(name: str) -> Topology:
    pairs = stream(Asked).by_key().as_of(stream(Answered).by_key(), both, tolerance="1m", bound="10s")
    return Topology(name, [], parts=[pipeline(name, pairs.emit(Told))], namespace=NAMESPACE)


def _lookup(name: str) -> Topology:
    pairs = stream(Asked).by_key().lookup(stream(Answered).by_key().table(), both)
    return Topology(name, [], parts=[pipeline(name, pairs.emit(Told))], namespace=NAMESPACE)


@dataclass(frozen=True, slots=True)
class Way:
    """What is done with which records."""

    make: Callable[[], Topology]
    """Who does it."""
    keys: int = 1_000
    """How many there are."""
    sides: int = 1
    """How many types of records."""


WAYS: Final = {
    "plain": Way(lambda: Topology("plain", [_sums("plain", event_time=False)], namespace=NAMESPACE)),
    "event time": Way(lambda: Topology("timed", [_sums("timed", event_time=True)], namespace=NAMESPACE)),
    "tumbling": Way(lambda: _windowed("tumbling", tumbling("1m", bound="10s"))),
    "hopping": Way(lambda: _windowed("hopping", hopping("1m", every="20s", bound="10s"))),
    "session": Way(lambda: _windowed("session", session("4s", bound="10s"))),
    "join": Way(lambda: _joined("joined", "2s"), sides=2),
    "crowded join": Way(lambda: _joined("crowded", "0s"), keys=2, sides=2),
    "as of": Way(lambda: _as_of("asof"), sides=2),
    "lookup": Way(lambda: _lookup("lookup"), sides=2),
}


class Load:
    """Records, as many as are wanted: a thousand a second of event time, of keys and types at random."""

    def __init__(self, keys: int, sides: int) -> None:
        self._keys = keys
        self._kinds = (b"streams.asked.v1", b"streams.answered.v1")[:sides]
        self._dice = random.Random(keys)  # noqa: S311 - to be repeated
        self._seq = 0
        self.now_ms = WallClock().now_ms() // MINUTE_MS * MINUTE_MS
        """How far event time is."""
        self._tokens = [
            mint(
                SIGNER,
                subject=f"tenant {number}",
                audience=NAMESPACE,
                capabilities=[StreamsCap.say(f"/t{number:02}")],
                now_ms=self.now_ms,
                lifetime_s=86_400,
            ).encode()
            for number in range(TENANTS)
        ]

    def fetch(self) -> bytes:
        """The next turn, as a fetch returns it, from the offset on that is its number."""
        builder = BatchBuilder(16 << 20, compress=False)
        offset = self._seq
        for seq in range(offset, offset + TURN):
            self.now_ms += 1
            happened = self.now_ms - self._dice.randrange(DISORDER_MS)
            number, tenant = self._dice.randrange(self._keys), self._dice.randrange(TENANTS)
            kind = self._dice.choice(self._kinds)
            key = b"k%07d" % number
            head = b'{"key":"%s","tenant":"t%02d","amount":%d,"seq":%d,"memo":"' % (key, tenant, 1 + seq % 7, seq)
            time_ = datetime.fromtimestamp(happened / 1000, UTC).isoformat(timespec="milliseconds")
            headers: list[Header] = [
                ("ce_specversion", b"1.0"),
                ("ce_type", kind),
                ("ce_source", b"/bench"),
                ("ce_id", b"%d" % seq),
                ("ce_time", time_.replace("+00:00", "Z").encode()),
                ("content-type", b"application/json"),
                ("pf-context", self._tokens[tenant]),
            ]
            builder.append(self.now_ms, key, head.ljust(SIZE - 2, b"x") + b'"}', headers)
        self._seq += TURN
        raw = bytearray(builder.build())
        raw[0:8] = offset.to_bytes(8, "big")
        raw[22] |= APPEND_TIME
        raw[17:21] = crc32c(bytes(raw[21:])).to_bytes(4, "big")
        return bytes(raw)


class Work:
    """A lane at work."""

    def __init__(self, topology: Topology) -> None:
        (group,) = plan(topology, 1)
        verifier = Verifier(ROOTS, topology.namespace)
        contexts = ContextMaker(Narrower(verifier, ROOTS), WallClock())
        targets = {emit.topic: PARTITIONS for emit in group.emits.values()}
        self._lane = Lane(
            group,
            0,
            Authority(verifier),
            Limits(),
            lambda incarnation, sequence: OutboxBuilder(incarnation, sequence, targets, contexts),
        )
        self._topic = topology.topic_name("streams")
        for topic in self._lane.begin("bench"):
            self._lane.start_at(topic, 0, bytes(16))
        self.written = 0
        """Bytes of its changelog."""
        self.timers = 0
        """How many have fired."""
        self.told = 0
        """Results."""

    def run(self, raw: bytes, now_ms: int) -> float:
        """Seconds of processor time that a batch takes, all threads."""
        lane = self._lane
        began = time.process_time()
        records = Chunk(raw, (), "bench")
        exhausted = False
        while not exhausted:
            while lane.is_due(now_ms):
                before = lane.count
                lane.fire(now_ms, STRIDE)
                self.timers += lane.count - before
                if lane.is_full:
                    self._commit(now_ms)
            exhausted = lane.step(self._topic, records, now_ms, STRIDE)
            if lane.is_full:
                self._commit(now_ms)
        if lane.has_work:
            self._commit(now_ms)
        return time.process_time() - began

    def _commit(self, now_ms: int) -> None:
        lane = self._lane
        unit = lane.seal()
        assert isinstance(unit, CommitUnit)
        assert not unit.refused, unit.refused[0]
        assert not any(name == "late" for _, name in unit.tallies)
        outbox = unit.outputs.entries()
        self.told += unit.outputs._index
        self.written += len(encode_unit(unit, outbox_records(unit.sequence, outbox), now_ms))
        lane.acknowledged()
        lane.sent(unit.sequence, outbox)


@dataclass(slots=True)
class Row:
    """A line of the table."""

    way: str
    """What is done with the records."""
    us: list[float] = field(default_factory=list)
    """Microseconds of processor time for a record, of each round."""
    ratios: list[float] = field(default_factory=list)
    """That divided by what the plain reactor took in the same round."""
    written: float = 0.0
    """Bytes of the changelog for a record."""
    timers: float = 0.0
    """Timers that fired for a record."""
    told: float = 0.0
    """Results for a record."""


def measure(names: Iterable[str], rounds: int, turns: int) -> list[Row]:
    """Each way, in rounds of so many turns."""
    order = [*names]
    loads_of = {name: (WAYS[name].keys, WAYS[name].sides) for name in order}
    loads = {shape: Load(*shape) for shape in loads_of.values()}
    lanes = {name: Work(WAYS[name].make()) for name in order}
    rows = {name: Row(name) for name in order}

    def turn(took: dict[str, float]) -> None:
        batches = {shape: (load.fetch(), load.now_ms) for shape, load in loads.items()}
        order.append(order.pop(0))  # another one begins
        for name in order:
            took[name] += lanes[name].run(*batches[loads_of[name]])

    for _ in range(80):  # until windows close, and joins hold what they will
        turn(dict.fromkeys(order, 0.0))
    # As in a worker that is ready.
    keep_freed_memory()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    for lane in lanes.values():
        lane.written = lane.timers = lane.told = 0
    for _ in range(rounds):
        took = dict.fromkeys(order, 0.0)
        for _ in range(turns):
            turn(took)
        for name, row in rows.items():
            row.us.append(took[name] / turns / TURN * 1e6)
            row.ratios.append(took[name] / took["plain"])
    count_ = rounds * turns * TURN
    for name, row in rows.items():
        lane = lanes[name]
        row.written, row.timers, row.told = lane.written / count_, lane.timers / count_, lane.told / count_
    return [*rows.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="each of a minute of event time; 5")
    parser.add_argument("--only", default=",".join(WAYS), help=f"ways beside the plain one: {', '.join(WAYS)}")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    names = list(dict.fromkeys(["plain", *given.only.split(",")]))
    if not WAYS.keys() >= set(names):
        parser.error(f"--only: {given.only} are not among {', '.join(WAYS)}")
    conditions = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rounds": given.rounds,
        "records_of_a_round": 60 * TURN,
        "bytes_of_a_value": SIZE,
        "load": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(conditions), flush=True)
    rows = measure(names, given.rounds, 60)
    print(
        "\n| | µs a record | least | most | records/s | against plain | least | most | changelog B | timers | results |"
    )
    print("|---" * 11 + "|")
    for row in rows:
        middle = statistics.median(row.us)
        cells = [
            row.way,
            *(f"{value:.1f}" for value in (middle, min(row.us), max(row.us))),
            f"{1e6 / middle:,.0f}",
            *(f"{value:.2f}" for value in (statistics.median(row.ratios), min(row.ratios), max(row.ratios))),
            f"{row.written:.0f}",
            *(f"{value:.3f}" for value in (row.timers, row.told)),
        ]
        print(f"| {' | '.join(cells)} |")
    if given.json is not None:
        found = [{name: getattr(row, name) for name in Row.__slots__} for row in rows]
        given.json.write_text(json.dumps({"conditions": conditions, "rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
