"""What a topology consists of, as data to be shown."""

from dataclasses import dataclass

from pf_stream.model import Topology
from pf_stream.model.topology import Guarantee

__all__ = ["GroupDescription", "IntentDescription", "ReactorDescription", "TopologyDescription", "describe"]


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
    requires: tuple[str, ...]
    """Grants that are all required; none if anybody may send it."""
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
    replies: tuple[str, ...]
    """Patterns of topics that replies may go to."""
    retired: tuple[str, ...]
    """Ids of reactors that it had before, sorted."""
    groups: tuple[GroupDescription, ...]
    """Sorted by name."""
    intents: tuple[IntentDescription, ...]
    """Sorted by type."""


def describe(topology: Topology) -> TopologyDescription:
    """Groups, reactors and intent types of *topology*."""
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
                requires=tuple(map(str, spec.requires)),
                handled_by=tuple(handlers.get(spec.type, ())),
            )
            for spec in topology.intents
        ),
    )
