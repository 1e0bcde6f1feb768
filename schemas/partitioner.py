"""Which partition a key belongs to: Kafka's murmur2, as Java clients and ``murmur2_random`` in librdkafka use it."""

from __future__ import annotations

import functools

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bit, as in ``org.apache.kafka.common.utils.Utils.murmur2`` (unsigned here)."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


@functools.lru_cache(maxsize=65_536)
def partition_of(key: str | bytes, partitions: int) -> int:
    """The partition of ``key`` in a topic with ``partitions`` partitions. Cached: keys come again and again."""
    data = key.encode() if isinstance(key, str) else key
    return (murmur2(data) & 0x7FFFFFFF) % partitions
