"""A job on a real Kafka whose workers are killed: it runs for each of its times once, and for none too early."""

import os
import subprocess
import sys
from itertools import pairwise

from pf_stream.components.stored import ChangelogStates, StateNotFoundError, read_state
from tests.kafka._support import ROOT, connection, make_topics, wait_until
from tests.kafka.clockwork import clockwork


def test_a_job_survives_kill_9(bootstrap_servers: str, unique: str) -> None:
    topology = clockwork.within(unique)
    make_topics(bootstrap_servers, topology)
    command = [sys.executable, "-m", "tests.kafka.clockwork", bootstrap_servers, unique]

    def struck() -> list[int]:
        try:
            state = read_state(ChangelogStates(connection(bootstrap_servers), topology, "bell"), "b").state
        except StateNotFoundError:
            return []
        assert state["earliest_ms"] >= 0
        return list(state["nominal_ms"])

    for life in range(4):
        before = len(struck())
        with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stderr=subprocess.DEVNULL) as process:

            def some_more(before: int = before) -> None:
                assert len(struck()) >= before + 3

            try:
                wait_until(some_more, within=60)
            finally:
                process.kill()
        assert len(struck()) >= 3 * (life + 1)
    times = struck()
    assert all(later - earlier == 1_000 for earlier, later in pairwise(times)), times
