"""A lane without Kafka, from fetched bytes to an acknowledged commit, in a process of its own.

A process for each point: what one keeps, a million states or a hundred thousand tokens, is not in the caches, nor in the
garbage collections, of another.
"""

import gc
import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Final

from bench.growth.load import Load, account, batch, fetched, tokens
from bench.growth.topology import Accounts, Balance, topology
from pf_stream.clock import WallClock
from pf_stream.core import Authority, CommitUnit, Lane, Limits, changelog, plan
from pf_stream.engine.contexts import ContextMaker
from pf_stream.engine.encode import OutboxBuilder, encode_unit, outbox_records
from pf_stream.engine.reader import PARTITION_BYTES
from pf_stream.kafka.batch import Chunk
from pf_stream.security import SigningKey, TrustRoots, Verifier
from pf_stream.security.narrowing import Narrower

__all__ = ["AXES", "Point", "measure"]

TURN_BYTES: Final = 64 << 20
"""Most bytes of the records of a turn."""
STRIDE: Final = 16
"""As the runner takes records."""
LIVE: Final = 100_000
"""Keys that are visited before it counts: more than a lane keeps as objects."""
PARTITIONS: Final = 4
"""Of the topic of the outputs."""


@dataclass(frozen=True, slots=True)
class Point:
    """What is much, and how much of all there is."""

    axis: str
    """Name of what is varied."""
    x: int
    """Its value."""
    unit: int = 1_000
    """Records of a unit, and of a fetched batch if that is below what is fetched of a partition at once."""
    keys: int = 1_000
    """Accounts that exist; each record is for one at random."""
    tokens: int = 1_000
    """Distinct ones, each with a resource of its own; each record has one at random."""
    size: int = 200
    """Bytes of a value."""

    @property
    def batch(self) -> int:
        """Records of a fetched batch."""
        return max(1, min(self.unit, PARTITION_BYTES // (self.size + 600)))

    def records(self, wanted: int) -> int:
        """How many make a turn of some *wanted*, in whole units."""
        return max(1, min(wanted, TURN_BYTES // self.size) // self.unit) * self.unit


AXES: Final = {
    "unit": [Point("unit", x, unit=x) for x in (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)],
    "keys": [Point("keys", x, keys=x) for x in (1, 10, 100, 1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)],
    "tokens": [Point("tokens", x, tokens=x) for x in (1, 10, 100, 1_000, 3_000, 10_000, 30_000, 100_000)],
    "payload": [Point("payload", x, unit=100, size=x) for x in (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)],
}
"""The points, by what is varied."""


class Case:
    """A lane at one point."""

    def __init__(self, point: Point) -> None:
        self.point = point
        key = SigningKey.generate(1)
        roots = TrustRoots.of(key)
        (group,) = plan(topology, 1)
        verifier = Verifier(roots, topology.namespace)
        contexts = ContextMaker(Narrower(verifier, roots), WallClock())
        targets = {emit.topic: PARTITIONS for emit in group.emits.values()}
        self._topic = group.sources[0].topic
        self._load = Load(tokens(key, topology.namespace, point.tokens), point.size)
        self._dice = random.Random(point.x)  # noqa: S311 - to be repeated
        # A unit is to be as long as it is said to be, however many bytes that are.
        limits = Limits(unit_records=max(2_000, point.unit), unit_bytes=1 << 30, unit_bytes_hard=1 << 30)
        self.lane = Lane(
            group,
            0,
            Authority(verifier),
            limits,
            lambda incarnation, sequence: OutboxBuilder(incarnation, sequence, targets, contexts),
        )
        # What earlier lives of the lane have left; each state has bytes of its own.
        value = changelog.pack_state(1, Accounts.__reactor__.state.encode(Balance(count=1, total=1)))
        prefix = group.reactors[0].prefix
        for first in range(0, point.keys, 10_000):
            some = range(first, min(point.keys, first + 10_000))
            self.lane.restore(
                (changelog.state_key(prefix, account(number)), bytes(bytearray(value))) for number in some
            )
        for topic in self.lane.begin("bench"):
            self.lane.start_at(topic, 0, bytes(16))
        self._warm()

    def _warm(self) -> None:
        """Meet each token once, and as many keys as the lane keeps objects, or all of them."""
        point = self.point
        wanted = max(2_000, point.unit, point.tokens, min(point.keys, LIVE))
        for first in range(0, wanted, 10_000):
            some = range(first, min(wanted, first + 10_000))
            self._handle(self._batches([(seq % point.keys, seq % point.tokens) for seq in some]))

    def turn(self, wanted: int) -> float:
        """Microseconds of processor time for a record, all threads, over about as many as are *wanted*."""
        point, dice = self.point, self._dice
        count = point.records(wanted)
        batches = self._batches([(dice.randrange(point.keys), dice.randrange(point.tokens)) for _ in range(count)])
        began = time.process_time()
        self._handle(batches)
        return (time.process_time() - began) / count * 1e6

    def _batches(self, drawn: list[tuple[int, int]]) -> list[bytes]:
        load, size = self._load, self.point.batch
        begin = self.lane.positions[self._topic]
        rows = (load.row(begin + at, *one) for at, one in enumerate(drawn))
        return [fetched(batch(islice(rows, size)), begin + first) for first in range(0, len(drawn), size)]

    def _handle(self, batches: list[bytes]) -> None:
        lane, unit, clock = self.lane, self.point.unit, WallClock()
        for raw in batches:
            records = Chunk(raw, (), "bench")
            exhausted = False
            while not exhausted:
                exhausted = lane.step(self._topic, records, clock.now_ms(), min(STRIDE, unit - lane.count))
                if lane.count >= unit:
                    self._commit()
        if lane.has_work:
            self._commit()

    def _commit(self) -> None:
        lane = self.lane
        unit = lane.seal()
        assert isinstance(unit, CommitUnit)
        assert not unit.refused
        outbox = unit.outputs.entries()
        encode_unit(unit, outbox_records(unit.sequence, outbox), WallClock().now_ms())
        lane.acknowledged()
        lane.sent(unit.sequence, outbox)


def measure(points: list[Point], rounds: int, wanted: int) -> Iterator[tuple[Point, float]]:
    """A turn of each point in each round: microseconds for a record."""
    with ExitStack() as stack:
        stations = [stack.enter_context(_station(point)) for point in points]
        for station in stations:
            station.recv()  # it is warm
        for _ in range(rounds):
            for point, station in zip(points, stations, strict=True):
                station.send(wanted)
                yield point, station.recv()


@contextmanager
def _station(point: Point) -> Iterator[Connection]:
    """A process that measures a turn whenever it is told how many records that is."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_serve, args=(theirs, point), daemon=True)
    process.start()
    theirs.close()  # so that its end is noticed
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _serve(pipe: Connection, point: Point) -> None:
    case = Case(point)
    # As in a worker that is ready.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    pipe.send(None)
    try:
        while True:
            pipe.send(case.turn(pipe.recv()))
    except (EOFError, KeyboardInterrupt):
        pass  # no more is wanted
