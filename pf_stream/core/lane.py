"""The lane: one partition of one group, and the pure step over its records.

Nothing here waits, reads a clock or rolls dice. The same records at the same ``now`` against the same changelog give the
same unit, which is what makes a crash between any two actions harmless.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, cast

import orjson
from typing_extensions import TypeVar

from pf_stream.core import changelog
from pf_stream.core.admission import Admission
from pf_stream.core.authorise import Authority
from pf_stream.core.delivery import Delivery
from pf_stream.core.limits import Limits
from pf_stream.core.outbox import OutboxEntry, decode_entry
from pf_stream.core.outputs import (
    EMITTED_SIZE,
    BadEffectError,
    Emitter,
    dead_letter,
    output_size,
    reply,
    reply_data,
    rerouted,
)
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import GroupPlan, ReactorPlan
from pf_stream.core.records import Record
from pf_stream.core.source import Source
from pf_stream.core.store import ENCODING_ERRORS, Entry, Store
from pf_stream.core.unit import CommitUnit, Copy, Output, Outputs, Rewind
from pf_stream.errors import PFError
from pf_stream.model.context import ANONYMOUS, Context
from pf_stream.model.effect import Emit, Reply
from pf_stream.model.state import strictly
from pf_stream.security.refusal import Refusal
from pf_stream.security.verify import Claims

__all__ = ["Lane", "PartitionCountError"]

O = TypeVar("O", bound=Outputs, default=list[Output | Copy])  # noqa: E741 - outputs

_BY_HANDLING: Final = frozenset({"handler_failed", "bad_effect", "bad_state", "unit_too_large"})
"""Codes that depend on what the reactors do, not on the record alone."""

_LONGEST_REASON: Final = 1_000
"""In characters. A reason may quote what the sender chose; it must not make a dead letter that no topic takes."""


class PartitionCountError(PFError):
    """Raised when a changelog was written for another number of partitions: keys would be looked for in a wrong place."""

    code = "partition_count"

    def __init__(self, changelog_topic: str, was: int, now: int) -> None:
        super().__init__(
            f"{changelog_topic} was written for {was} partitions and the source topics have {now}: state lives where "
            f"its key lives, so give the topics {was} partitions again, or start under a new topology name"
        )


class Lane(Generic[O]):
    """One partition of one group.

    Life: :meth:`restore` with the records of its changelog partition, :meth:`begin`, then :meth:`step`, :meth:`seal` and
    :meth:`acknowledged` in turn; :meth:`sent` tells which outputs need not be kept. After any failed append the object is thrown away.
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
        self.limits = limits
        self.incarnation = ""
        """Random name of the lane's life; empty until :meth:`begin`."""
        self.sequence = 0
        """Of the last sealed unit."""
        self.sent_sequence = 0
        """Unit up to which outputs are known to be in Kafka."""
        self.count = 0
        """Source records in the open unit."""
        self.bytes = 0
        """Size of the open unit, by estimate."""
        self.handled = 0
        """Intents handled since the process started, the open unit's not included."""
        self.refused: Counter[str] = Counter()
        """Records refused since the process started, by code, the open unit's not included."""
        self.sources = {source.topic: Source(source) for source in plan.sources}
        self.stores = [Store(reactor) for reactor in plan.reactors]
        self.authority = authority
        self._admission = Admission(plan, authority, limits)
        self._collect = collect
        self._room = limits.unit_records
        # the open unit
        self._dirty: list[tuple[Store, bytes, Entry]] = []
        self._outputs = collect("", 0)
        self._handled = 0
        self._refused: Counter[str] = Counter()
        self._replaced: dict[tuple[int, bytes], bytes | None] = {}
        """What the sealed unit replaces, by reactor and key, until it is acknowledged."""
        # what the changelog holds beside states and positions
        self._header: dict[str, Any] | None = None
        self._watermarks: dict[tuple[str, str], int] = {}
        self._outbox: dict[int, dict[int, bytes]] = {}
        self._deletions: list[bytes] = []
        self._marked_sequence = 0

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
                        self.sources[topic].restore_mark(incarnation.encode(), changelog.MARK_VALUE.unpack(value))
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
        positions = {
            topic: source.begin(
                {reader.index: self._watermarks.get((reader.spec.id, topic)) for reader in source.plan.readers}
            )
            for topic, source in self.sources.items()
        }
        for sequence in [sequence for sequence in self._outbox if sequence <= self.sent_sequence]:
            self._deletions.extend(changelog.outbox_key(sequence, index) for index in self._outbox.pop(sequence))
        self._marked_sequence = self.sent_sequence
        self._open_unit()
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
        if self.is_full:
            return False
        source = self.sources[topic]
        internal = source.plan.internal
        admission = self._admission
        max_bytes = self.limits.unit_bytes
        room = min(self._room, self.count + at_most)
        for record in records:
            if record.offset < source.next:
                continue
            source.next = record.offset + 1
            self.count += 1
            delivery = Delivery(source, record, dict(record.headers), now_ms)
            decided = admission.is_repeat(delivery) if internal else False
            if decided is False:
                refusal = admission.admit(delivery)
                if refusal is None:
                    self._handle(delivery)
                else:
                    self._refuse(delivery, refusal)
            elif decided is not True:
                self._refuse(delivery, decided)
            if self.count >= room or self.bytes >= max_bytes:
                return False
        return True

    def _handle(self, delivery: Delivery) -> None:
        """Run the handlers of an admitted intent: all of them, or nothing of it remains."""
        source, record, key = delivery.source, delivery.record, delivery.key
        claims = delivery.claims
        context = Context(
            ANONYMOUS if claims is None else claims,
            delivery.headers,
            source.plan.topic,
            self.partition,
            record.offset,
            record.timestamp,
            delivery.now_ms,
        )
        outputs: list[Output | Copy] = []
        done: list[tuple[Store, Entry]] = []
        size = 0
        for binding in delivery.route.bindings:
            reactor = binding.reactor
            if source.ahead and source.has_seen(reactor.index, record.offset):
                continue
            store = self.stores[reactor.index]
            entry = store.live.get(key) or store.load(key)
            if entry is None:
                # A key already in the state needs no such check: it was made when the key was first seen.
                if partition_of(key, self.plan.partitions) != self.partition:
                    self._reroute(delivery)
                    return
                entry = store.create(key)
            try:
                # Each reactor gets an intent of its own, since it may keep a list of it in its state.
                intent = binding.decode(delivery.value) if done else delivery.intent
                result = binding.handle(intent, entry.state, context)
                if result is not None:
                    size += self._perform(delivery, reactor, result, outputs)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises makes a dead letter
                store.undo(key, entry)
                for other, other_entry in done:
                    assert other_entry.log is not None
                    other_entry.log.pop()
                    other.undo(key, other_entry)
                code = "bad_effect" if isinstance(error, BadEffectError) else "handler_failed"
                where = f"{reactor.spec.id}.{getattr(binding.handle, '__name__', 'handler')}"
                self._refuse(delivery, Refusal(code, f"{where}: {_text(error)}"), type(error))
                return
            if entry.log is None:
                entry.log = []
                self._dirty.append((store, key, entry))
                self.bytes += 128 + len(entry.raw or b"")
            entry.log.append((binding, delivery.value, context))
            done.append((store, entry))
        self._handled += 1
        if outputs:
            self._outputs.extend(outputs)
            self.bytes += size

    def _perform(self, delivery: Delivery, reactor: ReactorPlan, result: object, outputs: list[Output | Copy]) -> int:
        """Add the records of what a handler returned to *outputs*; returns their size. Raises :class:`BadEffectError`."""
        emitter: Emitter | None = None
        token_size = 0 if delivery.claims is None else len(delivery.claims.token)
        limit = self.limits.output_bytes
        size = 0
        for effect in result if isinstance(result, list | tuple) else (result,):
            if isinstance(effect, Emit):
                plan = self.plan.emits.get(type(effect.intent))
                if plan is None:
                    raise BadEffectError(
                        f"emitted {type(effect.intent).__name__}, which the topology does not know: handle it, or list "
                        f"it in emits"
                    )
                if emitter is None:
                    emitter = Emitter(delivery, self.partition, reactor)
                output = emitter.emit(effect.intent, plan, len(outputs))
                outputs.append(output)
                length = len(output.value or b"")
                size += EMITTED_SIZE + length + token_size
                if length > limit:
                    raise BadEffectError(f"emitted {length} bytes; the limit is {limit}")
            elif isinstance(effect, Reply):
                if "pf-reply-to" in delivery.headers:
                    data = reply_data(effect)
                    size += 512 + len(data)
                    if len(data) > limit:
                        raise BadEffectError(f"replied with {len(data)} bytes; the limit is {limit}")
                    self._reply(delivery, delivery.claims, data, f"{delivery.route.intent.name}.reply", None, outputs)
            else:
                raise BadEffectError(
                    f"returned {effect!r:.200}, which is no effect: return Emit, Reply, a list of them, or None"
                )
        return size

    # -- what is not the rule ------------------------------------------------------------------------------------------

    def _reroute(self, delivery: Delivery) -> None:
        """Send a record of a misplaced key to where its key lives."""
        source, record = delivery.source, delivery.record
        topic = source.plan.reroute
        if topic is None:
            self._refuse(delivery, Refusal("wrong_partition", f"key {record.key!r:.200} does not belong here"))
        elif not any(source.has_seen(binding.reactor.index, record.offset) for binding in delivery.route.bindings):
            # else it was sent on when another reactor saw it, and must not be seen twice there
            self._add([rerouted(topic, delivery, self.partition, self.limits.inline_bytes)])

    def _refuse(self, delivery: Delivery, refusal: Refusal, error: type[BaseException] | None = None) -> None:
        """Make the record a dead letter, and tell the sender if they are known and asked to be told."""
        source, record = delivery.source, delivery.record
        code = refusal.code
        self._refused[code] += 1
        if code not in _BY_HANDLING and any(record.offset < seen for seen in source.ahead.values()):
            return  # a new reactor reads from the start: what the others saw refused is a dead letter already
        reason = refusal.reason[:_LONGEST_REASON].encode(errors="replace").decode()
        token = delivery.headers.get("pf-context")
        known = None if token is None else self.authority.verifier.verify(token)
        claims = None if isinstance(known, Refusal) else known
        name = "pf_stream.Refused" if error is None else f"{error.__module__}.{error.__qualname__}"
        ids = () if claims is None else claims.revocation_ids
        outputs: list[Output | Copy] = [
            dead_letter(delivery, self.partition, Refusal(code, reason), name, ids, self.limits.inline_bytes)
        ]
        data = orjson.dumps({"error": code, "message": reason})
        self._reply(delivery, claims, data, "pf.refused", code, outputs)
        self._add(outputs)

    def _reply(
        self,
        delivery: Delivery,
        claims: Claims | None,
        data: bytes,
        kind: str,
        code: str | None,
        outputs: list[Output | Copy],
    ) -> None:
        """Add a reply, if one was asked for by somebody who has proven who they are."""
        raw = delivery.headers.get("pf-reply-to")
        topic = None if raw is None or claims is None else self._admission.reply_topic(raw)
        if topic is not None:
            outputs.append(reply(delivery, data, kind, self.plan.topology, topic, code))

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

    def acknowledged(self) -> None:
        """Note that the sealed unit is durable: from now on it may be seen from outside."""
        self._replaced.clear()

    def seal(self) -> CommitUnit[O] | Rewind:
        """End the open unit; the one before it has been :meth:`acknowledged`.

        A unit that cannot be made durable is taken back instead, and the caller feeds its records again into smaller
        units, until the one intent that is to blame stands alone and becomes a dead letter.
        """
        dirty = self._dirty = self._touched()
        size = self.bytes
        entries: list[tuple[bytes, bytes | None]] = []
        try:
            with strictly():
                for store, key, entry in dirty:
                    reactor = store.reactor
                    raw = reactor.spec.state.encode(entry.state)
                    size += len(raw) + len(key) + 64
                    state_key = changelog.state_key(reactor.prefix, key)
                    entries.append((state_key, changelog.pack_state(reactor.spec.state.version, raw)))
        except ENCODING_ERRORS:
            return self._take_back("bad_state")
        if size > self.limits.unit_bytes_hard:
            return self._take_back("unit_too_large")
        for (store, key, entry), (_, value) in zip(dirty, entries, strict=True):
            self._replaced[store.reactor.index, key] = entry.raw
            entry.raw = entry.base = value
            entry.log = None
        self.sequence += 1
        for topic, source in self.sources.items():
            if source.next != source.sealed:
                for reader in source.plan.readers:
                    offset = max(source.next, source.ahead.get(reader.index, 0))
                    watermark = changelog.WATERMARK_VALUE.pack(offset, source.topic_id)
                    entries.append((changelog.watermark_key(reader.spec.id, topic), watermark))
                for incarnation, mark in source.seal():
                    entries.append((changelog.mark_key(topic, incarnation.decode()), changelog.MARK_VALUE.pack(*mark)))
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
        self._open_unit()
        self._room = min(self.limits.unit_records, self._room * 2)
        return unit

    def _touched(self) -> list[tuple[Store, bytes, Entry]]:
        """The entries that the unit changes; those whose changes were all undone are put back."""
        touched = []
        for store, key, entry in self._dirty:
            if not store.is_untouched(entry):
                touched.append((store, key, entry))
            elif entry.raw is None:
                store.forget(key, entry)
            else:
                entry.log = None
        return touched

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
        for source in self.sources.values():
            if self.count == 1 and source.next != source.sealed:
                source.poisoned[source.next - 1] = code
            source.rewind()
        for store, key, entry in self._dirty:
            store.forget(key, entry)
        self._room = max(1, self.count // 2)
        self._open_unit()
        return Rewind({topic: source.sealed for topic, source in self.sources.items()})

    def _open_unit(self) -> None:
        self._dirty = []
        self._outputs = self._collect(self.incarnation, self.sequence + 1)
        self._handled = 0
        self._refused = Counter()
        self.count = 0
        self.bytes = 0

    # -- what others may read ------------------------------------------------------------------------------------------

    def stored(self, reactor: str, key: bytes) -> bytes | None:
        """JSON of the last acknowledged state of *reactor* under *key*, or ``None``."""
        for store in self.stores:
            if store.reactor.spec.id == reactor:
                at = store.reactor.index, key
                if at in self._replaced:
                    raw = self._replaced[at]
                else:
                    entry = store.live.get(key)
                    raw = store.cold.get(key) if entry is None else entry.raw
                return None if raw is None else raw[changelog.STATE_PREFIX.size :]
        return None

    @property
    def positions(self) -> Mapping[str, int]:
        """Next offset of each source topic, the open unit included."""
        return {topic: source.next for topic, source in self.sources.items()}


def _text(error: BaseException) -> str:
    """What an exception says of itself, if it can."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the handler's own class, and may raise anything
        return f"{type(error).__name__}, which cannot be shown"
