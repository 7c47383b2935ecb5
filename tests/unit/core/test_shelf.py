"""What a lane puts on its shelf and takes from there, and how many objects it keeps beside it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.core import Lane, changelog, store
from pf_stream.core.shelf import MemoryShelf
from tests.unit.core.kit import NOW_MS, Bench, Box, Boxes, Put, boxes, record

PREFIX = changelog.state_prefix("boxes")


def key_of(box: str) -> bytes:
    return changelog.state_key(PREFIX, box.encode())


class WholeShelf:
    """Holds everything, as one on disk does, and remembers what it was asked for."""

    def __init__(self, entries: Iterable[tuple[bytes, bytes | None]] = (), position: int = 0) -> None:
        self.values = {key: value for key, value in entries if value is not None}
        self.position = position
        self.asked: list[bytes] = []

    def get(self, key: bytes, /) -> bytes | None:
        self.asked.append(key)
        return self.values.get(key)

    def put(self, entries: Sequence[tuple[bytes, bytes | None]], position: int, /) -> None:
        for key, value in entries:
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self.position = position

    def keys(self, prefix: bytes, /) -> Iterator[bytes]:
        return iter([key for key in self.values if key.startswith(prefix)])

    def entries(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, self.values[key]) for key in sorted(self.values) if start <= key < stop])

    def rest(self) -> Iterable[tuple[bytes, bytes]]:
        return [(key, value) for key, value in self.values.items() if key[1:2] != b"s"]


class TestMemory:
    def test_it_keeps_what_may_be_asked_for(self) -> None:
        shelf = MemoryShelf([PREFIX])
        other = changelog.state_key(changelog.state_prefix("boxes2"), b"a")
        shelf.put([(key_of("a"), b"1"), (key_of("b"), b"2"), (other, b"3"), (changelog.UNIT, b"4")], 9)
        shelf.put([(key_of("a"), b"5"), (key_of("b"), None), (key_of("c"), None)], 12)
        assert [shelf.get(key) for key in (key_of("a"), key_of("b"), key_of("c"), other)] == [b"5", None, None, None]
        assert (shelf.position, [*shelf.rest()]) == (0, []), "so a recovery reads all of the changelog"

    def test_each_key_is_told_once_while_others_come_and_go(self) -> None:
        shelf = MemoryShelf([PREFIX, changelog.state_prefix("other")])
        shelf.put([(key_of(name), b"1") for name in "abc"], 3)
        shelf.put([(key_of("b"), None), (key_of("d"), None)], 5)
        walk = shelf.keys(PREFIX)
        assert next(walk) == key_of("a")
        shelf.put([(key_of("e"), b"1"), (key_of("c"), b"2")], 7)
        assert list(walk) == [key_of("c")]
        shelf.put([(key_of("b"), b"3")], 8)
        assert sorted(shelf.keys(PREFIX)) == [key_of(name) for name in "abce"]
        assert list(shelf.keys(changelog.state_prefix("other"))) == []

    def test_keys_that_were_removed_take_no_memory(self) -> None:
        """As those of windows, which come and go for ever."""
        shelf = MemoryShelf([PREFIX])
        sizes = []
        for start in range(0, 20_000, 100):
            shelf.put([(key_of(f"{at}"), b"1") for at in range(start, start + 100)], 0)
            shelf.put([(key_of(f"{at}"), None) for at in range(start - 1_000, start - 900)], 0)
            keys = shelf._keys[PREFIX]
            sizes.append(len(keys._old) + len(keys._moved) + len(keys._gone) + len(shelf._values))
        assert max(sizes) < 4_000
        shelf.put([(key, None) for key in [*shelf.keys(PREFIX)]], 0)
        assert len(keys._old) + len(keys._moved) + len(keys._gone) < 20

    @given(st.data())
    @settings(max_examples=200)
    def test_any_walks_see_what_stays(self, data: st.DataObject) -> None:
        """Whatever is put between two steps of it: each key at most once, and once if it was there all the time."""
        shelf = MemoryShelf([PREFIX])
        there: set[bytes] = set()
        walks: list[tuple[Iterator[bytes], set[bytes], list[bytes]]] = []
        for _ in range(data.draw(st.integers(1, 25))):
            match data.draw(st.sampled_from(["put", "put", "remove", "walk", "go on"])):
                case "put":
                    keys = {key_of(str(at)) for at in data.draw(st.sets(st.integers(0, 30)))}
                    shelf.put([(key, b"1") for key in sorted(keys)], 0)
                    there |= keys
                case "remove":
                    keys = {key_of(str(at)) for at in data.draw(st.sets(st.integers(0, 30)))}
                    shelf.put([(key, None) for key in sorted(keys)], 0)
                    there -= keys
                    for _, stayed, _ in walks:
                        stayed.difference_update(keys)
                case "walk":
                    walks.append((shelf.keys(PREFIX), set(there), []))
                case _:
                    for walk, _, seen in walks:
                        seen.extend(islice(walk, data.draw(st.integers(0, 9))))
        for walk, stayed, seen in walks:
            seen.extend(walk)
            assert len(seen) == len(set(seen))
            assert stayed <= set(seen)
        assert sorted(shelf.keys(PREFIX)) == sorted(there)

    @pytest.mark.parametrize("part", [4, 1_000])
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=150), st.integers(0, 60), st.integers(0, 60))
    @settings(max_examples=100)
    def test_entries_are_in_order(self, part: int, course: list[tuple[bool, int]], start: int, stop: int) -> None:
        there: dict[bytes, bytes] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pf_stream.core.shelf._PART", part)
            shelf = MemoryShelf([PREFIX])
            for put, at in course:
                key = key_of("b") + b"\x01f%02d" % at
                shelf.put([(key, b"1" if put else None)], 0)
                there.pop(key, None)
                if put:
                    there[key] = b"1"
            low, high = (key_of("b") + b"\x01f%02d" % at for at in (start, stop))
            assert [*shelf.entries(low, high)] == [item for item in sorted(there.items()) if low <= item[0] < high]
            assert list(shelf.keys(PREFIX)) == []
            assert bool(shelf._entries) is bool(there), "a state without entries takes no memory"


class TestAcknowledged:
    def test_a_unit_is_on_the_shelf_when_it_is_acknowledged_and_not_before(self) -> None:
        bench = Bench()
        bench.feed(record(0, Put(box="b", item="x")))
        unit = bench.lane.seal()
        assert bench.lane.shelf.get(key_of("b")) is None
        assert bench.state(Box, "boxes", "b") is None
        bench.feed(record(1, Put(box="b", item="y")))
        bench.lane.acknowledged()
        assert bench.lane.shelf.get(key_of("b")) == dict(unit.entries)[key_of("b")]  # type: ignore[union-attr]
        assert bench.state(Box, "boxes", "b") == Box(items=["x"], weight=1), "what is open is not to be seen"

    def test_everything_of_it_is_put_with_the_position_behind_it(self) -> None:
        bench = Bench()
        shelf = bench.lane.shelf = WholeShelf()
        bench.feed(record(0, Put(box="b", item="x")))
        unit = bench.lane.seal()
        outbox = [(changelog.outbox_key(1, 0), b"output")]
        bench.lane.acknowledged(7, outbox)
        assert shelf.position == 7
        assert shelf.values == dict([*unit.entries, *outbox])  # type: ignore[union-attr]
        shelf.values.clear()
        bench.lane.acknowledged(8)
        assert (shelf.position, shelf.values) == (8, {}), "once"


class TestWarm:
    """A lane on a shelf that holds the beginning of its changelog."""

    def test_it_goes_on_as_if_it_had_read_the_whole(self) -> None:
        bench = Bench()
        for at in range(6):
            bench.commit_all(record(at, Put(box=f"b{at % 2}", item=str(at))))
        cold = Bench(changelog=bench.changelog)
        for cut in range(len(bench.changelog) + 1):
            warm = Lane(bench.plan, 0, bench.authority, bench.lane.limits, shelf=WholeShelf(bench.changelog[:cut]))
            warm.restore(bench.changelog[cut:])
            assert warm.begin("another") == cold.positions
            assert (warm.incarnation, warm.sequence) == (bench.lane.incarnation, bench.lane.sequence)
            assert warm.stored("boxes", b"b1") == bench.lane.stored("boxes", b"b1")
            warm.step("box.intents", [record(6, Put(box="b0", item="6"))], NOW_MS)
            unit = warm.seal()
            assert (key_of("b0"), warm.stores[0].live[b"b0"].raw) in unit.entries  # type: ignore[union-attr]
            assert warm.stores[0].live[b"b0"].state == Box(items=["0", "2", "4", "6"], weight=4)

    def test_what_it_holds_may_be_read_again(self) -> None:
        bench = Bench()
        for at in range(6):
            bench.commit_all(record(at, Put(box=f"b{at % 2}", item=str(at))))
        cold = Bench(changelog=bench.changelog)
        for again in range(len(bench.changelog) + 1):
            shelf = WholeShelf(bench.changelog)
            warm = Lane(bench.plan, 0, bench.authority, bench.lane.limits, shelf=shelf)
            warm.restore(bench.changelog[again:])
            assert warm.begin("another") == cold.positions
            assert shelf.values == WholeShelf(bench.changelog).values

    def test_lives_that_committed_nothing_are_counted_by_the_next(self) -> None:
        """So the shelf's position does not pass their fences, or what ends every worker would never be found."""
        bench = Bench()
        bench.commit_all(record(0, Put(box="b")))
        shelf = WholeShelf()
        Lane(bench.plan, 0, bench.authority, bench.lane.limits, shelf=shelf).restore(bench.changelog)
        assert shelf.position == 0, "more may lie behind it"
        lane = Lane(bench.plan, 0, bench.authority, bench.lane.limits, shelf=shelf)
        lane.restored(len(bench.changelog))
        records = [*bench.changelog, (changelog.FENCE, b"{}")]
        end = len(records)
        for life in range(3):
            lane = Lane(bench.plan, 0, bench.authority, bench.lane.limits, shelf=shelf)
            lane.restore(records[shelf.position :])
            lane.restored(end)
            assert lane.suspects.idle_opens == life + 1
            assert shelf.position == len(bench.changelog)
            lane.begin("another")
            records.append((changelog.FENCE, b"{}"))
            end += 1
        assert lane.suspects.careful
        unit = lane.seal()
        lane.acknowledged(end + len(unit.entries))  # type: ignore[union-attr]
        assert shelf.position == end + len(unit.entries)  # type: ignore[union-attr]


class TestObjects:
    @pytest.fixture
    def bench(self, monkeypatch: pytest.MonkeyPatch) -> Bench:
        """A lane that keeps two objects of each reactor, four at times."""
        monkeypatch.setattr(store, "_LIVE", 0)
        monkeypatch.setattr(store, "_LIVE_IN_LANE", 2)
        bench = Bench(boxes)
        bench.lane.shelf = shelf = WholeShelf()
        for one in bench.lane.stores:
            one._shelf = shelf
        return bench

    def count(self, bench: Bench, *names: str) -> None:
        start = bench.lane.positions["box.intents"]
        bench.commit_all(*(record(start + at, Put(box=name, item="x")) for at, name in enumerate(names)))

    def objects(self, bench: Bench) -> list[set[bytes]]:
        kept = bench.lane.stores[0]
        return [set(kept.live), set(kept._idle)]

    def test_there_are_never_many(self, bench: Bench) -> None:
        for at in range(50):
            self.count(bench, f"b{at}")
            assert sum(map(len, self.objects(bench))) <= 2 * 3
        assert all(bench.state(Box, "boxes", f"b{at}") == Box(items=["x"], weight=1) for at in range(50))

    def test_those_in_use_stay(self, bench: Bench) -> None:
        shelf = bench.lane.shelf
        assert isinstance(shelf, WholeShelf)
        for at in range(20):
            self.count(bench, "often", f"b{at}")
        assert shelf.asked.count(key_of("often")) == 1, "as long as it was new"
        assert bench.state(Box, "boxes", "often") == Box(items=["x"] * 20, weight=20)

    def test_one_that_is_open_outlives_the_acknowledgement_before_it(self, bench: Bench) -> None:
        """As under load, when a unit is filled while the one before it is appended."""
        offset = 0
        for _ in range(10):
            bench.feed(record(offset, Put(box="open", item="x")))
            for at in range(3):
                bench.feed(record(offset + at + 1, Put(box=f"b{offset + at}", item="x")))
            bench.lane.acknowledged()
            offset += 4
            unit = bench.lane.seal()
            bench.changelog.extend(unit.entries)  # type: ignore[union-attr]
        bench.lane.acknowledged()
        again = Bench(boxes, changelog=bench.changelog)
        assert again.state(Box, "boxes", "open") == Box(items=["x"] * 10, weight=10)

    def test_one_that_is_open_and_idle_is_taken_back_too(self, bench: Bench) -> None:
        bench.feed(*(record(at, Put(box=name, item="x")) for at, name in enumerate("abc")))
        bench.lane.seal()
        bench.feed(record(3, Put(box="d", item="x")), record(4, Put(box="e", item="y", act="wrong type")))
        bench.lane.acknowledged()
        assert self.objects(bench) == [set(), set(map(str.encode, "abcde"))]
        bench.lane.seal()
        assert self.objects(bench) == [set(), {b"a", b"b", b"c"}]
        bench.commit_all(record(3, Put(box="d", item="x")), record(4, Put(box="e", item="y", act="wrong type")))
        assert bench.state(Box, "boxes", "d") == Box(items=["x"], weight=1)

    def test_a_unit_that_is_taken_back_leaves_no_object_of_it(self, bench: Bench) -> None:
        self.count(bench, "a", "b", "c")
        assert self.objects(bench)[1] == {b"a", b"b", b"c"}
        bench.feed(record(3, Put(box="a", item="y", act="wrong type")), record(4, Put(box="d", item="y")))
        bench.lane.seal()
        assert self.objects(bench) == [set(), {b"b", b"c"}]
        bench.commit_all(record(3, Put(box="a", item="y", act="wrong type")), record(4, Put(box="d", item="y")))
        assert bench.state(Box, "boxes", "a") == Box(items=["x"], weight=1)
        assert bench.state(Box, "boxes", "d") == Box(items=["y"], weight=1)

    def test_lanes_share_what_may_be_kept(self) -> None:
        plan = Bench(boxes).plan.reactors[0]
        assert store.Store(plan, MemoryShelf([]), 4)._most == store._LIVE // 4
        assert store.Store(plan, MemoryShelf([]), 10_000)._most == store._LIVE_IN_LANE
        assert Boxes.__reactor__ is plan.spec
