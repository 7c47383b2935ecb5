"""Topology: which reactors run together, and which topics connect them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeVar, get_args

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest
from pf_stream.model.constraint import Constraint, read_constraints, sometimes
from pf_stream.model.intent import TOPIC, Intent, IntentSpec
from pf_stream.model.part import Part
from pf_stream.model.reactor import ID, Reactor, ReactorSpec
from pf_stream.model.requirement import During, Requirement, leaves, read_requirements, requirement_faults
from pf_stream.model.service import Service
from pf_stream.model.sink import Sink
from pf_stream.model.table import GlobalTable
from pf_stream.model.when import Calendar, is_calendar_name

__all__ = ["Group", "Guarantee", "Store", "Topology"]

T = TypeVar("T")

Guarantee: TypeAlias = Literal["effectively_once", "transactional"]
"""How a micro-batch is committed. ``effectively_once``: state first and whole, then the outputs, which after a crash may be
written again with an equal ``pf-source``. ``transactional``: state, outputs and group offsets in one Kafka transaction, for
readers that use ``read_committed``; several times slower for each batch."""

Store: TypeAlias = Literal["memory", "rocksdb"]
"""Where workers keep the states of their lanes. ``memory``: all of them, made anew from the changelogs at each start.
``rocksdb``: on a disk of each worker's own, for more state than memory holds and for a start that reads little; the changelog is
what counts all the same."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def _once(given: Iterable[T], *brought: Iterable[T]) -> tuple[T, ...]:
    """What is given, as it is, and what of the rest is not among that, each once."""
    given = tuple(given)
    return given + tuple(one for one in dict.fromkeys(chain(*brought)) if one not in given)


@dataclass(frozen=True, slots=True)
class Group:
    """Reactors that share source topics, and with them one changelog and one state store per partition."""

    name: str
    """Its alphabetically first source topic, without the namespace, of those that others may write if there are such: internal
    ones come and go with the stages of pipelines."""
    reactors: tuple[type[Reactor], ...]  # type: ignore[type-arg]
    """In the order of their declaration."""
    topics: tuple[str, ...]
    """Full names of the source topics, sorted."""


@dataclass(frozen=True, slots=True, init=False)
class Topology:
    """Reactors that are deployed together: one application, one consumer group.

    Raises :class:`DefinitionError` with every fault found.
    """

    name: str
    """Name of the application."""
    reactors: tuple[type[Reactor], ...]  # type: ignore[type-arg]
    """Reactor classes."""
    namespace: str
    """First part of topic names, and the audience of the tokens that are accepted; the topology's name by default."""
    internal: frozenset[str]
    """Topics, relative to the namespace, that only this topology writes; what the engine says in their headers is believed."""
    emits: tuple[type[Intent], ...]
    """Intent types that reactors emit and none of them handles, beside those that reactors declare."""
    replies: tuple[str, ...]
    """Patterns (``*`` for any characters) of topics that replies may go to, relative to the namespace unless dotted."""
    partitions: int
    """Partitions of each topic that ``pf topics create`` makes."""
    version: int
    """The topology's own version, which its changelogs keep and messages show; it decides nothing."""
    retired: frozenset[str]
    """Ids of reactors that it had before: their state is kept in the changelogs, and nobody reads it."""
    guarantee: Guarantee
    """How micro-batches are committed."""
    store: Store
    """Where workers keep the states of their lanes."""
    standby: int
    """How many further workers follow the changelog of each lane, so as to take over where its own worker ended."""
    requires: Mapping[str, tuple[Requirement, ...]] = field(hash=False)
    """By name of an intent, what this topology requires beside what the type and its handlers require."""
    constraints: Mapping[str, tuple[Constraint, ...]] = field(hash=False)
    """By name of an intent, when this topology handles it, beside what the type and its handlers say. ``*`` is what its own
    reactors, not those of parts, take from topics that others may write."""
    calendars: Mapping[str, Calendar] = field(hash=False)
    """By name, the calendars that requirements, constraints and tokens may name."""
    services: Mapping[str, Service] = field(hash=False)
    """By id, the reactors that emit under an identity of their own, and that."""
    starts: tuple[Intent, ...] = field(hash=False)
    """Intents that the lane of their key gets whenever it begins, before any record: by every start, rebalance and recovery, so
    handling one twice must be like once. They come from the first reactor that handles them and is a service."""
    sinks: tuple[Sink, ...]
    """Consumers outside of it, of what it writes to internal topics."""
    tables: tuple[GlobalTable, ...]
    """Tables that each worker reads whole, for its handlers."""

    def __init__(
        self,
        name: str,
        reactors: Sequence[type[Reactor]],  # type: ignore[type-arg]
        *,
        namespace: str | None = None,
        internal: Iterable[str] = (),
        emits: Sequence[type[Intent]] = (),
        replies: Sequence[str] = (),
        partitions: int = 4,
        version: int = 1,
        retired: Iterable[str] = (),
        guarantee: Guarantee = "effectively_once",
        store: Store = "memory",
        standby: int = 0,
        requires: Mapping[str, Requirement | Sequence[Requirement]] = MappingProxyType({}),
        constraints: Mapping[str, Constraint | Sequence[Constraint]] = MappingProxyType({}),
        calendars: Mapping[str, Calendar] = MappingProxyType({}),
        services: Mapping[str, Service] = MappingProxyType({}),
        starts: Sequence[Intent] = (),
        sinks: Iterable[Sink] = (),
        tables: Iterable[GlobalTable] = (),
        parts: Iterable[Part] = (),
    ) -> None:
        """Take what *parts* bring beside what the other arguments say; reactors and types may be in several of them."""
        parts = tuple(parts)
        set_ = object.__setattr__
        set_(self, "name", name)
        set_(self, "reactors", _once(reactors, *(part.reactors for part in parts)))
        set_(self, "namespace", name if namespace is None else namespace)
        set_(self, "internal", frozenset(internal).union(*(part.internal for part in parts)))
        set_(self, "emits", _once(emits, *(part.emits for part in parts)))
        set_(self, "replies", tuple(replies))
        set_(self, "partitions", partitions)
        set_(self, "version", version)
        set_(self, "retired", frozenset(retired))
        set_(self, "guarantee", guarantee)
        set_(self, "store", store)
        set_(self, "standby", standby)
        set_(self, "sinks", _once(sinks, *(part.sinks for part in parts)))
        set_(self, "tables", _once(tables, *(part.tables for part in parts)))
        read = {name: read_requirements(required) for name, required in requires.items()}
        set_(self, "requires", MappingProxyType({name: required or () for name, required in read.items()}))
        limits = {name: read_constraints(given) for name, given in constraints.items()}
        set_(
            self,
            "constraints",
            MappingProxyType(self._spread({name: given or () for name, given in limits.items()}, reactors)),
        )
        set_(self, "calendars", MappingProxyType(dict(calendars)))
        brought = {id_: service for part in parts for id_, service in part.services.items()}
        set_(self, "services", MappingProxyType({**brought, **services}))
        set_(self, "starts", _once(starts, *(part.starts for part in parts)))
        faults = [
            f"requires for {name!r} {requires[name]!r}, which is no requirement: write SomeCap.operation('/scope')"
            for name, required in read.items()
            if required is None
        ]
        faults += [
            f"constraints of {name!r}: {constraints[name]!r} is no constraint: write only(...), never(...) or within(...)"
            for name, given in limits.items()
            if not given
        ]
        faults += self._faults()
        if faults:
            raise DefinitionError(f"topology {name!r}", faults)

    def _spread(
        self,
        constraints: dict[str, tuple[Constraint, ...]],
        own: Sequence[type[Reactor]],  # type: ignore[type-arg]
    ) -> dict[str, tuple[Constraint, ...]]:
        """With those of ``*`` at each type for which it stands."""
        handled = (
            handler.intent
            for reactor in own
            if hasattr(reactor, "__reactor__")
            for handler in reactor.__reactor__.handlers
        )
        names = {intent.name for intent in handled if not self.is_internal(self.topic_name(intent.topic))}
        if not names:
            return constraints
        every = constraints.pop("*", ())
        return constraints | {name: (*constraints.get(name, ()), *every) for name in sorted(names) if every}

    def _faults(self) -> Iterable[str]:
        for label, value in (("name", self.name), ("namespace", self.namespace)):
            if not all(NAME.fullmatch(part) for part in value.split(".")):
                yield f"{label} {value!r} must be lower case letters, digits, '-' and '_', parts joined by '.'"
        if not self.reactors:
            yield "has no reactors"
        if self.partitions < 1:
            yield f"partitions must be 1 or more, not {self.partitions}"
        if self.version < 1:
            yield f"version must be 1 or more, not {self.version}"
        if self.guarantee not in get_args(Guarantee):
            yield f"guarantee must be {' or '.join(get_args(Guarantee))}, not {self.guarantee!r}"
        if self.store not in get_args(Store):
            yield f"store must be {' or '.join(get_args(Store))}, not {self.store!r}"
        if self.standby < 0:
            yield f"standby must be 0 or more, not {self.standby}"
        seen: dict[str, str] = {}
        types: dict[str, type[Intent]] = {}
        strangers = [reactor for reactor in self.reactors if not hasattr(reactor, "__reactor__")]
        if strangers:
            yield from (f"{stranger!r} is no reactor: write a class of Reactor[...]" for stranger in strangers)
            return
        for reactor in self.reactors:
            spec = reactor.__reactor__
            if spec.id in seen:
                yield f"reactors {seen[spec.id]} and {reactor.__name__} have the same id {spec.id!r}"
            seen[spec.id] = reactor.__name__
        for id_ in sorted(self.retired):
            if id_ in seen:
                yield f"reactor {seen[id_]} has the id {id_!r}, which is retired: give it another, or take it off the list"
            elif not ID.fullmatch(id_):
                yield f"retired {id_!r} is no reactor id"
        for intent in self.intents:
            other = types.setdefault(intent.type, intent.model)
            if other is not intent.model:
                yield f"{other.__qualname__} and {intent.model.__qualname__} are both {intent.type}"
        for intent in self.intents:
            for type_ in intent.older_types:
                if type_ in types and types[type_].__intent__.topic == intent.topic:
                    yield (
                        f"{types[type_].__qualname__} is {type_}, which {intent.model.__qualname__} upcasts to {intent.type}: "
                        f"handle and emit the newer one alone"
                    )
        topics = {intent.topic for intent in self.intents}
        for topic in self.internal:
            if not TOPIC.fullmatch(topic) or "." in topic:
                yield f"internal topic {topic!r} must be a plain name within the namespace"
            elif topic not in topics:
                yield f"internal topic {topic!r} carries no intent type{nearest(topic, topics)}"
        yield from self._sink_faults()
        declared: dict[str, GlobalTable] = {}
        for table in self.tables:
            if declared.setdefault(self.topic_name(table.topic), table) != table:
                yield f"two tables of the topic {table.topic!r} are declared differently: use one of them for both"
        yield from self._capability_faults(seen)
        if "intents" in self.internal:
            yield "the topic 'intents' takes intents from outside and cannot be internal: give the inner types a topic"

    def _sink_faults(self) -> Iterator[str]:
        models = {intent.model for intent in self.intents}
        read = set(self.source_topics)
        names: set[str] = set()
        taken: dict[str, str] = {}
        for sink in self.sinks:
            spec = sink.of.__intent__
            topic = self.topic_name(spec.topic)
            if sink.name in names:
                yield f"there are two sinks called {sink.name!r}"
            names.add(sink.name)
            if sink.of not in models:
                yield f"sink {sink.name!r} takes {spec.name}, which nobody here emits: list it in emits"
            elif not self.is_internal(topic):
                yield (
                    f"sink {sink.name!r} takes {spec.name} from {spec.topic!r}, to which others may write: give the type a topic "
                    f"that is listed in internal"
                )
            elif topic in read:
                yield (
                    f"sink {sink.name!r} takes {spec.name} from {spec.topic!r}, which reactors read too: let one of them emit "
                    f"what the sink is to have to a topic of its own"
                )
            if topic in taken:
                yield (
                    f"sinks {taken[topic]!r} and {sink.name!r} take from the same topic {spec.topic!r}: let the reactor emit to "
                    f"one for each, or the consumer of one call both"
                )
            taken[topic] = sink.name

    def _capability_faults(self, reactors: Mapping[str, str]) -> Iterator[str]:
        names = {intent.name for intent in self.intents}
        for name, requirements in self.requires.items():
            if name not in names:
                yield f"requires something for {name!r}, which is no intent here{nearest(name, names)}"
            for requirement in requirements:
                for intent in self.intents:
                    if intent.name == name:
                        yield from (
                            f"{name} {fault}" for fault in requirement_faults(requirement, intent.model.model_fields)
                        )
        for intent in self.intents:
            for leaf in (leaf for requirement in self.requirements(intent) for leaf in leaves(requirement)):
                if isinstance(leaf, During):
                    for calendar in sorted(leaf.when.calendars - self.calendars.keys()):
                        yield (
                            f"{intent.name} requires {leaf}, and there is no calendar "
                            f"{calendar!r}{nearest(calendar, self.calendars)}"
                        )
        yield from self._constraint_faults()
        for name in self.calendars:
            if not is_calendar_name(name):
                yield f"calendar {name!r} must be lower case letters, digits, '.', '-' and '_', starting with a letter"
        for id_ in self.services:
            if id_ not in reactors:
                yield f"services: there is no reactor {id_!r}{nearest(id_, reactors)}"
        for intent in dict.fromkeys(start.__intent__ for start in self.starts):
            takers = self.handlers_of(intent)
            if not takers:
                yield f"starts with {intent.type}, which no reactor handles"
            elif self.requirements(intent) and not any(taker.id in self.services for taker in takers):
                yield (
                    f"starts with {intent.type}, which requires something, and none of {', '.join(t.id for t in takers)} "
                    f"is a service: nobody would be allowed to send it"
                )

    def _constraint_faults(self) -> Iterator[str]:
        handled = {handler.intent.name for spec in self.specs for handler in spec.handlers}
        for name in self.constraints:
            if name == "*":
                yield "constrains '*', which its own reactors take from topics that others may write, and that is nothing: name types"
            elif name not in handled:
                yield f"constrains {name!r}, which no reactor handles{nearest(name, handled)}"
        for intent in self.intents:
            constraints = self.constraints_of(intent)
            unknown = [
                (one, calendar)
                for one in constraints
                for calendar in sorted((one.when.calendars if one.when else set()) - self.calendars.keys())
            ]
            for one, calendar in unknown:
                yield (
                    f"{intent.name} has the constraint '{one}', and there is no calendar "
                    f"{calendar!r}{nearest(calendar, self.calendars)}"
                )
            if not unknown and not sometimes(constraints, self.calendars):
                yield f"{intent.name} can never be handled: its constraints together leave no time"

    def requirements(self, intent: IntentSpec) -> tuple[Requirement, ...]:
        """All that must hold for an intent of that type to be handled here; empty if anybody may send it."""
        handlers = (handler for spec in self.specs for handler in spec.handlers if handler.intent is intent)
        more = (requirement for handler in handlers for requirement in handler.requires)
        return tuple(dict.fromkeys((*intent.requires, *more, *self.requires.get(intent.name, ()))))

    def constraints_of(self, intent: IntentSpec) -> tuple[Constraint, ...]:
        """All that say when an intent of that type may be handled here."""
        handlers = (handler for spec in self.specs for handler in spec.handlers if handler.intent is intent)
        more = (constraint for handler in handlers for constraint in handler.constraints)
        return tuple(dict.fromkeys((*intent.constraints, *more, *self.constraints.get(intent.name, ()))))

    def handlers_of(self, intent: IntentSpec) -> tuple[ReactorSpec, ...]:
        """The reactors that handle intents of that type."""
        return tuple(spec for spec in self.specs if any(handler.intent is intent for handler in spec.handlers))

    def service_subject(self, reactor: str) -> str:
        """The subject under which the reactor of that id emits, if it is a service."""
        return f"service:{self.app_id}/{reactor}"

    @property
    def app_id(self) -> str:
        """Consumer group and prefix of changelog topics."""
        return self.name if self.namespace == self.name else f"{self.namespace}.{self.name}"

    @property
    def intents(self) -> tuple[IntentSpec, ...]:
        """Every intent type that is handled or emitted, each once, sorted by type."""
        handled = (handler.intent for reactor in self.reactors for handler in reactor.__reactor__.handlers)
        emitted = (intent.__intent__ for intent in self.emits)
        declared = (intent for reactor in self.reactors for intent in reactor.__reactor__.emits or ())
        unique = {id(spec): spec for spec in (*handled, *emitted, *declared)}
        return tuple(sorted(unique.values(), key=lambda spec: (spec.type, spec.topic)))

    @property
    def specs(self) -> tuple[ReactorSpec, ...]:
        """The reactors' specs."""
        return tuple(reactor.__reactor__ for reactor in self.reactors)

    def topic_name(self, topic: str) -> str:
        """Full name of a topic: within the namespace, unless *topic* has a dot and so is full already."""
        return topic if "." in topic else f"{self.namespace}.{topic}"

    def is_internal(self, topic: str) -> bool:
        """Whether the full topic name is one that only this topology writes."""
        return any(topic == self.topic_name(name) for name in self.internal)

    @property
    def reply_patterns(self) -> tuple[str, ...]:
        """Patterns of the full names of topics that replies may go to."""
        return tuple(self.topic_name(pattern) for pattern in self.replies)

    @property
    def source_topics(self) -> tuple[str, ...]:
        """Full names of the topics that reactors read, sorted."""
        return tuple(sorted({topic for group in self.groups for topic in group.topics}))

    @property
    def groups(self) -> tuple[Group, ...]:
        """Reactors connected by shared source topics, sorted by name."""
        members: list[tuple[set[str], list[type[Reactor]]]] = []  # type: ignore[type-arg]
        for reactor in self.reactors:
            topics = {handler.intent.topic for handler in reactor.__reactor__.handlers}
            joined: tuple[set[str], list[type[Reactor]]] = (topics, [reactor])  # type: ignore[type-arg]
            apart = []
            for other in members:
                if other[0] & joined[0]:
                    joined = (other[0] | joined[0], other[1] + joined[1])
                else:
                    apart.append(other)
            members = [*apart, joined]
        groups = (
            Group(
                name=min(topics - self.internal or topics),
                reactors=tuple(sorted(reactors, key=self.reactors.index)),
                topics=tuple(sorted(self.topic_name(topic) for topic in topics)),
            )
            for topics, reactors in members
        )
        return tuple(sorted(groups, key=lambda group: group.name))

    def changelog(self, group: Group) -> str:
        """Name of the group's changelog topic."""
        return f"{self.app_id}-{group.name}-changelog"

    def within(self, namespace: str) -> "Topology":
        """The same topology in another namespace: other topics, other consumer group, other audience."""
        same = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "namespace"}
        return Topology(**same, namespace=namespace)
