"""Finds a handler that does not come back, says where it is, and ends the process.

Nothing else could be done about it: Python cannot interrupt a thread, and a lane whose step hangs holds up all lanes of the
worker. Whoever supervises the process starts it again.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Final, Self

import structlog

__all__ = ["EXIT_HUNG", "HANG_AFTER_S", "Watchdog", "Whereabouts"]

log = structlog.get_logger(__name__)

EXIT_HUNG: Final = 75
"""Exit code of a worker that its watchdog has ended (``EX_TEMPFAIL`` of ``sysexits.h``: try again)."""
HANG_AFTER_S: Final = 30.0
"""How long the event loop may be silent, if nothing else is said."""

BEATS: Final = 20
"""How often the event loop is to be heard of within that time."""
SAY_S: Final = 2.0
CPU_MARGIN: Final = 1.5


class Whereabouts:
    """The step that the event loop is in: told once for each step, and read from the watchdog's thread."""

    __slots__ = ("_tell",)

    def __init__(self) -> None:
        self._tell: Callable[[], Mapping[str, object]] | None = None

    def at(self, tell: Callable[[], Mapping[str, object]]) -> Self:
        """A context in which a step is done; *tell* says, from another thread, at what it is."""
        self._tell = tell
        return self

    def __enter__(self) -> None:
        """The step begins."""

    def __exit__(self, *_: object) -> None:
        self._tell = None

    def look(self) -> Mapping[str, object]:
        """What is being done; nothing outside of a step."""
        tell = self._tell
        return {} if tell is None else tell()


class Watchdog:
    """Watches the event loop that it is started in, from a thread.

    The loop beats some twenty times in *hang_after_s*, and the thread counts its own ticks since the last beat: a process
    that was stopped and goes on (SIGSTOP, a frozen container) has not hung, although time has passed.

    A handler that keeps the interpreter to itself, as a regular expression that runs away does, holds up the thread too.
    For that the kernel counts the processor time since the last beat, and ends the process by SIGPROF with the stacks of
    all threads on stderr.
    """

    def __init__(self, hang_after_s: float, whereabouts: Whereabouts) -> None:
        self._hang_after_s = hang_after_s
        self._tick_s = hang_after_s / BEATS
        self._whereabouts = whereabouts
        self._beats = 0
        self._over = threading.Event()
        self._loop_thread = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to watch; to be called in the event loop of a process's main thread."""
        self._loop_thread = threading.get_ident()
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        self._beat()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.unregister(signal.SIGPROF)

    def _beat(self) -> None:
        self._beats += 1
        signal.setitimer(signal.ITIMER_PROF, self._hang_after_s * CPU_MARGIN)
        self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._beat)

    def _watch(self) -> None:
        heard, ticks = 0, 0
        while not self._over.wait(self._tick_s):
            if self._beats != heard:
                heard, ticks = self._beats, 0
                continue
            ticks += 1
            if ticks >= BEATS:
                self._end()

    def _end(self) -> None:
        # In a thread: if what hangs is the writing of a log line, this one will hang as well.
        saying = threading.Thread(target=self._say, daemon=True)
        saying.start()
        saying.join(SAY_S)
        os._exit(EXIT_HUNG)

    def _say(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "the thread has ended"
        where = self._whereabouts.look()
        log.error("the worker hangs, and is ended", seconds=self._hang_after_s, **where, stack=stack)
