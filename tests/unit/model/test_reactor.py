"""Reactors: what a class statement may say, each fault in its own words, all of them at once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from pf_stream import PUBLIC, Context, DefinitionError, Effects, Intent, Key, Reactor, State, on
from pf_stream.model import ReactorSpec
from pf_stream.model.reactor import HandlerSpec

if TYPE_CHECKING:
    from decimal import Decimal


class Tick(Intent, name="clock.tick", requires=PUBLIC):
    """A tick."""

    clock: Annotated[str, Key]


class Tock(Intent, name="clock.tock", requires=PUBLIC):
    """A tock."""

    clock: Annotated[str, Key]


class Ticks(State):
    """Ticks."""

    count: int = 0


class Other(State):
    """Another state."""


class Clock(Reactor[Ticks], id="clock"):
    """A good one."""

    step = 2

    @on
    def tick(self, intent: Tick, state: Ticks, ctx: Context) -> Effects:
        state.count += self.step
        return self.answer()

    @on
    def also_tock(self, intent: Tock, state: Ticks, ctx: Context) -> None:
        state.count += 1

    def answer(self) -> Effects:
        """Helpers are methods like any other."""
        return None


def test_what_a_class_statement_says_is_its_spec() -> None:
    assert Clock.__reactor__ == ReactorSpec(
        id="clock",
        state_type=Ticks,
        state=Ticks.__state__,
        handlers=(HandlerSpec("also_tock", Tock.__intent__, None, ()), HandlerSpec("tick", Tick.__intent__, None, ())),
    )


def test_attribute_writes_are_refused() -> None:
    with pytest.raises(
        AttributeError, match=r"^Clock\.step cannot be set: what a reactor remembers must be a field of its"
    ):
        Clock().step = 3

    class Eager(Reactor[Ticks], id="eager"):
        def __init__(self) -> None:
            self.count = 0

        @on
        def tick(self, intent: Tick, state: Ticks, ctx: Context) -> None: ...

    with pytest.raises(AttributeError, match=r"^Eager\.count cannot be set"):
        Eager()


def test_a_subclass_is_a_reactor_of_its_own() -> None:
    class Slow(Clock, id="slow"):
        step = 1

    assert Slow.__reactor__.id == "slow"
    assert Slow.__reactor__.handlers == Clock.__reactor__.handlers
    assert Clock.__reactor__.id == "clock"


def fault_of(handler: Any) -> str:
    """The one thing that is wrong with a reactor whose only handler is this."""
    with pytest.raises(DefinitionError) as caught:
        type(
            "Bad",
            (Reactor,),
            {"__orig_bases__": (Reactor[Ticks],), "handle": on(handler), "__module__": __name__},
            id="bad",
        )
    (fault,) = caught.value.faults
    return fault


class TestHandlers:
    def test_async(self) -> None:
        async def handle(self: object, intent: Tick) -> None: ...

        assert fault_of(handle) == (
            "handler 'handle' must be a plain function that returns its effects, not async or a generator"
        )

    def test_a_generator(self) -> None:
        def handle(self: object, intent: Tick, state: Ticks, ctx: Context) -> Iterator[None]:
            yield None

        assert "not async or a generator" in fault_of(handle)

    def test_too_few_parameters(self) -> None:
        def handle(self: object, intent: Tick, state: Ticks) -> None: ...

        assert fault_of(handle) == "handler 'handle' must take (self, intent, state, ctx), not 3 parameters"

    def test_too_many_parameters(self) -> None:
        def handle(self: object, intent: Tick, state: Ticks, ctx: Context, more: int = 1) -> None: ...

        assert fault_of(handle) == "handler 'handle' must take (self, intent, state, ctx), not 5 parameters"

    def test_an_intent_that_is_not_annotated(self) -> None:
        def handle(self, intent, state, ctx) -> None: ...  # type: ignore[no-untyped-def]

        assert fault_of(handle) == "handler 'handle': annotate 'intent' with the Intent class that it handles"

    @pytest.mark.parametrize("annotation", [int, Intent, Tick | Tock, "Tick"])
    def test_an_intent_that_is_none(self, annotation: Any) -> None:
        def handle(self: object, event: Any, state: Ticks, ctx: Context) -> None: ...

        handle.__annotations__["event"] = annotation
        if annotation == "Tick":
            type("Good", (Reactor,), {"__orig_bases__": (Reactor[Ticks],), "handle": on(handle)}, id="good")
        else:
            assert fault_of(handle) == "handler 'handle': annotate 'event' with the Intent class that it handles"

    def test_the_state_of_another_reactor(self) -> None:
        def handle(self: object, intent: Tick, memory: Other, ctx: Context) -> None: ...

        assert fault_of(handle) == "handler 'handle': 'memory' must be a Ticks, as the reactor says"

    def test_a_name_that_only_the_type_checker_knows(self) -> None:
        def handle(self: object, intent: Tick, state: Ticks, ctx: "Decimal") -> None: ...

        assert fault_of(handle) == (
            "handler 'handle': name 'Decimal' is not defined at run time: import it outside of TYPE_CHECKING, or define it "
            "before"
        )

    def test_two_for_one_type(self) -> None:
        with pytest.raises(DefinitionError) as caught:

            class Bad(Reactor[Ticks], id="bad"):
                @on
                def one(self, intent: Tick, state: Ticks, ctx: Context) -> None: ...

                @on
                def two(self, intent: Tick, state: Ticks, ctx: Context) -> None: ...

        assert caught.value.faults == ("handlers 'one' and 'two' both handle clock.tick.v1: keep one",)

    def test_none(self) -> None:
        with pytest.raises(DefinitionError) as caught:

            class Bad(Reactor[Ticks], id="bad"):
                def tick(self, intent: Tick, state: Ticks, ctx: Context) -> None: ...

        assert caught.value.faults == ("has no handler: decorate a method (self, intent, state, ctx) with @on",)


@pytest.mark.parametrize("id", ["", "A", "1a", "a b", "a.b", "x" * 64, "é"])
def test_an_id_of_another_form(id: str) -> None:  # noqa: A002 - the word users write
    with pytest.raises(DefinitionError, match="must be lower case letters"):

        class Bad(Reactor[Ticks], id=id):
            @on
            def tick(self, intent: Tick, state: Ticks, ctx: Context) -> None: ...


@pytest.mark.parametrize("state", [int, State])
def test_a_state_that_is_none(state: Any) -> None:
    with pytest.raises(DefinitionError, match=r"has no state type: write class Bad\(Reactor\[MyState\], \.\.\.\)"):

        class Bad(Reactor[state], id="bad"):
            @on
            def tick(self, intent: Tick, state: Any, ctx: Context) -> None: ...


def test_all_faults_in_one_error() -> None:
    with pytest.raises(DefinitionError) as caught:

        class Bad(Reactor, indent="x"):  # type: ignore[type-arg]
            @on  # type: ignore[type-var]
            async def first(self, intent: Tick, state: Ticks, ctx: Context) -> None: ...

            @on
            def second(self, intent: Tick) -> None: ...

    assert caught.value.subject == "reactor tests.unit.model.test_reactor.test_all_faults_in_one_error.<locals>.Bad"
    assert caught.value.faults == (
        "unknown class keyword 'indent'; known: id, on_error, event_time, emits",
        'has no id: write class Bad(Reactor[...], id="bad")',
        "has no state type: write class Bad(Reactor[MyState], ...)",
        "handler 'first' must be a plain function that returns its effects, not async or a generator",
        "handler 'second' must take (self, intent, state, ctx), not 2 parameters",
    )
