"""Records as columns: many records over one buffer (`Packed`), and ticks as a structured array with a row each.

A lane is what the ticks of one symbol, source and session have in common; rows name it by number instead of carrying
three strings each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.records import Side, Tick

Rows = NDArray[np.void]
"""An array of `TICK`."""
Places = NDArray[np.void]
"""An array of `PLACE`."""
Headers = tuple[tuple[str, bytes], ...]
PackedRecord = tuple[int, int, bytes | None, bytes | None, Headers]
"""Offset, timestamp (ms), key, value, headers."""

NO_SEQUENCE: Final = -(2**63)
"""Stands in ``sequence`` for a tick without one: its name is then its partition and offset."""
NO_TICK: Final = -1
"""Stands in ``lane`` for a record that is no tick."""
NO_BYTES: Final = -1
"""Stands in ``key_size`` and ``value_size`` for a record that has none."""

TICK: Final = np.dtype(
    [
        ("event_time", np.int64),  # µs since the epoch
        ("price", np.float64),
        ("size", np.float64),
        ("sequence", np.int64),
        ("conditions", np.int64),
        ("lane", np.int32),
        ("side", np.int8),  # the aggressor's: 1 buy, -1 sell, 0 not told
        ("suspicious", np.bool_),
    ],
    align=True,
)
PLACE: Final = np.dtype(
    [
        ("offset", np.int64),
        ("timestamp_ms", np.int64),
        ("key_at", np.int64),
        ("key_size", np.int64),
        ("value_at", np.int64),
        ("value_size", np.int64),
    ],
    align=True,
)


SIDES: Final = {Side.BUY: 1, Side.SELL: -1, None: 0}
"""An aggressor as ``side`` has it."""


def row_of(tick: Tick, lane: int) -> tuple[Any, ...]:
    """A tick as a row of `TICK`."""
    return (
        tick.event_time,
        tick.price,
        tick.size,
        NO_SEQUENCE if tick.sequence is None else tick.sequence,
        tick.conditions,
        lane,
        SIDES[tick.aggressor],
        tick.suspicious,
    )


class Lane(NamedTuple):
    """Whose ticks a row's is one of. ``symbol`` is the record's key too."""

    symbol: str
    source: str
    session: str


class TickColumns(NamedTuple):
    """Rows of `TICK` in the order of their records, shape (n,), and the lanes they name, in order of first rows."""

    rows: Rows
    lanes: tuple[Lane, ...]


class Packed:
    """Records of one partition in their order, all their keys and values in one buffer.

    ``places`` says where in ``data`` each lies. ``headers`` holds those of the records that have any, by index.
    """

    __slots__ = ("data", "headers", "places")

    def __init__(self, data: bytes, places: Places, headers: Mapping[int, Headers]) -> None:
        self.data = data
        self.places = places
        self.headers = headers

    @classmethod
    def of(cls, records: Iterable[PackedRecord]) -> Packed:
        """Pack records that were not fetched."""
        data, places, headers = bytearray(), [], {}
        for index, (offset, timestamp_ms, key, value, own) in enumerate(records):
            place = [offset, timestamp_ms]
            for part in (key, value):
                place += (len(data), NO_BYTES if part is None else len(part))
                data += part or b""
            places.append(tuple(place))
            if own:
                headers[index] = own
        return Packed(bytes(data), np.array(places, PLACE), headers)

    def index_of(self, offset: int) -> int:
        """Index of the first record at or after an offset."""
        if not len(self.places) or self.places[0]["offset"] >= offset:  # nearly always
            return 0
        return int(np.searchsorted(self.places["offset"], offset))

    def part(self, begin: int, end: int) -> Packed:
        """The records from index ``begin`` up to, not including, ``end``, over the same buffer."""
        headers = {index - begin: own for index, own in self.headers.items() if begin <= index < end}
        return Packed(self.data, self.places[begin:end], headers)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> PackedRecord:
        return self._record(index, self.places[index].item())

    def __iter__(self) -> Iterator[PackedRecord]:
        return map(self._record, range(len(self.places)), self.places.tolist())

    def _record(self, index: int, place: tuple[int, ...]) -> PackedRecord:
        offset, timestamp_ms, key_at, key_size, value_at, value_size = place
        key = None if key_size < 0 else self.data[key_at : key_at + key_size]
        value = None if value_size < 0 else self.data[value_at : value_at + value_size]
        return offset, timestamp_ms, key, value, self.headers.get(index, ())
