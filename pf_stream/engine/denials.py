"""Lanes to which Kafka has denied something: each is opened again after a while, until the group decides otherwise."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from pf_stream.engine.runner import LaneKey
from pf_stream.kafka.errors import NotAuthorisedError

__all__ = ["Denials"]

log = structlog.get_logger(__name__)

AUTHORISATION_S = 5.0
"""How often a lane looks whether Kafka allows it again what it has refused."""


class Denials:
    """The lanes of a worker that wait until Kafka allows what they need.

    A right that was taken may be given back, and until the group says otherwise a lane stays with its worker.
    """

    def __init__(self, open_again: Callable[[LaneKey], None], rejoin: Callable[[], None], patience_s: float) -> None:
        """*open_again* opens a lane; *rejoin* asks the group, if one was to be opened longer ago than *patience_s*."""
        self._open_again = open_again
        self._rejoin = rejoin
        self._patience_s = patience_s
        self._actions: dict[LaneKey, str] = {}
        """What was denied."""
        self._waiting: dict[LaneKey, asyncio.TimerHandle] = {}

    def add(self, key: LaneKey, lane: str, error: NotAuthorisedError) -> None:
        """A lane has come to an end by *error*: it is opened again."""
        if error.action not in self._actions.values():
            log.error(
                "lanes wait until Kafka allows what they need; the others go on",
                lane=lane,
                code=error.code,
                reason=str(error),
                every_s=AUTHORISATION_S,
            )
        self._actions[key] = error.action
        if key in self._waiting:
            self._waiting[key].cancel()
        loop = asyncio.get_running_loop()
        self._waiting[key] = loop.call_later(AUTHORISATION_S, self._try, key, loop.time() + AUTHORISATION_S)

    def opened(self, key: LaneKey) -> None:
        """A lane is open. That proves nothing yet: what was denied may be a read or a write that comes only now."""
        if key in self._actions:
            self._waiting[key] = asyncio.get_running_loop().call_later(AUTHORISATION_S, self._allowed, key)

    def revoked(self) -> None:
        """The group has taken the lanes back: none is opened, until it assigns them."""
        for handle in self._waiting.values():
            handle.cancel()
        self._waiting.clear()

    def assigned(self, keys: Collection[LaneKey]) -> None:
        """The group has given these lanes. Whether others may do what they need is told by who has them."""
        self._actions = {key: action for key, action in self._actions.items() if key in keys}

    def _try(self, key: LaneKey, due: float) -> None:
        del self._waiting[key]
        if asyncio.get_running_loop().time() - due > self._patience_s:
            self._rejoin()  # we were paused: the lane may have another owner by now, and only the group may tell
            return
        self._open_again(key)

    def _allowed(self, key: LaneKey) -> None:
        del self._waiting[key]
        action = self._actions.pop(key)
        if action not in self._actions.values():
            log.info("Kafka allows it again", action=action)
