"""The rule classifier: one of four labels for a closed bar, from thresholds that a person can argue with."""

from __future__ import annotations

from schemas.records import Bar, Indicators, Label, Regime, RegimeSpec
from schemas.states import RegimeState
from streams.regimes.hysteresis import settle
from streams.regimes.indicators import update, warm_up

SLOPE = 8.0
"""A figure 10 % above its threshold makes a condition hold with 68 %."""
_NOT_WARM = {each.value: float(each is Label.RANGING) for each in Label}


def classify(indicators: Indicators, spec: RegimeSpec) -> Label:
    """The first that holds, of indicators that are all past their warm-up:

    1. CRISIS: ranges have exploded: ATR / slow ATR >= ``crisis_ratio``.
    2. TRENDING: moves add up in one direction: ADX >= ``trend_adx``.
    3. CHOPPY: closes are strewn widely without direction: ADX < ``choppy_adx`` and the distance between the
       Bollinger bands >= ``choppy_width`` slow ATRs.
    4. RANGING: all else: closes stay in a band that is narrow for this market, or nothing stands out.

    The slow ATR is the yardstick of 1 and 3, so that one set of thresholds serves symbols of every price and
    volatility. It learns: a crisis that lasts becomes the norm after about ``slow_period`` bars.
    """
    if indicators.atr >= spec.crisis_ratio * indicators.atr_slow and indicators.atr > 0.0:
        return Label.CRISIS
    if indicators.adx >= spec.trend_adx:
        return Label.TRENDING
    distance = indicators.band_upper - indicators.band_lower
    if (
        indicators.adx < spec.choppy_adx
        and distance >= spec.choppy_width * indicators.atr_slow
        and distance > 0.0
    ):
        return Label.CHOPPY
    return Label.RANGING


def probabilities(indicators: Indicators, spec: RegimeSpec) -> dict[str, float]:
    """How near the bar is to each label, of indicators that are all past their warm-up; they sum to 1.

    Each condition of `classify` that a figure x is at or above its threshold c holds with the probability

        s(x / c) = x^k / (x^k + c^k), with k = `SLOPE`: 1/2 at the threshold,

    and the conditions are asked in their order: P(CRISIS) = s of the ATRs; P(TRENDING) = (1 - P(CRISIS)) s of the ADX;
    of what is left, CHOPPY has the share s of the bands' distance times (1 - s of the ADX against ``choppy_adx``),
    RANGING the rest. They are of this bar alone: the label may still be that of before (``hold``).
    """
    crisis = _share(indicators.atr, spec.crisis_ratio * indicators.atr_slow)
    trending = (1.0 - crisis) * _share(indicators.adx, spec.trend_adx)
    left = 1.0 - crisis - trending
    distance = indicators.band_upper - indicators.band_lower
    wide = _share(distance, spec.choppy_width * indicators.atr_slow)
    choppy = left * wide * (1.0 - _share(indicators.adx, spec.choppy_adx))
    return {
        Label.TRENDING.value: trending,
        Label.RANGING.value: max(left - choppy, 0.0),
        Label.CHOPPY.value: choppy,
        Label.CRISIS.value: crisis,
    }


def _share(x: float, threshold: float) -> float:
    if x <= 0.0 or threshold <= 0.0:
        return float(x > 0.0)
    ratio: float = min(threshold / x, 1e30) ** SLOPE
    return 1.0 / (1.0 + ratio)


def step(state: RegimeState, bar: Bar, spec: RegimeSpec) -> tuple[RegimeState, Regime]:
    """Take the next bar of one symbol and kind; before the warm-up the label is RANGING, ``warm`` False.

    So that labels do not flicker, one changes only once ``hold`` bars one after another say the same other one.
    """
    warm = state.bars >= warm_up(spec)
    indicators = update(state, spec, bar)
    label = settle(state, classify(indicators, spec) if warm else Label.RANGING, spec.hold)
    return state, Regime(
        symbol=bar.symbol,
        kind=bar.kind,
        start=bar.start,
        end=bar.end,
        ordinal=bar.ordinal,
        label=label,
        previous=state.previous,
        bars_since_change=state.bars_since_change,
        warm=warm,
        probabilities=probabilities(indicators, spec) if warm else dict(_NOT_WARM),
        indicators=indicators,
        close=bar.close,
        settings=bar.settings,
    )
