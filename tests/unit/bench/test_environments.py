"""What happens where a peer cannot be had."""

from pathlib import Path

import pytest

from bench.peers.environments import STREAMS, MissingError, java_command
from pf_stream.kafka.dev.artifacts import load_lock


def test_without_a_jdk_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="no JDK: no javac in JAVA_HOME or on the path"):
        java_command(Path("KafkaStreamsApp.java"))


def test_kafka_streams_is_as_new_as_the_broker() -> None:
    assert load_lock().kafka == STREAMS.version
