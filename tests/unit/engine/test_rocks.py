"""Shelves in RocksDB: they keep the contract, each life in a process of its own that can be killed; and their depot."""

import asyncio
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from pf_stream.engine import rocks
from pf_stream.engine.depot import LastingShelf, Note
from pf_stream.engine.errors import StoreError
from pf_stream.engine.rocks import RocksDepot
from pf_stream.errors import ConfigurationError
from tests.shelf_contract import TOPIC, ShelfContract, state

LANE = "app-intents-changelog", 0

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pf_stream.engine.rocks"])


def serve(folder: Path, calls: Connection) -> None:
    """A process that has a shelf and does with it what it is told."""

    setattr(rocks, "TABLE_BYTES", 64 << 10)  # noqa: B010 - so that a kill takes away some of it and not all

    async def work() -> None:
        depot = RocksDepot.open(folder, "app", "w0")
        shelf = await depot.shelf(LANE)
        while True:
            name, at_ms, arguments = calls.recv()
            shelf.at_ms = at_ms
            match name:
                case "close":
                    await depot.close()
                    return calls.send((None, None))
                case "clear":
                    await shelf.clear(*arguments)
                    answer = None
                case "rest" | "keys" | "entries":
                    answer = list(getattr(shelf, name)(*arguments))
                case _:
                    answer = getattr(shelf, name)(*arguments)
            calls.send((answer, shelf.note))

    asyncio.run(work())


class FarShelf:
    """A shelf in another process."""

    def __init__(self, folder: Path) -> None:
        self.at_ms = 0
        self.note: Note | None = None
        self._calls, theirs = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=serve, args=(folder, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.call("get", b"")

    def call(self, name: str, *arguments: object) -> Any:
        self._calls.send((name, self.at_ms, arguments))
        answer, self.note = self._calls.recv()
        return answer

    @property
    def position(self) -> int:
        return 0 if self.note is None else self.note.position

    def get(self, key: bytes, /) -> bytes | None:
        value: bytes | None = self.call("get", key)
        return value

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        self.call("put", entries, position)

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        return iter(self.call("keys", prefix))

    def entries(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.call("entries", start, stop))

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        found: Iterable[tuple[bytes, bytes]] = self.call("rest")
        return found

    async def clear(self, topic_id: bytes) -> None:
        self.call("clear", topic_id)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()
        self._calls.close()

    def close(self) -> None:
        self.call("close")
        self._process.join()
        self._calls.close()


class RocksPlace:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shelf: FarShelf | None = None

    async def open(self) -> LastingShelf:
        self.shelf = FarShelf(self._folder)
        return self.shelf

    async def close(self) -> None:
        if self.shelf is not None:
            self.shelf.close()
        self.shelf = None

    def kill(self) -> None:
        if self.shelf is not None:
            self.shelf.kill()
        self.shelf = None


@pytest.fixture
def place(tmp_path: Path) -> Iterator[RocksPlace]:
    place = RocksPlace(tmp_path)
    yield place
    place.kill()


@pytest.mark.slow
class TestContract(ShelfContract):
    pass


class TestDepot:
    def test_a_shelf_that_is_open_is_given_again(self, tmp_path: Path) -> None:
        async def work() -> None:
            depot = RocksDepot.open(tmp_path, "app", "w0")
            first, again = await asyncio.gather(depot.shelf(LANE), depot.shelf(LANE))
            assert first is again
            assert await depot.shelf(("app-intents-changelog", 1)) is not first
            await depot.close()

        asyncio.run(work())

    def test_who_stops_waiting_for_a_shelf_does_not_keep_it_from_the_next(self, tmp_path: Path) -> None:
        async def work() -> None:
            depot = RocksDepot.open(tmp_path, "app", "w0")
            waiting = asyncio.create_task(depot.shelf(LANE))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            shelf = await depot.shelf(LANE)
            assert shelf.get(state("a")) is None
            await depot.close()

        asyncio.run(work())

    def test_each_worker_has_a_folder_of_its_own(self, tmp_path: Path) -> None:
        async def work() -> None:
            depots = [RocksDepot.open(tmp_path, "app", name) for name in ("w0", "w/../0", "..")]
            for number, depot in enumerate(depots):
                shelf = await depot.shelf(LANE)
                await shelf.clear(TOPIC)
                shelf.put([(state("a"), b"%d" % number)], 1)
            assert [(await depot.shelf(LANE)).get(state("a")) for depot in depots] == [b"0", b"1", b"2"]
            for depot in depots:
                await depot.close()

        asyncio.run(work())
        assert {path.name for path in (tmp_path / "app").iterdir()} == {
            "worker-w0",
            "worker-w%2F..%2F0",
            "worker-..",
        }

    def test_a_second_worker_of_that_name_is_refused(self, tmp_path: Path) -> None:
        async def work() -> None:
            depot = RocksDepot.open(tmp_path, "app", "w0")
            with pytest.raises(StoreError, match="another worker of that name uses it"):
                RocksDepot.open(tmp_path, "app", "w0")
            await depot.close()
            await RocksDepot.open(tmp_path, "app", "w0").close()

        asyncio.run(work())

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "app").write_text("a file")
        with pytest.raises(ConfigurationError, match=r"app/worker-w0 cannot be used for state: Not a directory"):
            RocksDepot.open(tmp_path, "app", "w0")

    def test_a_damaged_database_is_begun_anew(self, tmp_path: Path) -> None:
        async def work(*, damage: bool) -> Note | None:
            depot = RocksDepot.open(tmp_path, "app", "w0")
            shelf = await depot.shelf(LANE)
            found = shelf.note
            if found is None:
                await shelf.clear(TOPIC)
                shelf.put([(state("a"), b"1")], 1)
            else:
                assert not damage
            await depot.close()
            return found

        assert asyncio.run(work(damage=False)) is None
        assert asyncio.run(work(damage=False)) is not None
        (manifest,) = (tmp_path / "app" / "worker-w0" / "app-intents-changelog-0").glob("MANIFEST-*")
        manifest.write_bytes(os.urandom(100))
        assert asyncio.run(work(damage=True)) is None
        assert asyncio.run(work(damage=False)) is not None

    def test_one_that_cannot_be_read_is_not_taken_for_damaged(self, tmp_path: Path) -> None:
        """A disk that is full or away has lost nothing: what is there must stay."""

        async def work() -> None:
            depot = RocksDepot.open(tmp_path, "app", "w0")
            path = tmp_path / "app" / "worker-w0" / "app-intents-changelog-0"
            path.write_text("a file")
            for _ in range(2):
                with pytest.raises(StoreError):
                    await depot.shelf(LANE)
            assert path.read_text() == "a file"
            path.unlink()
            assert (await depot.shelf(LANE)).note is None, "and it is tried again"
            await depot.close()

        asyncio.run(work())
