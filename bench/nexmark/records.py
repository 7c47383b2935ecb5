"""The events as records of three topics, and what follows them so that every clock goes on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from bench.nexmark.events import START_MS, Auction, Bid, Event, Person
from bench.nexmark.topology import NAMESPACE, MarketCap
from bench.peers.workload import Outgoing
from pf_stream.core.partition import partition_of
from pf_stream.security import SigningKey, mint

__all__ = ["BELOW", "LAST_MS", "TOKENS", "Spelling", "contexts", "last"]

TOKENS: Final = 1_000
"""So many callers, each with a token of its own; a person's is that of its number."""
DAY_S: Final = 24 * 3600
LAST_MS: Final = START_MS + DAY_S * 1000
"""Event time of the last events."""
BELOW: Final = LAST_MS - 10_000
"""Numbers, and times by which windows are named, that are so high are those of the last events."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How events are spelled."""

    tokens: Sequence[bytes]
    """Of the callers."""
    topics: Mapping[type[Event], str]
    """By kind of event."""
    context: str = "pf-context"
    """Name of the header that has the token."""

    def records(self, events: Iterable[Event]) -> Iterator[Outgoing]:
        """CloudEvents in binary mode, each under its key: an auction's, which its bids share, or a person's."""
        for number, event in enumerate(events):
            match event:
                case Person(id=key) | Auction(id=key) | Bid(auction=key):
                    pass
            caller = {Person: "id", Auction: "seller", Bid: "bidder"}[type(event)]
            headers = [
                ("ce_specversion", b"1.0"),
                ("ce_type", f"nexmark.{type(event).__name__.lower()}.v1".encode()),
                ("ce_source", b"/nexmark"),
                ("ce_id", f"{type(event).__name__}-{number}".encode()),
                ("ce_time", _told(event.time_ms)),
                ("content-type", b"application/json"),
                (self.context, self.tokens[getattr(event, caller) % len(self.tokens)]),
            ]
            yield self.topics[type(event)], b"%d" % key, orjson.dumps(event), headers


def _told(time_ms: int) -> bytes:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").encode()


def contexts(key: SigningKey, now_ms: int) -> list[bytes]:
    """The callers' tokens, good for a day."""
    grants = [MarketCap.join("/**"), MarketCap.sell("/**"), MarketCap.bid("/**")]
    return [
        mint(
            key,
            subject=f"caller {number}",
            audience=NAMESPACE,
            capabilities=grants,
            now_ms=now_ms,
            lifetime_s=DAY_S,
        ).encode()
        for number in range(TOKENS)
    ]


def last(partitions: int) -> Iterator[Event]:
    """An event of each kind for each partition, a day after the first one: no window is open behind them, and no auction.

    What they are answered is left out, see :func:`rows`.
    """
    wanted = set(range(partitions))
    number = LAST_MS
    while wanted:
        number += 1
        partition = partition_of(b"%d" % number, partitions)
        if partition not in wanted:
            continue
        wanted.remove(partition)
        yield Person(LAST_MS, number, "", "", "", "", "", "")
        yield Auction(LAST_MS, number, "", "", 0, 0, LAST_MS, number, number, "")
        yield Bid(LAST_MS, number, number, 0, "")
