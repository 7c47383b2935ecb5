"""What a sink has handed over, step by step: how far it has come is never ahead of its consumer."""

from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from pf_stream import (
    PUBLIC,
    Context,
    Delivered,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    RetryInPlace,
    Sink,
    State,
    Topology,
    on,
)
from pf_stream.backpressure import Counts
from pf_stream.core.admission import NewerVersionError
from pf_stream.core.drain import STRIDE, Bury, Call, Drain, Pause, Step
from pf_stream.core.records import SourceRecord
from pf_stream.core.sink import sink_plans


class Kept(Intent, name="drain.kept", topic="kept", requires=PUBLIC):
    """What is to be handed over."""

    name: Annotated[str, Key]


class Came(Intent, name="drain.came", requires=PUBLIC):
    """Something came."""

    name: Annotated[str, Key]


class Nothing(State):
    """None."""


class Passes(Reactor[Nothing], id="passes"):
    """Passes it on."""

    @on
    def came(self, intent: Came, state: Nothing, ctx: Context) -> Effects:
        return Emit(Kept(name=intent.name))


async def to(batch: Sequence[Delivered[Any]]) -> None:
    """Is not called here."""


SINK = Sink("shop", of=Kept, to=to, batch=1_000, on_error=RetryInPlace(2, 1.0))
(PLAN,) = sink_plans(Topology("drain", [Passes], internal=["kept"], emits=[Kept], sinks=[SINK]), 1)


def record(offset: int, kind: bytes = b"drain.kept.v1", value: bytes = b'{"name":"n"}') -> SourceRecord:
    return SourceRecord(offset, 0, b"n", value, (("ce_type", kind), ("pf-source", b"aa:1:%d" % offset)))


def drain_of(*records: SourceRecord) -> Drain:
    drain = Drain(PLAN, 0, 0, "", Counts())
    for one in records:
        drain.take_in(one, 0.0)
    return drain


def steps_of(drain: Drain, *answers: BaseException | None) -> list[tuple[Step, tuple[int, str]]]:
    """The steps of the next batch, each with what could be committed when it was asked for; first *answers*, then ``None``."""
    found: list[tuple[Step, tuple[int, str]]] = []
    handing = drain.hand_over(drain.take(0.0))
    left = iter(answers)
    answer = None
    while True:
        try:
            step = handing.send(answer)
        except StopIteration:
            return found
        found.append((step, drain.progress))
        answer = next(left, None)


def test_what_waits_was_not_handed_over() -> None:
    drain = drain_of(record(3), record(4), record(5))
    assert drain.next == 6
    assert drain.progress == (3, ""), "nor is anything said of what waits"
    batch = drain.take(0.0)
    assert drain.progress == (3, "")
    assert [one.offset for one in batch] == [3, 4, 5]


def test_what_is_left_out_is_done() -> None:
    drain = drain_of()
    drain.pass_to(7)
    assert drain.progress == (7, "")
    drain.pass_to(5)
    assert drain.progress == (7, "")


def test_progress_follows_each_step() -> None:
    """What nobody can read is buried in its place, between what is handed over before and behind it."""
    drain = drain_of(record(0), record(1, value=b"{"), record(2))
    steps = steps_of(drain)
    assert [(type(step), at) for step, at in steps] == [
        (Call, (0, "")),
        (Bury, (1, "aa:1:0")),
        (Call, (2, "aa:1:1")),
    ]
    assert drain.progress == (3, "aa:1:2")


def test_of_a_batch_that_is_halved_what_was_taken_need_not_come_again() -> None:
    drain = drain_of(record(0), record(1), record(2), record(3))
    full = RuntimeError("full")
    steps = steps_of(drain, full, None, full, None, full, full)
    calls = [([one.position[2] for one in step.batch], at[0]) for step, at in steps if isinstance(step, Call)]
    assert calls[:4] == [([0, 1, 2, 3], 0), ([0, 1, 2, 3], 0), ([0, 1], 0), ([2, 3], 2)]
    assert drain.progress == (4, "aa:1:3")


def test_what_lies_before_an_intent_of_a_newer_version_is_handed_over_first() -> None:
    drain = drain_of(record(0), record(1, kind=b"drain.kept.v2"), record(2))
    handing = drain.hand_over(drain.take(0.0))
    step = handing.send(None)
    assert isinstance(step, Call)
    assert [one.position[2] for one in step.batch] == [0]
    with pytest.raises(NewerVersionError):
        handing.send(None)
    assert drain.progress == (1, "aa:1:0")


def test_a_large_batch_gives_others_a_turn_while_it_is_decoded() -> None:
    steps = [step for step, _ in steps_of(drain_of(*map(record, range(2 * STRIDE + 1))))]
    assert steps[:2] == [Pause(0), Pause(0)]
    assert isinstance(steps[2], Call)
    assert len(steps) == 3
