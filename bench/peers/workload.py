"""The records that all engines are given, and what must have become of them."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from confluent_kafka import KafkaError, Message, Producer

from bench.peers.apps.ledger import NAMESPACE, LedgersCap
from pf_stream.core.records import Header
from pf_stream.security import SigningKey, mint

__all__ = ["BYTES", "CONTEXT", "HOT_KEYS", "OTHER_CONTEXT", "Ledger", "Load", "Outgoing", "contexts", "fill"]

HOT_KEYS: Final = 1_000
TENANTS: Final = 1_000
"""Each has a token of its own, and ten branches: 10,000 resources."""
BYTES: Final = 200
"""Of each value."""
DAY_S: Final = 24 * 3600

CONTEXT: Final = "pf-context"
OTHER_CONTEXT: Final = "no-context"
"""Where the token stands in the records of the equal-work rows: as long a header, which pf_stream does not read either."""


Outgoing: TypeAlias = tuple[str, bytes, bytes, list[Header]]
"""Topic, key, value and headers of a record."""


@dataclass(frozen=True, slots=True)
class Load:
    """How records are spelled."""

    tokens: Sequence[bytes]
    """By tenant."""
    context: str
    """Name of the header that has the token."""
    keys: int
    """How many accounts they are for, in turn."""

    def key(self, seq: int) -> bytes:
        """The account of a record."""
        return b"acc-%07d" % (seq % self.keys)

    def value(self, seq: int) -> bytes:
        """Its JSON, of :data:`BYTES` bytes."""
        tenant = seq * 7 % TENANTS
        head = (
            b'{"account":"acc-%07d","tenant":"t%03d","branch":"b%d","amount":%d,"currency":"EUR","seq":%d,"memo":"'
            % (seq % self.keys, tenant, seq // TENANTS % 10, amount(seq), seq)
        )
        return head.ljust(BYTES - 2, b"x") + b'"}'

    def headers(self, seq: int) -> list[Header]:
        """Its headers: CloudEvents 1.0 in binary mode, and the token."""
        return [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"bench.posted.v1"),
            ("ce_source", b"/bench"),
            ("ce_id", b"%d" % seq),
            ("ce_time", b"2026-01-01T00:00:00Z"),
            ("content-type", b"application/json"),
            (self.context, self.tokens[seq * 7 % TENANTS]),
        ]

    def records(self, topic: str, count: int) -> Iterator[Outgoing]:
        """Records 0 to *count* - 1, for a topic."""
        for seq in range(count):
            yield topic, self.key(seq), self.value(seq), self.headers(seq)


def amount(seq: int) -> int:
    """What a record adds to its account."""
    return 1 + seq % 7


class Ledger:
    """What the accounts must say after records 0, 1, 2 and so on."""

    def __init__(self, records: int, keys: int) -> None:
        self.counts = array("q", bytes(8 * keys))
        self.totals = array("q", bytes(8 * keys))
        for seq in range(records):
            self.counts[seq % keys] += 1
            self.totals[seq % keys] += amount(seq)

    def faults(self, accounts: Iterator[tuple[bytes, int, int]]) -> str | None:
        """What is wrong with the accounts that an engine has kept, each with its count and total; None if nothing is."""
        found = wrong = 0
        for key, count, total in accounts:
            number = int(key.removeprefix(b"acc-"))
            found += 1
            wrong += (count, total) != (self.counts[number], self.totals[number])
        kept = sum(count > 0 for count in self.counts)
        if found != kept:
            return f"{found:,} accounts instead of {kept:,}"
        return f"{wrong:,} of {kept:,} accounts are wrong" if wrong else None


def contexts(key: SigningKey, now_ms: int) -> list[bytes]:
    """A token for each tenant, with which it may post to its own branches, for a day."""
    return [
        mint(
            key,
            subject=f"tenant {number}",
            audience=NAMESPACE,
            capabilities=[LedgersCap.post(f"/t{number:03d}/**")],
            now_ms=now_ms,
            lifetime_s=DAY_S,
        ).encode()
        for number in range(TENANTS)
    ]


def fill(servers: str, records: Iterable[Outgoing]) -> None:
    """Write records to their topics.

    Raises:
        RuntimeError: Kafka did not take one.
    """
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer(
        {
            "bootstrap.servers": servers,
            "log_level": 0,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 50,
            "batch.size": 1 << 19,
        }
    )
    for number, (topic, key, value, headers) in enumerate(records):
        while True:
            try:
                producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered)
                break
            except BufferError:  # the client's queue is full
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    while producer.flush(1):
        pass
    if failed:
        raise RuntimeError(f"a record was not taken: {failed[0]}")
