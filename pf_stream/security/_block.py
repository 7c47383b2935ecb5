"""A block's Datalog, read from its bytes.

Biscuit's own printer is no source for this: it prints strings without escapes, so a subject called
``x"); right("FlightCap.admin", "/**`` prints as a right that the token does not have.
Source: Biscuit specification, "Serialization" and "Symbol table"; format/schema.proto of biscuit-rust.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pf_stream.security._protobuf import Fault, fields, text
from pf_stream.security.envelope import SealedBlock

__all__ = [
    "COLLECTIONS",
    "DEFAULT_SYMBOLS",
    "FIRST_OWN_SYMBOL",
    "Block",
    "Check",
    "Closure",
    "Op",
    "Predicate",
    "Query",
    "Term",
    "TermKind",
    "read_blocks",
]

# fmt: off
DEFAULT_SYMBOLS: Final = (
    "read", "write", "resource", "operation", "right", "time", "role", "owner", "tenant", "namespace", "user", "team",
    "service", "admin", "email", "group", "member", "ip_address", "client", "client_ip", "domain", "path", "version",
    "cluster", "node", "hostname", "nonce", "query",
)
# fmt: on
"""The symbols that every token knows."""
FIRST_OWN_SYMBOL: Final = 1024
"""Where a token's own begin."""
_KINDS_FROM: Final = 4
"""The Datalog version from which on checks say their kind: that of Biscuit 3.1."""
_DEEPEST: Final = 16
"""Nesting of collections and closures beyond which we refuse: ours is a recursive reader."""


class TermKind(IntEnum):
    """The field numbers of schema.proto's ``Term``."""

    VARIABLE = 1
    INTEGER = 2
    STRING = 3
    DATE = 4
    BYTES = 5
    BOOL = 6
    SET = 7
    NULL = 8
    ARRAY = 9
    MAP = 10


# Plain numbers: an enum's members are looked up by name each time, and terms are many.
_VARIABLE: Final = int(TermKind.VARIABLE)
_STRING: Final = int(TermKind.STRING)
_BOOL: Final = int(TermKind.BOOL)
_NUMBERS: Final = frozenset(map(int, (TermKind.VARIABLE, TermKind.INTEGER, TermKind.DATE, TermKind.BOOL)))
_ALIKE: Final = frozenset(map(int, (TermKind.INTEGER, TermKind.DATE)))
_BYTES: Final = frozenset(map(int, (TermKind.BYTES, TermKind.NULL)))
COLLECTIONS: Final = frozenset(map(int, (TermKind.SET, TermKind.ARRAY, TermKind.MAP)))
"""Kinds of terms that have terms in them."""


class Term(NamedTuple):
    """A term: a string is text, a date seconds since the epoch, a collection the tuple of what is in it."""

    kind: int
    value: Any


class Predicate(NamedTuple):
    """A name and its terms."""

    name: str
    terms: tuple[Term, ...]


class Closure(NamedTuple):
    """The function that ``all``, ``any``, ``||`` and ``&&`` take."""

    ops: "tuple[Op, ...]"


class Op(NamedTuple):
    """A step of an expression in reverse Polish notation; the kind is the field number of schema.proto's ``Op``."""

    kind: int
    """1 a value, 2 a unary operator, 3 a binary operator, 4 a closure."""
    value: "Term | int | Closure"
    """The term, the operator's number in schema.proto, or the closure."""


class Query(NamedTuple):
    """A rule, or an alternative of a check (whose head means nothing)."""

    head: Predicate
    body: tuple[Predicate, ...]
    expressions: tuple[tuple[Op, ...], ...]
    scoped: bool
    """Whether it says ``trusting ...``."""


class Check(NamedTuple):
    """A condition: with kind 0, one of the queries must match."""

    kind: int
    """0 ``check if``, 1 ``check all``, 2 ``reject if``."""
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """What a block says."""

    facts: tuple[Predicate, ...]
    rules: tuple[Query, ...]
    checks: tuple[Check, ...]
    plain: bool
    """Whether it has no context, no ``trusting``, no keys, and was signed by the holder alone."""


def read_blocks(sealed: Sequence[SealedBlock]) -> tuple[Block, ...]:
    """Read every block of a token, the authority block first: later ones use the symbols of earlier ones.

    Raises:
        Fault: a block is not written as the specification says.
    """
    if sealed[0].third_party:
        raise Fault("somebody else signed the authority block too")
    own, block = _read_authority(sealed[0].data)
    shared = [*own]
    blocks = [block]
    for one in sealed[1:]:
        found = fields(one.data)
        # A third-party block was made by somebody who did not see the token: its symbols are its own.
        symbols = [] if one.third_party else shared
        symbols.extend(text(value) for number, value in found if number == 1)
        blocks.append(_Reader(symbols).block(found, third_party=one.third_party))
    return tuple(blocks)


# Whoever narrows a token in ever other ways cannot change this part of it.
@lru_cache(maxsize=64)
def _read_authority(data: bytes) -> tuple[tuple[str, ...], Block]:
    found = fields(data)
    symbols = tuple(text(value) for number, value in found if number == 1)
    return symbols, _Reader(symbols).block(found, third_party=False)


class _Reader:
    __slots__ = ("_says_kind", "_symbols")

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = symbols
        self._says_kind = False
        """Whether a check says of which kind it is."""

    def block(self, found: list[tuple[int, int | bytes]], *, third_party: bool) -> Block:
        facts: list[Predicate] = []
        rules: list[Query] = []
        checks: list[Check] = []
        plain = not third_party
        version = 0
        for number, value in found:
            if number == 1:
                continue
            if number == 3 and isinstance(value, int) and not version:
                version = value
            elif number == 4:
                facts.append(self._fact(value))
            elif number == 5:
                rules.append(self._query(value))
            elif number == 6:
                checks.append(self._check(value))
            elif number in {2, 7, 8}:
                plain = False
            else:
                raise Fault("a block has an unknown part")
        if not 3 <= version <= 6:
            raise Fault("a block's Datalog version is unknown")
        if version < _KINDS_FROM and self._says_kind:
            # The library believes such a token and cannot evaluate it.
            raise Fault("a check says of which kind it is, which its block's Datalog version does not know")
        return Block(tuple(facts), tuple(rules), tuple(checks), plain)

    def _fact(self, value: int | bytes) -> Predicate:
        found = _message(value)
        if len(found) != 1 or found[0][0] != 1:
            raise Fault("a fact is not one predicate")
        return self._predicate(found[0][1])

    def _predicate(self, value: int | bytes) -> Predicate:
        name: str | None = None
        terms = []
        for number, part in _message(value):
            if number == 1 and name is None:
                name = self._symbol(part)
            elif number == 2:
                terms.append(self._term(part, 0))
            else:
                raise Fault("a predicate has an unknown part")
        if name is None:
            raise Fault("a predicate has no name")
        return Predicate(name, tuple(terms))

    def _query(self, value: int | bytes) -> Query:
        head: Predicate | None = None
        body = []
        expressions = []
        scoped = False
        for number, part in _message(value):
            if number == 1 and head is None:
                head = self._predicate(part)
            elif number == 2:
                body.append(self._predicate(part))
            elif number == 3:
                expressions.append(self._ops(part, 1, 0))
            elif number == 4:
                scoped = True
            else:
                raise Fault("a rule has an unknown part")
        if head is None:
            raise Fault("a rule has no head")
        return Query(head, tuple(body), tuple(expressions), scoped)

    def _check(self, value: int | bytes) -> Check:
        kind: int | None = None
        queries = []
        for number, part in _message(value):
            if number == 1:
                queries.append(self._query(part))
            elif number == 2 and kind is None and isinstance(part, int) and part <= 2:
                kind = part
                self._says_kind = True
            else:
                raise Fault("a check has an unknown part")
        return Check(kind or 0, tuple(queries))

    def _ops(self, value: int | bytes, wanted: int, depth: int) -> tuple[Op, ...]:
        """The field *wanted* of a message, each an operation; closures have parameters as field 1 too."""
        if depth > _DEEPEST:
            raise Fault("an expression is nested too deeply")
        ops = []
        for number, part in _message(value):
            if number == wanted:
                ops.append(self._op(part, depth))
            elif number != 1:
                raise Fault("an expression has an unknown part")
        return tuple(ops)

    def _op(self, value: int | bytes, depth: int) -> Op:
        found = _message(value)
        if len(found) != 1:
            raise Fault("an operation is not one")
        number, part = found[0]
        if number == 1:
            return Op(1, self._term(part, depth))
        if number in {2, 3}:
            inner = _message(part)
            kind = inner[0][1] if inner and inner[0][0] == 1 else None
            if not isinstance(kind, int) or any(extra != 2 for extra, _ in inner[1:]):
                raise Fault("an operator is not one")
            return Op(number, kind)
        if number == 4:
            return Op(4, Closure(self._ops(part, 2, depth + 1)))
        raise Fault("an operation is unknown")

    def _term(self, value: int | bytes, depth: int) -> Term:
        number = _number(value) if isinstance(value, bytes) and len(value) <= _SHORT else None
        if number is not None:
            return number
        found = _message(value)
        if len(found) != 1:
            raise Fault("a term is not one value")
        kind, part = found[0]
        if kind == _STRING:
            return Term(kind, self._symbol(part))
        if kind in _NUMBERS:
            if not isinstance(part, int) or (kind == _BOOL and part > 1):
                raise Fault("a term is not a number")
            if kind == _VARIABLE:
                self._symbol(part)  # the library does not evaluate a block whose variables have no names
            return Term(kind, part)
        if kind in _BYTES:
            return Term(kind, part)
        if kind in COLLECTIONS:
            if depth > _DEEPEST:
                raise Fault("a collection is nested too deeply")
            return Term(kind, tuple(self._item(kind, item, depth + 1) for item in _message(part)))
        raise Fault("a term is of an unknown kind")

    def _item(self, kind: int, item: tuple[int, int | bytes], depth: int) -> Term:
        number, value = item
        if number != 1:
            raise Fault("a collection has an unknown part")
        if kind != TermKind.MAP:
            return self._term(value, depth)
        entry = dict(_message(value))
        if entry.keys() != {1, 2}:
            raise Fault("a map's entry is not a key and a value")
        return self._term(entry[2], depth)

    def _symbol(self, index: int | bytes) -> str:
        if isinstance(index, int):
            if index < len(DEFAULT_SYMBOLS):
                return DEFAULT_SYMBOLS[index]
            if FIRST_OWN_SYMBOL <= index < FIRST_OWN_SYMBOL + len(self._symbols):
                return self._symbols[index - FIRST_OWN_SYMBOL]
        raise Fault("a symbol is not in the token's table")


def _message(value: int | bytes) -> Sequence[tuple[int, int | bytes]]:
    if isinstance(value, int):
        raise Fault("a field has the wrong type")
    return _short(value) if len(value) <= _SHORT else fields(value)


_SHORT: Final = 8


@lru_cache(maxsize=4096)
def _number(value: bytes) -> Term | None:
    """A term that is a number, which means the same in any token; None for any other."""
    found = _short(value)
    if len(found) == 1 and found[0][0] in _ALIKE and isinstance(found[0][1], int):
        return Term(*found[0])
    return None


# Most messages are terms of three bytes, of which there are few; longer ones are seldom met again.
@lru_cache(maxsize=4096)
def _short(value: bytes) -> Sequence[tuple[int, int | bytes]]:
    return tuple(fields(value))
