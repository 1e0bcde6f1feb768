"""Indicators against TA-Lib's batch functions, warm-up included, on made and on real bars."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Indicators, RegimeSpec
from schemas.states import RegimeState
from streams.regimes.indicators import update, warm_up
from tests.accuracy.minute_bars import minute_bars
from tests.examples import bar

Rows = list[tuple[float, float, float]]
"""(high, low, close) of each bar."""


def ours(rows: Rows, spec: RegimeSpec) -> list[Indicators]:
    state = RegimeState(kind="time:1m")
    found = []
    for high, low, close in rows:
        found.append(update(state, spec, bar(open=close, high=high, low=low, close=close)))
        numbers = [value for value in msgspec.structs.astuple(state) if isinstance(value, float)]
        assert np.isfinite([*numbers, *state.closes]).all()
    return found


def assert_equal_to_talib(rows: Rows, spec: RegimeSpec) -> None:
    high, low, close = (np.array(column) for column in zip(*rows, strict=True))
    upper, middle, lower = talib.BBANDS(close, spec.band_period, spec.band_width, spec.band_width)
    expected = {
        "atr": talib.ATR(high, low, close, spec.period),
        "atr_slow": talib.ATR(high, low, close, spec.slow_period),
        "adx": talib.ADX(high, low, close, spec.period),
        "plus_di": talib.PLUS_DI(high, low, close, spec.period),
        "minus_di": talib.MINUS_DI(high, low, close, spec.period),
        "band_middle": middle,
        "band_upper": upper,
        "band_lower": lower,
    }
    found = ours(rows, spec)
    for name, values in expected.items():
        mine = np.array([getattr(each, name) for each in found])
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(values), err_msg=f"warm-up of {name}")
        np.testing.assert_allclose(mine, values, rtol=1e-10, atol=0.0, err_msg=name)
    width = np.array([each.band_width for each in found])
    # A ratio of a difference of nearly equal numbers: exact to the bands' own precision, not to its own.
    np.testing.assert_allclose(width, (upper - lower) / middle, rtol=0.0, atol=4e-10, err_msg="band_width")
    warm = [all(not np.isnan(value) for value in msgspec.structs.astuple(each)) for each in found]
    assert warm == [number >= warm_up(spec) for number in range(len(found))]


def made(seed: int, count: int, scale: float, decimals: int) -> Rows:
    """A random walk on a grid, with a flat stretch and a gap."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0.0, scale, count)
    moves[count // 3 : count // 2] = 0.0
    moves[count // 2] = 30.0 * scale
    close = np.round(100.0 + np.cumsum(moves), decimals)
    high = np.round(close + rng.exponential(scale, count) * (moves != 0.0), decimals)
    low = np.round(close - rng.exponential(scale, count) * (moves != 0.0), decimals)
    return list(zip(high.tolist(), low.tolist(), close.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 300),
    scale=st.sampled_from([0.001, 0.05, 1.0]),
    decimals=st.sampled_from([2, 8]),
    period=st.sampled_from([2, 3, 14]),
    band_period=st.sampled_from([2, 20]),
    slow_period=st.sampled_from([5, 100]),
)
def test_equal_to_talib_on_made_bars(
    seed: int, count: int, scale: float, decimals: int, period: int, band_period: int, slow_period: int
) -> None:
    spec = RegimeSpec(kinds=(), period=period, band_period=band_period, slow_period=slow_period)
    assert_equal_to_talib(made(seed, count, scale, decimals), spec)


def test_equal_to_talib_where_nothing_ever_moves() -> None:
    assert_equal_to_talib([(100.0, 100.0, 100.0)] * 150, RegimeSpec(kinds=()))


def test_equal_to_talib_where_movement_dies_out() -> None:
    rows = made(1, 60, 1.0, 8)
    assert_equal_to_talib(rows + [(rows[-1][2],) * 3] * 200, RegimeSpec(kinds=(), period=3))


@pytest.fixture(scope="module")
def real_minutes(trades: Path) -> dict[str, Rows]:
    """One-minute bars by symbol, of the first quarter of a million real trades."""
    minutes: dict[str, Rows] = defaultdict(list)
    for (symbol, _), minute in minute_bars(trades, rows=250_000).items():
        minutes[symbol].append((minute.high, minute.low, minute.close))
    return minutes


@pytest.mark.parametrize("symbol", ["AIG", "BAC", "IBM", "SPY"])
def test_equal_to_talib_on_real_bars(real_minutes: dict[str, Rows], symbol: str) -> None:
    rows = real_minutes[symbol]
    assert len(rows) > 200
    assert_equal_to_talib(rows, RegimeSpec(kinds=()))
