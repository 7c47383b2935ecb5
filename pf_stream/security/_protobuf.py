"""The part of Protocol Buffers that Biscuit uses, read strictly.

A lenient reader and a strict one can see two different messages in the same bytes (a field given twice, an unknown field, a
number with leading zeros). What we read decides what a token may do, and Biscuit's own reader decides whether it holds; so we
refuse whatever they could read differently.
Source: https://protobuf.dev/programming-guides/encoding/
"""

__all__ = ["Fault", "fields", "text", "varint"]


class Fault(Exception):  # noqa: N818 - not an error of the library: it never leaves this package
    """Raised when bytes are not what they should be; ends as a refusal or a TokenError, never leaves the package."""


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """The message's fields in their order: number, and an int (varint) or bytes (length-delimited)."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        if at == end:
            raise Fault("a message ends inside a field")
        if not 0x08 <= tag <= 0x7F:
            raise Fault("a field has a number that Biscuit does not use")  # they are 1 to 10: one byte with the type
        value = data[at]
        at += 1
        if value > 0x7F:
            value, at = _long_varint(data, at - 1)
        wire = tag & 7
        if wire == 2:
            stop = at + value
            if stop > end:
                raise Fault("a message ends inside a field")
            found.append((tag >> 3, data[at:stop]))
            at = stop
        elif wire == 0:
            found.append((tag >> 3, value))
        else:
            raise Fault("a field has an unknown wire type")
    return found


def _long_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at == len(data) or shift > 63:
            raise Fault("a number does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if byte == 0 or value >= 1 << 64:
        raise Fault("a number is not written in its shortest form")
    return value, at


def text(data: int | bytes) -> str:
    """A string field."""
    if isinstance(data, int):
        raise Fault("a field has the wrong type")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Fault("a string is not UTF-8") from None


def varint(value: int) -> bytes:
    """A number in its shortest form."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    return bytes((value & 0x7F | 0x80,)) + varint(value >> 7)
