"""How the profile's statements are spelled: the few bytes that an issuer's library and ours write around symbols and dates.

One regular expression sees all statements of a block at once. What they say does not depend on what the symbols are, nor on
the dates; so it is found once for each way in which a block is put together, and tokens of one issuer differ in little else.
Source: as for ``_block``; the first 15,360 symbols of a token's own are written in two bytes.
"""

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

from pf_stream.security._block import DEFAULT_SYMBOLS, FIRST_OWN_SYMBOL
from pf_stream.security._protobuf import varint

__all__ = ["Check", "OtherwiseError", "Statements", "milliseconds", "read_statements", "split_dates"]

# Terms, and the head that every query of a check has.
_TEXT: Final = rb"\x12\x03\x18(..)"
_ANY_TEXT: Final = rb"\x12(?:\x03\x18(..)|\x02\x18(.))"  # one byte for what every token knows, such as "role"
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
split_dates: Final = re.compile(_DATE).split
"""The bytes between what looks like a date, and those dates, in turn."""

_COMMON: Final = len(DEFAULT_SYMBOLS)
_LESS: Final = b"\0"
_LONGEST_KEPT: Final = 512
"""In bytes. What is kept is bounded, though whoever holds a token may put blocks together as they like."""


class OtherwiseError(Exception):
    """Raised where the readers proper must be asked."""


class Check(NamedTuple):
    """A check by names or by requests, its alternatives in their order."""

    kinds: tuple[int, ...]
    """What its predicates are called: all of these must be one text."""
    values: tuple[int, ...]
    """Of predicates of one text."""
    requests: tuple[tuple[bool, int, int], ...]
    """Of the others: whether the second text is a regular expression, and both."""


class Statements(NamedTuple):
    """What a block says, with the numbers of symbols (those that every token knows, then its own) and of dates."""

    uses: Counter[int]
    """How often each symbol is used, and the names of variables, which must exist, at least once."""
    highest: int
    """The highest of them."""
    facts: tuple[tuple[int, int], ...]
    """Name and text of facts of one text."""
    tenants: tuple[int, ...]
    """Texts of the fact ``tenant``, whose name every token knows."""
    dates: tuple[tuple[int, int], ...]
    """Name and date of facts of one date."""
    attributes: tuple[tuple[int, int, int], ...]
    """Name and texts of facts of two texts, but for rights."""
    rights: tuple[Callable[[list[str]], tuple[str, ...]], ...]
    """For each fact ``right``, what takes its texts out of the symbols."""
    versions: tuple[int, ...]
    """Names of facts of the number 1."""
    starts: tuple[int, ...]
    """Dates of lower bounds of the time."""
    ends: tuple[int, ...]
    """Dates of upper bounds."""
    checks: tuple[Check, ...]
    """The other checks; one of nothing is ``check if false``."""

    @property
    def has_facts(self) -> bool:
        """Whether there is anything that the authority block alone may say."""
        return bool(self.facts or self.tenants or self.dates or self.attributes or self.rights or self.versions)


def read_statements(data: bytes) -> tuple[Statements, list[bytes]]:
    """What *data*, the part of a block behind its symbols and its version, says; and its dates.

    Raises:
        OtherwiseError: something in it is spelled in another way, or is something else.
    """
    parts = split_dates(data)
    apart = tuple(parts[::2])
    return (_kept_read if len(data) <= _LONGEST_KEPT else _read)(apart), parts[1::2]


def milliseconds(date: bytes) -> int:
    """A date as milliseconds since the epoch."""
    a, b, c, d, e = date
    return 1000 * (a & 0x7F | (b & 0x7F) << 7 | (c & 0x7F) << 14 | (d & 0x7F) << 21 | e << 28)


def _read(apart: tuple[bytes, ...]) -> Statements:
    # What only looks like a date is found out by putting numbers in the places of dates: each must come out as one.
    numbers = {bytes((0x80 | at & 0x7F, 0x80 | at >> 7, 0x80, 0x80, 1)): at for at in range(len(apart) - 1)}
    data = apart[0] + b"".join(b"\x20" + date + part for date, part in zip(numbers, apart[1:], strict=True))
    facts: list[tuple[int, int]] = []
    tenants: list[int] = []
    dates: list[tuple[int, int]] = []
    attributes: list[tuple[int, int, int]] = []
    rights: list[Callable[[list[str]], tuple[str, ...]]] = []
    versions: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    checks: list[Check] = []
    uses: Counter[int] = Counter((0,))

    def symbol(index: bytes, common: bytes = b"") -> int:
        number = _number(index) if index else common[0]
        if common and number >= _COMMON:
            raise OtherwiseError
        uses[number] += 1
        return number

    for (
        name, said, tenant, _, right, scope, limit, sizes, pair, key, common_key, value, common_value, dated, moment, one,
        var, date, relation, nothing, size, check, rest,
    ) in _statements(data):  # fmt: skip
        if rest:
            raise OtherwiseError
        if check:
            if size != varint(len(check)):
                raise OtherwiseError
            checks.append(_read_check(check, symbol))
        elif date:
            symbol(var)
            (ends if relation == _LESS else starts).append(numbers.pop(date))
        elif nothing:
            checks.append(Check((), (), ()))
        elif right:
            rights.append(itemgetter(*map(symbol, (right, scope, limit) if limit else (right, scope))))
        elif pair:
            width = 8 - len(common_key) - len(common_value)
            if sizes != bytes((width + 7, 0x0A, width + 5)):
                raise OtherwiseError
            attributes.append((symbol(pair), symbol(key, common_key), symbol(value, common_value)))
        elif dated:
            dates.append((symbol(dated), numbers.pop(moment)))
        elif one:
            versions.append(symbol(one))
        elif tenant:
            tenants.append(symbol(tenant))
        else:
            facts.append((symbol(name), symbol(said)))
    if numbers:
        raise OtherwiseError
    return Statements(
        uses,
        max(uses),
        tuple(facts),
        tuple(tenants),
        tuple(dates),
        tuple(attributes),
        tuple(rights),
        tuple(versions),
        tuple(starts),
        tuple(ends),
        tuple(checks),
    )


_kept_read: Final = lru_cache(maxsize=1024)(_read)


def _read_check(check: bytes, symbol: Callable[[bytes], int]) -> Check:
    kinds: dict[int, None] = {}
    values: list[int] = []
    requests: list[tuple[bool, int, int]] = []
    for name, value, exact, its, resource, matching, whose, var, regex, rest in _alternatives(check):
        if rest:
            raise OtherwiseError
        kinds[symbol(name or exact or matching)] = None
        if name:
            values.append(symbol(value))
        elif exact:
            requests.append((False, symbol(its), symbol(resource)))
        else:
            requests.append((True, symbol(whose), symbol(regex)))
            symbol(var)
    return Check(tuple(kinds), tuple(values), tuple(requests))


def _number(index: bytes) -> int:
    low, high = index
    number = low & 0x7F | high << 7
    if low < 0x80 or high > 0x7F or number < FIRST_OWN_SYMBOL:
        raise OtherwiseError
    return number - FIRST_OWN_SYMBOL + _COMMON
