"""Indicators for strategies against TA-Lib's batch functions, or against numpy over whole series."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streams.regimes.rolling import Choppiness, Ema, Macd, Realised, Rsi, VolumeRatio, Window, ZScore
from tests.accuracy.minute_bars import minute_bars

Series = dict[str, NDArray[np.float64]]


def made(seed: int = 1, count: int = 400) -> Series:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.002, count)))
    open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0.0, 0.0005, count))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.001, count)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.001, count)))
    return {
        "open": open_,
        "high": high,
        "low": low,
        "close": close,
        "volume": rng.integers(1, 999, count).astype(float),
    }


def assert_equal(mine: list[float], theirs: NDArray[np.float64]) -> None:
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
    np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)


def assert_talib(bars: Series) -> None:
    high, low, close = bars["high"], bars["low"], bars["close"]
    ema, rsi, macd, choppiness = Ema(period=20), Rsi(), Macd(), Choppiness()
    score = ZScore(window=Window(length=20))
    assert_equal([ema.step(c) for c in close.tolist()], talib.EMA(close, 20))
    assert_equal([rsi.step(c) for c in close.tolist()], talib.RSI(close, 14))
    lines = [macd.step(c) for c in close.tolist()]
    for mine, theirs in zip(zip(*lines, strict=True), talib.MACD(close), strict=True):
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-10)
    found = [choppiness.step(*bar) for bar in zip(high.tolist(), low.tolist(), close.tolist(), strict=True)]
    ranges = talib.SUM(np.nan_to_num(talib.TRANGE(high, low, close)), 14)
    whole = talib.MAX(high, 14) - talib.MIN(low, 14)
    theirs = 100.0 * np.log10(ranges / whole) / math.log10(14)
    theirs[13] = math.nan  # the first bar has no true range
    np.testing.assert_array_equal(np.isnan(found), np.isnan(theirs))
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-10)
    scores = np.array([score.step(c) for c in close.tolist()])
    deviation = talib.STDDEV(close, 20)
    moves = deviation > 1e-6 * close  # below, TA-Lib's own is the rounding of squares
    theirs = (close - talib.SMA(close, 20))[moves] / deviation[moves]
    np.testing.assert_allclose(scores[moves], theirs, rtol=0, atol=1e-6)


def test_they_are_talibs_on_made_bars() -> None:
    assert_talib(made())


def test_they_are_talibs_on_real_bars(trades: Path) -> None:
    by_symbol = defaultdict(list)
    for (symbol, _), bar in sorted(minute_bars(trades).items()):
        by_symbol[symbol].append(bar)
    for bars in by_symbol.values():
        assert_talib(
            {
                name: np.array([float(getattr(bar, name)) for bar in bars])
                for name in ("open", "high", "low", "close", "volume")
            }
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_realised_volatilities_are_those_of_the_formulas(seed: int) -> None:
    bars, n = made(seed), 30
    o, h, l, c = (np.log(bars[name]) for name in ("open", "high", "low", "close"))  # noqa: E741
    realised = Realised.over(n)
    found = np.array(
        [realised.step(*map(float, bar)) for bar in zip(*map(np.exp, (o, h, l, c)), strict=True)]
    )
    assert np.isnan(found[:n]).all()
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    for t in range(n, len(c)):
        w = slice(t - n + 1, t + 1)
        before = c[t - n : t]
        satchell = ((h[w] - c[w]) * (h[w] - o[w]) + (l[w] - c[w]) * (l[w] - o[w])).mean()
        expected = (
            np.std(c[w] - before, ddof=1),
            math.sqrt(((h[w] - l[w]) ** 2).mean() / (4 * math.log(2))),
            math.sqrt((0.5 * (h[w] - l[w]) ** 2 - (2 * math.log(2) - 1) * (c[w] - o[w]) ** 2).mean()),
            math.sqrt(np.var(o[w] - before, ddof=1) + k * np.var(c[w] - o[w], ddof=1) + (1 - k) * satchell),
        )
        np.testing.assert_allclose(found[t], expected, rtol=1e-10)


def test_the_volume_of_a_bar_over_the_mean() -> None:
    volume = made()["volume"]
    ratio = VolumeRatio(window=Window(length=10))
    assert_equal([ratio.step(v) for v in volume.tolist()], volume / talib.SMA(volume, 10))


@given(st.lists(st.floats(1e-3, 1e6), min_size=5, max_size=300), st.integers(2, 20))
def test_sums_that_move_do_not_drift(values: list[float], length: int) -> None:
    window = Window(length=length)
    for t, value in enumerate(values):
        if window.push(value):
            seen = np.array(values[t + 1 - length : t + 1])
            scale = float(np.abs(values[max(t + 1 - 2 * length, 0) : t + 1]).max())
            assert window.mean == pytest.approx(float(seen.mean()), abs=1e-12 * scale * length)
            assert window.variance() == pytest.approx(float(seen.var()), abs=1e-9 * scale * scale)


def test_a_state_goes_on_where_it_was_written() -> None:
    bars = made()
    once, again = Rsi(), Rsi()
    for t, close in enumerate(bars["close"].tolist()):
        again = msgspec.json.decode(msgspec.json.encode(again), type=Rsi) if t % 50 == 0 else again
        assert repr(once.step(close)) == repr(again.step(close))
