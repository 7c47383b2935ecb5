"""The supervisor over processes that are no workers, but behave as such."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from pf_stream.engine.watchdog import EXIT_HUNG
from pf_stream.worker import supervisor
from pf_stream.worker.supervisor import Child, Parent

GRACE_S = 0.5

TELL = "import os, signal, sys, time; tell = lambda said: os.write(int(os.environ['PF_SUPERVISOR_FD']), said + b'\\n');"
READY = TELL + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); tell(b'{\"ready\": true}');"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(supervisor, "SAME_SIGNAL_S", 0.1)


def child(program: str, name: str = "w-0") -> Child:
    return Child(name, (sys.executable, "-S", "-c", program))


def run(*children: Child, meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None) -> int:
    """The exit code of a supervisor that runs *children* while *meanwhile* does something to it."""

    async def both() -> int:
        running = asyncio.create_task(supervisor._Supervisor(GRACE_S).run(children))
        async with asyncio.timeout(20):
            if meanwhile is not None:
                await meanwhile()
            return await running

    before = set(psutil.Process().children())  # a broker of other tests, say
    global LOGS  # what is said is looked at meanwhile too
    with capture_logs() as LOGS:
        code = asyncio.run(both())
    assert set(psutil.Process().children()) <= before
    return code


LOGS: list[EventDict] = []
"""What the last supervisor has said."""


async def until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110 - what is waited for happens in other processes
        await asyncio.sleep(0.01)


def ask(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def said(event: str) -> list[EventDict]:
    return [entry for entry in LOGS if event in entry["event"]]


def lives(file: Path) -> int:
    return len(file.read_text()) if file.exists() else 0


def counted(file: Path) -> str:
    """Program text that notes each of its lives."""
    return f"open({str(file)!r}, 'a').write('x');"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_dies_is_started_again_and_all_drain(tmp_path: Path, number: signal.Signals) -> None:
    steady, dying = tmp_path / "steady", tmp_path / "dying"

    async def drain() -> None:
        await until(lambda: lives(steady) == 1 and lives(dying) == 4)
        ask(number)

    code = run(
        child(READY + counted(steady) + "time.sleep(60)", "w-0"),
        child(READY + counted(dying) + "os.kill(os.getpid(), 9)", "w-1"),
        meanwhile=drain,
    )
    assert code == 0
    assert lives(steady) == 1
    (first, second, third, *_) = said("starting it again")
    assert (first["worker"], first["how"]) == ("w-1", "killed by SIGKILL")
    assert [entry["in_s"] for entry in (first, second, third)] == [0.01, 0.02, 0.04]


@pytest.mark.slow
def test_the_back_off_ends_when_it_was_healthy_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HEALTHY_S", 0.0)
    file = tmp_path / "lives"

    async def drain() -> None:
        await until(lambda: lives(file) == 4)
        ask()

    assert run(child(READY + counted(file) + "sys.exit(1)"), meanwhile=drain) == 0
    assert {entry["in_s"] for entry in said("starting it again")} == {0.01}


@pytest.mark.slow
def test_one_that_never_becomes_ready_is_given_up_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "lives"
    assert run(child(TELL + counted(file) + 'tell(b\'{"failed": "no such group"}\'); sys.exit(1)')) == 1
    assert lives(file) == 5
    (given_up,) = said("given up")
    assert (given_up["worker"], given_up["tries"], given_up["reason"]) == ("w-0", 5, "no such group")


def test_a_wrong_command_is_not_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "lives"
    assert run(child(counted(file) + "import sys; sys.exit(2)")) == 1
    assert lives(file) == 1
    assert said("given up")[0]["reason"] == "exit code 2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        "os.write(int(os.environ['PF_SUPERVISOR_FD']), b'{\"rea'); os.kill(os.getpid(), 9)",
        f"sys.exit({EXIT_HUNG})",
        "os.kill(os.getpid(), 9)",
        'tell(b\'{"failed": "Kafka is away", "retryable": true}\'); sys.exit(1)',
    ],
    ids=["killed in the middle of a word", "hung", "killed", "no broker"],
)
def test_what_may_pass_is_waited_out(tmp_path: Path, end: str) -> None:
    file = tmp_path / "lives"

    async def drain() -> None:
        await until(lambda: lives(file) > supervisor.FRUITLESS)
        ask()

    assert run(child(TELL + counted(file) + end), meanwhile=drain) == 0
    assert said("given up") == []


def test_the_others_go_on_without_one_that_was_given_up(tmp_path: Path) -> None:
    file = tmp_path / "ready"

    async def drain() -> None:
        await until(lambda: lives(file) == 1 and bool(said("worker given up")))
        ask()

    code = run(
        child("raise SystemExit(2)", "w-0"), child(READY + counted(file) + "time.sleep(60)", "w-1"), meanwhile=drain
    )
    assert code == 1  # not all was well, and whoever looks at the code shall see it


@pytest.mark.slow
def test_one_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "ready"

    async def drain() -> None:
        await until(lambda: lives(file) == 1)
        ask()

    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" + counted(file) + "time.sleep(60)"
    assert run(child(TELL + stubborn), meanwhile=drain) == 1
    assert [entry["worker"] for entry in said("worker killed")] == ["w-0"]


@pytest.mark.slow
@pytest.mark.parametrize(("pause_s", "code"), [(0.2, 128 + signal.SIGINT), (0.0, 0)])
def test_a_second_signal_ends_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause_s: float, code: int
) -> None:
    """But not one that comes together with the first, from somebody who signals process and group."""
    file = tmp_path / "ready"
    monkeypatch.setattr(sys.modules[__name__], "GRACE_S", 30.0)

    async def drain() -> None:
        await until(lambda: lives(file) == 1)
        ask()
        await asyncio.sleep(pause_s)
        ask(signal.SIGINT)

    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)));"
    assert run(child(TELL + slow + counted(file) + "time.sleep(60)"), meanwhile=drain) == code


def test_a_worker_tells_its_supervisor_and_hears_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    number = theirs.detach()
    os.set_inheritable(number, True)  # as it comes
    monkeypatch.setenv("PF_SUPERVISOR_FD", str(number))

    async def work() -> None:
        gone = asyncio.Event()
        parent = await Parent.connect(gone.set)
        assert parent is not None
        assert "PF_SUPERVISOR_FD" not in os.environ  # what the worker starts has no supervisor
        assert not os.get_inheritable(number)
        parent.tell(ready=True)
        assert await asyncio.to_thread(ours.recv, 100) == b'{"ready":true}\n'
        assert not gone.is_set()
        ours.close()
        async with asyncio.timeout(10):
            await gone.wait()
        await parent.close()

    asyncio.run(work())


def test_a_worker_that_nobody_supervises() -> None:
    assert asyncio.run(Parent.connect(lambda: None)) is None
