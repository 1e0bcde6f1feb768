"""Parameters of simulated panels are found again, and bad panels are fitted to what can be fitted."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bench.dcc import simulated
from streams.correlations import packed
from streams.correlations.dcc import Dcc, Model, Volatility, from_record
from streams.correlations.fitting import (
    Method,
    Spec,
    estimate,
    fit,
    fit_margin,
    lower_tail,
    shrunk,
    worst_window,
)
from streams.correlations.packed import Floats

TRUTHS = [
    (Model.DCC, 0.04, 0.92, 0.0),
    (Model.ADCC, 0.02, 0.92, 0.03),
    (Model.CDCC, 0.05, 0.92, 0.0),
    (Model.DECO, 0.05, 0.92, 0.0),
]


@pytest.mark.parametrize(("model", "a", "b", "g"), TRUTHS, ids=[t[0].value for t in TRUTHS])
def test_the_truth_is_within_two_standard_errors(model: Model, a: float, b: float, g: float) -> None:
    z, _ = simulated(11, 3000, 6, a, b, g, model.value)
    found = estimate(z, model)
    assert found.converged
    truth = (a, b, g)[: len(found.errors)]
    for told, error, known in zip((found.a, found.b, found.g), found.errors, truth, strict=False):
        assert 0.0 < error < 0.1
        assert abs(told - known) < 2.0 * error


def test_the_composite_estimate_of_many_symbols_is_near_the_truth() -> None:
    z, _ = simulated(5, 1000, 40, 0.04, 0.92)
    found = estimate(z)
    assert found.method is Method.COMPOSITE
    assert found.converged
    assert found.a == pytest.approx(0.04, abs=2.0 * found.errors[0])
    assert found.b == pytest.approx(0.92, abs=2.0 * found.errors[1])


@pytest.mark.parametrize("model", [Model.DCC, Model.CDCC])
def test_residuals_that_are_missing_lead_nobody_astray(model: Model) -> None:
    """Counted as 0 they would: ln |R| is lowest where correlations are 1."""
    z, truth = simulated(11, 3000, 6, 0.04, 0.92, 0.0, model.value)
    gone = np.random.default_rng(1).random(z.shape) < 0.4
    found = estimate(np.where(gone, np.nan, z), model)
    assert found.converged
    assert found.method is Method.COMPOSITE
    assert found.a == pytest.approx(0.04, abs=3.0 * found.errors[0])
    assert found.b == pytest.approx(0.92, abs=3.0 * found.errors[1])
    assert np.abs(found.target - truth).max() < 0.2


def test_shrinkage_is_nearer_to_the_truth_than_the_sample() -> None:
    z, truth = simulated(3, 120, 100, 0.0, 0.0)
    sample = z.T @ z / len(z)
    assert np.linalg.norm(shrunk(z) - truth) < np.linalg.norm(sample - truth)
    wide, truth = simulated(3, 60, 100, 0.0, 0.0)
    matrix = shrunk(wide)
    assert np.linalg.eigvalsh(matrix)[0] > 0.0
    assert np.linalg.norm(matrix - truth) < np.linalg.norm(wide.T @ wide / len(wide) - truth)


@pytest.mark.parametrize("volatility", Volatility)
@pytest.mark.parametrize("distribution", ["normal", "t"])
def test_margins_are_those_of_arch(volatility: Volatility, distribution: str) -> None:
    """The path that the stream walks is arch's own of these parameters; no other that arch finds is likelier."""
    from arch import arch_model

    returns = garch_returns(2, 1500)
    margin = fit_margin(returns, volatility, distribution)
    assert margin.note is None
    scale = 1.0 / returns.std()
    model = arch_model(
        returns * scale,
        vol="EGARCH" if volatility is Volatility.EGARCH else "GARCH",
        o=0 if volatility is Volatility.GARCH else 1,
        dist=distribution,
        rescale=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.fit(disp="off", show_warning=False)
        omega = margin.omega * scale**2
        if volatility is Volatility.EGARCH:
            omega = margin.omega - (margin.beta - 1.0) * 2.0 * np.log(scale)
        told = [margin.mean * scale, omega, margin.alpha, margin.gamma, margin.beta, margin.nu]
        needed = [True, True, True, volatility is not Volatility.GARCH, True, distribution == "t"]
        reference = model.fix([each for each, is_used in zip(told, needed, strict=True) if is_used])
    assert reference.loglikelihood >= found.loglikelihood - 1e-6
    assert margin.log_likelihood == pytest.approx(reference.loglikelihood + 1500 * np.log(scale), rel=1e-12)
    np.testing.assert_allclose(
        np.sqrt(margin.variance[:-1]) * scale, reference.conditional_volatility, rtol=1e-9
    )
    np.testing.assert_allclose(margin.residuals, reference.std_resid, rtol=0, atol=1e-9)
    forecast = reference.forecast(horizon=1, reindex=False).variance.to_numpy()[-1, 0] / scale**2
    assert margin.variance[-1] == pytest.approx(forecast, rel=1e-9)


def garch_returns(seed: int, observations: int) -> Floats:
    rng = np.random.default_rng(seed)
    h, rows = 1e-6, []
    for _ in range(observations):
        e = np.sqrt(h) * rng.standard_normal()
        rows.append(e)
        h = 2e-8 + (0.08 + 0.06 * (e < 0)) * e * e + 0.87 * h
    return np.array(rows)


def bad_panel(kind: str) -> Floats:
    returns = np.column_stack([garch_returns(seed, 200) for seed in range(4)])
    match kind:
        case "constant price":
            returns[:, 1] = 0.0
        case "a jump of 100 %":
            returns[90, 1] = np.log(2.0)
        case "silent for an hour":
            returns[100:160, 1] = np.nan
        case "silent always":
            returns[:, 1] = np.nan
        case "two identical":
            returns[:, 1] = returns[:, 0]
        case "more symbols than bars":
            returns = np.column_stack([garch_returns(seed, 40) for seed in range(60)])
    return returns


@pytest.mark.parametrize("model", Model)
@pytest.mark.parametrize(
    "kind",
    [
        "constant price",
        "a jump of 100 %",
        "silent for an hour",
        "silent always",
        "two identical",
        "more symbols than bars",
    ],
)
def test_nothing_bad_makes_a_number_that_is_none(kind: str, model: Model) -> None:
    returns = bad_panel(kind)
    symbols = [f"S{i:02}" for i in range(returns.shape[1])]
    found = fit(returns, symbols, Spec(model=model))
    told = found.parameters.to_record()
    assert all(np.isfinite(values).all() for values in told.values())
    if kind in ("constant price", "silent always"):
        assert any(note.startswith("S01: ") and "RiskMetrics" in note for note in found.notes)
    if kind == "two identical" and model is not Model.DECO:
        assert any("singular" in note for note in found.notes)
    dcc = Dcc(from_record(symbols, told), 1)
    state = dcc.begin({}, {})
    prices = np.exp(np.nancumsum(returns, axis=0)) * 50.0
    for row, seen in zip(prices, ~np.isnan(returns), strict=True):
        closes = {s: float(p) for s, p, is_seen in zip(symbols, row, seen, strict=True) if is_seen}
        state, covariance = dcc.step(state, closes)
        assert np.isfinite(covariance.matrix).all()
        assert np.linalg.eigvalsh(covariance.matrix)[0] > -1e-12 * np.abs(covariance.matrix).max()
        assert all(-1.0 <= each <= 1.0 for each in covariance.correlations())


def test_a_symbol_that_joins_and_one_that_leaves_leave_the_others_as_they_are() -> None:
    returns = np.column_stack([garch_returns(seed, 120) for seed in range(3)])
    both = [fit(returns[:, columns], names, Spec()) for columns, names in (([0, 1], "AB"), ([1, 2], "BC"))]
    before, after = (Dcc(found.parameters, number) for number, found in enumerate(both, 1))
    state = before.begin({"A": 10.0, "B": 20.0}, {})
    state, covariance = before.step(state, {"A": 10.1, "B": 20.1, "C": 5.0})
    assert covariance.symbols == ("A", "B")
    went_on = after.go_on(before, state, {"B": 20.1, "C": 5.0}, {"B": 1})
    assert went_on.variance == [state.variance[1], after.parameters.margins.variance[1]]
    assert packed.unpack(went_on.q, 2)[0, 0] == packed.unpack(state.q, 2)[1, 1]
    assert went_on.closes == [20.1, 5.0]


def test_what_a_record_carries_comes_back() -> None:
    returns = np.column_stack([garch_returns(seed, 120) for seed in range(3)])
    told = fit(returns, "ABC", Spec(model=Model.ADCC)).parameters.to_record()
    assert from_record("ABC", told).to_record() == told
    with pytest.raises(ValueError, match="reshape"):
        from_record("AB", told)


def test_tails_and_the_worst_window() -> None:
    rng = np.random.default_rng(1)
    common = rng.standard_normal(2000)
    returns = np.column_stack([common, common, rng.standard_normal(2000)])
    returns[1000:1100] -= 1.0
    tail = lower_tail(returns)
    assert tail[0, 1] == pytest.approx(1.0)
    assert tail[0, 2] < 0.5
    begin, end, matrix = worst_window(returns, share=0.05)
    assert 990 <= begin <= 1010
    assert end - begin == 100
    assert matrix[0, 1] == pytest.approx(1.0)


@pytest.mark.parametrize("model", Model)
def test_neighbours_that_hardly_meet_have_a_and_b_that_are_given(model: Model) -> None:
    returns = np.column_stack([garch_returns(seed, 500) for seed in range(4)])
    for i in range(4):
        returns[(np.arange(500) % 8) // 2 == i, i] = np.nan  # each has gaps of its own, but 375 bars
    assert "not fitted" not in "".join(fit(returns, "ABCD", Spec(model=model)).notes)
    returns[:450:2, ::2] = np.nan
    returns[1:450:2, 1::2] = np.nan
    found = fit(returns, "ABCD", Spec(model=model))
    assert "a = 0.02, b = 0.95, not fitted" in "".join(found.notes)
    assert found.converged
    assert found.correlation is not None
    assert (found.correlation.a, found.correlation.b, found.correlation.g) == (0.02, 0.95, 0.0)
    assert np.isnan(found.correlation.errors).all()
    assert np.isfinite(found.parameters.q).all()
