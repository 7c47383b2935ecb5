"""Periods as they are written in declarations."""

import re
from typing import Final

__all__ = ["period_ms"]

_period: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])").fullmatch
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def period_ms(text: str) -> int | None:
    """Milliseconds of a number and a unit, such as ``30s``, ``10m``, ``24h`` or ``7d``; ``None`` if it is no such text."""
    match = _period(text)
    return None if match is None else int(match[1]) * _UNIT_MS[match[2]]
