"""What a covariance model is: the interface that EWMA satisfies and the next models take over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from schemas.states import State
from streams.correlations import packed


class Covariance(NamedTuple):
    """A model's view after a snapshot: the covariance of log returns per bar, and what it rests on."""

    symbols: tuple[str, ...]
    matrix: packed.Floats
    """Shape (n, n), in the order of ``symbols``; 0 where nothing is known yet."""
    observations: tuple[int, ...]
    """Returns seen, by symbol."""
    fit: int | None = None
    """Version of the fit behind it; None for models without."""

    def of(self, symbols: Sequence[str]) -> Covariance:
        """The part for ``symbols``, in their order; one unknown to the model is all 0 and unobserved."""
        if self.symbols == tuple(symbols):
            return self
        where = {symbol: i for i, symbol in enumerate(self.symbols)}
        known = [k for k, symbol in enumerate(symbols) if symbol in where]
        chosen = [where[symbols[k]] for k in known]
        matrix = np.zeros((len(symbols), len(symbols)))
        matrix[np.ix_(known, known)] = self.matrix[np.ix_(chosen, chosen)]
        observations = [0] * len(symbols)
        for k, i in zip(known, chosen, strict=True):
            observations[k] = self.observations[i]
        return Covariance(tuple(symbols), matrix, tuple(observations), self.fit)

    def warm(self, warm_up: int) -> bool:
        """Whether there are symbols and each has ``warm_up`` returns behind it."""
        return bool(self.symbols) and min(self.observations) >= warm_up

    def packed(self) -> tuple[float, ...]:
        """The upper triangle with the diagonal, by rows: n(n+1)/2 values."""
        return tuple(packed.pack(self.matrix).tolist())

    def volatilities(self) -> tuple[float, ...]:
        """Standard deviations of the log return per bar, by symbol."""
        return tuple(np.sqrt(self.matrix.diagonal()).tolist())

    def correlations(self) -> tuple[float, ...]:
        """The upper triangle without the diagonal, by rows, in [-1, 1]; 0 where a volatility is 0."""
        volatility = np.sqrt(self.matrix.diagonal())
        i, j = np.triu_indices(len(self.symbols), k=1)
        scale = volatility[i] * volatility[j]
        ratio = np.divide(self.matrix[i, j], scale, out=np.zeros_like(scale), where=scale > 0.0)
        return tuple(np.clip(ratio, -1.0, 1.0).tolist())


def average(correlations: Sequence[float]) -> float:
    """Their mean; 0 where there are none."""
    return math.fsum(correlations) / len(correlations) if correlations else 0.0


S = TypeVar("S", bound=State)


class CovarianceModel(Protocol[S]):
    """A pure fold of closes into a covariance: its memory is in the state, its parameters in itself."""

    @property
    def name(self) -> str:
        """What results call it, for example ``ewma``."""
        ...

    def step(self, state: S, closes: Mapping[str, float]) -> tuple[S, Covariance]:
        """Take one snapshot's closes: > 0, by symbol, only of symbols with a bar of their own in it.

        Owns ``state``, may update it in place, and returns it with the covariance of all symbols seen so far.
        """
        ...
