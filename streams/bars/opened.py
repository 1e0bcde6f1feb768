"""One open bar: how a tick is counted in it, and how it leaves. The same for every kind.

Open and close are by event time: the earliest tick and the latest, ties in order of arrival. A tick's side is its
aggressor's where the source tells, else the direction of the last change of price in order of arrival (the tick rule:
Lee & Ready 1991); before any change its size is split in half. vwap is the sum of price times size over the volume,
and the mean price where that is 0. Sums run in order of arrival.
"""

from __future__ import annotations

from typing import Any

from schemas.compiled import kernel

Row = Any
"""A row of a structured array; in a kernel a reference into it."""


@kernel
def begin(bar: Row, kind: int, start: int, end: int, event: Row) -> None:
    """Make ``bar`` an empty one at its first tick, which is then added like any other."""
    bar.kind = kind
    bar.start = start
    bar.end = end
    bar.open = bar.high = bar.low = bar.close = event.price
    bar.volume = bar.notional = bar.price_sum = 0.0
    bar.count = 0
    bar.buy_volume = bar.sell_volume = 0.0
    bar.first_time = bar.last_time = event.time
    bar.first_stream = bar.last_stream = event.stream
    bar.first_number = bar.last_number = event.number


@kernel
def add(bar: Row, event: Row, notional: float, buy: float, sell: float) -> None:
    """Count a tick: ``notional`` is its price times its size, ``buy`` and ``sell`` what it adds to the volumes."""
    price, time = event.price, event.time
    if price > bar.high:
        bar.high = price
    elif price < bar.low:
        bar.low = price
    if time >= bar.last_time:
        bar.last_time = time
        bar.close = price
        bar.last_stream = event.stream
        bar.last_number = event.number
    elif time < bar.first_time:
        bar.first_time = time
        bar.open = price
        bar.first_stream = event.stream
        bar.first_number = event.number
    bar.volume += event.size
    bar.notional += notional
    bar.price_sum += price
    bar.count += 1
    bar.buy_volume += buy
    bar.sell_volume += sell


@kernel
def close(bar: Row, ordinal: int, out: Row) -> None:
    """Write ``bar`` to ``out`` and leave it empty."""
    out.kind = bar.kind
    out.start = bar.start
    out.end = bar.end
    out.ordinal = ordinal
    out.open = bar.open
    out.high = bar.high
    out.low = bar.low
    out.close = bar.close
    out.volume = bar.volume
    out.vwap = bar.notional / bar.volume if bar.volume > 0.0 else bar.price_sum / bar.count
    out.count = bar.count
    out.buy_volume = bar.buy_volume
    out.sell_volume = bar.sell_volume
    out.first_stream = bar.first_stream
    out.first_number = bar.first_number
    out.last_stream = bar.last_stream
    out.last_number = bar.last_number
    bar.count = 0
