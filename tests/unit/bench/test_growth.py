"""How cost grows: what is sent, what a turn of a lane does, and what is made of the figures."""

import json
from pathlib import Path

import pytest

from bench.growth.lanes import AXES, Case, Point
from bench.growth.load import Load, account, tokens
from bench.growth.report import NAMES, Row, draw, fill, load, merge, save, table, verdicts
from bench.growth.topology import Posted
from pf_stream.security import SigningKey

CONDITIONS = {"cpu": "a CPU", "python": "3.11.7"}


def row(axis: str, x: int, *took: float, **others: float | None) -> Row:
    return Row.of(axis, x, took or [15.0], CONDITIONS, **others)


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 200, 100_000])
def test_a_value_has_its_size_and_is_what_the_topology_reads(size: int) -> None:
    key, value, headers = Load([b"first", b"second"], size).row(7, 123, 1)
    posted = Posted.model_validate_json(value)
    assert (key, len(value)) == (account(123), size)
    assert (posted.account.encode(), posted.tenant, posted.seq) == (key, "t000001", 7)
    assert dict(headers)["pf-context"] == b"second"


def test_each_tenant_has_a_token_of_its_own() -> None:
    assert len(set(tokens(SigningKey.generate(), "bench", 3))) == 3


# --- a turn -----------------------------------------------------------------------------------------------------------


def test_a_turn_is_whole_units_and_no_more_than_memory_bears() -> None:
    assert Point("unit", 300, unit=300).records(10_000) == 9_900
    assert Point("unit", 10_000, unit=10_000).records(2_000) == 10_000
    assert Point("payload", 100_000, unit=100, size=100_000).records(10_000) == 600


def test_a_fetched_batch_is_no_larger_than_a_fetch() -> None:
    assert (Point("unit", 10, unit=10).batch, Point("payload", 10**5, unit=100, size=10**5).batch) == (10, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [Point("unit", 3, unit=3), Point("keys", 40, keys=40, tokens=5), Point("payload", 10**5, unit=7, size=10**5)],
)
def test_a_turn_handles_all_its_records_in_units_of_that_length(point: Point) -> None:
    case = Case(point)
    handled, sequence = case.lane.handled, case.lane.sequence
    assert case.turn(100) > 0
    assert case.lane.handled - handled == point.records(100)
    assert case.lane.sequence - sequence == point.records(100) // point.unit
    assert len(set(case.lane.keys("accounts"))) == point.keys


def test_every_axis_but_those_of_workers_is_measured_in_lanes() -> None:
    assert set(NAMES) - set(AXES) == {"partitions", "processes"}


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_row_has_the_best_the_middle_and_the_worst() -> None:
    found = row("keys", 10, 3.0, 1.0, 2.004, start_s=1.239, rss_mb=None)
    assert (found.us, found.median_us, found.most_us) == (1.0, 2.0, 3.0)
    assert (found.start_s, found.rss_mb, found.conditions["turns"]) == (1.24, None, 3)


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = [row("keys", 10), row("payload", 100, ns_per_byte=150.0)]
    save(rows, tmp_path / "growth.json")
    assert load(tmp_path / "growth.json") == rows
    assert isinstance(json.loads((tmp_path / "growth.json").read_text()), list)
    assert load(tmp_path / "none.json") == []


def test_what_is_measured_anew_replaces_its_axis_alone() -> None:
    old = [row("unit", 1), row("keys", 1), row("keys", 10), row("processes", 1)]
    new = [row("keys", 100, 9.0), row("keys", 5, 9.0)]
    assert [(one.axis, one.x) for one in merge(old, new)] == [("unit", 1), ("keys", 5), ("keys", 100), ("processes", 1)]


def test_the_table_tells_every_figure() -> None:
    told = table([row("partitions", 1_000, 15.0, 17.0, start_s=12.5)])
    assert "| partitions on one worker | 1,000 | 15.00 | 16.00 | 17.00 | start_s 12.5 |" in told


@pytest.mark.parametrize(
    ("us", "first_start_s", "start_s", "well"),
    [(22.4, 59.0, None, [True, True]), (22.6, 59.0, 61.0, [False, False]), (10.0, 61.0, 1.0, [True, False])],
)
def test_many_partitions_are_held_against_few(
    us: float, first_start_s: float, start_s: float | None, well: list[bool]
) -> None:
    many = row("partitions", 1_000, us, first_start_s=first_start_s, start_s=start_s)
    assert [met for _, met in verdicts([row("partitions", 4), many])] == well


def test_without_both_there_is_no_verdict() -> None:
    assert verdicts([row("partitions", 4), row("keys", 1_000)]) == []


def test_the_page_is_filled_at_its_place_again_and_again() -> None:
    page = "before\n<!-- growth -->\nold\n<!-- /growth -->\nbehind\n"
    rows = [
        row("payload", 1_000, 16.0, ns_per_byte=16.0),
        row("processes", 2, 15.0, records_per_s=81_234.5, broker_share=0.71, others_share=0.01),
    ]
    filled = fill(page, rows)
    assert filled == fill(filled, rows)
    assert filled.startswith("before\n<!-- growth -->\n")
    assert filled.endswith("\n<!-- /growth -->\nbehind\n")
    assert "old" not in filled
    assert "| bytes of a value | 1,000: 16.0 |\n| the same, in ns for a byte | 1,000: 16.0 |" in filled
    assert "2 processes handle 81,234 records/s, while Kafka and the bench use 71% of a core" in filled


def test_a_page_without_the_place_is_not_written() -> None:
    with pytest.raises(ValueError, match="growth"):
        fill("<!-- /growth --> <!-- growth -->", [row("unit", 1)])


def test_the_repository_has_the_place() -> None:
    page = Path(__file__).parents[3] / "docs" / "performance.md"
    assert fill(page.read_text(encoding="utf-8"), [row("unit", 1)])


@pytest.mark.slow
def test_the_plot_is_the_same_for_the_same_rows_and_its_text_is_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row("unit", 1, 90.0), row("unit", 1_000, 15.0), row("payload", 100, ns_per_byte=150.0)]
    for name in ("one.svg", "other.svg"):
        draw(rows, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert drawn == (tmp_path / "other.svg").read_text(encoding="utf-8")
    assert ">records of a unit</text>" in drawn
    assert "<dc:date>" not in drawn
