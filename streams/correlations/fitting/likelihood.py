"""The second stage's log-likelihood with its score, in one pass over the residuals.

With R(t) of Q(t) (`streams.correlations.dcc.parameters`), theta = (a, b, g), of residuals z, shape (T, n), the
correlation part of the normal log-likelihood (Engle 2002, eq. 27; without the terms that the margins count):

    L = -1/2 sum over t of ( ln |R| + z' R^-1 z - z'z )
    dL/dtheta = -sum over t and i < j of ( (R^-1)_ij - x_i x_j ) dR_ij/dtheta,  with x = R^-1 z

dQ/dtheta follows Q's own recursion. The composite likelihood (Pakel, Shephard, Sheppard & Engle 2021) sums the same
over contiguous pairs of symbols, each a bivariate model whose Q is that of the pair. A residual may be missing (NaN): Q
then moves as it does in the stream, and the bar adds nothing to L; in the composite, nothing to that of the pair.
(Counted as 0 it would reward correlations of 1, whose ln |R| is lowest.) All kernels fill ``scores``, shape (T, 3), and
return L; a Q that is not positive definite makes L -inf.
"""

from __future__ import annotations

from math import inf, isnan, log, sqrt

import numpy as np

from schemas.compiled import kernel
from streams.correlations.packed import Floats


@kernel
def _kept(a: float, b: float, stale: int) -> tuple[float, float, float]:
    """What of Q_ij is kept where so many of the two have no residual (`streams.correlations.dcc.model.Dcc`).

    With its derivatives in a and b.
    """
    if stale == 0:
        return b, 0.0, 1.0
    if stale == 2:
        return a + b, 1.0, 1.0
    keep = sqrt(b * (a + b))
    return keep, 0.5 * b / keep, 0.5 * (a + 2.0 * b) / keep


@kernel
def _move(
    z: Floats,
    a: float,
    b: float,
    g: float,
    corrected: bool,
    target: Floats,
    downside: Floats,
    q: Floats,
    dq: Floats,
) -> None:
    """Q, shape (n, n), and its derivatives, shape (3, n, n), of the next bar, in place; lower triangles are not."""
    n = len(z)
    rest = 1.0 - a - b
    root, shocks = np.ones(n), np.zeros(n)
    change = np.zeros((3, n))
    for i in range(n):
        if not isnan(z[i]):
            shocks[i] = z[i]
        if corrected:
            root[i] = sqrt(q[i, i])
            for k in range(2):
                change[k, i] = 0.5 * dq[k, i, i] / root[i]
    for i in range(n):
        for j in range(i, n):
            zz = shocks[i] * shocks[j]
            shock = zz * root[i] * root[j]
            nn = zz if shocks[i] < 0.0 and shocks[j] < 0.0 else 0.0
            stale = isnan(z[i]) + isnan(z[j])
            keep, keep_a, keep_b = _kept(a, b, stale)
            was, m = q[i, j], 0.0 if stale == 2 else downside[i, j]
            q[i, j] = rest * target[i, j] - g * m + a * shock + g * nn + keep * was
            da = dq[0, i, j] * keep + keep_a * was + shock - target[i, j]
            db = dq[1, i, j] * keep + keep_b * was - target[i, j]
            if corrected:
                da += a * zz * (change[0, i] * root[j] + root[i] * change[0, j])
                db += a * zz * (change[1, i] * root[j] + root[i] * change[1, j])
            dq[0, i, j] = da
            dq[1, i, j] = db
            dq[2, i, j] = dq[2, i, j] * keep + nn - m


@kernel
def _inverted(upper: Floats, inverse: Floats, columns: Floats, precision: Floats) -> float:
    """R^-1 into the upper triangle of ``precision``; returns ln |R|, inf where R is not positive definite.

    ``upper`` holds R's upper triangle and becomes U of R = U'U; ``inverse`` becomes U^-1 and ``columns`` its
    transpose. Every inner loop adds a multiple of one row to another: that can go several numbers at a time, and a sum
    over a row, whose order is fixed, cannot.
    """
    n = len(upper)
    determinant = 0.0
    for k in range(n):
        pivot = upper[k, k]
        if pivot <= 0.0:
            return inf
        determinant += log(pivot)
        ahead = upper[k, k:]
        ahead *= 1.0 / sqrt(pivot)
        for i in range(k + 1, n):
            times, row, behind = ahead[i - k], upper[i, i:], ahead[i - k :]
            for j in range(len(row)):
                row[j] -= times * behind[j]
    for i in range(n - 1, -1, -1):
        row = inverse[i]
        row[i:] = 0.0
        for k in range(i + 1, n):
            times, into, other = upper[i, k], row[k:], inverse[k, k:]
            for j in range(len(into)):
                into[j] -= times * other[j]
        scale = 1.0 / upper[i, i]
        for j in range(i + 1, n):
            row[j] *= scale
        row[i] = scale
    for i in range(n):
        for j in range(i, n):
            columns[j, i] = inverse[i, j]
        precision[i, i:] = 0.0
    for k in range(n):
        for i in range(k + 1):
            times, into, other = columns[k, i], precision[i, i : k + 1], columns[k, i : k + 1]
            for j in range(len(into)):
                into[j] += times * other[j]
    return determinant


@kernel
def full(
    z: Floats,
    a: float,
    b: float,
    g: float,
    corrected: bool,
    equal: bool,
    target: Floats,
    downside: Floats,
    first: Floats,
    dfirst: Floats,
    scores: Floats,
) -> float:
    """L of the whole panel. ``first`` is Q(1), shape (n, n), ``dfirst`` its derivatives, shape (3, n, n).

    ``equal``: of the DECO, whose ln |R| and R^-1 have closed forms (Engle & Kelly 2012, lemma 2.1).
    """
    observations, n = z.shape
    q, dq = first.copy(), dfirst.copy()
    used = 3 if g != 0.0 or np.any(downside) else 2
    upper, inverse, columns, precision = (
        np.zeros((n, n)),
        np.zeros((n, n)),
        np.zeros((n, n)),
        np.zeros((n, n)),
    )
    x, scale = np.empty(n), np.empty(n)
    total = 0.0
    for t in range(observations):
        row = z[t]
        own = 0.0
        for i in range(n):
            if q[i, i] <= 0.0:
                return -inf
            scale[i] = 1.0 / sqrt(q[i, i])
            own += row[i] * row[i]
        if isnan(own):
            for k in range(3):
                scores[t, k] = 0.0
        elif equal:
            rho, drho = 0.0, np.zeros(3)
            for i in range(n):
                for j in range(i + 1, n):
                    r = q[i, j] * scale[i] * scale[j]
                    rho += r
                    for k in range(used):
                        dr = dq[k, i, j] * scale[i] * scale[j]
                        dr -= 0.5 * r * (dq[k, i, i] * scale[i] ** 2 + dq[k, j, j] * scale[j] ** 2)
                        drho[k] += dr
            pairs = 0.5 * n * (n - 1)
            rho /= pairs
            wide = 1.0 + (n - 1) * rho
            if rho >= 1.0 or wide <= 0.0:
                return -inf
            common = 0.0
            for i in range(n):
                common += row[i]
            common *= common
            quadratic = (own - rho * common / wide) / (1.0 - rho)
            total -= 0.5 * ((n - 1) * log(1.0 - rho) + log(wide) + quadratic - own)
            slope = (n - 1) / wide - (n - 1) / (1.0 - rho) + quadratic / (1.0 - rho)
            slope -= common / (wide * wide) / (1.0 - rho)
            for k in range(used):
                scores[t, k] = -0.5 * slope * drho[k] / pairs
        else:
            for i in range(n):
                for j in range(i, n):
                    upper[i, j] = q[i, j] * scale[i] * scale[j]
                upper[i, i] = 1.0
            determinant = _inverted(upper, inverse, columns, precision)
            if determinant == inf:
                return -inf
            quadratic = 0.0
            for i in range(n):
                told = precision[i, i] * row[i]
                for j in range(i):
                    told += precision[j, i] * row[j]
                for j in range(i + 1, n):
                    told += precision[i, j] * row[j]
                x[i] = told
                quadratic += told * row[i]
            total -= 0.5 * (determinant + quadratic - own)
            score = np.zeros(3)
            for i in range(n):
                for j in range(i + 1, n):
                    weight = precision[i, j] - x[i] * x[j]
                    both = scale[i] * scale[j]
                    r = q[i, j] * both
                    for k in range(used):
                        dr = dq[k, i, j] * both
                        dr -= 0.5 * r * (dq[k, i, i] * scale[i] ** 2 + dq[k, j, j] * scale[j] ** 2)
                        score[k] -= weight * dr
            for k in range(used):
                scores[t, k] = score[k]
        _move(row, a, b, g, corrected, target, downside, q, dq)
    return total


@kernel
def composite(
    z: Floats,
    a: float,
    b: float,
    g: float,
    corrected: bool,
    target: Floats,
    downside: Floats,
    first: Floats,
    dfirst: Floats,
    scores: Floats,
) -> float:
    """L summed over the n - 1 pairs of symbols that stand beside each other."""
    observations, n = z.shape
    rest = 1.0 - a - b
    used = 3 if g != 0.0 or np.any(downside) else 2
    total = 0.0
    scores[:, :] = 0.0
    q, dq = np.empty(3), np.empty((3, 3))
    s, m, zz, nn, roots = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.ones(3)
    for i in range(n - 1):
        rows, columns = (i, i, i + 1), (i, i + 1, i + 1)
        for c in range(3):
            q[c] = first[rows[c], columns[c]]
            s[c] = target[rows[c], columns[c]]
            m[c] = downside[rows[c], columns[c]]
            for k in range(3):
                dq[k, c] = dfirst[k, rows[c], columns[c]]
        for t in range(observations):
            left, right = z[t, i], z[t, i + 1]
            if q[0] <= 0.0 or q[2] <= 0.0:
                return -inf
            both = 1.0 / sqrt(q[0] * q[2])
            r = q[1] * both
            rest_r = 1.0 - r * r
            if rest_r <= 0.0:
                return -inf
            no_left, no_right = isnan(left), isnan(right)
            if no_left or no_right:
                left, right = 0.0 if no_left else left, 0.0 if no_right else right
                cross = 0.0
            else:
                own = left * left + right * right
                cross = left * right
                quadratic = (own - 2.0 * r * cross) / rest_r
                total -= 0.5 * (log(rest_r) + quadratic - own)
                slope = (r - r * quadratic + cross) / rest_r
                for k in range(used):
                    dr = dq[k, 1] * both - 0.5 * r * (dq[k, 0] / q[0] + dq[k, 2] / q[2])
                    scores[t, k] += slope * dr
            stale = (2 * no_left, no_left + no_right, 2 * no_right)
            zz[0], zz[1], zz[2] = left * left, cross, right * right
            nn[0] = zz[0] if left < 0.0 else 0.0
            nn[1] = cross if left < 0.0 and right < 0.0 else 0.0
            nn[2] = zz[2] if right < 0.0 else 0.0
            if corrected:
                roots[0], roots[1], roots[2] = q[0], sqrt(q[0] * q[2]), q[2]
            for c in (1, 0, 2):  # the middle one needs the others as they were
                shock = zz[c] * roots[c]
                keep, keep_a, keep_b = _kept(a, b, stale[c])
                mean = 0.0 if stale[c] == 2 else m[c]
                da = dq[0, c] * keep + keep_a * q[c] + shock - s[c]
                db = dq[1, c] * keep + keep_b * q[c] - s[c]
                if corrected:
                    if c == 1:
                        half = 0.5 * a * cross / roots[1]
                        da += half * (dq[0, 0] * q[2] + q[0] * dq[0, 2])
                        db += half * (dq[1, 0] * q[2] + q[0] * dq[1, 2])
                    else:
                        da += a * zz[c] * dq[0, c]
                        db += a * zz[c] * dq[1, c]
                dq[0, c], dq[1, c] = da, db
                dq[2, c] = dq[2, c] * keep + nn[c] - mean
                q[c] = rest * s[c] - g * mean + a * shock + g * nn[c] + keep * q[c]
    return total
