"""The counting topology in a worker that recovers no lane as long as the file that ``PF_TEST_DOOR`` names is there."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from pf_stream.engine import recovery, replica
from tests.kafka._support import counts

__all__ = ["counts"]


async def recover(link: Any, changelog: Any, fence: int, take: Any, progress: Any, start: int) -> int:
    """As the engine's, and late."""
    progress(recovery.Progress(0.4, 4, 1000.0, 6.0))
    await asyncio.to_thread(wait, Path(os.environ["PF_TEST_DOOR"]))
    return await recovery.recover(link, changelog, fence, take, progress, start)


def wait(door: Path) -> None:
    while door.exists():
        time.sleep(0.02)


replica.recover = recover  # type: ignore[attr-defined, assignment]
