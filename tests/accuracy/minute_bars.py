"""One-minute bars made directly from the file of real trades with pandas: what the pipeline's bars must equal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class MinuteBar:
    """Prices in USD, volume in shares."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float
    count: int


Bars = dict[tuple[str, int], MinuteBar]
"""By symbol and start of the minute in µs since the epoch."""

FIELDS = tuple(MinuteBar.__dataclass_fields__)
EXACT = tuple(name for name in FIELDS if name != "vwap")


def minute_bars(path: Path, rows: int | None = None) -> Bars:
    """The bars of the first ``rows`` rows, every trade counted, whatever its condition."""
    trades = pd.read_csv(path, nrows=rows, usecols=["ts_ms_utc", "symbol", "price_e4", "size"])
    trades["price"] = trades["price_e4"] / 10_000
    trades["notional"] = trades["price"] * trades["size"]
    trades["minute"] = trades["ts_ms_utc"] // MINUTE_MS
    groups = trades.groupby(["symbol", "minute"])
    bars = groups.agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        volume=("size", "sum"),
        count=("size", "size"),
        mean=("price", "mean"),
    )
    # cumsum adds from left to right; sum would not, and would round differently
    bars["notional"] = groups["notional"].cumsum().groupby([trades["symbol"], trades["minute"]]).last()
    bars["vwap"] = (bars["notional"] / bars["volume"]).where(bars["volume"] > 0, bars["mean"])
    return {
        (symbol, minute * MINUTE_MS * 1000): MinuteBar(*row)
        for (symbol, minute), *row in bars[list(FIELDS)].itertuples()
    }


def differences(bars: Bars, reference: Bars) -> list[str]:
    """Bars that are missing, extra or other than the reference's; the vwap may differ by 1e-12 of itself."""
    found = [f"missing: {key}" for key in reference.keys() - bars.keys()]
    found += [f"extra: {key}" for key in bars.keys() - reference.keys()]
    for key in reference.keys() & bars.keys():
        ours, theirs = bars[key], reference[key]
        exact = all(getattr(ours, name) == getattr(theirs, name) for name in EXACT)
        if not exact or abs(ours.vwap - theirs.vwap) > 1e-12 * theirs.vwap:
            found.append(f"{key}: {ours} is not {theirs}")
    return sorted(found)
