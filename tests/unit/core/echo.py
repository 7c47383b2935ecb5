"""A topology that goes round: calls are echoed to where they came from."""

from typing import Annotated

from pf_stream import PUBLIC, Context, Effects, Emit, Intent, Key, Reactor, State, Topology, on
from tests.unit.core.hours import Saw


class Call(Intent, name="hour.call", topic="calls", requires=PUBLIC):
    """Goes to the other group."""

    who: Annotated[str, Key]


class Answer(Intent, name="hour.answer", topic="answers", requires=PUBLIC):
    """Comes back."""

    who: Annotated[str, Key]


class Caller(State):
    """Answers that came back."""

    answers: int = 0


class Callers(Reactor[Caller], id="callers", event_time=True, emits=[Call]):
    """Reads a public topic and the answers."""

    @on
    def saw(self, intent: Saw, state: Caller, ctx: Context) -> Effects:
        return Emit(Call(who=intent.who))

    @on
    def answer(self, intent: Answer, state: Caller, ctx: Context) -> None:
        state.answers += 1


class Echo(State):
    """Nothing."""


class Echoes(Reactor[Echo], id="echoes", event_time=True, emits=[Answer]):
    """Answers."""

    @on
    def call(self, intent: Call, state: Echo, ctx: Context) -> Effects:
        return Emit(Answer(who=intent.who))


echo = Topology("hour", [Callers, Echoes], internal=["calls", "answers"])
