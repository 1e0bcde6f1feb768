"""The records of market.ticks as the `symbols` agent sees them: ticks in columns, everything else one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Codec, Unreadable
from schemas.columns import NO_BYTES, NO_SEQUENCE, NO_TICK, TICK, Lane, Packed, Rows, TickColumns, row_of
from schemas.decode import decode_ticks
from schemas.records import Record, Tick
from streams.admission import MAX_TIME_US, symbol_of
from streams.agent import Input

TOPIC: Final = "market.ticks"


class Clocks(NamedTuple):
    """Clock records of one source: their places in the run, and their times (µs); int64, shape (m,)."""

    source: str
    places: NDArray[np.int64]
    times: NDArray[np.int64]


class Ticks(Sequence[Input]):
    """The records of a run of market.ticks, n of them.

    Attributes:
        rows: shape (n,), `schemas.columns.TICK`; lane `NO_TICK` for a record that is none.
        lanes: what the rows' lanes are, in order of first rows. Every symbol is its record's key and a valid one.
        clocks: clock records of one source, which are no rows.
        others: the other records that are no row, by index: settings, what could not be read, ticks whose key is not
            their symbol or no symbol at all, a tick whose sequence is `NO_SEQUENCE` itself, further clocks.
        offsets: int64, shape (n,).

    As a sequence it makes the `Input` of any record when it is asked for: for dead letters and late ticks.
    """

    def __init__(
        self,
        columns: TickColumns,
        others: list[tuple[int, Input]],
        offsets: NDArray[np.int64],
        record: Callable[[int], Input],
        clocks: Clocks | None = None,
    ) -> None:
        self.rows: Rows = columns.rows
        self.lanes: list[Lane] = list(columns.lanes)
        self.others = others
        self.offsets = offsets
        self.clocks = clocks
        self._others = dict(others)
        self._record = record

    @classmethod
    def read(cls, codec: Codec, records: Packed) -> Ticks:
        """Decode records, whichever schemas they were written with.

        Raises `schemas.codec.RegistryUnavailable` where a writer's schema is not at hand and the registry does not
        answer.
        """
        columns = decode_ticks(records, codec.prefix(TOPIC, Tick))

        def record(index: int) -> Input:
            offset, timestamp_ms, key, value, headers = records[index]
            decoded = None if value is None else cast("Record | Unreadable", codec.decode(TOPIC, value))
            return Input(offset, timestamp_ms, key, decoded, value, headers)

        clocks = _clocks(records)
        is_left = columns.rows["lane"] == NO_TICK
        if clocks is not None:
            is_left[clocks.places] = False
        left = np.flatnonzero(is_left).tolist()
        columns, others = _admit(columns, [(index, record(index)) for index in left])
        return cls(columns, others, records.places["offset"], record, clocks)

    @classmethod
    def of(cls, inputs: Sequence[Input]) -> Ticks:
        """Records that are decoded already."""
        empty = TickColumns(np.zeros(len(inputs), TICK), ())
        empty.rows["lane"] = NO_TICK
        columns, others = _admit(empty, list(enumerate(inputs)))
        offsets = np.fromiter((item.offset for item in inputs), np.int64, len(inputs))
        return cls(columns, others, offsets, inputs.__getitem__)

    def part(self, begin: int, end: int) -> Ticks:
        """The records from ``begin`` up to ``end``, as a run of their own."""
        rows = self.rows[begin:end].copy()
        is_tick = rows["lane"] != NO_TICK
        named, first, which = np.unique(rows["lane"][is_tick], return_index=True, return_inverse=True)
        order = np.argsort(first)
        rows["lane"][is_tick] = np.argsort(order)[which]
        columns = TickColumns(rows, tuple(self.lanes[lane] for lane in named[order].tolist()))
        others = [(index - begin, item) for index, item in self.others if begin <= index < end]
        clocks = self.clocks
        if clocks is not None:
            mine = (clocks.places >= begin) & (clocks.places < end)
            clocks = (
                Clocks(clocks.source, clocks.places[mine] - begin, clocks.times[mine]) if mine.any() else None
            )
        return Ticks(
            columns, others, self.offsets[begin:end], lambda index: self._record(begin + index), clocks
        )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Input: ...
    @overload
    def __getitem__(self, index: slice) -> list[Input]: ...
    def __getitem__(self, index: int | slice) -> Input | list[Input]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        other = self._others.get(place)
        return self._record(place) if other is None else other


def _clocks(records: Packed) -> Clocks | None:
    """Those clocks of a run that are of the same source as the first, and good; the others are left to be looked at."""
    times_ms = records.places["timestamp_ms"]
    bare = (records.places["key_size"] == NO_BYTES) & (records.places["value_size"] == NO_BYTES)
    places = np.flatnonzero(bare & (times_ms > 0) & (times_ms <= MAX_TIME_US // 1000)).tolist()
    headers = records.headers
    first = headers.get(places[0], ()) if places else ()
    if len(first) != 1 or first[0][0] != "source":
        return None
    same = np.array([place for place in places if headers.get(place) == first], np.int64)
    return Clocks(first[0][1].decode(errors="replace"), same, times_ms[same] * 1000)


def _admit(
    columns: TickColumns, left: list[tuple[int, Input]]
) -> tuple[TickColumns, list[tuple[int, Input]]]:
    """Make rows of the decoded ticks among ``left`` that can be; returns what is none beside them."""
    others, first = [], len(columns.lanes)
    numbers = {lane: number for number, lane in enumerate(columns.lanes)} if left else {}
    symbols: dict[bytes | None, str | None] = {}
    for index, item in left:
        value = item.value
        if type(value) is not Tick or value.sequence == NO_SEQUENCE:
            others.append((index, item))
            continue
        if item.key not in symbols:
            symbols[item.key] = symbol_of(item.key)
        if value.symbol != symbols[item.key]:
            others.append((index, item))
            continue
        lane = numbers.setdefault(Lane(value.symbol, value.source, value.session), len(numbers))
        columns.rows[index] = row_of(value, lane)
    if len(numbers) > first:
        columns = _renumbered(columns.rows, list(numbers))
    return columns, others


def _renumbered(rows: Rows, lanes: list[Lane]) -> TickColumns:
    """Lanes in order of their first rows."""
    ticks = rows["lane"] != NO_TICK
    given = rows["lane"][ticks]
    order = np.argsort(np.unique(given, return_index=True)[1])
    rows["lane"][ticks] = np.argsort(order)[given]
    return TickColumns(rows, tuple(lanes[number] for number in order.tolist()))
