"""The demonstration, as somebody runs it who has just found this project; with every 52nd of the flights."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nyc.data import Report
from nyc.producer import Sender, intents

DEMO = Path(__file__).parent.parent.parent / "topologies" / "flights" / "demo.py"
UNEXPECTED = Report(
    type="flights.departed.v1",
    key="N00001",
    carrier="UA",
    time="2013-01-01T23:00:00Z",  # too late to count for its hour, and no event clock moves
    payload=b'{"tailnum":"N00001","carrier":"UA","origin":"EWR","flight":1,"dest":"IAH"}',
)


def _start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--every", "52", *options],  # one of few with which all airlines fly
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
    assert " alerts and 1,000 refusals are " in " ".join(output.split())
    assert errors == ""
    assert all(character == "\n" or character.isprintable() for character in output)
    assert list(tmp_path.iterdir()) == []


def test_it_fails_if_a_flight_is_counted_that_is_not_in_the_file(tmp_path: Path) -> None:
    with _start(tmp_path) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.strip().startswith("Kafka "):
                servers = line.split()[3]
            if line.strip().startswith("decided  25 %"):  # what was sent before it is before it in Kafka too
                break
        (context,) = tmp_path.glob("pf-demo-*/UA.ctx")
        sender = Sender(servers, "flights.intents")
        for intent in intents([UNEXPECTED], {"UA": context.read_text().strip()}):
            sender.send(intent)
        assert sender.flush(30)
        output, errors = demo.communicate()
    assert demo.returncode == 1, errors
    assert "check: FAILED, 3 differences" in output
    for known in ("airport EWR", "carrier UA", "aircraft N00001: (0, 1, 0.0, 0.0) instead of None"):
        assert known in output
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
