"""Any order of setting, cancelling, waiting, sending again, failing and crashing, against a model of a few lines."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pf_stream.core import Limits
from pf_stream.testing import Action, Driver
from tests.unit.core.reminders import CLOSED, Hearers, Knock, KnockLater, Note, NoteCap, Notes, Pay, Write, notes

NOTES = st.sampled_from("abc")
NAMES = st.sampled_from([None, "x", "y"])


class Machine(RuleBasedStateMachine):
    """A driver beside what must be in it. Each timer has a time of its own, so that their order is known."""

    @initialize(seed=st.integers(0, 2**32), room=st.sampled_from([1, 2, 50]))
    def start(self, seed: int, room: int) -> None:
        CLOSED.clear()
        limits = Limits(unit_records=room, poison_attempts=1 << 30)
        self.driver = Driver(notes, partitions=2, seed=seed, limits=limits)
        self.token = self.driver.context(NoteCap.own("/**"), subject="ann", lifetime_s=10**7)
        self.notes: dict[str, Note] = {}
        self.heard: dict[str, list[str]] = {}
        self.timers: dict[tuple[str, str], tuple[int, str]] = {}
        """By note and name: when, and the text."""
        self.paid: set[tuple[str, int]] = set()
        self.letters = 0
        self.number = 0
        self.now_ms = 0

    def note(self, name: str) -> Note:
        return self.notes.setdefault(name, Note())

    @rule(note=NOTES, name=NAMES, seconds=st.integers(0, 60))
    def schedule(self, note: str, name: str | None, seconds: int) -> None:
        self.number += 1
        text = str(self.number)
        after_ms = seconds * 1000 + self.number
        write = Write(note=note, text=text, after=after_ms / 1000, name=name)
        self.driver.send(write, self.token)
        self.note(note).log.append(f"write {text}")
        self.timers[note, name or text] = self.now_ms + after_ms, text

    @rule(note=NOTES, name=st.sampled_from("xy"))
    def cancel(self, note: str, name: str) -> None:
        self.driver.send(Write(note=note, text="-", cancel=name), self.token)
        self.note(note).log.append("write -")
        self.timers.pop((note, name), None)

    @rule(note=NOTES, number=st.integers(0, 3))
    def pay(self, note: str, number: int) -> None:
        """Sent twice: the period is longer than any run."""
        for _ in range(2):
            self.driver.send(Pay(note=note, amount=1), id=f"p{number}")
        if (note, number) not in self.paid:
            self.paid.add((note, number))
            self.note(note).paid += 1

    @rule(note=NOTES, in_place=st.booleans())
    def fail(self, note: str, in_place: bool) -> None:
        """Handled at the second attempt, and everything behind it is too."""
        CLOSED.add(note)
        self.driver.send(Knock(note=note) if in_place else KnockLater(note=note))
        CLOSED.clear()
        self.wait(5_000)
        # While it waited other timers may have fired: where it stands among them is not what this is about.
        found = self.driver.state(Notes, note)
        assert found is not None
        knock = "knock" if in_place else "knock later"
        mine = self.note(note).log
        assert sorted(found.log) == sorted([*mine, knock])
        mine[:] = found.log

    @rule(ms=st.integers(0, 40_000))
    def wait(self, ms: int) -> None:
        self.driver.advance(ms / 1000)
        self.now_ms += ms
        for key, (due_ms, text) in sorted(self.timers.items(), key=lambda item: item[1]):
            if due_ms <= self.now_ms:
                del self.timers[key]
                self.note(key[0]).log.append(f"remind {text} late 0 by ann")
                self.heard.setdefault(key[0], []).append(text)

    @rule(kind=st.sampled_from(["step", "fire", "commit", "output", "mark"]), times=st.integers(1, 5))
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

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        if not hasattr(self, "driver"):
            return
        assert {note: self.driver.state(Notes, note) for note in self.notes} == self.notes
        heard = {note: self.driver.state(Hearers, note) for note in self.heard}
        assert {note: None if state is None else state.log for note, state in heard.items()} == self.heard
        assert self.driver.dead_letters() == []


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
TestTimerMachine = Machine.TestCase
