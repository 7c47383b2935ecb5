"""Whole records, header for header and field for field, at a lane: each is handled, waits, is sent on, or is a dead letter."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import orjson
from pydantic import Field

from pf_stream import (
    PUBLIC,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    Schedule,
    State,
    Topology,
    on,
    operation,
    upcast,
)
from pf_stream.core import (
    Authority,
    Copy,
    Lane,
    Limits,
    Narrowing,
    NewerVersionError,
    Output,
    Rewind,
    SourceRecord,
    partition_of,
    plan,
)
from pf_stream.core.records import APPEND_TIME, CREATE_TIME, Header
from pf_stream.engine.encode import OutboxBuilder, encode_unit, outbox_records
from pf_stream.model.capability import parse_grant
from pf_stream.security import Claims, TokenError, Verifier, mint
from pf_stream.security.envelope import Envelope, to_base64url
from pf_stream.security.narrowing import Narrower
from tests.fuzz.forge import Part, forged
from tests.fuzz.mutate import changed
from tests.fuzz.tokens import ROOTS, random_token
from tests.unit.security.cases import AUDIENCE, NOW_MS, append
from tests.unit.security.cases import KEY as OTHER

__all__ = ["CODES", "Checker", "Input", "random_record"]

PAGE: Final = Path(__file__).parents[2] / "docs/protocol.md"
CODES: Final = frozenset(
    re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8").partition("\n| code |")[2], re.MULTILINE)
)
"""The codes that a dead letter may have, out of the protocol's table."""

NOW: Final = NOW_MS + 60_000


class Files(Capability):
    """What may be done with drawers: ``/{drawer}``."""

    put = operation()


class File(Intent, name="desk.file", version=2, requires=Files.put("/{drawer}")):
    """Put a paper into a drawer; the first version had no pages."""

    drawer: Annotated[str, Key]
    pages: int = 1
    words: list[str] = Field(default_factory=list)

    @upcast(from_version=1)
    @staticmethod
    def _with_pages(value: dict[str, Any]) -> dict[str, Any]:
        return value | {"pages": int(value.pop("sheets", 1))}


class Note(Intent, name="desk.note", requires=PUBLIC, once="1h"):
    """Anybody may, once."""

    drawer: Annotated[str, Key]


class Filed(Intent, name="desk.filed", topic="filed", requires=Files.put("/{drawer}")):
    """What a ``File`` means for the archive."""

    drawer: Annotated[str, Key]
    pages: int


class Drawer(State):
    """One drawer."""

    pages: int = 0
    last: str = ""


class Desk(Reactor[Drawer], id="desk"):
    """Reads public intents, and all of a context that can be read."""

    @on
    def file(self, intent: File, state: Drawer, ctx: Context) -> Effects:
        state.last = (
            f"{ctx.subject} {ctx.tenant} {ctx.intent_id} {ctx.source} {ctx.uuid()} {ctx.position} {ctx.time_ms}"
        )
        return [Emit(Filed(drawer=intent.drawer, pages=intent.pages)), Reply({"pages": state.pages})]

    @on
    def note(self, intent: Note, state: Drawer, ctx: Context) -> Effects:
        state.last = ctx.subject
        return None if ctx.due_ms else Schedule(Note(drawer=intent.drawer), name="again", after=60, clock="event")


class Archive(Reactor[Drawer], id="archive"):
    """Lives behind an internal topic."""

    @on
    def filed(self, intent: Filed, state: Drawer, ctx: Context) -> None:
        state.pages += 1


DESK: Final = Topology(
    "desk", [Desk, Archive], namespace=AUDIENCE, internal=["filed"], replies=["replies", "*.answers"]
)
_LIMITS: Final = Limits(payload_bytes=4_096, headers=24, inline_bytes=1_024)
_GROUPS: Final = {group.name: group for group in plan(DESK, 2)}
_PLACES: Final = {source.topic: group for group in _GROUPS.values() for source in group.sources}
_INTERNAL: Final = frozenset(source.topic for group in _GROUPS.values() for source in group.sources if source.internal)


def _token(*grants: str, audience: str = AUDIENCE, more: str = "", **options: Any) -> bytes:
    """A token that comes out the same in every process."""
    capabilities = [parse_grant(grant) for grant in grants]
    token = mint(OTHER, subject="ann", audience=audience, capabilities=capabilities, now_ms=NOW_MS, **options)
    if more:
        token = append(token, more)
    return to_base64url(forged([Part(block.data) for block in Envelope.read(token.encode()).blocks])).encode()


_GOOD: Final = _token("Files.put:/**")
_TOKENS: Final = (
    _GOOD,
    _token("Files.put:/**", tenant="acme", topics=["flights.intents", "flights.filed"]),
    _token("Files.put:/a", "Files.put:/b/**"),
    _token("Files.put:/**", audience="other"),
    _token("Files.put:/**", topics=["other"]),
    _token("Files.put:/**", intent_types=["desk.file.v1"]),
    _token("Files.put:/**", intent_types=["desk.filed.v1"]),
    _token("Files.put:/**", lifetime_s=59),
    _token("Files.put:/**", not_before_ms=NOW + 1),
    _token("Files.put:/**", more="check if true;"),
    _token("Files.put:/**", more='check if topic($t), $t.ends_with("filed");'),
    _token(),
)

_TIMES: Final = (
    b"2026-01-01T00:00:59Z", b"2026-01-01T00:01:00Z", b"2026-01-01T00:01:00.001+00:00", b"2026-02-01T00:00:00Z",
    b"2027-01-02T00:00:59Z", b"9999-12-31T23:59:59.999999Z", b"9999-12-31T23:59:59-23:59", b"0001-01-01T00:00:00+23:59",
    b"0001-01-01T00:00:00Z", b"1969-12-31T23:59:59Z", b"2026-01-01T00:00:00", b"2026-01-01", b"20260201T000000Z",
    b"2026-W07-1T00:00:00Z", b"2026-01-01T24:00:00Z", b"2026-02-30T00:00:00Z", b"2026-01-01 00:01:00Z", b"now", b"1e9",
    b"2026-01-01T00:01:00.0000000000001Z", b"2026-01-01T00:01:00+99:99", b"2026-01-01T00:01:00+00:00:00.5",
    b"2026-01-01T00:01:0\xd9\xa0Z", b"\xff", b"",
)  # fmt: skip
_ODD: Final[dict[str, tuple[bytes | None, ...]]] = {
    "ce_specversion": (b"1.0", b"0.3", b"1.0 ", b"", None),
    "ce_type": (
        b"desk.file.v2", b"desk.file.v1", b"desk.file.v3", b"desk.file.v999999999", b"desk.file.v0", b"desk.file.v02",
        b"desk.file", b"desk.note.v1", b"desk.note.v2", b"desk.filed.v1", b"desk.filed.v2", b"desk.gone.v1", b".v1",
        b"desk.file.v\xd9\xa2", b"DESK.FILE.V2", b"x" * 5000, b"\xff\xfe", b"", None,
    ),
    "ce_id": (b"1", b"2", b"\xff", b"x" * 9000, b"", None),
    "ce_source": (b"/a", b"\x00", b"", None),
    "ce_time": (*_TIMES, None),
    "ce_subject": (b"root", None),
    "content-type": (
        b"application/json", b"application/json; charset=utf-8", b"application/cloudevents+json",
        b"APPLICATION/CloudEvents+JSON ; charset=x", b"application/cloudevents-batch+json", b"text/plain", b";", b"", None,
    ),
    "pf-deadline": (*_TIMES, None),
    "pf-not-before": (*_TIMES, None),
    "pf-reply-to": (
        b"flights.replies", b"replies", b"flights.a.answers", b"x.answers", b"flights.intents", b"flights.filed",
        b"flights.intents.dlq", b"__consumer_offsets", b"a/b.answers", b"..", b"\xff.answers", b"x" * 300, b"", None,
    ),
    "pf-correlation-id": (b"1", b"\xff" * 9, b"", None),
    "pf-source": (
        b"life:1:0", b"life:0:0", b"life:2:5", b"life:999999999999999999:999999999", b"life:9999999999999999999:0",
        b"a" * 64 + b":1:1", b"a" * 65 + b":1:1", b"li/fe:1:0", b"life:-1:0", b"life:1", b"::", b"life:1:0\n",
        b"life:\xd9\xa1:0", b"replay-0123abcd:1:0", b"", None,
    ),
    "pf-hops": (b"0", b"1", b"16", b"17", b"999999999", b"9999999999", b"-1", b"+1", b" 1", b"1_0", b"\xd9\xa1", b"", None),
    "pf-rerouted": (b"flights.intents:0:0", b"::", b"\xff", None),
    "pf-revocation-ids": (b"00", None),
    "pf-error-code": (b"bad_signature", b"no_such_code", b"\xff", None),
    "pf-replayed-from": (b"flights.intents.dlq:0:0", b"\xff", None),
    "__streams.errors.offset": (b"-1", b"\xff", None),
    "__streams.errors.message": (b"\xff", None),
    "traceparent": (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"00-zz", b"\xff" * 100, b"", None),
    "tracestate": (b"a=b", b"\x00", None),
    "pf-": (b"",),
    "ce_": (b"", b"x"),
    "": (b"", None),
    "\udcff\udcfe": (b"a name that is no UTF-8", None),
    "é" * 200: (b"x",),
    "x-\x00": (b"\x00" * 500,),
}  # fmt: skip
_NAMES: Final = list(_ODD)

_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**64 - 1, 1.5, 1e308, "", "a", "b/c", "*", "**", "..", "/", "/a",
    "é", "\u2028", "x" * 300, "x" * 5000, [], [1], ["a", "b"], {}, {"a": {"b": [None]}}, "2026-01-01T00:00:00Z",
)  # fmt: skip
_JSON: Final = (
    b"", b"{", b"null", b"[]", b"3", b'"x"', b"{}", b'{"drawer": NaN}', b'{"drawer": "a", "drawer": "b"}', b"\xef\xbb\xbf{}",
    b'{"drawer": "\\ud800"}', b'{"drawer": "a\xff"}', b'{"drawer": "a", "pages": 1e400}',
    b'{"drawer": "a", "pages": 1' + b"0" * 400 + b"}",
    b'{"drawer": "a", "words": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"drawer":"a"}' + b" " * 5000, b'{"drawer":"a"}\x00',
    b"[" * 2000 + b"]" * 2000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """A record for a lane."""

    topic: str
    """The topic that it is on."""
    record: SourceRecord
    """The record."""
    after: bool
    """Whether the lane has handled an ordinary one before."""
    twice: bool
    """Whether it comes twice."""
    written: bool
    """Whether what comes of it is made into the bytes that Kafka takes, which is half of the work of all."""


def random_record(rng: Random) -> Input:
    """A record with something odd about it, or with nothing odd."""
    topic = rng.choice(sorted(_PLACES))
    kind = (
        "desk.filed.v1"
        if topic == "flights.filed" and rng.random() < 0.9
        else rng.choice(("desk.file.v2", "desk.note.v1"))
    )
    drawer = rng.choice(("a", "b", "c", "d", "é"))
    value: dict[str, Any] = {"drawer": drawer}
    if kind != "desk.note.v1":
        value["pages"] = 2
    token = rng.choice((_GOOD, _GOOD, _GOOD, *_TOKENS)) if rng.random() < 0.85 else random_token(rng)
    headers: dict[str, bytes | None] = {
        "ce_specversion": b"1.0",
        "ce_type": kind.encode(),
        "ce_source": b"/fuzz",
        "ce_id": b"1",
        "content-type": b"application/json",
        "pf-context": token,
    }
    if topic in _INTERNAL:
        headers |= {"pf-source": b"life:1:0", "pf-hops": b"1"}
    structured = rng.random() < 0.2
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        name = rng.choice(_NAMES)
        match rng.randrange(16):
            case 0:
                headers.pop(rng.choice(list(headers)), None)
            case 1:
                headers[rng.choice(list(headers))] = rng.choice((None, b"", rng.randbytes(9), b"x" * 2000))
            case 2:
                victim = rng.choice(list(headers))
                headers[victim] = changed(headers[victim] or b"", rng)
            case 3:
                victim = rng.choice(list(headers))
                headers[rng.choice((victim.upper(), victim + " ", victim.replace("_", "-")))] = headers.pop(victim)
            case _:
                headers[name] = rng.choice(_ODD[name])
    if rng.random() < 0.2:
        value[rng.choice(("drawer", "pages", "words", "sheets", "x", "é"))] = rng.choice(_VALUES)
    raw: bytes | None = orjson.dumps(value)
    if structured:
        raw = _structured(headers, value, rng)
    if rng.random() < 0.1:
        raw = rng.choice((None, *_JSON, changed(raw or b"", rng)))
    fields: list[Header] = list(headers.items())
    if rng.random() < 0.06:
        fields.insert(rng.randrange(len(fields) + 1), rng.choice(fields or [("pf-context", b"x")]))
    if rng.random() < 0.02:
        fields += [(f"x-{at}", b"") for at in range(30)]
    own = str(value.get("drawer", "")).encode(errors="replace")
    key: bytes | None = own
    if rng.random() < 0.08:
        key = rng.choice((None, b"", b"z", b"\xff", b"x" * 3000, changed(own, rng)))
    odd_time = rng.random() < 0.05
    timestamp = rng.choice((-1, 0, NOW_MS - 1, 2**31, 2**53, 2**63 - 1, -(2**63))) if odd_time else NOW
    record = SourceRecord(
        rng.choice((1, 1, 1, 2**40)),
        timestamp,
        key,
        raw,
        tuple(fields),
        rng.choice((APPEND_TIME, APPEND_TIME, CREATE_TIME)),
    )
    return Input(topic, record, rng.random() < 0.3, rng.random() < 0.1, rng.random() < 0.25)


def _structured(headers: dict[str, bytes | None], data: Any, rng: Random) -> bytes:
    """Move the event's attributes into the value, mostly."""
    event: dict[str, Any] = {"data": data}
    for name in [name for name in headers if name.startswith("ce_")]:
        held = headers[name] if rng.random() < 0.1 else headers.pop(name)
        event[name[3:]] = None if held is None else held.decode(errors="replace")
    headers["content-type"] = rng.choice((*(_ODD["content-type"][2],) * 20, *_ODD["content-type"]))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        match rng.randrange(4):
            case 0:
                event.pop(rng.choice(list(event)))
            case 1:
                event[rng.choice(list(event) or ["data"])] = rng.choice(_VALUES)
            case 2:
                event[rng.choice(("pf-context", "data_base64", "datacontenttype", "time", "x" * 200, "é", ""))] = (
                    rng.choice(_VALUES)
                )
            case _:
                event = {"data": event}
        event = event or {"data": data}
    return orjson.dumps(event)


class _Outbox(OutboxBuilder):
    """The engine's, which also remembers what it was given."""

    def __init__(self, incarnation: str, sequence: int, checker: "Checker", *, written: bool) -> None:
        super().__init__(incarnation, sequence, defaultdict(lambda: 2), checker.narrow)
        self.outputs: list[tuple[Output | Copy, tuple[Header, ...]]] = []
        self._written = written

    def extend(self, outputs: list[Output | Copy], /) -> None:
        self.outputs += ((output, tuple(output.headers)) for output in outputs)
        if self._written:
            super().extend(outputs)


class Checker:
    """What a worker has, to hold records against."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._authority = Authority(verifier)
        self._narrower = Narrower(verifier, ROOTS)

    def check(self, given: Input) -> str:
        """What became of a record, in one word: a code if it was refused.

        Raises AssertionError, or whatever the lane raises.
        """
        record, topic = given.record, given.topic
        lane = self._lane(given, ())
        log: list[tuple[bytes, bytes | None]] = []
        if given.after:
            assert self._taken(lane, log, topic, _ordinary(topic)) == "handled"
        try:
            outcome = self._taken(lane, log, topic, record)
        except NewerVersionError:
            assert topic in _INTERNAL, "the lane stops because of what anybody can send"
            return "newer_version"
        if given.twice:
            again = record._replace(offset=record.offset + 1)
            assert self._taken(lane, log, topic, again) in {outcome, "repeat"}
        due_ms = lane.next_due_ms
        if due_ms is not None:
            # In another life: what waits has been through the changelog.
            heir = self._lane(given, log)
            assert heir.next_due_ms == due_ms
            assert heir.fire(due_ms)
            self._sealed(heir, log, due_ms)
        return outcome

    def narrow(self, narrowing: Narrowing) -> bytes | None:
        """The token of an emitted intent."""
        made = self._narrower(narrowing.origin, narrowing.bounds, NOW)
        return None if isinstance(made, TokenError) else made

    def _lane(self, given: Input, log: Sequence[tuple[bytes, bytes | None]]) -> Lane[_Outbox]:
        collect = partial(_Outbox, checker=self, written=given.written)
        lane: Lane[_Outbox] = Lane(_PLACES[given.topic], 0, self._authority, _LIMITS, collect)
        lane.restore(log)
        for name, position in lane.begin("here").items():
            if position is None:
                lane.start_at(name, 0, bytes(16))
        return lane

    def _taken(
        self, lane: Lane[_Outbox], log: list[tuple[bytes, bytes | None]], topic: str, record: SourceRecord
    ) -> str:
        """Let the lane decide one record, and make the unit into bytes; returns what it decided."""
        if not lane.step(topic, [record], NOW):
            # What is due by the time of this event comes first.
            assert lane.is_due(NOW), "the record was not taken"
            assert lane.fire(NOW)
            self._sealed(lane, log, NOW)
            assert lane.step(topic, [record], NOW), "the record was not taken, and nothing is due before it"
        before, refused, handled, dropped = len(log), Counter(lane.refused), lane.handled, lane.dropped
        outputs = self._sealed(lane, log, NOW)
        codes = list((lane.refused - refused).elements())
        letters = [(output, headers) for output, headers in outputs if output.topic.endswith(".dlq")]
        sent_on = any(output.topic.endswith(".rerouted") for output, _ in outputs)
        assert lane.handled - handled + len(codes) + lane.dropped - dropped + sent_on <= 1, (
            "it was decided more than once"
        )
        assert len(letters) == len(codes)
        if codes:
            _check_letter(record, codes[0], *letters[0])
            return codes[0]
        if lane.handled > handled:
            self._check_handled(record, topic)
            return "handled"
        if sent_on:
            return "sent on"
        return "waits" if any(key[1:2] == b"t" for key, _ in log[before:]) else "repeat"

    @staticmethod
    def _sealed(
        lane: Lane[_Outbox], log: list[tuple[bytes, bytes | None]], now_ms: int
    ) -> list[tuple[Output | Copy, tuple[Header, ...]]]:
        unit = lane.seal()
        assert not isinstance(unit, Rewind), "one small record makes a unit that cannot be sealed"
        encode_unit(unit, outbox_records(unit.sequence, unit.outputs.entries()), now_ms)
        log += unit.entries
        lane.acknowledged()
        return unit.outputs.outputs

    def _check_handled(self, record: SourceRecord, topic: str) -> None:
        """Somebody may do what was done."""
        headers = dict(record.headers)
        token = headers.get("pf-context")
        if token is None:
            assert b"desk.note" in (headers.get("ce_type") or record.value or b""), "it was handled without a context"
            return
        claims = self._verifier.verify(token)
        assert isinstance(claims, Claims), f"it was handled with a context that is refused: {claims}"
        given = topic in _INTERNAL or record.timestamp_type == APPEND_TIME
        assert claims.valid_at(record.timestamp if given else NOW) is None, "it was handled out of its time"


def _ordinary(topic: str) -> SourceRecord:
    kind = "desk.filed.v1" if topic == "flights.filed" else "desk.note.v1"
    headers: list[Header] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", kind.encode()),
        ("ce_source", b"/fuzz"),
        ("ce_id", b"0"),
        ("content-type", b"application/json"),
        ("pf-context", _GOOD),
        ("pf-source", b"life:0:1"),
    ]
    value = {"drawer": _HERE, "pages": 1} if topic == "flights.filed" else {"drawer": _HERE}
    return SourceRecord(0, NOW, _HERE.encode(), orjson.dumps(value), tuple(headers))


_HERE: Final = next(name for name in "abcdefgh" if partition_of(name.encode(), 2) == 0)
"""A drawer of the partition that the lane has."""


def _check_letter(record: SourceRecord, code: str, letter: Output | Copy, headers: tuple[Header, ...]) -> None:
    """A dead letter tells a declared code, and is the record but for the token and revocation ids."""
    assert code in CODES, f"code {code!r} is not in the protocol's table"
    assert code != "handler_failed", "these handlers do not fail by themselves"
    added = headers
    dropped = {name for name, _ in record.headers if name.lower() in {"pf-context", "pf-revocation-ids"}}
    if isinstance(letter, Output):
        assert (letter.key, letter.value) == (record.key, record.value)
        kept = tuple(header for header in record.headers if header[0] not in dropped)
        assert headers[: len(kept)] == kept, "the dead letter's headers are not the record's"
        added = headers[len(kept) :]
    else:
        assert letter.drop == dropped
    told = dict(added)
    assert told["pf-error-code"] == code.encode()
    assert told["__streams.errors.message"]
    for name, value in added:
        (value or b"").decode()
        assert name.isascii()
