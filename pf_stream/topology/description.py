"""What a topology consists of, as data to be shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pf_stream.model import Grant, IntentSpec, Requirement, Topology, family
from pf_stream.model.constraint import Constraint
from pf_stream.model.requirement import CallerIs, grants_of, leaves
from pf_stream.model.sink import Strategy
from pf_stream.model.table import BadRow
from pf_stream.model.topology import Guarantee, Store

__all__ = [
    "CalendarDescription",
    "ConstraintDescription",
    "FamilyDescription",
    "GroupDescription",
    "IntentDescription",
    "OperationDescription",
    "ReactorDescription",
    "RequirementDescription",
    "ServiceDescription",
    "TopologyDescription",
    "describe",
]


@dataclass(frozen=True, slots=True)
class OperationDescription:
    """An operation of a family."""

    name: str
    """``Family.operation``."""
    implies: tuple[str, ...]
    """Operations that its declaration names, sorted."""
    implied_by: tuple[str, ...]
    """All other operations whose holder may do this, sorted."""


@dataclass(frozen=True, slots=True)
class FamilyDescription:
    """A family of capabilities."""

    name: str
    """Its name."""
    operations: tuple[OperationDescription, ...]
    """In the order of their declaration."""


@dataclass(frozen=True, slots=True)
class RequirementDescription:
    """Something that must hold for an intent to be handled."""

    text: str
    """What."""
    static: bool
    """Whether the token and the intent's declared fields alone decide it: no function, no rule, no time."""
    required_by: tuple[str, ...]
    """Who says so: ``type``, ``topology``, and handlers, each ``reactor.method``."""


@dataclass(frozen=True, slots=True)
class ConstraintDescription:
    """When an intent may be handled."""

    text: str
    """The constraint."""
    code: str
    """What the intent is refused with, if it does not wait."""
    waits: bool
    """Whether it waits for such a time."""
    constrained_by: tuple[str, ...]
    """Who says so: ``type``, ``topology``, and handlers, each ``reactor.method``."""


@dataclass(frozen=True, slots=True)
class SinkDescription:
    """A sink."""

    name: str
    """Its name."""
    type: str
    """The ``ce_type`` of what it takes."""
    topic: str
    """The topic that it reads."""
    strategy: Strategy
    """What a full buffer means."""
    records: int
    """Most records that wait in memory, for each partition."""
    batch: int
    """Most records that the consumer gets at once."""


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A global table."""

    topic: str
    """Full name of its topic."""
    of: str
    """What its rows are."""
    most_bytes: int
    """Bytes that they may take in a worker."""
    on_bad: BadRow
    """What becomes of a record that is no row."""


@dataclass(frozen=True, slots=True)
class IntentDescription:
    """An intent type."""

    type: str
    """Value of ``ce_type``."""
    also_accepts: tuple[str, ...]
    """Older types that are upcast to it, the newest first."""
    topic: str
    """Full name of its topic."""
    internal: bool
    """Whether only the topology writes it."""
    key: tuple[str, ...]
    """Fields that form the record key."""
    requires: tuple[RequirementDescription, ...]
    """All that must hold here; none if anybody may send it."""
    constraints: tuple[ConstraintDescription, ...]
    """All that say when it is handled here; none if at any time."""
    handled_by: tuple[str, ...]
    """Ids of reactors; none if it leaves the topology."""


@dataclass(frozen=True, slots=True)
class ReactorDescription:
    """A reactor."""

    id: str
    """Name under which its state is stored."""
    class_: str
    """Its class, ``module:Class``."""
    state: str
    """Its state class."""
    state_version: int
    """Version of the stored shape."""
    oldest_state_version: int
    """Oldest version that it can upgrade."""
    handles: tuple[str, ...]
    """Intent types, in the order of its methods."""


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """Reactors that share source topics, and one changelog."""

    name: str
    """Its name."""
    changelog: str
    """Topic that keeps its state."""
    topics: tuple[str, ...]
    """Its source topics."""
    reactors: tuple[ReactorDescription, ...]
    """In the order of their declaration."""


@dataclass(frozen=True, slots=True)
class ServiceDescription:
    """A reactor that emits under an identity of its own."""

    reactor: str
    """Its id."""
    subject: str
    """Subject of its tokens."""
    key: int
    """The kid of the key that signs for it."""
    grants: tuple[str, ...]
    """What it may do."""


@dataclass(frozen=True, slots=True)
class CalendarDescription:
    """A calendar."""

    name: str
    """Its name."""
    zone: str
    """Zone whose days its holidays are."""
    open: tuple[str, ...]
    """When it is open: whenever one of these times is."""
    holidays: int
    """On how many days it is closed all the same."""


@dataclass(frozen=True, slots=True)
class TopologyDescription:
    """A topology."""

    name: str
    """Its name."""
    version: int
    """Its version."""
    namespace: str
    """First part of topic names, and the audience of tokens."""
    app: str
    """Consumer group and prefix of changelogs."""
    partitions: int
    """Partitions of the topics that ``pf topics create`` makes."""
    guarantee: Guarantee
    """How micro-batches are committed."""
    store: Store
    """Where workers keep states."""
    standby: int
    """How many further workers follow each lane."""
    replies: tuple[str, ...]
    """Patterns of topics that replies may go to."""
    retired: tuple[str, ...]
    """Ids of reactors that it had before, sorted."""
    groups: tuple[GroupDescription, ...]
    """Sorted by name."""
    intents: tuple[IntentDescription, ...]
    """Sorted by type."""
    capabilities: tuple[FamilyDescription, ...]
    """Families that its intents require, and those that imply them or are implied, sorted by name."""
    services: tuple[ServiceDescription, ...]
    """Sorted by the reactor's id."""
    calendars: tuple[CalendarDescription, ...]
    """Sorted by name."""
    sinks: tuple[SinkDescription, ...]
    """In the order of their declaration."""
    tables: tuple[TableDescription, ...]
    """Likewise."""


def describe(topology: Topology) -> TopologyDescription:
    """Groups, reactors and intent types of *topology*, what these require, and who may do what when."""
    handlers: dict[str, list[str]] = {}
    for spec in topology.specs:
        for handler in spec.handlers:
            handlers.setdefault(handler.intent.type, []).append(spec.id)
    return TopologyDescription(
        name=topology.name,
        version=topology.version,
        namespace=topology.namespace,
        app=topology.app_id,
        partitions=topology.partitions,
        guarantee=topology.guarantee,
        store=topology.store,
        standby=topology.standby,
        replies=topology.reply_patterns,
        retired=tuple(sorted(topology.retired)),
        groups=tuple(
            GroupDescription(
                name=group.name,
                changelog=topology.changelog(group),
                topics=group.topics,
                reactors=tuple(
                    ReactorDescription(
                        id=reactor.__reactor__.id,
                        class_=f"{reactor.__module__}:{reactor.__qualname__}",
                        state=reactor.__reactor__.state_type.__qualname__,
                        state_version=reactor.__reactor__.state.version,
                        oldest_state_version=reactor.__reactor__.state.upgrades.oldest,
                        handles=tuple(handler.intent.type for handler in reactor.__reactor__.handlers),
                    )
                    for reactor in group.reactors
                ),
            )
            for group in topology.groups
        ),
        intents=tuple(
            IntentDescription(
                type=spec.type,
                also_accepts=tuple(spec.older_types),
                topic=topology.topic_name(spec.topic),
                internal=topology.is_internal(topology.topic_name(spec.topic)),
                key=spec.key_fields,
                requires=tuple(
                    RequirementDescription(
                        text=str(requirement),
                        static=_is_static(requirement),
                        required_by=tuple(
                            who for who, required, _ in _sayers(topology, spec) if requirement in required
                        ),
                    )
                    for requirement in topology.requirements(spec)
                ),
                constraints=tuple(
                    ConstraintDescription(
                        text=str(constraint),
                        code=constraint.code,
                        waits=constraint.waits,
                        constrained_by=tuple(who for who, _, given in _sayers(topology, spec) if constraint in given),
                    )
                    for constraint in topology.constraints_of(spec)
                ),
                handled_by=tuple(handlers.get(spec.type, ())),
            )
            for spec in topology.intents
        ),
        capabilities=tuple(
            FamilyDescription(
                name=name,
                operations=tuple(
                    OperationDescription(
                        name=op.name,
                        implies=tuple(sorted({other.name for other in op.implies})),
                        implied_by=tuple(sorted(op.implied_by - {op.name})),
                    )
                    for op in family(name).__operations__.values()
                ),
            )
            for name in sorted(_families(topology))
        ),
        services=tuple(
            ServiceDescription(
                reactor=id_,
                subject=topology.service_subject(id_),
                key=service.key,
                grants=tuple(map(str, service.grants)),
            )
            for id_, service in sorted(topology.services.items())
        ),
        calendars=tuple(
            CalendarDescription(
                name=name,
                zone=calendar.zone,
                open=tuple(map(str, calendar.open)),
                holidays=len(calendar.holidays),
            )
            for name, calendar in sorted(topology.calendars.items())
        ),
        sinks=tuple(
            SinkDescription(
                name=sink.name,
                type=sink.of.__intent__.type,
                topic=topology.topic_name(sink.of.__intent__.topic),
                strategy=sink.buffer.strategy,
                records=sink.buffer.records,
                batch=sink.batch,
            )
            for sink in topology.sinks
        ),
        tables=tuple(
            TableDescription(
                topic=topology.topic_name(table.topic),
                of=getattr(table.of, "__qualname__", str(table.of)),
                most_bytes=table.most_bytes,
                on_bad=table.on_bad,
            )
            for table in topology.tables
        ),
    )


def _is_static(requirement: Requirement) -> bool:
    return all(
        isinstance(leaf, Grant) or (isinstance(leaf, CallerIs) and leaf.authenticated_within_ms is None)
        for leaf in leaves(requirement)
    )


def _sayers(
    topology: Topology, intent: IntentSpec
) -> Iterator[tuple[str, Sequence[Requirement], Sequence[Constraint]]]:
    """Who says something of an intent type, what they require, and what constrains it."""
    yield "type", intent.requires, intent.constraints
    for reactor in topology.specs:
        for handler in reactor.handlers:
            if handler.intent is intent:
                yield f"{reactor.id}.{handler.name}", handler.requires, handler.constraints
    yield "topology", topology.requires.get(intent.name, ()), topology.constraints.get(intent.name, ())


def _families(topology: Topology) -> set[str]:
    """Names of the families that are required, and of all that are connected with these by implication."""
    found: set[str] = set()
    todo = [
        _family(grant.operation.name)
        for spec in topology.intents
        for requirement in topology.requirements(spec)
        for grant in grants_of(requirement)
    ]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        for op in family(name).__operations__.values():
            todo.extend(map(_family, op.implied_by))
            todo.extend(_family(other.name) for other in op.implies)
    return found


def _family(operation: str) -> str:
    return operation.partition(".")[0]
