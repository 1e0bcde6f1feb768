"""The second stage: a, b and g of given residuals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from streams.correlations.dcc import Model
from streams.correlations.fitting import likelihood
from streams.correlations.fitting.targets import Target, definite, target
from streams.correlations.packed import Floats

FULL_UP_TO = 25
"""Symbols; beyond, the composite likelihood is what is maximised where it is left open."""
_ROUNDS = 6
"""Of the cDCC's target, which depends on a and b."""
_START = {2: (0.03, 0.93), 3: (0.02, 0.93, 0.01)}


class Method(StrEnum):
    """Which likelihood is maximised."""

    AUTO = "auto"
    FULL = "full"
    COMPOSITE = "composite"


class Start(StrEnum):
    """What Q is for the first bar."""

    TARGET = "target"
    """The target."""
    ONES = "ones"
    """(1 - a - b) S + a 1 1' + b S, as rmgarch has it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Scalars of the correlations and what they rest on.

    ``log_likelihood`` is L of the module likelihood at the optimum, full or composite as ``method`` says;
    ``errors`` are standard errors of (a, b) or (a, b, g): the sandwich H^-1 (sum of s s') H^-1 of the second stage
    with the residuals taken as they are, H by differences of the analytic score s (White 1982); NaN where H is
    singular. ``target`` and ``downside`` have shape (n, n).
    """

    a: float
    b: float
    g: float
    errors: tuple[float, ...]
    log_likelihood: float
    method: Method
    target: Floats
    downside: Floats
    converged: bool
    iterations: int
    notes: tuple[str, ...] = ()


class _Panel(NamedTuple):
    """What a likelihood is computed of."""

    z: Floats
    model: Model
    method: Method
    start: Start
    target: Floats
    downside: Floats


def estimate(
    z: Floats,
    model: Model = Model.DCC,
    *,
    method: Method = Method.AUTO,
    start: Start = Start.TARGET,
    kind: Target = Target.CORRELATION,
) -> Estimate:
    """Fit a, b (and g) to standardised residuals, shape (T, n), n >= 2.

    Where some are missing (NaN), the composite likelihood is what uses all that are there, and AUTO chooses it. The
    DECO is always fitted by its full likelihood, which is O(n^2). For the cDCC the target is that of its own residuals
    z∘sqrt(diag Q), which depend on a and b: both are estimated in turn (Aielli 2013, section 3.2).
    """
    if method is Method.AUTO:
        is_small = z.shape[1] <= FULL_UP_TO and not np.isnan(z).any()
        method = Method.FULL if is_small or model is Model.DECO else Method.COMPOSITE
    matrix, note = target(z, kind)
    downside = _downside(z) if model is Model.ADCC else np.zeros_like(matrix)
    panel = _Panel(np.ascontiguousarray(z), model, method, start, matrix, downside)
    found = _maximised(panel, None)
    if model is Model.CDCC:
        for _ in range(_ROUNDS):
            matrix, note = target(_corrected(z, found.a, found.b), Target.CORRELATION)
            panel = panel._replace(target=matrix)
            before, found = found, _maximised(panel, found)
            if max(abs(before.a - found.a), abs(before.b - found.b)) < 1e-7:
                break
    return found if note is None else replace(found, notes=(note,))


def _downside(z: Floats) -> Floats:
    """The mean of n n', n = min(z, 0), over the bars that both of a pair have."""
    seen = ~np.isnan(z)
    down = np.minimum(np.where(seen, z, 0.0), 0.0)
    common = np.maximum(seen.T.astype(np.float64) @ seen, 1.0)
    matrix: Floats = down.T @ down / common
    return matrix if seen.all() else definite(matrix)[0]


def log_likelihood(
    z: Floats,
    a: float,
    b: float,
    g: float = 0.0,
    *,
    model: Model = Model.DCC,
    method: Method = Method.FULL,
    start: Start = Start.TARGET,
    target: Floats,
    downside: Floats | None = None,
) -> tuple[float, Floats]:
    """L at given parameters, and the scores of each bar, shape (T, 3)."""
    downside = np.zeros_like(target) if downside is None else downside
    return _likelihood(_Panel(np.ascontiguousarray(z), model, method, start, target, downside), a, b, g)


def _likelihood(panel: _Panel, a: float, b: float, g: float) -> tuple[float, Floats]:
    first, change = panel.target.copy(), np.zeros((3, *panel.target.shape))
    if panel.start is Start.ONES:
        first = (1.0 - a) * panel.target + a
        change[0] = 1.0 - panel.target
    scores = np.zeros((len(panel.z), 3))
    corrected = panel.model is Model.CDCC
    told = panel.z, a, b, g, corrected
    matrices = panel.target, panel.downside, first, change, scores
    if panel.method is Method.COMPOSITE:
        return likelihood.composite(*told, *matrices), scores
    return likelihood.full(*told, panel.model is Model.DECO, *matrices), scores


def _maximised(panel: _Panel, near: Estimate | None) -> Estimate:
    """BFGS over x, with (a, b, g delta) = exp(x) / (1 + sum of exp(x)): all positive, their sum below 1.

    delta is the largest eigenvalue of S^-1/2 N S^-1/2 (aDCC): so Q stays positive definite.
    """
    count = 3 if panel.model is Model.ADCC else 2
    scale = np.ones(count)
    if count == 3:
        root = np.linalg.cholesky(panel.target)
        inner = np.linalg.solve(root, np.linalg.solve(root, panel.downside).T)
        scale[2] = float(np.linalg.eigvalsh(inner)[-1])
    origin = np.array(_START[count] if near is None else (near.a, near.b, near.g)[:count])
    origin = np.maximum(origin, 1e-6) * scale
    x = np.log(origin / max(1.0 - origin.sum(), 1e-6))
    if (
        panel.method is Method.FULL
        and panel.model is not Model.DECO
        and panel.z.shape[1] > 8
        and near is None
    ):
        # The composite optimum is near, and costs next to nothing.
        x = _descended(_Minus(panel._replace(method=Method.COMPOSITE), scale), x, 1e-5).x
    minus = _Minus(panel, scale)
    found = _descended(minus, x, 1e-8)
    theta = minus.theta(found.x)
    told, scores = _likelihood(panel, *_three(theta))
    # At 1e-8 the line search may find no better point: then the score says whether this one is the optimum.
    converged = bool(found.success) or float(np.abs(found.jac).max()) < 1e-5
    a, b, g = _three(theta)
    return Estimate(
        a=a,
        b=b,
        g=g,
        errors=_errors(panel, theta, scores[:, :count]),
        log_likelihood=told,
        method=panel.method,
        target=panel.target,
        downside=panel.downside,
        converged=converged and math.isfinite(told),
        iterations=int(found.nit),
    )


def _descended(minus: _Minus, x: Floats, tolerance: float) -> Any:
    """BFGS from ``x``, its first step scaled by the outer product of the scores (Berndt, Hall, Hall & Hausman 1974)."""
    options = {"gtol": tolerance, "maxiter": 100, "hess_inv0": minus.curvature(x)}
    return minimize(minus, x, jac=True, method="BFGS", options=options)


class _Minus:
    """-L / T and its gradient in x; see `_maximised`."""

    def __init__(self, panel: _Panel, scale: Floats) -> None:
        self._panel, self._scale = panel, scale

    def theta(self, x: Floats) -> Floats:
        """(a, b) or (a, b, g)."""
        return self._shares(x) / self._scale

    def _shares(self, x: Floats) -> Floats:
        weights = np.exp(np.minimum(x, 40.0))
        shares: Floats = weights / (1.0 + weights.sum())
        return shares

    def curvature(self, x: Floats) -> Floats:
        """The inverse of the scores' mean outer product, of -L / T in x."""
        _, scores = _likelihood(self._panel, *_three(self.theta(x)))
        shares = self._shares(x)
        by_share = scores[:, : len(x)] / self._scale
        slopes = shares * (by_share - (by_share @ shares)[:, None])
        ridge = 1e-6 * np.eye(len(x))
        inverse = np.asarray(np.linalg.inv(slopes.T @ slopes / len(scores) + ridge), dtype=np.float64)
        return (inverse + inverse.T) / 2.0

    def __call__(self, x: Floats) -> tuple[float, Floats]:
        told, scores = _likelihood(self._panel, *_three(self.theta(x)))
        if not math.isfinite(told):
            return 1e10, np.zeros(len(x))
        shares = self._shares(x)
        slope = scores[:, : len(x)].sum(axis=0) / self._scale
        gradient = shares * (slope - shares @ slope)
        observations = len(self._panel.z)
        return -told / observations, -gradient / observations


def _three(theta: Floats) -> tuple[float, float, float]:
    a, b, *g = theta.tolist()
    return a, b, g[0] if g else 0.0


def _errors(panel: _Panel, theta: Floats, scores: Floats) -> tuple[float, ...]:
    count = len(theta)
    hessian = np.empty((count, count))
    for k in range(count):
        step = np.zeros(count)
        step[k] = 1e-5 * max(theta[k], 1e-3)
        beside = _likelihood(panel, *_three(theta + step))[1][:, :count].sum(axis=0)
        hessian[k] = (beside - scores.sum(axis=0)) / step[k]
    try:
        inverse = np.linalg.inv((hessian + hessian.T) / 2.0)
    except np.linalg.LinAlgError:
        return (math.nan,) * count
    variance = (inverse @ (scores.T @ scores) @ inverse).diagonal()
    return tuple(math.sqrt(each) if 0.0 <= each < math.inf else math.nan for each in variance.tolist())


def _corrected(z: Floats, a: float, b: float) -> Floats:
    """z* = z∘sqrt(diag Q), shape (T, n): the diagonal of Q depends on nothing but a, b and z."""
    q = np.ones(z.shape[1])
    corrected = np.empty_like(z)
    for t, row in enumerate(z):
        corrected[t] = row * np.sqrt(q)
        news = np.where(np.isnan(row), q, corrected[t] ** 2)
        q = (1.0 - a - b) + a * news + b * q
    return corrected
