"""Where peers live: virtual environments and compiled classes under ``.pf/bench``, made once."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pf_stream.kafka.dev.artifacts import Artifact, fetch, load_lock
from pf_stream.kafka.dev.errors import DevBrokerError
from pf_stream.kafka.dev.java import find_java
from pf_stream.kafka.dev.storage import jars_dir

__all__ = ["FOLDER", "ROCKSDB", "ROOT", "STREAMS", "MissingError", "java_command", "python"]

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".pf" / "bench"
SHARED: Final = Path(__file__).parent / "apps" / "Bench.java"
STREAMS: Final = Artifact(
    "org.apache.kafka",
    "kafka-streams",
    "4.4.0",
    2446342,
    "6e06548a119adf213121ad2e4fefff6ab4263875b4f761425ace8ea4f5ba04a6",
)
"""What Kafka Streams has beside the broker's own jars."""
ROCKSDB: Final = Artifact(
    "org.rocksdb",
    "rocksdbjni",
    "10.1.3",
    72725808,
    "e7f925287d9fe2574fb7c7a86f7facaa9b8ab602a2eed0e598bf633528121498",
)
"""What Kafka Streams keeps its state in where a program does not say: in memory."""
JAVA_FLAGS: Final = ("-Xmx2g",)


class MissingError(Exception):
    """Raised when a peer cannot be had on this machine; says why in a few words."""


def python(name: str, requirements: Sequence[str]) -> str:
    """The interpreter of a virtual environment with *requirements*, made by pip if it is not there.

    It is of the Python that runs this, which one that is there must be too: builds of one version are not equally fast.

    Raises:
        MissingError: there is no venv or no pip, or it does not find them.
    """
    folder = FOLDER / name
    executable = folder / "bin" / "python"
    complete = folder / "requirements.txt"
    wanted = f"# {sys.base_prefix} {sys.version}\n" + "".join(f"{requirement}\n" for requirement in requirements)
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted and executable.exists():
        return str(executable)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], "no venv")
    _run([str(executable), "-m", "pip", "install", "--quiet", *requirements], f"pip finds no {requirements[0]}")
    complete.write_text(wanted, encoding="utf-8")
    return str(executable)


def java_command(source: Path, *more: Artifact) -> list[str]:
    """How to start the Kafka Streams program in *source*, compiled if need be, on the broker's Java and its libraries.

    Raises:
        MissingError: there is no JDK, or Kafka Streams cannot be fetched.
    """
    home = os.environ.get("JAVA_HOME")
    compiler = shutil.which("javac", path=str(Path(home) / "bin") if home else None)
    if compiler is None:
        raise MissingError("no JDK: no javac in JAVA_HOME or on the path")
    try:
        jars = os.pathsep.join(map(str, fetch([STREAMS, *more, *load_lock().artifacts], jars_dir())))
    except DevBrokerError as error:
        raise MissingError(str(error)) from error
    classes = FOLDER / "kafka-streams"
    compiled = classes / f"{source.stem}.class"
    sources = (source, SHARED)
    if not compiled.exists() or compiled.stat().st_mtime < max(one.stat().st_mtime for one in sources):
        classes.mkdir(parents=True, exist_ok=True)
        _run([compiler, "--release", "17", "-d", str(classes), "-cp", jars, *map(str, sources)], "javac fails")
    return [str(find_java().executable), *JAVA_FLAGS, "-cp", f"{classes}{os.pathsep}{jars}", source.stem]


def _run(command: list[str], fault: str) -> None:
    try:
        subprocess.run(command, capture_output=True, check=True, text=True)
    except OSError as error:
        raise MissingError(f"{fault}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise MissingError(f"{fault}: {said[-1] if said else error.returncode}") from error
