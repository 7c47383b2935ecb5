"""Who else was at work, and figures over rounds."""

from bench.peers.progress import BusySample, Figure, Shares, shares


def test_shares_are_of_a_core() -> None:
    samples = [BusySample(1, 1, 0, 0, 5.0, 7.0), BusySample(2, 2, 0, 0, 90.0, 90.0), BusySample(3, 3, 0, 0, 6.0, 7.5)]
    assert shares(samples) == Shares(0.5, 0.25)


def test_a_figure_is_of_the_rounds_that_have_it() -> None:
    assert Figure.of([3.0, None, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)
    assert Figure.of([None]) is None
