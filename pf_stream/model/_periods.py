"""Periods as they are written: in declarations, and for tools."""

import re
from typing import Final

__all__ = ["duration_ms", "period_ms", "period_text"]

_period: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])").fullmatch
_duration: Final = re.compile(r"([0-9]{1,9})(ms|[smhd])").fullmatch
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def period_ms(text: str) -> int | None:
    """Milliseconds of a number and a unit, such as ``30s``, ``10m``, ``24h`` or ``7d``; ``None`` if it is no such text."""
    match = _period(text)
    return None if match is None else int(match[1]) * _UNIT_MS[match[2]]


def duration_ms(text: str) -> int | None:
    """Milliseconds of what a tool is told: as :func:`period_ms`, and ``500ms`` or ``0s`` too."""
    match = _duration(text)
    return None if match is None else int(match[1]) * _UNIT_MS[match[2]]


def period_text(ms: int) -> str:
    """How a period of *ms*, whole seconds, is written."""
    unit = next(unit for unit in "dhms" if ms % _UNIT_MS[unit] == 0)
    return f"{ms // _UNIT_MS[unit]}{unit}"
