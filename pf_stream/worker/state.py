"""State over HTTP, for tools on a worker's own machine: a key, a page of keys, a partition.

::

    GET /state/APP/REACTOR?key=KEY                                 one state
    GET /state/APP/REACTOR/keys?prefix=TEXT&limit=N&cursor=TEXT    a page of keys, sorted within each partition
    GET /state/APP/REACTOR/export?partition=N&prefix=TEXT          the states of a partition, a JSON object in each line

Each request has ``Authorization: Bearer TOKEN``; :mod:`pf_stream.core.reading` says what the token must grant. What is told is
what was acknowledged, as it is stored, with the version of its shape. What another worker has is answered by a redirect to that
worker, once; the one that is asked then does not send on. Whatever is no answer is ``{"error": code, "message": text}``.

An export whose lane goes elsewhere in the middle ends without the last chunk of its encoding, which every client takes for an error.
"""

import asyncio
import re
import socket
import struct
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Set
from contextlib import aclosing
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain, islice
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import orjson
import structlog
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pf_stream.clock import Clock
from pf_stream.components.registry import Component, Peers
from pf_stream.core.changelog import FORMAT, STATE_PREFIX, parse_name
from pf_stream.core.lane import Lane
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import GroupPlan
from pf_stream.core.reading import refusal_to_read
from pf_stream.core.status import LaneState, LaneStatus
from pf_stream.engine.lanes import Lanes
from pf_stream.errors import PFError
from pf_stream.model._names import nearest
from pf_stream.worker._turns import BrokenOffError, Turns

__all__ = ["StateRoutes"]

log = structlog.get_logger(__name__)

PAGE: Final = 100
"""Keys of a page, if nothing else is said."""
LARGEST_PAGE: Final = 1000
COUNTED: Final = 10_000
"""Entries of a state that are counted at most: they take some milliseconds."""
RETRY: Final = {"retry-after": "1"}

_PRIVATE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_UNBELIEVED: Final = frozenset(
    {
        "missing_context",
        "token_too_large",
        "malformed_token",
        "too_many_blocks",
        "unknown_key",
        "bad_signature",
        "wrong_audience",
        "token_expired",
        "token_not_yet_valid",
    }
)
"""Codes of tokens that are good for nothing here (401); any other refusal is about the right (403)."""

_digits: Final = re.compile(r"[0-9]{1,9}").fullmatch


class _InsteadError(Exception):
    """Raised where something else than what was asked for is to be answered."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **more: object):
        super().__init__(code)
        self.response = _json({"error": code, "message": message, **more}, status, headers)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that may be answered."""

    lanes: Lanes
    """The worker's."""
    plan: GroupPlan
    """The reactor's group."""
    reactor: str
    """The reactor's id."""
    params: Mapping[str, str]
    """What it says."""
    path: str
    """Where it was sent to."""

    def has(self, lane: Lane[Any], number: int) -> bool:
        """Whether the worker still has *lane*."""
        return self.lanes.lane(self.plan.name, number) is lane


class StateRoutes:
    """Answers what is asked about the state of one worker's lanes, and says who has the others."""

    def __init__(self, worker: str, lanes: Callable[[], Lanes | None], peers: Peers, clock: Clock) -> None:
        """*lanes* gives those of the worker, None before it has any."""
        self._worker = worker
        self._lanes = lanes
        self._peers = peers
        self._clock = clock
        self._turns = Turns()

    @property
    def routes(self) -> list[Route]:
        """To be mounted."""
        at = "/state/{app}/{reactor}"
        return [
            Route(at, self._answering(self._get, required={"key"})),
            Route(f"{at}/keys", self._answering(self._page, optional={"prefix", "limit", "cursor"})),
            Route(f"{at}/export", self._answering(self._export, required={"partition"}, optional={"prefix"})),
        ]

    def _answering(
        self,
        work: Callable[[_Asked], Awaitable[Response]],
        required: Set[str] = frozenset(),
        optional: Set[str] = frozenset(),
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await work(self._admit(request, required, {*required, *optional, "via"}))
            except _InsteadError as instead:
                return instead.response

        return answer

    # -- who may, and where it is ---------------------------------------------------------------------------------------

    def _admit(self, request: Request, required: Set[str], known: Set[str]) -> _Asked:
        lanes = self._lanes()
        if lanes is None:
            raise _InsteadError(503, "starting", f"worker {self._worker!r} is starting", RETRY)
        params = _params(request, required, known)
        app, reactor = request.path_params["app"], request.path_params["reactor"]
        now_ms = self._clock.now_ms()
        refusal = refusal_to_read(lanes.verifier, _token(request), reactor, params.get("key"), now_ms)
        if refusal is not None:
            if refusal.code in _UNBELIEVED:
                raise _InsteadError(401, refusal.code, refusal.reason, {"www-authenticate": "Bearer"})
            raise _InsteadError(403, refusal.code, refusal.reason)
        topology = lanes.plans[0].topology
        if app != topology.app_id:
            raise _InsteadError(404, "not_found", f"this is a worker of {topology.app_id!r}, and not of {app!r}")
        for plan in lanes.plans:
            if any(one.spec.id == reactor for one in plan.reactors):
                return _Asked(lanes, plan, reactor, params, request.scope["path"])
        raise _InsteadError(404, "no_reactor", f"topology {topology.name!r} has no reactor {reactor!r}")

    async def _lane(self, asked: _Asked, number: int) -> Lane[Any]:
        """The lane, if it is open here; otherwise says where it is or why it cannot be read."""
        lane = asked.lanes.lane(asked.plan.name, number)
        if lane is not None:
            return lane
        name = f"{asked.plan.name}-{number}"
        for status in asked.lanes.statuses:
            if status.name == name:
                raise _not_open(status)
        if "via" in asked.params:
            raise _InsteadError(503, "lane_moving", f"lane {name} is on its way from worker to worker", RETRY)
        try:
            owner = await self._peers.with_lane(name)
        except PFError as error:
            raise _InsteadError(
                503, "owner_unknown", f"which worker has lane {name} cannot be found out: {error}", RETRY
            ) from error
        if owner is None:
            raise _InsteadError(503, "owner_unknown", f"no worker has told yet that it has lane {name}", RETRY)
        raise self._sent_on(asked, name, owner)

    def _sent_on(self, asked: _Asked, lane: str, owner: Component) -> _InsteadError:
        if owner.port is None:
            return _InsteadError(
                421,
                "no_port",
                f"lane {lane} is with worker {owner.name!r}, which answers on no port: start it with --health-port",
                worker=owner.name,
            )
        if owner.host != socket.gethostname():
            return _InsteadError(
                421,
                "other_machine",
                f"lane {lane} is with worker {owner.name!r} on machine {owner.host!r}, which tells it there alone, on port "
                f"{owner.port} of 127.0.0.1",
                worker=owner.name,
                host=owner.host,
            )
        # From the registry comes a number and nothing else: a token is never sent to a machine that somebody names there.
        query = urlencode({**asked.params, "via": self._worker})
        location = f"http://127.0.0.1:{owner.port}{asked.path}?{query}"
        return _InsteadError(
            307, "elsewhere", f"lane {lane} is with worker {owner.name!r}", {"location": location}, worker=owner.name
        )

    # -- answers -------------------------------------------------------------------------------------------------------

    async def _get(self, asked: _Asked) -> Response:
        key = asked.params["key"].encode()
        number = partition_of(key, asked.plan.partitions)
        lane = await self._lane(asked, number)
        raw = lane.raw(asked.reactor, key)
        if raw is None:
            raise _InsteadError(404, "no_state", f"reactor {asked.reactor!r} has no state under that key")
        told = _told(asked.reactor, key, raw)
        if entries := _count(islice(lane.entries(asked.reactor, key), COUNTED)):
            told["entries"] = entries
        return _json({**told, "partition": number, "worker": self._worker})

    async def _page(self, asked: _Asked) -> Response:
        partitions = asked.plan.partitions
        limit = _number(asked.params, "limit", 1, LARGEST_PAGE) if "limit" in asked.params else PAGE
        number, after = _cursor(asked.params.get("cursor", "0"), partitions)
        lane: Lane[Any] | None = await self._lane(asked, number)
        keys: list[dict[str, object]] = []
        following: str | None = None
        self._require_turn()
        while lane is not None:
            room = limit - len(keys)
            found = await self._smallest(asked, number, lane, after, room)
            keys += ({"key": _text(key), "partition": number} for key in found)
            if len(found) == room:
                following = f"{number}:{_text(found[-1])}"
                break
            number, after = number + 1, None
            following = str(number) if number < partitions else None
            lane = asked.lanes.lane(asked.plan.name, number)
        return _json({"keys": keys, "next": following, "partitions": partitions, "worker": self._worker})

    async def _smallest(
        self, asked: _Asked, number: int, lane: Lane[Any], after: bytes | None, count: int
    ) -> list[bytes]:
        """The first *count* keys of a lane behind *after*."""
        prefix = asked.params.get("prefix", "").encode()

        def wanted(key: bytes) -> bytes | None:
            if not key.startswith(prefix) or (after is not None and key <= after):
                return None
            return None if lane.raw(asked.reactor, key) is None else key

        smallest: list[bytes] = []
        try:
            async for piece in self._turns.walk(lane.keys(asked.reactor), wanted, lambda: asked.has(lane, number)):
                smallest = nsmallest(count, chain(smallest, piece))
        except BrokenOffError:
            name = f"{asked.plan.name}-{number}"
            raise _InsteadError(503, "lane_moving", f"lane {name} went elsewhere meanwhile", RETRY) from None
        return smallest

    async def _export(self, asked: _Asked) -> Response:
        number = _number(asked.params, "partition", 0, asked.plan.partitions - 1)
        prefix = asked.params.get("prefix", "").encode()
        lane = await self._lane(asked, number)
        self._require_turn()

        def line(key: bytes) -> bytes | None:
            raw = lane.raw(asked.reactor, key) if key.startswith(prefix) else None
            return None if raw is None else _line(_told(asked.reactor, key, raw))

        async def pieces() -> AsyncGenerator[bytes, None]:
            walk = self._turns.walk(lane.keys(asked.reactor), line, lambda: asked.has(lane, number))
            async with aclosing(walk) as lists:
                async for lines in lists:
                    yield b"".join(lines)

        headers = {**_PRIVATE, "pf-partitions": str(asked.plan.partitions), "pf-worker": self._worker}
        return _Lines(pieces(), headers)

    def _require_turn(self) -> None:
        if self._turns.taken:
            raise _InsteadError(503, "busy", "as many lists and exports are under way as may be", RETRY)


class _Lines(Response):
    """Pieces as they come, for as long as somebody reads them. Starlette's own would go on for nobody, or load anyio's tasks."""

    media_type = "application/x-ndjson"

    def __init__(self, pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reading = asyncio.create_task(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    if reading.done():
                        return
        except BrokenOffError:
            log.info("an export broke off, since its lane went elsewhere", path=scope["path"])
            return
        finally:
            reading.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(body: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(_line(body), status, {**_PRIVATE, **(headers or {})}, "application/json")


def _line(body: Mapping[str, object]) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)


def _told(reactor: str, key: bytes, raw: bytes) -> dict[str, Any]:
    """A state as it is told: its JSON, or in base64 what is stored if that is of another format, or no JSON in one line."""
    told = {"reactor": reactor, "key": _text(key), "version": None, "state": None}
    try:
        form, version = STATE_PREFIX.unpack_from(raw)
        json = raw[STATE_PREFIX.size :]
        from_json(json, allow_inf_nan=False)
        if form == FORMAT and b"\n" not in json:
            return told | {"version": version, "state": orjson.Fragment(json)}
    except (ValueError, struct.error):
        pass
    return told | {"raw": b64encode(raw).decode()}


def _count(entries: Iterable[tuple[bytes, bytes]]) -> Counter[str]:
    """How many entries there are, by the ids of their fields."""
    return Counter(parse_name(subkey, 0)[0] for subkey, _ in entries)


def _text(key: bytes) -> str:
    return key.decode(errors="replace")


def _not_open(status: LaneStatus) -> _InsteadError:
    """Why a lane that the group has given to this worker cannot be read."""
    if status.state is LaneState.stopped:  # the reason may name keys
        return _InsteadError(503, "lane_stopped", f"lane {status.name} has stopped ({status.code}); pf status says why")
    part = "" if status.progress is None else f"; {status.progress:.0%} of its changelog is read".replace("%", " %")
    return _InsteadError(
        503, "lane_recovering", f"lane {status.name} is being opened{part}", RETRY, progress=status.progress
    )


# -- what a request says ----------------------------------------------------------------------------------------------------


def _token(request: Request) -> bytes | None:
    """The token; None if there is none, and empty, which no token is, if that is not plain."""
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    return token.strip().encode("latin-1") if len(given) == 1 and scheme.lower() == "bearer" else b""


def _params(request: Request, required: Set[str], known: Set[str]) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(request.scope["query_string"]),
            errors="strict",
            max_num_fields=len(known),
        )
    except ValueError as error:
        raise _bad_request("the query cannot be read") from error
    params = dict(pairs)
    if len(params) < len(pairs):
        raise _bad_request("a parameter is given twice")
    if unknown := params.keys() - known:
        raise _bad_request(f"there is no parameter {min(unknown)!r}{nearest(min(unknown), known)}")
    if missing := required - params.keys():
        raise _bad_request(f"the parameter {min(missing)!r} is missing")
    return params


def _number(params: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = params[name]
    if _digits(text) is None or not least <= int(text) <= most:
        raise _bad_request(f"{name} must be {least} to {most}")
    return int(text)


def _cursor(text: str, partitions: int) -> tuple[int, bytes | None]:
    """The partition with which a page begins, and the key behind which: ``3`` or ``3:apples``."""
    number, colon, key = text.partition(":")
    return _number({"cursor": number}, "cursor", 0, partitions - 1), key.encode() if colon else None


def _bad_request(message: str) -> _InsteadError:
    return _InsteadError(400, "bad_request", message)
