"""A million timers in one lane: memory, setting and cancelling, recovery, and a hundred thousand that are due at one instant.

No Kafka: the lane is fed by hand, in one process, and what it would append is kept as a changelog that another lane recovers from.
Rates are of processor time. See bench/README.md.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, Final

import psutil

from pf_stream import PUBLIC, Cancel, Context, Effects, Intent, Key, Reactor, Schedule, State, Topology, on
from pf_stream.core import Authority, CommitUnit, Lane, Limits, SourceRecord, plan
from pf_stream.core.records import Header
from pf_stream.core.timers import WALL, Timer, Timers, encode_timer
from pf_stream.security import SigningKey, TrustRoots, Verifier

NOW_MS: Final = 1_767_225_600_000
DAY_MS: Final = 86_400_000
UNIT: Final = 2_000
"""Intents of a unit."""
ROOTS: Final = TrustRoots.of(SigningKey.generate(1))
fired: list[tuple[int, int]] = []
"""When each timer that fired was due, and when it did: noted by the handler, beside its state."""


class Set(Intent, name="timers.set", requires=PUBLIC):
    """Set a timer."""

    key: Annotated[str, Key]
    at_ms: int


class Clear(Intent, name="timers.clear", requires=PUBLIC):
    """Cancel it."""

    key: Annotated[str, Key]


class Ring(Intent, name="timers.ring", requires=PUBLIC):
    """It is time."""

    key: Annotated[str, Key]


class Rung(State):
    """How often it rang."""

    times: int = 0


class Bells(Reactor[Rung], id="bells"):
    """Rings."""

    @on
    def set(self, intent: Set, state: Rung, ctx: Context) -> Effects:
        return Schedule(Ring(key=intent.key), after=(intent.at_ms - ctx.now_ms) / 1000, name="bell")

    @on
    def clear(self, intent: Clear, state: Rung, ctx: Context) -> Effects:
        return Cancel("bell")

    @on
    def ring(self, intent: Ring, state: Rung, ctx: Context) -> Effects:
        assert ctx.due_ms is not None
        fired.append((ctx.due_ms, ctx.now_ms))
        state.times += 1
        return None


TOPIC: Final = "timers.intents"
Changelog = dict[bytes, bytes | None]


def lane_of(changelog: Changelog) -> Lane[Any]:
    """A lane that begins with what is in a changelog."""
    return recovered(changelog.items())[0]


def recovered(changelog: Iterable[tuple[bytes, bytes | None]]) -> tuple[Lane[Any], float]:
    """The same, and how long that took; records are made as they are fetched, and let go."""
    (group,) = plan(Topology("timers", [Bells]), 1)
    lane: Lane[Any] = Lane(
        group, 0, Authority(Verifier(ROOTS, "timers")), Limits(unit_records=UNIT, unit_bytes=64 << 20)
    )
    records, spent = iter(changelog), 0.0
    while piece := list(islice(records, 10_000)):
        begun = time.process_time()
        lane.restore(piece)
        spent += time.process_time() - begun
    begun = time.process_time()
    for topic, position in lane.begin("bench").items():
        if position is None:
            lane.start_at(topic, 0, bytes(16))
    return lane, spent + time.process_time() - begun


def record(offset: int, intent: Intent) -> SourceRecord:
    """An intent as a producer sends it."""
    spec = intent.__intent__
    headers: Sequence[Header] = (
        ("ce_specversion", b"1.0"),
        ("ce_type", spec.type.encode()),
        ("ce_source", b"/bench"),
        ("ce_id", b"%d" % offset),
        ("ce_time", b"2026-01-01T00:00:00Z"),
        ("content-type", b"application/json"),
    )
    return SourceRecord(offset, NOW_MS, spec.key_of(intent), spec.encode(intent), headers)


def seal(lane: Lane[Any], changelog: Changelog) -> None:
    """Commit the open unit."""
    unit = lane.seal()
    assert isinstance(unit, CommitUnit)
    changelog.update(unit.entries)
    lane.acknowledged()


def feed(lane: Lane[Any], changelog: Changelog, make: Callable[[int], Intent], first: int, count: int) -> float:
    """Handle so many intents; returns intents a second."""
    spent = 0.0
    for start in range(first, first + count, UNIT):
        records = [record(offset, make(offset)) for offset in range(start, min(start + UNIT, first + count))]
        begun = time.process_time()
        lane.step(TOPIC, records, NOW_MS)
        seal(lane, changelog)
        spent += time.process_time() - begun
    return count / spent


def fire(lane: Lane[Any], changelog: Changelog, now_ms: int) -> float:
    """Fire all that is due; returns timers a second."""
    before, begun = len(fired), time.process_time()
    while not lane.fire(now_ms):
        seal(lane, changelog)
    if lane.has_work:
        seal(lane, changelog)
    return (len(fired) - before) / (time.process_time() - begun)


def of_timers_alone(count: int) -> tuple[float, float]:
    """Setting and cancelling without a handler: timers a second."""
    timers = Timers()
    waiting = SourceRecord(0, NOW_MS, b"key", b'{"key":"key"}', (("ce_type", b"timers.ring.v1"),))
    keys = [b"%d" % number for number in range(count)]
    begun = time.process_time()
    for number, key in enumerate(keys):
        timers.set(
            key, encode_timer(Timer(NOW_MS + number % DAY_MS, WALL, TOPIC, waiting, NOW_MS, scheduled=True, failed=0))
        )
    timers.seal()
    middle = time.process_time()
    for key in keys:
        timers.cancel(key)
    timers.seal()
    return count / (middle - begun), count / (time.process_time() - middle)


def many_like(key: bytes, value: bytes | None, count: int) -> Iterator[tuple[bytes, bytes]]:
    """So many timers as that one, each of another key and time."""
    assert value is not None
    for number in range(count):
        name = b"key-%07d" % number
        due = (NOW_MS + DAY_MS + number * 37 % DAY_MS).to_bytes(8)
        yield key.replace(b"key-0000000", name), value[:2] + due + value[10:].replace(b"key-0000000", name)


def measure(count: int, at_once: int) -> Iterator[tuple[str, float]]:
    """Each figure and its name."""
    process = psutil.Process()
    changelog: Changelog = {}
    due = NOW_MS + DAY_MS
    lane = lane_of(changelog)
    few = min(count, 50_000)
    yield (
        "set with its handler, a second",
        feed(lane, changelog, lambda n: Set(key=f"key-{n:07}", at_ms=due + n % DAY_MS), 0, few),
    )
    model = next((key, value) for key, value in changelog.items() if key[1:2] == b"t")
    yield (
        "cancelled with its handler, a second",
        feed(lane, changelog, lambda n: Clear(key=f"key-{n - few:07}"), few, few),
    )
    del lane, changelog
    yield from zip(
        ("set alone, a second", "cancelled alone, a second"), of_timers_alone(min(count, 200_000)), strict=True
    )
    gc.collect()
    empty = process.memory_info().rss
    lane, spent = recovered(many_like(*model, count))
    yield "recovery, s", spent
    yield "timers recovered", lane.timers.waiting
    gc.collect()
    yield "memory of them, MB", (process.memory_info().rss - empty) / 1e6
    del lane

    fired.clear()
    changelog = {}
    lane = lane_of(changelog)
    feed(lane, changelog, lambda n: Set(key=f"key-{n}", at_ms=due - n % 3), 0, at_once)
    fire(lane, changelog, due - 3)
    yield "fired early", len(fired)
    yield "fired at one instant, a second", fire(lane, changelog, due)
    fire(lane, changelog, due + DAY_MS)
    yield "fired", len(fired)
    yield "out of order", sum(one[0] > two[0] for one, two in pairwise(fired))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timers", type=int, default=1_000_000)
    parser.add_argument("--at-once", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    found = {}
    for name, figure in measure(arguments.timers, arguments.at_once):
        found[name] = round(figure, 2)
        print(f"{name:40} {figure:>14,.1f}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
