"""Where a key lives: as Java and aiokafka say."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given
from hypothesis import strategies as st

from pf_stream.core import murmur2, partition_of

# From org.apache.kafka.common.utils.UtilsTest#testMurmur2, signed there.
PUBLISHED = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_the_vectors_that_kafka_publishes(key: bytes) -> None:
    assert murmur2(key) == PUBLISHED[key] & 0xFFFFFFFF


@given(st.binary(max_size=200))
def test_equal_to_the_hash_of_aiokafka(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_aiokafka(key) & 0xFFFFFFFF


@given(st.binary(min_size=1, max_size=40), st.integers(1, 200))
def test_equal_to_the_partitioner_of_aiokafka(key: bytes, count: int) -> None:
    everywhere = [*range(count)]
    assert partition_of(key, count) == DefaultPartitioner()(key, everywhere, everywhere)
    assert partition_of(key, count) == partition_of(key, count), "and again from memory"
