"""The contexts that steps only name: made here, since making one needs randomness."""

import structlog

from pf_stream.clock import Clock
from pf_stream.core.unit import Narrowing
from pf_stream.security.narrowing import Narrower

__all__ = ["ContextMaker"]

log = structlog.get_logger(__name__)


class ContextMaker:
    """Makes the contexts of emitted intents."""

    def __init__(self, narrower: Narrower, clock: Clock) -> None:
        self._narrower = narrower
        self._clock = clock

    def __call__(self, narrowing: Narrowing) -> bytes | None:
        """The token to be sent; ``None`` if the caller's cannot be narrowed, or the service's not signed.

        Then the emitted intent goes without, and is refused where it arrives.
        """
        origin, bounds = narrowing
        if isinstance(origin, bytes):
            made = self._narrower.narrow(origin, bounds)
        else:
            made = self._narrower.sign(origin, bounds, self._clock.now_ms())
        if isinstance(made, bytes):
            return made
        log.warning("emitted without a context", reason=str(made))
        return None
