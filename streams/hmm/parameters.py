"""The parameters of one symbol's hidden Markov model, as a `Fit` record carries them and as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.records import Label
from streams.correlations.packed import Floats
from streams.hmm.features import FEATURES

_WORDS = tuple(Label)
"""In the order of their codes in the records: append only."""


@dataclass(frozen=True, slots=True)
class HmmParameters:
    """K Gaussian states over d features, and the word that stands for each.

    ``start`` (K,) are the probabilities behind the data of the fit, ``transition`` (K, K) has rows that sum to 1,
    ``means`` (K, d) and ``covariances`` (K, d, d) are of features less ``centre`` (d,) and over ``scale`` (d,).
    """

    words: tuple[Label, ...]
    start: Floats
    transition: Floats
    means: Floats
    covariances: Floats
    centre: Floats
    scale: Floats

    def to_record(self, symbol: str) -> dict[str, tuple[float, ...]]:
        """Its part of the ``parameters`` of a `Fit`."""
        told = {
            "words": np.array([_WORDS.index(word) for word in self.words], dtype=np.float64),
            "start": self.start,
            "transition": self.transition,
            "means": self.means,
            "covariances": self.covariances,
            "centre": self.centre,
            "scale": self.scale,
        }
        return {f"{symbol}/{name}": tuple(values.ravel().tolist()) for name, values in told.items()}

    def roots(self) -> tuple[Floats, Floats]:
        """Inverse Cholesky factors (K, d, d) and constants (K,); see `streams.hmm.filter.filtered`."""
        factors = np.linalg.cholesky(self.covariances)
        d = self.means.shape[1]
        determinants = 2.0 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        return np.linalg.inv(factors), -0.5 * (d * math.log(2.0 * math.pi) + determinants)


def symbols_of(told: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """The symbols whose models a `Fit` carries, sorted."""
    return tuple(sorted(name.removesuffix("/words") for name in told if name.endswith("/words")))


def from_record(symbol: str, told: Mapping[str, Sequence[float]]) -> HmmParameters:
    """One symbol's. Raises KeyError, ValueError or IndexError where the record carries something else."""

    def array(name: str, *shape: int) -> NDArray[np.float64]:
        return np.array(told[f"{symbol}/{name}"], dtype=np.float64).reshape(shape)

    words = tuple(_WORDS[int(code)] for code in told[f"{symbol}/words"])
    states, d = len(words), len(FEATURES)
    return HmmParameters(
        words=words,
        start=array("start", states),
        transition=array("transition", states, states),
        means=array("means", states, d),
        covariances=array("covariances", states, d, d),
        centre=array("centre", d),
        scale=array("scale", d),
    )
