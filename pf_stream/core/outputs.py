"""How the records that a lane writes look."""

import hashlib
import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

import orjson
from pydantic import BaseModel

from pf_stream.core.delivery import Delivery
from pf_stream.core.plan import EmitPlan, GroupPlan, ReactorPlan
from pf_stream.core.records import Header, Record
from pf_stream.core.timers import Timer
from pf_stream.core.unit import Copy, Narrowing, Output
from pf_stream.model.context import EARLIEST_MS, LATEST_MS, event_time_ms, is_traceparent, request_id_of, trace_of
from pf_stream.model.effect import Emit, Reply, Schedule
from pf_stream.model.intent import Intent
from pf_stream.model.topology import Topology
from pf_stream.security.narrowing import Identity
from pf_stream.security.refusal import Refusal

__all__ = [
    "DROPPED",
    "SERVICE",
    "BadEffectError",
    "cause_of",
    "dead_letter",
    "emitted",
    "emitted_size",
    "envelope",
    "given_time",
    "hops_header",
    "inherited_time",
    "origin_of",
    "output_size",
    "overdue",
    "read_identity",
    "reply",
    "reply_data",
    "reply_topic",
    "rerouted",
    "service_header",
    "told_time",
    "trace_headers",
    "why_dead",
]

_SPEC: Final = ("ce_specversion", b"1.0")
_JSON: Final = ("content-type", b"application/json")

_topic_name: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}").fullmatch
"""What Kafka takes for a topic's name (``org.apache.kafka.common.internals.Topic``)."""

_EMITTED_SIZE: Final = 1024
"""What an emitted intent adds to a unit beside its key, its value, its trace and its caller's token, by estimate."""

_EMITTED_HEADERS: Final = 7
"""How many headers each has beside those of its trace, which come last."""

# What is copied from a record into each of its outputs is the sender's choice, and a unit that does not fit into one commit
# stops its lane.
_LONGEST_TIME: Final = 64
"""In bytes; RFC 3339 is content with half of it."""
_LONGEST_ID: Final = 1_000
"""In characters, of an id that a handler gives."""
_LONGEST_CAUSE: Final = 192
"""In bytes. A timer that sets the next one makes its id longer each time, without end."""
_LONGEST_TRACE: Final = 8 << 10
"""In bytes; W3C trace context asks for 512 characters to be handed on, and lets anybody drop what is longer."""

ENGINE_HEADERS: Final = frozenset({"pf-source", "pf-hops", "pf-trace", "pf-rerouted", "pf-watermark"})
"""Headers that are believed on internal topics; whatever a client put there is dropped on the way to one."""


class BadEffectError(Exception):
    """Raised when a handler returned something that cannot be made into a record; ends as a dead letter ``bad_effect``."""


DROPPED: Final = frozenset({"pf-context", "pf-revocation-ids"})
"""Headers that a dead letter does not keep, in capitals or not: whoever may read dead letters must not be able to act with the
token, and must not revoke another one because its sender said so."""


def emitted(
    delivery: Delivery,
    partition: int,
    reactor: ReactorPlan,
    intent: Intent,
    plan: EmitPlan,
    index: int,
    effect: Emit | Schedule,
) -> Output:
    """The record of an *intent* that *reactor* emits because of *delivery*; *index* tells it from others that it causes.

    Unless the *effect* gives them, its id is made of the position of that record, so that a second run of it gives an equal
    one, and its time is that record's time, so that event time survives a hop.
    """
    cause = cause_of(delivery, partition)
    time = inherited_time(delivery) if effect.time is None else given_time(effect.time)
    if plan.intent.time_of is not None and (own_ms := plan.intent.time_of(intent)) is not None:
        time = told_time(own_ms)
    ce_id = b"%b%d" % (cause, index) if effect.id is None else _given_id(effect.id)
    out = [_SPEC, plan.type, reactor.source, ("ce_id", ce_id), ("ce_time", time), _JSON, hops_header(delivery.hops + 1)]
    if delivery.hops or delivery.is_scheduled or "traceparent" in delivery.headers or effect.id is not None:
        out += trace_headers(delivery, cause, told_by_id=effect.id is None)
    origin = origin_of(delivery, reactor)
    spec = plan.intent
    return Output(
        plan.topic,
        None,
        spec.key_of(intent),
        spec.encode(intent),
        delivery.at_ms,
        out,
        None if origin is None else Narrowing(origin, plan.bounds),
    )


def cause_of(delivery: Delivery, partition: int) -> bytes:
    """What the ids of all that a *delivery* causes begin with; a number follows."""
    if not delivery.is_scheduled:
        return b"%b:%d:%d:" % (delivery.source.plan.topic.encode(), partition, delivery.record.offset)
    cause: bytes = delivery.headers["ce_id"]  # it has no record of its own
    if len(cause) > _LONGEST_CAUSE:
        cause = hashlib.blake2b(cause, digest_size=16).hexdigest().encode()
    return cause + b":"


def inherited_time(delivery: Delivery) -> bytes:
    """The event time of what a *delivery* causes, unless that says another."""
    time: bytes | None = delivery.headers.get("ce_time")
    if time is None:
        return told_time(delivery.record.timestamp)
    if not time or len(time) > _LONGEST_TIME:
        return told_time(event_time_ms(delivery.headers, delivery.record.timestamp))
    return time


def emitted_size(output: Output) -> int:
    """Bytes that an emitted intent adds to a unit, by estimate."""
    _, _, key, value, _, headers, context = output
    size = _EMITTED_SIZE + len(key or b"") + len(value or b"")
    if context is not None and isinstance(context.origin, bytes):
        size += len(context.origin)
    for _, told in headers[_EMITTED_HEADERS:]:
        size += len(told or b"")
    return size


def trace_headers(delivery: Delivery, cause: bytes, *, told_by_id: bool) -> tuple[Header, ...]:
    """What is told of a request to the records that it causes, whose own ids begin with *cause*.

    *told_by_id* says whether they have those ids, which tell it as well.
    """
    if delivery.trace is not None:
        return delivery.trace
    headers = delivery.headers
    told: tuple[Header, ...] = ()
    if "traceparent" in headers and is_traceparent(headers["traceparent"]):
        told = tuple((name, headers[name]) for name in ("traceparent", "tracestate") if name in headers)
        if sum(len(value or b"") for _, value in told) > _LONGEST_TRACE:
            told = told[:1]
    # What a client's intent causes needs no more: its id and its source say it.
    engines = delivery.hops > 0 or delivery.is_scheduled
    if not told and (engines or not told_by_id):
        # A client's intent is the beginning of its request, which is called by its position, as *cause* is.
        request = request_id_of(headers if engines else {"ce_id": cause}, None)
        span = hashlib.blake2b(cause, digest_size=8).hexdigest()
        told = (("traceparent", f"00-{request}-{span}-00".encode()),)
    if engines:
        told += (("pf-trace", ">".join(trace_of(headers, delivery.hops or 1)).encode()),)
        delivery.trace = told
    return told


def envelope(kind: Header, source: Header) -> list[Header]:
    """The headers that all events of a kind and a source have."""
    return [_SPEC, kind, source, _JSON]


def origin_of(delivery: Delivery, reactor: ReactorPlan) -> bytes | Identity | None:
    """Under whose context *reactor* emits because of *delivery*; ``None`` for nobody's."""
    claims = None if reactor.spec.anonymous else delivery.claims
    if reactor.service is not None:
        return reactor.service.on_behalf_of(None if claims is None else claims.tenant)
    return None if claims is None else claims.identity or claims.token


SERVICE: Final = "pf-service"
"""Header of a timer's record that a service set: reactor and tenant, in place of a token. It is nowhere else believed."""


def service_header(identity: Identity) -> Header:
    """The header from which :func:`read_identity` makes *identity* again."""
    return SERVICE, orjson.dumps([identity.reactor, identity.tenant])


def read_identity(raw: bytes | None, plan: GroupPlan) -> Identity | None:
    """The service that a timer's header names; ``None`` if there is none, or none any more."""
    if raw is None:
        return None
    reactor, tenant = orjson.loads(raw)
    service = plan.services.get(reactor)
    return None if service is None else service.on_behalf_of(tenant)


def reply(delivery: Delivery, data: bytes, kind: str, topology: Topology, topic: str, code: str | None) -> Output:
    """The record of a reply; *code* is set if it tells of a refusal."""
    headers = delivery.headers
    out: list[Header] = [
        _SPEC,
        ("ce_type", kind.encode()),
        ("ce_source", f"/{topology.app_id}".encode()),
        ("ce_id", b"re:" + (headers.get("ce_id") or b"")),
        ("ce_time", told_time(delivery.now_ms)),
        _JSON,
    ]
    correlation = headers.get("pf-correlation-id")
    if correlation is not None:
        out.append(("pf-correlation-id", correlation))
    if code is not None:
        out.append(("pf-error-code", code.encode()))
    return Output(topic, None, delivery.record.key, data, delivery.now_ms, out, None)


def reply_data(effect: Reply) -> bytes:
    """JSON of a reply's data; raises :class:`BadEffectError` if it has none."""
    try:
        if isinstance(effect.data, BaseModel):
            return effect.data.__pydantic_serializer__.to_json(effect.data)
        return orjson.dumps(effect.data, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except (orjson.JSONEncodeError, ValueError) as error:
        raise BadEffectError(f"replied with something that has no JSON form: {error}") from error


def reply_topic(raw: bytes, plan: GroupPlan) -> str | None:
    """The topic that a ``pf-reply-to`` names, if replies may go there.

    Only what the topology's patterns allow, and never a topic that the engine reads or keeps its own records in: a
    client must not be able to write there through us what it may not write itself.
    """
    try:
        topic = raw.decode("ascii")
    except UnicodeDecodeError:
        return None
    topology = plan.topology
    if not _topic_name(topic):
        return None  # it could never be sent, and an output that cannot be sent stops its lane
    if topic.startswith("__") or topic.endswith(("-changelog", ".rerouted", ".dlq")):
        return None
    if topic in topology.source_topics or any(emit.topic == topic for emit in plan.emits.values()):
        return None
    return topic if any(fnmatchcase(topic, pattern) for pattern in topology.reply_patterns) else None


def overdue(timer: Timer, plan: GroupPlan) -> Output:
    """The record of an intent that waited and is not of this lane: it goes to its topic."""
    record = timer.record
    if not timer.scheduled:
        return Output(timer.topic, None, record.key, record.value, timer.judged_ms, list(record.headers), None)
    headers = dict(record.headers)
    token = headers.pop("pf-context", None)
    identity = read_identity(headers.pop(SERVICE, None), plan)
    emit = next(
        (emit for emit in plan.emits.values() if emit.type[1] == headers["ce_type"] and emit.topic == timer.topic), None
    )
    # A type that this version of the topology does not emit goes without a context, and is refused where it arrives.
    origin = identity or token
    context = None if origin is None or emit is None else Narrowing(origin, emit.bounds)
    return Output(timer.topic, None, record.key, record.value, timer.judged_ms, list(headers.items()), context)


def rerouted(topic: str, delivery: Delivery, partition: int, inline: int) -> Output | Copy:
    """The record of a misplaced key, on its way to the partition where its state lives."""
    record = delivery.record
    source = delivery.source.plan.topic
    origin: list[Header] = [("pf-rerouted", f"{source}:{partition}:{record.offset}".encode())]
    at_ms = delivery.at_ms
    if _size(record) > inline:
        return Copy(topic, None, source, partition, record.offset, record.key, at_ms, origin, ENGINE_HEADERS)
    kept = [header for header in record.headers if header[0] not in ENGINE_HEADERS]
    return Output(topic, None, record.key, record.value, at_ms, kept + origin, None)


def dead_letter(
    delivery: Delivery, partition: int, refusal: Refusal, error: str, revocation_ids: tuple[str, ...], inline: int
) -> Output | Copy:
    """The record of a refused one: key, value and headers as they came, and why (header names: KIP-1034)."""
    record = delivery.record
    source = delivery.source.plan.topic
    target = delivery.source.plan.dead_letters
    extra = why_dead(source, partition, record.offset, refusal, error)
    if revocation_ids:
        extra.append(("pf-revocation-ids", ",".join(revocation_ids).encode()))
    now_ms = delivery.now_ms
    dropped = frozenset(name for name, _ in record.headers if name.lower() in DROPPED)
    # What waited as a timer may be gone from its topic, and a scheduled intent was never there.
    if delivery.timer is None and _size(record) > inline:
        return Copy(target, partition, source, partition, record.offset, record.key, now_ms, extra, dropped)
    kept = [header for header in record.headers if header[0] not in dropped]
    return Output(target, partition, record.key, record.value, now_ms, kept + extra, None)


def why_dead(topic: str, partition: int, offset: int, refusal: Refusal, error: str) -> list[Header]:
    """What a dead letter says beside what the record said that was at *offset*; *error* is the name of an exception."""
    return [
        ("__streams.errors.exception", error.encode()),
        ("__streams.errors.message", refusal.reason.encode()),
        ("__streams.errors.topic", topic.encode()),
        ("__streams.errors.partition", b"%d" % partition),
        ("__streams.errors.offset", b"%d" % offset),
        ("pf-error-code", refusal.code.encode()),
    ]


def output_size(output: Output | Copy) -> int:
    """Bytes that an output adds to a unit, by estimate."""
    if isinstance(output, Copy):
        return 1024
    size = 64 + len(output.key or b"") + len(output.value or b"")
    return size + sum(len(name) + len(value or b"") + 8 for name, value in output.headers)


def _size(record: Record) -> int:
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"")
    return size


def given_time(given: object) -> bytes:
    """A time that a handler gives, in RFC 3339; raises :class:`BadEffectError`."""
    if type(given) is int and EARLIEST_MS <= given <= LATEST_MS:
        return told_time(given)
    if isinstance(given, datetime) and given.tzinfo is not None:
        return told_time(round(given.timestamp() * 1000))
    raise BadEffectError(
        f"gave the time {given!r:.200}; a time is a datetime with a zone, or milliseconds since the epoch, of the years 1 to 9999"
    )


def _given_id(given: object) -> bytes:
    try:
        if isinstance(given, str) and 0 < len(given) <= _LONGEST_ID:
            return given.encode()
    except UnicodeEncodeError:
        pass
    raise BadEffectError(f"gave the id {given!r:.200}; an id is text of 1 to {_LONGEST_ID} characters")


@lru_cache(maxsize=64)
def hops_header(count: int) -> Header:
    """The header that counts how often something was emitted onward."""
    return "pf-hops", b"%d" % count


_SECONDS_KEPT: Final = 1024
_seconds_told: Final[dict[int, bytes]] = {}
"""Seconds that were told of late: times come in crowds."""


def told_time(time_ms: int) -> bytes:
    """A time as ``ce_time`` says it, RFC 3339; what no datetime holds is taken for the nearest that one does."""
    second, ms = divmod(min(max(time_ms, EARLIEST_MS), LATEST_MS), 1000)
    told = _seconds_told.get(second)
    if told is None:
        if len(_seconds_told) >= _SECONDS_KEPT:
            _seconds_told.clear()
        told = _seconds_told[second] = datetime.fromtimestamp(second, UTC).isoformat()[:19].encode()
    return b"%b.%03d+00:00" % (told, ms)
