"""The closed profile: what is inside it, and that its answers are the authoriser's."""

from random import Random

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pf_stream.model.capability import parse_grant
from pf_stream.security import Claims, Verifier
from pf_stream.security._authoriser import authorise
from pf_stream.security.profile import FOREVER_MS
from tests.unit.security.cases import (
    AUDIENCE,
    ENDS,
    IMPLIED_BY,
    NOW_MS,
    PLAIN,
    ROOTS,
    append,
    biscuit,
    by_authoriser,
    by_profile,
    claims,
    code,
    issue,
    random_case,
)

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class TestEqualAnswers:
    """The authoriser is the judge."""

    @settings(relaxed, max_examples=150)
    @given(st.randoms(use_true_random=False))
    def test_of_the_profile_and_the_authoriser(self, rng: Random) -> None:
        case = random_case(rng)
        token = case.token()
        answer = by_profile(case, token)
        event(f"granted: {answer}")
        assert answer == by_authoriser(case, biscuit(token))

    def test_the_cases_are_worth_it(self) -> None:
        """Both answers are common among them."""
        rng = Random(1)  # noqa: S311 - a seed, not a secret
        answers = [by_profile(case, case.token()) for case in (random_case(rng) for _ in range(150))]
        assert 25 <= sum(answers) <= 100

    @settings(relaxed, max_examples=40)
    @given(st.randoms(use_true_random=False), st.sampled_from([("check if true", True), ("check if 1 == 2", False)]))
    def test_of_an_open_token(self, rng: Random, more: tuple[str, bool]) -> None:
        case = random_case(rng)
        token = append(case.token(), more[0])
        seen = claims(token)
        assert not seen.closed
        refusal = seen.refusal(IMPLIED_BY[case.required], case.resource, case.intent_type, case.topic, case.at_ms)
        assert (refusal is None) == by_authoriser(case, biscuit(token))
        assert (refusal is None) == (more[1] and by_profile(case, case.token()))


INSIDE = [
    "check if time($t), $t < 2026-01-01T00:00:10Z",
    "check if time($t), $t >= 2026-01-01T00:00:00Z",
    "check if time($any_name), $any_name < 2026-01-01T00:00:10Z",
    'check if intent_type("t")',
    'check if intent_type("t") or intent_type("u")',
    'check if topic("q")',
    'check if topic("q") or topic("q")',
    'check if request("A.read", "/a/b")',
    'check if request("A.read", $r), $r.matches("^/a(/[^/]+)*$")',
    'check if request("A.x", "/a") or request("A.read", $x), $x.matches("^/[^/]+/b$")',
    'check if request("A.read", $r), $r.matches("^/a/b$")',
    "check if false",
    'check if topic("q"); check if topic("q") or topic("r"); check if intent_type("t")',
    'check if during("thu 00:00-00:01 UTC")',
    'check if during("fri 00:00-00:01 UTC")',
    'check if during("fri 00:00-00:01 UTC") or during("thu 00:00-00:01 UTC")',
    'check if during(" thu  00:00-00:01 UTC")',
    'check if during("some day") or during("not ../..")',
    'check if during("some day") or during("../..")',
    'check if during("calendar nobody")',
    'check if during("calendar shop"); check if during("thu 00:00-00:01 UTC")',
    'check if during("calendar shop"); check if during("not calendar shop")',
]

OUTSIDE = [
    "check if true",
    "check if time($t), $t <= 2026-01-01T00:00:10Z",
    "check if time($t), $t > 2026-01-01T00:00:00Z",
    "check if time($t), 2026-01-01T00:00:10Z > $t",
    "check if time($t), $t < 2026-01-01T00:00:10Z, $t > 2020-01-01T00:00:00Z",
    "check if time($t), $t < 2026-01-01T00:00:10Z or time($t), $t < 2026-01-01T00:00:10Z",
    "check if time($t), !($t < 2026-01-01T00:00:10Z)",
    "check if time($t)",
    "check if time(2026-01-01T00:00:00Z)",
    "check if time($t), time($u), $t < 2026-01-01T00:00:10Z",
    "check if time($t), topic($u), $t < 2026-01-01T00:00:10Z",
    "check all time($t), $t < 2026-01-01T00:00:10Z",
    "reject if time($t), $t < 2020-01-01T00:00:10Z",
    'check if intent_type($x), {"t"}.contains($x)',
    'check if intent_type("t") or topic("q")',
    'check if topic("q") or intent_type("t")',
    'check if topic("q"), topic("q")',
    'check if topic("q"), true',
    'check if topic("q", "q")',
    'check if topic("")',
    "check if topic(1)",
    "check if topic($q)",
    'check all topic("q")',
    'reject if topic("z")',
    'check if topic("q") trusting authority',
    'check if topic("q") trusting previous',
    "check if request($o, $r)",
    'check if request("A.read", $r)',
    'check if request($o, "/a/b")',
    'check if request("A.read", "/a/*")',
    'check if request("A.read", "/a/**")',
    'check if request("A.read", "a")',
    'check if request("A.read", "/a/b"), true',
    'check if request("not a name", "/a/b")',
    'check if request("A.read", "/a/b", 1)',
    'check if request("A.read", $r), $r.matches("^/a")',
    'check if request("A.read", $r), $r.matches("^/a/.*$")',
    'check if request("A.read", $r), $r.matches("/a/b")',
    'check if request("A.read", $r), $r.matches("^/a/b$|^/z$")',
    'check if request("A.read", $r), $r.matches("^/a/%62$")',
    'check if request("A.read", $r), $r.starts_with("/a")',
    'check if request("A.read", $r), $r.starts_with("^/a/b$")',
    'check if request("A.read", $r), $r != "^/a/b$"',
    'check if request("A.read", $r), !$r.matches("^/z$")',
    'check if request("A.read", $r), $r.matches("^/a/b$"), true',
    'check if request("A.read", $r), topic($t), $r.matches("^/a/b$")',
    'check if request("A.read", "/a/b") or true',
    "check if false or false",
    "check if during($w)",
    'check if during($w), $w.starts_with("thu")',
    'check if during("../.."), true',
    'check if during("../.."), during("not ../..")',
    'check if during("../..", 1)',
    'check if during("")',
    "check if during(1)",
    'check if during("../..") or topic("q")',
    'check if topic("z") or during("../..")',
    'check all during("../..")',
    'reject if during("../..")',
    'reject if during("not ../..")',
    'check if during("../..") trusting previous',
    'during("not ../.."); check if during("not ../..")',
    'during("not ../..") <- topic($t); check if during("not ../..")',
    'open("x") <- during("../.."); check if open("x")',
    'open("x") <- during("not ../.."); check if open("x")',
    'session("s")',
    'attribute("a", "b")',
    'check if right("A.read", "/a/**")',
    'check if audience("flights")',
    'topic("q")',
    'right("A.admin", "/**")',
    'right("A.admin", "/**") <- topic($t)',
]


HOLDING = ["thu 00:00-00:01 UTC", " thu  00:00-00:01 UTC", "../..", "calendar shop"]
"""Of the texts above, those that hold at ``NOW_MS``."""


def judged(token: str, **request: object) -> bool:
    """What the authoriser says about reading /a/b with *token*."""
    said = "".join(map(biscuit(token).block_source, range(biscuit(token).block_count())))
    during = [text for text in HOLDING if f'during("{text}")' in said]
    asked = {"intent_type": "t", "topic": "q", "at_ms": NOW_MS, "during": during, **request}
    refusal = authorise(
        biscuit(token),
        [parse_grant("A.read:/a/**")],
        operations={"A.read", "A.admin"},
        resource="/a/b",
        **asked,  # type: ignore[arg-type]
    )
    assert code(refusal) in {None, "check_failed"}
    return refusal is None


class TestForms:
    @pytest.mark.parametrize("block", ["authority", "attenuation"])
    @pytest.mark.parametrize("check", INSIDE)
    def test_inside(self, check: str, block: str) -> None:
        token = issue(f"{PLAIN}{ENDS}{check}") if block == "authority" else append(issue(PLAIN + ENDS), check)
        seen = claims(token)
        assert seen.closed
        for kind, topic in (("t", "q"), ("u", "q"), ("t", "r")):
            refusal = seen.refusal(frozenset({"A.read", "A.admin"}), "/a/b", kind, topic, NOW_MS)
            assert (refusal is None) == judged(token, intent_type=kind, topic=topic)

    @pytest.mark.parametrize("check", OUTSIDE)
    def test_outside_and_yet_decided(self, check: str) -> None:
        token = append(issue(PLAIN + ENDS), check)
        seen = claims(token)
        assert not seen.closed
        refusal = seen.refusal(frozenset({"A.read", "A.admin"}), "/a/b", "t", "q", NOW_MS)
        assert (refusal is None) == judged(token)
        assert code(seen.refusal(frozenset({"A.admin"}), "/a/b", "t", "q", NOW_MS)) == "insufficient_capabilities"

    @pytest.mark.parametrize(
        "more",
        ['role("x");', 'group("g") <- role($r);', 'check if topic("q") trusting previous;'],
    )
    def test_an_authority_block_with_more_is_open(self, more: str) -> None:
        seen = claims(issue(PLAIN + ENDS + more))
        assert not seen.closed
        assert seen.refusal(frozenset({"A.read"}), "/a/b", "t", "q", NOW_MS) is None

    @pytest.mark.parametrize(
        "source",
        [
            'topic("other"); check if topic("other")',
            'intent_type("other"); check if intent_type("other")',
            'intent_type("other") <- topic($t); check if intent_type("other")',
            "time(2020-01-01T00:00:00Z); check if time($t), $t < 2021-01-01T00:00:00Z",
            "time(2030-01-01T00:00:00Z); check if time($t), $t >= 2029-01-01T00:00:00Z",
            'request("X.y", "/z"); check if request("X.y", "/z")',
        ],
    )
    def test_a_block_that_makes_its_own_checks_hold_holds(self, source: str) -> None:
        """It is the holder's own narrowing; what it sees beside the request is the authoriser's to say."""
        seen = claims(append(issue(PLAIN + ENDS), source))
        assert not seen.closed
        assert (seen.not_before_ms, seen.expires_ms) == (0, NOW_MS + 900_000)
        assert seen.refusal(frozenset({"A.read"}), "/a/b", "t", "q", NOW_MS) is None

    def test_a_token_without_an_end_is_open(self) -> None:
        seen = claims(issue(PLAIN))
        assert (seen.closed, seen.not_before_ms, seen.expires_ms) == (False, 0, FOREVER_MS)
        assert seen.refusal(frozenset({"A.read"}), "/a/b", "t", "q", NOW_MS) is None

    def test_an_end_in_a_later_block_does_not_close_it(self) -> None:
        seen = claims(append(issue(PLAIN), ENDS))
        assert (seen.closed, seen.expires_ms) == (False, NOW_MS + 900_000)


class TestAuthority:
    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ('subject("a"); audience("flights");', "does not say pf(1) once"),
            ('pf(2); subject("a"); audience("flights");', "another version"),
            ('pf("1"); subject("a"); audience("flights");', "another version"),
            ('pf(1, 1); subject("a"); audience("flights");', "another version"),
            ('pf(1); pf(2); subject("a"); audience("flights");', "another version"),
            ('pf(1); pf(1); subject("a"); audience("flights");', "does not say pf(1) once"),
            ('pf(1); audience("flights");', "has no subject"),
            ('pf(1); subject("a");', "has no audience"),
            ('pf(1); subject("a"); subject("b"); audience("flights");', "says subject twice"),
            ('pf(1); subject("a"); audience("flights"); audience("other");', "says audience twice"),
            ('pf(1); subject("a"); audience("flights"); tenant("x"); tenant("y");', "says tenant twice"),
            ('pf(1); subject(""); audience("flights");', "subject is not 1 to 256 characters"),
            ('pf(1); subject(1); audience("flights");', "subject is not 1 to 256 characters"),
            ('pf(1); subject("a", "b"); audience("flights");', "subject is not 1 to 256 characters"),
            ('pf(1); subject("a\\nb"); audience("flights");', "subject is not 1 to 256 characters"),
            ('pf(1); subject("%s"); audience("flights");' % ("a" * 257), "subject is not 1 to 256 characters"),
            (PLAIN + 'right("A.read");', "a right is not"),
            (PLAIN + 'right("A.read", "/a", 1);', "a right is not"),
            (PLAIN + 'right("A.read", "/a", "some day");', "a right is not"),
            (PLAIN + 'right("A.read", "/a", "../..", "../..");', "a right is not"),
            (PLAIN + 'right("A.read", "/a during b");', "a right is not"),
            (PLAIN + 'session("a"); session("a");', "says session twice"),
            (PLAIN + 'session("");', "session is not 1 to 256 characters"),
            (PLAIN + "issued(2026-01-01T00:00:00Z); issued(2026-01-01T00:00:00Z);", "says issued twice"),
            (PLAIN + "issued(1);", "issued is not a date"),
            (PLAIN + 'authenticated("2026-01-01T00:00:00Z");', "authenticated is not a date"),
            (PLAIN + 'attribute("a", "b"); attribute("a", "c");', "says the attribute 'a' twice"),
            (PLAIN + 'attribute("a");', "an attribute is not"),
            (PLAIN + 'attribute("a", 1);', "an attribute is not"),
            (PLAIN + 'attribute("", "a");', "an attribute is not"),
            (PLAIN + 'attribute("a", "b\\n");', "an attribute is not"),
            (PLAIN + "".join(f'attribute("a{n}", "b");' for n in range(33)), "more than 32 attributes"),
            (PLAIN + 'during("../..");', "says during, which only the verifier may say"),
            (PLAIN + "during($t) <- topic($t);", "derives during by a rule"),
            (PLAIN + "session($t) <- topic($t);", "derives session by a rule"),
            (PLAIN + 'attribute("a", $t) <- topic($t);', "derives attribute by a rule"),
            (PLAIN + "issued($t) <- time($t);", "derives issued by a rule"),
            (PLAIN + "authenticated($t) <- time($t);", "derives authenticated by a rule"),
            (PLAIN + 'right("A.read", 1);', "a right is not"),
            (PLAIN + 'right("read", "/a");', "a right is not"),
            (PLAIN + 'right("A.read", "a");', "a right is not"),
            (PLAIN + 'right("A.read", "/a/../b");', "a right is not"),
            (PLAIN + 'request("A.read", "/a");', "says request, which only the verifier may say"),
            (PLAIN + "time(2026-01-01T00:00:00Z);", "says time, which"),
            (PLAIN + 'topic("q");', "says topic, which"),
            (PLAIN + 'intent_type("q");', "says intent_type, which"),
            (PLAIN + 'right("A.admin", "/**") <- topic($t);', "derives right by a rule"),
            (PLAIN + "subject($t) <- topic($t);", "derives subject by a rule"),
            (PLAIN + 'request("A.read", $r) <- request($o, $r);', "derives request by a rule"),
            (PLAIN + "pf(1) <- true;", "derives pf by a rule"),
        ],
    )
    def test_says_what_it_must_and_nothing_reserved(self, source: str, reason: str) -> None:
        outcome = Verifier(ROOTS, AUDIENCE).verify(issue(source + ENDS).encode())
        assert code(outcome) == "malformed_token"
        assert not isinstance(outcome, Claims)
        assert reason in outcome.reason

    def test_says_who_for_whom_and_where(self) -> None:
        seen = claims(issue(PLAIN + 'tenant("acme");' + ENDS))
        assert (seen.subject, seen.tenant, seen.audience) == ("alice", "acme", "flights")

    def test_says_what_else_the_issuer_knows(self) -> None:
        more = 'session("s"); attribute("a", "b"); attribute("c", "d");'
        dates = "issued(2026-01-01T00:00:00Z); authenticated(2025-12-31T23:59:59Z);"
        seen = claims(issue(PLAIN + more + dates + ENDS))
        assert seen.closed
        assert (seen.session, seen.attributes) == ("s", {"a": "b", "c": "d"})
        assert (seen.issued_ms, seen.authenticated_ms) == (NOW_MS, NOW_MS - 1000)
        plain = claims(issue(PLAIN + ENDS))
        assert (plain.session, plain.attributes, plain.issued_ms, plain.authenticated_ms) == (None, {}, None, None)
        with pytest.raises(TypeError):
            plain.attributes["a"] = "b"  # type: ignore[index]


class TestInjection:
    """A string is data, however it reads."""

    def test_a_subject_that_prints_as_a_right_is_none(self) -> None:
        name = 'x"); right("A.admin", "/**'
        token = issue("pf(1); subject({s}); audience({a});" + ENDS, {"s": name, "a": AUDIENCE})
        assert 'right("A.admin", "/**");' in biscuit(token).block_source(0), "the library's printer can be trusted now?"
        seen = claims(token)
        assert seen.subject == name
        assert code(seen.refusal(frozenset({"A.admin"}), "/a", "t", "q", NOW_MS)) == "insufficient_capabilities"

    def test_a_topic_that_prints_as_an_alternative_is_none(self) -> None:
        token = append(issue(PLAIN + ENDS), "check if topic({t})", {"t": 'x") or topic("q'})
        seen = claims(token)
        assert seen.closed
        assert code(seen.refusal(frozenset({"A.read"}), "/a/b", "t", "q", NOW_MS)) == "wrong_topic"


class TestLaterBlocksCannotWiden:
    @pytest.mark.parametrize(
        "source",
        [
            'right("A.admin", "/**"); right("A.read", "/**");',
            'right("A.admin", "/**") <- pf(1);',
            "right($o, $r) <- request($o, $r);",
            'request("A.read", "/a/b");',
            'audience("flights"); subject("root"); pf(1); pf(2);',
            'right("A.admin", "/**", "../.."); during("../.."); check if during("../..");',
            'trusting previous; right("A.admin", "/**") <- pf(1);',
        ],
    )
    def test_facts_and_rules_of_a_holder(self, source: str) -> None:
        seen = claims(append(issue(PLAIN + ENDS), source))
        assert seen.subject == "alice"
        assert code(seen.refusal(frozenset({"A.admin"}), "/a/b", "t", "q", NOW_MS)) == "insufficient_capabilities"
        assert code(seen.refusal(frozenset({"A.read"}), "/z", "t", "q", NOW_MS)) == "insufficient_capabilities"

    def test_nor_make_a_time_hold(self) -> None:
        limited = 'right("A.read", "/z", "not ../.."); check if during("fri 00:00-00:01 UTC") or during("../..");'
        token = append(issue(PLAIN + ENDS + limited), 'during("not ../.."); during("fri 00:00-00:01 UTC");')
        seen = claims(token)
        assert seen.refusal(frozenset({"A.read"}), "/a/b", "t", "q", NOW_MS) is None
        assert code(seen.refusal(frozenset({"A.read"}), "/z", "t", "q", NOW_MS)) == "not_now"
        closing = 'check if during("fri 00:00-00:01 UTC");'
        late = claims(append(issue(PLAIN + ENDS + closing), 'during("fri 00:00-00:01 UTC");'))
        assert code(late.refusal(frozenset({"A.read"}), "/a/b", "t", "q", NOW_MS)) == "not_now"

    def test_nor_make_an_earlier_check_hold(self) -> None:
        token = append(issue(PLAIN + ENDS + 'check if topic("q"); check if role("x");'), 'topic("q"); role("x");')
        seen = claims(token)
        assert code(seen.refusal(frozenset({"A.read"}), "/a/b", "t", "z", NOW_MS)) == "wrong_topic"
        assert code(seen.refusal(frozenset({"A.read"}), "/a/b", "t", "q", NOW_MS)) == "check_failed"
