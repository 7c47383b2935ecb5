"""Processes: started apart from us, found by what they are, ended in any case. The runtime is a shell
script."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pf_stream.kafka.dev.java import Java
from pf_stream.kafka.dev.process import BrokerProcess, find, spawn
from pf_stream.kafka.dev.storage import BrokerRecord, DataDir

OBEDIENT = "echo started; while :; do sleep 0.01; done"
STUBBORN = f"trap '' TERM; {OBEDIENT}"


def started(java: Java, folder: Path, *, guarded: bool = False) -> tuple[BrokerRecord, BrokerProcess]:
    data = DataDir(folder)
    process = spawn(java, [Path("a.jar"), Path("b.jar")], data, "token-of-this-start", ["-Xflag"], guarded=guarded)
    deadline = time.monotonic() + 10
    while data.log_tail(1) != ["started"]:
        assert time.monotonic() < deadline
        assert not process.ended(0.01), data.log_tail(5)
    return BrokerRecord(process.pid, "token-of-this-start", 1, "", ""), process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def runtime(home: Path, version: int = 25) -> Java:
    return Java(home / "bin" / "java", version, "")


def test_command_line_and_surroundings(make_java: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-javaagent:company.jar")
    monkeypatch.setenv("PF_DEV_JAVA_OPTIONS", "-Xmx2g '-Dsaid=by us'")
    home = make_java('echo "$PWD|$JAVA_TOOL_OPTIONS|$LC_ALL|$*"')
    data = DataDir(folder)
    process = spawn(runtime(home, 17), [Path("/a.jar"), Path("/b.jar")], data, "abc", ["-Xf"], guarded=False)
    assert process.ended(10)
    cwd, options, locale, arguments = data.log_tail(1)[0].split("|")
    assert (cwd, options, locale) == (str(folder), "", "C.UTF-8")
    assert arguments.startswith("-Dpf.dev.token=abc ")
    assert arguments.endswith(" -cp /a.jar:/b.jar kafka.Kafka server.properties")
    assert " -Xf -Xmx2g -Dsaid=by us " in arguments
    assert process.exit_text() == "exit code 0"


def test_found_by_its_token(make_java: Any, folder: Path) -> None:
    record, process = started(runtime(make_java(OBEDIENT)), folder)
    found = find(record)
    assert found
    assert found.pid == process.pid
    assert found.rss_bytes() > 0
    found.end(grace=5)
    assert find(record) is None
    assert found.rss_bytes() == 0


def test_recycled_pid_is_not_taken_for_the_broker() -> None:
    assert find(BrokerRecord(os.getpid(), "token-of-this-start", 1, "", "")) is None


def test_pid_that_does_not_exist() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    assert find(BrokerRecord(gone.pid, "token-of-this-start", 1, "", "")) is None


def test_dead_child_that_nobody_collected_is_not_running(make_java: Any, folder: Path) -> None:
    record, process = started(runtime(make_java(OBEDIENT)), folder)
    os.kill(record.pid, signal.SIGKILL)
    os.waitid(os.P_PID, record.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE
    assert find(record) is None
    assert process.ended(0)
    assert process.exit_text() == "killed by SIGKILL"


def test_sigterm_first(make_java: Any, folder: Path) -> None:
    _, process = started(runtime(make_java(OBEDIENT)), folder)
    process.end(grace=5)
    assert process.exit_text() == "killed by SIGTERM"


def test_sigkill_when_sigterm_does_not_help(make_java: Any, folder: Path) -> None:
    _, process = started(runtime(make_java(STUBBORN)), folder)
    process.end(grace=0.05)
    assert process.exit_text() == "killed by SIGKILL"


def test_ending_twice_is_ending_once(make_java: Any, folder: Path) -> None:
    _, process = started(runtime(make_java(OBEDIENT)), folder)
    process.end(grace=0)
    process.end(grace=5)


PARENT = """
import sys
from pathlib import Path
from pf_stream.kafka.dev.java import Java
from pf_stream.kafka.dev.process import spawn
from pf_stream.kafka.dev.storage import DataDir
java, folder, how = sys.argv[1:]
process = spawn(Java(Path(java), 25, ""), [], DataDir(Path(folder)), "t", [], guarded=how == "guarded")
print(process.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def started_by_another(home: Path, folder: Path, how: str) -> Iterator[tuple[psutil.Process, "subprocess.Popen[str]"]]:
    """A broker and the process that started it."""
    command = [sys.executable, "-c", PARENT, str(home / "bin" / "java"), str(folder), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        yield psutil.Process(int(parent.stdout.readline())), parent
        parent.kill()


@pytest.mark.slow
def test_zombie_of_another_process_has_ended(make_java: Any, folder: Path) -> None:
    """In a container, an orphan's zombie may stay for ever: process 1 does not always collect."""
    with started_by_another(make_java(OBEDIENT), folder, "free") as (broker, _):
        process = BrokerProcess(broker)
        process.end(grace=5)
        assert broker.status() == psutil.STATUS_ZOMBIE
        assert process.ended(0)
        assert process.exit_text() == "the process is gone"
        assert find(BrokerRecord(broker.pid, "t", 1, "", "")) is None


@pytest.mark.slow
def test_guarded_broker_and_its_folder_go_when_the_parent_is_killed(make_java: Any, folder: Path) -> None:
    with started_by_another(make_java(STUBBORN), folder, "guarded") as (broker, parent):
        parent.kill()  # without a chance to tidy up
    assert BrokerProcess(broker).ended(10)
    deadline = time.monotonic() + 10
    while folder.exists():
        assert time.monotonic() < deadline


@pytest.mark.slow
def test_guard_is_there_before_the_broker(make_java: Any, folder: Path) -> None:
    """The first act of this broker is to kill who started it."""
    home = make_java(f"echo $$ > ../pid; kill -9 $PPID; {OBEDIENT}")
    command = [sys.executable, "-c", PARENT, str(home / "bin" / "java"), str(folder), "guarded"]
    killed = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while folder.exists():
        assert time.monotonic() < deadline
    pid = int((folder.parent / "pid").read_text(encoding="utf-8"))
    with contextlib.suppress(psutil.NoSuchProcess):
        # Killed before the folder is removed, which a busy machine may carry out a moment later.
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline


@pytest.mark.slow
def test_other_broker_outlives_its_parent(make_java: Any, folder: Path) -> None:
    with started_by_another(make_java(OBEDIENT), folder, "free") as (broker, parent):
        parent.kill()
    process = BrokerProcess(broker)
    assert not process.ended(0.1)
    process.end(grace=5)


def test_released_guard_leaves_the_folder(make_java: Any, folder: Path) -> None:
    _, process = started(runtime(make_java(OBEDIENT)), folder, guarded=True)
    process.end(grace=5)
    assert folder.exists()
