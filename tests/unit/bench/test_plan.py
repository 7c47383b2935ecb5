"""The command line of the comparison."""

import pytest

from bench.peers.plan import parse


def test_all_of_it_by_default() -> None:
    plan = parse([])
    cells = list(map(str, plan.cells()))
    assert plan.records == 1_000_000
    assert plan.rounds == 3
    assert len(cells) == len(set(cells)) == 2 * (10 + 8) + 2 * 8
    assert "raw-aiokafka (none), counter, distinct keys" in cells
    assert "kafka-streams (exactly_once_v2), counter+output, hot keys, 20,000/s" in cells
    assert not any("raw" in cell and "output" in cell for cell in cells)


def test_engines_that_are_compared_come_one_after_the_other() -> None:
    cells = parse(["--engines", "pf_stream,kafka-streams", "--rates", "1000"]).cells()
    assert [(cell.job, cell.keys, cell.rate) for cell in cells[::4]] == [
        ("counter", "hot", None),
        ("counter", "distinct", None),
        ("counter+output", "hot", None),
        ("counter+output", "distinct", None),
        ("counter+output", "hot", 1000),
    ]


def test_a_quick_run_has_each_engine_once() -> None:
    plan = parse(["--quick", "--engines", "quix,raw-aiokafka", "--rounds", "9"])
    assert plan.rounds == 1
    assert list(map(str, plan.cells())) == [
        "quix (exactly-once), counter+output, hot keys",
        "raw-aiokafka (none), counter, hot keys",
    ]


def test_rounds_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS", "7")
    assert parse([]).rounds == 7
    assert parse(["--rounds", "2"]).rounds == 2


def test_no_latency_if_none_is_wanted() -> None:
    assert all(cell.rate is None for cell in parse(["--rates", "0"]).cells())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engines", "flink"], "there is no 'flink'; there are: pf_stream, pf_stream-equal, kafka-streams, quix"),
        (["--jobs", "counter,join"], "there is no 'join'; there are: counter, counter+output"),
        (["--keys", "cold"], "there is no 'cold'; there are: hot, distinct"),
        (["--rounds", "0"], "0 is too few"),
        (["--rates", "fast"], "invalid _rates value: 'fast'"),
    ],
)
def test_a_wrong_word_is_told_with_the_right_ones(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
