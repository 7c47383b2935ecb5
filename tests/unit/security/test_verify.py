"""The verifier: what it believes, what it refuses with which code, and what it remembers."""

import re
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Final

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pf_stream.model.capability import parse_grant
from pf_stream.model.scope import Scope
from pf_stream.model.when import Calendar, When, weekly
from pf_stream.security import (
    MAX_BLOCKS,
    MAX_TOKEN_BYTES,
    Claims,
    Refusal,
    SigningKey,
    TrustRoots,
    Verifier,
    attenuate,
    mint,
)
from pf_stream.security._authoriser import authorise, is_library_failure
from pf_stream.security.envelope import Envelope, to_base64url
from tests.unit.security.cases import (
    AUDIENCE,
    CALENDARS,
    ENDS,
    IMPLIED_BY,
    KEY,
    NOW_MS,
    OTHER_KEY,
    PLAIN,
    ROOTS,
    append,
    biscuit,
    claims,
    code,
    decided,
    field,
    issue,
    joined,
    parts,
    random_case,
    random_scope,
    resource_of,
    varint,
)

READ = frozenset({"A.read", "A.admin"})
END_MS = NOW_MS + 900_000


def minted(subject: str = "alice", key: SigningKey = KEY, **more: object) -> str:
    options: dict[str, object] = {
        "audience": AUDIENCE,
        "capabilities": [parse_grant("A.read:/a/**")],
        "now_ms": NOW_MS,
        **more,
    }
    return mint(key, subject=subject, **options)  # type: ignore[arg-type]


TOKEN = minted()
NARROW = attenuate(attenuate(TOKEN, ROOTS, topics=["q"]), ROOTS, intent_types=["t"])
RAW = Envelope.read(NARROW.encode()).data


@pytest.fixture
def verifier() -> Verifier:
    return Verifier(ROOTS, AUDIENCE)


def refused(token: str | bytes, verifier: Verifier | None = None) -> Refusal:
    outcome = (verifier or Verifier(ROOTS, AUDIENCE)).verify(token if isinstance(token, bytes) else token.encode())
    assert isinstance(outcome, Refusal), outcome
    return outcome


class TestAccepted:
    def test_says_what_was_minted(self) -> None:
        seen = claims(minted(tenant="acme", not_before_ms=NOW_MS + 1))
        assert (seen.subject, seen.tenant, seen.audience, seen.closed) == ("alice", "acme", AUDIENCE, True)
        assert (seen.not_before_ms, seen.expires_ms) == (NOW_MS + 1000, END_MS)
        assert len(seen.revocation_ids) == 1

    def test_keeps_the_token_as_it_came(self) -> None:
        assert claims(TOKEN).token == TOKEN.encode()

    def test_revocation_ids_are_the_librarys(self) -> None:
        assert list(claims(NARROW).revocation_ids) == biscuit(NARROW).revocation_ids
        assert claims(NARROW).revocation_ids[0] == claims(TOKEN).revocation_ids[0]

    def test_a_sealed_token(self) -> None:
        # The library cannot seal from Python: proof 1 (nextSecret) is all we meet, and proof 2 is refused or holds.
        assert code(refused(to_base64url(joined([*parts(RAW)[:-1], (4, field(2, b"\0" * 64))])))) == "bad_signature"


class TestTime:
    @pytest.mark.parametrize(
        ("at_ms", "expected"),
        [
            (NOW_MS + 999, "token_not_yet_valid"),
            (NOW_MS + 1000, None),
            (END_MS - 1, None),
            (END_MS, "token_expired"),
            (END_MS + 1, "token_expired"),
            (0, "token_not_yet_valid"),
        ],
    )
    def test_is_half_open_to_the_millisecond(self, at_ms: int, expected: str | None) -> None:
        token = minted(not_before_ms=NOW_MS + 1000)
        assert code(claims(token).valid_at(at_ms)) == expected
        assert code(claims(append(token, "check if true")).refusal(READ, "/a", "t", "q", at_ms)) == expected

    def test_the_earliest_end_and_the_latest_start_count(self) -> None:
        narrow = append(
            attenuate(attenuate(TOKEN, ROOTS, expires_ms=NOW_MS + 5999), ROOTS, expires_ms=NOW_MS + 9000),
            "check if time($t), $t >= 2026-01-01T00:00:02Z; check if time($t), $t >= 2026-01-01T00:00:01Z",
        )
        seen = claims(narrow)
        assert (seen.not_before_ms, seen.expires_ms, seen.closed) == (NOW_MS + 2000, NOW_MS + 5000, True)

    def test_the_decision_of_a_closed_token_is_not_about_time(self) -> None:
        seen = claims(NARROW)
        assert {code(seen.refusal(READ, "/a/b", "t", "q", at)) for at in (0, NOW_MS, END_MS, 2**62)} == {None}

    def test_a_time_that_no_clock_shows_is_a_denial(self) -> None:
        seen = claims(append(issue(PLAIN), "check if true"))
        assert code(seen.refusal(READ, "/a", "t", "q", 2**62)) == "undecidable"
        assert code(seen.refusal(READ, "/a", "t", "q", -1)) == "token_not_yet_valid"


READS = frozenset({"A.read"})
HOURS = "thu 00:00-00:01 UTC"
MINUTE_MS = 60_000


class TestDuring:
    """Limits to times of the day, days and calendars; the first minute of ``NOW_MS`` is in ``HOURS``."""

    def test_a_check_is_half_open_to_the_millisecond(self) -> None:
        seen = claims(minted(during=[HOURS]))
        assert (seen.closed, seen.timed, seen.during) == (True, True, ((When.parse(HOURS),),))
        edges = (NOW_MS - 1, NOW_MS, NOW_MS + MINUTE_MS - 1, NOW_MS + MINUTE_MS)
        assert [code(seen.refusal(READ, "/a", "t", "q", at)) for at in edges] == ["not_now", None, None, "not_now"]
        assert [code(seen.misuse("t", "q", at)) for at in edges] == ["not_now", None, None, "not_now"]
        assert [code(seen.untimely(at)) for at in edges] == ["not_now", None, None, "not_now"]

    def test_one_alternative_and_every_check_must_hold(self) -> None:
        either = minted(during=["not ../..", HOURS])
        assert claims(either).refusal(READ, "/a", "t", "q", NOW_MS) is None
        both = attenuate(either, ROOTS, during=["not ../.."])
        assert code(claims(both).refusal(READ, "/a", "t", "q", NOW_MS)) == "not_now"

    def test_a_right_counts_only_while_it_holds(self) -> None:
        held = [parse_grant(f"A.read:/a/** during {HOURS}"), parse_grant("A.read:/a/b"), parse_grant("A.admin:/c")]
        seen = claims(minted(capabilities=held))
        assert (seen.closed, seen.timed, seen.during) == (True, True, ())
        for at_ms, expected in ((NOW_MS, None), (NOW_MS + MINUTE_MS, "not_now")):
            assert code(seen.refusal(READS, "/a", "t", "q", at_ms)) == expected
            assert seen.refusal(READS, "/a/b", "t", "q", at_ms) is None
            assert seen.refusal(READ, "/c", "t", "q", at_ms) is None
            assert code(seen.refusal(READS, "/z", "t", "q", at_ms)) == "insufficient_capabilities"
            assert seen.misuse("t", "q", at_ms) is None

    def test_without_any_the_time_says_nothing(self) -> None:
        assert not claims(TOKEN).timed
        assert claims(TOKEN).untimely(0) is None

    def test_that_it_has_expired_says_more(self) -> None:
        for token in (minted(during=[HOURS]), minted(capabilities=[parse_grant(f"A.read:/a during {HOURS}")])):
            assert code(claims(token).refusal(READ, "/a", "t", "q", END_MS)) == "token_expired"
        assert code(claims(minted(during=[HOURS])).misuse("t", "q", END_MS)) == "token_expired"

    def test_the_reason_names_the_rule_and_what_is_wrong_with_it(self) -> None:
        token = append(TOKEN, 'check if during("some day") or during("calendar nobody and calendar shop")')
        refusal = claims(token).refusal(READ, "/a", "t", "q", NOW_MS)
        assert refusal == Refusal(
            "not_now",
            "the token allows it only during 'some day' or 'calendar nobody and calendar shop'; 'some day' cannot be read; "
            "there is no calendar 'nobody' here",
        )
        right = claims(minted(capabilities=[parse_grant("A.read:/a during not ../..")]))
        refusal = right.refusal(READ, "/a", "t", "q", NOW_MS)
        assert refusal == Refusal("not_now", "the token allows it only during 'not ../..'")
        long = claims(append(TOKEN, "check if during({text})", {"text": "x\n" * 150}))
        refusal = long.refusal(READ, "/a", "t", "q", NOW_MS)
        assert refusal is not None
        assert len(refusal.reason) < 500
        assert "\n" not in refusal.reason

    def test_calendars_are_the_verifiers(self) -> None:
        token = minted(during=["calendar shop"]).encode()
        for calendars, expected in ((CALENDARS, None), ({}, "not_now")):
            seen = Verifier(ROOTS, AUDIENCE, calendars=calendars).verify(token)
            assert isinstance(seen, Claims)
            assert code(seen.refusal(READ, "/a", "t", "q", NOW_MS)) == expected

    @pytest.mark.parametrize("right", ["A.read:/a", f"A.read:/a during {HOURS}"])
    def test_of_an_open_token(self, right: str) -> None:
        token = append(minted(capabilities=[parse_grant(right)], during=[HOURS]), "check if true")
        seen = claims(token)
        assert (seen.closed, seen.timed) == (False, True)
        assert seen.refusal(READ, "/a", "t", "q", NOW_MS) is None
        assert code(seen.refusal(READ, "/a", "t", "q", NOW_MS + MINUTE_MS)) == "not_now"

    def test_a_time_is_read_as_it_is_written(self) -> None:
        """Another issuer need not write the canonical text, closed or open."""
        source = PLAIN + 'right("A.read", "/z", "mon-sun 00:00-00:01  UTC");' + ENDS
        for token in (issue(source), append(issue(source), "check if true")):
            assert claims(token).refusal(READ, "/z", "t", "q", NOW_MS) is None
            assert code(claims(token).refusal(READ, "/z", "t", "q", NOW_MS + MINUTE_MS)) == "not_now"


class TestScenarios:
    """What may be done to files when: the rules of business hours and maintenance, as a token."""

    DURING: Final = "thu 09:00-17:00 UTC and not calendar maintenance"
    DAY: Final = {"maintenance": Calendar([weekly("daily", "16:00", "18:00", zone="UTC")], "UTC")}

    @pytest.mark.parametrize(
        ("time", "allowed"),
        [
            ("08:59:59.999", "read"),
            ("09:00:00.000", "read write delete"),
            ("15:59:59.999", "read write delete"),
            ("16:00:00.000", "read write"),
            ("16:59:59.999", "read write"),
            ("17:00:00.000", "read"),
        ],
    )
    def test_operations_in_business_hours(self, time: str, allowed: str) -> None:
        """S29, S33, S56: reading always, writing in hours, deleting in hours and not in maintenance."""
        held = (
            "FileCap.read:/**",
            "FileCap.write:/** during mon-fri 09:00-17:00 UTC",
            f"FileCap.delete:/** during {self.DURING}",
        )
        token = minted(capabilities=list(map(parse_grant, held)), lifetime_s=86_400.0)
        seen = Verifier(ROOTS, AUDIENCE, calendars=self.DAY).verify(token.encode())
        assert isinstance(seen, Claims)
        at_ms = round(datetime.fromisoformat(f"2026-01-01T{time}Z").timestamp() * 1000)
        told = {
            name: code(seen.refusal(frozenset({f"FileCap.{name}"}), "/x", "t", "q", at_ms))
            for name in ("read", "write", "delete")
        }
        assert [name for name, refusal in told.items() if refusal is None] == allowed.split()
        assert set(told.values()) <= {None, "not_now"}


class TestDecision:
    @pytest.mark.parametrize(
        ("operations", "resource", "intent_type", "topic", "expected"),
        [
            (READ, "/a", "t", "q", None),
            (READ, "/a/b", "t", "q", None),
            (frozenset({"A.admin"}), "/a/b", "t", "q", "insufficient_capabilities"),
            (frozenset[str](), "/a/b", "t", "q", "insufficient_capabilities"),
            (READ, "/b", "t", "q", "insufficient_capabilities"),
            (READ, "/A/b", "t", "q", "insufficient_capabilities"),
            (READ, "/aa", "t", "q", "insufficient_capabilities"),
            (READ, "/", "t", "q", "insufficient_capabilities"),
            (READ, "/a/b", "T", "q", "wrong_intent_type"),
            (READ, "/a/b", "", "q", "wrong_intent_type"),
            (READ, "/a/b", "t", "z", "wrong_topic"),
            (READ, "/a/../a", "t", "q", "bad_resource"),
            (READ, "/a/**", "t", "q", "bad_resource"),
            (READ, "/a/", "t", "q", "bad_resource"),
            (READ, "/a//b", "t", "q", "bad_resource"),
            (READ, "/a/%2e", "t", "q", "bad_resource"),
            (READ, "a/b", "t", "q", "bad_resource"),
            (READ, "", "t", "q", "bad_resource"),
            (READ, "/a\0", "t", "q", "bad_resource"),
        ],
    )
    def test_codes(
        self, operations: frozenset[str], resource: str, intent_type: str, topic: str, expected: str | None
    ) -> None:
        assert code(claims(NARROW).refusal(operations, resource, intent_type, topic, NOW_MS)) == expected

    def test_every_capability_check_must_leave_it(self) -> None:
        narrow = attenuate(TOKEN, ROOTS, capabilities=[parse_grant("A.read:/a/*"), parse_grant("A.read:/x")])
        narrower = attenuate(narrow, ROOTS, capabilities=[parse_grant("A.admin:/**"), parse_grant("A.read:/*/b")])
        seen = claims(narrower)
        asked = {
            path: code(seen.refusal(frozenset({"A.read"}), path, "t", "q", NOW_MS)) for path in ("/a/b", "/a/c", "/x")
        }
        assert asked == {"/a/b": None, "/a/c": "insufficient_capabilities", "/x": "insufficient_capabilities"}

    def test_names_in_two_checks_must_be_in_both(self) -> None:
        narrow = attenuate(TOKEN, ROOTS, topics=["p", "q"], intent_types=["t", "u"])
        seen = claims(attenuate(narrow, ROOTS, topics=["q", "r"], intent_types=["u", "v"]))
        topics = {topic: code(seen.refusal(READ, "/a", "u", topic, NOW_MS)) for topic in "pqr"}
        types = {kind: code(seen.refusal(READ, "/a", kind, "q", NOW_MS)) for kind in "tuv"}
        assert topics == {"p": "wrong_topic", "q": None, "r": "wrong_topic"}
        assert types == {"t": "wrong_intent_type", "u": None, "v": "wrong_intent_type"}

    def test_checks_without_a_common_name_leave_none(self) -> None:
        seen = claims(attenuate(attenuate(TOKEN, ROOTS, topics=["p"]), ROOTS, topics=["q"]))
        assert {code(seen.refusal(READ, "/a", "t", topic, NOW_MS)) for topic in ("p", "q", "")} == {"wrong_topic"}
        seen = claims(attenuate(attenuate(TOKEN, ROOTS, intent_types=["t"]), ROOTS, intent_types=["u"]))
        assert {code(seen.refusal(READ, "/a", kind, "q", NOW_MS)) for kind in ("t", "u", "")} == {"wrong_intent_type"}

    def test_a_token_narrowed_to_nothing(self) -> None:
        seen = claims(attenuate(TOKEN, ROOTS, capabilities=[]))
        assert seen.closed
        assert code(seen.refusal(READ, "/a", "t", "q", NOW_MS)) == "insufficient_capabilities"

    def test_an_open_token_and_an_endless_resource(self) -> None:
        seen = claims(append(TOKEN, "check if true"))
        assert seen.refusal(READ, "/a/" + "b" * 4093, "t", "q", NOW_MS) is None
        assert code(seen.refusal(READ, "/a/" + "b" * 4094, "t", "q", NOW_MS)) == "limits_reached"

    def test_an_open_token_says_which_check_failed_and_no_more(self) -> None:
        forged = append(TOKEN, "check if true; check if topic({t}), true", {"t": "x\nINFO access granted\x1b[31m"})
        refusal = claims(forged).refusal(READ, "/a", "t", "q", NOW_MS)
        assert refusal == Refusal("check_failed", "check 1 of block 1 does not hold")

    @pytest.mark.parametrize(
        "check", ["check if 1 / 0 == 1", "check if 1 == 2 || 1", "check if request($o, $r), $r + 1 == 2"]
    )
    def test_an_error_while_deciding_is_a_denial(self, check: str) -> None:
        assert code(claims(append(TOKEN, check)).refusal(READ, "/a", "t", "q", NOW_MS)) == "undecidable"

    def test_a_panic_of_the_library_is_a_failure_and_an_interrupt_is_not(self) -> None:
        panic = type("PanicException", (BaseException,), {})
        assert is_library_failure(panic())
        assert is_library_failure(ValueError())
        assert not is_library_failure(KeyboardInterrupt())
        assert not is_library_failure(SystemExit())

    @pytest.mark.parametrize("error", [type("PanicException", (BaseException,), {}), MemoryError, TypeError])
    def test_a_library_that_fails_while_verifying_denies(
        self, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Failing:
            @staticmethod
            def from_bytes(data: bytes, root: object) -> None:
                raise error

        monkeypatch.setattr("pf_stream.security.verify.Biscuit", Failing)
        assert refused(TOKEN) == Refusal("undecidable", f"verifying failed: {error.__name__}")
        error = KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            Verifier(ROOTS, AUDIENCE).verify(TOKEN.encode())

    def test_the_authoriser_itself_denies_what_no_right_covers(self) -> None:
        asked = {"operations": {"A.read"}, "intent_type": "t", "topic": "q", "at_ms": NOW_MS}
        held = [parse_grant("A.read:/a/**")]
        assert authorise(biscuit(NARROW), held, resource="/a", **asked) is None  # type: ignore[arg-type]
        assert code(authorise(biscuit(NARROW), held, resource="/b", **asked)) == "insufficient_capabilities"  # type: ignore[arg-type]
        assert code(authorise(biscuit(NARROW), [], resource="/a", **asked)) == "insufficient_capabilities"  # type: ignore[arg-type]
        forged = [parse_grant("A.read:/**")]
        assert code(authorise(biscuit(NARROW), forged, resource="/b", **asked)) == "insufficient_capabilities"  # type: ignore[arg-type]


class TestWithin:
    """Decisions about all resources of a scope."""

    @settings(max_examples=80)
    @given(st.randoms(use_true_random=False))
    def test_what_is_granted_is_granted_on_each(self, rng: Random) -> None:
        case = random_case(rng)
        seen = claims(case.token())
        scope = rng.choice([random_scope(rng), *(right.scope for right in case.rights)])
        asked = IMPLIED_BY[case.required]
        granted = seen.refusal_within(asked, scope, case.intent_type, case.topic, case.at_ms) is None
        event(f"granted: {granted}")
        for _ in range(10 if granted else 0):
            assert decided(replace(case, resource=resource_of(rng, scope)), seen) is None

    @settings(max_examples=80)
    @given(st.randoms(use_true_random=False))
    def test_of_one_resource_it_is_the_usual_decision(self, rng: Random) -> None:
        case = random_case(rng)
        seen = claims(case.token())
        exact = Scope.parse(case.resource)
        answer = seen.refusal_within(IMPLIED_BY[case.required], exact, case.intent_type, case.topic, case.at_ms)
        assert (answer is None) == (decided(case, seen) is None)

    @pytest.mark.parametrize(
        ("scope", "intent_type", "topic", "at_ms", "expected"),
        [
            ("/a/**", "t", "q", NOW_MS, None),
            ("/a/*/**", "t", "q", NOW_MS, None),
            ("/**", "t", "q", NOW_MS, "insufficient_capabilities"),
            ("/*/**", "t", "q", NOW_MS, "insufficient_capabilities"),
            ("/a/**", "T", "q", NOW_MS, "wrong_intent_type"),
            ("/a/**", "t", "z", NOW_MS, "wrong_topic"),
            ("/a/**", "t", "q", END_MS, "token_expired"),
        ],
    )
    def test_codes(self, scope: str, intent_type: str, topic: str, at_ms: int, expected: str | None) -> None:
        answer = claims(NARROW).refusal_within(READ, Scope.parse(scope), intent_type, topic, at_ms)
        assert code(answer) == expected

    def test_every_capability_check_must_leave_it(self) -> None:
        narrow = attenuate(TOKEN, ROOTS, capabilities=[parse_grant("A.read:/a/**"), parse_grant("A.read:/x")])
        for grant, expected in (("A.admin:/a/**", None), ("A.read:/a/*", "insufficient_capabilities")):
            seen = claims(attenuate(narrow, ROOTS, capabilities=[parse_grant(grant)]))
            assert code(seen.refusal_within(READ, Scope.parse("/a/**"), "t", "q", NOW_MS)) == expected

    def test_an_open_token_is_never_asked_about_many(self) -> None:
        seen = claims(append(TOKEN, "check if true"))
        assert code(seen.refusal(READ, "/a/b", "t", "q", NOW_MS)) is None
        assert code(seen.refusal_within(READ, Scope.parse("/a/b"), "t", "q", NOW_MS)) == "undecidable"


class TestRefused:
    def test_wrong_root(self) -> None:
        assert refused(minted(key=SigningKey.generate(7))).code == "bad_signature"

    @pytest.mark.parametrize("kid", [8, 0, None])
    def test_unknown_key(self, kid: int | None) -> None:
        refusal = refused(issue(PLAIN + ENDS, kid=kid))
        assert refusal == Refusal("unknown_key", f"the token names key {kid}, which is not among the trust roots")

    def test_each_kid_has_its_key(self) -> None:
        roots = TrustRoots.of(KEY, OTHER_KEY)
        assert isinstance(Verifier(roots, AUDIENCE).verify(minted(key=OTHER_KEY).encode()), Claims)
        assert refused(issue(PLAIN + ENDS, key=KEY, kid=8), Verifier(roots, AUDIENCE)).code == "bad_signature"

    @pytest.mark.parametrize("audience", ["other", "Flights", "flight", "flights "])
    def test_wrong_audience(self, audience: str) -> None:
        refusal = refused(minted(audience=audience))
        assert refusal == Refusal("wrong_audience", f"the token is for {audience!r}, and this is 'flights'")

    def test_too_large_is_said_before_anything_is_read(self) -> None:
        assert refused(b"A" * (MAX_TOKEN_BYTES + 1)).code == "token_too_large"
        assert refused(b"A" * MAX_TOKEN_BYTES).code == "malformed_token"

    def test_100_blocks_are_refused_before_any_cryptography(self) -> None:
        token = joined(parts(RAW)[:2] + [parts(RAW)[2]] * 99 + parts(RAW)[-1:])
        small = Verifier(ROOTS, AUDIENCE, max_token_bytes=10**6)
        assert refused(to_base64url(token), small) == Refusal(
            "too_many_blocks", f"the token has 100 blocks; at most {MAX_BLOCKS} are verified"
        )

    def test_as_many_blocks_as_allowed(self) -> None:
        token = TOKEN
        for _ in range(MAX_BLOCKS - 1):
            token = append(token, 'check if topic("q")')
        assert claims(token).refusal(READ, "/a", "t", "q", NOW_MS) is None
        assert refused(append(token, 'check if topic("q")')).code == "too_many_blocks"

    @pytest.mark.parametrize(
        "token", [b"", b"-", b"AAAA", b"null", b"{}", "ü".encode(), b"\0", b" ", b"Bearer x", b"=", b"."]
    )
    def test_no_token(self, token: bytes) -> None:
        assert refused(token).code == "malformed_token"

    VERIFIER = Verifier(ROOTS, AUDIENCE)

    @settings(max_examples=150)
    @given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: to_base64url(data).encode()))
    def test_never_raises(self, token: bytes) -> None:
        assert refused(token, self.VERIFIER).code in {"malformed_token", "unknown_key", "bad_signature"}


class TestTampered:
    def test_every_character_of_the_text(self) -> None:
        """No other text in its place is accepted, but the same token under the number of another trusted key."""
        for at, old in enumerate(NARROW):
            for new in {"A", "=", chr(ord(old) ^ 1)} - {old}:
                changed = NARROW[:at] + new + NARROW[at + 1 :]
                assert refused(changed).code in {"malformed_token", "bad_signature", "unknown_key", "too_many_blocks"}

    @pytest.mark.slow
    def test_every_byte(self) -> None:
        for at in range(len(RAW)):
            for bit in (0, 3, 7):
                changed = bytearray(RAW)
                changed[at] ^= 1 << bit
                assert refused(to_base64url(bytes(changed))).code in {"malformed_token", "bad_signature", "unknown_key"}

    def test_every_truncation(self) -> None:
        for size in range(len(RAW)):
            assert refused(to_base64url(RAW[:size])).code in {"malformed_token", "bad_signature"}
        for size in range(len(NARROW)):
            assert refused(NARROW[:size]).code in {"malformed_token", "bad_signature"}

    @pytest.mark.parametrize(
        "change",
        [
            "no attenuation",
            "last removed",
            "first removed",
            "reordered",
            "doubled",
            "of another token",
            "proof of another token",
            "no proof",
            "no authority",
        ],
    )
    def test_blocks(self, change: str) -> None:
        other = parts(
            Envelope.read(attenuate(attenuate(minted("bob"), ROOTS, topics=["q"]), ROOTS, topics=["q"]).encode()).data
        )
        kid, authority, one, two, proof = parts(RAW)
        changed = {
            "no attenuation": [kid, authority, proof],
            "last removed": [kid, authority, one, proof],
            "first removed": [kid, authority, two, proof],
            "reordered": [kid, authority, two, one, proof],
            "doubled": [kid, authority, one, one, two, proof],
            "of another token": [kid, other[1], one, two, proof],
            "proof of another token": [kid, authority, one, two, other[4]],
            "no proof": [kid, authority, one, two],
            "no authority": [kid, one, two, proof],
        }[change]
        expected = "malformed_token" if change in {"no proof", "no authority"} else "bad_signature"
        assert refused(to_base64url(joined(changed))).code == expected


class TestOneSpelling:
    """The library accepts these as the same token. Each would miss every cache, and a list of tokens by their bytes."""

    def variants(self) -> Iterator[tuple[str, bytes]]:
        fields = parts(RAW)
        text = NARROW.encode()
        yield "padded", text + b"=" * (-len(text) % 4 or 4)
        yield "white space", text + b"\n"
        yield "leading white space", b" " + text
        yield "the other alphabet", text.replace(b"-", b"+").replace(b"_", b"/") + b"+"
        unaligned = next(token for token in (minted("a" * n).encode() for n in range(1, 4)) if len(token) % 4)
        yield "stray bits", unaligned[:-1] + bytes([unaligned[-1] + 1])
        yield "unknown field", to_base64url(RAW + field(9, b"")).encode()
        yield "field twice", to_base64url(joined([*fields, fields[-1]])).encode()
        yield "kid twice", to_base64url(joined([fields[0], *fields])).encode()
        yield "another order", to_base64url(joined([*fields[1:], fields[0]])).encode()
        yield "kid in long form", to_base64url(varint(1 << 3) + b"\x87\x00" + joined(fields[1:])).encode()
        inner = parts(bytes(fields[1][1]))
        swapped = joined([inner[2], inner[1], inner[0], *inner[3:]])
        yield "another order inside", to_base64url(joined([fields[0], (2, swapped), *fields[2:]])).encode()
        longer = joined([*inner, (9, 1)])
        yield "unknown field inside", to_base64url(joined([fields[0], (2, longer), *fields[2:]])).encode()

    def test_all_others_are_refused(self) -> None:
        told = {name: refused(token).code for name, token in self.variants()}
        assert set(told.values()) == {"malformed_token"}, told
        assert len(told) == 12


class TestKeysOtherThanEd25519:
    def test_a_block_key_is_ed25519(self) -> None:
        """An ECDSA signature, which is a revocation id, could be changed into another valid one by anybody."""
        fields = parts(RAW)
        inner = parts(bytes(fields[1][1]))
        changed = joined([inner[0], (2, field(1, 1) + field(2, b"\2" * 33)), *inner[2:]])
        refusal = refused(to_base64url(joined([fields[0], (2, changed), *fields[2:]])))
        assert refusal.reason == "the token cannot be read: a block's key is not Ed25519"


class TestMemory:
    def test_a_hit_is_the_same_object(self, verifier: Verifier) -> None:
        first = verifier.verify(TOKEN.encode())
        assert verifier.verify(bytes(bytearray(TOKEN.encode()))) is first

    def test_a_refusal_is_remembered_too(self, verifier: Verifier) -> None:
        junk = minted(key=SigningKey.generate(7)).encode()
        assert verifier.verify(junk) is verifier.verify(bytes(bytearray(junk)))

    def test_what_is_too_large_is_not_remembered(self, verifier: Verifier) -> None:
        for size in range(100):
            verifier.verify(b"A" * (MAX_TOKEN_BYTES + 1 + size))
        assert len(verifier._refused) == 0

    def test_junk_never_evicts_what_is_valid(self) -> None:
        small = Verifier(ROOTS, AUDIENCE, cache_bytes=100_000, refused_cache_bytes=10_000)
        kept = small.verify(TOKEN.encode())
        for number in range(2000):
            small.verify(b"junk%d" % number)
        for number in range(20):
            small.verify(minted(f"eve{number}", key=SigningKey.generate(7)).encode())
        assert small._accepted.get(TOKEN.encode()) is kept
        assert len(small._refused) * 250 <= 10_000

    def test_is_bounded_and_keeps_what_is_used(self) -> None:
        small = Verifier(ROOTS, AUDIENCE, cache_bytes=60_000)
        kept = small.verify(TOKEN.encode())
        for number in range(100):
            small.verify(minted(f"user{number}").encode())
            assert small.verify(TOKEN.encode()) is kept
            generations = (small._accepted._young, small._accepted._old)
            assert sum(seen.size for one in generations for seen in one.values()) <= 60_000
        assert len(small._accepted) >= 15

    def test_tokens_differ_by_their_bytes_alone(self, verifier: Verifier) -> None:
        tenants = [minted(tenant=tenant) for tenant in ("x", "y")]
        for token, tenant in zip(tenants * 2, ["x", "y"] * 2, strict=True):
            seen = verifier.verify(token.encode())
            assert isinstance(seen, Claims)
            assert seen.tenant == tenant


class TestSecrets:
    def test_no_repr_or_message_holds_a_token(self) -> None:
        seen = claims(append(NARROW, "check if true"))
        tail = NARROW[-40:]
        shown = [repr(seen), repr(Envelope.read(NARROW.encode())), repr(Verifier(ROOTS, AUDIENCE))]
        shown += [refused(NARROW[:-1]).reason, refused(minted(audience="other")).reason, refused(NARROW + "=").reason]
        for bad in (NARROW[:-3], NARROW + "=", "x" * 9000):
            with pytest.raises(Exception, match="token") as caught:
                attenuate(bad, ROOTS, topics=["x"])
            shown += traceback.format_exception(caught.value)
        ids = "|".join(seen.revocation_ids)
        assert not [text for text in shown if tail in text or re.search(r"[A-Za-z0-9_-]{80,}", re.sub(ids, "", text))]
