"""The closed profile read at sight: what an issuer's library and ours write, byte for byte.

Taking blocks apart costs Python more than checking their signatures costs the library. But a statement of the profile is
spelled in the same few bytes around its symbols, so one regular expression sees all statements of a block at once. What is
spelled in any other way, or says anything else, is left to the readers proper; where this one answers, it answers the same.
Source: as for ``_block``; the first 15,360 symbols of a token's own are written in two bytes.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeVar

from pf_stream.model.capability import BadGrantError, HeldGrant
from pf_stream.model.scope import BadScopeError, Scope
from pf_stream.model.when import BadWhenError, When
from pf_stream.security._block import DEFAULT_SYMBOLS, FIRST_OWN_SYMBOL
from pf_stream.security._protobuf import fields, text, varint
from pf_stream.security.envelope import SealedBlock
from pf_stream.security.profile import DATES, FOREVER_MS, MOST_ATTRIBUTES, NAMES, During, Profile, is_name

__all__ = ["read_shorthand", "unread_bytes"]

# Terms, and the head that every query of a check has.
_TEXT: Final = rb"\x12\x03\x18(..)"
_ANY_TEXT: Final = rb"\x12(\x03\x18..|\x02\x18.)"  # one byte for what every token knows, such as "role"
_DATE: Final = rb"\x20([\x80-\xff]{4}[\x01-\x7f])"
_HEAD: Final = rb"\x0a\x02\x08\x1b"
_FACTS: Final = (
    rb"\x22\x0a\x0a\x08\x08(..)" + _TEXT,  # name("text")
    rb"\x22\x09\x0a\x07\x08\x08" + _TEXT,  # tenant("text")
    rb"\x22(?:\x0e\x0a\x0c|(?P<w>\x13\x0a\x11))\x08\x04"
    + _TEXT
    + _TEXT
    + rb"(?(w)"
    + _TEXT
    + rb")",  # right("text", ...
    rb"\x22(.\x0a.)\x08(..)" + _ANY_TEXT + _ANY_TEXT,  # name("text", "text")
    rb"\x22\x0d\x0a\x0b\x08(..)\x12\x06" + _DATE,  # name(date)
    rb"\x22\x09\x0a\x07\x08(..)\x12\x02\x10\x01",  # name(1)
)
_TIME: Final = (  # check if time($t), $t < date, or >=
    rb"\x32\x28\x0a\x26" + _HEAD + rb"\x12\x07\x08\x05\x12\x03\x08(?P<t>..)"
    rb"\x1a\x17\x0a\x05\x0a\x03\x08(?P=t)\x0a\x08\x0a\x06" + _DATE + rb"\x0a\x04\x1a\x02\x08([\x00\x03])"
)
_FALSE: Final = rb"\x32(\x0e)\x0a\x0c" + _HEAD + rb"\x1a\x06\x0a\x04\x0a\x02\x30\x00"  # check if false
_ALTERNATIVES: Final = (
    rb"\x0a\x0e" + _HEAD + rb"\x12\x08\x08(..)" + _TEXT,  # name("text")
    rb"\x0a\x13" + _HEAD + rb"\x12\x0d\x08(..)" + _TEXT + _TEXT,  # name("text", "text")
    rb"\x0a\x29" + _HEAD + rb"\x12\x0d\x08(..)" + _TEXT + rb"\x12\x03\x08(?P<r>..)"  # name("text", $r), ...
    rb"\x1a\x14\x0a\x05\x0a\x03\x08(?P=r)\x0a\x05\x0a\x03\x18(..)\x0a\x04\x1a\x02\x08\x08",  # ... $r.matches("text")
)
_ANY: Final = rb"|".join(re.sub(rb"\(.*?\)", b"..", one) for one in _ALTERNATIVES)
_CHECK: Final = rb"\x32([\x00-\x7f]|[\x80-\xff][\x01-\x7f])((?:" + _ANY + rb")+)"
# The last group of each is all that follows, if it begins with none of these.
_statements: Final = re.compile(rb"|".join((*_FACTS, _TIME, _FALSE, _CHECK, rb"(.+)")), re.DOTALL).findall
_alternatives: Final = re.compile(rb"|".join((*_ALTERNATIVES, rb"(.+)")), re.DOTALL).findall

_COMMON: Final = {varint(index): symbol for index, symbol in enumerate(DEFAULT_SYMBOLS)}
_V = TypeVar("_V")
_OWN: Final = tuple(varint(index) for index in range(FIRST_OWN_SYMBOL, FIRST_OWN_SYMBOL + 512))
_LONGEST: Final = 127
"""Longest symbol that is read here, in bytes."""
_LESS: Final = b"\0"
_NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})


class _OtherwiseError(Exception):
    """Raised where the readers proper must be asked."""


_UNREAD: Final = (_OtherwiseError, LookupError, UnicodeDecodeError, BadScopeError, BadGrantError, BadWhenError)


def read_shorthand(sealed: Sequence[SealedBlock]) -> Profile | None:
    """What ``read_profile(read_blocks(sealed))`` says of a token in the closed profile; None where that must be asked."""
    reader = _Reader()
    try:
        for index, block in enumerate(sealed):
            if block.third_party:
                return None
            reader.read(block.data, authority=index == 0)
            if reader.expires_ms == FOREVER_MS:
                return None
        return reader.profile()
    except _UNREAD:
        return None


def unread_bytes(sealed: Sequence[SealedBlock]) -> int:
    """How many bytes those blocks have together that holders added and that cannot be read at sight.

    Raises:
        Fault: such a block is no message.
    """
    reader = _Reader()
    unread = 0
    for index, block in enumerate(sealed):
        known = reader.known
        try:
            if block.third_party:
                raise _OtherwiseError
            reader.read(block.data, authority=index == 0)
        except _UNREAD:
            unread += len(block.data) if index else 0
            if not block.third_party:
                reader.skip(block.data, known)
    return unread


class _Reader:
    __slots__ = (
        "_attributes", "_dates", "_during", "_facts", "_names", "_narrowed", "_not_before_ms", "_rights", "_symbols",
        "_versions", "expires_ms", "known",
    )  # fmt: skip

    def __init__(self) -> None:
        self.known = 0
        """How many symbols the blocks so far brought."""
        self.expires_ms = FOREVER_MS
        """The earliest end that they set."""
        self._symbols = _COMMON.copy()
        self._versions = 0
        self._facts: dict[str, str] = {}
        self._dates: dict[str, int] = {}
        self._attributes: dict[str, str] = {}
        self._rights: list[HeldGrant] = []
        self._narrowed: list[tuple[HeldGrant, ...]] = []
        self._during: list[tuple[During, ...]] = []
        self._names: dict[str, frozenset[str]] = {}
        self._not_before_ms = 0

    def read(self, data: bytes, *, authority: bool) -> None:
        """Take the next block in."""
        symbols = self._symbols
        at = 0
        while data[at] == 0x0A:
            start = at + 2
            at = start + data[at + 1]
            if at - start > _LONGEST:
                raise _OtherwiseError
            symbols[_OWN[self.known]] = data[start:at].decode()
            self.known += 1
        if data[at] != 0x18 or not 3 <= data[at + 1] <= 6:
            raise _OtherwiseError
        for (
            name, said, tenant, _, right, scope, limit, sizes, pair, key, value, dated, moment, one,
            var, date, relation, nothing, size, check, rest,
        ) in _statements(data, at + 2):  # fmt: skip
            if check:
                if size != varint(len(check)):
                    raise _OtherwiseError
                self._check(check)
            elif date and var in symbols:
                if relation == _LESS:
                    self.expires_ms = min(self.expires_ms, _milliseconds(date))
                else:
                    self._not_before_ms = max(self._not_before_ms, _milliseconds(date))
            elif nothing:
                self._narrowed.append(())
            elif date or rest or not authority:
                raise _OtherwiseError
            elif right:
                self._rights.append(_granted(symbols[right], symbols[scope], symbols[limit] if limit else None))
            elif pair:
                self._attribute(symbols[pair], sizes, key, value)
            elif dated:
                _say(self._dates, symbols[dated], _milliseconds(moment))
            elif one:
                self._versions += 1 if symbols[one] == "pf" else 2
            else:
                _say(self._facts, "tenant" if tenant else symbols[name], symbols[tenant or said])

    def skip(self, data: bytes, known: int) -> None:
        """Take the symbols in of a block that cannot be read; *known* came before it."""
        own = [text(value) for number, value in fields(data) if number == 1]
        for index, symbol in enumerate(own, FIRST_OWN_SYMBOL + known):
            if len(symbol) <= _LONGEST:
                self._symbols[varint(index)] = symbol
        self.known = known + len(own)

    def _attribute(self, name: str, sizes: bytes, key: bytes, value: bytes) -> None:
        size = len(key) + len(value)
        if name != "attribute" or sizes != bytes((size + 7, 0x0A, size + 5)):
            raise _OtherwiseError
        _say(self._attributes, self._symbols[key[2:]], self._symbols[value[2:]])

    def _check(self, check: bytes) -> None:
        symbols = self._symbols
        kind = ""
        values: list[str] = []
        grants: list[HeldGrant] = []
        for name, value, exact, its, resource, matching, whose, var, regex, rest in _alternatives(check):
            said = symbols[name or exact or matching]
            if rest or (kind and kind != said):
                raise _OtherwiseError
            kind = said
            if name:
                values.append(symbols[value])
            elif exact:
                grants.append(_requested(symbols[its], symbols[resource]))
            elif var in symbols:
                grants.append(_matching(symbols[whose], symbols[regex]))
            else:
                raise _OtherwiseError
        if kind == "request" and not values:
            self._narrowed.append(tuple(grants))
        elif grants or "" in values:
            raise _OtherwiseError
        elif kind == "during":
            self._during.append(tuple(map(During.read, values)))
        elif kind in {"intent_type", "topic"}:
            allowed = _one_name(values[0]) if len(values) == 1 else frozenset(values)
            self._names[kind] = self._names[kind] & allowed if kind in self._names else allowed
        else:
            raise _OtherwiseError

    def profile(self) -> Profile:
        """What was read."""
        facts, dates, attributes = self._facts, self._dates, self._attributes
        if (
            self._versions != 1
            or not facts.keys() <= NAMES
            or not dates.keys() <= DATES
            or len(attributes) > MOST_ATTRIBUTES
            or not all(map(is_name, (*facts.values(), *attributes, *attributes.values())))
        ):
            raise _OtherwiseError
        return Profile(
            subject=facts["subject"],
            audience=facts["audience"],
            tenant=facts.get("tenant"),
            session=facts.get("session"),
            attributes=MappingProxyType(attributes) if attributes else _NO_ATTRIBUTES,
            issued_ms=dates.get("issued"),
            authenticated_ms=dates.get("authenticated"),
            rights=tuple(self._rights),
            narrowed=tuple(self._narrowed),
            during=tuple(self._during),
            intent_types=self._names.get("intent_type"),
            topics=self._names.get("topic"),
            not_before_ms=self._not_before_ms,
            expires_ms=self.expires_ms,
            closed=True,
        )


def _say(told: dict[str, _V], name: str, value: _V) -> None:
    if name in told:
        raise _OtherwiseError
    told[name] = value


def _milliseconds(date: bytes) -> int:
    a, b, c, d, e = date
    return 1000 * (a & 0x7F | (b & 0x7F) << 7 | (c & 0x7F) << 14 | (d & 0x7F) << 21 | e << 28)


# Bounded, though whoever holds a token chooses the texts: each is a symbol, of 127 characters at most.
@lru_cache(maxsize=4096)
def _granted(operation: str, scope: str, limit: str | None) -> HeldGrant:
    return HeldGrant(operation, Scope.parse(scope), None if limit is None else When.parse(limit))


@lru_cache(maxsize=4096)
def _one_name(name: str) -> frozenset[str]:
    return frozenset((name,))


@lru_cache(maxsize=4096)
def _requested(operation: str, resource: str) -> HeldGrant:
    grant = HeldGrant(operation, Scope.parse(resource))
    if not grant.scope.is_exact:
        raise _OtherwiseError
    return grant


@lru_cache(maxsize=4096)
def _matching(operation: str, regex: str) -> HeldGrant:
    scope = Scope.from_regex(regex)
    if scope is None:
        raise _OtherwiseError
    return HeldGrant(operation, scope)
