"""The topics that a topology needs: which, how many partitions, with which settings; making and checking them."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pf_stream.core.plan import plan
from pf_stream.core.sink import sink_plans
from pf_stream.kafka.admin import Admin, NewTopicSpec, TopicInfo
from pf_stream.kafka.errors import KafkaError, TopicMissingError
from pf_stream.model import Topology

__all__ = [
    "PROBE",
    "REGISTRY",
    "REPLAYS",
    "CreatedTopic",
    "ListedTopic",
    "PartitionsDisagreeError",
    "Purpose",
    "Status",
    "TopicSpec",
    "check_topics",
    "create_topics",
    "differences",
    "list_topics",
    "missing_topics",
    "required_topics",
]

REGISTRY = "__pf.registry"
"""Topic of the component registry, one for the cluster."""
PROBE = "__pf.probe"
"""Topic on which workers see, when they start, whether the cluster does what leases rely on; one for the cluster."""

REPLAYS = "__pf.replays"
"""Topic that remembers which dead letters were sent again, one for the cluster; made when the first one is."""

_OURS = frozenset({REGISTRY, PROBE, REPLAYS})
_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}
_CREATE_TIME = {"message.timestamp.type": "CreateTime"}
_MIB = 1 << 20
_NO_WAY_BACK = (
    "Kafka adds partitions to a topic and takes none away: delete and create anew what holds nothing yet, or give the "
    "topology another namespace, and with it topics of its own."
)


class Purpose(enum.StrEnum):
    """What a topic is for."""

    source = "source"
    """Intents from outside."""
    internal = "internal"
    """Intents that only the topology writes."""
    rerouted = "rerouted"
    """Intents on their way to the partition of their key."""
    dead_letters = "dead letters"
    """What was refused."""
    changelog = "changelog"
    """State, timers and outbox of a group."""
    emits = "emits"
    """Intents for other topologies."""
    replies = "replies"
    """Answers."""
    table = "table"
    """Rows that each worker reads whole."""
    registry = "registry"
    """Components that are running."""
    probe = "probe"
    """What workers write to see whether leases hold; nobody reads it."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that a topology needs."""

    name: str
    """Full name."""
    partitions: int
    """How many."""
    config: Mapping[str, str]
    """Settings that must be so; ``max.message.bytes`` may be more."""
    purpose: Purpose
    """What it is for."""

    @property
    def copartitioned(self) -> bool:
        """Whether state lives by its partitions, so that all such topics of a topology need the same number."""
        return self.purpose in {Purpose.source, Purpose.internal, Purpose.rerouted, Purpose.changelog}


class Status(enum.StrEnum):
    """What became of a topic."""

    created = "created"
    exists = "exists"
    differs = "differs"


@dataclass(frozen=True, slots=True)
class CreatedTopic:
    """A topic of a topology after it was seen to."""

    spec: TopicSpec
    """As it should be."""
    status: Status
    """What became of it."""
    differences: tuple[str, ...]
    """How an existing one is not as it should be; nothing of that is changed."""


@dataclass(frozen=True, slots=True)
class ListedTopic:
    """A topic, and how much is in it."""

    name: str
    """Its name."""
    purpose: Purpose | None
    """What it is for, if a topology was given."""
    found: TopicInfo | None
    """As the cluster has it; None if it does not exist."""
    records: int | None
    """Offsets between its first record and its end: compaction and transactions leave some of them empty."""


class PartitionsDisagreeError(KafkaError):
    """Raised when topics that must have equally many partitions have not."""

    code = "partitions_disagree"

    def __init__(self, counts: Mapping[str, int], fix: str = _NO_WAY_BACK) -> None:
        self.counts = dict(counts)
        by_count: dict[int, list[str]] = {}
        for name, count in sorted(counts.items()):
            by_count.setdefault(count, []).append(name)
        shown = "; ".join(f"{count}: {', '.join(names)}" for count, names in sorted(by_count.items()))
        super().__init__(
            f"source topics and changelogs of a topology need equally many partitions, since state lives where its key "
            f"lives, and these differ: {shown}. {fix}"
        )


def required_topics(topology: Topology, partitions: int | None = None) -> list[TopicSpec]:
    """Every topic that *topology* needs, sorted by name; with *partitions* instead of what it says itself."""
    count = topology.partitions if partitions is None else partitions
    needed: dict[str, TopicSpec] = {}

    def need(name: str, purpose: Purpose, config: Mapping[str, str], mib: int, number: int = count) -> None:
        needed.setdefault(name, TopicSpec(name, number, {**config, "max.message.bytes": str(mib * _MIB)}, purpose))

    for group in plan(topology, count):
        for source in group.sources:
            if source.origin != source.topic:
                # As large as the source allows, and the headers that are added.
                need(source.topic, Purpose.rerouted, _CREATE_TIME, 5)
            elif source.internal:
                need(source.topic, Purpose.internal, _CREATE_TIME, 8)
            else:
                # What a token allows is judged by the time at which the broker appended the record.
                need(source.topic, Purpose.source, _APPEND_TIME, 4)
        for source in group.sources:
            need(source.dead_letters, Purpose.dead_letters, _CREATE_TIME, 5)
        need(group.changelog, Purpose.changelog, {"cleanup.policy": "compact"}, 8)
    for drain in sink_plans(topology, count):
        need(drain.topic, Purpose.internal, _CREATE_TIME, 8)
        need(drain.dead_letters, Purpose.dead_letters, _CREATE_TIME, 8)
    for table in topology.tables:
        need(topology.topic_name(table.topic), Purpose.table, {"cleanup.policy": "compact"}, 1)
    for intent in topology.emits:
        # Another topology's source; what one reactor may emit in one unit fits.
        need(topology.topic_name(intent.__intent__.topic), Purpose.emits, _APPEND_TIME, 8)
    for pattern in topology.reply_patterns:
        if not any(sign in pattern for sign in "*?["):
            need(pattern, Purpose.replies, {}, 8)
    need(REGISTRY, Purpose.registry, {"cleanup.policy": "compact"}, 1, 1)
    need(PROBE, Purpose.probe, {"retention.ms": str(60 * 60 * 1000)}, 1, 1)
    return sorted(needed.values(), key=lambda spec: spec.name)


def missing_topics(admin: Admin, topology: Topology) -> list[TopicSpec]:
    """Those of the topology's topics that do not exist."""
    specs = required_topics(topology)
    there = admin.topics(spec.name for spec in specs)
    return [spec for spec in specs if spec.name not in there]


def check_topics(admin: Admin, topology: Topology) -> int:
    """Check that all topics exist and that partition counts agree; returns that count.

    Raises:
        TopicMissingError: names what is missing, and the command that makes it.
        PartitionsDisagreeError: names the counts.
    """
    specs = required_topics(topology)
    there = admin.topics(spec.name for spec in specs)
    missing = [spec.name for spec in specs if spec.name not in there]
    if missing:
        raise TopicMissingError(missing, "Create them with: pf topics create")
    count = _common_count(specs, there)
    assert count is not None
    return count


def create_topics(
    admin: Admin, topology: Topology, partitions: int | None = None, replication_factor: int | None = None
) -> list[CreatedTopic]:
    """Make what is missing; what exists stays as it is, and is said to differ if it does.

    Without *partitions*, the count of the topology's topics that exist already, else its own. Without
    *replication_factor*, 3, or the number of brokers if there are fewer.

    Raises:
        PartitionsDisagreeError: existing topics have other counts, among each other or than *partitions*; nothing is made.
    """
    there = admin.topics(spec.name for spec in required_topics(topology))
    count = _common_count(required_topics(topology), there)
    if count is not None and partitions not in {None, count}:
        counts = {spec.name: there[spec.name].partitions for spec in required_topics(topology) if _counts(spec, there)}
        raise PartitionsDisagreeError(
            counts | {"(asked for)": partitions or 0}, f"Leave --partitions out, or say --partitions {count}."
        )
    specs = required_topics(topology, count if partitions is None else partitions)
    new = [NewTopicSpec(spec.name, spec.partitions, spec.config) for spec in specs if spec.name not in there]
    made = set(admin.create(new, replication_factor or min(3, admin.brokers()))) if new else set()
    there |= admin.topics(spec.name for spec in specs if spec.name not in there and spec.name not in made)
    return [_created(spec, there.get(spec.name)) for spec in specs]


def list_topics(admin: Admin, topology: Topology | None = None) -> list[ListedTopic]:
    """All topics of the cluster but Kafka's own, or those that *topology* needs; sorted by name."""
    purposes: dict[str, Purpose | None]
    if topology is None:
        purposes = {name: None for name in admin.names() if not name.startswith("__") or name in _OURS}
    else:
        purposes = {spec.name: spec.purpose for spec in required_topics(topology)}
    found = admin.topics(purposes)
    partitions = [(name, number) for name, topic in found.items() for number in range(topic.partitions)]
    first, end = admin.offsets(partitions, "start"), admin.offsets(partitions, "end")
    records = dict.fromkeys(found, 0)
    for partition in partitions:
        records[partition[0]] += end[partition] - first[partition]
    return [
        ListedTopic(name, purpose, found.get(name), records.get(name)) for name, purpose in sorted(purposes.items())
    ]


def _created(spec: TopicSpec, found: TopicInfo | None) -> CreatedTopic:
    if found is None:
        return CreatedTopic(spec, Status.created, ())
    differing = tuple(text for _, text in differences(spec, found))
    return CreatedTopic(spec, Status.differs if differing else Status.exists, differing)


def differences(spec: TopicSpec, found: TopicInfo) -> Iterable[tuple[str, str]]:
    """How a topic is not as it should be: the setting, or ``partitions``, and a text."""
    for name, wanted in spec.config.items():
        has = found.config.get(name, "")
        enough = name == "max.message.bytes" and has.isdecimal() and int(has) >= int(wanted)
        if has != wanted and not enough:
            yield name, f"{name} is {has or 'unknown'} instead of {wanted}"
    if spec.purpose in {Purpose.registry, Purpose.probe} and found.partitions != spec.partitions:
        yield "partitions", f"it has {found.partitions} partitions instead of {spec.partitions}"


def _counts(spec: TopicSpec, there: Mapping[str, TopicInfo]) -> bool:
    return spec.copartitioned and spec.name in there


def _common_count(specs: Iterable[TopicSpec], there: Mapping[str, TopicInfo]) -> int | None:
    counts = {spec.name: there[spec.name].partitions for spec in specs if _counts(spec, there)}
    if len(set(counts.values())) > 1:
        raise PartitionsDisagreeError(counts)
    return next(iter(counts.values()), None)
