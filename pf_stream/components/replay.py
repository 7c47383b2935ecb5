"""Dead letters sent again, each once.

What was sent again is remembered on the topic ``__pf.replays``, by records that are written in one Kafka transaction with
the letters that they are about: a crash leaves both or neither. One command at a time may replay a topic of dead letters,
the one that took the topic's transactional id last; it reads the memory after it has it.
"""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import orjson

from pf_stream.clock import Clock
from pf_stream.components.dead_letters import SUFFIX, check_code
from pf_stream.core.admission import Admission
from pf_stream.core.authorise import Authority
from pf_stream.core.delivery import Delivery
from pf_stream.core.limits import Limits
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import GroupPlan, SourcePlan, plan
from pf_stream.core.records import APPEND_TIME, CREATE_TIME, Header, SourceRecord
from pf_stream.core.sink import sink_plans
from pf_stream.core.source import Source
from pf_stream.errors import NotFoundError, PFError
from pf_stream.kafka.admin import Admin, NewTopicSpec, TopicInfo
from pf_stream.kafka.errors import KafkaError, TopicMissingError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reader import TopicRecord, read_topic
from pf_stream.kafka.sender import NewRecord, TransactionalSender
from pf_stream.kafka.topics import REPLAYS
from pf_stream.model import Topology
from pf_stream.model._names import nearest
from pf_stream.security import Refusal, TokenInfo, TrustRoots, Verifier, describe

__all__ = ["Caller", "ContextRefusedError", "Letters", "Replay", "Replayer", "select_letters"]

BATCH: Final = 500
"""Most letters of one transaction."""
BATCH_BYTES: Final = 8 << 20
"""Most bytes of keys and values of one transaction, but for one letter that is larger."""
QUIET_S: Final = 30.0
"""How long others' open transactions are waited for: the broker ends them after ten seconds."""

_ADDED: Final = frozenset(
    {
        "pf-context",
        "pf-error-code",
        "pf-revocation-ids",
        "pf-replayed-from",
        "pf-source",
        "pf-hops",
        "pf-rerouted",
        "pf-watermark",
    }
)
_ADDED_PREFIX: Final = "__streams.errors."


class ContextRefusedError(PFError):
    """Raised when no letter can be replayed with the context that was given."""

    code = "context_refused"

    def __init__(self, code: str, reason: str) -> None:
        self.reason_code = code
        super().__init__(f"the context would be refused ({code}): {reason}; make another one: pf context mint")


@dataclass(frozen=True, slots=True)
class Letters:
    """Which dead letters of a topic are meant."""

    topic: str
    """Topic of dead letters."""
    positions: tuple[tuple[int, int], ...] = ()
    """Only these, partition and offset; all, if empty."""
    code: str | None = None
    """Only what was refused for this."""
    since_ms: int | None = None
    """Only what was refused then or later, milliseconds since the epoch."""


def select_letters(
    topic: str,
    positions: Sequence[tuple[int, int]] = (),
    code: str | None = None,
    since_ms: int | None = None,
) -> Letters:
    """The letters that are meant.

    Raises:
        NotFoundError: there is no such code, or the topic is none of dead letters.
    """
    if code is not None:
        check_code(code)
    if not topic.endswith(SUFFIX):
        raise NotFoundError(f"{topic} is no topic of dead letters; their names end with {SUFFIX}")
    return Letters(topic, tuple(positions), code, since_ms)


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose authority letters are sent again."""

    token: str
    """The fresh context."""
    topology: Topology | None
    """The topology that will handle them, if it is known: then letters of its internal topics can be sent again."""
    roots: TrustRoots | None
    """Whose tokens its workers believe, if that is known: then each letter is judged as they will judge it."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What becomes of one dead letter."""

    letter: str
    """Where it lies: ``topic:partition:offset``."""
    code: str
    """Why it was refused."""
    key: str | None
    """Its key, as text."""
    target: str
    """Where it goes: ``topic:partition``, and ``:offset`` once it is there."""
    obstacle: str | None
    """Why it is not sent again."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    replay: Replay
    record: NewRecord


class Replayer:
    """Sends the chosen letters of one topic again.

    Raises :class:`ContextRefusedError` if the context is expired or for another namespace, :class:`TopicMissingError` if the
    topic of dead letters or the one that they came from does not exist.
    """

    def __init__(self, settings: ConnectionSettings, letters: Letters, caller: Caller, clock: Clock) -> None:
        self._settings = settings
        self._letters = letters
        self._admin = Admin(settings)
        self._caller = caller
        self._clock = clock
        self._target = letters.topic.removesuffix(SUFFIX)
        found = self._admin.topics([letters.topic, self._target])
        missing = [topic for topic in (letters.topic, self._target) if topic not in found]
        if missing:
            raise TopicMissingError(missing, "See what there is: pf topics list")
        self._from: TopicInfo = found[letters.topic]
        self._partitions = found[self._target].partitions
        self._who = describe(caller.token)
        self._judge = _Judge(self._target, caller, self._partitions)
        self._check_context()
        # Readers of internal topics drop repeats by it, so it must ascend; a random name makes the run one of its own.
        self._run = f"replay-{secrets.token_hex(4)}"
        self._internal = self._judge.internal

    def _check_context(self) -> None:
        refused = self._judge.context(self._who, self._clock.now_ms())
        if refused is not None:
            raise ContextRefusedError(*refused)

    @property
    def size(self) -> int:
        """How many records have to be looked at, at most."""
        if self._letters.positions:
            return len(self._letters.positions)
        begins, ends = self._begins(), self._ends()
        return sum(ends[number] - begin for number, begin in begins.items())

    def preview(self, *, again: bool = False) -> Iterator[Replay]:
        """What :meth:`execute` would do. Nothing is written."""
        memory = self._memory() if REPLAYS in self._admin.topics([REPLAYS]) else _Memory({}, {})
        for prepared in self._prepare(memory, again=again):
            yield prepared.replay

    def execute(self, *, again: bool = False) -> Iterator[Replay]:
        """Send the letters, and give each as soon as it is committed, in any case one after the other.

        Raises:
            SupersededError: another command replays this topic now. Letters that were given are sent, no others.
        """
        # Kept for ever: who acted in whose name must be known for longer than the letters are kept.
        settings = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
        self._admin.create([NewTopicSpec(REPLAYS, 1, settings)], min(3, self._admin.brokers()))
        sender = TransactionalSender(self._settings, f"{self._letters.topic}-replay")
        self._wait_for_memory()
        memory = self._memory()
        batch: list[_Prepared] = []
        size = unit = 0
        for prepared in self._prepare(memory, again=again):
            length = len(prepared.record.key or b"") + len(prepared.record.value or b"")
            if batch and (len(batch) >= BATCH or size + length > BATCH_BYTES):
                unit += 1
                yield from self._commit(sender, batch, unit)
                batch, size = [], 0
            batch.append(prepared)
            size += length
        if batch:
            yield from self._commit(sender, batch, unit + 1)

    def _commit(self, sender: TransactionalSender, batch: Sequence[_Prepared], unit: int) -> Iterator[Replay]:
        going = [(index, prepared) for index, prepared in enumerate(batch) if prepared.replay.obstacle is None]
        done = [prepared.replay for prepared in batch]
        if going:
            self._check_context()  # it may expire while much is sent
            with sender.transaction():
                sent = sender.send(self._numbered(prepared.record, unit, index) for index, prepared in going)
                for (index, prepared), position in zip(going, sent, strict=True):
                    done[index] = replace(prepared.replay, target=":".join(map(str, position)))
                sender.send([self._note(done[index]) for index, _ in going])
        yield from done

    def _numbered(self, record: NewRecord, unit: int, index: int) -> NewRecord:
        if not self._internal:
            return record
        origin: Header = ("pf-source", f"{self._run}:{unit}:{index}".encode())
        return replace(record, headers=[*record.headers, origin])

    def _note(self, replay: Replay) -> NewRecord:
        note = {
            "letter": replay.letter,
            "topic_id": self._from.id.hex(),
            "target": replay.target,
            "code": replay.code,
            "who": self._who.subject,
            "at_ms": self._clock.now_ms(),
        }
        return NewRecord(REPLAYS, replay.letter.encode(), orjson.dumps(note), (), 0)

    # -- what is read --------------------------------------------------------------------------------------------------

    def _begins(self) -> dict[int, int]:
        numbers = range(self._from.partitions)
        at: Literal["start"] | int = "start" if self._letters.since_ms is None else self._letters.since_ms
        found = self._admin.offsets([(self._letters.topic, number) for number in numbers], at)
        return {number: offset for (_, number), offset in found.items()}

    def _ends(self) -> dict[int, int]:
        numbers = range(self._from.partitions)
        found = self._admin.offsets([(self._letters.topic, number) for number in numbers], "end")
        return {number: offset for (_, number), offset in found.items()}

    def _wait_for_memory(self) -> None:
        """Wait until everything that is in the memory now is committed or aborted, so that it can be read."""
        partition = REPLAYS, 0
        end = self._admin.offsets([partition], "end")[partition]
        deadline = time.monotonic() + QUIET_S
        while self._admin.offsets([partition], "end", committed=True)[partition] < end:
            if time.monotonic() > deadline:
                raise KafkaError(f"a transaction on {REPLAYS} has been open for {QUIET_S:.0f} s; try again later")
            time.sleep(0.05)

    def _memory(self) -> "_Memory":
        topic = self._letters.topic
        numbers = [(topic, number) for number in range(self._from.partitions)]
        begins = self._admin.offsets(numbers, "start")
        memory = _Memory({n: offset for (_, n), offset in begins.items()}, self._ends())
        prefix = f"{topic}:".encode()
        wanted = self._from.id.hex()
        for record in read_topic(self._settings, REPLAYS):
            if record.key is not None and record.key.startswith(prefix) and record.value is not None:
                note = orjson.loads(record.value)
                if note["topic_id"] == wanted:  # else the topic was made anew, and its offsets mean other letters
                    _, partition, offset = note["letter"].rsplit(":", 2)
                    memory.add(int(partition), int(offset))
        return memory

    def _records(self) -> Iterator[TopicRecord]:
        letters = self._letters
        if not letters.positions:
            start = None if letters.since_ms is None else self._begins()
            yield from read_topic(self._settings, letters.topic, start=start)
            return
        wanted: dict[int, set[int]] = {}
        for partition, offset in letters.positions:
            wanted.setdefault(partition, set()).add(offset)
        found: list[TopicRecord] = []
        for partition, offsets in sorted(wanted.items()):
            first = min(offsets)
            span = max(offsets) - first + 1
            read = read_topic(self._settings, letters.topic, partitions=[partition], start=first, count=span)
            found += [record for record in read if record.offset in offsets]
            missing = offsets - {record.offset for record in found if record.partition == partition}
            if missing:  # none is sent before all are found
                raise NotFoundError(f"there is no dead letter at {letters.topic}:{partition}:{min(missing)}")
        yield from found

    def _prepare(self, memory: "_Memory", *, again: bool) -> Iterator[_Prepared]:
        letters = self._letters
        for record in self._records():
            code = record.header("pf-error-code") or "unknown"
            if letters.code not in {None, code} or record.timestamp < (letters.since_ms or 0):
                continue
            key = record.key
            partition = None if key is None else partition_of(key, self._partitions)
            position = f"{record.topic}:{record.partition}:{record.offset}"
            headers = _fresh(record.headers, self._caller.token, position)
            done = not again and (record.partition, record.offset) in memory
            now_ms = self._clock.now_ms()
            obstacle = (
                "already replayed; --again does it again" if done else self._judge.letter(record, headers, now_ms)
            )
            shown = None if key is None else key.decode(errors="replace")
            target = f"{self._target}:{'-' if partition is None else partition}"
            yield _Prepared(
                Replay(position, code, shown, target, obstacle),
                NewRecord(self._target, key, record.value, headers, partition),
            )


class _Memory:
    """Which letters were replayed: a bit for each offset that the topic still holds."""

    def __init__(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> None:
        self._begins = dict(begins)
        self._bits = {number: bytearray((ends[number] - begin + 7) // 8) for number, begin in begins.items()}

    def add(self, partition: int, offset: int) -> None:
        at = self._at(partition, offset)
        if at is not None:
            self._bits[partition][at >> 3] |= 1 << (at & 7)

    def __contains__(self, letter: tuple[int, int]) -> bool:
        at = self._at(*letter)
        return at is not None and bool(self._bits[letter[0]][at >> 3] >> (at & 7) & 1)

    def _at(self, partition: int, offset: int) -> int | None:
        at = offset - self._begins.get(partition, 0)
        return at if partition in self._bits and 0 <= at < 8 * len(self._bits[partition]) else None


def _fresh(headers: Iterable[Header], token: str, position: str) -> list[Header]:
    """The headers that the record had when it was sent first, with another context, and where it comes from."""
    kept = [(name, raw) for name, raw in headers if name not in _ADDED and not name.startswith(_ADDED_PREFIX)]
    return [*kept, ("pf-context", token.encode()), ("pf-replayed-from", position.encode())]


class _Judge:
    """Says beforehand, as far as it is told enough, what a worker would say."""

    def __init__(self, target: str, caller: Caller, partitions: int) -> None:
        self._target = target
        self._caller = caller
        self._verifier: Verifier | None = None
        self._admission: Admission | None = None
        self._source: SourcePlan | None = None
        self.internal = False
        topology = caller.topology
        if topology is not None:
            if caller.roots is not None:
                self._verifier = Verifier(caller.roots, topology.namespace, calendars=topology.calendars)
            if any(drain.topic == target for drain in sink_plans(topology, partitions)):
                self.internal = True  # a sink asks nobody's leave
                return
            group, self._source = self._find(topology, partitions)
            self.internal = self._source.internal
            if self._verifier is not None:
                self._admission = Admission(group, Authority(self._verifier), Limits())

    def _find(self, topology: Topology, partitions: int) -> tuple[GroupPlan, SourcePlan]:
        sources = {source.topic: (group, source) for group in plan(topology, partitions) for source in group.sources}
        if self._target not in sources:
            raise NotFoundError(
                f"topology {topology.name!r} does not read {self._target}{nearest(self._target, sources)}"
            )
        return sources[self._target]

    def context(self, token: TokenInfo, now_ms: int) -> tuple[str, str] | None:
        """Code and reason if the context would not do for any letter."""
        topology = self._caller.topology
        if topology is None:
            if not self._target.startswith(f"{token.audience}."):
                return "wrong_audience", f"it is for {token.audience!r}, and the letters go to {self._target}"
        elif token.audience != topology.namespace:
            return (
                "wrong_audience",
                f"it is for {token.audience!r}, and the topology's namespace is {topology.namespace!r}",
            )
        if now_ms >= token.expires_ms:
            return "token_expired", "its time is over"
        if now_ms < token.not_before_ms:
            return "token_not_yet_valid", "its time has not come"
        if token.topics is not None and self._target not in token.topics:
            return "wrong_topic", f"it is limited to other topics than {self._target}"
        if self._verifier is not None:
            claims = self._verifier.verify(self._caller.token.encode())
            refusal = claims if isinstance(claims, Refusal) else claims.untimely(now_ms)
            if refusal is not None:
                return refusal.code, refusal.reason
        return None

    def letter(self, record: TopicRecord, headers: Sequence[Header], now_ms: int) -> str | None:
        """Why a letter is not sent again, if it should not be."""
        if record.value is None:
            if record.header("ce_type") is None and record.header("content-type") is None:
                origin = ":".join(record.header(f"__streams.errors.{part}") or "?" for part in _ORIGIN)
                return f"its content was too large to be kept; it was read at {origin}"
            return "it has no value, and would be refused again (null_value)"
        if not record.exact:
            return "one of its header names is no UTF-8, which this command cannot write"
        if self._admission is None or self._source is None:
            return "it has no key, and would be refused again (null_key)" if record.key is None else None
        stamped = CREATE_TIME if self._source.internal else APPEND_TIME
        again = SourceRecord(0, now_ms, record.key, record.value, headers, stamped)
        refusal = self._admission.admit(Delivery(Source(self._source), again, dict(headers), now_ms))
        return None if refusal is None else f"it would be refused again ({refusal.code}): {refusal.reason}"


_ORIGIN: Final = ("topic", "partition", "offset")
