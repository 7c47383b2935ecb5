"""Reactors that emit under an identity of their own, where the topology says so and nowhere else."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated

import pytest

from pf_stream import (
    PUBLIC,
    Caller,
    Capability,
    Context,
    DefinitionError,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Schedule,
    Service,
    State,
    Topology,
    on,
    operation,
)
from pf_stream.security import Claims, SigningKey, TrustRoots, Verifier
from pf_stream.testing import Driver


class LedgerCap(Capability):
    """What may be done with accounts: ``/{account}``."""

    order = operation()
    book = operation()


class Order(Intent, name="ledger.order", requires=LedgerCap.order("/{account}")):
    """Somebody wants something booked."""

    account: Annotated[str, Key]
    target: str = ""
    later: bool = False
    steps: int = 0


class Hello(Intent, name="ledger.hello", requires=PUBLIC):
    """Anybody may."""

    account: Annotated[str, Key]


class Book(Intent, name="ledger.book", topic="bookings", requires=LedgerCap.book("/{account}")):
    """Book it; callers may not."""

    account: Annotated[str, Key]
    steps: int = 0


class Seen(State):
    """Who asked."""

    callers: list[str] = dataclasses.field(default_factory=list)
    tenants: list[str | None] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)
    traces: list[list[str]] = dataclasses.field(default_factory=list)


def note(state: Seen, ctx: Context) -> None:
    """Write down who asked."""
    state.callers.append(ctx.subject)
    state.tenants.append(ctx.tenant)
    state.requests.append(ctx.request_id)
    state.traces.append(list(ctx.caller.trace))


class Orders(Reactor[Seen], id="orders"):
    """Has a booking made."""

    @on
    def order(self, intent: Order, state: Seen, ctx: Context) -> Effects:
        note(state, ctx)
        booking = Book(account=intent.target or intent.account, steps=intent.steps)
        return Schedule(booking, after=2) if intent.later else Emit(booking)

    @on
    def hello(self, intent: Hello, state: Seen, ctx: Context) -> Effects:
        return Emit(Book(account=intent.account))


class Ledger(Reactor[Seen], id="ledger"):
    """Makes bookings."""

    @on
    def book(self, intent: Book, state: Seen, ctx: Context) -> Effects:
        note(state, ctx)
        return Emit(Book(account=intent.account, steps=intent.steps - 1)) if intent.steps else None


def ledger(*grants: str, **services: Service) -> Topology:
    """The topology, in which orders are a service with these grants."""
    return Topology(
        "ledger",
        [Orders, Ledger],
        internal=["bookings"],
        services=services or {"orders": Service(7, grants or ["LedgerCap.book:/**"])},
    )


PLAIN = Topology("ledger", [Orders, Ledger], internal=["bookings"])
SUBJECT = "service:ledger/orders"


def state_of(driver: Driver, reactor: type[Reactor[Seen]], key: str) -> Seen:
    state = driver.state(reactor, key)
    assert state is not None
    return state


def codes(driver: Driver) -> list[str]:
    return [letter.code for letter in driver.dead_letters()]


@pytest.mark.parametrize("later", [False, True])
class TestService:
    def test_does_what_its_caller_may_not(self, later: bool) -> None:
        driver = Driver(ledger())
        driver.send(Order(account="a", later=later), driver.context(LedgerCap.order("/**"), tenant="acme"))
        driver.advance(10)
        state = state_of(driver, Ledger, "a")
        assert codes(driver) == []
        assert (state.callers, state.tenants) == ([SUBJECT], ["acme"])

    def test_only_where_it_is_written_down(self, later: bool) -> None:
        driver = Driver(PLAIN)
        driver.send(Order(account="a", later=later), driver.context(LedgerCap.order("/**")))
        driver.advance(10)
        assert codes(driver) == ["insufficient_capabilities"]
        assert driver.state(Ledger, "a") is None

    @pytest.mark.parametrize("grant", ["LedgerCap.order:/**", "LedgerCap.book:/b", "LedgerCap.book:/a/**x"[:-1]])
    def test_no_more_than_its_own_grants(self, grant: str, later: bool) -> None:
        driver = Driver(ledger(grant))
        driver.send(Order(account="a", later=later), driver.context(LedgerCap.order("/**"), LedgerCap.book("/**")))
        driver.advance(10)
        granted = grant == "LedgerCap.book:/a/**"
        assert codes(driver) == ([] if granted else ["insufficient_capabilities"]), "not its caller's either"

    def test_its_caller_must_still_be_allowed_to_ask(self, later: bool) -> None:
        driver = Driver(ledger())
        driver.send(Order(account="a", later=later), driver.context(LedgerCap.book("/**")))
        driver.advance(10)
        assert codes(driver) == ["insufficient_capabilities"]
        assert driver.state(Orders, "a") is None

    @pytest.mark.parametrize("target", ["a", "b", "c", "d"])
    def test_wherever_the_key_lives(self, later: bool, target: str) -> None:
        """In the lane that handles it or in another."""
        driver = Driver(ledger())
        driver.send(Order(account="a", target=target, later=later), driver.context(LedgerCap.order("/**")))
        driver.advance(10)
        assert state_of(driver, Ledger, target).callers == [SUBJECT]


def test_an_intent_that_anybody_may_send_causes_it_too() -> None:
    driver = Driver(ledger())
    driver.send(Hello(account="a"))
    state = state_of(driver, Ledger, "a")
    assert (state.callers, state.tenants) == ([SUBJECT], [None])


def test_what_follows_from_a_service_goes_under_its_context() -> None:
    driver = Driver(ledger())
    driver.send(Order(account="a", steps=2), driver.context(LedgerCap.order("/**"), tenant="acme"))
    state = state_of(driver, Ledger, "a")
    assert (state.callers, state.tenants) == ([SUBJECT] * 3, ["acme"] * 3)


def test_so_it_does_from_a_timer_of_a_service() -> None:
    driver = Driver(ledger())
    driver.send(Order(account="a", steps=2, later=True), driver.context(LedgerCap.order("/**"), tenant="acme"))
    driver.advance(10)
    state = state_of(driver, Ledger, "a")
    assert (state.callers, state.tenants) == ([SUBJECT] * 3, ["acme"] * 3)
    assert len(set(state.requests)) == 1
    assert codes(driver) == []


def test_a_timer_of_a_service_that_is_none_any_more_is_refused() -> None:
    driver = Driver(ledger())
    driver.send(Order(account="a", later=True), driver.context(LedgerCap.order("/**"), LedgerCap.book("/**")))
    driver.redeploy(PLAIN)
    driver.advance(10)
    assert codes(driver) == ["missing_context"]


def test_the_header_of_a_timer_is_worth_nothing_on_a_record() -> None:
    driver = Driver(ledger())
    forged = [("pf-service", b'["orders",null]')]
    driver.send(Order(account="a"), headers=forged)
    driver.send(Order(account="a"), headers=forged, not_before=datetime(2026, 12, 31, tzinfo=UTC))
    driver.advance(86_400 * 366)
    assert codes(driver) == ["missing_context"] * 2


def test_its_tokens_are_for_what_it_emits_alone_and_live_shortly() -> None:
    topology = ledger("LedgerCap.book:/**", "LedgerCap.order:/**")
    driver = Driver(topology)
    driver.send(Order(account="a"), driver.context(LedgerCap.order("/**")))
    (record,) = driver.outputs("ledger.bookings")
    key = driver._signing_key(7)
    claims = Verifier(TrustRoots.of(key), "ledger").verify(record.header("pf-context") or b"")
    assert isinstance(claims, Claims)
    assert list(map(str, claims.rights)) == ["LedgerCap.book:/*"]
    assert claims.is_limited_to(frozenset({"ledger.book.v1"}), frozenset({"ledger.bookings"}))
    assert claims.expires_ms <= driver.clock.now_ms() + 900_000


def test_its_tokens_are_reused_and_renewed() -> None:
    driver = Driver(ledger())
    token = driver.context(LedgerCap.order("/**"), lifetime_s=3600)
    for wait_s in (0, 299, 1, 0):
        driver.advance(wait_s)
        driver.send(Order(account="a"), token)
    tokens = [record.header("pf-context") for record in driver.outputs("ledger.bookings")]
    assert (tokens[0] == tokens[1], tokens[1] == tokens[2], tokens[2] == tokens[3]) == (True, False, True)


class TestDefinition:
    def test_grants_something(self) -> None:
        with pytest.raises(DefinitionError, match="grants nothing"):
            Service(7, [])

    @pytest.mark.parametrize("kid", [-1, 2**32])
    def test_is_signed_by_a_key(self, kid: int) -> None:
        with pytest.raises(DefinitionError, match="is no kid"):
            Service(kid, ["LedgerCap.book:/**"])

    def test_is_of_a_reactor(self) -> None:
        with pytest.raises(DefinitionError, match="there is no reactor 'order'; did you mean 'orders'"):
            ledger(order=Service(7, ["LedgerCap.book:/**"]))

    def test_survives_another_namespace(self) -> None:
        assert ledger().within("other").services == ledger().services


class TestRequest:
    """One request has one id, however far it goes, and its way is told."""

    def test_without_a_traceparent(self) -> None:
        driver = Driver(ledger())
        token = driver.context(LedgerCap.order("/**"))
        driver.send(Order(account="a", steps=3), token)
        driver.send(Order(account="a", steps=1), token)
        orders, bookings = state_of(driver, Orders, "a"), state_of(driver, Ledger, "a")
        first, second = orders.requests
        assert len(first) == 32
        assert first != second
        assert sorted(bookings.requests) == sorted([first] * 4 + [second] * 2)
        assert orders.traces == [[], []]
        longest = max(bookings.traces, key=len)
        assert longest == ["ledger/orders", "ledger/ledger", "ledger/ledger", "ledger/ledger"]

    def test_with_one(self) -> None:
        driver = Driver(ledger())
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers = [("traceparent", f"00-{trace}-00f067aa0ba902b7-01".encode()), ("pf-trace", b"forged")]
        driver.send(Order(account="a", steps=2), driver.context(LedgerCap.order("/**")), headers=headers)
        bookings = state_of(driver, Ledger, "a")
        assert state_of(driver, Orders, "a").requests + bookings.requests == [trace] * 4
        assert all("forged" not in trace for trace in bookings.traces)

    @pytest.mark.parametrize(
        "bad", [b"", b"x", b"00-0-0-0", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", b"00-" + b"A" * 32 + b"-0-01"]
    )
    def test_with_one_that_is_none(self, bad: bytes) -> None:
        driver = Driver(ledger())
        driver.send(Order(account="a", steps=2), driver.context(LedgerCap.order("/**")), headers=[("traceparent", bad)])
        requests = state_of(driver, Orders, "a").requests + state_of(driver, Ledger, "a").requests
        assert len(set(requests)) == 1
        assert len(requests[0]) == 32

    def test_is_told_of_the_latest_steps(self) -> None:
        driver = Driver(ledger())
        driver.send(Order(account="a", steps=15), driver.context(LedgerCap.order("/**")))
        traces = state_of(driver, Ledger, "a").traces
        assert max(map(len, traces)) == 16
        assert codes(driver) == []

    def test_the_caller_is_all_of_it(self) -> None:
        callers: list[Caller] = []

        class Spy(Reactor[Seen], id="spy"):
            """Keeps what it sees."""

            @on
            def order(self, intent: Order, state: Seen, ctx: Context) -> Effects:
                callers.append(ctx.caller)
                return None

        driver = Driver(Topology("ledger", [Spy]))
        driver.send(Order(account="a"), driver.context(LedgerCap.order("/**"), tenant="acme"))
        (who,) = callers
        assert (who.subject, who.tenant, who.audience, who.hops, who.trace) == ("tester", "acme", "ledger", 0, ())
        assert list(map(str, who.capabilities)) == ["LedgerCap.order:/**"]
        assert who.expires_ms == driver.clock.now_ms() + 900_000
        assert len(who.request_id) == 32


def test_a_worker_signs_with_the_key_that_it_was_given() -> None:
    """The driver makes one for each kid; two kids are two keys."""
    driver = Driver(ledger())
    assert driver._signing_key(7).public != driver._signing_key(8).public
    assert isinstance(driver._signing_key(7), SigningKey)
