"""Variance-covariance risk of a linear portfolio with normal returns of mean zero.

With notionals w (currency), the covariance S of log returns per bar and the level c, the loss over one bar is
normal with standard deviation sigma = sqrt(w' S w), and

    VaR_c  = z_c sigma                     z_c = Phi^-1(c)
    CVaR_c = sigma phi(z_c) / (1 - c)      the expected loss given that VaR is passed

(McNeil, Frey and Embrechts, *Quantitative Risk Management*, 2nd ed. 2015, section 2.3). VaR is homogeneous of
degree one in w, so by Euler's theorem it is the sum of its components w_i dVaR/dw_i = z_c w_i (S w)_i / sigma
(ibid., section 8.5). Sums are exactly rounded, hence independent of their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from streams.correlations import packed

_NORMAL = NormalDist()


class ParametricRisk(NamedTuple):
    """One bar's risk, in the currency of the notionals; a loss is positive."""

    volatility: float
    value_at_risk: float
    conditional_value_at_risk: float
    components: tuple[float, ...]
    """Parts of VaR in the order of the notionals; a hedge's part is negative."""


def parametric_risk(
    notionals: Sequence[float], covariance: Sequence[float], confidence: float
) -> ParametricRisk:
    """Risk of ``notionals`` (n, signed, currency) under ``covariance`` (n(n+1)/2, packed by rows, per bar).

    Raises:
        ValueError: ``confidence`` is not in (0.5, 1), or the shapes do not fit.
    """
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence must be above 0.5 and below 1, not {confidence}")
    n = len(notionals)
    if len(covariance) != packed.size(n):
        raise ValueError(f"{n} notionals need a covariance of {packed.size(n)} values, not {len(covariance)}")
    terms = (packed.unpack(covariance, n) * np.array(notionals)).tolist()
    variances = [notional * math.fsum(row) for notional, row in zip(notionals, terms, strict=True)]
    # Rounding may leave a perfectly hedged portfolio a hair below zero.
    volatility = math.sqrt(max(math.fsum(variances), 0.0))
    if volatility == 0.0:
        return ParametricRisk(0.0, 0.0, 0.0, (0.0,) * n)
    z = _NORMAL.inv_cdf(confidence)
    return ParametricRisk(
        volatility=volatility,
        value_at_risk=z * volatility,
        conditional_value_at_risk=volatility * _NORMAL.pdf(z) / (1.0 - confidence),
        components=tuple(z * part / volatility for part in variances),
    )
