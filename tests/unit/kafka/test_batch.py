"""Record batches as bytes."""

from pf_stream.core.records import Header
from pf_stream.kafka.batch import BatchBuilder, Chunk, record_count, split, stamp
from tests.unit.kafka.batches import APPEND_TIME, MARKER, batch

BAD = b"bad\xff".decode(errors="surrogateescape")


def test_a_batch_is_split_into_its_records() -> None:
    builder = BatchBuilder(100_000, compress=True)
    given: list[tuple[int, bytes | None, bytes | None, list[Header]]] = [
        (1, b"k", b"v" * 5_000, [("a", b"1"), ("b", None)]),
        (2, None, None, []),
        (3, b"", b"", [("a", b"")]),
    ]
    for timestamp, key, value, headers in given:
        assert builder.append(timestamp, key, value, headers)
    singles = split(builder.build())
    assert [record_count(single) for single in singles] == [1, 1, 1]
    found = [record for single in singles for record in Chunk(stamp(single, -1, -1, -1), (), "test")]
    assert [(record.timestamp, record.key, record.value, list(record.headers)) for record in found] == given


def test_a_header_name_that_is_no_utf8_is_kept() -> None:
    builder = BatchBuilder(1_000, compress=True)
    builder.append(1, b"k", b"v", [(BAD, b"1")])
    (single,) = split(builder.build())
    (record,) = Chunk(stamp(single, -1, -1, -1), (), "test")
    assert list(record.headers) == [(BAD, b"1")]


def test_a_chunk_knows_its_batches_without_reading_them() -> None:
    data = batch(10, [5, 9, 7]) + batch(13, [1, 2], APPEND_TIME) + batch(15, [3], MARKER)
    chunk = Chunk(data + batch(20, [4])[:-1], (), "test")
    assert chunk.extents == [(10, 13, 5), (13, 15, 2)]
    assert chunk.next_offset == 16
