"""Attempts to get past the capability check: what each sends, and the code that it must get.

An attempt is a record that must not be handled. The attacker is any Kafka client, holds genuine tokens for the carrier ``UA`` and
the owner ``ann``, and is after ``DL`` and ``bob``, or after what a token no longer or not yet allows. Where the code is not plain
from the name, a comment says why it is that one.

What is *not* promised is not here: whoever may write to an internal topic, a changelog or a rerouted topic is believed in what
only the engine says there (docs/protocol.md, "Topics": write access for the topology alone). What is promised there all the same
is: no context, no intent.
"""

import base64
import gzip
import hashlib
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import Final, NamedTuple

import orjson
from biscuit_auth import BlockBuilder, PublicKey

from pf_stream import Intent
from pf_stream.core import partition_of
from pf_stream.core.records import Header
from pf_stream.model import Grant
from pf_stream.model.capability import HeldGrant
from pf_stream.security import MAX_TOKEN_BYTES, SigningKey, TrustRoots, attenuate, mint
from pf_stream.security.envelope import Envelope, to_base64url
from tests.hostile.forge import append_bytes, changed, fields_of, public_key, seal, spelled, symbols_in
from tests.hostile.target import Cancelled, Departed, GateCap, Looked, ShelfCap, Stored, Totalled, hostile
from tests.unit.security import cases
from tests.unit.security.cases import field, joined

__all__ = ["ROOTS", "Attempt", "Message", "Scene"]

PARTNER: Final = cases.OTHER_KEY
ROOTS: Final = TrustRoots.of(cases.KEY, PARTNER)
"""What the attacked workers trust: the issuer's key 7, and a partner's key 8."""
EVE: Final = SigningKey.generate(7)
"""The attacker's own key, under the issuer's number."""

STRUCTURED: Final = ("content-type", b"application/cloudevents+json")


@dataclass(frozen=True, slots=True)
class Message:
    """A record as a client writes it."""

    topic: str
    """Full name."""
    key: bytes | None
    """Record key."""
    value: bytes | None
    """Record value."""
    headers: tuple[Header, ...]
    """In their order."""
    timestamp_ms: int | None = None
    """The producer's; now if it is left out."""
    partition: int | None = None
    """Where the key lives if it is left out."""

    def having(self, *headers: Header) -> "Message":
        """With *headers* in place of those of the same names."""
        names = {name for name, _ in headers}
        return replace(self, headers=(*(header for header in self.headers if header[0] not in names), *headers))

    def misplaced(self) -> "Message":
        """In a partition where its key does not live."""
        home = partition_of(self.key or b"", hostile.partitions)
        return replace(self, partition=(home + 1) % hostile.partitions)

    def without(self, *names: str) -> "Message":
        """Without the headers of these names."""
        return replace(self, headers=tuple(header for header in self.headers if header[0] not in names))

    def plus(self, *headers: Header) -> "Message":
        """With *headers* behind the others, whatever these are."""
        return replace(self, headers=(*self.headers, *headers))


class Attempt(NamedTuple):
    """A record that must not be handled."""

    name: str
    """What is tried."""
    code: str
    """What its dead letter says."""
    message: Message
    """What is sent."""
    first: Message | None = None
    """What is sent right before, and is right: so that an answer to it is remembered."""


class Scene:
    """Where and when it happens, and the genuine tokens that an attacker may hold. Equal tokens are made once."""

    def __init__(self, namespace: str, now_ms: int) -> None:
        self.namespace = namespace
        self.now_ms = now_ms
        self.intents, self.files, self.totals = (f"{namespace}.{name}" for name in ("intents", "files", "totals"))
        self._made: dict[object, str] = {}
        self._lives = count(1)
        self.ua = self.mint(GateCap.report("/UA/*"), ShelfCap.write("/ann/**"))
        """The attacker's own."""
        self.dl = self.mint(GateCap.admin("/DL/*"), ShelfCap.write("/bob/**"), subject="bob")
        """The other tenant's: what is tampered with was once good for what is asked."""
        self.right = self._all_right()
        """Intents that must all work, of the keys that attempts are after."""
        self.themes = {theme.__name__: list(theme(self)) for theme in _THEMES}
        """All attempts, by what they are about."""

    # -- tokens --------------------------------------------------------------------------------------------------------

    def mint(self, *grants: Grant, subject: str = "ann", key: SigningKey = cases.KEY, **options: object) -> str:
        """A token of the closed profile."""
        given: dict[str, object] = {"audience": self.namespace, "now_ms": self.now_ms, **options}
        name = ("mint", tuple(map(HeldGrant.of, grants)), subject, key.public, repr(given))
        if name not in self._made:
            self._made[name] = mint(key, subject=subject, capabilities=grants, **given)  # type: ignore[arg-type]
        return self._made[name]

    def issue(self, source: str, *, kid: int | None = 7, values: Mapping[str, object] | None = None) -> str:
        """A token whose authority block is *source*, genuinely signed, behind what every token says."""
        plain = f'pf(1); subject("ann"); audience("{self.namespace}"); check if time($t), $t < {self.date(900)};'
        return self.raw_issue(plain + source, kid=kid, values=values)

    def raw_issue(self, source: str, *, kid: int | None = 7, values: Mapping[str, object] | None = None) -> str:
        """A token whose authority block is *source* alone."""
        name = ("issue", source, kid, repr(values))
        if name not in self._made:
            self._made[name] = cases.issue(source, values, kid=kid)
        return self._made[name]

    def narrow(self, token: str, **bounds: object) -> str:
        """*token* with a block of the closed profile."""
        name = ("narrow", token, repr(bounds))
        if name not in self._made:
            self._made[name] = attenuate(token, ROOTS, **bounds)  # type: ignore[arg-type]
        return self._made[name]

    def append(self, token: str, *sources: str) -> str:
        """*token* with a block for each of *sources*, as any holder can make them."""
        for source in sources:
            name = ("append", token, source)
            if name not in self._made:
                self._made[name] = cases.append(token, source)
            token = self._made[name]
        return token

    def date(self, seconds: float) -> str:
        """A date of Datalog, so many seconds from now."""
        return datetime.fromtimestamp(self.now_ms // 1000 + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # -- records -------------------------------------------------------------------------------------------------------

    def record(self, intent: Intent, context: str | bytes | None) -> Message:
        """An intent as docs/protocol.md has it."""
        spec = intent.__intent__
        headers: list[Header] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", spec.type.encode()),
            ("ce_source", b"/client"),
            ("ce_id", b"1"),
            ("content-type", b"application/json"),
        ]
        if context is not None:
            headers.append(("pf-context", context.encode() if isinstance(context, str) else context))
        topic = f"{self.namespace}.{spec.topic}"
        return Message(topic, spec.key_of(intent), spec.encode(intent), tuple(headers))

    def departed(self, context: str | bytes | None, carrier: str = "UA", origin: str = "EWR") -> Message:
        """A flight that left a gate; at UA's that of Newark, unless told otherwise."""
        return self.record(Departed(carrier=carrier, origin=origin, delay=1), context)

    def stored(self, context: str | bytes | None, owner: str = "ann", path: str = "docs/a") -> Message:
        """A file that is put onto a shelf."""
        return self.record(Stored(owner=owner, path=path), context)

    def looked(self, context: str | bytes | None) -> Message:
        """What anybody may."""
        return self.record(Looked(carrier="UA", origin="EWR"), context)

    def totalled(self, context: str | None, carrier: str = "UA") -> Message:
        """A record of the internal topic, as if a lane that nobody has heard of had written it."""
        message = self.record(Totalled(carrier=carrier, origin="EWR", delay=1), context)
        return message.plus(("pf-source", b"forged%d:1:0" % next(self._lives)))

    # -- what is right -------------------------------------------------------------------------------------------------

    def _all_right(self) -> list[Message]:
        forged: tuple[Header, ...] = (
            ("pf-source", b"forged:1:0"),
            ("pf-hops", b"99"),
            ("pf-rerouted", f"{self.intents}:0:0".encode()),
        )
        older = self.departed(self.ua).having(("ce_type", b"hostile.departed.v1"))
        sealed = seal(self.narrow(self.ua, topics=[self.files]))
        signed = append_bytes(
            self.ua, block(self.ua, ["topic", self.files], lambda at: checks(said(at, said_text(at + 1))))
        )
        reply_to = f"{self.namespace}.replies".encode()
        return [
            self.departed(self.ua),
            self.departed(self.dl, "DL"),
            # What only the engine's headers on internal topics may say changes nothing on a public one.
            self.departed(self.ua).plus(*forged),
            self.departed(self.ua).plus(*forged).misplaced(),
            replace(older, value=b'{"carrier":"UA","origin":"EWR","late":true}'),
            self.record(Cancelled(carrier="DL", origin="EWR"), self.dl),
            self.looked(None),
            self.looked(self.ua),
            self.stored(self.ua).plus(("pf-reply-to", reply_to)),
            self.stored(self.dl, "bob"),
            # That these are handled is what shows that the forger's tools make good signatures.
            self.stored(sealed),
            self.stored(signed),
        ]


# -- blocks, byte by byte -----------------------------------------------------------------------------------------------------


def block(token: str, symbols: Sequence[str], content: Callable[[int], bytes]) -> bytes:
    """The bytes of a block behind *token*: its own strings, and what names them by their number, the first's being given."""
    table = b"".join(field(1, symbol.encode()) for symbol in symbols)
    return table + field(3, 3) + content(symbols_in(token))


def said(name: int, *terms: bytes) -> bytes:
    """A predicate."""
    return field(1, name) + b"".join(field(2, term) for term in terms)


def said_text(number: int) -> bytes:
    """A term: a string."""
    return field(3, number)


def variable(number: int) -> bytes:
    """A term: a variable."""
    return field(1, number)


def checks(*predicates: bytes) -> bytes:
    """``check if`` of predicates."""
    return field(6, field(1, field(1, field(1, _QUERY)) + b"".join(field(2, one) for one in predicates)))


def derives(head: bytes, *body: bytes) -> bytes:
    """A rule."""
    return field(5, field(1, head) + b"".join(field(2, one) for one in body))


_QUERY: Final = 27
_RIGHT: Final = 4
"""Numbers of symbols that every token knows."""


# -- the token's bytes ----------------------------------------------------------------------------------------------------------


def tampered(at: Scene) -> Iterator[Attempt]:
    """Each kind of byte of a token, changed: the text, Biscuit's outer message, the blocks, the proof."""
    token = at.narrow(at.ua, topics=[at.intents, at.totals])
    raw = Envelope.read(token.encode()).data
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"

    def text(place: int, new: str | None = None) -> str:
        old = token[place]
        return token[:place] + (new or alphabet[(alphabet.index(old) + 1) % 64]) + token[place + 1 :]

    def byte(place: int, new: int) -> str:
        return to_base64url(raw[:place] + bytes([new]) + raw[place + 1 :])

    def flip(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    # A character that spells the key which the authority block is signed with: 15 bytes behind the beginning of that key.
    inside = 4 * (5 + raw.index(b"\x08\x00\x12\x20") // 3)
    kid, authority, narrowing, proof = fields_of(token)
    for place in range(4):
        yield Attempt(f"text: character {place} of four", "bad_signature", at.departed(text(inside + place)))
    for name, place, new in (
        ("first", 0, "B"),
        ("in the middle, of no alphabet", inside, "!"),
        ("in the middle, of standard base64", inside, "+"),
        ("in the middle, a line end", inside, "\n"),
    ):
        yield Attempt(f"text: a character {name}", "malformed_token", at.departed(text(place, new)))
    for name, context in {
        "upper and lower case exchanged": token.swapcase(),
        "backwards": token[::-1],
        "twice": token * 2,
        "a character more": token + "A",
        "one bit beyond the last byte": stray_bit(at),
    }.items():
        yield Attempt(f"text: {name}", "malformed_token", at.departed(context))
    for name, place, value in (
        ("tag of the key's number", 0, 0x00),
        ("tag of the authority block: that of a later one", 2, 0x1A),
        ("tag of the authority block: of a number", 2, 0x10),
        ("tag of the authority block: of eight bytes", 2, 0x11),
        ("length of the authority block, one more", 3, raw[3] + 1),
        ("length of the authority block, one less", 3, raw[3] - 1),
        ("tag of the block's data", 5, 0x12),
    ):
        yield Attempt(f"bytes: {name}", "malformed_token", at.departed(byte(place, value)))
    for number, what in ((1, "data"), (2, "next key"), (3, "signature")):
        for index, which in ((1, "authority block"), (2, "attenuation")):
            context = changed(token, index, number, flip)
            yield Attempt(f"bytes: {what} of the {which}", "bad_signature", at.departed(context))
    carrier = changed(token, 1, 1, lambda data: data.replace(b"/UA/*", b"/DL/*"))
    yield Attempt("bytes: the carrier of a right", "bad_signature", at.departed(carrier, "DL"))
    scope = changed(token, 1, 1, lambda data: data.replace(b"/UA/*", b"/*/**"))
    yield Attempt("bytes: the scope of a right", "bad_signature", at.departed(scope, "DL"))
    subject = changed(token, 1, 1, lambda data: data.replace(b"ann", b"bob"))
    yield Attempt("bytes: the subject", "bad_signature", at.departed(subject))
    ends = field(4, (at.now_ms // 1000 + 900))
    later = changed(token, 1, 1, lambda data: data.replace(ends, field(4, (at.now_ms // 1000 + 901))))
    yield Attempt("bytes: the end", "bad_signature", at.departed(later))
    elsewhere = changed(token, 2, 1, lambda data: data.replace(at.totals.encode(), at.totals.encode().upper()))
    yield Attempt("bytes: a topic of the attenuation", "bad_signature", at.departed(elsewhere))
    algorithm = changed(token, 1, 2, lambda key: key.replace(b"\x08\x00", b"\x08\x01", 1))
    yield Attempt("bytes: the algorithm of the next key", "malformed_token", at.departed(algorithm))
    short = changed(token, 1, 3, lambda data: data[:-1])
    yield Attempt("bytes: a signature of 63 bytes", "malformed_token", at.departed(short))
    nothing = changed(token, 1, 3, lambda _: bytes(64))
    yield Attempt("bytes: a signature of zeros", "bad_signature", at.departed(nothing))
    secret = proof[1]
    assert isinstance(secret, bytes)
    for name, code, fields in (
        ("the proof's secret", "bad_signature", [kid, authority, narrowing, (4, flip(secret))]),
        ("a seal of zeros", "bad_signature", [kid, authority, narrowing, (4, field(2, bytes(64)))]),
        ("an empty proof", "malformed_token", [kid, authority, narrowing, (4, b"")]),
        ("two proofs in one", "malformed_token", [kid, authority, narrowing, (4, secret + field(2, bytes(64)))]),
        ("two proofs", "malformed_token", [kid, authority, narrowing, proof, proof]),
        ("an unknown part", "malformed_token", [kid, authority, narrowing, proof, (5, b"")]),
        ("two key numbers", "malformed_token", [kid, kid, authority, narrowing, proof]),
    ):
        yield Attempt(f"bytes: {name}", code, at.departed(spelled(fields)))
    long_form = to_base64url(b"\x08\x87\x00" + joined([authority, narrowing, proof]))
    yield Attempt("bytes: the key's number in a longer form", "malformed_token", at.departed(long_form))


def stray_bit(at: Scene) -> str:
    """A token whose last character has a bit that belongs to no byte."""
    token = next(token for name in ("a", "aa", "aaa") if len(token := at.mint(subject=name)) % 4)
    last = token[-1]
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    return token[:-1] + alphabet[alphabet.index(last) + 1]


def cut(at: Scene) -> Iterator[Attempt]:
    """Tokens that end early."""
    token = at.narrow(at.ua, topics=[at.intents])
    raw = Envelope.read(token.encode()).data
    kid, authority, narrowing, _ = fields_of(token)
    for name, context in {
        "to nothing": "",
        "to a character": token[:1],
        "to four characters": token[:4],
        "to its half": token[: len(token) // 2],
        "by a character": token[:-1],
        "by two bytes": to_base64url(raw[:-2]),
        "by its proof": spelled([kid, authority, narrowing]),
        "behind the authority block": spelled([kid, authority]),
        "inside the authority block": to_base64url(raw[:100]),
        "by its beginning": token[4:],
    }.items():
        yield Attempt(f"cut: {name}", "malformed_token", at.departed(context))


def blocks(at: Scene) -> Iterator[Attempt]:
    """Blocks taken away, put elsewhere, taken from other tokens, or signed by the wrong key."""
    narrow = at.narrow(at.narrow(at.ua, topics=[at.files]), intent_types=["hostile.stored.v1"])
    kid, authority, one, two, proof = fields_of(narrow)
    other = fields_of(at.narrow(at.narrow(at.dl, topics=[at.intents]), topics=[at.intents]))
    wide = fields_of(at.mint(GateCap.admin("/**"), key=EVE))
    own = fields_of(at.append(at.ua, "check if true"))
    mine = (4, field(1, b"e" * 32))
    for name, fields in {
        "all attenuation removed": [kid, authority, proof],
        "the last attenuation removed": [kid, authority, one, proof],
        "the first attenuation removed": [kid, authority, two, proof],
        "all attenuation removed, with a proof of one's own": [kid, authority, mine],
        "the last attenuation removed, with a proof of one's own": [kid, authority, one, mine],
        "reordered": [kid, authority, two, one, proof],
        "one of them twice": [kid, authority, one, one, two, proof],
        "authority block of another token": [kid, other[1], one, two, proof],
        "attenuation of another token": [kid, authority, other[2], other[3], proof],
        "attenuation and proof of another token": [kid, authority, other[2], other[3], other[4]],
        "proof of another token": [kid, authority, one, two, other[4]],
        "authority block of one's own": [kid, wide[1], one, two, proof],
        "authority block as attenuation of one's own": [kid, wide[1], (3, authority[1]), proof],
    }.items():
        yield Attempt(f"blocks: {name}", "bad_signature", at.departed(spelled(fields)))
    for name, fields in {
        "no authority block": [kid, one, two, proof],
        "two authority blocks": [kid, authority, (2, wide[1][1]), proof],
        "authority block behind attenuation": [kid, one, authority, two, proof],
        "proof in front": [kid, proof, authority, one, two],
        "no block": [kid, proof],
    }.items():
        yield Attempt(f"blocks: {name}", "malformed_token", at.departed(spelled(fields)))
    harmless = block(at.ua, ["topic", at.intents], lambda first: checks(said(first, said_text(first + 1))))
    forged = append_bytes(at.ua, harmless, secret=b"e" * 32)
    yield Attempt("blocks: appended with a wrong key", "bad_signature", at.departed(forged))
    sealed = seal(at.ua)
    kid, authority, final = fields_of(sealed)
    for name, context in {
        "then a block put in that was made before": spelled([kid, authority, own[2], final]),
        "then appended to with a key of one's own": append_bytes(sealed, harmless, secret=b"s" * 32),
        "and its seal taken for a secret": spelled([kid, authority, (4, field(1, b"s" * 32))]),
    }.items():
        yield Attempt(f"blocks: sealed, {name}", "bad_signature", at.departed(context))
    resigned = changed(at.ua, 1, 2, lambda _: field(1, 0) + field(2, public_key(b"e" * 32)))
    kid, authority, _ = fields_of(resigned)
    yield Attempt("blocks: next key of one's own", "bad_signature", at.departed(spelled([kid, authority, mine])))
    yield Attempt("blocks: nine", "too_many_blocks", at.departed(at.append(at.ua, *["check if true"] * 8)))
    # Sizes are checked first, and so many blocks do not fit into the most that a token may have.
    hundred = [kid, authority, *[(3, one[1])] * 99, proof]
    yield Attempt("blocks: 100", "token_too_large", at.departed(spelled(hundred)))
    kid, authority, *_ = fields_of(at.raw_issue("pf(1)"))
    forty = [kid, authority, *[(3, one[1])] * 30, proof]
    yield Attempt("blocks: as many as the size allows", "too_many_blocks", at.departed(spelled(forty)))
    yield Attempt("size: one byte too many", "token_too_large", at.departed("A" * (MAX_TOKEN_BYTES + 1)))
    yield Attempt("size: a megabyte", "token_too_large", at.departed("A" * (1 << 20)))
    yield Attempt("size: all that is allowed, of nothing", "malformed_token", at.departed("A" * MAX_TOKEN_BYTES))


# -- whose token, for whom, and when ------------------------------------------------------------------------------------------


def times(at: Scene) -> Iterator[Attempt]:
    """Tokens before and after their time. The end is the first millisecond of the driver's time; tests have the edges."""
    rights = GateCap.report("/UA/*"), ShelfCap.write("/ann/**")
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


# -- what is asked for --------------------------------------------------------------------------------------------------------


def resources(at: Scene) -> Iterator[Attempt]:
    """Fields that shall be read as something else than what they are."""
    for name, code, path in (
        ("a folder up", "bad_resource", "../bob/x"),
        ("a folder up, further on", "bad_resource", "docs/../../bob/x"),
        ("a folder up, at the end", "bad_resource", "docs/.."),
        ("this folder", "bad_resource", "./../bob/x"),
        ("percent-encoded dots", "bad_resource", "%2e%2e/bob/x"),
        ("percent-encoded dots in capitals", "bad_resource", "%2E%2E/bob/x"),
        ("percent-encoded slash", "bad_resource", "..%2fbob%2fx"),
        ("percent-encoded twice", "bad_resource", "%252e%252e/bob/x"),
        ("overlong percent-encoding", "bad_resource", "%c0%ae%c0%ae/bob/x"),
        ("two slashes", "bad_resource", "docs//a"),
        ("two slashes in front", "bad_resource", "//bob/x"),
        ("a slash at the end", "bad_resource", "docs/"),
        ("nothing", "bad_resource", ""),
        ("a slash", "bad_resource", "/"),
        ("a NUL", "bad_resource", "docs/a\0/../../bob"),
        ("a line end", "bad_resource", "docs/a\n"),
        ("a wildcard", "bad_resource", "*"),
        ("everything below", "bad_resource", "**"),
        ("a question mark", "bad_resource", "docs/?"),
        ("a template", "bad_resource", "{path...}"),
    ):
        yield Attempt(f"path: {name}", code, at.stored(at.ua, path=path))
    docs = at.mint(ShelfCap.write("/ann/docs/**"))
    # A backslash is a character as any other: no folder, and no part of the scope.
    for name, path in (
        ("a backslash for a folder up", "docs\\..\\secret"),
        ("a backslash for a slash", "docs\\a"),
        ("a fraction slash", "docs\u2044a"),
        ("a division slash", "docs\u2215a"),
        ("a full-width slash", "docs\uff0fa"),
        ("in capitals", "Docs/a"),
        ("a neighbour of equal beginning", "docs2/a"),
        ("dots of two leaders", "docs\u2025/a"),
        ("three dots", ".../docs/a"),
    ):
        yield Attempt(f"path: {name}", "insufficient_capabilities", at.stored(docs, path=path))
    yield Attempt(
        "path: a one dot leader twice", "insufficient_capabilities", at.stored(docs, path="\u2024\u2024/docs/a")
    )
    for name, code, carrier in (
        ("another tenant", "insufficient_capabilities", "DL"),
        ("in small letters", "insufficient_capabilities", "ua"),
        ("in full width", "insufficient_capabilities", "\uff35\uff21"),
        ("a Cyrillic look-alike", "insufficient_capabilities", "U\u0410"),
        ("a Greek look-alike", "insufficient_capabilities", "U\u0391"),
        ("mathematical letters", "insufficient_capabilities", "\U0001d414\U0001d400"),
        ("a blank behind", "insufficient_capabilities", "UA "),
        ("a blank before", "insufficient_capabilities", " UA"),
        ("a blank that does not break", "insufficient_capabilities", "UA\u00a0"),
        ("a backslash", "insufficient_capabilities", "UA\\..\\DL"),
        ("very long", "insufficient_capabilities", "UA" * 50_000),
        ("a regular expression", "insufficient_capabilities", "(UA|DL)"),
        ("a quote and Datalog", "insufficient_capabilities", 'UA"); right("GateCap.admin", "'),
        ("nothing", "bad_resource", ""),
        ("a dot", "bad_resource", "."),
        ("a folder up", "bad_resource", ".."),
        ("a slash", "bad_resource", "UA/../DL"),
        ("a slash and no more", "bad_resource", "/"),
        ("a wildcard", "bad_resource", "*"),
        ("two wildcards", "bad_resource", "**"),
        ("a part of a wildcard", "bad_resource", "U*"),
        ("a question mark", "bad_resource", "U?"),
        ("a brace", "bad_resource", "{carrier}"),
        ("a percent sign", "bad_resource", "%55%41"),
        ("a line end", "bad_resource", "UA\n"),
        ("a carriage return", "bad_resource", "UA\r"),
        ("a tabulator", "bad_resource", "\tUA"),
        ("a next line", "bad_resource", "UA\u0085"),
        ("a line separator", "bad_resource", "UA\u2028"),
        ("a NUL", "bad_resource", "UA\0"),
        ("a delete", "bad_resource", "UA\x7f"),
        ("an escape", "bad_resource", "\x1b[1mUA"),
        ("no width", "bad_resource", "U\u200bA"),
        ("a joiner", "bad_resource", "U\u200dA"),
        ("a byte order mark", "bad_resource", "\ufeffUA"),
        ("a soft hyphen", "bad_resource", "U\u00adA"),
        ("a word joiner", "bad_resource", "U\u2060A"),
        ("from right to left", "bad_resource", "\u202eAU"),
        ("an isolate", "bad_resource", "\u2067AU\u2069"),
        ("tags", "bad_resource", "UA\U000e0055"),
        ("not in normal form C", "bad_resource", "UA\u0041\u030a"),
        ("a sign that normal form C changes", "bad_resource", "\u212b"),
        ("a Kelvin sign", "bad_resource", "\u212a"),
    ):
        yield Attempt(f"carrier: {name}", code, at.departed(at.ua, carrier))
    # In either field: both are segments of one resource.
    for name, origin in (("a slash", "EWR/1"), ("nothing", ""), ("a folder up", ".."), ("a wildcard", "*")):
        yield Attempt(f"origin: {name}", "bad_resource", at.departed(at.ua, origin=origin))
    endless = at.append(at.ua, "check if true")
    yield Attempt("origin: very long, by the authoriser", "limits_reached", at.departed(endless, origin="E" * 5_000))
    for name, code, token in (
        ("of nothing", "insufficient_capabilities", at.mint()),
        ("of one gate, for another", "insufficient_capabilities", at.mint(GateCap.report("/UA/LAX"))),
        ("of the folder alone", "insufficient_capabilities", at.mint(GateCap.report("/UA"))),
        ("of the root alone", "insufficient_capabilities", at.mint(GateCap.report("/"))),
        ("of a segment too many", "insufficient_capabilities", at.mint(GateCap.report("/UA/EWR/*"))),
        ("of another operation", "insufficient_capabilities", at.mint(GateCap.cancel("/**"))),
        ("of another family", "insufficient_capabilities", at.mint(ShelfCap.write("/**"))),
        ("of an operation in capitals", "insufficient_capabilities", at.issue('right("GateCap.Report", "/**");')),
        ("of every operation, by a star", "malformed_token", at.issue('right("GateCap.*", "/**");')),
        ("narrowed to nothing", "insufficient_capabilities", at.narrow(at.ua, capabilities=[])),
        (
            "narrowed to another gate",
            "insufficient_capabilities",
            at.narrow(at.ua, capabilities=[GateCap.report("/UA/LAX")]),
        ),
        (
            "narrowed, and widened again",
            "insufficient_capabilities",
            at.narrow(at.narrow(at.ua, capabilities=[GateCap.report("/UA/LAX")]), capabilities=[GateCap.admin("/**")]),
        ),
        (
            "for another type",
            "wrong_intent_type",
            at.mint(GateCap.report("/**"), intent_types=["hostile.cancelled.v1"]),
        ),
        (
            "for a type without its version",
            "wrong_intent_type",
            at.mint(GateCap.report("/**"), intent_types=["hostile.departed"]),
        ),
        ("for another topic", "wrong_topic", at.mint(GateCap.report("/**"), topics=[at.files])),
        ("for a topic without its namespace", "wrong_topic", at.mint(GateCap.report("/**"), topics=["intents"])),
        (
            "for two topics that exclude each other",
            "wrong_topic",
            at.narrow(at.mint(topics=[at.files]), topics=[at.intents]),
        ),
    ):
        yield Attempt(f"grant: {name}", code, at.departed(token))
    yield Attempt("grant: admin of one, for the other", "insufficient_capabilities", at.departed(at.dl))
    yield Attempt(
        "grant: reports, for a cancellation",
        "insufficient_capabilities",
        at.record(Cancelled(carrier="UA", origin="EWR"), at.ua),
    )


def payloads(at: Scene) -> Iterator[Attempt]:
    """Values that two readers may read as two things, and what says in them that it is allowed."""
    plain = at.departed(at.ua)
    for name, code, value in (
        (
            "a field twice, the first one's own",
            "insufficient_capabilities",
            b'{"carrier":"UA","origin":"EWR","carrier":"DL"}',
        ),
        ("an escaped slash", "bad_resource", b'{"carrier":"UA\\u002f..","origin":"EWR"}'),
        ("escaped dots", "bad_resource", b'{"carrier":"\\u002e\\u002e","origin":"EWR"}'),
        ("overlong UTF-8", "malformed_payload", b'{"carrier":"UA\xc0\xaf","origin":"EWR"}'),
        ("half a surrogate", "malformed_payload", b'{"carrier":"\\ud800","origin":"EWR"}'),
        ("a number for a text", "malformed_payload", b'{"carrier":7,"origin":"EWR"}'),
        ("true for a text", "malformed_payload", b'{"carrier":true,"origin":"EWR"}'),
        ("a list for a text", "malformed_payload", b'{"carrier":["UA","DL"],"origin":"EWR"}'),
        ("null for a text", "malformed_payload", b'{"carrier":null,"origin":"EWR"}'),
        ("a field in capitals", "malformed_payload", b'{"Carrier":"UA","origin":"EWR"}'),
        ("a field too few", "malformed_payload", b'{"carrier":"UA"}'),
        ("UTF-16", "malformed_payload", '{"carrier":"UA","origin":"EWR"}'.encode("utf-16")),
        ("a byte order mark", "malformed_payload", b'\xef\xbb\xbf{"carrier":"UA","origin":"EWR"}'),
        ("two documents", "malformed_payload", b'{"carrier":"UA","origin":"EWR"}{"carrier":"DL","origin":"EWR"}'),
        ("a comment", "malformed_payload", b'{"carrier":"UA"/*DL*/,"origin":"EWR"}'),
        ("nothing", "malformed_payload", b""),
        ("larger than is read", "payload_too_large", b" " * (1 << 20) + b'{"carrier":"UA","origin":"EWR"}'),
    ):
        yield Attempt(f"payload: {name}", code, replace(plain, value=value))
    yield Attempt("payload: none, to delete", "null_value", replace(plain, value=None))
    asked = {"carrier": "DL", "origin": "EWR"}
    for name, more in (
        ("the context in it", {"pf-context": at.dl}),
        ("the context in it, as a name", {"pf_context": at.dl}),
        ("a capability in it", {"capabilities": ["GateCap.admin:/**"]}),
        ("a right in it", {"right": ["GateCap.admin", "/**"]}),
        ("a subject in it", {"subject": "bob"}),
    ):
        # Even the attacker's own gate is not reported so: unknown fields are refused.
        value = orjson.dumps({**asked, **more})
        yield Attempt(f"payload: {name}", "malformed_payload", replace(at.departed(None, "DL"), value=value))
    own = replace(at.departed(None), value=orjson.dumps({"carrier": "UA", "origin": "EWR", "context": at.ua}))
    yield Attempt("payload: one's own context in it", "malformed_payload", own)


def keys(at: Scene) -> Iterator[Attempt]:
    """Record keys that are not those of the payload: state lives where the key says."""
    plain = at.departed(at.ua)
    for name, key in {
        "another tenant's": b'["DL","EWR"]',
        "another order": b'["EWR","UA"]',
        "with blanks": b'["UA", "EWR"]',
        "without the brackets": b"UA,EWR",
        "the first field alone": b"UA",
        "in small letters": b'["ua","ewr"]',
        "with a NUL": b'["UA","EWR"]\0',
        "in UTF-16": '["UA","EWR"]'.encode("utf-16"),
        "of no text": b"\xff\xfe",
        "empty": b"",
    }.items():
        yield Attempt(f"key: {name}", "key_mismatch", replace(plain, key=key))
    yield Attempt("key: none", "null_key", replace(plain, key=None))
    yield Attempt("key: the owner's with a slash", "key_mismatch", replace(at.stored(at.ua), key=b"/ann"))
    # What is allowed is asked first: who may not, is not told which key it is.
    yield Attempt(
        "key: one's own, with another's payload",
        "insufficient_capabilities",
        replace(at.departed(at.ua, "DL"), key=b'["UA","EWR"]'),
    )


# -- Datalog --------------------------------------------------------------------------------------------------------------------


def datalog(at: Scene) -> Iterator[Attempt]:
    """What blocks say, those that any holder appends and those that an issuer was talked into."""
    facts, few = ("".join(f"f({number});" for number in range(size)) for size in (300, 60))
    for name, source in {
        "a join": facts + "check if f($a), f($b), f($c), f($d), $a + $b + $c + $d == -1",
        "a wide join": few + "check if " + ", ".join(f"f($v{number})" for number in range(60)),
        "a join in a rule": facts + "g($a) <- f($a), f($b), f($c), f($d), $a + $b + $c + $d == -1",
        "a head that explodes": few + "g($a, $b, $c, $d) <- f($a), f($b), f($c), f($d)",
        "rules in a circle": "f($x) <- g($x); g($x) <- f($x); f(1)",
        "a rule that feeds itself": "f(1); f($x) <- f($x)",
        "requests joined": "check if " + ", ".join(f"request($o{number}, $r)" for number in range(8)),
        "closures in closures": "check if " + closures(60, "a", "b", "c"),
        "deep closures": "check if " + closures(4, *"abcdefghij"),
        "a repetition in an expression": 'check if "x".matches("\\\\w{1000}")',
        "repetitions in repetitions": 'check if "x".matches("((a{99}){99}){99}")',
        "an expression out of a fact": 'p("\\\\w{999}"); check if p($p), "x".matches($p)',
        "an expression out of the request": 'check if request($o, $r), "x".matches("\\\\w" + $r)',
        "long sums": 'f("' + "x" * 1000 + '"); check if f($x), ' + " + ".join(["$x"] * 200) + ' == "a"',
    }.items():
        yield Attempt(f"bomb: {name}", "limits_reached", at.departed(at.append(at.ua, source)))
    for name, source in {
        "a right": 'right("GateCap.report", "/DL/**")',
        "a right to everything": 'right("GateCap.admin", "/**")',
        "a right by a rule": "right($o, $r) <- request($o, $r)",
        "a right by a rule that trusts the issuer": "right($o, $r) <- request($o, $r) trusting authority",
        "a right by a rule that trusts what came before": "right($o, $r) <- request($o, $r) trusting previous",
        "another subject": 'subject("bob")',
        "another tenant": 'tenant("DL")',
        "the request": 'request("GateCap.report", "/UA/EWR")',
        "the whole of a profile": 'pf(1); subject("bob"); audience("x"); right("GateCap.admin", "/**")',
        "a check that trusts what came before": "check if true trusting previous",
        "a check of the right itself": 'check if right($o, "/UA/*") trusting authority',
    }.items():
        yield Attempt(f"block: {name}", "insufficient_capabilities", at.departed(at.append(at.ua, source), "DL"))
    # A check sees the facts of its own block and of the issuer's, never those of a later one.
    elsewhere = at.narrow(at.ua, topics=[at.files])
    cancelling = at.narrow(at.ua, intent_types=["hostile.cancelled.v1"])
    losing = at.narrow(at.ua, capabilities=[GateCap.report("/UA/LAX")])
    open_check = at.append(at.ua, f'check if topic($t), $t.starts_with("{at.files}")')
    for name, code, token in (
        ("topic", "wrong_topic", at.append(elsewhere, f'topic("{at.files}")')),
        ("topic, by a rule", "wrong_topic", at.append(elsewhere, f'topic("{at.files}") <- intent_type($t)')),
        ("type", "wrong_intent_type", at.append(cancelling, 'intent_type("hostile.cancelled.v1")')),
        ("request", "insufficient_capabilities", at.append(losing, 'request("GateCap.report", "/UA/LAX")')),
        ("topic, for a check of the authoriser's", "check_failed", at.append(open_check, f'topic("{at.files}")')),
    ):
        yield Attempt(f"block: what a narrowing asks for, as a fact: {name}", code, at.departed(token))
    for name, code, source in (
        ("a check that fails", "check_failed", "check if 1 > 2"),
        ("a check of all that fails", "check_failed", "check all request($o, $r), $r == 7"),
        ("a refusal", "check_failed", "reject if true"),
        ("a check of an unknown fact", "check_failed", "check if nobody($x)"),
        ("a division by nothing", "undecidable", "check if 1 / 0 == 1"),
        ("a number too great", "undecidable", "check if 9223372036854775807 + 1 > 0"),
        ("a text plus a number", "undecidable", "check if request($o, $r), $r + 1 == 2"),
        ("a number for a condition", "undecidable", "check if 1 == 2 || 1"),
        ("an expression that is none", "check_failed", 'check if "x".matches("(")'),
    ):
        yield Attempt(f"block: {name}", code, at.departed(at.append(at.ua, source)))
    # Some holds, but nobody asks for anything: a token that only the authoriser can judge is not taken for nothing.
    yield Attempt(
        "block: conditions, for what anybody may", "undecidable", at.looked(at.append(at.ua, "check if true"))
    )
    yield from _raw_blocks(at)
    yield from _third_parties(at)
    yield from _issued(at)


def closures(size: int, *names: str) -> str:
    """An ``all`` in an ``all`` in an ``all``."""
    array = "[" + ",".join(map(str, range(size))) + "]"
    inner = " + ".join(f"${name}" for name in names) + " >= 0"
    for name in reversed(names):
        inner = f"{array}.all(${name} -> {inner})"
    return inner


def _raw_blocks(at: Scene) -> Iterator[Attempt]:
    """Blocks that the library does not build, rightly signed."""
    ua = at.ua
    everything = [variable(0), variable(1)]
    for name, code, content in (
        # The library finds it only when it builds the authoriser.
        ("a right with an unbound head", "undecidable", lambda at: derives(said(_RIGHT, *everything))),
        (
            "a right with a head that is half bound",
            "undecidable",
            lambda at: derives(said(_RIGHT, *everything), said(at, variable(0))),
        ),
        ("a symbol that is not in the table", "malformed_token", lambda at: checks(said(at + 99))),
        ("an unknown part", "malformed_token", lambda at: field(9, b"")),
        ("a check of an unknown kind", "malformed_token", lambda at: field(6, field(2, 7))),
        ("a term of an unknown kind", "malformed_token", lambda at: checks(said(at, field(15, b"")))),
        ("a collection in a collection, too deeply", "malformed_token", lambda at: checks(said(at, nested(40)))),
    ):
        token = append_bytes(ua, block(ua, ["q"], content))
        yield Attempt(f"raw block: {name}", code, at.departed(token))
    for name, code, data in (
        ("nothing", "malformed_token", b""),
        ("a version of the future", "malformed_token", field(3, 99)),
        ("a version of the past", "malformed_token", field(3, 1)),
        ("two versions", "malformed_token", field(3, 3) + field(3, 3)),
        # The library verifies and reads at once, and has one error for what does not fit and what it cannot read.
        ("no protobuf", "bad_signature", b"\xff" * 9),
        ("a string that is no UTF-8", "bad_signature", field(1, b"\xff") + field(3, 3)),
        ("a string that the table has already", "bad_signature", block(ua, ["GateCap.report", "/**"], right_of)),
    ):
        yield Attempt(f"raw block: {name}", code, at.departed(append_bytes(ua, data)))
    free = block(ua, ["q"], lambda _: field(4, field(1, said(_RIGHT, *everything))))
    yield Attempt(
        "raw block: a right with variables", "insufficient_capabilities", at.departed(append_bytes(ua, free), "DL")
    )
    again = block(ua, ["GateCap.admin", "/**"], right_of)
    yield Attempt(
        "raw block: a right by the number of its name",
        "insufficient_capabilities",
        at.departed(append_bytes(ua, again), "DL"),
    )


def right_of(first: int) -> bytes:
    """A fact: the right to the first of a block's own strings, on the second."""
    return field(4, field(1, said(_RIGHT, said_text(first), said_text(first + 1))))


def nested(depth: int) -> bytes:
    """A term: an array of an array of an array."""
    term = variable(0)
    for _ in range(depth):
        term = field(9, field(1, term))
    return term


def _third_parties(at: Scene) -> Iterator[Attempt]:
    """Blocks that somebody else signed too."""
    everything = 'right("GateCap.admin", "/**"); approved("ann")'
    for name, key in (("of one's own", EVE), ("of the partner", PARTNER)):
        token = third_party(at.ua, key, everything)
        # Whoever signs it beside the holder, it is a later block.
        yield Attempt(f"third party: a right {name}", "insufficient_capabilities", at.departed(token, "DL"))
    asks = at.issue(f'right("GateCap.report", "/UA/*"); check if approved("ann") trusting {PARTNER.public};')
    yield Attempt("third party: asked for, and none", "check_failed", at.departed(asks))
    yield Attempt(
        "third party: asked for, and one's own", "check_failed", at.departed(third_party(asks, EVE, everything))
    )
    plain = at.append(asks, 'approved("ann")')
    yield Attempt("third party: asked for, and a block that nobody signed", "check_failed", at.departed(plain))
    approved = third_party(asks, PARTNER, everything)
    moved = fields_of(third_party(at.ua, PARTNER, everything))
    kid, authority, _, proof = fields_of(approved)
    yield Attempt(
        "third party: one that was signed for another token",
        "bad_signature",
        at.departed(spelled([kid, authority, moved[2], proof])),
    )
    yield Attempt("third party: for another tenant", "insufficient_capabilities", at.departed(approved, "DL"))


def third_party(token: str, key: SigningKey, source: str) -> str:
    """*token* with a block that the holder of *key* signed for it."""
    genuine = cases.biscuit(token)
    made = genuine.third_party_request().create_block(key.private, BlockBuilder(source))
    return to_base64url(bytes(genuine.append_third_party(PublicKey(key.public), made).to_bytes()))


def _issued(at: Scene) -> Iterator[Attempt]:
    """Authority blocks that an issuer of no care signs."""
    for name, source in {
        "says the request": 'right("GateCap.report", "/UA/*"); request("GateCap.report", "/DL/EWR");',
        "says the time": f"time({at.date(-900)});",
        "says the topic": f'topic("{at.files}");',
        "says the type": 'intent_type("hostile.departed.v2");',
        "derives rights from requests": "right($o, $r) <- request($o, $r);",
        "derives a subject": 'subject("bob") <- subject("ann");',
        "says two subjects": 'subject("bob");',
        "says two audiences": 'audience("other");',
        "says two versions": "pf(2);",
        "has a right up a folder": 'right("GateCap.report", "/UA/../DL/*");',
        "has a right with a wildcard in a name": 'right("GateCap.report", "/U*/*");',
        "has a right without a slash": 'right("GateCap.report", "UA");',
        "has a right of three": 'right("GateCap.report", "/**", "/**");',
        "has a right of one": 'right("GateCap.report");',
        "has a right of numbers": "right(1, 2);",
        "has an empty tenant": 'tenant("");',
    }.items():
        yield Attempt(f"issued: {name}", "malformed_token", at.departed(at.issue(source)))
    for name, source in {
        "says no subject": f'pf(1); audience("{at.namespace}"); right("GateCap.admin", "/**");',
        "says no audience": 'pf(1); subject("ann"); right("GateCap.admin", "/**");',
        "says no version": f'subject("ann"); audience("{at.namespace}"); right("GateCap.admin", "/**");',
        "says another version": f'pf(2); subject("ann"); audience("{at.namespace}"); right("GateCap.admin", "/**");',
        "says nothing": "x(1);",
    }.items():
        yield Attempt(f"issued: {name}", "malformed_token", at.departed(at.raw_issue(source)))
    injected = at.mint(GateCap.report("/UA/*"), subject='ann"); right("GateCap.admin", "/**')
    yield Attempt("issued: a subject that is Datalog", "insufficient_capabilities", at.departed(injected, "DL"))
    typed = at.mint(GateCap.report("/UA/*"), intent_types=['x") or intent_type("hostile.departed.v2'])
    yield Attempt("issued: a type that is Datalog", "wrong_intent_type", at.departed(typed))
    rule = at.issue('right("GateCap.report", "/UA/*"); may($o, $r) <- request($o, $r);')
    yield Attempt("issued: a rule of another name", "insufficient_capabilities", at.departed(rule, "DL"))


# -- the envelope ---------------------------------------------------------------------------------------------------------------


def contexts(at: Scene) -> Iterator[Attempt]:
    """The context elsewhere, or spelled otherwise."""
    naked = at.departed(None)
    yield Attempt("context: none", "missing_context", naked)
    yield Attempt("context: null", "missing_context", naked.plus(("pf-context", None)))
    token = at.ua.encode()
    for name in (
        "PF-Context", "Pf-context", "pf_context", "pfcontext", " pf-context", "pf-context ", "pf-context\0", "\uff50f-context",
        "pf\u2010context", "x-pf-context", "context", "token", "Authorization", "authorization", "biscuit", "cookie",
        "ce_pfcontext", "ce_pf-context", "ce_authorization", "ce_subject", "pf-context-", "pf-contexts", "__pf-context",
    ):  # fmt: skip
        yield Attempt(f"context: as header {name!r}", "missing_context", naked.plus((name, token)))
    bearer = naked.plus(("Authorization", b"Bearer " + token))
    yield Attempt("context: as a bearer token", "missing_context", bearer)
    for name, headers in {
        "capabilities": (("pf-capabilities", b"GateCap.admin:/**"),),
        "a subject": (("pf-subject", b"root"), ("pf-tenant", b"DL")),
        "X-headers": (("X-Capabilities", b"GateCap.admin:/**"), ("X-User", b"root"), ("X-Forwarded-User", b"root")),
        "revocation ids": (("pf-revocation-ids", b"00"),),
        "an audit record": (("pf-error-code", b""), ("pf-replayed-from", f"{at.intents}.dlq:0:0".encode())),
        "that it was verified": (("pf-verified", b"true"), ("pf-trusted", b"1")),
        "pf-source": (("pf-source", b"0123456789abcdef:1:0"),),
        "pf-hops": (("pf-hops", b"1"),),
        "pf-rerouted": (("pf-rerouted", f"{at.intents}:0:0".encode()),),
        "all of the engine's": (
            ("pf-source", b"0123456789abcdef:1:0"),
            ("pf-hops", b"1"),
            ("pf-rerouted", f"{at.intents}:0:0".encode()),
            ("ce_source", b"/hostile/gates"),
        ),
    }.items():
        yield Attempt(f"headers: {name}, without a context", "missing_context", naked.having(*headers))
        other = at.departed(at.ua, "DL").having(*headers)
        yield Attempt(f"headers: {name}, for another tenant", "insufficient_capabilities", other)
    mixed = next(
        one for number in count() if {"-", "_"} <= set(one := at.mint(GateCap.report("/UA/*"), subject=f"ann{number}"))
    )
    odd = next(
        one for number in count() if len(one := at.mint(GateCap.report("/UA/*"), subject="a" * (number + 1))) % 4
    )
    raw = Envelope.read(token).data
    jwt = b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290IiwiYXVkIjoiaG9zdGlsZSJ9."
    for name, context in {
        "a blank before": b" " + token,
        "a blank behind": token + b" ",
        "a line end behind": token + b"\n",
        "a NUL behind": token + b"\0",
        "line breaks": b"\n".join(token[place : place + 64] for place in range(0, len(token), 64)),
        "padding": odd.encode() + b"=" * (-len(odd) % 4),
        "padding, percent-encoded": odd.encode() + b"%3D" * (-len(odd) % 4),
        "the standard alphabet": mixed.translate(str.maketrans("-_", "+/")).encode(),
        "hexadecimal": raw.hex().encode()[:MAX_TOKEN_BYTES],
        "raw bytes": raw,
        "base64 twice": base64.urlsafe_b64encode(token).rstrip(b"="),
        "UTF-16": at.ua.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + token,
        "compressed": gzip.compress(token, mtime=0),
        "a scheme in front": b"Bearer " + token,
        "a scheme in front, Biscuit's": b"biscuit:" + token,
        "in quotes": b'"' + token + b'"',
        "JSON": orjson.dumps({"token": at.ua}),
        "PEM": b"-----BEGIN BISCUIT-----\n" + token + b"\n-----END BISCUIT-----",
        "two, with a comma": token + b"," + token,
        "two, with a blank": at.dl.encode() + b" " + token,
        "a JWT without a signature": jwt,
        "a JWT with one": jwt + b"c2lnbmF0dXJl",
        "a macaroon": base64.urlsafe_b64encode(b"\x02\x01\x07hostile\x02\x04root\x00\x00\x06 " + bytes(32)).rstrip(
            b"="
        ),
        "a word": b"admin",
        "the word null": b"null",
        "true": b"true",
        "Datalog": b'right("GateCap.admin", "/**")',
        "its revocation id": hashlib.sha256(token).hexdigest().encode(),
    }.items():
        yield Attempt(f"context: {name}", "malformed_token", at.departed(context))
    for name, first, second in (
        ("both right", at.ua, at.dl),
        ("the same", at.ua, at.ua),
        ("right and junk", at.ua, "junk"),
        ("junk and right", "junk", at.ua),
        ("right and empty", at.ua, ""),
    ):
        twice = at.departed(first).plus(("pf-context", second.encode()))
        yield Attempt(f"context: twice, {name}", "duplicate_header", twice)
    yield Attempt("context: twice, right and null", "duplicate_header", at.departed(at.ua).plus(("pf-context", None)))
    yield Attempt(
        "context: twice, for what anybody may", "duplicate_header", at.looked(at.ua).plus(("pf-context", b"junk"))
    )
    yield Attempt("context: junk, for what anybody may", "malformed_token", at.looked("junk"))
    for name, token_ in (
        ("for another topic", at.mint(topics=[at.files])),
        ("for another topic, and a block says ours", at.append(at.mint(topics=[at.files]), f'topic("{at.intents}")')),
    ):
        yield Attempt(f"context: {name}, for what anybody may", "wrong_topic", at.looked(token_))
    many = naked.plus(*((f"x-{number}", b"") for number in range(64)), ("pf-context", at.ua.encode()))
    yield Attempt("headers: too many to look at", "too_many_headers", many)


def types(at: Scene) -> Iterator[Attempt]:
    """Types that shall be taken for others."""
    for name, code, kind in (
        ("in capitals", "unknown_type", b"HOSTILE.DEPARTED.V2"),
        ("a capital", "unknown_type", b"hostile.Departed.v2"),
        ("a blank behind", "unknown_type", b"hostile.departed.v2 "),
        ("a blank before", "unknown_type", b" hostile.departed.v2"),
        ("a line end", "unknown_type", b"hostile.departed.v2\n"),
        ("a NUL", "unknown_type", b"hostile.departed.v2\0"),
        ("a NUL and more", "unknown_type", b"hostile.looked.v1\0hostile.departed.v2"),
        ("a look-alike", "unknown_type", "hostil\u0435.departed.v2".encode()),
        ("full width", "unknown_type", "hostile.departed.v\uff12".encode()),
        ("no width", "unknown_type", "hostile.departed\u200b.v2".encode()),
        ("UTF-16", "unknown_type", "hostile.departed.v2".encode("utf-16")),
        ("of no text", "unknown_type", b"\xff\xfe"),
        ("without a version", "unknown_type", b"hostile.departed"),
        ("a version of one point", "unknown_type", b"hostile.departed.v2.0"),
        ("a version less than none", "unknown_type", b"hostile.departed.v-1"),
        ("a version with a sign", "unknown_type", b"hostile.departed.v+2"),
        ("a version in capitals", "unknown_type", b"hostile.departed.V2"),
        ("a version that is a word", "unknown_type", b"hostile.departed.latest"),
        ("version 0", "unsupported_version", b"hostile.departed.v0"),
        ("version 01", "unsupported_version", b"hostile.departed.v01"),
        ("version 002", "unsupported_version", b"hostile.departed.v002"),
        ("a newer version", "unsupported_version", b"hostile.departed.v3"),
        ("the newest version", "unsupported_version", b"hostile.departed.v999999999"),
        ("a version that what anybody may never had", "unsupported_version", b"hostile.looked.v2"),
        ("of the internal topic", "unknown_type", b"hostile.totalled.v1"),
        ("of another public topic", "unknown_type", b"hostile.stored.v1"),
        ("of a reply", "unknown_type", b"hostile.departed.reply"),
        ("of a refusal", "unknown_type", b"pf.refused"),
        ("a pattern", "unknown_type", b"hostile.*"),
        ("two", "unknown_type", b"hostile.looked.v1,hostile.departed.v2"),
        ("a path", "unknown_type", b"../hostile.departed.v2"),
        ("empty", "malformed_envelope", b""),
        ("null", "malformed_envelope", None),
    ):
        yield Attempt(f"type: {name}", code, at.departed(at.ua).having(("ce_type", kind)))
    yield Attempt("type: none", "malformed_envelope", at.departed(at.ua).without("ce_type"))
    free = at.departed(None).plus(("ce_type", b"hostile.looked.v1"))
    yield Attempt("type: two, the last of what anybody may", "duplicate_header", free)
    yield Attempt(
        "type: two, the first of what anybody may",
        "duplicate_header",
        at.looked(None).plus(("ce_type", b"hostile.departed.v2")),
    )
    yield Attempt(
        "type: as header CE_TYPE alone",
        "malformed_envelope",
        at.departed(at.ua).without("ce_type").plus(("CE_TYPE", b"hostile.departed.v2")),
    )
    older = at.departed(at.ua).having(("ce_type", b"hostile.departed.v1"))
    late = b'{"carrier":"DL","origin":"EWR","late":true}'
    yield Attempt("type: an older version, for another tenant", "insufficient_capabilities", replace(older, value=late))
    yield Attempt("type: an older version, without a context", "missing_context", older.without("pf-context"))
    yield Attempt("type: an older version of what is no object", "malformed_payload", replace(older, value=b'["UA"]'))
    # A token that is limited to types names the version that is sent, not what becomes of it.
    newest = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v2"])
    oldest = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v1"])
    yield Attempt(
        "type: an older version, with a token for the newer",
        "wrong_intent_type",
        older.having(("pf-context", newest.encode())),
    )
    yield Attempt("type: the newer version, with a token for the older", "wrong_intent_type", at.departed(oldest))
    for name, header in (
        ("specversion of the past", ("ce_specversion", b"0.3")),
        ("specversion with a blank", ("ce_specversion", b"1.0 ")),
        ("specversion null", ("ce_specversion", None)),
        ("source empty", ("ce_source", b"")),
        ("id null", ("ce_id", None)),
    ):
        yield Attempt(f"envelope: {name}", "malformed_envelope", at.departed(at.ua).having(header))
    for name in ("ce_id", "ce_source", "content-type", "pf-reply-to", "pf-source"):
        twice = at.departed(at.ua).without(name).plus((name, b"application/json"), (name, b"application/json"))
        yield Attempt(f"envelope: {name} twice", "duplicate_header", twice)


def structured(at: Scene) -> Iterator[Attempt]:
    """The whole event in the value."""
    data = {"carrier": "UA", "origin": "EWR"}
    event: dict[str, object] = {
        "specversion": "1.0",
        "type": "hostile.departed.v2",
        "source": "/client",
        "id": "1",
        "data": data,
    }
    plain = at.departed(None)

    def sent(value: bytes | dict[str, object], context: str | None = None, *more: Header) -> Message:
        raw = value if isinstance(value, bytes) else orjson.dumps(value)
        headers = (STRUCTURED, *more) if context is None else (STRUCTURED, ("pf-context", context.encode()), *more)
        return replace(plain, value=raw, headers=headers)

    for name, attribute in (("pf-context", at.ua), ("pfcontext", at.ua), ("context", at.ua), ("ce_pf-context", at.ua)):
        yield Attempt(f"structured: attribute {name}", "missing_context", sent({**event, name: attribute}))
    other = {**event, "data": {"carrier": "DL", "origin": "EWR"}}
    yield Attempt(
        "structured: one's own as header, another's as attribute",
        "insufficient_capabilities",
        sent({**other, "pf-context": at.dl}, at.ua),
    )
    yield Attempt("structured: for another tenant", "insufficient_capabilities", sent(other, at.ua))
    text = orjson.dumps(event)
    free = text.replace(b'"type":', b'"type":"hostile.looked.v1","type":')
    yield Attempt("structured: type twice, the first of what anybody may", "missing_context", sent(free))
    twice = text.replace(b'"data":', b'"data":{"carrier":"UA","origin":"EWR"},"data":').replace(
        b'{"carrier":"UA","origin":"EWR"}}', b'{"carrier":"DL","origin":"EWR"}}'
    )
    yield Attempt("structured: data twice, the first one's own", "insufficient_capabilities", sent(twice, at.ua))
    yield Attempt(
        "structured: the header says what anybody may",
        "missing_context",
        sent(event, None, ("ce_type", b"hostile.looked.v1")),
    )
    for name, value in {
        "no type": {**event, "type": None},
        "an empty type": {**event, "type": ""},
        "a list of types": {**event, "type": ["hostile.departed.v2"]},
        "a specversion that is a number": {**event, "specversion": 1.0},
        "capabilities as an object": {**event, "capabilities": {"GateCap.admin": "/**"}},
        "data in base64": {
            **{name: one for name, one in event.items() if name != "data"},
            "data_base64": base64.b64encode(orjson.dumps(data)).decode(),
        },
        "no data": {name: one for name, one in event.items() if name != "data"},
    }.items():
        yield Attempt(f"structured: {name}", "malformed_envelope", sent(value, at.ua))
    for name, one in (("a text", orjson.dumps(data).decode()), ("null", None), ("a list", [data])):
        yield Attempt(f"structured: data that are {name}", "malformed_payload", sent({**event, "data": one}, at.ua))
    yield Attempt("structured: a list of events", "malformed_envelope", sent(orjson.dumps([event]), at.ua))
    yield Attempt("structured: an event in an event", "malformed_payload", sent({**event, "data": event}, at.ua))
    yield Attempt(
        "structured: type of the internal topic", "unknown_type", sent({**event, "type": "hostile.totalled.v1"}, at.ua)
    )
    batch = sent(orjson.dumps([event]), at.ua).having(("content-type", b"application/cloudevents-batch+json"))
    yield Attempt("structured: a batch", "malformed_envelope", batch)
    yield Attempt(
        "structured: content-type twice", "duplicate_header", sent(event, at.ua, ("content-type", b"application/json"))
    )
    yield Attempt("structured: context twice", "duplicate_header", sent(event, at.ua, ("pf-context", b"junk")))
    capitals = replace(sent(event, at.ua), headers=(("Content-Type", STRUCTURED[1]), ("pf-context", at.ua.encode())))
    yield Attempt("structured: content-type in capitals", "malformed_envelope", capitals)
    yield Attempt("structured: another's key", "key_mismatch", replace(sent(event, at.ua), key=b'["DL","EWR"]'))


# -- what is remembered -----------------------------------------------------------------------------------------------------------


def memories(at: Scene) -> Iterator[Attempt]:
    """Right after something right, what differs from it in one thing: answers are remembered, and none is for another."""
    insufficient = "insufficient_capabilities"
    own = at.departed(at.ua)
    yield Attempt("memory: another tenant", insufficient, at.departed(at.ua, "DL", "LAX"), own)
    gate = at.mint(GateCap.report("/UA/EWR"))
    yield Attempt("memory: another gate", insufficient, at.departed(gate, origin="LAX"), at.departed(gate))
    reports = at.mint(GateCap.report("/**"))
    yield Attempt(
        "memory: another operation",
        insufficient,
        at.record(Cancelled(carrier="UA", origin="EWR"), reports),
        at.departed(reports),
    )
    version = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v2", "hostile.totalled.v1"])
    older = at.departed(version).having(("ce_type", b"hostile.departed.v1"))
    yield Attempt("memory: an older version", "wrong_intent_type", older, at.departed(version))
    before = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v1", "hostile.totalled.v1"])
    first = at.departed(before).having(("ce_type", b"hostile.departed.v1"))
    yield Attempt(
        "memory: a newer version",
        "wrong_intent_type",
        at.departed(before),
        replace(first, value=b'{"carrier":"UA","origin":"EWR"}'),
    )
    here = at.mint(GateCap.report("/UA/*"), ShelfCap.write("/ann/**"), topics=[at.intents, at.totals])
    yield Attempt("memory: another topic", "wrong_topic", at.stored(here), at.departed(here))
    there = at.mint(GateCap.report("/UA/*"), ShelfCap.write("/ann/**"), topics=[at.files])
    yield Attempt("memory: another topic, the other way", "wrong_topic", at.departed(there), at.stored(there))
    kind = at.mint(GateCap.admin("/UA/*"), intent_types=["hostile.departed.v2", "hostile.totalled.v1"])
    yield Attempt(
        "memory: another type",
        "wrong_intent_type",
        at.record(Cancelled(carrier="UA", origin="EWR"), kind),
        at.departed(kind),
    )
    public = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.looked.v1"])
    yield Attempt("memory: what is not for anybody", "wrong_intent_type", at.departed(public), at.looked(public))
    # Concatenated, or joined with a slash, the fields say the same.
    yield Attempt(
        "memory: fields that join to the same text", insufficient, at.departed(gate, "U", "AEWR"), at.departed(gate)
    )
    yield Attempt(
        "memory: fields that join to the same text, the other way",
        insufficient,
        at.departed(gate, "UAE", "WR"),
        at.departed(gate),
    )
    yield Attempt("memory: fields exchanged", insufficient, at.departed(gate, "EWR", "UA"), at.departed(gate))
    shelf = at.mint(ShelfCap.write("/ann/docs/a"))
    kept = at.stored(shelf)
    yield Attempt("memory: fields that join to the same path", "bad_resource", at.stored(shelf, "ann/docs", "a"), kept)
    yield Attempt(
        "memory: fields that join to the same path, all in one",
        "bad_resource",
        at.stored(shelf, "ann/docs/a", ""),
        kept,
    )
    yield Attempt(
        "memory: fields that join to the same path, a slash in front",
        "bad_resource",
        at.stored(shelf, "", "ann/docs/a"),
        kept,
    )
    composed = at.mint(GateCap.report("/UA/\u00c9"))
    yield Attempt(
        "memory: text that Unicode has for equal",
        "bad_resource",
        at.departed(composed, origin="E\u0301"),
        at.departed(composed, origin="\u00c9"),
    )
    sharp = at.mint(GateCap.report("/UA/stra\u00dfe"))
    yield Attempt(
        "memory: text that is equal without case",
        insufficient,
        at.departed(sharp, origin="strasse"),
        at.departed(sharp, origin="stra\u00dfe"),
    )
    narrow = at.mint(GateCap.report("/UA/1"))
    number = replace(at.departed(narrow, origin="1"), value=b'{"carrier":"UA","origin":1}')
    yield Attempt(
        "memory: a number that looks like the text", "malformed_payload", number, at.departed(narrow, origin="1")
    )
    wide = at.departed(narrow, origin="\uff11")
    yield Attempt("memory: a digit that is a number too", insufficient, wide, at.departed(narrow, origin="1"))
    point = at.departed(narrow, origin="1.0")
    yield Attempt("memory: a number of equal value", insufficient, point, at.departed(narrow, origin="1"))
    yield Attempt(
        "memory: the same token, with a character more",
        "malformed_token",
        at.departed(at.ua + "A"),
        own.plus(("x", b"1")),
    )
    yield Attempt(
        "memory: the same token, with a blank", "malformed_token", at.departed(at.ua + "\t"), own.plus(("x", b"2"))
    )
    eighth = spelled([(1, 8), *fields_of(gate)[1:]])
    yield Attempt(
        "memory: the same blocks under another key's number", "bad_signature", at.departed(eighth), at.departed(gate)
    )
    narrowed = at.narrow(gate, capabilities=[GateCap.report("/UA/LAX")])
    yield Attempt("memory: the same token, narrowed", insufficient, at.departed(narrowed), at.departed(gate))
    over = at.narrow(gate, expires_ms=at.now_ms // 1000 * 1000)
    yield Attempt(
        "memory: the same token, narrowed to what is over", "token_expired", at.departed(over), at.departed(gate)
    )
    yield Attempt(
        "memory: the same record, without its context",
        "missing_context",
        own.without("pf-context").plus(("x", b"3")),
        own,
    )
    yield Attempt(
        "memory: the same record, under another key",
        "key_mismatch",
        replace(own, key=b'["DL","EWR"]').plus(("x", b"4")),
        own,
    )
    subject = at.mint(GateCap.report("/UA/EWR"), subject="ann", tenant="UA")
    stranger = at.mint(GateCap.report("/UA/LAX"), subject="ann", tenant="UA")
    yield Attempt(
        "memory: another token of the same subject", insufficient, at.departed(stranger), at.departed(subject)
    )


# -- where only the engine writes, and where nobody may ----------------------------------------------------------------------------


def internal(at: Scene) -> Iterator[Attempt]:
    """A client that writes to internal topics: its headers may be believed there, but nothing goes without a context."""
    plain = at.totalled(at.ua)
    for name, value in (
        ("none at all", None),
        ("empty", b""),
        ("of one part", b"forged"),
        ("of two parts", b"forged:1"),
        ("of four parts", b"forged:1:0:0"),
        ("of words", b"forged:one:zero"),
        ("of less than nothing", b"forged:-1:0"),
        ("of a number too great", b"forged:1:" + b"9" * 30),
        ("of no text", b"\xff:1:0"),
        ("of a long name", b"x" * 65 + b":1:0"),
        ("with a blank", b"forged:1:0 "),
        ("with a line end", b"forged:1:0\n"),
        ("of other digits", "forged:\u0661:0".encode()),
        ("of the one that it was rerouted from", f"{at.intents}:0:0".encode()),
    ):
        yield Attempt(f"internal: pf-source {name}", "untrusted_record", plain.having(("pf-source", value)))
    yield Attempt("internal: no pf-source", "untrusted_record", plain.without("pf-source"))
    yield Attempt(
        "internal: PF-Source", "untrusted_record", plain.without("pf-source").plus(("PF-Source", b"forged:1:0"))
    )
    for name, hops in (("of a word", b"many"), ("of less than nothing", b"-1"), ("of too many digits", b"1" * 99)):
        yield Attempt(f"internal: pf-hops {name}", "untrusted_record", at.totalled(at.ua).plus(("pf-hops", hops)))
    yield Attempt("internal: too many hops", "too_many_hops", at.totalled(at.ua).plus(("pf-hops", b"17")))
    yield Attempt("internal: far too many hops", "too_many_hops", at.totalled(at.ua).plus(("pf-hops", b"999999999")))
    yield Attempt(
        "internal: pf-source twice", "duplicate_header", at.totalled(at.ua).plus(("pf-source", b"forged:0:0"))
    )
    yield Attempt("internal: pf-source, without a context", "missing_context", at.totalled(None))
    yield Attempt("internal: pf-source, and a context of junk", "malformed_token", at.totalled("junk"))
    yield Attempt("internal: pf-source, for another tenant", "insufficient_capabilities", at.totalled(at.ua, "DL"))
    other = at.mint(GateCap.report("/UA/*"), topics=[at.intents])
    yield Attempt("internal: a token for the public topic", "wrong_topic", at.totalled(other))
    typed = at.mint(GateCap.report("/UA/*"), intent_types=["hostile.departed.v2"])
    yield Attempt("internal: a token for the public type", "wrong_intent_type", at.totalled(typed))
    # Known, but not here: no newer version of the topology can have written it.
    public = replace(at.departed(at.ua), topic=at.totals).plus(("pf-source", b"forgedpublic:1:0"))
    yield Attempt("internal: a type of the public topic", "unknown_type", public)
    free = replace(at.looked(None), topic=at.totals).plus(("pf-source", b"forgedfree:1:0"))
    yield Attempt("internal: a type that anybody may send, elsewhere", "unknown_type", free)
    yield Attempt("internal: another's key", "key_mismatch", replace(at.totalled(at.ua), key=b"DL"))
    # Who may not, is refused where the record lies, and nothing is sent on.
    for name, code, message in (
        ("without a context", "missing_context", at.departed(None)),
        ("for another tenant", "insufficient_capabilities", at.departed(at.ua, "DL")),
        (
            "with a context of junk, and said to be sent on",
            "malformed_token",
            at.departed("junk").plus(("pf-rerouted", b"x")),
        ),
    ):
        yield Attempt(f"misplaced: {name}", code, message.misplaced())
    rerouted = f"{at.intents}.rerouted"
    # No pf-source that is one: whoever may write here could say one, but no context stands in for it, and the other way round.
    yield Attempt("rerouted: no pf-source", "untrusted_record", replace(at.departed(at.ua), topic=rerouted))
    for number, (name, code, message) in enumerate((
        ("without a context", "missing_context", at.departed(None)),
        ("a context of junk", "malformed_token", at.departed("junk")),
        ("for another tenant", "insufficient_capabilities", at.departed(at.ua, "DL")),
        ("of the internal topic's type", "unknown_type", at.totalled(at.ua).without("pf-source")),
        ("a newer version", "unsupported_version", at.departed(at.ua).having(("ce_type", b"hostile.departed.v3"))),
        ("a type of nobody", "unknown_type", at.departed(at.ua).having(("ce_type", b"nobody.knows.v1"))),
        ("misplaced again", "wrong_partition", at.record(Looked(carrier="UA", origin="nowhere"), None).misplaced()),
    )):  # fmt: skip
        source = ("pf-source", b"forgedrerouted%d:1:0" % number)
        yield Attempt(f"rerouted: pf-source, {name}", code, replace(message, topic=rerouted).plus(source))


def replies(at: Scene) -> Iterator[Attempt]:
    """Topics that a client must not write to through us."""
    plain = at.departed(at.ua)
    for name, topic in {
        "of the groups' offsets": "__consumer_offsets",
        "of transactions": "__transaction_state",
        "of the registry": "__pf.registry",
        "a public one": at.intents,
        "another public one": at.files,
        "an internal one": at.totals,
        "of rerouted records": f"{at.intents}.rerouted",
        "of dead letters": f"{at.intents}.dlq",
        "of state": f"{at.namespace}-intents-changelog",
        "of another namespace": "other.replies",
        "without its namespace": "replies",
        "in capitals": f"{at.namespace}.replies".upper(),
        "a path": f"{at.namespace}.replies/../{at.intents}",
        "a path in a pattern": "answers./../x",
        "a wildcard": "answers.*",
        "a wildcard of another kind": "answers.[a-z]",
        "with a blank": "answers.x ",
        "with a line end": "answers.x\n",
        "with a NUL": "answers.x\0",
        "with a dot that is none": "answers\u2024x",
        "with dots in full width": "answers\uff0ex",
        "with a look-alike": "\u0430nswers.x",
        "of dead letters, in a pattern": "answers.x.dlq",
        "of rerouted records, in a pattern": "answers.x.rerouted",
        "of state, in a pattern": "answers.x-changelog",
        "empty": "",
        "a dot": ".",
        "two dots": "..",
        "a slash": "/",
        "of 250 characters": "answers." + "x" * 242,
        "two": f"answers.x,{at.intents}",
        "percent-encoded": "answers%2ex",
    }.items():
        yield Attempt(f"reply topic: {name}", "bad_reply_topic", plain.plus(("pf-reply-to", topic.encode())))
    yield Attempt("reply topic: of no text", "bad_reply_topic", plain.plus(("pf-reply-to", b"answers.\xff")))
    # Who has not proven who they are is told nothing, wherever they want to be told.
    asked = ("pf-reply-to", f"{at.namespace}.replies".encode())
    for name, code, message in (
        ("without a context", "missing_context", at.departed(None)),
        ("with a junk context", "malformed_token", at.departed("junk")),
        ("with another issuer's", "bad_signature", at.departed(at.mint(GateCap.admin("/**"), key=EVE))),
        (
            "with one for another namespace",
            "wrong_audience",
            at.departed(at.mint(GateCap.admin("/**"), audience="other")),
        ),
        (
            "without a context, of a type that nobody knows",
            "unknown_type",
            at.departed(None).having(("ce_type", b"x.v1")),
        ),
        ("without a context, on an internal topic", "untrusted_record", at.totalled(None).without("pf-source")),
    ):
        yield Attempt(f"reply: {name}", code, message.plus(asked))


_THEMES: Final = (
    tampered,
    cut,
    blocks,
    times,
    issuers,
    resources,
    payloads,
    keys,
    datalog,
    contexts,
    types,
    structured,
    memories,
    internal,
    replies,
)
