"""Where a key lives: Kafka's default partitioner."""

__all__ = ["murmur2", "partition_of"]

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_CACHE: dict[tuple[bytes, int], int] = {}
_CACHE_SIZE = 65_536


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 with Kafka's seed, as ``org.apache.kafka.common.utils.Utils.murmur2``; unsigned."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k ^= k >> 24
        h = (h * _M & _MASK) ^ (k * _M & _MASK)
    rest = length & 3
    if rest == 3:
        h ^= data[whole + 2] << 16
    if rest >= 2:
        h ^= data[whole + 1] << 8
    if rest >= 1:
        h = (h ^ data[whole]) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Java's and aiokafka's producers choose for *key*."""
    cached = _CACHE.get((key, partitions))
    if cached is not None:
        return cached
    if len(_CACHE) >= _CACHE_SIZE:
        _CACHE.clear()
    partition = _CACHE[key, partitions] = (murmur2(key) & 0x7FFFFFFF) % partitions
    return partition
