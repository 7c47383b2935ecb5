"""Long walks on the event loop: how much of it they take, and that nothing is left out."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import pytest

from pf_stream.worker import _turns
from pf_stream.worker._turns import SLICE_S, WALKS, BrokenOffError, Turns

T = TypeVar("T")


class Timed:
    """A loop whose clock stands still but for what is taken: a quarter of a slice each time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turn = 0
        self.taken: Counter[tuple[int, int]] = Counter()
        """By turn of the loop and walk."""
        asyncio.get_running_loop().time = lambda: self.now  # type: ignore[method-assign]
        self._counting = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    def taker(self, walk: int) -> Callable[[int], int]:
        def take(number: int) -> int:
            self.now += SLICE_S / 4
            self.taken[self.turn, walk] += 1
            return number

        return take

    def end(self) -> None:
        self._counting.cancel()


async def all_of(walk: AsyncGenerator[list[T], None]) -> list[T]:
    found = []
    async for piece in walk:
        assert piece
        found += piece
    return found


def forever() -> bool:
    return True


def test_nothing_is_left_out() -> None:
    def even(number: int) -> int | None:
        return None if number % 2 else number

    assert asyncio.run(all_of(Turns().walk(iter(range(100_000)), even, forever))) == list(range(0, 100_000, 2))
    assert asyncio.run(all_of(Turns().walk(iter(()), even, forever))) == []


def test_the_loop_turns_after_each_slice_and_several_take_no_more_than_one() -> None:
    async def work() -> Counter[tuple[int, int]]:
        turns, timed = Turns(), Timed()
        walks = [turns.walk(iter(range(100)), timed.taker(number), forever) for number in range(WALKS)]
        found = await asyncio.gather(*map(all_of, walks))
        assert found == [list(range(100))] * WALKS
        timed.end()
        return timed.taken

    taken = asyncio.run(work())
    assert max(taken.values()) == 5  # the last one is begun within the slice
    assert len({turn for turn, _ in taken}) == len(taken), "two walked in one turn"
    by_turn = [walk for _, walk in sorted(taken)]
    assert by_turn[: 2 * WALKS] == [*range(WALKS)] * 2, "they do not take turns"


def test_one_that_waits_for_its_reader_holds_up_nobody() -> None:
    async def work() -> list[int]:
        turns, timed = Turns(), Timed()
        stalled = turns.walk(iter(range(1000)), timed.taker(0), forever)
        await anext(stalled)
        found = await all_of(turns.walk(iter(range(3)), timed.taker(1), forever))
        await stalled.aclose()
        timed.end()
        return found

    assert asyncio.run(work()) == [0, 1, 2]


def test_what_is_no_longer_there_breaks_off() -> None:
    async def work() -> int:
        turns, timed = Turns(), Timed()
        there = iter([True, True, False])
        with pytest.raises(BrokenOffError):
            await all_of(turns.walk(iter(range(1000)), timed.taker(0), lambda: next(there)))
        assert not turns.taken
        timed.end()
        return timed.taken.total()

    assert asyncio.run(work()) == 10


def test_so_many_walk_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_turns, "WALKS", 2)

    async def work() -> None:
        turns, timed = Turns(), Timed()
        walks = [turns.walk(iter(range(1000)), timed.taker(number), forever) for number in range(2)]
        assert not turns.taken
        for walk in walks:
            await anext(walk)
        full = turns.taken
        await walks[0].aclose()
        assert (full, turns.taken) == (True, False)
        await walks[1].aclose()
        timed.end()

    asyncio.run(work())
