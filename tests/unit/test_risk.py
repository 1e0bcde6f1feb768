"""Parametric risk against scipy and numpy, and the metrics and breaches made of it."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from schemas.records import AlertKind, LimitsSpec, RiskMetrics, Snapshot, SnapshotRow, TradingState
from streams.correlations import packed
from streams.risk import breaches, measure
from streams.risk.parametric import parametric_risk
from tests.examples import DAY0, MINUTE, bar, portfolio

EXACT = {"rel": 1e-12, "abs": 0.0}


@st.composite
def books(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    n = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    factors = rng.normal(0.0, 1e-3, (n, n + 2))
    return rng.normal(0.0, 1e5, n), factors @ factors.T


@settings(deadline=None)
@given(book=books(), confidence=st.floats(0.9, 0.9999))
def test_equals_scipy(book: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], confidence: float) -> None:
    notionals, covariance = book
    risk = parametric_risk(notionals.tolist(), packed.pack(covariance).tolist(), confidence)
    sigma = math.sqrt(notionals @ covariance @ notionals)
    z = norm.ppf(confidence)
    # sigma is compared more loosely: the reference's own sum cancels where positions hedge each other.
    assert risk.volatility == pytest.approx(sigma, rel=1e-9)
    assert risk.value_at_risk == pytest.approx(norm.ppf(confidence, scale=risk.volatility), **EXACT)
    shortfall = risk.volatility * norm.pdf(z) / (1 - confidence)
    assert risk.conditional_value_at_risk == pytest.approx(shortfall, **EXACT)
    assert risk.conditional_value_at_risk > risk.value_at_risk
    assert math.fsum(risk.components) == pytest.approx(risk.value_at_risk, **EXACT)


def test_volatility_equals_numpy_where_nothing_cancels() -> None:
    covariance = np.array([[4e-4, 1e-4, 2e-4], [1e-4, 9e-4, 1e-5], [2e-4, 1e-5, 1e-4]])
    notionals = np.array([1e6, 2e5, 3e5])
    risk = parametric_risk(notionals.tolist(), packed.pack(covariance).tolist(), 0.99)
    assert risk.volatility == pytest.approx(math.sqrt(notionals @ covariance @ notionals), **EXACT)


def test_shortfall_is_the_mean_of_the_losses_beyond() -> None:
    risk = parametric_risk([1e6], [4e-4], 0.975)
    tail = norm.expect(lambda loss: loss, scale=2e4, lb=risk.value_at_risk, conditional=True)
    assert risk.conditional_value_at_risk == pytest.approx(tail, rel=1e-8)


def test_components_are_the_derivatives() -> None:
    covariance, notionals = [4e-4, -1e-4, 9e-4], [1e6, -3e5]
    risk = parametric_risk(notionals, covariance, 0.99)
    for i, component in enumerate(risk.components):
        up, down = list(notionals), list(notionals)
        up[i] += 1.0
        down[i] -= 1.0
        slope = (
            parametric_risk(up, covariance, 0.99).value_at_risk
            - parametric_risk(down, covariance, 0.99).value_at_risk
        ) / 2
        assert component == pytest.approx(notionals[i] * slope, rel=1e-6)


def test_a_perfect_hedge_has_no_risk() -> None:
    # Rounding makes this variance -5.6e-17.
    notionals, covariance = [8.0, -7.000000000000001], [0.004900000000000001, 0.005600000000000001, 0.0064]
    assert parametric_risk(notionals, covariance, 0.99) == (0.0, 0.0, 0.0, (0.0, 0.0))


@pytest.mark.parametrize("confidence", [0.5, 1.0, math.nan])
def test_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        parametric_risk([1.0], [1.0], confidence)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="covariance of 3 values, not 1"):
        parametric_risk([1.0, 2.0], [1.0], 0.99)


def snapshot(*symbols: str, covariance: tuple[float, ...], warm: bool = True) -> Snapshot:
    return Snapshot(
        portfolio="alpha",
        universe="u1",
        start=DAY0,
        end=DAY0 + MINUTE,
        kind="time:1m",
        rows=tuple(SnapshotRow(symbol=s, stale=False, bar=bar(s)) for s in symbols),
        warm=warm,
        model="ewma",
        covariance=covariance,
        settings=1,
    )


def metrics(
    notionals: dict[str, float], equity: str = "1000", peak: str = "1250", day: str = "1100"
) -> RiskMetrics:
    return measure(
        portfolio(),
        snapshot("A", "B", covariance=(0.04, 0.0, 0.01)),
        notionals,
        Decimal(equity),
        Decimal(peak),
        Decimal(day),
        TradingState.REDUCING,
        3,
        7,
    )


def test_measure() -> None:
    found = metrics({"B": -500.0, "A": 1500.0})
    assert (found.portfolio, found.epoch, found.start, found.end) == ("alpha", 3, DAY0, DAY0 + MINUTE)
    assert (found.gross, found.net, found.leverage, found.equity) == (2000.0, 1000.0, 2.0, 1000.0)
    assert (found.drawdown, found.daily_loss) == (0.2, 100.0)
    assert (found.state, found.settings, found.confidence) == (TradingState.REDUCING, 7, 0.99)
    assert found.warm
    sigma = math.sqrt(0.04 * 1500.0**2 + 0.01 * 500.0**2)
    assert found.volatility == pytest.approx(sigma, **EXACT)
    assert found.value_at_risk == pytest.approx(norm.ppf(0.99) * sigma, **EXACT)
    a, b = found.exposures
    assert (a.symbol, a.notional, a.weight) == ("A", 1500.0, 1.5)
    assert (b.symbol, b.notional, b.weight) == ("B", -500.0, -0.5)
    assert math.fsum(e.component_var for e in found.exposures) == pytest.approx(found.value_at_risk, **EXACT)


def test_rows_without_a_holding_have_no_part() -> None:
    found = metrics({"A": 1500.0})
    assert found.volatility == pytest.approx(300.0, **EXACT)
    assert [e.symbol for e in found.exposures] == ["A"]


def test_a_holding_without_a_row_is_exposed_and_not_warm() -> None:
    found = metrics({"A": 1500.0, "Z": 100.0})
    assert (found.gross, found.warm, found.exposures[1].component_var) == (1600.0, False, 0.0)
    assert metrics({"A": 1500.0, "Z": 0.0}).warm


def test_without_equity_leverage_is_infinite_and_breaches() -> None:
    found = metrics({"A": 10.0, "B": -10.0}, equity="-5")
    assert found.leverage == math.inf
    assert [e.weight for e in found.exposures] == [math.inf, -math.inf]
    (breach,) = breaches(portfolio(limits=LimitsSpec(max_leverage=Decimal(4))), found)
    assert breach.figure is None
    assert metrics({}, equity="-5").leverage == 0.0


def test_a_new_peak_is_no_drawdown() -> None:
    assert metrics({}, equity="1300").drawdown == 0.0
    assert metrics({}, peak="0").drawdown == 0.0


LIMITS = LimitsSpec(max_drawdown=Decimal("0.2"), max_daily_loss=Decimal("100"), max_leverage=Decimal("2"))


def test_limits_reached_are_not_passed() -> None:
    assert breaches(portfolio(limits=LIMITS), metrics({"A": 2000.0})) == ()


def test_breaches_name_limit_value_and_figure() -> None:
    found = breaches(portfolio(limits=LIMITS), metrics({"A": 2000.0}, equity="999"))
    assert [(b.limit, b.kind, b.value, b.figure) for b in found] == [
        ("max_drawdown", AlertKind.DRAWDOWN, Decimal("0.2"), Decimal("0.200800000")),
        ("max_daily_loss", AlertKind.LIMIT, Decimal("100"), Decimal("101.000000000")),
        ("max_leverage", AlertKind.LIMIT, Decimal("2"), Decimal("2.002002002")),
    ]
    assert found[1].message == "max_daily_loss 100: daily loss is 101"


def test_without_limits_nothing_breaches() -> None:
    assert breaches(portfolio(), metrics({"A": 1e9}, equity="1")) == ()


def test_metrics_survive_the_wire() -> None:
    found = metrics({"A": 1500.0})
    assert msgspec.convert(msgspec.to_builtins(found), RiskMetrics) == found
