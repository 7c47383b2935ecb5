"""The proxy does what the tests that use it rely on."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ._proxy import Direction, Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy.listening() as proxy:
        proxy.target = echo
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), 5)
    connection.settimeout(5)
    return connection


def asked(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    answer = b""
    while len(answer) < len(text):
        more = connection.recv(1 << 16)
        if not more:
            raise EOFError
        answer += more
    return answer


def test_bytes_pass_in_order(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 2000
    with connect(proxy) as connection:
        assert asked(connection, sent) == sent


def test_cut_ends_what_there_is_and_takes_what_comes(proxy: Proxy) -> None:
    with connect(proxy) as before, connect(proxy) as after:
        assert asked(before, b"a") == b"a"
        proxy.cut()
        with pytest.raises((OSError, EOFError)):
            asked(before, b"b")
        after.close()
    with connect(proxy) as after:
        assert asked(after, b"c") == b"c"


def test_refusal_lasts_until_it_is_healed(proxy: Proxy) -> None:
    proxy.refuse()
    with connect(proxy) as refused, pytest.raises((OSError, EOFError)):
        asked(refused, b"a")
    proxy.heal()
    with connect(proxy) as taken:
        assert asked(taken, b"b") == b"b"


def test_delay_holds_what_passes_each_way(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert asked(connection, b"a") == b"a"
        proxy.delay(0.2)
        started = time.monotonic()
        assert asked(connection, b"b") == b"b"
        assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize("direction", [(Direction.to_broker,), (Direction.to_client,), ()])
def test_what_is_held_comes_when_it_is_let_go(proxy: Proxy, direction: tuple[Direction, ...]) -> None:
    with connect(proxy) as connection:
        assert asked(connection, b"a") == b"a"
        proxy.hold(*direction)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asked(connection, b"b")
        proxy.heal()
        connection.settimeout(5)
        assert connection.recv(1) == b"b"
