"""An event loop with a time of its own, in which a process can be killed or frozen between any two of its callbacks.

No socket, no thread, no wall time. Callbacks of one process run in asyncio's order, first in, first out, since code may
rely on that; the order between processes is the seed's. Only what a process asks of the network can be seen from outside,
and it asks in callbacks, so a crash between two callbacks is a crash between any two actions.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, Final

__all__ = ["DeadlockError", "Process", "VirtualLoop"]

CALLBACK_S: Final = 30e-6
"""What a callback takes on average, so that time passes while there is work."""

_process: ContextVar["Process | None"] = ContextVar("process", default=None)


class DeadlockError(Exception):
    """Raised when everything waits for something that cannot come."""

    def __init__(self) -> None:
        super().__init__("nothing is ready, and no timer is set")


class Process:
    """A set of callbacks and tasks that live and stop together: all that is started in its *context*."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.context: Context = copy_context()
        self.context.run(_process.set, self)
        self.ready: deque[asyncio.Handle] = deque()
        self.frozen = False
        self.dead = False
        self.fuse: tuple[int, Callable[[], None]] | None = None
        """After how many more callbacks what is to happen."""

    @staticmethod
    def current() -> "Process | None":
        """The process that runs this."""
        return _process.get()


class _Task(asyncio.Task[Any]):
    """A task that knows its process, and whose hash is the same in each run: tasks are kept in sets."""

    _numbers = count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(self._numbers)
        context = kwargs.get("context")
        self.process = _process.get() if context is None else context.get(_process)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. What runs outside of any :class:`Process` is the world around them, and cannot be stopped."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self._now = 0.0
        self._world = Process("world")
        self._world.context = copy_context()
        self.processes = [self._world]
        self.faults: list[str] = []
        """What asyncio complained about: exceptions that nobody took."""
        self.set_exception_handler(self._complain)
        self.set_task_factory(lambda loop, coroutine, **kwargs: _Task(coroutine, loop=loop, **kwargs))

    def time(self) -> float:
        return self._now

    def process(self, name: str) -> Process:
        """Add a process."""
        process = Process(name)
        self.processes.append(process)
        return process

    def start(self, process: Process, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine in a process."""
        return self.create_task(coroutine, context=process.context)

    def kill(self, process: Process) -> "list[asyncio.Task[Any]]":
        """Nothing of it runs from now on. Returns its tasks, to be kept: they must not be tidied up meanwhile."""
        process.dead = True
        self.processes.remove(process)
        return [task for task in asyncio.all_tasks(self) if getattr(task, "process", None) is process]

    def bury(self, dead: "list[asyncio.Task[Any]]") -> None:
        """Cancel every task, those of the dead too, and run until none is left."""
        for task in dead:
            process = getattr(task, "process", None)
            if process is not None and process not in self.processes:
                self.processes.append(process)
        for process in self.processes:
            process.frozen = False
            process.fuse = None
        for _ in range(10):
            tasks = asyncio.all_tasks(self)
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks))
        raise RuntimeError(f"these cannot be ended: {tasks}")

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.faults.append(f"{context['message']}: {context.get('exception')!r}")

    # -- what BaseEventLoop wants of a loop ----------------------------------------------------------------------------

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        """Run one callback."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while True:
            self._sort()
            while timers and timers[0].cancelled():
                heapq.heappop(timers)
            while timers and timers[0].when() <= self._now:
                self._enqueue(heapq.heappop(timers))
            able = [process for process in self.processes if process.ready and not process.frozen]
            if able:
                break
            if not timers:
                raise DeadlockError
            self._now = max(self._now, timers[0].when())
        process = able[0] if len(able) == 1 else self._dice.choice(able)
        handle = process.ready.popleft()
        if handle.cancelled():
            return
        handle._run()
        self._now += CALLBACK_S * 2 * self._dice.random()
        if process.fuse is not None:
            left, blow = process.fuse
            process.fuse = (left - 1, blow) if left else None
            if not left:
                blow()

    def _sort(self) -> None:
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        while ready:
            self._enqueue(ready.popleft())

    def _enqueue(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_process) or self._world  # type: ignore[attr-defined]
        process.ready.append(handle)  # of a dead one too: its tasks wait for it when they are buried
