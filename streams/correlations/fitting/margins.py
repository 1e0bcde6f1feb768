"""The margins: one GARCH model for each symbol, through ``arch``."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

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
_DECAY = 0.94
"""Of the weights of arch's backcast."""
_PERSISTENCE, _NEWS = ((0.5, 0.8), (0.95, 0.99)), (0.02, 0.05, 0.1, 0.2)
"""Grids at whose best points the search begins, one for each kind of persistence: alpha + gamma / 2 + beta, and what
beta leaves of it. Where variance hardly moves, the likelihood has more than one optimum."""


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
        optimum = None
        if distribution == "normal" and volatility is not Volatility.EGARCH:
            optimum = _optimum(seen * scale, volatility is Volatility.GJR)
        if optimum is not None:
            found, is_good = model.fix(optimum), True
        else:
            found = model.fit(disp="off", show_warning=False)
            is_good = not found.convergence_flag
    told = dict(zip(found.params.index, found.params.to_numpy(), strict=True))
    if not (is_good and all(map(math.isfinite, told.values()))):
        return _riskmetrics(returns, f"{volatility.value} did not converge")
    margin = _unscaled(volatility, told, scale)
    if start is VarianceStart.MEAN:
        return _filtered(_polished(margin, seen, scale), returns, None)
    first = float(found.conditional_volatility[0]) ** 2 / scale**2
    filtered = _filtered(margin, returns, first)
    return replace(filtered, log_likelihood=float(found.loglikelihood) + len(seen) * math.log(scale))


def _optimum(y: Floats, leverage: bool) -> Floats | None:
    """mu, omega, alpha, (gamma), beta where arch's normal likelihood is largest; None where none is found.

    arch looks for it itself, for every model, by slopes that are differences, in Python: several times as long. Here
    L-BFGS-B goes, with the slopes of `normal_slopes`, over numbers whose bounds do not depend on each other, where y
    has variance 1: the mean, the logarithm of the variance to which all returns, the persistence, the part of it that
    is news rather than the variance before, and the part of the news that residuals above 0 make.
    """
    weights = _DECAY ** np.arange(min(75, len(y)))
    backcast = float(weights @ (y[: len(weights)] - y.mean()) ** 2 / weights.sum())
    kinds = 5 if leverage else 4

    def values(x: Floats) -> tuple[float, float, float, float]:
        level, persistence, news, above = math.exp(x[1]), x[2], x[3], x[4] if leverage else 0.5
        return (
            level * (1.0 - persistence),
            2.0 * persistence * news * above,
            2.0 * persistence * news * (1.0 - above),
            persistence * (1.0 - news),
        )

    def minus(x: Floats) -> tuple[float, Floats]:
        omega, above, below, beta = values(x)
        total, by = normal_slopes(y - x[0], omega, above, below, beta, backcast)
        level, p, f, g = math.exp(x[1]), x[2], x[3], x[4] if leverage else 0.5
        by_news = 2.0 * (by[2] * g + by[3] * (1.0 - g))
        slope = np.array(
            [
                by[0],
                by[1] * omega,
                by_news * f + by[4] * (1.0 - f) - by[1] * level,
                p * (by_news - by[4]),
                2.0 * p * f * (by[2] - by[3]),
            ]
        )
        return total / len(y), slope[:kinds] / len(y)

    bounds = [(None, None), (-6.0, 6.0), (0.0, 1.0 - 1e-6), (0.0, 1.0), (0.0, 1.0)][:kinds]
    options = {"ftol": 1e-15, "gtol": 1e-6, "maxiter": 200}
    optima = []
    for persistences in _PERSISTENCE:
        starts = [np.array([y.mean(), 0.0, p, f, 0.5])[:kinds] for p, f in product(persistences, _NEWS)]
        best = min(starts, key=lambda x: minus(x)[0])
        optima.append(minimize(minus, best, jac=True, method="L-BFGS-B", bounds=bounds, options=options))
    found = min(optima, key=lambda found: found.fun)
    if not (found.success and math.isfinite(found.fun)):
        return None
    omega, above, below, beta = values(found.x)
    return np.array([found.x[0], omega, above, *([below - above] if leverage else []), beta])


@kernel
def normal_slopes(
    e: Floats, omega: float, above: float, below: float, beta: float, backcast: float
) -> tuple[float, Floats]:
    """1/2 sum of ln h + e^2 / h over the residuals ``e``, shape (T,), and its slopes.

    h(t+1) = omega + w e(t)^2 + beta h(t), w = ``above`` or, for e < 0, ``below``; h(1) is what follows on a bar whose
    squared residual and variance are ``backcast``, half above and half below 0. The slopes, shape (5,), are those in
    the mean, omega, above, below and beta.
    """
    total, slopes, dh = 0.0, np.zeros(5), np.zeros(5)
    h = omega + (0.5 * (above + below) + beta) * backcast
    dh[1], dh[2], dh[3], dh[4] = 1.0, 0.5 * backcast, 0.5 * backcast, backcast
    for t in range(len(e)):
        square = e[t] * e[t]
        total += 0.5 * (math.log(h) + square / h)
        weight = 0.5 * (1.0 - square / h) / h
        for k in range(5):
            slopes[k] += weight * dh[k]
        slopes[0] -= e[t] / h
        is_below = e[t] < 0.0
        news = below if is_below else above
        for k in range(5):
            dh[k] *= beta
        dh[0] -= 2.0 * news * e[t]
        dh[1] += 1.0
        dh[3 if is_below else 2] += square
        dh[4] += h
        h = omega + news * square + beta * h
    return total, slopes


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
