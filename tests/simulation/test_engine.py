"""The real engine over a model of Kafka, under misfortune: one run for each seed, and that the runs are what they claim to be."""

import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.simulation.broker import Code
from tests.simulation.misfortune import Misfortune
from tests.simulation.streams import KINDS, Streams
from tests.simulation.world import Simulation

SEEDS = range(160)
DIGEST = """
import sys
from tests.simulation.broker import Code
from tests.simulation.world import Simulation
simulation = Simulation(int(sys.argv[1]))
simulation.run()
print(simulation.digest)
"""


class Run(NamedTuple):
    """What is remembered of a run that kept every promise."""

    happened: Counter[str]
    """Misfortune, by kind."""
    repeated: int
    """Records that were written more than once."""
    fenced: int
    """Appends of zombies that were refused."""
    streams: Counter[str]
    """Kinds of streams, if it ran any."""
    told: Counter[str]
    """Results of theirs, by kind."""
    late: int
    """What came too late for them."""


@cache
def ran(seed: int) -> Run:
    """Run a seed, once for all tests."""
    simulation = Simulation(seed)
    simulation.run()
    workload = simulation.workload
    kinds: Counter[str] = Counter()
    told: Counter[str] = Counter()
    late = 0
    if isinstance(workload, Streams):
        kinds.update(workload.kinds)
        told.update(one.kind for results in workload.results.values() for one in results)
        late = sum(count.total() for count in workload.late.values())
        assert not (workload.strict and workload.late)
    fenced = simulation.broker.refused[Code.invalid_producer_epoch]
    return Run(simulation.misfortune.happened, simulation.repeated, fenced, kinds, told, late)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept(seed: int) -> None:
    ran(seed)


@pytest.mark.parametrize("seed", [48, 49])
def test_a_seed_replays(seed: int) -> None:
    """In another process, where sets have another order, everything happens at the same moment again."""
    simulation = Simulation(seed)
    simulation.run()
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    again = subprocess.run(
        [sys.executable, "-c", DIGEST, str(seed)],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": paths},
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert again.stdout.strip() == simulation.digest


def test_the_seeds_reach_what_they_are_for() -> None:
    """Every misfortune happens, zombies are refused, and outputs are written more than once, if by one run in fifty."""
    happened: Counter[str] = Counter()
    repeated = fenced = 0
    for seed in range(400):
        if seed >= 60 and repeated > 10:
            break
        run = ran(seed)
        happened += run.happened
        repeated += run.repeated
        fenced += run.fenced
    assert happened.keys() == {kind for kind, _ in Misfortune.acts}
    assert repeated > 10
    assert fenced > 5


def test_the_seeds_reach_what_streams_are_for() -> None:
    """All kinds, with and without lanes that are left out; something is late then."""
    kinds: Counter[str] = Counter()
    told: Counter[str] = Counter()
    late = 0
    for seed in range(1, 41, 2):
        run = ran(seed)
        assert run.streams
        kinds += run.streams
        told += run.told
        late += run.late
    for seed in SEEDS[41::2]:
        simulation = Simulation(seed)
        simulation.loop.close()
        assert isinstance(simulation.workload, Streams)
        kinds.update(simulation.workload.kinds)
    assert kinds.keys() == KINDS.keys()
    assert told.keys() >= {"final", "early"}
    assert late > 0
