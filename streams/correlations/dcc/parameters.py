"""What a fitted DCC-GARCH model is: its parameters, as a `Fit` record carries them and as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.records import CorrelationModel as Model
from schemas.records import VolatilityModel as Volatility
from streams.correlations.packed import Floats, size

CLIP = 10.0
"""Standard deviations; a residual beyond counts as that many, whatever its sign."""


_MODELS, _VOLATILITIES = tuple(Model), tuple(Volatility)
"""In the order of their codes in the records: append only."""


@dataclass(frozen=True, slots=True)
class Margins:
    """The variances of n symbols, each by a model of order (1, 1). All arrays have shape (n,).

    With r the log return of a bar, e = r - mean and z = e / sqrt(h):

    - GARCH (Bollerslev 1986): h' = omega + alpha e^2 + beta h
    - GJR (Glosten, Jagannathan & Runkle 1993): h' = omega + (alpha + gamma [e < 0]) e^2 + beta h
    - EGARCH (Nelson 1991): ln h' = omega + alpha (|z| - sqrt(2/pi)) + gamma z + beta ln h

    A constant variance is a GARCH whose alpha and beta are 0. ``nu`` are the degrees of freedom of Student's t, 0 for
    the normal distribution. ``variance`` is the forecast for the bar behind the data.
    """

    volatility: NDArray[np.int64]
    mean: Floats
    omega: Floats
    alpha: Floats
    gamma: Floats
    beta: Floats
    nu: Floats
    variance: Floats


@dataclass(frozen=True, slots=True)
class DccParameters:
    """A dynamic conditional correlation model of n symbols (Engle 2002, eq. 21), scalar a and b.

    With z the residuals standardised by their margins and ∘ the product by elements:

    - DCC:  Q' = (1 - a - b) S + a z z' + b Q
    - ADCC (Cappiello, Engle & Sheppard 2006): Q' = (1 - a - b) S - g N + a z z' + g n n' + b Q, with n = min(z, 0)
    - CDCC (Aielli 2013): as DCC, with z∘sqrt(diag Q) in the place of z
    - DECO (Engle & Kelly 2012): as DCC; every correlation is the mean of all

    R = Q by the roots of its diagonal on both sides, and the covariance H = D R D with D the roots of the variances.

    ``target`` (S), ``downside`` (N; zeros but for the ADCC) and ``q`` (Q for the bar behind the data) are upper
    triangles with the diagonal, by rows, shape (n(n+1)/2,).
    """

    symbols: tuple[str, ...]
    model: Model
    margins: Margins
    a: float
    b: float
    g: float
    target: Floats
    downside: Floats
    q: Floats
    clip: float = CLIP

    def to_record(self) -> dict[str, tuple[float, ...]]:
        """As the ``parameters`` of a `Fit`."""
        margins = self.margins
        told: dict[str, Sequence[float] | Floats] = {
            "model": (float(_MODELS.index(self.model)), self.a, self.b, self.g, self.clip),
            "volatility": margins.volatility.astype(np.float64),
            "mean": margins.mean,
            "omega": margins.omega,
            "alpha": margins.alpha,
            "gamma": margins.gamma,
            "beta": margins.beta,
            "nu": margins.nu,
            "variance": margins.variance,
            "target": self.target,
            "q": self.q,
        }
        if self.g:
            told["downside"] = self.downside
        return {name: tuple(float(each) for each in values) for name, values in told.items()}


def from_record(symbols: Sequence[str], told: Mapping[str, Sequence[float]]) -> DccParameters:
    """The parameters that a `Fit` carries. Raises KeyError or ValueError where it carries others."""
    n = len(symbols)
    arrays = {name: np.array(values, dtype=np.float64) for name, values in told.items()}
    code, a, b, g, clip = told["model"]
    by_symbol = {
        name: arrays[name].reshape(n)
        for name in ("mean", "omega", "alpha", "gamma", "beta", "nu", "variance")
    }
    volatility = arrays["volatility"].reshape(n).astype(np.int64)
    if not ((volatility >= 0) & (volatility < len(_VOLATILITIES))).all():
        raise ValueError(f"volatility models {sorted(set(volatility.tolist()))} are not all known")
    triangle = size(n)
    return DccParameters(
        symbols=tuple(symbols),
        model=_MODELS[int(code)],
        margins=Margins(volatility=volatility, **by_symbol),
        a=a,
        b=b,
        g=g,
        target=arrays["target"].reshape(triangle),
        downside=arrays["downside"].reshape(triangle) if g else np.zeros(triangle),
        q=arrays["q"].reshape(triangle),
        clip=clip,
    )


def code_of(volatility: Volatility) -> int:
    """The code of a volatility model in `Margins`."""
    return _VOLATILITIES.index(volatility)
