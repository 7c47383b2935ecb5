"""The generator and reader of latency runs: ``python -m bench.peers.rig SPEC``, a JSON object; prints another.

Records are sent at a steady rate, each with its number. Its latency is from the moment it was due to the moment at which
the record that the engine made of it was read, aborted transactions left out. So a generator that is late makes latencies
longer and hides nothing.
"""

import json
import select
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka.record.memory_records import MemoryRecords

from bench.peers.wire import Wire
from bench.peers.workload import HOT_KEYS, Load
from pf_stream.components.pace import percentile
from pf_stream.core.partition import partition_of
from pf_stream.kafka.batch import BatchBuilder

__all__ = ["Heard", "Spec"]

BATCH_BYTES: Final = 1 << 20
BURST: Final = 1_000
"""Most records of a request: a batch of them is well below Kafka's ``max.message.bytes``."""
IN_FLIGHT: Final = 8
"""Produce requests that may be unanswered; what is due meanwhile goes into the next one."""
WAIT_MS: Final = 100
KNOCK_S: Final = 0.2
"""How often a record is sent until the first answer comes."""
OPEN_S: Final = 90.0
"""How long the engine may take until its first answer."""
DRAIN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Spec:
    """What to do."""

    servers: str
    """Kafka."""
    source: str
    """Where to send to."""
    output: str
    """What to read."""
    partitions: int
    """Of each of them."""
    tokens: str
    """File with a token a line."""
    context: str
    """Header for them."""
    rate: int
    """Records a second."""
    warm_s: float
    """Seconds of it before the measurement."""
    measure_s: float
    """Seconds of it that count."""
    began: str
    """File that is made when the measurement begins."""
    linger_s: float
    """How long records wait to go together, as a Kafka producer's do."""
    pause_s: float
    """How long the reader waits from one answer to its next question."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of it."""

    sent: int
    """Records, from the first answer on."""
    answered: int
    """Of those, how many were answered."""
    repeated: int
    """Answers to a record that had one."""
    in_time: float
    """Share of the answers to what was due in the measurement that had come when it ended, of 1."""
    p50_ms: float
    """Latency that half of them do not exceed."""
    p99_ms: float
    """Latency that 99 of 100 do not exceed."""
    most_ms: float
    """The longest."""
    late_ms: float
    """How late the generator was at most."""


class Rig:
    """One thread, two sockets."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        tokens = Path(spec.tokens).read_bytes().split()
        self._load = Load(tokens, spec.context, HOT_KEYS)
        self._sender = Wire(spec.servers)
        self._reader = Wire(spec.servers)
        self._positions = dict.fromkeys(range(spec.partitions), 0)
        self._in_flight = 0
        self._asked = False
        self._ask_at = 0.0
        self._next = 0
        self._first = 0
        """Number of the first record that counts."""
        self._due = 0.0
        """When that was due."""
        self._latency = array("d")
        """By number from there on, in seconds; negative while there is no answer."""
        self._answered = 0
        self._repeated = 0
        self._late = 0.0

    def run(self) -> Heard:
        """All of it."""
        spec = self._spec
        self._knock()
        self._first, self._due = self._next, time.monotonic()
        began_at = self._due + spec.warm_s
        ends_at = began_at + spec.measure_s
        total = int((spec.warm_s + spec.measure_s) * spec.rate)
        self._latency = array("d", [-1.0]) * total
        began = False
        tick = self._due
        while (now := time.monotonic()) < ends_at:
            if not began and now >= began_at:
                Path(spec.began).touch()
                began = True
            if now >= tick and self._in_flight < IN_FLIGHT:
                due = min(total, int((now - self._due) * spec.rate) + 1) - (self._next - self._first)
                self._send(min(due, BURST), now)
                tick = now if due > BURST else max(tick + spec.linger_s, now)
            # A generator that is behind, or may not send, must hear the answers all the same.
            self._answer(max(tick, now + spec.linger_s if self._in_flight >= IN_FLIGHT else now))
        measured = range(int(spec.warm_s * spec.rate), total)
        in_time = sum(self._latency[number] >= 0 for number in measured) / len(measured)
        deadline = ends_at + DRAIN_S
        while time.monotonic() < deadline and self._answered < self._next - self._first:
            self._answer(time.monotonic() + 0.05)
        answered = sorted(self._latency[number] for number in measured if self._latency[number] >= 0)
        self._sender.close()
        self._reader.close()
        return Heard(
            sent=self._next - self._first,
            answered=self._answered,
            repeated=self._repeated,
            in_time=in_time,
            p50_ms=percentile(answered, 0.5) * 1000 if answered else 0.0,
            p99_ms=percentile(answered, 0.99) * 1000 if answered else 0.0,
            most_ms=answered[-1] * 1000 if answered else 0.0,
            late_ms=self._late * 1000,
        )

    def _knock(self) -> None:
        """Send a record now and then, until one is answered."""
        deadline = time.monotonic() + OPEN_S
        while not any(self._positions.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer after {OPEN_S:.0f} s")
            self._send(1, None)
            self._answer(time.monotonic() + KNOCK_S)

    def _send(self, count: int, now: float | None) -> None:
        if count <= 0:
            return
        if now is not None:
            self._late = max(self._late, now - self._due - (self._next - self._first) / self._spec.rate)
        load = self._load
        builders: dict[int, BatchBuilder] = {}
        time_ms = int(time.time() * 1000)
        for seq in range(self._next, self._next + count):
            key = load.key(seq)
            partition = partition_of(key, self._spec.partitions)
            builder = builders.get(partition)
            if builder is None:
                builder = builders[partition] = BatchBuilder(BATCH_BYTES, compress=False)
            if not builder.append(time_ms, key, load.value(seq), load.headers(seq)):
                raise OverflowError(f"{count} records do not fit into a batch")
        self._next += count
        self._sender.produce(self._spec.source, {partition: one.build() for partition, one in builders.items()})
        self._in_flight += 1

    def _answer(self, until: float) -> None:
        """Take what is there, and what comes until a moment."""
        while True:
            now = time.monotonic()
            if not self._asked and now >= self._ask_at:
                self._reader.ask(self._spec.output, self._positions, WAIT_MS)
                self._asked = True
            waits = until if self._asked else min(until, self._ask_at)
            sockets = (self._sender.socket, self._reader.socket) if self._asked else (self._sender.socket,)
            ready, _, _ = select.select(sockets, (), (), max(0.0, waits - now))
            if self._sender.socket in ready:
                self._sender.produced()
                self._in_flight -= 1
            if self._reader.socket in ready:
                self._asked = False
                self._take()
                self._ask_at = time.monotonic() + self._spec.pause_s
            if time.monotonic() >= until:
                return

    def _take(self) -> None:
        # The answer is read whole before the time is taken: what counts is when records are in hand.
        batches = list(self._reader.fetched())
        now = time.monotonic()
        for partition, data in batches:
            position = self._positions[partition]
            reader: Any = MemoryRecords(data)
            while reader.has_next():
                batch = reader.next_batch()
                if not batch.is_control_batch:
                    for record in batch:
                        if record.offset >= position:
                            self._hear(record.value, now)
                position = max(position, batch.next_offset)
            self._positions[partition] = position

    def _hear(self, value: bytes, now: float) -> None:
        number = int(value[value.rindex(b":") + 1 : -1]) - self._first
        if not 0 <= number < len(self._latency):
            return  # of before the start
        if self._latency[number] >= 0:
            self._repeated += 1
        else:
            self._answered += 1
            self._latency[number] = now - self._due - number / self._spec.rate


def main(arguments: Sequence[str]) -> None:
    """Run what the one argument says."""
    print(json.dumps(asdict(Rig(Spec(**json.loads(arguments[0]))).run())))


if __name__ == "__main__":
    main(sys.argv[1:])
