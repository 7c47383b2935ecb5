"""Sending an intent as any client would, and waiting for what becomes of it."""

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson
from pydantic import ValidationError

from pf_stream.clock import Clock
from pf_stream.components.dead_letters import SUFFIX, DeadLetter, parse_dead_letter
from pf_stream.core.records import Header
from pf_stream.errors import ConfigurationError, NotFoundError, PFError
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.errors import TopicMissingError
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.kafka.reader import TopicRecord, follow
from pf_stream.kafka.sender import NewRecord, send
from pf_stream.model import Intent, IntentSpec, Topology
from pf_stream.model._names import nearest

__all__ = [
    "DENIALS",
    "Answer",
    "InternalIntentError",
    "InvalidEventError",
    "InvalidIntentError",
    "Sent",
    "find_intent",
    "make_record",
    "parse_intent",
    "read_event",
    "reply_topic",
    "send_and_wait",
    "send_intent",
]

DENIALS: Final = frozenset(
    {
        "missing_context",
        "token_too_large",
        "too_many_blocks",
        "malformed_token",
        "unknown_key",
        "bad_signature",
        "wrong_audience",
        "token_expired",
        "token_not_yet_valid",
        "not_now",
        "insufficient_capabilities",
        "wrong_intent_type",
        "wrong_topic",
        "check_failed",
        "limits_reached",
        "undecidable",
        "bad_resource",
        "wrong_caller",
        "authentication_too_old",
        "denied_by_rule",
    }
)
"""Codes of refusals that say: this context may not do that."""


class InvalidIntentError(PFError):
    """Raised when data is not what an intent type declares; names every field that is wrong."""

    code = "invalid_intent"

    def __init__(self, spec: IntentSpec, faults: tuple[str, ...]) -> None:
        self.faults = faults
        lines = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(f"the data is no {spec.type}:{lines}")


class InvalidEventError(PFError):
    """Raised when a text does not say which intent it is."""

    code = "invalid_event"

    def __init__(self, fault: str) -> None:
        super().__init__(
            f'the intent cannot be read: {fault}; write it as {{"type": "flights.departed", "data": {{...}}}}'
        )


class InternalIntentError(PFError):
    """Raised when an intent type travels on a topic that only the topology itself writes."""

    code = "internal_intent"

    def __init__(self, spec: IntentSpec, topic: str) -> None:
        super().__init__(
            f"{spec.type} travels on {topic}, which is internal: only reactors emit it, and from others it is refused"
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """An intent that Kafka has taken."""

    id: str
    """Its ``ce_id``."""
    type: str
    """Its ``ce_type``."""
    topic: str
    """Where it is."""
    partition: int
    """The key's partition."""
    offset: int
    """Its offset there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an intent."""

    sent: Sent
    """The intent."""
    reply: Any = None
    """The reply's JSON, if there was one."""
    code: str | None = None
    """Why it was refused or failed, None if it was not; one of :data:`pf_stream.core.CODES`."""
    message: str | None = None
    """The same for people."""
    dead_letter: str | None = None
    """Where its dead letter lies, if it is known."""

    @property
    def is_denial(self) -> bool:
        """Whether the context was not enough."""
        return self.code in DENIALS


def find_intent(topology: Topology, name: str) -> IntentSpec:
    """The intent type of that name; without a version, the latest.

    Raises:
        NotFoundError: the topology knows none; names the nearest.
        InternalIntentError: nobody outside may send it.
    """
    found = [spec for spec in topology.intents if name in {spec.type, spec.name}]
    if not found:
        known = (spec.type for spec in topology.intents)
        raise NotFoundError(f"topology {topology.name!r} has no intent type {name!r}{nearest(name, known)}")
    spec = max(found, key=lambda spec: spec.version)
    topic = topology.topic_name(spec.topic)
    if topology.is_internal(topic):
        raise InternalIntentError(spec, topic)
    return spec


def parse_intent(spec: IntentSpec, data: bytes) -> Intent:
    """The intent that *data*, its JSON, describes.

    Raises:
        InvalidIntentError: it does not describe one.
    """
    try:
        return spec.decode(data)
    except ValidationError as error:
        raise InvalidIntentError(spec, tuple(_fault(spec, detail) for detail in error.errors())) from None


def read_event(topology: Topology, event: bytes) -> Intent:
    """The intent of a JSON object with ``type`` and ``data``, which is what matters of a CloudEvent in JSON.

    Raises:
        InvalidEventError: it is no such object.
        NotFoundError, InternalIntentError, InvalidIntentError: as :func:`find_intent` and :func:`parse_intent`.
    """
    try:
        read = orjson.loads(event)
    except orjson.JSONDecodeError as error:
        raise InvalidEventError(f"it is no JSON: {error}") from None
    if not isinstance(read, dict) or not isinstance(read.get("type"), str) or "data" not in read:
        raise InvalidEventError("it is no JSON object with a type and data")
    return parse_intent(find_intent(topology, read["type"]), orjson.dumps(read["data"]))


def _fault(spec: IntentSpec, detail: Any) -> str:
    path = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"{path}: there is no such field{nearest(str(detail['loc'][-1]), spec.model.model_fields)}"
    found = "" if detail["type"] in {"missing", "json_invalid"} else f", not {detail['input']!r}"
    return f"{path}: {detail['msg']}{found}" if path else f"{detail['msg']}{found}"


def reply_topic(topology: Topology, wanted: str | None = None) -> str:
    """Full name of the topic for replies: *wanted*, else ``replies``, within the namespace unless it has a dot.

    Raises:
        ConfigurationError: the topology's ``replies`` do not allow it.
    """
    topic = topology.topic_name(wanted or "replies")
    if not any(fnmatchcase(topic, pattern) for pattern in topology.reply_patterns):
        allowed = ", ".join(topology.reply_patterns) or "none"
        raise ConfigurationError(f"topology {topology.name!r} sends no replies to {topic}; allowed: {allowed}")
    return topic


def make_record(
    topology: Topology, intent: Intent, *, context: str | None, reply_to: str | None, now_ms: int, id_: str
) -> NewRecord:
    """The record of *intent*: CloudEvents 1.0, Kafka binding, binary mode."""
    spec = intent.__intent__
    time = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", spec.type.encode()),
        ("ce_source", b"/pf/cli"),
        ("ce_id", id_.encode()),
        ("ce_time", time.replace("+00:00", "Z").encode()),
        ("content-type", b"application/json"),
    ]
    if context is not None:
        headers.append(("pf-context", context.encode()))
    if reply_to is not None:
        headers += [("pf-reply-to", reply_to.encode()), ("pf-correlation-id", id_.encode())]
    return NewRecord(topology.topic_name(spec.topic), spec.key_of(intent), spec.encode(intent), headers)


def send_intent(
    settings: ConnectionSettings,
    topology: Topology,
    intent: Intent,
    clock: Clock,
    *,
    context: str | None = None,
    reply_to: str | None = None,
) -> Sent:
    """Send *intent*; returns when Kafka has it, which says nothing about what will become of it."""
    id_ = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
    record = make_record(topology, intent, context=context, reply_to=reply_to, now_ms=clock.now_ms(), id_=id_)
    ((topic, partition, offset),) = send(settings, [record])
    return Sent(id_, intent.__intent__.type, topic, partition, offset)


def send_and_wait(
    settings: ConnectionSettings,
    topology: Topology,
    intent: Intent,
    clock: Clock,
    *,
    timeout_s: float,
    context: str | None = None,
    reply_to: str | None = None,
    on_sent: Callable[[Sent], None] = lambda _: None,
) -> Answer | None:
    """Send *intent* and wait for its reply or its dead letter, whichever comes; None if neither did in time.

    Raises:
        ConfigurationError: the topology sends no replies there.
        TopicMissingError: the topic of the replies or of dead letters does not exist.
    """
    replies = reply_topic(topology, reply_to)
    dead_letters = topology.topic_name(intent.__intent__.topic) + SUFFIX
    # Where both end before the intent is sent: nothing that follows from it lies below.
    positions = _ends(settings, replies, dead_letters)
    sent = send_intent(settings, topology, intent, clock, context=context, reply_to=replies)
    on_sent(sent)
    for record in follow(settings, positions, timeout_s):
        if record.topic == replies and record.header("pf-correlation-id") == sent.id:
            return _replied(sent, record)
        if record.topic == dead_letters and record.header("ce_id") == sent.id:
            return _refused(sent, parse_dead_letter(record))
    return None


def _ends(settings: ConnectionSettings, *topics: str) -> dict[Partition, int]:
    admin = Admin(settings)
    found = admin.topics(topics)
    missing = [topic for topic in topics if topic not in found]
    if missing:
        raise TopicMissingError(missing, "Create what the topology needs with: pf topics create")
    partitions = [(name, number) for name, topic in found.items() for number in range(topic.partitions)]
    return admin.offsets(partitions, "end")


def _replied(sent: Sent, record: TopicRecord) -> Answer:
    data = None if record.value is None else orjson.loads(record.value)
    code = record.header("pf-error-code")
    if code is None:
        return Answer(sent, data)
    message = data.get("message") if isinstance(data, dict) else None
    return Answer(sent, None, code, message)


def _refused(sent: Sent, letter: DeadLetter) -> Answer:
    return Answer(sent, None, letter.code, letter.message, letter.position)
