"""What the queries must answer: the same events in duckdb, all at once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

from bench.nexmark.events import Auction, Bid, Event, Person

__all__ = ["QUERIES", "Query", "Row", "answers", "rows"]

Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the events."""

    title: str
    """What it is for."""
    sources: tuple[type[Event], ...]
    """What it reads."""
    columns: tuple[str, ...]
    """Names of what is in a row."""
    key: int
    """So many columns, from the first one, say of what a row tells: of rows that agree in them the last one counts. 0: all count."""
    sql: str
    """The same rows in duckdb, over the tables ``person``, ``auction`` and ``bid``."""
    of_last: Callable[[Iterable[Row]], Iterable[Row]] = iter
    """What is compared, of the rows that count."""


_WON: Final = """
    WITH won AS (
        SELECT a.id, a.seller, a.category, a.expires_ms, max(b.price) AS price
        FROM auction a JOIN bid b ON b.auction = a.id AND b.time_ms BETWEEN a.time_ms AND a.expires_ms
        GROUP BY ALL
    )
"""
"""The auctions at which somebody bid, with what they were sold for. An auction ends behind the millisecond in which it expires."""


def _by_bidder(counts: Iterable[Row]) -> Iterable[Row]:
    """All that a bidder's windows hold together: which bid is in which is a matter of when it came."""
    totals: dict[Any, int] = {}
    for bidder, _, bids in counts:
        totals[bidder] = totals.get(bidder, 0) + bids
    return totals.items()


def _longest(sessions: Iterable[Row]) -> Iterable[Row]:
    """Without those that have become a part of another one, of which an engine told before it knew."""
    ended: dict[Any, int] = {}
    for session in sorted(sessions):
        bidder, start_ms, end_ms, _ = session
        if start_ms >= ended.get(bidder, 0):
            ended[bidder] = end_ms
            yield session


QUERIES: Final[Mapping[str, Query]] = {
    "q0": Query(
        "every bid as it is",
        (Bid,),
        ("auction", "bidder", "price", "time_ms"),
        0,
        "SELECT auction, bidder, price, time_ms FROM bid",
    ),
    "q1": Query(
        "every bid with its price in euros",
        (Bid,),
        ("auction", "bidder", "price", "time_ms"),
        0,
        "SELECT auction, bidder, price * 89 // 100, time_ms FROM bid",
    ),
    "q2": Query(
        "bids for some of the auctions",
        (Bid,),
        ("auction", "price"),
        0,
        "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    ),
    "q3": Query(
        "who sells in three states",
        (Person, Auction),
        ("id", "name", "city", "state"),
        1,
        """
        SELECT a.id, p.name, p.city, p.state FROM auction a JOIN person p ON a.seller = p.id
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
        """,
    ),
    "q4": Query(
        "what is paid in each category, on average",
        (Auction, Bid),
        ("category", "price"),
        1,
        f"{_WON} SELECT category, sum(price) / count(*) FROM won GROUP BY category",  # noqa: S608 - all of it is here
    ),
    "q5": Query(
        "the auctions with most bids in ten seconds, every two seconds",
        (Bid,),
        ("start_ms", "bids", "auctions"),
        1,
        """
        WITH counted AS (
            SELECT start_ms, auction, count(*) AS bids
            FROM (SELECT auction, unnest(range(time_ms // 2000 * 2000 - 8000, time_ms // 2000 * 2000 + 1, 2000)) AS start_ms FROM bid)
            GROUP BY ALL
        ), hottest AS (
            SELECT start_ms, auction, bids FROM counted QUALIFY bids = max(bids) OVER (PARTITION BY start_ms)
        )
        SELECT start_ms, bids, list(auction ORDER BY auction) FROM hottest GROUP BY start_ms, bids
        """,
    ),
    "q6": Query(
        "what a seller got for the last ten auctions, on average",
        (Auction, Bid),
        ("seller", "price"),
        1,
        f"""{_WON}, last AS (
            SELECT seller, price FROM won QUALIFY row_number() OVER (PARTITION BY seller ORDER BY expires_ms DESC, id DESC) <= 10
        )
        SELECT seller, sum(price) / count(*) FROM last GROUP BY seller
        """,  # noqa: S608 - all of it is here
    ),
    "q7": Query(
        "the highest bids of every ten seconds",
        (Bid,),
        ("start_ms", "price", "bids"),
        1,
        """
        WITH highest AS (
            SELECT time_ms // 10000 * 10000 AS start_ms, auction, bidder, price FROM bid
            QUALIFY price = max(price) OVER (PARTITION BY time_ms // 10000)
        )
        SELECT start_ms, price, list([auction, bidder] ORDER BY auction, bidder) FROM highest GROUP BY start_ms, price
        """,
    ),
    "q8": Query(
        "who joined and opened an auction within the same ten seconds",
        (Person, Auction),
        ("id", "start_ms", "name"),
        2,
        """
        SELECT DISTINCT p.id, p.time_ms // 10000 * 10000, p.name
        FROM person p JOIN auction a ON a.seller = p.id AND a.time_ms // 10000 = p.time_ms // 10000
        """,
    ),
    "q11": Query(
        "how often somebody bids without a pause of ten seconds",
        (Bid,),
        ("bidder", "start_ms", "end_ms", "bids"),
        2,
        """
        WITH begun AS (
            SELECT bidder, time_ms, CASE
                WHEN time_ms - lag(time_ms) OVER (PARTITION BY bidder ORDER BY time_ms) < 10000 THEN 0 ELSE 1
            END AS begins FROM bid
        ), numbered AS (
            SELECT bidder, time_ms, sum(begins) OVER (PARTITION BY bidder ORDER BY time_ms) AS session FROM begun
        )
        SELECT bidder, min(time_ms), max(time_ms) + 10000, count(*) FROM numbered GROUP BY bidder, session
        """,
        _longest,
    ),
    "q12": Query(
        "how often somebody bids in ten seconds of the worker's own time",
        (Bid,),
        ("bidder", "start_ms", "bids"),
        2,
        "SELECT bidder, count(*) FROM bid GROUP BY bidder",
        _by_bidder,
    ),
}
"""Those of Tucker et al. and of Beam, in the form that Flink's SQL has of them, by name. Times are milliseconds since the epoch;
windows are named by their start. Of the averages the last ones are compared: what is said on the way depends on what came first."""


def answers(events: Iterable[Event], queries: Iterable[str] = tuple(QUERIES)) -> dict[str, list[Row]]:
    """By query, the rows that it must answer, as :func:`rows` gives them."""
    import duckdb
    import pandas as pd

    tables: dict[type[Event], list[Event]] = {Person: [], Auction: [], Bid: []}
    for event in events:
        tables[type(event)].append(event)
    with duckdb.connect() as database:
        for kind, of_kind in tables.items():
            columns = {field.name: [getattr(event, field.name) for event in of_kind] for field in fields(kind)}
            database.register(kind.__name__.lower(), pd.DataFrame(columns))
        return {name: _sorted(database.execute(QUERIES[name].sql).fetchall()) for name in queries}


def rows(query: Query, outputs: Iterable[Mapping[str, Any]], below: int) -> list[Row]:
    """The rows that count of *outputs*, which have the query's columns and come in the order in which they were written.

    Rows whose first column is *below* or more are left out: they tell of events that only move the clock.
    """
    found = [
        row
        for row in (tuple([output[name] for name in query.columns]) for output in outputs)
        if not isinstance(row[0], int) or row[0] < below
    ]
    if query.key:
        found = list({row[: query.key]: row for row in found}.values())
    return _sorted(query.of_last(found))


def _sorted(found: Iterable[Row]) -> list[Row]:
    return sorted(tuple([_frozen(value) for value in row]) for row in found)


def _frozen(value: Any) -> Any:
    """The same whether a set of rows came from duckdb or in some order out of JSON."""
    return sorted(value) if isinstance(value, list) else value
