"""Hours, days and overdue flights: as pandas has them, and over crashes."""

import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from flights import FlightCap, FlightDeparted
from hours import FlightScheduled, watch
from nyc.data import by_day, flights, hours, read_file
from pf_stream import Topology
from pf_stream.core import Limits, partition_of
from pf_stream.testing import Driver
from pf_stream.topology import read_topology_file

HOURS = Path(__file__).parents[2] / "topologies/flights/hours.yaml"
PARTITIONS = 4
EVERY = int(os.environ.get("PF_EVERY", "100"))
"""Every so many-th flight; PF_EVERY=1 takes all 336,776, which takes minutes."""
NOW = datetime(2014, 6, 1, tzinfo=UTC)


def once(driver: Driver, topic: str) -> list[Any]:
    return [record.json() for record in {one.header("pf-source"): one for one in driver.outputs(topic)}.values()]


def test_flights_as_pandas_has_them() -> None:
    frame = by_day(read_file(EVERY))
    driver = Driver(read_topology_file(HOURS), partitions=PARTITIONS, now=NOW)
    token = driver.context(FlightCap.report("/**"), lifetime_s=1e9).encode()
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"flights.departed.v1"),
        ("ce_source", b"/airlines"),
        ("ce_id", b"1"),
        ("content-type", b"application/json"),
        ("pf-context", token),
    ]
    with driver.paused():
        for flight in flights(frame):
            sent = [*headers, ("ce_time", flight.time.encode())]
            driver.send_raw("intents", key=flight.key.encode(), value=flight.payload, headers=sent)
    driver.advance(1)  # lanes say how far they are several times a second, and not with each record
    assert driver.refused.total() == 0
    assert not driver.tallies, "nothing is late"

    tailnum = frame["tailnum"].fillna(frame["carrier"])
    table = frame.assign(
        tailnum=tailnum,
        lane=[partition_of(key.encode(), PARTITIONS) for key in tailnum],
    )
    clocks = table.groupby("lane")["time"].max()
    assert len(clocks) == PARTITIONS
    expected = {
        (origin, at): hour
        for (origin, at), hour in hours(frame).items()
        if at + timedelta(hours=25) <= clocks.min()  # all lanes through which its flights came are past it
    }
    found = {
        (one["origin"], datetime.fromisoformat(one["hour"])): (one["flights"], one["cancelled"], one["minutes_late"])
        for one in once(driver, "hourly")
    }
    assert len(found) > 500
    assert found == expected

    flown = table[table["dep_delay"].notna()].sort_values(["tailnum", "time"], kind="stable")
    begins = (flown["tailnum"] != flown["tailnum"].shift()) | (flown["time"].diff() >= pd.Timedelta(hours=6))
    sessions = flown.groupby(begins.cumsum()).agg(
        tailnum=("tailnum", "first"),
        lane=("lane", "first"),
        start=("time", "min"),
        end=("time", "max"),
        legs=("tailnum", "size"),
        miles=("distance", "sum"),
    )
    expected_days = {
        (row.tailnum, row.start.to_pydatetime()): (int(row.legs), float(row.miles))
        for row in sessions.itertuples()
        if row.end + pd.Timedelta(hours=30) <= clocks[row.lane]
    }
    found_days = {
        (one["tailnum"], datetime.fromisoformat(one["start"])): (one["legs"], one["miles"])
        for one in once(driver, "days")
    }
    assert len(found_days) > 500
    assert found_days == expected_days


def test_a_flight_that_does_not_leave_within_an_hour_is_said_to_be_overdue() -> None:
    start = datetime(2014, 1, 1, tzinfo=UTC)
    for seed in range(40):
        dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        driver = Driver(
            Topology("flights", [], parts=[watch]),
            partitions=1,
            seed=seed,
            now=NOW,
            limits=Limits(poison_attempts=1 << 30),  # these crashes come by chance
        )
        driver.after_action = lambda _, driver=driver, dice=dice: driver.crash() if dice.random() < 0.2 else None
        token = driver.context(FlightCap.report("/**"))
        leaves = {number: (number, number + dice.choice([-20, 0, 30, 59, 61, 90])) for number in range(0, 240, 7)}
        happens = sorted(
            [(at, "scheduled", number) for number, (at, _) in leaves.items()]
            + [(at, "departed", number) for number, (_, at) in leaves.items()],
            key=lambda one: one[0],  # what is scheduled for a time comes before what leaves then
        )
        for minute, what, number in happens:
            same: dict[str, Any] = {"tailnum": "N1", "carrier": "UA", "origin": "EWR", "flight": number}
            intent = FlightScheduled(**same) if what == "scheduled" else FlightDeparted(**same, dest="LAX", delay=0)
            driver.send(intent, token, time=start + timedelta(minutes=minute))
        clock = happens[-1][0]
        late = {number for number, (due, left) in leaves.items() if left - due > 60 and due + 60 <= clock}
        assert {one["flight"] for one in once(driver, "overdue")} == late, seed
        assert driver.dead_letters() == []


def test_flights_that_the_file_has_as_late_by_an_hour_are_said_to_be_overdue() -> None:
    frame = read_file(EVERY)
    key = frame["tailnum"].fillna(frame["carrier"])
    due = pd.to_datetime(frame["time_hour"], utc=True)
    left = due + pd.to_timedelta(frame["dep_delay"], unit="min")
    flown = left.notna()
    table = pd.concat(
        [
            frame.assign(key=key, due=due, left=left, at=due, what=0),
            frame.assign(key=key, due=due, left=left, at=left, what=1)[flown],
        ]
    ).sort_values(["at", "what"], kind="stable")
    table["lane"] = [partition_of(one.encode(), PARTITIONS) for one in table["key"]]
    driver = Driver(read_topology_file(HOURS), partitions=PARTITIONS, now=NOW)
    token = driver.context(FlightCap.report("/**"), lifetime_s=1e9)
    with driver.paused():
        for row in table.itertuples():
            same: dict[str, Any] = {
                "tailnum": row.key,
                "carrier": row.carrier,
                "origin": row.origin,
                "flight": int(row.flight),
            }
            intent = FlightDeparted(**same, dest=row.dest, delay=row.dep_delay) if row.what else FlightScheduled(**same)
            driver.send(intent, token, time=row.at.to_pydatetime())
    assert driver.refused.total() == 0

    scheduled = table[table["what"] == 0]
    alert = scheduled["due"] + pd.Timedelta(hours=1)
    waited = scheduled["left"].isna() | (scheduled["left"] >= alert)
    told = alert <= scheduled["lane"].map(table.groupby("lane")["at"].max())
    expected = scheduled[waited & told]
    assert len(expected) > 200
    assert sorted((one["tailnum"], one["carrier"], one["flight"]) for one in once(driver, "overdue")) == sorted(
        zip(expected["key"], expected["carrier"], expected["flight"], strict=True)
    )
