"""Event time under crashes and silence: hours behind an internal topic, and a stage behind that.

For each seed three lanes are sent what was seen, each in the order of its time, and each falls silent now and then, for longer than
it is waited for. How far the clock may be at most is computed here from what was sent, and when. What is not before that
must be counted in its hour; no hour may close before; and in the end all that is over is closed.
"""

import os
import random
from collections import Counter
from functools import cache

import pytest

from pf_stream.core import Limits, partition_of
from pf_stream.testing import Action, Driver
from tests.unit.core.hours import HOUR_MS, START, Room, Rooms, Saw, Total, Totals, at, hours

LANES = 3
IDLE_MS = 4_000
SEEDS = [int(os.environ["PF_SEED"])] if "PF_SEED" in os.environ else range(60)
START_MS = round(START.timestamp() * 1000)
WHO = [
    next(name for name in map(str, range(99)) if partition_of(name.encode(), LANES) == lane) for lane in range(LANES)
]
ROOMS = [f"r{number}" for number in range(4)]


class Simulation:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        limits = Limits(unit_records=self.dice.choice([1, 3, 50]), idle_ms=IDLE_MS, poison_attempts=1 << 30)
        self.driver = Driver(hours, partitions=LANES, seed=seed, limits=limits)
        self.driver.after_action = self.misfortune
        self.crash_rate = self.dice.choice([0.0, 0.02, 0.1])
        self.crashes = 0
        now_ms = self.driver.clock.now_ms()
        self.spoke_ms = [now_ms] * LANES
        self.reached: list[int | None] = [None] * LANES
        """How far each lane is, in event time."""
        self.bound_ms = -1
        """How far any clock may be at most."""
        self.sent: dict[tuple[str, int], list[int]] = {}
        """By room and hour, what must be in it."""
        self.behind: Counter[int] = Counter()
        """What was sent by those who had been silent and were behind then: it may be late."""

    def misfortune(self, action: Action) -> None:
        """Crash a lane now and then; 100 times at most, for it must come to an end."""
        if self.dice.random() < self.crash_rate and self.crashes < 100:
            self.crashes += 1
            self.driver.crash(action.group, action.partition if self.dice.random() < 0.7 else None)

    def look(self) -> None:
        """Move the bound to what it is by now: whoever is silent for long may be left out, at that moment or any later."""
        now_ms = self.driver.clock.now_ms()
        for moment_ms in sorted({now_ms, *(spoke_ms + IDLE_MS for spoke_ms in self.spoke_ms)}):
            if moment_ms > now_ms:
                break
            active = [
                reached
                for reached, spoke_ms in zip(self.reached, self.spoke_ms, strict=True)
                if moment_ms < spoke_ms + IDLE_MS
            ]
            known = [reached for reached in active or self.reached if reached is not None]
            if known and (not active or len(known) == len(active)):
                self.bound_ms = max(self.bound_ms, min(known) if active else max(known))

    def send(self, number: int) -> None:
        """One lane says what was seen in a room."""
        lane, room = self.dice.randrange(LANES), self.dice.choice(ROOMS)
        before = self.reached[lane]
        time_ms = (START_MS if before is None else before) + self.dice.choice([0, 0, 60_000, 600_000, 2_400_000])
        self.look()
        if time_ms < self.bound_ms:
            self.behind[number] += 1
        else:
            self.sent.setdefault((room, time_ms // HOUR_MS), []).append(number)
        self.driver.send(Saw(who=WHO[lane], room=room, number=number), time=at((time_ms - START_MS) / 60_000))
        self.reached[lane], self.spoke_ms[lane] = time_ms, self.driver.clock.now_ms()
        self.look()

    def run(self) -> None:
        for number in range(self.dice.choice([5, 20, 40])):
            if self.dice.random() < 0.2:
                with self.driver.paused():
                    self.send(number)
            else:
                self.send(number)
            self.driver.advance(self.dice.choice([0, 0.001, 0.1, 0.5, 3, 6]))
            self.look()
            self.check_not_early()
        self.driver.advance(60)
        self.look()
        self.check_not_early()
        self.check_all_is_closed()

    def check_not_early(self) -> None:
        """No hour is closed that is not over by what was said."""
        for room in ROOMS:
            for hour in (self.driver.state(Rooms, room) or Room()).closed:
                assert (hour + 1) * HOUR_MS <= self.bound_ms

    def check_all_is_closed(self) -> None:
        """The clock ends at the latest that was said, and each hour has what it must have, and went on in time."""
        end_ms = max((reached for reached in self.reached if reached is not None), default=0)
        assert self.bound_ms == end_ms
        for room in ROOMS:
            state = self.driver.state(Rooms, room) or Room()
            total = self.driver.state(Totals, room) or Total()
            assert set(state.late) <= self.behind.keys()
            for hour, numbers in {**state.closed, **state.open}.items():
                assert ((hour + 1) * HOUR_MS <= end_ms) == (hour in state.closed)
                assert set(self.sent.get((room, hour), ())) <= set(numbers)
                assert len(numbers) == len(set(numbers))
            assert {hour for where, hour in self.sent if where == room} <= {*state.closed, *state.open}
            assert total.hours == {hour: sorted(numbers) for hour, numbers in state.closed.items()}
            assert total.late == []
        assert self.driver.dead_letters() == []


@cache
def ran(seed: int) -> tuple[int, int]:
    """Run a seed, once for all tests; how often lanes crashed, and how much was sent by who was behind."""
    simulation = Simulation(seed)
    simulation.run()
    return simulation.crashes, simulation.behind.total()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_decided_too_early(seed: int) -> None:
    ran(seed)


def test_the_seeds_reach_what_they_are_for() -> None:
    """Lanes crash, and who was silent comes back too late."""
    crashes, behind = (sum(counts) for counts in zip(*map(ran, range(16)), strict=True))
    assert crashes > 20
    assert behind > 20
