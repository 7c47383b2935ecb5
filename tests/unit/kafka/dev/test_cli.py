"""``pf dev`` where no broker is needed: help, exit codes, the log, what is said meanwhile."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pf_stream.cli.dev import _Reporter, app
from pf_stream.kafka.dev import Stage, Step

run = CliRunner().invoke


@pytest.mark.parametrize("verb", ["up", "down", "status", "logs", "reset"])
def test_help_has_examples(verb: str) -> None:
    text = run(app, [verb, "--help"]).output
    assert f"pf dev {verb}" in text.split("Examples:")[1]


@pytest.mark.parametrize(("output", "shown"), [("json", '"state": "stopped"'), ("yaml", "state: stopped")])
def test_nothing_started(tmp_path: Path, output: str, shown: str) -> None:
    result = run(app, ["status", "--data-dir", str(tmp_path / "none"), "-o", output])
    assert (result.exit_code, shown in result.stdout) == (3, True)
    assert not (tmp_path / "none").exists()  # looking changes nothing


def test_stale_broker_is_unhealthy_and_tidied(tmp_path: Path) -> None:
    record = '{"pid": 1, "token": "t", "port": 20001, "version": "4.4.0", "started_at": "2026-01-01T00:00:00+00:00"}'
    (tmp_path / "broker.json").write_text(record, encoding="utf-8")
    assert run(app, ["status", "--data-dir", str(tmp_path)]).exit_code == 5
    down = run(app, ["down", "--data-dir", str(tmp_path)])
    assert (down.exit_code, down.stderr) == (0, "the broker had gone already, without being stopped\n")
    assert run(app, ["status", "--data-dir", str(tmp_path)]).exit_code == 3


def test_reset_asks_first(tmp_path: Path) -> None:
    (tmp_path / "broker.log").touch()
    declined = run(app, ["reset", "--data-dir", str(tmp_path)], input="n\n")
    assert declined.exit_code == 1
    assert "Delete all topics and records" in declined.stderr
    assert (tmp_path / "broker.log").exists()
    assert run(app, ["reset", "--data-dir", str(tmp_path)], input="y\n").exit_code == 0
    assert not (tmp_path / "broker.log").exists()


def test_last_lines_of_the_log_are_printed_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "broker.log").write_text("one\n[red]two[/red]\nthree\n", encoding="utf-8")
    assert run(app, ["logs", "-n", "2", "--data-dir", str(tmp_path)]).stdout == "[red]two[/red]\nthree\n"
    assert run(app, ["logs", "-n", "0", "--data-dir", str(tmp_path)]).stdout == ""


@pytest.mark.slow
def test_log_is_followed_into_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    log.write_text("old\nlast\n", encoding="utf-8")
    command = [sys.executable, "-m", "pf_stream", "dev", "logs", "-f", "-n", "1", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "last\n"
        with log.open("a", encoding="utf-8") as more:
            more.write("more\n")
        assert follower.stdout.readline() == "more\n"
        log.rename(tmp_path / "broker.previous.log")
        log.write_text("next start\n", encoding="utf-8")
        assert follower.stdout.readline() == "next start\n"
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=10)
    assert follower.returncode == 130


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with _Reporter() as report:
        for done in range(101):
            report(Step(Stage.downloading, done * 1_000_000, 100_000_000))
        for _ in range(100):
            report(Step(Stage.starting))
    assert capsys.readouterr().err.splitlines() == [
        *(f"downloading Kafka, 100 MB: {percent} %" for percent in (0, 25, 50, 75, 100)),
        "starting Kafka",
    ]
