"""Ticks from Avro straight to columns: a kernel over the values of a whole run, without an object per tick.

The kernel reads what our own `schemas.codec.Codec` writes, and of that only what it is sure of. Every other record
(another writer's schema, a clock, settings, damaged bytes, strings beyond printable ASCII, a key that is not the
tick's symbol) it leaves to the codec, which stays the reference: what the kernel takes, the codec reads equal.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.columns import NO_SEQUENCE, NO_TICK, PLACE, TICK, Lane, Packed, Places, Rows, TickColumns
from schemas.compiled import kernel

Int = int | np.int64

MAX_KEY_BYTES: Final = 200

_LANE: Final = np.dtype(
    [
        ("key", np.int64),
        ("key_end", np.int64),
        ("source", np.int64),
        ("source_end", np.int64),
        ("session", np.int64),
        ("session_end", np.int64),
        ("names", np.int64),  # from the length of source to the end of session
        ("following", np.int64),  # lane of the same key, the one used last first; -1: none
    ],
    align=True,
)
"""Where in the buffer a lane's strings lie."""
_PRICE: Final = list(TICK.fields or ()).index("price")
_SIZE: Final = list(TICK.fields or ()).index("size")


def decode_ticks(packed: Packed, prefix: bytes) -> TickColumns:
    """The rows of a run's ticks, one per record; lane `NO_TICK` marks those left to the codec.

    ``prefix`` is what a tick's value begins with (`schemas.codec.Codec.prefix`).
    """
    count = len(packed)
    rows = np.zeros(count, TICK)
    bits = rows.view(np.int64).reshape(count, TICK.itemsize // 8)
    lanes = np.empty(count, _LANE)
    heads = np.full(1 << (2 * count).bit_length(), -1, np.int64)
    data = np.frombuffer(packed.data, np.uint8)
    found = _decode(data, packed.places, np.frombuffer(prefix, np.uint8), rows, bits, lanes, heads)
    text = packed.data.decode("latin-1")  # a character per byte, whatever the bytes; the lanes' are all ASCII
    return TickColumns(
        rows,
        tuple(
            [
                Lane(text[key:key_end], text[source:source_end], text[session:session_end])
                for key, key_end, source, source_end, session, session_end, _, _ in lanes[:found].tolist()
            ]
        ),
    )


def prepare() -> None:
    """Compile the kernel, or load it from where it is kept."""
    decode_ticks(Packed(b"", np.empty(0, PLACE), {}), bytes(6))


@kernel
def _decode(
    data: NDArray[np.uint8],
    places: Places,
    prefix: NDArray[np.uint8],
    rows: Rows,
    bits: NDArray[np.int64],
    lanes: NDArray[np.void],
    heads: NDArray[np.int64],
) -> Int:
    """Fill ``rows`` and ``lanes``; returns the number of lanes.

    A position of -1 means that something did not fit. It passes through all further reads, so that it is tested once,
    at the end. ``bits`` is ``rows`` as integers, for doubles by their bytes. Nothing is read outside a record's own
    key and value.
    """
    found = 0
    for index in range(places.shape[0]):
        row, place = rows[index], places[index]
        row.lane = NO_TICK
        key, key_end = place.key_at, place.key_at + place.key_size
        at, end = place.value_at, place.value_at + place.value_size
        if not 0 < place.key_size <= MAX_KEY_BYTES or place.value_size < prefix.size:
            continue
        if not _equal(data, at, prefix, 0, prefix.size):
            continue
        symbol, at = _string(data, at + prefix.size, end)
        if at - symbol != place.key_size or not _equal(data, symbol, data, key, place.key_size):
            continue
        names = at
        source, source_end = _string(data, names, end)
        session, session_end = _string(data, source_end, end)
        named, at = _flag(data, session_end, end, 2)
        sequence: Int = np.int64(NO_SEQUENCE)
        if named == 2:
            sequence, at = read_long(data, at, end)
            if sequence == NO_SEQUENCE:
                continue
        event_time, at = read_long(data, at, end)
        price, at = _double(data, at, end)
        size, at = _double(data, at, end)
        exchange, exchange_end = _string(data, at, end)
        conditions, at = read_long(data, exchange_end, end)
        suspicious, at = _flag(data, at, end, 1)
        told, at = _flag(data, at, end, 2)
        trade = trade_end = at
        if told == 2:
            trade, trade_end = _string(data, at, end)
        sided, at = _flag(data, trade_end, end, 2)
        side: Int = 0
        if sided == 2:
            side, at = _flag(data, at, end, 2)
            side = 1 - side  # the enum's places, 0 and 1, written as 0 and 2
        if (
            at != end
            or not _printable(data, exchange, exchange_end)
            or not _printable(data, trade, trade_end)
        ):
            continue

        lane = _known(data, key, key_end, names, session_end, lanes, heads)
        if lane < 0:
            if not (
                _printable(data, key, key_end)
                and _printable(data, source, source_end)
                and _printable(data, session, session_end)
            ):
                continue
            slot = -1 - lane
            new = lanes[found]
            new.key, new.key_end = key, key_end
            new.source, new.source_end = source, source_end
            new.session, new.session_end = session, session_end
            new.names = names
            new.following = heads[slot]
            heads[slot] = lane = found
            found += 1
        row.event_time = event_time
        bits[index, _PRICE] = price
        bits[index, _SIZE] = size
        row.sequence = sequence
        row.conditions = conditions
        row.lane = lane
        row.side = side
        row.suspicious = suspicious == 1
    return found


@kernel
def _known(
    data: NDArray[np.uint8],
    key: Int,
    key_end: Int,
    names: Int,
    names_end: Int,
    lanes: NDArray[np.void],
    heads: NDArray[np.int64],
) -> Int:
    """The lane of a key and of the bytes that name source and session; where it is new, -1 less its slot in ``heads``.

    ``heads`` is a hash table of keys, a power of two in size and never full: in the key's slot the lane that it used
    last. The hash (FNV-1a) only says where to look: lanes are the same where their bytes are.
    """
    mixed = np.uint64(14695981039346656037)
    at = key
    while at < key_end:
        mixed = (mixed ^ np.uint64(data[at])) * np.uint64(1099511628211)
        at += 1
    mask = heads.size - 1
    slot = np.int64(mixed ^ (mixed >> np.uint64(32))) & mask
    key_size, names_size = key_end - key, names_end - names
    head = heads[slot]
    while head >= 0:
        same = lanes[head]
        if same.key_end - same.key == key_size and _equal(data, same.key, data, key, key_size):
            break
        slot = (slot + 1) & mask
        head = heads[slot]
    before: Int = -1
    lane: Int = head
    while lane >= 0:
        same = lanes[lane]
        if same.session_end - same.names == names_size and _equal(data, same.names, data, names, names_size):
            if before >= 0:
                lanes[before].following = same.following
                same.following = head
                heads[slot] = lane
            return lane
        before, lane = lane, same.following
    return -1 - slot


@kernel
def read_long(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """A zigzag varint (Avro's long, Kafka's varlong) and the position after it.

    The position is -1 where the number is cut off, does not fit into 64 bits or is longer than it must be, or where
    ``at`` is -1 already.
    """
    if at < 0 or at >= end:
        return np.int64(0), -1
    byte = np.int64(data[at])
    bits, shift = byte & 0x7F, 7
    at += 1
    while byte >= 0x80:
        if at >= end or shift > 63:
            return np.int64(0), -1
        byte = np.int64(data[at])
        bits |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    if (byte == 0 and shift > 7) or (byte > 1 and shift == 70):
        return np.int64(0), -1
    return np.int64(np.uint64(bits) >> np.uint64(1)) ^ -(bits & 1), at


@kernel
def _string(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """Where a string begins and ends; the end is -1 where it does not fit."""
    size, at = read_long(data, at, end)
    if at < 0 or not 0 <= size <= end - at:
        return at, -1
    return at, at + size


@kernel
def _flag(data: NDArray[np.uint8], at: Int, end: Int, one: Int) -> tuple[Int, Int]:
    """A byte that may be 0 or ``one``, and the position after it."""
    if 0 <= at < end and (data[at] == 0 or data[at] == one):
        return np.int64(data[at]), at + 1
    return np.int64(0), -1


@kernel
def _double(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """The bits of a double, and the position after it."""
    bits = np.int64(0)
    if at < 0 or end - at < 8:
        return bits, -1
    for step in range(8):
        bits |= np.int64(data[at + step]) << (8 * step)
    return bits, at + 8


@kernel
def _equal(a: NDArray[np.uint8], at: Int, b: NDArray[np.uint8], other: Int, size: Int) -> bool:
    end = at + size
    while at < end:
        if a[at] != b[other]:
            return False
        at += 1
        other += 1
    return True


@kernel
def _printable(data: NDArray[np.uint8], at: Int, end: Int) -> bool:
    while at < end:
        if not 0x20 <= data[at] < 0x7F:
            return False
        at += 1
    return True
