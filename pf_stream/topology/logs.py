"""What a process writes to stderr: a worker, or a tool that talks to Kafka."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

__all__ = ["Rarely", "configure_logging"]

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


def configure_logging() -> None:
    """Our events as they are, libraries' only from WARNING on and rarely: Faust sets the root logger to DEBUG otherwise."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # The renderer's own choice shows local variables, and those hold tokens.
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # as it is then: it may be replaced
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s")
    rarely = Rarely()
    for handler in logging.getLogger().handlers:
        handler.addFilter(rarely)
    for name in ("aiokafka", "faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The first group of a new cluster waits until its coordinator's topic is made, which aiokafka calls an error.
    logging.getLogger("aiokafka.consumer.group_coordinator").addFilter(
        lambda record: "GroupCoordinatorNotAvailable" not in record.getMessage()
    )
    # An export of state whose lane went elsewhere ends so on purpose.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "returned without completing response" not in record.getMessage()
    )
