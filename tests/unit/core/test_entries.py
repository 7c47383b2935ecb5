"""Maps of a state: entries are read and written one by one, and are whatever a dictionary would be, whatever happens."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from pf_stream import (
    PUBLIC,
    Context,
    Effects,
    Entries,
    Forget,
    Intent,
    Key,
    MapState,
    Reactor,
    Reply,
    State,
    Topology,
    on,
    upgrade,
)
from pf_stream.core import CommitUnit, Limits, Rewind, StateUndecodableError, changelog
from pf_stream.core.records import SourceRecord
from pf_stream.core.shelf import Shelf
from pf_stream.testing import Driver
from tests.simulation.disk import ModelShelf
from tests.unit.core.kit import Bench, codes, record

TOPIC = "shop.intents"
STATE = changelog.state_key(changelog.state_prefix("stock"), b"a")


@dataclasses.dataclass
class Row:
    """A value that can be changed in place."""

    count: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Price:
    """One that cannot."""

    cents: Annotated[int, Field(ge=0)]


class Stock(State):
    """Two maps and a field."""

    rows: MapState[int, Row]
    prices: MapState[str, Price]
    handled: int = 0


class Do(Intent, name="shop.do", requires=PUBLIC):
    """What a handler is to do, one operation after the other, and whether it fails in the end."""

    shop: Annotated[str, Key]
    operations: list[tuple[str, int, int]]
    fails: str = ""


def apply(state: Stock, operations: list[tuple[str, int, int]]) -> list[object]:
    """The operations, on maps or on what is to be as they are; returns what they have seen."""
    seen: list[object] = []
    rows, prices = state.rows, state.prices
    for name, key, number in operations:
        text = f"{key:+}"
        match name:
            case "add":
                row = rows.get(key) or Row()
                row.count += number
                rows[key] = row
            case "set":
                rows[key] = Row(number)
                prices[text] = Price(abs(number))
            case "change in place":
                if key in rows:
                    rows[key].notes.append(str(number))
            case "delete":
                if key in rows:
                    del rows[key]
                if text in prices:
                    del prices[text]
            case "read":
                seen += [repr(rows.get(key)), prices.get(text), key in rows, text in prices]
            case "first":
                seen += [repr(rows.first()), prices.first(), bool(rows)]
            case "range":
                seen.append([repr(item) for item in rows.items(key, key + number)])
                seen.append(list(prices.items(text)))
            case "all":
                seen += [repr(rows), list(prices)]
            case "change while walking":
                for at, row in rows.items(key):
                    if at % 2:
                        del rows[at]
                    else:
                        row.count += 1
                        rows.get(at + 1, Row()).notes.append("seen")
    state.handled += 1
    return seen


SEEN: list[list[object]] = []
UNUSED = 1 << 50
"""No other operation deletes it: what is wrong only between two intents of a unit is never stored, and so never refused."""


class Stocks(Reactor[Stock], id="stock"):
    """Does the operations on its maps."""

    @on
    def do(self, intent: Do, state: Stock, ctx: Context) -> Effects:
        SEEN.append(apply(state, intent.operations))
        match intent.fails:
            case "raise":
                raise ValueError
            case "wrong value":
                state.rows[UNUSED] = "text"  # type: ignore[assignment]
            case "wrong part":
                state.rows[UNUSED] = Row(count="text")  # type: ignore[arg-type]
            case "constraint":
                state.prices["1"] = Price(-1)
            case "another map":
                state.rows = MapState({1: Row()})
            case "wrong key":
                state.rows["1"] = Row()  # type: ignore[index]
            case "wrong field":
                state.handled = "text"  # type: ignore[assignment]
            case "forget":
                return Forget()
            case "reply":
                return Reply({"rows": [at for at, _ in state.rows.items()]})
        return None


class Second(State):
    """What the reactor after it keeps."""

    seen: MapState[int, int]


class Seconds(Reactor[Second], id="second"):
    """Handles the same type, and may be the one that raises."""

    @on
    def do(self, intent: Do, state: Second, ctx: Context) -> None:
        state.seen[len([*state.seen.items()])] = len(intent.operations)
        if intent.fails == "raise in the second":
            raise ValueError


shop = Topology("shop", [Stocks, Seconds], replies=["replies"])

FAILURES = {
    "raise": "handler_failed",
    "raise in the second": "handler_failed",
    "wrong key": "handler_failed",
    "wrong value": "bad_state",
    "wrong part": "bad_state",
    "constraint": "bad_state",
    "another map": "bad_state",
    "wrong field": "bad_state",
}


def do(at: int, *operations: tuple[str, int, int], fails: str = "", shop: str = "a") -> SourceRecord:
    return record(at, Do(shop=shop, operations=list(operations), fails=fails), None)


def put_on(bench: Bench, shelf: Shelf) -> Bench:
    bench.lane.shelf = shelf
    for store in bench.lane.stores:
        store._shelf = shelf
    return bench


@pytest.fixture(params=["memory", "disk"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return put_on(Bench(shop), ModelShelf()) if request.param == "disk" else Bench(shop)


def run(bench: Bench, *sets: list[tuple[str, int, int]], fails: str = "") -> list[CommitUnit]:
    start = bench.lane.positions[TOPIC]
    return bench.commit_all(*(do(start + at, *one, fails=fails) for at, one in enumerate(sets)), topic=TOPIC)


def of_maps(unit: CommitUnit) -> dict[tuple[str, int | str], bytes | None]:
    """What a unit says of entries."""
    return {
        changelog.parse_subkey(key[len(STATE) :]): value
        for key, value in unit.entries
        if key.startswith(STATE) and key != STATE
    }


class TestUnit:
    def test_each_entry_is_a_record(self, bench: Bench) -> None:
        (unit,) = run(bench, [("set", 1, 5), ("set", -3, 7)], [("add", 1, 2)])
        assert of_maps(unit) == {
            ("rows", 1): b'\x01\x00\x01{"count":7,"notes":[]}',
            ("rows", -3): b'\x01\x00\x01{"count":7,"notes":[]}',
            ("prices", "+1"): b'\x01\x00\x01{"cents":5}',
            ("prices", "-3"): b'\x01\x00\x01{"cents":7}',
        }
        assert dict(unit.entries)[STATE] == b'\x01\x00\x01{"handled":2}'

    def test_only_what_has_changed_is_written(self, bench: Bench) -> None:
        run(bench, [("set", at, 1) for at in range(50)])
        (unit,) = run(bench, [("add", 7, 1), ("read", 8, 0), ("all", 0, 0), ("set", 9, 1)])
        assert set(of_maps(unit)) == {("rows", 7)}
        (unit,) = run(bench, [("delete", 7, 0), ("set", 60, 1), ("delete", 60, 0)])
        assert of_maps(unit) == {("rows", 7): None, ("prices", "+7"): None}

    def test_a_value_that_was_changed_in_place_is_stored(self, bench: Bench) -> None:
        run(bench, [("set", 1, 5)])
        (unit,) = run(bench, [("change in place", 1, 8)])
        assert of_maps(unit) == {("rows", 1): b'\x01\x00\x01{"count":5,"notes":["8"]}'}

    def test_sealed_and_not_yet_acknowledged(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1), ("set", 2, 2)])
        bench.feed(do(1, ("delete", 1, 0), ("set", 3, 3), ("add", 2, 5)), topic=TOPIC)
        sealed = bench.lane.seal()
        assert isinstance(sealed, CommitUnit)
        SEEN.clear()
        bench.feed(do(2, ("all", 0, 0), ("add", 3, 1), ("set", 0, 0)), do(3, ("set", 3, 9), fails="raise"), topic=TOPIC)
        bench.feed(do(4, ("all", 0, 0)), topic=TOPIC)
        assert SEEN[0][0] == "MapState({2: Row(count=7, notes=[]), 3: Row(count=3, notes=[])})"
        later = "MapState({0: Row(count=0, notes=[]), 2: Row(count=7, notes=[]), 3: Row(count=4, notes=[])})"
        assert SEEN[-1][0] == later
        bench.lane.acknowledged()
        unit = bench.commit()
        assert set(of_maps(unit)) == {("rows", 3), ("rows", 0), ("prices", "+0")}
        SEEN.clear()
        run(bench, [("all", 0, 0)])
        assert SEEN[0][0] == later

    def test_size_counts(self) -> None:
        limits = Limits(unit_bytes=1 << 20, unit_bytes_hard=20_000)
        bench = Bench(shop, limits=limits)
        units = run(bench, *([("set", at, at)] for at in range(200)))
        assert len(units) > 1
        assert not codes(units)
        assert max(sum(len(key) + len(value or b"") for key, value in unit.entries) for unit in units) < 20_000
        (letter,) = codes(run(bench, [("set", at, at) for at in range(1_000, 1_400)]))
        assert letter[0] == "unit_too_large"

    def test_a_unit_with_many_entries_gets_full(self) -> None:
        bench = Bench(shop, limits=Limits(unit_bytes=20_000))
        assert not bench.feed(*(do(at, *(("set", at * 10 + n, 1) for n in range(10))) for at in range(20)), topic=TOPIC)
        assert bench.lane.is_full

    def test_entries_load_when_they_are_used(self, bench: Bench) -> None:
        run(bench, [("set", at, 1) for at in range(1_000)])
        again = Bench(shop, changelog=bench.changelog)
        asked: list[bytes] = []
        shelf = again.lane.shelf
        found = shelf.get

        class Asked(ModelShelf):
            def get(self, key: bytes, /) -> bytes | None:
                asked.append(key)
                return found(key)

        again.lane.stores[0]._shelf = Asked()
        again.feed(do(1, ("add", 500, 1)), topic=TOPIC)
        assert [changelog.parse_state_key(key)[2] for key in asked] == [b"", b"\x04rowsi\x82\x01\xf4"]
        state = again.lane.stores[0].live[b"a"].state
        assert len(state.rows._slots) == 1
        assert len(state.prices._slots) == 0

    def test_what_is_not_used_any_more_is_no_object(self, bench: Bench) -> None:
        for at in range(50):
            run(bench, [("set", at, 1)])
        slots = bench.lane.stores[0].live[b"a"].state.rows._slots
        assert set(slots) == {49}


class TestForget:
    def test_all_entries_go(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1), ("set", 2, 2)])
        (unit,) = run(bench, [("set", 3, 3), ("delete", 2, 0)], fails="forget")
        assert of_maps(unit) == dict.fromkeys([("rows", 1), ("rows", 2), ("prices", "+1"), ("prices", "+2")])
        assert dict(unit.entries)[STATE] is None
        assert [*bench.lane.entries("stock", b"a")] == []
        assert bench.state(Stock, "stock", "a") is None

    def test_what_follows_begins_anew(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1), ("set", 2, 2)])
        start = bench.lane.positions[TOPIC]
        (unit,) = bench.commit_all(
            do(start, fails="forget"),
            do(start + 1, ("add", 2, 5)),
            do(start + 2, ("set", 7, 7), fails="raise"),
            topic=TOPIC,
        )
        assert of_maps(unit) == {
            ("rows", 1): None,
            ("prices", "+1"): None,
            ("prices", "+2"): None,
            ("rows", 2): b'\x01\x00\x01{"count":5,"notes":[]}',
        }
        assert bench.state(Stock, "stock", "a") == Stock(rows=MapState({2: Row(5)}), prices=MapState(), handled=1)
        SEEN.clear()
        run(bench, [("all", 0, 0)])
        assert SEEN == [["MapState({2: Row(count=5, notes=[])})", []]]

    def test_sealed_and_not_yet_acknowledged(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1)])
        bench.feed(do(1, fails="forget"), do(2, ("set", 5, 5)), topic=TOPIC)
        bench.lane.seal()
        SEEN.clear()
        bench.feed(do(3, ("read", 1, 0), ("all", 0, 0)), topic=TOPIC)
        assert SEEN == [["None", None, False, False, "MapState({5: Row(count=5, notes=[])})", ["+5"]]]

    def test_entries_of_a_field_that_is_gone_go_too(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1)])
        orphan = STATE + b"\x03olds1"
        bench.lane.shelf.put([(orphan, b"?")], 0)
        (unit,) = run(bench, [], fails="forget")
        assert dict(unit.entries)[orphan] is None
        assert orphan in dict(unit.entries)

    def test_keys_and_entries_are_not_mixed_up(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1), ("set", 2, 2)])
        assert list(bench.lane.keys("stock")) == [b"a"]
        start = bench.lane.positions[TOPIC]
        bench.commit_all(do(start, ("set", 9, 9), shop=""), do(start + 1, ("set", 8, 8), shop="ab"), topic=TOPIC)
        assert sorted(bench.lane.keys("stock")) == [b"", b"a", b"ab"]
        run(bench, [], fails="forget")
        assert sorted(bench.lane.keys("stock")) == [b"", b"ab"]
        assert [changelog.parse_subkey(key) for key, _ in bench.lane.entries("stock", b"ab")] == [
            ("rows", 8),
            ("prices", "+8"),
        ]


class TestFailures:
    @pytest.mark.parametrize("fails", FAILURES)
    def test_nothing_of_it_remains(self, bench: Bench, fails: str) -> None:
        run(bench, [("set", 1, 1), ("set", 2, 2)])
        start = bench.lane.positions[TOPIC]
        records = [
            do(start, ("add", 1, 1), ("set", 3, 3)),
            do(start + 1, ("delete", 1, 0), ("add", 2, 9), ("change in place", 3, 3), ("set", 4, 4), fails=fails),
            do(start + 2, ("add", 3, 1)),
        ]
        units = bench.commit_all(*records, topic=TOPIC)
        assert codes(units) == [(FAILURES[fails], start + 1)]
        expected = Stock(
            rows=MapState({1: Row(2), 2: Row(2), 3: Row(4)}),
            prices=MapState({f"+{at}": Price(at) for at in (1, 2, 3)}),
            handled=3,
        )
        assert bench.state(Stock, "stock", "a") == expected
        assert Bench(shop, changelog=bench.changelog).state(Stock, "stock", "a") == expected

    def test_failures_after_one_another(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1)])
        fail = {"fails": "raise"}
        (unit,) = bench.commit_all(
            do(1, ("add", 1, 1)),
            do(2, ("add", 1, 1), **fail),
            do(3, ("add", 1, 1), **fail),
            do(4, ("add", 1, -1)),
            do(5, ("add", 1, 1), **fail),
            do(6, ("add", 1, 1), **fail),
            topic=TOPIC,
        )
        assert of_maps(unit) == {}, "it is as it was"

    def test_a_key_whose_only_intent_failed_has_nothing(self, bench: Bench) -> None:
        units = run(bench, [("set", 1, 1)], fails="raise")
        assert not [key for unit in units for key, _ in unit.entries if key[1:2] == b"s"]
        assert bench.lane.stores[0].live == {}

    def test_nothing_that_is_absent_can_be_had(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1)])
        rows = bench.lane.stores[0].live[b"a"].state.rows
        with pytest.raises(KeyError):
            rows[2]
        with pytest.raises(KeyError):
            del rows[2]
        with pytest.raises(TypeError, match="keys of 'rows' are int, and True is bool"):
            rows.get(True)
        assert rows.get(2, "nothing") == "nothing"


class TestUndecodable:
    """The lane stops: it is no failure of the handler's, even if that catches whatever is raised."""

    def at(self, bench: Bench, subkey: bytes, value: bytes, *operations: tuple[str, int, int]) -> StateUndecodableError:
        again = Bench(shop, changelog=[*bench.changelog, (STATE + subkey, value)])
        with pytest.raises(StateUndecodableError) as caught:
            again.feed(do(again.lane.positions[TOPIC], *operations), topic=TOPIC)
        assert (caught.value.reactor, caught.value.key) == ("stock", b"a")
        return caught.value

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (b"", "requires a buffer"),
            (b"\x01\x00\x01[]", "Input should be an object"),
            (b"\x02\x00\x01{}", "it has format 2"),
            (b"\x01\x00\x02{}", "it has version 2, and Stock is version 1 here"),
        ],
    )
    @pytest.mark.parametrize("use", ["add", "all"])
    def test_a_value(self, bench: Bench, value: bytes, reason: str, use: str) -> None:
        run(bench, [("set", 1, 1)])
        error = self.at(bench, b"\x04rowsi\x81\x01", value, (use, 1, 1))
        assert "entry 1 of 'rows': " in str(error)
        assert reason in str(error)
        assert error.subkey == b"\x04rowsi\x81\x01"

    @pytest.mark.parametrize(
        "subkey", [b"\x04rows", b"\x04rowsi", b"\x04rowsi\x82\x01", b"\x04rowss1", b"\x06pricess\xff"]
    )
    def test_a_key(self, bench: Bench, subkey: bytes) -> None:
        run(bench, [("set", 1, 1)])
        assert "an entry of " in str(self.at(bench, subkey, b"\x01\x00\x01{}", ("all", 0, 0)))

    def test_what_is_not_used_does_not_stop_it(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1)])
        again = Bench(shop, changelog=[*bench.changelog, (STATE + b"\x04rowsi\x81\x05", b"?")])
        run(again, [("add", 1, 1), ("range", 0, 4)])

    @pytest.mark.parametrize("method", ["get", "entries"])
    def test_a_shelf_that_fails(self, bench: Bench, method: str) -> None:
        run(bench, [("set", 1, 1)])

        def fail(*_: object) -> Any:
            raise OSError("the disk is gone")

        bench.lane.stores[0].live[b"a"].state.rows._shelf = broken = ModelShelf()
        setattr(broken, method, fail)
        with pytest.raises(OSError, match="the disk is gone"):
            bench.feed(do(1, ("read", 99, 0), ("all", 0, 0)), topic=TOPIC)

    def test_while_what_failed_is_undone(self, bench: Bench) -> None:
        run(bench, [("set", 1, 1)])
        bench.feed(do(1, ("read", 1, 0)), topic=TOPIC)
        state = bench.lane.stores[0].live[b"a"].state
        state.rows._slots[1].raw = b"?"
        with pytest.raises(StateUndecodableError):
            bench.feed(do(2, fails="raise"), topic=TOPIC)


class TestVersions:
    def topology(self, version: int, entries: Entries | None = None) -> Topology:
        hint: Any = MapState[int, int] if entries is None else Annotated[MapState[int, int], entries]

        class Counted(State, version=version):
            seen: hint
            n: int = 0

            if version == 2:

                @upgrade(from_version=1)
                @staticmethod
                def _more(old: dict[str, Any]) -> dict[str, Any]:
                    return {"n": old["n"] + 100}

        class Counts(Reactor[Counted], id="counts"):
            @on
            def add(self, intent: Do, state: Counted, ctx: Context) -> None:
                state.n += 1
                state.seen[state.n] = sum(number for _, number in state.seen.items()) + 1

        return Topology("shop", [Counts])

    def bench(self, topology: Topology, before: Bench | None = None) -> Bench:
        return Bench(topology, changelog=[] if before is None else before.changelog)

    def test_entries_of_an_older_version_stop_the_lane(self) -> None:
        first = self.bench(self.topology(1))
        run(first, [], [])
        with pytest.raises(StateUndecodableError, match="version 1, and @upgrade does not reach entries") as caught:
            self.bench(self.topology(2), first).feed(do(2), topic=TOPIC)
        assert "Entries(since=1)" in str(caught.value)

    def test_but_for_those_that_are_as_they_were(self) -> None:
        first = self.bench(self.topology(1))
        run(first, [], [])
        second = self.bench(self.topology(2, Entries(since=1)), first)
        run(second, [])
        names = {changelog.parse_subkey(key): value for key, value in second.lane.entries("counts", b"a")}
        assert names == {
            ("seen", 1): b"\x01\x00\x011",
            ("seen", 2): b"\x01\x00\x012",
            ("seen", 103): b"\x01\x00\x024",
        }

    def test_a_field_with_another_name_and_its_old_id(self) -> None:
        first = self.bench(self.topology(1))
        run(first, [], [])
        again = self.bench(self.topology(1, Entries(id="other")), first)
        run(again, [])
        assert ("other", 3) in [changelog.parse_subkey(key) for key, _ in again.lane.entries("counts", b"a")]
        back = self.bench(self.topology(1, Entries(id="seen")), again)
        run(back, [])
        assert dict(back.lane.entries("counts", b"a"))[b"\x04seeni\x81\x04"] == b"\x01\x00\x014"


operations = st.lists(
    st.tuples(
        st.sampled_from(
            ["add", "set", "change in place", "delete", "read", "first", "range", "all", "change while walking"]
        ),
        st.sampled_from([-300, -2, -1, 0, 1, 2, 3, 255, 256, 1 << 40]),
        st.integers(-3, 300),
    ),
    max_size=4,
)
intents = st.tuples(
    st.sampled_from("ab"), operations, st.sampled_from(["", "", "", "", "forget", *FAILURES]), st.booleans()
)
happenings: Any = st.one_of(
    st.tuples(st.just("intents"), st.lists(intents, min_size=1, max_size=6)),
    st.tuples(st.sampled_from(["recover", "compact and recover", "age"]), st.just([])),
)


@pytest.mark.parametrize("make_shelf", [None, ModelShelf], ids=["memory", "disk"])
@given(course=st.lists(happenings, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_it_is_a_dictionary(make_shelf: Callable[[], Shelf] | None, course: list[tuple[str, list[Any]]]) -> None:
    """Against a state with maps in memory, whatever handlers do, whoever fails, however the units are cut and taken back."""
    limits = Limits(unit_records=5)
    bench = Bench(shop, limits=limits)
    if make_shelf is not None:
        put_on(bench, make_shelf())
    model: dict[str, Stock] = {}
    offset = 0
    for what, batch in course:
        if what == "age":
            for store in bench.lane.stores:
                store._idle, store.live = store.live, {}
            continue
        if what != "intents":
            log = bench.changelog
            if what != "recover":
                last = {key: at for at, (key, _) in enumerate(log)}
                log = [(key, value) for at, (key, value) in enumerate(log) if last[key] == at and value is not None]
            bench = Bench(shop, limits=limits, changelog=log)
            if make_shelf is not None:
                shelf = make_shelf()
                shelf.put(log, len(log))
                put_on(bench, shelf)
            continue
        records, saw = [], []
        for at, (name, done, chosen, _) in enumerate(batch):
            forgotten = any((one[0], one[2]) == (name, "forget") for one in batch[at:])
            # What is wrong would never be stored then, and so never be refused.
            fails = "raise" if forgotten and FAILURES.get(chosen) == "bad_state" else chosen
            records.append(do(offset, *done, fails=fails, shop=name))
            offset += 1
            if fails in FAILURES:
                continue
            state = model.setdefault(name, Stock(rows=MapState(), prices=MapState()))
            saw.append(apply(state, done))
            if fails == "forget":
                del model[name]
        SEEN.clear()
        overlapping(bench, records, [cut for *_, cut in batch])
        for name in "ab":
            assert bench.state(Stock, "stock", name) == model.get(name)
        heard = iter(SEEN)
        assert all(any(one == other for other in heard) for one in saw), (
            "each was seen, in this order, among what failed"
        )


def overlapping(bench: Bench, records: list[SourceRecord], cuts: list[bool]) -> None:
    """Decide records as a worker does: the next unit is filled while the one before it is not acknowledged yet."""
    in_flight: CommitUnit | None = None

    def acknowledge() -> None:
        nonlocal in_flight
        if in_flight is not None:
            bench.changelog.extend(in_flight.entries)
            bench.lane.acknowledged(len(bench.changelog))
            in_flight = None

    end = records[-1].offset + 1
    while bench.lane.positions[TOPIC] < end or bench.lane.has_work:
        start = bench.lane.positions[TOPIC]
        rest = [one for one in records if one.offset >= start]
        stop = next((at + 1 for at, one in enumerate(rest) if cuts[one.offset - records[0].offset]), len(rest))
        bench.feed(*rest[:stop], topic=TOPIC)
        acknowledge()
        unit = bench.lane.seal()
        if not isinstance(unit, Rewind):
            in_flight = unit
    acknowledge()


@pytest.mark.parametrize("seed", range(8))
def test_crashes_between_any_two_actions(seed: int) -> None:
    driver = Driver(shop, seed=seed, limits=Limits(poison_attempts=1 << 30))
    model = Stock(rows=MapState(), prices=MapState())
    actions = 0

    def crash(action: object) -> None:
        nonlocal actions
        actions += 1
        if actions % 3 == seed % 3 and actions < 60:
            driver.crash()

    driver.after_action = crash
    with driver.paused():
        for at in range(30):
            done = [("add", at % 7, 1), ("delete", (at * 3) % 7, 0), ("set", at, at)]
            fails = "raise" if at % 5 == 4 else "wrong part" if at == 22 else ""
            driver.send(Do(shop="a", operations=done, fails=fails))
            if not fails:
                apply(model, done)
    assert driver.state(Stocks, "a") == model
    assert {letter.offset for letter in driver.dead_letters()} == {4, 9, 14, 19, 22, 24, 29}


def test_keys_are_sorted_as_their_names_are() -> None:
    """Of a thousand bits at most; a longer one is refused before anything is changed."""
    bench = Bench(shop)
    run(bench, [("set", 1, 1)])
    rows = bench.lane.stores[0].live[b"a"].state.rows
    rows[(1 << 1016) - 1] = rows[1 - (1 << 1016)] = Row()
    for key in (1 << 1016, -(1 << 1016)):
        with pytest.raises(ValueError, match="127 bytes"):
            rows[key] = Row()
    prices = bench.lane.stores[0].live[b"a"].state.prices
    with pytest.raises(ValueError, match="surrogates"):
        prices["\ud800"] = Price(1)
    bench.feed(do(1), topic=TOPIC)
    bench.commit()
    state = bench.state(Stock, "stock", "a")
    assert state is not None
    assert list(state.rows) == [1 - (1 << 1016), 1, (1 << 1016) - 1]
