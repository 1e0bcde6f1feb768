"""The rule classifier: one of four labels for a closed bar, from thresholds that a person can argue with."""

from __future__ import annotations

from schemas.records import Bar, Indicators, Label, Regime, RegimeSpec
from schemas.states import RegimeState
from streams.regimes.indicators import update, warm_up


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


def step(state: RegimeState, bar: Bar, spec: RegimeSpec) -> tuple[RegimeState, Regime]:
    """Take the next bar of one symbol and kind; before the warm-up the label is RANGING, ``warm`` False."""
    warm = state.bars >= warm_up(spec)
    indicators = update(state, spec, bar)
    label = classify(indicators, spec) if warm else Label.RANGING
    if label is state.label:
        state.bars_since_change += 1
    else:
        state.previous, state.label, state.bars_since_change = state.label, label, 0
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
        probabilities={each.value: float(each is label) for each in Label},
        indicators=indicators,
        close=bar.close,
        settings=bar.settings,
    )
