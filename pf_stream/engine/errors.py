"""Why a lane, or the worker, cannot go on.

::

    ServiceKeyError              a reactor is a service, and its key is missing
    GroupLostError               the worker is no member of its group any more
    StoreError                   a store on disk cannot be used
    TableGrownError              a table's topic has partitions that are not read
    LaneError
    ├── TopicReplacedError       a source topic was deleted and made anew
    └── WatermarkRangeError      the lane's position lies outside the source topic
"""

from pathlib import Path

from pf_stream.errors import PFError

__all__ = [
    "GroupLostError",
    "LaneError",
    "ServiceKeyError",
    "StoreError",
    "TableGrownError",
    "TopicReplacedError",
    "WatermarkRangeError",
    "code_of",
]


def code_of(error: BaseException) -> str:
    """What an error is, for machines: its code, or the name of its class if it is none of ours."""
    return error.code if isinstance(error, PFError) else type(error).__name__


class GroupLostError(PFError):
    """Raised when the group membership has crashed, so that the worker cannot go on."""

    code = "group_lost"

    def __init__(self, reason: BaseException | None) -> None:
        super().__init__(f"the group membership ended: {reason!r}")


class ServiceKeyError(PFError):
    """Raised when a worker cannot sign, or would not believe, what a reactor that is a service emits."""

    code = "service_key"

    def __init__(self, reactor: str, kid: int, fault: str) -> None:
        super().__init__(f"reactor {reactor!r} emits as a service under key {kid}, and {fault}")


class StoreError(PFError):
    """Raised when the store of a lane, or of a worker, cannot be opened, read or written."""

    code = "store_failed"

    def __init__(self, path: Path, reason: object) -> None:
        self.is_damage = str(reason).startswith(("Corruption", "Invalid argument"))
        """Whether it is the content that is not as it was written, and not the disk that is full or away."""
        super().__init__(
            f"the store in {path} cannot be used: {reason}. It may be deleted while no worker uses it, and is built anew from "
            f"the changelog then"
        )


class TableGrownError(PFError):
    """Raised when the topic of a table has got more partitions; a worker that starts again reads all of them."""

    code = "table_grown"

    def __init__(self, topic: str, read: int) -> None:
        super().__init__(
            f"the topic {topic} of a table has more than the {read} partitions that this worker reads: start it again"
        )


class LaneError(PFError):
    """Raised when a lane has to stop although its worker goes on."""

    code = "lane"


class TopicReplacedError(LaneError):
    """Raised when the topic that a lane has read is not the one that has its name now."""

    code = "topic_replaced"

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"{topic} was deleted and made anew since this lane read it: its offsets mean other records now. "
            f"Say where to go on: pf offsets reset -t TOPOLOGY --topic {topic} --to start --execute"
        )


class WatermarkRangeError(LaneError):
    """Raised when the records that a lane has to read next are gone, or were never there."""

    code = "watermark_range"

    def __init__(self, topic: str, partition: int, position: int, begin: int, end: int) -> None:
        super().__init__(
            f"the lane has to go on at offset {position} of {topic}-{partition}, which holds [{begin}, {end}): "
            f"records were deleted before they were read. Say where to go on: "
            f"pf offsets reset -t TOPOLOGY --topic {topic} --partition {partition} --to start --execute"
        )
