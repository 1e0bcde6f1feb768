"""Kafka's record batches straight to runs: aiokafka makes an object per record, and that costs more than all else.

A kernel walks the records of a batch (format v2: https://kafka.apache.org/documentation/#recordbatch) and notes where
their keys and values lie. Checksums, decompression, batches of the older formats and batches that the kernel does not
understand are left to aiokafka, which then says what is wrong with them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import aiokafka.consumer.fetcher as aiokafka_fetcher
import lz4.frame
import numpy as np
from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint
from numpy.typing import NDArray

from schemas.columns import PLACE, Headers, Packed
from streams.runtime.runs import Run

_MAGIC_AT: Final = 16
_COUNT: Final = struct.Struct(">i")
_COUNT_AT: Final = 57
_HEADER_BYTES: Final = 61
_LEAST_RECORD_BYTES: Final = 7
_DECOMPRESS: Final[dict[int, Callable[[memoryview], bytes]]] = {
    0: bytes,
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: lz4.frame.decompress,  # aiokafka's takes 20 µs for each batch, however small
    4: codec.zstd_decode,
}


class FetchedRecords(_MemoryRecordsPy):  # type: ignore[misc]
    """A fetched response: its batches, each with the bytes that it is made of (aiokafka record/memory_records.py)."""

    _next_slice: memoryview

    def next_batch(self) -> tuple[Any, memoryview]:
        """The next batch as aiokafka reads it, and its bytes."""
        raw = self._next_slice
        return super().next_batch(), raw


class RunRecords(aiokafka_fetcher.PartitionRecords):  # type: ignore[misc]
    """Unpacks a fetched response into runs."""

    max_run_records = 20_000
    by_kernel = True
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Run]:
        records: FetchedRecords = self._records
        begin = reached = self.next_fetch_offset
        stretch = _Stretch(self.by_kernel)
        while records.has_next():
            batch, raw = records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if not batch.is_control_batch:
                if stretch.count and stretch.count + count_of(raw) > self.max_run_records:
                    begin = yield from self._runs(stretch.packed(), begin, reached)
                    stretch = _Stretch(self.by_kernel)
                stretch.add(batch, raw)
            reached = max(reached, batch.next_offset)
        begin = yield from self._runs(stretch.packed(), begin, reached)
        if begin < reached:
            self.next_fetch_offset = reached
            yield Run(begin, reached, Packed.of(()))

    def _runs(self, packed: Packed, begin: int, reached: int) -> Generator[Run, None, int]:
        """The records of a stretch that ends at the offset ``reached``, cut where they are too many for one run.

        Returns the offset up to which the runs go: ``begin`` where there is no record from there on.
        """
        at = packed.index_of(begin)  # a fetch may begin in the middle of a batch
        while at < len(packed):
            upto = min(len(packed), at + self.max_run_records)
            last = upto == len(packed)
            self.next_fetch_offset = reached if last else int(packed.places["offset"][upto - 1]) + 1
            yield Run(
                begin, self.next_fetch_offset, packed if upto - at == len(packed) else packed.part(at, upto)
            )
            begin, at = self.next_fetch_offset, upto
        return begin


class _Stretch:
    """Batches one after the other, whose records are looked for all at once."""

    def __init__(self, by_kernel: bool) -> None:
        self.count = 0
        self._size = 0
        self._batches: list[Any] = []
        self._bodies: list[bytes] = []
        self._table: list[tuple[int, int, int, int, int, bool]] = []
        self._by_kernel = by_kernel

    def add(self, batch: Any, raw: memoryview) -> None:
        """Add a batch, which aiokafka reads as ``batch``."""
        count = count_of(raw)
        self.count += count
        self._batches.append(batch)
        if not count or not self._by_kernel:
            return
        body = _DECOMPRESS[batch.compression_type](raw[_HEADER_BYTES:]) if raw[_MAGIC_AT] >= 2 else b""
        if not 0 <= count <= len(body) // _LEAST_RECORD_BYTES:
            self._by_kernel = False
            return
        appended = batch.timestamp_type == 1
        timestamp_ms = batch.max_timestamp if appended else batch.first_timestamp
        end = self._size + len(body)
        self._table.append((self._size, end, count, batch.base_offset, timestamp_ms, appended))
        self._bodies.append(body)
        self._size = end

    def packed(self) -> Packed:
        """All records. Raises `aiokafka.errors.CorruptRecordException` where a batch is damaged."""
        if not self._by_kernel:
            return self._one_by_one()
        from streams.runtime.walk import BATCH, walk

        body = self._bodies[0] if len(self._bodies) == 1 else b"".join(self._bodies)
        places, headers_at = np.empty(self.count, PLACE), np.empty(self.count, np.int64)
        if not walk(np.frombuffer(body, np.uint8), np.array(self._table, BATCH), places, headers_at):
            return self._one_by_one()
        return Packed(body, places, _all_headers(body, headers_at))

    def _one_by_one(self) -> Packed:
        """As aiokafka reads them: older formats, and batches that are damaged, of which it then says in what way."""
        packed = Packed.of(
            (
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                tuple((name, value or b"") for name, value in record.headers or ()),
            )
            for batch in self._batches
            for record in batch
        )
        if np.any(np.diff(packed.places["offset"]) <= 0):
            raise CorruptRecordException(f"offsets do not ascend after {self._batches[0].base_offset}")
        return packed


def count_of(raw: memoryview) -> int:
    """How many records a batch says it holds; of an older format, how many it may hold at most."""
    if raw[_MAGIC_AT] < 2:
        return len(raw)
    (count,) = _COUNT.unpack_from(raw, _COUNT_AT)
    return int(count)


def install(max_run_records: int, *, by_kernel: bool) -> None:
    """Make aiokafka's fetcher hand over runs, of at most so many records.

    ``by_kernel``: it pays for its start where the records are many, as ticks are.
    """
    RunRecords.max_run_records, RunRecords.by_kernel = max_run_records, by_kernel
    aiokafka_fetcher.MemoryRecords = FetchedRecords
    aiokafka_fetcher.PartitionRecords = RunRecords


def _all_headers(body: bytes, headers_at: NDArray[np.int64]) -> dict[int, Headers]:
    """The headers of the records that have any, by index; those of clocks are mostly those of the clock before."""
    found: dict[int, Headers] = {}
    headers: Headers = ()
    last, size = None, 0
    for index in headers_at.nonzero()[0].tolist():
        at = int(headers_at[index])
        if body[at : at + size] != last:
            headers, end = _headers(body, at)
            last, size = body[at:end], end - at
        found[index] = headers
    return found


def _headers(body: bytes, at: int) -> tuple[Headers, int]:
    """The headers at a place that `walk` has been over, and the position after them; one without a value is empty."""
    count, at = decode_varint(body, at)
    headers = []
    for _ in range(count):
        size, at = decode_varint(body, at)
        name, at = body[at : at + size].decode(errors="replace"), at + size
        size, at = decode_varint(body, at)
        end = at + max(size, 0)
        headers.append((name, body[at:end]))
        at = end
    return tuple(headers), at
