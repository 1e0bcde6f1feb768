"""DCC, aDCC, cDCC and DECO written from the papers' equations, a bar at a time: the reference for kernels and fits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from streams.correlations.packed import Floats


def paths(
    z: Floats, a: float, b: float, g: float, model: str, target: Floats, downside: Floats, first: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """(Q, R) of each bar, and of the one behind the last; ``z`` of shape (T, n)."""
    q = first.copy()
    for row in [*z, None]:
        diagonal = np.sqrt(np.diag(q))
        r = q / np.outer(diagonal, diagonal)
        if model == "DECO":
            n = len(r)
            mean = (r.sum() - n) / (n * (n - 1))
            r = (1.0 - mean) * np.eye(n) + mean * np.ones((n, n))
        yield q.copy(), r
        if row is None:
            return
        shock = row * diagonal if model == "CDCC" else row
        fall = np.where(row < 0.0, row, 0.0)
        q = (
            (1.0 - a - b) * target
            - g * downside
            + a * np.outer(shock, shock)
            + g * np.outer(fall, fall)
            + b * q
        )


def log_likelihood(z: Floats, correlations: list[Floats]) -> float:
    """Engle 2002, the correlation part."""
    total = 0.0
    for row, r in zip(z, correlations, strict=True):
        sign, determinant = np.linalg.slogdet(r)
        assert sign > 0
        total -= 0.5 * (determinant + row @ np.linalg.solve(r, row) - row @ row)
    return total


def garch(e: Floats, omega: float, alpha: float, beta: float, first: float) -> Floats:
    """Variances of a GARCH(1, 1), shape (T + 1,)."""
    h = [first]
    for residual in e:
        h.append(omega + alpha * residual**2 + beta * h[-1])
    return np.array(h)


def normal(e: Floats, h: Floats) -> float:
    """Log-likelihood of residuals with variances ``h``."""
    return -0.5 * float(np.sum(math.log(2.0 * math.pi) + np.log(h) + e**2 / h))


def simulated(
    seed: int, observations: int, n: int, a: float, b: float, g: float = 0.0, model: str = "DCC"
) -> tuple[Floats, Floats]:
    """Residuals of a known truth, shape (T, n), and the target behind them; a burn-in of 200 bars is left out.

    For the aDCC Q returns to S because the downside's expectation is that of normal residuals with correlations S.
    """
    rng = np.random.default_rng(seed)
    loadings = rng.uniform(0.3, 0.9, n)
    target = np.outer(loadings, loadings)
    np.fill_diagonal(target, 1.0)
    downside = np.zeros((n, n))
    if g:
        draws = rng.multivariate_normal(np.zeros(n), target, 400_000)
        fall = np.minimum(draws, 0.0)
        downside = fall.T @ fall / len(draws)
    q, rows = target.copy(), []
    for _ in range(observations + 200):
        diagonal = np.sqrt(np.diag(q))
        r = q / np.outer(diagonal, diagonal)
        if model == "DECO":
            mean = (r.sum() - n) / (n * (n - 1))
            r = (1.0 - mean) * np.eye(n) + mean
        row = np.linalg.cholesky(r) @ rng.standard_normal(n)
        rows.append(row)
        shock = row * diagonal if model == "CDCC" else row
        fall = np.minimum(row, 0.0)
        q = (
            (1.0 - a - b) * target
            - g * downside
            + a * np.outer(shock, shock)
            + g * np.outer(fall, fall)
            + b * q
        )
    return np.array(rows[200:]), target
