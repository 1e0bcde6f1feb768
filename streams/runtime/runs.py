"""A run: one fetched stretch of a partition, handed over as a whole instead of record by record."""

from __future__ import annotations

from schemas.columns import Packed


def record_time_ms(event_time: int) -> int:
    """Kafka's record timestamp of an event time (µs); at least 1, since librdkafka takes 0 for the present time."""
    return max(event_time // 1000, 1)


class Run(Packed):
    """Consecutive records of one partition.

    It covers the offsets from ``begin`` up to, not including, ``next_offset``; some of them may hold no record
    (compaction, transaction markers).
    """

    __slots__ = ("begin", "next_offset")

    def __init__(self, begin: int, next_offset: int, records: Packed) -> None:
        super().__init__(records.data, records.places, records.headers)
        self.begin = begin
        self.next_offset = next_offset

    def before(self, offset: int) -> Run:
        """The part of it below ``offset``."""
        if self.next_offset <= offset:
            return self
        return Run(min(self.begin, offset), offset, self.part(0, self.index_of(offset)))

    @property
    def first_timestamp_ms(self) -> int:
        """Of its first record; 0 where it has none."""
        return int(self.places["timestamp_ms"][0]) if len(self) else 0

    @property
    def last_timestamp_ms(self) -> int:
        """Of its last record; 0 where it has none."""
        return int(self.places["timestamp_ms"][-1]) if len(self) else 0
