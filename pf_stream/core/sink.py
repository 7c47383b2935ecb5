"""What a sink reads of its topic: which records, each once, and what they say.

The topic is internal, so its records are the engine's own, and what they say of themselves is believed. Whoever caused them
was judged where that was handled.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from pf_stream.core.admission import NewerVersionError
from pf_stream.core.records import Record
from pf_stream.core.source import Mark, parse_origin
from pf_stream.model.context import event_time_ms
from pf_stream.model.intent import IntentSpec
from pf_stream.model.sink import Delivered, Sink
from pf_stream.model.topology import Topology
from pf_stream.model.versions import StepError
from pf_stream.security.refusal import Refusal

__all__ = ["Marks", "SinkPlan", "Taken", "sink_plans"]

_MARKS: Final = 4_000
"""Most bytes of what goes with a committed offset: brokers take 4,096 (``offset.metadata.max.bytes``)."""
_LANES: Final = 10_000
"""Most upstream lanes that are remembered. Each life of a lane is another one."""
_TAKEN: Final = 400
"""What a record takes in memory beside its key and its value, by estimate."""
_versioned = re.compile(rb"([a-z][a-z0-9_.]*)\.v([0-9]{1,9})").fullmatch


class Taken(NamedTuple):
    """What is kept of a record until it is handed over."""

    offset: int
    """Its offset."""
    time_ms: int
    """Its event time, milliseconds since the epoch."""
    kind: bytes
    """Its ``ce_type``."""
    source: bytes
    """Its ``pf-source``."""
    key: bytes
    """Its key."""
    value: bytes
    """Its value."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, by estimate."""
        return _TAKEN + len(self.key) + len(self.value)


class Marks:
    """The last record of each upstream lane, so that what a lane writes again after a crash is recognised."""

    def __init__(self, text: str = "") -> None:
        """From what :meth:`__str__` gave; what is not understood is no mark."""
        self._marks: dict[bytes, Mark] = {}
        for word in text.split():
            origin = parse_origin(word.encode())
            if origin is not None:
                self._marks[origin[0]] = origin[1]

    def note(self, incarnation: bytes, mark: Mark) -> bool:
        """Note a record; ``False`` if it, or one behind it, was noted before."""
        last = self._marks.get(incarnation)
        if last is not None and mark <= last:
            return False
        if last is not None:
            del self._marks[incarnation]  # the one that was heard of last stands last
        elif len(self._marks) >= _LANES:
            del self._marks[next(iter(self._marks))]
        self._marks[incarnation] = mark
        return True

    def copy(self) -> "Marks":
        """The same, to be moved apart from these."""
        copied = Marks()
        copied._marks = dict(self._marks)
        return copied

    def __str__(self) -> str:
        """As text, for the metadata of an offset: as many lanes as fit, those that were heard of last."""
        words: list[str] = []
        left = _MARKS
        for incarnation, (sequence, index) in reversed(self._marks.items()):
            word = f"{incarnation.decode()}:{sequence}:{index}"
            left -= len(word) + 1
            if left < 0:
                break
            words.append(word)
        return " ".join(reversed(words))


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """A sink of a topology."""

    topology: Topology
    """Whose it is."""
    sink: Sink
    """Its declaration."""
    topic: str
    """Full name of the topic that it reads."""
    partitions: int
    """How many that has."""
    others: frozenset[bytes]
    """``ce_type`` of other intents on the topic."""
    versions: Mapping[bytes, int]
    """By ``ce_type``, the version of what it takes."""

    @property
    def dead_letters(self) -> str:
        """Topic of what its consumer does not take."""
        return f"{self.topic}.dlq"

    @property
    def spec(self) -> IntentSpec:
        """The type that it takes."""
        spec: IntentSpec = self.sink.of.__intent__
        return spec

    def take(self, record: Record, marks: Marks) -> Taken | bool:
        """What is to be kept of a record; ``True`` if it is a repeat, ``False`` if it is not of this sink's type."""
        headers: dict[str, Any] = dict(record.headers)
        source = headers.get("pf-source") or b""
        origin = parse_origin(source)
        if origin is not None and not marks.note(*origin):
            return True
        kind = headers.get("ce_type") or b""
        if kind in self.others:
            return False
        time_ms = event_time_ms(headers, record.timestamp)
        return Taken(record.offset, time_ms, kind, source if origin else b"", record.key or b"", record.value or b"")

    def open(self, taken: Taken, partition: int) -> Delivered[Any] | Refusal:
        """What the consumer gets; raises :class:`NewerVersionError`."""
        if not taken.source:
            return Refusal("untrusted_record", "it has no pf-source that an engine writes")
        version = self.versions.get(taken.kind)
        if version is None:
            match = _versioned(taken.kind)
            if match is not None and match[1].decode() == self.spec.name and int(match[2]) > self.spec.version:
                raise NewerVersionError(taken.kind.decode(), self.spec.version, self.topic, taken.offset, self.topology)
            return Refusal("unknown_type", f"{taken.kind!r:.200} is nothing that sink {self.sink.name!r} takes")
        value = taken.value
        try:
            if version != self.spec.version:
                value = self.spec.upcasts.run(value, version)
            intent = self.spec.decode(value)
        except (StepError, ValidationError, ValueError) as error:
            return Refusal("malformed_payload", f"{type(error).__name__} at {taken.kind.decode()}")
        position = self.topic, partition, taken.offset
        own_ms = None if self.spec.time_of is None else self.spec.time_of(intent)
        time_ms = taken.time_ms if own_ms is None else event_time_ms({}, own_ms)
        return Delivered(intent, taken.key, time_ms, taken.source.decode(), position)


def sink_plans(topology: Topology, partitions: int) -> tuple[SinkPlan, ...]:
    """The sinks of a topology whose source topics have *partitions* partitions each."""
    plans = []
    for sink in topology.sinks:
        spec: IntentSpec = sink.of.__intent__
        types = {spec.type: spec.version, **spec.older_types}
        plans.append(
            SinkPlan(
                topology,
                sink,
                topology.topic_name(spec.topic),
                partitions,
                frozenset(
                    kind.encode()
                    for other in topology.intents
                    if other.topic == spec.topic and other is not spec
                    for kind in (other.type, *other.older_types)
                    if kind not in types
                ),
                {kind.encode(): version for kind, version in types.items()},
            )
        )
    return tuple(plans)
