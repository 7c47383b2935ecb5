"""What the topology made of the flights: its changelogs, dead letters and results, followed as they are written."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from pydantic import TypeAdapter

from flights import Aircraft, Board, Carrier
from nyc.data import Outcomes, Totals
from pf_stream.core import changelog
from pf_stream.core.plan import GroupPlan, plan
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.link import ConnectionSettings, Partition
from pf_stream.model import State, Topology

__all__ = ["TOLD", "DeadLetter", "Results"]

TOLD: Final = ("hourly", "days", "overdue")
"""Topics of what is told of hours, days and flights that are overdue."""
WINDOWS: Final = ("hourly-window", "days-window")
"""Reactors of which no state is left when all is told."""

S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An intent that was refused."""

    topic: str
    """The dead-letter topic."""
    id: str
    """``ce_id`` of the intent."""
    code: str
    """Why it was refused."""
    source: str
    """Its ``pf-source``: equal where the same one was sent again after a crash."""


class _Lane:
    """What one changelog partition says."""

    def __init__(self, group: GroupPlan, partition: int) -> None:
        self.group = group
        self.partition = partition
        self.values: dict[bytes, bytes] = {}
        self.positions: dict[Partition, int] = {}
        """How far the lane has come in each source partition, by its last whole unit."""
        self.next = 0
        """Offset behind the last record taken."""
        self.units = 0
        """Units that were committed."""
        self.open = 0
        """Keys that have windows which are open."""
        self.commits: list[int] = []
        """Times of the first and the last unit that decided something, in milliseconds since the epoch."""
        self._windows = tuple(changelog.state_prefix(reactor) for reactor in WINDOWS)
        self._keys = {
            changelog.watermark_key(reader.spec.id, source.topic): (source.topic, partition)
            for source in group.sources
            for reader in source.readers
        }

    def take(self, offset: int, time_ms: int, key: bytes, value: bytes | None) -> None:
        self.next = offset + 1
        if key.startswith(self._windows):
            self.open += (value is not None) - (key in self.values)
        if value is None:
            self.values.pop(key, None)
            return
        self.values[key] = value
        if key in self._keys:
            self.commits = [*self.commits[:1], time_ms]
        elif key == changelog.UNIT:  # comes after what else the unit says
            self.units += 1
            for watermark, source in self._keys.items():
                if watermark in self.values:
                    self.positions[source] = changelog.WATERMARK_VALUE.unpack(self.values[watermark])[0]

    def is_done(self, ends: dict[Partition, int]) -> bool:
        """Whether nothing is left to read, to decide or to send; *ends* were asked for after all this was taken."""
        return (
            self.next >= ends[self.group.changelog, self.partition]
            and all(
                self.positions.get((source.topic, self.partition), 0) >= ends[source.topic, self.partition]
                for source in self.group.sources
            )
            and not self.unsent
        )

    @property
    def unsent(self) -> int:
        """Outputs that are decided and not known to be sent."""
        _, sent = changelog.UNIT_VALUE.unpack(self.values.get(changelog.UNIT, bytes(changelog.UNIT_VALUE.size)))
        return sum(key.startswith(b"\x01o") and changelog.OUTBOX_KEY.unpack(key)[1] > sent for key in self.values)


class Results:
    """Follows the changelogs and dead letters of the flights topology from their beginning."""

    def __init__(
        self,
        connection: ConnectionSettings,
        topology: Topology,
        partitions: int,
        *,
        reactors: Collection[str] = ("fleet", "board", "carriers"),
        told: Collection[str] = TOLD,
    ) -> None:
        """*reactors* are ids; what others do is not followed. Nor are topics that are not among those of *told*."""
        self._admin = Admin(connection)
        self._topology = topology
        self._groups = [
            group
            for group in plan(topology, partitions)
            if any(reactor.spec.id in reactors for reactor in group.reactors)
        ]
        self._numbers = range(partitions)
        self._lanes = {
            (group.changelog, number): _Lane(group, number) for group in self._groups for number in self._numbers
        }
        self._told: dict[str, list[bytes]] = {topology.topic_name(topic): [] for topic in told}
        """By full name of the topic: values of its records; one that was sent again after a crash is there once."""
        dead = {source.dead_letters for group in self._groups for source in group.sources}
        self._next = dict.fromkeys(((topic, n) for topic in sorted(dead | self._told.keys()) for n in self._numbers), 0)
        """Offsets behind the last records taken of what is no changelog."""
        self.dead_letters: list[DeadLetter] = []
        """All dead letters, of all topics; one that was sent again after a crash is listed once."""
        self.repeated = 0
        """Dead letters and results that were sent again."""
        self._sources: set[str] = set()
        self._consumer = Consumer(
            connection.for_librdkafka()
            | {"log_level": 0, "group.id": "results", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        )
        self._consumer.assign([TopicPartition(*at, 0) for at in (*self._lanes, *self._next)])

    def close(self) -> None:
        """Stop following."""
        self._consumer.close()

    def advance(self, seconds: float) -> None:
        """Take what has come, or wait for it, at most so long."""
        for message in self._consumer.consume(10_000, seconds):
            error = message.error()
            if error is not None:
                if error.retriable():
                    continue
                raise KafkaException(error)
            at: Any = message.topic(), message.partition()
            lane = self._lanes.get(at)
            if lane is not None:
                lane.take(message.offset() or 0, message.timestamp()[1], message.key() or b"", message.value())
                continue
            self._next[at] = (message.offset() or 0) + 1
            headers = {name: (value or b"").decode(errors="replace") for name, value in _headers(message)}
            source = headers.get("pf-source", "")
            if source in self._sources:
                self.repeated += 1
                continue
            self._sources.add(source)
            if at[0] in self._told:
                self._told[at[0]].append(message.value() or b"")
            else:
                id_, code = headers.get("ce_id", ""), headers.get("pf-error-code", "")
                self.dead_letters.append(DeadLetter(at[0], id_, code, source))

    def catch_up(self) -> None:
        """Take all that there is by now."""
        ends = self._admin.offsets([*self._lanes, *self._next], "end")
        while any(lane.next < ends[at] for at, lane in self._lanes.items()) or any(
            offset < ends[at] for at, offset in self._next.items()
        ):
            self.advance(0.2)

    def decided(self, topic: str = "intents") -> int:
        """Records of a source topic that are decided, durably."""
        name = self._topology.topic_name(topic)
        return sum(lane.positions.get((name, lane.partition), 0) for lane in self._lanes.values())

    @property
    def unsent(self) -> int:
        """Outputs that are decided and not known to be sent, in batches."""
        return sum(lane.unsent for lane in self._lanes.values())

    @property
    def units(self) -> int:
        """Units that were committed."""
        return sum(lane.units for lane in self._lanes.values())

    @property
    def seconds(self) -> float:
        """From the first commit to the last one that decided something, by the worker's clock."""
        times = [time for lane in self._lanes.values() for time in lane.commits]
        return (max(times) - min(times)) / 1000

    @property
    def position(self) -> int:
        """Grows whenever any lane gets further."""
        return sum(lane.next for lane in self._lanes.values())

    def complete(self) -> bool:
        """Whether nothing is left to do anywhere; only to be asked when the producers have finished.

        Not a wait for silence: the lanes had sent all that they had decided, and later no source topic has a record that
        was not decided then. So there is nothing from which something new could come, but for what the lanes tell each
        other of the time; and no window is open that waits for that.
        """
        if any(lane.open for lane in self._lanes.values()):
            return False
        sources = [
            (source.topic, number) for number in self._numbers for group in self._groups for source in group.sources
        ]
        ends = self._admin.offsets([*sources, *self._lanes, *self._next], "end")
        return all(lane.is_done(ends) for lane in self._lanes.values()) and all(
            offset >= ends[at] for at, offset in self._next.items()
        )

    def totals(self) -> Totals:
        """The states of all reactors."""
        boards = self._states("board", Board)
        carriers = self._states("carriers", Carrier)
        fleet = self._states("fleet", Aircraft)
        return Totals(
            {key: (one.flights, one.cancelled, one.minutes_late, one.worst) for key, one in boards.items()},
            {key: (one.flights, one.cancelled, one.minutes_late, one.miles) for key, one in carriers.items()},
            {key: (one.legs, one.cancelled, one.minutes_late, one.miles) for key, one in fleet.items()},
        )

    def outcomes(self) -> Outcomes:
        """What was told of hours, days and flights that are overdue."""
        hours, days, overdue = (
            [orjson.loads(value) for value in self._told[self._topology.topic_name(topic)]] for topic in TOLD
        )
        return Outcomes(
            {f"{one['origin']} {one['hour']}": (one["flights"], one["cancelled"], one["delay"]) for one in hours},
            {f"{one['tailnum']} {one['start']}": (one["end"], one["legs"], one["miles"]) for one in days},
            {f"{one['carrier']}{one['flight']} {one['tailnum']} {one['due']}": one["origin"] for one in overdue},
        )

    def differences(self, expected: Totals, refused: Mapping[str, str], told: Outcomes | None = None) -> list[str]:
        """What is not as it must be, in words.

        *refused* has the codes of what must be refused, by the intents' ids; *told* what must be told, unless that was not
        followed.
        """
        found = self.totals()
        codes = {letter.id: letter.code for letter in self.dead_letters}
        faults = [
            *_differences("airport", expected.airports, found.airports),
            *_differences("carrier", expected.carriers, found.carriers),
            *_differences("aircraft", expected.aircraft, found.aircraft),
            *_differences("refusal of", refused, codes),
        ]
        if len(codes) != len(self.dead_letters):
            faults.append(f"{len(self.dead_letters)} dead letters for {len(codes)} intents")
        return faults if told is None else [*faults, *self._told_differences(told)]

    def _told_differences(self, expected: Outcomes) -> Iterator[str]:
        found = self.outcomes()
        yield from _differences("hour", expected.hours, found.hours)
        yield from _differences("day", expected.days, found.days)
        yield from _differences("alert of", expected.overdue, found.overdue)
        count = sum(len(values) for values in self._told.values())
        once = len(found.hours) + len(found.days) + len(found.overdue)
        if count != once:
            yield f"{count:,} results where each once makes {once:,}"

    def _states(self, reactor: str, model: type[S]) -> dict[str, S]:
        prefix = changelog.state_prefix(reactor)
        decode = TypeAdapter(model).validate_json
        return {
            changelog.parse_state_key(key)[1].decode(): decode(value[changelog.STATE_PREFIX.size :])
            for lane in self._lanes.values()
            for key, value in lane.values.items()
            if key.startswith(prefix)
        }


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    found: Any = message.headers()  # annotated as if text could come; it is always bytes
    return found or []


def _differences(what: str, expected: Mapping[str, object], found: Mapping[str, object]) -> Iterator[str]:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            yield f"{what} {key}: {found.get(key)} instead of {expected.get(key)}"
