"""From what handlers return to what a unit writes: records to be sent, timers to be set and cancelled."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import orjson

from pf_stream.core import changelog
from pf_stream.core.admission import Admission
from pf_stream.core.authorise import Authority
from pf_stream.core.delivery import Delivery
from pf_stream.core.limits import Limits
from pf_stream.core.outputs import (
    BadEffectError,
    cause_of,
    emitted,
    emitted_size,
    envelope,
    given_time,
    hops_header,
    inherited_time,
    origin_of,
    output_size,
    reply,
    reply_data,
    service_header,
    trace_headers,
)
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import GroupPlan, ReactorPlan, Route
from pf_stream.core.records import Header, SourceRecord
from pf_stream.core.timers import DEADLINE, EVENT, WALL, Mould, Timer, encode_bell, encode_timer, timer_end
from pf_stream.core.unit import Copy, Output
from pf_stream.core.watermark import Watermarks
from pf_stream.model.context import event_time_ms
from pf_stream.model.effect import Bell, Cancel, Emit, Forget, Reply, Ring, Schedule, Tally, Windows
from pf_stream.model.intent import Intent
from pf_stream.security.narrowing import Identity
from pf_stream.security.refusal import Refusal

__all__ = ["Consequences", "EffectRefusedError", "Performer"]

_MANY: Final = (list, tuple)  # a union would be made anew each time
_NUMBER: Final = (float, int)
_tally_name: Final = re.compile(r"[a-z][a-z0-9_]{0,31}").fullmatch
_LONGEST_COPIED: Final = 64 << 10
"""Most bytes of what a reply repeats of its request. A unit that does not fit into one commit would stop its lane."""


class EffectRefusedError(Exception):
    """Raised when a handler schedules what the caller may not do; the intent becomes a dead letter with that code."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)


class _Shape(NamedTuple):
    """What all times have in common at which a bell is set."""

    clock: int
    """By which clock it is due."""
    end: bytes
    """What its timer ends with."""


class _Alike(NamedTuple):
    """What timers of one type have in common that one handler sets because of one delivery."""

    origin: bytes | Identity | None
    """Under whose context they are set."""
    route: Route | None
    """Their type on its topic, if the group reads that."""
    cause: bytes
    """What their ids are made of, but for the number at the end."""
    mould: Mould
    """What their bytes are made by."""


class Consequences:
    """What the handlers of one delivery cause, until it is known that all of them succeed."""

    __slots__ = ("alike", "outputs", "size", "tallies", "timers", "windows")

    def __init__(self) -> None:
        self.outputs: list[Output | Copy] = []
        """Records to be sent."""
        self.timers: list[tuple[bytes, bytes | None]] = []
        """Timers by key, encoded; ``None`` cancels."""
        self.tallies: list[tuple[tuple[str, str], int]] = []
        """What is counted, by reactor and name."""
        self.windows: list[tuple[str, int]] = []
        """By how much the number of open windows changes, by reactor."""
        self.alike: dict[tuple[int, type[Intent]], _Alike | None] = {}
        """By reactor and type, what is the same in each further timer; ``None`` after the first one."""
        self.size = 0
        """Bytes that this adds to a unit, by estimate."""

    def clear(self) -> None:
        """Make it good for another delivery."""
        self.outputs.clear()
        self.timers.clear()
        self.tallies.clear()
        self.windows.clear()
        self.alike.clear()
        self.size = 0


class Performer:
    """Makes effects into consequences, for one lane."""

    def __init__(
        self,
        plan: GroupPlan,
        partition: int,
        authority: Authority,
        limits: Limits,
        admission: Admission,
        watermarks: Watermarks,
    ) -> None:
        self._plan = plan
        self._partition = partition
        self._authority = authority
        self._limits = limits
        self._admission = admission
        self._watermarks = watermarks
        self._listeners = plan.listeners
        self._shapes: dict[tuple[Bell, int], _Shape] = {}
        """By bell, and how often its intent was emitted onward."""
        self._routes: dict[tuple[str, str], Route] = {
            (source.topic, route.intent.type): route
            for source in plan.sources
            if source.origin == source.topic
            for route in source.routes.values()
        }

    def perform(self, delivery: Delivery, reactor: ReactorPlan, result: object, into: Consequences) -> bool:
        """Add what *result* asks for, which a handler of *reactor* returned. Returns whether the state is to be removed.

        Raises:
            BadEffectError: it is no effect, or one that cannot be made.
            EffectRefusedError: the caller may not do what is scheduled.
        """
        limit = self._limits.output_bytes
        outputs = into.outputs
        forget = False
        for effect in result if isinstance(result, _MANY) else (result,):
            if isinstance(effect, Emit):
                intent = effect.intent
                plan = reactor.emits.get(type(intent))
                if plan is None:
                    raise _unknown("emitted", intent, reactor)
                index = len(outputs) + len(into.timers)
                output = emitted(delivery, self._partition, reactor, intent, plan, index, effect)
                if plan.topic in self._listeners:
                    output.headers.extend(self._watermarks.header(plan.topic, delivery.timer))
                outputs.append(output)
                into.size += emitted_size(output)
                length = len(output.value or b"")
                if length > limit:
                    raise BadEffectError(f"emitted {length} bytes; the limit is {limit}")
            elif isinstance(effect, Reply):
                if "pf-reply-to" in delivery.headers:
                    data = reply_data(effect)
                    if len(data) > limit:
                        raise BadEffectError(f"replied with {len(data)} bytes; the limit is {limit}")
                    reply_to = self._reply_topic(delivery)
                    if reply_to is not None:
                        kind = f"{delivery.route.intent.name}.reply"
                        output = reply(delivery, data, kind, self._plan.topology, reply_to, None)
                        outputs.append(output)
                        into.size += output_size(output)
            elif isinstance(effect, Schedule):
                self._schedule(delivery, reactor, effect, into)
            elif isinstance(effect, Ring):
                self._ring(delivery, reactor, effect, into)
            elif isinstance(effect, Cancel):
                into.timers.append((_timer_key(reactor, delivery.key, effect.name), None))
                into.size += 64
            elif isinstance(effect, Forget):
                forget = True
            elif isinstance(effect, Tally):
                into.tallies.append(((reactor.spec.id, effect.name), _counted(effect)))
            elif isinstance(effect, Windows):
                into.windows.append((reactor.spec.id, effect.by))
            else:
                raise BadEffectError(
                    f"returned {effect!r:.200}, which is no effect: return Emit, Reply, Schedule, Cancel, Forget, Tally, a "
                    f"list of them, or None"
                )
        return forget

    def _schedule(self, delivery: Delivery, reactor: ReactorPlan, effect: Schedule, into: Consequences) -> None:
        intent = effect.intent
        plan = self._plan.emits.get(type(intent))
        if plan is None:
            raise _unknown("scheduled", intent, None)
        if effect.clock not in {"wall", "event"}:
            raise BadEffectError(f"scheduled by the clock {effect.clock!r}; there are 'wall' and 'event'")
        clock = EVENT if effect.clock == "event" else WALL
        now_ms = delivery.now_ms if clock == WALL else event_time_ms(delivery.headers, delivery.record.timestamp)
        due_ms = _due_ms(effect, now_ms)
        # What a timer causes when it fires was judged when that timer was set, and may be long ago. It is judged anew
        # for each further timer, or a token that is good for minutes would do for a chain of them that never ends.
        judged_ms = delivery.at_ms if delivery.timer is None else delivery.now_ms
        self._check_horizon(due_ms, judged_ms if clock == WALL else now_ms)
        index = len(into.outputs) + len(into.timers)
        kind = reactor.index, type(intent)
        # Nothing is said of it that its headers tell.
        plain = effect.id is None and effect.time is None and effect.deadline is None and plan.intent.time_of is None
        alike = into.alike.get(kind) if plain else None
        if alike is None:
            output = emitted(delivery, self._partition, reactor, intent, plan, index, effect)
            origin, route = origin_of(delivery, reactor), self._routes.get((plan.topic, plan.intent.type))
            key, value = output.key, output.value
        else:
            origin, route = alike.origin, alike.route
            key, value = plan.intent.key_of(intent), plan.intent.encode(intent)
        assert key is not None
        assert value is not None
        self._check_length(value)
        # Elsewhere it is judged where it arrives.
        if route is not None and (key == delivery.key or partition_of(key, self._plan.partitions) == self._partition):
            refusal = self._judge(origin, route, intent, judged_ms)
            if refusal is not None:
                raise EffectRefusedError(Refusal(refusal.code, f"scheduled {plan.intent.type}: {refusal.reason}"))
        if alike is None:
            headers = _waiting(delivery, effect, output.headers, origin)
            record = SourceRecord(delivery.record.offset, judged_ms, key, value, tuple(headers))
            timer = Timer(due_ms, clock, output.topic, record, judged_ms, scheduled=True, failed=0)
            raw = encode_timer(timer)
            ce_id = next(told for name, told in headers if name == "ce_id")
            assert ce_id is not None
            if plain and kind in into.alike:
                into.alike[kind] = _Alike(origin, route, ce_id.rpartition(b":")[0], Mould(timer, raw))
            elif plain:
                into.alike[kind] = None  # for one timer, which is what most handlers set, it does not pay
        else:
            ce_id = b"%s:%d" % (alike.cause, index)
            raw = alike.mould.cast(due_ms, clock, key, value, ce_id)
        if effect.name is not None:
            timer_key = _timer_key(reactor, delivery.key, effect.name)
        else:
            # Beside all names that users give: those are text.
            timer_key = changelog.timer_key(reactor.spec.id, delivery.key, b"\xff" + ce_id)
        into.timers.append((timer_key, raw))
        into.size += 128 + len(raw)

    def _ring(self, delivery: Delivery, reactor: ReactorPlan, effect: Ring, into: Consequences) -> None:
        """Do what :meth:`_schedule` does, of which nearly all is the same each time."""
        bell, due_ms, key = effect.bell, effect.due_ms, delivery.key
        if isinstance(origin_of(delivery, reactor), bytes):  # each caller's timers are of their own
            intent = bell.intent(key=effect.key)
            at = datetime.fromtimestamp(due_ms / 1000, UTC)
            self._schedule(delivery, reactor, Schedule(intent, at=at, name=bell.name, clock=bell.clock), into)
            return
        timer, record = delivery.timer, delivery.record
        hops = delivery.hops + (not delivery.is_scheduled)
        shape = self._shapes.get((bell, hops))
        if shape is None:
            shape = self._shapes[bell, hops] = self._shape(reactor, bell, hops)
        judged_ms = delivery.at_ms if timer is None else delivery.now_ms
        if shape.clock == WALL:
            from_ms = judged_ms
        else:
            from_ms = (
                event_time_ms(delivery.headers, record.timestamp) if delivery.time_ms is None else delivery.time_ms
            )
        self._check_horizon(due_ms, from_ms)
        cause = cause_of(delivery, self._partition)
        own: list[Header] = [
            ("ce_id", b"%b%d" % (cause, len(into.outputs) + len(into.timers))),
            ("ce_time", inherited_time(delivery)),
        ]
        if hops > 1 or "traceparent" in delivery.headers or delivery.is_scheduled:
            own += trace_headers(delivery, cause, told_by_id=True)
        value = b'{"key":%b}' % orjson.dumps(effect.key)
        self._check_length(value)
        raw = encode_bell(shape.clock, due_ms, judged_ms, record.offset, key, value, own, shape.end)
        into.timers.append((_timer_key(reactor, key, bell.name), raw))
        into.size += 128 + len(raw)

    def _shape(self, reactor: ReactorPlan, bell: Bell, hops: int) -> _Shape:
        plan = self._plan.emits[bell.intent]
        headers = [*envelope(plan.type, reactor.source), hops_header(hops)]
        if reactor.service is not None:
            headers.append(service_header(reactor.service.on_behalf_of(None)))
        return _Shape(EVENT if bell.clock == "event" else WALL, timer_end(plan.topic, tuple(headers)))

    def _check_length(self, value: bytes) -> None:
        if len(value) > self._limits.output_bytes:
            raise BadEffectError(f"scheduled {len(value)} bytes; the limit is {self._limits.output_bytes}")

    def _check_horizon(self, due_ms: int, from_ms: int) -> None:
        horizon_ms = self._limits.timer_ms
        if due_ms - from_ms > horizon_ms:
            raise BadEffectError(f"scheduled more than {horizon_ms // 86_400_000} days ahead, which is the limit")

    def _judge(self, origin: bytes | Identity | None, route: Route, intent: Intent, at_ms: int) -> Refusal | None:
        if origin is None:
            return None if route.public else Refusal("missing_context", "the caller came without a context")
        values = route.values(intent)
        claims = self._authority.recent.get(origin) if isinstance(origin, bytes) else None
        if claims is None or (route, values) not in claims.notes:
            decided = self._authority.decide(origin, route, values, intent, at_ms)
            if isinstance(decided, Refusal):
                return decided
            claims = decided
        return self._authority.judge(claims, route, values, intent, at_ms)

    def refusal(self, delivery: Delivery, refusal: Refusal) -> list[Output]:
        """The reply that tells the sender of a refusal, if there is somewhere to tell it."""
        reply_to = self._reply_topic(delivery)
        if reply_to is None:
            return []
        data = orjson.dumps({"error": refusal.code, "message": refusal.reason})
        return [reply(delivery, data, "pf.refused", self._plan.topology, reply_to, refusal.code)]

    def _reply_topic(self, delivery: Delivery) -> str | None:
        """Where a reply goes: where it was asked for, by somebody who has proven who they are and wants no more than a reply."""
        headers = delivery.headers
        raw = headers.get("pf-reply-to")
        if raw is None or delivery.claims is None:
            return None
        copied = (delivery.record.key, headers.get("ce_id"), headers.get("pf-correlation-id"))
        if sum(len(value or b"") for value in copied) > _LONGEST_COPIED:
            return None
        return self._admission.reply_topic(raw)


def _counted(effect: Tally) -> int:
    """How many a tally counts, if it is one."""
    name: object = effect.name
    by: object = effect.by
    if not isinstance(name, str) or _tally_name(name) is None:
        raise BadEffectError(
            f"counted under the name {name!r:.80}; a name is lower case letters, digits and '_', at most 32"
        )
    if not isinstance(by, int) or isinstance(by, bool) or by < 0:
        raise BadEffectError(f"counted {name} by {by!r:.80}; a tally only grows, by a whole number")
    return by


def _waiting(
    delivery: Delivery, effect: Schedule, headers: list[Header], origin: bytes | Identity | None
) -> list[Header]:
    """The headers of a timer, from those of what is emitted."""
    if effect.deadline is not None:
        headers.append((DEADLINE, given_time(effect.deadline)))
    if delivery.timer is not None and delivery.timer.scheduled:
        # A timer that sets the next one is no way onward: it may do so for ever.
        headers = [hops_header(delivery.hops) if name == "pf-hops" else (name, told) for name, told in headers]
    if isinstance(origin, bytes):
        headers.append(("pf-context", origin))
    elif origin is not None:
        headers.append(service_header(origin))
    return headers


def _due_ms(effect: Schedule, now_ms: int) -> int:
    at, after = effect.at, effect.after
    if at is None and isinstance(after, _NUMBER):
        try:
            due_ms = now_ms + round(after * 1000)
        except (ValueError, OverflowError) as error:
            raise BadEffectError(f"scheduled after={after!r}, which is no time") from error
    elif at is None and isinstance(after, timedelta):
        due_ms = now_ms + round(after.total_seconds() * 1000)
    elif isinstance(at, datetime) and at.tzinfo is not None and after is None:
        due_ms = round(at.timestamp() * 1000)
    else:
        raise BadEffectError(
            f"scheduled at={at!r}, after={after!r}: give one of them, after as seconds or a timedelta, at "
            f"as a datetime with a zone"
        )
    if due_ms < 0:
        raise BadEffectError(f"scheduled for a time before 1970: at={effect.at!r}, after={effect.after!r}")
    return due_ms


def _timer_key(reactor: ReactorPlan, key: bytes, name: object) -> bytes:
    if not isinstance(name, str) or not name:
        raise BadEffectError(f"named a timer {name!r}; a name is text")
    try:
        return changelog.timer_key(reactor.spec.id, key, name.encode())
    except UnicodeEncodeError as error:
        raise BadEffectError(f"named a timer {name!r}, which has no UTF-8") from error


def _unknown(verb: str, intent: object, reactor: ReactorPlan | None) -> BadEffectError:
    if reactor is not None and reactor.spec.emits is not None:
        return BadEffectError(
            f"{verb} {type(intent).__name__}, which reactor {reactor.spec.id!r} does not declare: list it in emits=[...] of "
            f"its class"
        )
    return BadEffectError(
        f"{verb} {type(intent).__name__}, which the topology does not know: handle it, or list it in emits"
    )
