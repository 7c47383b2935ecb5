"""Byte strings of which many end alike, each kept without its end, and each end once."""

from typing import Final

__all__ = ["NUMBER_BYTES", "Endings"]

NUMBER_BYTES: Final = 4


class Endings:
    """The ends, by the numbers that stand for them."""

    __slots__ = ("_ends", "_free", "_last", "_last_number", "_numbers", "_uses", "count")

    def __init__(self) -> None:
        self.count = 0
        """How many are kept."""
        self._numbers: dict[bytes, int] = {}
        self._ends: list[bytes] = []
        self._uses: list[int] = []
        self._free: list[int] = []
        """Numbers that nothing has any more."""
        self._last: bytes | None = None
        """The end that was asked for last, if it is still there: mostly it is asked for again."""
        self._last_number = 0

    def shorten(self, begin: bytes, end: bytes) -> bytes:
        """*begin* with a number for *end*; :meth:`release` is to be told when it is not needed any more."""
        if end != self._last:
            number = self._numbers.get(end)
            if number is None:
                self.count += 1
                number = self._numbers[end] = self._free.pop() if self._free else len(self._ends)
                if number == len(self._ends):
                    self._ends.append(end)
                    self._uses.append(0)
                else:
                    self._ends[number] = end
            self._last, self._last_number = end, number
        number = self._last_number
        self._uses[number] += 1
        return begin + number.to_bytes(NUMBER_BYTES)

    def whole(self, short: bytes) -> bytes:
        """What was shortened, as it was."""
        return short[:-NUMBER_BYTES] + self.end(short)

    def end(self, short: bytes) -> bytes:
        """The end of what was shortened."""
        return self._ends[_number_of(short)]

    def release(self, short: bytes) -> bytes | None:
        """Forget something that was shortened, and its end with the last that has it; returns the end then."""
        number = _number_of(short)
        self._uses[number] -= 1
        if self._uses[number]:
            return None
        end, self._ends[number] = self._ends[number], b""
        del self._numbers[end]
        self.count -= 1
        self._free.append(number)
        if end == self._last:
            self._last = None
        return end


def _number_of(short: bytes) -> int:
    return int.from_bytes(short[-NUMBER_BYTES:])
