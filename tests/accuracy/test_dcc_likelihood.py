"""Likelihoods, scores and steps of the DCC family against the papers' equations written out (dcc_by_hand)."""

from __future__ import annotations

import numpy as np
import pytest

from bench.dcc import simulated
from streams.correlations import packed
from streams.correlations.dcc import DccParameters, Margins, Model, advance
from streams.correlations.fitting import Method, Start, log_likelihood
from streams.correlations.packed import Floats
from tests.accuracy import dcc_by_hand as by_hand

MODELS = list(Model)
A, B = 0.04, 0.9


GAPS = pytest.mark.parametrize("missing", [0.0, 0.3], ids=["whole", "gaps"])


def panel(
    model: Model, n: int = 4, observations: int = 150, missing: float = 0.0
) -> tuple[Floats, Floats, Floats, float]:
    """Residuals, some of them missing, target, downside and g."""
    g = 0.03 if model is Model.ADCC else 0.0
    z, target = simulated(7, observations, n, A, B, g, model.value)
    fall = np.minimum(z, 0.0)
    downside = fall.T @ fall / len(z) if g else np.zeros((n, n))
    return np.where(np.random.default_rng(3).random(z.shape) < missing, np.nan, z), target, downside, g


@GAPS
@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("model", MODELS)
def test_the_likelihood_is_that_of_the_equations(model: Model, start: Start, missing: float) -> None:
    z, target, downside, g = panel(model, missing=missing)
    first = target if start is Start.TARGET else (1.0 - A) * target + A
    rs = [r for _, r in by_hand.paths(z, A, B, g, model.value, target, downside, first)]
    told, _ = log_likelihood(z, A, B, g, model=model, start=start, target=target, downside=downside)
    assert told == pytest.approx(by_hand.log_likelihood(z, rs[:-1]), abs=1e-10)


@GAPS
@pytest.mark.parametrize("n", [33, 34, 35, 36])
@pytest.mark.parametrize("model", [Model.DCC, Model.ADCC, Model.CDCC])
def test_it_is_for_many_symbols_too(model: Model, n: int, missing: float) -> None:
    """Which two threads compute, with inverses by rows of four."""
    z, target, downside, g = panel(model, n=n, observations=21, missing=missing / 10)
    downside = downside + 0.3 * np.eye(n) if g else downside
    rs = [r for _, r in by_hand.paths(z, A, B, g, model.value, target, downside, target)]
    told, scores = log_likelihood(z, A, B, g, model=model, target=target, downside=downside)
    assert told == pytest.approx(by_hand.log_likelihood(z, rs[:-1]), abs=1e-9)
    for k in range(3 if g else 2):
        up, down = (np.array([A, B, g]) + sign * 1e-6 * np.eye(3)[k] for sign in (1, -1))
        rise = (
            log_likelihood(z, *up, model=model, target=target, downside=downside)[0]
            - log_likelihood(z, *down, model=model, target=target, downside=downside)[0]
        )
        assert scores[:, k].sum() == pytest.approx(rise / 2e-6, rel=1e-5, abs=1e-3)


@GAPS
@pytest.mark.parametrize("model", [m for m in MODELS if m is not Model.DECO])
def test_the_composite_likelihood_is_that_of_all_pairs_that_stand_side_by_side(
    model: Model, missing: float
) -> None:
    z, target, downside, g = panel(model, missing=missing)
    told, _ = log_likelihood(
        z, A, B, g, model=model, method=Method.COMPOSITE, target=target, downside=downside
    )
    by_pairs = 0.0
    for i in range(z.shape[1] - 1):
        two = np.ix_([i, i + 1], [i, i + 1])
        pair = z[:, i : i + 2]
        rs = [
            r for _, r in by_hand.paths(pair, A, B, g, model.value, target[two], downside[two], target[two])
        ]
        by_pairs += by_hand.log_likelihood(pair, rs[:-1])
    assert told == pytest.approx(by_pairs, abs=1e-10)


@GAPS
@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("method", [Method.FULL, Method.COMPOSITE])
@pytest.mark.parametrize("model", MODELS)
def test_the_score_is_the_slope(model: Model, method: Method, start: Start, missing: float) -> None:
    if model is Model.DECO and method is Method.COMPOSITE:
        pytest.skip("a DECO of two is the DCC")
    z, target, downside, g = panel(model, missing=missing)

    def at(a: float, b: float, c: float) -> tuple[float, Floats]:
        return log_likelihood(
            z, a, b, c, model=model, method=method, start=start, target=target, downside=downside
        )

    score = at(A, B, g)[1].sum(axis=0)
    for k in range(3 if g else 2):
        step = np.zeros(3)
        step[k] = 1e-6
        up, down = (at(A + s * step[0], B + s * step[1], g + s * step[2])[0] for s in (1, -1))
        assert score[k] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_of_bars_is_one_pass_over_the_series(model: Model) -> None:
    """Also with a restart in the middle: the state as lists, and back."""
    z, target, downside, g = panel(model, n=5)
    n = z.shape[1]
    omega, alpha, beta = 2e-6, 0.08, 0.9
    scale = np.linspace(1.0, 2.0, n) * 1e-3
    returns = z * scale + 1e-5
    margins = Margins(
        volatility=np.zeros(n, np.int64),
        mean=np.full(n, 1e-5),
        omega=np.full(n, omega),
        alpha=np.full(n, alpha),
        gamma=np.zeros(n),
        beta=np.full(n, beta),
        nu=np.zeros(n),
        variance=scale**2,
    )
    q0 = packed.pack(target)
    told = DccParameters(
        tuple("ABCDE"), model, margins, A, B, g, packed.pack(target), packed.pack(downside), q0, 1e9
    )
    variance, q = scale**2, q0.copy()
    streamed = []
    for t, row in enumerate(returns):
        if t == 70:
            variance, q = np.array(variance.tolist()), np.array(q.tolist())
        clipped, matrix = advance(told, variance, q, row)
        assert not clipped
        streamed.append(matrix)

    e = returns - 1e-5
    h = np.column_stack([by_hand.garch(e[:, i], omega, alpha, beta, scale[i] ** 2) for i in range(n)])
    standard = e / np.sqrt(h[:-1])
    rs = [r for _, r in by_hand.paths(standard, A, B, g, model.value, target, downside, target)]
    for t, matrix in enumerate(streamed, 1):
        deviation = np.sqrt(h[t])
        np.testing.assert_allclose(matrix / np.outer(deviation, deviation), rs[t], rtol=0, atol=1e-12)
