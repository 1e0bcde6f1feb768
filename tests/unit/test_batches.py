"""Kafka's record batches to runs: what aiokafka's own reader makes of the same bytes is what must come out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.columns import PackedRecord
from streams.runtime.batches import FetchedRecords, RunRecords
from streams.runtime.runs import Run

Record = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
ATTRIBUTES_AT, LAST_OFFSET_AT, CRC_AT = 21, 23, 17
APPEND_TIME, CONTROL = 0x08, 0x20


def batch(
    base: int, records: Sequence[Record], *, codec: int = NONE, flags: int = 0, last: int | None = None
) -> bytes:
    """A batch as a broker keeps it; ``last`` is its last offset, where compaction took the last records."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 24)
    for offset, *rest in records:
        builder.append(offset - base, *rest)
    built = bytearray(builder.build())
    built[:8] = base.to_bytes(8, "big")
    built[ATTRIBUTES_AT + 1] |= flags
    if last is not None:
        built[LAST_OFFSET_AT : LAST_OFFSET_AT + 4] = (last - base).to_bytes(4, "big")
    return sealed(built)


def sealed(built: bytearray) -> bytes:
    """With the checksum of what is there."""
    built[CRC_AT : CRC_AT + 4] = calc_crc32c(bytes(built[ATTRIBUTES_AT:])).to_bytes(4, "big")
    return bytes(built)


def fetched(data: bytes, begin: int = 0, limit: int = 5_000) -> tuple[list[Run], int]:
    """Runs of a response, and where the next fetch begins."""
    unpacking = RunRecords("topic-0", FetchedRecords(data), [], begin, None, None, True, 0)
    unpacking.max_run_records = limit
    runs = []
    for run in unpacking:
        assert unpacking.next_fetch_offset == run.next_offset, "the fetcher goes on from here"
        runs.append(run)
    return runs, unpacking.next_fetch_offset


def by_aiokafka(data: bytes, begin: int) -> list[PackedRecord]:
    found: list[PackedRecord] = []
    records: Any = MemoryRecords(data)
    while records.has_next():
        read = records.next_batch()
        if not read.is_control_batch:
            found += [
                (
                    r.offset,
                    r.timestamp,
                    r.key,
                    r.value,
                    tuple((name, value or b"") for name, value in r.headers),
                )
                for r in read
                if r.offset >= begin
            ]
    return found


content = st.none() | st.binary(max_size=12) | st.just(b"x" * 100)
headers = st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2)
records_of_a_batch = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 2**62), content, content, headers), min_size=1, max_size=12
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_runs_hold_what_aiokafka_reads(data: st.DataObject) -> None:
    response, offset = b"", data.draw(st.integers(0, 2**40))
    begin = offset + data.draw(st.integers(0, 4))
    for rows in data.draw(st.lists(records_of_a_batch, max_size=5)):
        base, records = offset, []
        for gap, *rest in rows:
            records.append((offset + gap - 1, *rest))
            offset += gap
        offset += data.draw(st.integers(0, 2))  # what compaction took at the end
        flags = data.draw(st.sampled_from([0, 0, APPEND_TIME, CONTROL]))
        codec = data.draw(st.sampled_from([NONE, GZIP, SNAPPY, LZ4, ZSTD]))
        response += batch(base, records, codec=codec, flags=flags, last=offset - 1)
    limit = data.draw(st.integers(1, 30))
    runs, reached = fetched(response, begin, limit)
    assert [record for run in runs for record in run] == by_aiokafka(response, begin)
    assert reached == (max(begin, offset) if response else begin)
    assert all(0 < len(run) <= limit for run in runs if run is not (runs and runs[-1]))
    for run, following in pairwise(runs):
        assert run.next_offset == following.begin
    assert not runs or (runs[0].begin, runs[-1].next_offset) == (begin, reached)


def test_records_of_a_format_before_2_are_read_by_aiokafka() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    for offset in range(3):
        builder.append(offset, 1_000 + offset, b"key", b"%d" % offset)
    (run,), reached = fetched(bytes(builder.build()), begin=1)
    assert list(run) == [(1, 1_001, b"key", b"1", ()), (2, 1_002, b"key", b"2", ())]
    assert reached == 3


RECORDS: list[Record] = [(place, 1_000, b"key", b"value", [("source", b"x")]) for place in range(3)]


@settings(max_examples=300, deadline=None)
@given(place=st.integers(61, 61 + 68), flip=st.integers(1, 255), more=st.binary(max_size=2))
def test_a_damaged_batch_is_read_as_aiokafka_reads_it(place: int, flip: int, more: bytes) -> None:
    """Under a checksum that is right, so that every byte of the records is up to the reader."""
    built = bytearray(batch(0, RECORDS) + more)
    place = min(place, len(built) - 1)
    built[place] ^= flip
    built[8:12] = (len(built) - 12).to_bytes(4, "big")
    damaged = sealed(built)
    try:
        expected = by_aiokafka(damaged, 0)
    except (CorruptRecordException, UnicodeDecodeError):
        expected = None
    try:
        runs, _ = fetched(damaged)
    except (CorruptRecordException, UnicodeDecodeError):
        offsets = [record[0] for record in expected or ()]
        assert expected is None or offsets != [record[0] for record in RECORDS]
        return
    if expected is not None:
        assert [record for run in runs for record in run] == expected


def test_a_batch_that_compaction_left_empty_moves_the_position() -> None:
    empty = bytearray(batch(0, RECORDS[:1], codec=LZ4, last=6)[:61])
    empty[8:12], empty[57:61] = (61 - 12).to_bytes(4, "big"), bytes(4)
    runs, reached = fetched(sealed(empty) + batch(7, [(7, 0, None, b"v", [])]))
    assert [(run.begin, run.next_offset, list(run)) for run in runs] == [(0, 8, [(7, 0, None, b"v", ())])]
    assert reached == 8


def test_a_wrong_checksum_is_corrupt() -> None:
    damaged = bytearray(batch(0, RECORDS))
    damaged[-3] ^= 1
    with pytest.raises(CorruptRecordException, match="Invalid CRC"):
        fetched(bytes(damaged))


def test_a_count_that_cannot_be_is_no_reason_for_memory() -> None:
    built = bytearray(batch(0, RECORDS))
    built[57:61] = (2**31 - 1).to_bytes(4, "big")
    with pytest.raises(CorruptRecordException):
        fetched(sealed(built))
