"""The flights topology under crashes: whatever happens, each flight counts once.

For each seed a stream of intents, good and bad, in batches of random size, while lanes crash between any two of their actions.
Afterwards everything must be as a plain fold of the accepted intents says. One seed again: ``PF_SEED=17 pytest tests/simulation``.
"""

import os
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from flights import Aircraft, AirportBoard, Board, Carrier, CarrierTable, Fleet, FlightCap, FlightDeparted, flights
from pf_stream.core import Limits, partition_of
from pf_stream.testing import Action, Driver, OutputRecord, Position

PARTITIONS = 3
SEEDS = [int(os.environ["PF_SEED"])] if "PF_SEED" in os.environ else range(300)
CARRIERS = {"UA": "/UA/**", "AA": "/AA/**", "B6": "/**"}
"""Carriers, and on what each one's context lets it report."""
ORIGINS = ("EWR", "JFK", "LGA")
FAULTS = (
    "missing_context",
    "bad_signature",
    "insufficient_capabilities",
    "bad_resource",
    "bad_reply_topic",
    "deadline_passed",
    "unknown_type",
    "malformed_envelope",
    "malformed_payload",
    "null_value",
    "null_key",
    "key_mismatch",
)
WRITTEN = ("airports", "carriers", "replies", "intents.dlq")


@dataclass
class World:
    """What must have become of the intents that were sent."""

    fleet: dict[str, Aircraft] = field(default_factory=dict)
    boards: dict[str, Board] = field(default_factory=dict)
    carriers: dict[str, Carrier] = field(default_factory=dict)
    emitted: Counter[tuple[str, str, float | None]] = field(default_factory=Counter)
    replies: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By key and error code."""
    dead: set[tuple[Position, str]] = field(default_factory=set)

    def accept(self, flight: FlightDeparted) -> None:
        """Count a flight. Delays and distances are such that the order of additions is no matter."""
        craft = self.fleet.setdefault(flight.tailnum, Aircraft())
        board = self.boards.setdefault(flight.origin, Board())
        carrier = self.carriers.setdefault(flight.carrier, Carrier())
        self.emitted[flight.carrier, flight.origin, flight.delay] += 1
        board.flights += 1
        carrier.flights += 1
        if flight.delay is None:
            craft.cancelled += 1
            board.cancelled += 1
            carrier.cancelled += 1
            return
        craft.legs += 1
        craft.minutes_late += flight.delay
        craft.miles += flight.distance
        board.minutes_late += flight.delay
        board.worst = flight.delay if board.worst is None else max(board.worst, flight.delay)
        carrier.minutes_late += flight.delay
        carrier.miles += flight.distance


class Simulation:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        limits = Limits(
            unit_records=self.dice.choice([1, 3, 50]),
            inline_bytes=self.dice.choice([0, 500, 65_536]),
            poison_attempts=1 << 30,  # these crashes come by chance and not by what is handled
        )
        self.driver = Driver(flights, partitions=PARTITIONS, seed=seed, limits=limits)
        self.driver.after_action = self.misfortune
        self.world = World()
        self.crash_rate = self.dice.choice([0.0, 0.02, 0.1, 0.3])
        self.crashes: Counter[str] = Counter()
        """By the kind of action that came before."""
        self.tokens = {
            carrier: self.driver.context(FlightCap.report(scope), subject=carrier)
            for carrier, scope in CARRIERS.items()
        }
        self.stranger = Driver(flights, seed=seed + 1).context(FlightCap.admin("/**"))

    def misfortune(self, action: Action) -> None:
        """Crash one lane, a group or everything, now and then; 200 times at most, for it must come to an end."""
        if self.dice.random() < self.crash_rate and self.crashes.total() < 200:
            self.crashes[action.kind] += 1
            match self.dice.randrange(4):
                case 0:
                    self.driver.crash()
                case 1:
                    self.driver.crash(action.group)
                case _:
                    self.driver.crash(action.group, action.partition)

    def run(self) -> None:
        """Send, in batches that wait together."""
        left = self.dice.choice([3, 15, 60])
        while left:
            batch = self.dice.randint(1, left)
            with self.driver.paused():
                for _ in range(batch):
                    self.send()
                    if self.dice.random() < 0.1:
                        self.driver.advance(self.dice.choice([0.001, 1, 5]))
            left -= batch

    def send(self) -> None:
        """One intent."""
        dice = self.dice
        carrier = dice.choice([*CARRIERS])
        flight = FlightDeparted(
            tailnum=f"N{dice.randrange(8)}",
            carrier=carrier,
            origin=dice.choice(ORIGINS),
            flight=1,
            dest=dice.choice(["LAX", "x" * 600]),
            delay=dice.choice([None, -0.5, 0.0, 2.25, 90.0]),
            distance=dice.choice([0.0, 199.5]),
        )
        token: str | None = self.tokens[carrier]
        reply_to = dice.choice([None, None, "replies"])
        fault = dice.choice([None] * len(FAULTS) + [*FAULTS])
        match fault:
            case "missing_context":
                token = None
            case "bad_signature":
                token = self.stranger
            case "insufficient_capabilities":
                flight = flight.model_copy(update={"carrier": "UA"})
                token = self.tokens["AA"]
            case "bad_resource":
                flight = flight.model_copy(update={"origin": "E/WR"})
                token = self.tokens["B6"]
            case "bad_reply_topic":
                reply_to = "intents"
            case "deadline_passed" | None:
                pass
            case _:
                self.world.dead.add((self.send_raw(fault, flight), fault))
                return
        at = self.driver.send(
            flight,
            token,
            reply_to=reply_to,
            partition=dice.choice([None, None, None, dice.randrange(PARTITIONS)]),
            deadline=self.driver.now.replace(year=2000) if fault == "deadline_passed" else None,
        )
        if fault is None:
            self.world.accept(flight)
        else:
            self.world.dead.add((at, fault))
        if reply_to == "replies" and token in self.tokens.values():
            self.world.replies[flight.tailnum, fault or ""] += 1

    def send_raw(self, fault: str, flight: FlightDeparted) -> Position:
        """A record that no client of ours would write."""
        spec = flight.__intent__
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"flights.exploded.v1" if fault == "unknown_type" else spec.type.encode()),
            ("ce_source", b"/simulation"),
            ("ce_id", b"" if fault == "malformed_envelope" else b"1"),
            ("content-type", b"application/json"),
            ("pf-context", self.tokens[flight.carrier].encode()),
        ]
        return self.driver.send_raw(
            "intents",
            key={"null_key": None, "key_mismatch": b"N"}.get(fault, spec.key_of(flight)),
            value={"null_value": None, "malformed_payload": b"{"}.get(fault, spec.encode(flight)),
            headers=headers,
            partition=self.dice.randrange(PARTITIONS),
        )

    def check(self) -> None:
        """Compare what is with what must be."""
        driver, world = self.driver, self.world
        driver.after_action = None
        assert {key: driver.state(Fleet, key) for key in world.fleet} == world.fleet
        assert {key: driver.state(AirportBoard, key) for key in world.boards} == world.boards
        assert {key: driver.state(CarrierTable, key) for key in world.carriers} == world.carriers
        for topic in ("airports", "carriers"):
            emitted = once(driver.outputs(topic))
            rows = [record.json() for record in emitted]
            assert Counter((row["carrier"], row["origin"], row["delay"]) for row in rows) == world.emitted
            assert len({record.header("ce_id") for record in emitted}) == len(emitted)
            assert all(record.partition == partition_of(record.key or b"", PARTITIONS) for record in emitted)
        replies = once(driver.replies())
        assert Counter((text(reply.key), text(reply.header("pf-error-code"))) for reply in replies) == world.replies
        once(driver.outputs("intents.dlq"))
        letters = {letter.record.header("pf-source"): letter for letter in driver.dead_letters()}.values()
        assert len(letters) == len(world.dead)
        assert {(Position(one.topic, one.partition, one.offset), one.code) for one in letters} == world.dead
        assert driver.refused.total() == len(world.dead)
        written = [len(driver.outputs(topic)) for topic in WRITTEN]
        if not self.crashes:
            assert sum(written) == 2 * world.emitted.total() + len(replies) + len(letters), "nothing was sent twice"
        driver.crash()
        assert written == [len(driver.outputs(topic)) for topic in WRITTEN], "what was sent is noted as sent"


def text(raw: bytes | None) -> str:
    return (raw or b"").decode()


def once(records: list[OutputRecord]) -> list[OutputRecord]:
    """What a reader is left with that drops repetitions by ``pf-source``; a repetition is equal to the first."""
    unique: dict[bytes | None, OutputRecord] = {}
    for record in records:
        first = unique.setdefault(record.header("pf-source"), record)
        assert (first.partition, first.key, first.value, first.headers) == (
            record.partition,
            record.key,
            record.value,
            record.headers,
        )
    return [*unique.values()]


@pytest.mark.parametrize("seed", SEEDS)
def test_each_flight_counts_once(seed: int) -> None:
    simulation = Simulation(seed)
    try:
        simulation.run()
        simulation.check()
    except BaseException as error:
        error.add_note(f"replay: PF_SEED={seed}; {simulation.crashes.total()} crashes, {simulation.driver!r}")
        raise


def test_the_seeds_reach_what_they_are_for() -> None:
    """Crashes happen after each kind of action, and repetitions are written."""
    crashes: Counter[str] = Counter()
    repeated = 0
    for seed in range(20):
        simulation = Simulation(seed)
        simulation.crash_rate = 0.2
        simulation.run()
        crashes += simulation.crashes
        repeated += len(simulation.driver.outputs("airports")) - simulation.world.emitted.total()
    assert {kind for kind, count in crashes.items() if count > 5} == {"step", "commit", "output", "mark"}
    assert repeated > 20
