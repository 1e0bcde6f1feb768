"""The kernel that walks the records of Kafka's batches (format v2: https://kafka.apache.org/documentation/#recordbatch).

A module of its own: who reads no ticks need not import the kernels' compiler.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import NO_BYTES, PLACE, Places
from schemas.compiled import kernel
from schemas.decode import Int, read_long

BATCH: Final = np.dtype(
    [
        ("at", np.int64),  # where its records begin in the buffer, and end
        ("end", np.int64),
        ("count", np.int64),
        ("base_offset", np.int64),
        ("timestamp_ms", np.int64),  # of the first record; of all where `appended`
        ("appended", np.bool_),  # the broker's time
    ],
    align=True,
)


def prepare() -> None:
    """Compile the kernel, or load it from where it is kept."""
    walk(np.frombuffer(b"", np.uint8), np.empty(0, BATCH), np.empty(0, PLACE), np.empty(0, np.int64))


@kernel
def walk(
    data: NDArray[np.uint8],
    batches: NDArray[np.void],
    places: Places,
    headers_at: NDArray[np.int64],
) -> bool:
    """Fill ``places``, and ``headers_at`` with where a record's headers are (0: it has none).

    False where a batch is not exactly so many records with offsets that ascend. As in `schemas.decode`, a position of
    -1 passes through all further reads, and nothing is read outside of a batch's own bytes.
    """
    index, before = 0, np.int64(-1)
    for number in range(batches.shape[0]):
        batch = batches[number]
        at, size = batch.at, batch.end
        for _ in range(batch.count):
            length, at = read_long(data, at, size)
            if at < 0 or not 0 < length <= size - at:
                return False
            end = at + length
            later_ms, at = read_long(data, at + 1, end)  # after the attributes, a byte without use
            later, at = read_long(data, at, end)
            key_size, key_at, at = _bytes(data, at, end)
            value_size, value_at, at = _bytes(data, at, end)
            headers_at[index] = at
            count, at = read_long(data, at, end)
            if at >= 0 and count == 0:
                headers_at[index] = 0
            for _ in range(count):
                name_size, _, at = _bytes(data, at, end)
                if name_size < 0:
                    return False
                _, _, at = _bytes(data, at, end)
            if at != end or count < 0:
                return False
            place = places[index]
            place.offset = batch.base_offset + later
            if place.offset <= before:
                return False
            before = place.offset
            place.timestamp_ms = batch.timestamp_ms if batch.appended else batch.timestamp_ms + later_ms
            place.key_at, place.key_size = key_at, key_size
            place.value_at, place.value_size = value_at, value_size
            index += 1
        if at != size:
            return False
    return bool(index == places.shape[0])


@kernel
def _bytes(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int, Int]:
    """The size of nullable bytes (`NO_BYTES`: null), where they begin, and the position after them."""
    size, at = read_long(data, at, end)
    if at < 0 or not NO_BYTES <= size <= end - at:
        return NO_BYTES, 0, -1
    return size, at, at + max(size, 0)
