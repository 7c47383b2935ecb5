"""Outputs that wait in the changelog."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.core import BatchEntry, PointerEntry
from pf_stream.core.outbox import decode_entry, encode_entry

topics = st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True)
partitions = st.integers(0, 2**31 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=50)
@given(topics, partitions, st.binary(max_size=200))
def test_a_batch_round_trips(topic: str, partition: int, batch: bytes) -> None:
    entry = BatchEntry(topic, partition, batch)
    assert decode_entry(encode_entry(entry)) == entry


@settings(max_examples=50)
@given(
    st.builds(
        PointerEntry,
        topic=topics,
        partition=partitions,
        source=topics,
        source_partition=partitions,
        offset=st.integers(0, 2**63 - 1),
        timestamp_ms=st.integers(0, 2**53),
        headers=st.lists(st.tuples(texts, st.none() | st.binary(max_size=30)), max_size=4).map(tuple),
        drop=st.frozensets(texts, max_size=3),
    )
)
def test_a_pointer_round_trips(entry: PointerEntry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


def test_the_bytes_are_these() -> None:
    assert encode_entry(BatchEntry("t", 3, b"...")) == b"\x01b\x01t\x00\x00\x00\x03..."
    pointer = PointerEntry("t", 3, "s", 1, 7, 9, (("h", b"v"), ("n", None)), frozenset({"x", "a"}))
    assert encode_entry(pointer) == (
        b"\x01p\x01t\x00\x00\x00\x03"
        b'{"topic":"s","partition":1,"offset":7,"timestamp":9,"drop":["a","x"],"headers":[["h","dg=="],["n",null]]}'
    )
