"""The streaming model: one bar in, the covariance of the next one out, in O(n^2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.records import CorrelationModel as Model
from schemas.states import DccState
from streams.correlations import packed
from streams.correlations.dcc import kernel
from streams.correlations.dcc.parameters import DccParameters
from streams.correlations.model import Covariance
from streams.correlations.packed import Floats


@dataclass(frozen=True, slots=True)
class Dcc:
    """H(t+1) = D R D of log returns per bar, of the symbols that were fitted; the formulas: `DccParameters`.

    For panels with gaps and for bad input, what follows keeps H finite and positive semidefinite, always:

    - *No bar in this snapshot* (stale): no return. The variance becomes its own expectation. In the recursion of Q,
      b Q becomes k_i k_j Q_ij, with k = sqrt(a + b) for a stale symbol and sqrt(b) for a fresh one, and z is 0: among
      stale symbols Q thus becomes its own expectation, towards fresh ones correlations fade slowly to the target.
    - *Back after a gap*: the return since its last close, as one observation.
    - *A return beyond* ``clip`` *standard deviations* counts as ``clip`` of them, in variances and correlations.
    - *Variances* stay within 1e-30 and 1e6.
    """

    parameters: DccParameters
    fit: int = 0
    """Version of the fit."""
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {s: i for i, s in enumerate(self.parameters.symbols)})

    @property
    def name(self) -> str:
        """What results call it."""
        return self.parameters.model.value

    def step(self, state: DccState, closes: Mapping[str, float]) -> tuple[DccState, Covariance]:
        """Take one snapshot's closes; see `CovarianceModel.step`. Symbols without parameters are no part of it."""
        told = self.parameters
        returns = np.full(len(told.symbols), math.nan)
        for symbol, i in self._places.items():
            close = closes.get(symbol)
            if close is None:
                continue
            last, state.closes[i] = state.closes[i], close
            if last is not None:
                returns[i] = math.log(close / last)
                state.observations[i] += 1
        variance, q = np.array(state.variance), np.array(state.q)
        clipped, matrix = advance(told, variance, q, returns)
        state.variance, state.q, state.clipped = variance.tolist(), q.tolist(), clipped
        return state, Covariance(told.symbols, matrix, tuple(state.observations), self.fit)

    def begin(self, closes: Mapping[str, float], observations: Mapping[str, int]) -> DccState:
        """The state behind the data of the fit; ``closes`` and ``observations`` are what was seen so far."""
        told = self.parameters
        return DccState(
            closes=[closes.get(symbol) for symbol in told.symbols],
            variance=told.margins.variance.tolist(),
            q=told.q.tolist(),
            observations=[observations.get(symbol, 0) for symbol in told.symbols],
        )

    def go_on(
        self,
        before: Dcc,
        state: DccState,
        closes: Mapping[str, float],
        observations: Mapping[str, int],
    ) -> DccState:
        """The state as it goes on under this fit, after the one of ``before``.

        Variances of symbols that both have, and Q among them where both have the same kind of model, go on as they
        are: what happened since the data of this fit is in them. The rest begins as this fit says. Where that would
        not be positive semidefinite, all of Q begins as this fit says.
        """
        begun = self.begin(closes, observations)
        symbols = self.parameters.symbols
        kept = [(i, before._places[symbol]) for i, symbol in enumerate(symbols) if symbol in before._places]
        for i, was in kept:
            begun.variance[i] = state.variance[was]
        if before.parameters.model is not self.parameters.model or not kept:
            return begun
        new, old = (list(each) for each in zip(*kept, strict=True))
        q = packed.unpack(begun.q, len(symbols))
        q[np.ix_(new, new)] = packed.unpack(state.q, len(before.parameters.symbols))[np.ix_(old, old)]
        if len(kept) == len(symbols) or float(np.linalg.eigvalsh(q)[0]) >= 0.0:
            begun.q = packed.pack(q).tolist()
        return begun


def move(parameters: DccParameters, variance: Floats, q: Floats, returns: Floats) -> int:
    """One bar: ``variance`` (n,) and ``q`` (packed) move on in place; ``returns`` (n,) are NaN for a stale symbol.

    Returns how many residuals were clipped.
    """
    margins = parameters.margins
    z = np.empty(len(returns))
    clipped = kernel.residuals(
        returns,
        margins.volatility,
        margins.mean,
        margins.omega,
        margins.alpha,
        margins.gamma,
        margins.beta,
        parameters.clip,
        variance,
        z,
    )
    kernel.move(
        z,
        parameters.a,
        parameters.b,
        parameters.g,
        parameters.model is Model.CDCC,
        parameters.target,
        parameters.downside,
        q,
    )
    return clipped


def advance(
    parameters: DccParameters, variance: Floats, q: Floats, returns: Floats
) -> tuple[int, NDArray[np.float64]]:
    """`move`, and the covariance of the next bar, shape (n, n)."""
    clipped = move(parameters, variance, q, returns)
    matrix = np.empty((len(returns), len(returns)))
    kernel.covariance(variance, q, parameters.model is Model.DECO, matrix)
    return clipped, matrix
