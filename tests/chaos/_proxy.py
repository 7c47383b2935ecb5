"""A TCP proxy that misbehaves on request: between clients and a broker that advertises the proxy's port as its own."""

import asyncio
import enum
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Direction", "Proxy"]

CHUNK = 1 << 16


class Direction(enum.StrEnum):
    """Which way bytes go."""

    to_broker = "to_broker"
    to_client = "to_client"


class Proxy:
    """Listens on :attr:`port` of 127.0.0.1 and forwards to *target*, in an event loop of its own.

    Its methods may be called from any thread and return when they have taken effect. No byte is lost or changes its
    place unless connections are cut: what is held goes on when it is let go.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = {direction: asyncio.Event() for direction in Direction}
        for flow in self._flows.values():
            flow.set()
        self._refusing = False
        self._delay_s = 0.0
        self._server: asyncio.Server | None = None
        self.port = 0
        """Where it listens."""
        self.target = 0
        """Port to which it forwards."""
        self.accepted = 0
        """Connections so far."""

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator["Proxy"]:
        """A proxy whose target is set later, since a broker must know the proxy's port before it has one of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="proxy")
        thread.start()
        proxy = cls(loop)
        try:
            asyncio.run_coroutine_threadsafe(proxy._listen(), loop).result(10)
            yield proxy
        finally:
            asyncio.run_coroutine_threadsafe(proxy._close(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        self._call(self._abort)

    def refuse(self) -> None:
        """Reset every connection, and new ones as soon as they are made."""

        def refuse() -> None:
            self._refusing = True
            self._abort()

        self._call(refuse)

    def delay(self, seconds: float) -> None:
        """Hold each piece of what comes for so long before it goes on."""
        self._call(lambda: setattr(self, "_delay_s", seconds))

    def hold(self, *directions: Direction) -> None:
        """Forward nothing more that way, or either way if none is named; connections stay, and new ones are taken."""

        def hold() -> None:
            for direction in directions or Direction:
                self._flows[direction].clear()

        self._call(hold)

    def heal(self) -> None:
        """Do nothing of all that any more."""

        def heal() -> None:
            self._refusing = False
            self._delay_s = 0.0
            for flow in self._flows.values():
                flow.set()

        self._call(heal)

    def _call(self, function: Callable[[], object]) -> None:
        async def called() -> None:
            function()

        asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _abort(self) -> None:
        for writer in self._connections:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections.add(writer)
        try:
            if self._refusing:
                writer.transport.abort()
                return
            try:
                broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                writer.transport.abort()
                return
            self._connections.add(broker_writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._forward(reader, broker_writer, Direction.to_broker))
                    group.create_task(self._forward(broker_reader, writer, Direction.to_client))
            except* (OSError, EOFError):
                pass
            finally:
                broker_writer.transport.abort()
                self._connections.discard(broker_writer)
        except asyncio.CancelledError:
            pass  # the proxy closes; asyncio would report it as an error of this callback
        finally:
            writer.transport.abort()
            self._connections.discard(writer)
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        while data := await reader.read(CHUNK):
            await self._flows[direction].wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            writer.write(data)
            await writer.drain()
        await self._flows[direction].wait()
        raise EOFError  # one side has closed: both are ended
