"""Closed bars as Avro bodies, a kernel over all of a run's: a bar as an object costs more than its ticks.

`schemas.codec.encode_body` is the reference: byte for byte the same, and the tests hold it so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import kernel
from streams.bars import time
from streams.bars.plan import Plan
from streams.bars.state import BAR, Rows

_LONG_BYTES: Final = 10
"""The most that Avro writes for a long."""
_DIGITS: Final = 20
"""The most characters that a long has, its sign among them."""
_FIXED_BYTES: Final = 8 * 8 + 10 * _LONG_BYTES + 2 * _DIGITS
"""Doubles, longs and the lengths of strings, and the numbers in the names of two ticks."""

_OPEN: Final = BAR.fields["open"][1] // 8  # type: ignore[index]
"""Column of open; high, low, close, volume and vwap follow."""
_BUY: Final = BAR.fields["buy_volume"][1] // 8  # type: ignore[index]
"""Column of buy_volume; sell_volume follows."""


class Texts:
    """Strings as UTF-8 in one buffer; number i lies from ends[i] to ends[i + 1]."""

    __slots__ = ("data", "ends", "longest")

    def __init__(self, texts: Sequence[bytes]) -> None:
        lengths = [len(text) for text in texts]
        self.data = np.frombuffer(b"".join(texts), np.uint8)
        self.ends: NDArray[np.int64] = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(lengths, out=self.ends[1:])
        self.longest = max(lengths, default=0)


def encode(
    bars: Rows,
    symbol_of: NDArray[np.int64],
    symbols: Sequence[bytes],
    prefixes: Sequence[Sequence[str]],
    plan: Plan,
) -> list[bytes]:
    """The bodies of `schemas.records.Bar`, one for each row.

    Args:
        bars: `BAR`, shape (n,).
        symbol_of: int64, shape (n,): whose each is.
        symbols: by number, in UTF-8.
        prefixes: by symbol: the names of ticks without their numbers, as ``bars`` count them.
        plan: whose kinds the bars are of.
    """
    names, kinds = Texts(symbols), Texts([kind.encode() for kind in plan.kinds])
    firsts = np.zeros(len(symbols), np.int64)
    np.cumsum([len(some) for some in prefixes[:-1]], out=firsts[1:])
    beginnings = Texts([prefix.encode() for some in prefixes for prefix in some])
    widest = _FIXED_BYTES + names.longest + kinds.longest + 2 * beginnings.longest
    data = np.empty(len(bars) * widest, np.uint8)
    ends = np.zeros(len(bars) + 1, np.int64)
    _encode(
        bars,
        bars.view(np.int64).reshape(len(bars), BAR.itemsize // 8),
        symbol_of,
        names.data,
        names.ends,
        kinds.data,
        kinds.ends,
        firsts,
        beginnings.data,
        beginnings.ends,
        plan.settings,
        plan.begins,
        data,
        ends,
    )
    written, places = data[: ends[-1]].tobytes(), ends.tolist()
    return [written[begin:end] for begin, end in itertools.pairwise(places)]


def prepare() -> None:
    """Compile the kernel, or load it from where it is kept."""
    encode(np.empty(0, BAR), np.empty(0, np.int64), [b"A"], [["s/"]], Plan.of(("time:1s",), 0, 0))


@kernel
def _encode(
    bars: Rows,
    bits: NDArray[np.int64],
    symbol_of: NDArray[np.int64],
    symbols: NDArray[np.uint8],
    symbol_ends: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    kind_ends: NDArray[np.int64],
    firsts: NDArray[np.int64],
    prefixes: NDArray[np.uint8],
    prefix_ends: NDArray[np.int64],
    settings: NDArray[np.int64],
    begun: NDArray[np.int64],
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> None:
    """Write the bodies to ``data``, one after another, and where each ends to ``ends``.

    ``bits`` is ``bars`` as integers, for doubles by their bytes.
    """
    at = 0
    for index in range(len(bars)):
        bar, symbol = bars[index], symbol_of[index]
        first = firsts[symbol]
        at = _text(data, at, symbols, symbol_ends[symbol], symbol_ends[symbol + 1])
        at = _text(data, at, kinds, kind_ends[bar.kind], kind_ends[bar.kind + 1])
        at = _long(data, at, bar.start)
        at = _long(data, at, bar.end)
        at = _long(data, at, bar.ordinal)
        for column in range(_OPEN, _OPEN + 6):
            at = _double(data, at, bits[index, column])
        at = _long(data, at, bar.count)
        at = _double(data, at, bits[index, _BUY])
        at = _double(data, at, bits[index, _BUY + 1])
        at = _name(data, at, prefixes, prefix_ends, first + bar.first_stream, bar.first_number)
        at = _name(data, at, prefixes, prefix_ends, first + bar.last_stream, bar.last_number)
        at = _long(data, at, settings[time.in_force(begun, bar.start)])
        ends[index + 1] = at


@kernel
def _long(data: NDArray[np.uint8], at: int, value: int) -> int:
    """Zigzag and base 128."""
    rest = np.uint64((value << 1) ^ (value >> 63))
    while rest > np.uint64(127):
        data[at] = np.uint8(rest & np.uint64(127)) | np.uint8(128)
        rest >>= np.uint64(7)
        at += 1
    data[at] = np.uint8(rest)
    return at + 1


@kernel
def _double(data: NDArray[np.uint8], at: int, bits: int) -> int:
    """Little endian."""
    rest = np.uint64(bits)
    for place in range(8):
        data[at + place] = np.uint8(rest & np.uint64(255))
        rest >>= np.uint64(8)
    return at + 8


@kernel
def _copy(data: NDArray[np.uint8], at: int, text: NDArray[np.uint8], begin: int, end: int) -> int:
    for place in range(begin, end):
        data[at] = text[place]
        at += 1
    return at


@kernel
def _text(data: NDArray[np.uint8], at: int, text: NDArray[np.uint8], begin: int, end: int) -> int:
    """Length and bytes."""
    return _copy(data, _long(data, at, end - begin), text, begin, end)


@kernel
def _name(
    data: NDArray[np.uint8],
    at: int,
    prefixes: NDArray[np.uint8],
    prefix_ends: NDArray[np.int64],
    prefix: int,
    number: int,
) -> int:
    """A tick's name as a string: its prefix and its number in decimal digits."""
    begin, end = prefix_ends[prefix], prefix_ends[prefix + 1]
    rest = (
        np.uint64(-number) if number < 0 else np.uint64(number)
    )  # of the least long too: it wraps to itself
    digits, left = 1, rest // np.uint64(10)
    while left > np.uint64(0):
        digits += 1
        left //= np.uint64(10)
    signs = 1 if number < 0 else 0
    at = _copy(data, _long(data, at, end - begin + signs + digits), prefixes, begin, end)
    if signs:
        data[at] = np.uint8(45)
    at += signs + digits
    for place in range(1, digits + 1):
        data[at - place] = np.uint8(48) + np.uint8(rest % np.uint64(10))
        rest //= np.uint64(10)
    return at
