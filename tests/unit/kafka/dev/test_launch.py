"""A start that fails: what is said, and that nothing remains. The runtime is a shell script."""

import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from pf_stream.kafka.dev import launch
from pf_stream.kafka.dev.errors import BrokerDiedError, BrokerTimeoutError, DiskError, PortBusyError
from pf_stream.kafka.dev.java import Java
from pf_stream.kafka.dev.launch import Launch
from pf_stream.kafka.dev.storage import DataDir

BIND = "org.apache.kafka.common.KafkaException: Socket server failed to bind to 127.0.0.1:9092: Address already in use."


def start(home: Path, folder: Path, port: int | None = None, timeout: float = 10) -> None:
    java = Java(home / "bin" / "java", 25, "")
    try:
        Launch(java, [], DataDir(folder), timeout, lambda _: None).run(port, [], guarded=False)
    finally:
        assert DataDir(folder).read_record() is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_reason_is_the_last_cause_in_the_log(make_java: Any, folder: Path) -> None:
    home = make_java(
        "echo 'java.lang.RuntimeException: outer'; echo '\tat kafka.Kafka.main'; "
        "echo 'Caused by: java.io.IOException: inner'; echo '\tat java.io'; exit 3"
    )
    with pytest.raises(BrokerDiedError) as caught:
        start(home, folder)
    assert str(caught.value) == (
        "the broker ended while starting: exit code 3: Caused by: java.io.IOException: inner "
        f"(log: {folder / 'broker.log'})"
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first; echo last; exit 1", "exit code 1: last"),
        ("exit 1", "exit code 1: it said nothing"),
        ("kill -9 $$", "killed by SIGKILL: it said nothing"),
        ("echo 'Unrecognized option: -Xfoo'; echo 'Error: Could not create it'; exit 1", "Could not create it"),
    ],
)
def test_reason_without_an_exception(make_java: Any, folder: Path, script: str, reason: str) -> None:
    with pytest.raises(BrokerDiedError, match=reason):
        start(make_java(script), folder)


def test_full_disk(make_java: Any, folder: Path) -> None:
    home = make_java("echo 'java.io.IOException: No space left on device'; exit 1")
    with pytest.raises(DiskError, match=f"cannot write {folder}: No space left on device"):
        start(home, folder)


def test_asked_port_that_is_busy_starts_nothing(make_java: Any, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortBusyError):
        start(make_java("exit 1"), folder, taken.getsockname()[1])
    assert not (folder / "broker.log").exists()


def test_asked_port_that_is_taken_after_the_look(make_java: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_java(f"echo start >> {folder}/starts; echo '{BIND}'; exit 1")
    free = launch.is_free
    looks = iter([True])
    monkeypatch.setattr(launch, "is_free", lambda port: next(looks, False) or free(port))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortBusyError):
        start(home, folder, taken.getsockname()[1])
    assert (folder / "starts").read_text(encoding="utf-8") == "start\n"


def test_other_ports_are_tried_thrice(make_java: Any, folder: Path) -> None:
    home = make_java(f"grep ^listeners= server.properties >> {folder}/starts; echo '{BIND}'; exit 1")
    with pytest.raises(PortBusyError):
        start(home, folder)
    assert len((folder / "starts").read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.slow
def test_deadline(make_java: Any, folder: Path) -> None:
    home = make_java("echo $$ > pid; for n in 1 2 3; do echo line $n; done; while :; do sleep 0.01; done")
    with pytest.raises(BrokerTimeoutError) as caught:
        start(home, folder, timeout=0.3)
    assert caught.value.log_tail == ("line 1", "line 2", "line 3")
    assert str(caught.value).startswith("the broker was not ready after 0.3 s: it does not listen; end of ")
    assert caught.value.retryable
    assert not psutil.pid_exists(int((folder / "pid").read_text(encoding="utf-8")))


def test_last_port_is_taken_again_if_itis_free(make_java: Any, folder: Path) -> None:
    data = DataDir(folder)
    port = launch.free_port()
    data.prepare(port, port + 1)
    with pytest.raises(BrokerDiedError):
        start(make_java("exit 1"), folder)
    assert data.last_port() == port
    with socket.create_server(("127.0.0.1", port)), pytest.raises(BrokerDiedError):
        start(folder.parent / "jre", folder)
    assert data.last_port() != port
