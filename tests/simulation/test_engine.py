"""The real engine over a model of Kafka, under misfortune: one run for each seed."""

import pytest

from tests.simulation.world import Simulation

SEEDS = range(300)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept(seed: int) -> None:
    Simulation(seed).run()
