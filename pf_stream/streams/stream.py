"""Streams: what happens to intents, said stage by stage."""

from collections.abc import Callable, Iterable
from types import GenericAlias
from typing import Any, Generic, Literal, TypeVar, overload

from pf_stream.errors import DefinitionError
from pf_stream.model import GlobalTable, Intent
from pf_stream.streams import _nodes as nodes
from pf_stream.streams._counted import CountedOperator
from pf_stream.streams._joins import AsOfOperator, How, IntervalOperator, LookupOperator, TablesOperator
from pf_stream.streams._nodes import Node, item_of, returned, type_of
from pf_stream.streams._operator import Operator
from pf_stream.streams._pacing import DedupeOperator, HoldOperator, ThrottleOperator
from pf_stream.streams._timed import TimedOperator
from pf_stream.streams.aggregates import Aggregate, together
from pf_stream.streams.transform import Transform
from pf_stream.streams.windows import (
    CountWindow,
    Emission,
    Global,
    Session,
    Sliding,
    Window,
    Windowed,
    milliseconds,
    on_close,
)

__all__ = ["End", "Keyed", "Stream", "Table", "WindowedStream", "stream"]

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

    @overload
    def enrich(
        self,
        table: GlobalTable[U],
        make: Callable[[V, U], R],
        *,
        by: Callable[[V], str],
        how: Literal["inner"] = ...,
        returns: type[R] | None = ...,
    ) -> "Stream[R]": ...
    @overload
    def enrich(
        self,
        table: GlobalTable[U],
        make: Callable[[V, U | None], R],
        *,
        by: Callable[[V], str],
        how: Literal["left"],
        returns: type[R] | None = ...,
    ) -> "Stream[R]": ...
    def enrich(
        self,
        table: GlobalTable[Any],
        make: Callable[..., R],
        *,
        by: Callable[[V], str],
        how: Literal["inner", "left"] = "inner",
        returns: type[R] | None = None,
    ) -> "Stream[R]":
        """Each value with the row that *table* has under the key *by*: wherever the value is, since each worker has all of it.

        What finds none comes with ``None`` if *how* is ``left``, else it is counted as ``unmatched``. All of a unit see the
        table as it is when the first one asks; a unit that is undone and done again may see it as it is then.
        """
        return Stream(nodes.Enrich(self.node, table, by, make, how == "left", returns or returned(make)))

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

    @overload
    def join(
        self,
        other: "Keyed[U]",
        make: Callable[[V, U], R],
        *,
        before: str = ...,
        after: str = ...,
        bound: str = ...,
        late: str | None = ...,
        how: Literal["inner"] = ...,
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    @overload
    def join(
        self,
        other: "Keyed[U]",
        make: Callable[[V, U | None], R],
        *,
        before: str = ...,
        after: str = ...,
        bound: str = ...,
        late: str | None = ...,
        how: Literal["left"],
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    @overload
    def join(
        self,
        other: "Keyed[U]",
        make: Callable[[V | None, U], R],
        *,
        before: str = ...,
        after: str = ...,
        bound: str = ...,
        late: str | None = ...,
        how: Literal["right"],
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    @overload
    def join(
        self,
        other: "Keyed[U]",
        make: Callable[[V | None, U | None], R],
        *,
        before: str = ...,
        after: str = ...,
        bound: str = ...,
        late: str | None = ...,
        how: Literal["outer"],
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    def join(
        self,
        other: "Keyed[Any]",
        make: Callable[..., R],
        *,
        before: str = "0s",
        after: str = "0s",
        bound: str = "0s",
        late: str | None = None,
        how: How = "inner",
        returns: type[R] | None = None,
        name: str = "join",
    ) -> Stream[R]:
        """Each pair of a value here and one of *other* that happened at most *before* earlier or *after* later.

        A pair comes out when its second value arrives; what has found none when none can come any more: alone, with
        ``None`` for the other, if *how* says so, else it is counted as ``unmatched``. What is out of order by more than
        *bound* goes to the topic *late*, as intents of the types ``{pipeline}.{name}.late_left`` and ``late_right``; without
        one it is counted as ``late``.

        Raises :class:`DefinitionError`.
        """
        operator = IntervalOperator(
            milliseconds(before, name, zero=True),
            milliseconds(after, name, zero=True),
            milliseconds(bound, name, zero=True),
            how,
            make,
            returns or returned(make),
            late,
        )
        return self._operate(name, operator, other.node)

    @overload
    def as_of(
        self,
        other: "Keyed[U]",
        make: Callable[[V, U], R],
        *,
        tolerance: str | None = ...,
        bound: str = ...,
        late: str | None = ...,
        how: Literal["inner"] = ...,
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    @overload
    def as_of(
        self,
        other: "Keyed[U]",
        make: Callable[[V, U | None], R],
        *,
        tolerance: str | None = ...,
        bound: str = ...,
        late: str | None = ...,
        how: Literal["left"],
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    def as_of(
        self,
        other: "Keyed[Any]",
        make: Callable[..., R],
        *,
        tolerance: str | None = None,
        bound: str = "0s",
        late: str | None = None,
        how: Literal["inner", "left"] = "inner",
        returns: type[R] | None = None,
        name: str = "as_of",
    ) -> Stream[R]:
        """Each value here with the latest of *other* that had happened by then, at most *tolerance* before.

        It comes out when no earlier one can come any more, *bound* after it happened. Without *tolerance* each key keeps one
        value of *other* for ever. What is out of order by more than *bound* goes to *late*, as with :meth:`join`.

        Raises :class:`DefinitionError`.
        """
        operator = AsOfOperator(
            None if tolerance is None else milliseconds(tolerance, name),
            milliseconds(bound, name, zero=True),
            how,
            make,
            returns or returned(make),
            late,
        )
        return self._operate(name, operator, other.node)

    def table(self, *, remove: Callable[[V], object] | None = None) -> "Table[V]":
        """The last value of each key as its row; a value of which *remove* is true takes the row away."""
        return Table(self.node, remove)

    @overload
    def lookup(
        self,
        table: "Table[U]",
        make: Callable[[V, U], R],
        *,
        how: Literal["inner"] = ...,
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    @overload
    def lookup(
        self,
        table: "Table[U]",
        make: Callable[[V, U | None], R],
        *,
        how: Literal["left"],
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    def lookup(
        self,
        table: "Table[Any]",
        make: Callable[..., R],
        *,
        how: Literal["inner", "left"] = "inner",
        returns: type[R] | None = None,
        name: str = "lookup",
    ) -> Stream[R]:
        """Each value with the row that *table* has under its key when it arrives.

        What finds none comes with ``None`` if *how* is ``left``, else it is counted as ``unmatched``.
        """
        return self._operate(name, LookupOperator(table.remove, how, make, returns or returned(make)), table.node)

    def dedupe(self, id: Callable[[V], str], *, within: str, name: str = "dedupe") -> Stream[V]:  # noqa: A002
        """Those whose *id* is not that of one before; an id is remembered until the event clock has come so far behind its
        value's time."""
        return self._operate(name, DedupeOperator(id, milliseconds(within, name), type_of(self.node)))

    def throttle(self, most: int, *, per: str, name: str = "throttle") -> Stream[V]:
        """At most so many of a key in a period of the worker's clock, which begins with the first; the rest is dropped, and
        counted as ``throttled``."""
        if most < 1:
            raise DefinitionError(name, [f"most={most} must be 1 or more"])
        return self._operate(name, ThrottleOperator(most, milliseconds(per, name), type_of(self.node)))

    def debounce(self, quiet: str, *, name: str = "debounce") -> Stream[V]:
        """The last value of a key when none has followed for so long, by the worker's clock."""
        return self._operate(name, HoldOperator("debounce", milliseconds(quiet, name), type_of(self.node)))

    def sample(self, every: str, *, name: str = "sample") -> Stream[V]:
        """The last value of a key in each period of the worker's clock, at its end."""
        return self._operate(name, HoldOperator("sample", milliseconds(every, name), type_of(self.node)))

    def _operate(self, name: str, operator: Operator, *others: nodes.KeyBy) -> Stream[Any]:
        return Stream(nodes.Operated((self.node, *others), operator, name))


class Table(Generic[V]):
    """A row under each key, the last value of a stream; made by :meth:`Keyed.table`."""

    __slots__ = ("node", "remove")

    def __init__(self, node: nodes.KeyBy, remove: Callable[[V], object] | None) -> None:
        self.node = node
        self.remove = remove

    @overload
    def join(
        self,
        other: "Table[U]",
        make: Callable[[V, U], R],
        *,
        how: Literal["inner"] = ...,
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    @overload
    def join(
        self,
        other: "Table[U]",
        make: Callable[[V, U | None], R],
        *,
        how: Literal["left"],
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    @overload
    def join(
        self,
        other: "Table[U]",
        make: Callable[[V | None, U | None], R],
        *,
        how: Literal["right", "outer"],
        returns: type[R] | None = ...,
        name: str = ...,
    ) -> Stream[R]: ...
    def join(
        self,
        other: "Table[Any]",
        make: Callable[..., R],
        *,
        how: How = "inner",
        returns: type[R] | None = None,
        name: str = "tables",
    ) -> Stream[R]:
        """The rows of one key, whenever one of them changes; *how* says which come alone, with ``None`` for the other."""
        operator = TablesOperator((self.remove, other.remove), how, make, returns or returned(make))
        return Stream(nodes.Operated((self.node, other.node), operator, name))


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
        value = None if isinstance(what, Aggregate) else returned(what)
        result = None if value is None else GenericAlias(Windowed, (value,))
        window = self._window
        emission = on_close() if emit is None else emit
        operator: Operator
        if isinstance(window, CountWindow | Global):
            if emit is not None or self._late is not None:
                raise DefinitionError(self._name, ["time does not end it: leave out emit and late"])
            operator = CountedOperator(window, aggregate, result)
        else:
            if isinstance(window, Session | Sliding) and aggregate.merge is None:
                raise DefinitionError(self._name, ["its windows become one: the aggregate needs merge"])
            if isinstance(window, Sliding) and emission != on_close():
                raise DefinitionError(
                    self._name, ["a value is in many sliding windows: they tell their result on close"]
                )
            operator = TimedOperator(window, aggregate, emission, self._late, result)
        return self._keyed._operate(self._name, operator)
