"""The driver: what it promises to whoever tests a topology with it."""

import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

from pf_stream import PUBLIC, Context, Intent, Key, Reactor, State, Topology, on
from pf_stream.core import StateUndecodableError
from pf_stream.core.records import Header
from pf_stream.errors import NotFoundError
from pf_stream.security import describe
from pf_stream.testing import Action, DeadLetter, Driver, OutputRecord, Position
from tests.unit.core.kit import Box, BoxCap, Boxes, Ping, Pong, Put, Room, Rooms, Stray, Watch, boxes, event


class Seat(Intent, name="hall.seat", requires=PUBLIC):
    """Two key fields."""

    row: Annotated[str, Key]
    number: Annotated[int, Key]


class Shelf(Intent, name="hall.shelf", requires=PUBLIC):
    """A number as key."""

    number: Annotated[int, Key]


class Taken(State):
    """How often."""

    times: int = 0


class Seats(Reactor[Taken], id="seats"):
    """Counts."""

    @on
    def seat(self, intent: Seat, state: Taken, ctx: Context) -> None:
        state.times += 1

    @on
    def shelf(self, intent: Shelf, state: Taken, ctx: Context) -> None:
        state.times += 1


class TestSend:
    def test_the_record_is_one_that_any_client_could_have_written(self) -> None:
        driver = Driver(boxes)
        seen: list[Any] = []
        driver.after_action = lambda _: seen.append(None)
        at = driver.send(
            Stray(box="b"),
            "token",
            id="7",
            source="/me",
            time=datetime(2025, 1, 1, tzinfo=UTC),
            reply_to="replies",
            correlation_id="c",
            deadline=datetime(2030, 1, 1, tzinfo=UTC),
            not_before=datetime(2020, 1, 1, tzinfo=UTC),
            headers=[("x", None)],
            partition=3,
        )
        assert at == Position("box.intents", 3, 0)
        (letter,) = driver.dead_letters()
        assert letter.record.headers[:10] == (
            ("ce_specversion", b"1.0"),
            ("ce_type", b"box.stray.v1"),
            ("ce_source", b"/me"),
            ("ce_id", b"7"),
            ("ce_time", b"2025-01-01T00:00:00+00:00"),
            ("content-type", b"application/json"),
            ("pf-reply-to", b"box.replies"),
            ("pf-correlation-id", b"c"),
            ("pf-deadline", b"2030-01-01T00:00:00+00:00"),
            ("pf-not-before", b"2020-01-01T00:00:00+00:00"),
        )
        assert letter.record.headers[10] == ("x", None)
        assert seen, "it ran"

    def test_events_have_ids_of_their_own(self) -> None:
        driver = Driver(boxes)
        for _ in range(3):
            driver.send(Stray(box="b"))
        assert [letter.record.header("ce_id") for letter in driver.dead_letters()] == [b"test-1", b"test-2", b"test-3"]

    def test_a_type_whose_topic_nobody_reads(self) -> None:
        class Far(Intent, name="far.away", topic="far", requires=PUBLIC):
            key: Annotated[str, Key]

        with pytest.raises(
            NotFoundError, match=r"no reactor of topology 'box' reads box\.far, where far\.away\.v1 travels"
        ):
            Driver(boxes).send(Far(key="k"))

    @pytest.mark.parametrize("partition", [-1, 4])
    def test_a_partition_that_is_not_there(self, partition: int) -> None:
        with pytest.raises(NotFoundError, match="each topic of this driver has 4"):
            Driver(boxes).send(Ping(box="b"), partition=partition)

    def test_the_broker_stamps_public_topics_and_the_producer_internal_ones(self) -> None:
        driver = Driver(boxes)
        pong = Pong(room="r", rounds=1)
        driver.send_raw(
            "moves",
            key=b"r",
            value=pong.__intent__.encode(pong),
            headers=event(pong, None, ("pf-source", b"a:1:0")),
            timestamp=datetime(2020, 1, 1, tzinfo=UTC),
        )
        driver.send_raw("intents", key=b"b", value=b"", timestamp=datetime(2020, 1, 1, tzinfo=UTC))
        (emitted,) = driver.outputs("moves")
        assert emitted.timestamp_ms == datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000
        assert [letter.record.timestamp_ms for letter in driver.dead_letters()] == [driver.clock.now_ms()]


class TestContext:
    def test_it_is_a_token_like_any_other(self) -> None:
        driver = Driver(boxes)
        token = driver.context(
            BoxCap.put("/a/*"),
            BoxCap.own("/b"),
            subject="ann",
            tenant="acme",
            lifetime_s=60,
            intent_types=["box.put.v1"],
            topics=["box.intents"],
            not_before=driver.now + timedelta(seconds=10),
        )
        told = describe(token)
        assert (told.subject, told.audience, told.tenant) == ("ann", "box", "acme")
        assert [str(right) for right in told.capabilities] == ["BoxCap.put:/a/*", "BoxCap.own:/b"]
        assert (told.intent_types, told.topics) == (frozenset({"box.put.v1"}), frozenset({"box.intents"}))
        now_ms = driver.clock.now_ms()
        assert (told.not_before_ms, told.expires_ms) == (now_ms + 10_000, now_ms + 60_000)

    def test_a_drivers_key_follows_from_its_seed(self) -> None:
        """So a token may be made once for several drivers."""
        token = Driver(boxes, seed=3).context(BoxCap.put("/**"))
        for seed, expected in ((3, []), (4, ["bad_signature"])):
            driver = Driver(boxes, seed=seed)
            driver.send(Put(box="b"), token)
            assert [letter.code for letter in driver.dead_letters()] == expected

    def test_its_audience_is_the_namespace(self) -> None:
        assert describe(Driver(boxes.within("elsewhere")).context()).audience == "elsewhere"


class TestReading:
    def test_outputs_by_any_of_their_names(self) -> None:
        driver = Driver(boxes)
        driver.send(Put(box="b", item="x"), driver.context(BoxCap.put("/**")), reply_to="replies")
        driver.send(Put(box="b"))
        for name, full in (("moves", "box.moves"), ("intents.dlq", "box.intents.dlq"), ("replies", "box.replies")):
            assert driver.outputs(name) == driver.outputs(full) != []
        (moved,) = driver.outputs("moves")
        assert isinstance(moved, OutputRecord)
        assert (moved.topic, moved.key, moved.json()) == (
            "box.moves",
            b"attic",
            {"room": "attic", "box": "b", "item": "x"},
        )
        assert moved.header("ce_type") == b"box.moved.v1"
        assert moved.header("none") is None

    def test_what_a_test_sent_is_no_output(self) -> None:
        driver = Driver(boxes)
        driver.send(Ping(box="b"))
        assert driver.outputs("intents") == []

    def test_topics_that_could_be_written_are_empty_and_others_do_not_exist(self) -> None:
        driver = Driver(boxes, seed=9)
        for name in ("moves", "moves.dlq", "intents.rerouted", "replies", "box.replies.x"):
            assert driver.outputs(name) == []
        with pytest.raises(
            NotFoundError, match=r"topology 'box' has no topic 'box\.mves'; did you mean 'box\.moves'\?.*seed=9"
        ):
            driver.outputs("mves")

    def test_replies_of_all_topics_or_of_one(self) -> None:
        driver = Driver(boxes)
        token = driver.context(BoxCap.put("/**"))
        driver.send(Put(box="b", item="1"), token, reply_to="replies")
        driver.send(Put(box="b", item="2"), token, reply_to="box.replies.x")
        assert [reply.json()["weight"] for reply in driver.replies()] == [1, 2]
        assert [reply.json()["weight"] for reply in driver.replies("box.replies.x")] == [2]

    def test_dead_letters_say_what_was_refused_and_why(self) -> None:
        driver = Driver(boxes)
        at = driver.send(Put(box="b"))
        (letter,) = driver.dead_letters()
        assert letter == DeadLetter("missing_context", "it has no pf-context header", *at, record=letter.record)
        assert letter.record.topic == "box.intents.dlq"

    def test_state_by_keys_of_every_kind(self) -> None:
        driver = Driver(Topology("hall", [Seats]))
        driver.send(Seat(row="a", number=7))
        driver.send(Shelf(number=7))
        assert driver.state(Seats, ("a", 7)) == driver.state(Seats, 7) == driver.state(Seats, b"7") == Taken(times=1)
        assert driver.state(Seats, "a") is None

    def test_state_is_a_copy(self) -> None:
        driver = Driver(boxes)
        driver.send(Ping(box="b"))
        state = driver.state(Boxes, "b")
        assert state is not None
        state.weight = 99
        driver.send(Ping(box="b"))
        assert driver.state(Boxes, "b") == Box(weight=2)

    def test_state_is_what_was_acknowledged(self) -> None:
        driver = Driver(boxes)
        seen: list[tuple[str, Box | None]] = []
        driver.after_action = lambda action: seen.append((action.kind, driver.state(Boxes, "b")))
        driver.send(Ping(box="b"))
        assert seen == [("step", None), ("commit", Box(weight=1))]

    def test_the_state_of_a_reactor_that_is_not_there(self) -> None:
        class Boxers(Boxes, id="boxers"):
            pass

        with pytest.raises(NotFoundError, match=r"topology 'box' has no reactor Boxers; did you mean 'Boxes'\?"):
            Driver(boxes).state(Boxers, "b")

    def test_refusals_are_counted_through_crashes_and_deployments(self) -> None:
        driver = Driver(boxes)
        driver.send(Put(box="b"))
        driver.crash()
        driver.send(Put(box="b"))
        driver.redeploy(boxes)
        driver.send(Stray(box="b"))
        assert driver.refused == Counter(missing_context=2, unknown_type=1)

    def test_every_partition_is_used_as_kafka_would(self) -> None:
        driver = Driver(boxes, partitions=7)
        partitions = {driver.send(Ping(box=str(number))).partition for number in range(60)}
        assert partitions == set(range(7))


class TestTime:
    def test_nothing_moves_it_but_advance(self) -> None:
        start = datetime(2020, 5, 1, 12, tzinfo=UTC)
        driver = Driver(boxes, now=start)
        driver.send(Ping(box="b"))
        driver.crash()
        assert driver.now == start
        driver.advance(timedelta(hours=1, milliseconds=1))
        driver.advance(0.5)
        assert driver.now == start + timedelta(hours=1, milliseconds=501)
        driver.advance(-3601)
        assert driver.now < start

    def test_handlers_see_it(self) -> None:
        seen: list[datetime] = []

        class Clocks(Reactor[Taken], id="clocks"):
            @on
            def shelf(self, intent: Shelf, state: Taken, ctx: Context) -> None:
                seen.append(ctx.now)

        driver = Driver(Topology("hall", [Clocks]), now=datetime(2020, 1, 1, tzinfo=UTC))
        driver.send(Shelf(number=1))
        assert seen == [datetime(2020, 1, 1, tzinfo=UTC)]


class TestPaused:
    def test_records_pile_up_until_its_end(self) -> None:
        driver = Driver(boxes)
        with driver.paused():
            with driver.paused():
                driver.send(Ping(box="b"))
                driver.advance(5)
            driver.crash()
            assert driver.state(Boxes, "b") is None
        assert driver.state(Boxes, "b") == Box(weight=1)

    def test_an_exception_within_leaves_the_driver_usable(self) -> None:
        driver = Driver(boxes)
        with contextlib.suppress(ZeroDivisionError), driver.paused():
            driver.send(Ping(box="b"))
            1 / 0  # noqa: B018 - it raises
        driver.send(Ping(box="b"))
        assert driver.state(Boxes, "b") == Box(weight=2)


def actions(seed: int) -> list[Action]:
    """What the lanes do about a few intents, with a crash of everything on the way."""
    driver = Driver(boxes, seed=seed)
    done: list[Action] = []
    driver.after_action = done.append
    token = driver.context(BoxCap.put("/**"))
    with driver.paused():
        for number in range(20):
            driver.send(Put(box=f"b{number}"), token)
    driver.crash()
    with driver.paused():
        for number in range(20):
            driver.send(Put(box=f"b{number}"), token)
    return done


class TestSeeds:
    def test_the_same_seed_does_the_same_in_the_same_order(self) -> None:
        assert actions(1) == actions(1)

    def test_other_seeds_do_it_in_other_orders_and_batches(self) -> None:
        runs = [actions(seed) for seed in range(5)]
        assert len({tuple(run) for run in runs}) == 5
        assert len({sum(action.kind == "commit" for action in run) for run in runs}) > 1

    def test_every_kind_of_action_happens(self) -> None:
        assert {action.kind for action in actions(0)} == {"step", "commit", "output", "mark"}
        driver = Driver(boxes)
        kinds: set[str] = set()
        driver.after_action = lambda action: kinds.add(action.kind)
        driver.send(Put(box="b", act="wrong type"), driver.context(BoxCap.put("/**")))
        assert "rewind" in kinds


class TestCrash:
    @pytest.mark.parametrize("kind", ["step", "commit", "output", "mark"])
    @pytest.mark.parametrize("seed", range(3))
    def test_between_any_two_actions(self, kind: str, seed: int) -> None:
        driver = Driver(boxes, seed=seed)
        token = driver.context(BoxCap.put("/**"))
        crashes = 0

        def crash(action: Action) -> None:
            nonlocal crashes
            if action.kind == kind and crashes < 10:
                crashes += 1
                driver.crash(action.group, action.partition)

        driver.after_action = crash
        for number in range(12):
            driver.send(Put(box="b", item=str(number)), token)
        assert crashes == 10
        assert driver.state(Boxes, "b") == Box(items=[str(number) for number in range(12)], weight=12)
        assert driver.state(Rooms, "attic") == Room(items=[str(number) for number in range(12)])

    def test_only_those_that_are_named(self) -> None:
        driver = Driver(boxes)
        driver.send(Ping(box="b"))
        before = {(lane.plan.name, lane.partition): lane.lane for lane in driver._lanes}
        driver.crash("moves", 2)
        changed = {at for at, lane in before.items() if lane not in {one.lane for one in driver._lanes}}
        assert changed == {("moves", 2)}
        driver.crash("intents")
        changed = {at for at, lane in before.items() if lane not in {one.lane for one in driver._lanes}}
        assert changed == {("moves", 2), *(("intents", partition) for partition in range(4))}

    def test_an_action_may_send(self) -> None:
        driver = Driver(boxes)

        def answer(action: Action) -> None:
            if (
                action.kind == "output"
                and action.to
                and action.to.topic == "box.moves"
                and len(driver.outputs("moves")) < 5
            ):
                driver.send(Put(box="b", item="again"), token)

        driver.after_action = answer
        token = driver.context(BoxCap.put("/**"))
        driver.send(Put(box="b", item="once"), token)
        assert driver.state(Boxes, "b") == Box(items=["once", *["again"] * 4], weight=5)


class TestRedeploy:
    def test_topics_changelogs_and_time_stay(self) -> None:
        driver = Driver(Topology("box", [Boxes, Rooms], internal=["moves"]))
        driver.send(Put(box="b", item="x"), driver.context(BoxCap.put("/**")))
        driver.advance(10)
        now = driver.now
        driver.redeploy(boxes)
        assert driver.topology is boxes
        assert driver.now == now
        assert driver.state(Boxes, "b") == Box(items=["x"], weight=1)
        assert driver.state(Watch, "b") is not None
        assert len(driver.outputs("moves")) == 1


def test_a_record_for_comparison() -> None:
    headers: tuple[Header, ...] = (("a", b"1"), ("a", b"2"), ("n", None))
    record = OutputRecord("t", 0, None, b"[1]", headers, 5)
    assert record == OutputRecord("t", 0, None, b"[1]", headers, 5)
    assert (record.header("a"), record.header("n"), record.json()) == (b"2", None, [1])
    with pytest.raises(ValueError, match="empty document"):
        OutputRecord("t", 0, None, None, (), 5).json()


def test_it_says_what_it_is() -> None:
    assert repr(Driver(boxes, seed=7)) == "<Driver box seed=7 now=2026-01-01T00:00:00Z>"


def test_what_is_emitted_goes_to_the_partition_of_its_key() -> None:
    driver = Driver(boxes)
    driver.send(Put(box="b", room="x"), driver.context(BoxCap.put("/**")))
    (moved,) = driver.outputs("moves")
    assert moved.partition == driver.send_raw("moves", key=b"x", value=b"").partition


def test_a_failure_names_the_seed_and_what_happened_last() -> None:
    def version(number: int) -> Topology:
        class Count(State, version=number):
            times: int = 0

        class Counts(Reactor[Count], id="counts"):
            @on
            def shelf(self, intent: Shelf, state: Count, ctx: Context) -> None:
                state.times += 1

        return Topology("hall", [Counts])

    driver = Driver(version(1), seed=42)
    driver.send(Shelf(number=1))
    driver.redeploy(version(2))
    with pytest.raises(StateUndecodableError) as caught:
        driver.send(Shelf(number=1))
    (note,) = caught.value.__notes__
    assert note.startswith("<Driver hall seed=42 now=2026-01-01T00:00:00Z>; last actions: step intents/")


class TestTransactional:
    """A topology with ``guarantee="transactional"``: outputs are part of the commit."""

    @pytest.mark.parametrize("seed", range(3))
    def test_no_output_is_repeated_whatever_crashes(self, seed: int) -> None:
        reactors = boxes.reactors
        exact = Topology("box", reactors, internal=["moves"], replies=boxes.replies, guarantee="transactional")
        driver = Driver(exact, seed=seed)
        token = driver.context(BoxCap.put("/**"))
        kinds: Counter[str] = Counter()

        def crash(action: Action) -> None:
            kinds[action.kind] += 1
            if kinds.total() % 2:
                driver.crash(action.group, action.partition)

        driver.after_action = crash
        for number in range(12):
            driver.send(Put(box="b", item=str(number)), token)
        assert kinds.keys() == {"step", "commit"}
        items = [str(number) for number in range(12)]
        assert driver.state(Rooms, "attic") == Room(items=items)
        sources = [record.header("pf-source") for records in driver._topics.written.values() for record in records]
        assert len(sources) == len(set(sources)) == 12
