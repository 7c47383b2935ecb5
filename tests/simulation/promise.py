"""What is said when a promise was broken."""

from typing import NoReturn

__all__ = ["BrokenError", "broken", "same"]


class BrokenError(AssertionError):
    """Raised when a promise was broken."""

    def __init__(self, kind: str, what: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {what}")


def same(kind: str, what: str, found: object, expected: object) -> None:
    """Raise :class:`BrokenError` if two things differ."""
    if found != expected:
        broken(kind, f"{what}: {found} instead of {expected}")


def broken(kind: str, what: str) -> NoReturn:
    """Raise :class:`BrokenError`."""
    raise BrokenError(kind, what)
