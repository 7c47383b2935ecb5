"""Every code has a record that earns it, and what earns a code is a dead letter, never the end of a lane."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from biscuit_auth import Biscuit, BlockBuilder

from pf_stream import PUBLIC, Context, Effects, Intent, Key, Reactor, Topology, any_of, caller, during, on, rule
from pf_stream.core import CODES, Limits
from pf_stream.core.records import Header
from pf_stream.model import Requirement, Rule
from pf_stream.model.constraint import after, before, never, only
from pf_stream.security import SigningKey, mint
from pf_stream.security.envelope import Envelope, to_base64url
from pf_stream.testing import Driver
from tests.unit.core.kit import Box, BoxCap, Boxes, Moved, Ping, Put, WorkerKilled, boxes, event

LIMITS = Limits(payload_bytes=6_000, headers=20, unit_bytes=10_000, unit_bytes_hard=20_000)

Cause = Callable[[Driver], object]
PUT = Put(box="b", item="x")
VALUE = PUT.__intent__.encode(PUT)


def raw(*headers: Header, key: bytes | None = b"b", value: bytes | None = VALUE, token: bool = True) -> Cause:
    """An intent's record with other headers, key or value."""

    def cause(driver: Driver) -> None:
        names = {name for name, _ in headers}
        kept = [header for header in event(PUT, good(driver) if token else None) if header[0] not in names]
        driver.send_raw("intents", key=key, value=value, headers=[*kept, *headers])

    return cause


def unless(item: str) -> Rule:
    """Lets pass whatever puts something else into a box."""
    return rule(f"refusals.unless_{item}")(lambda intent, _: intent.item != item)


NOW = datetime(2026, 7, 1, tzinfo=UTC)

GUARDS: dict[str, Requirement] = {
    "wrong_caller": caller(tenant="acme"),
    "authentication_too_old": caller(authenticated_within="1h"),
    "denied_by_rule": rule("refusals.never")(lambda *_: False),
    "not_now": during("../2020-01-01T00:00:00Z"),
}


class Outside(
    Intent, name="box.outside", requires=PUBLIC, constraints=only("2030-01-01T00:00:00Z/..", otherwise="refuse")
):
    """What can be done from 2030 on."""

    box: Annotated[str, Key]


class Maintenance(Intent, name="box.maintain", requires=PUBLIC, constraints=never("../2100-01-01T00:00:00Z")):
    """What waits for a maintenance that takes too long."""

    box: Annotated[str, Key]


class Early(Intent, name="box.early", requires=PUBLIC, constraints=after(datetime(2100, 1, 1, tzinfo=UTC))):
    """What would have to wait too long."""

    box: Annotated[str, Key]


class Late(Intent, name="box.late", requires=PUBLIC, constraints=before(datetime(2026, 6, 1, tzinfo=UTC))):
    """What comes too late."""

    box: Annotated[str, Key]


class Bound(Reactor[Box], id="bound"):
    """Is bound to times that are not now."""

    @on
    def outside(self, intent: Outside, state: Box, ctx: Context) -> Effects: ...
    @on
    def maintenance(self, intent: Maintenance, state: Box, ctx: Context) -> Effects: ...
    @on
    def early(self, intent: Early, state: Box, ctx: Context) -> Effects: ...
    @on
    def late(self, intent: Late, state: Box, ctx: Context) -> Effects: ...


guarded = Topology(
    "box",
    [*boxes.reactors, Bound],
    internal=boxes.internal,
    replies=boxes.replies,
    requires={"box.put": [any_of(guard, unless(code)) for code, guard in GUARDS.items()]},
)
"""The topology, which requires something more of a put whose item is one of these codes."""


def good(driver: Driver) -> str:
    """A token that grants everything."""
    return driver.context(BoxCap.put("/**"))


def sent(intent: Intent = PUT, **options: object) -> Cause:
    """An intent, sent as it should be, but for *options*."""
    return lambda driver: driver.send(intent, good(driver), **options)  # type: ignore[arg-type]


def with_token(token: Callable[[Driver], str], intent: Intent = PUT) -> Cause:
    """An intent with another token."""
    return lambda driver: driver.send(intent, token(driver))


def minted(key: SigningKey, audience: str = "box") -> Callable[[Driver], str]:
    """A token of another issuer, or for another namespace."""
    return lambda driver: mint(
        key, subject="eve", audience=audience, capabilities=[BoxCap.put("/**")], now_ms=driver.clock.now_ms()
    )


def append(token: str, driver: Driver, source: str) -> str:
    """*token* with a block that says *source*, as any holder can make it."""
    root = driver.roots.key(1)
    assert root is not None
    biscuit = Biscuit.from_bytes(Envelope.read(token.encode()).data, root)
    return to_base64url(bytes(biscuit.append(BlockBuilder(source)).to_bytes()))


def with_block(source: str) -> Callable[[Driver], str]:
    """A good token, narrowed by *source*."""
    return lambda driver: append(good(driver), driver, source)


def narrowed_eight_times(driver: Driver) -> str:
    token = good(driver)
    for _ in range(8):
        token = append(token, driver, 'check if topic("box.intents")')
    return token


def late(driver: Driver) -> None:
    token = driver.context(BoxCap.put("/**"), lifetime_s=60)
    driver.advance(60)
    driver.send(PUT, token)


def on_moves(*headers: Header) -> Cause:
    """A record on the internal topic."""
    moved = Moved(room="attic", box="b", item="x")

    def cause(driver: Driver) -> None:
        driver.send_raw(
            "moves", key=b"attic", value=moved.__intent__.encode(moved), headers=[*event(moved, good(driver)), *headers]
        )

    return cause


def misplaced(driver: Driver) -> None:
    """A forged record on the topic of rerouted ones."""
    home = driver.send(Ping(box="b")).partition
    driver.send_raw(
        "box.intents.rerouted",
        key=b"b",
        value=b'{"box":"b"}',
        headers=event(Ping(box="b"), None, ("pf-source", b"forged:1:0")),
        partition=(home + 1) % 4,
    )


def deadly(driver: Driver) -> None:
    """Its worker ends, and the next one, until one of them notices."""
    with pytest.raises(WorkerKilled):
        driver.send(Put(box="b", act="die"), good(driver))
    for _ in range(200):
        try:
            driver.crash()
        except WorkerKilled:
            continue
        return


CAUSES: dict[str, list[Cause]] = {
    "null_value": [raw(value=None), raw(("x", b"1"), ("x", b"2"), value=None)],
    "null_key": [raw(key=None)],
    "payload_too_large": [
        raw(value=b" " * 6_001),
        raw(("content-type", b"text/json"), value=b" " * 6_001),
        raw(("content-type", b"application/cloudevents+json"), value=b" " * 6_001),
    ],
    "too_many_headers": [raw(*((f"x{number}", b"") for number in range(20)))],
    "duplicate_header": [
        raw(("ce_id", b"1"), ("ce_id", b"2")),
        raw(("pf-context", b""), ("pf-context", b"")),
        raw(("pf-deadline", b""), ("pf-deadline", b"")),
        raw(("content-type", b"application/json"), ("content-type", b"application/json")),
    ],
    "malformed_envelope": [
        lambda driver: driver.send_raw("intents", key=b"b", value=VALUE),
        raw(("ce_specversion", b"0.3")),
        raw(("ce_specversion", None)),
        raw(("ce_id", b"")),
        raw(("ce_id", None)),
        raw(("ce_source", b"")),
        raw(("ce_type", None)),
        raw(("ce_type", b"")),
        raw(("pf-deadline", b"tomorrow")),
        raw(("pf-deadline", b"2026-01-01T00:00:00")),
        raw(("pf-not-before", b"\xff")),
        raw(("content-type", b"application/cloudevents+json"), value=b"no json"),
        raw(("content-type", b"application/cloudevents+json"), value=b"[]"),
        raw(("content-type", b"application/cloudevents+json"), value=b'{"specversion":"1.0"}'),
        raw(("content-type", b"application/cloudevents+json"), value=b'{"specversion":"1.0","data":{}}'),
        raw(("content-type", b"application/cloudevents+json"), value=b'{"data":{},"ratio":1.5}'),
        raw(("content-type", b"application/cloudevents+json"), value=b'{"data":' + b"[" * 400 + b"]" * 400 + b"}"),
    ],
    "unknown_type": [
        raw(("ce_type", b"box.smash.v1")),
        raw(("ce_type", b"box.moved.v1")),
        raw(("ce_type", b"box.put")),
        raw(("ce_type", b"box.put.vx")),
        raw(("ce_type", b"\xff")),
        raw(("ce_type", b"x" * 5_000)),
    ],
    "unsupported_version": [raw(("ce_type", b"box.put.v2"))],
    "malformed_payload": [
        raw(value=b""),
        raw(value=b"no json"),
        raw(value=b"null"),
        raw(value=b'{"item":"x"}'),
        raw(value=b'{"box":"b","extra":1}'),
        raw(value=b'{"box":7}'),
        raw(value=b'{"box":"\xff"}'),
        raw(value=b'{"box":"\\ud800"}'),
        raw(value=b"[" * 900),
    ],
    "key_mismatch": [raw(key=b"other"), raw(key=b""), raw(key=b"\xff"), raw(key=b"\xff" * 100_000)],
    "wrong_partition": [misplaced],
    "bad_reply_topic": [
        sent(reply_to=topic)
        for topic in (
            "elsewhere.topic",
            "box.intents",
            "box.moves",
            "box.replies.dlq",
            "box-intents-changelog",
            "__pf.keys",
            "box.replies.a b",
            "box.replies." + "x" * 240,
        )
    ]
    + [raw(("pf-reply-to", b"")), raw(("pf-reply-to", b"\xff"))],
    "deadline_passed": [lambda driver: driver.send(PUT, good(driver), deadline=driver.now - timedelta(milliseconds=1))],
    "outside_hours": [sent(Outside(box="b"))],
    "in_maintenance": [sent(Maintenance(box="b"))],
    "too_early": [sent(Early(box="b"))],
    "too_late": [sent(Late(box="b"))],
    "not_before": [
        lambda driver: driver.send(PUT, good(driver), not_before=driver.now + timedelta(days=366, milliseconds=1))
    ],
    "missing_context": [raw(token=False), raw(("pf-context", None))],
    "token_too_large": [with_token(lambda _: "x" * 8_193)],
    "too_many_blocks": [with_token(narrowed_eight_times)],
    "malformed_token": [with_token(lambda _: "x"), with_token(lambda _: ""), raw(("pf-context", b"\xff"))],
    "unknown_key": [with_token(minted(SigningKey.generate(2)))],
    "bad_signature": [with_token(minted(SigningKey.generate(1)))],
    "wrong_audience": [lambda driver: driver.send(PUT, minted(driver.key, "ship")(driver))],
    "token_expired": [late],
    "token_not_yet_valid": [
        with_token(lambda driver: driver.context(BoxCap.put("/**"), not_before=driver.now + timedelta(seconds=1)))
    ],
    "wrong_caller": [sent(Put(box="b", item="wrong_caller"))],
    "authentication_too_old": [sent(Put(box="b", item="authentication_too_old"))],
    "denied_by_rule": [sent(Put(box="b", item="denied_by_rule"))],
    "not_now": [
        sent(Put(box="b", item="not_now")),
        with_token(with_block('check if during("../2020-01-01T00:00:00Z")')),
        with_token(with_block('check if during("calendar nobody") or during("some day")')),
    ],
    "insufficient_capabilities": [
        with_token(lambda driver: driver.context()),
        with_token(lambda driver: driver.context(BoxCap.put("/cellar/**"))),
        with_token(lambda driver: driver.context(BoxCap.put("/attic"))),
        with_token(with_block("check if false")),
    ],
    "wrong_intent_type": [
        with_token(lambda driver: driver.context(BoxCap.put("/**"), intent_types=["box.moved.v1", "box.put"]))
    ],
    "wrong_topic": [with_token(lambda driver: driver.context(BoxCap.put("/**"), topics=["box.moves", "intents"]))],
    "check_failed": [with_token(with_block("check if 1 > 2"))],
    "limits_reached": [with_token(with_block("check if true"), Put(box="b" * 5_000))],
    "undecidable": [with_token(with_block("check if 1 / 0 == 1"))],
    "bad_resource": [sent(Put(box=box)) for box in ("a/b", "..", ".", "", "*", "**", "a?", "%2e", "a\x00b", "a\nb")],
    "untrusted_record": [
        on_moves(),
        *(
            on_moves(("pf-source", source))
            for source in (
                b"",
                b"a:1",
                b"a:1:x",
                b"a:-1:0",
                b":1:0",
                b"\xff:1:0",
                b"x" * 300 + b":1:0",
                b"a:1:99999999999",
            )
        ),
        on_moves(("pf-source", None)),
        on_moves(("pf-source", b"a:" + b"9" * 30 + b":0")),
        on_moves(("pf-source", b"a:1:0"), ("pf-hops", b"many")),
        on_moves(("pf-source", b"a:1:0"), ("pf-hops", b"9" * 5_000)),
    ],
    "too_many_hops": [lambda driver: driver.send(Ping(box="b", rounds=16))],
    "handler_failed": [sent(Put(box="b", act="raise"))],
    "poison": [deadly],
    "bad_effect": [sent(Put(box="b", act="return nonsense"))],
    "bad_state": [sent(Put(box="b", act="wrong type"))],
    "unit_too_large": [sent(Put(box="b", act="swell"))],
}


def test_every_code_has_its_causes() -> None:
    assert CAUSES.keys() == CODES.keys() - {"sink_failed"}  # tests/kafka/test_sinks.py


@pytest.mark.parametrize("code", CAUSES)
def test_the_record_is_a_dead_letter_with_that_code(code: str) -> None:
    for number, cause in enumerate(CAUSES[code]):
        driver = Driver(guarded, partitions=2, limits=LIMITS, now=NOW)
        before = driver.state(Boxes, "b")
        cause(driver)
        (letter,) = driver.dead_letters()
        assert letter.code == code, f"cause {number}"
        assert letter.message
        assert len(letter.message) <= 1_000
        assert driver.refused == {code: 1}, f"cause {number}"
        if code not in {"wrong_partition", "too_many_hops"}:
            assert driver.state(Boxes, "b") == before
        driver.send(Put(box="b", item="after"), good(driver))
        state = driver.state(Boxes, "b")
        assert state is not None
        assert state.items == ["after"], f"the lane goes on after cause {number}"


def test_the_lane_goes_on_after_all_of_them_together() -> None:
    """In units that a seed chooses, with a crash at the end."""
    driver = Driver(guarded, seed=11, limits=LIMITS, now=NOW)
    causes = [(code, cause) for code, causes in CAUSES.items() for cause in causes]
    skipped = {"token_expired", "wrong_partition", "too_many_hops", "poison"}
    chosen = [(code, cause) for code, cause in causes if code not in skipped]
    with driver.paused():
        for _, cause in chosen:
            cause(driver)
        driver.send(Put(box="b", item="after"), good(driver))
    driver.crash()
    assert driver.state(Boxes, "b") == Box(items=["after"], weight=1)
    assert sorted(letter.code for letter in driver.dead_letters()) == sorted(code for code, _ in chosen)
