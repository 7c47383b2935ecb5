"""Changes to bytes and to protobuf messages, drawn from a ``random.Random``: near enough to what is right to get far."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from tests.unit.security.cases import field, varint

__all__ = ["Node", "changed", "mutated", "parsed", "pool_of"]

Path = tuple[int, ...]
"""The numbers of the fields that lead to a message."""

# What numbers mean something: kinds, operators, symbols (the token's own begin at 1024), dates, the ends of integers.
# fmt: off
NUMBERS: Final = (
    *range(32), 127, 128, 255, 1023, *range(1024, 1034), 2048, 1_767_225_600, 1_767_226_500, 2**31 - 1, 2**31, 2**32 - 1,
    2**32, 253_402_300_799, 253_402_300_800, 2**53, 2**63 // 1000, 2**63 - 1, 2**63, 2**64 - 1,
)
# fmt: on


class Node(NamedTuple):
    """One field of a message."""

    number: int
    """Its number."""
    value: int | bytes
    """What it holds."""
    inner: "tuple[Node, ...]"
    """Its own fields, if what it holds may be a message; else nothing."""
    raw: bytes
    """The whole field as it is written."""


def parsed(data: bytes) -> tuple[Node, ...]:
    """The fields of a message, down to the last one; nothing if *data* is none."""
    nodes: list[Node] = []
    at = 0
    try:
        while at < len(data):
            start = at
            tag, at = _varint(data, at)
            value, at = _varint(data, at)
            if tag & 7 == 0:
                nodes.append(Node(tag >> 3, value, (), data[start:at]))
            elif tag & 7 == 2 and at + value <= len(data):
                held = data[at : at + value]
                at += value
                nodes.append(Node(tag >> 3, held, parsed(held), data[start:at]))
            else:
                return ()
    except IndexError:
        return ()
    return tuple(nodes)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def pool_of(messages: Sequence[tuple[Node, ...]]) -> dict[Path, list[bytes]]:
    """The fields of *messages* as they are written, by where they stand."""
    pool: dict[Path, dict[bytes, None]] = {}

    def add(path: Path, nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            pool.setdefault(path, {})[node.raw] = None
            add((*path, node.number), node.inner)

    for message in messages:
        add((), message)
    return {path: list(found) for path, found in pool.items()}


def mutated(message: tuple[Node, ...], rng: Random, pool: Mapping[Path, Sequence[bytes]], path: Path = ()) -> bytes:
    """*message* with one change somewhere in it; *pool* has what may be put in, by where it stood."""
    deeper = [at for at, node in enumerate(message) if node.inner]
    if deeper and rng.random() < 0.85:
        at = rng.choice(deeper)
        node = message[at]
        written = field(node.number, mutated(node.inner, rng, pool, (*path, node.number)))
        return b"".join([*(one.raw for one in message[:at]), written, *(one.raw for one in message[at + 1 :])])
    raws = [node.raw for node in message]
    if not message:
        return rng.choice(pool.get(path) or (b"",))
    at = rng.randrange(len(message))
    node = message[at]
    match rng.randrange(14):
        case 0:
            del raws[at]
        case 1:
            raws.insert(rng.randrange(len(raws) + 1), raws[at])
        case 2:
            other = rng.randrange(len(raws))
            raws[at], raws[other] = raws[other], raws[at]
        case 3 | 4:
            raws[at] = rng.choice(pool.get(path) or raws)
        case 5:
            raws.insert(at, rng.choice(pool.get(path) or raws))
        case 6:
            raws.insert(at, rng.choice(pool[rng.choice(list(pool))]))
        case 7:
            raws[at] = field(rng.choice((rng.randint(0, 20), 2**28, 2**29 - 1)), node.value)
        case 8 | 9:
            raws[at] = field(node.number, rng.choice(NUMBERS))
        case 10:
            raws[at] = field(node.number, changed(node.value, rng) if isinstance(node.value, bytes) else b"")
        case 11:
            raws[at] = _odd_field(node, rng)
        case 12:
            raws[at] = field(node.number, node.raw)  # one level too many
        case _:
            raws[at] = changed(node.raw, rng)
    return b"".join(raws)


def _odd_field(node: Node, rng: Random) -> bytes:
    """A field that no writer writes, although some reader may read it."""
    number, value = node.number, node.value
    held = value if isinstance(value, bytes) else varint(value)
    match rng.randrange(6):
        case 0:  # a number with leading zeros
            return (
                (varint(number << 3 | 2) + _long(len(held)) + held)
                if isinstance(value, bytes)
                else (varint(number << 3) + _long(value))
            )
        case 1:
            return _long(number << 3 | 2) + varint(len(held)) + held
        case 2:  # fixed sizes, and groups
            return varint(number << 3 | rng.choice((1, 3, 4, 5, 6, 7))) + held
        case 3:  # a length that is a lie
            return varint(number << 3 | 2) + varint(len(held) + rng.choice((-1, 1, 2**31, 2**63)) % 2**64) + held
        case 4:  # more than 64 bits
            return varint(number << 3) + b"\xff" * 10 + b"\x7f"
        case _:
            return varint(number << 3 | 2) + b"\xff" * rng.randint(1, 12)


def _long(value: int) -> bytes:
    shortest = varint(value)
    return shortest[:-1] + bytes((shortest[-1] | 0x80, 0x80, 0))


def changed(data: bytes, rng: Random) -> bytes:
    """*data* with one change, knowing nothing of what it is."""
    at = rng.randrange(len(data) + 1)
    return rng.choice(_CHANGES)(data, at, rng)


_CHANGES: Final[tuple[Callable[[bytes, int, Random], bytes], ...]] = (
    lambda data, at, rng: data[:at] + bytes(one ^ 1 << rng.randrange(8) for one in data[at : at + 1]) + data[at + 1 :],
    lambda data, at, rng: data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :],
    lambda data, at, rng: data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:],
    lambda data, at, rng: data[:at] + data[at + rng.randint(1, 8) :],
    lambda data, at, rng: data[:at],
    lambda data, at, rng: data[:at] + data[rng.randrange(len(data) + 1) :],
    lambda data, at, rng: data[:at] + data[at : at + 16] * rng.randint(2, 20) + data[at:],
)
