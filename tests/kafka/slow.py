"""The counting topology in a worker that recovers no lane as long as the file that ``PF_TEST_DOOR`` names is there."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from pf_stream.engine import recovery, runner
from tests.kafka._support import counts

__all__ = ["counts"]


async def recover(link: Any, changelog: Any, fence: int, take: Any, progress: Any) -> int:
    """As the engine's, and late."""
    progress(0.4)
    await asyncio.to_thread(wait, Path(os.environ["PF_TEST_DOOR"]))
    return await recovery.recover(link, changelog, fence, take, progress)


def wait(door: Path) -> None:
    while door.exists():
        time.sleep(0.02)


runner.recover = recover  # type: ignore[attr-defined, assignment]
