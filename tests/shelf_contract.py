"""What every shelf that outlives its process must do. Run on the model of the simulation and on RocksDB."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Protocol

import pytest

from pf_stream.core import changelog
from pf_stream.engine.depot import LastingShelf, Note

TOPIC = b"t" * 16
PREFIX = changelog.state_prefix("r")

Entries = list[tuple[bytes, bytes | None]]


def state(key: str) -> bytes:
    return changelog.state_key(PREFIX, key.encode())


class Place(Protocol):
    """Where one shelf lies."""

    async def open(self) -> LastingShelf:
        """The shelf."""

    async def close(self) -> None:
        """End the process in good order."""

    def kill(self) -> None:
        """End it otherwise."""


class ShelfContract:
    """Subclasses have a fixture ``place``."""

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def test_a_new_one_holds_nothing(self, place: Place) -> None:
        async def work() -> None:
            shelf = await place.open()
            assert (shelf.note, shelf.position, shelf.get(state("a")), list(shelf.rest())) == (None, 0, None, [])
            await place.close()

        self.run(work())

    def test_it_gives_what_was_put_last(self, place: Place) -> None:
        async def work() -> None:
            shelf = await place.open()
            await shelf.clear(TOPIC)
            shelf.put([(state("a"), b"1"), (state("b"), b"2"), (state("a"), b"3")], 3)
            shelf.put([(state("b"), None), (state("c"), b""), (state("c"), None), (state("d"), b"")], 7)
            assert [shelf.get(state(key)) for key in "abcd"] == [b"3", None, None, b""]
            assert shelf.position == 7
            await place.close()

        self.run(work())

    def test_the_rest_is_all_but_states(self, place: Place) -> None:
        async def work() -> None:
            shelf = await place.open()
            await shelf.clear(TOPIC)
            rest: Entries = [
                (changelog.EVENT_CLOCK, b"e"),
                (changelog.HEADER, b"h"),
                (changelog.mark_key("t", "i"), b"d"),
                (changelog.once_key(b"n", b"k", b"s", b"i"), b"i"),
                (changelog.outbox_key(1, 0), b"o" * 100_000),
                (changelog.SUSPECT, b"p"),
                (changelog.timer_key("r", b"k", b"\xff"), b"t"),
                (changelog.UNIT, b"u"),
                (changelog.watermark_key("r", "t"), b"w"),
            ]
            shelf.put([(state(f"{at}"), b"s") for at in range(100)], 100)
            shelf.put([*rest, (changelog.timer_key("r", b"k", b"gone"), b"t")], 110)
            shelf.put([(changelog.timer_key("r", b"k", b"gone"), None)], 111)
            assert sorted(shelf.rest()) == sorted(rest)
            await place.close()
            assert sorted((await place.open()).rest()) == sorted(rest)
            await place.close()

        self.run(work())

    def test_keys_of_states_are_told_by_their_beginning(self, place: Place) -> None:
        async def work() -> None:
            shelf = await place.open()
            await shelf.clear(TOPIC)
            other = [changelog.state_key(changelog.state_prefix(name), b"a") for name in ("q", "r2", "s")]
            mine = [state(f"{at}") for at in range(300)]
            shelf.put([(key, b"s") for key in [*mine, *other, changelog.UNIT]], 304)
            shelf.put([(mine[7], None), (mine[8], b"t")], 306)
            assert sorted(shelf.keys(PREFIX)) == sorted(set(mine) - {mine[7]})
            shelf.put([(mine[7], b"u"), *((key, None) for key in mine[8:])], 600)
            assert sorted(shelf.keys(PREFIX)) == sorted(mine[:8])
            await place.close()

        self.run(work())

    def test_entries_are_told_in_order_and_are_no_states(self, place: Place) -> None:
        async def work() -> None:
            shelf = await place.open()
            await shelf.clear(TOPIC)
            names = [
                state("a") + changelog.pack_name("f") + changelog.pack_entry_key(at) for at in range(-50, 2_500, 7)
            ]
            near = [state("a") + b"\x02fgs", state("b") + b"\x01fi\x80", state("") + b"\x01fi\x80"]
            shelf.put(
                [(key, b"%d" % at) for at, key in enumerate([*reversed(names), *near, state("a"), state("b")])], 1
            )
            shelf.put([(names[3], None), (names[9], b"new")], 2)
            assert sorted(shelf.keys(PREFIX)) == [state("a"), state("b")]
            start, stop = changelog.entries_range(state("a"))
            del names[3]
            assert [key for key, _ in shelf.entries(start, stop)] == [*names, near[0]]
            assert dict(shelf.entries(start, stop))[names[8]] == b"new"
            assert [key for key, _ in shelf.entries(names[4], names[9])] == names[4:9]
            assert [*shelf.entries(*changelog.entries_range(state("c")))] == []
            await place.close()

        self.run(work())

    def test_a_time_is_noted_with_a_position_that_moves_and_no_other(self, place: Place) -> None:
        async def work() -> None:
            shelf = await place.open()
            await shelf.clear(TOPIC)
            shelf.at_ms = 5
            shelf.put([(state("a"), b"1")], 0)
            assert shelf.position == 0, "it does not hold all of anything yet"
            shelf.put([], 3)
            shelf.at_ms = 9
            shelf.put([(state("a"), b"2")], 3)
            assert shelf.note == Note(TOPIC, 3, 5)
            await place.close()
            shelf = await place.open()
            assert (shelf.note, shelf.get(state("a"))) == (Note(TOPIC, 3, 5), b"2")
            shelf.at_ms = 11
            shelf.put([], 4)
            assert shelf.note == Note(TOPIC, 4, 11)
            await place.close()

        self.run(work())

    def test_a_cleared_one_is_a_new_one(self, place: Place) -> None:
        async def work() -> None:
            shelf = await place.open()
            await shelf.clear(TOPIC)
            shelf.put([(state("a"), b"1"), (changelog.UNIT, b"u")], 2)
            await place.close()
            shelf = await place.open()
            await shelf.clear(b"u" * 16)
            assert (shelf.note, shelf.position, shelf.get(state("a")), list(shelf.rest())) == (None, 0, None, [])
            shelf.put([(state("b"), b"1")], 1)
            await place.close()
            shelf = await place.open()
            assert (shelf.note, shelf.get(state("a"))) == (Note(b"u" * 16, 1, 0), None)
            await place.close()

        self.run(work())

    @pytest.mark.parametrize("seed", range(4))
    def test_after_a_kill_it_is_as_it_was_after_some_put(self, place: Place, seed: int) -> None:
        """Perhaps not after the last one; but never of one put without those before it, nor of half a put."""

        async def work() -> None:
            dice = random.Random(seed)  # noqa: S311 - to be repeated
            keys = [state(f"{at}") for at in range(50)] + [changelog.outbox_key(at, 0) for at in range(20)]
            shelf = await place.open()
            await shelf.clear(TOPIC)
            values: dict[bytes, bytes] = {}
            position = 0
            for life in range(6):
                snapshots = [(position, dict(values))]
                for _ in range(dice.choice([0, 3, 200])):
                    size = dice.choice([1, 30])
                    entries = [(dice.choice(keys), dice.choice([None, dice.randbytes(200)])) for _ in range(size)]
                    position += size
                    shelf.at_ms = position
                    shelf.put(entries, position)
                    for key, value in entries:
                        if value is None:
                            values.pop(key, None)
                        else:
                            values[key] = value
                    snapshots.append((position, dict(values)))
                if life % 3 == 2:
                    await place.close()
                    snapshots = snapshots[-1:]
                else:
                    place.kill()
                shelf = await place.open()
                if shelf.note is None:
                    assert snapshots[0][0] == 0
                    await shelf.clear(TOPIC)
                found = {key: value for key in keys if (value := shelf.get(key)) is not None}
                assert (shelf.position, found) in snapshots
                position, values = shelf.position, found
                assert shelf.note is None or shelf.note.at_ms == position
                assert dict(shelf.rest()) == {key: value for key, value in found.items() if key[1:2] == b"o"}
            await place.close()

        self.run(work())
