"""Whose token it is, for whom, and when."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from pf_stream.security.envelope import to_base64url
from tests.hostile.forge import fields_of, spelled
from tests.hostile.scene import EVE, PARTNER, Attempt, Scene
from tests.hostile.target import GateCap, LoanCap
from tests.unit.security.cases import field, joined

__all__ = ["issuers", "times"]


def times(at: Scene) -> Iterator[Attempt]:
    """Tokens before and after their time. The end is the first millisecond of the driver's time; tests have the edges."""
    rights = GateCap.report("/UA/*"), LoanCap.write("/ann/**")
    second = at.now_ms // 1000 * 1000
    expired = at.mint(*rights, now_ms=second - 60_000, lifetime_s=60)
    early = at.mint(*rights, not_before_ms=second + 600_000)
    stale = at.narrow(at.ua, expires_ms=second)
    for name, code, token in (
        ("expired", "token_expired", expired),
        ("narrowed to a time that is over", "token_expired", stale),
        ("not yet valid", "token_not_yet_valid", early),
        (
            "not yet valid, by a block",
            "token_not_yet_valid",
            at.append(at.ua, f"check if time($t), $t >= {at.date(600)}"),
        ),
        ("expired, and decided by the authoriser", "token_expired", at.append(expired, "check if true")),
        ("not yet valid, and decided by the authoriser", "token_not_yet_valid", at.append(early, "check if true")),
        # The block's own time is no time: what holds for the issuer's check is the verifier's.
        ("expired, and a block says another time", "token_expired", at.append(expired, f"time({at.date(-90)})")),
        ("narrowed, and a block says another time", "token_expired", at.append(stale, f"time({at.date(-90)})")),
        (
            "not yet valid, and a block says another time",
            "token_not_yet_valid",
            at.append(early, f"time({at.date(700)})"),
        ),
        ("expired, prolonged", "token_expired", at.append(expired, f"check if time($t), $t < {at.date(900)}")),
    ):
        yield Attempt(f"time: {name}", code, at.departed(token))
        yield Attempt(f"time, by the producer's clock: {name}", code, at.stored(token))
    past = at.now_ms - 30_000
    yield Attempt(
        "time: expired, dated back, where the broker dates",
        "token_expired",
        replace(at.departed(expired), timestamp_ms=past),
    )
    # On a topic whose records carry the producer's time, the token is judged when the record is processed.
    yield Attempt(
        "time: expired, dated back, where the producer dates",
        "token_expired",
        replace(at.stored(expired), timestamp_ms=past),
    )
    yield Attempt(
        "time: not yet valid, dated on",
        "token_not_yet_valid",
        replace(at.stored(early), timestamp_ms=at.now_ms + 700_000),
    )
    yield Attempt(
        "time: expired, with a ce_time before", "token_expired", at.departed(expired).plus(("ce_time", rfc3339(past)))
    )
    yield Attempt("time: expired, for what anybody may", "token_expired", at.looked(expired))
    yield Attempt("time: expired, on an internal topic", "token_expired", at.totalled(expired))
    yield Attempt(
        "time: not before the token's end, beyond the horizon",
        "not_before",
        at.departed(at.ua).plus(("pf-not-before", rfc3339(at.now_ms + 367 * 86_400_000))),
    )
    yield Attempt(
        "time: not before the year 9999",
        "not_before",
        at.departed(at.ua).plus(("pf-not-before", b"9999-12-31T23:59:59Z")),
    )
    yield Attempt(
        "time: expired, to be handled later",
        "token_expired",
        at.departed(expired).plus(("pf-not-before", rfc3339(at.now_ms + 3_600_000))),
    )
    # It is judged when it arrives, not when it is handled.
    yield Attempt(
        "time: not yet valid, to be handled when it is",
        "token_not_yet_valid",
        at.departed(early).plus(("pf-not-before", rfc3339(at.now_ms + 700_000))),
    )
    for name, value in (("without a zone", b"2099-01-01T00:00:00"), ("that is none", b"never")):
        yield Attempt(
            f"time: not before a time {name}", "malformed_envelope", at.departed(at.ua).plus(("pf-not-before", value))
        )


def rfc3339(ms: int) -> bytes:
    """A time of a header."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().encode()


def issuers(at: Scene) -> Iterator[Attempt]:
    """Signed by others, under other numbers, or meant for others."""
    wide = GateCap.admin("/**")
    yield Attempt("issuer: one's own key", "bad_signature", at.departed(at.mint(wide, key=EVE)))
    yield Attempt("issuer: one's own key, at the internal topic", "bad_signature", at.totalled(at.mint(wide, key=EVE)))
    yield Attempt("issuer: one's own key, for what anybody may", "bad_signature", at.looked(at.mint(key=EVE)))
    rest = fields_of(at.ua)[1:]
    for name, code, kid in (
        ("unknown", "unknown_key", field(1, 9)),
        ("the greatest", "unknown_key", field(1, 2**32 - 1)),
        ("none", "unknown_key", b""),
        ("that of another trust root", "bad_signature", field(1, 8)),
        ("too great by 2^32", "malformed_token", field(1, 2**32 + 7)),
        ("minus one", "malformed_token", field(1, 2**64 - 1)),
        ("as text", "malformed_token", field(1, b"7")),
    ):
        yield Attempt(f"key number: {name}", code, at.departed(to_base64url(kid + joined(rest))))
    partner = fields_of(at.mint(wide, key=PARTNER))[1:]
    yield Attempt(
        "key number: the partner's token under the issuer's", "bad_signature", at.departed(spelled([(1, 7), *partner]))
    )
    name = at.namespace
    for what, audience in {
        "another": "other",
        "in capitals": name.upper(),
        "shorter": name[:-1],
        "longer": name + "s",
        "with a blank": name + " ",
        "in full width": "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in name),
        "with a look-alike": name.replace(name[0], {"h": "\u04bb", "t": "\u0442"}.get(name[0], "\u0445"), 1),
        "with what nobody sees": name + "\u200b",
        "a topic": at.intents,
        "any": "*",
    }.items():
        yield Attempt(f"audience: {what}", "wrong_audience", at.departed(at.mint(wide, audience=audience)))
