"""What a sink and its buffer may say, and which sinks a topology may have."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import pytest

from pf_stream import (
    PUBLIC,
    Buffer,
    Context,
    DefinitionError,
    Delivered,
    Intent,
    Key,
    Part,
    Reactor,
    Sink,
    State,
    Topology,
    on,
)


class Come(Intent, name="sinks.come", requires=PUBLIC):
    """From outside."""

    key: Annotated[str, Key]


class Gone(Intent, name="sinks.gone", topic="gone", requires=PUBLIC):
    """To a sink."""

    key: Annotated[str, Key]


class Read(Intent, name="sinks.read", topic="read", requires=PUBLIC):
    """To a reactor."""

    key: Annotated[str, Key]


class Nothing(State):
    """None."""


class Comes(Reactor[Nothing], id="comes"):
    """Handles both."""

    @on
    def come(self, intent: Come, state: Nothing, ctx: Context) -> None:
        """Nothing."""

    @on
    def read(self, intent: Read, state: Nothing, ctx: Context) -> None:
        """Nothing."""


async def to(batch: Sequence[Delivered[Any]]) -> None:
    """Nothing."""


class To:
    """A consumer with a state of its own."""

    async def __call__(self, batch: Sequence[Delivered[Any]]) -> None:
        """Nothing."""

    async def take(self, batch: Sequence[Delivered[Any]], *, where: str = "") -> None:
        """Nothing."""


def faults(*sinks: Sink[Any], emits: Sequence[type[Intent]] = (Gone,)) -> Sequence[str]:
    try:
        Topology("sinks", [Comes], internal=["gone", "read"], emits=emits, sinks=sinks)
    except DefinitionError as error:
        return error.faults
    return ()


def test_a_topology_and_its_parts_have_sinks() -> None:
    one = Sink("one", of=Gone, to=to)
    part = Part("part", (Comes,), frozenset({"gone"}), (Gone,), sinks=(one,))
    topology = Topology("sinks", [], parts=[part])
    assert topology.sinks == (one,)
    assert topology.within("elsewhere").sinks == (one,)


@pytest.mark.parametrize("consumer", [to, To(), To().take, partial(To().take, where="here")])
def test_whatever_can_be_awaited_is_a_consumer(consumer: Any) -> None:
    assert faults(Sink("one", of=Gone, to=consumer)) == ()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"name": "One"}, "name 'One' must be"),
        ({"to": print}, "no async function"),
        ({"to": lambda batch: None}, "no async function"),
        ({"of": int}, "which is no intent type"),
        ({"batch": 0}, "batch must be 1 or more, not 0"),
    ],
)
def test_what_a_sink_may_not_be(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(DefinitionError, match=fault):
        Sink(**{"name": "one", "of": Gone, "to": to, **fields})


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"strategy": "drop"}, "strategy must be block, .* not 'drop'"),
        ({"strategy": "throttle"}, "'throttle' needs a rate"),
        ({"records": 0}, "records must be more than 0, not 0"),
        ({"bytes": -1}, "bytes must be more than 0, not -1"),
        ({"rate": 0}, "rate must be more than 0, not 0"),
        ({"memory": 0}, "memory must be more than 0, not 0"),
        ({"mark": 1.0}, "mark must lie between 0 and 1, not 1.0"),
    ],
)
def test_what_a_buffer_may_not_be(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(DefinitionError, match=fault):
        Buffer(**fields)


def test_which_sinks_a_topology_may_have() -> None:
    one, again = Sink("one", of=Gone, to=to), Sink("two", of=Gone, to=to)
    (fault,) = faults(one, emits=())[:1]
    assert "internal topic 'gone' carries no intent type" in fault
    assert any("nobody here emits" in fault for fault in faults(one, emits=()))
    (fault,) = faults(Sink("one", of=Come, to=to))
    assert fault.startswith("sink 'one' takes sinks.come from 'intents', to which others may write")
    (fault,) = faults(Sink("one", of=Read, to=to))
    assert "which reactors read too" in fault
    (fault,) = faults(one, again)
    assert fault.startswith("sinks 'one' and 'two' take from the same topic 'gone'")
    assert "there are two sinks called 'one'" in faults(one, Sink("one", of=Gone, to=to, batch=2))
