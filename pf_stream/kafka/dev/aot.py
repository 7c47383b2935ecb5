"""The AOT cache: the broker's classes loaded and linked ahead of time (JEP 483, 514), four seconds less at
each start.

It depends on the runtime and on the jars, so its name is a hash of both. A training run makes it, once, in
the background after the first start (see ``_train``). A broker whose cache is missing or does not fit starts
without it.
"""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pf_stream.kafka.dev.java import Java
from pf_stream.kafka.dev.storage import cache_dir

__all__ = ["aot_flags", "aot_path", "make_aot_in_background"]


def aot_path(java: Java, jars: Sequence[Path]) -> Path | None:
    """Where the cache for this runtime and these jars is, or will be; ``None`` if the runtime knows none."""
    if not java.has_aot:
        return None
    key = hashlib.sha256(f"{java.executable}\n{java.build}\n{java.flags}\n".encode())
    for jar in jars:
        # The JVM compares path, size and time of each jar with what it saw in the training run.
        found = jar.stat()
        key.update(f"{jar} {found.st_size} {found.st_mtime_ns}\n".encode())
    return cache_dir() / f"{key.hexdigest()[:16]}.aot"


def aot_flags(java: Java, jars: Sequence[Path]) -> list[str]:
    """JVM options that use the cache, if it is there."""
    path = aot_path(java, jars)
    if path is None or not path.exists():
        return []
    # What does not fit is left out; a warning for each adapter that is left out helps nobody.
    return [f"-XX:AOTCache={path}", "-Xlog:aot*=error"]


def make_aot_in_background(java: Java, jars: Sequence[Path]) -> None:
    """Start the training run in a process of its own, unless there is nothing to gain. Returns at once."""
    path = aot_path(java, jars)
    if path is None or path.exists():
        return
    # A cache folder that cannot be written costs seconds at the next start, not this broker.
    with suppress(OSError), (cache_dir() / "aot.log").open("wb") as log:
        child = subprocess.Popen(
            # -P: a folder named pf_stream where the user happens to be must not be imported instead
            [sys.executable, "-P", "-m", "pf_stream.kafka.dev._train"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=cache_dir(),
            start_new_session=True,
        )
        child.returncode = 0  # it outlives us; Popen must not complain
