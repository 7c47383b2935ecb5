"""A topology is replaced by its next version, and back where that is possible, with crashes between any two actions."""

import random
from collections import Counter

import pytest

from pf_stream import Context, Intent, Reactor, Topology, on
from pf_stream.core import NewerStateError
from pf_stream.core.records import Header
from pf_stream.testing import Action, Driver
from tests.tally import v1, v2

LETTERS = "abc"
NAMES = [first + last for first in "xyz" for last in LETTERS]

ADDED = {1: v1.Added.__intent__, 2: v2.Added.__intent__}


class Extra(Reactor[v1.Count], id="extra"):
    """Of the version that is taken back."""

    @on
    def added(self, intent: v1.Added, state: v1.Count, ctx: Context) -> None:
        state.n += intent.by


class Field:
    """A driver, who sends to it, and what it should have counted."""

    def __init__(self, seed: int, topology: Topology) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        self.driver = Driver(topology, seed=seed, partitions=3)
        self.counted: Counter[str] = Counter()
        self.crashes = 0
        self.driver.after_action = self._after
        self._token = self.driver.context(v1.TallyCap.add("/**"))

    def _after(self, action: Action) -> None:
        if self.dice.random() < 0.03:
            self.crashes += 1
            self.driver.crash(self.dice.choice((None, "intents", "sums")))

    def send(self, version: int) -> None:
        """An intent of that version, whatever the topology's; sometimes into a wrong partition."""
        name, amount = self.dice.choice(NAMES), self.dice.randint(1, 9)
        intent: Intent = (
            v1.Added(name=name, by=amount) if version == 1 else v2.Added(thing=name, amount=amount, unit="box")
        )
        headers: list[Header] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", ADDED[version].type.encode()),
            ("ce_source", b"/simulation"),
            ("ce_id", b"1"),
            ("content-type", b"application/json"),
            ("pf-context", self._token.encode()),
        ]
        partition = self.dice.choice((None, None, 0, 1, 2))
        value = ADDED[version].encode(intent)
        self.driver.send_raw("intents", key=name.encode(), value=value, headers=headers, partition=partition)
        self.counted[name] += amount

    def check(self, version: int) -> None:
        """Everything was counted once, on both sides of the internal topic."""
        driver = self.driver
        assert driver.dead_letters() == []
        sums: Counter[str] = Counter()
        for name in NAMES:
            sums[name[-1]] += self.counted[name]
            assert self._amount(version, "counts", name) == self.counted[name], name
        for letter in LETTERS:
            assert self._amount(version, "sums", letter) == sums[letter], letter

    def _amount(self, version: int, reactor: str, key: str) -> int:
        driver = self.driver
        if version == 1:
            old = driver.state(v1.Counts, key) if reactor == "counts" else driver.state(v1.Sums, key)
            return 0 if old is None else old.n
        found = driver.state(v2.Counts, key) if reactor == "counts" else driver.state(v2.Sums, key)
        return 0 if found is None else found.amount


@pytest.mark.parametrize("seed", range(25))
def test_from_version_1_to_2(seed: int) -> None:
    """With records of both versions under way, on the public topic and on the internal one."""
    field = Field(seed, v1.tally)
    for _ in range(30):
        field.send(1)
    field.check(1)
    with field.driver.paused():
        for _ in range(20):
            field.send(1)
    # Stop in the middle of the work, so that intents of version 1 are still under way inside the topology.
    stopped = field.dice.randint(1, 20)
    actions = 0

    def stop(action: Action) -> None:
        nonlocal actions
        actions += 1
        if actions == stopped:
            field.driver.after_action = field._after
            field.driver.redeploy(v2.tally)

    field.driver.after_action = stop
    for _ in range(20):
        field.send(1)
    assert field.driver.topology is v2.tally
    for _ in range(60):
        field.send(field.dice.choice((1, 2)))
    field.check(2)
    assert field.crashes


@pytest.mark.parametrize("seed", range(5))
def test_there_is_no_way_back_from_a_newer_state(seed: int) -> None:
    field = Field(seed, v1.tally)
    for _ in range(20):
        field.send(1)
    field.driver.redeploy(v2.tally)
    field.driver.after_action = None
    for _ in range(20):
        field.send(2)
    with pytest.raises(NewerStateError):
        field.driver.redeploy(v1.tally)
    field.driver.redeploy(v2.tally)
    field.check(2)


@pytest.mark.parametrize("seed", range(5))
def test_there_is_one_if_no_state_changed(seed: int) -> None:
    """Version 3 has one more reactor; what takes it back lists it as retired."""
    newer = Topology("tally", [*v1.tally.reactors, Extra], internal=["sums"], version=3)
    older = Topology("tally", v1.tally.reactors, internal=["sums"], version=2, retired=["extra"])
    field = Field(seed, v1.tally)
    for topology in (newer, older, newer, older):
        for _ in range(10):
            field.send(1)
        field.driver.redeploy(topology)
    for _ in range(10):
        field.send(1)
    field.check(1)
    assert field.driver.topology is older
