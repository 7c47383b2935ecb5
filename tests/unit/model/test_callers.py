"""Callers: what goes on in somebody's name may never do more than they."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pf_stream.errors import DefinitionError
from pf_stream.model.callers import MAX_TRACE, Caller, RefusedCallerError, compose, composition, propagation
from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import Capability, operation


class CallCap(Capability):
    """What callers of these tests hold."""

    read = operation()
    write = operation(implies=read)
    clear = operation()
    admin = operation(implies=[write, clear])


SCOPES = ("/**", "/a/**", "/a", "/a/*", "/b/**")
HELD = [f"CallCap.{op}:{scope}" for op in ("read", "write", "clear", "admin") for scope in SCOPES]
capabilities = st.lists(st.sampled_from(HELD), max_size=4).map(lambda texts: Capabilities(*texts))
callers = st.builds(
    Caller,
    subject=st.sampled_from(["alice", "bob"]),
    tenant=st.just("acme"),
    audience=st.just("calls"),
    session=st.sampled_from([None, "s1", "s2"]),
    capabilities=capabilities,
    attributes=st.dictionaries(st.sampled_from(["team", "room"]), st.sampled_from(["x", "y"])),
    authenticated_ms=st.sampled_from([None, 0, 5, 10]),
    not_before_ms=st.integers(0, 5),
    expires_ms=st.integers(6, 20),
    request_id=st.sampled_from(["1" * 32, "2" * 32]),
    trace=st.lists(st.sampled_from(["t/a", "t/b"]), max_size=MAX_TRACE).map(tuple),
    hops=st.integers(0, 16),
)
asked = capabilities.flatmap(lambda held: st.sampled_from([None, held]))

ALICE = Caller(
    subject="alice",
    tenant="acme",
    audience="calls",
    capabilities=Capabilities("CallCap.write:/a/**"),
    attributes={"team": "x"},
    authenticated_ms=5,
    not_before_ms=1,
    expires_ms=100,
    request_id="1" * 32,
)


class TestPropagation:
    @given(callers, asked, st.sampled_from(["narrow", "inherit", "copy"]))
    def test_never_widens(self, caller: Caller, to: Capabilities | None, strategy: str) -> None:
        made = caller.propagate("t/x", to, strategy=strategy)
        assert made.capabilities <= caller.capabilities
        assert (made.subject, made.tenant, made.audience) == (caller.subject, caller.tenant, caller.audience)
        assert (made.not_before_ms, made.expires_ms) == (caller.not_before_ms, caller.expires_ms)
        assert made.trace == (*caller.trace, "t/x")[-MAX_TRACE:]
        assert made.hops == caller.hops + 1

    @given(callers, capabilities)
    def test_narrow_leaves_what_both_have(self, caller: Caller, to: Capabilities) -> None:
        made = caller.propagate("t/x", to)
        assert made.capabilities <= to
        assert made.capabilities == (caller.capabilities & to).minimal()
        assert made.request_id == caller.request_id

    @given(callers)
    def test_copy_is_another_request_and_the_same_one_each_time(self, caller: Caller) -> None:
        one, two = (caller.propagate("t/x", strategy="copy") for _ in range(2))
        assert one == two
        assert one.request_id != caller.request_id
        assert len(one.request_id) == 32
        assert one.capabilities == caller.capabilities

    def test_inherit_is_the_same_request(self) -> None:
        made = ALICE.propagate("t/x", Capabilities(), strategy="inherit")
        assert (made.request_id, made.capabilities) == (ALICE.request_id, ALICE.capabilities)

    def test_one_of_ones_own(self) -> None:
        @propagation("test-read-only")
        def read_only(caller: Caller, to: Capabilities | None) -> Caller:
            return replace(caller, capabilities=caller.capabilities & Capabilities("CallCap.read:/**"))

        made = ALICE.propagate("t/x", strategy="test-read-only")
        assert list(map(str, made.capabilities)) == ["CallCap.read:/a/**"]

    @pytest.mark.parametrize(
        ("wider", "fault"),
        [
            ({"capabilities": Capabilities("CallCap.write:/**")}, "it grants .*CallCap.write:/\\*\\*"),
            ({"capabilities": Capabilities("CallCap.admin:/a/**")}, "it grants"),
            ({"expires_ms": 101}, "valid for longer"),
            ({"not_before_ms": 0}, "valid for longer"),
            ({"tenant": "other"}, "another tenant"),
            ({"tenant": None}, "another tenant"),
            ({"audience": "other"}, "another audience"),
            ({"subject": "root"}, "another subject"),
            ({"session": "s1"}, "another session"),
            ({"attributes": {"team": "y"}}, "says team of itself"),
            ({"attributes": {"team": "x", "role": "boss"}}, "says role of itself"),
            ({"authenticated_ms": 6}, "authenticated later"),
        ],
    )
    def test_one_of_ones_own_that_widens_is_refused(self, wider: dict[str, Any], fault: str) -> None:
        propagation("test-wide")(lambda caller, _: replace(caller, **wider))
        with pytest.raises(RefusedCallerError, match=fault):
            ALICE.propagate("t/x", strategy="test-wide")

    @pytest.mark.parametrize("function", [lambda *_: 1 / 0, lambda *_: None, lambda: ALICE])
    def test_one_that_fails_is_a_denial(self, function: Callable[..., Any]) -> None:
        propagation("test-fails")(function)
        with pytest.raises(RefusedCallerError, match=r"it raised|which is no Caller"):
            ALICE.propagate("t/x", strategy="test-fails")

    def test_an_unknown_one(self) -> None:
        with pytest.raises(DefinitionError, match="there is none; did you mean 'narrow'"):
            ALICE.propagate("t/x", strategy="narow")

    @pytest.mark.parametrize("decorate", [propagation, composition])
    def test_the_librarys_own_are_not_replaced(self, decorate: Callable[[str], Any]) -> None:
        for name in ("narrow", "intersect"):
            with pytest.raises(DefinitionError, match="choose another name"):
                decorate(name)(lambda *_: ALICE)


class TestComposition:
    @given(callers, callers, st.sampled_from(["intersect", "merge", "override"]))
    def test_never_grants_what_neither_granted(self, one: Caller, other: Caller, strategy: str) -> None:
        made = compose(one, other, strategy=strategy)
        assert made.capabilities <= (one.capabilities | other.capabilities)
        for grant in made.capabilities:
            assert one.capabilities.implies(grant) or other.capabilities.implies(grant)
        assert made.expires_ms == min(one.expires_ms, other.expires_ms)
        assert made.not_before_ms == max(one.not_before_ms, other.not_before_ms)
        assert made.attributes.items() <= one.attributes.items() | other.attributes.items()
        assert made.request_id == one.request_id
        if None in (one.authenticated_ms, other.authenticated_ms):
            assert made.authenticated_ms is None

    @given(callers, callers)
    def test_the_default_is_what_both_grant(self, one: Caller, other: Caller) -> None:
        made = compose(one, other)
        assert made.capabilities == (one.capabilities & other.capabilities).minimal()
        assert made.capabilities <= one.capabilities
        assert made.capabilities <= other.capabilities
        assert made.attributes.items() == one.attributes.items() & other.attributes.items()

    @given(callers, callers)
    def test_merge_is_what_either_grants(self, one: Caller, other: Caller) -> None:
        made = compose(one, other, strategy="merge")
        assert (one.capabilities | other.capabilities) <= made.capabilities
        assert made.subject == one.subject
        assert made.attributes.items() == one.attributes.items() & other.attributes.items()

    @given(callers, callers)
    def test_override_is_what_the_other_says(self, one: Caller, other: Caller) -> None:
        made = compose(one, other, strategy="override")
        assert (made.subject, made.session, made.attributes) == (other.subject, other.session, other.attributes)
        assert made.capabilities == other.capabilities

    @pytest.mark.parametrize("more", [{"tenant": "other"}, {"tenant": None}, {"audience": "other"}])
    @pytest.mark.parametrize("strategy", ["intersect", "merge", "override"])
    def test_nothing_joins_two_tenants_or_audiences(self, more: dict[str, Any], strategy: str) -> None:
        with pytest.raises(RefusedCallerError, match="two tenants or audiences"):
            compose(ALICE, replace(ALICE, **more), strategy=strategy)

    @pytest.mark.parametrize(
        ("wider", "fault"),
        [
            ({"capabilities": Capabilities("CallCap.clear:/a")}, "which neither caller has"),
            ({"subject": "root"}, "another subject"),
            ({"tenant": "other"}, "another tenant"),
            ({"attributes": {"team": "z"}}, "says team of itself"),
        ],
    )
    def test_one_of_ones_own_that_grants_more_is_refused(self, wider: dict[str, Any], fault: str) -> None:
        composition("test-wide")(lambda one, _: replace(one, **wider))
        with pytest.raises(RefusedCallerError, match=fault):
            compose(ALICE, ALICE, strategy="test-wide")

    def test_one_of_ones_own_cannot_live_longer(self) -> None:
        composition("test-long")(lambda one, _: replace(one, expires_ms=10**12, not_before_ms=0, authenticated_ms=5))
        made = compose(ALICE, replace(ALICE, expires_ms=50, authenticated_ms=3), strategy="test-long")
        assert (made.not_before_ms, made.expires_ms, made.authenticated_ms) == (1, 50, 3)


def test_a_caller_without_a_token_holds_nothing() -> None:
    assert Caller().capabilities == Capabilities()
    assert Caller().subject == ""
