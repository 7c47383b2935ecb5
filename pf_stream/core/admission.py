"""Which records reach a handler: the envelope, the payload, the context, the key, and what the sender demands."""

import re
from collections import Counter

from pydantic import ValidationError

from pf_stream.core.authorise import Authority
from pf_stream.core.constraints import constrained
from pf_stream.core.delivery import Delivery
from pf_stream.core.envelope import is_structured, open_structured
from pf_stream.core.limits import Limits
from pf_stream.core.outputs import SERVICE, read_identity, reply_topic, told_time
from pf_stream.core.plan import GroupPlan, Route
from pf_stream.core.records import APPEND_TIME
from pf_stream.core.source import parse_origin
from pf_stream.errors import PFError
from pf_stream.model.context import event_time_ms, parse_time_ms
from pf_stream.model.topology import Topology
from pf_stream.model.versions import StepError
from pf_stream.security._cache import BoundedCache
from pf_stream.security.refusal import Refusal

__all__ = ["Admission", "NewerVersionError"]

_hops = re.compile(rb"[0-9]{1,9}").fullmatch
_versioned = re.compile(rb"([a-z][a-z0-9_.]*)\.v([0-9]{1,9})").fullmatch
_REPLY_TOPICS_BYTES = 1024 * 1024


class NewerVersionError(PFError):
    """Raised when an internal topic holds an intent that only a newer version of the topology can have written.

    Its lane stops and forgets what it had not committed: nothing is lost, since it is read again.
    """

    code = "newer_version"

    def __init__(self, kind: str, known: int | None, topic: str, offset: int, topology: Topology) -> None:
        here = "does not know it" if known is None else f"knows it up to version {known}"
        super().__init__(
            f"{topic} holds {kind} at offset {offset}, and this worker's version {topology.version} of topology "
            f"{topology.name!r} {here}: a newer version wrote it. Upgrade this worker; if you take a version back, or took "
            f"the type away, let the version that has the type empty the topic first"
        )


class Admission:
    """Decides about deliveries. Default deny: what is not found to be right is refused."""

    def __init__(self, plan: GroupPlan, authority: Authority, limits: Limits) -> None:
        self._plan = plan
        self._authority = authority
        self._limits = limits
        self._reply_topics: BoundedCache[bytes, str] = BoundedCache(
            _REPLY_TOPICS_BYTES, lambda raw, _: 200 + 2 * len(raw)
        )
        self._newest: dict[bytes, int] = {}
        """Newest version of each intent name that the topology knows, on whatever topic."""
        for spec in plan.topology.intents:
            self._newest[spec.name.encode()] = max(spec.version, self._newest.get(spec.name.encode(), 0))

    def is_repeat(self, delivery: Delivery) -> bool | Refusal:
        """Whether a record of an internal topic was taken before."""
        raw = delivery.headers.get("pf-source") or b""
        hops = delivery.headers.get("pf-hops") or b"0"
        origin = parse_origin(raw)
        if origin is None or _hops(hops) is None:
            return Refusal("untrusted_record", f"its pf-source is {raw!r:.80}, its pf-hops {hops!r:.80}")
        return not delivery.source.take(delivery.record.offset, *origin)

    def admit(self, delivery: Delivery) -> Refusal | None:
        """Complete *delivery*, or say why it is refused; raises :class:`NewerVersionError`."""
        record = delivery.record
        headers = delivery.headers
        source = delivery.source
        raw_headers = record.headers
        route = source.plan.routes.get(headers.get("ce_type", b""))
        value = record.value
        if (
            route is None
            or value is None
            or len(value) > self._limits.payload_bytes
            or len(raw_headers) > self._limits.headers
            or len(raw_headers) != len(headers)
            or headers["ce_type"] is None
            or headers.get("ce_specversion") != b"1.0"
            or headers.get("content-type") != b"application/json"
            or not headers.get("ce_id")
            or not headers.get("ce_source")
            or source.poisoned
        ):
            return self._admit_unusual(delivery)
        return self._admit_payload(delivery, route, value)

    def _admit_payload(self, delivery: Delivery, route: Route, value: bytes) -> Refusal | None:
        record = delivery.record
        headers = delivery.headers
        try:
            intent = route.intent.decode(value)
        except ValidationError as error:
            return Refusal("malformed_payload", _explain(error))
        except Exception as error:  # noqa: BLE001 - a validator of the type's own may raise anything
            return Refusal("malformed_payload", f"its type cannot read it: {type(error).__name__}")
        internal = delivery.source.plan.internal
        # Judged when the broker appended it, so that a backlog does not expire and nobody can back-date; on internal
        # topics when the causing intent was judged, which the engine wrote as the record's time.
        timer = delivery.timer
        if timer is not None:
            at_ms = timer.judged_ms
        else:
            at_ms = record.timestamp if internal or record.timestamp_type == APPEND_TIME else delivery.now_ms
        token = headers.get("pf-context")
        if timer is not None and timer.scheduled and SERVICE in headers:
            token = read_identity(headers[SERVICE], self._plan)
        claims = None
        if token is not None:
            values = route.values(intent)
            claims = self._authority.recent.get(token) if isinstance(token, bytes) else None
            if claims is None or (route, values) not in claims.notes:
                decided = self._authority.decide(token, route, values, intent, at_ms)
                if isinstance(decided, Refusal):
                    return decided
                claims = decided
            if route.checks.each or not claims.not_before_ms <= at_ms < claims.expires_ms:
                refusal = self._authority.judge(claims, route, values, intent, at_ms)
                if refusal is not None:
                    return refusal
        elif not route.public:
            return Refusal("missing_context", "it has no pf-context header")
        key = route.intent.key_of(intent)
        if record.key != key:
            code = "null_key" if record.key is None else "key_mismatch"
            return Refusal(code, f"its payload says {key!r}, the key is {record.key!r}")
        time_of = route.intent.time_of
        if time_of is not None and (time_ms := time_of(intent)) is not None:
            headers["ce_time"] = told_time(time_ms)  # from here on it is that
        hops = 0
        delivery.due_ms = None
        if internal:
            hops = int(headers.get("pf-hops") or 0)
            if hops > self._limits.hops:
                return Refusal("too_many_hops", f"it was emitted onward {hops} times")
        if "pf-deadline" in headers or "pf-not-before" in headers or "pf-reply-to" in headers:
            refusal = self._demands(delivery, at_ms)
            if refusal is not None:
                return refusal
        if route.constraints:
            refusal = self._constrain(delivery, route, at_ms)
            if refusal is not None:
                return refusal
        delivery.route = route
        delivery.value = value
        delivery.intent = intent
        delivery.key = key
        delivery.claims = claims
        delivery.at_ms = at_ms
        delivery.hops = hops
        return None

    def _admit_unusual(self, delivery: Delivery) -> Refusal | None:
        """A record that the quick way of :meth:`admit` does not cover: most are refused, some are just rare.

        Raises :class:`NewerVersionError`.
        """
        record = delivery.record
        refusal = self._envelope_refusal(delivery)
        if refusal is not None:
            return refusal
        value = record.value
        if value is not None and len(value) > self._limits.payload_bytes:
            return Refusal("payload_too_large", f"{len(value)} bytes; the limit is {self._limits.payload_bytes}")
        if value is not None and is_structured(delivery.headers.get("content-type")):
            opened = open_structured(value, delivery.headers)
            if isinstance(opened, str):
                return Refusal("malformed_envelope", opened)
            delivery.headers, value = opened
        headers = delivery.headers
        if headers.get("ce_specversion") != b"1.0":
            return Refusal("malformed_envelope", "it has no ce_specversion 1.0 header")
        for name in ("ce_type", "ce_id", "ce_source"):
            if not headers.get(name):
                return Refusal("malformed_envelope", f"it has no {name} header")
        kind: bytes = headers["ce_type"]
        plan = delivery.source.plan
        route = plan.routes.get(kind)
        older = plan.older.get(kind)
        if route is None and older is None:
            return self._unknown(delivery, kind)
        if value is None:
            return Refusal("null_value", "it has no value")
        if route is None:
            assert older is not None
            route = older.route
            try:
                value = route.intent.upcasts.run(value, older.version)
            except (StepError, ValueError) as error:
                return Refusal("malformed_payload", str(error))
        return self._admit_payload(delivery, route, value)

    def _unknown(self, delivery: Delivery, kind: bytes) -> Refusal:
        plan = delivery.source.plan
        match = _versioned(kind)
        if match is not None:
            name, version = match[1], int(match[2])
            known = self._newest.get(name)
            if self._is_ours(delivery, known=known is not None) and (known is None or version > known):
                offset = delivery.record.offset
                raise NewerVersionError(kind.decode(), known, plan.topic, offset, self._plan.topology)
            if name in plan.names:
                return Refusal("unsupported_version", f"{kind!r} is not a version that this topology handles")
        return Refusal("unknown_type", f"no reactor handles {kind!r:.200} on {plan.origin}")

    @staticmethod
    def _is_ours(delivery: Delivery, *, known: bool) -> bool:
        """Whether nobody but this topology can have written the record, and none of its versions could do without it."""
        source, timer = delivery.source, delivery.timer
        if timer is not None and timer.scheduled:
            return known  # a type that was taken away may have timers for months, which nobody can wait for
        if not source.plan.internal or source.plan.origin != source.plan.topic:
            return False  # what was rerouted was written by anybody
        return timer is not None or not any(delivery.record.offset < seen for seen in source.ahead.values())

    def _envelope_refusal(self, delivery: Delivery) -> Refusal | None:
        record = delivery.record
        # A timer has the offset of the record that set it, which may have come by another topic.
        poisoned = delivery.source.poisoned.get(record.offset) if delivery.timer is None else None
        if poisoned is not None:
            return Refusal(poisoned, "alone in its unit, it could not be committed")
        count = len(record.headers)
        if count > self._limits.headers:
            return Refusal("too_many_headers", f"it has {count} headers; the limit is {self._limits.headers}")
        for name, times in Counter(name for name, _ in record.headers).items():
            if times > 1 and name.startswith(("ce_", "pf-", "content-type")):
                return Refusal("duplicate_header", f"header {name!r} appears {times} times")
        return None

    def _demands(self, delivery: Delivery, at_ms: int) -> Refusal | None:
        """What is wrong with what the sender asks for beside the handling itself."""
        headers = delivery.headers
        times = {}
        for name in ("pf-deadline", "pf-not-before"):
            raw = headers.get(name)
            if raw is not None:
                time_ms = parse_time_ms(raw)
                if time_ms is None:
                    return Refusal("malformed_envelope", f"{name} {raw!r:.80} is no RFC 3339 time with a zone")
                times[name] = time_ms
        not_before = times.get("pf-not-before", delivery.now_ms)
        deadline = times.get("pf-deadline")
        if deadline is not None and deadline < max(not_before, delivery.now_ms):
            return Refusal("deadline_passed", f"pf-deadline is {headers['pf-deadline'].decode()}")
        if not_before > delivery.now_ms:
            if not_before - at_ms > self._limits.timer_ms:
                days = self._limits.timer_ms // 86_400_000
                return Refusal("not_before", f"pf-not-before lies more than {days} days ahead")
            delivery.due_ms = not_before
        raw = headers.get("pf-reply-to")
        if raw is not None and self.reply_topic(raw) is None:
            return Refusal("bad_reply_topic", f"replies may not go to {raw!r:.200}")
        return None

    def _constrain(self, delivery: Delivery, route: Route, at_ms: int) -> Refusal | None:
        """Put it off until it may be handled, or say that it may not."""
        raw = delivery.headers.get("pf-deadline")
        start_ms = delivery.now_ms if delivery.due_ms is None else delivery.due_ms
        found = constrained(
            route.constraints,
            self._plan.topology.calendars,
            at_ms=start_ms,
            # What a sender's clock says of the future must not give it more time.
            happened_ms=min(at_ms, event_time_ms(delivery.headers, delivery.record.timestamp)),
            deadline_ms=None if raw is None else parse_time_ms(raw),
            horizon_ms=at_ms + self._limits.timer_ms,
        )
        if isinstance(found, Refusal):
            return found
        if found > delivery.now_ms:
            delivery.due_ms = found
        return None

    def reply_topic(self, raw: bytes) -> str | None:
        """The topic that a ``pf-reply-to`` names, if replies may go there."""
        topic = self._reply_topics.get(raw)
        if topic is None:
            topic = reply_topic(raw, self._plan)
            if topic is not None:
                self._reply_topics.put(raw, topic)
        return topic


def _explain(error: ValidationError) -> str:
    """The first faults of a payload, field and message, without its values: those may be secret."""
    parts = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'value'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)[:3]
    ]
    return "; ".join(parts)
