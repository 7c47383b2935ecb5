"""``/live``, ``/ready`` and ``/metrics`` over HTTP, for whoever watches a worker from the same machine.

``/live``: the event loop answers, and the worker can go on. ``/ready``: the group has assigned what it has for this worker,
and every lane of that is open and can be read. Both answer 200 or 503 with a JSON object. ``/metrics``: what Prometheus
scrapes, in the format that it asks for.
"""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pf_stream.core.status import LaneStatus
from pf_stream.errors import PFError

__all__ = ["Health", "HealthPortError", "HealthServer"]

HOST: Final = "127.0.0.1"
STOP_S: Final = 1
REQUEST_BYTES: Final = 65_536
"""Most of a request before its body: a token has up to 8 KiB, and a key may be long."""


class HealthPortError(PFError):
    """Raised when the port for health checks cannot be had."""

    code = "health_port"

    def __init__(self, port: int, reason: str) -> None:
        super().__init__(
            f"the health checks cannot listen on {HOST}:{port}: {reason}. Name a free port: --health-port 0 takes any"
        )


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker does at one moment."""

    live: bool
    """Whether it can go on."""
    ready: bool
    """Whether everything that it was assigned is at work."""
    lanes: Sequence[LaneStatus]
    """Its lanes."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the worker, which drains."""
        yield


class HealthServer:
    """Serves the health of one worker on the loopback interface, and nowhere else."""

    def __init__(
        self,
        worker: str,
        look: Callable[[], Health],
        registry: CollectorRegistry,
        routes: Sequence[Route] = (),
    ) -> None:
        """*routes* are served beside."""
        self._worker = worker
        self._routes = routes
        self._look = look
        self._registry = registry
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, port: int) -> int:
        """Listen on *port*, 0 for any that is free; returns which. Raises :class:`HealthPortError`."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except OSError as error:
            listener.close()
            raise HealthPortError(port, error.strerror or str(error)) from error
        app = Starlette(
            routes=[
                Route("/live", self._live),
                Route("/ready", self._ready),
                Route("/metrics", self._metrics),
                *self._routes,
            ],
            # A web page that has its own name point here must not read it in a browser on this machine.
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        )
        self._server = _Server(
            uvicorn.Config(
                app,
                http="h11",  # which bounds what a request may be; the other one does not
                h11_max_incomplete_event_size=REQUEST_BYTES,
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=STOP_S,
            )
        )
        self._serving = asyncio.create_task(self._server.serve([listener]), name="health")
        chosen: int = listener.getsockname()[1]
        return chosen

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving

    async def _live(self, request: Request) -> JSONResponse:
        live = self._look().live
        return JSONResponse({"worker": self._worker, "live": live}, 200 if live else 503)

    async def _ready(self, request: Request) -> JSONResponse:
        health = self._look()
        lanes = [{"lane": lane.name, **dataclasses.asdict(lane)} for lane in health.lanes]
        body = {"worker": self._worker, "ready": health.ready, "lanes": lanes}
        return JSONResponse(body, 200 if health.ready else 503)

    async def _metrics(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": kind})
