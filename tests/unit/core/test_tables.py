"""Rows of global tables: snapshots against a model, limits, and records that are none."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream import DefinitionError, GlobalTable
from pf_stream.core.records import SourceRecord
from pf_stream.core.tables import Snapshot, TableFullError, TableRowError, TableRows, UnitRows
from pf_stream.core.watermark import WATERMARK_TYPE


@dataclass(frozen=True)
class Room:
    n: int


@dataclass(frozen=True)
class Other:
    n: int


ROOMS = GlobalTable("rooms", Room)
KEYS = (b"a", b"b", b"c")


def record(key: bytes | None, value: bytes | None, *headers: tuple[str, bytes]) -> SourceRecord:
    return SourceRecord(0, 0, key, value, headers)


def row(n: int) -> bytes:
    return b'{"n":%d}' % n


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 9))))
        ),
        st.tuples(st.just("open"), st.none()),
        st.tuples(st.just("close"), st.integers(0, 3)),
    ),
    max_size=30,
)


@given(steps)
@settings(max_examples=200)
def test_snapshots_stay_as_they_were(steps: list[tuple[str, Any]]) -> None:
    rows = TableRows(ROOMS)
    model: dict[bytes, bytes] = {}
    held: list[tuple[Snapshot, dict[bytes, bytes]]] = []
    for what, with_ in steps:
        match what:
            case "write":
                written = [(key.encode(), None if n is None else row(n)) for key, n in with_]
                rows.read(0, [record(key, value) for key, value in written])
                for key, value in written:
                    model.pop(key, None)
                    if value is not None:
                        model[key] = value
            case "open":
                held.append((rows.snapshot(), dict(model)))
            case _ if held:
                held.pop(with_ % len(held))
        assert rows.rows == model
        assert [[one.get(key) for key in KEYS] for one, _ in held] == [
            [was.get(key) for key in KEYS] for _, was in held
        ]
    held.clear()
    rows.read(0, [])
    assert rows.past == []
    assert rows.bytes == sum(len(key) + len(value) + 150 for key, value in model.items())


def test_what_snapshots_need_counts() -> None:
    table = GlobalTable("rooms", Room, most_bytes=1_000)
    rows = TableRows(table)
    rows.read(0, [record(b"a", row(1))])
    snapshot = rows.snapshot()
    for n in range(100):  # one version for one snapshot, however often it changes
        rows.read(0, [record(b"a", row(n))])
    assert len(rows.past) == 1
    assert snapshot.get(b"a") == row(1)
    with pytest.raises(TableFullError, match="more than 1,000 bytes: give it a larger most_bytes"):
        rows.read(0, [record(b"%d" % n, row(n)) for n in range(10)])


def test_a_table_that_is_kept_for_too_many_snapshots_is_full_and_not_when_they_are_gone() -> None:
    rows = TableRows(GlobalTable("rooms", Room, most_bytes=1_000))
    rows.read(0, [record(b"a", row(1))])
    held: list[Snapshot] = []

    def change() -> None:
        for n in range(10):
            held.append(rows.snapshot())
            rows.read(0, [record(b"a", row(n))])

    with pytest.raises(TableFullError):
        change()
    assert 1 < len(held) < 10
    held.clear()
    rows.read(0, [record(b"a", row(2))])
    assert rows.bytes == len(b"a") + len(row(2)) + 150


def test_records_that_are_no_rows() -> None:
    rows = TableRows(ROOMS)
    told = record(b"w", b"x", ("ce_type", WATERMARK_TYPE))
    rows.read(0, [record(b"a", row(1)), record(b"a", b"{}"), record(None, row(2)), record(b"b", b"{"), told])
    assert rows.rows == {}, "what is under a key is what the last record says"
    assert rows.bad == 3
    rows = TableRows(GlobalTable("rooms", Room, on_bad="stop"))
    with pytest.raises(TableRowError, match="partition 3, offset 0, key b'a' is no Room"):
        rows.read(3, [record(b"a", b"{}")])


def test_a_unit_sees_one_version_of_all_tables_and_objects_of_its_own() -> None:
    halls = GlobalTable("halls", Room)
    tables = {"rooms": TableRows(ROOMS), "halls": TableRows(halls)}
    unit = UnitRows(tables)
    tables["rooms"].read(0, [record(b"a", row(1))])
    assert unit.row(ROOMS, b"a") == Room(1), "nothing was asked before"
    assert unit.row(ROOMS, b"a") is not unit.row(ROOMS, b"a")
    for one in tables.values():
        one.read(0, [record(b"a", row(2))])
    assert (unit.row(ROOMS, b"a"), unit.row(halls, b"a")) == (Room(1), None)
    assert UnitRows(tables).row(halls, b"a") == Room(2)
    with pytest.raises(LookupError, match="no such table of 'other'"):
        unit.row(GlobalTable("other", Room), b"a")
    with pytest.raises(LookupError, match="no such table of 'rooms'"):
        unit.row(GlobalTable("rooms", Other), b"a")


def test_a_table_is_declared_well() -> None:
    with pytest.raises(DefinitionError) as caught:
        GlobalTable("ro oms", object(), most_bytes=0, on_bad="fail")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 4
