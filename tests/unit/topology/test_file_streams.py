"""Pipelines in a topology file: the same as in Python, and where faults of them are."""

import importlib
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pf_stream import Topology
from pf_stream.testing import Driver
from pf_stream.topology.description import describe
from pf_stream.topology.file import TopologyFileError, read_topology_file
from tests.unit.topology.conftest import Folder

SOURCE = """\
from datetime import datetime
from typing import Annotated, NamedTuple

from pf_stream import PUBLIC, GlobalTable, Intent, Key, Part, RetryLater
from pf_stream.streams import (
    Transform, Windowed, aggregate, collect, count, counted, early, first, global_window, hopping, last, maximum, mean,
    minimum, on_update, pipeline, quantiles, session, sliding, stream, top_k, total, tumbling, variance, distinct,
)


class Flight(Intent, name="flights.flight", requires=PUBLIC):
    tail: Annotated[str, Key]
    origin: str
    number: int
    delay: float
    gate: str | None = None


class Weather(Intent, name="flights.weather", requires=PUBLIC):
    origin: Annotated[str, Key]
    wind: float


class Told(Intent, name="flights.told", topic="told", requires=PUBLIC):
    key: Annotated[str, Key]
    start: datetime
    flights: int
    delay: float


class Said(Intent, name="flights.said", topic="said", requires=PUBLIC):
    key: Annotated[str, Key]
    text: str


class Hour(NamedTuple):
    flights: int
    delay: float


class Pair(NamedTuple):
    key: str
    text: str


class Airport(NamedTuple):
    name: str


airports = GlobalTable("reference.airports", Airport)


def at_airport(flight: Flight, airport: Airport | None) -> Pair:
    return Pair(flight.tail, airport.name if airport else "?")


class Twice(Transform[Flight, Flight]):
    def one(self, value: Flight) -> list[Flight]:
        return [value, value]


longest = aggregate(int, lambda a, v: max(a, v.number), lambda a: a, merge=max, stored=int)


def is_late(flight: Flight) -> bool:
    return flight.delay > 15


def tell(hour: Windowed[Hour]) -> Told:
    return Told(key=hour.key, start=hour.start, flights=hour.value.flights, delay=hour.value.delay)


def windy(flight: Flight, weather: Weather) -> Pair:
    return Pair(flight.origin, f"{flight.number} {weather.wind}")


def maybe_windy(flight: Flight, weather: Weather | None) -> Pair:
    return Pair(flight.origin, f"{flight.number} {weather and weather.wind}")


def both(left: Flight | None, right: Weather | None) -> Pair:
    return Pair("t", f"{left and left.number} {right and right.wind}")


def text_of(windowed: Windowed[object]) -> Said:
    return Said(key=windowed.key, text=f"{windowed.kind} {windowed.value}")


def said(flight: Flight) -> Said:
    return Said(key=flight.tail, text=f"{flight.number}")


def calm(weather: Weather) -> bool:
    return weather.wind < 0


def numbers(flight: Flight) -> list[int]:
    return [flight.number] * 2


def twos(flight: Flight) -> str:
    return f"{flight.number % 2}"


def of_number(number: int) -> Said:
    return Said(key="n", text=str(number))


def says(pipeline: Part) -> Part:
    return pipeline
"""

HEAD = """\
name: flights
emits: [MODULE:Told, MODULE:Said]
streams:
"""


@pytest.fixture(scope="module")
def flights(shared: Folder) -> Folder:
    return Folder(shared.path, shared.add(SOURCE, "flights"))


def _flow(topology: Topology, module: Any) -> list[tuple[str, Any]]:
    """What comes of the same flights and weather."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    driver = Driver(topology, now=noon + timedelta(hours=5), partitions=1)
    taken = {spec.name for reactor in topology.specs for spec in (handler.intent for handler in reactor.handlers)}
    for number in range(12):
        time = noon + timedelta(minutes=7 * number)
        if "flights.weather" in taken and number % 4 == 0:
            driver.send(module.Weather(origin="JFK", wind=float(number)), time=time)
        if "flights.flight" in taken:
            origin = "LGA" if number % 3 == 0 else "JFK"
            flight = module.Flight(tail=f"N{number % 2}", origin=origin, number=number, delay=number * 2.0)
            driver.send(flight, time=time)
    driver.advance(3600)
    assert driver.dead_letters() == []
    names = {topology.topic_name(intent.topic).removeprefix("flights.") for intent in topology.intents}
    return [(name, record.json()) for name in ("told", "said") if name in names for record in driver.outputs(name)]


WINDOWED = """\
  hourly:
    ways:
      flights:
        - from: MODULE:Flight
        - filter: delay
        - key_by: origin
        - window: {WINDOW}
        - aggregate: AGGREGATE
        - emit: MODULE:text_of
"""


def _windowed(module: Any, window: Any, made: Any, *arguments: Any, **named: Any) -> Any:
    keyed = module.stream(module.Flight).filter(lambda flight: flight.delay).key_by(lambda flight: flight.origin)
    return module.pipeline("hourly", keyed.window(window).aggregate(made, *arguments, **named).emit(module.text_of))


class Record:
    """What a file makes by itself of several aggregates is shown as a dataclass is."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __str__(self) -> str:
        return f"HourlyLong({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"


def _by_origin(module: Any, intent: Any) -> Any:
    return module.stream(intent).key_by(lambda value: value.origin)


def _joins(m: Any) -> Any:
    def flights() -> Any:
        return _by_origin(m, m.Flight)

    rows = _by_origin(m, m.Weather).table(remove=m.calm)
    made = (
        flights().as_of(_by_origin(m, m.Weather), m.maybe_windy, how="left", tolerance="10m", late="too_late"),
        flights().lookup(rows, m.maybe_windy, how="left"),
        flights().table().join(rows, m.both, how="outer"),
    )
    said = [values.emit(lambda pair: m.Said(key=pair.key, text=pair.text), m.Said) for values in made]
    return m.pipeline("pairs", *said)


def _branches(m: Any) -> Any:
    late, odd, others = m.stream(m.Flight).through(m.Twice(), m.Flight).branch(m.is_late, lambda flight: flight.number)
    return m.pipeline(
        "ways",
        late.merge(others).emit(m.said),
        odd.flat_map(m.numbers).emit(m.of_number),
        odd.map(lambda flight: flight.number).emit(m.of_number),
        on_error=m.RetryLater(attempts=3),
    )


CASES: dict[str, tuple[str, Any]] = {
    "tumbling": (
        """\
  hourly:
    ways:
      flights:
        - from: MODULE:Flight
        - filter: MODULE:is_late
        - key_by: origin
        - window: {tumbling: 30m, bound: 5m, grace: 1m, offset: 1m}
          late: too_late
          name: half
        - aggregate: {flights: count, delay: {mean: delay}}
          into: MODULE:Hour
        - emit: MODULE:tell
""",
        lambda m: m.pipeline(
            "hourly",
            m.stream(m.Flight)
            .filter(m.is_late)
            .key_by(lambda flight: flight.origin)
            .window(m.tumbling("30m", bound="5m", grace="1m", offset="1m"), late="too_late", name="half")
            .aggregate(m.Hour, flights=m.count(), delay=m.mean(lambda flight: flight.delay))
            .emit(m.tell),
        ),
    ),
    "without a function": (
        """\
  hourly:
    ways:
      flights:
        - from: MODULE:Flight
        - key_by: number
        - window: {hopping: 20m, every: 10m}
        - aggregate: {flights: count, delay: {sum: delay}}
        - emit: flights.told
          fields: {key: key, start: start, flights: value.flights, delay: value.delay}
""",
        lambda m: m.pipeline(
            "hourly",
            m.stream(m.Flight)
            .key_by(lambda flight: str(flight.number))
            .window(m.hopping("20m", every="10m"))
            .aggregate(m.Hour, flights=m.count(), delay=m.total(lambda flight: flight.delay))
            .emit(m.tell),
        ),
    ),
    "two windows": (
        """\
  hourly:
    ways:
      flights:
        - from: MODULE:Flight
        - key_by: origin
        - window: {tumbling: 10m}
          name: short
        - aggregate: {flights: count, delay: {max: delay}}
          into: MODULE:Hour
        - key_by: key
        - window: {tumbling: 20m}
          name: long
        - aggregate: {n: {sum: value.flights}}
        - emit: MODULE:text_of
""",
        lambda m: m.pipeline(
            "hourly",
            m.stream(m.Flight)
            .key_by(lambda flight: flight.origin)
            .window(m.tumbling("10m"), name="short")
            .aggregate(m.Hour, flights=m.count(), delay=m.maximum(lambda flight: flight.delay))
            .key_by(lambda hour: hour.key)
            .window(m.tumbling("20m"), name="long")
            .aggregate(Record, n=m.total(lambda hour: hour.value.flights))
            .emit(m.text_of),
        ),
    ),
    "branches, merged again": (
        """\
  ways:
    ways:
      flights:
        - from: [MODULE:Flight]
        - through: MODULE:Twice
          returns: MODULE:Flight
        - branch: {late: MODULE:is_late, odd: number}
          rest: others
      end:
        - from: [late, others]
        - emit: MODULE:said
      numbers:
        - from: odd
        - flat_map: MODULE:numbers
        - emit: MODULE:of_number
      odds:
        - from: odd
        - map: number
        - emit: MODULE:of_number
    on_error:
      retry_later: {attempts: 3}
""",
        _branches,
    ),
    "join": (
        """\
  pairs:
    ways:
      weather:
        - from: MODULE:Weather
        - by_key
      flights:
        - from: MODULE:Flight
        - key_by: origin
        - join: weather
          make: MODULE:windy
          before: 10m
          after: 1m
          bound: 2m
          late: too_late
        - emit: flights.said
          fields: {key: key, text: text}
""",
        lambda m: m.pipeline(
            "pairs",
            m.stream(m.Flight)
            .key_by(lambda flight: flight.origin)
            .join(m.stream(m.Weather).by_key(), m.windy, before="10m", after="1m", bound="2m", late="too_late")
            .emit(lambda pair: m.Said(key=pair.key, text=pair.text), m.Said),
        ),
    ),
    "as of, table and lookup": (
        """\
  pairs:
    ways:
      weather:
        - from: MODULE:Weather
        - key_by: origin
      rows:
        - from: MODULE:Weather
        - key_by: origin
        - table: {remove: MODULE:calm}
      flights:
        - from: MODULE:Flight
        - key_by: origin
        - as_of: weather
          make: MODULE:maybe_windy
          how: left
          tolerance: 10m
          late: too_late
        - emit: flights.said
          fields: {key: key, text: text}
      looked:
        - from: MODULE:Flight
        - key_by: origin
        - lookup: rows
          make: MODULE:maybe_windy
          how: left
        - emit: flights.said
          fields: {key: key, text: text}
      joined:
        - from: MODULE:Flight
        - key_by: origin
        - table
        - join: rows
          make: MODULE:both
          how: outer
        - emit: flights.said
          fields: {key: key, text: text}
""",
        _joins,
    ),
    "pacing": (
        """\
  paced:
    ways:
      dedupe:
        - from: MODULE:Flight
        - by_key
        - dedupe: MODULE:twos
          within: 20m
        - key_by: tail
        - throttle: 3
          per: 1h
        - emit: MODULE:said
      sampled:
        - from: MODULE:Flight
        - by_key
        - sample: 10m
        - emit: MODULE:said
      debounced:
        - from: MODULE:Flight
        - by_key
        - debounce: 10m
        - emit: MODULE:said
""",
        lambda m: m.pipeline(
            "paced",
            m.stream(m.Flight)
            .by_key()
            .dedupe(m.twos, within="20m")
            .key_by(lambda flight: flight.tail)
            .throttle(3, per="1h")
            .emit(m.said),
            m.stream(m.Flight).by_key().sample("10m").emit(m.said),
            m.stream(m.Flight).by_key().debounce("10m").emit(m.said),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_says_what_python_says(flights: Folder, case: str) -> None:
    text, declare = CASES[case]
    found = read_topology_file(flights.write(HEAD + text))
    module = importlib.import_module(flights.module)
    meant = Topology("flights", [], parts=[declare(module)], emits=[module.Told, module.Said])
    assert asdict(describe(found)) == asdict(describe(meant))
    outputs = _flow(found, module)
    assert outputs
    assert outputs == _flow(meant, module)


ENRICHED = """\
  rows:
    ways:
      flights:
        - from: MODULE:Flight
        - enrich: TABLE
          by: origin
          make: MODULE:at_airport
          how: left
        - emit: flights.said
          fields: {key: key, text: text}
"""


@pytest.mark.parametrize("table", ["MODULE:airports", "{topic: reference.airports, of: MODULE:Airport}"])
def test_tables(flights: Folder, table: str) -> None:
    topology = read_topology_file(flights.write(HEAD + ENRICHED.replace("TABLE", table)))
    module = importlib.import_module(flights.module)
    assert topology.tables == (module.airports,)
    driver = Driver(topology)
    driver.table(module.airports, {"JFK": module.Airport("Kennedy")})
    for origin in ("JFK", "LGA"):
        driver.send(module.Flight(tail="N1", origin=origin, number=1, delay=0.0))
    assert [record.json()["text"] for record in driver.outputs("said")] == ["Kennedy", "?"]
    text = HEAD.replace("streams:", "tables: [MODULE:airports]\nstreams:") + ENRICHED.replace("TABLE", table)
    again = read_topology_file(flights.write(text))
    assert again.tables == topology.tables
    wrong = "{topic: a, of: MODULE:Airport, most_byte: 3}"
    with pytest.raises(TopologyFileError, match="most_byte'; did you mean 'most_bytes'"):
        read_topology_file(flights.write(HEAD + ENRICHED.replace("TABLE", wrong)))
    with pytest.raises(TopologyFileError, match="topic '!' must be letters"):
        read_topology_file(flights.write(HEAD + ENRICHED.replace("TABLE", '{topic: "!", of: MODULE:Airport}')))


WINDOWS = {
    "tumbling: 30m, clock: processing": lambda m: m.tumbling("30m", clock="processing"),
    "sliding: 30m, bound: 1m": lambda m: m.sliding("30m", bound="1m"),
    "session: 20m": lambda m: m.session("20m"),
    "counted: 3": lambda m: m.counted(3),
    "global: {records: 2, purge: true}": lambda m: m.global_window(records=2, purge=True),
    "global: {when: MODULE:is_late, every: 1h}": lambda m: m.global_window(when=m.is_late, every="1h"),
}


@pytest.mark.parametrize("window", WINDOWS)
def test_windows(flights: Folder, window: str) -> None:
    text = WINDOWED.replace("WINDOW", window).replace("AGGREGATE", "count")
    found = read_topology_file(flights.write(HEAD + text))
    module = importlib.import_module(flights.module)
    part = _windowed(module, WINDOWS[window](module), module.count())
    meant = Topology("flights", [], parts=[part], emits=[module.Told, module.Said])
    assert _flow(found, module) == _flow(meant, module) != []


AGGREGATES: dict[str, Any] = {
    "{sum: delay}": lambda m: m.total(lambda f: f.delay),
    "{min: delay}": lambda m: m.minimum(lambda f: f.delay),
    "{variance: delay}": lambda m: m.variance(lambda f: f.delay),
    "{first: number}": lambda m: m.first(lambda f: f.number, int),
    "{last: gate}": lambda m: m.last(lambda f: f.gate, str | None),
    "{collect: MODULE:twos}": lambda m: m.collect(m.twos, str),
    "{distinct: MODULE:twos}": lambda m: m.distinct(m.twos),
    "{quantiles: {of: delay, at: [0.5, 1.0]}}": lambda m: m.quantiles(lambda f: f.delay, 0.5, 1.0),
    "{top_k: {of: tail, k: 1}}": lambda m: m.top_k(lambda f: f.tail, 1),
    "MODULE:longest": lambda m: m.longest,
}


@pytest.mark.parametrize("emission", ["on_close", "on_update", "{early: {records: 2}}"])
def test_emission(flights: Folder, emission: str) -> None:
    text = WINDOWED.replace("WINDOW", "tumbling: 1h").replace("AGGREGATE", f"count\n          emission: {emission}")
    found = read_topology_file(flights.write(HEAD + text))
    m = importlib.import_module(flights.module)
    said = {"on_close": {}, "on_update": {"emit": m.on_update()}}.get(emission, {"emit": m.early(records=2)})
    part = _windowed(m, m.tumbling("1h"), m.count(), **said)
    meant = Topology("flights", [], parts=[part], emits=[m.Told, m.Said])
    assert _flow(found, m) == _flow(meant, m) != []


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_aggregates(flights: Folder, aggregate: str) -> None:
    text = WINDOWED.replace("WINDOW", "tumbling: 1h").replace("AGGREGATE", f"{{n: {aggregate}}}")
    found = read_topology_file(flights.write(HEAD + text))
    module = importlib.import_module(flights.module)

    def record(n: Any) -> str:
        return f"HourlyWindow(n={n!r})"

    part = _windowed(module, module.tumbling("1h"), record, n=AGGREGATES[aggregate](module))
    meant = Topology("flights", [], parts=[part], emits=[module.Told, module.Said])
    assert _flow(found, module) == _flow(meant, module) != []


GOOD = (
    HEAD
    + """\
  hourly:
    service: {key: 7, grants: ["WindCap.read:/**"]}
    ways:
      weather:
        - from: MODULE:Weather
        - by_key
      flights:
        - from: MODULE:Flight
        - key_by: origin
        - window: {tumbling: 1h, bound: 5m}
        - aggregate: {flights: count, delay: {mean: delay}}
          into: MODULE:Hour
        - emit: MODULE:tell
      pairs:
        - from: MODULE:Flight
        - key_by: origin
        - join: weather
          make: MODULE:windy
        - emit: flights.said
          fields: {key: key, text: text}
capabilities:
  WindCap: {read: []}
"""
)


def test_the_one_with_which_nothing_is_wrong(flights: Folder) -> None:
    topology = read_topology_file(flights.write(GOOD))
    assert set(topology.services) == {"hourly-window", "hourly-join"}


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "text"),
    [
        ("    ways:", "    way:", 4, "streams.hourly.ways", "is missing; allowed: names such as flights"),
        ("key: 7", "key: x", 5, "streams.hourly.service.key", "the kid of the key that signs for it"),
        ("key: 7", "kid: 7, key: 7", 5, "streams.hourly.service.kid", "no field 'kid'; known: grants, key"),
        ("WindCap.read:", "WindCap.reed:", 5, "streams.hourly.service.grants[0]", "reed"),
        ("    ways:", "    on_error: {}\n    ways:", 6, "streams.hourly.on_error", "one of retry_later and"),
        ("    ways:", "    on_error: {retry_later: {}, retry_in_place: {}}\n    ways:", 6, "streams.hourly.on_error", "one of"),
        ("- by_key", "- branch: {pairs: MODULE:is_late}", 17, "streams.hourly.ways.pairs", "a branch of 'weather' is called"),
        ("        - from: MODULE:Weather\n", "", 8, "streams.hourly.ways.weather[0]", "a way begins with from"),
        ("MODULE:Weather", "weather", 8, "streams.hourly.ways.weather[0].from", "goes round: weather > weather"),
        ("MODULE:Weather", "flights.wether", 8, "streams.hourly.ways.weather[0].from", "no intent 'flights.wether'"),
        ("MODULE:Weather", "MODULE:Wether", 8, "streams.hourly.ways.weather[0].from", "did you mean 'Weather'?"),
        ("- by_key", "- bykey", 9, "streams.hourly.ways.weather[1]", "there is no stage 'bykey'; did you mean 'by_key'?"),
        ("key_by: origin", "key_by: orign", 12, "streams.hourly.ways.flights[1].key_by", "no field 'orign'; did you mean"),
        ("key_by: origin", "key_by: delay", 12, "streams.hourly.ways.flights[1].key_by", "delay is float, and this takes int"),
        ("key_by: origin", "key_by: gate", 12, "streams.hourly.ways.flights[1].key_by", "gate is str | None"),
        ("key_by: origin", "key_bye: origin", 12, "streams.hourly.ways.flights[1]", "no stage 'key_bye'; did you mean 'key_by'?"),
        ("        - key_by: origin\n", "", 12, "streams.hourly.ways.flights[1].window", "put key_by or by_key before it"),
        ("tumbling: 1h", "tumbling: soon", 13, "streams.hourly.ways.flights[2]", "'soon' must be a number and a unit"),
        ("tumbling: 1h", "tumbling: 1", 13, "streams.hourly.ways.flights[2].window.tumbling", "found 1, a number"),
        ("tumbling: 1h", "tumblin: 1h", 13, "streams.hourly.ways.flights[2].window", "no window 'tumblin'; did you mean 'tumbling'?"),
        ("bound:", "bond:", 13, "streams.hourly.ways.flights[2].window.bond", "did you mean 'bound'?"),
        ("flights: count", "flights: cont", 14, "streams.hourly.ways.flights[3].aggregate.flights", "did you mean 'count'?"),
        ("mean: delay", "men: delay", 14, "streams.hourly.ways.flights[3].aggregate.delay", "did you mean 'mean'?"),
        ("mean: delay", "mean: origin", 14, "streams.hourly.ways.flights[3].aggregate.delay.mean", "origin is str"),
        ("mean: delay", "quantiles: delay", 14, "streams.hourly.ways.flights[3].aggregate.delay.quantiles", "at: [0.5"),
        ("          into:", "          to:", 15, "streams.hourly.ways.flights[3].to", "did you mean 'into'?"),
        ("MODULE:Hour", "MODULE:hour", 15, "streams.hourly.ways.flights[3].into", "has no function 'hour'; did you mean"),
        ("MODULE:tell", "MODULE:tel", 16, "streams.hourly.ways.flights[4].emit", "has no function 'tel'; did you mean 'tell'"),
        ("emit: MODULE:tell", "map: MODULE:tell", 10, "streams.hourly.ways.flights", "leads nowhere: let it end in emit"),
        ("join: weather", "join: wether", 20, "streams.hourly.ways.pairs[2].join", "no way 'wether'; did you mean 'weather'?"),
        ("join: weather", "join: flights", 20, "streams.hourly.ways.pairs[2].join", "ends in emit or branch"),
        ("join: weather", "lookup: weather", 20, "streams.hourly.ways.pairs[2].lookup", "let that way end with table"),
        ("MODULE:windy\n", "MODULE:windy\n          before: x\n", 20, "streams.hourly.ways.pairs[2]", "'x' must be a number"),
        ("- join: weather", "- table\n        - join: weather\n          late: x", 22, "streams.hourly.ways.pairs[3].late", "are"),
        ("into: MODULE:Hour", "emission: {earl: {}}", 15, "streams.hourly.ways.flights[3].emission.earl", "did you mean 'early'?"),
        ("into: MODULE:Hour", "emission: soon", 15, "streams.hourly.ways.flights[3].emission", "found 'soon', a text"),
        ("emit: flights.said", "emit: flights.sad", 22, "streams.hourly.ways.pairs[3].emit", "no intent 'flights.sad'; did you"),
        ("text: text", "txt: text", 23, "streams.hourly.ways.pairs[3].fields", "needs text too"),
        ("text: text", "text: txt", 23, "streams.hourly.ways.pairs[3].fields.text", "Pair has no field 'txt'"),
        ("  hourly:\n", "  Hourly:\n", 4, "streams.Hourly", "the name must be lower case letters"),
        ("- by_key", "- by_key\n        - emit: MODULE:said", 10, "streams.hourly.ways.weather[2].emit", "put it before key_by"),
    ],
)  # fmt: skip
def test_faults_have_a_place(flights: Folder, old: str, new: str, line: int, field: str, text: str) -> None:
    with pytest.raises(TopologyFileError) as caught:
        read_topology_file(flights.write(GOOD.replace(old, new, 1)))
    found = [(fault.line, fault.field) for fault in caught.value.faults if text in fault.text]
    assert found == [(line, field)], str(caught.value)


def test_what_the_topology_finds_wrong_is_said_of_the_pipeline(flights: Folder) -> None:
    twice = GOOD.replace(
        "  hourly:\n", "  told:\n    ways:\n      a: [{from: MODULE:Told}, {emit: MODULE:Told}]\n  hourly:\n"
    )
    twice = twice.replace("emits: [", "internal: [intents]\nemits: [")
    with pytest.raises(TopologyFileError) as caught:
        read_topology_file(flights.write(twice))
    assert any("intents" in fault.text for fault in caught.value.faults)
