"""Records that wait on disk for a sink's consumer.

The topic is what counts, so nothing of this need survive: the files have no name (``O_TMPFILE``), and are gone with the
process, however it ends.
"""

import struct
import tempfile
from collections import deque
from pathlib import Path
from typing import IO, Final

from pf_stream.core.sink import Taken

__all__ = ["Spill"]

SEGMENT: Final = 8 << 20
"""Bytes of a file; one whose records were all read goes, and gives its space back."""
_HEAD: Final = struct.Struct(">qqIIII")


class Spill:
    """A queue of records in files. A :class:`~pf_stream.backpressure.Disk`."""

    def __init__(self, folder: Path | None) -> None:
        """In *folder*, or where the system keeps temporary files."""
        self._folder = folder
        self._segments: deque[IO[bytes]] = deque()
        self._read_at = 0
        """How far the first one was read."""
        self._written = 0
        """How far the last one was written."""
        self._count = 0
        self.size = 0

    def __len__(self) -> int:
        return self._count

    def append(self, record: Taken) -> int:
        offset, time_ms, kind, source, key, value = record
        head = _HEAD.pack(offset, time_ms, len(kind), len(source), len(key), len(value))
        data = b"".join((head, kind, source, key, value))
        if not self._segments or self._written >= SEGMENT:
            # Its life is the queue's, so no block could close it.
            self._segments.append(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115
            self._written = 0
        file = self._segments[-1]
        file.seek(self._written)
        file.write(data)
        self._written += len(data)
        self._count += 1
        self.size += len(data)
        return len(data)

    def popleft(self) -> Taken:
        file = self._segments[0]
        file.seek(self._read_at)
        offset, time_ms, *lengths = _HEAD.unpack(file.read(_HEAD.size))
        kind, source, key, value = (file.read(length) for length in lengths)
        taken = _HEAD.size + sum(lengths)
        self._read_at += taken
        self._count -= 1
        self.size -= taken
        if self._read_at >= (self._written if len(self._segments) == 1 else SEGMENT):
            self._segments.popleft().close()
            self._read_at = 0
        return Taken(offset, time_ms, kind, source, key, value)

    def close(self) -> None:
        """Give all space back."""
        while self._segments:
            self._segments.pop().close()
        self._count = self.size = 0
