"""Shelves in RocksDB, by rocksdict: one database for each lane of a worker.

Nothing is written ahead: a write reaches the disk with a table in memory, when that is full, or ten minutes old, or the database
is closed. What a crash takes away is taken from the end, whole units with the position behind them, and is in the changelog.
"""

import asyncio
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import structlog
from filelock import FileLock, Timeout

from pf_stream.core.changelog import state_key_end
from pf_stream.engine.depot import Note
from pf_stream.engine.errors import StoreError
from pf_stream.errors import ConfigurationError
from pf_stream.kafka.link import Partition

__all__ = ["RocksDepot", "RocksShelf"]

log = structlog.get_logger(__name__)

FORMAT: Final = 1
NOTE: Final = b"\x00note"
"""Key of the note. Keys of changelog records begin with another byte."""
NOTE_VALUE = struct.Struct(">B16sqq")
STATES: Final = b"\x01s"
BEHIND_STATES: Final = b"\x01t"

TABLE_BYTES: Final = 8 << 20
"""Size of the table in memory at which a lane's is written to disk."""
TABLE_MS: Final = 600_000
"""Age at which it is written too: a lane that does little must not be found to be a day old after a crash."""
TABLES_BYTES: Final = 32 << 20
"""Size of those of all lanes together from which on more of them are written."""
CACHE_BYTES: Final = 16 << 20
"""Blocks that are kept, of all lanes. More helps little: what was read of late is an object still, and the system's cache
holds the files."""


class RocksShelf:
    """What the changelog of a lane says, by its keys, and up to where. A :class:`LastingShelf`."""

    def __init__(self, path: Path, options: Any) -> None:
        """Open or make it; raises :class:`StoreError`."""
        self._path = path
        self._options = options
        self.at_ms = 0
        self.note: Note | None = None
        self._topic_id = bytes(16)
        self._saved_ms = 0
        """The time that is noted on disk, about."""
        self._open()

    def _open(self) -> None:
        import rocksdict

        try:
            # An existing database would take its options from its own files, and not the cache that all lanes share.
            self._db = rocksdict.Rdict(str(self._path), self._options, {"default": self._options})
            found = self._db.get(NOTE)
        except Exception as error:
            raise StoreError(self._path, error) from error
        self._batch = rocksdict.WriteBatch
        self._write = rocksdict.WriteOptions()
        self._write.disable_wal = True
        self.note = None
        if found is not None and len(found) == NOTE_VALUE.size and found[0] == FORMAT:
            self.note = Note(*NOTE_VALUE.unpack(found)[1:])
            self._topic_id = self.note.topic_id

    @property
    def position(self) -> int:
        return 0 if self.note is None else self.note.position

    def get(self, key: bytes, /) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise StoreError(self._path, error) from error
        return value

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        batch = self._batch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in entries:
            if value is not None:
                put(key, value)
            else:
                delete(key)
        note = self.note
        if position != self.position:
            # Only with a new position: that of an old one may not be the last any more.
            note = Note(self._topic_id, position, self.at_ms)
            put(NOTE, NOTE_VALUE.pack(FORMAT, *note))
        try:
            self._db.write(batch, self._write)
        except Exception as error:
            raise StoreError(self._path, error) from error
        if note is not self.note and self.at_ms - self._saved_ms >= TABLE_MS:
            # So it is too when a changelog has been read, which may have taken long.
            self._db.flush(wait=False)
            self._saved_ms = self.at_ms
        self.note = note

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        for key in self._db.keys(from_key=prefix):
            if not key.startswith(prefix):
                break
            if len(key) == state_key_end(key):
                yield key

    def entries(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        try:
            for key, value in self._db.items(from_key=start):
                if key >= stop:
                    break
                yield key, value
        except Exception as error:
            raise StoreError(self._path, error) from error

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=b"\x01"):
            if key >= STATES:
                break
            yield key, value
        yield from self._db.items(from_key=BEHIND_STATES)

    async def clear(self, topic_id: bytes) -> None:
        def clear() -> None:
            self._db.close()
            shutil.rmtree(self._path)
            self._open()

        await asyncio.to_thread(clear)
        self._topic_id = topic_id

    def close(self) -> None:
        """Write what is in memory, and let go."""
        self._db.close()


class RocksDepot:
    """A folder with a database for each lane that the worker ever had. A :class:`Depot`."""

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self._folder = folder
        self._lock = lock
        self._options = _options()
        self._shelves: dict[Partition, asyncio.Task[RocksShelf]] = {}

    @classmethod
    def open(cls, folder: Path, app_id: str, worker_id: str) -> Self:
        """The depot of a worker, within a *folder* that several may have in common.

        Raises:
            ConfigurationError: rocksdict is not installed, or the folder cannot be used.
            StoreError: another process has it, which is of the same name.
        """
        try:
            import rocksdict  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "the topology keeps its state in RocksDB, for which rocksdict is needed: pip install 'pf-stream[rocksdb]'"
            ) from None
        own = folder / app_id / f"worker-{quote(worker_id, safe='')}"
        lock = FileLock(own / "lock")
        try:
            own.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(own, "another worker of that name uses it") from None
        except OSError as error:
            raise ConfigurationError(f"{own} cannot be used for state: {error.strerror}") from None
        return cls(own, lock)

    async def shelf(self, changelog: Partition) -> RocksShelf:
        opening = self._shelves.get(changelog)
        if opening is None or (opening.done() and opening.exception() is not None):
            path = self._folder / f"{changelog[0]}-{changelog[1]}"
            opening = asyncio.create_task(asyncio.to_thread(self._open, path))
            self._shelves[changelog] = opening
        # Whoever waits may be cancelled. A database that is being opened is opened, and there for the next one.
        return await asyncio.shield(opening)

    def _open(self, path: Path) -> RocksShelf:
        try:
            return RocksShelf(path, self._options)
        except StoreError as error:
            if not error.is_damage:
                raise
            log.warning("a store is damaged and built anew", path=str(path), reason=str(error))
            shutil.rmtree(path)
            return RocksShelf(path, self._options)

    async def close(self) -> None:
        shelves, self._shelves = self._shelves, {}
        for shelf in await asyncio.gather(*shelves.values(), return_exceptions=True):
            if isinstance(shelf, RocksShelf):
                await asyncio.to_thread(shelf.close)
        self._lock.release()


def _options() -> Any:
    """Options of all databases of a worker; caches and buffers are shared."""
    import rocksdict

    tables = rocksdict.BlockBasedOptions()
    tables.set_block_cache(rocksdict.Cache(CACHE_BYTES))
    tables.set_bloom_filter(10, False)  # a key that is new must not be looked for on disk
    tables.set_data_block_index_type(rocksdict.DataBlockIndexType.binary_and_hash())
    tables.set_format_version(5)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(tables)
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    options.set_write_buffer_size(TABLE_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_write_buffer_manager(rocksdict.WriteBufferManager(TABLES_BYTES, False))
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    return options
