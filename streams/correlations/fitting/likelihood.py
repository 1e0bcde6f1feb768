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

from schemas.compiled import kernel, long_kernel
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
def _moved_whole(z: Floats, a: float, b: float, target: Floats, q: Floats, dq: Floats) -> None:
    """`_move` where every symbol has its residual, g is 0 and nothing is corrected: most bars of most fits."""
    n = len(z)
    rest = 1.0 - a - b
    for i in range(n):
        news, aim, row, by_a, by_b = z[i], target[i, i:], q[i, i:], dq[0, i, i:], dq[1, i, i:]
        other = z[i:]
        for j in range(len(row)):
            shock, was, to = news * other[j], row[j], aim[j]
            row[j] = rest * to + a * shock + b * was
            by_a[j] = by_a[j] * b + shock - to
            by_b[j] = by_b[j] * b + was - to


@kernel
def _inverted(upper: Floats, inverse: Floats, columns: Floats, precision: Floats) -> float:
    """R^-1 into the upper triangle of ``precision``; returns ln |R|, inf where R is not positive definite.

    All have shape (m, m), m a multiple of 4: R is bordered by ones on the diagonal, which change nothing. ``upper``
    holds R's upper triangle and becomes U of R = U'U; ``inverse`` becomes U^-1 and ``columns`` its transpose; their
    other triangles are 0. Every inner loop adds multiples of four rows to another: it can go several numbers at a time,
    as a sum over a row, whose order is fixed, cannot, and it loads and stores that row once instead of four times.
    """
    m = len(upper)
    determinant = 0.0
    for k in range(0, m, 4):
        for at in range(k, k + 4):
            pivot = upper[at, at]
            if pivot <= 0.0:
                return inf
            determinant += log(pivot)
            ahead = upper[at, at:]
            ahead *= 1.0 / sqrt(pivot)
            for i in range(at + 1, k + 4):
                times, row, behind = ahead[i - at], upper[i, i:], ahead[i - at :]
                for j in range(len(row)):
                    row[j] -= times * behind[j]
        for i in range(k + 4, m):
            row = upper[i, i:]
            r0, r1, r2, r3 = upper[k, i:], upper[k + 1, i:], upper[k + 2, i:], upper[k + 3, i:]
            t0, t1, t2, t3 = r0[0], r1[0], r2[0], r3[0]
            for j in range(len(row)):
                row[j] -= t0 * r0[j] + t1 * r1[j] + t2 * r2[j] + t3 * r3[j]
    for i in range(m - 1, -1, -1):
        row = inverse[i]
        row[i:] = 0.0
        whole = (i + 4) // 4 * 4
        for k in range(i + 1, whole):
            times, into, other = upper[i, k], row[k:], inverse[k, k:]
            for j in range(len(into)):
                into[j] -= times * other[j]
        for k in range(whole, m, 4):
            into = row[k:]
            r0, r1, r2, r3 = inverse[k, k:], inverse[k + 1, k:], inverse[k + 2, k:], inverse[k + 3, k:]
            t0, t1, t2, t3 = upper[i, k], upper[i, k + 1], upper[i, k + 2], upper[i, k + 3]
            for j in range(len(into)):
                into[j] -= t0 * r0[j] + t1 * r1[j] + t2 * r2[j] + t3 * r3[j]
        scale = 1.0 / upper[i, i]
        for j in range(i + 1, m):
            row[j] *= scale
        row[i] = scale
    for i in range(m):
        for j in range(i, m):
            columns[j, i] = inverse[i, j]
        precision[i, i:] = 0.0
    for k in range(0, m, 4):
        for i in range(k + 4):
            into = precision[i, i : k + 4]
            r0, r1 = columns[k, i : k + 4], columns[k + 1, i : k + 4]
            r2, r3 = columns[k + 2, i : k + 4], columns[k + 3, i : k + 4]
            t0, t1, t2, t3 = r0[0], r1[0], r2[0], r3[0]
            for j in range(len(into)):
                into[j] += t0 * r0[j] + t1 * r1[j] + t2 * r2[j] + t3 * r3[j]
    return determinant


@long_kernel
def full(
    begin: int,
    end: int,
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
    """L of the whole panel, of its bars [begin, end) alone.

    ``first`` is Q(1), shape (n, n), ``dfirst`` its derivatives, shape (3, n, n). To come to Q(begin) costs next to
    nothing beside an inverse for each bar, so that two threads can halve the time.

    ``equal``: of the DECO, whose ln |R| and R^-1 have closed forms (Engle & Kelly 2012, lemma 2.1).
    """
    n = z.shape[1]
    q, dq = first.copy(), dfirst.copy()
    used = 3 if g != 0.0 or np.any(downside) else 2
    m = (n + 3) // 4 * 4
    upper, inverse, columns, precision = np.eye(m), np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    x, scale, drift = np.empty(n), np.empty(n), np.empty(n)
    along = np.empty((3, n))
    total = 0.0
    for t in range(end):
        row = z[t]
        own = 0.0
        for i in range(n):
            if q[i, i] <= 0.0:
                return -inf
            scale[i] = 1.0 / sqrt(q[i, i])
            own += row[i] * row[i]
        if t < begin:
            pass
        elif isnan(own):
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
                own_scale, of, into = scale[i], q[i, i:], upper[i, i:n]
                others = scale[i:]
                for j in range(len(into)):
                    into[j] = of[j] * own_scale * others[j]
                into[0] = 1.0
            for i in range(n, m):
                upper[i, i] = 1.0
            determinant = _inverted(upper, inverse, columns, precision)
            if determinant == inf:
                return -inf
            x[:] = 0.0
            for i in range(n):
                times, of, into, others = row[i], precision[i, i:n], x[i:], row[i:]
                told = 0.0
                for j in range(1, len(of)):
                    into[j] += times * of[j]
                    told += of[j] * others[j]
                x[i] += told + times * of[0]
            quadratic = 0.0
            for i in range(n):
                quadratic += x[i] * row[i]
            total -= 0.5 * (determinant + quadratic - own)
            # The sum over i < j of w_ij dR_ij, w = R^-1 - x x': dQ_ij / sqrt(Q_ii Q_jj) of each pair, and what the
            # two scales move, -1/2 R_ij dQ_ii / Q_ii, for each symbol once.
            drift[:] = 0.0
            along[:] = 0.0
            for i in range(n):
                of, qs, others = precision[i, i:n], q[i, i:], scale[i:]
                left, own_scale, moved, xs = x[i], scale[i], drift[i:], x[i:]
                for k in range(used):
                    into, by = along[k, i:], dq[k, i, i:]
                    for j in range(1, len(of)):
                        into[j] += (of[j] - left * xs[j]) * own_scale * others[j] * by[j]
                told = 0.0
                for j in range(1, len(of)):
                    both = (of[j] - left * xs[j]) * own_scale * others[j] * qs[j]
                    moved[j] += both
                    told += both
                drift[i] += told
            for k in range(used):
                score = 0.0
                for i in range(n):
                    score -= along[k, i] - 0.5 * drift[i] * dq[k, i, i] * scale[i] ** 2
                scores[t, k] = score
        if used == 2 and not corrected and not isnan(own):
            _moved_whole(row, a, b, target, q, dq)
        else:
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
    has_g = g != 0.0 or np.any(downside)
    total = 0.0
    scores[:, :] = 0.0
    mixed, mixed_a, mixed_b = _kept(a, b, 1)
    for i in range(n - 1):
        # Of the two variances (0, 2) and the covariance (1) between them: all in registers.
        j = i + 1
        s0, s1, s2 = target[i, i], target[i, j], target[j, j]
        m0, m1, m2 = downside[i, i], downside[i, j], downside[j, j]
        q0, q1, q2 = first[i, i], first[i, j], first[j, j]
        a0, a1, a2 = dfirst[0, i, i], dfirst[0, i, j], dfirst[0, j, j]
        b0, b1, b2 = dfirst[1, i, i], dfirst[1, i, j], dfirst[1, j, j]
        g0, g1, g2 = dfirst[2, i, i], dfirst[2, i, j], dfirst[2, j, j]
        for t in range(observations):
            left, right = z[t, i], z[t, j]
            if q0 <= 0.0 or q2 <= 0.0:
                return -inf
            both = 1.0 / sqrt(q0 * q2)
            r = q1 * both
            rest_r = 1.0 - r * r
            if rest_r <= 0.0:
                return -inf
            no_left, no_right = isnan(left), isnan(right)
            left, right = 0.0 if no_left else left, 0.0 if no_right else right
            x0, x1, x2 = left * left, left * right, right * right
            if not (no_left or no_right):
                over = 1.0 / rest_r
                quadratic = (x0 + x2 - 2.0 * r * x1) * over
                total -= 0.5 * (log(rest_r) + quadratic - x0 - x2)
                slope = (r - r * quadratic + x1) * over
                half = 0.5 * r
                by0, by2 = half / q0, half / q2
                scores[t, 0] += slope * (a1 * both - by0 * a0 - by2 * a2)
                scores[t, 1] += slope * (b1 * both - by0 * b0 - by2 * b2)
                if has_g:
                    scores[t, 2] += slope * (g1 * both - by0 * g0 - by2 * g2)
            n0, n1, n2 = 0.0, 0.0, 0.0
            if has_g:
                n0 = x0 if left < 0.0 else 0.0
                n1 = x1 if left < 0.0 and right < 0.0 else 0.0
                n2 = x2 if right < 0.0 else 0.0
            c0 = c1 = c2 = 1.0
            d1a = d1b = 0.0
            if corrected:
                c0, c1, c2 = q0, sqrt(q0 * q2), q2
                half = 0.5 * a * x1 / c1
                d1a, d1b = half * (a0 * q2 + q0 * a2), half * (b0 * q2 + q0 * b2)
            k0, k0a = (a + b, 1.0) if no_left else (b, 0.0)
            k2, k2a = (a + b, 1.0) if no_right else (b, 0.0)
            k1, k1a, k1b = b, 0.0, 1.0
            if no_left and no_right:
                k1, k1a = a + b, 1.0
            elif no_left or no_right:
                k1, k1a, k1b = mixed, mixed_a, mixed_b
            shock0, shock1, shock2 = x0 * c0, x1 * c1, x2 * c2
            a1 = a1 * k1 + k1a * q1 + shock1 - s1 + d1a
            b1 = b1 * k1 + k1b * q1 - s1 + d1b
            a0 = a0 * k0 + k0a * q0 + shock0 - s0 + (a * x0 * a0 if corrected else 0.0)
            b0 = b0 * k0 + q0 - s0 + (a * x0 * b0 if corrected else 0.0)
            a2 = a2 * k2 + k2a * q2 + shock2 - s2 + (a * x2 * a2 if corrected else 0.0)
            b2 = b2 * k2 + q2 - s2 + (a * x2 * b2 if corrected else 0.0)
            y0, y1, y2 = 0.0, 0.0, 0.0
            if has_g:
                y0 = 0.0 if no_left else m0
                y1 = 0.0 if no_left and no_right else m1
                y2 = 0.0 if no_right else m2
                g0, g1, g2 = g0 * k0 + n0 - y0, g1 * k1 + n1 - y1, g2 * k2 + n2 - y2
            q0 = rest * s0 - g * y0 + a * shock0 + g * n0 + k0 * q0
            q1 = rest * s1 - g * y1 + a * shock1 + g * n1 + k1 * q1
            q2 = rest * s2 - g * y2 + a * shock2 + g * n2 + k2 * q2
    return total
