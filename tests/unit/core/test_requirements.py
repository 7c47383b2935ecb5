"""What is required beside a grant: alternatives, computed grants, callers, times, rules; of a type, a handler, a topology."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest

from pf_stream import (
    PUBLIC,
    Caller,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Schedule,
    State,
    Topology,
    all_of,
    any_of,
    caller,
    computed,
    during,
    on,
    operation,
    rule,
)
from pf_stream.model.capability import Grant
from pf_stream.model.requirement import Requirement
from pf_stream.model.when import Calendar, When
from pf_stream.security import attenuate
from pf_stream.testing import Driver


class DeskCap(Capability):
    """What may be done at desks: ``/{room}/{desk}``."""

    sit = operation()
    move = operation(implies=sit)
    own = operation(implies=move)


class Desk(State):
    """One desk."""

    seen: list[str] = dataclasses.field(default_factory=list)


def topology(
    requires: Any, more: dict[str, Requirement] | None = None, **options: Any
) -> tuple[Topology, type[Any], type[Any]]:
    """A topology with one intent that requires that; its reactor; the intent."""

    class Sit(Intent, name="desk.sit", requires=requires):
        """Sit down."""

        desk: Annotated[str, Key]
        room: str = "attic"
        owner: str = ""

    class Desks(Reactor[Desk], id="desks"):
        """Notes who sat down."""

        @on
        def sit(self, intent: Sit, state: Desk, ctx: Context) -> Effects:
            state.seen.append(ctx.subject)
            return None

    return Topology("desk", [Desks], requires=more or {}, **options), Desks, Sit


def code_of(
    requires: Any, *grants: Grant, intent: dict[str, str] | None = None, at: datetime | None = None, **said: Any
) -> str | None:
    """What becomes of an intent that requires that, with a token that grants and says that: a code, or ``None``."""
    with_calendars = {"calendars": said.pop("calendars", {})}
    topo, reactor, kind = topology(requires, **with_calendars)
    driver = Driver(topo, now=at)
    token = driver.context(*grants, subject="alice", **said)
    driver.send(kind(desk="d", **(intent or {})), token)
    letters = driver.dead_letters()
    state = driver.state(reactor, "d")
    assert bool(letters) is (state is None or state.seen == []), "either handled or refused"
    return letters[0].code if letters else None


SIT, MOVE, OWN = DeskCap.sit("/{room}/{desk}"), DeskCap.move("/{room}/{desk}"), DeskCap.own("/{room}/{desk}")
ROOM = "/attic/*"


class TestAllAndAny:
    @pytest.mark.parametrize(
        ("requires", "granted", "code"),
        [
            (all_of(SIT, MOVE), [DeskCap.move(ROOM)], None),
            (all_of(SIT, MOVE), [DeskCap.sit(ROOM)], "insufficient_capabilities"),
            (any_of(MOVE, SIT), [DeskCap.sit(ROOM)], None),
            (any_of(MOVE, OWN), [DeskCap.sit(ROOM)], "insufficient_capabilities"),
            (any_of(OWN, all_of(SIT, caller(subject="alice"))), [DeskCap.sit(ROOM)], None),
            (any_of(OWN, all_of(SIT, caller(subject="bob"))), [DeskCap.sit(ROOM)], "insufficient_capabilities"),
            (any_of(OWN, caller(subject="alice")), [], None),
            ([any_of(MOVE, SIT), caller(subject="alice")], [DeskCap.sit(ROOM)], None),
            ([any_of(MOVE, SIT), caller(subject="bob")], [DeskCap.sit(ROOM)], "wrong_caller"),
        ],
    )
    def test_hold_or_not(self, requires: Any, granted: list[Grant], code: str | None) -> None:
        assert code_of(requires, *granted) == code

    def test_a_refusal_of_alternatives_tells_each(self) -> None:
        topo, _, kind = topology(any_of(OWN, caller(subject="bob")))
        driver = Driver(topo)
        driver.send(kind(desk="d"), driver.context(DeskCap.sit(ROOM)))
        (letter,) = driver.dead_letters()
        message = letter.message
        assert message == "the token grants no such operation on that resource; nor the caller's subject is another"


class TestTokenOfOtherUse:
    """A token that is limited to other types or topics is for nothing here, whatever is required."""

    @pytest.mark.parametrize(
        "requires", [caller(subject="alice"), any_of(OWN, caller(subject="alice")), during("daily 00:00-24:00 UTC")]
    )
    @pytest.mark.parametrize(
        ("bounds", "code"),
        [({"intent_types": ["x"]}, "wrong_intent_type"), ({"topics": ["x"]}, "wrong_topic")],
    )
    def test_is_refused(self, requires: Any, bounds: dict[str, Any], code: str) -> None:
        refused = code_of(requires, **bounds)
        assert refused in {code, "insufficient_capabilities"}
        assert code_of(requires) is None


class TestComputed:
    def test_what_the_function_says_is_required(self) -> None:
        requires = computed(lambda intent: DeskCap.sit(f"/{intent.room}/{intent.desk}"), within=DeskCap.sit("/**"))
        assert code_of(requires, DeskCap.sit(ROOM)) is None
        assert code_of(requires, DeskCap.sit("/cellar/*")) == "insufficient_capabilities"

    def test_all_that_it_says(self) -> None:
        def both(intent: Any) -> list[Grant]:
            return [DeskCap.sit(f"/{intent.room}/{intent.desk}"), DeskCap.move("/cellar/d")]

        requires = computed(both, within=DeskCap.own("/**"))
        assert code_of(requires, DeskCap.sit(ROOM)) == "insufficient_capabilities"
        assert code_of(requires, DeskCap.sit(ROOM), DeskCap.move("/cellar/d")) is None

    @pytest.mark.parametrize(
        "function",
        [
            lambda _: 1 / 0,
            lambda _: None,
            lambda _: [],
            lambda _: True,
            lambda _: "DeskCap.sit:/a/b",
            lambda _: DeskCap.sit("/**"),
            lambda _: DeskCap.sit("/{room}/d"),
            lambda _: DeskCap.own("/attic/d"),
            lambda _: DeskCap.sit("/cellar/d"),
            lambda intent: DeskCap.sit(f"/{intent.room}/../d"),
        ],
        ids=["raises", "nothing", "none", "yes", "text", "many", "template", "stronger", "elsewhere", "no path"],
    )
    def test_anything_else_is_a_denial(self, function: Callable[[Any], Any]) -> None:
        requires = computed(function, within=DeskCap.move("/attic/**"))
        assert code_of(requires, DeskCap.own("/**")) == "undecidable"

    @pytest.mark.parametrize(
        ("said", "code"), [(DeskCap.sit("/cellar/d"), None), (DeskCap.move("/cellar/d"), "undecidable")]
    )
    def test_of_several_bounds_one_must_include_all_of_it(self, said: Grant, code: str | None) -> None:
        bounds = [DeskCap.move("/attic/**"), DeskCap.sit("/cellar/**")]
        assert code_of(computed(lambda _: said, within=bounds), DeskCap.own("/**")) == code

    def test_it_is_asked_for_each_intent(self) -> None:
        """Two intents with the same fields in templates differ elsewhere: no decision is remembered across them."""
        requires = [SIT, computed(lambda intent: DeskCap.sit(f"/{intent.owner}/x"), within=DeskCap.sit("/**"))]
        topo, reactor, kind = topology(requires)
        driver = Driver(topo)
        token = driver.context(DeskCap.sit(ROOM), DeskCap.sit("/alice/x"))
        driver.send(kind(desk="d", owner="alice"), token)
        driver.send(kind(desk="d", owner="bob"), token)
        driver.send(kind(desk="d", owner="alice"), token)
        assert [letter.code for letter in driver.dead_letters()] == ["insufficient_capabilities"]
        assert driver.state(reactor, "d") == Desk(seen=["tester", "tester"])


class TestCaller:
    @pytest.mark.parametrize(
        ("requires", "said", "code"),
        [
            (caller(subject="{owner}"), {}, None),
            (caller(subject="{room}"), {}, "wrong_caller"),
            (caller(tenant="acme"), {"tenant": "acme"}, None),
            (caller(tenant="acme"), {"tenant": "acme2"}, "wrong_caller"),
            (caller(tenant="acme"), {}, "wrong_caller"),
            (caller(tenant=""), {}, "wrong_caller"),
            (caller(session="s1"), {"session": "s1"}, None),
            (caller(session="s1"), {}, "wrong_caller"),
            (caller(attributes={"team": "ops"}), {"attributes": {"team": "ops"}}, None),
            (caller(attributes={"team": "ops"}), {"attributes": {"team": "dev"}}, "wrong_caller"),
            (caller(attributes={"team": "ops"}), {"attributes": {"role": "ops"}}, "wrong_caller"),
            (caller(attributes={"subject": "alice"}), {}, "wrong_caller"),
        ],
    )
    def test_says_it_or_not(self, requires: Any, said: dict[str, Any], code: str | None) -> None:
        assert code_of([SIT, requires], DeskCap.sit(ROOM), intent={"owner": "alice"}, **said) == code

    @pytest.mark.parametrize(
        ("ago_s", "code"),
        [(0, None), (899, None), (900, "authentication_too_old"), (None, "authentication_too_old"), (-5, None)],
    )
    def test_authenticated_within(self, ago_s: int | None, code: str | None) -> None:
        at = datetime(2026, 1, 1, 12, tzinfo=UTC)
        proven = None if ago_s is None else at - timedelta(seconds=ago_s)
        requires = [SIT, caller(authenticated_within="15m")]
        assert code_of(requires, DeskCap.sit(ROOM), at=at, authenticated=proven) == code

    def test_ages_while_the_token_lives(self) -> None:
        topo, reactor, kind = topology([SIT, caller(authenticated_within="60s")])
        driver = Driver(topo)
        token = driver.context(DeskCap.sit(ROOM), subject="alice", authenticated=driver.now)
        driver.send(kind(desk="d"), token)
        driver.advance(60)
        driver.send(kind(desk="d"), token)
        assert [letter.code for letter in driver.dead_letters()] == ["authentication_too_old"]
        assert driver.state(reactor, "d") == Desk(seen=["alice"])


class TestDuring:
    OFFICE = during("mon-fri 09:00-17:00 Europe/London")

    @pytest.mark.parametrize(
        ("at", "code"),
        [
            (datetime(2026, 1, 5, 8, 59, 59, 999_000, UTC), "not_now"),
            (datetime(2026, 1, 5, 9, 0, tzinfo=UTC), None),
            (datetime(2026, 1, 5, 16, 59, 59, 999_000, UTC), None),
            (datetime(2026, 1, 5, 17, 0, tzinfo=UTC), "not_now"),
            (datetime(2026, 1, 4, 12, 0, tzinfo=UTC), "not_now"),
        ],
    )
    def test_to_the_millisecond(self, at: datetime, code: str | None) -> None:
        assert code_of([SIT, self.OFFICE], DeskCap.sit(ROOM), at=at) == code

    def test_is_asked_for_each_intent(self) -> None:
        topo, reactor, kind = topology([SIT, self.OFFICE])
        driver = Driver(topo, now=datetime(2026, 1, 5, 16, 59, tzinfo=UTC))
        token = driver.context(DeskCap.sit(ROOM))
        driver.send(kind(desk="d"), token)
        driver.advance(60)
        driver.send(kind(desk="d"), token)
        assert [letter.code for letter in driver.dead_letters()] == ["not_now"]
        assert driver.state(reactor, "d") == Desk(seen=["tester"])

    def test_a_calendar_of_the_topology(self) -> None:
        office = Calendar([When.parse("mon-fri 09:00-17:00 UTC")], "UTC", [datetime(2026, 1, 6, tzinfo=UTC).date()])
        requires = [SIT, during("calendar office")]
        for day, code in ((5, None), (6, "not_now")):
            at = datetime(2026, 1, day, 12, tzinfo=UTC)
            assert code_of(requires, DeskCap.sit(ROOM), at=at, calendars={"office": office}) == code


@rule("desk.same_room")
def same_room(intent: Any, who: Caller) -> bool | str:
    """The caller's attribute names the room."""
    if "room" not in who.attributes:
        raise LookupError
    if who.attributes["room"] == "nonsense":
        return 1  # type: ignore[return-value]
    return who.attributes["room"] == intent.room or "that is another room"


class TestRule:
    @pytest.mark.parametrize(
        ("room", "code"),
        [("attic", None), ("cellar", "denied_by_rule"), (None, "undecidable"), ("nonsense", "undecidable")],
    )
    def test_decides(self, room: str | None, code: str | None) -> None:
        attributes = None if room is None else {"room": room}
        assert code_of([SIT, same_room], DeskCap.sit(ROOM), attributes=attributes) == code

    def test_sees_what_holders_left_of_the_capabilities(self) -> None:
        seen: list[Caller] = []

        @rule("desk.spy")
        def spy(_: Any, who: Caller) -> bool:
            seen.append(who)
            return True

        topo, _, kind = topology([SIT, spy])
        driver = Driver(topo)
        token = attenuate(driver.context(DeskCap.own("/**")), driver.roots, capabilities=[DeskCap.move(ROOM)])
        driver.send(kind(desk="d"), token)
        assert driver.dead_letters() == []
        assert list(map(str, seen[0].capabilities)) == ["DeskCap.move:/attic/*"]


class TestWhereItIsRequired:
    def test_a_handler_may_require_more_and_then_nobody_handles_it(self) -> None:
        class Sit(Intent, name="desk.sit2", requires=PUBLIC):
            """Sit down."""

            desk: Annotated[str, Key]

        class Desks(Reactor[Desk], id="desks"):
            """Lets anybody."""

            @on
            def sit(self, intent: Sit, state: Desk, ctx: Context) -> Effects:
                state.seen.append(ctx.subject)
                return None

        class Log(Reactor[Desk], id="log"):
            """Does not."""

            @on(requires=DeskCap.own("/{desk}"))
            def sit(self, intent: Sit, state: Desk, ctx: Context) -> Effects:
                state.seen.append(ctx.subject)
                return None

        driver = Driver(Topology("desk", [Desks, Log]))
        driver.send(Sit(desk="d"))
        driver.send(Sit(desk="d"), driver.context(DeskCap.sit("/**")))
        driver.send(Sit(desk="d"), driver.context(DeskCap.own("/**")))
        codes = [letter.code for letter in driver.dead_letters()]
        assert codes == ["missing_context", "insufficient_capabilities"]
        assert driver.state(Desks, "d") == driver.state(Log, "d") == Desk(seen=["tester"])

    def test_a_topology_may_require_more(self) -> None:
        topo, reactor, kind = topology(SIT, more={"desk.sit": caller(tenant="acme")})
        driver = Driver(topo)
        driver.send(kind(desk="d"), driver.context(DeskCap.sit("/**")))
        driver.send(kind(desk="d"), driver.context(DeskCap.sit("/**"), tenant="acme"))
        assert [letter.code for letter in driver.dead_letters()] == ["wrong_caller"]
        assert driver.state(reactor, "d") == Desk(seen=["tester"])

    def test_emitted_contexts_keep_what_handlers_and_topologies_require(self) -> None:
        class Seat(Intent, name="desk.seat", topic="seats", requires=any_of(DeskCap.sit("/{desk}"), DeskCap.own("/"))):
            """Taken."""

            desk: Annotated[str, Key]

        class Sit(Intent, name="desk.sit3", requires=PUBLIC):
            """Sit down."""

            desk: Annotated[str, Key]
            later: bool = False

        class Desks(Reactor[Desk], id="desks"):
            """Takes a seat."""

            @on
            def sit(self, intent: Sit, state: Desk, ctx: Context) -> Effects:
                seat = Seat(desk=intent.desk)
                return Schedule(seat, after=1) if intent.later else Emit(seat)

        class Seats(Reactor[Desk], id="seats"):
            """Wants more than the type."""

            @on(requires=DeskCap.move("/{desk}"))
            def seat(self, intent: Seat, state: Desk, ctx: Context) -> Effects:
                state.seen.append(ctx.subject)
                return None

        more = {"desk.seat": computed(lambda intent: DeskCap.own(f"/top/{intent.desk}"), within=DeskCap.own("/top/*"))}
        driver = Driver(Topology("desk", [Desks, Seats], internal=["seats"], requires=more))
        enough = [DeskCap.move("/d"), DeskCap.own("/top/*")]
        for later in (False, True):
            driver.send(Sit(desk="d", later=later), driver.context(*enough, subject="enough"))
            driver.send(Sit(desk="d", later=later), driver.context(enough[0], subject="less"))
            driver.advance(2)
        assert driver.state(Seats, "d") == Desk(seen=["enough", "enough"])
        codes = [letter.code for letter in driver.dead_letters()]
        assert codes == ["insufficient_capabilities"] * 2
