"""What a lane is told whenever it begins: timers that are due at once and are written nowhere."""

from collections.abc import Iterator
from typing import Final

from pf_stream.core import changelog
from pf_stream.core.outputs import envelope, service_header
from pf_stream.core.partition import partition_of
from pf_stream.core.plan import GroupPlan
from pf_stream.core.records import SourceRecord
from pf_stream.core.timers import WALL, Timer, encode_timer

__all__ = ["NOT_YET", "starts_of"]

NOT_YET: Final = -1
"""Due time, and time of judgement, of an intent that is due and judged as soon as there is a time: a lane begins without one."""


def starts_of(plan: GroupPlan, partition: int) -> Iterator[tuple[bytes, bytes]]:
    """The timers, encoded, with their keys, of what a lane of *plan* begins with.

    They are as if they were in the changelog. So whatever becomes of the unit that takes them, it is as with any timer; only a
    new life of the lane has them once more.
    """
    for start in plan.starts:
        spec = start.intent.__intent__
        key = spec.key_of(start.intent)
        if partition_of(key, plan.partitions) != partition:
            continue
        reactor = start.reactor
        id_ = f"{reactor.spec.id}:{spec.type}:".encode() + key
        headers = [*envelope(("ce_type", spec.type.encode()), reactor.source), ("ce_id", id_)]
        if reactor.service is not None:
            headers.append(service_header(reactor.service))
        record = SourceRecord(NOT_YET, NOT_YET, key, spec.encode(start.intent), tuple(headers))
        timer = Timer(NOT_YET, WALL, start.topic, record, NOT_YET, scheduled=True, failed=0)
        # Beside the names that users give, which are text, and those of timers without one.
        yield changelog.timer_key(reactor.spec.id, key, b"\xfe" + spec.type.encode()), encode_timer(timer)
