"""Record batches as bytes."""

from collections.abc import Sequence

import pytest
from aiokafka.errors import CorruptRecordException
from hypothesis import given
from hypothesis import strategies as st

from pf_stream.core.records import Header
from pf_stream.kafka import batch
from pf_stream.kafka.batch import BatchBuilder, Chunk, record_count, split, stamp
from tests.unit.kafka import batches
from tests.unit.kafka.batches import APPEND_TIME, MARKER

BAD = b"bad\xff".decode(errors="surrogateescape")


def test_a_batch_is_split_into_its_records() -> None:
    builder = BatchBuilder(100_000, compress=True)
    records: list[tuple[int, bytes | None, bytes | None, list[Header]]] = [
        (1, b"k", b"v" * 5_000, [("a", b"1"), ("b", None)]),
        (2, None, None, []),
        (3, b"", b"", [("a", b"")]),
    ]
    for timestamp, key, value, headers in records:
        assert builder.append(timestamp, key, value, headers)
    singles = split(builder.build())
    assert [record_count(single) for single in singles] == [1, 1, 1]
    found = [record for single in singles for record in Chunk(stamp(single, -1, -1, -1), (), "test")]
    assert [(record.timestamp, record.key, record.value, list(record.headers)) for record in found] == records


def test_a_header_name_that_is_no_utf8_is_kept() -> None:
    builder = BatchBuilder(1_000, compress=True)
    builder.append(1, b"k", b"v", [(BAD, b"1")])
    (single,) = split(builder.build())
    (record,) = Chunk(stamp(single, -1, -1, -1), (), "test")
    assert list(record.headers) == [(BAD, b"1")]


@pytest.mark.parametrize(("length", "smaller"), [(100, False), (3_900, False), (4_100, True), (50_000, True)])
def test_a_small_batch_goes_as_it_is(length: int, smaller: bool) -> None:
    def built(*, compress: bool) -> bytes:
        builder = BatchBuilder(100_000, compress=compress)
        builder.append(1, b"k", b"v" * length, [])
        return builder.build()

    assert (len(built(compress=True)) < length) == smaller
    assert (built(compress=True) == built(compress=False)) != smaller


def batch_of(base: int, entries: Sequence[tuple[bytes, bytes | None]], producer: int = -1) -> bytes:
    """A batch as it lies in a log at *base*, in a transaction of *producer* if there is one."""
    builder = BatchBuilder(1 << 20, compress=False)
    for key, value in entries:
        builder.append(1, key, value, [])
    raw = bytearray(stamp(builder.build(), producer, 0, 0, transactional=producer >= 0))
    raw[:8] = base.to_bytes(8, "big")  # which the checksum does not cover
    return bytes(raw)


class TestEntries:
    """Records in bulk."""

    @given(
        sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
        cuts=st.tuples(st.integers(0, 300), st.integers(0, 300)),
        at_once=st.integers(1, 50),
    )
    def test_they_are_the_records_of_the_range(self, sizes: list[int], cuts: tuple[int, int], at_once: int) -> None:
        start, end = sorted(cuts)
        data, at = b"", 0
        for size in sizes:
            entries = [(b"%d" % (at + one), None if one % 3 == 0 else b"v") for one in range(size)]
            data += batch_of(at, entries)
            at += size + size % 2  # as if the last record of some had been compacted away
        expected = [(r.key, r.value) for r in Chunk(data, (), "test") if start <= r.offset < end]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "_ENTRIES", at_once)
            groups = list(Chunk(data, (), "test").entries(start, end))
        assert [entry for entries, _ in groups for entry in entries] == expected
        behind = start
        for entries, position in groups:
            assert 0 < len(entries) < at_once + 40
            between = [(r.key, r.value) for r in Chunk(data, (), "test") if behind <= r.offset < position]
            assert entries == between
            behind = position

    def test_what_was_aborted_is_left_out(self) -> None:
        data = batch_of(0, [(b"a", b"1")], producer=7) + batch_of(1, [(b"b", b"2")])
        assert list(Chunk(data, [(7, 0)], "test").entries(0, 9)) == [([(b"b", b"2")], 2)]

    def test_a_batch_that_is_damaged_is_no_record(self) -> None:
        data = bytearray(batch_of(0, [(b"a", b"1")]))
        data[-1] ^= 1
        with pytest.raises(CorruptRecordException, match="invalid checksum in test at offset 0"):
            list(Chunk(bytes(data), (), "test").entries(0, 9))


def test_a_chunk_knows_its_batches_without_reading_them() -> None:
    data = batches.batch(10, [5, 9, 7]) + batches.batch(13, [1, 2], APPEND_TIME) + batches.batch(15, [3], MARKER)
    chunk = Chunk(data + batches.batch(20, [4])[:-1], (), "test")
    assert chunk.extents == [(10, 13, 5), (13, 15, 2)]
    assert chunk.next_offset == 16
