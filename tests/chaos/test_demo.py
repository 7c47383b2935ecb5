"""The demonstration, as somebody runs it who has just found this project; with a tenth of the flights."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

DEMO = Path(__file__).parent.parent.parent / "topologies" / "flights" / "demo.py"


def _start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--every", "10", *options],
        # Temporary files go where the test can see what remains of them.
        env={**os.environ, "TMPDIR": str(folder), "KEEP": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_checks_itself_and_leaves_nothing(tmp_path: Path) -> None:
    with _start(tmp_path) as demo:
        output, errors = demo.communicate()
    assert demo.returncode == 0, errors
    assert "check: ok. 3 airports, 16 carriers" in output
    assert "and 1,000 refusals are" in output
    assert errors == ""
    assert all(character == "\n" or character.isprintable() for character in output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["Kafka ", "sent  25 %"])
def test_when_it_is_broken_off_nothing_goes_on(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    with _start(tmp_path) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.strip().startswith(moment):
                break
        started = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        demo.send_signal(number)  # somebody is impatient
        _, errors = demo.communicate()
    assert demo.returncode == 128 + number, errors
    assert errors == "\ninterrupted; nothing is left running\n"
    assert started
    _, alive = psutil.wait_procs(started, timeout=5)
    assert alive == []
    assert list(tmp_path.iterdir()) == []
