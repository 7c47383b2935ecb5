"""The queries of Nexmark, in memory and in duckdb."""

import random
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from bench.nexmark.events import Auction, Bid, Event, Person, events
from bench.nexmark.records import BELOW, Spelling, contexts, last
from bench.nexmark.reference import QUERIES, Row, answers, rows
from bench.nexmark.topology import OUTPUT, nexmark
from pf_stream.core.partition import partition_of
from pf_stream.testing import Action, Driver

PARTITIONS = 4
TOPICS: Mapping[type[Event], str] = {Person: "nexmark.persons", Auction: "nexmark.auctions", Bid: "nexmark.bids"}
LATER = datetime(2026, 6, 1, tzinfo=UTC)
SOME = list(events(1_500, seed=7, per_second=50, disorder=40))
"""Half a minute; those of eight tenths of a second are in no order."""


@pytest.fixture(scope="module")
def wanted() -> Mapping[str, list[Row]]:
    return answers(SOME)


def test_events_have_their_shares_and_their_sizes() -> None:
    found = list(events(5_000))
    assert Counter(type(event) for event in found) == {Person: 100, Auction: 300, Bid: 4600}
    assert found == list(events(5_000))
    sizes: dict[type[Event], int] = Counter()
    spelling = Spelling([b""], TOPICS)
    for event, (_, _, value, _) in zip(found, spelling.records(found), strict=True):
        sizes[type(event)] += len(value)
    assert [round(sizes[kind] / number, -2) for kind, number in ((Person, 100), (Auction, 300), (Bid, 4600))] == [
        200,
        500,
        100,
    ]


def test_disorder_is_bounded_and_loses_nothing() -> None:
    in_order = list(events(1_000, per_second=1000))
    assert [event.time_ms for event in in_order] == sorted(event.time_ms for event in in_order)
    shuffled = list(events(1_000, per_second=1000, disorder=10))
    latest = 0
    for event in shuffled:
        assert event.time_ms > latest - 10
        latest = max(latest, event.time_ms)
    assert sorted(event.time_ms for event in shuffled) == [event.time_ms for event in in_order]


def test_the_last_events_reach_every_partition() -> None:
    spelling = Spelling([b""], TOPICS)
    reached = {(topic, partition_of(key, PARTITIONS)) for topic, key, _, _ in spelling.records(last(PARTITIONS))}
    assert len(reached) == 3 * PARTITIONS


@pytest.mark.slow
@pytest.mark.parametrize("query", QUERIES)
def test_the_answers_are_those_of_duckdb_in_spite_of_crashes(query: str, wanted: Mapping[str, list[Row]]) -> None:
    driver = Driver(nexmark(query, query), partitions=PARTITIONS, seed=len(query), now=LATER)
    spelling = Spelling(contexts(driver.key, driver.clock.now_ms()), TOPICS)
    kinds = QUERIES[query].sources
    dice = random.Random(query)  # noqa: S311 - to be repeated is what these dice are for

    def crash(_: Action) -> None:
        if dice.random() < 0.005:
            driver.crash(partition=dice.randrange(PARTITIONS))

    driver.after_action = crash
    sent = [event for event in (*SOME, *last(PARTITIONS)) if isinstance(event, kinds)]
    for number, (topic, key, value, headers) in enumerate(spelling.records(sent)):
        driver.send_raw(topic, key=key, value=value, headers=headers)
        if number % 250 == 0:
            driver.advance(3)
    driver.advance(11)
    assert driver.dead_letters() == []
    # After a crash an output may be there twice; what says so is its source.
    outputs = {output.header("pf-source"): output.json() for output in driver.outputs(OUTPUT)}
    assert rows(QUERIES[query], outputs.values(), BELOW) == wanted[query]
