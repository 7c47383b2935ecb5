"""Pipelines: stages that are deployed together, compiled into reactors."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal

from pf_stream.errors import DefinitionError
from pf_stream.model import (
    Context,
    Effects,
    Emit,
    Forget,
    Intent,
    Part,
    Reactor,
    Requirement,
    Service,
    State,
    Stateless,
)
from pf_stream.model.effect import Bell, Tally
from pf_stream.model.failure import OnError
from pf_stream.model.requirement import Computed, fields_of, leaves
from pf_stream.model.rules import Rule
from pf_stream.streams import _nodes as nodes
from pf_stream.streams._generated import Handler, intent_type, reactor_type, state_type
from pf_stream.streams._joins import UNMATCHED
from pf_stream.streams._nodes import Node, ancestors, before, type_of
from pf_stream.streams._operator import Built, Fire, Flow, Push
from pf_stream.streams.stream import End

__all__ = ["pipeline"]

_KEY: Final = "stage_key"
_VALUE: Final = "stage_value"
"""Fields of the inner intents, beside those that their requirements read and that are called as in the outer type."""
_name: Final = re.compile(r"[a-z][a-z0-9_]{0,30}").fullmatch


def pipeline(name: str, *ends: End, service: Service | None = None, on_error: OnError = None) -> Part:
    """The stages that lead to *ends*, as a part of a topology::

        hourly = pipeline(
            "hourly",
            stream(FlightDeparted).key_by(lambda flight: flight.origin).window(tumbling("1h")).aggregate(count()).emit(told),
            service=Service(key=7, grants=["FlightCap.report:/**"]),
        )
        Topology("flights", [Fleet], parts=[hourly])

    Stages without state that follow each other are one handler. *name* and the names of the stages are what states, topics
    and inner intents are called by: with another name, what was stored is lost.

    What follows from one caller's intent goes on under that caller's context. What follows from many, as windows and joins
    of streams do, goes under *service*; without one it goes without a context, and may only be of types that require
    nothing. *on_error* says what happens to an intent at which a stage raises, as for reactors.

    Raises :class:`DefinitionError` with every fault found.
    """
    compiler = _Compiler(name, [end.node for end in ends], service, on_error)
    if compiler.faults:
        raise DefinitionError(f"pipeline {name!r}", compiler.faults)
    return compiler.part()


@dataclass(frozen=True, slots=True)
class _Input:
    """What an operator takes."""

    intent: type[Intent]
    """The type."""
    port: str
    """Where."""
    way: Push | None = None
    """The stages on the way there that are in its own reactor; ``None``: it comes by the operator's own topic."""


class _Root:
    """Where a reactor's values begin."""

    def __init__(self, name: str, intent: type[Intent] | None = None) -> None:
        self.name = name
        """What it is called in the names of what it sends."""
        self.intent = intent
        """The type of intents that it takes; ``None`` if it is an operator."""
        required = () if intent is None else intent.__intent__.requires
        self.requires = tuple(one for one in required if _can_be_carried(one))
        """What can be required once more where its values go."""
        self.carried = tuple(dict.fromkeys(field for one in self.requires for field in fields_of(one)))
        """The fields that this reads."""
        self.emits: dict[type[Intent], None] = {}
        """What its values may become, where they leave its reactor."""


def _can_be_carried(requirement: Requirement) -> bool:
    """Whether it is decided by single fields; what needs the intent itself was decided where the intent came in."""
    return not any(isinstance(leaf, Computed | Rule) for leaf in leaves(requirement)) and {_KEY, _VALUE}.isdisjoint(
        fields_of(requirement)
    )


class _Stage:
    """The place of an operator."""

    def __init__(self, compiler: "_Compiler", node: nodes.Operated) -> None:
        self.node = node
        self.name = node.name
        self.id = f"{compiler.name}-{node.name}"
        """Of its reactor, and its topic."""
        self.lag_ms = compiler.hold_ms(node.inputs)
        self.timers: dict[str, type[Intent]] = {}
        self.inputs: list[_Input] = []
        """What it takes."""
        self._compiler = compiler

    def value_type(self, port: str) -> Any:
        key_by = self.node.inputs[self.node.operator.ports.index(port)]
        found = type_of(key_by)
        if found is None:
            fault = (
                f"the type of what stage {self.name!r} takes is not known, so it cannot be written: annotate the function that "
                f"makes it, or give map(function, returns=Type)"
            )
            raise DefinitionError(f"pipeline {self._compiler.name!r}", [fault])
        return found

    def timer(self, name: str, **fields: Any) -> type[Any]:
        made = self.timers[name] = intent_type(f"{self._compiler.name}.{self.name}.{name}", self.id, fields)
        return made

    def bell(self, name: str, clock: Literal["wall", "event"]) -> Bell:
        return Bell(self.timer(name), name, clock)

    def outlet(self, name: str, topic: str, **fields: Any) -> type[Any]:
        return intent_type(f"{self._compiler.name}.{self.name}.{name}", topic, fields)


class _Compiler:
    def __init__(self, name: str, ends: Sequence[nodes.Sink], service: Service | None, on_error: OnError) -> None:
        self.name = name
        self.faults: list[str] = []
        self._service = service
        self._on_error = on_error
        self._nodes = ancestors(ends)
        self._next: dict[Node, list[Node]] = {node: [] for node in self._nodes}
        for node in self._nodes:
            for one in before(node):
                self._next[one].append(node)
        self._operated = [node for node in self._nodes if isinstance(node, nodes.Operated)]
        self._check(ends)
        if not self.faults:
            self._stages = {node: _Stage(self, node) for node in self._operated}

    # -- what may be wrong ---------------------------------------------------------------------------------------------

    def _check(self, ends: Sequence[nodes.Sink]) -> None:
        faults = self.faults
        if not _name(self.name):
            faults.append("the name must be lower case letters, digits and '_', starting with a letter, up to 31")
        if not ends:
            faults.append("leads nowhere: give it streams that end in emit(...)")
        seen: set[str] = set()
        for node in self._operated:
            if not _name(node.name):
                faults.append(f"stage {node.name!r}: a name is lower case letters, digits and '_', up to 31")
            if node.name in seen:
                faults.append(f"two stages are called {node.name!r}: give one of them name=...")
            seen.add(node.name)
        for key_by in (node for node in self._nodes if isinstance(node, nodes.KeyBy)):
            if key_by.key is None and any(isinstance(node, nodes.Operated) for node in ancestors([key_by])):
                faults.append("by_key() is for intents: what comes of a window or a join needs key_by(function)")
        if self._service is None:
            for end in ends:
                if not self._follows_from_many(end):
                    continue
                faults += [
                    f"emits {intent.__intent__.type}, which requires something, because of many callers: give the pipeline "
                    f"service=Service(...), or let the type be PUBLIC"
                    for intent in end.intents
                    if intent.__intent__.requires
                ]

    def _follows_from_many(self, node: Node) -> bool:
        return any(isinstance(one, nodes.Operated) and one.operator.many for one in ancestors([node]))

    def hold_ms(self, befores: Iterable[Node]) -> int:
        """How long after they happened values may come out of the stages that *befores* follow."""
        longest = 0
        for node in befores:
            held = self.hold_ms(before(node))
            if isinstance(node, nodes.Operated):
                held += node.operator.hold_ms
            longest = max(longest, held)
        return longest

    # -- compiling -----------------------------------------------------------------------------------------------------

    def part(self) -> Part:
        """The part."""
        built = {node: node.operator.build(self._stages[node]) for node in self._operated}
        heads = [self._head(node) for node in self._sources()]
        operated = [self._reactor(node, built[node]) for node in self._operated]
        sinks = [node for node in self._nodes if isinstance(node, nodes.Sink)]
        reactors = (*(head for head in heads if head is not None), *operated)
        many = {self._stages[node].id for node in self._operated if self._follows_from_many(node)}
        return Part(
            self.name,
            reactors,
            internal=frozenset(stage.id for stage in self._stages.values() if stage.timers or self._hops_to(stage)),
            emits=tuple(
                dict.fromkeys(
                    [intent for sink in sinks for intent in sink.intents]
                    + [intent for one in built.values() for intent in one.late]
                )
            ),
            tables=tuple(dict.fromkeys(node.table for node in self._nodes if isinstance(node, nodes.Enrich))),
            services={} if self._service is None else dict.fromkeys(sorted(many), self._service),
        )

    def _hops_to(self, stage: _Stage) -> bool:
        return any(one.way is None for one in stage.inputs)

    def _sources(self) -> Iterator[type[Intent]]:
        yield from dict.fromkeys(node.intent for node in self._nodes if isinstance(node, nodes.Source))

    def _head(self, intent: type[Intent]) -> type[Reactor[Any]] | None:
        """The reactor of the stages that follow a type of intents; ``None`` if all of them are elsewhere."""
        name = intent.__intent__.name.replace(".", "_")
        root = _Root(name, intent)
        pushes = []
        for node in self._nodes:
            if isinstance(node, nodes.Source) and node.intent is intent:
                push = self._onward(node, root)
                if push is not None:
                    pushes.append(push)
                self._take_direct(node, intent)
        if not pushes:
            return None
        push, key_of = _all(pushes), _key_of(intent)

        def taken(_: Any, intent: Any, state: Any, context: Context) -> Effects:
            flow = Flow(intent, key_of, context, push)
            push([intent], flow)
            return flow.effects or None

        return self._made(
            f"{self.name}-{name}"[:63], Stateless, {"taken": (intent, taken)}, root.emits, anonymous=False
        )

    def _take_direct(self, source: nodes.Source, intent: type[Intent]) -> None:
        """Give the operators that take *intent* under its own key the stages on the way there."""
        for node in self._operated:
            for port, key_by in zip(node.operator.ports, node.inputs, strict=True):
                if key_by.key is None and source in ancestors([key_by]):
                    self._stages[node].inputs.append(_Input(intent, port, self._way(source, key_by)))

    def _reactor(self, node: nodes.Operated, built: Built) -> type[Reactor[Any]]:
        """The reactor of an operator and of the stages behind it."""
        stage = self._stages[node]
        root = _Root(node.name)
        push = self._onward(node, root) or _nowhere
        state: type[State] = Stateless
        if built.state:
            state = state_type(f"{self.name}.{node.name}", built.state)
            if built.storing is not None:
                state.__state__ = built.storing(state.__state__)
        handlers: dict[str, tuple[type[Intent], Handler]] = {}
        for number, one in enumerate(stage.inputs):
            taking = _taking(built, push, one)
            # Else what it would leave behind if it raised in the middle could be seen.
            if state.__state__.keeper is not None:
                _offer_quick(taking, built, one)
            handlers[f"{one.port}_{number}"] = one.intent, taking
        for name, intent in stage.timers.items():
            handlers[f"on_{name}"] = intent, _firing(built.fire[name], push)
        emits = [*root.emits, *built.late]
        return self._made(stage.id, state, handlers, emits, anonymous=self._follows_from_many(node))

    def _made(
        self,
        id_: str,
        state: type[State],
        handlers: Mapping[str, tuple[type[Intent], Handler]],
        emits: Iterable[type[Intent]],
        *,
        anonymous: bool,
    ) -> type[Reactor[Any]]:
        # Whoever feeds a stage that goes by the event clock keeps one too, to be told of by what it writes.
        event_time = any(node.operator.event_time for node in self._operated)
        return reactor_type(
            id_,
            state,
            handlers,
            on_error=self._on_error,
            event_time=event_time,
            anonymous=anonymous,
            emits=tuple(emits),
        )

    # -- the way of values ---------------------------------------------------------------------------------------------

    def _onward(self, node: Node, root: "_Root") -> Push | None:
        """What takes values from a stage to where they leave its reactor; ``None`` if they do not."""
        pushes = [push for follower in self._next[node] if (push := self._step(follower, root)) is not None]
        return _all(pushes) if pushes else None

    def _step(self, node: Node, root: "_Root") -> Push | None:
        match node:
            case nodes.Sink():
                root.emits.update(dict.fromkeys(node.intents))
                return _sink(node.make)
            case nodes.KeyBy():
                return None if node.key is None else self._hop(node, node.key, root)
            case _:
                push = self._onward(node, root)
                return None if push is None else _through(node, push)

    def _way(self, source: Node, key_by: nodes.KeyBy) -> Push:
        """What takes values from *source* to *key_by*, and gathers them in ``flow.values``.

        :func:`_nowhere` if there is nothing on the way.
        """

        if key_by.before is source:
            return _nowhere

        def steps(node: Node) -> Push | None:
            if node is key_by:
                return lambda values, flow: flow.values.extend(values)
            pushes = [push for follower in self._next[node] if (push := steps(follower)) is not None]
            if not pushes or isinstance(node, nodes.KeyBy | nodes.Operated | nodes.Sink):
                return None
            return _all(pushes) if node is source else _through(node, _all(pushes))

        push = steps(source)
        assert push is not None  # it is among the ancestors
        return push

    def _hop(self, key_by: nodes.KeyBy, key: Callable[[Any], str], root: "_Root") -> Push | None:
        """What sends values to the operators that follow."""
        pushes = []
        for node in self._next[key_by]:
            assert isinstance(node, nodes.Operated)
            for port, one in zip(node.operator.ports, node.inputs, strict=True):
                if one is key_by:
                    pushes.append(self._edge(self._stages[node], port, key, root))
        return _all(pushes) if pushes else None

    def _edge(self, stage: _Stage, port: str, key: Callable[[Any], str], root: _Root) -> Push:
        name = f"{self.name}.{stage.name}.{port}.{root.name}"
        intent = next((one.intent for one in stage.inputs if one.intent.__intent__.name == name), None)
        if intent is None:
            fields = dict.fromkeys(root.carried, str)
            intent = intent_type(name, stage.id, {_VALUE: stage.value_type(port), **fields}, root.requires, _KEY)
            stage.inputs.append(_Input(intent, port))
        root.emits[intent] = None
        return _sending(intent, key, root.carried)


# -- what becomes of values ----------------------------------------------------------------------------------------------


def _nowhere(values: list[Any], flow: Flow) -> None:
    """The end of a way that leads nowhere."""


def _all(pushes: Sequence[Push]) -> Push:
    if len(pushes) == 1:
        return pushes[0]

    def push(values: list[Any], flow: Flow) -> None:
        for one in pushes:
            one(values, flow)

    return push


def _through(node: Node, push: Push) -> Push:
    """What does what *node* says, and pushes what comes of it."""
    match node:
        case nodes.Map(function=one):
            return lambda values, flow: push([one(value) for value in values], flow)
        case nodes.Filter(function=holds):
            return _some(lambda values: [value for value in values if holds(value)], push)
        case nodes.FlatMap(function=many):
            return _some(lambda values: [made for value in values for made in many(value)], push)
        case nodes.Through(transform=transform):
            return _some(lambda values: list(transform.many(values)), push)
        case nodes.Enrich():
            return _enriching(node, push)
        case nodes.Branch(conditions=conditions, number=number):
            return _some(lambda values: [value for value in values if _branch_of(value, conditions) == number], push)
        case _:
            return push


def _enriching(node: nodes.Enrich, push: Push) -> Push:
    table, by, make, alone = node.table, node.by, node.make, node.alone

    def enrich(values: list[Any], flow: Flow) -> None:
        row_of = flow.context.row
        made = []
        for value in values:
            row = row_of(table, by(value))
            if row is not None or alone:
                made.append(make(value, row))
            else:
                flow.effects.append(Tally(UNMATCHED))
        if made:
            push(made, flow)

    return enrich


def _some(function: Callable[[list[Any]], list[Any]], push: Push) -> Push:
    def some(values: list[Any], flow: Flow) -> None:
        made = function(values)
        if made:
            push(made, flow)

    return some


def _branch_of(value: Any, conditions: Sequence[Callable[[Any], object]]) -> int:
    return next((number for number, holds in enumerate(conditions) if holds(value)), len(conditions))


def _sink(make: Callable[[Any], Intent] | None) -> Push:
    def push(values: list[Any], flow: Flow) -> None:
        at_ms = flow.time_ms
        flow.effects.extend([Emit(value if make is None else make(value), None, at_ms) for value in values])

    return push


def _sending(intent: type[Any], key: Callable[[Any], str], carried: Sequence[str]) -> Push:
    """What sends values to the topic of an operator."""

    def push(values: list[Any], flow: Flow) -> None:
        at_ms = flow.time_ms
        origin = flow.origin
        told = {field: getattr(origin, field) for field in carried}
        flow.effects.extend(
            [Emit(intent(stage_key=key(value), stage_value=value, **told), None, at_ms) for value in values]
        )

    return push


# -- handlers ------------------------------------------------------------------------------------------------------------


def _key_of(intent: type[Intent]) -> Callable[[Any], str]:
    key_of = intent.__intent__.key_of
    return lambda one: key_of(one).decode()


def _taking(built: Built, push: Push, input_: _Input) -> Handler:
    add, quick, way = built.add[input_.port], built.quick.get(input_.port), input_.way
    if way is None:
        sent_key = attrgetter("stage_key")

        def taken(_: Any, intent: Any, state: Any, context: Context) -> Effects:
            if quick is not None and quick(intent.stage_value, state, context):
                return None
            flow = Flow(intent, sent_key, context, push)
            add(intent.stage_value, state, flow)
            return flow.effects or None

        return taken
    own_key = _key_of(input_.intent)
    if way is _nowhere:

        def taken_itself(_: Any, intent: Any, state: Any, context: Context) -> Effects:
            if quick is not None and quick(intent, state, context):
                return None
            flow = Flow(intent, own_key, context, push)
            add(intent, state, flow)
            return flow.effects or None

        return taken_itself

    def taken_directly(_: Any, intent: Any, state: Any, context: Context) -> Effects:
        flow = Flow(intent, own_key, context, push)
        way([intent], flow)
        values = flow.values
        if not values:
            # A key of which nothing was ever wanted leaves no state behind.
            unused = built.state and state == type(state)()
            return [*flow.effects, Forget()] if unused else flow.effects or None
        if quick is not None and len(values) == 1 and not flow.effects and quick(values[0], state, context):
            return None
        for value in values:
            add(value, state, flow)
        return flow.effects or None

    return taken_directly


def _offer_quick(taking: Handler, built: Built, input_: _Input) -> None:
    """Let a lane ask the quick way of a port before it calls the handler."""
    quick = built.quick.get(input_.port)
    if quick is None:
        return
    if input_.way is None:
        taking.__pf_quick__ = lambda intent, state, context: quick(intent.stage_value, state, context)  # type: ignore[attr-defined]
    elif input_.way is _nowhere:
        taking.__pf_quick__ = quick  # type: ignore[attr-defined]


def _firing(fire: Fire, push: Push) -> Handler:
    bell_key = attrgetter("key")

    def fired(_: Any, intent: Any, state: Any, context: Context) -> Effects:
        flow = Flow(intent, bell_key, context, push)
        fire(intent, state, flow)
        return flow.effects or None

    return fired
