"""Timers, pauses and ends on a real Kafka: over a restart, under both guarantees, with a process that dies."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from pf_stream import Topology
from pf_stream.clock import WallClock
from pf_stream.model.topology import Guarantee
from tests.kafka._support import (
    ROOT,
    Client,
    Headers,
    ThreadWorker,
    headers_of,
    in_thread,
    make_topics,
    name_in,
    wait_until,
)
from tests.kafka.alarms import alarms


class Sender(Client):
    """Sends what the topology of alarms understands."""

    def tell(self, kind: str, alarm: str, headers: Headers | None = None, **payload: object) -> None:
        """Queue an intent."""
        value = orjson.dumps({"alarm": alarm, **payload})
        self.send(alarm, value, headers or self.headers(f"alarms.{kind}.v1", pf_context=None))


def prepared(servers: str, unique: str, guarantee: Guarantee = "effectively_once") -> tuple[Topology, Sender]:
    topology = Topology(
        alarms.name, alarms.reactors, namespace=unique, internal=alarms.internal, partitions=2, guarantee=guarantee
    )
    make_topics(servers, topology)
    return topology, Sender(servers, topology)


def log(worker: ThreadWorker, alarm: str, reactor: str = "alarms") -> list[str]:
    state = worker.state(reactor, alarm)
    return [] if state is None else list(state["log"])


def expect(worker: ThreadWorker, alarm: str, wanted: list[str], reactor: str = "alarms") -> None:
    """Wait until that is the log, and no other."""

    def same() -> None:
        assert log(worker, alarm, reactor) == wanted

    wait_until(same)


@pytest.mark.parametrize("guarantee", ["effectively_once", "transactional"])
def test_timers_outlive_their_worker(bootstrap_servers: str, unique: str, guarantee: Guarantee) -> None:
    topology, sender = prepared(bootstrap_servers, unique, guarantee)
    names = [name_in(number % 2, topology) for number in range(6)]
    with in_thread(bootstrap_servers, topology) as worker:
        for name in names:
            sender.tell("set", name, after=0.3, name="soon")
            sender.tell("set", name, after=2.5, name="later")
            sender.tell("set", name, after=2.5, name="never")
            sender.tell("set", name, after=0, cancel="never")
        sender.flush()
        for name in names:
            expect(worker, name, ["soon in time"], "rings")
    with in_thread(bootstrap_servers, topology) as worker:
        for name in names:
            expect(worker, name, ["soon in time", "later in time"], "rings")
            assert log(worker, name) == ["set soon", "set later", "set never", "set None", "ring soon", "ring later"]
    assert not sender.dead_letters()


def test_the_clock_is_set_forward_a_day_and_back_an_hour(
    bootstrap_servers: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that waits for a time finds that the clock was set: what is due then fires, and nothing early or twice.

    It begins a day behind: what is dated more than an hour ahead of the broker's clock the broker refuses.
    """
    topology, sender = prepared(bootstrap_servers, unique)
    name = name_in(0, topology)
    hour_ms, steps, real = 3_600_000, [-24 * 3_600_000], WallClock.now_ms
    monkeypatch.setattr(WallClock, "now_ms", lambda clock: real(clock) + sum(steps))
    wanted: list[str] = []
    with in_thread(bootstrap_servers, topology) as worker:

        def tell(after_h: float, timer: str, *lines: str) -> None:
            sender.tell("set", name, after=after_h * 3600, name=timer)
            sender.flush()
            then(f"set {timer}", *lines)

        def then(*lines: str) -> None:
            wanted.extend(lines)
            expect(worker, name, wanted)

        tell(23, "tomorrow")
        tell(26, "later")
        steps.append(24 * hour_ms)
        then("ring tomorrow")
        tell(0.5, "soon")
        steps.append(-hour_ms)
        tell(0, "at once", "ring at once")
        steps.append(hour_ms)
        tell(0, "again", "ring again")
        steps.append(hour_ms - 60_000)
        then("ring soon")
        expect(worker, name, [f"{timer} in time" for timer in ("tomorrow", "at once", "again", "soon")], "rings")
    assert not sender.dead_letters()


def test_a_failing_intent_holds_up_its_partition_and_no_other(
    bootstrap_servers: str, unique: str, tmp_path: Path
) -> None:
    topology, sender = prepared(bootstrap_servers, unique)
    door = tmp_path / "door"
    door.touch()
    failing, behind, beside = (name_in(number, topology) for number in (0, 0, 1))
    with in_thread(bootstrap_servers, topology) as worker:
        sender.tell("push", behind, door="", text="0")
        sender.tell("push", failing, door=str(door), text="1")
        for number in range(5):
            sender.tell("push", failing, door="", text=f"{number + 2}")
            sender.tell("push", behind, door="", text=f"{number + 1}")
            sender.tell("push", beside, door="", text=f"{number}")
        sender.flush()
        expect(worker, beside, [f"push {number}" for number in range(5)])
        expect(worker, behind, ["push 0"])
        assert log(worker, failing) == []
        door.unlink()
        expect(worker, failing, [f"push {number}" for number in range(1, 7)])
        expect(worker, behind, [f"push {number}" for number in range(6)])
    assert not sender.dead_letters()


def test_an_intent_that_ends_its_process_is_refused_in_the_end(bootstrap_servers: str, unique: str) -> None:
    topology, sender = prepared(bootstrap_servers, unique)
    deadly, neighbour, beside = (name_in(number, topology) for number in (0, 0, 1))
    sender.tell("push", neighbour, door="", text="1")
    sender.tell("end", deadly)
    sender.tell("push", neighbour, door="", text="2")
    sender.tell("push", beside, door="", text="3")
    sender.flush()
    command = [sys.executable, "-W", "error", "-m", "tests.kafka.alarms", bootstrap_servers, unique]
    ends = 0

    def refused() -> bool:
        return bool(sender.dead_letters())

    while not refused():
        assert ends < 8
        with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stderr=subprocess.DEVNULL) as process:

            def ended_or_done(process: "subprocess.Popen[bytes]" = process) -> None:
                assert process.poll() is not None or refused()

            try:
                wait_until(ended_or_done)
            finally:
                process.kill()
        ends += 1
    assert ends >= 3
    (letter,) = sender.dead_letters()
    assert headers_of(letter)["pf-error-code"] == b"poison"
    with in_thread(bootstrap_servers, topology) as worker:
        expect(worker, neighbour, ["push 1", "push 2"])
        expect(worker, beside, ["push 3"])
