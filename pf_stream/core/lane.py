"""The lane: one partition of one group, and the pure step over its records.

Nothing here waits, reads a clock or rolls dice. The same records at the same ``now`` against the same changelog give the
same unit, which is what makes a crash between any two actions harmless.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, cast

import orjson
from pydantic import ValidationError
from typing_extensions import TypeVar

from pf_stream.core import changelog
from pf_stream.core.authorise import Authority
from pf_stream.core.envelope import is_structured, open_structured
from pf_stream.core.outbox import OutboxEntry, decode_entry
from pf_stream.core.outputs import (
    EMITTED_SIZE,
    BadEffectError,
    Emitter,
    dead_letter,
    output_size,
    reply,
    reply_data,
    reply_topic,
    rerouted,
)
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import Binding, GroupPlan, Route, SourcePlan
from pf_stream.core.records import APPEND_TIME, Record
from pf_stream.core.store import ENCODING_ERRORS, Entry, Store
from pf_stream.core.unit import CommitUnit, Copy, Output, Outputs, Rewind
from pf_stream.errors import PFError
from pf_stream.model.context import ANONYMOUS, Context, parse_time_ms
from pf_stream.model.effect import Emit, Reply
from pf_stream.model.intent import Intent
from pf_stream.model.state import strictly
from pf_stream.security.refusal import Refusal
from pf_stream.security.verify import Claims

__all__ = ["Lane", "Limits", "PartitionCountError"]

Headers = dict[str, Any]

O = TypeVar("O", bound=Outputs, default=list[Output | Copy])  # noqa: E741 - outputs

# As the commit side writes them. Whatever else stands there was not written by it, and must not reach the changelog.
_pf_source = re.compile(rb"([0-9A-Za-z_-]{1,64}):([0-9]{1,18}):([0-9]{1,9})").fullmatch
_pf_hops = re.compile(rb"[0-9]{1,9}").fullmatch

_BY_HANDLING = frozenset({"handler_failed", "bad_effect", "bad_state", "unit_too_large"})
"""Codes that depend on what the reactors do, not on the record alone."""

_LONGEST_REASON = 1_000
"""In characters. A reason may quote what the sender chose; it must not make a dead letter that no topic takes."""


class PartitionCountError(PFError):
    """Raised when a changelog was written for another number of partitions: keys would be looked for in a wrong place."""

    code = "partition_count"

    def __init__(self, changelog_topic: str, was: int, now: int) -> None:
        super().__init__(
            f"{changelog_topic} was written for {was} partitions and the source topics have {now}: state lives where "
            f"its key lives, so give the topics {was} partitions again, or start under a new topology name"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what a record may be and of what a unit may grow to."""

    payload_bytes: int = 1 << 20
    """Largest value of an intent that is decoded."""
    headers: int = 64
    """Most headers of an intent."""
    hops: int = 16
    """How often an intent may be emitted onward."""
    unit_records: int = 2_000
    """Most source records of a unit."""
    unit_bytes: int = 4 << 20
    """Size at which a unit stops growing: outputs as they are, states as they were before."""
    unit_bytes_hard: int = 6 << 20
    """Size that a unit may not exceed, states as they became; before compression."""
    output_bytes: int = 900_000
    """Largest value of an emitted intent or a reply: fits into a topic with Kafka's default ``max.message.bytes``."""
    inline_bytes: int = 64 << 10
    """A record above this is forwarded by copying it from its source, instead of passing through the changelog."""


class _Source:
    """Where the lane stands in one source topic."""

    __slots__ = (
        "ahead",
        "known_marks",
        "known_until",
        "marks",
        "marks_moved",
        "next",
        "plan",
        "poisoned",
        "sealed",
        "sealed_marks",
        "topic_id",
    )

    def __init__(self, plan: SourcePlan) -> None:
        self.plan = plan
        self.topic_id = bytes(16)
        self.next = 0
        """Offset of the next record to take; everything below is decided."""
        self.sealed = 0
        """*next* as of the last sealed unit."""
        self.ahead: dict[int, int] = {}
        """Reactors that have seen more than *next*, because another one is new: index to next offset."""
        self.marks: dict[bytes, tuple[int, int]] = {}
        """Last record taken from each upstream lane: incarnation to unit sequence and index."""
        self.known_marks: dict[bytes, tuple[int, int]] = {}
        """While a new reactor reads what the others have seen, *marks* begins anew, and these are theirs."""
        self.known_until = 0
        """Offset from which on *known_marks* hold too."""
        self.marks_moved: set[bytes] = set()
        self.sealed_marks: dict[bytes, tuple[int, int]] = {}
        self.poisoned: dict[int, str] = {}
        """Offsets whose intent alone made a unit that could not be sealed: offset to code."""


class Lane(Generic[O]):
    """One partition of one group.

    Life: :meth:`restore` with the records of its changelog partition, :meth:`begin`, then :meth:`step` and :meth:`seal`
    in turn; :meth:`sent` tells which outputs need not be kept. After any failed append the object is thrown away.
    """

    def __init__(
        self,
        plan: GroupPlan,
        partition: int,
        authority: Authority,
        limits: Limits,
        collect: Callable[[str, int], O] = cast("Any", lambda incarnation, sequence: []),  # noqa: B008
    ) -> None:
        """*collect* makes what takes the outputs of a unit, from the lane's incarnation and the unit's sequence."""
        self.plan = plan
        self.partition = partition
        self.authority = authority
        self.limits = limits
        self.incarnation = ""
        self.sequence = 0
        """Of the last sealed unit."""
        self.sent_sequence = 0
        """Unit up to which outputs are known to be in Kafka."""
        self.count = 0
        """Source records in the open unit."""
        self.bytes = 0
        """Estimated size of the open unit."""
        self.handled = 0
        """Intents handled since the process started, the open unit's not included."""
        self.refused: Counter[str] = Counter()
        """Records refused since the process started, by code, the open unit's not included."""
        self._handled = 0
        self._refused: Counter[str] = Counter()
        self.sources = {source.topic: _Source(source) for source in plan.sources}
        self.stores = [Store(reactor) for reactor in plan.reactors]
        self._room = limits.unit_records
        self._dirty: list[tuple[Store, bytes, Entry]] = []
        self._collect = collect
        self._outputs = collect("", 0)
        self._watermarks: dict[tuple[str, str], int] = {}
        self._outbox: dict[int, dict[int, bytes]] = {}
        self._deletions: list[bytes] = []
        self._marked_sequence = 0
        self._header: dict[str, Any] | None = None
        self._reply_topics: dict[bytes, str | None] = {}

    # -- recovery ------------------------------------------------------------------------------------------------------

    def restore(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take changelog records, key and value, in the order of the log."""
        stores = {store.reactor.spec.id: store.cold for store in self.stores}
        for key, value in records:
            match key[1:2]:
                case b"s":
                    reactor, name, _ = changelog.parse_state_key(key)
                    cold = stores.get(reactor)
                    if cold is None:
                        continue  # of a reactor that this version of the topology lacks: its state stays where it is
                    if value is None:
                        cold.pop(name, None)
                    else:
                        cold[name] = value
                case b"w" if value is not None:
                    reactor, at = changelog.parse_name(key, 2)
                    topic, _ = changelog.parse_name(key, at)
                    self._watermarks[reactor, topic], topic_id = changelog.WATERMARK_VALUE.unpack(value)
                    if topic in self.sources:
                        self.sources[topic].topic_id = topic_id
                case b"d" if value is not None:
                    topic, at = changelog.parse_name(key, 2)
                    incarnation, _ = changelog.parse_name(key, at)
                    if topic in self.sources:
                        self.sources[topic].marks[incarnation.encode()] = changelog.MARK_VALUE.unpack(value)
                case b"o":
                    _, sequence, index = changelog.OUTBOX_KEY.unpack(key)
                    if value is None:
                        self._outbox.get(sequence, {}).pop(index, None)
                    else:
                        self._outbox.setdefault(sequence, {})[index] = value
                case b"u" if value is not None:
                    self.sequence, self.sent_sequence = changelog.UNIT_VALUE.unpack(value)
                case b"h" if value is not None:
                    self._header = orjson.loads(value)
                    self.incarnation = self._header["incarnation"]
                    if self._header["partitions"] != self.plan.partitions:
                        raise PartitionCountError(self.plan.changelog, self._header["partitions"], self.plan.partitions)
                case _:
                    pass

    def begin(self, incarnation: str) -> dict[str, int | None]:
        """End the recovery; *incarnation* is used if the lane never lived before.

        Returns the next offset of each source topic, ``None`` where no reactor has read the topic before.
        """
        self.incarnation = self.incarnation or incarnation
        positions: dict[str, int | None] = {}
        for topic, source in self.sources.items():
            seen = {reader.index: self._watermarks.get((reader.spec.id, topic)) for reader in source.plan.readers}
            known = [offset for offset in seen.values() if offset is not None]
            # A reactor without a watermark is new: it starts at the beginning, and the others pass over what they know.
            # An internal topic is read from the beginning again as long as it lags behind them, since what it took from
            # which upstream lane follows only from that.
            from_start = len(known) < len(seen) or (source.plan.internal and len(set(known)) > 1)
            source.next = source.sealed = 0 if from_start else min(known)
            source.ahead = {i: offset for i, offset in seen.items() if offset is not None and offset > source.next}
            if source.plan.internal and source.ahead:
                source.known_marks, source.marks = source.marks, {}
                source.known_until = max(source.ahead.values())
            source.sealed_marks = dict(source.marks)
            positions[topic] = source.next if known else None
        for sequence in [sequence for sequence in self._outbox if sequence <= self.sent_sequence]:
            self._deletions.extend(changelog.outbox_key(sequence, index) for index in self._outbox.pop(sequence))
        self._marked_sequence = self.sent_sequence
        self._reset()
        return positions

    def start_at(self, topic: str, offset: int, topic_id: bytes) -> None:
        """Set which topic, by its id, the lane reads, and where it starts if it has not read it before."""
        source = self.sources[topic]
        source.next = source.sealed = offset
        source.topic_id = topic_id

    def unsent(self) -> list[tuple[int, dict[int, OutboxEntry]]]:
        """Outputs of earlier lives that are committed and not known to be sent: unit sequence and entries, in order."""
        return [
            (sequence, {index: decode_entry(value) for index, value in sorted(entries.items())})
            for sequence, entries in sorted(self._outbox.items())
            if entries
        ]

    # -- the step ------------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the open unit takes no more records until it is sealed."""
        return self.count >= self._room or self.bytes >= self.limits.unit_bytes

    def step(self, topic: str, records: Iterable[Record], now_ms: int, at_most: int = 1 << 30) -> bool:
        """Take up to *at_most* records of a source topic, in order, into the open unit; what is decided is passed over.

        Returns whether *records* is exhausted. If not, call again with the same iterator, after :meth:`seal` if the unit
        :attr:`is_full`.
        """
        source = self.sources[topic]
        routes = source.plan.routes
        internal = source.plan.internal
        max_headers = self.limits.headers
        max_payload = self.limits.payload_bytes
        max_bytes = self.limits.unit_bytes
        room = min(self._room, self.count + at_most)
        if self.is_full:
            return False
        for record in records:
            if record.offset < source.next:
                continue
            source.next = record.offset + 1
            self.count += 1
            raw_headers = record.headers
            headers: Headers = dict(raw_headers)
            if not internal or self._is_new(source, record, headers, now_ms):
                route = routes.get(headers.get("ce_type", b""))
                value = record.value
                if (
                    route is None
                    or len(raw_headers) > max_headers
                    or len(raw_headers) != len(headers)
                    or headers["ce_type"] is None
                    or headers.get("ce_specversion") != b"1.0"
                    or headers.get("content-type") != b"application/json"
                    or not headers.get("ce_id")
                    or not headers.get("ce_source")
                    or source.poisoned
                ):
                    self._unusual(source, record, headers, now_ms)
                elif value is None or len(value) > max_payload:
                    self._refuse_value(source, record, headers, now_ms)
                else:
                    self._open(source, record, headers, route, value, now_ms)
            if self.count >= room or self.bytes >= max_bytes:
                return False
        return True

    def _open(self, source: _Source, record: Record, headers: Headers, route: Route, value: bytes, now_ms: int) -> None:
        """Decode, authorise, check; then handle."""
        try:
            intent = route.intent.decode(value)
        except ValidationError as error:
            self._refuse(source, record, headers, now_ms, "malformed_payload", _explain(error))
            return
        internal = source.plan.internal
        # Judged when the broker appended it, so that a backlog does not expire and nobody can back-date; on internal
        # topics when the causing intent was judged, which the engine wrote as the record's time.
        at_ms = record.timestamp if internal or record.timestamp_type == APPEND_TIME else now_ms
        token = headers.get("pf-context")
        claims: Claims | None = None
        if token is not None:
            values = route.values(intent)
            claims = self.authority.decisions.get((token, route, values))
            if claims is None:
                decided = self.authority.decide(token, route, values, at_ms)
                if isinstance(decided, Refusal):
                    self._refuse(source, record, headers, now_ms, decided.code, decided.reason)
                    return
                claims = decided
            if not claims.not_before_ms <= at_ms < claims.expires_ms:
                late = claims.valid_at(at_ms)
                assert late is not None
                self._refuse(source, record, headers, now_ms, late.code, late.reason)
                return
        elif route.requirements:
            self._refuse(source, record, headers, now_ms, "missing_context", "it has no pf-context header")
            return
        key = route.intent.key_of(intent)
        if record.key != key:
            code = "null_key" if record.key is None else "key_mismatch"
            self._refuse(source, record, headers, now_ms, code, f"its payload says {key!r}, the key is {record.key!r}")
            return
        hops = int(headers.get("pf-hops") or 0) if internal else 0
        if hops > self.limits.hops:
            self._refuse(source, record, headers, now_ms, "too_many_hops", f"it was emitted onward {hops} times")
            return
        if "pf-deadline" in headers or "pf-not-before" in headers or "pf-reply-to" in headers:
            fault = self._demands(headers, now_ms)
            if fault is not None:
                self._refuse(source, record, headers, now_ms, *fault)
                return
        self._handle(source, record, headers, route, intent, value, key, claims, at_ms, hops, now_ms)

    def _handle(
        self,
        source: _Source,
        record: Record,
        headers: Headers,
        route: Route,
        intent: Intent,
        value: bytes,
        key: bytes,
        claims: Claims | None,
        at_ms: int,
        hops: int,
        now_ms: int,
    ) -> None:
        context = Context(
            ANONYMOUS if claims is None else claims,
            headers,
            source.plan.topic,
            self.partition,
            record.offset,
            record.timestamp,
            now_ms,
        )
        emitter: Emitter | None = None
        size = 0
        outputs: list[Output | Copy] = []
        done: list[tuple[Store, Entry, Binding]] = []
        for binding in route.bindings:
            reactor = binding.reactor
            if source.ahead and record.offset < source.ahead.get(reactor.index, 0):
                continue
            store = self.stores[reactor.index]
            entry = store.live.get(key) or store.load(key)
            if entry is None:
                # A key already in the state needs no such check: it was made when the key was first seen.
                if partition_of(key, self.plan.partitions) != self.partition:
                    if not any(record.offset < source.ahead.get(known.reactor.index, 0) for known in route.bindings):
                        self._reroute(source, record, headers, at_ms, now_ms)
                    return  # or it was sent on when another reactor saw it, which must not see it twice
                entry = store.create(key)
            try:
                result = binding.handle(binding.decode(value) if done else intent, entry.state, context)
                if result is not None:
                    for effect in result if isinstance(result, list | tuple) else (result,):
                        if isinstance(effect, Emit):
                            emit = self.plan.emits.get(type(effect.intent))
                            if emit is None:
                                raise BadEffectError(
                                    f"emitted {type(effect.intent).__name__}, which the topology does not know: "
                                    f"handle it, or list it in emits"
                                )
                            if emitter is None:
                                token = None if claims is None else claims.token
                                emitter = Emitter(
                                    source.plan.topic, self.partition, record, headers, token, at_ms, hops
                                )
                            output = emitter.emit(effect.intent, emit, reactor, len(outputs))
                            outputs.append(output)
                            length = len(output.value or b"")
                            if length > self.limits.output_bytes:
                                raise BadEffectError(f"emitted {length} bytes; the limit is {self.limits.output_bytes}")
                            size += EMITTED_SIZE + length
                        elif isinstance(effect, Reply):
                            if "pf-reply-to" in headers:
                                data = reply_data(effect)
                                if len(data) > self.limits.output_bytes:
                                    raise BadEffectError(
                                        f"replied with {len(data)} bytes; the limit is {self.limits.output_bytes}"
                                    )
                                size += 512 + len(data)
                                kind = f"{route.intent.name}.reply"
                                self._reply(outputs, data, kind, record, headers, claims, now_ms)
                        else:
                            raise BadEffectError(
                                f"returned {effect!r:.200}, which is no effect: return Emit, Reply, a list of them, or None"
                            )
            except Exception as error:  # noqa: BLE001 - a handler may raise anything; its intent becomes a dead letter
                store.undo(key, entry)
                for other, other_entry, _ in done:
                    assert other_entry.log is not None
                    other_entry.log.pop()
                    other.undo(key, other_entry)
                code = "bad_effect" if isinstance(error, BadEffectError) else "handler_failed"
                where = f"{reactor.spec.id}.{getattr(binding.handle, '__name__', 'handler')}"
                self._refuse(source, record, headers, now_ms, code, f"{where}: {_text(error)}", type(error))
                return
            if entry.log is None:
                entry.log = []
                self._dirty.append((store, key, entry))
                self.bytes += 128 + len(entry.raw or b"")
            entry.log.append((binding, value, context))
            done.append((store, entry, binding))
        self._handled += 1
        if outputs:
            self._outputs.extend(outputs)
            self.bytes += size

    # -- what is not the rule ------------------------------------------------------------------------------------------

    def _is_new(self, source: _Source, record: Record, headers: Headers, now_ms: int) -> bool:
        """Whether a record of an internal topic was not taken before: an upstream lane repeats itself after a crash."""
        raw = headers.get("pf-source") or b""
        hops = headers.get("pf-hops") or b"0"
        written = _pf_source(raw)
        if written is None or _pf_hops(hops) is None:
            reason = f"its pf-source is {raw!r:.80}, its pf-hops {hops!r:.80}"
            self._refuse(source, record, headers, now_ms, "untrusted_record", reason)
            return False
        incarnation = written[1]
        at = int(written[2]), int(written[3])
        last = source.marks.get(incarnation)
        if record.offset >= source.known_until and incarnation in source.known_marks:
            last = max(last or (0, 0), source.known_marks[incarnation])
        if last is not None and at <= last:
            return False
        source.marks[incarnation] = at
        source.marks_moved.add(incarnation)
        return True

    def _unusual(self, source: _Source, record: Record, headers: Headers, now_ms: int) -> None:
        """A record that the quick way of :meth:`step` does not cover: most are refused, some are just rare."""
        fault = self._envelope_fault(source, record)
        value = record.value
        if fault is None and value is not None and is_structured(headers.get("content-type")):
            if len(value) > self.limits.payload_bytes:
                self._refuse_value(source, record, headers, now_ms)
                return
            opened = open_structured(value, headers)
            if isinstance(opened, str):
                fault = ("malformed_envelope", opened)
            else:
                headers, value = opened
        if fault is None:
            fault = _attribute_fault(headers)
        if fault is None:
            kind = headers["ce_type"]
            route = source.plan.routes.get(kind)
            if route is not None and value is not None and len(value) <= self.limits.payload_bytes:
                self._open(source, record, headers, route, value, now_ms)
                return
            if route is not None:
                self._refuse_value(source, record, headers, now_ms)
                return
            name, _, version = kind.rpartition(b".v")
            if name in source.plan.names and version.isdigit():
                fault = ("unsupported_version", f"{kind!r} is not a version that this topology handles")
            else:
                fault = ("unknown_type", f"no reactor handles {kind!r:.200} on {source.plan.origin}")
        self._refuse(source, record, headers, now_ms, *fault)

    def _envelope_fault(self, source: _Source, record: Record) -> tuple[str, str] | None:
        if record.offset in source.poisoned:
            return source.poisoned[record.offset], "alone in its unit, it could not be committed"
        if len(record.headers) > self.limits.headers:
            return (
                "too_many_headers",
                f"it has {len(record.headers)} headers; the limit is {self.limits.headers}",
            )
        names = Counter(name for name, _ in record.headers)
        for name, count in names.items():
            if count > 1 and name.startswith(("ce_", "pf-", "content-type")):
                return "duplicate_header", f"header {name!r} appears {count} times"
        return None

    def _refuse_value(self, source: _Source, record: Record, headers: Headers, now_ms: int) -> None:
        if record.value is None:
            self._refuse(source, record, headers, now_ms, "null_value", "it has no value")
        else:
            size, limit = len(record.value), self.limits.payload_bytes
            self._refuse(source, record, headers, now_ms, "payload_too_large", f"{size} bytes; the limit is {limit}")

    def _demands(self, headers: Headers, now_ms: int) -> tuple[str, str] | None:
        """What is wrong with what the sender asks for beside the handling itself."""
        for name, code in (("pf-deadline", "deadline_passed"), ("pf-not-before", "not_before")):
            raw = headers.get(name)
            if raw is not None:
                time_ms = parse_time_ms(raw)
                if time_ms is None:
                    return "malformed_envelope", f"{name} {raw!r:.80} is no RFC 3339 time with a zone"
                if now_ms > time_ms if code == "deadline_passed" else now_ms < time_ms:
                    return code, f"{name} is {raw.decode()}"
        raw = headers.get("pf-reply-to")
        if raw is not None and self._reply_topic(raw) is None:
            return "bad_reply_topic", f"replies may not go to {raw!r:.200}"
        return None

    def _reply_topic(self, raw: bytes) -> str | None:
        if raw not in self._reply_topics:
            if len(self._reply_topics) >= 10_000:
                self._reply_topics.clear()
            self._reply_topics[raw] = reply_topic(raw, self.plan)
        return self._reply_topics[raw]

    def _reply(
        self,
        outputs: list[Output | Copy],
        data: bytes,
        kind: str,
        record: Record,
        headers: Headers,
        claims: Claims | None,
        now_ms: int,
        code: str | None = None,
    ) -> None:
        """Add a reply, if one was asked for by somebody who has proven who they are."""
        raw = headers.get("pf-reply-to")
        topic = None if raw is None or claims is None else self._reply_topic(raw)
        if topic is not None:
            outputs.append(reply(data, kind, self.plan.topology, topic, record, headers, now_ms, code))

    def _reroute(self, source: _Source, record: Record, headers: Headers, at_ms: int, now_ms: int) -> None:
        topic = source.plan.reroute
        if topic is None:
            self._refuse(
                source,
                record,
                headers,
                now_ms,
                "wrong_partition",
                f"key {record.key!r:.200} does not belong here",
            )
            return
        self._add([rerouted(topic, source.plan, self.partition, record, at_ms, self.limits.inline_bytes)])

    def _refuse(
        self,
        source: _Source,
        record: Record,
        headers: Headers,
        now_ms: int,
        code: str,
        reason: str,
        error: type[BaseException] | None = None,
    ) -> None:
        """Make the record a dead letter, and tell the sender if they are known and asked to be told."""
        self._refused[code] += 1
        if code not in _BY_HANDLING and any(record.offset < seen for seen in source.ahead.values()):
            return  # a new reactor reads from the start: what the others saw refused is a dead letter already
        reason = reason[:_LONGEST_REASON].encode(errors="replace").decode()
        token = headers.get("pf-context")
        known = None if token is None else self.authority.verifier.verify(token)
        claims = None if isinstance(known, Refusal) else known
        name = "pf_stream.Refused" if error is None else f"{error.__module__}.{error.__qualname__}"
        outputs: list[Output | Copy] = [
            dead_letter(
                source.plan,
                self.partition,
                record,
                code,
                reason,
                name,
                () if claims is None else claims.revocation_ids,
                now_ms,
                self.limits.inline_bytes,
            )
        ]
        data = orjson.dumps({"error": code, "message": reason})
        self._reply(outputs, data, "pf.refused", record, headers, claims, now_ms, code)
        self._add(outputs)

    def _add(self, outputs: list[Output | Copy]) -> None:
        self._outputs.extend(outputs)
        for output in outputs:
            self.bytes += output_size(output)

    # -- the unit ------------------------------------------------------------------------------------------------------

    @property
    def has_marks(self) -> bool:
        """Whether outputs were sent that no unit has marked as sent yet."""
        return self.sent_sequence > self._marked_sequence

    def sent(self, sequence: int, indexes: Iterable[int]) -> None:
        """Note that the outbox entries of a unit, and of all before it, are in Kafka."""
        self.sent_sequence = max(self.sent_sequence, sequence)
        self._outbox.pop(sequence, None)
        self._deletions.extend(changelog.outbox_key(sequence, index) for index in indexes)

    def seal(self) -> CommitUnit[O] | Rewind:
        """End the open unit.

        A unit that cannot be made durable is taken back instead, and the caller feeds its records again into smaller
        units, until the one intent that is to blame stands alone and becomes a dead letter.
        """
        entries: list[tuple[bytes, bytes | None]] = []
        size = self.bytes
        dirty = []
        for store, key, entry in self._dirty:
            if not store.is_untouched(entry):
                dirty.append((store, key, entry))
            elif entry.raw is None:
                store.forget(key, entry)
            else:
                entry.log = None
        self._dirty = dirty
        try:
            with strictly():
                for store, key, entry in dirty:
                    reactor = store.reactor
                    raw = reactor.spec.state.encode(entry.state)
                    size += len(raw) + len(key) + 64
                    entries.append(
                        (
                            changelog.state_key(reactor.prefix, key),
                            changelog.pack_state(reactor.spec.state.version, raw),
                        )
                    )
        except ENCODING_ERRORS:
            return self._take_back("bad_state")
        if size > self.limits.unit_bytes_hard:
            return self._take_back("unit_too_large")
        for (_, _, entry), (_, value) in zip(dirty, entries, strict=True):
            entry.raw = entry.base = value
            entry.log = None
        self.sequence += 1
        for topic, source in self.sources.items():
            if source.next != source.sealed:
                for reader in source.plan.readers:
                    offset = max(source.next, source.ahead.get(reader.index, 0))
                    entries.append(
                        (
                            changelog.watermark_key(reader.spec.id, topic),
                            changelog.WATERMARK_VALUE.pack(offset, source.topic_id),
                        )
                    )
                source.sealed = source.next
                source.poisoned = {at: code for at, code in source.poisoned.items() if at >= source.next}
                source.ahead = {i: offset for i, offset in source.ahead.items() if offset > source.next}
            for incarnation in source.marks_moved:
                mark = source.sealed_marks[incarnation] = source.marks[incarnation]
                mark = max(mark, source.known_marks.get(incarnation, mark))
                entries.append((changelog.mark_key(topic, incarnation.decode()), changelog.MARK_VALUE.pack(*mark)))
            source.marks_moved.clear()
        header = self._current_header()
        if header != self._header:
            entries.append((changelog.HEADER, orjson.dumps(header)))
            self._header = header
        entries.extend((key, None) for key in self._deletions)
        self._deletions.clear()
        self._marked_sequence = self.sent_sequence
        entries.append((changelog.UNIT, changelog.UNIT_VALUE.pack(self.sequence, self.sent_sequence)))
        unit = CommitUnit(
            sequence=self.sequence,
            incarnation=self.incarnation,
            entries=entries,
            outputs=self._outputs,
            positions={topic: source.sealed for topic, source in self.sources.items()},
            count=self.count,
        )
        self.handled += self._handled
        self.refused += self._refused
        self._reset()
        self._room = min(self.limits.unit_records, self._room * 2)
        return unit

    def _current_header(self) -> dict[str, Any]:
        return {
            "format": changelog.FORMAT,
            "topology": self.plan.topology.name,
            "partitions": self.plan.partitions,
            "incarnation": self.incarnation,
            "reactors": {
                **(self._header or {}).get("reactors", {}),
                **{reactor.spec.id: reactor.spec.state.version for reactor in self.plan.reactors},
            },
        }

    def _take_back(self, code: str) -> Rewind:
        if self.count == 1:
            for source in self.sources.values():
                if source.next != source.sealed:
                    source.poisoned[source.next - 1] = code
        for store, key, entry in self._dirty:
            store.forget(key, entry)
        for source in self.sources.values():
            source.next = source.sealed
            source.marks = dict(source.sealed_marks)
            source.marks_moved.clear()
        self._room = max(1, self.count // 2)
        self._reset()
        return Rewind({topic: source.sealed for topic, source in self.sources.items()})

    def _reset(self) -> None:
        self._dirty = []
        self._outputs = self._collect(self.incarnation, self.sequence + 1)
        self._handled = 0
        self._refused = Counter()
        self.count = 0
        self.bytes = 0

    # -- what others may read ------------------------------------------------------------------------------------------

    def stored(self, reactor: str, key: bytes) -> bytes | None:
        """JSON of the last sealed state of *reactor* under *key*, or ``None``."""
        for store in self.stores:
            if store.reactor.spec.id == reactor:
                entry = store.live.get(key)
                raw = store.cold.get(key) if entry is None else entry.raw
                return None if raw is None else raw[changelog.STATE_PREFIX.size :]
        return None

    @property
    def positions(self) -> Mapping[str, int]:
        """Next offset of each source topic, the open unit included."""
        return {topic: source.next for topic, source in self.sources.items()}


def _attribute_fault(headers: Headers) -> tuple[str, str] | None:
    if headers.get("ce_specversion") != b"1.0":
        return "malformed_envelope", "it has no ce_specversion 1.0 header"
    for name in ("ce_type", "ce_id", "ce_source"):
        if not headers.get(name):
            return "malformed_envelope", f"it has no {name} header"
    return None


def _text(error: Exception) -> str:
    """What an exception says of itself, if it can."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the handler's own class, and may raise anything
        return f"{type(error).__name__}, which cannot be shown"


def _explain(error: ValidationError) -> str:
    """The first faults of a payload, field and message, without its values: those may be secret."""
    parts = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'value'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)[:3]
    ]
    return "; ".join(parts)
