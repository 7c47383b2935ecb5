"""Reading state from outside: who may, and what there is to be read."""

import pytest

from pf_stream import Capability, operation
from pf_stream.core.changelog import pack_state, parse_state_key
from pf_stream.core.reading import READ_TOPIC, READ_TYPE, refusal_to_read
from pf_stream.core.unit import Rewind
from pf_stream.model import StateCap
from pf_stream.model.capability import parse_grant
from pf_stream.security import Refusal, SigningKey, TrustRoots, Verifier, attenuate, mint
from tests.unit.core.kit import KEY, NOW_MS, Bench, Box, Ping, Put, record
from tests.unit.security import cases

ROOTS = TrustRoots.of(KEY)
END_MS = NOW_MS + 900_000
REFUSED = "insufficient_capabilities"
KEY_OR_ALL = pytest.mark.parametrize("key", ["b1", None])


class AuditCap(Capability):
    """A family of somebody's own."""

    look = operation(implies=StateCap.read)


def token(*grants: str, key: SigningKey = KEY, audience: str = "box", **options: object) -> str:
    held = [parse_grant(grant) for grant in grants]
    return mint(key, subject="ann", audience=audience, capabilities=held, now_ms=NOW_MS, **options)  # type: ignore[arg-type]


def code(context: str | None, reactor: str = "boxes", key: str | None = "b1", at_ms: int = NOW_MS) -> str | None:
    """Why a read is refused, None if it is not."""
    raw = None if context is None else context.encode()
    refusal = refusal_to_read(Verifier(ROOTS, "box"), raw, reactor, key, at_ms)
    return None if refusal is None else refusal.code


class TestWhoMay:
    @pytest.mark.parametrize(
        ("grant", "one", "other", "everything"),
        [
            ("StateCap.read:/boxes/b1", None, REFUSED, REFUSED),
            ("StateCap.read:/boxes/*", None, None, REFUSED),
            ("StateCap.read:/*/b1", None, REFUSED, REFUSED),
            ("StateCap.read:/*/*", None, None, REFUSED),
            ("StateCap.read:/boxes/**", None, None, None),
            ("StateCap.read:/*/**", None, None, None),
            ("StateCap.read:/**", None, None, None),
            ("AuditCap.look:/boxes/**", None, None, None),
            ("StateCap.read:/boxes", REFUSED, REFUSED, REFUSED),
            ("StateCap.read:/boxes/b1/**", None, REFUSED, REFUSED),
            ("StateCap.read:/watch/**", REFUSED, REFUSED, REFUSED),
            ("StateCap.write:/**", REFUSED, REFUSED, REFUSED),
            ("BoxCap.own:/**", REFUSED, REFUSED, REFUSED),
        ],
    )
    def test_by_grant(self, grant: str, one: str | None, other: str | None, everything: str | None) -> None:
        context = token(grant)
        assert [code(context), code(context, key="b2"), code(context, key=None)] == [one, other, everything]

    def test_scopes_that_cover_everything_only_together(self) -> None:
        """No more is believed than one right says; that is what a grant means everywhere."""
        assert code(token("StateCap.read:/boxes", "StateCap.read:/boxes/*"), key=None) == REFUSED

    @pytest.mark.parametrize("key", ["", ".", "..", "a/b", "50%", "a%2fb", "*", "{b1}", "b\n1", "b\u200b1", "A\u030a"])
    def test_a_key_that_is_no_segment_is_read_by_who_may_read_all(self, key: str) -> None:
        assert code(token("StateCap.read:/boxes/**"), key=key) is None
        assert code(token("StateCap.read:/boxes/*"), key=key) == REFUSED

    def test_a_key_of_several_fields_is_one_segment(self) -> None:
        assert code(token('StateCap.read:/boxes/["a","3"]'), key='["a","3"]') is None
        assert code(token('StateCap.read:/boxes/["a","3"]'), key='["a","4"]') == REFUSED

    @pytest.mark.parametrize("reactor", ["", "..", "a/b", "%2e", "*"])
    def test_what_no_reactor_can_be_called(self, reactor: str) -> None:
        assert code(token("StateCap.read:/**"), reactor) == "bad_resource"

    def test_no_token(self) -> None:
        assert code(None) == "missing_context"
        assert code("") == "malformed_token"

    def test_a_token_that_is_not_believed(self) -> None:
        every = "StateCap.read:/**"
        assert code(token(every, key=SigningKey.generate(1))) == "bad_signature"
        assert code(token(every, key=SigningKey.generate(2))) == "unknown_key"
        assert code(token(every, audience="bax")) == "wrong_audience"

    @KEY_OR_ALL
    def test_when(self, key: str | None) -> None:
        context = token("StateCap.read:/**", not_before_ms=NOW_MS + 1000)
        assert code(context, key=key, at_ms=NOW_MS) == "token_not_yet_valid"
        assert code(context, key=key, at_ms=NOW_MS + 1000) is None
        assert code(context, key=key, at_ms=END_MS - 1) is None
        assert code(context, key=key, at_ms=END_MS) == "token_expired"

    @KEY_OR_ALL
    def test_only_at_times(self, key: str | None) -> None:
        """2026-01-01 is a Thursday."""
        for context in (
            token("StateCap.read:/** during thu 00:00-00:01 UTC"),
            token("StateCap.read:/**", during=["thu 00:00-00:01 UTC"]),
            attenuate(token("StateCap.read:/**"), ROOTS, during=["thu 00:00-00:01 UTC"]),
        ):
            assert code(context, key=key) is None
            assert code(context, key=key, at_ms=NOW_MS + 60_000) == "not_now"

    @KEY_OR_ALL
    def test_what_was_narrowed(self, key: str | None) -> None:
        context = token("StateCap.read:/**")
        assert code(attenuate(context, ROOTS, capabilities=[StateCap.read("/boxes/**")]), key=key) is None
        assert code(attenuate(context, ROOTS, capabilities=[StateCap.read("/watch/**")]), key=key) == REFUSED
        assert code(attenuate(context, ROOTS, capabilities=[]), key=key) == REFUSED

    @KEY_OR_ALL
    def test_a_token_for_intents_is_none_for_reading(self, key: str | None) -> None:
        """As those that go with intents through a topology: each is limited to types and topics."""
        every = "StateCap.read:/**"
        assert code(token(every, intent_types=["box.put.v1"]), key=key) == "wrong_intent_type"
        assert code(token(every, topics=["box.intents"]), key=key) == "wrong_topic"
        assert code(token(every, intent_types=[READ_TYPE], topics=[READ_TOPIC]), key=key) is None

    def test_a_token_with_checks_of_its_own_is_asked_about_one_key_and_never_about_all(self) -> None:
        plain = token("StateCap.read:/**", key=cases.KEY)
        verifier = Verifier(cases.ROOTS, "box")
        open_token = cases.append(plain, 'check if request($o, $r), $r.ends_with("1")').encode()
        for key, why in (("b1", None), ("b2", "check_failed"), ("a/b1", "undecidable"), (None, "undecidable")):
            refusal = refusal_to_read(verifier, open_token, "boxes", key, NOW_MS)
            assert (refusal and refusal.code) == why

    def test_a_refusal_says_nothing_of_the_token(self) -> None:
        context = token("StateCap.read:/boxes/b1")
        refusal = refusal_to_read(Verifier(ROOTS, "box"), context.encode(), "boxes", "b2", NOW_MS)
        assert isinstance(refusal, Refusal)
        assert context[:20] not in refusal.reason

    def test_a_token_that_was_good_for_nothing_does_not_displace_others(self) -> None:
        verifier = Verifier(ROOTS, "box")
        useless, useful = token("StateCap.read:/x").encode(), token("StateCap.read:/boxes/**").encode()
        assert refusal_to_read(verifier, useless, "boxes", "b1", NOW_MS) is not None
        assert refusal_to_read(verifier, useful, "boxes", "b1", NOW_MS) is None
        assert useless not in verifier.recent
        assert useful in verifier.recent


class TestWhatThereIs:
    def test_a_state_is_there_once_it_is_acknowledged(self) -> None:
        bench = Bench()
        bench.feed(record(0, Put(box="b1", item="hat")))
        assert bench.lane.raw("boxes", b"b1") is None
        unit = bench.lane.seal()
        assert not isinstance(unit, Rewind)
        assert bench.lane.raw("boxes", b"b1") is None
        bench.lane.acknowledged()
        raw = bench.lane.raw("boxes", b"b1")
        assert raw == dict(unit.entries)[b"\x01s\x05boxes\x00\x00\x00\x02b1"]
        # Nor is the next one seen before it is durable, sealed or not.
        bench.feed(record(1, Put(box="b1", item="coat")))
        assert bench.lane.raw("boxes", b"b1") == raw
        bench.lane.seal()
        assert bench.lane.raw("boxes", b"b1") == raw
        bench.lane.acknowledged()
        assert bench.lane.raw("boxes", b"b1") != raw

    def test_raw_is_what_the_changelog_has(self) -> None:
        before = Bench()
        before.commit_all(record(0, Put(box="b1", item="hat")), record(1, Put(box="b2")))
        after = Bench(changelog=before.changelog)
        after.commit_all(record(2, Put(box="b1", item="coat")))
        states = {parse_state_key(key)[:2]: value for key, value in after.changelog if key[1:2] == b"s"}
        assert len(states) == 4
        assert {at: after.lane.raw(*at) for at in states} == states

    @pytest.mark.parametrize(("reactor", "key"), [("boxes", b"b2"), ("rooms", b"b1"), ("nobody", b"b1")])
    def test_nothing(self, reactor: str, key: bytes) -> None:
        bench = Bench()
        bench.commit_all(record(0, Put(box="b1")))
        assert bench.lane.raw(reactor, key) is None
        assert bench.lane.stored(reactor, key) is None

    def test_keys(self) -> None:
        bench = Bench()
        assert list(bench.lane.keys("boxes")) == []
        bench.commit_all(*(record(n, Ping(box=f"b{n % 7}")) for n in range(50)))
        assert sorted(bench.lane.keys("boxes")) == [b"b%d" % n for n in range(7)]
        assert list(bench.lane.keys("nobody")) == []
        bench.commit_all(record(50, Ping(box="b3")), record(51, Ping(box="b9")))
        assert sorted(bench.lane.keys("boxes")) == [*(b"b%d" % n for n in range(7)), b"b9"]
        again = Bench(changelog=bench.changelog)
        assert sorted(again.lane.keys("boxes")) == sorted(bench.lane.keys("boxes"))

    def test_keys_can_be_taken_while_the_lane_goes_on(self) -> None:
        first = Bench()
        first.commit_all(*(record(n, Ping(box=f"b{n}")) for n in range(10)))
        bench = Bench(changelog=first.changelog)
        keys = bench.lane.keys("boxes")
        taken = [next(keys)]
        bench.commit_all(*(record(10 + n, Ping(box=f"b{n + 5}")) for n in range(10)))
        taken += keys
        assert sorted(taken) == [b"b%d" % n for n in range(10)]

    def test_a_key_whose_first_unit_was_taken_back_is_listed_once(self) -> None:
        bench = Bench()
        bench.commit_all(record(0, Put(box="b1", act="wrong type")), record(1, Put(box="b1")), record(2, Put(box="b2")))
        assert sorted(bench.lane.keys("boxes")) == [b"b1", b"b2"]
        assert bench.state(Box, "boxes", "b1") == Box(items=[""], weight=1)

    def test_a_deleted_state_is_not_listed(self) -> None:
        at = b"\x01s\x05boxes\x00\x00\x00\x02b1"
        bench = Bench(changelog=[(at, pack_state(1, b"{}")), (at, None)])
        assert list(bench.lane.keys("boxes")) == []
