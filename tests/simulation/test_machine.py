"""Any order of sending, failing, crashing and deploying, as hypothesis likes it, against a model of a few lines."""

from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pf_stream import Topology
from pf_stream.core import Limits, partition_of
from pf_stream.model.topology import Guarantee
from pf_stream.testing import Action, Driver
from tests.unit.core.kit import Box, BoxCap, Boxes, Put, Room, Rooms, Watch, Watched, boxes

PARTITIONS = 2
ACTS = {
    "keep": None,
    "adopt": None,
    "forget": None,
    "raise": "handler_failed",
    "raise in the second": "handler_failed",
    "return nonsense": "bad_effect",
    "wrong type": "bad_state",
    "swell": "unit_too_large",
}
LIMITS = Limits(unit_bytes=8_000, unit_bytes_hard=25_000, unit_records=20, poison_attempts=1 << 30)

puts = st.tuples(
    st.sampled_from("abcd"),
    st.sampled_from(["keep", "keep", "keep", *ACTS]),
    st.booleans(),
    st.none() | st.integers(0, PARTITIONS - 1),
)


class Machine(RuleBasedStateMachine):
    """A driver beside what must be in it."""

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.driver = Driver(boxes, partitions=PARTITIONS, seed=seed, limits=LIMITS)
        self.token = self.driver.context(BoxCap.put("/**"), subject="ann")
        self.boxes: dict[str, Box | None] = {}
        self.watched: dict[str, Watched] = {}
        self.rooms: dict[str, list[str]] = {}
        self.codes: list[str] = []
        self.number = 0

    @rule(batch=st.lists(puts, min_size=1, max_size=6))
    def send(self, batch: list[tuple[str, str, bool, int | None]]) -> None:
        """A misplaced record may be overtaken, so those of one key must all be misplaced or none: each has its own box."""
        swollen = {box for box, act, *_ in batch if act == "swell"}
        with self.driver.paused():
            for box, given, allowed, partition in batch:
                self.number += 1
                # What is too large only until it is forgotten, in the same unit, is never stored, and so is not refused.
                act = "keep" if given == "forget" and box in swollen else given
                misplaced = partition is not None and partition != partition_of(box.encode(), PARTITIONS)
                name = f"{box}{self.number}" if misplaced else box
                items = ["i"] if act == "adopt" else []
                put = Put(box=name, item=str(self.number), act=act, items=items, room=f"r-{name}")
                self.driver.send(put, self.token if allowed else None, partition=partition if misplaced else None)
                self.expect(put, allowed=allowed)

    def expect(self, put: Put, *, allowed: bool) -> None:
        """The model: what a put does if it does anything."""
        code = ACTS[put.act] if allowed else "missing_context"
        if code is not None:
            self.codes.append(code)
            return
        box = self.boxes.get(put.box) or Box()
        self.boxes[put.box] = None if put.act == "forget" else box
        box.items.append(put.item)
        box.weight += 1
        watched = self.watched.setdefault(put.box, Watched())
        if put.items:
            box.items = [*put.items]
            watched.items = [*put.items]
        watched.items.append(put.item)
        watched.writers.append("ann")
        self.rooms.setdefault(put.room, []).append(put.item)

    @rule(kind=st.sampled_from(["step", "commit", "output", "mark", "rewind"]), times=st.integers(1, 5))
    def crash_after(self, kind: str, times: int) -> None:
        """The next *times* actions of a kind are followed by a crash of their lane."""
        left = times

        def crash(action: Action) -> None:
            nonlocal left
            if left and action.kind == kind:
                left -= 1
                self.driver.crash(action.group, action.partition)

        self.driver.after_action = crash

    @rule()
    def crash(self) -> None:
        self.driver.crash()

    @rule(guarantee=st.sampled_from(get_args(Guarantee)))
    def deploy_again(self, guarantee: Guarantee) -> None:
        """Another declaration of the same topology: reactors in another order, and perhaps another guarantee."""
        reactors = [*reversed(self.driver.topology.reactors)]
        self.driver.redeploy(Topology("box", reactors, internal=["moves"], replies=boxes.replies, guarantee=guarantee))

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        if not hasattr(self, "driver"):
            return
        assert {box: self.driver.state(Boxes, box) for box in self.boxes} == self.boxes
        assert {box: self.driver.state(Watch, box) for box in self.watched} == self.watched
        rooms = {room: self.driver.state(Rooms, room) for room in self.rooms}
        assert rooms == {room: Room(items=items) for room, items in self.rooms.items()}
        letters = {letter.record.header("pf-source"): letter.code for letter in self.driver.dead_letters()}
        assert sorted(letters.values()) == sorted(self.codes)
        assert sorted(self.driver.refused.elements()) == sorted(self.codes)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
TestMachine = Machine.TestCase
