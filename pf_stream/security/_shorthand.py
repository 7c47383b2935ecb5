"""The closed profile read at sight: what an issuer's library and ours write, byte for byte.

Taking blocks apart costs Python more than checking their signatures costs the library. But a statement of the profile is
spelled in the same few bytes around its symbols, so one regular expression sees all statements of a block at once. What is
spelled in any other way, or says anything else, is left to the readers proper; where this one answers, it answers the same.
Source: as for ``_block``; the first 15,360 symbols of a token's own are written in two bytes.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pf_stream.model.capability import BadGrantError, HeldGrant
from pf_stream.model.scope import BadScopeError, Scope
from pf_stream.security._protobuf import varint
from pf_stream.security.envelope import SealedBlock
from pf_stream.security.profile import FOREVER_MS, Profile, is_name

__all__ = ["read_shorthand"]

# Terms, and the head that every query of a check has.
_TEXT: Final = rb"\x12\x03\x18(..)"
_HEAD: Final = rb"\x0a\x02\x08\x1b"
_FACTS: Final = (
    rb"\x22\x0a\x0a\x08\x08(..)" + _TEXT,  # name("text")
    rb"\x22\x09\x0a\x07\x08\x08" + _TEXT,  # tenant("text")
    rb"\x22\x0e\x0a\x0c\x08\x04" + _TEXT + _TEXT,  # right("text", "text")
    rb"\x22\x09\x0a\x07\x08(..)\x12\x02\x10\x01",  # name(1)
)
_TIME: Final = (  # check if time($t), $t < date, or >=
    rb"\x32\x28\x0a\x26" + _HEAD + rb"\x12\x07\x08\x05\x12\x03\x08(?P<t>..)"
    rb"\x1a\x17\x0a\x05\x0a\x03\x08(?P=t)\x0a\x08\x0a\x06\x20([\x80-\xff]{4}[\x01-\x7f])\x0a\x04\x1a\x02\x08([\x00\x03])"
)
_ALTERNATIVES: Final = (
    rb"\x0a\x0e" + _HEAD + rb"\x12\x08\x08(..)" + _TEXT,  # name("text")
    rb"\x0a\x13" + _HEAD + rb"\x12\x0d\x08(..)" + _TEXT + _TEXT,  # name("text", "text")
    rb"\x0a\x29" + _HEAD + rb"\x12\x0d\x08(..)" + _TEXT + rb"\x12\x03\x08(?P<r>..)"  # name("text", $r), ...
    rb"\x1a\x14\x0a\x05\x0a\x03\x08(?P=r)\x0a\x05\x0a\x03\x18(..)\x0a\x04\x1a\x02\x08\x08",  # ... $r.matches("text")
)
_ANY: Final = rb"|".join(re.sub(rb"\(.*?\)", b"..", one) for one in _ALTERNATIVES)
_CHECK: Final = rb"\x32([\x00-\x7f]|[\x80-\xff][\x01-\x7f])((?:" + _ANY + rb")+)"
# The last group of each is all that follows, if it begins with none of these.
_statements: Final = re.compile(rb"|".join((*_FACTS, _TIME, _CHECK, rb"(.+)")), re.DOTALL).findall
_alternatives: Final = re.compile(rb"|".join((*_ALTERNATIVES, rb"(.+)")), re.DOTALL).findall

_SYMBOLS: Final = tuple(bytes((index & 0x7F | 0x80, index >> 7)) for index in range(1024, 1024 + 512))
_LESS: Final = b"\0"


class _OtherwiseError(Exception):
    """Raised where the readers proper must be asked."""


def read_shorthand(sealed: Sequence[SealedBlock]) -> Profile | None:
    """What ``read_profile(read_blocks(sealed))`` says of a token in the closed profile; None where that must be asked."""
    reader = _Reader()
    try:
        for index, block in enumerate(sealed):
            if block.third_party:
                return None
            reader.read(block.data, authority=index == 0)
        return reader.profile()
    except (_OtherwiseError, LookupError, UnicodeDecodeError, BadScopeError, BadGrantError):
        return None


class _Reader:
    __slots__ = ("_expires_ms", "_facts", "_names", "_narrowed", "_not_before_ms", "_rights", "_symbols")

    def __init__(self) -> None:
        self._symbols: dict[bytes, str] = {}
        self._facts: dict[str, str] = {}
        self._rights: list[HeldGrant] = []
        self._narrowed: list[tuple[HeldGrant, ...]] = []
        self._names: dict[str, frozenset[str]] = {}
        self._not_before_ms = 0
        self._expires_ms = FOREVER_MS

    def read(self, data: bytes, *, authority: bool) -> None:
        """Take the next block in."""
        symbols, facts = self._symbols, self._facts
        at = 0
        while data[at] == 0x0A:
            start = at + 2
            at = start + data[at + 1]
            if at - start > 0x7F:
                raise _OtherwiseError
            symbols[_SYMBOLS[len(symbols)]] = data[start:at].decode()
        if data[at] != 0x18 or not 3 <= data[at + 1] <= 6:
            raise _OtherwiseError
        for name, text, tenant, right, scope, one, var, date, relation, size, check, rest in _statements(data, at + 2):
            if check:
                if size != varint(len(check)):
                    raise _OtherwiseError
                self._check(check)
            elif date and var in symbols:
                a, b, c, d, e = date
                moment_ms = 1000 * (a & 0x7F | (b & 0x7F) << 7 | (c & 0x7F) << 14 | (d & 0x7F) << 21 | e << 28)
                if relation == _LESS:
                    self._expires_ms = min(self._expires_ms, moment_ms)
                else:
                    self._not_before_ms = max(self._not_before_ms, moment_ms)
            elif date or rest or not authority:
                raise _OtherwiseError
            elif right:
                self._rights.append(_granted(symbols[right], symbols[scope]))
            else:
                said = "tenant" if tenant else symbols[name or one]
                if said in facts or (said == "pf") != bool(one):
                    raise _OtherwiseError
                facts[said] = "1" if one else symbols[tenant or text]
        if self._expires_ms == FOREVER_MS:
            raise _OtherwiseError

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
        elif kind in {"intent_type", "topic"} and not grants and "" not in values:
            allowed = _one_name(values[0]) if len(values) == 1 else frozenset(values)
            self._names[kind] = self._names[kind] & allowed if kind in self._names else allowed
        else:
            raise _OtherwiseError

    def profile(self) -> Profile:
        """What was read."""
        facts = self._facts
        tenant = facts.get("tenant")
        if len(facts) != (3 if tenant is None else 4) or "pf" not in facts or not all(map(is_name, facts.values())):
            raise _OtherwiseError
        return Profile(
            subject=facts["subject"],
            audience=facts["audience"],
            tenant=tenant,
            session=None,
            attributes=MappingProxyType({}),
            issued_ms=None,
            authenticated_ms=None,
            rights=tuple(self._rights),
            narrowed=tuple(self._narrowed),
            during=(),
            intent_types=self._names.get("intent_type"),
            topics=self._names.get("topic"),
            not_before_ms=self._not_before_ms,
            expires_ms=self._expires_ms,
            closed=True,
        )


# Bounded, though whoever holds a token chooses the texts: each is a symbol, of 127 bytes at most.
@lru_cache(maxsize=4096)
def _granted(operation: str, scope: str) -> HeldGrant:
    return HeldGrant(operation, Scope.parse(scope))


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
