"""Rows for programs, tables for people."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.peers.plan import Cell, parse
from bench.peers.progress import Outcome
from bench.peers.report import rows, save, show

KEYS = [
    "engine",
    "guarantee",
    "job",
    "keys",
    "records_per_s",
    "steady_records_per_s",
    "cpu_us_per_record",
    "p50_ms",
    "p99_ms",
    "rss_mb",
    "conditions",
]
FAST = Outcome(
    1_000_000,
    0.25,
    records_per_s=105_079.4,
    steady_records_per_s=101_000.6,
    cpu_us_per_record=9.876,
    rss_mb=1_234.5,
    broker_core_share=0.714,
    others_share=0.021,
)
SLOW = Outcome(1_000_000, 0.75, records_per_s=62_185.0, cpu_us_per_record=12.0, rss_mb=100.0, broker_core_share=0.3)
PACED = Outcome(
    300_000,
    0.1,
    records_per_s=20_000,
    cpu_us_per_record=20.0,
    p50_ms=1_234.4,
    p99_ms=4_321.9,
    broker_core_share=0.714,
    late_ms=3.0,
)
WRONG = Outcome(1_000_000, 0.1, wrong="3 of 1,000 accounts are wrong", records_per_s=999_999.0)
BEHIND = Outcome(300_000, 0.1, records_per_s=20_000, failed="behind: 5%")


def cells(*arguments: str) -> list[Cell]:
    return parse(arguments).cells()


def found(outcomes: dict[Cell, list[Outcome]], missing: dict[str, str] | None = None) -> list[dict[str, Any]]:
    return rows(outcomes, missing or {}, {"cpu": "a CPU", "kafka": "4.4.0"})


def printed(some: list[dict[str, Any]]) -> str:
    console = Console(file=io.StringIO(), width=100)
    show(some, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_row_has_medians_and_the_rest_in_its_conditions() -> None:
    (cell,) = cells("--engines", "pf_stream-equal", "--jobs", "counter", "--keys", "hot", "--rates", "0")
    (row,) = found({cell: [SLOW, FAST, FAST]})
    assert list(row) == KEYS
    assert (row["engine"], row["guarantee"], row["job"], row["keys"]) == (
        "pf_stream-equal",
        "effectively_once",
        "counter",
        "hot",
    )
    assert (row["records_per_s"], row["steady_records_per_s"], row["cpu_us_per_record"]) == (105_079, 101_001, 9.9)
    assert (row["p50_ms"], row["p99_ms"]) == (None, None)
    conditions = row["conditions"]
    assert conditions["least"]["records_per_s"] == 62_185
    assert conditions["most"]["records_per_s"] == 105_079
    assert (conditions["rounds"], conditions["records"], conditions["offered_per_s"]) == (3, 1_000_000, None)
    assert (conditions["cpu"], conditions["kafka"], conditions["load_before"]) == ("a CPU", "4.4.0", 0.25)
    assert conditions["broker_core_share"] == 0.71


def test_what_is_wrong_has_no_figures() -> None:
    (cell,) = cells("--engines", "faust", "--jobs", "counter", "--keys", "hot", "--rates", "0")
    (row,) = found({cell: [FAST, WRONG]})
    assert row["records_per_s"] is None
    assert row["conditions"]["wrong"] == "3 of 1,000 accounts are wrong"
    text = printed([row])
    assert "WRONG" in text
    assert "faust (at_least_once) is WRONG at counter, hot keys: 3 of 1,000 accounts are wrong" in " ".join(
        text.split()
    )
    assert "105,079" not in text


def test_what_is_missing_is_said_and_what_was_not_reached_is_left_out() -> None:
    streams, quix = cells("--engines", "kafka-streams,quix", "--jobs", "counter", "--keys", "hot", "--rates", "0")[1:3]
    some = found({streams: [], quix: []}, {"kafka-streams": "no JDK"})
    assert [row["engine"] for row in some] == ["kafka-streams"]
    text = printed(some)
    assert "not here" in text
    assert "kafka-streams is not here: no JDK" in text


def test_one_failed_round_does_not_hide_the_others() -> None:
    (cell,) = cells("--engines", "raw-aiokafka", "--jobs", "counter", "--keys", "hot", "--rates", "0")
    (row,) = found({cell: [SLOW, Outcome(0, 0.1, failed="raw-aiokafka: it ended with exit code 1")]})
    assert row["records_per_s"] == 62_185
    text = printed([row])
    assert "62,185" in text
    assert "it ended with exit code 1" in text


@pytest.mark.parametrize("outcome", [FAST, SLOW, PACED, WRONG, BEHIND])
def test_everything_fits_a_hundred_columns(outcome: Outcome) -> None:
    text = printed(found({cell: [outcome, SLOW] for cell in cells()}))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_who_is_behind_or_too_slow_has_that_in_the_table() -> None:
    (cell,) = cells("--engines", "faust", "--jobs", "counter", "--keys", "hot", "--rates", "1000")[1:]
    text = printed(found({cell: [BEHIND]}))
    assert "behind: 5%" in text
    assert "1,234" not in text


def test_a_latency_that_measures_the_bench_is_not_to_be_quoted() -> None:
    (cell,) = cells("--engines", "faust", "--jobs", "counter", "--keys", "hot", "--rates", "1000")[1:]
    said = "faust (at_least_once) at counter+output, hot keys, 1,000/s: not to be quoted"
    assert said not in " ".join(printed(found({cell: [PACED]})).split())
    assert said in " ".join(printed(found({cell: [replace(PACED, broker_core_share=0.76)]})).split())


def test_each_peer_says_what_it_lacks() -> None:
    text = " ".join(printed(found({cell: [FAST] for cell in cells()})).split())
    assert "quix lacks: capability check, validation" in text
    assert "kafka-streams lacks: capability check" in text
    assert "pf_stream lacks" not in text


def test_the_share_of_the_brokers_core_is_in_every_row() -> None:
    some = found({cell: [PACED if cell.rate else FAST] for cell in cells()})
    assert printed(some).count("   71%") == len(some)


def test_rows_are_saved_as_a_list(tmp_path: Path) -> None:
    some = found({cell: [FAST] for cell in cells("--engines", "quix")})
    save(some, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == some
