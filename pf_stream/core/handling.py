"""What becomes of one delivery: handled, refused, put aside, sent on, or taken again."""

from collections.abc import Sequence
from typing import Any, Final, Generic

from typing_extensions import TypeVar

from pf_stream.core import changelog
from pf_stream.core.admission import Admission
from pf_stream.core.authorise import Authority
from pf_stream.core.consequences import Consequences, EffectRefusedError, Performer
from pf_stream.core.delivery import Delivery
from pf_stream.core.entries import BrokenStateError
from pf_stream.core.limits import Limits
from pf_stream.core.once import Once
from pf_stream.core.outputs import BadEffectError, dead_letter, output_size, rerouted
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import Binding, GroupPlan
from pf_stream.core.records import SourceRecord
from pf_stream.core.store import ENCODING_ERRORS, NOTHING, Before, Entry, Store
from pf_stream.core.suspect import Suspects
from pf_stream.core.tables import UnitRows
from pf_stream.core.timers import EVENT, WALL, Timer, Timers, encode_timer, held_key, size_of
from pf_stream.core.unit import Copy, Output, Outputs, Refused
from pf_stream.core.upstreams import Upstreams
from pf_stream.core.watermark import Watermarks
from pf_stream.model.context import Context
from pf_stream.model.failure import RetryInPlace
from pf_stream.model.state import Stateless
from pf_stream.security.refusal import Refusal

__all__ = ["Handling", "OpenUnit"]

O = TypeVar("O", bound=Outputs, default=list[Output | Copy])  # noqa: E741 - outputs

_BY_HANDLING: Final = frozenset({"handler_failed", "bad_effect", "bad_state", "unit_too_large", "poison"})
"""Codes that depend on what the reactors do, not on the record alone."""

_LONGEST_REASON: Final = 1_000
"""In characters. A reason may quote what the sender chose; it must not make a dead letter that no topic takes."""

_STATELESS: Final = Entry(Stateless(), None)
"""What reactors without state have under every key."""


class OpenUnit(Generic[O]):
    """What has been decided since the last unit was sealed, beside what sources, timers and marks keep themselves."""

    __slots__ = (
        "broken",
        "bytes",
        "count",
        "dirty",
        "due",
        "fired",
        "handled",
        "outputs",
        "refused",
        "repeats",
        "tallies",
        "windows",
    )

    def __init__(self, outputs: O) -> None:
        self.outputs = outputs
        """Records to be sent."""
        self.dirty: list[tuple[Store, bytes, Entry]] = []
        """States that changed, with their keys."""
        self.count = 0
        """Source records and timers that it decides."""
        self.bytes = 0
        """Its size, by estimate."""
        self.broken = False
        """Whether it has a state that cannot be stored, so that there is nothing to which it could be undone."""
        self.handled: dict[str, int] = {}
        """Intents handled, by type."""
        self.refused: list[Refused] = []
        """Records refused."""
        self.repeats = 0
        """Records dropped because a lane upstream had written them before."""
        self.tallies: dict[tuple[str, str], int] = {}
        """What reactors count, by reactor and name."""
        self.windows: dict[str, int] = {}
        """By how much the number of open windows changes, by reactor."""
        self.fired = b""
        """Key of the last timer that fired."""
        self.due: dict[str, list[int]] = {}
        """When timers of the wall clock that fired were due, by the reactor that set them."""


class Handling(Generic[O]):
    """Decides deliveries into the open unit of one lane."""

    def __init__(
        self,
        plan: GroupPlan,
        partition: int,
        authority: Authority,
        limits: Limits,
        stores: list[Store],
        timers: Timers,
        upstreams: Upstreams,
        watermarks: Watermarks,
        once: Once,
        suspects: Suspects,
        unit: OpenUnit[O],
    ) -> None:
        self.unit = unit
        """The open unit."""
        self.rows: UnitRows | None = None
        """Rows of tables as that unit sees them, if there are tables."""
        self.admission = Admission(plan, authority, limits)
        self._plan = plan
        self._partition = partition
        self._authority = authority
        self._limits = limits
        self._performer = Performer(plan, partition, authority, limits, self.admission, watermarks)
        self._consequences = Consequences()
        self._stores = stores
        self._timers = timers
        self._upstreams = upstreams
        self._once = once
        self._suspects = suspects

    def accept(self, delivery: Delivery) -> bool:
        """Decide an admitted record; ``False`` if it must be taken again later, and nothing has changed."""
        upstreams = self._upstreams
        if upstreams.needed:
            upstreams.hear_intent(delivery)
            if (upstreams.stale or self._timers.may_be_due()) and self.move_event_clock():
                return False  # what was due before this happened comes first
        offset = delivery.record.offset
        if delivery.source.ahead and held_key(delivery.source.plan.topic, offset) in self._timers:
            return True  # read once more on behalf of a new reactor, and still waiting: the timer brings it to all
        once = delivery.route.intent.once_ms
        if once is not None and self._once.is_repeat(
            _once_key(delivery), delivery.source.plan.topic, offset, delivery.at_ms
        ):
            return True
        if delivery.due_ms is None:
            return self.handle(delivery)
        if partition_of(delivery.key, self._plan.partitions) != self._partition:
            self._reroute(delivery)
        else:
            self.put_aside(delivery, delivery.due_ms, failed=0)
        return True

    def hear(self, delivery: Delivery) -> None:
        """Take a record of an internal topic that tells the event clock of the lane that wrote it, and nothing else."""
        if self._upstreams.needed:
            self._upstreams.hear(delivery, None)
            self.move_event_clock()

    def move_event_clock(self) -> bool:
        """Move the event clock to where its upstreams are. Returns whether a timer is due by it."""
        low_ms = self._upstreams.low_ms
        return self._timers.is_due(-1) if low_ms is None else self._timers.move_event_clock(low_ms)

    def handle(self, delivery: Delivery) -> bool:
        """Run the handlers of an admitted intent: all of them, or nothing of it remains.

        Returns ``False`` if that is to be done again in place, after a pause.
        """
        source, record, key = delivery.source, delivery.record, delivery.key
        claims = delivery.claims
        timer = delivery.timer
        if self._suspects.careful and self._suspects.is_poison(_trial_key(delivery)):
            limit = self._limits.poison_attempts
            self.refuse(
                delivery, Refusal("poison", f"the worker ended at it, and then {limit} times while it was tried")
            )
            return True
        context = Context(
            claims,
            delivery.headers,
            source.plan.topic,
            self._partition,
            record.offset,
            record.timestamp,
            delivery.now_ms,
            timer,
            delivery.hops,
            self._timers.event_ms,
            delivery.time_ms,
            self.rows,
        )
        consequences: Consequences | None = None
        bindings = delivery.route.bindings
        alone = len(bindings) == 1
        done: list[tuple[Store, Entry, Before]] = []
        for binding in bindings:
            reactor = binding.reactor
            if source.ahead and source.passes_over(reactor.index, delivery):
                continue
            store = self._stores[reactor.index]
            if reactor.stateless:
                # Its timers are under the key too, so they must be where the key lives.
                entry = _STATELESS if partition_of(key, self._plan.partitions) == self._partition else None
            else:
                entry = store.live.get(key) or store.load(key)
            if entry is None:
                # A key already in the state needs no such check: it was made when the key was first seen.
                if partition_of(key, self._plan.partitions) != self._partition:
                    self._reroute(delivery)
                    return True
                entry = store.create(key)
            state = entry.state
            kept: Sequence[Any] | None = ()
            try:
                taken = (
                    alone
                    and not entry.log
                    and binding.quick is not None
                    and binding.quick(delivery.intent, state, context)
                )
            except (Exception, SystemExit):  # noqa: BLE001 - the handler raises it again
                taken = False
            if not taken:
                loose = entry.loose
                # What it does is logged from then on in this unit, if it is once.
                try:
                    kept = None if entry.log else store.keep(state)
                except (AttributeError, TypeError):  # an earlier intent has left a wrong type behind
                    kept = None
                if kept is None and loose:
                    self._log_from_now_on(store, entry)
                    loose = False
                before = state, kept, entry.removed, loose
                try:
                    # Each reactor gets an intent of its own, since it may keep a list of it in its state.
                    intent = binding.decode(delivery.value) if done else delivery.intent
                    entry.removed = False
                    result = binding.handle(intent, state, context)
                    if result is not None:
                        if consequences is None:
                            consequences = self._consequences
                            consequences.clear()
                        if self._performer.perform(delivery, reactor, result, consequences):
                            store.remove(entry)
                except BrokenStateError as broken:
                    raise broken.reason from None
                except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is dealt with as declared
                    if not reactor.stateless:
                        store.undo(key, entry, before)
                    for other, other_entry, other_before in done:
                        if other_entry.log:
                            other_entry.log = other_entry.log[0]
                        other.undo(key, other_entry, other_before)
                    return self._failed(delivery, binding, error)
                if reactor.stateless:
                    continue
            log = entry.log
            if log is None:
                log = NOTHING
                self.unit.dirty.append((store, key, entry))
                self.unit.bytes += 128 + len(entry.raw or b"")
            if kept is None:
                entry.log = log, binding, delivery.value, context
            else:
                entry.log = log
                entry.loose = True
            for field in entry.maps:
                if field.growth:
                    self.unit.bytes += field.growth
                    field.growth = 0
            if not alone:
                done.append((store, entry, before))
        spec = delivery.route.intent
        handled = self.unit.handled
        handled[spec.type] = handled.get(spec.type, 0) + 1
        if spec.once_ms is not None and timer is None:
            self._mark(delivery)
        if consequences is not None:
            self.unit.outputs.extend(consequences.outputs)
            self.unit.bytes += consequences.size
            if consequences.tallies:
                tallies = self.unit.tallies
                for counted, by in consequences.tallies:
                    tallies[counted] = tallies.get(counted, 0) + by
            for of, by in consequences.windows:
                self.unit.windows[of] = self.unit.windows.get(of, 0) + by
            if consequences.timers:
                self._set_timers(delivery, consequences)
        return True

    def _log_from_now_on(self, store: Store, entry: Entry) -> None:
        """See to it that what is done to a state from now on can be undone by its log: there is too much of it to be kept each
        time."""
        try:
            store.rebase(entry)
        except ENCODING_ERRORS:
            self.unit.broken = True

    def _failed(self, delivery: Delivery, binding: Binding, error: BaseException) -> bool:
        """A handler raised: do as its policy says. Returns ``False`` if the intent is to be handled again in place."""
        where = f"{binding.reactor.spec.id}.{getattr(binding.handle, '__name__', 'handler')}"
        if isinstance(error, EffectRefusedError):
            self.refuse(delivery, error.refusal)
            return True
        if isinstance(error, BadEffectError):
            self.refuse(delivery, Refusal("bad_effect", f"{where}: {_text(error)}"), type(error))
            return True
        policy = binding.on_error
        failed = delivery.failed + 1
        if policy is None or failed >= policy.attempts:
            times = "" if policy is None else f" (attempt {failed} of {policy.attempts})"
            self.refuse(delivery, Refusal("handler_failed", f"{where}: {_text(error)}{times}"), type(error))
            return True
        again_ms = delivery.now_ms + policy.delay_ms(failed)
        if delivery.timer is None and isinstance(policy, RetryInPlace):
            delivery.source.failing = delivery.record.offset, failed
            delivery.source.paused_until_ms = again_ms
            return False
        self.put_aside(delivery, again_ms, failed)
        return True

    # -- what is not the rule ------------------------------------------------------------------------------------------

    def put_aside(self, delivery: Delivery, due_ms: int, failed: int) -> None:
        """Keep an admitted intent as a timer."""
        record, topic = delivery.record, delivery.source.plan.topic
        kept = SourceRecord(
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple(record.headers),
            record.timestamp_type or 0,
        )
        timer = delivery.timer
        waits = Timer(due_ms, WALL, topic, kept, delivery.at_ms, timer is not None and timer.scheduled, failed)
        self._timers.set(delivery.timer_key or held_key(topic, record.offset), encode_timer(waits))
        self.unit.bytes += 128 + size_of(record)
        if delivery.route.intent.once_ms is not None and timer is None:
            self._mark(delivery)

    def _set_timers(self, delivery: Delivery, consequences: Consequences) -> None:
        for key, raw in consequences.timers:
            if raw is None:
                self._timers.cancel(key)
                continue
            self._timers.set(key, raw)
            if raw[1] == EVENT and not self._upstreams.needed:
                self._upstreams.needed = True
                if delivery.timer is None:
                    self._upstreams.hear_intent(delivery)
                    self.move_event_clock()

    def _mark(self, delivery: Delivery) -> None:
        """Note an intent that is handled once."""
        once_ms = delivery.route.intent.once_ms
        assert once_ms is not None
        key = _once_key(delivery)
        self._once.add(key, delivery.source.plan.topic, delivery.record.offset, delivery.at_ms, once_ms)
        self.unit.bytes += 32 + len(key)

    def _reroute(self, delivery: Delivery) -> None:
        """Send a record of a misplaced key to where its key lives."""
        source, record = delivery.source, delivery.record
        topic = source.plan.reroute
        if topic is None:
            self.refuse(delivery, Refusal("wrong_partition", f"key {record.key!r:.200} does not belong here"))
        elif not any(source.has_seen(binding.reactor.index, record.offset) for binding in delivery.route.bindings):
            # else it was sent on when another reactor saw it, and must not be seen twice there
            self.add([rerouted(topic, delivery, self._partition, self._limits.inline_bytes)])

    def refuse(self, delivery: Delivery, refusal: Refusal, error: type[BaseException] | None = None) -> None:
        """Make the record a dead letter, and tell the sender if they are known and asked to be told."""
        source, record = delivery.source, delivery.record
        code = refusal.code
        self.unit.refused.append(Refused(source.plan.topic, record.offset, code))
        if code not in _BY_HANDLING and any(record.offset < seen for seen in source.ahead.values()):
            return  # a new reactor reads from the start: what the others saw refused is a dead letter already
        reason = refusal.reason[:_LONGEST_REASON].encode(errors="replace").decode()
        token = delivery.headers.get("pf-context")
        known = None if token is None else self._authority.verifier.verify(token)
        claims = None if isinstance(known, Refusal) else known
        delivery.claims = claims
        name = "pf_stream.Refused" if error is None else f"{error.__module__}.{error.__qualname__}"
        ids = () if claims is None else claims.revocation_ids
        told = Refusal(code, reason)
        letter = dead_letter(delivery, self._partition, told, name, ids, self._limits.inline_bytes)
        self.add([letter, *self._performer.refusal(delivery, told)])
        if delivery.timer is not None and not delivery.timer.scheduled:
            self._once.discard(_once_key(delivery), source.plan.topic, record.offset)

    def add(self, outputs: list[Output | Copy]) -> None:
        self.unit.outputs.extend(outputs)
        for output in outputs:
            self.unit.bytes += output_size(output)


def _once_key(delivery: Delivery) -> bytes:
    """Changelog key of the mark of an intent that is handled once."""
    headers = delivery.headers
    subject = "" if delivery.claims is None else delivery.claims.subject
    # The name without the version: who sends again may have been upgraded meanwhile.
    name, ce_id = (headers.get("ce_type") or b"").rpartition(b".v")[0], headers.get("ce_id") or b""
    return changelog.once_key(name, delivery.record.key or b"", subject.encode(), ce_id)


def _trial_key(delivery: Delivery) -> bytes:
    """What a careful lane writes down before it handles an intent."""
    return delivery.timer_key or held_key(delivery.source.plan.topic, delivery.record.offset)


def _text(error: BaseException) -> str:
    """What an exception says of itself, if it can."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the handler's own class, and may raise anything
        return f"{type(error).__name__}, which cannot be shown"
