"""Streams: what happens to intents, said stage by stage."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from pf_stream.errors import DefinitionError
from pf_stream.model import Intent
from pf_stream.streams import _nodes as nodes
from pf_stream.streams._counted import CountedOperator
from pf_stream.streams._nodes import Node, item_of, returned
from pf_stream.streams._operator import Operator
from pf_stream.streams._timed import TimedOperator
from pf_stream.streams.aggregates import Aggregate, together
from pf_stream.streams.transform import Transform
from pf_stream.streams.windows import CountWindow, Emission, Global, Session, Sliding, Window, Windowed, on_close

__all__ = ["End", "Keyed", "Stream", "WindowedStream", "stream"]

I = TypeVar("I", bound=Intent)  # noqa: E741 - an intent
V = TypeVar("V")
U = TypeVar("U")
R = TypeVar("R")


def stream(intent: type[I]) -> "Stream[I]":
    """The intents of a type, as they are admitted: each with the right to what it asks for."""
    return Stream(nodes.Source(intent))


class End:
    """The end of a way through a pipeline; see :func:`~pf_stream.streams.pipeline`."""

    __slots__ = ("node",)

    def __init__(self, node: nodes.Sink) -> None:
        self.node = node


class Stream(Generic[V]):
    """Values on their way. Each method says what comes next, and leaves the stream as it is: two that are called on the same
    one are two ways on.

    Functions are pure, as handlers are. If one raises, nothing remains of the intent that was on its way, and it becomes a
    dead letter or is tried again, as the pipeline's ``on_error`` says.

    Where values leave their reactor, by :meth:`key_by`, their type must be known to be written. A function that is
    annotated says it; for any other *returns* does.
    """

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    def map(self, function: Callable[[V], U], returns: type[U] | None = None) -> "Stream[U]":
        """One value of each."""
        return Stream(nodes.Map(self.node, function, returns or returned(function)))

    def filter(self, function: Callable[[V], object]) -> "Stream[V]":
        """Those for which *function* is true."""
        return Stream(nodes.Filter(self.node, function))

    def flat_map(self, function: Callable[[V], Iterable[U]], returns: type[U] | None = None) -> "Stream[U]":
        """Any number of values of each; *returns* is the type of one."""
        return Stream(nodes.FlatMap(self.node, function, returns or item_of(returned(function))))

    def through(self, transform: Transform[V, U], returns: type[U] | None = None) -> "Stream[U]":
        """What *transform* makes of them; *returns* is the type of one."""
        return Stream(nodes.Through(self.node, transform, returns or item_of(returned(transform.one))))

    def branch(self, *conditions: Callable[[V], object]) -> "tuple[Stream[V], ...]":
        """A stream for each condition, of the values for which it is the first that is true; and one more, of the rest."""
        return tuple(Stream(nodes.Branch(self.node, conditions, number)) for number in range(len(conditions) + 1))

    def merge(self, *others: "Stream[V]") -> "Stream[V]":
        """The values of all of them."""
        return Stream(nodes.Merge((self.node, *(other.node for other in others))))

    def key_by(self, key: Callable[[V], str]) -> "Keyed[V]":
        """Values under a key: all of one key meet in one place, wherever they came from, by a topic of the pipeline's own."""
        return Keyed(nodes.KeyBy(self.node, key))

    def by_key(self) -> "Keyed[V]":
        """Values under the key of the intent that they are made of: they stay where they are, which costs no topic."""
        return Keyed(nodes.KeyBy(self.node, None))

    @overload
    def emit(self, make: type[Intent], /) -> End: ...
    @overload
    def emit(self, make: Callable[[V], Intent], /, *intents: type[Intent]) -> End: ...
    def emit(self, make: Any, /, *intents: type[Intent]) -> End:
        """Send an intent for each value, under the context of who caused it, narrowed; what a window or a join of streams
        brings goes under the pipeline's service.

        *make* is the intents' type if the values are intents, or a function that makes them; *intents* are the types that it
        makes, if it is not annotated.
        """
        if isinstance(make, type) and issubclass(make, Intent):
            return End(nodes.Sink(self.node, None, (make,)))
        found = returned(make)
        types = intents or tuple(
            one for one in (found, *_arms(found)) if isinstance(one, type) and issubclass(one, Intent)
        )
        if not types:
            raise DefinitionError("emit", [f"{make!r} does not say which intents it makes: emit(function, IntentType)"])
        return End(nodes.Sink(self.node, make, types))


def _arms(union: Any) -> tuple[Any, ...]:
    arms: tuple[Any, ...] = getattr(union, "__args__", ())
    return arms


class Keyed(Generic[V]):
    """Values under a key, and what can be done with those of one key."""

    __slots__ = ("node",)

    def __init__(self, node: nodes.KeyBy) -> None:
        self.node = node

    def window(self, window: Window, *, late: str | None = None, name: str = "window") -> "WindowedStream[V]":
        """Cut the values of each key into windows.

        What comes too late goes to the topic *late*, as intents of the type ``{pipeline}.{name}.late``; without one it is
        counted. *name* is the stage's: its state and its topic are called by it.
        """
        return WindowedStream(self, window, late, name)

    def _operate(self, name: str, operator: Operator, *others: nodes.KeyBy) -> Stream[Any]:
        return Stream(nodes.Operated((self.node, *others), operator, name))


class WindowedStream(Generic[V]):
    """Values in windows, of which :meth:`aggregate` makes results."""

    __slots__ = ("_keyed", "_late", "_name", "_window")

    def __init__(self, keyed: Keyed[V], window: Window, late: str | None, name: str) -> None:
        self._keyed = keyed
        self._window = window
        self._late = late
        self._name = name

    @overload
    def aggregate(self, aggregate: Aggregate[V, R], /, *, emit: Emission = ...) -> Stream[Windowed[R]]: ...
    @overload
    def aggregate(
        self, make: Callable[..., R], /, *, emit: Emission = ..., **named: Aggregate[V, Any]
    ) -> Stream[Windowed[R]]: ...
    def aggregate(self, what: Any, /, *, emit: Emission | None = None, **named: Aggregate[V, Any]) -> Any:
        """What becomes of the values of each window: one aggregate's result, or what *make* makes of several, by name::

            .aggregate(count())
            .aggregate(Summary, flights=count(), delay=mean(lambda flight: flight.delay))

        Raises :class:`DefinitionError` if the aggregate is not for such a window.
        """
        aggregate = what if isinstance(what, Aggregate) else together(what, named)
        window = self._window
        emission = on_close() if emit is None else emit
        operator: Operator
        if isinstance(window, CountWindow | Global):
            if emit is not None or self._late is not None:
                raise DefinitionError(self._name, ["time does not end it: leave out emit and late"])
            operator = CountedOperator(window, aggregate)
        else:
            if isinstance(window, Session | Sliding) and aggregate.merge is None:
                raise DefinitionError(self._name, ["its windows become one: the aggregate needs merge"])
            if isinstance(window, Sliding) and emission != on_close():
                raise DefinitionError(
                    self._name, ["a value is in many sliding windows: they tell their result on close"]
                )
            operator = TimedOperator(window, aggregate, emission, self._late)
        return self._keyed._operate(self._name, operator)
