"""Tokens that are alike: what the tokens of one issuer have in common, and where they differ.

Most tokens differ from the one before in the name of a subject or a session, in dates, and in keys and signatures. Where some
were alike, one regular expression is made that takes the next ones apart as a whole. It answers what the readers would: all
bytes but those are the same, lengths are held against what they count, and what is said by a name, a date or a signature
does not change what the rest means.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pf_stream.security._block import DEFAULT_SYMBOLS
from pf_stream.security._protobuf import varint
from pf_stream.security._spelling import Statements, milliseconds, read_statements, split_dates
from pf_stream.security.envelope import Envelope
from pf_stream.security.profile import FOREVER_MS, Profile

__all__ = ["Alike", "Seen"]

_MOST: Final = 8
"""Patterns that are kept, those that were useful last."""
_TIMES: Final = 8
"""How many tokens must seem alike before a pattern is made, which takes as long as verifying some."""
_MOST_COUNTED: Final = 256

_COMMON: Final = len(DEFAULT_SYMBOLS)
_AFTER: Final = rb"\x12\x24\x08\x00\x12\x20.{32}\x1a\x40(.{64})"  # the next key, and the signature
_PROOF: Final = rb"\x22\x22\x0a\x20.{32}"
_DATE: Final = rb"\x20([\x80-\xff]{4}[\x01-\x7f])"
_TEXT: Final = rb"\x0a([\x00-\x7f])([\x20-\x7e]+?)"
"""Only of ASCII that prints, so that it is a name: others are for the readers."""


class Seen(NamedTuple):
    """What was read of a token."""

    kid: int
    """The number of the key that is said to have signed it."""
    signatures: tuple[bytes, ...]
    """One per block."""
    profile: Profile
    """What it says; it is in the closed profile."""


class Alike:
    """Patterns of the tokens that were seen lately."""

    __slots__ = ("_counts", "_patterns")

    def __init__(self) -> None:
        self._patterns: list[_Pattern] = []
        self._counts: Counter[object] = Counter()

    def read(self, data: bytes) -> Seen | None:
        """What a token says, from its outer message, if a pattern fits; None tells nothing."""
        for index, pattern in enumerate(self._patterns):
            seen = pattern.read(data)
            if seen is not None:
                if index:
                    self._patterns.insert(0, self._patterns.pop(index))
                return seen
        return None

    def learn(self, envelope: Envelope, profile: Profile) -> None:
        """Take note of a token, read at sight, that no pattern fits."""
        if envelope.kid is None or envelope.kid > 0x7F or envelope.sealed:
            return
        names = len(profile.subject) + len(profile.tenant or "") + len(profile.session or "")
        kind = (len(envelope.blocks), len(envelope.data) - names, profile.audience)
        self._counts[kind] += 1
        if self._counts[kind] == _TIMES:
            pattern = _pattern(envelope, profile)
            # It reads this very token as the readers did, or it is of no use.
            if pattern.read(envelope.data) == Seen(envelope.data[1], envelope.signatures, profile):
                self._patterns.insert(0, pattern)
                del self._patterns[_MOST:]
        elif len(self._counts) > _MOST_COUNTED:
            self._counts.clear()


class _Hole(NamedTuple):
    """A group of a pattern: where tokens that are alike differ."""

    kind: str
    """``size`` or ``text`` (which has two groups, its length first), ``date`` or ``signature``."""
    target: Any
    """What a size counts beside texts; the position of a text or a date in the profile, or the name of an attribute."""


class _Pattern:
    """One regular expression, and what its groups are."""

    __slots__ = (
        "_attributes", "_dates", "_ends", "_fields", "_kid", "_match", "_names", "_signatures", "_sizes", "_starts",
        "_texts",
    )  # fmt: skip

    def __init__(self, source: bytes, holes: Sequence[_Hole], kid: int, profile: Profile) -> None:
        self._match = re.compile(source, re.DOTALL).fullmatch
        self._kid = kid
        self._fields: list[Any] = list(profile._replace(not_before_ms=0))
        at = [sum(1 + (hole.kind == "text") for hole in holes[: index + 1]) - 1 for index in range(len(holes))]
        groups = list(zip(at, holes, strict=True))
        self._sizes = [(group, hole.target) for group, hole in groups if hole.kind == "size"]
        self._texts = [group for group, hole in groups if hole.kind == "text"]
        self._names = [(hole.target, group) for group, hole in groups if hole.kind == "text" and hole.target in _PLACES]
        self._attributes = [
            (hole.target, group) for group, hole in groups if hole.kind == "text" and hole.target not in _PLACES
        ]
        dates = [(hole.target, group) for group, hole in groups if hole.kind == "date"]
        self._dates = [(target, group) for target, group in dates if target not in (_START, _END)]
        self._starts = [group for target, group in dates if target == _START]
        self._ends = [group for target, group in dates if target == _END]
        self._signatures = [group for group, hole in groups if hole.kind == "signature"]

    def read(self, data: bytes) -> Seen | None:
        match = self._match(data)
        if match is None:
            return None
        groups = match.groups()
        total = 0
        for text in self._texts:
            length = len(groups[text])
            if groups[text - 1][0] != length:
                return None
            total += length
        for size, beside in self._sizes:
            if groups[size] != varint(beside + total):
                return None
        fields = self._fields.copy()
        for place, group in self._names:
            fields[place] = groups[group].decode()
        if self._attributes:
            told = {key: groups[group].decode() for key, group in self._attributes}
            fields[_ATTRIBUTES] = MappingProxyType({**fields[_ATTRIBUTES], **told})
        for place, group in self._dates:
            fields[place] = milliseconds(groups[group])
        end = FOREVER_MS
        for group in self._ends:
            end = min(end, milliseconds(groups[group]))
        fields[_END] = end
        for group in self._starts:
            fields[_START] = max(fields[_START], milliseconds(groups[group]))
        return Seen(self._kid, tuple([groups[group] for group in self._signatures]), tuple.__new__(Profile, fields))


_START, _END, _ATTRIBUTES = map(Profile._fields.index, ("not_before_ms", "expires_ms", "attributes"))
_NAMED: Final = {name: Profile._fields.index(name) for name in ("subject", "tenant", "session")}
_DATED: Final = {name: Profile._fields.index(f"{name}_ms") for name in ("issued", "authenticated")}
_PLACES: Final = frozenset(_NAMED.values())


class _Apart(NamedTuple):
    """A block, apart."""

    symbols: tuple[bytes, ...]
    """Its own."""
    version: bytes
    """The field that says it."""
    statements: bytes
    """The rest."""
    said: Statements
    """What that says."""


def _pattern(envelope: Envelope, profile: Profile) -> _Pattern:
    """The pattern of tokens that are like one that was read at sight."""
    data = envelope.data
    parts = [_apart(block.data) for block in envelope.blocks]
    symbols = [*(symbol.encode() for symbol in DEFAULT_SYMBOLS), *(one for part in parts for one in part.symbols)]
    uses = sum((part.said.uses for part in parts), Counter[int]())
    source = [re.escape(data[:2])]
    holes: list[_Hole] = []
    at = 2
    first = len(DEFAULT_SYMBOLS)
    for number, part in enumerate(parts):
        size = envelope.blocks[number].data
        own = range(first, first + len(part.symbols))
        texts = _texts(part.said, symbols, uses) if number == 0 else {}
        dates = _dates(part.said, symbols)
        # SignedBlock: block = 1, nextKey = 2, signature = 3, version = 5
        inner = varint(len(size))
        outer_at = at + 1
        start = outer_at + (1 if data[outer_at] < 0x80 else 2)
        outer = data[outer_at:start]
        length = outer[0] & 0x7F | (outer[1] << 7 if len(outer) > 1 else 0)
        beside = sum(len(symbols[one]) for one in texts)
        source.append(re.escape(data[at : at + 1]))
        for count, spelled in ((length, outer), (len(size), inner)):
            if texts:
                holes.append(_Hole("size", count - beside))
                source.append(b"(.{%d})" % len(spelled))
            else:
                source.append(re.escape(spelled))
            if spelled is outer:
                source.append(rb"\x0a")
        for one in own:
            if one in texts:
                holes.append(_Hole("text", texts[one]))
                source.append(_TEXT)
            else:
                source.append(re.escape(b"\x0a" + varint(len(symbols[one])) + symbols[one]))
        source.append(re.escape(part.version))
        pieces = split_dates(part.statements)
        source.append(re.escape(pieces[0]))
        for index, piece in enumerate(pieces[2::2]):
            holes.append(_Hole("date", dates[index]))
            source += (_DATE, re.escape(piece))
        holes.append(_Hole("signature", None))
        end = start + length
        tail = end - (start + 1 + len(inner) + len(size) + 104)
        source += (_AFTER, re.escape(data[end - tail : end]))
        at = end
        first = own.stop
    source.append(_PROOF)
    return _Pattern(b"".join(source), holes, data[1], profile)


def _apart(data: bytes) -> _Apart:
    symbols = []
    at = 0
    while data[at] == 0x0A:
        start = at + 2
        at = start + data[at + 1]
        symbols.append(data[start:at])
    statements = data[at + 2 :]
    return _Apart(tuple(symbols), data[at : at + 2], statements, read_statements(statements)[0])


def _texts(said: Statements, symbols: Sequence[bytes], uses: Mapping[int, int]) -> dict[int, Any]:
    """Symbols of the authority block that are a name or the text of an attribute and nothing else: what they mean."""
    found: dict[int, Any] = dict.fromkeys(said.tenants, _NAMED["tenant"])
    for name, value in said.facts:
        place = _NAMED.get(symbols[name].decode())
        if place is not None:
            found[value] = place
    found |= {value: symbols[key].decode() for _, key, value in said.attributes}
    return {value: target for value, target in found.items() if value >= _COMMON and uses[value] == 1}


def _dates(said: Statements, symbols: Sequence[bytes]) -> dict[int, int]:
    """What each date of a block means."""
    found = {date: _DATED[symbols[name].decode()] for name, date in said.dates}
    return found | dict.fromkeys(said.starts, _START) | dict.fromkeys(said.ends, _END)
