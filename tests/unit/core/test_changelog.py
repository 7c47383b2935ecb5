"""The changelog's keys and values, as they stand in Kafka."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.core import changelog

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda text: len(text.encode()) < 256
)
int64 = st.integers(0, 2**63 - 1)


@settings(max_examples=50)
@given(names, st.binary(max_size=300))
def test_state_keys_round_trip(reactor: str, key: bytes) -> None:
    made = changelog.state_key(changelog.state_prefix(reactor), key)
    assert made[:2] == b"\x01s"
    assert changelog.parse_state_key(made) == (reactor, key, b"")
    assert changelog.parse_state_key(made + b"sub") == (reactor, key, b"sub")


@settings(max_examples=50)
@given(names, st.binary(max_size=40), names, st.binary(max_size=40))
def test_state_keys_are_equal_only_if_reactor_and_key_are(one: str, key: bytes, other: str, other_key: bytes) -> None:
    left = changelog.state_key(changelog.state_prefix(one), key)
    right = changelog.state_key(changelog.state_prefix(other), other_key)
    assert (left == right) == ((one, key) == (other, other_key))


@settings(max_examples=50)
@given(names, names)
def test_watermark_and_mark_keys_round_trip(first: str, second: str) -> None:
    for kind, made in ((b"w", changelog.watermark_key(first, second)), (b"d", changelog.mark_key(first, second))):
        assert made[:2] == b"\x01" + kind
        parsed, at = changelog.parse_name(made, 2)
        assert (parsed, *changelog.parse_name(made, at)) == (first, second, len(made))


@settings(max_examples=50)
@given(int64, st.integers(0, 65_535))
def test_outbox_keys_round_trip_and_sort_by_unit(sequence: int, index: int) -> None:
    made = changelog.outbox_key(sequence, index)
    assert changelog.OUTBOX_KEY.unpack(made) == (b"\x01o", sequence, index)
    assert (
        changelog.outbox_key(0, 0) <= made < changelog.outbox_key(2**63 - 1, 65_535)
        or made[2:] == b"\x7f" + b"\xff" * 9
    )


def test_the_bytes_are_these() -> None:
    """State lies in Kafka for years: whoever changes a byte raises the format."""
    assert changelog.FORMAT == 1
    assert (changelog.HEADER, changelog.FENCE, changelog.UNIT) == (b"\x01h", b"\x01f", b"\x01u")
    assert changelog.state_key(changelog.state_prefix("fleet"), b"N1") == b"\x01s\x05fleet\x00\x00\x00\x02N1"
    assert changelog.watermark_key("fleet", "a.b") == b"\x01w\x05fleet\x03a.b"
    assert changelog.mark_key("a.b", "ff00") == b"\x01d\x03a.b\x04ff00"
    assert changelog.outbox_key(258, 3) == b"\x01o\x00\x00\x00\x00\x00\x00\x01\x02\x00\x03"
    assert changelog.pack_state(2, b"{}") == b"\x01\x00\x02{}"
    assert changelog.UNIT_VALUE.pack(1, 2) == b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02"
    assert changelog.WATERMARK_VALUE.pack(1, b"i" * 16) == b"\0\0\0\0\0\0\0\x01" + b"i" * 16
    assert changelog.MARK_VALUE.pack(1, 2) == b"\0\0\0\0\0\0\0\x01\0\0\0\x02"


@given(st.one_of(st.lists(st.integers(-(1 << 80), 1 << 80)), st.lists(st.integers(-300, 300)), st.lists(st.text())))
def test_keys_of_entries_are_sorted_as_they_are(keys: list[int] | list[str]) -> None:
    names = [changelog.pack_entry_key(key) for key in keys]
    assert [changelog.parse_entry_key(b"x" + name, 1) for name in sorted(names)] == sorted(keys)
    assert [changelog.parse_subkey(changelog.pack_name("f") + name) for name in names] == [("f", key) for key in keys]


@given(st.binary(max_size=4))
def test_what_is_no_key_of_an_entry(data: bytes) -> None:
    try:
        key = changelog.parse_entry_key(data, 0)
    except ValueError:
        return
    assert isinstance(key, str) or abs(key) < 1 << 24


def test_entries_lie_between_a_state_and_the_next() -> None:
    at = changelog.state_key(changelog.state_prefix("fleet"), b"N1")
    start, stop = changelog.entries_range(at)
    assert at < start <= at + changelog.pack_name("f" * 128) < stop
    assert changelog.state_key_end(at) == changelog.state_key_end(at + b"\x01fi\x80") == len(at)
