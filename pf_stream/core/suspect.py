"""Intents that end their worker: noticed after a few restarts, and refused."""

import struct
from typing import Final

from pf_stream.core import changelog

__all__ = ["Suspects"]

_IDLE_OPENS: Final = 2
_CAREFUL_INTENTS: Final = 10
_ATTEMPTS = struct.Struct(">I")


class Suspects:
    """Finds the intent at which worker after worker ends: a handler that never returns, or takes the process with it.

    A lane that was opened and has committed nothing since starts :attr:`slow`: its units grow from one intent. So whatever
    ended its worker, all but a few of the intents before that one are decided, and after some lives it comes first. Then
    worker after worker commits nothing, and a lane that was opened twice in vain becomes :attr:`careful`: it takes one
    intent at a time, and before each it writes down which (:attr:`marking`). So the next worker knows at what the last
    one ended. That costs two commits an intent, so it is done for the first few only.
    """

    __slots__ = (
        "_attempts",
        "_in_log",
        "_key",
        "_left",
        "_limit",
        "_sealed",
        "careful",
        "idle_opens",
        "marking",
        "slow",
    )

    def __init__(self, limit: int) -> None:
        """*limit* is how often an intent may be tried before it is refused."""
        self._limit = limit
        self.idle_opens = 0
        """How often the lane was opened since somebody committed something."""
        self._left = 0
        self._key = b""
        self._attempts = 0
        self._sealed = False
        self._in_log = False
        self.slow = False
        """Whether units are to grow from one intent."""
        self.careful = False
        """Whether intents are to be taken one by one, each once the one before is committed."""
        self.marking = False
        """Whether the open unit has to be committed before the next intent is tried."""

    # -- recovery ------------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """A worker opened the lane."""
        self.idle_opens += 1

    def committed(self) -> None:
        """A worker committed something."""
        self.idle_opens = 0

    def restore(self, value: bytes | None) -> None:
        """Take the changelog record of what was tried last."""
        self._in_log = value is not None
        self._key, self._attempts = b"", 0
        if value is not None:
            (self._attempts,) = _ATTEMPTS.unpack_from(value)
            self._key = value[_ATTEMPTS.size :]

    def begin(self) -> None:
        """End the recovery."""
        self.slow = self.idle_opens > 0
        if self._in_log or self.idle_opens >= _IDLE_OPENS:
            self._left = _CAREFUL_INTENTS
            self.careful = True

    # -- the open unit -------------------------------------------------------------------------------------------------

    def may_try(self, key: bytes) -> bool:
        """Whether it is written down that the intent of that key is tried now; else do so first."""
        if self._sealed and key == self._key:
            return True
        if key == self._key and self._attempts >= self._limit:
            return True  # see is_poison(); it is not tried
        self._attempts = self._attempts + 1 if key == self._key else 1
        self._key = key
        self._sealed = False
        self.marking = True
        return False

    def is_poison(self, key: bytes) -> bool:
        """Whether the intent of that key was tried too often."""
        return not self._sealed and key == self._key and self._attempts >= self._limit

    def seal(self, decided: bool) -> list[tuple[bytes, bytes | None]]:
        """Changelog records of a unit, that has *decided* an intent or only marks one."""
        if self.marking:
            self.marking = False
            self._sealed = self._in_log = True
            return [(changelog.SUSPECT, _ATTEMPTS.pack(self._attempts) + self._key)]
        if not decided or not self.careful:
            return []
        self._left -= 1
        self.careful = self._left > 0
        self._key, self._attempts, self._sealed = b"", 0, False
        if not self._in_log:
            return []
        self._in_log = False
        return [(changelog.SUSPECT, None)]
