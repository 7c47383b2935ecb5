"""Rates from commits."""

import pytest

from pf_stream.components.pace import Sample, commits, pace, percentile


def sample(at: float, done: int, cpu_s: float = 0.0) -> Sample:
    return Sample(at, done, cpu_s, rss=round(at * 1e6))


def test_neither_the_start_nor_the_wait_for_the_last_commit_counts() -> None:
    # 100 records a second; commits every second; the first takes five, and the last one waits for its second.
    samples = [sample(0, 0), sample(5, 100), sample(6, 200), sample(7, 300), sample(8, 400), sample(9, 410)]
    found = pace(samples, 410)
    assert found is not None
    assert found.records_per_s == 100
    assert found.rss_mb == 9


def test_the_second_half_has_a_rate_and_the_processor_time() -> None:
    samples = [
        sample(1, 100, cpu_s=1.0),
        sample(2, 200, cpu_s=2.0),
        sample(3, 500, cpu_s=3.0),
        sample(4, 900, cpu_s=3.4),
        sample(5, 1000, cpu_s=3.5),
    ]
    found = pace(samples, 1000)
    assert found is not None
    assert found.records_per_s == pytest.approx(800 / 3)
    assert found.steady_records_per_s == 400
    assert found.cpu_us_per_record == pytest.approx(1000)


def test_without_two_commits_in_the_second_half_all_of_them_say_the_processor_time() -> None:
    samples = [sample(1, 100, cpu_s=1.0), sample(2, 600, cpu_s=2.0), sample(3, 1000, cpu_s=9.0)]
    found = pace(samples, 1000)
    assert found is not None
    assert found.steady_records_per_s is None
    assert found.cpu_us_per_record == pytest.approx(2000)


def test_two_commits_say_nothing() -> None:
    assert pace([sample(1, 10), sample(2, 10), sample(3, 20)], 20) is None


def test_a_sample_between_commits_is_none() -> None:
    assert [one.at for one in commits([sample(0, 0), sample(1, 5), sample(2, 5), sample(3, 6), sample(4, 7)])] == [1, 3]


@pytest.mark.parametrize(("share", "found"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_one_of_the_values(share: float, found: int) -> None:
    assert percentile(list(range(1, 101)), share) == found
    assert percentile([7.0], share) == 7
