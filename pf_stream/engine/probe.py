"""Does this cluster refuse an outdated lease? No document promises it, so every worker sees for itself when it starts."""

from pf_stream.core import changelog
from pf_stream.engine.lease import acquire
from pf_stream.kafka.appender import Appender
from pf_stream.kafka.batch import BatchBuilder
from pf_stream.kafka.errors import AppendError, FencedError
from pf_stream.kafka.link import Link, Partition

__all__ = ["leases_hold"]


async def leases_hold(link: Link, appender: Appender, probe: Partition, name: str, worker_id: str, now_ms: int) -> bool:
    """Acquire *probe* twice under the transactional id *name*: only the second lease may be able to append then.

    Waits out what may pass. Raises :class:`NotAuthorisedError` or :class:`TopicMissingError`.
    """
    older = await acquire(link, appender, probe, worker_id, now_ms, name)
    newer = await acquire(link, appender, probe, worker_id, now_ms, name)
    builder = BatchBuilder(4096, compress=False)
    builder.append(now_ms, changelog.FENCE, b"{}", [])
    batch = builder.build()
    try:
        await appender.submit(older, probe, older.stamp(probe, batch))
    except FencedError:
        pass
    except AppendError:
        return False  # refused, but for another reason, which may not hold the next time
    else:
        return False
    try:
        await appender.submit(newer, probe, newer.stamp(probe, batch))
    except (FencedError, AppendError):
        return False
    return True
