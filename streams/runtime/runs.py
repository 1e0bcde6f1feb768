"""A run: one fetched stretch of a partition, handed over as a whole instead of record by record."""

from __future__ import annotations

from collections.abc import Iterator

Headers = tuple[tuple[str, bytes], ...]


def record_time_ms(event_time: int) -> int:
    """Kafka's record timestamp of an event time (µs); at least 1, since librdkafka takes 0 for the present time."""
    return max(event_time // 1000, 1)


class Run:
    """Consecutive records of one partition as parallel lists.

    It covers the offsets from ``begin`` up to, not including, ``next_offset``; some of them may hold no record
    (compaction, transaction markers).
    """

    __slots__ = ("begin", "headers", "keys", "next_offset", "offsets", "timestamps_ms", "values")

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.next_offset = begin
        self.offsets: list[int] = []
        self.timestamps_ms: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []

    def append(
        self, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> None:
        """Add the next record."""
        self.offsets.append(offset)
        self.timestamps_ms.append(timestamp_ms)
        self.keys.append(key)
        self.values.append(value)
        self.headers.append(headers)
        self.next_offset = offset + 1

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int, bytes | None, bytes | None, Headers]]:
        return zip(self.offsets, self.timestamps_ms, self.keys, self.values, self.headers, strict=True)
