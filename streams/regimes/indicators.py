"""ATR, ADX with its directional indicators and Bollinger bands, one bar at a time.

The same figures as TA-Lib's batch functions, warm-up included. Bars are counted from 0; a figure is NaN
before the bar at which TA-Lib's first value stands.
"""

from __future__ import annotations

import math

from schemas.records import Bar, Indicators, RegimeSpec
from schemas.states import RegimeState


def warm_up(spec: RegimeSpec) -> int:
    """Number of the first bar on which every indicator has a value."""
    return max(2 * spec.period - 1, spec.slow_period, spec.band_period - 1)


def update(state: RegimeState, spec: RegimeSpec, bar: Bar) -> Indicators:
    """Take ``bar`` into ``state`` (in place) and answer the indicators after it.

    With n the period, H, L, C a bar's high, low and close, and C' the close before:

    - true range TR = max(H - L, |H - C'|, |L - C'|), from bar 1 on;
    - ATR: the mean of the first n TR at bar n, then ATR = (ATR' (n - 1) + TR) / n; the slow ATR likewise;
    - directional movement +DM = H - H' where that is above zero and above L' - L, else 0; -DM = L' - L
    likewise;
    - +DM, -DM and TR each summed over bars 1..n-1, then S = S' - S' / n + x; +DI = 100 S(+DM) / S(TR), from
    bar n;
    - DX = 100 |+DI - -DI| / (+DI + -DI), from bar n; ADX: the mean of the first n DX at bar 2n - 1, then
      smoothed as ATR is. A bar without movement leaves ADX as it is (Wilder, New Concepts in Technical
      Trading Systems, 1978);
    - bands: the mean of the last ``band_period`` closes, plus and minus ``band_width`` population standard
      deviations; their width is (upper - lower) / middle (Bollinger, Bollinger on Bollinger Bands, 2001).

    Time: O(1), for the bands O(band_period). Prices are in quote currency, DI and ADX 0..100.
    """
    high, low, close = bar.high, bar.low, bar.close
    count, period = state.bars, spec.period
    atr = atr_slow = adx = plus_di = minus_di = math.nan
    if count > 0:
        previous = state.previous_close
        true_range = true_range_of(high, low, previous)
        state.atr = wilder_mean(state.atr, true_range, count, period)
        state.atr_slow = wilder_mean(state.atr_slow, true_range, count, spec.slow_period)
        up, down = high - state.previous_high, state.previous_low - low
        state.plus_dm = _wilder_sum(state.plus_dm, up if up > 0.0 and up > down else 0.0, count, period)
        state.minus_dm = _wilder_sum(state.minus_dm, down if down > 0.0 and down > up else 0.0, count, period)
        state.true_range = _wilder_sum(state.true_range, true_range, count, period)
    if count >= period:
        atr = state.atr
        plus_di = minus_di = 0.0
        if state.true_range > 0.0:
            plus_di = 100.0 * (state.plus_dm / state.true_range)
            minus_di = 100.0 * (state.minus_dm / state.true_range)
        movement = plus_di + minus_di
        number = count - period + 1
        if movement > 0.0:
            state.adx = wilder_mean(state.adx, 100.0 * (abs(plus_di - minus_di) / movement), number, period)
        elif number == period:
            state.adx /= period
        if number >= period:
            adx = state.adx
    if count >= spec.slow_period:
        atr_slow = state.atr_slow
    state.bars = count + 1
    state.previous_high, state.previous_low, state.previous_close = high, low, close

    closes = state.closes
    closes.append(close)
    if len(closes) > spec.band_period:
        del closes[0]
    middle = upper = lower = width = math.nan
    if len(closes) == spec.band_period:
        # Two passes and fsum: a running sum of squares would lose the deviation of prices that hardly move.
        middle = math.fsum(closes) / spec.band_period
        deviation = math.sqrt(math.fsum([(x - middle) ** 2 for x in closes]) / spec.band_period)
        upper, lower = middle + spec.band_width * deviation, middle - spec.band_width * deviation
        width = (upper - lower) / middle
    return Indicators(
        atr=atr,
        atr_slow=atr_slow,
        adx=adx,
        plus_di=plus_di,
        minus_di=minus_di,
        band_middle=middle,
        band_upper=upper,
        band_lower=lower,
        band_width=width,
    )


def true_range_of(high: float, low: float, close_before: float) -> float:
    """max(H - L, |H - C'|, |L - C'|)."""
    return max(high - low, abs(high - close_before), abs(low - close_before))


def wilder_mean(value: float, x: float, number: int, period: int) -> float:
    """The mean after the ``number``-th x (from 1); its sum while that is below ``period``."""
    if number < period:
        return value + x
    if number == period:
        return (value + x) / period
    return (value * (period - 1) + x) / period


def _wilder_sum(value: float, x: float, number: int, period: int) -> float:
    """Wilder's running sum after the ``number``-th x (from 1); a plain sum below ``period``."""
    return value + x if number < period else value - value / period + x
