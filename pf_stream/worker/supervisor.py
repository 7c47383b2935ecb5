"""Several worker processes under one parent: started, started again when they die, drained together.

Parent and child hold the ends of a socket. What the child writes says how its start went, a JSON object in a line::

    {"ready": true}
    {"failed": "no Kafka broker answers at ...", "retryable": true}

When the parent is gone, in whatever way, the child reads the end of the stream and drains. The kernel's own means,
``PR_SET_PDEATHSIG``, exists on Linux only and fires when the parent's *thread* ends that started the child.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from pf_stream.engine.waiting import wait_within
from pf_stream.engine.watchdog import EXIT_HUNG

__all__ = ["ENDING", "SAME_SIGNAL_S", "Child", "ChildProcess", "Parent", "supervise"]

log = structlog.get_logger(__name__)

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a process to finish what is under way, and at the second time to end at once."""
SAME_SIGNAL_S: Final = 0.5
"""What follows a signal so soon was meant as the same: ``timeout`` and shells signal a process, and then its group."""

ENVIRONMENT: Final = "PF_SUPERVISOR_FD"
FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0
HEALTHY_S: Final = 60.0
"""How long a worker has to be ready until its past is forgotten."""
FRUITLESS: Final = 5
"""How often in a row a worker may end before it was ready."""
EXIT_USAGE: Final = 2
GRACE_S: Final = 10.0
"""How much longer than its drain a worker may take to end."""


@dataclass(frozen=True, slots=True)
class Child:
    """A worker process to be kept running."""

    name: str
    """The worker's id."""
    command: tuple[str, ...]
    """What is executed."""


def supervise(children: Sequence[Child], drain_s: float) -> int:
    """Keep *children* running until SIGTERM or SIGINT, then let each drain for *drain_s* seconds and a little more.

    A second signal kills them at once. Returns the exit code: 0 after a drain, 1 if a worker could not be started or did
    not end by itself, 128 and the signal's number after a second signal.
    """
    return asyncio.run(_Supervisor(drain_s + GRACE_S).run(children))


class Parent:
    """What a worker process knows of its supervisor."""

    def __init__(self, writer: asyncio.StreamWriter, watching: "asyncio.Task[None]") -> None:
        self._writer = writer
        self._watching = watching

    @classmethod
    async def connect(cls, gone: Callable[[], None]) -> "Parent | None":
        """The supervisor, None if this process has none; *gone* is called when there is one no more."""
        number = os.environ.pop(ENVIRONMENT, None)
        if number is None:
            return None
        os.set_inheritable(int(number), False)
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=int(number)))

        async def watch() -> None:
            with suppress(ConnectionError):
                await reader.read()
            gone()

        return cls(writer, asyncio.create_task(watch(), name="supervisor"))

    def tell(self, **message: object) -> None:
        """Say how the start went."""
        self._writer.write(orjson.dumps(message) + b"\n")

    async def close(self) -> None:
        """Leave; what was told is on its way."""
        self._watching.cancel()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class ChildProcess:
    """One life of a child."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader) -> None:
        self._process = process
        self._started = asyncio.get_running_loop().time()
        self.ready_at: float | None = None
        """When it said that it is ready, on the loop's clock."""
        self.failure: str | None = None
        """Why it could not start, as it says itself."""
        self.retryable = False
        """Whether it says that the same start may succeed later."""
        self._hearing = asyncio.create_task(self._hear(reader))

    @classmethod
    async def start(cls, child: Child, output: Path | None = None) -> "ChildProcess":
        """Start it; what it says goes to *output*, or where this process says things."""
        ours, theirs = socket.socketpair()
        file = None if output is None else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            process = await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, ENVIRONMENT: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent, who passes it on
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            if file is not None:
                os.close(file)
        reader, writer = await asyncio.open_connection(sock=ours)
        started = cls(process, reader)
        started._hearing.add_done_callback(lambda _: writer.close())
        return started

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError, ValueError):  # it may die in the middle of a line
            async for line in reader:
                message: dict[str, Any] = orjson.loads(line)
                if message.get("ready"):
                    self.ready_at = asyncio.get_running_loop().time()
                self.failure = message.get("failed", self.failure)
                self.retryable = message.get("retryable", self.retryable)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        code = await self._process.wait()
        await self._hearing
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


class _Supervisor:
    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._processes: dict[str, ChildProcess] = {}
        self._draining = asyncio.Event()
        self._asked_at = 0.0
        self._killed = False
        self._hurry = 0
        """Number of the second signal."""

    async def run(self, children: Sequence[Child]) -> int:
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, self._asked, number)
        log.info("supervising workers", workers=[child.name for child in children])
        kept = await asyncio.gather(*(self._keep(child) for child in children))
        if self._hurry:
            return 128 + self._hurry
        return 0 if all(kept) and not self._killed else 1

    def _asked(self, number: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if self._draining.is_set():
            if now - self._asked_at >= SAME_SIGNAL_S:
                self._hurry = self._hurry or number
                self._kill()
            return
        self._draining.set()
        self._asked_at = now
        log.info("draining all workers", workers=len(self._processes), deadline_s=self._grace_s)
        for process in self._processes.values():
            process.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(self._grace_s, self._kill)

    def _kill(self) -> None:
        for name, process in self._processes.items():
            log.warning("worker killed: it has not ended yet", worker=name)
            process.signal(signal.SIGKILL)
            self._killed = True

    async def _keep(self, child: Child) -> bool:
        """Run one child until all are drained; False if it was given up."""
        loop = asyncio.get_running_loop()
        backoff = FIRST_BACKOFF_S
        fruitless = 0
        while not self._draining.is_set():
            process = self._processes[child.name] = await ChildProcess.start(child)
            if self._draining.is_set():
                process.signal(signal.SIGTERM)  # it was asked while this one was on its way
            log.info("worker process started", worker=child.name, pid=process.pid)
            code = await process.ended()
            del self._processes[child.name]
            if self._draining.is_set():
                break
            how = _how(code) if process.failure is None else process.failure
            if process.ready_at is not None:
                fruitless = 0
                if loop.time() - process.ready_at >= HEALTHY_S:
                    backoff = FIRST_BACKOFF_S
            elif code >= 0 and code != EXIT_HUNG and not process.retryable:
                # By itself and for good reason. What is killed from outside may be luckier next time.
                fruitless += 1
                if code == EXIT_USAGE or fruitless == FRUITLESS:
                    log.error("worker given up: it cannot be started", worker=child.name, tries=fruitless, reason=how)
                    return False
            log.warning("worker process ended; starting it again", worker=child.name, how=how, in_s=backoff)
            await wait_within(backoff, self._draining)
            backoff = min(MAX_BACKOFF_S, 2 * backoff)
        return True


def _how(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}{': it hung' if code == EXIT_HUNG else ''}"
