"""Changelogs in the hands of a tool: written in place of the workers, under their leases."""

from collections.abc import Callable, Iterable
from typing import Self

from pf_stream.engine.encode import UNIT_BYTES
from pf_stream.engine.lease import Lease, acquire
from pf_stream.engine.recovery import recover
from pf_stream.errors import PFError
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.link import ConnectionSettings, Link, Partition

__all__ = ["Custody", "EditTooLargeError"]

Entry = tuple[bytes, bytes | None]
"""Key and value of a changelog record; without a value it deletes the key."""


class EditTooLargeError(PFError):
    """Raised when what has to change at once in a changelog does not fit into one batch; nothing is changed then."""

    code = "edit_too_large"

    def __init__(self, changelog: Partition, records: int) -> None:
        super().__init__(
            f"{records} records of {changelog[0]}-{changelog[1]} would have to change at once, and they do not fit into one "
            f"batch of {UNIT_BYTES >> 20} MiB"
        )


class Custody:
    """Takes lanes from whoever has them. Only to be used when no worker of the topology runs: it would take them back."""

    def __init__(self, link: Link, who: str) -> None:
        self._link = link
        self._appender = Appender(link)
        self._who = who

    @classmethod
    async def connect(cls, settings: ConnectionSettings, who: str) -> Self:
        """Connect; *who* is noted in the fences. Raises :class:`KafkaUnavailableError`."""
        return cls(await Link.connect(settings), who)

    async def close(self) -> None:
        """Disconnect; the leases stay until somebody else takes them."""
        await self._appender.close()
        await self._link.close()

    async def take(self, changelog: Partition, recovered: Callable[[Iterable[Entry]], None], now_ms: int) -> Lease:
        """Take the lease of a changelog partition, and hand all its records to *recovered*."""
        lease = await acquire(self._link, self._appender, changelog, self._who, now_ms)
        await recover(self._link, changelog, lease.fence, recovered)
        return lease

    async def append(self, lease: Lease, changelog: Partition, entries: Iterable[Entry], now_ms: int) -> None:
        """Append all *entries* as one batch, whole or not at all.

        Raises:
            EditTooLargeError: they do not fit.
            FencedError: a worker has taken the lane meanwhile; nothing is changed.
        """
        builder = BatchBuilder(UNIT_BYTES, compress=False)
        records = list(entries)
        for key, value in records:
            if not builder.append(now_ms, key, value, []):
                raise EditTooLargeError(changelog, len(records))
        await self._appender.submit(self, changelog, lease.stamp(changelog, builder.build()))
