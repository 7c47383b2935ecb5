"""Workers asked for state: whom, what their answers mean, and where a token does not go."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pf_stream.components import live, registry
from pf_stream.components.live import (
    LiveStates,
    NoReactorError,
    NoWorkerError,
    OtherMachineError,
    ReadRefusedError,
    WorkerAnswerError,
    WorkerUnavailableError,
    choose_worker,
    worker_port,
)
from pf_stream.components.state import Checked, check_states
from pf_stream.components.stored import Stored, read_state
from pf_stream.core.changelog import pack_state, state_key, state_prefix
from pf_stream.errors import ConfigurationError, NotFoundError
from tests.unit.core.kit import Put, boxes, record
from tests.unit.worker.site import ALL, Site, component, name_in, token


def states(port: int, context: str = ALL, reactor: str = "boxes") -> LiveStates:
    return LiveStates(boxes, reactor, context, port)


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Site, Site]]:
    sites = Site("w0", partitions=2), Site("w1", partitions=2)
    with sites[0].served(), sites[1].served():
        yield sites


@pytest.fixture
def pair(two: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch) -> tuple[Site, Site]:
    """Two workers, each with one of two lanes and three boxes in it."""
    monkeypatch.setattr(registry, "FRESH_S", -1)
    for number, worker in enumerate(two):
        worker.reset()
        worker.open(number).commit_all(*(record(n, Put(box=name_in(number, 2, n))) for n in range(3)))
    for worker in two:
        worker.known = [one.component(number) for number, one in enumerate(two)]
    return two


class TestAnswers:
    def test_whoever_is_asked_the_owner_answers(self, pair: tuple[Site, Site]) -> None:
        for number, owner in enumerate(pair):
            key = name_in(number, 2, 1)
            for asked in pair:
                found = read_state(states(asked.port), key)
                assert (found.worker, found.partition, found.state["weight"]) == (owner.worker, number, 1)
                raw = owner.benches[number].lane.raw("boxes", key.encode())
                assert states(asked.port).get(key.encode()) == Stored(
                    key.encode(), raw or b"", number, worker=owner.worker
                )

    def test_every_key_page_by_page(self, pair: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch) -> None:
        every = [(name, number) for number in (0, 1) for name in sorted(name_in(number, 2, n) for n in range(3))]
        monkeypatch.setattr(live, "PAGE", 2)
        for asked in pair:
            assert states(asked.port).page("", "0", 100) == (every, None)
            assert states(asked.port).page("", f"0:{every[0][0]}", 3) == (every[1:4], f"1:{every[3][0]}")
            assert states(asked.port).page("nobody", "0", 3) == ([], None)

    def test_every_state(self, pair: tuple[Site, Site]) -> None:
        for asked in pair:
            found = list(states(asked.port).all(""))
            assert [one.worker for one in found] == ["w0"] * 3 + ["w1"] * 3
            for one in found:
                assert one.raw == pair[one.partition].benches[one.partition].lane.raw("boxes", one.key)
            name = name_in(1, 2, 2)
            assert [one.key.decode() for one in states(asked.port).all(name)] == [name]

    def test_nothing(self, pair: tuple[Site, Site]) -> None:
        assert states(pair[0].port).get(b"nobody") is None

    def test_what_cannot_be_shown_as_json_is_as_it_is_stored(self) -> None:
        worker = Site("w0")
        stored = {b"a": b"?", b"b": pack_state(7, b"{"), b"c": pack_state(1, b'{"n":123456789012345678901}')}
        worker.open(changelog=[(state_key(state_prefix("boxes"), key), raw) for key, raw in stored.items()])
        with worker.served():
            assert {one.key: one.raw for one in states(worker.port).all("")} == stored


class TestRefused:
    @pytest.mark.parametrize(
        ("context", "code"),
        [
            (token("StateCap.read:/boxes/other"), "insufficient_capabilities"),
            (token("StateCap.read:/**", audience="bax"), "wrong_audience"),
            ("", "malformed_token"),
            ("two words", "malformed_token"),
            ("a\r\nX-Evil: 1", "malformed_token"),
            ("\ufffd", "malformed_token"),
        ],
    )
    def test_who_may_not(self, pair: tuple[Site, Site], context: str, code: str) -> None:
        for ask in (lambda one: one.get(b"b1"), lambda one: one.page("", "0", 1), lambda one: list(one.all(""))):
            with pytest.raises(ReadRefusedError) as refused:
                ask(states(pair[0].port, context))
            assert refused.value.code == code
            assert not context or context not in str(refused.value)

    def test_a_reactor_that_the_workers_do_not_have_yet(self, pair: tuple[Site, Site]) -> None:
        newer = LiveStates(boxes, "boxes", ALL, pair[0].port)
        newer._path = "/state/box/newer"
        with pytest.raises(NoReactorError, match="has no reactor 'newer'"):
            newer.get(b"b1")
        # Before that version is deployed, there is nothing of it that could not be decoded.
        assert list(check_states(newer)) == [Checked()]

    def test_a_worker_of_another_topology(self, pair: tuple[Site, Site]) -> None:
        other = LiveStates(boxes, "boxes", ALL, pair[0].port)
        other._path = "/state/other/boxes"
        with pytest.raises(NotFoundError, match="this is a worker of 'box', and not of 'other'"):
            list(check_states(other))

    def test_a_lane_that_moves(self, pair: tuple[Site, Site]) -> None:
        pair[1].close(1)
        with pytest.raises(WorkerUnavailableError, match="is on its way") as unavailable:
            states(pair[0].port).get(name_in(1, 2).encode())
        assert unavailable.value.code == "lane_moving"
        assert "--offline" in str(unavailable.value)

    def test_a_worker_on_another_machine(self, pair: tuple[Site, Site]) -> None:
        pair[0].known = [pair[1].component(1, host="box-b")]
        with pytest.raises(
            OtherMachineError, match=r"worker 'w1' on machine 'box-b'.*Ask there, or read the changelog"
        ):
            states(pair[0].port).get(name_in(1, 2).encode())

    @pytest.mark.slow
    def test_a_lane_that_goes_in_the_middle(self) -> None:
        worker = Site("w0")
        large = pack_state(1, b'{"items":["%s"]}' % (b"x" * 1000))
        worker.open(changelog=[(state_key(state_prefix("boxes"), b"%d" % n), large) for n in range(50_000)])
        with worker.served():
            found = states(worker.port).all("")
            next(found)
            worker.loop.call_soon_threadsafe(worker.close)
            with pytest.raises(WorkerUnavailableError, match="broke off") as unavailable:
                list(found)
            assert unavailable.value.code == "broken_off"

    def test_nobody_listens(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(
                WorkerUnavailableError, match=rf"no worker answers at 127\.0\.0\.1:{taken.getsockname()[1]}"
            ):
                states(taken.getsockname()[1]).get(b"b1")


# -- somebody else --------------------------------------------------------------------------------------------------------


@contextmanager
def somebody(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[tuple[int, list[str]]]:
    """What listens on a port and is no worker; gives the port and what was sent there."""
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(f"{self.path} {self.headers['authorization']}")
            answer(self)

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port, heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def plain(status: int, body: bytes, **headers: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


class TestSomebodyElse:
    @pytest.mark.parametrize(
        "body", [b"", b"<html>", b"[]", b"{}", b'"text"', b'{"key": 1, "partition": 0, "worker": "w"}']
    )
    @pytest.mark.parametrize("status", [200, 404, 500])
    def test_whatever_it_says_is_no_answer(self, status: int, body: bytes) -> None:
        with somebody(plain(status, body)) as (port, _):
            for ask in (lambda one: one.get(b"b1"), lambda one: one.page("", "0", 1), lambda one: list(one.all(""))):
                with pytest.raises(WorkerAnswerError, match=f"what answers at 127.0.0.1:{port} is no worker"):
                    ask(states(port))

    @pytest.mark.parametrize(
        "location",
        [
            "http://evil.example:80/state/box/boxes?key=b1",
            "http://127.0.0.1@evil.example:80/state/box/boxes",
            "https://127.0.0.1:1/state/box/boxes",
            "//127.0.0.1:1/other",
            "http://127.0.0.1:1/state/box/boxes/keys",
            "/state/box/boxes",
            "",
        ],
    )
    def test_no_token_is_sent_away(self, location: str) -> None:
        with somebody(plain(307, b"{}", location=location)) as (port, heard):
            with pytest.raises(WorkerAnswerError, match="sends on to what is no worker"):
                states(port).get(b"b1")
            assert len(heard) == 1

    def test_round_and_round(self) -> None:
        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            plain(307, b"{}", location=f"http://127.0.0.1:{request.server.server_port}{request.path}")(request)  # type: ignore[attr-defined]

        with somebody(answer) as (port, heard):
            with pytest.raises(WorkerUnavailableError, match="send each other the question"):
                states(port).get(b"b1")
            assert len(heard) == live.REDIRECTS


# -- whom to ask ----------------------------------------------------------------------------------------------------------


class TestWhom:
    NOW = component("w0", 1).heartbeat_ms

    def chosen(self, *found: registry.Component) -> int:
        return choose_worker(found, "box", "here", self.NOW)

    def test_one_of_this_machine(self) -> None:
        here = component("w1", 8082, 1, host="here")
        assert self.chosen(component("w0", 8081, 0, host="there"), here) == 8082

    def test_none_runs(self) -> None:
        lost = component("w0", 1, host="here", heartbeat_ms=self.NOW - 31_000)
        other = component("w1", 1, host="here", app="other")
        for found in ([], [lost], [other], [replace(other, app="box", kind="reactor")]):
            with pytest.raises(NoWorkerError, match="no worker of 'box' has told the registry"):
                self.chosen(*found)

    def test_all_run_elsewhere(self) -> None:
        with pytest.raises(OtherMachineError, match=r"'w0' on machine 'there', 'w1' on machine 'box-b'\. Ask"):
            self.chosen(component("w0", 1, host="there"), component("w1", 1, host="box-b"))

    def test_none_answers(self) -> None:
        with pytest.raises(OtherMachineError, match=r"answers on a port: 'w0', 'w1'\. Start them with --health-port"):
            self.chosen(component("w0", 1, host="here", port=None), component("w1", 1, port=None))

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:8081",
            "http://127.0.0.1:8081/",
            "127.0.0.1:8081",
            "localhost:8081",
            "HTTP://LOCALHOST:8081",
        ],
    )
    def test_an_address(self, url: str) -> None:
        assert worker_port(url) == 8081

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "8081",
            "http://127.0.0.1",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:port",
            "https://127.0.0.1:8081",
            "http://box-b:8081",
            "http://127.0.0.1@box-b:8081",
            "http://127.0.0.1.evil.example:8081",
        ],
    )
    def test_what_is_none(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"is no worker's address.*ssh -L"):
            worker_port(url)
