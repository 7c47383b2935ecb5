"""The driver: a whole topology in memory, under a virtual clock, with no broker.

::

    driver = Driver(flights, seed=7)
    token = driver.context(FlightCap.report("/UA/**"))
    driver.send(FlightDeparted(tailnum="N123", carrier="UA", ...), token)
    assert driver.state(Fleet, "N123") == Aircraft(legs=1)
    assert driver.dead_letters() == []

Every lane is the one that a worker runs, and every token is signed and verified. What the driver stands in for is Kafka,
so it says nothing about Kafka. Sizes of micro-batches and the order of the lanes' actions are drawn from the seed: a
topology that depends on either fails under some seed, and the same way under that seed again.
"""

import asyncio
import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeVar

import orjson
from biscuit_auth import KeyPair, PrivateKey

from pf_stream.backpressure import Counts
from pf_stream.clock import VirtualClock
from pf_stream.core import Authority, GroupPlan, Limits, Narrowing, plan
from pf_stream.core.decoding import decode_whole
from pf_stream.core.records import Header, SourceRecord
from pf_stream.core.sink import sink_plans
from pf_stream.core.tables import TableRows
from pf_stream.core.watermark import WATERMARK_TYPE
from pf_stream.errors import NotFoundError
from pf_stream.model import GlobalTable, Grant, Intent, Reactor, State, Topology, When
from pf_stream.model._names import nearest
from pf_stream.model.capability import HeldGrant
from pf_stream.security import DEFAULT_LIFETIME_S, SigningKey, TokenError, TrustRoots, Verifier, mint
from pf_stream.security.narrowing import Narrower
from pf_stream.testing._commit import MemoryChangelog
from pf_stream.testing._lanes import ActionKind, MemoryLane
from pf_stream.testing._sinks import Committed, MemorySink, sum_of
from pf_stream.testing._topics import MemoryTopics
from pf_stream.testing.records import DeadLetter, OutputRecord, Position

__all__ = ["Action", "Driver", "Key"]

S = TypeVar("S", bound=State)
R = TypeVar("R")

Key: TypeAlias = str | int | bytes | tuple[str | int, ...]
"""The key of a state: the value of the intent's key field, or the values of several."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a lane did."""

    kind: ActionKind
    """``step``: took records into the open unit. ``fire``: took timers that are due into it. ``commit``: appended the unit to
    its changelog, with its outputs if the topology is transactional. ``rewind``: took the unit back. ``output``: sent
    outputs of a committed unit. ``mark``: noted in the changelog what was sent."""
    group: str
    """Name of the lane's group."""
    partition: int
    """Partition of the lane."""
    to: Position | None = None
    """Where the last of the outputs went, if any were sent."""


class Driver:
    """Runs a topology in memory. Nothing moves its clock but :meth:`advance`."""

    def __init__(
        self,
        topology: Topology,
        *,
        partitions: int = 4,
        seed: int = 0,
        now: datetime | None = None,
        limits: Limits | None = None,
    ) -> None:
        """*partitions* is the number for each topic, *now* the time (with a zone) at which the clock stands."""
        self.seed = seed
        self.clock = VirtualClock() if now is None else VirtualClock(round(now.timestamp() * 1000))
        self.key = self._signing_key(1)
        """Signs what :meth:`context` returns."""
        self.roots = TrustRoots.of(self.key)
        """What the lanes trust, beside the keys of services."""
        self.after_action: Callable[[Action], None] | None = None
        """Called after each action of a lane; it may :meth:`crash` lanes and send intents."""
        self._partitions = partitions
        self._limits = limits or Limits()
        self._dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        self._topics = MemoryTopics(partitions, self.clock)
        self._changelogs: dict[tuple[str, int], MemoryChangelog] = {}
        self._tables: dict[str, TableRows] = {}
        self._past: Counter[str] = Counter()
        self._sent = 0
        self._recent: deque[Action] = deque(maxlen=12)
        self._busy = False
        self._lanes: list[MemoryLane] = []
        self._active: dict[MemoryLane, None] = {}
        self._sinks: list[MemorySink] = []
        self._committed: Committed = {}
        self._sink_counts: dict[tuple[str, int], Counts] = {}
        self._deploy(topology)

    def _signing_key(self, kid: int) -> SigningKey:
        secret = hashlib.sha256(b"pf_stream.testing %d %d" % (self.seed, kid)).hexdigest()
        return SigningKey(kid, KeyPair.from_private_key(PrivateKey(f"ed25519-private/{secret}")))

    def _deploy(self, topology: Topology) -> None:
        for lane in self._lanes:
            lane.crash()
            self._past += lane.past
        self.topology = topology
        self._plans = plan(topology, self._partitions)
        sources = [(group, source) for group in self._plans for source in group.sources]
        self._topics.keeps_time |= {source.topic for _, source in sources if source.internal}
        services = [self._signing_key(service.key) for service in topology.services.values()]
        roots = TrustRoots({**self.roots, **{key.kid: key.public for key in services}})
        verifier = Verifier(roots, topology.namespace, calendars=topology.calendars)
        authority = Authority(verifier)
        self._narrower = Narrower(verifier, roots, {key.kid: key for key in services})
        for table in topology.tables:
            if table.topic not in self._tables or self._tables[table.topic].table != table:
                self._tables[table.topic] = TableRows(table)
        self._lanes = []
        for group in self._plans:
            for partition in range(self._partitions):
                changelog = self._changelogs.setdefault(
                    (group.changelog, partition), MemoryChangelog(group.changelog, partition)
                )
                self._lanes.append(
                    MemoryLane(
                        group,
                        partition,
                        authority,
                        self._limits,
                        self._topics,
                        self._narrow,
                        self._dice,
                        changelog,
                        self._tables,
                    )
                )
        self._readers = {(source.topic, lane.partition): lane for lane in self._lanes for source in lane.plan.sources}
        self._active = dict.fromkeys(self._lanes)
        sinks = sink_plans(topology, self._partitions)
        self._topics.keeps_time |= {sink.topic for sink in sinks}
        self._sinks = [
            MemorySink(
                sink,
                partition,
                self._topics,
                self._committed,
                self._sink_counts.setdefault((sink.sink.name, partition), Counts()),
                self.clock,
            )
            for sink in sinks
            for partition in range(self._partitions)
        ]

    # -- who asks ------------------------------------------------------------------------------------------------------

    def context(
        self,
        *grants: Grant | HeldGrant,
        subject: str = "tester",
        tenant: str | None = None,
        lifetime_s: float = DEFAULT_LIFETIME_S,
        intent_types: Sequence[str] | None = None,
        topics: Sequence[str] | None = None,
        not_before: datetime | None = None,
        session: str | None = None,
        attributes: Mapping[str, str] | None = None,
        authenticated: datetime | None = None,
        during: Sequence[When | str] | None = None,
    ) -> str:
        """A token for *subject* that grants *grants*, from now on for *lifetime_s* seconds; see :func:`security.mint`.

        Raises:
            TokenError: it would never be valid, or a name cannot be in a token.
            DefinitionError: a grant is a template, such as ``report("/{carrier}")``.
        """
        return mint(
            self.key,
            subject=subject,
            audience=self.topology.namespace,
            capabilities=grants,
            now_ms=self.clock.now_ms(),
            tenant=tenant,
            intent_types=intent_types,
            topics=topics,
            lifetime_s=lifetime_s,
            not_before_ms=None if not_before is None else round(not_before.timestamp() * 1000),
            session=session,
            attributes=attributes,
            authenticated_ms=None if authenticated is None else round(authenticated.timestamp() * 1000),
            during=during,
        )

    def _narrow(self, narrowing: Narrowing) -> bytes | None:
        """The token of an emitted intent; ``None`` if it cannot be made, as in the engine."""
        made = self._narrower(narrowing.origin, narrowing.bounds, self.clock.now_ms())
        return None if isinstance(made, TokenError) else made

    # -- what goes in --------------------------------------------------------------------------------------------------

    def send(
        self,
        intent: Intent,
        context: str | None = None,
        *,
        id: str | None = None,  # noqa: A002 - CloudEvents calls it that
        source: str = "/testing",
        time: datetime | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
        deadline: datetime | None = None,
        not_before: datetime | None = None,
        headers: Sequence[Header] = (),
        partition: int | None = None,
    ) -> Position:
        """Append an intent to its topic, and run until nothing is left to do.

        *context* is a token, *id* the event's id (``test-1``, ``test-2``, ... by default), *time* the event's time (now by
        default). *reply_to* may be relative to the namespace. *headers* come behind the others. *partition* overrides
        the partitioner.

        Returns:
            Where the record lies.

        Raises:
            NotFoundError: the topology does not read the intent's topic.
        """
        spec = intent.__intent__
        topic = self.topology.topic_name(spec.topic)
        if (topic, 0) not in self._readers:
            raise NotFoundError(
                f"no reactor of topology {self.topology.name!r} reads {topic}, where {spec.type} travels"
            )
        self._sent += 1
        event: list[Header] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", spec.type.encode()),
            ("ce_source", source.encode()),
            ("ce_id", (f"test-{self._sent}" if id is None else id).encode()),
            ("ce_time", (self.now if time is None else time).isoformat().encode()),
            ("content-type", b"application/json"),
        ]
        for name, value in (
            ("pf-context", context),
            ("pf-reply-to", None if reply_to is None else self.topology.topic_name(reply_to)),
            ("pf-correlation-id", correlation_id),
            ("pf-deadline", None if deadline is None else deadline.isoformat()),
            ("pf-not-before", None if not_before is None else not_before.isoformat()),
        ):
            if value is not None:
                event.append((name, value.encode()))
        return self.send_raw(
            topic,
            key=spec.key_of(intent),
            value=spec.encode(intent),
            headers=[*event, *headers],
            partition=partition,
        )

    def send_raw(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        partition: int | None = None,
        timestamp: datetime | None = None,
    ) -> Position:
        """Append any record to any topic, as any Kafka client could, and run until nothing is left to do.

        *timestamp* is the producer's, which topics with ``LogAppendTime`` ignore.

        Raises:
            NotFoundError: there is no such partition.
        """
        topic = self.topology.topic_name(topic)
        chosen = self._topics.partition_of(key) if partition is None else partition
        if not 0 <= chosen < self._partitions:
            raise NotFoundError(f"{topic} has no partition {chosen}: each topic of this driver has {self._partitions}")
        timestamp_ms = self.clock.now_ms() if timestamp is None else round(timestamp.timestamp() * 1000)
        at = self._topics.append(topic, chosen, key, value, headers, timestamp_ms)
        self._wake(at)
        self._run()
        return at

    def table(self, table: GlobalTable[R], rows: Mapping[str, R | bytes | None]) -> None:
        """Write rows to the topic of a table, by key; ``None`` removes one. All workers have read them at once.

        Bytes are written as they are, as any Kafka client could.

        Raises:
            NotFoundError: the topology does not have the table.
            TableFullError, TableRowError: where a worker would end.
        """
        if table not in self.topology.tables:
            raise NotFoundError(f"topology {self.topology.name!r} has no such table of {table.topic!r}; {self!r}")
        now_ms = self.clock.now_ms()
        records = [
            SourceRecord(
                offset, now_ms, key.encode(), row if row is None or isinstance(row, bytes) else table.encode(row), ()
            )
            for offset, (key, row) in enumerate(rows.items())
        ]
        self._tables[table.topic].read(0, records)

    # -- time and misfortune -------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The virtual time, UTC."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    def advance(self, duration: timedelta | float) -> None:
        """Move the clock by *duration*, in seconds if it is a number, and run until nothing is left to do.

        It stops wherever something is due on the way, so that a timer which sets the next one has the time that it would
        have had.
        """
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        until_ms = self.clock.now_ms() + round(seconds * 1000)
        self._run()  # what lanes are told when they begin has no other time
        while True:
            now_ms = self.clock.now_ms()
            waiting: tuple[MemoryLane | MemorySink, ...] = () if self._busy else (*self._lanes, *self._sinks)
            stops = (one.wakes_ms(now_ms) for one in waiting)
            at_ms = min([until_ms, *(stop for stop in stops if stop is not None)])
            self.clock.advance((at_ms - now_ms) / 1000)
            self._active = dict.fromkeys(self._lanes)
            self._run()
            if at_ms >= until_ms:
                return

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No lane runs within: records pile up, as if all workers were down. At the end they run."""
        busy, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = busy
        self._run()

    def crash(self, group: str | None = None, partition: int | None = None) -> None:
        """Kill lanes, all or those of a group or partition: their memory is lost, and made again from the changelog.

        Sinks, unless a group is named, lose their buffers, and go on where they have committed: the last batch may come again.

        Within :attr:`after_action` this happens between two actions, such as an append and its outputs.
        """
        for lane in self._lanes:
            if group in {None, lane.plan.name} and partition in {None, lane.partition}:
                lane.crash()
                self._active[lane] = None
        if group is None:
            for sink in self._sinks:
                if partition in {None, sink.partition}:
                    sink.crash(self._dice)
        self._run()

    def drain(self, sink: str | None = None, *, takes_s: float = 0.0) -> int:
        """Give the consumer of a sink, or of all, what may be handed over now; returns how many records they took.

        Until then what the topology writes fills the sink's buffer, and its strategy decides when that is full. The consumer
        runs to its end in an event loop of its own, a partition after the other; *takes_s* is for how long the clock moves on
        at each call, and it moves on in the pauses of ``on_error``. With a rate, the rest waits for :meth:`advance`.

        Raises:
            NotFoundError: the topology has no such sink.
            NewerVersionError: a record is of a newer version of its type, at which a worker's sink stops.
        """
        chosen = self._sinks_of(sink)
        handed = 0
        with asyncio.Runner() as runner:
            while True:
                taken = [one.hand_over(runner, takes_s, self.advance, self._run) for one in chosen]
                handed += sum(count or 0 for count in taken)
                if not any(count is not None for count in taken):
                    return handed

    def _sinks_of(self, name: str | None) -> list[MemorySink]:
        names = [sink.name for sink in self.topology.sinks]
        if name is not None and name not in names:
            raise NotFoundError(f"topology {self.topology.name!r} has no sink {name!r}{nearest(name, names)}")
        return [one for one in self._sinks if name in {None, one.plan.sink.name}]

    def redeploy(self, topology: Topology) -> None:
        """Stop all lanes and start *topology* on the same topics and changelogs, as a new version of this one."""
        self._deploy(topology)
        self._run()

    def _wake(self, at: Position) -> None:
        reader = self._readers.get((at.topic, at.partition))
        if reader is not None:
            self._active[reader] = None

    def _run(self) -> None:
        """Let lanes act, in an order that the seed decides, until none has anything to do."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._active:
                lane = self._dice.choice(list(self._active))
                ready = lane.ready(self.clock.now_ms())
                if not ready:
                    del self._active[lane]
                    continue
                kind, to = lane.do(self._dice.choice(ready), self.clock.now_ms())
                for at in to:
                    self._wake(at)
                action = Action(kind, lane.plan.name, lane.partition, to[-1] if to else None)
                self._recent.append(action)
                if self.after_action is not None:
                    self.after_action(action)
            for sink in self._sinks:
                sink.fill()
        except Exception as error:
            recent = ", ".join(f"{action.kind} {action.group}/{action.partition}" for action in self._recent)
            error.add_note(f"{self!r}; last actions: {recent or 'none'}")
            raise
        finally:
            self._busy = False

    # -- what comes out ------------------------------------------------------------------------------------------------

    def outputs(self, topic: str) -> list[OutputRecord]:
        """What the topology wrote to a topic, in the order of arrival; *topic* may be relative to the namespace.

        After a crash some records may be there twice, with the same ``pf-source``: that is what readers of Kafka get.
        Records that tell of nothing but the event clock are left out.

        Raises:
            NotFoundError: the topology never writes to such a topic.
        """
        known = self._output_topics() | self._topics.written.keys()
        within = f"{self.topology.namespace}.{topic}"
        name = within if within in known else self.topology.topic_name(topic)
        if name not in known and not self._is_reply(name):
            raise NotFoundError(
                f"topology {self.topology.name!r} has no topic {name!r}{nearest(name, known)}; {self!r}"
            )
        written = self._topics.written.get(name, ())
        return [record for record in written if record.header("ce_type") != WATERMARK_TYPE]

    def replies(self, topic: str | None = None) -> list[OutputRecord]:
        """Replies, in the order of arrival: of all reply topics, or of one."""
        if topic is not None:
            return self.outputs(topic)
        return [
            record for name in sorted(self._topics.written) if self._is_reply(name) for record in self.outputs(name)
        ]

    def dead_letters(self) -> list[DeadLetter]:
        """Every record that was refused, by topic, in the order of arrival."""
        return [
            DeadLetter.of(record)
            for name in sorted(self._topics.written)
            if name.endswith(".dlq")
            for record in self._topics.written[name]
        ]

    def state(self, reactor: type[Reactor[S]], key: Key) -> S | None:
        """The acknowledged state of *reactor* under *key*, or ``None`` if it has none.

        Raises:
            NotFoundError: the topology has no such reactor.
        """
        spec = reactor.__reactor__
        if reactor not in self.topology.reactors:
            names = [known.__name__ for known in self.topology.reactors]
            raise NotFoundError(
                f"topology {self.topology.name!r} has no reactor {reactor.__name__}{nearest(reactor.__name__, names)}"
            )
        raw = _key(key)
        partition = self._topics.partition_of(raw)
        for lane in self._lanes:
            if lane.partition == partition and any(known.spec is spec for known in lane.plan.reactors):
                stored = lane.lane.stored(spec.id, raw)
                if stored is not None:
                    state: S = decode_whole(spec, raw, stored, lane.lane.entries(spec.id, raw))
                    return state
        return None

    @property
    def refused(self) -> Counter[str]:
        """How many records were refused, by code."""
        counts = Counter(self._past)
        for lane in self._lanes:
            counts += lane.past + lane.lane.refused
        return counts

    @property
    def tallies(self) -> Counter[tuple[str, str]]:
        """What reactors counted, by reactor's id and name; a lane that crashed begins anew."""
        counts: Counter[tuple[str, str]] = Counter()
        for lane in self._lanes:
            counts += lane.lane.tallies
        return counts

    @property
    def windows(self) -> Counter[str]:
        """Windows that are open, by the id of the reactor that a stage became (``{pipeline}-{stage}``)."""
        counts: Counter[str] = Counter()
        for lane in self._lanes:
            counts += lane.lane.windows
        return counts

    def sink_counts(self, sink: str) -> Counts:
        """What a sink did, over its partitions: how many records it took in, handed over and dropped, and why.

        Raises:
            NotFoundError: the topology has no such sink.
        """
        return sum_of([one.counts for one in self._sinks_of(sink)])

    @property
    def groups(self) -> tuple[GroupPlan, ...]:
        """The topology's groups, as compiled for the lanes."""
        return self._plans

    def _output_topics(self) -> set[str]:
        topics = {emit.topic for group in self._plans for emit in group.emits.values()}
        for group in self._plans:
            for source in group.sources:
                topics |= {source.dead_letters, source.topic}
        return topics | {sink.plan.dead_letters for sink in self._sinks}

    def _is_reply(self, name: str) -> bool:
        patterns = self.topology.reply_patterns
        return any(fnmatchcase(name, pattern) for pattern in patterns) and name not in self._output_topics()

    def __repr__(self) -> str:
        return f"<Driver {self.topology.name} seed={self.seed} now={self.now:%Y-%m-%dT%H:%M:%SZ}>"


def _key(key: Key) -> bytes:
    match key:
        case bytes():
            return key
        case tuple():
            return orjson.dumps([str(part) for part in key])
        case _:
            return str(key).encode()
