"""What the README shows runs as printed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_own_application_is_tested_as_printed(tmp_path: Path) -> None:
    """The application and its test, which needs no Kafka."""
    application, test = fences("python")
    (tmp_path / "counter.py").write_text(application)
    (tmp_path / "test_counter.py").write_text(test)
    subprocess.run([sys.executable, "-W", "error", "test_counter.py"], cwd=tmp_path, check=True, timeout=30)


@pytest.mark.timeout(90)
def test_own_application_runs_as_printed(tmp_path: Path, bootstrap_servers: str, unique: str) -> None:
    """The application, the commands below it, and what they are said to print."""
    (application,) = [block for block in fences("python") if "Topology(" in block]
    (session,) = [block for block in fences("console") if "pf worker run" in block]
    (tmp_path / "counter.py").write_text(application)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "PF_BOOTSTRAP_SERVERS": bootstrap_servers,
        "PF_NAMESPACE": unique,
        "COLUMNS": "120",
    }
    worker: subprocess.Popen[str] | None = None
    try:
        for command, expected in _commands(session.replace("--audience counter", f"--audience {unique}")):
            if command.startswith("pf dev"):
                continue  # the broker of this test session is running
            if command.endswith("&"):
                worker = subprocess.Popen(
                    command.removesuffix("&").split(),
                    env=environment,
                    executable=shutil.which("pf", path=path),
                    cwd=tmp_path,
                    text=True,
                    stderr=subprocess.PIPE,
                )
                continue
            done = subprocess.run(  # noqa: S602 - through a shell, as a reader would type it
                command,
                shell=True,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            printed = [line.split() for line in done.stdout.splitlines()]
            assert done.returncode == (4 if "refused" in expected else 0), (command, done)
            assert [line for line in expected.splitlines() if line.split() not in printed] == [], (command, done)
    finally:
        if worker is not None:
            worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=30)


def _commands(session: str) -> list[tuple[str, str]]:
    """Each ``$ command`` of a console fence with what it prints."""
    commands = []
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        commands.append((command.strip(), output.strip()))
    return commands
