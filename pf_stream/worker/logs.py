"""What a process writes to stderr: a worker, or a tool that talks to Kafka."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from structlog.typing import Processor

__all__ = ["LogFormat", "LogLevel", "Rarely", "configure_logging"]

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

QUIET_S: Final = 60.0
"""How long a library is silent about what it has just said."""


@dataclass(slots=True)
class _Said:
    at: float
    since: int = 0
    """How often it was held back since."""


class Rarely(logging.Filter):
    """Lets a message through once, then once a minute with the number of those that were held back.

    While a broker is away, aiokafka says so hundreds of times a second. Messages are alike if they have one template.
    """

    def __init__(self, quiet_s: float = QUIET_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._quiet_s = quiet_s
        self._clock = clock
        self._said: dict[tuple[str, object], _Said] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = record.name, record.msg
        now = self._clock()
        said = self._said.get(key)
        if said is not None and now - said.at < self._quiet_s:
            said.since += 1
            return False
        if said is not None and said.since:
            record.msg = f"{record.msg} (and {said.since} more like it)"
        self._said[key] = _Said(now)
        return True


class _Stderr(logging.Handler):
    """Writes lines of libraries between ours, and never into the middle of one.

    Nor do processes that share a terminal or a file: each line is one write, its end included.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.WriteLogger(sys.stderr).msg(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler does: what cannot be logged must not harm who logs
            self.handleError(record)


def configure_logging(form: LogFormat = "console", level: LogLevel = "info") -> None:
    """Our events as they are, libraries' only from WARNING on and rarely: Faust sets the root logger to DEBUG otherwise.

    All of it has one *form*: text for people, or a JSON object a line. What is bound in the context, such as the lane that is
    at work, is part of each line, whoever wrote it.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The renderers' own choices show local variables, and those hold tokens.
    render: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*common, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),  # as it is then: it may be replaced
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    handler.addFilter(Rarely())
    # The first group of a new cluster waits until its coordinator's topic is made, which aiokafka calls an error.
    handler.addFilter(lambda record: "GroupCoordinatorNotAvailable" not in record.getMessage())
    # An export of state whose lane went elsewhere ends so on purpose.
    handler.addFilter(lambda record: "returned without completing response" not in record.getMessage())
    root = logging.getLogger()
    for earlier in [earlier for earlier in root.handlers if isinstance(earlier, _Stderr)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    for name in (None, "aiokafka", "faust", "mode"):
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    # An export of state whose lane went elsewhere ends so on purpose.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "returned without completing response" not in record.getMessage()
    )
