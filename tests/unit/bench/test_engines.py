"""How the engines are started is what their rows say."""

from dataclasses import replace
from pathlib import Path

from bench.peers.engines import ENGINES, Job


def test_a_worker_answers_at_once_where_latency_is_measured_and_only_there() -> None:
    job = Job("bench.app", "localhost:9092", "in", "out", Path("trust"), Path("folder"), paced=False)
    for engine in (one for one in ENGINES if one.name.startswith("pf_stream")):
        for paced, latency in ((True, "low"), (False, "balanced")):
            words = [*engine.options(replace(job, paced=paced))]
            assert words[words.index("--latency") + 1] == latency
        assert "latency low where latency is measured" in engine.sets
