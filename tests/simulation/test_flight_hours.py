"""Hours, days and overdue flights: as pandas has them, in disorder, and over crashes."""

import os
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from flights import FlightCap
from nyc.data import Outcomes, Report, airlines, outcomes, read_file, reports
from pf_stream.core import Limits
from pf_stream.testing import Action, Driver
from pf_stream.topology import read_topology_file

TOPOLOGY = read_topology_file(Path(__file__).parents[2] / "topologies/flights/topology.yaml")
EVERY = int(os.environ.get("PF_EVERY", "500"))
"""Every so many-th flight; PF_EVERY=1 and pytest --timeout 0 take all 336,776, which takes many minutes."""


def made(seed: int = 0, **more: Any) -> Driver:
    return Driver(TOPOLOGY, partitions=4, seed=seed, now=datetime(2014, 6, 1, tzinfo=UTC), **more)


def send(driver: Driver, said: Iterable[Report]) -> None:
    token = driver.context(FlightCap.report("/**"), lifetime_s=1e9).encode()
    with driver.paused():
        for report in said:
            headers = [
                ("ce_specversion", b"1.0"),
                ("ce_type", report.type.encode()),
                ("ce_source", b"/airlines"),
                ("ce_id", b"1"),
                ("ce_time", report.time.encode()),
                ("content-type", b"application/json"),
                ("pf-context", token),
            ]
            driver.send_raw("intents", key=report.key.encode(), value=report.payload, headers=headers)
    driver.advance(1)  # lanes say how far they are several times a second, and not with each record
    assert driver.refused.total() == 0
    assert not driver.tallies, "nothing is late"


def told(driver: Driver) -> Outcomes:
    """What was told; each once, but for what was sent again after a crash."""

    def once(topic: str) -> list[Any]:
        return [record.json() for record in {one.header("pf-source"): one for one in driver.outputs(topic)}.values()]

    hours, days, overdue = once("hourly"), once("days"), once("overdue")
    found = Outcomes(
        {f"{one['origin']} {one['hour']}": (one["flights"], one["cancelled"], one["delay"]) for one in hours},
        {f"{one['tailnum']} {one['start']}": (one["end"], one["legs"], one["miles"]) for one in days},
        {f"{one['carrier']}{one['flight']} {one['tailnum']} {one['due']}": one["origin"] for one in overdue},
    )
    assert (len(found.hours), len(found.days), len(found.overdue)) == (len(hours), len(days), len(overdue))
    return found


def test_all_as_pandas_has_it() -> None:
    frame = read_file(EVERY)
    driver = made()
    send(driver, reports(frame))
    expected = outcomes(frame)
    assert min(len(expected.hours), len(expected.days), len(expected.overdue)) > 40
    assert told(driver) == expected


def test_what_is_reported_within_a_day_is_counted_all_the_same() -> None:
    frame = read_file(EVERY)
    dice = random.Random(1)  # noqa: S311 - to be repeated is what these dice are for
    *said, last = reports(frame)
    closing = [*said[1 - len(airlines()) :], last]
    departed = [report for report in said if report.type == "flights.departed.v1"]
    departed.sort(key=lambda report: pd.Timestamp(report.time) + pd.Timedelta(minutes=dice.randrange(23 * 60)))
    driver = made()
    send(driver, [*departed, *closing])
    found, expected = told(driver), outcomes(frame)
    assert found.hours == expected.hours
    assert found.days == expected.days
    assert not found.overdue, "nothing was announced"


def test_over_crashes_all_is_told_once() -> None:
    frame = read_file(8000)
    frame.loc[frame.index[::3], "dep_delay"] = 90.0
    frame["time"] = (frame["due"] + pd.to_timedelta(frame["dep_delay"], unit="min")).fillna(frame["due"])
    expected = outcomes(frame)
    assert len(expected.overdue) > 10
    for seed in range(4):
        dice = random.Random(seed)  # noqa: S311 - to be repeated is what these dice are for
        driver = made(seed, limits=Limits(poison_attempts=1 << 30))  # these crashes come by chance
        crashes = dice.sample(range(400), 20)  # with as many as there may be, a run might never end

        actions = count()

        def after(
            _: Action, driver: Driver = driver, crashes: list[int] = crashes, actions: Iterator[int] = actions
        ) -> None:
            if next(actions) in crashes:
                driver.crash()

        driver.after_action = after
        send(driver, reports(frame))
        assert told(driver) == expected, seed
        assert driver.dead_letters() == []
