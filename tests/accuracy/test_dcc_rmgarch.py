"""Fits against R's rmgarch 1.4-2 on the panels of ../shared/data/dcc, under its conventions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.correlations import packed
from streams.correlations.dcc import DccParameters, Margins, Model, advance
from streams.correlations.fitting import (
    Method,
    Spec,
    Start,
    Target,
    VarianceStart,
    estimate,
    fit,
    log_likelihood,
)
from streams.correlations.packed import Floats
from tests.accuracy import dcc_by_hand as by_hand

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dcc"
PANELS = ["arch2", "arch4", "sim2_1250", "sim5_1250", "sim10_1250"]
CONVENTIONS = Spec(
    start=Start.ONES, variance_start=VarianceStart.MEAN, target=Target.COVARIANCE, clip=math.inf
)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no rmgarch references in ../shared/data/dcc")


def returns_of(name: str) -> Floats:
    return np.loadtxt(FOLDER / f"{name}.csv", delimiter=",", skiprows=1)


def reference(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((FOLDER / f"{name}_DCC_mvnorm_const.json").read_text())
    return told


@pytest.mark.parametrize("name", PANELS)
def test_at_its_own_parameters_likelihood_and_correlations_are_its_own(name: str) -> None:
    returns, told = returns_of(name), reference(name)
    mean, omega, alpha, beta = np.array(told["margins"]["values"]).T
    a, b = told["joint"].values()
    e = returns - mean
    first = (e**2).mean(axis=0)
    h = np.column_stack(
        [by_hand.garch(e[:, i], omega[i], alpha[i], beta[i], first[i]) for i in range(len(mean))]
    )
    z = e / np.sqrt(h[:-1])
    target = np.cov(z, rowvar=False)
    np.testing.assert_allclose(target, np.array(told["Qbar"]), rtol=0, atol=1e-10)
    correlations, _ = log_likelihood(z, a, b, start=Start.ONES, target=target)
    margins = sum(by_hand.normal(e[:, i], h[:-1, i]) for i in range(len(mean)))
    assert margins + correlations == pytest.approx(told["loglik"], abs=1e-8)

    n = len(mean)
    parameters = DccParameters(
        symbols=tuple(map(str, range(n))),
        model=Model.DCC,
        margins=Margins(
            volatility=np.zeros(n, np.int64),
            mean=mean,
            omega=omega,
            alpha=alpha,
            gamma=np.zeros(n),
            beta=beta,
            nu=np.zeros(n),
            variance=first,
        ),
        a=a,
        b=b,
        g=0.0,
        target=packed.pack(target),
        downside=np.zeros(packed.size(n)),
        q=packed.pack((1.0 - a) * target + a),
        clip=math.inf,
    )
    variance, q = first.copy(), parameters.q.copy()
    at = {t: k for k, t in enumerate(told["at"])}
    for t, row in enumerate(returns, 1):
        _, matrix = advance(parameters, variance, q, row)
        if t + 1 in at:
            deviation = np.sqrt(variance)
            np.testing.assert_allclose(deviation, told["sigma_at"][at[t + 1]], rtol=1e-12)
            np.testing.assert_allclose(
                matrix / np.outer(deviation, deviation), told["R_at"][at[t + 1]], rtol=0, atol=1e-12
            )


def test_the_exact_optimum_of_the_second_stage_is_found() -> None:
    """Figures of ../shared/data/README.md."""
    z = returns_of("eps_sim5_1250")
    found = estimate(z)
    assert found.converged
    assert (found.a, found.b) == pytest.approx((0.02732462751, 0.93883387046), abs=1e-6)
    pairs = estimate(z, method=Method.COMPOSITE)
    assert pairs.converged
    assert (pairs.a, pairs.b) == pytest.approx((0.03250848879, 0.93314419540), abs=1e-6)


@pytest.mark.parametrize("name", PANELS)
def test_a_whole_fit_is_not_less_likely(name: str) -> None:
    returns, told = returns_of(name), reference(name)
    found = fit(returns, told["meta"]["columns"], CONVENTIONS)
    assert found.converged, found.notes
    assert not found.notes
    assert found.log_likelihood is not None
    assert found.log_likelihood >= told["loglik"] - 1e-3
