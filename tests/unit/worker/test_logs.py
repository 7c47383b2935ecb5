"""What a worker writes to stderr, as text and as JSON: its own events, libraries' lines, and nothing secret."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from pf_stream.worker.logs import LogFormat, Rarely, configure_logging


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    for name in (None, "aiokafka", "faust", "mode"):
        logging.getLogger(name).setLevel(level if name is None else logging.NOTSET)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    log = structlog.get_logger()
    log.info("lane open", lane="<lane a-0>", recovered=3, position={"t": 1}, odd=b"\xff", text="a\nb")
    logging.getLogger("aiokafka.cluster").warning("Topic %s is not available", "t")
    try:
        raise ValueError("no reason")
    except ValueError:
        log.exception("crashed")
        logging.getLogger("faust").exception("crashed too")
    ours, theirs, crashed, crashed_too = lines(capsys)
    assert {**ours, "timestamp": ""} == {
        "event": "lane open",
        "level": "info",
        "timestamp": "",
        "lane": "<lane a-0>",
        "recovered": 3,
        "position": {"t": 1},
        "odd": repr(b"\xff"),
        "text": "a\nb",
    }
    assert {**theirs, "timestamp": ""} == {
        "event": "Topic t is not available",
        "level": "warning",
        "logger": "aiokafka.cluster",
        "timestamp": "",
    }
    assert ours["timestamp"].endswith("Z")
    for one in (crashed, crashed_too):
        assert "ValueError: no reason" in one["exception"]
        assert one["level"] == "error"


def test_text_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    structlog.get_logger().info("lane open", recovered=3)
    logging.getLogger("aiokafka.cluster").warning("Topic %s is not available", "t")
    ours, theirs = capsys.readouterr().err.splitlines()
    assert "[info     ] lane open" in ours
    assert "recovered=3" in ours
    assert "[warning  ] Topic t is not available" in theirs
    assert "[aiokafka.cluster]" in theirs


def test_what_is_bound_is_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    structlog.contextvars.bind_contextvars(lane="<lane a-0>", topic="t")
    structlog.get_logger().info("one")
    structlog.get_logger().info("two", lane="<lane b-1>")
    logging.getLogger("a.handler.s").error("three")
    one, two, three = lines(capsys)
    assert (one["lane"], two["lane"], three["lane"]) == ("<lane a-0>", "<lane b-1>", "<lane a-0>")
    assert one["topic"] == three["topic"] == "t"


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["ours debug", "ours info", "ours warning", "theirs warning", "theirs error"]),
        ("info", ["ours info", "ours warning", "theirs warning", "theirs error"]),
        ("error", ["theirs error"]),
    ],
)
def test_levels(capsys: pytest.CaptureFixture[str], level: Any, heard: list[str]) -> None:
    configure_logging("json", level)
    for each in ("debug", "info", "warning"):
        getattr(structlog.get_logger(), each)(f"ours {each}")
    for each in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("aiokafka"), each)(f"theirs {each}")
    assert [line["event"] for line in lines(capsys)] == heard


def test_the_last_word_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """A command configures logging before it knows how; nothing is said twice."""
    configure_logging()
    configure_logging("json")
    logging.getLogger("aiokafka").warning("once")
    assert [line["event"] for line in lines(capsys)] == ["once"]


def test_a_new_cluster_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("aiokafka.consumer.group_coordinator").error("GroupCoordinatorNotAvailableError: wait")
    assert capsys.readouterr().err == ""


def test_a_library_that_repeats_itself_is_counted() -> None:
    now = 0.0
    rarely = Rarely(60, lambda: now)

    def said() -> str | None:
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "no broker %d", (7,), None)
        return record.getMessage() if rarely.filter(record) else None

    assert [said(), said(), said()] == ["no broker 7", None, None]
    now = 61.0
    assert said() == "no broker 7 (and 2 more like it)"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_local_variables(form: str) -> None:
    """They hold headers, and those hold tokens."""
    program = f"""
import logging, structlog
from pf_stream.worker.logs import configure_logging
configure_logging({form!r})
def step(token):
    raise ValueError("no reason")
for log in (structlog.get_logger(), logging.getLogger("aiokafka")):
    try:
        step("a-secret-" + "token")
    except ValueError:
        log.exception("crashed")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.count("ValueError: no reason") == 2
    assert "a-secret-token" not in done.stderr


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_is_one_write_since_other_processes_write_there_too(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []

    class Stderr(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Stderr())
    configure_logging(form)
    structlog.get_logger().warning("ours")
    logging.getLogger("aiokafka").warning("theirs")
    assert len(writes) == 2
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in writes)
