"""The closed profile read at sight: what an issuer's library and ours write, byte for byte.

Taking blocks apart costs Python more than checking their signatures costs the library. What is spelled in any other way than
``_spelling`` knows, or says anything else, is left to the readers proper; where this one answers, it answers the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pf_stream.model.capability import BadGrantError, HeldGrant
from pf_stream.model.scope import BadScopeError, Scope
from pf_stream.model.when import BadWhenError, When
from pf_stream.security._block import DEFAULT_SYMBOLS
from pf_stream.security._protobuf import fields, text
from pf_stream.security._rights import Rights
from pf_stream.security._spelling import Check, OtherwiseError, Statements, milliseconds, read_statements
from pf_stream.security.envelope import SealedBlock
from pf_stream.security.profile import DATES, FOREVER_MS, MOST_ATTRIBUTES, NAMES, During, Profile, are_names

__all__ = ["read_shorthand", "statements_in", "unread"]

_LONGEST: Final = 127
"""Longest symbol that is read here, in bytes."""
_FEW: Final = 4
"""Most texts of one statement whose meaning is kept. What is kept is bounded, though whoever holds a token chooses the texts."""
_STATEMENTS: Final = frozenset({4, 5, 6})
"""Numbers of a block's fields: facts, rules, checks."""
_NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})
_NOTHING: Final = Rights.of(())
_UNREAD: Final = (OtherwiseError, LookupError, UnicodeDecodeError, BadScopeError, BadGrantError, BadWhenError)


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


def unread(sealed: Sequence[SealedBlock]) -> tuple[int, int]:
    """How many bytes, and how many statements, those blocks have that holders added and that cannot be read at sight.

    Raises:
        Fault: such a block is no message.
    """
    reader = _Reader()
    size = statements = 0
    for index, block in enumerate(sealed):
        known = len(reader.symbols)
        try:
            if block.third_party:
                raise OtherwiseError
            reader.read(block.data, authority=index == 0)
        except _UNREAD:
            if index:
                size += len(block.data)
                statements += statements_in(block.data)
            if not block.third_party:
                reader.skip(block.data, known)
    return size, statements


def statements_in(data: bytes) -> int:
    """How many facts, rules and checks a block has.

    Raises:
        Fault: it is no message.
    """
    return sum([number in _STATEMENTS for number, _ in fields(data)])


class _Reader:
    __slots__ = (
        "_attributes", "_dates", "_during", "_facts", "_intent_types", "_narrowed", "_not_before_ms", "_rights",
        "_topics", "expires_ms", "symbols",
    )  # fmt: skip

    def __init__(self) -> None:
        self.symbols = [*DEFAULT_SYMBOLS]
        """Those that every token knows, then those of the blocks so far."""
        self.expires_ms = FOREVER_MS
        """The earliest end that they set."""
        self._not_before_ms = 0
        self._facts: dict[str, str] = {}
        self._dates: dict[str, int] = {}
        self._attributes = _NO_ATTRIBUTES
        self._rights = _NOTHING
        self._narrowed: tuple[Rights, ...] = ()
        self._during: tuple[tuple[During, ...], ...] = ()
        self._intent_types: frozenset[str] | None = None
        self._topics: frozenset[str] | None = None

    def read(self, data: bytes, *, authority: bool) -> None:
        """Take the next block in."""
        symbols = self.symbols
        at = 0
        while data[at] == 0x0A:
            start = at + 2
            at = start + data[at + 1]
            if at - start > _LONGEST:
                raise OtherwiseError
            symbols.append(data[start:at].decode())
        if data[at] != 0x18 or not 3 <= data[at + 1] <= 6:
            raise OtherwiseError
        said, dates = read_statements(data[at + 2 :])
        if said.highest >= len(symbols):
            raise OtherwiseError
        if authority:
            self._say(said, dates)
        elif said.has_facts:
            raise OtherwiseError
        for date in said.ends:
            self.expires_ms = min(self.expires_ms, milliseconds(dates[date]))
        for date in said.starts:
            self._not_before_ms = max(self._not_before_ms, milliseconds(dates[date]))
        for check in said.checks:
            self._check(check)

    def skip(self, data: bytes, known: int) -> None:
        """Take the symbols in of a block that cannot be read; *known* came before it."""
        own = [text(value) for number, value in fields(data) if number == 1]
        # Whatever says a longer one cannot be read either, nor what says nothing.
        self.symbols[known:] = [symbol if len(symbol) <= _LONGEST else "" for symbol in own]

    def _say(self, said: Statements, dates: Sequence[bytes]) -> None:
        symbols = self.symbols
        facts, moments = self._facts, self._dates
        for name, value in said.facts:
            facts[symbols[name]] = symbols[value]
        for value in said.tenants:
            facts["tenant"] = symbols[value]
        for name, date in said.dates:
            moments[symbols[name]] = milliseconds(dates[date])
        if (
            len(said.versions) != 1
            or symbols[said.versions[0]] != "pf"
            or len(facts) != len(said.facts) + len(said.tenants)
            or len(moments) != len(said.dates)
        ):
            raise OtherwiseError
        if said.attributes:
            attributes = {symbols[key]: symbols[value] for _, key, value in said.attributes}
            if len(attributes) != len(said.attributes) or {symbols[name] for name, _, _ in said.attributes} != {
                "attribute"
            }:
                raise OtherwiseError
            self._attributes = MappingProxyType(attributes)
        if said.rights:
            rights = tuple([right(symbols) for right in said.rights])
            self._rights = (_kept_granted if len(rights) <= _FEW else _granted)(rights)

    def _check(self, check: Check) -> None:
        symbols = self.symbols
        kinds = {symbols[kind] for kind in check.kinds}
        if not kinds:
            self._narrowed += (_NOTHING,)
        elif kinds == {"request"} and not check.values:
            requests = tuple([(regex, symbols[name], symbols[value]) for regex, name, value in check.requests])
            self._narrowed += ((_kept_requested if len(requests) <= _FEW else _requested)(requests),)
        elif check.requests or len(kinds) > 1:
            raise OtherwiseError
        else:
            values = tuple([symbols[value] for value in check.values])
            if "" in values:
                raise OtherwiseError
            names = (_kept_names if len(values) <= _FEW else _names)(values)
            if kinds == {"intent_type"}:
                self._intent_types = names if self._intent_types is None else self._intent_types & names
            elif kinds == {"topic"}:
                self._topics = names if self._topics is None else self._topics & names
            elif kinds == {"during"}:
                self._during += (tuple(map(During.read, values)),)
            else:
                raise OtherwiseError

    def profile(self) -> Profile:
        """What was read."""
        facts, dates, attributes = self._facts, self._dates, self._attributes
        if (
            not facts.keys() <= NAMES
            or not dates.keys() <= DATES
            or len(attributes) > MOST_ATTRIBUTES
            or not are_names([*facts.values(), *attributes, *attributes.values()])
        ):
            raise OtherwiseError
        return Profile(
            facts["subject"],
            facts["audience"],
            facts.get("tenant"),
            facts.get("session"),
            attributes,
            dates.get("issued"),
            dates.get("authenticated"),
            self._rights,
            self._narrowed,
            self._during,
            self._intent_types,
            self._topics,
            self._not_before_ms,
            self.expires_ms,
            closed=True,
        )


def _granted(rights: Sequence[Sequence[str]]) -> Rights:
    return Rights.of(
        HeldGrant(operation, Scope.parse(scope), When.parse(limit[0]) if limit else None)
        for operation, scope, *limit in rights
    )


def _requested(requests: Sequence[tuple[bool, str, str]]) -> Rights:
    grants = []
    for is_regex, operation, resource in requests:
        scope = Scope.from_regex(resource) if is_regex else Scope.parse(resource)
        # A "*" in a request is a character, which no resource has; as a scope it would be a pattern.
        if scope is None or not (is_regex or scope.is_exact):
            raise OtherwiseError
        grants.append(HeldGrant(operation, scope))
    return Rights.of(grants)


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


_kept_granted: Final = lru_cache(maxsize=4096)(_granted)
_kept_requested: Final = lru_cache(maxsize=4096)(_requested)
_kept_names: Final = lru_cache(maxsize=4096)(_names)
