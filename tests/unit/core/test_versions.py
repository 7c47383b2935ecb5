"""States and intents of other versions than the one that runs."""

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import orjson
import pytest

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    Schedule,
    State,
    Topology,
    on,
    operation,
    upcast,
    upgrade,
)
from pf_stream.core import Copy, Limits, NewerVersionError, Output, SourceRecord, StateUndecodableError, changelog
from pf_stream.core.records import Header
from pf_stream.security import mint
from pf_stream.testing import Driver
from tests.tally import v1, v2
from tests.unit.core.kit import KEY, NOW_MS, Bench, codes

Old = dict[str, Any]

TOKEN = mint(KEY, subject="ann", audience="tally", capabilities=[v1.TallyCap.add("/**")], now_ms=NOW_MS)


def record(
    offset: int,
    kind: str,
    value: bytes,
    *more: Header,
    key: bytes = b"ab",
    token: str = TOKEN,
) -> SourceRecord:
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", kind.encode()),
        ("ce_source", b"/tests"),
        ("ce_id", b"1"),
        ("content-type", b"application/json"),
        ("pf-context", token.encode()),
    ]
    return SourceRecord(offset, NOW_MS, key, value, [*headers, *more])


def added(offset: int, by: int = 1, *more: Header, **fields: Any) -> SourceRecord:
    """Of version 1."""
    return record(offset, "tally.added.v1", b'{"name": "ab",  "by": %d}' % by, *more, **fields)


def tally(topology: Topology = v2.tally, log: Sequence[tuple[bytes, bytes | None]] = (), **options: Any) -> Bench:
    return Bench(topology, changelog=log, **options)


def first_version() -> list[tuple[bytes, bytes | None]]:
    """The changelog of the first version, after one intent of offset 0."""
    bench = tally(v1.tally)
    bench.commit_all(added(0, 5), topic="tally.intents")
    return bench.changelog


STATE = changelog.state_key(changelog.state_prefix("counts"), b"ab")


def stored(bench: Bench) -> list[bytes | None]:
    """Every value of the state in the changelog."""
    return [value for key, value in bench.changelog if key == STATE]


class TestStates:
    def test_are_upgraded_when_they_are_used_and_written_when_they_change(self) -> None:
        bench = tally(log=first_version())
        assert stored(bench) == [b'\x01\x00\x01{"n":5}']
        assert bench.state(v2.Count, "counts", "ab") == v2.Count(5, ("piece",)), "whoever reads it sees the new shape"
        bench.commit_all(record(1, "tally.added.v2", b'{"thing":"ab","amount":2,"unit":"box"}'), topic="tally.intents")
        assert stored(bench)[1:] == [b'\x01\x00\x02{"amount":7,"units":["box","piece"]}']

    def test_are_upgraded_again_when_a_handler_raised_at_them(self) -> None:
        class Raising(Reactor[v2.Count], id="counts"):
            @on
            def added(self, intent: v2.Added, state: v2.Count, ctx: Context) -> None:
                state.amount += intent.amount
                if intent.amount > 100:
                    raise ValueError(intent.amount)

        topology = Topology("tally", [Raising, v2.Sums], internal=["sums"])
        bench = tally(topology, first_version())
        units = bench.commit_all(added(1, 101), added(2, 1), added(3, 102), topic="tally.intents")
        assert codes(units) == [("handler_failed", 1), ("handler_failed", 3)]
        assert bench.state(v2.Count, "counts", "ab") == v2.Count(6, ("piece",))
        again = tally(topology, bench.changelog)
        assert again.state(v2.Count, "counts", "ab") == v2.Count(6, ("piece",))

    def test_that_only_failures_used_stay_as_they_are(self) -> None:
        class Failing(Reactor[v2.Count], id="counts"):
            @on
            def added(self, intent: v2.Added, state: v2.Count, ctx: Context) -> None:
                state.amount += intent.amount
                raise ValueError

        bench = tally(Topology("tally", [Failing, v2.Sums], internal=["sums"]), first_version())
        bench.commit_all(added(1), topic="tally.intents")
        assert stored(bench) == [b'\x01\x00\x01{"n":5}']

    def topology(self, state: type[State]) -> Topology:
        class Same(Reactor[state], id="counts"):  # type: ignore[valid-type]
            @on
            def added(self, intent: v1.Added, state, ctx: Context) -> None: ...  # type: ignore[no-untyped-def]

        return Topology("tally", [Same, v1.Sums], internal=["sums"])

    def check(self, state: type[State], reason: str, log: list[tuple[bytes, bytes | None]] | None = None) -> None:
        bench = tally(self.topology(state), log or first_version())
        for use in (lambda: bench.lane.stored("counts", b"ab"), lambda: bench.feed(added(1), topic="tally.intents")):
            with pytest.raises(StateUndecodableError) as caught:
                use()
            assert (caught.value.reactor, caught.value.key) == ("counts", b"ab")
            assert reason in str(caught.value)

    def test_an_upgrade_that_raises_is_named(self) -> None:
        class Broken(State, version=2):
            @upgrade(from_version=1)
            @staticmethod
            def _nowhere(old: Old) -> Old:
                return {"n": old["m"]}

        self.check(Broken, "Broken._nowhere raised KeyError")

    def test_an_upgrade_that_returns_nonsense_is_named(self) -> None:
        class Broken(State, version=2):
            @upgrade(from_version=1)
            @staticmethod
            def _nothing(old: Old) -> Old:
                return None  # type: ignore[return-value]

        self.check(Broken, "Broken._nothing returned NoneType instead of a dict")

    def test_what_an_upgrade_makes_is_validated(self) -> None:
        class Other(State, version=2):
            n: int = 0

            @upgrade(from_version=1)
            @staticmethod
            def _as_text(old: Old) -> Old:
                return {"n": "many"}

        bench = tally(self.topology(Other), first_version())
        with pytest.raises(StateUndecodableError, match="valid integer"):
            bench.feed(added(1), topic="tally.intents")

    def test_a_newer_one_that_the_header_does_not_know_of(self) -> None:
        log = [
            (key, b"\x01\x00\x09" + value[3:] if value and key == STATE else value) for key, value in first_version()
        ]
        self.check(
            v1.Count,
            "it has version 9, and Count is version 1 here: a newer version of the reactor wrote it. Upgrade this worker, or "
            "drop the reactor's state to begin without it",
            log,
        )


class TestUpcasts:
    def test_the_handler_gets_the_current_version(self) -> None:
        bench = tally()
        (unit,) = bench.commit_all(added(0, 3), topic="tally.intents")
        assert bench.state(v2.Count, "counts", "ab") == v2.Count(3, ("piece",))
        (output,) = unit.outputs
        assert isinstance(output, Output)
        assert dict(output.headers)["ce_type"] == b"tally.summed.v2"
        assert orjson.loads(output.value or b"") == {"letter": "b", "thing": "ab", "amount": 3, "unit": "piece"}

    def test_so_does_a_second_run_of_it(self) -> None:
        """To take something back, handlers run again on what is kept of the unit's earlier intents."""

        class Raising(Reactor[v2.Count], id="counts"):
            @on
            def added(self, intent: v2.Added, state: v2.Count, ctx: Context) -> None:
                state.amount += intent.amount
                if intent.amount == 9:
                    raise ValueError

        bench = tally(Topology("tally", [Raising, v2.Sums], internal=["sums"]))
        bench.feed(added(0, 3), added(1, 9), added(2, 4), topic="tally.intents")
        unit = bench.commit()
        assert codes([unit]) == [("handler_failed", 1)]
        assert bench.state(v2.Count, "counts", "ab") == v2.Count(7)
        (letter,) = unit.outputs
        assert isinstance(letter, Output)
        assert (letter.value, dict(letter.headers)["ce_type"]) == (b'{"name": "ab",  "by": 9}', b"tally.added.v1")

    def test_in_structured_mode_too(self) -> None:
        bench = tally()
        event = {"specversion": "1.0", "type": "tally.added.v1", "source": "/t", "id": "1", "data": {"name": "ab"}}
        headers: list[Header] = [("content-type", b"application/cloudevents+json"), ("pf-context", TOKEN.encode())]
        bench.feed(SourceRecord(0, NOW_MS, b"ab", orjson.dumps(event), headers), topic="tally.intents")
        assert codes([bench.commit()]) == []
        assert bench.state(v2.Count, "counts", "ab") == v2.Count(1, ("piece",))

    @pytest.mark.parametrize("inline", [64 << 10, 10])
    @pytest.mark.parametrize(
        ("value", "code", "reason"),
        [
            (b"no json", "malformed_payload", "expected"),
            (b"[]", "malformed_payload", "it is no JSON object"),
            (b'{"by": 3}', "malformed_payload", "upcast Added._with_unit raised KeyError"),
            (b'{"name": "ab", "by": "x"}', "malformed_payload", "amount: Input should be a valid integer"),
            (b'{"name": "cd"}', "key_mismatch", "its payload says b'cd', the key is b'ab'"),
        ],
    )
    def test_what_is_refused_is_kept_as_it_came(self, value: bytes, code: str, reason: str, inline: int) -> None:
        bench = tally(limits=Limits(inline_bytes=inline))
        bench.feed(record(0, "tally.added.v1", value), topic="tally.intents")
        unit = bench.commit()
        assert codes([unit]) == [(code, 0)]
        (letter,) = unit.outputs
        headers = dict(letter.headers)
        assert reason.encode() in (headers["__streams.errors.message"] or b"")
        if inline < 100:
            assert isinstance(letter, Copy)
            assert (letter.source, letter.offset) == ("tally.intents", 0)
        else:
            assert isinstance(letter, Output)
            assert letter.value == value
            assert headers["ce_type"] == b"tally.added.v1"

    @pytest.mark.parametrize("inline", [64 << 10, 10])
    def test_a_unit_that_is_too_large_is_kept_as_it_came(self, inline: int) -> None:
        bench = tally(limits=Limits(unit_bytes_hard=1_300, inline_bytes=inline))
        units = bench.commit_all(added(0, 3), topic="tally.intents")
        assert codes(units) == [("unit_too_large", 0)]
        (letter,) = units[0].outputs
        if inline < 100:
            assert isinstance(letter, Copy)
        else:
            assert isinstance(letter, Output)
            assert (letter.value, dict(letter.headers)["ce_type"]) == (b'{"name": "ab",  "by": 3}', b"tally.added.v1")

    @pytest.mark.parametrize("inline", [64 << 10, 10])
    def test_a_misplaced_one_is_sent_on_as_it_came(self, inline: int) -> None:
        partition = next(n for n in range(8) if n != Driver(v2.tally, partitions=8)._topics.partition_of(b"ab"))
        bench = tally(partition=partition, partitions=8, limits=Limits(inline_bytes=inline))
        bench.feed(added(0, 3), topic="tally.intents")
        (sent,) = bench.commit().outputs
        assert sent.topic == "tally.intents.rerouted"
        if inline < 100:
            assert isinstance(sent, Copy)
        else:
            assert isinstance(sent, Output)
            assert (sent.value, dict(sent.headers)["ce_type"]) == (b'{"name": "ab",  "by": 3}', b"tally.added.v1")

    def test_where_it_was_sent_on_to_it_is_upcast(self) -> None:
        driver = Driver(v2.tally, partitions=8)
        home = driver._topics.partition_of(b"ab")
        value = added(0, 3)
        driver.send_raw(
            "intents",
            key=b"ab",
            value=value.value,
            headers=[*value.headers[:-1], ("pf-context", driver.context(v1.TallyCap.add("/**")).encode())],
            partition=(home + 1) % 8,
        )
        assert driver.dead_letters() == []
        assert driver.state(v2.Counts, "ab") == v2.Count(3, ("piece",))
        assert driver.state(v2.Sums, "b") == v2.Sum(3)

    @pytest.mark.parametrize("value", [b'{"name": "ab"}', None])
    @pytest.mark.parametrize("version", ["0", "3", "01", "99999999999"])
    def test_versions_that_nobody_can_read(self, version: str, value: bytes | None) -> None:
        bench = tally()
        bench.feed(record(0, f"tally.added.v{version}", value), topic="tally.intents")  # type: ignore[arg-type]
        assert codes([bench.commit()]) == [("unsupported_version" if len(version) < 10 else "unknown_type", 0)]

    def test_no_value(self) -> None:
        bench = tally()
        bench.feed(record(0, "tally.added.v1", None), topic="tally.intents")  # type: ignore[arg-type]
        assert codes([bench.commit()]) == [("null_value", 0)]


class RoomCap(Capability):
    """``/{room}``."""

    put = operation()


class Put(Intent, name="rooms.put", version=3, requires=RoomCap.put("/{room}")):
    """Version 2 had no room, and meant the attic; version 1 had a number."""

    box: Annotated[str, Key]
    room: str

    @upcast(from_version=1)
    @staticmethod
    def _named(old: Old) -> Old:
        return {"box": f"b{old['number']}"}

    @upcast(from_version=2)
    @staticmethod
    def _in_the_attic(old: Old) -> Old:
        return old | {"room": "attic"}


class Passed(Intent, name="rooms.passed", version=2, topic="hall", requires=RoomCap.put("/{room}")):
    """Internal."""

    box: Annotated[str, Key]
    room: str
    left: int

    @upcast(from_version=1)
    @staticmethod
    def _last(old: Old) -> Old:
        return old | {"left": 0}


class Seen(State):
    """How often."""

    n: int = 0


class Rooms(Reactor[Seen], id="rooms"):
    @on
    def put(self, intent: Put, state: Seen, ctx: Context) -> Effects:
        state.n += 1
        return [Emit(Passed(box=intent.box, room=intent.room, left=1)), Reply({"n": state.n})]


class Hall(Reactor[Seen], id="hall"):
    @on
    def passed(self, intent: Passed, state: Seen, ctx: Context) -> Effects:
        state.n += 1
        return Emit(Passed(box=intent.box, room=intent.room, left=intent.left - 1)) if intent.left else None


ROOMS = Topology("rooms", [Rooms, Hall], internal=["hall"], version=4)


def token(*, types: list[str] | None = None, scope: str = "/**", topics: list[str] | None = None) -> str:
    return mint(
        KEY,
        subject="ann",
        audience="rooms",
        capabilities=[RoomCap.put(scope)],
        now_ms=NOW_MS,
        intent_types=types,
        topics=topics,
    )


class TestAuthority:
    def put(self, token: str, version: int) -> list[tuple[str, int]]:
        payloads = {1: b'{"number":1}', 2: b'{"box":"b1"}', 3: b'{"box":"b1","room":"attic"}'}
        bench = Bench(ROOMS)
        for _ in range(2):  # the second time from the memory of decisions
            bench.feed(
                record(
                    bench.lane.positions["rooms.intents"],
                    f"rooms.put.v{version}",
                    payloads[version],
                    key=b"b1",
                    token=token,
                ),
                topic="rooms.intents",
            )
        return codes([bench.commit()])

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_what_is_asked_for_is_what_the_current_version_says(self, version: int) -> None:
        assert self.put(token(scope="/attic"), version) == []
        assert [code for code, _ in self.put(token(scope="/cellar"), version)] == ["insufficient_capabilities"] * 2

    @pytest.mark.parametrize(("sent", "limited_to"), [*itertools.product([1, 2, 3], repeat=2)])
    def test_on_a_public_topic_a_token_is_for_the_version_that_was_sent(self, sent: int, limited_to: int) -> None:
        """It was given to somebody who says what they say in that version."""
        found = self.put(token(types=[f"rooms.put.v{limited_to}"]), sent)
        assert [code for code, _ in found] == ([] if sent == limited_to else ["wrong_intent_type"] * 2)

    @pytest.mark.parametrize(("sent", "limited_to"), [*itertools.product([1, 2], repeat=2)])
    def test_on_an_internal_topic_it_is_for_every_version(self, sent: int, limited_to: int) -> None:
        """In a rolling upgrade the worker that narrowed it and the one that emitted the intent may be of two versions."""
        bench = Bench(ROOMS, "hall")
        value = b'{"box":"b1","room":"attic"%s}' % (b',"left":0' if sent == 2 else b"")
        limited = token(types=[f"rooms.passed.v{limited_to}"], topics=["rooms.hall"])
        sender: list[Header] = [("pf-source", b"a:1:0")]
        bench.feed(record(0, f"rooms.passed.v{sent}", value, *sender, key=b"b1", token=limited), topic="rooms.hall")
        assert codes([bench.commit()]) == []
        assert bench.state(Seen, "hall", "b1") == Seen(1)

    def test_and_for_nothing_else(self) -> None:
        bench = Bench(ROOMS, "hall")
        limited = token(types=["rooms.put.v3"])
        bench.feed(
            record(0, "rooms.passed.v1", b'{"box":"b1","room":"a"}', ("pf-source", b"a:1:0"), key=b"b1", token=limited),
            topic="rooms.hall",
        )
        assert codes([bench.commit()]) == [("wrong_intent_type", 0)]

    def test_what_is_narrowed_names_older_versions_too(self) -> None:
        bench = Bench(ROOMS)
        bench.feed(record(0, "rooms.put.v2", b'{"box":"b1"}', key=b"b1", token=token()), topic="rooms.intents")
        (output,) = bench.commit().outputs
        assert isinstance(output, Output)
        assert output.context is not None
        assert output.context.bounds.intent_types == {"rooms.passed.v1", "rooms.passed.v2"}


class TestNewerVersions:
    """On an internal topic, which only the topology itself writes, they tell that a newer version of it runs."""

    def summed(self, offset: int, kind: str = "tally.summed.v2", source: bytes = b"a:1:0") -> SourceRecord:
        value = b'{"letter":"b","thing":"ab","amount":3,"unit":"piece"}'
        return record(offset, kind, value, ("pf-source", source), key=b"b")

    @pytest.mark.parametrize(
        ("kind", "here"),
        [
            ("tally.summed.v2", "knows it up to version 1"),
            ("tally.summed.v7", "knows it up to version 1"),
            ("tally.averaged.v1", "does not know it"),
        ],
    )
    def test_stop_the_lane_and_lose_nothing(self, kind: str, here: str) -> None:
        bench = tally(v1.tally, group="sums")
        known = record(0, "tally.summed.v1", b'{"letter":"b","name":"ab","by":1}', ("pf-source", b"a:1:0"), key=b"b")
        with pytest.raises(NewerVersionError) as caught:
            bench.feed(known, self.summed(1, kind, b"a:1:1"), topic="tally.sums")
        assert caught.value.code == "newer_version"
        assert str(caught.value) == (
            f"tally.sums holds {kind} at offset 1, and this worker's version 1 of topology 'tally' {here}: a newer version "
            "wrote it. Upgrade this worker; if you take a version back, or took the type away, let the version that has the "
            "type empty the topic first"
        )
        assert bench.changelog == [], "nothing of it is durable, so all of it is read again"

    def test_the_newer_worker_goes_on(self) -> None:
        driver = Driver(v1.tally)
        value = self.summed(0)
        headers: list[Header] = [*value.headers[:-2], ("pf-source", b"a:1:0")]
        context: Header = ("pf-context", driver.context(v1.TallyCap.add("/**")).encode())
        with pytest.raises(NewerVersionError):
            driver.send_raw("sums", key=b"b", value=value.value, headers=[*headers, context])
        driver.redeploy(v2.tally)
        assert driver.state(v2.Sums, "b") == v2.Sum(3)
        assert driver.dead_letters() == []

    @pytest.mark.parametrize(
        "kind", ["tally.summed.v0", "tally.added.v1", "Tally.summed.v9", "tally.summed", "x.v9999999999"]
    )
    def test_what_is_not_newer_is_a_dead_letter(self, kind: str) -> None:
        bench = tally(v1.tally, group="sums")
        bench.feed(self.summed(0, kind), topic="tally.sums")
        ((code, _),) = codes([bench.commit()])
        assert code in {"unsupported_version", "unknown_type"}

    def test_so_is_what_the_engine_did_not_write(self) -> None:
        bench = tally(v1.tally, group="sums")
        bench.feed(self.summed(0, source=b"forged"), topic="tally.sums")
        assert codes([bench.commit()]) == [("untrusted_record", 0)]

    @pytest.mark.parametrize("topic", ["tally.intents", "tally.intents.rerouted"])
    def test_on_a_public_topic_they_are_dead_letters(self, topic: str) -> None:
        """Anybody can write them there, or have them rerouted."""
        bench = tally(v1.tally)
        value = b'{"thing":"ab","amount":3,"unit":"piece"}'
        bench.feed(record(0, "tally.added.v2", value, ("pf-source", b"a:1:0")), topic=topic)
        bench.feed(record(1, "tally.averaged.v1", value, ("pf-source", b"a:1:1")), topic=topic)
        assert codes([bench.commit()]) == [("unsupported_version", 0), ("unknown_type", 1)]

    def test_a_new_reactor_passes_over_what_the_others_could_do_without(self) -> None:
        """History of types that were taken away must not keep it from starting."""
        bench = tally(v2.tally, group="sums")
        bench.commit_all(self.summed(0), self.summed(1, source=b"a:1:1"), topic="tally.sums")

        class More(Reactor[v1.Sum], id="more"):
            @on
            def summed(self, intent: v1.Summed, state: v1.Sum, ctx: Context) -> None:
                state.n += intent.by

        class Sums(Reactor[v2.Sum], id="sums"):
            @on
            def summed(self, intent: v1.Summed, state: v2.Sum, ctx: Context) -> None:
                state.amount += intent.by

        again = tally(Topology("tally", [v1.Counts, Sums, More], internal=["sums"]), bench.changelog, group="sums")
        again.feed(self.summed(0), self.summed(1, source=b"a:1:1"), topic="tally.sums")
        assert codes([again.commit()]) == []
        with pytest.raises(NewerVersionError):
            again.feed(self.summed(2, source=b"a:1:2"), topic="tally.sums")


class Set(Intent, name="clock.set", requires=PUBLIC):
    """Ring in a minute."""

    clock: Annotated[str, Key]


class Rung(Intent, name="clock.rung", requires=PUBLIC):
    """What a timer brings."""

    clock: Annotated[str, Key]


class RungLoudly(Intent, name="clock.rung", version=2, requires=PUBLIC):
    """Its next version."""

    clock: Annotated[str, Key]
    volume: int

    @upcast(from_version=1)
    @staticmethod
    def _as_before(old: Old) -> Old:
        return old | {"volume": 5}


class Clock(State):
    """How loud it was."""

    volumes: list[int] = dataclasses.field(default_factory=list)


class Clocks(Reactor[Clock], id="clocks"):
    @on
    def set_(self, intent: Set, state: Clock, ctx: Context) -> Effects:
        return Schedule(Rung(clock=intent.clock), after=60)

    @on
    def rung(self, intent: Rung, state: Clock, ctx: Context) -> None:
        state.volumes.append(1)


class LoudClocks(Reactor[Clock], id="clocks"):
    @on
    def set_(self, intent: Set, state: Clock, ctx: Context) -> Effects:
        return Schedule(RungLoudly(clock=intent.clock, volume=9), after=60)

    @on
    def rung(self, intent: RungLoudly, state: Clock, ctx: Context) -> None:
        state.volumes.append(intent.volume)


class SilentClocks(Reactor[Clock], id="clocks"):
    @on
    def set_(self, intent: Set, state: Clock, ctx: Context) -> None: ...


class TestTimers:
    """They outlive the version that set them."""

    def test_of_an_older_version_are_upcast(self) -> None:
        driver = Driver(Topology("clock", [Clocks]))
        driver.send(Set(clock="c"))
        driver.send(Rung(clock="c"), not_before=driver.now + timedelta(seconds=30))
        driver.redeploy(Topology("clock", [LoudClocks]))
        driver.send(Set(clock="c"))
        driver.advance(60)
        assert driver.dead_letters() == []
        assert driver.state(LoudClocks, "c") == Clock([5, 5, 9])

    def test_of_a_newer_version_stop_the_lane_until_it_is_back(self) -> None:
        older, newer = Topology("clock", [Clocks]), Topology("clock", [LoudClocks])
        driver = Driver(newer)
        driver.send(Set(clock="c"))
        driver.redeploy(older)
        with pytest.raises(NewerVersionError, match=r"clock.intents holds clock.rung.v2"):
            driver.advance(60)
        driver.redeploy(newer)
        assert driver.state(LoudClocks, "c") == Clock([9])
        assert driver.dead_letters() == []

    def test_of_a_sender_who_was_ahead_are_dead_letters(self) -> None:
        driver = Driver(Topology("clock", [LoudClocks]))
        driver.send(RungLoudly(clock="c", volume=3), not_before=driver.now + timedelta(seconds=30))
        driver.redeploy(Topology("clock", [Clocks]))
        driver.advance(60)
        assert [letter.code for letter in driver.dead_letters()] == ["unsupported_version"]

    def test_of_a_type_that_was_taken_away_are_dead_letters(self) -> None:
        """There may be some for months, which nobody can wait for."""
        driver = Driver(Topology("clock", [Clocks]))
        driver.send(Set(clock="c"))
        driver.redeploy(Topology("clock", [SilentClocks]))
        driver.advance(60)
        assert [letter.code for letter in driver.dead_letters()] == ["unknown_type"]
