"""The rule classifier: each threshold alone, the memory of the label, and every label on made markets."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from schemas.records import Indicators, Label, Regime, RegimeSpec
from schemas.states import RegimeState
from streams.regimes.indicators import warm_up
from streams.regimes.rule import classify, probabilities, step
from tests.examples import DAY0, MINUTE, bar

SPEC = RegimeSpec(
    kinds=("time:1m",), trend_adx=25.0, choppy_adx=20.0, choppy_width=3.0, crisis_ratio=2.0, slow_period=30
)


def indicators(atr: float = 1.0, adx: float = 10.0, distance: float = 2.0) -> Indicators:
    """With a slow ATR of 1."""
    return Indicators(
        atr=atr,
        atr_slow=1.0,
        adx=adx,
        plus_di=20.0,
        minus_di=10.0,
        band_middle=100.0,
        band_upper=100.0 + distance / 2,
        band_lower=100.0 - distance / 2,
        band_width=distance / 100.0,
    )


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (indicators(), Label.RANGING),
        (indicators(atr=2.0, adx=90.0, distance=9.0), Label.CRISIS),
        (indicators(atr=math.nextafter(2.0, 0.0), adx=25.0), Label.TRENDING),
        (indicators(adx=math.nextafter(25.0, 0.0), distance=9.0), Label.RANGING),
        (indicators(adx=20.0, distance=9.0), Label.RANGING),
        (indicators(adx=19.9, distance=3.0), Label.CHOPPY),
        (indicators(adx=19.9, distance=2.9), Label.RANGING),
    ],
)
def test_the_first_rule_that_holds_gives_the_label(given: Indicators, label: Label) -> None:
    assert classify(given, SPEC) is label


def test_a_market_that_never_moves_is_ranging() -> None:
    regimes = follow(np.full(60, 100.0), SPEC)
    assert {each.label for each in regimes} == {Label.RANGING}
    assert [each.warm for each in regimes] == [number >= warm_up(SPEC) for number in range(60)]


def follow(closes: np.ndarray, spec: RegimeSpec, spread: float = 0.0) -> list[Regime]:
    """Regimes of a path of closes; a bar reaches from the close before to its own, and ``spread`` beyond."""
    state, regimes, before = RegimeState(kind="time:1m"), [], float(closes[0])
    for number, close in enumerate(closes.tolist()):
        item = bar(
            start=DAY0 + number * MINUTE,
            close=close,
            open=before,
            high=max(before, close) + spread,
            low=min(before, close) - spread,
        )
        state, regime = step(state, item, spec)
        regimes.append(regime)
        before = close
    return regimes


def test_a_regime_tells_its_bar_and_gives_most_weight_to_its_label() -> None:
    regimes = follow(100.0 + np.arange(80.0), SPEC)
    last = regimes[-1]
    assert (last.symbol, last.kind, last.start, last.end) == (
        "A",
        "time:1m",
        DAY0 + 79 * MINUTE,
        DAY0 + 80 * MINUTE,
    )
    assert (last.label, last.warm, last.close) == (Label.TRENDING, True, 179.0)
    assert last.probabilities["TRENDING"] > 0.99
    assert math.isnan(regimes[0].indicators.adx)
    assert not regimes[0].warm
    assert regimes[0].probabilities == {"TRENDING": 0.0, "RANGING": 1.0, "CHOPPY": 0.0, "CRISIS": 0.0}


@pytest.mark.parametrize(
    ("given", "label", "probability"),
    [
        (indicators(atr=2.0, adx=90.0, distance=9.0), Label.CRISIS, 0.5),
        (indicators(atr=0.1, adx=25.0), Label.TRENDING, 0.5),
        (indicators(atr=0.1, adx=0.1, distance=3.0), Label.CHOPPY, 0.5),
        (indicators(atr=0.1, adx=0.1, distance=3.3), Label.CHOPPY, 0.6819),
        (indicators(atr=0.1, adx=0.1, distance=1.0), Label.RANGING, 0.9998),
        (indicators(atr=0.0, adx=0.0, distance=0.0), Label.RANGING, 1.0),
    ],
)
def test_probabilities_say_how_far_a_bar_is_from_the_thresholds(
    given: Indicators, label: Label, probability: float
) -> None:
    found = probabilities(given, SPEC)
    assert found[label.value] == pytest.approx(probability, abs=1e-4)
    assert math.fsum(found.values()) == pytest.approx(1.0)
    assert min(found.values()) >= 0.0


def test_a_label_changes_only_once_enough_bars_say_so() -> None:
    """The trend begins at the warm-up; each verdict alone would say it at once."""
    closes = 100.0 + np.arange(80.0)
    alone, held = (follow(closes, msgspec.structs.replace(SPEC, hold=hold)) for hold in (1, 3))
    changed, later = (
        next(number for number, each in enumerate(regimes) if each.label is Label.TRENDING)
        for regimes in (alone, held)
    )
    assert later == changed + 2
    assert held[later].previous is Label.RANGING
    assert held[later].bars_since_change == 0


def test_the_label_before_and_the_bars_since_are_counted() -> None:
    warm = warm_up(SPEC)
    regimes = follow(100.0 + np.arange(80.0), SPEC)
    assert [each.bars_since_change for each in regimes] == [*range(warm), *range(80 - warm)]
    assert {each.previous for each in regimes[:warm]} == {None}
    assert {each.previous for each in regimes[warm:]} == {Label.RANGING}


def test_every_label_is_the_commonest_of_the_market_that_it_is_made_for() -> None:
    """Calm noise first, so that the slow ATR knows what is normal; then one market, judged on its end."""
    bars, judged = 60, 30
    seen: dict[Label, list[Label]] = {label: [] for label in Label}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        markets = {
            Label.TRENDING: np.cumsum(rng.normal(0.05, 0.03, bars)),
            Label.RANGING: rng.normal(0.0, 0.03, bars),
            Label.CHOPPY: 0.18 * np.sin(np.arange(bars) * 2 * np.pi / 9) + rng.normal(0.0, 0.05, bars),
            Label.CRISIS: np.cumsum(rng.normal(0.0, 0.6, bars)),
        }
        for label, path in markets.items():
            calm = 100.0 + np.cumsum(rng.normal(0.0, 0.05, 160))
            regimes = follow(np.concatenate([calm, calm[-1] + path]), RegimeSpec(kinds=()), spread=0.02)
            seen[label] += [each.label for each in regimes[-judged:]]
    for label, verdicts in seen.items():
        assert verdicts.count(label) > len(verdicts) / 2, (
            label,
            {each: verdicts.count(each) for each in Label},
        )


def test_the_state_takes_no_reference_and_splits_anywhere() -> None:
    rng = np.random.default_rng(1)
    closes = 100.0 + np.cumsum(rng.normal(0.0, 0.1, 150))
    state, split = RegimeState(kind="time:1m"), RegimeState(kind="time:1m")
    for number, close in enumerate(closes.tolist()):
        item = bar(close=close, high=close + 0.1, low=close - 0.1, start=DAY0 + number * MINUTE)
        state, whole = step(state, item, SPEC)
        split, parted = step(msgspec.convert(msgspec.to_builtins(split), RegimeState), item, SPEC)
        assert msgspec.msgpack.encode(whole) == msgspec.msgpack.encode(parted)
    assert state == split
