"""States of one reactor as its running workers tell them over HTTP, see :mod:`pf_stream.worker.state`.

A worker listens on the loopback interface, so it is asked from its own machine; one that has not what is asked for says which
worker has. A token is sent to 127.0.0.1 and nowhere else, whatever the registry or an answer says.
"""

import http.client
import re
import socket
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson
from pydantic_core import from_json, to_json

from pf_stream.components.registry import Component, components
from pf_stream.components.stored import KeyPage, Stored, find_reactor
from pf_stream.core.changelog import pack_state
from pf_stream.errors import ConfigurationError, DeniedError, NotFoundError, PFError, UnhealthyError
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.model import Topology

__all__ = [
    "LiveStates",
    "NoReactorError",
    "NoWorkerError",
    "OtherMachineError",
    "ReadRefusedError",
    "WorkerAnswerError",
    "WorkerUnavailableError",
    "choose_worker",
    "find_worker",
    "worker_port",
]

HOST: Final = "127.0.0.1"
TIMEOUT_S: Final = 30.0
"""How long a worker may be silent: it handles intents first."""
REDIRECTS: Final = 3
PAGE: Final = 1000
"""Keys that are asked for at once."""
CHUNK: Final = 1 << 16

OFFLINE: Final = "or read the changelog: --offline"

_token: Final = re.compile(r"[A-Za-z0-9_=-]+").fullmatch


class ReadRefusedError(DeniedError):
    """Raised when a worker refuses the token; the code is that of the refusal."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class WorkerUnavailableError(UnhealthyError):
    """Raised when a worker cannot answer now: the lane recovers, has stopped or moves; the code says what."""

    retryable = True

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{message}. Try again, {OFFLINE}")


class NoWorkerError(UnhealthyError):
    """Raised when no worker of a topology runs, as far as the registry tells."""

    code = "no_worker"
    retryable = True

    def __init__(self, app: str) -> None:
        super().__init__(f"no worker of {app!r} has told the registry that it runs. Start one, {OFFLINE}")


class NoReactorError(NotFoundError):
    """Raised when the workers run a version of the topology that has no such reactor, and so no state of it."""

    code = "no_reactor"


class OtherMachineError(PFError):
    """Raised when who could answer cannot be asked from here; the message says where."""

    code = "other_machine"

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}. Ask there, {OFFLINE}")


class WorkerAnswerError(PFError):
    """Raised when what answers is not what a worker of this version says."""

    code = "bad_answer"

    def __init__(self, port: int, fault: str) -> None:
        super().__init__(f"what answers at {HOST}:{port} {fault}")


# -- whom to ask --------------------------------------------------------------------------------------------------------------


def find_worker(settings: ConnectionSettings, topology: Topology, now_ms: int) -> int:
    """The port of a worker of *topology* on this machine, as the registry has it; any of them knows who has what.

    Raises:
        NoWorkerError: none runs.
        OtherMachineError: those that run cannot be asked from here.
        TopicMissingError: the topics of the topology have not been made.
    """
    return choose_worker(components(settings), topology.app_id, socket.gethostname(), now_ms)


def choose_worker(found: Iterable[Component], app: str, host: str, now_ms: int) -> int:
    """The port of one of *found* on the machine called *host*; raises as :func:`find_worker`."""
    running = [one for one in found if one.kind == "worker" and one.app == app and not one.is_lost(now_ms)]
    if not running:
        raise NoWorkerError(app)
    for one in running:
        if one.host == host and one.port is not None:
            return one.port
    elsewhere = [f"{one.name!r} on machine {one.host!r}" for one in running if one.port is not None]
    if elsewhere:
        raise OtherMachineError(
            f"workers tell state on their own machines alone, and run elsewhere: {', '.join(elsewhere)}"
        )
    names = ", ".join(repr(one.name) for one in running)
    raise OtherMachineError(f"no worker answers on a port: {names}. Start them with --health-port")


def worker_port(url: str) -> int:
    """The port that *url* names, such as ``http://127.0.0.1:8081``. Raises :class:`ConfigurationError`."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in {"", "http"} or parts.hostname not in {HOST, "localhost"} or port is None:
        raise ConfigurationError(
            f"{url!r} is no worker's address, which is http://{HOST}:PORT. To ask one on another machine, forward its port: "
            f"ssh -L 8081:{HOST}:8081 MACHINE"
        )
    return port


# -- asking -------------------------------------------------------------------------------------------------------------------


class LiveStates:
    """Asks the workers of *topology* with *token*; the first one at *port* of this machine."""

    def __init__(self, topology: Topology, reactor: str, token: str, port: int) -> None:
        """Raises :class:`NotFoundError` if the topology has no such reactor."""
        group, self.spec = find_reactor(topology, reactor)
        self.changelog = topology.changelog(group)
        self._path = f"/state/{topology.app_id}/{reactor}"
        self._token = token
        self._port = port

    def get(self, key: bytes) -> Stored | None:
        """See :class:`~pf_stream.components.stored.States`. Raises the errors of this module."""
        try:
            with self._asking("", key=key.decode()) as answer:
                told = from_json(answer.read())
                return _stored(told, told["partition"], told["worker"])
        except _NoStateError:
            return None

    def page(self, prefix: str, cursor: str, limit: int) -> KeyPage:
        """See :class:`~pf_stream.components.stored.States`. Raises the errors of this module."""
        keys: list[tuple[str, int]] = []
        following: str | None = cursor
        while following is not None and len(keys) < limit:
            page = {"prefix": prefix, "cursor": following, "limit": min(PAGE, limit - len(keys))}
            with self._asking("/keys", **page) as answer:
                told = from_json(answer.read())
                keys += ((one["key"], one["partition"]) for one in told["keys"])
                following = told["next"]
        return KeyPage(keys, following)

    def all(self, prefix: str) -> Iterator[Stored]:
        """See :class:`~pf_stream.components.stored.States`. Raises the errors of this module."""
        number, partitions = 0, 1
        while number < partitions:
            with self._asking("/export", partition=number, prefix=prefix) as answer:
                partitions, worker = int(answer.headers["pf-partitions"]), answer.headers["pf-worker"]
                for line in _lines(answer):
                    yield _stored(from_json(line), number, worker)
            number += 1

    @contextmanager
    def _asking(self, what: str, **params: object) -> Iterator[http.client.HTTPResponse]:
        """A good answer, from whichever worker has it."""
        if _token(self._token) is None:
            raise ReadRefusedError("malformed_token", "the context is not a Biscuit token in base64url")
        port, path = self._port, self._path + what
        target = f"{path}?{urlencode(params)}"
        for _ in range(REDIRECTS):
            connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
            try:
                connection.request("GET", target, headers={"Authorization": f"Bearer {self._token}"})
                answer = connection.getresponse()
                if answer.status == 200:
                    yield answer
                    return
                if answer.status != 307:
                    raise _failure(port, answer)
                port, target = _redirected(port, answer, path)
            except http.client.IncompleteRead as error:
                raise WorkerUnavailableError(
                    "broken_off", f"the worker at {HOST}:{port} broke off: the lane went elsewhere, or the worker ended"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise WorkerUnavailableError("no_answer", f"no worker answers at {HOST}:{port}: {error!r}") from error
            except (ValueError, KeyError, TypeError) as error:
                raise WorkerAnswerError(port, "is no worker's") from error
            finally:
                connection.close()
        raise WorkerUnavailableError("lane_moving", "workers send each other the question, since a lane moves")


class _NoStateError(NotFoundError):
    """Raised when a worker has no state under a key; the caller says so in its own words."""


def _redirected(port: int, answer: http.client.HTTPResponse, path: str) -> tuple[int, str]:
    """Where to ask instead: another port, and the same path."""
    to = urlsplit(answer.headers.get("location", ""))
    try:
        there = worker_port(f"{to.scheme}://{to.netloc}")
    except ConfigurationError:
        there = None
    if there is None or to.path != path:
        raise WorkerAnswerError(port, "sends on to what is no worker")
    return there, f"{to.path}?{to.query}"


def _failure(port: int, answer: http.client.HTTPResponse) -> PFError:
    """What an answer other than a good one means."""
    try:
        body = orjson.loads(answer.read(CHUNK))
        code, message = str(body["error"]), str(body["message"])
    except (ValueError, TypeError, KeyError):
        return WorkerAnswerError(port, f"is no worker of this version ({answer.status} {answer.reason})")
    match answer.status:
        case 401 | 403:
            return ReadRefusedError(code, message)
        case 404:
            return {"no_state": _NoStateError, "no_reactor": NoReactorError}.get(code, NotFoundError)(message)
        case 421:
            return OtherMachineError(message)
        case 503:
            return WorkerUnavailableError(code, message)
        case _:
            return WorkerAnswerError(port, f"says {answer.status} ({code}): {message}")


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    rest = b""
    while chunk := answer.read1(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _stored(told: Mapping[str, Any], partition: int, worker: str) -> Stored:
    raw = b64decode(told["raw"]) if "raw" in told else pack_state(told["version"], to_json(told["state"]))
    return Stored(told["key"].encode(), raw, partition, worker=worker, counts=told.get("entries", {}))
