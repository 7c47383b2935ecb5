"""The lane: one partition of one group, and the pure step over its records.

Nothing here waits, reads a clock or rolls dice. The same records at the same ``now`` against the same changelog give the
same unit, which is what makes a crash between any two actions harmless.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, Generic, cast

from typing_extensions import TypeVar

from pf_stream.core import changelog
from pf_stream.core.authorise import Authority
from pf_stream.core.decoding import current_json
from pf_stream.core.delivery import Delivery
from pf_stream.core.handling import Handling, OpenUnit
from pf_stream.core.header import ChangelogFormatError, Header
from pf_stream.core.limits import Limits
from pf_stream.core.once import Once
from pf_stream.core.outbox import OutboxEntry, decode_entry
from pf_stream.core.outputs import overdue
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import Record
from pf_stream.core.shelf import MemoryShelf, Shelf
from pf_stream.core.source import Source
from pf_stream.core.starts import NOT_YET, starts_of
from pf_stream.core.store import ENCODING_ERRORS, REMOVED, Entry, Store
from pf_stream.core.suspect import Suspects
from pf_stream.core.tables import TableRows, UnitRows
from pf_stream.core.timers import EVENT, WALL, Timer, Timers, encode_timer, held_key
from pf_stream.core.unit import CommitUnit, Copy, Output, Outputs, Rewind
from pf_stream.core.upstreams import Upstreams
from pf_stream.core.watermark import WATERMARK_TYPE, Watermarks
from pf_stream.model.state import strictly
from pf_stream.security.refusal import Refusal

__all__ = ["Lane"]

O = TypeVar("O", bound=Outputs, default=list[Output | Copy])  # noqa: E741 - outputs

_STATE: Final = changelog.FORMAT_BYTE + b"s"
"""First bytes of the keys of states."""


class Lane(Generic[O]):
    """One partition of one group.

    Life: :meth:`restore` with the records of its changelog partition, :meth:`restored`, :meth:`begin`, then :meth:`fire`,
    :meth:`step`, :meth:`seal` and :meth:`acknowledged` in turn; :meth:`sent` tells which outputs need not be kept. After
    any failed append the object is thrown away.
    """

    def __init__(
        self,
        plan: GroupPlan,
        partition: int,
        authority: Authority,
        limits: Limits,
        collect: Callable[[str, int], O] = cast("Any", lambda incarnation, sequence: []),  # noqa: B008
        shelf: Shelf | None = None,
        tables: Mapping[str, TableRows] = MappingProxyType({}),
    ) -> None:
        """*collect* makes what takes the outputs of a unit, from the lane's incarnation and the unit's sequence. *tables* are
        the topology's, by topic; who has the lane lets nothing be handled before they were read to their ends.

        *shelf* may hold the beginning of the changelog already; an empty one in memory if not given.
        """
        self.plan = plan
        self.partition = partition
        self.limits = limits
        self.incarnation = ""
        """Random name of the lane's life; empty until :meth:`begin`."""
        self.sequence = 0
        """Of the last sealed unit."""
        self.sent_sequence = 0
        """Unit up to which outputs are known to be in Kafka."""
        self.handled = 0
        """Intents handled since the process started, the open unit's not included."""
        self.refused: Counter[str] = Counter()
        """Records refused since the process started, by code, the open unit's not included."""
        self.tallies: Counter[tuple[str, str]] = Counter()
        """What reactors counted since the process started, by reactor's id and name, the open unit's not included."""
        self.windows: Counter[str] = Counter()
        """Windows that are open, by reactor, as of the last sealed unit."""
        self.dropped = 0
        """Records dropped since the process started because they are repeats, the open unit's not included."""
        self.sources = {source.topic: Source(source) for source in plan.sources}
        self.shelf: Shelf = shelf or MemoryShelf(reactor.prefix for reactor in plan.reactors)
        """Where its acknowledged states lie."""
        self.stores = [Store(reactor, self.shelf, plan.partitions) for reactor in plan.reactors]
        self.timers = Timers()
        self._upstreams = Upstreams(plan, limits.idle_ms)
        self._downstream = Watermarks(plan, partition, self.timers, limits.idle_ms, self._upstreams.any_active)
        self._now_ms = 0
        """The last processing time that it was told."""
        self.suspects = Suspects(limits.poison_attempts)
        self._once = Once()
        self._unit = OpenUnit(collect("", 0))
        self._handling = Handling(
            plan,
            partition,
            authority,
            limits,
            self.stores,
            self.timers,
            self._upstreams,
            self._downstream,
            self._once,
            self.suspects,
            self._unit,
        )
        self._collect = collect
        self._tables = tables
        if tables:
            self._handling.rows = UnitRows(tables)
        self._room = limits.unit_records
        self._sealed: Sequence[tuple[bytes, bytes | None]] = ()
        """Changelog records of the sealed unit, until it is acknowledged."""
        # what the changelog holds beside states and positions
        self._header: Header | None = None
        self._watermarks: dict[tuple[str, str], int] = {}
        self._outbox: dict[int, dict[int, bytes]] = {}
        self._deletions: list[bytes] = []
        self._marked_sequence = 0
        for key, value in self.shelf.rest():
            if key != changelog.FENCE:
                self._restore(key, value)

    # -- recovery ------------------------------------------------------------------------------------------------------

    def restore(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take changelog records, key and value, in the order of the log, from the shelf's position on.

        Raises :class:`ChangelogFormatError`.
        """
        taken = list(records)
        for key, value in taken:
            if not key.startswith(_STATE):
                self._restore(key, value)
        self.shelf.put(taken, self.shelf.position)

    def restored(self, end: int) -> None:
        """Note that all records before offset *end* were taken, and none lies behind it yet."""
        # Fences that no unit has followed are counted by every life, so no shelf may get past them.
        if not self.suspects.idle_opens:
            self.shelf.put((), end)

    def _restore(self, key: bytes, value: bytes | None) -> None:
        if key[:1] != changelog.FORMAT_BYTE:
            raise ChangelogFormatError(self.plan.changelog, key[:1])
        match key[1:2]:
            case b"w":
                reactor, at = changelog.parse_name(key, 2)
                topic, _ = changelog.parse_name(key, at)
                if value is None:
                    self._watermarks.pop((reactor, topic), None)
                    return
                self._watermarks[reactor, topic], topic_id = changelog.WATERMARK_VALUE.unpack(value)
                if topic in self.sources:
                    self.sources[topic].topic_id = topic_id
            case b"d":
                topic, at = changelog.parse_name(key, 2)
                incarnation, _ = changelog.parse_name(key, at)
                if topic in self.sources:
                    mark = None if value is None else changelog.MARK_VALUE.unpack(value)
                    self.sources[topic].restore_mark(incarnation.encode(), mark)
            case b"o":
                _, sequence, index = changelog.OUTBOX_KEY.unpack(key)
                if value is None:
                    self._outbox.get(sequence, {}).pop(index, None)
                else:
                    self._outbox.setdefault(sequence, {})[index] = value
            case b"u" if value is not None:
                self.sequence, self.sent_sequence = changelog.UNIT_VALUE.unpack(value)
                self.suspects.committed()
            case b"f":
                self.suspects.opened()
            case b"t":
                if value is not None and not changelog.FORMAT <= value[0] <= changelog.TIMER_FORMAT:
                    raise ChangelogFormatError(self.plan.changelog, value[:1])
                self.timers.restore(key, value)
            case b"e":
                self.timers.restore_clock(None if value is None else changelog.EVENT_CLOCK_VALUE.unpack(value)[0])
                self._upstreams.needed |= value is not None
            case b"c":
                topic, at = changelog.parse_name(key, 2)
                time_ms = None if value is None else changelog.EVENT_CLOCK_VALUE.unpack(value)[0]
                self._upstreams.restore(topic, changelog.parse_name(key, at)[0], time_ms)
            case b"i":
                self._once.restore(key, value)
            case b"n":
                reactor, _ = changelog.parse_name(key, 2)
                self.windows[reactor] = 0 if value is None else changelog.WINDOWS_VALUE.unpack(value)[0]
            case b"p":
                self.suspects.restore(value)
            case b"h" if value is not None:
                self._header = Header.parse(self.plan.changelog, value)
                self.incarnation = self._header.incarnation
            case _:
                pass

    def begin(self, incarnation: str) -> dict[str, int | None]:
        """End the recovery; *incarnation* is used if the lane never lived before.

        Returns the next offset of each source topic, ``None`` where no reactor has read the topic before.
        Raises what :meth:`Header.check` raises: the changelog is not one that this topology may go on with.
        """
        if self._header is not None:
            self._header.check(self.plan)
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
        for key, timer in starts_of(self.plan, self.partition):
            self.timers.restore(key, timer)
        self.timers.begin()
        self._upstreams.needed |= self.timers.next_due_ms(EVENT) is not None
        self._once.begin()
        self.suspects.begin()
        if self.suspects.slow or self.suspects.careful:
            self._room = 1
        self._open_unit()
        return positions

    def reopened(self) -> None:
        """Note that it goes on after a while in which it read nothing."""
        self._upstreams.reopened()

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
    def count(self) -> int:
        """Source records and timers that the open unit decides."""
        return self._unit.count

    @property
    def is_full(self) -> bool:
        """Whether the open unit takes no more until it is sealed."""
        unit = self._unit
        return unit.count >= self._room or unit.bytes >= self.limits.unit_bytes or unit.broken or self.suspects.marking

    @property
    def has_work(self) -> bool:
        """Whether the open unit has anything that must be committed."""
        return self._unit.count > 0 or self.suspects.marking or self._downstream.is_due(self._now_ms)

    @property
    def next_due_ms(self) -> int | None:
        """When there is something to do even if nothing is read, milliseconds since the epoch; ``None`` if nothing waits.

        For timers of the wall clock :meth:`fire`; else :meth:`rest`, by which the event clock moves and is told. If that
        time is over, :meth:`rest` has yet to hear that nothing is left to be read.
        """
        waits = self.timers.next_due_ms(WALL)
        if not self._upstreams.needed:
            return waits
        times = (waits, self._downstream.due_ms, self._idle_due_ms)
        return min((time_ms for time_ms in times if time_ms is not None), default=None)

    @property
    def _idle_due_ms(self) -> int | None:
        """When somebody is silent for so long that the event clock moves and something follows."""
        now_ms, due_ms, told = self.timers.event_ms, self.timers.next_due_ms(EVENT), self._downstream.has_targets
        if due_ms is None and not told:
            return None
        for at_ms, low_ms in self._upstreams.idle_moves():
            if (now_ms is None or low_ms > now_ms) and (told or (due_ms is not None and low_ms >= due_ms)):
                return at_ms
        return None

    def rest(self, now_ms: int, read_ms: int | None) -> None:
        """Note that there is nothing to step over.

        *read_ms* is a time up to *now_ms* at which every record that there was had been read, or ``None`` if there may be
        more: what waits to be read is no silence of who has written it.
        """
        self._now_ms = now_ms
        if self._upstreams.needed and read_ms is not None:
            self._upstreams.rest(now_ms, read_ms)
            self._handling.move_event_clock()
            self._upstreams.forget(self.timers.event_ms)

    def is_due(self, now_ms: int) -> bool:
        """Whether :meth:`fire` has something to do."""
        return self.timers.is_due(now_ms)

    def paused_until_ms(self, topic: str) -> int:
        """Before when nothing is taken from a source topic, milliseconds since the epoch; 0 if it was never paused."""
        return self.sources[topic].paused_until_ms

    def step(self, topic: str, records: Iterable[Record], now_ms: int, at_most: int = 1 << 30) -> bool:
        """Take up to *at_most* records of a source topic, in order, into the open unit; what is decided is passed over.

        Returns whether *records* is exhausted. If not, call :meth:`fire` and this again with the same iterator, after
        :meth:`seal` if the unit :attr:`is_full`, and not before :meth:`paused_until_ms`.
        """
        source = self.sources[topic]
        self._now_ms = now_ms
        if self.is_full or now_ms < source.paused_until_ms:
            return False
        if source.deferred is not None:
            records, source.deferred = chain((source.deferred,), records), None
        internal = source.plan.internal
        handling, unit = self._handling, self._unit
        admission = handling.admission
        max_bytes = self.limits.unit_bytes
        room = min(self._room, unit.count + at_most)
        careful = self.suspects.careful
        for record in records:
            if record.offset < source.next:
                continue
            if careful and not self.suspects.may_try(held_key(topic, record.offset)):
                source.deferred = record
                return False
            source.next = record.offset + 1
            delivery = Delivery(source, record, dict(record.headers), now_ms)
            decided = admission.is_repeat(delivery) if internal else False
            if decided is False and internal and delivery.headers.get("ce_type") == WATERMARK_TYPE:
                handling.hear(delivery)
            elif decided is False:
                refusal = admission.admit(delivery)
                if refusal is not None:
                    handling.refuse(delivery, refusal)
                elif not handling.accept(delivery):
                    source.put_back(record)
                    return False
            elif decided is True:
                unit.repeats += 1
            else:
                handling.refuse(delivery, decided)
            unit.count += 1
            if unit.count >= room or unit.bytes >= max_bytes:
                return False
        return True

    def fire(self, now_ms: int, at_most: int = 1 << 30) -> bool:
        """Take up to *at_most* timers that are due into the open unit, the earliest first.

        Returns whether none is due any more. If not, call again, after :meth:`seal` if the unit :attr:`is_full`.
        """
        self._now_ms = now_ms
        for _ in range(at_most):
            if self.is_full:
                return False
            due = self.timers.take_due(now_ms)
            if due is None:
                return True
            key, timer = due
            if self.suspects.careful and not self.suspects.may_try(key):
                self.timers.set(key, encode_timer(timer))
                return False
            self._unit.count += 1
            self._unit.bytes += 64
            self._unit.fired = key
            self._fire(key, timer, now_ms)
        return False

    def _fire(self, key: bytes, timer: Timer, now_ms: int) -> None:
        handling = self._handling
        source = self.sources.get(timer.topic)
        if timer.judged_ms == NOT_YET:
            record = timer.record._replace(timestamp=now_ms)
            timer = timer._replace(due_ms=now_ms, judged_ms=now_ms, record=record)
        elif timer.clock == WALL:
            handling.unit.due.setdefault(changelog.parse_name(key, 2)[0], []).append(timer.due_ms)
        here = not timer.scheduled or partition_of(timer.record.key or b"", self.plan.partitions) == self.partition
        if source is None or not here:
            output = overdue(timer, self.plan)
            if timer.scheduled and output.topic in self.plan.listeners:
                output.headers.extend(self._downstream.header(output.topic, timer))
            handling.add([output])
            return
        delivery = Delivery(source, timer.record, dict(timer.record.headers), now_ms, timer, key)
        poisoned = self.timers.poisoned.get(key)
        refusal = (
            handling.admission.admit(delivery)
            if poisoned is None
            else Refusal(poisoned, "alone in its unit, it could not be committed")
        )
        if refusal is None and delivery.due_ms is not None:
            handling.put_aside(delivery, delivery.due_ms, timer.failed)  # it was due when nobody was there
        elif refusal is None:
            handling.handle(delivery)
        else:
            handling.refuse(delivery, refusal)

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

    def acknowledged(self, end: int = 0, outbox: Sequence[tuple[bytes, bytes | None]] = ()) -> None:
        """Note that the sealed unit is durable: from now on it may be seen from outside.

        The changelog goes on at offset *end*; *outbox* are the records that were appended behind those of the unit.
        """
        self.shelf.put([*self._sealed, *outbox] if outbox else self._sealed, end)
        self._sealed = ()
        for store in self.stores:
            store.age()

    def seal(self) -> CommitUnit[O] | Rewind:
        """End the open unit; the one before it has been :meth:`acknowledged`.

        A unit that cannot be made durable is taken back instead, and the caller feeds its records again into smaller
        units, until the one intent that is to blame stands alone and becomes a dead letter.
        """
        open_unit = self._unit
        if open_unit.broken:
            return self._take_back("bad_state")
        dirty = open_unit.dirty = self._touched()
        size = open_unit.bytes
        entries: list[tuple[bytes, bytes | None]] = []
        of_maps: list[tuple[bytes, bytes | None]] = []
        try:
            with strictly():
                for store, key, entry in dirty:
                    value = None if entry.removed else store.encode(entry)
                    size += len(value or b"") + len(key) + 64
                    entries.append((changelog.state_key(store.reactor.prefix, key), value))
                    if entry.maps:
                        of_maps += store.seal_maps(key, entry)
        except ENCODING_ERRORS:
            return self._take_back("bad_state")
        size += sum(len(key) + len(value or b"") + 64 for key, value in of_maps)
        if size > self.limits.unit_bytes_hard:
            return self._take_back("unit_too_large")
        for (_, _, entry), (_, value) in zip(dirty, entries, strict=True):
            entry.raw = entry.base = REMOVED if value is None else value
            entry.log = None
            entry.loose = False
        entries += of_maps
        self.sequence += 1
        for topic, source in self.sources.items():
            if source.next != source.sealed:
                for reader in source.plan.readers:
                    offset = max(source.next, source.ahead.get(reader.index, 0))
                    watermark = changelog.WATERMARK_VALUE.pack(offset, source.topic_id)
                    entries.append((changelog.watermark_key(reader.spec.id, topic), watermark))
                for incarnation, mark in source.seal():
                    entries.append((changelog.mark_key(topic, incarnation.decode()), changelog.MARK_VALUE.pack(*mark)))
        header = Header.of(self.plan, self.incarnation, self._header)
        if header != self._header:
            entries.append((changelog.HEADER, header.encode()))
            self._header = header
        repeats = open_unit.repeats + self._once.dropped
        open_unit.outputs.extend(self._downstream.records(self.sequence, self._now_ms))
        for reactor, by in open_unit.windows.items():
            self.windows[reactor] += by
            count = self.windows[reactor]
            entries.append((changelog.windows_key(reactor), changelog.WINDOWS_VALUE.pack(count) if count else None))
        entries += self.timers.seal()
        entries += self._upstreams.seal()
        entries += self._once.seal()
        entries += self.suspects.seal(decided=open_unit.count > 0)
        entries.extend((key, None) for key in self._deletions)
        self._deletions.clear()
        self._marked_sequence = self.sent_sequence
        entries.append((changelog.UNIT, changelog.UNIT_VALUE.pack(self.sequence, self.sent_sequence)))
        self._sealed = entries
        unit = CommitUnit(
            sequence=self.sequence,
            incarnation=self.incarnation,
            entries=entries,
            outputs=open_unit.outputs,
            positions={topic: source.sealed for topic, source in self.sources.items()},
            count=open_unit.count,
            handled=open_unit.handled,
            refused=open_unit.refused,
            repeats=repeats,
            tallies=open_unit.tallies,
            due=open_unit.due,
        )
        self.handled += sum(unit.handled.values())
        self.refused.update(one.code for one in unit.refused)
        self.tallies.update(unit.tallies)
        self.dropped += repeats
        self._open_unit()
        self._room = 1 if self.suspects.careful else min(self.limits.unit_records, self._room * 2)
        return unit

    def _touched(self) -> list[tuple[Store, bytes, Entry]]:
        """The entries that the unit changes; those whose changes were all undone are put back."""
        touched = []
        for store, key, entry in self._unit.dirty:
            if not store.is_untouched(entry):
                touched.append((store, key, entry))
            elif not entry.raw:  # nothing is stored, nor under way, since the unit before is acknowledged
                store.forget(key)
            else:
                entry.log = None
        return touched

    def _take_back(self, code: str) -> Rewind:
        open_unit = self._unit
        alone = open_unit.count == 1
        if alone and open_unit.fired:
            self.timers.poisoned[open_unit.fired] = code
        for source in self.sources.values():
            if alone and not open_unit.fired and source.next != source.sealed:
                source.poisoned[source.next - 1] = code
            source.rewind()
        self.timers.rewind()
        self._upstreams.rewind()
        self._once.rewind()
        for store, key, _ in open_unit.dirty:
            store.forget(key)
        self._room = max(1, open_unit.count // 2)
        self._open_unit()
        return Rewind({topic: source.sealed for topic, source in self.sources.items()})

    def _open_unit(self) -> None:
        self._unit = self._handling.unit = OpenUnit(self._collect(self.incarnation, self.sequence + 1))
        if self._tables:
            self._handling.rows = UnitRows(self._tables)

    # -- what others may read ------------------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Whether the lane has never committed anything."""
        return self._header is None

    def stored(self, reactor: str, key: bytes) -> bytes | None:
        """JSON of the last acknowledged state of *reactor* under *key*, or ``None``; in the current version.

        Raises :class:`StateUndecodableError` if it is not to be had in that version.
        """
        store = self._store(reactor)
        raw = self.raw(reactor, key)
        return None if raw is None or store is None else current_json(store.reactor.spec, key, raw)

    def raw(self, reactor: str, key: bytes) -> bytes | None:
        """The last acknowledged state of *reactor* under *key* as the changelog has it, or ``None``."""
        store = self._store(reactor)
        return None if store is None else self.shelf.get(changelog.state_key(store.reactor.prefix, key))

    def entries(self, reactor: str, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Subkeys and values of the entries that the last acknowledged state of *reactor* under *key* has in its maps, as the
        changelog has them. To be taken before the lane goes on."""
        store = self._store(reactor)
        if store is not None:
            at = changelog.state_key(store.reactor.prefix, key)
            for name, value in self.shelf.entries(*changelog.entries_range(at)):
                yield name[len(at) :], value

    def keys(self, reactor: str) -> Iterator[bytes]:
        """The keys of *reactor*'s acknowledged states, each once, in no order.

        They may be taken in pieces while the lane goes on; keys that are new meanwhile may be left out.
        """
        store = self._store(reactor)
        if store is not None:
            for key in self.shelf.keys(store.reactor.prefix):
                yield changelog.parse_state_key(key)[1]

    def _store(self, reactor: str) -> Store | None:
        return next((store for store in self.stores if store.reactor.spec.id == reactor), None)

    @property
    def positions(self) -> Mapping[str, int]:
        """Next offset of each source topic, the open unit included."""
        return {topic: source.next for topic, source in self.sources.items()}
