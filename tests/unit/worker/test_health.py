"""``/live`` and ``/ready`` as they are asked for, of a worker that can be in any state."""

import asyncio
import http.client
import json
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from pf_stream.core.status import LaneState, LaneStatus
from pf_stream.worker.health import Health, HealthPortError, HealthServer

LANE = LaneStatus("intents", "log", 0, LaneState.stopped, code="fenced", reason="it belongs to another")

REGISTRY = CollectorRegistry()
SEEN = Counter("seen_total", "What was seen.", registry=REGISTRY)

Ask = Callable[..., tuple[int, Any]]


def served(health: Health, ask: Callable[[Ask], None]) -> None:
    """Call *ask* in a thread while the health of a worker is served."""

    async def run() -> None:
        server = HealthServer("w0", lambda: health, REGISTRY)
        port = await server.start(0)

        def get(path: str, **headers: str) -> tuple[int, Any]:
            asking = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                asking.request("GET", path, headers=headers)
                answer = asking.getresponse()
                body = answer.read()
                return answer.status, json.loads(body) if body.startswith(b"{") else body
            finally:
                asking.close()

        try:
            await asyncio.to_thread(ask, get)
        finally:
            await server.stop()
        with pytest.raises(ConnectionRefusedError):
            get("/live")

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    asyncio.run(run())
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_all_is_well() -> None:
    def ask(get: Ask) -> None:
        assert get("/live") == (200, {"worker": "w0", "live": True})
        assert get("/ready") == (200, {"worker": "w0", "ready": True, "lanes": []})

    served(Health(live=True, ready=True, lanes=()), ask)


def test_a_worker_with_a_stopped_lane_is_live_and_not_ready() -> None:
    def ask(get: Ask) -> None:
        assert get("/live")[0] == 200
        code, body = get("/ready")
        assert (code, body["ready"]) == (503, False)
        (lane,) = body["lanes"]
        assert (lane["lane"], lane["state"], lane["code"]) == ("intents-0", "stopped", "fenced")

    served(Health(live=True, ready=False, lanes=[LANE]), ask)


def test_a_worker_that_cannot_go_on() -> None:
    def ask(get: Ask) -> None:
        assert get("/live") == (503, {"worker": "w0", "live": False})

    served(Health(live=False, ready=False, lanes=()), ask)


def test_metrics_come_in_the_format_that_is_asked_for() -> None:
    def ask(get: Ask) -> None:
        SEEN.inc()
        code, text = get("/metrics")
        assert (code, b"\nseen_total 1.0\n" in text, b"# EOF" in text) == (200, True, False)
        _, text = get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert b"\nseen_total 1.0\n" in text
        assert text.endswith(b"# EOF\n")
        assert get("/metrics", Host="rebound.example")[0] == 400

    served(Health(live=False, ready=False, lanes=()), ask)


def test_a_page_that_calls_itself_something_else_is_told_nothing() -> None:
    def ask(get: Ask) -> None:
        assert get("/ready", Host="rebound.example")[0] == 400
        assert get("/ready", Host="localhost:1")[0] == 503

    served(Health(live=True, ready=False, lanes=()), ask)


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = HealthServer("w0", lambda: Health(live=True, ready=True, lanes=()), REGISTRY)
        with pytest.raises(HealthPortError, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            asyncio.run(server.start(port))
