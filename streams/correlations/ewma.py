"""The exponentially weighted covariance of RiskMetrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from schemas.states import EwmaState
from streams.correlations import packed
from streams.correlations.model import Covariance


@dataclass(frozen=True, slots=True)
class Ewma:
    """S(t) = decay S(t-1) + (1 - decay) r(t) r(t)', with log returns r of mean zero.

    (J.P. Morgan/Reuters, *RiskMetrics Technical Document*, 4th ed. 1996, section 5.2; decay is its lambda.)

    For symbols that start late and panels with gaps, what follows keeps S positive semidefinite, always:

    - *First return* of some symbols: among them S starts as the outer product of these returns; towards
      symbols that started earlier it is (1 - decay) r r', as if their covariance had been 0 before.
    - *No bar in this snapshot* (stale): no return. Variances of stale symbols and covariances among them
      stay as they are. The covariance of a stale symbol with a fresh one is multiplied by sqrt(decay), as
      the memory of the fresh one's scale is (left alone, it would outlive the variance beside it:
      correlations above 1).
    - *Back after a gap*: the return since its last close, as one observation.

    Raises:
        ValueError: ``decay`` is not in (0, 1).
    """

    decay: float

    name: ClassVar[str] = "ewma"

    def __post_init__(self) -> None:
        if not 0.0 < self.decay < 1.0:
            raise ValueError(f"decay must be above 0 and below 1, not {self.decay}")

    def step(self, state: EwmaState, closes: Mapping[str, float]) -> tuple[EwmaState, Covariance]:
        """Take one snapshot's closes; see `CovarianceModel.step`."""
        if not closes.keys() <= set(state.symbols):
            _admit(state, closes)
        n = len(state.symbols)
        returns = np.zeros(n)
        fresh = np.zeros(n, dtype=bool)
        first = np.zeros(n, dtype=bool)
        for i, symbol in enumerate(state.symbols):
            close = closes.get(symbol)
            if close is None:
                continue
            last, state.closes[i] = state.closes[i], close
            if last is not None:
                returns[i] = math.log(close / last)
                fresh[i] = True
                first[i] = state.observations[i] == 0
                state.observations[i] += 1
        row, column = packed.triangle(n)
        shrink = np.where(fresh, math.sqrt(self.decay), 1.0)
        kept = np.where(fresh[row] & fresh[column], self.decay, shrink[row] * shrink[column])
        added = np.where(first[row] & first[column], 1.0, 1.0 - self.decay)
        covariance = kept * np.array(state.covariance) + added * (returns[row] * returns[column])
        state.covariance = covariance.tolist()
        matrix = packed.unpack(covariance, n)
        return state, Covariance(tuple(state.symbols), matrix, tuple(state.observations))


def _admit(state: EwmaState, closes: Mapping[str, float]) -> None:
    """Make room for the symbols that are new; their covariances are 0 until their first return."""
    before = {symbol: k for k, symbol in enumerate(state.symbols)}
    state.symbols = sorted(before.keys() | closes.keys())
    old = [k for k, symbol in enumerate(state.symbols) if symbol in before]
    grown = np.zeros((len(state.symbols), len(state.symbols)))
    grown[np.ix_(old, old)] = packed.unpack(state.covariance, len(before))
    state.covariance = packed.pack(grown).tolist()
    closes_before, observations_before = state.closes, state.observations
    state.closes = [closes_before[before[s]] if s in before else None for s in state.symbols]
    state.observations = [observations_before[before[s]] if s in before else 0 for s in state.symbols]
