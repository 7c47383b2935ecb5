"""The command line of the bench, how answers are read, and what its table says."""

import io
import json

import pytest
from rich.console import Console

from bench.nexmark.cells import Cell
from bench.nexmark.plan import parse
from bench.nexmark.reference import QUERIES, rows
from bench.nexmark.report import markdown, show
from bench.nexmark.report import rows as told
from bench.peers.progress import Outcome

BELOW = 1_000_000


def shown(found: list[dict[str, object]]) -> str:
    output = io.StringIO()
    show(found, Console(file=output, width=100))
    return output.getvalue()


class TestPlan:
    def test_engines_that_are_compared_come_one_after_the_other(self) -> None:
        cells = parse(["--queries", "q5,q8", "--engines", "pf_stream,quix", "--events", "1000"]).cells()
        assert {cell.events for cell in parse(["--queries", "q2", "--events", "1000"]).cells()} == {2000}
        assert list(map(str, cells)) == [
            f"{query}, {engine}"
            for query in ("q5", "q8")
            for engine in (
                "pf_stream (effectively_once)",
                "pf_stream (transactional)",
                "quix (exactly-once)",
                "quix (at-least-once)",
            )
        ]
        assert [cell.events for cell in cells] == [1000, 1000, 500, 500, 5000, 5000, 5000, 5000]

    def test_a_wrong_query_is_told_with_the_right_ones(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse(["--queries", "q9"])
        assert "there is no 'q9'; there are: q0, q1" in " ".join(capsys.readouterr().err.split())


class TestRows:
    def test_the_last_one_of_a_key_counts(self) -> None:
        outputs = [{"category": 10, "price": 1.0}, {"category": 11, "price": 5.0}, {"category": 10, "price": 2.0}]
        assert rows(QUERIES["q4"], outputs, BELOW) == [(10, 2.0), (11, 5.0)]

    def test_all_count_where_no_key_is(self) -> None:
        outputs = [{"auction": 1, "price": 5}] * 2
        assert rows(QUERIES["q2"], outputs, BELOW) == [(1, 5), (1, 5)]

    def test_what_tells_of_the_last_events_is_left_out(self) -> None:
        assert rows(QUERIES["q2"], [{"auction": BELOW, "price": 5}], BELOW) == []

    def test_a_session_that_became_part_of_another_is_left_out(self) -> None:
        sessions = [(7, 50, 60, 1), (7, 10, 70, 3), (7, 70, 80, 1), (8, 50, 60, 1)]
        outputs = [dict(zip(QUERIES["q11"].columns, session, strict=True)) for session in sessions]
        assert rows(QUERIES["q11"], outputs, BELOW) == [(7, 10, 70, 3), (7, 70, 80, 1), (8, 50, 60, 1)]

    def test_windows_of_the_workers_own_time_count_together(self) -> None:
        counts = [(7, 10, 1), (7, 10, 2), (7, 20, 5)]
        outputs = [dict(zip(QUERIES["q12"].columns, count, strict=True)) for count in counts]
        assert rows(QUERIES["q12"], outputs, BELOW) == [(7, 7)]

    def test_a_list_is_in_no_order(self) -> None:
        outputs = [{"start_ms": 0, "bids": 2, "auctions": [5, 4]}]
        assert rows(QUERIES["q5"], outputs, BELOW) == [(0, 2, [4, 5])]


class TestReport:
    def cells(self) -> list[Cell]:
        return parse(["--queries", "q5", "--engines", "kafka-streams", "--events", "1000"]).cells()

    def test_the_median_with_the_least_and_the_most(self) -> None:
        exactly, at_least = self.cells()
        rates = [30_000.0, 10_000.0, 20_000.0]
        outcomes = [Outcome(1000, 0.1, steady_records_per_s=rate, broker_core_share=0.3) for rate in rates]
        found = told({exactly: outcomes, at_least: outcomes[:1]}, {}, {"cores": 2})
        assert found[0]["steady_records_per_s"] == 20_000
        assert found[0]["conditions"]["cores"] == 2
        text = shown(found)
        assert "right   20,000 10,000-30,000" in text
        assert "30%" in text
        assert "q5: the auctions with most bids" in text
        assert json.loads(json.dumps(found)) == found

    def test_a_wrong_answer_takes_the_figures_away(self) -> None:
        exactly, _ = self.cells()
        right = Outcome(1000, 0.1, steady_records_per_s=1234.0)
        found = told({exactly: [right, Outcome(1000, 0.1, "1 of 3 answers")]}, {}, {})
        assert found[0]["steady_records_per_s"] is None
        text = shown(found)
        assert "WRONG" in text
        assert "1,234" not in text
        assert "kafka-streams (exactly_once_v2) is wrong at q5: 1 of 3 answers" in text

    def test_what_a_core_does_follows_from_its_time(self) -> None:
        exactly, _ = self.cells()
        (row,) = told({exactly: [Outcome(1000, 0.1, cpu_us_per_record=us) for us in (20.0, 50.0, 40.0)]}, {}, {})
        assert (row["answers"], row["records_per_s_per_core"]) == ("right", 25_000)
        assert " 25,000 " in shown([row])

    def test_an_answer_that_did_not_come_is_not_right(self) -> None:
        exactly, _ = self.cells()
        (row,) = told({exactly: [Outcome(1000, 0.1), Outcome(0, 0.1, failed="it ended")]}, {}, {})
        assert row["answers"] is None
        assert "exactly_once_v2 none" in " ".join(shown([row]).split())

    def test_the_page_has_a_line_for_each_query_and_a_column_for_each_engine(self) -> None:
        conditions = {"cpu": "x", "cores": 2, "pinned": True, "python": "3.11", "kafka": "4", "partitions": 4}
        cells = parse(["--queries", "q0,q5", "--engines", "kafka-streams", "--events", "1000"]).cells()
        good = Outcome(1000, 0.1, steady_records_per_s=1234.0, cpu_us_per_record=50.5, rss_mb=99.0, others_share=0.02)
        outcomes = [[good], [Outcome(1000, 0.3, "1 of 3")], [Outcome(0, 0.2, failed="it ended")], [good]]
        text = markdown(told(dict(zip(cells, outcomes, strict=True)), {}, conditions))
        assert "rounds 1, records 0 to 1,000, load_before 0.1 to 0.3, others_share 0.02 to 0.02." in text
        assert "| q0: every bid as it is | 1,234/s, 50.5 µs, 99 MB | **WRONG** |" in text
        assert "| **none** | 1,234/s, 50.5 µs, 99 MB |" in text
        assert "- kafka-streams (exactly_once_v2) is failed at q5: it ended" in text
        assert "`exactly_once_v2` | kafka-streams" in text

    def test_who_is_not_here_is_named(self) -> None:
        exactly, _ = self.cells()
        text = shown(told({exactly: []}, {"kafka-streams": "no JDK"}, {}))
        assert "not here" in text
        assert "kafka-streams is not here: no JDK" in text
