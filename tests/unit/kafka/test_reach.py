"""Why a server cannot be talked to. What speaks TLS is tested on a real broker (tests/kafka/test_doctor.py)."""

import socket
from collections.abc import Iterator

import pytest

from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.reach import Obstruction, connects, obstruction


@pytest.fixture
def listener() -> Iterator[str]:
    """Somebody who listens and says nothing."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield f"127.0.0.1:{made.getsockname()[1]}"


def closed() -> str:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{made.getsockname()[1]}"


@pytest.mark.parametrize("server", ["", "127.0.0.1", ":", "host:kafka", "host:"])
def test_what_is_no_address(server: str) -> None:
    found = connects(server)
    assert found is not None
    assert found.what is Obstruction.address


def test_a_name_that_nobody_has() -> None:
    found = connects("nobody.invalid:9092")
    assert found is not None
    assert found.what is Obstruction.name


def test_a_closed_port() -> None:
    found = connects(closed())
    assert found is not None
    assert found.what is Obstruction.refused


def test_an_open_port(listener: str) -> None:
    assert connects(listener) is None


@pytest.mark.slow
def test_one_that_listens_and_is_silent_is_no_obstacle_that_could_be_named(
    listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pf_stream.kafka.reach.TIMEOUT_S", 0.1)
    assert obstruction(listener, ConnectionSettings(listener)) is None
    found = obstruction(listener, ConnectionSettings(listener, security_protocol="SSL"))
    assert found is not None
    assert found.what is Obstruction.no_tls
