"""A job on a real Kafka whose workers are killed: it runs for each of its times once, and for none too early."""

import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable

from pf_stream.components.stored import ChangelogStates, StateNotFoundError, read_state
from tests.kafka._support import ROOT, connection, make_topics, wait_until
from tests.kafka.clockwork import clockwork

NAMES = ("w0", "w1")


def test_a_job_survives_kill_9(bootstrap_servers: str, unique: str) -> None:
    """Two workers, of which the dice kill one or both at any moment; who is away for longer loses its lanes to the other."""
    topology = clockwork.within(unique)
    make_topics(bootstrap_servers, topology)
    seed = os.environ.get("PF_SEED") or secrets.token_hex(4)
    print(f"PF_SEED={seed}")  # noqa: T201 - to be repeated as far as it can be
    dice = random.Random(seed)  # noqa: S311
    workers: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str) -> None:
        command = [sys.executable, "-m", "tests.kafka.clockwork", bootstrap_servers, unique, name]
        workers[name] = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

    def kill(name: str) -> None:
        workers[name].kill()
        workers.pop(name).wait()

    def struck() -> list[int]:
        try:
            state = read_state(ChangelogStates(connection(bootstrap_servers), topology, "bell"), "b").state
        except StateNotFoundError:
            return []
        assert state["earliest_ms"] >= 0
        return list(state["nominal_ms"])

    def more(than: int) -> Callable[[], None]:
        def strikes() -> None:
            assert len(struck()) >= than + 2

        return strikes

    rounds = [(victims, away) for victims in (["w0"], ["w1"]) for away in (False, True)] + [([*NAMES], False)]
    dice.shuffle(rounds)
    try:
        for name in NAMES:
            start(name)
        for victims, away in rounds:
            wait_until(more(len(struck())), within=90)
            time.sleep(dice.uniform(0, 1.5))
            for name in victims:
                kill(name)
            if away:  # for longer than its session: whatever lane it had is the other one's
                time.sleep(12)
                wait_until(more(len(struck())), within=90)
            for name in victims:
                start(name)
        wait_until(more(len(struck())), within=90)
    finally:
        for name in list(workers):
            kill(name)
    times = struck()
    assert sorted(times) == list(range(min(times), max(times) + 1, 1_000)), times
