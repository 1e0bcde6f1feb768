"""Renko bars: bricks of one size, on a grid that the first tick lays.

The first tick's price is the base. With L the close of the last brick (at first the base), a tick at price p makes

    a brick up     from L to L + size              if the last was up, or there was none, and p ≥ L + size
                   from L + size to L + 2·size     if the last was down, and p ≥ L + 2·size
    a brick down   likewise, downwards

and further ones in the same direction as long as p reaches. Levels are base + k·size, k a whole number, so that they
do not drift. Whether p reaches one is told by p − base against k·size, with the slack of `streams.bars.range`, for
which the price is the larger of p and the base.

A brick's open, high, low and close are its levels, so vwap may lie outside of them. Its volume, count, times and names
are those of the ticks since the last brick, the one that makes it included. Where a tick makes several, the further
ones have count and volume 0, vwap = close, the tick's time as start and end, and its name twice. One tick makes at
most 1,000 bricks: a price from nowhere must not flood what comes after. From one that would have made more, the grid
is laid anew: its price is the base, as the first tick's was.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.compiled import kernel
from streams.bars.range import slack

Row = Any

MOST_BRICKS: Final = 1000
"""That one tick makes."""


@kernel
def brick(kind: Row, builder: Row, price: float) -> int:
    """Direction of the next brick that ``price`` makes, 1 or -1; 0 where it makes none."""
    size, bricks, last = kind.size, builder.bricks, builder.direction
    distance, spare = price - builder.base, slack(max(price, builder.base), size)
    up = bricks + (2 if last < 0 else 1)
    if distance >= up * size - spare:
        return 1
    down = bricks - (2 if last > 0 else 1)
    if distance <= down * size + spare:
        return -1
    return 0


@kernel
def lay(kind: Row, builder: Row, direction: int, out: Row) -> None:
    """Lay a brick in ``direction``: move the builder on, and write the levels to the closed bar ``out``."""
    base, size = builder.base, kind.size
    begin = builder.bricks + (direction if builder.direction == -direction else 0)
    end = begin + direction
    builder.bricks, builder.direction = end, direction
    out.open = base + begin * size
    out.close = base + end * size
    out.high = max(out.open, out.close)
    out.low = min(out.open, out.close)


@kernel
def repeat(out: Row, kind: int, ordinal: int, event: Row) -> None:
    """Write a brick without ticks of its own to ``out``; `lay` has written its levels."""
    out.kind = kind
    out.ordinal = ordinal
    out.start = out.end = event.time
    out.volume = out.buy_volume = out.sell_volume = 0.0
    out.vwap = out.close
    out.count = 0
    out.first_stream = out.last_stream = event.stream
    out.first_number = out.last_number = event.number


@kernel
def begin_grid(builder: Row, price: float) -> None:
    """Lay the grid: ``price`` is the base, and there is no last brick."""
    builder.base = price
    builder.bricks = 0
    builder.direction = 0
