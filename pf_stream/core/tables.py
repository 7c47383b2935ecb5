"""The rows of global tables, as a worker has read them, and as they are for one unit.

A table changes while units are open. What a unit sees must not: an intent may be handled again in it, on behalf of another
that raised, and must see what it saw. So a unit takes a snapshot when it first asks, and a table keeps what it replaces for
as long as there is a snapshot of before.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from weakref import WeakSet

from pf_stream.core.records import Record
from pf_stream.core.watermark import WATERMARK_TYPE
from pf_stream.errors import PFError
from pf_stream.model.table import GlobalTable

__all__ = ["Snapshot", "TableFullError", "TableRowError", "TableRows", "UnitRows"]

ROW_BYTES: Final = 150
"""What a row takes beside its key and its value, by estimate."""


class TableFullError(PFError):
    """Raised when a table takes more memory than it may."""

    code = "table_full"

    def __init__(self, table: GlobalTable[Any]) -> None:
        super().__init__(
            f"the rows of the table {table.topic!r} take more than {table.most_bytes:,} bytes: give it a larger most_bytes, or "
            f"delete rows from its topic"
        )


class TableRowError(PFError):
    """Raised when a record of a table is no row, and that is to stop the worker."""

    code = "bad_row"

    def __init__(self, table: GlobalTable[Any], partition: int, record: Record) -> None:
        super().__init__(
            f"the record of the table {table.topic!r} at partition {partition}, offset {record.offset}, key {record.key!r:.200} "
            f"is no {table.of.__name__}: write another under its key, or declare the table with on_bad='skip'"
        )


class _Past:
    """What was replaced between two versions."""

    __slots__ = ("rows", "size", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        """The later one."""
        self.rows: dict[bytes, bytes | None] = {}
        self.size = 0


class TableRows:
    """The rows of one table."""

    def __init__(self, table: GlobalTable[Any]) -> None:
        self.table = table
        self.rows: dict[bytes, bytes] = {}
        """By key, as they are in the topic."""
        self.bytes = 0
        """What they take, by estimate, and what is kept for snapshots."""
        self.bad = 0
        """Records that were no rows."""
        self.version = 0
        self.past: list[_Past] = []
        """What snapshots may ask for, the earliest first."""
        self._snapshots: WeakSet[Snapshot] = WeakSet()

    def read(self, partition: int, records: Iterable[Record]) -> None:
        """Take records of a partition, in order: who asks from now on sees all of them, and who asked before none.

        Raises:
            TableFullError: the rows take too much memory.
            TableRowError: a record is no row, and the table is declared to stop then.
        """
        past = self._keep()
        for record in records:
            if any(name == "ce_type" and value == WATERMARK_TYPE for name, value in record.headers):
                continue
            key, value = record.key, record.value
            if key is None or (value is not None and self.table.decode(value) is None):
                if self.table.on_bad == "stop":
                    raise TableRowError(self.table, partition, record)
                self.bad += 1
                if key is None:
                    continue
                value = None
            self._put(key, value, past)
            if self.bytes > self.table.most_bytes:
                raise TableFullError(self.table)

    def snapshot(self) -> "Snapshot":
        """The rows as they are now."""
        found = Snapshot(self)
        self._snapshots.add(found)
        return found

    def _keep(self) -> _Past | None:
        """Where what is replaced goes; ``None`` if nobody may ask for it. Forgets what nobody can ask for any more."""
        versions = {snapshot.version for snapshot in self._snapshots}
        oldest = min(versions, default=self.version)
        while self.past and self.past[0].version <= oldest:
            self.bytes -= self.past.pop(0).size
        if self.version in versions:
            self.version += 1
            self.past.append(_Past(self.version))
        return self.past[-1] if self.past else None

    def _put(self, key: bytes, value: bytes | None, past: _Past | None) -> None:
        old = self.rows.get(key)
        if past is not None and key not in past.rows:
            past.rows[key] = old
            size = len(key) + len(old or b"") + ROW_BYTES
            past.size += size
            self.bytes += size
        if old is not None:
            self.bytes -= len(key) + len(old) + ROW_BYTES
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value
            self.bytes += len(key) + len(value) + ROW_BYTES


class Snapshot:
    """The rows of a table as they were at some time."""

    __slots__ = ("__weakref__", "_rows", "version")

    def __init__(self, rows: TableRows) -> None:
        self._rows = rows
        self.version = rows.version

    def get(self, key: bytes) -> bytes | None:
        """The row under a key, as it is in the topic."""
        for past in self._rows.past:
            if past.version > self.version and key in past.rows:
                return past.rows[key]
        return self._rows.rows.get(key)


class UnitRows:
    """The rows of all tables as one unit sees them: as they are when it first asks."""

    __slots__ = ("_snapshots", "_tables")

    def __init__(self, tables: Mapping[str, TableRows]) -> None:
        self._tables = tables
        self._snapshots: dict[str, Snapshot] | None = None

    def row(self, table: GlobalTable[Any], key: bytes) -> Any:
        """The row of *table* under *key*, a new object each time; ``None`` if there is none. Raises :class:`LookupError`."""
        if self._snapshots is None:
            self._snapshots = {topic: rows.snapshot() for topic, rows in self._tables.items()}
        rows = self._tables.get(table.topic)
        if rows is None or rows.table != table:
            raise LookupError(f"the topology has no such table of {table.topic!r}: Topology(..., tables=[...])")
        raw = self._snapshots[table.topic].get(key)
        return None if raw is None else table.decode(raw)
