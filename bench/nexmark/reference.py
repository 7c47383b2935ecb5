"""What the queries must answer: the same events in duckdb, all at once."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final, TypeAlias

import duckdb
import pandas as pd

from bench.nexmark.events import Auction, Bid, Event, Person

__all__ = ["Row", "answers"]

Row: TypeAlias = tuple[Any, ...]

_WON: Final = """
    CREATE VIEW won AS SELECT a.id, a.seller, a.category, a.expires_ms, max(b.price) AS price
    FROM auction a JOIN bid b ON b.auction = a.id AND b.time_ms BETWEEN a.time_ms AND a.expires_ms
    GROUP BY ALL
"""
"""The auctions at which somebody bid, with what they were sold for. An auction ends behind the millisecond in which it expires."""

QUERIES: Final[Mapping[str, str]] = {
    "q0": "SELECT auction, bidder, price, time_ms FROM bid",
    "q1": "SELECT auction, bidder, price * 0.908, time_ms FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    "q3": """
        SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
    """,
    "q4": "SELECT category, avg(price) FROM won GROUP BY category",
    "q5": """
        WITH counted AS (
            SELECT start_ms, auction, count(*) AS bids
            FROM (
                SELECT auction, unnest(range(time_ms // 2000 * 2000 - 8000, time_ms // 2000 * 2000 + 1, 2000)) AS start_ms
                FROM bid
            )
            GROUP BY ALL
        )
        SELECT start_ms, auction, bids FROM counted QUALIFY bids = max(bids) OVER (PARTITION BY start_ms)
    """,
    "q6": """
        SELECT id, seller, avg(price) OVER (
            PARTITION BY seller ORDER BY expires_ms, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW
        ) FROM won
    """,
    "q7": """
        SELECT time_ms // 10000 * 10000, auction, bidder, price FROM bid
        QUALIFY price = max(price) OVER (PARTITION BY time_ms // 10000)
    """,
    "q8": """
        SELECT DISTINCT p.id, p.name, p.time_ms // 10000 * 10000
        FROM person p JOIN auction a ON a.seller = p.id AND a.time_ms // 10000 = p.time_ms // 10000
    """,
    "q11": """
        WITH begun AS (
            SELECT bidder, time_ms, CASE
                WHEN time_ms - lag(time_ms) OVER (PARTITION BY bidder ORDER BY time_ms) < 10000 THEN 0 ELSE 1
            END AS begins FROM bid
        ), numbered AS (
            SELECT bidder, time_ms,
                sum(begins) OVER (PARTITION BY bidder ORDER BY time_ms ROWS UNBOUNDED PRECEDING) AS session
            FROM begun
        )
        SELECT bidder, count(*), min(time_ms), max(time_ms) + 10000 FROM numbered GROUP BY bidder, session
    """,
    "q12": "SELECT bidder, count(*) FROM bid GROUP BY bidder",
}
"""By query, its rows in no order. Times are milliseconds since the epoch; windows are named by their start. Of the query by
processing time the events tell only what all windows of a bidder hold together."""


def answers(events: Iterable[Event]) -> dict[str, list[Row]]:
    """By query, the rows that it must answer, sorted."""
    tables: dict[type, list[dict[str, Any]]] = {Person: [], Auction: [], Bid: []}
    for event in events:
        tables[type(event)].append(asdict(event))
    with duckdb.connect() as database:
        for kind, rows in tables.items():
            database.register(kind.__name__.lower(), pd.DataFrame(rows))
        database.execute(_WON)
        return {name: sorted(database.execute(query).fetchall()) for name, query in QUERIES.items()}
