"""Minting, narrowing, describing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.errors import DefinitionError
from pf_stream.model.capability import Capability, Grant, HeldGrant, operation, parse_grant
from pf_stream.model.scope import Scope
from pf_stream.model.when import BadWhenError, When, weekly
from pf_stream.security import MAX_BLOCKS, SigningKey, TokenError, TrustRoots, attenuate, describe, mint
from pf_stream.security.envelope import Envelope, to_base64url
from pf_stream.security.profile import FOREVER_MS, LONGEST_NAME
from tests.unit.security.cases import (
    AUDIENCE,
    KEY,
    NOW_MS,
    PLAIN,
    ROOTS,
    append,
    claims,
    code,
    field,
    issue,
    joined,
    parts,
)


class TokenCap(Capability):
    read = operation()
    admin = operation(implies=read)


def made(**more: object) -> str:
    options: dict[str, object] = {
        "subject": "alice",
        "audience": AUDIENCE,
        "capabilities": [TokenCap.read("/a/**")],
        "now_ms": NOW_MS,
    }
    return mint(KEY, **(options | more))  # type: ignore[arg-type]


names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20)


class TestMint:
    def test_says_what_was_asked(self) -> None:
        held = [TokenCap.read("/a/**"), parse_grant("UnknownCap.x:/b"), TokenCap.read("/a/**")]
        info = describe(made(capabilities=held, tenant="acme", intent_types=["t", "u"], topics=["q"]))
        says = info
        assert (info.kid, info.blocks, info.sealed) == (7, 1, False)
        assert (says.subject, says.tenant, says.audience) == ("alice", "acme", AUDIENCE)
        assert says.capabilities == (parse_grant("TokenCap.read:/a/**"), parse_grant("UnknownCap.x:/b"))
        assert (says.intent_types, says.topics, says.narrowed_to) == (frozenset("tu"), frozenset("q"), ())
        assert (says.not_before_ms, says.expires_ms) == (0, NOW_MS + 900_000)
        assert says.in_profile
        assert (says.issued_ms, says.authenticated_ms, says.session, says.attributes) == (NOW_MS, None, None, {})
        assert says.during == ()

    def test_says_what_the_issuer_knows(self) -> None:
        more = {"session": "s", "attributes": {"a": "b", "c": 'd"'}, "authenticated_ms": NOW_MS - 1}
        says = describe(made(**more, now_ms=NOW_MS + 999))
        assert (says.session, says.attributes, says.in_profile) == ("s", {"a": "b", "c": 'd"'}, True)
        assert (says.issued_ms, says.authenticated_ms) == (NOW_MS, NOW_MS - 1000), "rounded down"

    def test_says_when(self) -> None:
        office, night = When.parse("mon-fri 09:00-17:00 UTC"), weekly("daily", "22:00", "04:00", zone="UTC")
        limited = parse_grant("TokenCap.read:/a/** during calendar office")
        says = describe(made(during=[" mon-fri 09:00-17:00 UTC", night, office], capabilities=[limited]))
        assert says.during == ((office, night),)
        assert says.capabilities == (limited,)
        assert says.in_profile

    @settings(deadline=None, max_examples=50)
    @given(names, names, st.none() | names, st.lists(names, min_size=1, max_size=3))
    def test_any_name_comes_back_as_it_was(
        self, subject: str, audience: str, tenant: str | None, topics: list[str]
    ) -> None:
        token = made(subject=subject, audience=audience, tenant=tenant, topics=topics, intent_types=topics)
        seen = claims(token, audience)
        assert (seen.subject, seen.audience, seen.tenant, seen.closed) == (subject, audience, tenant, True)
        assert describe(token).topics == describe(token).intent_types == frozenset(topics)

    def test_one_spelling_without_padding(self) -> None:
        assert all("=" not in made(subject="a" * n) for n in range(1, 4))

    @pytest.mark.parametrize(
        ("now_ms", "lifetime_s", "not_before_ms", "interval"),
        [
            (NOW_MS, 900, None, (0, NOW_MS + 900_000)),
            (NOW_MS + 1, 900, None, (0, NOW_MS + 900_000)),
            (NOW_MS + 999, 900, None, (0, NOW_MS + 900_000)),
            (NOW_MS + 999, 0.002, None, (0, NOW_MS + 1000)),
            (NOW_MS, 1.999, None, (0, NOW_MS + 1000)),
            (NOW_MS, 9, NOW_MS + 1, (NOW_MS + 1000, NOW_MS + 9000)),
            (NOW_MS, 9, NOW_MS + 1000, (NOW_MS + 1000, NOW_MS + 9000)),
            (NOW_MS, 9, 0, (0, NOW_MS + 9000)),
        ],
    )
    def test_never_longer_than_asked(
        self, now_ms: int, lifetime_s: float, not_before_ms: int | None, interval: tuple[int, int]
    ) -> None:
        says = describe(made(now_ms=now_ms, lifetime_s=lifetime_s, not_before_ms=not_before_ms))
        assert (says.not_before_ms, says.expires_ms) == interval

    @pytest.mark.parametrize(
        ("more", "fault"),
        [
            ({"lifetime_s": 0}, "would never be valid"),
            ({"lifetime_s": 0.999}, "would never be valid"),
            ({"lifetime_s": -1}, "would never be valid"),
            ({"lifetime_s": 2, "not_before_ms": NOW_MS + 1001}, "would never be valid"),
            ({"lifetime_s": 1e13}, "after 9999"),
            ({"not_before_ms": -1001}, "before 1970"),
            ({"subject": ""}, "the subject must have 1 to 256 characters"),
            ({"subject": "a\nb"}, "the subject must have 1 to 256 characters"),
            ({"subject": "a" * (LONGEST_NAME + 1)}, "the subject must have"),
            ({"audience": ""}, "the audience must have"),
            ({"tenant": ""}, "the tenant must have"),
            ({"intent_types": [""]}, "a intent_type must have"),
            ({"topics": ["\0"]}, "a topic must have"),
            ({"session": ""}, "the session must have"),
            ({"attributes": {"": "a"}}, "an attribute's key must have"),
            ({"attributes": {"a": "\n"}}, "the attribute 'a' must have"),
            ({"attributes": {str(n): "a" for n in range(33)}}, "33 attributes, and 32 are the most"),
            ({"authenticated_ms": -1}, "before 1970"),
            ({"during": []}, "the list of times is empty"),
            ({"intent_types": []}, "the list of intent_types is empty"),
            ({"topics": []}, "the list of topics is empty"),
            ({"capabilities": [HeldGrant("A.b", Scope.parse("/" + "x" * 9000))]}, "8192 are the most"),
        ],
    )
    def test_refuses_what_no_verifier_would_take(self, more: dict[str, object], fault: str) -> None:
        with pytest.raises(TokenError, match=fault) as caught:
            made(**more)
        assert caught.value.code == "bad_token"

    def test_a_template_cannot_be_held(self) -> None:
        with pytest.raises(DefinitionError, match="template"):
            made(capabilities=[TokenCap.read("/{x}")])

    def test_a_time_is_one(self) -> None:
        with pytest.raises(BadWhenError, match="'some' is no day"):
            made(during=["some 09:00-17:00 UTC"])

    def test_without_capabilities(self) -> None:
        assert describe(made(capabilities=[])).capabilities == ()


class TestAttenuate:
    @pytest.mark.parametrize("as_bytes", [False, True])
    def test_narrows(self, as_bytes: bool) -> None:
        parent = made()
        narrow = attenuate(
            parent.encode() if as_bytes else parent,
            ROOTS,
            capabilities=[TokenCap.read("/a/*"), parse_grant("TokenCap.read:/a")],
            intent_types=["t"],
            topics=["q"],
            expires_ms=NOW_MS + 1999,
            during=["calendar b", "calendar a"],
        )
        info = describe(narrow)
        assert info.blocks == 2
        assert info.in_profile
        assert info.capabilities == describe(parent).capabilities
        assert info.narrowed_to == ((parse_grant("TokenCap.read:/a/*"), parse_grant("TokenCap.read:/a")),)
        assert (info.intent_types, info.topics) == (frozenset("t"), frozenset("q"))
        assert info.expires_ms == NOW_MS + 1000
        assert info.during == ((When.parse("calendar b"), When.parse("calendar a")),)

    def test_what_is_requested_has_no_time(self) -> None:
        with pytest.raises(TokenError, match="what is requested has no time; pass the time as during"):
            attenuate(made(), ROOTS, capabilities=[parse_grant("A.b:/ during ../..")])

    def test_by_a_time_alone(self) -> None:
        assert describe(attenuate(made(), ROOTS, during=["../.."])).blocks == 2

    def test_a_later_end_or_a_wider_grant_changes_nothing(self) -> None:
        wider = attenuate(
            made(), ROOTS, capabilities=[TokenCap.admin("/**"), TokenCap.read("/**")], expires_ms=NOW_MS * 2
        )
        seen = claims(wider)
        assert seen.expires_ms == NOW_MS + 900_000
        assert code(seen.refusal(frozenset({"TokenCap.admin"}), "/a", "t", "q", NOW_MS)) == "insufficient_capabilities"
        assert code(seen.refusal(TokenCap.read.implied_by, "/b", "t", "q", NOW_MS)) == "insufficient_capabilities"
        assert seen.refusal(TokenCap.read.implied_by, "/a", "t", "q", NOW_MS) is None

    def test_an_implied_operation_is_left_of_a_stronger_one(self) -> None:
        narrow = attenuate(made(capabilities=[TokenCap.admin("/a/**")]), ROOTS, capabilities=[TokenCap.read("/a/b")])
        seen = claims(narrow)
        assert seen.refusal(TokenCap.read.implied_by, "/a/b", "t", "q", NOW_MS) is None
        assert code(seen.refusal(TokenCap.admin.implied_by, "/a/b", "t", "q", NOW_MS)) == "insufficient_capabilities"

    def test_an_open_token_can_be_narrowed(self) -> None:
        narrow = attenuate(append(issue(PLAIN), "check if true"), ROOTS, topics=["q"])
        assert describe(narrow).topics == frozenset("q")
        assert describe(narrow).expires_ms == FOREVER_MS

    def test_nothing_is_no_narrowing(self) -> None:
        with pytest.raises(TokenError, match="nothing to narrow"):
            attenuate(made(), ROOTS)

    @pytest.mark.parametrize(
        "more", [{"during": []}, {"topics": []}, {"intent_types": []}, {"topics": [""]}, {"expires_ms": -1}]
    )
    def test_bounds_are_bounds(self, more: dict[str, object]) -> None:
        with pytest.raises(TokenError):
            attenuate(made(), ROOTS, **more)  # type: ignore[arg-type]

    def test_only_a_genuine_token(self) -> None:
        forged = mint(SigningKey.generate(7), subject="a", audience="b", capabilities=[], now_ms=NOW_MS)
        with pytest.raises(TokenError, match="not genuine"):
            attenuate(forged, ROOTS, topics=["q"])
        with pytest.raises(TokenError, match="signed by key 7, which is not among the trust roots"):
            attenuate(forged, TrustRoots({}), topics=["q"])
        with pytest.raises(TokenError, match="cannot be read"):
            attenuate("nonsense!", ROOTS, topics=["q"])
        with pytest.raises(TokenError, match="cannot be read"):
            attenuate("ü\ud800", ROOTS, topics=["q"])

    def test_not_beyond_the_limits(self) -> None:
        token = made()
        for _ in range(MAX_BLOCKS - 1):
            token = attenuate(token, ROOTS, topics=["q"])
        with pytest.raises(TokenError, match="8 blocks already, and 8 are the most"):
            attenuate(token, ROOTS, topics=["q"])
        with pytest.raises(TokenError, match="8192 are the most"):
            attenuate(made(), ROOTS, topics=["x" * 250 + str(n) for n in range(40)])

    def test_not_a_sealed_one(self) -> None:
        fields = parts(Envelope.read(made().encode()).data)
        sealed = to_base64url(joined([*fields[:-1], (4, field(2, b"\0" * 64))]))
        assert describe(sealed).sealed
        with pytest.raises(TokenError, match="sealed"):
            attenuate(sealed, ROOTS, topics=["q"])


class TestDescribe:
    def test_does_not_verify(self) -> None:
        forged = mint(SigningKey.generate(9), subject="mallory", audience="x", capabilities=[], now_ms=NOW_MS)
        assert (describe(forged).subject, describe(forged).kid) == ("mallory", 9)

    def test_of_a_time_that_cannot_be_read(self) -> None:
        """It never holds."""
        info = describe(append(made(), 'check if during("some day") or during("../.."); check if during("some day")'))
        assert (info.during, info.in_profile) == (((When.parse("../.."),), ()), True)

    def test_of_an_open_token_says_so(self) -> None:
        assert not describe(append(made(), "check if true")).in_profile

    @pytest.mark.parametrize("token", ["", "nonsense", "AAAA", b"\xff"])
    def test_of_no_token(self, token: str | bytes) -> None:
        with pytest.raises(TokenError, match="cannot be read"):
            describe(token)


def test_a_grant_and_its_held_form_make_the_same_token() -> None:
    grants: list[Grant | HeldGrant] = [TokenCap.read("/a/**"), HeldGrant.of(TokenCap.read("/a/**"))]
    assert len({describe(made(capabilities=[grant])).capabilities for grant in grants}) == 1
