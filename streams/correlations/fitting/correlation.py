"""The second stage: a, b and g of given residuals."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from streams.correlations.dcc import Model
from streams.correlations.fitting import likelihood
from streams.correlations.fitting.targets import Target, definite, target
from streams.correlations.packed import Floats

FULL_UP_TO = 25
"""Symbols; beyond, the composite likelihood is what is maximised where it is left open."""
_THREADED_FROM = 32
"""Symbols from which the full likelihood is computed by two threads."""
_ROUNDS = 6
"""Of the cDCC's target, which depends on a and b."""
_START = {2: (0.03, 0.93), 3: (0.02, 0.93, 0.01)}
_NEAR, _FLAT, _THERE = 1e-4, 1e-5, 1e-9
"""Slopes of L / T: from where Newton's steps begin, of what counts as an optimum, and where they end."""
_MOST_STEPS = 20
_DIFFERENCE = 1e-6
"""Of x, for differences of slopes."""


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
    panel, note = _panel(z, model, method, start, kind)
    found = _maximised(panel, None)
    if model is Model.CDCC:
        for _ in range(_ROUNDS):
            panel, note = _retargeted(panel, found.a, found.b)
            before, found = found, _maximised(panel, found)
            if max(abs(before.a - found.a), abs(before.b - found.b)) < 1e-7:
                break
    return found if note is None else replace(found, notes=(note,))


def unfitted(
    z: Floats,
    a: float,
    b: float,
    model: Model = Model.DCC,
    *,
    method: Method = Method.AUTO,
    start: Start = Start.TARGET,
    kind: Target = Target.CORRELATION,
) -> Estimate:
    """As `estimate`, with a and b that are given, and g = 0; standard errors are NaN."""
    panel, note = _panel(z, model, method, start, kind)
    if model is Model.CDCC:
        panel, note = _retargeted(panel, a, b)
    told, _ = _likelihood(panel, a, b, 0.0)
    return Estimate(
        a=a,
        b=b,
        g=0.0,
        errors=(math.nan,) * (3 if model is Model.ADCC else 2),
        log_likelihood=told,
        method=panel.method,
        target=panel.target,
        downside=panel.downside,
        converged=True,
        iterations=0,
        notes=() if note is None else (note,),
    )


def _panel(z: Floats, model: Model, method: Method, start: Start, kind: Target) -> tuple[_Panel, str | None]:
    """What is fitted to, and what was done to the target."""
    if method is Method.AUTO:
        is_small = z.shape[1] <= FULL_UP_TO and not np.isnan(z).any()
        method = Method.FULL if is_small or model is Model.DECO else Method.COMPOSITE
    matrix, note = target(z, kind)
    downside = _downside(z) if model is Model.ADCC else np.zeros_like(matrix)
    return _Panel(np.ascontiguousarray(z), model, method, start, matrix, downside), note


def _retargeted(panel: _Panel, a: float, b: float) -> tuple[_Panel, str | None]:
    """With the target of the cDCC's own residuals at a and b, and what was done to it."""
    matrix, note = target(_corrected(panel.z, a, b), Target.CORRELATION)
    return panel._replace(target=matrix), note


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
    observations, n = panel.z.shape
    rest = *told, panel.model is Model.DECO, *matrices
    if n < _THREADED_FROM:
        return likelihood.full(0, observations, *rest), scores
    # Always two halves, whatever the machine: a sum in another order would be another fit.
    half = observations // 2
    with ThreadPoolExecutor(1) as thread:
        first_half = thread.submit(likelihood.full, 0, half, *rest)
        second_half = likelihood.full(half, observations, *rest)
        return first_half.result() + second_half, scores


def _maximised(panel: _Panel, near: Estimate | None) -> Estimate:
    """The optimum over x, with (a, b, g delta) = exp(x) / (1 + sum of exp(x)): all positive, their sum below 1.

    delta is the largest eigenvalue of S^-1/2 N S^-1/2 (aDCC): so Q stays positive definite. BFGS comes near, Newton's
    steps come there: a line search cannot, as L no longer changes in floating point where its slope still does.
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
        x, _ = _descended(_Minus(panel._replace(method=Method.COMPOSITE), scale), x, _NEAR)
    minus = _Minus(panel, scale)
    x, descents = _descended(minus, x, _NEAR)
    hessian = minus.hessian(x)
    x, steps = _stepped(minus, x, hessian)
    if minus.steepest(x) > _FLAT:
        x, more = _descended(minus, x, _THERE)
        descents, hessian = descents + more, minus.hessian(x)
    told, _ = minus.at(x)
    a, b, g = _three(minus.theta(x))
    return Estimate(
        a=a,
        b=b,
        g=g,
        errors=_errors(minus, x, hessian),
        log_likelihood=told,
        method=panel.method,
        target=panel.target,
        downside=panel.downside,
        converged=math.isfinite(told) and minus.steepest(x) < _FLAT,
        iterations=descents + steps,
    )


def _descended(minus: _Minus, x: Floats, tolerance: float) -> tuple[Floats, int]:
    """BFGS from ``x``, its first step scaled by the outer product of the scores (Berndt, Hall, Hall & Hausman 1974).

    Until the slope is below ``tolerance``; also returns the number of iterations.
    """
    options = {"gtol": tolerance, "maxiter": 100, "hess_inv0": minus.curvature(x)}
    found = minimize(minus, x, jac=True, method="BFGS", options=options)
    return found.x, int(found.nit)


def _stepped(minus: _Minus, x: Floats, hessian: Floats) -> tuple[Floats, int]:
    """Newton's steps from ``x``, which is near, all with the Hessian at ``x``; and how many there were.

    Where L is not concave at ``x`` there are none. Each step flattens the slope.
    """
    if not (np.isfinite(hessian).all() and float(np.linalg.eigvalsh(hessian)[0]) > 0.0):
        return x, 0
    for step in range(_MOST_STEPS):
        steepest = minus.steepest(x)
        if steepest < _THERE:
            return x, step
        nearer = x - np.linalg.solve(hessian, minus.slope(x))
        if not minus.steepest(nearer) < 0.5 * steepest:
            return x, step
        x = nearer
    return x, _MOST_STEPS


class _Minus:
    """-L / T and its slope in x; see `_maximised`."""

    def __init__(self, panel: _Panel, scale: Floats) -> None:
        self._panel, self.scale = panel, scale
        self._seen: dict[bytes, tuple[float, Floats]] = {}

    def at(self, x: Floats) -> tuple[float, Floats]:
        """L and the scores of each bar, shape (T, 3); what was computed once is remembered."""
        key = x.tobytes()
        if key not in self._seen:
            self._seen[key] = _likelihood(self._panel, *_three(self.theta(x)))
        return self._seen[key]

    def theta(self, x: Floats) -> Floats:
        """(a, b) or (a, b, g)."""
        return self.shares(x) / self.scale

    def shares(self, x: Floats) -> Floats:
        weights = np.exp(np.minimum(x, 40.0))
        shares: Floats = weights / (1.0 + weights.sum())
        return shares

    def curvature(self, x: Floats) -> Floats:
        """The inverse of the scores' mean outer product, of -L / T in x."""
        _, scores = self.at(x)
        shares = self.shares(x)
        by_share = scores[:, : len(x)] / self.scale
        slopes = shares * (by_share - (by_share @ shares)[:, None])
        ridge = 1e-6 * np.eye(len(x))
        inverse = np.asarray(np.linalg.inv(slopes.T @ slopes / len(scores) + ridge), dtype=np.float64)
        return (inverse + inverse.T) / 2.0

    def slope(self, x: Floats) -> Floats:
        """Of -L / T in x."""
        _, scores = self.at(x)
        shares = self.shares(x)
        slope = scores[:, : len(x)].sum(axis=0) / self.scale
        gradient: Floats = shares * (slope - shares @ slope) / -len(self._panel.z)
        return gradient

    def steepest(self, x: Floats) -> float:
        """The largest part of the slope; inf where there is no likelihood."""
        return float(np.abs(self.slope(x)).max()) if math.isfinite(self.at(x)[0]) else math.inf

    def hessian(self, x: Floats) -> Floats:
        """Of -L / T in x, by forward differences of the slope."""
        here = self.slope(x)
        rows = [(self.slope(x + step) - here) / _DIFFERENCE for step in _DIFFERENCE * np.eye(len(x))]
        matrix: Floats = np.array(rows)
        return (matrix + matrix.T) / 2.0

    def __call__(self, x: Floats) -> tuple[float, Floats]:
        told, _ = self.at(x)
        if not math.isfinite(told):
            return 1e10, np.zeros(len(x))
        return -told / len(self._panel.z), self.slope(x)


def _three(theta: Floats) -> tuple[float, float, float]:
    a, b, *g = theta.tolist()
    return a, b, g[0] if g else 0.0


def _errors(minus: _Minus, x: Floats, hessian: Floats) -> tuple[float, ...]:
    shares, scores = minus.shares(x), minus.at(x)[1][:, : len(x)]
    change = (np.diag(shares) - np.outer(shares, shares)) / minus.scale[:, None]
    try:
        # At an optimum the slope is 0: d theta / dx alone carries the Hessian over.
        inverse = change @ np.linalg.inv(hessian * len(scores)) @ change.T
    except np.linalg.LinAlgError:
        return (math.nan,) * len(x)
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
