"""Sets of capabilities: their algebra, against families and sets of resources that are written out."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pf_stream.errors import DefinitionError
from pf_stream.model.capabilities import Capabilities, Explanation
from pf_stream.model.capability import (
    BadGrantError,
    Capability,
    HeldGrant,
    Operation,
    implied_by,
    implies,
    operation,
    parse_grant,
)
from pf_stream.model.scope import Scope
from pf_stream.model.when import BadWhenError, Calendar, When, between, calendar


class ShelfLog(Capability):
    note = operation()


class ShelfCap(Capability):
    read = operation()
    write = operation(implies=read)
    drop = operation(implies=ShelfLog.note)
    admin = operation(implies=[write, drop])


@dataclass(frozen=True)
class World:
    """Two random families, of which the second implies operations of the first too."""

    names: tuple[str, ...]
    steps: frozenset[tuple[str, str]]
    below: dict[str, frozenset[str]]
    """Per operation all that its holder may do, itself included."""


PAIRS = [(strong, weak) for strong in range(6) for weak in range(strong)]
UNKNOWN = "NobodyKnows.this"


@cache
def world(number: int) -> World:
    drawn = (number * 2654435761) >> 7  # any bits will do, and few worlds: families stay for as long as the process
    edges = [pair for bit, pair in enumerate(PAIRS) if drawn >> bit & 1]
    made: list[Operation] = []
    for family, first in ((f"World{number}A", 0), (f"World{number}B", 3)):
        body: dict[str, Operation] = {}
        for index in range(first, first + 3):
            op = operation(implies=[made[weak] for strong, weak in edges if strong == index])
            made.append(op)
            body[f"op{index}"] = op
        type(family, (Capability,), body)
    names = (*(op.name for op in made), UNKNOWN)
    below = {name: {name} for name in names}
    for strong, weak in edges:  # sorted by the stronger one, so what is below the weaker one is complete
        below[names[strong]] |= below[names[weak]]
    steps = frozenset((names[strong], names[weak]) for strong, weak in edges)
    return World(names, steps, {name: frozenset(all_of) for name, all_of in below.items()})


RESOURCES = ["/", *("/" + "/".join(path) for length in (1, 2, 3) for path in product("abz", repeat=length))]
SCOPES = [
    Scope(parts, below) for length in range(4) for parts in product("ab*", repeat=length) for below in (False, True)
]
scopes = st.sampled_from(SCOPES)

# Of the times, a state of the world is which of the calendars are open.
OPEN, CLOSED = Calendar([between(None, None)], "UTC"), Calendar([], "UTC")
STATES = [{"x": x, "y": y} for x, y in product((CLOSED, OPEN), repeat=2)]
LIMITS = [None, *map(When.parse, ("calendar x", "calendar y", "calendar x and calendar y"))]
limits = st.sampled_from(LIMITS)


@cache
def covered(scope: Scope) -> list[str]:
    """The resources in *scope*."""
    return [resource for resource in RESOURCES if scope.covers(resource)]


@cache
def held_in(limit: When | None) -> list[int]:
    """The states, by number, in which *limit* holds."""
    return [number for number, state in enumerate(STATES) if limit is None or limit.holds(0, state)]


@dataclass(frozen=True)
class Case:
    """Three sets of one world, and two grants that may be asked for."""

    world: World
    a: Capabilities
    b: Capabilities
    c: Capabilities
    wanted: HeldGrant
    other: HeldGrant

    def decisions(self, held: Capabilities) -> set[tuple[str, str, int]]:
        """Every operation on every resource that *held* grants in every state, found out by the slow way."""
        return {
            (name, resource, state)
            for grant in held
            for name in self.world.below[grant.operation]
            for resource in covered(grant.scope)
            for state in held_in(grant.during)
        }


@cache
def cases_of(number: int) -> st.SearchStrategy[Case]:
    made = world(number)
    grants = [HeldGrant(name, scope, limit) for name in made.names for scope in SCOPES for limit in LIMITS]
    strong = [
        HeldGrant(name, scope, limit)
        for name in made.names[2:]
        for scope in SCOPES
        if scope.below and len(scope.segments) < 2
        for limit in LIMITS[:2]
    ]
    # Of grants drawn blindly few would imply another one.
    sets = st.lists(st.sampled_from(strong) | st.sampled_from(grants), max_size=3).map(lambda held: Capabilities(*held))
    weak = st.sampled_from([grant for grant in grants if len(grant.scope.segments) > 1])
    return st.builds(Case, st.just(made), sets, sets, sets, weak | st.sampled_from(grants), weak)


cases = st.integers(0, 40).flatmap(cases_of)


def same(one: Capabilities, two: Capabilities) -> bool:
    return one <= two <= one


class TestValue:
    def test_is_made_of_grants_and_text(self) -> None:
        held = Capabilities("ShelfCap.write:/b", ShelfCap.read("/a/**"), parse_grant("Other.x:/"), "ShelfCap.write:/b")
        assert [str(grant) for grant in held] == ["Other.x:/", "ShelfCap.read:/a/**", "ShelfCap.write:/b"]
        assert repr(held) == "Capabilities('Other.x:/', 'ShelfCap.read:/a/**', 'ShelfCap.write:/b')"
        assert len(held) == 3
        assert not Capabilities()

    def test_is_equal_by_its_grants(self) -> None:
        one = Capabilities("ShelfCap.read:/a", "ShelfCap.write:/b")
        two = Capabilities(ShelfCap.write("/b"), ShelfCap.read("/a"))
        assert one == two
        assert hash(one) == hash(two)
        assert one != Capabilities("ShelfCap.read:/a")

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            Capabilities().grants = ()  # type: ignore[misc]

    def test_holds_no_template(self) -> None:
        with pytest.raises(DefinitionError, match="it is a template"):
            Capabilities(ShelfCap.read("/{x}"))

    def test_holds_no_other_text(self) -> None:
        with pytest.raises(BadGrantError, match="no ':'"):
            Capabilities("ShelfCap.read")

    @pytest.mark.parametrize("other", [None, "ShelfCap.read:/a", {"ShelfCap.read:/a"}])
    def test_mixes_with_nothing_else(self, other: object) -> None:
        held = Capabilities("ShelfCap.read:/a")
        for ask in (held.__or__, held.__and__, held.__sub__, held.__le__):
            assert ask(other) is NotImplemented


class TestImplies:
    def test_asks_with_a_grant_a_text_or_a_template(self) -> None:
        held = Capabilities("ShelfCap.write:/a/*")
        assert held.implies(ShelfCap.read("/a/b"))
        assert held.implies("ShelfCap.read:/a/b")
        assert held.implies(ShelfCap.read("/a/{x}"))
        assert not held.implies(ShelfCap.read("/a/{x...}"))
        assert not held.implies(ShelfCap.drop("/a/b"))
        assert not Capabilities().implies(ShelfCap.read("/a/b"))

    def test_is_decided_grant_by_grant(self) -> None:
        folder_and_below = Capabilities("ShelfCap.read:/a", "ShelfCap.read:/a/*/**")
        assert not folder_and_below.implies("ShelfCap.read:/a/**")
        assert all(folder_and_below.implies(f"ShelfCap.read:{path}") for path in ("/a", "/a/b", "/a/b/c"))

    def test_an_unknown_operation_implies_itself_alone(self) -> None:
        assert Capabilities("NobodyKnows.this:/**").implies("NobodyKnows.this:/a")
        assert not Capabilities("NobodyKnows.this:/**").implies("NobodyKnows.that:/a")
        assert not Capabilities("NobodyKnows.this:/**").implies(ShelfCap.read("/a"))
        assert not Capabilities(ShelfCap.admin("/**")).implies("ShelfCap.unheard_of:/a")
        assert implied_by("NobodyKnows.this") == {"NobodyKnows.this"}

    @given(cases)
    def test_is_that_some_grant_includes_it(self, case: Case) -> None:
        assert case.a.implies(case.wanted) == any(
            case.wanted.operation in case.world.below[grant.operation]
            and grant.scope.includes(case.wanted.scope)
            and set(held_in(case.wanted.during)) <= set(held_in(grant.during))
            for grant in case.a
        )

    @given(cases, st.sampled_from(RESOURCES))
    def test_loses_nothing_about_a_resource(self, case: Case, resource: str) -> None:
        wanted = HeldGrant(case.wanted.operation, Scope.parse(resource), case.wanted.during)
        granted = {
            state for name, path, state in case.decisions(case.a) if (name, path) == (wanted.operation, resource)
        }
        assert case.a.implies(wanted) == (set(held_in(wanted.during)) <= granted)

    @given(cases)
    def test_is_reflexive(self, case: Case) -> None:
        assert implies(case.wanted, case.wanted)
        assert case.a <= case.a
        assert all(map(case.a.implies, case.a))

    @given(cases)
    def test_is_transitive(self, case: Case) -> None:
        if case.a.implies(case.wanted) and implies(case.wanted, case.other):
            assert case.a.implies(case.other)
        weaker = case.b & case.c
        assert weaker <= case.c
        assert weaker & case.a <= case.c, "what is under what is under c is under c"

    @given(cases, scopes)
    def test_is_monotone_in_scope(self, case: Case, scope: Scope) -> None:
        narrower = scope.intersect(case.wanted.scope)
        if narrower is not None and case.a.implies(case.wanted):
            assert case.a.implies(HeldGrant(case.wanted.operation, narrower, case.wanted.during))
        if scope.includes(case.wanted.scope):
            wide = Capabilities(HeldGrant(case.wanted.operation, scope, case.wanted.during))
            assert wide.implies(case.wanted)
            assert Capabilities(case.wanted) <= wide

    @given(cases, limits)
    def test_is_monotone_in_time(self, case: Case, limit: When | None) -> None:
        if limit is not None and case.a.implies(case.wanted):
            during = limit if case.wanted.during is None else case.wanted.during & limit
            assert case.a.implies(HeldGrant(case.wanted.operation, case.wanted.scope, during))
        assert Capabilities(HeldGrant(case.wanted.operation, case.wanted.scope)).implies(case.wanted)

    def test_compares_times_by_their_parts(self) -> None:
        held = Capabilities("ShelfCap.write:/a/** during calendar x")
        assert held.implies("ShelfCap.read:/a/b during calendar x")
        assert held.implies("ShelfCap.read:/a/b during calendar y and calendar x")
        assert not held.implies("ShelfCap.read:/a/b during calendar x or calendar y")
        assert not held.implies("ShelfCap.read:/a/b during calendar y")
        assert not held.implies("ShelfCap.read:/a/b during not not calendar x"), "the same in other words"
        assert not held.implies("ShelfCap.read:/a/b")
        assert not held.implies(ShelfCap.read("/a/b"))
        assert Capabilities("ShelfCap.write:/a").implies("ShelfCap.read:/a during calendar x")


class TestUnion:
    @given(cases)
    def test_grants_what_either_grants(self, case: Case) -> None:
        both = case.a | case.b
        assert both.implies(case.wanted) == (case.a.implies(case.wanted) or case.b.implies(case.wanted))
        assert case.decisions(both) == case.decisions(case.a) | case.decisions(case.b)

    @given(cases)
    def test_is_the_least_upper_bound(self, case: Case) -> None:
        both = case.a | case.b
        assert case.a <= both
        assert case.b <= both
        assert (case.a <= case.c and case.b <= case.c) == (both <= case.c)

    @given(cases)
    def test_is_idempotent_commutative_and_associative(self, case: Case) -> None:
        assert case.a | case.a == case.a
        assert case.a | case.b == case.b | case.a
        assert (case.a | case.b) | case.c == case.a | (case.b | case.c)
        assert case.a | Capabilities() == case.a


class TestIntersection:
    def test_has_the_strongest_of_the_common_operations(self) -> None:
        met = Capabilities("ShelfCap.admin:/a/**") & Capabilities("ShelfCap.write:/*/b")
        assert met == Capabilities("ShelfCap.write:/a/b")
        assert Capabilities("ShelfCap.drop:/a") & Capabilities("ShelfCap.write:/a") == Capabilities()
        assert Capabilities("ShelfCap.drop:/a") & Capabilities("ShelfLog.note:/**") == Capabilities("ShelfLog.note:/a")

    def test_is_when_both_hold(self) -> None:
        met = Capabilities("ShelfCap.admin:/a/** during calendar y") & Capabilities(
            "ShelfCap.write:/*/b during calendar x", "ShelfLog.note:/**"
        )
        assert [str(grant) for grant in met] == [
            "ShelfCap.write:/a/b during calendar x and calendar y",
            "ShelfLog.note:/a/** during calendar y",
        ]

    def test_of_times_too_long_to_be_written(self) -> None:
        one, two = (Capabilities(HeldGrant("ShelfCap.read", Scope.ANY, calendar(name * 120))) for name in "xy")
        with pytest.raises(BadWhenError, match="256 are the most"):
            one & two

    def test_may_have_several_operations_of_one_pair(self) -> None:
        class ShelfTwo(Capability):
            low = operation()
            more = operation(implies=low)
            other = operation()
            left = operation(implies=[more, other])
            right = operation(implies=[other, more, low])

        met = Capabilities(ShelfTwo.left("/a")) & Capabilities(ShelfTwo.right("/**"))
        assert met == Capabilities("ShelfTwo.more:/a", "ShelfTwo.other:/a")

    @given(cases)
    def test_grants_what_both_grant_and_never_more(self, case: Case) -> None:
        met = case.a & case.b
        assert met.implies(case.wanted) == (case.a.implies(case.wanted) and case.b.implies(case.wanted))
        assert case.decisions(met) == case.decisions(case.a) & case.decisions(case.b)

    @given(cases)
    def test_is_the_greatest_lower_bound(self, case: Case) -> None:
        met = case.a & case.b
        assert met <= case.a
        assert met <= case.b
        assert (case.c <= case.a and case.c <= case.b) == (case.c <= met)
        under = case.c & met  # random sets are seldom under two others; this one is
        assert (under <= case.a, under <= case.b, under <= met) == (True, True, True)

    @given(cases)
    def test_is_idempotent_commutative_and_associative(self, case: Case) -> None:
        assert same(case.a & case.a, case.a)
        assert case.a & case.b == case.b & case.a
        assert same((case.a & case.b) & case.c, case.a & (case.b & case.c))
        assert case.a & Capabilities() == Capabilities()

    @given(cases)
    def test_absorbs_and_distributes(self, case: Case) -> None:
        assert same(case.a & (case.a | case.b), case.a)
        assert same(case.a | (case.a & case.b), case.a)
        assert same(case.a & (case.b | case.c), (case.a & case.b) | (case.a & case.c))


class TestMinimal:
    def test_leaves_out_what_another_grant_implies(self) -> None:
        held = Capabilities("ShelfCap.admin:/a/**", "ShelfCap.read:/a/b", "ShelfLog.note:/a", "ShelfLog.note:/b")
        assert held.minimal() == Capabilities("ShelfCap.admin:/a/**", "ShelfLog.note:/b")

    def test_leaves_out_what_another_grant_implies_at_more_times(self) -> None:
        texts = ("ShelfCap.read:/a during calendar x and calendar y", "ShelfCap.write:/a during calendar y")
        assert Capabilities(*texts).minimal() == Capabilities(texts[1])
        assert Capabilities(*texts, "ShelfCap.read:/**").minimal() == Capabilities(texts[1], "ShelfCap.read:/**")

    @given(cases)
    def test_keeps_the_meaning_in_the_fewest_grants(self, case: Case) -> None:
        least = case.a.minimal()
        assert same(least, case.a)
        assert set(least) <= set(case.a)
        for grant in least:
            assert not Capabilities(*(other for other in least if other != grant)).implies(grant)

    @given(cases)
    def test_is_the_same_for_sets_of_the_same_meaning(self, case: Case) -> None:
        assert (case.a | (case.a & case.b)).minimal() == case.a.minimal()
        assert same(case.a, case.b) == (case.a.minimal() == case.b.minimal())


class TestDifference:
    def test_takes_grants_whole(self) -> None:
        held = Capabilities("ShelfCap.read:/a/**", "ShelfCap.read:/b")
        assert held - Capabilities("ShelfCap.write:/a/x", "ShelfCap.write:/b") == Capabilities("ShelfCap.read:/a/**")

    @given(cases)
    def test_with_the_other_gives_back_all(self, case: Case) -> None:
        rest = case.a - case.b
        assert set(rest) <= set(case.a)
        assert case.a <= rest | case.b
        assert not any(map(case.b.implies, rest))
        assert (rest == Capabilities()) == (case.a <= case.b)


class TestExplain:
    held = Capabilities("ShelfCap.admin:/a/**", "ShelfCap.write:/b", "ShelfLog.note:/c")

    def test_by_which_grant_and_how(self) -> None:
        said = self.held.explain(ShelfLog.note("/a/x"))
        assert said == Explanation(
            required=parse_grant("ShelfLog.note:/a/x"),
            granted=True,
            by=parse_grant("ShelfCap.admin:/a/**"),
            chain=("ShelfCap.admin", "ShelfCap.drop", "ShelfLog.note"),
            nearest=None,
            missing="",
        )
        assert str(said) == (
            "granted: ShelfLog.note:/a/x\n"
            "  by ShelfCap.admin:/a/**, since ShelfCap.admin implies ShelfCap.drop implies ShelfLog.note"
        )

    def test_by_the_shortest_way(self) -> None:
        said = (self.held | Capabilities("ShelfCap.write:/a/*")).explain("ShelfCap.write:/a/x")
        assert (str(said.by), said.chain) == ("ShelfCap.write:/a/*", ("ShelfCap.write",))
        assert str(said) == "granted: ShelfCap.write:/a/x\n  by ShelfCap.write:/a/*"

    @pytest.mark.parametrize(
        ("required", "nearest"),
        [
            ("ShelfCap.read:/*", "ShelfCap.write:/b"),  # both overlap; by the shorter way
            ("ShelfCap.read:/*/x", "ShelfCap.admin:/a/**"),  # the only one that overlaps
            ("ShelfCap.write:/z", "ShelfCap.write:/b"),
            ("ShelfCap.admin:/b", "ShelfCap.admin:/a/**"),
            ("ShelfCap.unheard_of:/b", "ShelfCap.write:/b"),
            ("ShelfLog.note:/b", "ShelfLog.note:/c"),
            ("Elsewhere.x:/b", None),
        ],
    )
    def test_the_nearest_grant(self, required: str, nearest: str | None) -> None:
        assert self.held.explain(required).nearest == (None if nearest is None else parse_grant(nearest))

    def test_of_times(self) -> None:
        held = Capabilities("ShelfCap.write:/a/** during calendar x")
        assert str(held.explain("ShelfCap.read:/a/b during calendar x")) == (
            "granted: ShelfCap.read:/a/b during calendar x\n"
            "  by ShelfCap.write:/a/** during calendar x, since ShelfCap.write implies ShelfCap.read"
        )
        assert str(held.explain("ShelfCap.write:/a/b")) == (
            "refused: ShelfCap.write:/a/b\n  nearest: ShelfCap.write:/a/** during calendar x\n"
            "  Hold ShelfCap.write:/a/b, or ShelfCap.admin on that scope."
        )

    def test_what_would_have_to_be_held(self) -> None:
        said = Capabilities("ShelfCap.read:/a").explain(ShelfCap.write("/b/{x}"))
        assert str(said) == (
            "refused: ShelfCap.write:/b/*\n  nearest: ShelfCap.read:/a\n"
            "  Hold ShelfCap.write:/b/*, or ShelfCap.admin on that scope."
        )
        assert Capabilities().explain("ShelfCap.read:/a").missing == (
            "Hold ShelfCap.read:/a, or ShelfCap.admin or ShelfCap.write on that scope."
        )
        assert str(Capabilities().explain("ShelfCap.admin:/a")) == (
            "refused: ShelfCap.admin:/a\n  Hold ShelfCap.admin:/a; nothing else implies it."
        )
        assert Capabilities().explain("ShelfCap.unheard_of:/a").missing == (
            "Hold ShelfCap.unheard_of:/a; no operation of that name is known here, so nothing else implies it."
        )

    @given(cases)
    def test_agrees_with_implies(self, case: Case) -> None:
        said = case.a.explain(case.wanted)
        assert said.granted == case.a.implies(case.wanted) == (said.by is not None) == bool(said.chain)
        assert said.granted == (not said.missing)
        assert len(str(said).splitlines()) in {2, 3}
        if said.by is not None:
            assert said.by in set(case.a)
            assert implies(said.by, case.wanted)
            assert (said.chain[0], said.chain[-1]) == (said.by.operation, case.wanted.operation)
            assert set(pairwise(said.chain)) <= case.world.steps
            assert said.nearest is None
        elif said.nearest is not None:
            assert said.nearest in set(case.a)

    @given(cases)
    def test_no_shorter_way_is_there(self, case: Case) -> None:
        chain = case.a.explain(case.wanted).chain
        for one, two in (
            (one, two) for gap in range(2, len(chain)) for one, two in zip(chain, chain[gap:], strict=False)
        ):
            assert (one, two) not in case.world.steps

    @given(cases)
    def test_holding_what_is_missing_is_enough(self, case: Case) -> None:
        said = case.a.explain(case.wanted)
        if not said.granted:
            assert str(case.wanted) in said.missing
            for stronger in implied_by(case.wanted.operation):
                assert (case.a | Capabilities(HeldGrant(stronger, case.wanted.scope))).implies(case.wanted)
