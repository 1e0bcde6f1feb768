# mypy: ignore-errors
"""csp in simulation: 1-minute bars of trades, in a node for each symbol.

Run by the peers' Python: `python backtest_csp.py TRADES.npz lists|arrays` prints one JSON object. Timed is `csp.run`
alone: prices and sizes are csp's curves of lists or of numpy arrays before it begins. A curve of arrays keeps only the
last value of a time, so trades of the same time are moved a nanosecond apart for it.
"""

import json
import sys
import time
from datetime import datetime, timedelta
from typing import Any

import csp
import numpy as np
from csp import ts

MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1)


class Bar(csp.Struct):
    """A closed bar."""

    start: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    count: int


@csp.node
def minute_bars(price: ts[float], size: ts[float]) -> ts[Bar]:
    """A bar at the end of each minute that had a trade: [start, end)."""
    with csp.alarms():
        end: ts[datetime] = csp.alarm(datetime)
    with csp.state():
        s_open = s_high = s_low = s_close = s_volume = 0.0
        s_count = 0
    closed = None
    if csp.ticked(end):
        closed = Bar(
            start=end, open=s_open, high=s_high, low=s_low, close=s_close, volume=s_volume, count=s_count
        )
        s_count = 0
    if csp.ticked(price):
        if s_count == 0:
            now = csp.now()
            start = now.replace(second=0, microsecond=0)
            csp.schedule_alarm(end, start + MINUTE, start)
            s_open = s_high = s_low = price
            s_volume = 0.0
        elif price > s_high:
            s_high = price
        elif price < s_low:
            s_low = price
        s_close = price
        s_volume += size
        s_count += 1
    if closed is not None:
        return closed


@csp.graph
def graph(symbols: list, prices: list, sizes: list):
    """A node for each symbol."""
    for symbol, price, size in zip(symbols, prices, sizes, strict=True):
        csp.add_graph_output(symbol, minute_bars(csp.curve(float, price), csp.curve(float, size)))


def _told_apart(time_ns: np.ndarray) -> np.ndarray:
    """Trades of the same time a nanosecond apart: a numpy curve keeps only the last value of a time."""
    first = np.searchsorted(time_ns, time_ns)
    return time_ns + np.arange(len(time_ns)) - first


def _curve(time_us: np.ndarray, values: np.ndarray, arrays: bool) -> Any:
    """What `csp.curve` takes."""
    if arrays:
        return _told_apart(time_us * 1000).view("datetime64[ns]"), values
    return list(zip(time_us.view("datetime64[us]").tolist(), values.tolist(), strict=True))


def main(path: str, arrays: bool) -> dict[str, Any]:
    """Load, run, and tell."""
    found = np.load(path)
    symbols = found["symbols"].tolist()
    time_us = found["time_us"]
    mine = [np.flatnonzero(found["symbol"] == number) for number in range(len(symbols))]
    prices, sizes = (
        [_curve(time_us[each], found[name][each], arrays) for each in mine] for name in ("price", "size")
    )
    begin = EPOCH + timedelta(microseconds=int(time_us.min()))
    end = EPOCH + timedelta(microseconds=int(time_us.max())) + MINUTE
    began_s, cpu_s = time.perf_counter(), time.process_time()
    out = csp.run(graph, symbols, prices, sizes, starttime=begin, endtime=end)
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    bars = [
        (symbol, (bar.start - EPOCH) // MINUTE, bar.close, bar.volume)
        for symbol in symbols
        for _, bar in out[symbol]
    ]
    return {"seconds": took_s, "cpu_seconds": used_s, "bars": bars}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2] == "arrays")))
