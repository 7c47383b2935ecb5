"""A lane is what its changelog says, and what it cannot understand it does not touch."""

from typing import Annotated

import orjson
import pytest

from pf_stream import PUBLIC, Context, Intent, Key, Reactor, State, Topology, on
from pf_stream.core import Lane, StateUndecodableError, changelog
from pf_stream.streams import count, pipeline, stream, tumbling
from pf_stream.testing import Action, Driver
from tests.unit.core.kit import (
    TOKEN,
    Bench,
    Box,
    BoxCap,
    Boxes,
    Moved,
    Ping,
    Put,
    Room,
    Rooms,
    Watch,
    Watched,
    boxes,
    event,
    record,
)

WITHOUT_WATCH = Topology("box", [Boxes, Rooms], internal=["moves"], replies=boxes.replies, retired=["watch"])


class Step(Intent, name="walk.step", requires=PUBLIC):
    """One step."""

    walker: Annotated[str, Key]


class StepsCounted(Intent, name="walk.counted", topic="counted", requires=PUBLIC):
    """What a window counted."""

    walker: Annotated[str, Key]


def walk(version: int = 1, *, counts_text: bool = False) -> Topology:
    """A topology whose state class has been through changes."""

    class Walked(State, version=version):
        steps: int = 0

    class WalkedText(State, version=version):
        steps: str = ""

    if counts_text:

        class Texts(Reactor[WalkedText], id="walks"):
            @on
            def step(self, intent: Step, state: WalkedText, ctx: Context) -> None:
                state.steps += "."

        return Topology("walk", [Texts])

    class Walks(Reactor[Walked], id="walks"):
        @on
        def step(self, intent: Step, state: Walked, ctx: Context) -> None:
            state.steps += 1

    return Topology("walk", [Walks])


def walked() -> Bench:
    bench = Bench(walk())
    bench.commit_all(*(record(at, Step(walker="w"), None) for at in range(3)), topic="walk.intents")
    return bench


class TestUndecodable:
    def check(self, bench: Bench, reason: str) -> None:
        with pytest.raises(StateUndecodableError) as caught:
            bench.feed(record(3, Step(walker="w"), None), topic="walk.intents")
        assert (caught.value.reactor, caught.value.key, caught.value.code) == ("walks", b"w", "state_undecodable")
        assert reason in str(caught.value)

    def test_another_version_of_the_state(self) -> None:
        self.check(
            Bench(walk(2), changelog=walked().changelog),
            "state of reactor 'walks' under key b'w' cannot be decoded: it has version 1, and Walked, version 2, has no step "
            "from there: add @upgrade(from_version=1)",
        )

    def test_another_format(self) -> None:
        bench = Bench(
            walk(),
            changelog=[
                (key, b"\x02" + value[1:] if value and key[1:2] == b"s" else value) for key, value in walked().changelog
            ],
        )
        self.check(bench, "it has format 2, and this worker reads format 1")

    def test_another_shape(self) -> None:
        self.check(Bench(walk(counts_text=True), changelog=walked().changelog), "Input should be a valid string")

    @pytest.mark.parametrize("value", [b"", b"\x01", b"\x01\x00\x01", b"\x01\x00\x01{", b"\x01\x00\x01[]"])
    def test_garbage(self, value: bytes) -> None:
        key = changelog.state_key(changelog.state_prefix("walks"), b"w")
        self.check(Bench(walk(), changelog=[*walked().changelog, (key, value)]), "cannot be decoded: ")

    @pytest.mark.parametrize("garbage", [b"?", b"\x01\x00\x01[]"])
    def test_the_state_of_a_window(self, garbage: bytes) -> None:
        steps = stream(Step).by_key().window(tumbling("1m")).aggregate(count())
        counted = Topology(
            "walk", [], parts=[pipeline("counted", steps.emit(lambda one: StepsCounted(walker=one.key), StepsCounted))]
        )
        bench = Bench(counted, counted.groups[0].name)
        bench.commit_all(record(0, Step(walker="w"), None), topic="walk.intents")
        broken = [(key, garbage if value and key[1:2] == b"s" else value) for key, value in bench.changelog]
        assert broken != bench.changelog
        bench = Bench(counted, counted.groups[0].name, changelog=broken)
        bench.feed(record(1, Step(walker="v"), None), topic="walk.intents")
        with pytest.raises(StateUndecodableError) as caught:
            bench.feed(record(2, Step(walker="w"), None), topic="walk.intents")
        assert caught.value.key == b"w"
        assert "cannot be decoded" in str(caught.value)

    def test_other_keys_do_not_notice_until_it_is_used(self) -> None:
        key = changelog.state_key(changelog.state_prefix("walks"), b"w")
        bench = Bench(walk(), changelog=[*walked().changelog, (key, b"?")])
        bench.feed(record(3, Step(walker="v"), None), topic="walk.intents")
        assert bench.commit().count == 1


def test_where_reading_goes_on() -> None:
    assert Bench(walk()).positions == {"walk.intents": None, "walk.intents.rerouted": None}
    bench = walked()
    assert bench.lane.positions == {"walk.intents": 3, "walk.intents.rerouted": 0}
    again = Bench(walk(), changelog=bench.changelog)
    assert again.positions == {"walk.intents": 3, "walk.intents.rerouted": None}
    again.feed(*(record(at, Step(walker="w"), None) for at in range(4)), topic="walk.intents")
    assert again.commit().count == 1, "what lies below the watermark is passed over"


def test_the_topics_id_is_kept_beside_the_watermark() -> None:
    bench = Bench(walk())
    bench.lane.start_at("walk.intents", 5, b"i" * 16)
    bench.feed(record(5, Step(walker="w"), None), topic="walk.intents")
    again = Bench(walk(), changelog=bench.commit().entries)
    assert again.positions["walk.intents"] == 6
    assert again.lane.sources["walk.intents"].topic_id == b"i" * 16


def test_a_lane_keeps_its_name_for_ever() -> None:
    bench = walked()
    assert bench.lane.incarnation == "life1"
    lane = Lane(bench.plan, 0, bench.authority, bench.lane.limits)
    lane.restore(bench.changelog)
    lane.begin("another")
    assert lane.incarnation == "life1"
    assert lane.sequence == bench.lane.sequence


def test_the_header_says_what_the_changelog_is() -> None:
    headers = [orjson.loads(value or b"") for key, value in walked().changelog if key == changelog.HEADER]
    assert headers == [
        {
            "format": 1,
            "topology": "walk",
            "version": 1,
            "partitions": 1,
            "incarnation": "life1",
            "reactors": {"walks": 1},
        }
    ], "and is written once"


def test_what_is_not_known_is_passed_over() -> None:
    """Fences, and reactors and topics of another version of the topology."""
    strange: list[tuple[bytes, bytes | None]] = [
        (changelog.FENCE, b"{}"),
        (changelog.state_key(changelog.state_prefix("gone"), b"k"), b"?"),
        (changelog.watermark_key("gone", "gone"), changelog.WATERMARK_VALUE.pack(7, bytes(16))),
        (changelog.mark_key("gone", "life9"), changelog.MARK_VALUE.pack(1, 1)),
        (b"\x01z", b"?"),
    ]
    bench = Bench(walk(), changelog=[*strange, *walked().changelog, *strange])
    assert bench.lane.positions == {"walk.intents": 3, "walk.intents.rerouted": 0}


def test_a_state_that_was_deleted_is_gone() -> None:
    bench = walked()
    key = changelog.state_key(changelog.state_prefix("walks"), b"w")
    again = Bench(walk(), changelog=[*bench.changelog, (key, None)])
    assert again.lane.stored("walks", b"w") is None


class TestOutbox:
    def test_what_is_not_marked_is_sent_again(self) -> None:
        entry = b"\x01b\x01t\x00\x00\x00\x03"
        rows: list[tuple[bytes, bytes | None]] = [
            (changelog.outbox_key(4, 0), entry + b"sent"),
            (changelog.outbox_key(5, 0), entry + b"a"),
            (changelog.outbox_key(5, 1), entry + b"b"),
            (changelog.outbox_key(6, 1), entry + b"d"),
            (changelog.outbox_key(6, 0), entry + b"c"),
            (changelog.UNIT, changelog.UNIT_VALUE.pack(6, 4)),
            (changelog.outbox_key(5, 1), None),
        ]
        bench = Bench(walk(), changelog=rows)
        found = [
            (sequence, [(index, getattr(one, "batch", None)) for index, one in entries.items()])
            for sequence, entries in bench.lane.unsent()
        ]
        assert found == [(5, [(0, b"a")]), (6, [(0, b"c"), (1, b"d")])]
        assert not has_marks(bench)
        bench.lane.sent(5, [0])
        assert has_marks(bench)
        assert [(sequence, [*entries]) for sequence, entries in bench.lane.unsent()] == [(6, [0, 1])]
        unit = bench.commit()
        assert [key for key, value in unit.entries if value is None] == [
            changelog.outbox_key(4, 0),
            changelog.outbox_key(5, 0),
        ]
        assert (changelog.UNIT, changelog.UNIT_VALUE.pack(7, 5)) in unit.entries
        assert not has_marks(bench)


def has_marks(bench: Bench) -> bool:
    return bench.lane.has_marks


@pytest.mark.parametrize("seed", range(5))
class TestNewReactor:
    """A reactor that joins a group reads from the start; the others must not notice."""

    def test_it_catches_up_and_nothing_happens_twice(self, seed: int) -> None:
        driver = Driver(WITHOUT_WATCH, seed=seed)
        token = driver.context(BoxCap.put("/**"), subject="ann")
        for number in range(20):
            driver.send(Put(box=f"b{number % 3}", item=str(number)), token, reply_to="replies")
        before = [driver.state(Boxes, f"b{number}") for number in range(3)]
        moves = len(driver.outputs("moves"))
        driver.redeploy(boxes)
        assert [driver.state(Boxes, f"b{number}") for number in range(3)] == before
        assert driver.state(Watch, "b1") == Watched(items=[str(n) for n in range(1, 20, 3)], writers=["ann"] * 7)
        assert driver.state(Rooms, "attic") == Room(items=[str(number) for number in range(20)])
        assert len(driver.outputs("moves")) == moves
        assert len(driver.replies()) == 20
        driver.send(Put(box="b1", item="new"), token)
        assert driver.state(Boxes, "b1") == Box(items=[*(str(n) for n in range(1, 20, 3)), "new"], weight=8)
        assert driver.state(Watch, "b1") == Watched(
            items=[*(str(n) for n in range(1, 20, 3)), "new"], writers=["ann"] * 8
        )

    def test_what_was_refused_is_no_dead_letter_again(self, seed: int) -> None:
        driver = Driver(WITHOUT_WATCH, seed=seed)
        token = driver.context(BoxCap.put("/**"), subject="ann")
        driver.send(Put(box="b"), None, reply_to="replies")
        driver.send(Put(box="a/b"), token, reply_to="replies")
        driver.send(Put(box="b", item="x"), token)
        letters, replies = driver.dead_letters(), driver.replies()
        assert len(letters) == 2
        driver.redeploy(boxes)
        assert (driver.dead_letters(), driver.replies()) == (letters, replies)
        assert driver.state(Watch, "b") == Watched(items=["x"], writers=["ann"])

    def test_what_it_fails_at_itself_is_one(self, seed: int) -> None:
        driver = Driver(WITHOUT_WATCH, seed=seed)
        token = driver.context(BoxCap.put("/**"), subject="ann")
        for item, act in (("x", "keep"), ("y", "raise in the second"), ("z", "keep")):
            driver.send(Put(box="b", item=item, act=act), token)
        assert driver.dead_letters() == []
        driver.redeploy(boxes)
        assert [(letter.code, letter.offset) for letter in driver.dead_letters()] == [("handler_failed", 1)]
        assert driver.state(Boxes, "b") == Box(items=["x", "y", "z"], weight=3)
        assert driver.state(Watch, "b") == Watched(items=["x", "z"], writers=["ann"] * 2)

    def test_what_was_rerouted_is_not_sent_on_again(self, seed: int) -> None:
        driver = Driver(WITHOUT_WATCH, seed=seed)
        token = driver.context(BoxCap.put("/**"), subject="ann")
        home = driver.send(Put(box="b", item="x"), token).partition
        driver.send(Put(box="b", item="y"), token, partition=(home + 1) % 4)
        driver.redeploy(boxes)
        assert len(driver.outputs("box.intents.rerouted")) == 1
        assert driver.state(Boxes, "b") == Box(items=["x", "y"], weight=2)
        watched = driver.state(Watch, "b")
        assert watched is not None
        assert sorted(watched.items) == ["x", "y"]

    def test_on_an_internal_topic_it_catches_up_too(self, seed: int) -> None:
        """Repetitions of upstream lanes are passed over by it as by the others, and after a crash on the way."""
        driver = Driver(boxes, seed=seed)
        token = driver.context(BoxCap.put("/**"), subject="ann")
        left = 5

        def crash(action: Action) -> None:
            nonlocal left
            if left and action.kind == "output" and action.to and action.to.topic == "box.moves":
                left -= 1
                driver.crash()

        driver.after_action = crash
        for number in range(12):
            driver.send(Put(box=f"b{number % 4}", item=str(number)), token)
        assert left == 0
        repeated = len(driver.outputs("moves"))
        assert repeated > 12, "there are repetitions in the topic"
        rooms = driver.state(Rooms, "attic")

        def crash_often(action: Action) -> None:
            nonlocal left
            if left < 8 and action.group == "moves":
                left += 1
                driver.crash("moves")

        driver.after_action = crash_often
        driver.redeploy(Topology("box", [*boxes.reactors, Doors], internal=["moves"], replies=boxes.replies))
        assert left == 8
        assert rooms is not None
        assert driver.state(Rooms, "attic") == rooms
        assert driver.state(Doors, "attic") == rooms
        assert len(driver.outputs("moves")) == repeated
        driver.send(Put(box="b1", item="new"), token)
        assert driver.state(Rooms, "attic") == driver.state(Doors, "attic") == Room(items=[*rooms.items, "new"])

    def test_what_upstream_repeats_later_is_passed_over(self, seed: int) -> None:
        """Also if only the others have seen the first one's place."""
        driver = Driver(boxes, seed=seed)
        moved = Moved(room="attic", box="b", item="x")

        def arrive(source: bytes) -> None:
            headers = [*event(moved, driver.context(BoxCap.put("/**"))), ("pf-source", source)]
            driver.send_raw("moves", key=b"attic", value=moved.__intent__.encode(moved), headers=headers)

        arrive(b"a:1:0")
        arrive(b"a:2:0")
        driver.redeploy(Topology("box", [*boxes.reactors, Doors], internal=["moves"], replies=boxes.replies))
        arrive(b"a:1:0")
        driver.crash()
        arrive(b"a:2:0")
        arrive(b"a:3:0")
        assert driver.state(Rooms, "attic") == driver.state(Doors, "attic") == Room(items=["x"] * 3)


class Doors(Reactor[Room], id="doors"):
    """A second reactor behind the internal topic."""

    @on
    def moved(self, intent: Moved, state: Room, ctx: Context) -> None:
        state.items.append(intent.item)

    def test_a_crash_on_the_way(self, seed: int) -> None:
        driver = Driver(WITHOUT_WATCH, seed=seed)
        token = driver.context(BoxCap.put("/**"), subject="ann")
        for number in range(30):
            driver.send(Put(box="b", item=str(number)), token)
        left = 4

        def crash(action: object) -> None:
            nonlocal left
            if left:
                left -= 1
                driver.crash()

        driver.after_action = crash
        driver.redeploy(boxes)
        assert left == 0
        assert driver.state(Boxes, "b") == Box(items=[str(n) for n in range(30)], weight=30)
        assert driver.state(Watch, "b") == Watched(items=[str(n) for n in range(30)], writers=["ann"] * 30)


def test_a_reactor_that_leaves_finds_its_state_when_it_returns() -> None:
    """And reads on from where it left: what happened meanwhile is still in the topic."""
    driver = Driver(boxes)
    token = driver.context(BoxCap.put("/**"), subject="ann")
    driver.send(Put(box="b", item="1"), token)
    driver.redeploy(WITHOUT_WATCH)
    driver.send(Put(box="b", item="2"), token)
    driver.redeploy(boxes)
    driver.send(Put(box="b", item="3"), token)
    assert driver.state(Boxes, "b") == Box(items=["1", "2", "3"], weight=3)
    assert driver.state(Watch, "b") == Watched(items=["1", "2", "3"], writers=["ann"] * 3)


def test_a_crash_loses_nothing() -> None:
    driver = Driver(boxes, seed=2)
    token = driver.context(BoxCap.put("/**"), subject="ann")
    for number in range(10):
        driver.send(Put(box="b", item=str(number)), token)
        driver.crash()
    driver.send(Ping(box="b"))
    assert driver.state(Boxes, "b") == Box(items=[str(number) for number in range(10)], weight=11)
    assert driver.state(Rooms, "attic") == Room(items=[str(number) for number in range(10)])


def test_a_watermark_that_was_deleted_was_never_there() -> None:
    key = changelog.watermark_key("walks", "walk.intents")
    again = Bench(walk(), changelog=[*walked().changelog, (key, None)])
    assert again.positions["walk.intents"] is None


def test_a_mark_that_was_deleted_makes_no_repeat() -> None:
    """As a reset of positions leaves it: what the same upstream lane wrote is taken again."""
    moved = Moved(room="r", box="b", item="i")
    origin = ("pf-source", b"up:1:0")
    bench = Bench(boxes, "moves")
    bench.commit_all(record(0, moved, TOKEN, origin), topic="box.moves")
    deletion = changelog.mark_key("box.moves", "up"), None
    for more, items in (([], ["i"]), ([deletion], ["i", "i"])):
        again = Bench(boxes, "moves", changelog=[*bench.changelog, *more])
        again.commit_all(record(1, moved, TOKEN, origin), topic="box.moves")
        assert again.state(Room, "rooms", "r") == Room(items=items)
