"""What a lane needs to know of its topology, compiled once."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from pf_stream.core.changelog import state_prefix
from pf_stream.core.checks import Checks, compile_checks
from pf_stream.core.flow import Flow, flows
from pf_stream.core.records import Header
from pf_stream.model.capability import HeldGrant
from pf_stream.model.constraint import Constraint
from pf_stream.model.context import Context
from pf_stream.model.failure import OnError
from pf_stream.model.intent import Intent, IntentSpec
from pf_stream.model.reactor import ReactorSpec
from pf_stream.model.requirement import grants_of
from pf_stream.model.state import State, Stateless
from pf_stream.model.topology import Group, Topology
from pf_stream.security.narrowing import Bounds, Identity

__all__ = [
    "REROUTED",
    "Binding",
    "EmitPlan",
    "GroupPlan",
    "OlderType",
    "ReactorPlan",
    "Route",
    "SourcePlan",
    "Start",
    "plan",
]

REROUTED = ".rerouted"
"""Suffix of the internal topic through which records of misplaced keys reach the partition of their key."""


@dataclass(frozen=True, slots=True)
class ReactorPlan:
    """A reactor of the group."""

    index: int
    """Position within the group."""
    spec: ReactorSpec
    """Its declaration."""
    prefix: bytes
    """First bytes of its state keys."""
    source: Header
    """``ce_source`` of what it emits, as a header."""
    fresh: Callable[[], State]
    """Makes the state of a new key."""
    service: Identity | None
    """Under which it emits; ``None`` for its callers'."""
    emits: "Mapping[type[Intent], EmitPlan]"
    """What it may emit."""
    stateless: bool
    """Whether nothing is stored for it."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A handler of a reactor instance."""

    reactor: ReactorPlan
    """Whose handler."""
    handle: Callable[[Intent, Any, Context], Any]
    """The bound method."""
    decode: Callable[[bytes], Intent]
    """The intent type's decoder: a handler gets an intent of its own, since it may keep a list of it in its state."""
    on_error: OnError
    """What happens to an intent at which it raises."""
    quick: Callable[[Any, Any, Context], bool] | None = None
    """What is asked first, if there is such: takes an intent, and nothing follows from it, or returns ``False``. If it does that, or
    raises, it has changed nothing, so that nothing needs to be kept for it. Of a state that is new it takes none."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """An intent type as it arrives on one topic. Compared by identity: it is part of decision keys."""

    intent: IntentSpec
    """The type."""
    types: tuple[str, ...]
    """A token that is limited to intent types must name one of these."""
    topic: str
    """The topic for which it is authorised: the one that the producer wrote to."""
    public: bool
    """Whether it requires nothing, so that it may come without a context."""
    checks: Checks
    """What it requires."""
    values: Callable[[Intent], Any]
    """The fields that requirements read: one value, or a tuple of several; a constant if there are none."""
    width: int
    """How many fields that are."""
    bindings: tuple[Binding, ...]
    """Handlers, in the order of the reactors."""
    constraints: tuple[Constraint, ...]
    """When it may be handled."""


@dataclass(frozen=True, slots=True)
class OlderType:
    """An older version of an intent type, that is upcast before anything else is decided."""

    version: int
    """Its version."""
    route: Route
    """The current one, for tokens of those who send the older one."""


@dataclass(frozen=True, slots=True)
class EmitPlan:
    """How an intent type is emitted."""

    intent: IntentSpec
    """The type."""
    type: Header
    """``ce_type``, as a header."""
    topic: str
    """Full name of its topic."""
    bounds: Bounds
    """What the context that goes with it is narrowed to."""


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One source topic of the group."""

    topic: str
    """Full name."""
    internal: bool
    """Whether only the engine writes it, so that its headers are believed."""
    origin: str
    """The topic that producers wrote to: the topic itself, or the one from which records are rerouted to it."""
    routes: Mapping[bytes, Route]
    """By ``ce_type``."""
    older: Mapping[bytes, OlderType]
    """By ``ce_type``, what is not among *routes* and is upcast to one of them."""
    names: frozenset[bytes]
    """Intent names, without version, that are known on this topic."""
    readers: tuple[ReactorPlan, ...]
    """Reactors that read it."""
    upstreams: tuple[str, ...]
    """Lanes that are declared to write to it and tell their clocks, as a ``pf-watermark`` names them."""
    reroute: str | None
    """Where a record of a misplaced key goes; ``None`` if it has been there already."""
    dead_letters: str
    """Topic of its dead letters."""


@dataclass(frozen=True, slots=True)
class Start:
    """An intent that a lane gets whenever it begins."""

    topic: str
    """Full name of the topic on which its reactors know it."""
    intent: Intent
    """The intent."""
    reactor: ReactorPlan
    """From whom it comes."""


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A group: reactors with one changelog."""

    topology: Topology
    """Of which it is a part."""
    name: str
    """The group's name."""
    changelog: str
    """Its changelog topic."""
    partitions: int
    """Partitions of every source topic and of the changelog."""
    reactors: tuple[ReactorPlan, ...]
    """In the order of their declaration."""
    sources: tuple[SourcePlan, ...]
    """Source topics with their reroute topics, sorted by name."""
    emits: Mapping[type[Intent], EmitPlan]
    """Everything that the topology may emit."""
    services: Mapping[str, Identity]
    """By id, the reactors of the group that emit under an identity of their own."""
    event_time: bool
    """Whether its lanes keep an event clock from the first intent on."""
    listeners: frozenset[str]
    """Internal topics of the topology whose readers keep one."""
    targets: tuple[str, ...]
    """Those of them to which its reactors are declared to write, and that do not lead back to it."""
    feedback: frozenset[str]
    """Groups for whose lanes its event clock never waits."""
    starts: tuple[Start, ...]
    """What its lanes are told when they begin."""


def plan(topology: Topology, partitions: int) -> tuple[GroupPlan, ...]:
    """Compile a topology whose source topics have *partitions* partitions each."""
    emits = _emits(topology)
    flow = flows(topology)
    listeners = frozenset(
        topic
        for group in topology.groups
        for topic in group.topics
        if topology.is_internal(topic) and flow[group.name].event_time
    )
    return tuple(_group(topology, group, partitions, emits, flow[group.name], listeners) for group in topology.groups)


def _emits(topology: Topology) -> dict[type[Intent], EmitPlan]:
    """How everything is emitted.

    A context that goes to an internal topic is narrowed once to all that may follow from there: the types on internal
    topics and those that the topology emits to others. So it is good for a chain of any length, and for no public topic of
    the topology, whoever reads it on its way. Any other is narrowed to the one type that it goes with.
    """
    public = {topic for topic in topology.source_topics if not topology.is_internal(topic)}
    following = [spec for spec in topology.intents if topology.topic_name(spec.topic) not in public]
    # In a rolling upgrade, a worker of the version before may emit an older type because of what this one emits.
    onward = _bounds(topology, following, {older for spec in following for older in spec.older_types})
    return {
        spec.model: EmitPlan(
            intent=spec,
            type=("ce_type", spec.type.encode()),
            topic=topology.topic_name(spec.topic),
            bounds=onward if topology.is_internal(topology.topic_name(spec.topic)) else _bounds(topology, [spec]),
        )
        for spec in topology.intents
    }


def _bounds(topology: Topology, specs: Sequence[IntentSpec], more_types: Set[str] = frozenset()) -> Bounds:
    grants = {
        HeldGrant.of(grant.widest())
        for spec in specs
        for requirement in topology.requirements(spec)
        for grant in grants_of(requirement)
    }
    return Bounds(
        capabilities=tuple(sorted(grants, key=str)),
        intent_types=frozenset(spec.type for spec in specs) | more_types,
        topics=frozenset(topology.topic_name(spec.topic) for spec in specs),
    )


def _group(
    topology: Topology,
    group: Group,
    partitions: int,
    emits: Mapping[type[Intent], EmitPlan],
    flow: Flow,
    listeners: frozenset[str],
) -> GroupPlan:
    reactors = []
    bindings: dict[tuple[str, str], list[Binding]] = {}
    specs: dict[tuple[str, str], IntentSpec] = {}
    for index, reactor_type in enumerate(group.reactors):
        spec = reactor_type.__reactor__
        instance = reactor_type()
        reactor = ReactorPlan(
            index=index,
            spec=spec,
            prefix=state_prefix(spec.id),
            source=("ce_source", f"/{topology.app_id}/{spec.id}".encode()),
            fresh=spec.state_type,
            service=_identity(topology, spec),
            emits=emits if spec.emits is None else {intent.model: emits[intent.model] for intent in spec.emits},
            stateless=spec.state_type is Stateless,
        )
        reactors.append(reactor)
        for handler in spec.handlers:
            at = topology.topic_name(handler.intent.topic), handler.intent.type
            specs[at] = handler.intent
            handle = getattr(instance, handler.name)
            quick = getattr(handle, "__pf_quick__", None)
            bound = Binding(reactor, handle, handler.intent.decode, handler.on_error, quick)
            bindings.setdefault(at, []).append(bound)
    sources = []
    for topic in group.topics:
        internal = topology.is_internal(topic)
        routes = {
            kind.encode(): _route(topology, specs[name, kind], topic, tuple(handlers), internal=internal)
            for (name, kind), handlers in bindings.items()
            if name == topic
        }
        older = {
            kind.encode(): OlderType(version, route if internal else replace(route, types=(kind,)))
            for route in routes.values()
            for kind, version in route.intent.older_types.items()
        }
        direct = SourcePlan(
            topic=topic,
            internal=internal,
            origin=topic,
            routes=routes,
            older=older,
            names=frozenset(route.intent.name.encode() for route in routes.values()),
            readers=tuple(
                reactor
                for reactor in reactors
                if any(topology.topic_name(handler.intent.topic) == topic for handler in reactor.spec.handlers)
            ),
            upstreams=tuple(f"{name}:{number}" for name in flow.upstreams[topic] for number in range(partitions))
            if flow.event_time
            else (),
            # The engine itself chooses partitions on internal topics, so nothing is misplaced there.
            reroute=None if internal else topic + REROUTED,
            dead_letters=f"{topic}.dlq",
        )
        sources.append(direct)
        if direct.reroute is not None:
            sources.append(
                SourcePlan(
                    topic=direct.reroute,
                    internal=True,
                    origin=topic,
                    routes=routes,
                    older=older,
                    names=direct.names,
                    readers=direct.readers,
                    upstreams=(),
                    reroute=None,
                    dead_letters=direct.dead_letters,
                )
            )
    return GroupPlan(
        topology=topology,
        name=group.name,
        changelog=topology.changelog(group),
        partitions=partitions,
        reactors=tuple(reactors),
        sources=tuple(sorted(sources, key=lambda source: source.topic)),
        emits=emits,
        services={reactor.spec.id: reactor.service for reactor in reactors if reactor.service is not None},
        event_time=flow.event_time,
        listeners=listeners,
        targets=flow.targets,
        feedback=flow.feedback,
        starts=tuple(_starts(topology, reactors)),
    )


def _starts(topology: Topology, reactors: Sequence[ReactorPlan]) -> Iterator[Start]:
    for intent in topology.starts:
        spec = intent.__intent__
        takers = [one for one in reactors if any(handler.intent is spec for handler in one.spec.handlers)]
        if takers:
            sender = next((one for one in takers if one.service is not None), takers[0])
            yield Start(topology.topic_name(spec.topic), intent, sender)


def _identity(topology: Topology, spec: ReactorSpec) -> Identity | None:
    service = topology.services.get(spec.id)
    if service is None:
        return None
    return Identity(spec.id, topology.service_subject(spec.id), service.key, service.grants)


def _route(
    topology: Topology, intent: IntentSpec, topic: str, bindings: tuple[Binding, ...], *, internal: bool
) -> Route:
    requirements = topology.requirements(intent)
    checks = compile_checks(requirements, topology.calendars)
    return Route(
        intent=intent,
        # On an internal topic the engine chose the type, and the token may have been narrowed by another version of it.
        types=(intent.type, *intent.older_types) if internal else (intent.type,),
        topic=topic,
        public=not requirements,
        checks=checks,
        values=attrgetter(*checks.fields) if checks.fields else lambda _: None,
        width=len(checks.fields),
        bindings=bindings,
        constraints=topology.constraints_of(intent),
    )
