"""Byte strings of which many end alike, each kept without its end, and each end once."""

__all__ = ["Endings"]

_NUMBER_BYTES = 4


class Endings:
    """The ends, by the numbers that stand for them."""

    __slots__ = ("_ends", "_free", "_numbers", "_uses")

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._ends: list[bytes] = []
        self._uses: list[int] = []
        self._free: list[int] = []
        """Numbers that nothing has any more."""

    def shorten(self, raw: bytes, at: int) -> bytes:
        """*raw* with a number for what it has from *at* on; :meth:`release` is to be told when it is not needed any more."""
        end = raw[at:]
        number = self._numbers.get(end)
        if number is None:
            number = self._numbers[end] = self._free.pop() if self._free else len(self._ends)
            if number == len(self._ends):
                self._ends.append(end)
                self._uses.append(0)
            else:
                self._ends[number] = end
        self._uses[number] += 1
        return raw[:at] + number.to_bytes(_NUMBER_BYTES)

    def whole(self, short: bytes) -> bytes:
        """What was shortened, as it was."""
        return short[:-_NUMBER_BYTES] + self._ends[_number_of(short)]

    def release(self, short: bytes) -> None:
        """Forget something that was shortened, and its end with the last that has it."""
        number = _number_of(short)
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._numbers[self._ends[number]]
            self._ends[number] = b""
            self._free.append(number)

    def __len__(self) -> int:
        """How many ends are kept."""
        return len(self._numbers)


def _number_of(short: bytes) -> int:
    return int.from_bytes(short[-_NUMBER_BYTES:])
