"""Where attempts are made: records as clients write them, and the tokens that an attacker may hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import Final, NamedTuple

from pf_stream import Intent
from pf_stream.core import partition_of
from pf_stream.core.records import Header
from pf_stream.model import Grant
from pf_stream.model.capability import HeldGrant
from pf_stream.security import SigningKey, TrustRoots, attenuate, mint
from tests.hostile.forge import append_bytes, block, checks, said, said_text, seal
from tests.hostile.target import Cancelled, Departed, GateCap, LoanCap, Looked, Stored, Totalled, hostile
from tests.unit.security import cases

__all__ = ["EVE", "PARTNER", "ROOTS", "Attempt", "Message", "Scene"]

PARTNER: Final = cases.OTHER_KEY
ROOTS: Final = TrustRoots.of(cases.KEY, PARTNER)
"""What the attacked workers trust: the issuer's key 7, and a partner's key 8."""
EVE: Final = SigningKey.generate(7)
"""The attacker's own key, under the issuer's number."""


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
        self.ua = self.mint(GateCap.report("/UA/*"), LoanCap.write("/ann/**"))
        """The attacker's own."""
        self.dl = self.mint(GateCap.admin("/DL/*"), LoanCap.write("/bob/**"), subject="bob")
        """The other tenant's: what is tampered with was once good for what is asked."""
        self.right = self._all_right()
        """Intents that must all work, of the keys that attempts are after."""

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
