"""What happens where a peer cannot be had."""

from pathlib import Path

import pytest

from bench.peers import environments
from bench.peers.environments import STREAMS, MissingError, java_command, python
from pf_stream.kafka.dev.artifacts import load_lock


def test_without_a_jdk_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="no JDK: no javac in JAVA_HOME or on the path"):
        java_command(Path("KafkaStreamsApp.java"))


def test_kafka_streams_is_as_new_as_the_broker() -> None:
    assert load_lock().kafka == STREAMS.version


def test_an_environment_is_made_once_for_each_build_of_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], fault: str) -> None:
        commands.append(command)
        (tmp_path / "peer" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "peer" / "bin" / "python").touch()

    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(environments, "_run", run)
    assert python("peer", ["quixstreams==1"]) == str(tmp_path / "peer" / "bin" / "python")
    assert [command[1:3] for command in commands] == [["-m", "venv"], ["-m", "pip"]]
    python("peer", ["quixstreams==1"])
    assert len(commands) == 2
    python("peer", ["quixstreams==2"])
    assert len(commands) == 4
    monkeypatch.setattr("sys.version", "3.11.7 (built by hand)")
    python("peer", ["quixstreams==2"])
    assert len(commands) == 6
