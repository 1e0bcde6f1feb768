"""Targets of the correlations: what Q returns to, of standardised residuals."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from streams.correlations.packed import Floats

LEAST_EIGENVALUE = 1e-6
"""A target has none below: two identical symbols make one of 0, and no likelihood could be computed."""
_SQRT5 = math.sqrt(5.0)


class Target(StrEnum):
    """How the target is estimated."""

    CORRELATION = "correlation"
    """z'z / T, scaled to ones on the diagonal."""
    COVARIANCE = "covariance"
    """The centred covariance with divisor T - 1, not scaled, as rmgarch has it."""
    SHRINKAGE = "shrinkage"
    """`shrunk`, scaled to ones on the diagonal."""


def target(z: Floats, kind: Target) -> tuple[Floats, str | None]:
    """The target, shape (n, n), of residuals of shape (T, n), and what was done to it; see `definite`.

    Where some are missing (NaN) it is the correlation of each pair over the bars that both have, whatever the ``kind``.
    """
    seen = ~np.isnan(z)
    if not seen.all():
        return definite(_of_pairs(z, seen))
    match kind:
        case Target.COVARIANCE:
            matrix = np.atleast_2d(np.cov(z, rowvar=False))
        case Target.CORRELATION:
            matrix = correlation(z.T @ z / len(z))
        case Target.SHRINKAGE:
            matrix = correlation(shrunk(z))
    return definite(matrix)


def _of_pairs(z: Floats, seen: NDArray[np.bool_]) -> Floats:
    filled = np.where(seen, z, 0.0)
    squares = (filled**2).T @ seen
    scale = np.sqrt(squares * squares.T)
    matrix: Floats = np.divide(filled.T @ filled, scale, out=np.zeros_like(scale), where=scale > 0.0)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def definite(matrix: Floats) -> tuple[Floats, str | None]:
    """``matrix``, mixed with the identity where its least eigenvalue is below `LEAST_EIGENVALUE`; and that in words."""
    least = float(np.linalg.eigvalsh(matrix)[0])
    if least >= LEAST_EIGENVALUE:
        return matrix, None
    weight = (LEAST_EIGENVALUE - least) / (1.0 - least)
    mixed = (1.0 - weight) * matrix + weight * np.eye(len(matrix))
    return (
        mixed,
        f"the target is singular (least eigenvalue {least:.1e}): {weight:.1e} of the identity mixed in",
    )


def correlation(covariance: Floats) -> Floats:
    """A covariance scaled to ones on its diagonal; a variance of 0 has correlations of 0."""
    deviation = np.sqrt(covariance.diagonal())
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0.0)
    matrix: Floats = covariance * np.outer(scale, scale)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def shrunk(z: Floats) -> Floats:
    """The analytical non-linear shrinkage of a sample covariance, shape (n, n), of z of shape (T, n), T >= 12.

    (Ledoit & Wolf 2020, *Analytical nonlinear shrinkage of large-dimensional covariance matrices*, Annals of
    Statistics 48(5), section 4 and, for n > T, appendix C.) Each sample eigenvalue is shrunk by an Epanechnikov
    estimate of their density and its Hilbert transform; eigenvectors stay.
    """
    observations, n = z.shape
    eigenvalues, vectors = np.linalg.eigh(z.T @ z / observations)
    kept = min(n, observations)
    lam = np.maximum(eigenvalues[n - kept :], 1e-12)
    h = observations ** (-1.0 / 3.0)
    ratio = n / observations
    width = h * lam[None, :]
    x = (lam[:, None] - lam[None, :]) / width
    density = np.mean(np.maximum(1.0 - x**2 / 5.0, 0.0) / width, axis=1) * 3.0 / 4.0 / _SQRT5
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.where(
            np.abs(x) == _SQRT5,
            0.0,
            (1.0 - x**2 / 5.0) * np.log(np.abs((_SQRT5 - x) / (_SQRT5 + x))),
        )
    hilbert = np.mean((-3.0 / 10.0 / math.pi * x + 3.0 / 4.0 / _SQRT5 / math.pi * logarithm) / width, axis=1)
    if n <= observations:
        d = lam / (
            (math.pi * ratio * lam * density) ** 2 + (1.0 - ratio - math.pi * ratio * lam * hilbert) ** 2
        )
    else:
        at_zero = (
            (
                3.0 / 10.0 / h**2
                + 3.0
                / 4.0
                / _SQRT5
                / h
                * (1.0 - 1.0 / 5.0 / h**2)
                * math.log((1.0 + _SQRT5 * h) / abs(1.0 - _SQRT5 * h))
            )
            / math.pi
            * float(np.mean(1.0 / lam))
        )
        null = 1.0 / (math.pi * (n - observations) / observations * at_zero)
        rest = lam / (math.pi**2 * lam**2 * (density**2 + hilbert**2))
        d = np.concatenate([np.full(n - observations, null), rest])
    matrix: Floats = (vectors * d) @ vectors.T
    return (matrix + matrix.T) / 2.0
