"""The kernels of a step: variances, Q and the covariance, over arrays. tests/accuracy/dcc_by_hand.py is their twin.

Triangles are packed by rows with the diagonal, shape (n(n+1)/2,).
"""

from __future__ import annotations

from math import exp, isnan, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import kernel
from streams.correlations.packed import Floats

GARCH, GJR, EGARCH = 0, 1, 2
LOWEST, HIGHEST = 1e-30, 1e6
"""Between them a variance of log returns stays; no market's is near."""
_MEAN_ABS = sqrt(2.0 / pi)
"""E|z| of a standard normal, as arch takes it for every distribution."""


@kernel
def bounded(h: float) -> float:
    """A variance within what can be computed with."""
    return min(max(h, LOWEST), HIGHEST)


@kernel
def next_variance(
    kind: int, omega: float, alpha: float, gamma: float, beta: float, h: float, e: float
) -> float:
    """The variance after a residual ``e`` that had the variance ``h``."""
    if kind == EGARCH:
        z = e / sqrt(h)
        told = omega + alpha * (abs(z) - _MEAN_ABS) + gamma * z + beta * log(h)
        return bounded(exp(min(told, 30.0)))
    arch = alpha + gamma if kind == GJR and e < 0.0 else alpha
    return bounded(omega + arch * e * e + beta * h)


@kernel
def expected_variance(kind: int, omega: float, alpha: float, gamma: float, beta: float, h: float) -> float:
    """The variance after a bar without a return: its expectation (EGARCH: that of its logarithm)."""
    if kind == EGARCH:
        return bounded(exp(min(omega + beta * log(h), 30.0)))
    arch = alpha + 0.5 * gamma if kind == GJR else alpha
    return bounded(omega + (arch + beta) * h)


@kernel
def residuals(
    returns: Floats,
    kinds: NDArray[np.int64],
    mean: Floats,
    omega: Floats,
    alpha: Floats,
    gamma: Floats,
    beta: Floats,
    clip: float,
    variance: Floats,
    z: Floats,
) -> int:
    """Standardised residuals into ``z``, NaN for a symbol without a return (NaN); ``variance`` moves on in place.

    All have shape (n,). Returns how many residuals were clipped.
    """
    clipped = 0
    for i in range(len(returns)):
        h = variance[i]
        if isnan(returns[i]):
            z[i] = returns[i]
            variance[i] = expected_variance(kinds[i], omega[i], alpha[i], gamma[i], beta[i], h)
            continue
        told = (returns[i] - mean[i]) / sqrt(h)
        if abs(told) > clip:
            clipped += 1
            told = clip if told > 0.0 else -clip
        z[i] = told
        variance[i] = next_variance(kinds[i], omega[i], alpha[i], gamma[i], beta[i], h, told * sqrt(h))
    return clipped


@kernel
def move(
    z: Floats, a: float, b: float, g: float, corrected: bool, target: Floats, downside: Floats, q: Floats
) -> None:
    """Q of the next bar, in place. See `streams.correlations.dcc.model.Dcc` for a symbol without a residual (NaN)."""
    n = len(z)
    shock, fall, keep = np.empty(n), np.empty(n), np.empty(n)
    k = 0
    for i in range(n):
        fresh = not isnan(z[i])
        keep[i] = sqrt(b) if fresh else sqrt(a + b)
        shock[i] = 0.0 if not fresh else z[i] * sqrt(q[k]) if corrected else z[i]
        fall[i] = min(shock[i], 0.0)
        k += n - i
    rest = 1.0 - a - b
    k = 0
    for i in range(n):
        scaled, kept, down = a * shock[i], keep[i], g * fall[i]
        if g == 0.0:
            for j in range(i, n):
                q[k] = rest * target[k] + scaled * shock[j] + kept * keep[j] * q[k]
                k += 1
        else:
            for j in range(i, n):
                mean = 0.0 if isnan(z[i]) and isnan(z[j]) else g * downside[k]
                q[k] = rest * target[k] - mean + scaled * shock[j] + down * fall[j] + kept * keep[j] * q[k]
                k += 1


@kernel
def covariance(variance: Floats, q: Floats, equal: bool, out: Floats) -> None:
    """H = D R D into ``out``, shape (n, n); ``equal``: every correlation is the mean of all."""
    n = len(variance)
    scale, deviation = np.empty(n), np.empty(n)
    k = 0
    for i in range(n):
        scale[i] = 1.0 / sqrt(q[k]) if q[k] > 0.0 else 0.0
        deviation[i] = sqrt(variance[i])
        k += n - i
    common = 0.0
    if equal and n > 1:
        k = 0
        for i in range(n):
            k += 1
            for j in range(i + 1, n):
                common += q[k] * scale[i] * scale[j]
                k += 1
        common /= 0.5 * n * (n - 1)
    k = 0
    for i in range(n):
        out[i, i] = variance[i]
        row, own, of_row = out[i, i + 1 :], q[k + 1 : k + n - i], deviation[i]
        beside, theirs = scale[i + 1 :], deviation[i + 1 :]
        for j in range(len(row)):  # along rows of their own: several numbers at a time
            r = common if equal else own[j] * scale[i] * beside[j]
            row[j] = min(max(r, -1.0), 1.0) * of_row * theirs[j]
        for j in range(i):
            out[i, j] = out[j, i]
        k += n - i
