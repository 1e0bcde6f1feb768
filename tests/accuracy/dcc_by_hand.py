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
        stale = np.isnan(row)
        row = np.where(stale, 0.0, row)
        shock = row * diagonal if model == "CDCC" else row
        fall = np.where(row < 0.0, row, 0.0)
        keep = np.where(stale, math.sqrt(a + b), math.sqrt(b))
        q = (
            (1.0 - a - b) * target
            - g * np.where(np.outer(stale, stale), 0.0, downside)
            + a * np.outer(shock, shock)
            + g * np.outer(fall, fall)
            + np.outer(keep, keep) * q
        )


def log_likelihood(z: Floats, correlations: list[Floats]) -> float:
    """Engle 2002, the correlation part."""
    total = 0.0
    for row, r in zip(z, correlations, strict=True):
        if np.isnan(row).any():
            continue
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
