"""A small world for pipelines: points under keys, told about when something comes of them, and a driver that may crash."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import orjson
from hypothesis import strategies as st

from pf_stream import PUBLIC, Capability, Intent, Key, Part, Service, Topology, operation
from pf_stream.core import Limits
from pf_stream.core.changelog import state_key_end
from pf_stream.streams import Windowed
from pf_stream.testing import Action, Driver, OutputRecord

BASE = datetime(2026, 1, 1, tzinfo=UTC)
BASE_MS = round(BASE.timestamp() * 1000)


class PointCap(Capability):
    """Who may report points of which key."""

    report = operation()


class Point(Intent, name="points.point", requires=PointCap.report("/{key}")):
    """Something happened."""

    key: Annotated[str, Key]
    n: int = 0
    place: str = "a"


class Told(Intent, name="points.told", topic="told", requires=PUBLIC):
    """What came of it."""

    key: Annotated[str, Key]
    start: int
    end: int
    kind: str
    value: Any


class Secret(Intent, name="points.secret", topic="secrets", requires=PointCap.report("/{key}")):
    """What came of it, for some."""

    key: Annotated[str, Key]
    value: Any = None


MOST_FIRES = 100
"""How often a lane lets timers fire, up to a thousand at a time, between two records: several times what any test needs."""

SERVICE = Service(7, ["PointCap.report:/**"])


def told(windowed: Windowed[Any]) -> Told:
    """Times in seconds from the beginning."""
    return Told(
        key=windowed.key,
        start=(windowed.start_ms - BASE_MS) // 1000,
        end=-((BASE_MS - windowed.end_ms) // 1000),
        kind=windowed.kind,
        value=windowed.value,
    )


class Event(NamedTuple):
    """A point that is to be sent."""

    key: str
    at: int
    """When it happened, in seconds from the beginning."""
    n: int
    left: bool = True
    """Whether its place is ``left``; else it is ``right``."""


events = st.lists(
    st.builds(Event, st.sampled_from("ab"), st.integers(0, 60), st.integers(-9, 9), st.booleans()), max_size=40
)
"""In no order of time."""


class Bench:
    """A pipeline in a driver that stands an hour after the beginning of time."""

    def __init__(self, part: Part, seed: int = 0, *, partitions: int = 1, crashes: float = 0.0) -> None:
        self.driver = Driver(
            Topology("points", [], parts=[part]),
            seed=seed,
            partitions=partitions,
            now=BASE + timedelta(hours=1),
            # these crashes come by chance and not by what is handled
            limits=Limits(poison_attempts=1 << 30),
        )
        self.token = self.driver.context(PointCap.report("/**"), lifetime_s=86_400)
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        self.crashes_left = 50
        """A lane that crashes for ever before it has sent what it must send would never come to an end."""
        self.crashes = crashes
        self.fires = 0
        self.driver.after_action = self._acted

    def _acted(self, action: Action) -> None:
        self.fires = 0 if action.kind == "step" else self.fires + (action.kind == "fire")
        assert self.fires < MOST_FIRES, "timers fire without end: one sets itself anew for a time that has passed"
        if self.crashes_left and self.dice.random() < self.crashes:
            self.crashes_left -= 1
            self.driver.crash(action.group, action.partition)

    def send(self, events: Iterable[Event]) -> None:
        """One after the other; some of them wait together if the driver crashes."""
        with self.driver.paused() if self.crashes else nullcontext():
            for event in events:
                point = Point(key=event.key, n=event.n, place="left" if event.left else "right")
                self.driver.send(point, self.token, time=BASE + timedelta(seconds=event.at))

    def told(self) -> list[tuple[Any, ...]]:
        """All that was told, without what was sent twice."""
        return [tuple(record.json().values()) for record in once(self.driver.outputs("told"))]

    def check(self) -> None:
        """Nothing was refused, and as many windows are told to be open as the states hold."""
        assert self.driver.dead_letters() == []
        counts: Counter[str] = Counter()
        for lane in self.driver._lanes:
            for reactor in (one.spec.id for one in lane.lane.plan.reactors):
                for key in lane.lane.keys(reactor):
                    state = orjson.loads(lane.lane.stored(reactor, key) or b"{}")
                    counts[reactor] += len(state["open"]) if "open" in state else "made" in state and state["count"] > 0
        assert self.driver.windows == counts

    @property
    def states(self) -> int:
        """How many states there are, by the changelogs as compaction would leave them."""
        return sum(state_key_end(key) == len(key) for key in self._kept(b"\x01s"))

    @property
    def entries(self) -> int:
        """How many entries of maps there are, likewise."""
        return sum(state_key_end(key) < len(key) for key in self._kept(b"\x01s"))

    @property
    def timers(self) -> int:
        """How many timers wait, likewise."""
        return len(self._kept(b"\x01t"))

    def _kept(self, prefix: bytes) -> list[bytes]:
        return [
            key
            for changelog in self.driver._changelogs.values()
            for key, value in dict(changelog.records).items()
            if value is not None and key.startswith(prefix)
        ]


def once(records: Sequence[OutputRecord]) -> list[OutputRecord]:
    """What a reader is left with that drops repetitions."""
    return [*{record.header("pf-source"): record for record in records}.values()]


def clocked(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """Each event with the event clock when it is handled, by the latest so far."""
    clock = -(1 << 40)
    for event in events:
        clock = max(clock, event.at)
        yield event, clock
