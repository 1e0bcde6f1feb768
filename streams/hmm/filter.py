"""The Hamilton filter of a Gaussian hidden Markov model."""

from __future__ import annotations

from math import exp, inf, log

import numpy as np

from schemas.compiled import kernel
from streams.correlations.packed import Floats


@kernel
def filtered(
    x: Floats,
    before: Floats,
    is_first: bool,
    transition: Floats,
    means: Floats,
    roots: Floats,
    constants: Floats,
    out: Floats,
) -> float:
    """State probabilities given all bars up to each, into ``out``, shape (T, K); returns the log-likelihood of ``x``.

    (Hamilton 1989, eq. 4 to 8; Hamilton 1994, section 22.4.) With p(t|t-1) = A' p(t-1) and f the densities:

        p(t) = p(t|t-1) f(x(t)) / (1' (p(t|t-1) f(x(t)))), and the log-likelihood sums the logarithms of that divisor

    Args:
        x: features, shape (T, d).
        before: probabilities of the K states before the first bar; where ``is_first``, those at the first bar.
        transition: A, shape (K, K), rows sum to 1.
        means: shape (K, d).
        roots: inverses of the lower Cholesky factors of the covariances, shape (K, d, d).
        constants: -1/2 (d ln 2 pi + ln of each covariance's determinant), shape (K,).

    A bar that no state could have made (every density is 0) leaves the prediction as it is, with -745 of
    log-likelihood: the logarithm of the least double.
    """
    length, features = x.shape
    states = len(before)
    density, predicted = np.empty(states), np.empty(states)
    total = 0.0
    now = before.copy()
    for t in range(length):
        for j in range(states):
            if is_first and t == 0:
                predicted[j] = now[j]
            else:
                told = 0.0
                for i in range(states):
                    told += now[i] * transition[i, j]
                predicted[j] = told
        highest = -inf
        for j in range(states):
            square = 0.0
            for a in range(features):
                told = 0.0
                for b in range(a + 1):
                    told += roots[j, a, b] * (x[t, b] - means[j, b])
                square += told * told
            density[j] = constants[j] - 0.5 * square
            if predicted[j] > 0.0:
                highest = max(highest, density[j])
        whole = 0.0
        for j in range(states):
            now[j] = predicted[j] * exp(min(density[j] - highest, 0.0)) if predicted[j] > 0.0 else 0.0
            whole += now[j]
        if not whole > 0.0 or highest < -1e6:
            now[:] = predicted
            total -= 745.0
        else:
            for j in range(states):
                now[j] /= whole
            total += highest + log(whole)
        out[t] = now
    return total
