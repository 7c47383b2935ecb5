"""Reactors: keyed state and the handlers that change it."""

import enum
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NoReturn, TypeAlias, TypeVar, get_args, get_origin, get_type_hints, overload

from pf_stream.errors import DefinitionError
from pf_stream.model.context import Context
from pf_stream.model.effect import Effects
from pf_stream.model.failure import OnError, RetryInPlace, RetryLater
from pf_stream.model.intent import Intent, IntentSpec
from pf_stream.model.requirement import Requirement, read_requirements, requirement_faults
from pf_stream.model.state import State, StateSpec

__all__ = ["HandlerSpec", "Reactor", "ReactorSpec", "on"]

S = TypeVar("S", bound=State)
F = TypeVar("F", bound=Callable[..., Effects])

Handler: TypeAlias = Callable[[Intent, Any, Context], Effects]

ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MARK = "__pf_handler__"


class _Inherit(enum.Enum):
    """A handler without a policy of its own has that of its reactor; ``None`` is a policy."""

    inherit = "inherit"


@dataclass(frozen=True, slots=True)
class _Mark:
    on_error: Any
    requires: Any


@overload
def on(function: F, /) -> F: ...
@overload
def on(
    *, on_error: OnError | _Inherit = _Inherit.inherit, requires: Requirement | Sequence[Requirement] = ()
) -> Callable[[F], F]: ...
def on(
    function: F | None = None,
    /,
    *,
    on_error: OnError | _Inherit = _Inherit.inherit,
    requires: Requirement | Sequence[Requirement] = (),
) -> F | Callable[[F], F]:
    """Mark a method of a :class:`Reactor` as the handler of the intent type that its first parameter is annotated with.

    ``@on(on_error=RetryLater(attempts=3))`` gives the handler a policy for failures of its own; ``on_error=None`` makes
    what it fails at a dead letter, whatever its reactor says. ``requires`` is required beside what the type requires, and
    before any handler of the intent runs: all of them do, or none.
    """

    def mark(function: F) -> F:
        setattr(function, _MARK, _Mark(on_error, requires))
        return function

    return mark if function is None else mark(function)


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One handler."""

    name: str
    """Name of the method."""
    intent: IntentSpec
    """What it handles."""
    on_error: OnError
    """What happens to an intent at which it raises."""
    requires: tuple[Requirement, ...]
    """What must hold beside what the type requires."""


@dataclass(frozen=True, slots=True)
class ReactorSpec:
    """What is known of a reactor once its class is made."""

    id: str
    """Stable name under which its state is stored; renaming the class does not lose state, renaming this does."""
    state_type: type[State]
    """Its state class."""
    state: StateSpec
    """How its state is stored."""
    handlers: tuple[HandlerSpec, ...]
    """One per intent type, sorted by the names of the methods."""
    event_time: bool = False
    """Whether its handlers are told the event clock of their lane."""
    anonymous: bool = False
    """Whether what it emits is nobody's: it goes without a context, or under the reactor's service with no tenant."""
    emits: tuple[IntentSpec, ...] | None = None
    """All that it may emit; ``None`` if it does not say, and may emit whatever the topology may."""


class Reactor(Generic[S]):
    """Base of all reactors::

        class Fleet(Reactor[Aircraft], id="fleet"):
            @on
            def departed(self, intent: FlightDeparted, state: Aircraft, ctx: Context) -> Effects:
                state.legs += 1
                return Reply({"legs": state.legs})

    A handler is a plain function of its three arguments: it may change ``state`` and return effects, nothing else. It
    must not wait, read a clock or roll dice; ``ctx.now`` and ``ctx.uuid()`` are there for that. If it raises, nothing of
    the intent remains and the intent becomes a dead letter, or is tried again if ``on_error`` says so: a class keyword
    for all handlers, an argument of ``@on`` for one. With ``event_time=True`` its lanes keep an event clock from the first
    intent on, and ``ctx.watermark_ms`` tells it. With ``anonymous=True`` what it emits and schedules goes without a context,
    since it follows from many callers, or under its service, on nobody's behalf. ``emits=[SomeIntent, ...]`` says what it
    emits, and that it emits nothing else; so the event clocks of those that read that wait for its lanes from the start.
    What it schedules is not limited.

    Raises :class:`DefinitionError` at the class statement, with every fault found.
    """

    __slots__ = ()
    __reactor__: ClassVar[ReactorSpec]

    def __init_subclass__(
        cls,
        *,
        id: str | None = None,  # noqa: A002 - the word users write
        on_error: OnError = None,
        event_time: bool = False,
        anonymous: bool = False,
        emits: Sequence[type[Intent]] | None = None,
        **unknown: Any,
    ) -> None:
        super().__init_subclass__()
        known = "id, on_error, event_time, anonymous, emits"
        faults = [f"unknown class keyword {keyword!r}; known: {known}" for keyword in unknown]
        if not _is_policy(on_error):
            faults.append(f"on_error={on_error!r} is no policy: write RetryInPlace(...), RetryLater(...) or None")
        if id is None:
            faults.append(f'has no id: write class {cls.__name__}(Reactor[...], id="{cls.__name__.lower()}")')
        elif not ID.fullmatch(id):
            faults.append(
                f"id {id!r} must be lower case letters, digits, '-' and '_', starting with a letter, up to 63"
            )
        faults += [
            f"emits {intent!r}, which is no intent: list Intent classes, emits=[...]"
            for intent in emits or ()
            if not hasattr(intent, "__intent__")
        ]
        state_type = _state_type(cls)
        if state_type is None:
            faults.append(f"has no state type: write class {cls.__name__}(Reactor[MyState], ...)")
        handlers = _handlers(cls, state_type, on_error, faults)
        if faults or id is None or state_type is None:
            raise DefinitionError(f"reactor {cls.__module__}.{cls.__qualname__}", faults)
        declared = None if emits is None else tuple(dict.fromkeys(intent.__intent__ for intent in emits))
        cls.__reactor__ = ReactorSpec(id, state_type, state_type.__state__, handlers, event_time, anonymous, declared)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__}.{name} cannot be set: what a reactor remembers must be a field of its State, "
            f"or it would be lost and shared by all keys"
        )


def _is_policy(value: object) -> bool:
    return value is None or isinstance(value, RetryInPlace | RetryLater)


def _state_type(cls: type[Reactor[Any]]) -> type[State] | None:
    for base in getattr(cls, "__orig_bases__", ()):
        if get_origin(base) is Reactor:
            (argument,) = get_args(base)
            if isinstance(argument, type) and issubclass(argument, State) and argument is not State:
                return argument
    return None


def _handlers(
    cls: type[Reactor[Any]], state_type: type[State] | None, on_error: OnError, faults: list[str]
) -> tuple[HandlerSpec, ...]:
    handlers: dict[str, HandlerSpec] = {}
    marked = 0
    for name, function in inspect.getmembers(cls, inspect.isfunction):
        mark: _Mark | None = getattr(function, _MARK, None)
        if mark is None:
            continue
        own = mark.on_error
        if own is not _Inherit.inherit and not _is_policy(own):
            faults.append(
                f"handler {name!r}: on_error={own!r} is no policy: RetryInPlace(...), RetryLater(...) or None"
            )
        marked += 1
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            faults.append(
                f"handler {name!r} must be a plain function that returns its effects, not async or a generator"
            )
            continue
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if len(parameters) != 3:
            faults.append(
                f"handler {name!r} must take (self, intent, state, ctx), not {len(parameters) + 1} parameters"
            )
            continue
        try:
            hints = get_type_hints(function)
        except NameError as error:
            faults.append(
                f"handler {name!r}: {error} at run time: import it outside of TYPE_CHECKING, or define it before"
            )
            continue
        intent_type = hints.get(parameters[0].name)
        if not (isinstance(intent_type, type) and issubclass(intent_type, Intent) and intent_type is not Intent):
            faults.append(f"handler {name!r}: annotate {parameters[0].name!r} with the Intent class that it handles")
            continue
        given = hints.get(parameters[1].name, state_type)
        if state_type is not None and given is not state_type:
            faults.append(
                f"handler {name!r}: {parameters[1].name!r} must be a {state_type.__name__}, as the reactor says"
            )
        spec = intent_type.__intent__
        if spec.type in handlers:
            faults.append(f"handlers {handlers[spec.type].name!r} and {name!r} both handle {spec.type}: keep one")
            continue
        required = () if mark.requires == () else read_requirements(mark.requires)
        if required is None:
            faults.append(
                f"handler {name!r}: requires={mark.requires!r} is no requirement: SomeCap.operation('/scope')"
            )
            continue
        for requirement in required:
            faults.extend(
                f"handler {name!r} {fault}" for fault in requirement_faults(requirement, intent_type.model_fields)
            )
        handlers[spec.type] = HandlerSpec(name, spec, on_error if isinstance(own, _Inherit) else own, required)
    if not marked:
        faults.append("has no handler: decorate a method (self, intent, state, ctx) with @on")
    return tuple(handlers.values())
