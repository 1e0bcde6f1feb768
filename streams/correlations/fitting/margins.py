"""The margins: one GARCH model for each symbol, through ``arch``."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from arch import arch_model
from numpy.typing import NDArray
from scipy.optimize import minimize

from schemas.compiled import kernel
from streams.correlations.dcc import Volatility, code_of
from streams.correlations.dcc.kernel import bounded, expected_variance, next_variance
from streams.correlations.packed import Floats

RISKMETRICS = 0.94
"""Decay of the variance that stands in for a model that cannot be fitted."""
LEAST_VARIANCE = 1e-10
"""(0.1 basis points)^2: a start for the variance of a symbol whose price has not moved."""
FEWEST = 30
"""Returns below which no GARCH is fitted."""


class VarianceStart(StrEnum):
    """Which variance the first residual is given."""

    BACKCAST = "backcast"
    """What follows from arch's: an exponentially weighted mean of the first 75 squared residuals before it."""
    MEAN = "mean"
    """The mean of all squared residuals, as rugarch has it."""


@dataclass(frozen=True, slots=True)
class Margin:
    """A fitted variance of one symbol; the formulas: `streams.correlations.dcc.parameters.Margins`.

    ``variance`` has shape (T + 1,): the last is the forecast for the bar behind the data. ``residuals``, shape (T,),
    are standardised, NaN where there was no return.
    """

    volatility: int
    mean: float
    omega: float
    alpha: float
    gamma: float
    beta: float
    nu: float
    variance: Floats
    residuals: Floats
    log_likelihood: float
    note: str | None = None
    """What was done instead, in words, where the model could not be fitted."""

    @property
    def parameters(self) -> tuple[float, float, float, float, float]:
        """mean, omega, alpha, gamma, beta."""
        return self.mean, self.omega, self.alpha, self.gamma, self.beta


def fit_margin(
    returns: Floats,
    volatility: Volatility = Volatility.GARCH,
    distribution: str = "normal",
    start: VarianceStart = VarianceStart.BACKCAST,
) -> Margin:
    """Fit one symbol's variance.

    Args:
        returns: log returns, shape (T,); NaN where the symbol had no bar, the next is the return since its last one.
        distribution: ``normal``, or ``t`` (Student's; only with ``start`` BACKCAST).

    Where there is nothing to fit to (fewer than `FEWEST` returns, a price that does not move) or arch does not
    converge, the margin is the variance of RiskMetrics, and its ``note`` says so.
    """
    seen = returns[~np.isnan(returns)]
    deviation = float(np.std(seen)) if len(seen) else 0.0
    if len(seen) < FEWEST:
        return _riskmetrics(returns, f"{len(seen)} returns, {FEWEST} are needed")
    if deviation < math.sqrt(LEAST_VARIANCE) / 10.0 or len(np.unique(seen)) < FEWEST // 3:
        return _riskmetrics(returns, "the price hardly moves")
    scale = 1.0 / deviation
    model = arch_model(
        seen * scale,
        mean="Constant",
        vol="EGARCH" if volatility is Volatility.EGARCH else "GARCH",
        p=1,
        o=0 if volatility is Volatility.GARCH else 1,
        q=1,
        dist=distribution,
        rescale=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.fit(disp="off", show_warning=False)
    told = dict(zip(found.params.index, found.params.to_numpy(), strict=True))
    if found.convergence_flag or not all(map(math.isfinite, told.values())):
        return _riskmetrics(returns, f"{volatility.value} did not converge")
    margin = _unscaled(volatility, told, scale)
    if start is VarianceStart.MEAN:
        return _filtered(_polished(margin, seen, scale), returns, None)
    first = float(found.conditional_volatility[0]) ** 2 / scale**2
    filtered = _filtered(margin, returns, first)
    return replace(filtered, log_likelihood=float(found.loglikelihood) + len(seen) * math.log(scale))


def _unscaled(volatility: Volatility, told: dict[str, float], scale: float) -> Margin:
    """The parameters for returns that are not ``scale`` times as large."""
    omega, beta = told["omega"], told["beta[1]"]
    if volatility is Volatility.EGARCH:
        omega += (beta - 1.0) * 2.0 * math.log(scale)
    else:
        omega /= scale**2
    return Margin(
        volatility=code_of(volatility),
        mean=told["mu"] / scale,
        omega=omega,
        alpha=told["alpha[1]"],
        gamma=told.get("gamma[1]", 0.0),
        beta=beta,
        nu=told.get("nu", 0.0),
        variance=np.empty(0),
        residuals=np.empty(0),
        log_likelihood=math.nan,
    )


def _riskmetrics(returns: Floats, why: str) -> Margin:
    margin = Margin(
        volatility=code_of(Volatility.GARCH),
        mean=0.0,
        omega=(1.0 - RISKMETRICS) * LEAST_VARIANCE / 100.0,
        alpha=1.0 - RISKMETRICS,
        gamma=0.0,
        beta=RISKMETRICS,
        nu=0.0,
        variance=np.empty(0),
        residuals=np.empty(0),
        log_likelihood=math.nan,
        note=f"{why}: RiskMetrics variance instead",
    )
    seen = returns[~np.isnan(returns)]
    return _filtered(margin, returns, max(float(np.var(seen)) if len(seen) else 0.0, LEAST_VARIANCE))


def _filtered(margin: Margin, returns: Floats, first: float | None) -> Margin:
    """The margin with its path; ``first`` variance: None is the mean of the squared residuals."""
    e = returns - margin.mean
    if first is None:
        first = float(np.nanmean(e * e))
    variance = np.empty(len(e) + 1)
    variance_path(e, margin.volatility, *margin.parameters[1:], first, variance)
    before = variance[:-1]
    likelihood = -0.5 * float(np.nansum(math.log(2.0 * math.pi) + np.log(before) + e * e / before))
    return replace(margin, variance=variance, residuals=e / np.sqrt(before), log_likelihood=likelihood)


@kernel
def variance_path(
    e: Floats, kind: int, omega: float, alpha: float, gamma: float, beta: float, first: float, out: Floats
) -> None:
    """Variances into ``out``, shape (T + 1,), of the residuals ``e``, shape (T,), NaN where there is none."""
    out[0] = bounded(first)
    for t in range(len(e)):
        if math.isnan(e[t]):
            out[t + 1] = expected_variance(kind, omega, alpha, gamma, beta, out[t])
        else:
            out[t + 1] = next_variance(kind, omega, alpha, gamma, beta, out[t], e[t])


def _polished(margin: Margin, seen: Floats, scale: float) -> Margin:
    """The optimum of the normal likelihood whose first variance is the mean of the squared residuals."""
    scaled = seen * scale
    log_scale = 2.0 * math.log(scale)
    is_log = margin.volatility == code_of(Volatility.EGARCH)
    omega = margin.omega - (margin.beta - 1.0) * log_scale if is_log else margin.omega * scale**2
    # The optimiser works on numbers of like size: percent of the arch parameters for omega would drown.
    origin = np.array([margin.mean * scale, omega, margin.alpha, margin.gamma, margin.beta])
    free = np.array([True, True, True, margin.volatility != code_of(Volatility.GARCH), True])
    variance = np.empty(len(scaled) + 1)

    def minus(values: NDArray[np.float64]) -> float:
        told = origin.copy()
        told[free] = values
        mean, omega, alpha, gamma, beta = told.tolist()
        if not is_log and (
            omega <= 0.0 or alpha < 0.0 or beta < 0.0 or alpha + gamma < 0.0 or alpha + beta >= 1.0
        ):
            return math.inf
        e = scaled - mean
        variance_path(e, margin.volatility, omega, alpha, gamma, beta, float(np.mean(e * e)), variance)
        return 0.5 * float(np.sum(np.log(variance[:-1]) + e * e / variance[:-1]))

    best = origin[free]
    for _ in range(4):  # a simplex that starts anew leaves the corner in which it had collapsed
        options = {"xatol": 1e-10, "fatol": 1e-12, "maxfev": 4000}
        best = minimize(minus, best, method="Nelder-Mead", options=options).x
    told = origin.copy()
    told[free] = best
    mean, omega, alpha, gamma, beta = told.tolist()
    omega = omega + (beta - 1.0) * log_scale if is_log else omega / scale**2
    return replace(margin, mean=mean / scale, omega=omega, alpha=alpha, gamma=gamma, beta=beta)
